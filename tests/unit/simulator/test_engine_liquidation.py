"""Liquidation: where the formulas say, in the venue's steps, and never beyond what is at stake."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import (
    CancelReason,
    EngineRejected,
    EngineSettings,
    ForcedClose,
    FuturesOrderCommand,
    MarginMode,
    MarketType,
    OrderSource,
    OrderType,
    PositionMode,
    PositionSide,
    Side,
    TradeSide,
)
from module.simulator.engine.ledger import House
from module.simulator.prices.instruments import FuturesInstrument, PositionTier
from module.simulator.wire.bitget_rows import fill_row, order_detail_row
from tests.fakes.scripted_market import START_MS, ScriptedMarket

D = Decimal
MINUTE = 60_000
TICK = D("0.1")
FEE = D("0.0006")


class TieredMarket(ScriptedMarket):
    """A scripted market whose BTC contract has the tiers that a test wants."""

    def __init__(self, tiers: tuple[PositionTier, ...], depth_usdt: int = 50_000_000) -> None:
        super().__init__()
        self.tiers = tiers
        self.depth_usdt = D(depth_usdt)

    def futures(self) -> list[FuturesInstrument]:
        return [
            replace(
                rules,
                tiers=self.tiers if rules.symbol == "BTCUSDT" else rules.tiers,
                depth_usdt=self.depth_usdt,
                market_size_max=D(1_000_000),
            )
            for rules in super().futures()
        ]


def tiers_of(*rows: tuple[int, int, str]) -> tuple[PositionTier, ...]:
    """(end in USDT, leverage, maintenance rate), lowest first."""
    made: list[PositionTier] = []
    start = D(0)
    for level, (end, leverage, rate) in enumerate(rows, start=1):
        made.append(PositionTier(level, start, D(end), D(leverage), D(rate)))
        start = D(end)
    return tuple(made)


LADDER = tiers_of(
    (100_000, 100, "0.005"),
    (200_000, 50, "0.01"),
    (300_000, 25, "0.02"),
    (400_000, 20, "0.025"),
    (5_000_000, 10, "0.05"),
)


def new_engine(
    market: ScriptedMarket, usdt: str, mode: PositionMode = PositionMode.ONE_WAY
) -> Engine:
    engine = Engine(market, EngineSettings(), START_MS)
    engine.open_account("ann", futures_usdt=D(usdt), position_mode=mode)
    return engine


def buy_or_sell(engine: Engine, side: Side, size: str | Decimal, symbol: str = "BTCUSDT") -> None:
    hedge = engine.position_mode("ann") is PositionMode.HEDGE
    order = engine.place_order(
        "ann",
        FuturesOrderCommand(
            symbol,
            side,
            OrderType.MARKET,
            D(size),
            trade_side=TradeSide.OPEN if hedge else None,
        ),
    )
    engine.advance_to(order.arrives_ms)
    assert order.filled_size == D(size)


def audited(engine: Engine) -> None:
    engine.ledger.audit()
    total = sum((bill.amount + bill.fee for bill in engine.bills("ann")), D(0))
    assert total == engine.futures_balance("ann").wallet


def words(engine: Engine) -> list[str]:
    return [bill.business_type for bill in engine.bills("ann")]


def forced_orders(engine: Engine) -> list[tuple[ForcedClose, Decimal]]:
    return [
        (order.forced, order.filled_size)
        for order in engine.order_history("ann")
        if order.forced is not None
    ]


# -- where ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Book:
    """A random account, in the words of this test."""

    rates: tuple[int, int, int]
    leverage: int
    long: bool
    lots: int
    isolated: bool
    other_lots: int
    hedged_lots: int

    @property
    def tiers(self) -> tuple[PositionTier, ...]:
        first, second, third = sorted(self.rates)
        return tiers_of(
            (60_000, 125, str(D(first) / 1000)),
            (150_000, 125, str(D(second) / 1000)),
            (10_000_000, 125, str(D(third) / 1000)),
        )

    @property
    def side(self) -> Side:
        return Side.BUY if self.long else Side.SELL


books = st.builds(
    Book,
    rates=st.tuples(*[st.integers(2, 30)] * 3),
    leverage=st.integers(3, 25),
    long=st.booleans(),
    lots=st.integers(2_000, 50_000),
    isolated=st.booleans(),
    other_lots=st.sampled_from([0, 0, 100, 500]),
    hedged_lots=st.sampled_from([0, 0, 1_000, 3_000]),
)


def tier_rate(tiers: tuple[PositionTier, ...], notional: Decimal) -> Decimal:
    return next(tier.maintenance for tier in tiers if notional < tier.end) + FEE


def covered(engine: Engine, book: Book, mark: Decimal) -> bool:
    """This test's own arithmetic: does the account survive BTC at `mark`, ETH where it is?"""
    money = sum((b.amount + b.fee for b in engine.bills("ann")), D(0))
    needed = D(0)
    largest: dict[str, Decimal] = {}
    for view in engine.positions("ann"):
        position = view.position
        price = mark if position.symbol == "BTCUSDT" else view.mark_price
        profit = (price - position.entry_price) * position.size
        profit = profit if position.side is PositionSide.LONG else -profit
        tiers = engine.futures_instruments()[position.symbol].tiers
        need = price * position.size * tier_rate(tiers, price * position.size)
        if book.isolated:
            if position.symbol == "BTCUSDT" and position.isolated_margin + profit <= need:
                return False
            continue
        money += profit
        largest[position.symbol] = max(need, largest.get(position.symbol, D(0)))
    needed = sum(largest.values(), D(0))
    return book.isolated or money > needed


