"""What ends: contracts in the middle of a replay, and records after ninety days."""

from __future__ import annotations

from decimal import Decimal

import pytest

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_records import OrderRecord
from module.simulator.engine.engine_types import (
    CancelReason,
    EngineRejected,
    EngineSettings,
    ForcedClose,
    FuturesOrderCommand,
    OrderSource,
    OrderType,
    PlanOrderCommand,
    PlanStatus,
    PositionMode,
    PresetStop,
    RejectReason,
    Side,
    SpotOrderCommand,
    TradeSide,
)
from module.simulator.engine.ledger import House
from module.simulator.prices.market_source import DAY_MS, MINUTE_MS, Bar, PriceKind
from tests.fakes.scripted_market import START_MS, ScriptedMarket

D = Decimal


class EndingMarket(ScriptedMarket):
    """ETH ends after minute 9; LTC is listed in minute 5; BTC goes on."""

    def __init__(self) -> None:
        super().__init__({"BTCUSDT": D(50000), "ETHUSDT": D(2000), "LTCUSDT": D(100)})

    def span(self, symbol: str | None = None) -> tuple[int | None, int | None]:
        first, _ = super().span()
        if symbol == "ETHUSDT":
            return first, START_MS + 9 * MINUTE_MS
        if symbol == "LTCUSDT":
            return START_MS + 5 * MINUTE_MS, START_MS + 10_000 * MINUTE_MS
        return first, START_MS + 10_000 * MINUTE_MS

    def bar(
        self,
        symbol: str,
        open_ms: int,
        kind: PriceKind = PriceKind.LAST,
        low_first: bool | None = None,
    ) -> Bar | None:
        first_ms, last_ms = self.span(symbol)
        if (first_ms is not None and open_ms < first_ms) or (
            last_ms is not None and open_ms > last_ms
        ):
            return None
        return super().bar(symbol, open_ms, kind, low_first)

    def latest_bar(self, symbol: str, open_ms: int) -> Bar | None:
        first_ms, last_ms = self.span(symbol)
        if first_ms is not None and open_ms < first_ms:
            return None
        return super().latest_bar(symbol, min(open_ms, last_ms or open_ms))


def order(symbol: str, side: Side, size: str, hedge: bool, **more: object) -> FuturesOrderCommand:
    return FuturesOrderCommand(
        symbol,
        side,
        OrderType.MARKET,
        D(size),
        trade_side=TradeSide.OPEN if hedge else None,
        **more,  # type: ignore[arg-type]  # take_profit, stop_loss
    )


@pytest.mark.parametrize("sleeps", [True, False])
@pytest.mark.parametrize("mode", list(PositionMode))
def test_a_contract_that_ends_is_settled_at_its_last_price(
    mode: PositionMode, sleeps: bool
) -> None:
    market = EndingMarket()
    market.flat_from("ETHUSDT", 9, "2100")
    engine = Engine(market, EngineSettings(), START_MS)
    engine._world.sleeps = sleeps
    engine.open_account("ann", futures_usdt=D(10000), position_mode=mode)
    engine.open_account("bob", spot={"ETH": D(3)})
    hedge = mode is PositionMode.HEDGE
    stop = PresetStop(D(1800))
    engine.place_order("ann", order("ETHUSDT", Side.BUY, "2", hedge, stop_loss=stop))
    if hedge:
        engine.place_order("ann", order("ETHUSDT", Side.SELL, "0.5", hedge))
    engine.place_order("ann", order("BTCUSDT", Side.BUY, "0.1", hedge))
    engine.advance_to(START_MS + 1000)
    resting = engine.place_order(
        "ann",
        FuturesOrderCommand(
            "ETHUSDT",
            Side.BUY,
            OrderType.LIMIT,
            D(1),
            D(1950),
            trade_side=TradeSide.OPEN if hedge else None,
        ),
    )
    engine.place_plan_order(
        "ann", PlanOrderCommand(order("ETHUSDT", Side.BUY, "1", hedge), D(2500))
    )
    sale = engine.place_spot_order(
        "bob", SpotOrderCommand("ETHUSDT", Side.SELL, OrderType.LIMIT, D(1), D(2090))
    )
    engine.advance_to(START_MS + 9 * MINUTE_MS - 1)
    wallet = engine.futures_balance("ann").wallet
    fees = engine.ledger.house_balance(House.FEES, "USDT")
    engine.advance_to(START_MS + 10 * MINUTE_MS)

    assert [view.position.symbol for view in engine.positions("ann")] == ["BTCUSDT"]
    assert resting.cancel_reason is CancelReason.SUSPENDED
    assert sale.filled_size == 1  # at 2090, in its last minute
    assert engine.plans("ann") == []
    assert {plan.status for plan in engine.plan_history("ann")} == {PlanStatus.CANCELLED}
    settled = [o for o in engine.order_history("ann") if o.forced is ForcedClose.DELIVERY]
    sources = [OrderSource.DELIVERY_CLOSE_LONG, OrderSource.DELIVERY_CLOSE_SHORT]
    assert [o.source for o in settled] == sources[: len(settled)]
    assert {o.average_price for o in settled} == {D(2100)}
    assert engine.ledger.house_balance(House.FEES, "USDT") == fees + D("2.09")  # bob's alone
    profit = sum((o.realized_pnl for o in settled), D(0))
    assert engine.futures_balance("ann").wallet == wallet + profit
    assert profit == (D("99.96") * 2 - D("100.04") * D("0.5") if hedge else D("199.92"))
    history = engine.position_history("ann", "ETHUSDT")
    assert [closed.close_average for closed in history] == [D(2100)] * len(settled)
    assert not any(closed.liquidated for closed in history)
    with pytest.raises(EngineRejected) as refused:
        engine.place_order("ann", order("ETHUSDT", Side.BUY, "1", hedge))
    assert refused.value.reason is RejectReason.SYMBOL_NOT_LISTED
    engine.advance_to(START_MS + 30 * MINUTE_MS)
    engine.ledger.audit()


