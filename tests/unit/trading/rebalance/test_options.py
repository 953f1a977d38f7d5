"""Thresholds, bands, the turnover cap, open orders, spot: numbers that can be checked by hand."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.model.errors import InvariantViolated
from module.model.market import Instrument, MarketType
from module.model.orders import Side
from tests.fakes.exchange import MARKS, make_instrument
from tests.unit.trading.rebalance.books import book, executed, policy, targets
from tests.unit.trading.rebalance.situations import DUST, SYMBOLS, ZERO, draw_situation
from trading.rebalance.bands import edge_of_band, half_width
from trading.rebalance.plan import Book, OrderPlan, Policy, SkipReason, plan_rebalance


def reasons(plan: OrderPlan) -> dict[str, SkipReason]:
    return {item.symbol: item.reason for item in plan.skipped}


# --- thresholds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "relative", "traded"),
    [
        ("0.33", "0.05", True),  # 0.0296 of 0.33 is 9 %
        ("0.33", "0.1", False),
        ("0.305", "0.001", False),  # 0.0046 is under the absolute 0.01
    ],
)
def test_a_difference_reaches_both_thresholds_or_is_not_traded(
    weight: str, relative: str, traded: bool
) -> None:
    held = book({"BTCUSDT": "0.05"})  # weight 0.30040…
    rules = policy(threshold_relative=Decimal(relative))
    plan = plan_rebalance(targets({"BTCUSDT": weight}), held, rules)
    assert bool(plan.legs) is traded
    assert reasons(plan) == ({} if traded else {"BTCUSDT": SkipReason.BELOW_THRESHOLD})


def test_a_flip_to_less_than_the_threshold_only_closes() -> None:
    plan = plan_rebalance(targets({"ETHUSDT": "-0.004"}), book({"ETHUSDT": "1.11"}), policy())
    assert [leg.leg_id for leg in plan.legs] == ["ETHUSDT-close"]
    assert reasons(plan) == {"ETHUSDT": SkipReason.BELOW_THRESHOLD}
    assert plan.residuals == {"ETHUSDT": Decimal("-0.004")}


# --- bands ----------------------------------------------------------------------------------------


def test_a_half_width_by_hand() -> None:
    # (0.75 × 0.0007 × (0.3 × 0.6)²)^⅓ = 0.000017010^⅓
    found = half_width(Decimal("0.3"), Decimal("0.0007"), Decimal("0.6"), Decimal(1))
    assert abs(found - Decimal("0.02571786")) < Decimal("1e-8")
    assert half_width(Decimal("-0.3"), Decimal("0.0007"), Decimal("0.6"), Decimal(2)) == 2 * found


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_band_grows_with_cost_volatility_and_weight(place: int) -> None:
    arguments = [Decimal("0.2"), Decimal("0.001"), Decimal("0.5")]
    before = half_width(arguments[0], arguments[1], arguments[2], Decimal(1))
    arguments[place] *= 8
    after = half_width(arguments[0], arguments[1], arguments[2], Decimal(1))
    growth = 2 if place == 1 else 4  # the cube root of 8, and of 64
    assert abs(after - growth * before) < Decimal("1e-9")


@pytest.mark.parametrize(
    ("weight", "current", "half", "edge"),
    [
        ("0.3", "0.2", "0.02", "0.28"),
        ("0.3", "0.4", "0.02", "0.32"),
        ("0.3", "0.31", "0.02", "0.31"),
        ("-0.3", "0.1", "0.02", "-0.28"),
        ("0.01", "-0.3", "0.02", "0"),
        ("-0.01", "0.3", "0.02", "0"),
    ],
)
def test_the_edge_is_the_nearest_weight_of_the_band(
    weight: str, current: str, half: str, edge: str
) -> None:
    assert edge_of_band(Decimal(weight), Decimal(current), Decimal(half)) == Decimal(edge)


def banded(
    held: Mapping[str, str], weight: str, *, multiplier: str = "1", spread: str = "0.0001"
) -> tuple[Book, OrderPlan]:
    start = replace(
        book(held, base="10000"),
        spreads={"XRPUSDT": Decimal(spread)},
        volatility={"XRPUSDT": Decimal("0.6")},
    )
    rules = policy(no_trade_band=Decimal(multiplier))
    return start, plan_rebalance(targets({"XRPUSDT": weight}), start, rules)


def test_outside_its_band_a_weight_is_traded_to_the_edge_and_stays_there() -> None:
    # 0.3 ± 0.0257; 5,465 XRP at 0.5123 weigh 0.27997: inside; 5,000 weigh 0.25615: outside
    _, inside = banded({"XRPUSDT": "5465"}, "0.3")
    assert reasons(inside) == {"XRPUSDT": SkipReason.WITHIN_BAND}
    start, plan = banded({"XRPUSDT": "5000"}, "0.3")
    # the edge 0.274282… is 5,353.9 XRP
    assert [(leg.side, leg.size) for leg in plan.legs] == [(Side.BUY, Decimal(354))]
    assert Decimal("0.0256") < plan.residuals["XRPUSDT"] < Decimal("0.0258")
    after = executed(start, plan)
    rules = policy(no_trade_band=Decimal(1))
    assert plan_rebalance(targets({"XRPUSDT": "0.3"}), after, rules).legs == ()


def test_from_above_the_upper_edge_is_the_goal_and_a_larger_multiplier_moves_it() -> None:
    _, plan = banded({"XRPUSDT": "7000"}, "0.3")  # weight 0.35861; edge 0.325718 = 6,357.9
    assert [(leg.side, leg.size) for leg in plan.legs] == [(Side.SELL, Decimal(642))]
    _, wider = banded({"XRPUSDT": "7000"}, "0.3", multiplier="2")  # edge 0.351436 = 6,859.9
    assert [leg.size for leg in wider.legs] == [Decimal(140)]
    _, off = banded({"XRPUSDT": "7000"}, "0.3", multiplier="0")
    assert [leg.size for leg in off.legs] == [Decimal(1144)]  # 0.3 = 5,855.9


def test_a_flip_under_a_band_closes_and_opens_to_the_edge_or_not_at_all() -> None:
    _, plan = banded({"XRPUSDT": "5000"}, "-0.3")  # -0.274282 = 5,353.9
    assert [(leg.leg_id, leg.size) for leg in plan.legs] == [
        ("XRPUSDT-close", Decimal(5000)),
        ("XRPUSDT-open", Decimal(5354)),
    ]
    _, narrow = banded({"XRPUSDT": "5000"}, "-0.02", multiplier="5")  # ± 0.021
    assert [leg.leg_id for leg in narrow.legs] == ["XRPUSDT-close"]
    assert reasons(narrow) == {"XRPUSDT": SkipReason.WITHIN_BAND}


def test_a_band_that_reaches_across_0_never_keeps_what_is_on_the_other_side() -> None:
    """A larger weight has a wider band: it must not leave the smaller position."""
    for weight in ("0.02", "0.05"):  # ± 0.021 and ± 0.039 at five times the width
        _, plan = banded({"XRPUSDT": "-10"}, weight, multiplier="5")  # a weight of -0.0005
        assert [leg.leg_id for leg in plan.legs][:1] == ["XRPUSDT-close"], weight
        assert (reasons(plan) == {"XRPUSDT": SkipReason.WITHIN_BAND}) is (weight == "0.02")


def test_without_a_known_volatility_there_is_no_band() -> None:
    rules = policy(no_trade_band=Decimal(1))
    wanted = targets({"XRPUSDT": "0.3"})
    held = book({"XRPUSDT": "5000"})
    assert plan_rebalance(wanted, held, rules) == plan_rebalance(wanted, held, policy())


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(0, 2**40), st.sampled_from(["0.3", "1", "4"]))
def test_bands_leave_every_symbol_in_its_band_or_at_its_edge(seed: int, multiplier: str) -> None:
    draw = random.Random(seed)
    plain = draw_situation(draw, spot=False, minimums=False, thresholds=False)
    situation = replace(
        plain,
        book=replace(
            plain.book,
            volatility={s: Decimal(draw.randint(1, 200)) / 100 for s in SYMBOLS},
            spreads={s: Decimal(draw.randint(0, 50)) / 10_000 for s in SYMBOLS},
        ),
        policy=replace(plain.policy, no_trade_band=Decimal(multiplier)),
    )
    start = situation.book
    after = executed(start, situation.plan)
    assert replace(situation, book=after).plan.legs == ()
    for symbol, target in situation.targets.items():
        if not target.weight:
            continue
        cost = start.instruments[symbol].taker_fee + start.spreads[symbol]
        half = half_width(target.weight, cost, start.volatility[symbol], Decimal(multiplier))
        size = after.positions[symbol].size if symbol in after.positions else ZERO
        off = abs(target.weight - size * start.marks[symbol] / situation.capital)
        sizes = {s: position.size for s, position in after.positions.items()}
        full = situation.is_full(sizes, situation.lot(symbol))
        assert full or off <= half + situation.lot(symbol) / situation.capital + DUST
        legs = [leg for leg in situation.plan.legs if leg.symbol == symbol]
        if legs and situation.held(symbol) * target.weight >= 0:  # and not further than the edge
            assert off >= half - situation.lot(symbol) / situation.capital - DUST


# --- turnover cap ---------------------------------------------------------------------------------


def test_all_moves_get_the_same_part_of_what_the_closes_leave() -> None:
    held = book({"LINKUSDT": "73.6"}, base="10000")  # 999.41 to close
    wanted = targets({"XRPUSDT": "0.3", "ADAUSDT": "-0.15"})
    plan = plan_rebalance(wanted, held, policy(turnover_max=Decimal("0.25")))
    sizes = {leg.leg_id: leg.size for leg in plan.legs}
    # 2,500 - 999.41 = 1,500.59 of 4,500: a third of each
    assert sizes == {
        "LINKUSDT-close": Decimal("73.6"),
        "XRPUSDT-open": Decimal(1953),  # 1,000.5
        "ADAUSDT-open": Decimal(1107),  # 500.0
    }
    assert plan.skipped == ()
    assert Decimal("0.199") < plan.residuals["XRPUSDT"] < Decimal("0.2")


def test_a_cap_that_the_closes_use_up_leaves_the_rest_for_later() -> None:
    held = book({"LINKUSDT": "73.6"}, base="10000")
    capped = policy(turnover_max=Decimal("0.05"))
    plan = plan_rebalance(targets({"XRPUSDT": "0.3"}), held, capped)
    assert [leg.leg_id for leg in plan.legs] == ["LINKUSDT-close"]
    assert reasons(plan) == {"XRPUSDT": SkipReason.TURNOVER_CAP}
    assert plan.residuals == {"XRPUSDT": Decimal("0.3")}


def test_parts_under_the_minimum_are_put_together_to_orders_that_the_venue_takes() -> None:
    names = ["ADAUSDT", "DOGEUSDT", "XRPUSDT"]
    rules = {name: make_instrument(name, notional_min=Decimal(400)) for name in names}
    start = book(rules=rules, base="10000")
    wanted = targets(dict.fromkeys(names, "0.3"))
    # 1,000 of 9,000: a third each is under 400, but two orders of 500 are within it
    plan = plan_rebalance(wanted, start, policy(turnover_max=Decimal("0.1")))
    assert len(plan.legs) == 2
    for leg in plan.legs:
        assert Decimal(499) <= leg.notional < Decimal("500.6")
    assert list(reasons(plan).values()) == [SkipReason.TURNOVER_CAP]


# --- open orders ----------------------------------------------------------------------------------


def test_I5_a_symbol_with_an_open_order_only_closes() -> None:
    held = {"BTCUSDT": "0.02", "ETHUSDT": "0.5", "SOLUSDT": "9.9"}
    start = replace(
        book(held), open_orders={symbol: Decimal("0.01") for symbol in (*held, "XRPUSDT")}
    )
    wanted = targets({"BTCUSDT": "0.3", "ETHUSDT": "-0.2", "XRPUSDT": "0.1", "ADAUSDT": "0.1"})
    plan = plan_rebalance(wanted, start, policy())
    assert [leg.leg_id for leg in plan.legs] == ["ETHUSDT-close", "SOLUSDT-close", "ADAUSDT-open"]
    assert reasons(plan) == dict.fromkeys(["BTCUSDT", "ETHUSDT", "XRPUSDT"], SkipReason.OPEN_ORDER)


def test_I9_what_open_orders_may_still_fill_takes_its_part_of_the_limit() -> None:
    rules = {"SOLUSDT": make_instrument("SOLUSDT", size_step=Decimal(1))}
    start = book(rules=rules, base="1000")
    wanted = targets({"SOLUSDT": "0.86"})  # 5.68 lots; 6 are 908.22
    assert plan_rebalance(wanted, start, policy()).legs[0].size == 6
    waiting = replace(start, open_orders={"XRPUSDT": Decimal(200)})  # 102.46
    assert plan_rebalance(wanted, waiting, policy()).legs[0].size == 5


# --- spot -----------------------------------------------------------------------------------------


def coins() -> dict[str, Instrument]:
    return {
        symbol: make_instrument(symbol, market=MarketType.SPOT, notional_min=Decimal(1))
        for symbol in MARKS
    }


SPOT: Policy = policy(market=MarketType.SPOT)


def test_spot_sells_what_the_lot_allows_and_says_what_stays() -> None:
    held = book({"ETHUSDT": "1.117", "XRPUSDT": "100.9"}, rules=coins())
    plan = plan_rebalance({}, held, SPOT)
    assert [(leg.leg_id, leg.side, leg.size) for leg in plan.legs] == [
        ("ETHUSDT-close", Side.SELL, Decimal("1.11")),
        ("XRPUSDT-close", Side.SELL, Decimal(100)),
    ]
    assert plan.residuals["ETHUSDT"] == -Decimal("0.007") * Decimal("3001.25") / 10007
    again = plan_rebalance({}, executed(held, plan), SPOT)
    assert again.legs == ()
    assert reasons(again) == dict.fromkeys(["ETHUSDT", "XRPUSDT"], SkipReason.DUST)


def test_spot_coins_under_the_minimum_are_dust_where_a_futures_position_would_close() -> None:
    held = book({"XRPUSDT": "1"}, rules=coins())  # 0.51, the minimum is 1
    plan = plan_rebalance({}, held, SPOT)
    assert (plan.legs, reasons(plan)) == ((), {"XRPUSDT": SkipReason.DUST})
    futures = plan_rebalance({}, book({"XRPUSDT": "1"}), policy())
    assert [leg.size for leg in futures.legs] == [Decimal(1)]


def test_spot_never_sells_what_an_order_has_locked() -> None:
    start = book({"SOLUSDT": "19.8"}, rules=coins())
    locked = replace(start.positions["SOLUSDT"], locked=Decimal("15.03"))
    held = replace(start, positions={"SOLUSDT": locked})
    assert [leg.size for leg in plan_rebalance({}, held, SPOT).legs] == [Decimal("4.7")]
    plan = plan_rebalance(targets({"SOLUSDT": "0.2"}), held, SPOT)  # 13.22 → sell 6.6
    assert [leg.size for leg in plan.legs] == [Decimal("4.7")]
    all_locked = replace(held, positions={"SOLUSDT": replace(locked, locked=Decimal("19.8"))})
    plan = plan_rebalance(targets({"SOLUSDT": "0.2"}), all_locked, SPOT)
    assert (plan.legs, reasons(plan)) == ((), {"SOLUSDT": SkipReason.DUST})


def test_a_fee_taken_in_the_bought_coin_is_not_bought_again() -> None:
    start = book(rules=coins())
    wanted = targets({"SOLUSDT": "0.3"})
    (leg,) = plan_rebalance(wanted, start, SPOT).legs
    received = {"SOLUSDT": str(leg.size * Decimal("0.999"))}
    after = plan_rebalance(wanted, book(received, rules=coins()), SPOT)
    assert after.legs == ()


def test_a_negative_weight_on_spot_is_our_bug() -> None:
    with pytest.raises(InvariantViolated, match="on spot"):
        plan_rebalance(targets({"SOLUSDT": "-0.1"}), book(rules=coins()), SPOT)
