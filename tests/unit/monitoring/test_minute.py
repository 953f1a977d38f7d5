"""Every minute of a session has its rows or a gap with its cause, whatever fails."""

from __future__ import annotations

import os
import signal
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from module.alerts.messages import for_discord, for_slack
from module.model.accounts import BillKind
from module.model.errors import NotFound, Unavailable
from module.model.market import MarketType
from module.model.results import GapCause
from monitoring.finwatcher import FinwatcherWiring, run_finwatcher
from tests.fakes.watched_account import (
    MINUTE,
    SESSION_ID,
    START,
    bill,
    closed,
    fill,
    minute,
    position,
    session,
)
from tests.fakes.watched_session import Watched


def test_a_minute_has_portfolio_symbols_and_indicators(watched: Watched) -> None:
    watched.exchange.all_fills.append(fill(1, START + timedelta(seconds=3), fee="-1.5"))
    watched.exchange.all_bills.append(
        bill(1, START + timedelta(seconds=9), BillKind.TRANSFER, "500")
    )
    watched.exchange.all_closed.append(closed(1, START + timedelta(seconds=5), "2.5"))
    watched.exchange.wallet = Decimal(10_620)
    watched.run_minutes(0, 1)
    rows = watched.results.minutes[minute(1)]
    portfolio = watched.portfolio(1)
    assert (portfolio.current_pv, portfolio.available) == (Decimal(10_670), Decimal(10_500))
    assert (portfolio.netprofit, portfolio.fees) == (Decimal(170), Decimal("-1.5"))
    assert not portfolio.late
    assert portfolio.measured_at == minute(1)
    assert rows.symbols is not None
    assert [row.symbol for row in rows.symbols] == ["BTCUSDT"]
    assert rows.indicators is not None
    assert (rows.indicators.trades, rows.indicators.trades_won) == (1, 1)
    assert set(watched.results.transactions) == {("fill", "trade-1"), ("bill", "bill-1")}
    assert set(watched.results.closed) == {"position-1"}
    assert watched.alerts.alerts == []


def test_history_is_asked_for_from_the_last_stored_time_on(watched: Watched) -> None:
    watched.exchange.all_fills.append(fill(1, minute(40)))
    watched.run_minutes(0, 0)
    watched.run_minutes(40, 41)
    assert watched.exchange.asked_since[0] == START
    assert watched.exchange.asked_since[-1] == minute(30)


def test_spot_accounts_go_through_the_same_parts(watched: Watched) -> None:
    watched.sessions.current = session(market=MarketType.SPOT)
    watched.exchange.history_down = RuntimeError("broken")
    watched.run_minutes(0, 0)
    assert watched.results.minutes[minute(0)].market is MarketType.SPOT
    (alert,) = watched.alerts.of_kind("part-failed")
    assert alert.title == "[Spot] StackSpotHistoricalTx Partial Failure"


def test_a_part_that_fails_is_alerted_by_name_and_the_others_go_on(watched: Watched) -> None:
    watched.exchange.positions = (position(mark="NaN"),)
    watched.run_minutes(0, 0)
    names = [alert.title for alert in watched.alerts.of_kind("part-failed")]
    assert names == [
        "[Futures] StackFuturesPfResult Partial Failure",
        "[Futures] StackFuturesResult Partial Failure",
    ]
    watched.exchange.positions = (position(),)
    watched.run_minutes(1, 1)
    watched.assert_no_silent_gap(1)
    assert watched.results.gap_rows[minute(0)].cause is GapCause.PART_FAILED


def test_people_read_the_owners_name_in_what_they_are_told(watched: Watched) -> None:
    watched.sessions.current = session(owner_name="Ada <Quill>")
    watched.exchange.history_down = RuntimeError("broken")
    watched.run_minutes(0, 0)
    (alert,) = watched.alerts.of_kind("part-failed")
    zone = ZoneInfo("Asia/Seoul")
    said = (for_slack(alert, zone).plain, for_discord(alert, zone))
    assert "\n> User: Ada <Quill>\n" in said[0]
    assert "User: Ada \\<Quill\\>" in said[1].replace("\\:", ":")
    assert not any(session().owner_id in text for text in said)
    assert alert.owner_id == session().owner_id


def test_what_the_database_refuses_of_one_part_leaves_the_others(watched: Watched) -> None:
    watched.results.refuses = {"indicators"}
    watched.run_minutes(0, 0)
    assert watched.portfolio(0).current_pv == Decimal(10_050)
    (alert,) = watched.alerts.of_kind("part-failed")
    assert "StackFuturesIndicatorResult" in alert.title
    assert "numeric field overflow" in str(alert.lines)


