"""What a preview tells is what the exchange then shows: plans carried out on the simulated one,
crossed and isolated, with profits and losses, through a flip."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from module.model.accounts import MarginMode, Position, PositionMode
from module.model.books import BookLevel, Depth, MarginTier
from module.model.market import Instrument, MarketType
from module.model.orders import NO_STOPS
from module.model.sessions import TradeMode
from module.simulator.engine import engine_types as venue
from module.simulator.engine.engine import Engine
from module.simulator.prices.market_source import MINUTE_MS, PriceKind
from tests.fakes.scripted_market import START_MS, ScriptedMarket
from trading.rebalance.decision import AccountInputs, CycleInputs, Decision, decide
from trading.rebalance.estimate import PlanEstimate, Surroundings, estimate_plan
from trading.rebalance.legs import Policy

AT = datetime(2026, 3, 2, 5, 7, tzinfo=UTC)
WHO = "ann"
NEAR = Decimal("1e-6")
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def an_account(
    leverage: int, isolated: tuple[str, ...], first: Mapping[str, str], prices: Mapping[str, str]
) -> Engine:
    """10,000 USDT at 50,000 and 2,000; `first` is traded, then the prices become `prices`."""
    market = ScriptedMarket()
    for symbol, price in prices.items():
        market.flat_from(symbol, 2, price)
    engine = Engine(market, venue.EngineSettings(), START_MS)
    engine.open_account(WHO, futures_usdt=Decimal(10_000))
    for symbol in isolated:
        engine.set_margin_mode(WHO, symbol, venue.MarginMode.ISOLATED)
    for symbol in SYMBOLS:
        engine.set_leverage(WHO, symbol, Decimal(leverage))
    for symbol, size in first.items():
        trade(engine, symbol, Decimal(size))
    engine.advance_to(START_MS + 3 * MINUTE_MS)
    return engine


def trade(engine: Engine, symbol: str, size: Decimal) -> None:
    side = venue.Side.BUY if size > 0 else venue.Side.SELL
    command = venue.FuturesOrderCommand(symbol, side, venue.OrderType.MARKET, abs(size))
    engine.advance_to(engine.place_order(WHO, command).arrives_ms)


def held_by(engine: Engine) -> tuple[Position, ...]:
    found = []
    for view in engine.positions(WHO):
        record = view.position
        found.append(
            Position(
                record.symbol, record.signed_size, record.entry_price, view.mark_price,
                view.margin_size, view.unrealized, Decimal(0), Decimal(0), Decimal(0),
                record.leverage, MarginMode(record.margin_mode.value), None, NO_STOPS, AT,
            )
        )  # fmt: skip
    return tuple(found)


def previewed(
    engine: Engine, leverage: int, weights: Mapping[str, str]
) -> tuple[Decision, PlanEstimate]:
    balance, listed = engine.futures_balance(WHO), engine.futures_instruments()
    inputs = CycleInputs(
        session_id="2603020507-abcd",
        cycle=AT,
        policy=Policy(
            TradeMode.GENERAL, MarketType.FUTURES, Decimal(leverage), Decimal("0.001")
        ),
        account=AccountInputs(
            AT, balance.equity, balance.available, PositionMode.ONE_WAY, held_by(engine)
        ),
        initial_balance=balance.equity,
        allocated=None,
        compounding=True,
        answer={symbol: {"weight": weight} for symbol, weight in weights.items()},
        marks={symbol: engine.price(symbol, PriceKind.MARK) for symbol in SYMBOLS},
        instruments={
            symbol: Instrument(
                symbol, symbol.removesuffix("USDT"), "USDT", MarketType.FUTURES, Decimal("0.1"),
                listed[symbol].size_step, listed[symbol].size_min, Decimal(5), Decimal(10**6),
                Decimal(125), listed[symbol].taker_fee, Decimal(0),
            )
            for symbol in SYMBOLS
        },
    )  # fmt: skip
    surroundings = Surroundings(
        depths={symbol: depth_of(engine, symbol) for symbol in SYMBOLS},
        tiers={
            symbol: tuple(
                MarginTier(tier.start, tier.end, tier.maintenance) for tier in listed[symbol].tiers
            )
            for symbol in SYMBOLS
        },
        margin_mode=MarginMode.CROSSED,
    )
    decision = decide(inputs)
    return decision, estimate_plan(inputs, decision, surroundings)


def depth_of(engine: Engine, symbol: str) -> Depth:
    seen = engine.depth(symbol)
    bids = tuple(BookLevel(price, size) for price, size in seen.bids)
    asks = tuple(BookLevel(price, size) for price, size in seen.asks)
    return Depth(symbol, bids, asks, AT)


@pytest.mark.parametrize(
    ("leverage", "isolated", "first", "prices", "weights", "legs"),
    [
        (10, (), {}, {}, {"BTCUSDT": "0.5", "ETHUSDT": "-0.3"}, 2),
        (
            10, (), {"BTCUSDT": "1", "ETHUSDT": "-20"}, {"BTCUSDT": "52000", "ETHUSDT": "1950"},
            {"BTCUSDT": "0.2", "ETHUSDT": "0.3"}, 3,
        ),
        (10, (), {"BTCUSDT": "1", "ETHUSDT": "-20"}, {"BTCUSDT": "49000"}, {"BTCUSDT": "0"}, 1),
        (
            5, SYMBOLS, {"BTCUSDT": "0.4", "ETHUSDT": "-6"},
            {"BTCUSDT": "54000", "ETHUSDT": "1900"}, {"BTCUSDT": "0.2"}, 1,
        ),
        (
            5, ("BTCUSDT",), {"BTCUSDT": "0.4", "ETHUSDT": "-6"}, {"BTCUSDT": "48000"},
            {"BTCUSDT": "0.6"}, 1,
        ),
    ],
    ids=["opens", "reduces and flips", "closes at a loss", "isolated less", "isolated more"],
)  # fmt: skip
def test_the_account_is_afterwards_what_the_preview_said(
    leverage: int,
    isolated: tuple[str, ...],
    first: Mapping[str, str],
    prices: Mapping[str, str],
    weights: Mapping[str, str],
    legs: int,
) -> None:
    engine = an_account(leverage, isolated, first, prices)
    decision, told = previewed(engine, leverage, weights)
    assert len(decision.plan.legs) == legs
    for leg in decision.plan.legs:
        trade(engine, leg.symbol, leg.side.sign * leg.size)
    found = engine.futures_balance(WHO)
    assert abs(told.after.equity - found.equity) < NEAR
    assert abs(told.after.available - found.available) < NEAR
    assert abs(told.after.margin_used - found.crossed_margin - found.isolated_margin) < NEAR
    lines = {line.symbol: line for line in told.positions}
    for view in engine.positions(WHO):
        line = lines[view.position.symbol]
        assert line.size_after == view.position.signed_size
        assert abs(line.margin_after - view.margin_size) < NEAR
        assert line.liquidation_after is not None
        assert abs(line.liquidation_after - view.liquidation_price) < Decimal("0.001")