def opened(book: Book) -> tuple[TieredMarket, Engine]:
    market = TieredMarket(book.tiers)
    lots = D(book.lots) / 10_000
    stake = lots * 50_000 / book.leverage * D("1.3") + book.hedged_lots * 3 + book.other_lots * 120
    hedged = book.hedged_lots > 0
    mode = PositionMode.HEDGE if hedged else PositionMode.ONE_WAY
    engine = new_engine(market, str(stake.quantize(D(1))), mode)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        if book.isolated:
            engine.set_margin_mode("ann", symbol, MarginMode.ISOLATED)
        engine.set_leverage("ann", symbol, D(book.leverage))
    try:
        buy_or_sell(engine, book.side, lots)
        if hedged:
            other = Side.SELL if book.long else Side.BUY
            buy_or_sell(engine, other, D(book.hedged_lots) / 10_000)
        if book.other_lots:
            buy_or_sell(engine, Side.BUY, D(book.other_lots) / 100, "ETHUSDT")
    except EngineRejected:
        assume(False)
    return market, engine


@settings(max_examples=200, deadline=None)
@given(books)
def test_the_liquidation_price_is_exact_to_one_tick_of_the_mark(book: Book) -> None:
    market, engine = opened(book)
    view = next(
        each
        for each in engine.positions("ann", "BTCUSDT")
        if (each.position.side is PositionSide.LONG) == book.long
    )
    price = view.liquidation_price
    size, falling_hurts = view.position.size, book.long
    if not book.isolated:  # of a hedged pair the larger leg counts
        legs = [each.position for each in engine.positions("ann", "BTCUSDT")]
        size = max(leg.size for leg in legs)
        net = sum((leg.signed_size for leg in legs), D(0))
        assume(net)
        falling_hurts = net > 0
    assume(D(1000) < price < D(200_000))
    assume(tier_rate(book.tiers, price * size) == tier_rate(book.tiers, view.mark_price * size))
    # the position is lost at the price itself; one tick on its good side it is not
    if falling_hurts:
        safe = (price / TICK).to_integral_value(ROUND_FLOOR) * TICK + TICK
        lost = safe - TICK
    else:
        safe = (price / TICK).to_integral_value(ROUND_CEILING) * TICK - TICK
        lost = safe + TICK
    assume(tier_rate(book.tiers, safe * size) == tier_rate(book.tiers, lost * size))
    assert covered(engine, book, safe)
    assert not covered(engine, book, lost)
    held = {(v.position.symbol, v.position.side): v.position.size for v in engine.positions("ann")}
    market.flat_from("BTCUSDT", 1, str(safe))
    engine.advance_to(START_MS + 2 * MINUTE - 1)
    assert forced_orders(engine) == []
    market.flat_from("BTCUSDT", 2, str(lost))
    engine.advance_to(START_MS + 2 * MINUTE)
    assert forced_orders(engine) != []
    now = {(v.position.symbol, v.position.side): v.position.size for v in engine.positions("ann")}
    assert now != held
    if book.isolated:
        assert all(now.get(key) == size for key, size in held.items() if key[0] == "ETHUSDT")
    assert engine.futures_balance("ann").wallet >= 0
    audited(engine)


