"""The crash of 10 October 2025, replayed with leverage: who is liquidated, when, and who pays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from pathlib import Path

import pytest

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import (
    EngineSettings,
    FuturesOrderCommand,
    MarginMode,
    OrderType,
    Side,
)
from module.simulator.engine.ledger import House
from module.simulator.prices.replay import ReplayMarket

D = Decimal
DATA = Path(__file__).parents[3].parent / "shared" / "data" / "perp_1h_2025"
SYMBOLS = ("BTCUSDT", "DOGEUSDT", "INJUSDT")
START_MS = int(datetime(2025, 10, 10, 20, 45, tzinfo=UTC).timestamp() * 1000)
END_MS = int(datetime(2025, 10, 10, 22, 15, tzinfo=UTC).timestamp() * 1000)
POINT_MS = 5000
FEE = D("0.0006")
MARGIN = D(1000)

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"the candles of 2025 are not beside the checkout ({DATA})"
)


@dataclass(frozen=True)
class Trader:
    """One position of one account."""

    name: str
    symbol: str
    side: Side
    mode: MarginMode
    leverage: int


TRADERS = tuple(
    Trader(f"{symbol}-{side}-{mode}-{leverage}", symbol, side, mode, leverage)
    for symbol in SYMBOLS
    for side, mode, leverage in (
        (Side.BUY, MarginMode.CROSSED, 10),
        (Side.BUY, MarginMode.ISOLATED, 20),
        (Side.SELL, MarginMode.CROSSED, 3),
    )
)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> ReplayMarket:
    folder = tmp_path_factory.mktemp("crash")
    for symbol in SYMBOLS:
        for path in DATA.glob(f"{symbol}.*"):
            (folder / path.name).symlink_to(path)
    return ReplayMarket(folder)


def opened(market: ReplayMarket, *, sleeps: bool) -> Engine:
    engine = Engine(market, EngineSettings(), START_MS)
    engine._world.sleeps = sleeps
    for trader in TRADERS:
        engine.open_account(trader.name, futures_usdt=MARGIN)
        engine.set_margin_mode(trader.name, trader.symbol, trader.mode)
        engine.set_leverage(trader.name, trader.symbol, D(trader.leverage))
        step = engine.futures_instruments()[trader.symbol].size_step
        notional = MARGIN * trader.leverage * D("0.8")
        lots = (notional / engine.last_price(trader.symbol) / step).to_integral_value(ROUND_DOWN)
        engine.place_order(
            trader.name,
            FuturesOrderCommand(trader.symbol, trader.side, OrderType.MARKET, lots * step),
        )
    engine.advance_to(START_MS + POINT_MS)
    return engine


def points(engine: Engine) -> Iterator[int]:
    while engine.now_ms < END_MS:
        engine.advance_to(engine.now_ms + POINT_MS)
        yield engine.now_ms


def survives(engine: Engine, trader: Trader, mark: Decimal) -> bool:
    """The published formula, from fills and bills: margin + profit > mark x size x (MMR + fee)."""
    [fill] = [f for f in engine.fills(trader.name) if f.forced is None]
    bills = engine.bills(trader.name)
    money = sum((b.amount + b.fee for b in bills), D(0))
    if trader.mode is MarginMode.ISOLATED:
        money = fill.price * fill.size / trader.leverage
        money += sum((b.amount for b in bills if b.business_type == "contract_settle_fee"), D(0))
    profit = (mark - fill.price) * fill.size * fill.direction
    value = mark * fill.size
    tiers = engine.futures_instruments()[trader.symbol].tiers
    rate = next(tier.maintenance for tier in tiers if value < tier.end)
    return money + profit > value * (rate + FEE)


def test_each_position_is_liquidated_at_the_first_mark_that_the_formula_names(
    market: ReplayMarket,
) -> None:
    engine = opened(market, sleeps=True)
    for trader in TRADERS:
        assert len(engine.positions(trader.name)) == 1, trader
    alive = list(TRADERS)
    lost: dict[str, tuple[int, Decimal]] = {}
    for now_ms in points(engine):
        for trader in list(alive):
            mark = engine.ticker(trader.symbol).mark
            forced = [f for f in engine.fills(trader.name) if f.forced is not None]
            if forced:
                # what was left before it closed is what the formula must see
                before = [b for b in engine.bills(trader.name) if "burst" in b.business_type]
                assert before[0].at_ms == now_ms
                lost[trader.name] = (now_ms, mark)
                alive.remove(trader)
                assert engine.positions(trader.name) == []
            else:
                assert survives(engine, trader, mark), (trader, mark)
    assert set(lost) == {
        "BTCUSDT-buy-isolated-20",
        "DOGEUSDT-buy-crossed-10",
        "DOGEUSDT-buy-isolated-20",
        "INJUSDT-buy-crossed-10",
        "INJUSDT-buy-isolated-20",
    }
    for trader in TRADERS:
        if trader.name in lost:
            check_loss(engine, trader, lost[trader.name][1])
    engine.ledger.audit()


def check_loss(engine: Engine, trader: Trader, mark: Decimal) -> None:
    """The mark was beyond the formula's price; the trader lost what was at stake, no more."""
    [entry] = [f for f in engine.fills(trader.name) if f.forced is None]
    fees = truncated(entry.price * entry.size * FEE)
    stake = MARGIN - fees
    if trader.mode is MarginMode.ISOLATED:
        stake = entry.price * entry.size / trader.leverage
    tiers = engine.futures_instruments()[trader.symbol].tiers
    rate = next(tier.maintenance for tier in tiers if mark * entry.size < tier.end) + FEE
    liquidation = (entry.price * entry.size - stake) / (entry.size * (1 - rate))
    assert mark <= liquidation
    closing = [f for f in engine.fills(trader.name) if f.forced is not None]
    result = sum((f.profit + f.fee for f in closing), D(0))
    [paid, *more] = [
        b.amount for b in engine.bills(trader.name) if b.business_type.startswith("risk_")
    ] or [D(0)]
    assert more == []
    assert abs(paid - max(D(0), -result - stake)) < D("1e-6")
    wallet = engine.futures_balance(trader.name).wallet
    assert abs(wallet - (MARGIN - fees + result + paid)) < D("1e-6")
    assert wallet >= 0


def truncated(fee: Decimal) -> Decimal:
    return fee.quantize(D("1e-8"), rounding=ROUND_DOWN)


def test_shorts_gain_and_the_fund_pays_exactly_what_nobody_else_did(market: ReplayMarket) -> None:
    engine = opened(market, sleeps=True)
    engine.advance_to(END_MS)
    paid = D(0)
    for trader in TRADERS:
        bills = engine.bills(trader.name)
        paid += sum((b.amount for b in bills if b.business_type.startswith("risk_")), D(0))
        for view in engine.positions(trader.name):
            if trader.side is Side.SELL:
                assert view.unrealized > 0
                engine.close_positions(trader.name)
    engine.advance_to(END_MS + 1000)
    shorts = [trader for trader in TRADERS if trader.side is Side.SELL]
    for trader in shorts:
        assert engine.position_history(trader.name)[0].net_profit > 0
        assert engine.futures_balance(trader.name).wallet > MARGIN
    assert paid > 0
    assert engine.ledger.house_balance(House.INSURANCE, "USDT") == -paid
    engine.ledger.audit()


def test_the_crash_is_the_same_asleep_and_awake(market: ReplayMarket) -> None:
    asleep, awake = opened(market, sleeps=True), opened(market, sleeps=False)
    for engine in (asleep, awake):
        engine.advance_to(END_MS)
    assert asleep.ledger_dump() == awake.ledger_dump()
