"""Every case of the diff, one by one, with numbers that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from module.model.errors import InvalidInput, InvariantViolated
from module.model.market import MarketType
from module.model.orders import NO_STOPS, Side, StopPrices
from module.model.sessions import TradeMode
from tests.fakes.exchange import MARKS, make_instrument
from tests.unit.trading.rebalance.books import book, executed, policy, position, targets
from trading.rebalance.plan import (
    DiffCase,
    SkipReason,
    plan_rebalance,
    sizing_base,
    wanted_stops,
)
from trading.rebalance.weights import Target


def test_new_opens_the_nearest_lot_multiple() -> None:
    plan = plan_rebalance(targets({"BTCUSDT": "0.3"}), book(), policy())
    (leg,) = plan.legs
    # 0.3 × 10007 ÷ 60123.4 = 0.04993…
    assert (leg.case, leg.side, leg.size) == (DiffCase.NEW, Side.BUY, Decimal("0.0499"))
    assert not leg.reduce_only
    assert leg.notional <= Decimal("0.3") * 10007
    assert leg.reference_price == Decimal("60123.4")


def test_new_short_sells_and_leverage_multiplies_the_size() -> None:
    plan = plan_rebalance(targets({"SOLUSDT": "-0.2"}), book(), policy(leverage=Decimal(3)))
    (leg,) = plan.legs
    # 0.2 × 10007 × 3 ÷ 151.37 = 39.66…
    assert (leg.case, leg.side, leg.size) == (DiffCase.NEW, Side.SELL, Decimal("39.7"))


def test_increase_trades_only_the_difference() -> None:
    plan = plan_rebalance(targets({"ETHUSDT": "0.5"}), book({"ETHUSDT": "1.11"}), policy())
    (leg,) = plan.legs
    # wanted 0.5 × 10007 ÷ 3001.25 = 1.667… → 1.67
    assert (leg.case, leg.side, leg.size) == (DiffCase.INCREASE, Side.BUY, Decimal("0.56"))
    assert leg.current_weight == Decimal("1.11") * Decimal("3001.25") / 10007


def test_decrease_of_a_short_buys_back_reduce_only() -> None:
    plan = plan_rebalance(targets({"ETHUSDT": "-0.1"}), book({"ETHUSDT": "-1.11"}), policy())
    (leg,) = plan.legs
    assert (leg.case, leg.side, leg.size) == (DiffCase.DECREASE, Side.BUY, Decimal("0.78"))
    assert leg.reduce_only


def test_opposite_closes_exactly_then_opens_after_the_close() -> None:
    plan = plan_rebalance(targets({"ETHUSDT": "-0.2"}), book({"ETHUSDT": "1.117"}), policy())
    close, opened = plan.legs
    assert (close.side, close.size, close.reduce_only) == (Side.SELL, Decimal("1.117"), True)
    assert (opened.side, opened.size, opened.reduce_only) == (Side.SELL, Decimal("0.67"), False)
    assert opened.after == close.leg_id
    assert {close.case, opened.case} == {DiffCase.OPPOSITE}


def test_an_opposite_difference_under_the_threshold_is_not_traded() -> None:
    plan = plan_rebalance(targets({"ETHUSDT": "-0.004"}), book({"ETHUSDT": "0.01"}), policy())
    assert plan.legs == ()
    assert [item.reason for item in plan.skipped] == [SkipReason.BELOW_THRESHOLD]
    assert plan.stops == {}


def test_absent_closes_what_is_there_even_off_the_lot_and_under_every_minimum() -> None:
    plan = plan_rebalance({}, book({"BTCUSDT": "0.00000317", "XRPUSDT": "-7.5"}), policy())
    assert [(leg.symbol, leg.side, leg.size) for leg in plan.legs] == [
        ("BTCUSDT", Side.SELL, Decimal("0.00000317")),
        ("XRPUSDT", Side.BUY, Decimal("7.5")),
    ]
    assert all(leg.reduce_only and leg.case is DiffCase.GONE for leg in plan.legs)
    assert plan.stops == {}


def test_a_weight_of_zero_closes_like_an_absent_symbol() -> None:
    plan = plan_rebalance(targets({"BTCUSDT": "0"}), book({"BTCUSDT": "0.0123"}), policy())
    assert [leg.size for leg in plan.legs] == [Decimal("0.0123")]


def test_a_drift_under_the_threshold_is_left_alone_and_shown() -> None:
    held = book({"BTCUSDT": "0.05"})  # weight 0.30040…
    plan = plan_rebalance(targets({"BTCUSDT": "0.306"}), held, policy())
    assert plan.legs == ()
    assert [(s.symbol, s.reason) for s in plan.skipped] == [("BTCUSDT", SkipReason.BELOW_THRESHOLD)]


def test_exactly_the_wanted_lots_are_silence() -> None:
    plan = plan_rebalance(targets({"BTCUSDT": "0.3"}), book({"BTCUSDT": "0.0499"}), policy())
    assert (plan.legs, plan.skipped) == ((), ())


def test_a_lot_worth_more_than_the_threshold_leaves_a_residual_but_no_order_of_nothing() -> None:
    coarse = {"BTCUSDT": make_instrument("BTCUSDT", size_step=Decimal(1), size_min=Decimal(0))}
    coarse["BTCUSDT"] = replace(coarse["BTCUSDT"], notional_min=Decimal(0))
    held = book({"BTCUSDT": "1"}, base="100000", rules=coarse)
    plan = plan_rebalance(targets({"BTCUSDT": "0.95"}), held, policy())
    assert plan.legs == ()
    assert [item.reason for item in plan.skipped] == [SkipReason.LOT_ROUNDING]
    assert plan.residuals == {"BTCUSDT": Decimal("0.95") - Decimal("0.601234")}


@pytest.mark.parametrize(
    ("changes", "weight", "reason"),
    [
        ({"size_min": Decimal("0.5")}, "0.1", SkipReason.BELOW_MIN_SIZE),
        ({"notional_min": Decimal(5003)}, "0.3", SkipReason.BELOW_MIN_NOTIONAL),
        ({"tradable": False}, "0.3", SkipReason.NOT_TRADABLE),
        ({}, "0.0099", SkipReason.BELOW_THRESHOLD),
    ],
)
def test_a_leg_that_the_venue_would_refuse_is_skipped_with_its_reason(
    changes: dict[str, object], weight: str, reason: SkipReason
) -> None:
    rules = {"BTCUSDT": make_instrument("BTCUSDT", **changes)}
    plan = plan_rebalance(targets({"BTCUSDT": weight}), book(rules=rules), policy())
    assert plan.legs == ()
    assert [(item.symbol, item.reason) for item in plan.skipped] == [("BTCUSDT", reason)]
    assert plan.stops == {}


@pytest.mark.parametrize("changes", [{"size_min": Decimal("0.5")}, {"notional_min": Decimal(900)}])
def test_a_reduction_under_a_minimum_is_skipped(changes: dict[str, object]) -> None:
    rules = {"BTCUSDT": make_instrument("BTCUSDT", **changes)}
    held = book({"BTCUSDT": "0.05"}, rules=rules)
    plan = plan_rebalance(targets({"BTCUSDT": "0.27"}), held, policy())
    assert plan.legs == ()
    assert len(plan.skipped) == 1


def test_a_missing_price_trades_nothing_new() -> None:
    without = book(marks={"ETHUSDT": MARKS["ETHUSDT"]})
    plan = plan_rebalance(targets({"BTCUSDT": "0.3"}), without, policy())
    assert plan.legs == ()
    assert [item.reason for item in plan.skipped] == [SkipReason.NO_PRICE]


@pytest.mark.parametrize("market", list(MarketType))
def test_a_held_symbol_without_rules_still_closes_reduce_only(market: MarketType) -> None:
    delisted = book({"BTCUSDT": "0.05"}, rules={})
    plan = plan_rebalance({}, delisted, policy(market=market))
    (leg,) = plan.legs
    assert (leg.side, leg.size, leg.reduce_only) == (Side.SELL, Decimal("0.05"), True)
    assert leg.current_weight == Decimal("0.05") * MARKS["BTCUSDT"] / 10007


def test_C1_a_mark_of_zero_trades_nothing() -> None:
    plan = plan_rebalance(
        targets({"BTCUSDT": "0.3"}), book(marks={"BTCUSDT": Decimal(0)}), policy()
    )
    assert plan.legs == ()
    assert [item.reason for item in plan.skipped] == [SkipReason.NO_PRICE]


def test_general_mode_touches_only_what_the_strategy_names() -> None:
    held = book({"BTCUSDT": "0.05", "ETHUSDT": "-1.11"})
    general = policy(mode=TradeMode.GENERAL)
    assert plan_rebalance({}, held, general).legs == ()
    plan = plan_rebalance(targets({"ETHUSDT": "0"}), held, general)
    assert [(leg.symbol, leg.size) for leg in plan.legs] == [("ETHUSDT", Decimal("1.11"))]


def test_reducing_legs_come_first_whatever_the_names() -> None:
    held = book({"XRPUSDT": "1007", "SOLUSDT": "-3.3"})
    plan = plan_rebalance(targets({"ADAUSDT": "0.3", "SOLUSDT": "0.2"}), held, policy())
    assert [leg.leg_id for leg in plan.legs] == [
        "SOLUSDT-close",
        "XRPUSDT-close",
        "ADAUSDT-open",
        "SOLUSDT-open",
    ]


def test_planning_without_a_base_is_our_bug() -> None:
    with pytest.raises(InvariantViolated):
        plan_rebalance({}, book(base="0"), policy())


def test_a_position_of_nothing_is_nothing() -> None:
    empty = book({"ETHUSDT": "0"})
    assert plan_rebalance({}, empty, policy()).legs == ()
    plan = plan_rebalance(targets({"ETHUSDT": "0.3"}), empty, policy())
    assert [leg.leg_id for leg in plan.legs] == ["ETHUSDT-open"]


# --- stops ----------------------------------------------------------------------------------------


def stopped(weight: str, loss: str | None, profit: str | None = None) -> dict[str, Target]:
    stops = StopPrices(
        None if loss is None else Decimal(loss), None if profit is None else Decimal(profit)
    )
    return {"SOLUSDT": Target("SOLUSDT", Decimal(weight), stops)}


def test_stops_are_put_on_the_tick_and_on_the_order() -> None:
    plan = plan_rebalance(stopped("0.3", "140.1274", "160.0051"), book(), policy())
    wanted = StopPrices(Decimal("140.13"), Decimal("160.01"))
    assert plan.legs[0].stops == wanted
    assert plan.stops == {"SOLUSDT": wanted}


@pytest.mark.parametrize(
    ("weight", "loss", "profit"),
    [("0.3", "152", None), ("0.3", None, "151"), ("-0.3", "151", None), ("-0.3", None, "152")],
)
def test_a_stop_on_the_wrong_side_opens_nothing(
    weight: str, loss: str | None, profit: str | None
) -> None:
    plan = plan_rebalance(stopped(weight, loss, profit), book(), policy())
    assert plan.legs == ()
    assert [item.reason for item in plan.skipped] == [SkipReason.STOP_ON_WRONG_SIDE]
    assert plan.stops == {}


def test_a_position_that_needs_no_order_still_gets_its_targets_stops() -> None:
    plan = plan_rebalance(stopped("0.3", "140"), book({"SOLUSDT": "19.8"}), policy())
    assert plan.legs == ()
    assert plan.stops == {"SOLUSDT": StopPrices(Decimal("140.00"))}


def test_a_position_on_the_other_side_never_gets_the_targets_stops() -> None:
    held = book({"SOLUSDT": "0.1"})
    plan = plan_rebalance(stopped("-0.004", "160"), held, policy())
    assert plan.legs == ()
    assert plan.stops == {}


def test_where_nothing_may_open_a_position_on_the_other_side_is_closed_all_the_same() -> None:
    frozen = {"SOLUSDT": make_instrument("SOLUSDT", tradable=False)}
    held = book({"SOLUSDT": "19.8"}, rules=frozen)
    plan = plan_rebalance(stopped("-0.3", "160"), held, policy())
    assert [(leg.leg_id, leg.size) for leg in plan.legs] == [("SOLUSDT-close", Decimal("19.8"))]
    assert [item.reason for item in plan.skipped] == [SkipReason.NOT_TRADABLE]
    assert plan.residuals == {"SOLUSDT": Decimal("-0.3")}
    assert plan.stops == {}
    same_side = plan_rebalance(stopped("0.1", "120"), held, policy())
    assert same_side.legs == ()


@pytest.mark.parametrize(("weight", "expected"), [("0.3", "146.07"), ("-0.3", "156.67")])
def test_the_default_stop_loss_is_a_percentage_of_the_mark(weight: str, expected: str) -> None:
    rules = policy(default_stop_loss_pct=Decimal("3.5"))
    found = wanted_stops(
        Target("SOLUSDT", Decimal(weight)), MARKS["SOLUSDT"], make_instrument("SOLUSDT"), rules
    )
    assert found == StopPrices(Decimal(expected))


def test_the_strategys_own_stop_wins_over_the_default() -> None:
    plan = plan_rebalance(
        stopped("0.3", "140"), book(), policy(default_stop_loss_pct=Decimal("3.5"))
    )
    assert plan.stops["SOLUSDT"].stop_loss == Decimal("140.00")


# --- the base -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equity", "allocated", "compounding", "expected"),
    [
        ("9000", None, False, "9000"),
        ("11000", None, False, "10007"),
        ("11000", "2500", False, "2500"),
        ("1900", "2500", False, "1900"),
        ("11000", "2500", True, "11000"),
    ],
)
def test_sizing_base(equity: str, allocated: str | None, compounding: bool, expected: str) -> None:
    found = sizing_base(
        Decimal(equity),
        None if allocated is None else Decimal(allocated),
        Decimal(10007),
        compounding=compounding,
    )
    assert found == Decimal(expected)


@pytest.mark.parametrize("equity", ["0", "-0.01"])
def test_an_account_without_equity_is_refused(equity: str) -> None:
    with pytest.raises(InvalidInput):
        sizing_base(Decimal(equity), None, Decimal(10007), compounding=True)


def test_a_perfect_execution_of_a_flip_leaves_the_target() -> None:
    before = book({"ETHUSDT": "1.117"})
    wanted = targets({"ETHUSDT": "-0.2"})
    after = executed(before, plan_rebalance(wanted, before, policy()))
    assert after.positions["ETHUSDT"] == position("ETHUSDT", "-0.67", MARKS["ETHUSDT"], NO_STOPS)
    assert plan_rebalance(wanted, after, policy()).legs == ()