def test_the_same_failure_is_not_alerted_every_minute(watched: Watched) -> None:
    watched.exchange.history_down = RuntimeError("broken")
    watched.run_minutes(0, 14)
    assert len(watched.alerts.of_kind("part-failed")) == 1
    watched.run_minutes(15, 15)
    assert len(watched.alerts.of_kind("part-failed")) == 2


def test_an_unreachable_exchange_is_a_gap_with_its_cause(watched: Watched) -> None:
    watched.run_minutes(0, 0)
    watched.exchange.down = Unavailable("the gateway answered 503")
    watched.run_minutes(1, 3)
    watched.exchange.down = None
    watched.run_minutes(4, 4)
    watched.assert_no_silent_gap(4)
    assert set(watched.results.gap_rows) == {minute(1), minute(2), minute(3)}
    row = watched.results.gap_rows[minute(2)]
    assert (row.cause, row.detail) == (GapCause.EXCHANGE_UNREACHABLE, "the gateway answered 503")
    assert watched.alerts.of_kind("metrics-gap")


def test_E1_rows_wait_in_the_spool_and_are_filled_in_with_their_times(watched: Watched) -> None:
    watched.run_minutes(0, 1)
    watched.results.away = watched.sessions.away = True
    watched.exchange.all_fills.append(fill(7, minute(3), pnl="4.25"))
    watched.run_minutes(2, 4)
    assert set(watched.results.minutes) == {minute(0), minute(1)}
    assert len(watched.alerts.of_kind("metrics-spooled")) == 1
    watched.results.away = watched.sessions.away = False
    watched.run_minutes(5, 5)
    assert set(watched.results.minutes) == {minute(number) for number in range(6)}
    assert watched.portfolio(3).measured_at == minute(3)
    assert watched.portfolio(3).realized_pnl == Decimal("4.25")
    assert ("fill", "trade-7") in watched.results.transactions
    assert watched.results.gap_rows == {}
    assert watched.results.minutes[minute(4)].indicators is not None


def test_E1_a_restart_while_postgres_is_away_loses_nothing(watched: Watched) -> None:
    watched.run_minutes(0, 2)
    watched.results.away = True
    watched.run_minutes(3, 4)
    watched.new_process()
    watched.run_minutes(8, 9)
    watched.results.away = False
    watched.run_minutes(10, 11)
    watched.assert_no_silent_gap(11)
    assert set(watched.results.gap_rows) == {minute(5), minute(6), minute(7)}
    assert {gap.cause for gap in watched.results.gap_rows.values()} == {GapCause.NOT_RUNNING}
    last = watched.results.minutes[minute(11)].indicators
    assert last is not None
    assert last.returns_1min == 9


def test_gaps_that_happen_while_postgres_is_away_are_filled_in_too(watched: Watched) -> None:
    watched.run_minutes(0, 0)
    watched.results.away = True
    watched.exchange.down = Unavailable("503")
    watched.run_minutes(1, 2)
    watched.exchange.down = None
    watched.run_minutes(3, 3)
    watched.results.away = False
    watched.run_minutes(4, 4)
    watched.assert_no_silent_gap(4)
    assert set(watched.results.gap_rows) == {minute(1), minute(2)}


def test_E4_a_row_that_a_fail_over_forgets_is_stored_again(watched: Watched) -> None:
    watched.run_minutes(0, 1)
    watched.exchange.all_fills.append(fill(7, minute(2), pnl="4.25"))
    watched.run_minutes(2, 2)
    forgotten = watched.results.minutes.pop(minute(2))
    watched.results.transactions.clear()
    watched.run_minutes(3, 4)
    watched.assert_no_silent_gap(4)
    assert watched.results.minutes[minute(2)] == forgotten
    assert watched.portfolio(2).measured_at == minute(2)
    assert ("fill", "trade-7") in watched.results.transactions
    assert watched.results.gap_rows == {}


def test_E4_what_was_stored_again_may_be_forgotten_again(watched: Watched) -> None:
    watched.run_minutes(0, 2)
    for number in range(3, 6):
        del watched.results.minutes[minute(2)]
        watched.run_minutes(number, number)
    watched.assert_no_silent_gap(5)
    assert minute(2) in watched.results.measured()


def test_E4_a_gap_that_a_fail_over_forgets_is_recorded_again(watched: Watched) -> None:
    watched.run_minutes(0, 0)
    watched.exchange.down = Unavailable("the gateway answered 503")
    watched.run_minutes(1, 1)
    watched.exchange.down = None
    watched.results.gap_rows.clear()
    watched.run_minutes(2, 2)
    watched.assert_no_silent_gap(2)
    assert watched.results.gap_rows[minute(1)].cause is GapCause.EXCHANGE_UNREACHABLE


