"""Bad days of a finwatcher: nothing counts twice, is overwritten, or is forgotten."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial

import pytest

from module.model.accounts import BillKind, Position
from module.model.errors import Rejected, Unavailable
from module.model.market import MarketType
from module.model.orders import Fill, Side
from module.model.results import GapCause, IndicatorRow, MinuteRows, PlannedOrder, TradeSums
from monitoring.indicators import DAYS_PER_YEAR, IndicatorState, replay
from monitoring.ledger import OVERLAP
from monitoring.minute import Finwatcher
from monitoring.resuming import resume_curve
from monitoring.spool import Spool, record_line, record_of_line
from tests.fakes.watched_account import (
    MINUTE,
    START,
    bill,
    closed,
    fill,
    minute,
    position,
    session,
)
from tests.fakes.watched_session import Watched


def indicators(watched: Watched, number: int) -> IndicatorRow:
    row = watched.results.minutes[minute(number)].indicators
    assert row is not None
    return row


# --- clocks ---------------------------------------------------------------------------------------


def test_C7_a_minute_stays_as_it_was_measured_while_the_clock_is_set_back(
    watched: Watched,
) -> None:
    watched.run_minutes(0, 6)
    before = dict(watched.results.minutes)
    watched.exchange.wallet = Decimal(7_777)
    for number in (2, 3, 4):
        watched.clock.time = minute(number)
        assert watched.watcher.step().measured
    assert watched.results.minutes == before
    watched.run_minutes(5, 7)
    assert watched.portfolio(7).current_pv == Decimal(7_827)
    assert indicators(watched, 7).returns_1min == 8
    watched.assert_no_silent_gap(7)


def test_C7_the_last_row_does_not_replace_an_old_one(watched: Watched) -> None:
    watched.run_minutes(0, 6)
    before = dict(watched.results.minutes)
    watched.exchange.wallet = Decimal(7_777)
    watched.clock.time = minute(2)
    watched.watcher.step(final=True)
    assert watched.results.minutes == before
    watched.clock.time = minute(6) + timedelta(seconds=40)
    watched.watcher.step(final=True)
    assert watched.portfolio(6).current_pv == Decimal(7_827)


def test_C7_a_clock_that_leaps_an_hour_leaves_gaps_that_are_measured_once_it_is_right(
    watched: Watched,
) -> None:
    watched.run_minutes(0, 1)
    watched.clock.time = minute(61)
    watched.watcher.step()
    assert set(watched.results.gap_rows) == {minute(number) for number in range(2, 61)}
    watched.clock.time = minute(2)
    assert watched.watcher.step().measured
    assert watched.portfolio(2).measured_at == minute(2)
    watched.assert_no_silent_gap(61)


# --- history --------------------------------------------------------------------------------------


def test_a_fill_that_is_published_after_newer_ones_counts_once(watched: Watched) -> None:
    watched.exchange.all_fills.append(fill(2, minute(4), pnl="2"))
    watched.run_minutes(0, 5)
    watched.exchange.all_fills.insert(0, fill(1, minute(1), pnl="40"))
    watched.run_minutes(6, 8)
    assert watched.portfolio(5).realized_pnl == Decimal(2)
    assert watched.portfolio(6).realized_pnl == watched.portfolio(8).realized_pnl == Decimal(42)
    assert set(watched.results.transactions) == {("fill", "trade-1"), ("fill", "trade-2")}


def test_a_fill_that_is_published_long_after_newer_ones_is_found_within_the_hour(
    watched: Watched,
) -> None:
    watched.exchange.all_fills.append(fill(2, minute(40), pnl="2"))
    watched.run_minutes(0, 45)
    watched.exchange.all_fills.insert(0, fill(1, minute(1), pnl="40"))  # far behind the overlap
    watched.run_minutes(46, 47)
    assert watched.portfolio(47).realized_pnl == Decimal(2)
    watched.run_minutes(48, 61)
    assert watched.portfolio(60).realized_pnl == watched.portfolio(61).realized_pnl == Decimal(42)
    assert set(watched.results.transactions) == {("fill", "trade-1"), ("fill", "trade-2")}
    ledger = watched.watcher.ledger
    assert ledger is not None
    assert ledger.since("fill") == minute(40) - OVERLAP  # an ordinary minute asks for little


def test_E12_a_fill_that_a_full_spool_did_not_take_is_stored_once_postgres_is_back(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitoring.minute.Spool", partial(Spool, detail_bytes_max=0))
    watched.new_process()
    watched.run_minutes(0, 0)
    watched.results.away = True
    watched.run_minutes(1, 1)
    watched.exchange.all_fills.append(fill(1, minute(1) + MINUTE / 2, pnl="40"))
    watched.run_minutes(2, 5)
    assert watched.watcher.ledger is None  # what it counts is not what is stored
    watched.results.away = False
    watched.run_minutes(6, 7)
    assert set(watched.results.transactions) == {("fill", "trade-1")}
    assert watched.portfolio(6).realized_pnl == watched.portfolio(7).realized_pnl == Decimal(40)


def test_E12_newer_fills_of_another_hide_none_that_a_full_spool_did_not_take(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitoring.minute.Spool", partial(Spool, detail_bytes_max=0))
    watched.new_process()
    watched.run_minutes(0, 0)
    watched.results.away = True
    watched.run_minutes(1, 1)
    early, late = fill(1, minute(1) + MINUTE / 2, pnl="40"), fill(2, minute(29), pnl="2")
    watched.exchange.all_fills = [early]
    watched.run_minutes(2, 28)
    watched.results.away = False
    watched.exchange.all_fills = [late]
    watched.clock.time = minute(30)
    Finwatcher(replace(watched.wiring(), folder=watched.folder / "another")).step()
    assert set(watched.results.transactions) == {("fill", "trade-2")}
    watched.exchange.all_fills = [early, late]
    watched.run_minutes(31, 32)
    assert watched.portfolio(31).realized_pnl == watched.portfolio(32).realized_pnl == Decimal(42)
    assert set(watched.results.transactions) == {("fill", "trade-1"), ("fill", "trade-2")}


@pytest.mark.parametrize("look", ["as the process starts", "once the session is over"])
def test_a_fill_that_is_published_very_late_is_found(watched: Watched, look: str) -> None:
    watched.exchange.all_fills.append(fill(2, minute(20), pnl="2"))
    watched.run_minutes(0, 25)
    watched.exchange.all_fills.insert(0, fill(1, minute(1), pnl="40"))
    if look == "as the process starts":
        watched.new_process()
    else:
        ended_at = minute(25) + MINUTE / 2
        watched.sessions.current = replace(session(), is_over=True, ended_at=ended_at)
    watched.run_minutes(26, 26)
    assert watched.portfolio(26).realized_pnl == Decimal(42)


def test_a_transfer_whose_bill_comes_late_leaves_the_return_as_it_was(watched: Watched) -> None:
    watched.run_minutes(0, 0)
    watched.exchange.wallet += 500
    watched.run_minutes(1, 1)
    watched.exchange.all_bills.append(bill(1, minute(1), BillKind.TRANSFER, "500"))
    watched.run_minutes(2, 2)
    before = indicators(watched, 0).cumulative_return
    after = indicators(watched, 2).cumulative_return
    assert before is not None
    assert after is not None
    assert abs(after - before) < 1e-12


def test_what_was_traded_last_is_stored_when_the_exchange_comes_back_after_the_end(
    watched: Watched,
) -> None:
    watched.run_minutes(0, 1)
    ended_at = minute(1) + timedelta(seconds=20)
    watched.exchange.all_fills.append(fill(1, ended_at - timedelta(seconds=2), pnl="5"))
    watched.sessions.current = session(is_over=True, ended_at=ended_at)
    watched.exchange.down = Unavailable("the gateway answered 503")
    watched.clock.time = minute(2)
    assert not watched.watcher.step().session_over
    watched.exchange.down = None
    watched.exchange.all_fills.append(fill(2, minute(2) + timedelta(seconds=9), pnl="99"))
    watched.clock.time = minute(3)
    assert watched.watcher.step().session_over
    assert set(watched.results.transactions) == {("fill", "trade-1")}, "the other is not its own"
    assert watched.results.gap_rows[minute(2)].cause is GapCause.EXCHANGE_UNREACHABLE
    watched.assert_no_silent_gap(2)


def test_an_exchange_that_stays_away_after_the_end_is_waited_for_an_hour(
    watched: Watched,
) -> None:
    watched.run_minutes(0, 1)
    watched.sessions.current = session(is_over=True, ended_at=minute(1) + timedelta(seconds=20))
    watched.exchange.down = Unavailable("the gateway answered 503")
    watched.clock.time = minute(62)
    assert not watched.watcher.step().session_over
    watched.clock.time = minute(63)
    assert watched.watcher.step().session_over


def test_a_kill_between_history_and_minute_counts_nothing_twice(watched: Watched) -> None:
    watched.run_minutes(0, 0)
    watched.exchange.all_closed.append(closed(1, minute(1), "2.5"))
    watched.exchange.all_fills.append(fill(1, minute(1), pnl="2.5"))
    watched.clock.time = minute(1)
    store, watched.results.store_minute = watched.results.store_minute, _killed  # type: ignore[method-assign,assignment]
    with suppress(KeyboardInterrupt):
        watched.watcher.step()
    watched.results.store_minute = store  # type: ignore[method-assign]
    watched.new_process()
    watched.run_minutes(2, 3)
    watched.assert_no_silent_gap(3)
    assert set(watched.results.gap_rows) == {minute(1)}
    assert len(watched.results.transactions) == len(watched.results.closed) == 1


def _killed(*_arguments: object) -> None:
    raise KeyboardInterrupt


# --- Postgres -------------------------------------------------------------------------------------


def test_E1_postgres_away_over_a_days_end_leaves_the_daily_numbers_as_they_are(
    watched: Watched,
) -> None:
    midnight = 14 * 60 + 42 - 1  # the session begins at 09:17:41
    watched.run_minutes(0, 0)
    watched.clock.time = minute(midnight - 3)
    watched.watcher.step()
    watched.results.away = True
    for number in range(midnight - 2, midnight + 3):
        watched.exchange.wallet += 10
        watched.run_minutes(number, number)
    watched.results.away = False
    watched.run_minutes(midnight + 3, midnight + 3)
    last = indicators(watched, midnight + 3)
    assert last.returns_1day == 2
    whole = replay(None, watched.results.curve(session(), None))
    assert whole is not None
    assert whole.read(_sums(watched)) == last
    watched.new_process()
    watched.run_minutes(midnight + 4, midnight + 4)
    assert indicators(watched, midnight + 4).returns_1day == 2
    assert indicators(watched, midnight + 4).returns_1min == last.returns_1min + 1


def _sums(watched: Watched) -> TradeSums:
    ledger = watched.watcher.ledger
    assert ledger is not None
    return ledger.sums


def test_a_state_of_an_older_version_is_built_again_from_the_rows(watched: Watched) -> None:
    watched.run_minutes(0, 5)
    kept = dict(watched.results.state or {})
    watched.results.state = {"version": 1, "minute": kept["minute"], "pv": "1"}
    watched.new_process()
    watched.exchange.wallet += 25
    watched.run_minutes(6, 6)
    row = indicators(watched, 6)
    assert row.returns_1min == 7
    assert watched.results.state is not None
    assert watched.results.state["version"] == kept["version"]
    whole = replay(None, watched.results.curve(session(), None))
    assert whole is not None
    assert whole.to_document() == watched.results.state


def assert_every_row_has_its_indicators(watched: Watched) -> None:
    """As one curve without any trouble would have told them."""
    curve = watched.results.curve(session(), None)
    for number, point in enumerate(curve):
        state = replay(None, curve[: number + 1])
        row = watched.results.minutes[point.minute].indicators
        assert state is not None
        assert row is not None, point.minute
        assert row == state.read(TradeSums(trades=row.trades))


def test_E1_minutes_of_a_process_that_began_without_postgres_get_their_indicators(
    watched: Watched,
) -> None:
    watched.run_minutes(0, 2)
    watched.new_process()
    watched.results.away = True
    for number in range(3, 8):
        watched.exchange.wallet += number
        watched.run_minutes(number, number)
    watched.results.away = False
    watched.run_minutes(8, 9)
    assert watched.results.measured() == {minute(number) for number in range(10)}
    assert_every_row_has_its_indicators(watched)


def test_E12_minutes_of_a_full_spool_get_their_indicators_later(watched: Watched) -> None:
    watched.run_minutes(0, 2)
    watched.results.away = True
    watched.run_minutes(3, 4)
    spool = watched.folder / "finwatcher.spool"
    shed = [_without_detail(line) for line in spool.read_text().splitlines()]
    spool.write_text("".join(shed))
    watched.run_minutes(5, 5)
    watched.results.away = False
    watched.run_minutes(6, 7)
    assert_every_row_has_its_indicators(watched)


def _without_detail(line: str) -> str:
    record = record_of_line(line)
    assert isinstance(record, MinuteRows)
    return record_line(replace(record, symbols=None, indicators=None))


def test_a_minute_whose_indicators_failed_gets_them_with_the_next(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.run_minutes(0, 2)
    with monkeypatch.context() as patch:
        patch.setattr(IndicatorState, "read", _failing)
        watched.run_minutes(3, 3)
        assert watched.results.minutes[minute(3)].indicators is None
    watched.run_minutes(4, 5)
    assert_every_row_has_its_indicators(watched)


def _failing(*_arguments: object) -> None:
    raise ArithmeticError("broken")


def test_a_long_backlog_of_indicators_is_filled_in_in_bounded_steps(watched: Watched) -> None:
    watched.run_minutes(0, 30)
    kept, rows = watched.results.state, watched.results.minutes
    for at in [minute(number) for number in range(10, 31)]:
        rows[at] = replace(rows[at], indicators=None)
    early = replay(None, watched.results.curve(session(), None)[:10])
    assert early is not None
    watched.results.state = early.to_document()
    told = []
    while True:
        found = resume_curve(
            watched.results, session(), "w", lambda *_: None, DAYS_PER_YEAR, rows_max=8
        )
        told.append(sum(row.indicators is not None for row in rows.values()))
        if found[1]:
            break
    assert told == [18, 26, 31]
    assert found[0] is not None
    assert found[0].to_document() == kept
    assert_every_row_has_its_indicators(watched)


# --- two of them ----------------------------------------------------------------------------------


def test_E7_two_finwatchers_at_once_make_one_curve_and_one_history(watched: Watched) -> None:
    first, second = watched.watcher, Finwatcher(watched.wiring(), "another")
    watched.exchange.all_fills.append(fill(1, minute(2), pnl="3"))
    for number in range(8):
        watched.clock.time = minute(number)
        watched.exchange.wallet += number
        order = (first, second) if number % 3 else (second, first)
        for watcher in order:
            watcher.step()
    writers = {rows.writer for rows in watched.results.minutes.values()}
    assert len(writers) == 2
    watched.assert_no_silent_gap(7)
    assert len(watched.results.transactions) == 1
    whole = replay(None, watched.results.curve(session(), None))
    assert whole is not None
    assert indicators(watched, 7).returns_1min == 8
    assert indicators(watched, 7).volatility_1min == whole.read(_sums(watched)).volatility_1min


# --- decisions, protection ------------------------------------------------------------------------


def test_a_fill_knows_what_its_leg_was_decided_at(watched: Watched) -> None:
    watched.exchange.all_fills += [
        fill(1, minute(1)),
        replace(fill(2, minute(1)), side=Side.SELL),
        fill(3, minute(1)),
    ]
    watched.sessions.planned = {
        "order-1": PlannedOrder("af-1", Decimal(60_900)),
        "order-2": PlannedOrder("af-2", Decimal(61_050)),
    }
    watched.run_minutes(0, 1)
    stored = watched.results.transactions
    assert [
        (stored["fill", f"trade-{n}"].client_id, stored["fill", f"trade-{n}"].decision_price)
        for n in (1, 2, 3)
    ] == [("af-1", Decimal(60_900)), ("af-2", Decimal(61_050)), (None, None)]
    row = indicators(watched, 1)
    assert row.slippage_cost == Decimal("7.5")
    assert row.slippage_bps == pytest.approx(7.5 / 6100 * 10_000)
    assert row.traded_notional == Decimal(9_150)
    assert watched.portfolio(1).flags == ""


def test_a_minute_does_not_wait_for_decisions_that_cannot_be_read(watched: Watched) -> None:
    watched.sessions.bare_s = 12.5
    watched.run_minutes(0, 0)
    assert watched.portfolio(0).unprotected_s == 12.5
    watched.exchange.all_fills.append(fill(1, minute(1)))
    watched.sessions.away = True
    watched.run_minutes(1, 1)
    assert watched.portfolio(1).flags == "decisions-unknown"
    assert watched.portfolio(1).unprotected_s is None
    assert indicators(watched, 1).slippage_bps is None
    assert ("fill", "trade-1") in watched.results.transactions


# --- spot -----------------------------------------------------------------------------------------


def coin(size: str, mark: str) -> Position:
    value = Decimal(size) * Decimal(mark)
    return replace(position(size=size, mark=mark, margin=str(value), pnl="0"), leverage=Decimal(1))


def spot_fill(number: int, side: Side, price: str) -> Fill:
    return replace(
        fill(number, minute(number), fee="-3"),
        side=side,
        price=Decimal(price),
        quote_size=Decimal(price) * Decimal("0.05"),
    )


def test_a_spot_session_has_round_trips_with_their_win(watched: Watched) -> None:
    watched.sessions.current = session(market=MarketType.SPOT, leverage=Decimal(1))
    watched.exchange.all_closed.append(closed(9, minute(1), "1"))
    watched.exchange.all_fills.append(spot_fill(1, Side.BUY, "60000"))
    watched.exchange.positions = (coin("0.05", "61000"),)
    watched.run_minutes(0, 1)
    symbols = watched.results.minutes[minute(1)].symbols
    assert symbols is not None
    assert (symbols[0].entry_price, symbols[0].unrealized_pnl) == (Decimal(60_000), Decimal(50))
    watched.exchange.all_fills.append(spot_fill(2, Side.SELL, "61000"))
    watched.exchange.positions = ()
    watched.run_minutes(2, 3)
    (trip,) = watched.results.closed.values()
    assert trip.net_profit == Decimal(44)  # type: ignore[attr-defined]
    row = indicators(watched, 3)
    assert (row.trades, row.win_rate, row.average_win) == (1, 1.0, Decimal(44))
    assert watched.portfolio(3).realized_pnl == Decimal(50)


def test_coins_sent_into_a_spot_account_are_no_profit(watched: Watched) -> None:
    watched.sessions.current = session(market=MarketType.SPOT, leverage=Decimal(1))
    watched.exchange.positions = ()
    watched.run_minutes(0, 0)
    watched.exchange.positions = (coin("0.05", "61000"),)
    watched.exchange.wallet += 3_050
    at = minute(0) + timedelta(seconds=30)
    watched.exchange.all_bills.append(bill(1, at, BillKind.TRANSFER, "0.05", asset="BTC"))
    watched.run_minutes(1, 1)
    row = watched.portfolio(1)
    assert (row.net_transfers, row.netprofit) == (Decimal(3_050), Decimal(0))
    assert indicators(watched, 1).cumulative_return == 0.0


def test_a_coin_that_has_left_again_is_valued_at_the_venues_price(watched: Watched) -> None:
    watched.sessions.current = session(market=MarketType.SPOT, leverage=Decimal(1))
    watched.exchange.positions = ()
    watched.exchange.marks = {"ETHUSDT": Decimal(2_000)}
    at = START + timedelta(seconds=2)
    watched.exchange.all_bills += [
        bill(1, at, BillKind.TRANSFER, "0.5", asset="ETH"),
        bill(2, at, BillKind.TRANSFER, "7", asset="XYZ"),
    ]
    watched.run_minutes(0, 0)
    assert watched.portfolio(0).net_transfers == Decimal(1_000)


def test_prices_that_cannot_be_asked_fail_the_part_and_the_next_minute_mends_it(
    watched: Watched,
) -> None:
    watched.sessions.current = session(market=MarketType.SPOT, leverage=Decimal(1))
    watched.exchange.positions = ()
    watched.exchange.all_bills.append(
        bill(1, START + timedelta(seconds=2), BillKind.TRANSFER, "0.5", asset="ETH")
    )
    quotes = watched.exchange.instruments

    def refused() -> None:
        raise Rejected("no instruments now")

    watched.exchange.instruments = refused  # type: ignore[method-assign,assignment]
    watched.run_minutes(0, 0)
    assert watched.portfolio(0).flags == "history-stale"
    (alert,) = watched.alerts.of_kind("part-failed")
    assert "StackSpotHistoricalTx" in alert.title
    watched.exchange.instruments = quotes  # type: ignore[method-assign]
    watched.exchange.marks = {"ETHUSDT": Decimal(2_000)}
    watched.run_minutes(1, 1)
    assert watched.portfolio(1).net_transfers == Decimal(1_000)


def test_minutes_follow_one_another_without_a_step_too_many(watched: Watched) -> None:
    watched.run_minutes(0, 3)
    report = watched.watcher.step()
    assert (report.measured, report.gaps, report.minute) == (True, 0, minute(3))
    assert report.minute + MINUTE == minute(4)