def test_the_formulas_of_one_position_are_the_published_ones() -> None:
    market = TieredMarket(LADDER)
    engine = new_engine(market, "10000")
    engine.set_leverage("ann", "BTCUSDT", D(20))
    buy_or_sell(engine, Side.BUY, "1")
    view = engine.positions("ann")[0]
    wallet = engine.futures_balance("ann").wallet
    assert view.position.entry_price == D("50001")
    assert view.liquidation_price == (D(50001) - wallet) / (1 - D("0.005") - FEE)
    isolated = new_engine(TieredMarket(LADDER), "10000")
    isolated.set_margin_mode("ann", "BTCUSDT", MarginMode.ISOLATED)
    isolated.set_leverage("ann", "BTCUSDT", D(20))
    buy_or_sell(isolated, Side.SELL, "1")
    view = isolated.positions("ann")[0]
    margin, entry = view.position.isolated_margin, view.position.entry_price
    assert (margin, entry) == (D("2499.95"), D("49999"))
    assert view.liquidation_price == (margin + entry) / (D("0.005") + FEE + 1)


# -- how --------------------------------------------------------------------------------------


def test_B12_a_large_position_is_taken_down_two_tiers_at_a_time() -> None:
    market = TieredMarket(LADDER)
    engine = new_engine(market, "45000")
    engine.set_leverage("ann", "BTCUSDT", D(10))
    buy_or_sell(engine, Side.BUY, "7.5")  # 375,000 USDT: tier 4
    market.flat_from("BTCUSDT", 1, "45210")  # 339,000 USDT, still tier 4: 10,000 left, 8,680 needed
    engine.advance_to(START_MS + MINUTE)
    assert forced_orders(engine) == []
    market.flat_from("BTCUSDT", 2, "45000")
    engine.advance_to(START_MS + 2 * MINUTE)
    [view] = engine.positions("ann")
    # down to the end of tier 2, less than 200,000 USDT: 4.4444 x 45000 = 199,998
    assert view.position.size == D("4.4444")
    assert forced_orders(engine) == [(ForcedClose.REDUCE, D("3.0556"))]
    [order] = [o for o in engine.order_history("ann") if o.source is OrderSource.LIQUIDATION]
    assert order_detail_row(order)["tradeSide"] == "reduce_sell_single"
    assert order_detail_row(order)["orderSource"] == "liquidation"
    assert words(engine)[-1] == "force_sell"
    assert engine.futures_balance("ann").margin_ratio < 1
    assert engine.position_history("ann") == []
    audited(engine)


def test_B11_a_fall_through_all_tiers_ends_with_nothing_and_the_fund_pays() -> None:
    market = TieredMarket(LADDER)
    engine = new_engine(market, "45000")
    engine.set_leverage("ann", "BTCUSDT", D(10))
    buy_or_sell(engine, Side.BUY, "7.5")
    market.flat_from("BTCUSDT", 1, "40000")
    engine.advance_to(START_MS + MINUTE)
    assert engine.positions("ann") == []
    assert [forced for forced, _ in forced_orders(engine)] == [
        ForcedClose.REDUCE,  # 300,000 USDT, tier 4 -> 200,000, the end of tier 2
        ForcedClose.REDUCE,  # tier 2 -> the end of tier 1
        ForcedClose.BURST,
    ]
    assert words(engine)[-4:] == [
        "force_sell",
        "force_sell",
        "burst_sell",
        "risk_captital_user_transfer",
    ]
    assert engine.futures_balance("ann").wallet == 0
    [closed] = engine.position_history("ann")
    assert closed.liquidated
    lost = closed.net_profit + D(45000)
    assert engine.ledger.house_balance(House.INSURANCE, "USDT") == lost < 0
    audited(engine)


