"""What a finwatcher reads back: sums of trades, open spot trips, decisions, unprotected seconds."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from module.db.repositories.results import ResultsRepository
from module.db.repositories.unprotected_periods import BareCause, begin_period
from module.model.market import MarketType
from module.model.results import (
    ClosedPositionRow,
    HistoryRows,
    PlannedOrder,
    TradeSums,
    TransactionRow,
)
from tests.contract.postgres_model.conftest import Stores
from tests.contract.postgres_model.test_session_stores import begun, cycle, over, transaction
from tests.fakes.result_rows import minute_rows
from tests.fakes.stored_rows import NOON

pytestmark = pytest.mark.timeout(60)
OVERLAP = timedelta(minutes=10)


def sold(number: int, price: str, **changes: object) -> TransactionRow:
    """A sale of 2 coins, `number` minutes after noon."""
    row = replace(
        transaction("fill", number, "trade", "0"),
        side="sell",
        price=Decimal(price),
        size=Decimal(2),
        quote_size=2 * Decimal(price),
        fee_asset="USDT",
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def trip(number: int, net_profit: str, symbol: str = "BTCUSDT") -> ClosedPositionRow:
    """A position that ended `number` minutes after noon."""
    at = NOON + timedelta(minutes=number)
    profit = Decimal(net_profit)
    zero = Decimal(0)
    return ClosedPositionRow(
        f"p{number}", symbol, "long", zero, zero, zero, profit, zero, zero, zero, profit, NOON, at
    )


def test_trades_and_slippage_are_summed(stores: Stores) -> None:
    session_id, _ = begun(stores)
    session = stores.sessions.watched(session_id)
    fills = (
        sold(1, "100", decision_price=Decimal("100.5"), client_id="af-1"),
        sold(2, "100", decision_price=Decimal(99), side="buy"),
        sold(3, "50", quote_size=Decimal("99.9999")),  # as a venue rounds it
    )
    positions = (trip(1, "7.5"), trip(2, "-3"), trip(3, "0"))
    rows = HistoryRows(
        session_id,
        session.owner_id,
        session.account_id,
        MarketType.FUTURES,
        fills,
        positions,
    )
    assert stores.results.store_history(rows) == 6
    history = stores.results.history(session, OVERLAP)
    assert history.sums == TradeSums(
        trades=3,
        trades_won=1,
        won=Decimal("7.5"),
        lost=Decimal(-3),
        traded_notional=Decimal(500),
        slippage_cost=Decimal(3),
        slippage_notional=Decimal(400),
    )
    assert history.open_fills == ()
    assert history.ended == {}
    moments = [NOON + timedelta(minutes=number) for number in range(5)]
    by_minute = stores.results.trade_sums_at(session, moments)
    assert [(sums.trades, int(sums.traded_notional)) for sums in by_minute] == [
        (0, 0),
        (1, 200),
        (2, 400),
        (3, 500),
        (3, 500),
    ]
    assert by_minute[1].slippage_cost == 1
    assert by_minute[-1] == history.sums
    assert list(stores.results.trade_sums_at(session, moments[2:3])) == by_minute[2:3]
    assert list(stores.results.trade_sums_at(session, [])) == []
    over(stores, session_id)


def test_indicators_of_a_minute_that_lacks_them_are_added_and_others_stay(stores: Stores) -> None:
    session_id, _ = begun(stores)
    session = stores.sessions.watched(session_id)
    whole = [minute_rows(session_id, NOON + timedelta(minutes=number)) for number in range(2)]
    stores.results.store_minute(replace(whole[0], indicators=None))
    stores.results.store_minute(whole[1], {"minute": "before"})
    assert whole[1].indicators is not None
    other = replace(whole[1].indicators, trades=99)
    late = [
        (replace(whole[0], symbols=None, portfolio=None, writer="another"), None),
        (
            replace(whole[1], symbols=None, portfolio=None, writer="another", indicators=other),
            {"minute": "after"},
        ),
    ]
    assert [outcome.failed for outcome in stores.results.store_minutes(late)] == [{}, {}]
    assert stores.results.indicator_state(session) == {"minute": "after"}
    if isinstance(stores.results, ResultsRepository):
        kept = stores.results.indicator_series(session, NOON, NOON + timedelta(minutes=9), 9)
        assert [item.row for item in kept] == [rows.indicators for rows in whole]
    over(stores, session_id)


def test_a_spot_session_goes_on_from_its_open_trips(stores: Stores) -> None:
    session_id, _ = begun(stores)
    session = replace(stores.sessions.watched(session_id), market=MarketType.SPOT)
    coins = replace(
        transaction("bill", 7, "transfer", "0.5"),
        asset="BTC",
        symbol="BTCUSDT",
        quote_size=Decimal(45),
    )
    unpriced = replace(transaction("bill", 8, "transfer", "9"), asset="XYZ", symbol="", price=None)
    third = sold(9, "100", fee_asset="BGB", symbol="ETHUSDT")
    fills = (sold(2, "100"), sold(5, "100"), sold(6, "101"), coins, unpriced, third)
    rows = HistoryRows(
        session_id,
        session.owner_id,
        session.account_id,
        MarketType.SPOT,
        fills,
        (trip(5, "1"), trip(3, "2", "ADAUSDT")),
    )
    stores.results.store_history(rows)
    history = stores.results.history(session, OVERLAP)
    assert history.open_fills == (sold(6, "101"), coins, unpriced, third)
    assert history.lots is None
    assert history.ended == {
        "BTCUSDT": NOON + timedelta(minutes=5),
        "ADAUSDT": NOON + timedelta(minutes=3),
    }
    assert history.net_transfers == Decimal(45)
    assert history.by_symbol["ETHUSDT"].fees == 0
    over(stores, session_id)


def test_orders_are_found_by_the_exchanges_id_in_ended_cycles_and_in_the_letter(
    stores: Stores,
) -> None:
    session_id, epoch = begun(stores)
    session = stores.sessions.watched(session_id)
    for number in (1, 2, 3):
        letter = {"legs": legs(str(number), "61000.5")}
        stores.sessions.record_cycle(epoch, cycle(session_id, number, order_info=letter))
    stores.sessions.write_order_info(session_id, {"legs": legs("4", "62000")}, epoch, 1)
    found = stores.sessions.planned_orders(
        session, NOON + timedelta(minutes=20), NOON + timedelta(minutes=31)
    )
    assert found == {
        "order-2": PlannedOrder("af-2", Decimal("61000.5")),
        "order-4": PlannedOrder("af-4", Decimal(62_000)),
    }
    over(stores, session_id)


def legs(number: str, price: str) -> list[object]:
    """A letter's legs: one slice with the exchange's id, one that it has not answered yet."""
    return [
        {
            "leg": {"symbol": "BTCUSDT", "reference_price": price},
            "slices": [
                {"client_id": f"af-{number}", "order_id": f"order-{number}"},
                {"client_id": "af-0", "order_id": None},
            ],
        }
    ]


def test_seconds_without_a_stop_count_from_the_sessions_start(stores: Stores) -> None:
    session_id, _ = begun(stores)
    session = stores.sessions.watched(session_id)
    start = session.started_at
    assert stores.sessions.unprotected_s(session, start + timedelta(minutes=9)) == 0.0
    before = begin_period(
        session.account_id, "BTCUSDT", start - timedelta(seconds=30), BareCause.FOUND
    )
    running = begin_period(
        session.account_id, "ETHUSDT", start + timedelta(seconds=60), BareCause.OPENED
    )
    stores.periods.put([before.ended(start + timedelta(seconds=5)), running])
    assert stores.sessions.unprotected_s(session, start + timedelta(seconds=70.5)) == 15.5
    over(stores, session_id)
