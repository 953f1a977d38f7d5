"""A letter that a process takes up: how old it knows it to be, and what it does first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from tests.unit.trading.execution.desk import Desk, wanted
from tests.unit.trading.execution.test_endings import begun
from trading.execution.auto_trade import auto_trade, is_stale
from trading.execution.freshness import FIRST_ORDER_AGE_MAX_S, LOOK_AGAIN_S
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import CycleStage, OrderInfo

TWO = {"BTCUSDT": "0.3", "SOLUSDT": "0.25"}


def traded(desk: Desk, info: OrderInfo, least_age_s: float = 0.0) -> OrderInfo:
    """By a process that has had the plan in its hands for so long."""
    desk.exchange.calls.clear()
    rules = replace(desk.rules(), least_age_s=lambda _info: least_age_s)
    return auto_trade(info, desk.ports(), rules)


def test_C7_a_plan_that_is_old_by_real_time_is_not_begun_though_the_clock_was_set_back() -> None:
    desk = Desk()
    done = traded(desk, desk.planned(wanted(TWO)), FIRST_ORDER_AGE_MAX_S + 1)
    assert is_stale(done)
    assert desk.exchange.calls == ["instruments"], "it is not even looked at"


def test_C7_a_plan_that_is_not_of_just_now_by_real_time_is_compared_once_more() -> None:
    desk = Desk()
    desk.exchange.hold("SOLUSDT", "10")
    info = desk.planned(wanted(TWO))
    desk.exchange.hold("SOLUSDT", "7")
    done = traded(desk, info, LOOK_AGAIN_S + 1)
    assert is_stale(done)
    assert desk.exchange.ledger == []


def test_D2_a_plan_that_has_begun_is_not_thrown_away_for_a_position_that_changed() -> None:
    """Thrown away it would be made anew beside its own first order."""
    desk = Desk()
    desk.exchange.hold("SOLUSDT", "10")
    info = desk.planned(wanted(TWO))
    size = info.leg("BTCUSDT-open").size
    desk.exchange.hold("BTCUSDT", size)
    info = begun(info, "BTCUSDT-open", state=LegState.FILLED, filled_size=size)
    desk.exchange.hold("SOLUSDT", "7")
    done = traded(desk, info)
    assert done.stage is CycleStage.DONE
    assert "SOLUSDT is 7, by the letter 10" in (done.leg("SOLUSDT-open").abandoned or "")
    assert desk.exchange.held("BTCUSDT") == size


def test_I2_only_a_sessions_first_cycle_protects_before_it_trades() -> None:
    """What it adopts may be bare; later the gateway has watched all along."""
    stops: Mapping[str, tuple[str | None, str | None]] = {"BTCUSDT": ("55000", None)}
    for number, is_first in ((1, True), (2, False)):
        desk = Desk()
        desk.exchange.hold("BTCUSDT", "0.0009")
        info = desk.planned(wanted({"BTCUSDT": "0.1"}, stops))
        traded(desk, replace(info, number=number))
        before = desk.exchange.calls[: desk.exchange.calls.index("submit")]
        assert ("set_stops" in before) is is_first
        assert desk.exchange.stops_of("BTCUSDT").stop_loss == Decimal("55000.0")