def test_B11_hedged_legs_are_netted_without_a_trade_before_anything_is_sold() -> None:
    market = TieredMarket(LADDER)
    engine = new_engine(market, "5000", PositionMode.HEDGE)
    engine.set_leverage("ann", "BTCUSDT", D(50))
    buy_or_sell(engine, Side.BUY, "1.9")
    buy_or_sell(engine, Side.SELL, "1.5")
    fees_before = engine.ledger.house_balance(House.FEES, "USDT")
    market.flat_from("BTCUSDT", 1, "38700")
    engine.advance_to(START_MS + MINUTE)
    [view] = engine.positions("ann")
    assert (view.position.side, view.position.size) == (PositionSide.LONG, D("0.4"))
    assert forced_orders(engine) == [
        (ForcedClose.OFFSET, D("1.5")),
        (ForcedClose.OFFSET, D("1.5")),
    ]
    assert engine.ledger.house_balance(House.FEES, "USDT") == fees_before
    prices = {fill.price for fill in engine.fills("ann") if fill.forced is not None}
    assert prices == {D("38700")}
    shown = [fill_row(fill)["tradeSide"] for fill in engine.fills("ann") if fill.forced]
    assert shown == ["offset_close_long", "offset_close_short"]
    audited(engine)


def test_B11_a_crossed_liquidation_cancels_every_order_an_isolated_one_its_own() -> None:
    for isolated in (False, True):
        market = TieredMarket(LADDER)
        engine = new_engine(market, "6000")
        engine.set_margin_mode("ann", "ETHUSDT", MarginMode.ISOLATED)
        if isolated:
            engine.set_margin_mode("ann", "BTCUSDT", MarginMode.ISOLATED)
        buy_or_sell(engine, Side.BUY, "1")
        far = [
            engine.place_order(
                "ann", FuturesOrderCommand(symbol, Side.BUY, OrderType.LIMIT, D("0.1"), D(price))
            )
            for symbol, price in (("BTCUSDT", "47500"), ("ETHUSDT", "1900"))
        ]
        engine.advance_to(START_MS + 5000)
        market.flat_from("BTCUSDT", 1, "60000")
        market.flat_from("BTCUSDT", 2, "40000")
        engine.advance_to(START_MS + 2 * MINUTE)
        assert engine.positions("ann") == []
        assert far[0].cancel_reason is (
            CancelReason.NONE if far[0].filled_size else CancelReason.LIQUIDATION
        )
        assert (far[1].cancel_reason is CancelReason.LIQUIDATION) is not isolated
        audited(engine)


def test_an_isolated_position_of_a_high_tier_is_closed_whole_and_costs_its_margin() -> None:
    market = TieredMarket(LADDER)
    engine = new_engine(market, "100000")
    engine.set_margin_mode("ann", "BTCUSDT", MarginMode.ISOLATED)
    engine.set_leverage("ann", "BTCUSDT", D(10))
    buy_or_sell(engine, Side.BUY, "7.5")
    after_opening = engine.futures_balance("ann")
    market.flat_from("BTCUSDT", 1, "40000")
    engine.advance_to(START_MS + MINUTE)
    assert forced_orders(engine) == [(ForcedClose.BURST, D("7.5"))]
    left = after_opening.wallet - after_opening.isolated_margin
    assert engine.futures_balance("ann").wallet == left
    audited(engine)


