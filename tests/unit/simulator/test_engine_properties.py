"""Random operation sequences: the ledger balances, positions add up, the same run is the same."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from decimal import ROUND_DOWN, Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.simulator.engine.engine import Engine, hold_side_of
from module.simulator.engine.engine_types import (
    EngineRejected,
    EngineSettings,
    Force,
    FuturesOrderCommand,
    MarginMode,
    MarketType,
    OrderType,
    PlanType,
    PositionMode,
    PositionSide,
    PositionStopCommand,
    PresetStop,
    Side,
    SpotOrderCommand,
    TradeSide,
)
from module.simulator.engine.margin import average_entry, money, price_profit, truncated_fee
from module.simulator.prices.synthetic import SyntheticMarket
from tests.fakes.scripted_market import START_MS

D = Decimal
MARKET = SyntheticMarket(11)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")

sizes = st.integers(1, 300)
ticks = st.integers(-400, 400)
symbols = st.sampled_from(SYMBOLS)
sides = st.sampled_from(list(Side))
mostly_opening = st.sampled_from([False, False, False, True])
steps_ms = st.one_of(
    st.integers(1, 5_000), st.integers(5_000, 900_000), st.integers(900_000, 30_000_000)
)

opens = st.tuples(st.just("market"), symbols, sides, sizes, st.just(False), ticks)
operations = st.one_of(
    st.tuples(st.just("market"), symbols, sides, sizes, mostly_opening, ticks),
    st.tuples(
        st.just("limit"), symbols, sides, sizes, st.sampled_from(list(Force)), ticks, mostly_opening
    ),
    st.tuples(st.just("spot"), symbols, sides, sizes, ticks, st.booleans()),
    st.tuples(st.just("stop"), symbols, st.sampled_from([PlanType.POS_LOSS, PlanType.POS_PROFIT])),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.just("close"), symbols),
    st.tuples(st.just("leverage"), symbols, st.integers(1, 75)),
    st.tuples(st.just("margin"), symbols, st.sampled_from(list(MarginMode))),
    st.tuples(st.just("jump"), symbols, st.integers(85, 118)),
    st.tuples(st.just("time"), steps_ms),
    st.tuples(st.just("time"), steps_ms),
)
sequences = st.tuples(
    st.lists(opens, min_size=2, max_size=4), st.lists(operations, min_size=4, max_size=24)
).map(lambda parts: [*parts[0], ("time", 100), *parts[1]])


class Driver:
    """Turns drawn operations into commands; refusals are part of the game."""

    def __init__(self, mode: PositionMode, isolated: bool) -> None:
        self.engine = Engine(MARKET, EngineSettings(), START_MS)
        self.mode = mode
        self.engine.open_account(
            "ann",
            futures_usdt=D(20000) if isolated else D(4000),
            spot={"USDT": D(5000), "BTC": D(1), "ETH": D(20), "DOGE": D(100_000)},
            position_mode=mode,
        )
        if isolated:
            for symbol in SYMBOLS:
                self.engine.set_margin_mode("ann", symbol, MarginMode.ISOLATED)

    def size(self, symbol: str, steps: int) -> Decimal:
        price = self.engine.last_price(symbol)
        step = self.engine.futures_instruments()[symbol].size_step
        return (D(steps * 100) / price / step).to_integral_value(ROUND_DOWN) * step + step

    def price(self, symbol: str, away: int) -> Decimal:
        step = self.engine.futures_instruments()[symbol].price_step
        last = self.engine.last_price(symbol)
        return ((last + last * away / 10000) / step).to_integral_value() * step

    def apply(self, operation: tuple[object, ...]) -> None:
        with suppress(EngineRejected):
            self._apply(operation)

    def _apply(self, operation: tuple[object, ...]) -> None:  # noqa: C901  one case per command
        engine, hedge = self.engine, self.mode is PositionMode.HEDGE
        match operation:
            case ("market", str(symbol), Side() as side, int(steps), bool(closes), int(away)):
                preset = PresetStop(self.price(symbol, away - side.sign * 450))
                engine.place_order(
                    "ann",
                    FuturesOrderCommand(
                        symbol,
                        side,
                        OrderType.MARKET,
                        self.size(symbol, steps),
                        trade_side=(TradeSide.CLOSE if closes else TradeSide.OPEN)
                        if hedge
                        else None,
                        reduce_only=closes and not hedge,
                        stop_loss=preset,
                    ),
                )
            case (
                "limit",
                str(symbol),
                Side() as side,
                int(steps),
                Force() as force,
                int(away),
                bool(closes),
            ):
                engine.place_order(
                    "ann",
                    FuturesOrderCommand(
                        symbol,
                        side,
                        OrderType.LIMIT,
                        self.size(symbol, steps),
                        self.price(symbol, away),
                        force,
                        trade_side=(TradeSide.CLOSE if closes else TradeSide.OPEN)
                        if hedge
                        else None,
                        reduce_only=closes and not hedge,
                    ),
                )
            case ("spot", str(symbol), Side() as side, int(steps), int(away), bool(limit)):
                size = D(steps) if side is Side.BUY and not limit else self.size(symbol, steps)
                engine.place_spot_order(
                    "ann",
                    SpotOrderCommand(
                        symbol,
                        side,
                        OrderType.LIMIT if limit else OrderType.MARKET,
                        size,
                        self.price(symbol, away) if limit else None,
                    ),
                )
            case ("stop", str(symbol), PlanType() as plan_type):
                for view in engine.positions("ann", symbol):
                    held = view.position.side
                    away = held.sign * (60 if plan_type.takes_profit else -150)
                    engine.place_position_stop(
                        "ann",
                        PositionStopCommand(
                            symbol,
                            plan_type,
                            hold_side_of(held, self.mode),
                            self.price(symbol, away),
                        ),
                    )
            case ("cancel", int(index)):
                for market in MarketType:
                    for order in engine.open_orders("ann", market=market)[index : index + 1]:
                        if market is MarketType.SPOT:
                            engine.cancel_spot_order("ann", order_id=order.order_id)
                        else:
                            engine.cancel_order("ann", order_id=order.order_id)
            case ("close", str(symbol)):
                engine.close_positions("ann", symbol)
            case ("leverage", str(symbol), int(leverage)):
                engine.set_leverage("ann", symbol, D(leverage))
            case ("margin", str(symbol), MarginMode() as margin_mode):
                engine.set_margin_mode("ann", symbol, margin_mode)
            case ("jump", str(symbol), int(percent)):
                engine.jump_price(symbol, D(percent) / 100)
            case ("time", int(step_ms)):
                engine.advance_to(engine.now_ms + step_ms)

    def verify(self) -> None:
        """What must hold after every operation."""
        engine = self.engine
        engine.ledger.check()
        wallet = engine.futures_balance("ann").wallet
        assert wallet >= 0 or engine.positions("ann")
        sides: dict[str, list[PositionSide]] = {}
        for view in engine.positions("ann"):
            assert view.position.size > 0
            sides.setdefault(view.position.symbol, []).append(view.position.side)
        if self.mode is PositionMode.ONE_WAY:
            assert all(len(held) == 1 for held in sides.values())
        for plan in engine.plans("ann"):
            assert plan.protects in sides.get(plan.symbol, [])
        kinds = [(p.symbol, p.protects, p.plan_type) for p in engine.plans("ann")]
        assert len(kinds) == len(set(kinds))
        for spot in engine.spot_balances("ann"):
            assert spot.available >= 0
            assert spot.frozen >= 0

    def verify_history(self) -> None:
        """Fills, bills, positions and wallets tell one story."""
        engine = self.engine
        engine.ledger.audit()
        for symbol in SYMBOLS:
            held = sum((v.position.signed_size for v in engine.positions("ann", symbol)), D(0))
            fills = engine.fills("ann", symbol)
            assert held == sum((fill.size * fill.direction for fill in fills), D(0))
        for market in MarketType:
            balances: dict[str, Decimal] = {}
            for bill in engine.bills("ann", market):
                balances[bill.coin] = balances.get(bill.coin, D(0)) + bill.amount + bill.fee
                assert bill.balance == balances[bill.coin]
            for coin, amount in balances.items():
                assert amount == engine.wallet_balance("ann", market, coin)
        for order in engine.all_orders("ann"):
            fills = engine.fills("ann", order_id=order.order_id)
            assert order.filled_size == sum((fill.size for fill in fills), D(0)) <= order.size
            assert order.fee == sum((fill.fee for fill in fills), D(0))
        trading = sum((f.profit + f.fee for f in engine.fills("ann")), D(0))
        closed = sum(
            (c.pnl + c.open_fee + c.close_fee for c in engine.position_history("ann")), D(0)
        )
        still_open = sum(
            (
                v.position.achieved_profits + v.position.open_fee + v.position.close_fee
                for v in engine.positions("ann")
            ),
            D(0),
        )
        assert trading == closed + still_open


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(PositionMode)), st.booleans(), sequences)
def test_money_is_neither_made_nor_lost(
    mode: PositionMode, isolated: bool, drawn: list[tuple[object, ...]]
) -> None:
    driver = Driver(mode, isolated)
    for operation in drawn:
        driver.apply(operation)
        driver.verify()
    driver.engine.advance_to(driver.engine.now_ms + 60_000)
    driver.verify()
    driver.verify_history()


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(list(PositionMode)),
    sequences,
    st.lists(st.integers(1, 900_000), max_size=5),
)
def test_the_same_commands_give_the_same_ledger_however_time_is_cut(
    mode: PositionMode, drawn: list[tuple[object, ...]], cuts: list[int]
) -> None:
    first, second = Driver(mode, False), Driver(mode, False)
    for operation in drawn:
        first.apply(operation)
        if operation[0] == "time":
            target = first.engine.now_ms
            for cut in cuts:
                if second.engine.now_ms + cut < target:
                    second.engine.advance_to(second.engine.now_ms + cut)
                    second.engine.ticker("BTCUSDT")
            second.engine.advance_to(target)
        else:
            second.apply(operation)
    assert first.engine.ledger_dump() == second.engine.ledger_dump()


def random_operation(random: Random) -> tuple[object, ...]:
    """What `operations` draws, from a plain generator: long runs without shrinking."""
    symbol, side = random.choice(SYMBOLS), random.choice(list(Side))
    size, away = random.randint(1, 300), random.randint(-400, 400)
    closes = random.random() < 0.2
    kind = random.randrange(12)
    if kind < 3:
        return ("market", symbol, side, size, closes, away)
    if kind < 5:
        return ("limit", symbol, side, size, random.choice(list(Force)), away, closes)
    return {
        5: ("spot", symbol, side, size, away, random.random() < 0.5),
        6: ("stop", symbol, random.choice([PlanType.POS_LOSS, PlanType.POS_PROFIT])),
        7: ("cancel", random.randint(0, 5)),
        8: ("close", symbol) if closes else ("leverage", symbol, random.randint(1, 75)),
        9: ("jump", symbol, random.randint(85, 118)),
        10: ("time", random.randint(1, 20_000)),
        11: ("time", random.randint(20_000, 3_000_000)),
    }[kind]


@pytest.mark.parametrize("mode", list(PositionMode))
@pytest.mark.parametrize("isolated", [False, True])
def test_a_long_random_run_meets_every_kind_of_event(mode: PositionMode, isolated: bool) -> None:
    met: Counter[str] = Counter()
    for seed in range(8):
        random = Random(f"{mode}{isolated}{seed}")
        driver = Driver(mode, isolated)
        for _ in range(150):
            driver.apply(random_operation(random))
            driver.verify()
        driver.verify_history()
        engine = driver.engine
        met.update(bill.business_type.partition("_")[0] for bill in engine.bills("ann"))
        met.update(f"order {order.status}" for order in engine.order_history("ann"))
        met.update(f"source {order.source}" for order in engine.order_history("ann"))
        met.update(f"plan {plan.status}" for plan in engine.plan_history("ann"))
        met.update(f"scope {fill.scope}" for fill in engine.fills("ann"))
        met.update(f"spot {fill.side}" for fill in engine.fills("ann", market=MarketType.SPOT))
        met["closed"] += len(engine.position_history("ann"))
    for event in (
        "burst",
        "contract",
        "risk",
        "closed",
        "order filled",
        "order canceled",
        "plan executed",
        "plan cancelled",
        "source pos_loss_market",
        "source pos_profit_market",
        "source liquidation",
        "scope maker",
        "scope taker",
        "spot buy",
        "spot sell",
    ):
        assert met[event] >= 1, (event, met)


prices = st.decimals(min_value="0.00001", max_value=200_000, places=5)
lots = st.decimals(min_value="0.0001", max_value=100_000, places=4)


@given(prices, lots, st.sampled_from([D("0.0006"), D("0.0002"), D("0.001")]))
def test_a_fee_is_cut_never_rounded_up(price: Decimal, size: Decimal, rate: Decimal) -> None:
    fee = truncated_fee(price, size, rate)
    assert 0 <= price * size * rate - fee < D("1e-8")
    assert fee == fee.quantize(D("1e-8"))


@given(st.lists(st.tuples(prices, lots), min_size=1, max_size=6), prices, st.sampled_from([1, -1]))
def test_profit_of_the_average_is_the_sum_of_profits(
    buys: list[tuple[Decimal, Decimal]], price: Decimal, direction: int
) -> None:
    entry, size = buys[0]
    for added_price, added_size in buys[1:]:
        entry = average_entry(entry, size, added_price, added_size)
        size += added_size
    separately = sum((price_profit(bought, price, lot, direction) for bought, lot in buys), D(0))
    assert abs(price_profit(entry, price, size, direction) - separately) < D("1e-9")


@given(prices, prices, lots, lots)
def test_closing_in_two_parts_earns_what_closing_at_once_does(
    entry: Decimal, price: Decimal, first: Decimal, second: Decimal
) -> None:
    parts = price_profit(entry, price, first, 1) + price_profit(entry, price, second, 1)
    assert parts == price_profit(entry, price, first + second, 1)
    assert money(parts) == parts
