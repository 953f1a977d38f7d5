"""What the exchange tells of our fills: repeated ones count once, invented ones halt."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from api.problems import install_problems
from module.gateway.read_back import overfilled
from module.model.errors import AifapError, InvariantViolated
from module.model.market import MarketType
from module.model.orders import Fill, Outcome, Side
from module.wire.problem_codec import error_from_problem
from tests.fakes.gateway_rig import GatewayRig, buy, sell
from tests.fakes.gateway_stores import account
from tests.fakes.hand_clock import START
from tests.fakes.memory_spot import MemorySpot


def fill(trade_id: str, size: str, order_id: str = "77", **changes: object) -> Fill:
    values: dict[str, object] = {
        "trade_id": trade_id,
        "order_id": order_id,
        "symbol": "BTCUSDT",
        "side": Side.BUY,
        "price": Decimal(60_000),
        "size": Decimal(size),
        "quote_size": Decimal(size) * 60_000,
        "fee": Decimal(0),
        "fee_asset": "USDT",
        "realized_pnl": Decimal(0),
        "is_taker": True,
        "at": START,
        **changes,
    }
    return Fill(**values)  # type: ignore[arg-type]


SENT = {"77": buy(size="0.0123")}


def test_B3_the_same_fill_told_three_times_counts_once() -> None:
    fills = [fill("t1", "0.0100")] * 3 + [fill("t2", "0.0023")]
    assert overfilled(fills, SENT, MarketType.FUTURES) == ""


def test_B3_the_same_fill_under_another_trade_id_is_more_than_was_asked_for() -> None:
    told = overfilled([fill("t1", "0.0123"), fill("t2", "0.0123")], SENT, MarketType.FUTURES)
    assert "af-1" in told
    assert "0.0246" in told


def test_fills_of_orders_that_are_not_ours_are_nobodys_business_here() -> None:
    assert overfilled([fill("t1", "5", order_id="99")], SENT, MarketType.FUTURES) == ""


def test_a_spot_buy_in_quote_coin_may_fill_another_size() -> None:
    fills = [fill("t1", "0.0124")]
    assert overfilled(fills, SENT, MarketType.SPOT) == ""
    selling = {"77": sell(size="0.0123")}
    assert overfilled(fills, selling, MarketType.SPOT) != ""


def test_A26_a_spot_purchase_that_was_doubled_is_seen() -> None:
    assert overfilled([fill("t1", "0.01353")], SENT, MarketType.SPOT) == ""
    told = overfilled([fill("t1", "0.0123"), fill("t2", "0.0123")], SENT, MarketType.SPOT)
    assert "0.0246" in told


def test_A26_a_doubled_spot_purchase_halts_the_account() -> None:
    rig = GatewayRig(record=replace(account(), market=MarketType.SPOT))
    rig.venue = MemorySpot(rig.clock)
    rig.venues.by_account["acc"] = rig.venue
    rig.gateway.submit("acc", rig.stamp(), [buy()])
    report = rig.gateway.order("acc", "BTCUSDT", "af-1")
    doubled = replace(report, size=report.size * 2, filled_size=report.filled_size * 2)
    rig.venue.orders["af-1"] = doubled
    with pytest.raises(InvariantViolated, match=r"filled with 0\.0246, sent 0\.0123"):
        rig.gateway.order("acc", "BTCUSDT", "af-1")
    assert rig.gateway.submit("acc", rig.stamp(), [buy("af-3")])[0].code == "halted"


def test_B3_an_invented_fill_halts_the_account_and_says_so() -> None:
    rig = GatewayRig()
    (result,) = rig.gateway.submit("acc", rig.stamp(), [buy()])
    real = fill("t1", "0.0123", order_id=str(result.order_id))
    invented = replace(real, trade_id="t9")
    rig.venue.fills = lambda since: [real]  # type: ignore[method-assign]
    assert rig.gateway.fills("acc", START - timedelta(hours=1)) == [real]
    rig.venue.fills = lambda since: [real, invented]  # type: ignore[method-assign]
    with pytest.raises(InvariantViolated, match="invented or doubled") as caught:
        rig.gateway.fills("acc", START - timedelta(hours=1))
    assert caught.value.code == "halted"
    assert len(rig.alerts.of_kind("halted")) == 1
    assert rig.gateway.submit("acc", rig.stamp(), [buy("af-3")])[0].code == "halted"
    closing = rig.gateway.submit("acc", rig.stamp(), [sell("af-4")])[0]
    assert closing.outcome is Outcome.ACCEPTED


def test_A26_why_an_account_is_halted_reaches_the_session_and_other_bugs_say_nothing() -> None:
    def over_the_wire(error: InvariantViolated) -> AifapError:
        answer = asyncio.run(answer_of(error))
        return error_from_problem(answer.status_code, bytes(answer.body))

    async def answer_of(error: InvariantViolated) -> Response:
        app = FastAPI()
        install_problems(app)
        handler = app.exception_handlers[AifapError]
        found = handler(Request({"type": "http"}), error)
        return found if isinstance(found, Response) else await found

    told = over_the_wire(InvariantViolated("order af-1: size 0.02, sent 0.01", code="halted"))
    assert isinstance(told, InvariantViolated)
    assert "size 0.02, sent 0.01" in told.message
    hidden = over_the_wire(InvariantViolated("a path, a table, a secret"))
    assert "secret" not in hidden.message