def test_funding_beyond_an_isolated_margin_is_not_the_accounts_loss() -> None:
    market = TieredMarket(LADDER)
    market.fund(1, "0.03")
    engine = new_engine(market, "10000")
    engine.set_margin_mode("ann", "BTCUSDT", MarginMode.ISOLATED)
    engine.set_leverage("ann", "BTCUSDT", D(50))
    buy_or_sell(engine, Side.BUY, "0.1")
    after_opening = engine.futures_balance("ann")
    engine.advance_to(START_MS + MINUTE)  # 150 USDT are due, 100.002 are the margin
    assert engine.positions("ann") == []
    assert engine.futures_balance("ann").wallet == (
        after_opening.wallet - after_opening.isolated_margin
    )
    audited(engine)


def test_a_short_profits_from_what_liquidates_a_long() -> None:
    market = TieredMarket(LADDER)
    engine = new_engine(market, "3000")
    engine.open_account("bob", futures_usdt=D(3000))
    for name, side in (("ann", Side.BUY), ("bob", Side.SELL)):
        engine.place_order(name, FuturesOrderCommand("BTCUSDT", side, OrderType.MARKET, D(1)))
    engine.advance_to(START_MS + 1000)
    market.flat_from("BTCUSDT", 1, "45000")
    engine.advance_to(START_MS + MINUTE)
    assert engine.positions("ann") == []
    assert engine.positions("bob")[0].unrealized == D(4999)
    assert sum(engine.ledger.balances().values()) == 0


def test_what_the_book_cannot_take_is_liquidated_at_the_next_prices() -> None:
    market = TieredMarket(LADDER, depth_usdt=2000)  # all levels together: some 1,300,000 USDT
    engine = new_engine(market, "400000")
    engine.set_leverage("ann", "BTCUSDT", D(10))
    for _ in range(3):
        buy_or_sell(engine, Side.BUY, "22")
        engine.advance_to(engine.now_ms + 5000 - engine.now_ms % 5000)
    market.flat_from("BTCUSDT", 1, "45200")
    engine.advance_to(START_MS + MINUTE)
    [first] = forced_orders(engine)
    assert 20 < first[1] < 40
    assert engine.futures_balance("ann").margin_ratio > 1
    engine.advance_to(START_MS + 2 * MINUTE)
    taken = [fill for fill in engine.fills("ann") if fill.forced is not None]
    assert len({fill.at_ms for fill in taken}) > 1
    assert engine.futures_balance("ann").margin_ratio < 1
    assert engine.open_orders("ann", market=MarketType.FUTURES) == []
    audited(engine)


def test_nothing_is_liquidated_in_a_gap_of_the_data() -> None:
    market = TieredMarket(LADDER)
    market.flat_from("ETHUSDT", 1, "1000")
    market.gaps = {("BTCUSDT", 1), ("BTCUSDT", 2)}
    engine = new_engine(market, "3200")
    buy_or_sell(engine, Side.BUY, "0.5")
    buy_or_sell(engine, Side.BUY, "2", "ETHUSDT")
    market.flat_from("BTCUSDT", 3, "46000")
    engine.advance_to(START_MS + 3 * MINUTE - 1)
    assert {view.position.symbol for view in engine.positions("ann")} == {"BTCUSDT", "ETHUSDT"}
    engine.advance_to(START_MS + 3 * MINUTE)
    assert forced_orders(engine) != []
    audited(engine)


@pytest.mark.parametrize("side", list(Side))
def test_hedge_words_of_a_liquidation_in_part(side: Side) -> None:
    market = TieredMarket(LADDER)
    engine = new_engine(market, "45000", PositionMode.HEDGE)
    engine.set_leverage("ann", "BTCUSDT", D(10))
    buy_or_sell(engine, side, "7.5")
    market.flat_from("BTCUSDT", 1, "45000" if side is Side.BUY else "54800")
    engine.advance_to(START_MS + MINUTE)
    held = "long" if side is Side.BUY else "short"
    [fill] = [fill for fill in engine.fills("ann") if fill.forced is ForcedClose.REDUCE][:1]
    assert fill_row(fill)["tradeSide"] == f"reduce_close_{held}"
    assert f"force_close_{held}" in words(engine)