def test_E4_rows_from_the_spool_can_be_forgotten_too(watched: Watched) -> None:
    watched.run_minutes(0, 0)
    watched.results.away = True
    watched.run_minutes(1, 3)
    watched.results.away = False
    watched.run_minutes(4, 4)
    for number in (1, 2, 3):
        del watched.results.minutes[minute(number)]
    watched.run_minutes(5, 5)
    watched.assert_no_silent_gap(5)
    assert watched.portfolio(2).measured_at == minute(2)


def test_E4_what_only_a_dead_process_knew_becomes_a_gap(watched: Watched) -> None:
    watched.run_minutes(0, 4)
    del watched.results.minutes[minute(3)]
    watched.new_process()
    watched.run_minutes(5, 5)
    watched.assert_no_silent_gap(5)
    assert watched.results.gap_rows[minute(3)].cause is GapCause.STORE_LOST


def test_E4_the_last_row_of_a_session_is_seen_to_last(watched: Watched) -> None:
    stop, keep = os.pipe()
    watched.sessions.current = session(is_over=True, ended_at=minute(2))
    forgotten = []
    watched.clock.on_pause = lambda: forgotten.append(watched.results.minutes.pop(minute(2)))
    watched.run_minutes(0, 1)
    watched.clock.time = minute(2)
    run_finwatcher(watched.wiring(), stop)
    os.close(stop)
    os.close(keep)
    watched.assert_no_silent_gap(2)
    assert [watched.results.minutes[minute(2)]] == forgotten


def test_E1_the_process_of_an_ended_session_waits_until_its_rows_are_stored(
    watched: Watched,
) -> None:
    watched.run_minutes(0, 1)
    watched.sessions.current = session(is_over=True, ended_at=minute(2))
    watched.results.away = True
    watched.clock.time = minute(2)
    assert not watched.watcher.step().session_over
    watched.results.away = False
    watched.clock.time = minute(3)
    assert watched.watcher.step().session_over
    watched.assert_no_silent_gap(2)


def test_C7_a_clock_that_is_set_back_as_the_session_ends_leaves_its_last_minute(
    watched: Watched,
) -> None:
    watched.run_minutes(0, 6)
    watched.sessions.current = session(is_over=True, ended_at=minute(6) + timedelta(seconds=4))
    watched.clock.time = minute(2)
    assert not watched.watcher.step().session_over
    watched.clock.time = minute(7)
    assert watched.watcher.step().session_over
    watched.assert_no_silent_gap(7)


def test_E7_a_minute_of_another_process_is_left_alone(watched: Watched) -> None:
    watched.run_minutes(0, 1)
    first = watched.portfolio(1)
    watched.exchange.wallet = Decimal(9_000)
    report = watched.new_process().step()
    assert report.failed == ()
    assert watched.portfolio(1) == first
    watched.run_minutes(2, 2)
    assert watched.portfolio(2).current_pv == Decimal(9_050)
    indicators = watched.results.minutes[minute(2)].indicators
    assert indicators is not None
    assert indicators.returns_1min == 3


def test_E8_a_minute_that_takes_75_s_leaves_late_rows_and_no_silent_gap(watched: Watched) -> None:
    stop, keep = os.pipe()
    watched.exchange.slow_s = 75.0
    watched.clock.interrupt_at = minute(6)
    run_finwatcher(watched.wiring(), stop)
    os.close(stop)
    os.close(keep)
    watched.assert_no_silent_gap(6)
    assert watched.portfolio(1).late
    assert watched.portfolio(1).measured_at == minute(0) + timedelta(seconds=75)
    skipped = {gap.cause for gap in watched.results.gap_rows.values()}
    assert skipped == {GapCause.OVERRUN}


def test_E9_seven_minutes_without_a_finwatcher_are_gaps_with_a_cause(watched: Watched) -> None:
    watched.run_minutes(0, 3)
    before = watched.results.minutes[minute(3)].indicators
    watched.new_process()
    watched.run_minutes(11, 11)
    watched.assert_no_silent_gap(11)
    gaps = watched.results.gap_rows
    assert set(gaps) == {minute(number) for number in range(4, 11)}
    assert {gap.cause for gap in gaps.values()} == {GapCause.NOT_RUNNING}
    (alert,) = watched.alerts.of_kind("metrics-gap")
    assert ("Minutes", "7") in alert.lines
    after = watched.results.minutes[minute(11)].indicators
    assert before is not None
    assert after is not None
    assert after.returns_1min == before.returns_1min + 1


