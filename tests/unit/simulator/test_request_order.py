"""Requests of one world moment: their order does not show in the ledger.

Several processes send at once, and the machine decides whose request comes first. Kept is the order
of one account's requests for one symbol (they follow each other on one connection, or are one
batch). What competes for one pot (margin, a position to reduce) is refused in the order of coming;
there is enough for everybody here.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import (
    EngineSettings,
    Force,
    FuturesOrderCommand,
    HoldSide,
    MarketType,
    OrderType,
    PlanOrderCommand,
    PlanType,
    PositionStopCommand,
    PresetStop,
    Side,
    SpotOrderCommand,
)
from module.simulator.prices.synthetic import SyntheticMarket
from tests.fakes.scripted_market import START_MS

pytestmark = pytest.mark.timeout(60)
D = Decimal
MARKET = SyntheticMarket(11)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT", "SOLUSDT")
ACCOUNTS = ("10000001", "10000002")
Request = Callable[[Engine], object]


def at(engine: Engine, symbol: str, factor: str) -> Decimal:
    """A price on the tick, `factor` away from the last."""
    step = engine.futures_instruments()[symbol].price_step
    return (engine.last_price(symbol) * D(factor) / step).to_integral_value() * step


def size_of(engine: Engine, symbol: str, usdt: int) -> Decimal:
    step = engine.futures_instruments()[symbol].size_step
    return (D(usdt) / engine.last_price(symbol) / step).to_integral_value() * step


def futures(account: str, symbol: str, side: Side, usdt: int, client_id: str | None) -> Request:
    def place(engine: Engine) -> object:
        stop = PresetStop(at(engine, symbol, "0.9" if side is Side.BUY else "1.1"))
        size = size_of(engine, symbol, usdt)
        command = FuturesOrderCommand(
            symbol, side, OrderType.MARKET, size, client_id=client_id, stop_loss=stop
        )
        return engine.place_order(account, command)

    return place


def resting(account: str, symbol: str) -> Request:
    def place(engine: Engine) -> object:
        command = FuturesOrderCommand(
            symbol,
            Side.BUY,
            OrderType.LIMIT,
            size_of(engine, symbol, 333),
            price=at(engine, symbol, "0.999"),
            force=Force.GTC,
        )
        return engine.place_order(account, command)

    return place


def plan(account: str, symbol: str) -> Request:
    def place(engine: Engine) -> object:
        order = FuturesOrderCommand(
            symbol, Side.BUY, OrderType.MARKET, size_of(engine, symbol, 222)
        )
        trigger = at(engine, symbol, "0.9995")
        return engine.place_plan_order(account, PlanOrderCommand(order, trigger))

    return place


def stop(account: str, symbol: str) -> Request:
    def place(engine: Engine) -> object:
        command = PositionStopCommand(
            symbol, PlanType.POS_PROFIT, HoldSide.BUY, at(engine, symbol, "1.0005")
        )
        return engine.place_position_stop(account, command)

    return place


def spot(account: str, symbol: str) -> Request:
    def place(engine: Engine) -> object:
        return engine.place_spot_order(
            account, SpotOrderCommand(symbol, Side.BUY, OrderType.MARKET, D(97))
        )

    return place


def requests_of_a_moment() -> list[list[Request]]:
    """What comes in at once: for each account and symbol a few requests that follow each other."""
    lines: list[list[Request]] = []
    for number, account in enumerate(ACCOUNTS):
        for place, symbol in enumerate(SYMBOLS):
            client_id = f"id-{symbol}" if place % 2 else None
            usdt = 900 + 100 * place + number
            line = [futures(account, symbol, Side.BUY, usdt, client_id), plan(account, symbol)]
            line += [resting(account, symbol), stop(account, symbol)]
            lines.append(line[number:] if place % 2 else line)
            lines.append([spot(account, symbol)])
    return lines


def ledger_after(interleaving: int | None) -> tuple[str, list[str]]:
    """The ledger of two hours after the moment, and the ids of everything, in order."""
    engine = Engine(MARKET, EngineSettings(), START_MS)
    for account in ACCOUNTS:
        engine.open_account(account, futures_usdt=D(100_000), spot={"USDT": D(10_000)})
        for symbol in SYMBOLS:
            engine.place_order(
                account,
                FuturesOrderCommand(
                    symbol, Side.BUY, OrderType.MARKET, size_of(engine, symbol, 500)
                ),
            )
    engine.advance_to(START_MS + 1_000)
    lines = requests_of_a_moment()
    turns = [line for line in lines for _ in line]
    if interleaving is not None:
        Random(interleaving).shuffle(turns)
    queues = {id(line): list(line) for line in lines}
    for line in turns:
        queues[id(line)].pop(0)(engine)
    engine.advance_to(START_MS + 7_200_000)
    ids = [
        row.plan_id
        for account in ACCOUNTS
        for row in (*engine.plans(account), *engine.plan_history(account))
    ]
    return engine.ledger_dump(), ids


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 10_000))
def test_requests_of_one_moment_may_come_in_any_order(interleaving: int) -> None:
    dump, plans = ledger_after(interleaving)
    assert (dump, plans) == ledger_after(None)


def test_ids_of_one_account_and_symbol_increase_as_they_were_accepted() -> None:
    engine = Engine(MARKET, EngineSettings(), START_MS)
    engine.open_account("10000007", futures_usdt=D(100_000))
    ids = [
        int(
            engine.place_order(
                "10000007",
                FuturesOrderCommand(
                    "BTCUSDT",
                    Side.BUY,
                    OrderType.LIMIT,
                    D("0.01"),
                    price=at(engine, "BTCUSDT", "0.97"),
                ),
            ).order_id
        )
        for _ in range(150)
    ]
    assert ids == sorted(set(ids))
    assert {len(str(number)) for number in ids} == {19}
    listed = engine.open_orders("10000007", market=MarketType.FUTURES)
    assert [int(order.order_id) for order in listed] == ids