def test_a_loss_of_the_settlement_can_liquidate_what_is_left() -> None:
    market = EndingMarket()
    engine = Engine(market, EngineSettings(), START_MS)
    engine.open_account("ann", futures_usdt=D(1000))
    engine.place_order("ann", order("ETHUSDT", Side.BUY, "5", hedge=False))
    engine.place_order("ann", order("BTCUSDT", Side.BUY, "0.1", hedge=False))
    market.mark_at("ETHUSDT", 9, "1990 1990 1990 1990")
    market.bar_at("ETHUSDT", 9, "2000 2000 1820 1820")
    engine.advance_to(START_MS + 10 * MINUTE_MS - 1)
    assert len(engine.positions("ann")) == 2
    engine.advance_to(START_MS + 10 * MINUTE_MS)
    assert engine.positions("ann", "ETHUSDT") == []
    engine.ledger.audit()


def test_a_contract_is_refused_before_it_is_listed_and_fine_after() -> None:
    engine = Engine(EndingMarket(), EngineSettings(), START_MS)
    engine.open_account("ann", futures_usdt=D(10000))
    with pytest.raises(EngineRejected) as early:
        engine.place_order("ann", order("LTCUSDT", Side.BUY, "1", hedge=False))
    assert early.value.reason is RejectReason.SYMBOL_NOT_LISTED
    engine.advance_to(START_MS + 5 * MINUTE_MS)
    engine.place_order("ann", order("LTCUSDT", Side.BUY, "1", hedge=False))
    engine.advance_to(START_MS + 6 * MINUTE_MS)
    assert engine.positions("ann")[0].position.symbol == "LTCUSDT"


def test_at_the_end_of_all_data_nothing_is_settled() -> None:
    market = ScriptedMarket()
    market.last_minute = 3
    engine = Engine(market, EngineSettings(), START_MS)
    engine.open_account("ann", futures_usdt=D(10000))
    engine.place_order("ann", order("ETHUSDT", Side.BUY, "2", hedge=False))
    engine.advance_to(START_MS + 60 * MINUTE_MS)
    assert len(engine.positions("ann")) == 1


# -- records ----------------------------------------------------------------------------------


def traded(engine: Engine, side: Side, client_id: str) -> None:
    command = order("BTCUSDT", side, "0.1", hedge=False, client_id=client_id)
    if side is Side.BUY:
        command = order(
            "BTCUSDT",
            side,
            "0.1",
            hedge=False,
            client_id=client_id,
            stop_loss=PresetStop(D(45000)),
        )
    engine.place_order("ann", command)
    engine.advance_to(engine.now_ms + 100)


def test_what_is_older_than_the_retention_is_forgotten_and_the_books_still_add_up() -> None:
    engine = Engine(ScriptedMarket(), EngineSettings(retention_days=2), START_MS)
    engine.open_account("ann", futures_usdt=D(10000))
    resting: list[OrderRecord] = []
    for day in range(6):
        traded(engine, Side.BUY, f"in-{day}")
        limit = FuturesOrderCommand("ETHUSDT", Side.BUY, OrderType.LIMIT, D("0.1"), D(1900 + day))
        resting.append(engine.place_order("ann", limit))
        traded(engine, Side.SELL, f"out-{day}")
        engine.advance_to(START_MS + (day + 1) * DAY_MS)
    midnight_ms = engine.now_ms - engine.now_ms % DAY_MS
    kept_ms = midnight_ms - 2 * DAY_MS
    assert min(fill.at_ms for fill in engine.fills("ann")) >= kept_ms
    assert min(bill.at_ms for bill in engine.bills("ann")) >= kept_ms
    assert min(entry.at_ms for entry in engine.ledger.entries) >= kept_ms
    assert all(o.updated_ms >= kept_ms for o in engine.order_history("ann"))
    assert len(engine.position_history("ann")) == len(engine.plan_history("ann")) == 2
    assert engine.open_orders("ann") == resting
    assert engine.order("ann", order_id=resting[0].order_id) is resting[0]
    traded(engine, Side.BUY, "in-0")  # a client id is free again once its order is forgotten
    with pytest.raises(EngineRejected):
        traded(engine, Side.BUY, "in-5")
    engine.ledger.audit()
    opening = engine.ledger.opening["user:ann:futures:USDT", "USDT"]
    later = sum((bill.amount + bill.fee for bill in engine.bills("ann")), D(0))
    assert opening + later == engine.futures_balance("ann").wallet
    assert engine.ledger.count > len(engine.ledger.entries)


def test_what_is_forgotten_does_not_depend_on_how_time_is_cut() -> None:
    dumps = []
    for step_ms in (3 * DAY_MS, 7_777_777):
        engine = Engine(ScriptedMarket(), EngineSettings(retention_days=1), START_MS)
        engine.open_account("ann", futures_usdt=D(10000))
        traded(engine, Side.BUY, "a")
        end_ms = START_MS + 3 * DAY_MS
        while engine.now_ms < end_ms:
            engine.advance_to(min(end_ms, engine.now_ms + step_ms))
        traded(engine, Side.SELL, "b")
        dumps.append((engine.ledger_dump(), engine.fills("ann"), engine.bills("ann")))
    assert dumps[0] == dumps[1]
    assert len(dumps[0][1]) == 1