def test_the_minutes_of_a_session_begin_with_its_first_second_zero(watched: Watched) -> None:
    assert watched.watcher.first_due() == minute(0)
    watched.clock.time = minute(0) + timedelta(seconds=20)
    assert watched.new_process().first_due() == minute(0)
    watched.watcher.step()
    assert watched.portfolio(0).late
    assert watched.new_process().first_due() == minute(1)


def test_the_session_that_is_over_gets_a_last_row_and_the_process_ends(watched: Watched) -> None:
    stop, keep = os.pipe()
    ended_at = minute(2) + timedelta(seconds=30)

    def end(until: datetime) -> None:
        if until > ended_at:
            watched.exchange.positions = ()
            watched.sessions.current = session(is_over=True, ended_at=ended_at)

    watched.clock.on_wait = end
    run_finwatcher(watched.wiring(), stop)
    os.close(stop)
    os.close(keep)
    assert max(watched.results.minutes) == minute(3)
    assert watched.portfolio(3).positions == 0
    assert watched.portfolio(2).positions == 1


def test_a_session_that_was_over_long_ago_is_not_measured(watched: Watched) -> None:
    watched.run_minutes(0, 2)
    watched.sessions.current = session(is_over=True, ended_at=minute(5))
    watched.new_process()
    watched.clock.time = minute(30)
    report = watched.watcher.step()
    assert (report.session_over, report.measured) == (True, False)
    assert set(watched.results.gap_rows) == {minute(3), minute(4), minute(5)}


def test_a_stop_writes_the_last_row_again_with_what_is_true_then(watched: Watched) -> None:
    stop, keep = os.pipe()
    watched.clock.interrupt_at = minute(2) + timedelta(seconds=17)
    watched.clock.on_wait = lambda _until: setattr(
        watched.exchange, "wallet", watched.exchange.wallet + 1
    )
    run_finwatcher(watched.wiring(), stop)
    os.close(stop)
    os.close(keep)
    last = watched.portfolio(2)
    assert last.measured_at == minute(2) + timedelta(seconds=17)
    assert last.current_pv == Decimal(10_054)
    assert not last.late
    indicators = watched.results.minutes[minute(2)].indicators
    assert indicators is not None
    assert indicators.returns_1min == 3
    assert indicators.cumulative_return == pytest.approx(10_054 / 10_000 - 1)


def test_sigterm_ends_the_process_with_a_last_row(tmp_path: Path) -> None:
    """A real process: SIGTERM while it waits."""
    from module.clock import SystemClock

    ready, wrote = os.pipe()
    pid = os.fork()
    if pid == 0:
        watched = Watched(tmp_path)
        now = SystemClock().now()
        watched.sessions.current = session(started_at=now)

        class Announcing(SystemClock):
            def wait_readable(self, fds: object, until: object) -> list[int]:
                os.write(wrote, b"w")
                return super().wait_readable(fds, until)  # type: ignore[arg-type]

        wiring = FinwatcherWiring(
            session_id=SESSION_ID,
            clock=Announcing(),
            exchange=watched.exchange,
            sessions=watched.sessions,
            results=watched.results,
            alerts=watched.alerts,
            folder=tmp_path,
        )
        stop, _keep = os.pipe()
        code = 1
        try:
            run_finwatcher(wiring, stop)
            code = 0 if watched.results.minutes else 2
        finally:
            os._exit(code)
    os.close(wrote)
    assert os.read(ready, 1) == b"w"
    os.close(ready)
    os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_session_that_does_not_exist_ends_the_process(watched: Watched) -> None:
    watched.sessions.current = None
    with pytest.raises(NotFound):
        watched.watcher.step()


def test_a_session_that_cannot_be_read_becomes_gaps_once_it_can(watched: Watched) -> None:
    watched.sessions.away = watched.results.away = True
    watched.run_minutes(0, 2)
    watched.sessions.away = watched.results.away = False
    watched.run_minutes(3, 3)
    watched.assert_no_silent_gap(3)
    causes = {gap.cause for gap in watched.results.gap_rows.values()}
    assert causes == {GapCause.SESSION_UNREADABLE}


def test_two_steps_in_one_minute_are_harmless(watched: Watched) -> None:
    watched.run_minutes(0, 0)
    watched.watcher.step()
    watched.clock.time += MINUTE
    watched.watcher.step()
    indicators = watched.results.minutes[minute(1)].indicators
    assert indicators is not None
    assert indicators.returns_1min == 2
