"""Sessions, cycles, letters and minute rows: the model answers as Postgres does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from module.db.repositories.session_records import Leader
from module.model.errors import Conflict, NotFound, RateLimited, StaleWriter
from module.model.market import MarketType
from module.model.results import (
    ClosedPositionRow,
    GapCause,
    GapRow,
    HistoryRows,
    MinuteRows,
    PortfolioRow,
    TransactionRow,
    WatchedSession,
)
from module.model.sessions import DesiredState, EndState, SessionState
from module.ports import CycleRecord
from tests.contract.postgres_model.conftest import Stores
from tests.fakes.stored_rows import NOON

pytestmark = pytest.mark.timeout(60)


def begun(stores: Stores) -> tuple[str, int]:
    """A running session and its epoch."""
    spec = stores.spec(stores.account())
    stores.sessions.create(spec, sessions_max=1000)
    epoch = stores.sessions.take_epoch(spec.session_id)
    stores.sessions.set_state(spec.session_id, SessionState.RUNNING, NOON, epoch=epoch)
    return spec.session_id, epoch


def over(stores: Stores, session_id: str) -> None:
    """End it, so that other cases count no session of this one."""
    stores.sessions.set_state(session_id, SessionState.ENDED, NOON)


def cycle(session_id: str, number: int, **changes: object) -> CycleRecord:
    """The record of a cycle."""
    record = CycleRecord(
        session_id=session_id,
        boundary=NOON + timedelta(minutes=15 * number),
        number=number,
        state="trading",
        reason="",
        started_at=NOON,
        ended_at=None,
        own_ms=1.5,
        targets={"BTCUSDT": {"weight": "0.25"}},
        order_info=None,
        digest=None,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def test_one_session_per_account_and_so_many_altogether(stores: Stores) -> None:
    spec = stores.spec(stores.account())
    stores.sessions.create(spec, sessions_max=1000)
    with pytest.raises(Conflict):
        again = replace(spec, session_id=spec.session_id[:-1] + "7")
        stores.sessions.create(again, sessions_max=1000)
    with pytest.raises(RateLimited):
        stores.sessions.create(stores.spec(stores.account()), sessions_max=1)
    living = stores.sessions.living_on_account(spec.account_id)
    assert living is not None
    assert (living.session_id, living.state) == (spec.session_id, SessionState.STARTING)
    assert stores.accounts.living_session(spec.account_id) == spec.session_id
    with pytest.raises(Conflict):
        stores.accounts.switch_off(spec.account_id, erase_keys=False)
    over(stores, spec.session_id)
    assert stores.sessions.living_on_account(spec.account_id) is None
    assert spec.session_id not in stores.sessions.active()


def test_a_new_epoch_puts_the_older_leader_out(stores: Stores) -> None:
    session_id, old = begun(stores)
    assert old == 8
    new = stores.sessions.take_epoch(session_id)
    assert new == old + 1
    with pytest.raises(StaleWriter):
        stores.sessions.heartbeat(session_id, old, NOON)
    with pytest.raises(StaleWriter):
        stores.sessions.set_state(session_id, SessionState.STOPPING, NOON, epoch=old)
    with pytest.raises(StaleWriter):
        stores.sessions.record_cycle(old, cycle(session_id, 1))
    with pytest.raises(StaleWriter):
        stores.sessions.set_initial_balance(session_id, old, Decimal(1))
    wishes = stores.sessions.heartbeat(session_id, new, NOON)
    assert (wishes.desired, wishes.state) == (DesiredState.RUNNING, SessionState.RUNNING)
    assert stores.sessions.get(session_id).heartbeat_wall == NOON
    over(stores, session_id)


def test_states_move_along_the_table_and_the_first_reason_stays(stores: Stores) -> None:
    session_id, epoch = begun(stores)
    with pytest.raises(Conflict):
        stores.sessions.set_state(session_id, SessionState.STARTING, NOON)
    stores.sessions.set_desired(session_id, DesiredState.STOPPED, EndState.FLAT)
    stores.sessions.set_state(session_id, SessionState.STOPPING, NOON, reason="asked", epoch=epoch)
    stores.sessions.set_state(session_id, SessionState.STOPPING, NOON, reason="again", epoch=epoch)
    with pytest.raises(Conflict):
        stores.sessions.set_desired(session_id, DesiredState.STOPPED, EndState.PROTECTED)
    ended = stores.sessions.set_state(session_id, SessionState.ENDED, NOON, epoch=epoch)
    assert (ended.reason, ended.ended_at, ended.end_state) == ("asked", NOON, EndState.FLAT)
    with pytest.raises(Conflict):
        stores.sessions.take_epoch(session_id)
    with pytest.raises(Conflict):
        stores.sessions.set_desired(session_id, DesiredState.STOPPED)
    with pytest.raises(NotFound):
        stores.sessions.get("2611211200-none")


def test_leader_restarts_and_the_first_balance_are_kept(stores: Stores) -> None:
    session_id, epoch = begun(stores)
    stores.sessions.record_leader(session_id, Leader(7, 77, "here"))
    assert [stores.sessions.record_restart(session_id) for _ in range(2)] == [1, 2]
    stores.sessions.set_initial_balance(session_id, epoch, Decimal("9007.25"))
    stores.sessions.set_initial_balance(session_id, epoch, Decimal(1))
    record = stores.sessions.get(session_id)
    assert (record.leader, record.initial_balance) == (Leader(7, 77, "here"), Decimal("9007.25"))
    over(stores, session_id)


def test_a_cycle_is_written_again_and_again_and_the_newest_targets_count(stores: Stores) -> None:
    session_id, epoch = begun(stores)
    stores.sessions.record_cycle(epoch, cycle(session_id, 2))
    stores.sessions.record_cycle(epoch, cycle(session_id, 2, state="done"))
    stores.sessions.record_cycle(epoch, cycle(session_id, 1))
    stores.sessions.record_cycle(epoch, cycle(session_id, 3, targets=None))
    record = stores.sessions.get(session_id)
    assert (record.cycle, record.last_boundary) == (3, NOON + timedelta(minutes=45))
    assert [(c.number, c.state) for c in stores.sessions.cycles(session_id, 2)] == [
        (3, "trading"),
        (2, "done"),
    ]
    watched = stores.sessions.watched(session_id)
    assert watched.targets == (("BTCUSDT", Decimal("0.25")),)
    over(stores, session_id)


def test_a_letter_never_goes_back(stores: Stores) -> None:
    session_id, _ = begun(stores)
    assert stores.sessions.read_order_info(session_id) is None
    stores.sessions.write_order_info(session_id, {"at": "4.7"}, 4, 7)
    stores.sessions.write_order_info(session_id, {"at": "4.7 again"}, 4, 7)
    for epoch, revision in ((4, 6), (3, 99)):
        with pytest.raises(StaleWriter):
            stores.sessions.write_order_info(session_id, {"at": "old"}, epoch, revision)
    assert stores.sessions.read_order_info(session_id) == {"at": "4.7 again"}
    stores.sessions.write_order_info(session_id, {"at": "5.1"}, 5, 1)
    assert stores.sessions.read_order_info(session_id) == {"at": "5.1"}
    over(stores, session_id)


def test_a_letter_whose_truth_is_its_row_is_archived_with_its_bars(stores: Stores) -> None:
    session_id, _ = begun(stores)
    letters = stores.letters(session_id)
    assert letters.read() is None
    ended = [
        {"epoch": 4, "revision": n, "cycle": f"2026-11-21T12:{15 * n:02}:00Z"} for n in range(3)
    ]
    for document in ended:
        letters.write(document, 4, int(str(document["revision"])))
        letters.archive(document)
        letters.archive(document)
    assert letters.read() == ended[-1]
    with pytest.raises(StaleWriter):
        letters.write(ended[0], 4, 0)
    assert list(letters.archived(2)) == ended[1:]
    letters.keep_bars(NOON, b"bars")
    assert letters.bars_of(NOON) == b"bars"
    assert letters.bars_of(NOON + timedelta(minutes=15)) is None
    over(stores, session_id)


# --- results --------------------------------------------------------------------------------------


def minute_rows(session: WatchedSession, minute: int, writer: str = "me") -> MinuteRows:
    """A minute with nothing but its portfolio row."""
    portfolio = PortfolioRow(
        current_pv=Decimal("10007.5"),
        netprofit=None,
        roe=None,
        position_value=Decimal(0),
        gross_position_value=Decimal(0),
        cash=Decimal(1),
        unrealized_pnl=Decimal(0),
        unrealized_roe=None,
        margin_size=Decimal(0),
        available=None,
        wallet_balance=Decimal(1),
        initial_balance=Decimal(10_000),
        net_transfers=Decimal(3),
        realized_pnl=Decimal(0),
        fees=Decimal(0),
        funding=Decimal(0),
        positions=0,
        open_orders=0,
        unprotected=0,
        measured_at=NOON,
        late=False,
        flags="",
    )
    at = NOON + timedelta(minutes=minute)
    return MinuteRows(
        session.session_id,
        session.owner_id,
        session.account_id,
        MarketType.FUTURES,
        at,
        writer,
        (),
        portfolio,
        None,
    )


def test_E7_a_minute_belongs_to_who_wrote_it_first(stores: Stores) -> None:
    session_id, _ = begun(stores)
    session = stores.sessions.watched(session_id)
    assert stores.results.last_minute(session) is None
    assert stores.results.store_minute(minute_rows(session, 1)).written
    assert stores.results.store_minute(minute_rows(session, 1)).written
    assert not stores.results.store_minute(minute_rows(session, 1, "another")).written
    gaps = [
        GapRow(
            session_id,
            session.owner_id,
            NOON + timedelta(minutes=n),
            GapCause.NOT_RUNNING,
            "",
            NOON,
        )
        for n in (1, 2, 3)
    ]
    assert stores.results.store_gaps(session, gaps) == 2
    assert stores.results.store_gaps(session, gaps) == 0
    assert stores.results.last_minute(session) == NOON + timedelta(minutes=3)
    kept = stores.results.kept_minutes(session, NOON, NOON + timedelta(minutes=2))
    assert kept == {NOON + timedelta(minutes=n) for n in (1, 2)}
    stores.results.store_minute(minute_rows(session, 4))
    points = stores.results.curve(session, NOON + timedelta(minutes=1))
    assert [(point.minute, point.net_transfers) for point in points] == [
        (NOON + timedelta(minutes=4), Decimal(3))
    ]
    over(stores, session_id)


def transaction(source: str, number: int, kind: str, amount: str) -> TransactionRow:
    """A fill or bill of BTCUSDT, `number` minutes after noon."""
    return TransactionRow(
        source=source,
        exchange_id=f"{source}-{number}",
        kind=kind,
        venue_kind=kind,
        order_id=None,
        symbol="BTCUSDT",
        side=None,
        price=Decimal(100),
        size=None,
        quote_size=None,
        asset="USDT",
        amount=Decimal(amount),
        fee=Decimal("-0.25"),
        fee_asset="USDT" if source == "bill" or number % 2 else "BTC",
        balance=None,
        is_taker=None,
        at=NOON + timedelta(minutes=number),
    )


def test_history_is_stored_once_and_summed(stores: Stores) -> None:
    session_id, _ = begun(stores)
    session = stores.sessions.watched(session_id)
    closed = ClosedPositionRow(
        exchange_id="p1",
        symbol="BTCUSDT",
        side="long",
        entry_price=Decimal(1),
        close_price=Decimal(2),
        size=Decimal(1),
        gross_pnl=Decimal(1),
        funding=Decimal(0),
        open_fee=Decimal(0),
        close_fee=Decimal(0),
        net_profit=Decimal("0.5"),
        opened_at=NOON,
        closed_at=NOON + timedelta(minutes=2),
    )
    rows = HistoryRows(
        session_id,
        session.owner_id,
        session.account_id,
        MarketType.FUTURES,
        (
            transaction("fill", 1, "open", "0"),
            transaction("fill", 90, "close", "7.5"),
            transaction("bill", 3, "funding", "-1.5"),
            transaction("bill", 4, "transfer", "100"),
        ),
        (closed,),
    )
    assert stores.results.store_history(rows) == 5
    assert stores.results.store_history(rows) == 0
    history = stores.results.history(session, timedelta(minutes=10))
    totals = history.by_symbol["BTCUSDT"]
    assert (totals.realized_pnl, totals.fees, totals.funding) == (
        Decimal("7.5"),
        Decimal("-25.25"),
        Decimal("-1.75"),
    )
    assert history.net_transfers == Decimal("99.75")
    assert (history.sums.trades, history.sums.trades_won) == (1, 1)
    assert history.recent == {"fill:fill-90", "bill:bill-3", "bill:bill-4", "position:p1"}
    assert history.fill_at == NOON + timedelta(minutes=90)
    over(stores, session_id)
