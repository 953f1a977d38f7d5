"""Just at a limit, just beyond it, and what happens where a rule, a price or a part is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from module.model.accounts import AccountSnapshot, PositionMode
from module.model.errors import InvariantViolated, StrategyFailed
from module.model.market import MarketType
from module.model.orders import OrderStatus, Side, StopPrices
from module.model.sessions import TradeMode
from module.model.stop_ticks import round_stops
from tests.fakes.exchange import MARKS, make_instrument
from tests.unit.trading.deciding import make_inputs, make_order, make_position
from tests.unit.trading.rebalance.books import book, policy, position, targets
from tests.unit.trading.rebalance.test_coins import coin
from tests.unit.trading.rebalance.test_given_plan import given, now
from trading.ledger.ledger import Holding as Held
from trading.ledger.ledger import Ledger
from trading.rebalance.bands import edge_of_band, half_width
from trading.rebalance.coins import taken_over
from trading.rebalance.decision import (
    FLAT,
    CycleInputs,
    StrategyCall,
    closing_inputs,
    decide,
    decision_digest,
    plan_letter,
)
from trading.rebalance.fitting import fit_opening_legs, rounded_anew
from trading.rebalance.given_plan import (
    CHANGES_SHOWN_MAX,
    Freshness,
    changes_since,
    given_plan_from_json,
    in_words,
)
from trading.rebalance.order_info import CycleStage, Holding, requested
from trading.rebalance.plan import (
    DiffCase,
    Leg,
    OrderPlan,
    SkippedLeg,
    SkipReason,
    plan_rebalance,
    process_symbol,
)
from trading.rebalance.stops import stops_fit
from trading.rebalance.weights import SYMBOLS_MAX, Target, read_targets, scale_to_volatility

ZERO, TEN = Decimal(0), Decimal(10)


# --- one symbol -----------------------------------------------------------------------------------


def test_one_symbols_diff_is_its_part_of_the_plan_and_nothing_else() -> None:
    held = book({"ETHUSDT": "1.117", "BTCUSDT": "0.05"})
    close, opened = process_symbol(Target("ETHUSDT", Decimal("-0.2")), held, policy())
    assert isinstance(close, Leg)
    assert isinstance(opened, Leg)
    assert (close.leg_id, opened.leg_id) == ("ETHUSDT-close", "ETHUSDT-open")
    (skipped,) = process_symbol(Target("SOLUSDT", Decimal("0.004")), held, policy())
    assert isinstance(skipped, SkippedLeg)
    assert skipped.reason is SkipReason.BELOW_THRESHOLD
    assert process_symbol(Target("SOLUSDT", ZERO), held, policy()) == []


# --- without a price or rules ---------------------------------------------------------------------


def test_shorts_without_rules_are_bought_back_and_count_as_turnover() -> None:
    held = book(
        {"ADAUSDT": "-100", "DOGEUSDT": "1000"}, rules={"XRPUSDT": make_instrument("XRPUSDT")}
    )
    worth = 100 * MARKS["ADAUSDT"] + 1000 * MARKS["DOGEUSDT"]
    capped = policy(turnover_max=Decimal("0.1"))
    plan = plan_rebalance(targets({"XRPUSDT": "0.3"}), held, capped)
    assert [(leg.leg_id, leg.case, leg.side, leg.size) for leg in plan.legs[:2]] == [
        ("ADAUSDT-close", DiffCase.GONE, Side.BUY, Decimal(100)),
        ("DOGEUSDT-close", DiffCase.GONE, Side.SELL, Decimal(1000)),
    ]
    assert [leg.reference_price for leg in plan.legs[:2]] == [MARKS["ADAUSDT"], MARKS["DOGEUSDT"]]
    (opened,) = plan.legs[2:]
    lot = MARKS["XRPUSDT"]
    assert Decimal("1000.7") - worth - lot < opened.notional <= Decimal("1000.7") - worth


def test_what_is_held_without_a_price_and_has_a_target_stays_and_takes_its_room() -> None:
    held = book({"BTCUSDT": "0.05", "ETHUSDT": "-1"})
    blind = replace(held, marks={"SOLUSDT": MARKS["SOLUSDT"]})
    wanted = targets({"BTCUSDT": "0.4", "ETHUSDT": "-0.1", "SOLUSDT": "0.5"})
    plan = plan_rebalance(wanted, blind, policy())
    weights = {
        "BTCUSDT": Decimal("0.05") * MARKS["BTCUSDT"] / 10007,
        "ETHUSDT": -MARKS["ETHUSDT"] / 10007,
    }
    assert plan.skipped[:2] == (
        SkippedLeg("BTCUSDT", SkipReason.NO_PRICE, weights["BTCUSDT"], Decimal("0.4")),
        SkippedLeg("ETHUSDT", SkipReason.NO_PRICE, weights["ETHUSDT"], Decimal("-0.1")),
    )
    assert plan.residuals["BTCUSDT"] == Decimal("0.4") - weights["BTCUSDT"]
    assert plan.residuals["ETHUSDT"] == Decimal("-0.1") - weights["ETHUSDT"]
    (leg,) = plan.legs
    room = 10007 - Decimal("0.05") * MARKS["BTCUSDT"] - MARKS["ETHUSDT"]
    assert room - MARKS["SOLUSDT"] < leg.notional <= room, "0.5 would be more than the book may be"


def test_what_is_held_without_a_price_on_the_other_side_is_closed_and_nothing_opens() -> None:
    held = replace(book({"BTCUSDT": "-0.05"}), marks={})
    plan = plan_rebalance(targets({"BTCUSDT": "0.4"}), held, policy())
    (leg,) = plan.legs
    assert (leg.leg_id, leg.case, leg.side, leg.size) == (
        "BTCUSDT-close", DiffCase.OPPOSITE, Side.BUY, Decimal("0.05"),
    )  # fmt: skip
    assert [(item.symbol, item.reason) for item in plan.skipped] == [
        ("BTCUSDT", SkipReason.NO_PRICE)
    ]
    assert plan.residuals == {"BTCUSDT": Decimal("0.4")}


def test_what_is_locked_of_a_coin_without_rules_stays_and_takes_its_room() -> None:
    """0.15 held, 0.05 of it free: 0.1 at 60,123.4 stay of a base of 10,007."""
    rules = {
        "SOLUSDT": make_instrument("SOLUSDT", market=MarketType.SPOT, size_step=Decimal("0.1"))
    }
    held = book({"BTCUSDT": "0.15"}, rules=rules)
    locked = replace(held.positions["BTCUSDT"], locked=Decimal("0.1"))
    plan = plan_rebalance(
        targets({"SOLUSDT": "0.5"}),
        replace(held, positions={"BTCUSDT": locked}),
        policy(market=MarketType.SPOT),
    )
    close, opened = plan.legs
    stays = Decimal("0.1") * MARKS["BTCUSDT"]
    assert (close.leg_id, close.size) == ("BTCUSDT-close", Decimal("0.05"))
    assert plan.residuals["BTCUSDT"] == -stays / 10007
    assert 10007 - stays - MARKS["SOLUSDT"] / 10 < opened.notional <= 10007 - stays


def test_a_coin_without_a_price_of_which_nothing_can_be_sold_is_dust() -> None:
    held = book({"BTCUSDT": "0.05"})
    locked = replace(held.positions["BTCUSDT"], locked=Decimal("0.05"))
    blind = replace(held, marks={}, positions={"BTCUSDT": locked})
    plan = plan_rebalance({}, blind, policy(market=MarketType.SPOT))
    assert plan.legs == ()
    weight = Decimal("0.05") * MARKS["BTCUSDT"] / 10007
    assert plan.skipped == (SkippedLeg("BTCUSDT", SkipReason.DUST, weight, ZERO),)
    assert plan.residuals == {"BTCUSDT": -weight}


def test_a_symbol_without_price_that_is_neither_held_nor_wanted_is_not_mentioned() -> None:
    plan = plan_rebalance(targets({"BTCUSDT": "0"}), replace(book(), marks={}), policy())
    assert (plan.legs, plan.skipped, dict(plan.residuals)) == ((), (), {})


# --- stops on the tick ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "price", "expected"),
    [
        ("0.01", "0.125", "0.12"),  # a tie goes to the even tick
        ("0.01", "0.135", "0.14"),
        ("0.01", "0.0151", "0.02"),
        ("0.01", "0.004", "0.01"),  # never at nothing
        ("0.01", "0.005", "0.01"),
        ("0.5", "17.8", "18"),
        ("1", "17.6", "18"),
        ("5", "17.6", "20"),
        ("5", "1", "5"),
        ("2", "3", "4"),
    ],
)
def test_stops_are_on_the_nearest_tick(step: str, price: str, expected: str) -> None:
    rules = make_instrument("SOLUSDT", price_step=Decimal(step))
    found = round_stops(StopPrices(Decimal(price), None), rules)
    assert found == StopPrices(Decimal(expected), None)
    assert round_stops(StopPrices(None, Decimal(price)), rules) == StopPrices(
        None, Decimal(expected)
    )


@pytest.mark.parametrize(
    ("held", "weight", "expected"),
    [
        ("19.8", "0.3", "135"),  # 10 % under the entry of what is held, wherever the price is now
        ("10", "0.3", "135"),
        ("-10", "-0.3", "165"),
        ("-10", "0.3", "136.23"),  # what is opened on the other side is entered at the mark
    ],
)
def test_a_default_stop_is_measured_from_the_entry(held: str, weight: str, expected: str) -> None:
    """Measured from the mark it would follow a slow fall down for ever."""
    there = book({"SOLUSDT": held})
    entered = replace(there.positions["SOLUSDT"], entry_price=Decimal(150))
    plan = plan_rebalance(
        targets({"SOLUSDT": weight}),
        replace(there, positions={"SOLUSDT": entered}),
        policy(default_stop_loss_pct=TEN),
    )
    assert plan.stops["SOLUSDT"] == StopPrices(Decimal(expected), None)


@pytest.mark.parametrize(
    ("loss", "profit", "is_long", "fits"),
    [
        ("150", None, True, False),  # at the price it would fire at once
        ("149.9", None, True, True),
        ("150", None, False, False),
        ("150.1", None, False, True),
        (None, "150", True, False),
        (None, "150.1", True, True),
        (None, "150", False, False),
        (None, "149.9", False, True),
        ("149.9", "150", True, False),
        ("150", "150.1", True, False),
    ],
)
def test_a_stop_fits_when_the_price_has_not_reached_it(
    loss: str | None, profit: str | None, is_long: bool, fits: bool
) -> None:
    stops = StopPrices(
        None if loss is None else Decimal(loss), None if profit is None else Decimal(profit)
    )
    assert stops_fit(stops, Decimal(150), is_long=is_long) is fits


def test_a_position_of_a_few_cents_keeps_its_stops_and_its_entry() -> None:
    """0.001 at 150 with a target weight of 0.00002: nothing here is as large as one."""
    there = book({"SOLUSDT": "0.001"})
    entered = replace(there.positions["SOLUSDT"], entry_price=Decimal(149))
    plan = plan_rebalance(
        targets({"SOLUSDT": "0.00002"}),
        replace(there, positions={"SOLUSDT": entered}),
        policy(default_stop_loss_pct=TEN),
    )
    assert plan.legs == ()
    assert plan.stops == {"SOLUSDT": StopPrices(Decimal("134.1"), None)}


def test_less_than_a_lot_under_the_threshold_is_silent_and_a_lot_is_not() -> None:
    """A lot of 0.1 at a price of 100 in a base of 10,000 weighs 0.001."""
    marks = {"SOLUSDT": Decimal(100)}
    wanted = targets({"SOLUSDT": "0.1"})
    for held, said in (("9.9", 1), ("9.91", 0), ("10", 0), ("10.1", 1)):
        plan = plan_rebalance(wanted, book({"SOLUSDT": held}, base="10000", marks=marks), policy())
        assert plan.legs == ()
        assert len(plan.skipped) == said, held


# --- legs by new rules ----------------------------------------------------------------------------


def opening(size: str = "20", stops: StopPrices | None = None) -> Leg:
    return Leg(
        "SOLUSDT-open", "SOLUSDT", DiffCase.NEW, Side.BUY, Decimal(size), False, Decimal(150),
        ZERO, Decimal("0.3"), stops or StopPrices(Decimal("140.37")), None,
    )  # fmt: skip


def test_A19_a_rest_at_just_the_new_minimum_still_goes() -> None:
    at_least = make_instrument("SOLUSDT", size_min=Decimal("2.5"))
    anew = rounded_anew(opening(), Decimal("17.5"), at_least)
    assert anew is not None
    assert anew.size == 20
    assert rounded_anew(opening(), Decimal("17.6"), at_least) is None
    worth = make_instrument("SOLUSDT", notional_min=Decimal(375))  # 2.5 at 150
    assert rounded_anew(opening(), Decimal("17.5"), worth) is not None
    assert rounded_anew(opening(), Decimal("17.6"), worth) is None


def test_A19_a_small_rest_is_a_rest_and_stops_follow_the_new_tick() -> None:
    coarse = make_instrument("SOLUSDT", price_step=Decimal("0.5"))
    anew = rounded_anew(opening(), Decimal("19.2"), coarse)
    assert anew == opening(stops=StopPrices(Decimal("140.5")))


# --- openings cut to the money --------------------------------------------------------------------


def test_an_opening_at_just_the_minimum_is_kept() -> None:
    """Fee and slippage of nothing, so that the money is the notional."""
    rules = policy(slippage_buffer=ZERO)
    free = {"SOLUSDT": make_instrument("SOLUSDT", taker_fee=ZERO, size_min=Decimal("2.5"))}
    fitted, skipped = fit_opening_legs([opening()], Decimal(375), free, rules)
    assert ([leg.size for leg in fitted], skipped) == ([Decimal("2.5")], [])
    fitted, skipped = fit_opening_legs([opening()], Decimal(374), free, rules)
    assert (fitted, [item.reason for item in skipped]) == ([], [SkipReason.NO_MARGIN_LEFT])
    worth = {"SOLUSDT": make_instrument("SOLUSDT", taker_fee=ZERO, notional_min=Decimal(375))}
    fitted, _ = fit_opening_legs([opening()], Decimal(375), worth, rules)
    assert [leg.size for leg in fitted] == [Decimal("2.5")]


def test_half_a_lot_goes_to_the_smaller_size() -> None:
    rules = policy(slippage_buffer=ZERO)
    coarse = {
        name: make_instrument(name, taker_fee=ZERO, size_step=Decimal(2), size_min=ZERO)
        for name in ("SOLUSDT", "ADAUSDT")
    }
    other = opening("20")._replace(leg_id="ADAUSDT-open", symbol="ADAUSDT")
    # 20 + 20 at 150 are 6,000; 5,100 is 17 of each: between 16 and 18, and 17 lots cannot be
    fitted, _ = fit_opening_legs([opening(), other], Decimal(5100), coarse, rules)
    assert [leg.size for leg in fitted] == [Decimal(16), Decimal(16)]


def test_an_opening_off_the_new_lot_is_never_rounded_to_more_than_was_planned() -> None:
    rules = policy(slippage_buffer=ZERO)
    coarse = {
        name: make_instrument(name, taker_fee=ZERO, size_step=Decimal(2), size_min=ZERO)
        for name in ("SOLUSDT", "ADAUSDT")
    }
    other = opening("20")._replace(leg_id="ADAUSDT-open", symbol="ADAUSDT")
    # 94 % are 2.63 and 9.4 lots of 300: there is money for three and nine, but three are 6 coins
    fitted, _ = fit_opening_legs([opening("5.6"), other], Decimal("3609.6"), coarse, rules)
    assert [leg.size for leg in fitted] == [Decimal(4), Decimal(18)]


# --- bands ----------------------------------------------------------------------------------------


def test_a_band_of_nothing_has_no_width() -> None:
    one = Decimal(1)
    for weight, cost, volatility in ((ZERO, one, one), (one, ZERO, one), (one, one, ZERO)):
        assert half_width(weight, cost, volatility, one) == 0


@pytest.mark.parametrize("current", ["0.3", "0.29", "0.31", "0.32", "0.28"])
def test_a_weight_in_its_band_is_its_own_edge(current: str) -> None:
    assert edge_of_band(Decimal("0.3"), Decimal(current), Decimal("0.02")) == Decimal(current)


def exact(weight: str, **changes: object) -> OrderPlan:
    """300 at a price of 1 in a base of 10,000: a weight of exactly 0.03."""
    held = book({"XRPUSDT": "300"}, base="10000", marks={"XRPUSDT": Decimal(1)})
    return plan_rebalance(targets({"XRPUSDT": weight}), held, policy(**changes))


def test_a_difference_of_just_a_threshold_is_traded() -> None:
    for relative in (None, Decimal("0.25")):  # of 0.04 that is 0.01, as the absolute one
        (leg,) = exact("0.04", threshold_relative=relative).legs
        assert leg.size == 100
    assert exact("0.04", threshold_relative=Decimal("0.26")).legs == ()
    assert exact("0.04", threshold=Decimal("0.011")).legs == ()


def test_a_weight_at_its_target_is_within_any_band() -> None:
    plan = exact("0.03", threshold=ZERO, no_trade_band=Decimal(1))
    assert plan.legs == ()
    assert [item.reason for item in plan.skipped] == [SkipReason.WITHIN_BAND]


@pytest.mark.parametrize(
    ("held", "weight", "trades"),
    [
        ("149", "0.03", None),  # a lot is missing, no more than a fee and a lot
        ("148.91", "0.03", None),  # 0.000218 = 0.03 × 0.0006 + a lot
        ("148.9", "0.03", "1"),
        ("100", "0.03", "50"),
        ("151", "0.03", "-1"),  # too much is not what a fee took
        ("0", "0.0002", "1"),  # what is not there was never bought
    ],
)
def test_a_fee_that_was_taken_out_of_a_coin_is_not_bought_again(
    held: str, weight: str, trades: str | None
) -> None:
    """A lot of 1 at a price of 2 in a base of 10,000 weighs 0.0002; 150 are 0.03."""
    rules = make_instrument(
        "XRPUSDT", market=MarketType.SPOT, size_step=Decimal(1), size_min=ZERO,
        notional_min=ZERO, taker_fee=Decimal("0.0006"),
    )  # fmt: skip
    there = book(
        {} if held == "0" else {"XRPUSDT": held}, base="10000", marks={"XRPUSDT": Decimal(2)},
        rules={"XRPUSDT": rules},
    )  # fmt: skip
    plan = plan_rebalance(
        targets({"XRPUSDT": weight}), there, policy(market=MarketType.SPOT, threshold=ZERO)
    )
    sizes = [leg.side.sign * leg.size for leg in plan.legs]
    assert sizes == ([] if trades is None else [Decimal(trades)])


# --- answers --------------------------------------------------------------------------------------


def test_as_many_symbols_as_are_allowed_can_be_named() -> None:
    names = [f"A{number}USDT" for number in range(SYMBOLS_MAX + 1)]
    rules = dict.fromkeys(names, make_instrument("XRPUSDT"))
    answer = {name: {"weight": "0.001"} for name in names[:-1]}
    assert len(read_targets(answer, rules, MarketType.FUTURES)) == SYMBOLS_MAX
    with pytest.raises(StrategyFailed):
        read_targets({**answer, names[-1]: {"weight": "0"}}, rules, MarketType.FUTURES)


def test_weights_that_are_scaled_back_to_one_keep_their_stops() -> None:
    rules = {name: make_instrument(name) for name in ("SOLUSDT", "XRPUSDT")}
    answer = {
        "SOLUSDT": {"weight": "0.5000000005", "presetStopLossPrice": "140"},
        "XRPUSDT": {"weight": "-0.5000000005", "presetStopSurplusPrice": "0.4"},
    }
    found = read_targets(answer, rules, MarketType.FUTURES)
    assert found == {
        "SOLUSDT": Target("SOLUSDT", Decimal("0.5"), StopPrices(Decimal(140), None)),
        "XRPUSDT": Target("XRPUSDT", Decimal("-0.5"), StopPrices(None, Decimal("0.4"))),
    }


@pytest.mark.parametrize(
    ("price", "fits"),
    [("0", False), ("0.0001", True), ("1", True), ("1e12", True), ("1000000000000.1", False)],
)
def test_stop_prices_are_above_nothing_and_within_reason(price: str, fits: bool) -> None:
    rules = {"SOLUSDT": make_instrument("SOLUSDT")}
    answer = {"SOLUSDT": {"weight": "0.1", "presetStopLossPrice": price}}
    if fits:
        found = read_targets(answer, rules, MarketType.FUTURES)
        assert found["SOLUSDT"].stops.stop_loss == Decimal(price)
    else:
        with pytest.raises(StrategyFailed):
            read_targets(answer, rules, MarketType.FUTURES)


def test_a_coin_may_be_wanted_no_more() -> None:
    rules = {"SOLUSDT": make_instrument("SOLUSDT")}
    found = read_targets({"SOLUSDT": {"weight": "0"}}, rules, MarketType.SPOT)
    assert found["SOLUSDT"].weight == 0
    with pytest.raises(StrategyFailed):
        read_targets({"SOLUSDT": {"weight": "-0.1"}}, rules, MarketType.SPOT)


# --- decisions ------------------------------------------------------------------------------------


def snapshot() -> AccountSnapshot:
    held = (make_position("ETHUSDT", "-1.11"), make_position("BTCUSDT", "0.0499"))
    orders = (
        replace(make_order("ETHUSDT", Side.BUY, "1"), client_id="b"),
        replace(make_order("BTCUSDT", Side.SELL, "2"), client_id="a"),
    )
    return AccountSnapshot(
        "account", make_inputs({}).account.at, Decimal(9000), Decimal(7), Decimal(9007),
        Decimal(5003), Decimal(4004), PositionMode.ONE_WAY, held, orders,
    )  # fmt: skip


def test_closing_asks_nobody_and_knows_only_what_is_held() -> None:
    rules = {name: make_instrument(name) for name in MARKS if name != "ETHUSDT"}
    general = policy()
    found = closing_inputs("2611211102-ab3x", snapshot().at, general, snapshot(), rules, "8d1f")
    assert found == CycleInputs(
        session_id="2611211102-ab3x",
        cycle=snapshot().at,
        policy=general,
        account=found.account,
        initial_balance=Decimal(9007),
        allocated=None,
        compounding=True,
        answer={},
        marks={"BTCUSDT": MARKS["BTCUSDT"], "ETHUSDT": MARKS["ETHUSDT"]},
        instruments={"BTCUSDT": rules["BTCUSDT"]},
        closing=True,
        build="8d1f",
    )
    assert [each.symbol for each in found.account.positions] == ["BTCUSDT", "ETHUSDT"]
    assert [each.client_id for each in found.account.open_orders] == ["a", "b"]
    assert closing_inputs("2611211102-ab3x", snapshot().at, general, snapshot(), rules).build == ""
    assert [leg.leg_id for leg in decide(found).plan.legs] == ["BTCUSDT-close", "ETHUSDT-close"]


@pytest.mark.parametrize(
    ("equity", "base"), [("-3", "1"), ("0", "1"), ("0.25", "0.25"), ("1007", "1007")]
)
def test_what_is_closed_is_closed_however_little_the_account_is_worth(
    equity: str, base: str
) -> None:
    held = (make_position("BTCUSDT", "0.0499"),)
    inputs = make_inputs({}, held)
    poor = replace(inputs, account=replace(inputs.account, equity=Decimal(equity)))
    for each in (poor, replace(poor, answer={"BTCUSDT": {"weight": "0"}})):
        decision = decide(each)
        assert decision.book.base == Decimal(base)
        assert [leg.leg_id for leg in decision.plan.legs] == ["BTCUSDT-close"]


def test_a_book_is_made_of_all_that_the_inputs_say() -> None:
    spreads, volatility = {"SOLUSDT": Decimal("0.0001")}, {"SOLUSDT": Decimal("0.6")}
    inputs = make_inputs(
        {"SOLUSDT": "0.3"}, allocated=Decimal(2500), spreads=spreads, volatility=volatility
    )
    found = decide(inputs).book
    assert (found.base, found.available) == (Decimal(2500), inputs.account.available)
    assert (found.spreads, found.volatility) == (spreads, volatility)
    assert (found.marks, found.instruments) == (inputs.marks, inputs.instruments)


def test_what_waiting_orders_can_add_is_all_their_buys_or_all_their_sells() -> None:
    orders = (
        make_order("SOLUSDT", Side.BUY, "3", "2"),  # one is missing
        make_order("XRPUSDT", Side.SELL, "9", "2"),
        make_order("XRPUSDT", Side.SELL, "3"),
        make_order("ADAUSDT", Side.BUY, "5"),
        make_order("ADAUSDT", Side.SELL, "5"),
        make_order("ADAUSDT", Side.SELL, "2", "1"),
        replace(make_order("LINKUSDT", Side.SELL, "7"), reduce_only=True),
        make_order("BTCUSDT", Side.BUY, "2", "2"),
        replace(make_order("ETHUSDT", Side.BUY, "4", "1"), status=OrderStatus.CANCELED),
    )
    assert decide(make_inputs({}, (), orders)).book.open_orders == {
        "SOLUSDT": Decimal(1),
        "XRPUSDT": Decimal(10),
        "ADAUSDT": Decimal(6),
        "LINKUSDT": ZERO,
    }


def test_I5_a_symbol_with_a_buy_and_a_sell_of_the_same_size_is_left_until_they_are_over() -> None:
    """Either may fill alone: their difference of nothing is not what can happen."""
    orders = (
        make_order("ADAUSDT", Side.BUY, "5000"),
        replace(make_order("ADAUSDT", Side.SELL, "5000"), order_id="118"),
    )
    plan = decide(make_inputs({"ADAUSDT": "0.1", "BTCUSDT": "0.9"}, (), orders)).plan
    assert [(item.symbol, item.reason) for item in plan.skipped] == [
        ("ADAUSDT", SkipReason.OPEN_ORDER)
    ]
    (leg,) = plan.legs
    room = 10007 - 5000 * MARKS["ADAUSDT"]
    assert room - MARKS["BTCUSDT"] / 1000 < leg.notional <= room


def test_an_order_that_only_reduces_takes_no_room_from_what_opens() -> None:
    held = (make_position("ETHUSDT", "1.66"),)  # 4,982
    orders = (replace(make_order("ETHUSDT", Side.SELL, "1.66"), reduce_only=True),)
    plan = decide(make_inputs({"ETHUSDT": "0.4", "BTCUSDT": "0.5"}, held, orders)).plan
    assert [(item.symbol, item.reason) for item in plan.skipped] == [
        ("ETHUSDT", SkipReason.OPEN_ORDER)
    ]
    (leg,) = plan.legs
    assert leg.notional > 4990


def test_closing_needs_no_base_even_where_weights_are_given() -> None:
    inputs = replace(make_inputs({"BTCUSDT": "0.3"}), closing=True)
    poor = replace(inputs, account=replace(inputs.account, equity=Decimal("0.5")))
    assert decide(poor).book.base == 1


def test_a_volatility_without_a_target_is_our_bug() -> None:
    inputs = make_inputs({"BTCUSDT": "0.3"}, realized_volatility=Decimal("0.4"))
    aimed = replace(inputs, policy=policy(mode=TradeMode.VOLATILITY_TARGETING))
    with pytest.raises(InvariantViolated):
        decide(aimed)
    assert decide(inputs).targets["BTCUSDT"].weight == Decimal("0.3"), "in other modes it is read"


def test_the_letter_of_a_plan_says_all_of_it() -> None:
    held = (make_position("ETHUSDT", "-1.11"), make_position("BTCUSDT", "0.0499"))
    stops = {"presetStopLossPrice": "55000.1", "presetStopSurplusPrice": "70000"}
    answer = {"BTCUSDT": {"weight": "0.301", **stops}, "SOLUSDT": {"weight": "-0.2"}}
    inputs = replace(
        make_inputs({"BTCUSDT": "0", "SOLUSDT": "0"}, held),
        answer=answer,
        call=StrategyCall(digest="5f3a"),
    )
    decision = decide(inputs)
    blank = requested("2611211102-ab3x", inputs.cycle, 7, 3, 41)
    letter = plan_letter(blank, inputs, decision)
    assert (letter.number, letter.epoch, letter.revision) == (7, 3, 42)
    assert letter.stage is CycleStage.PLANNED
    assert tuple(record.leg for record in letter.legs) == decision.plan.legs
    assert len(letter.legs) == 2
    assert letter.skipped == decision.plan.skipped
    assert letter.skipped
    assert letter.stops == decision.plan.stops
    assert letter.residuals == decision.plan.residuals
    assert letter.residuals
    assert letter.inputs == inputs.to_json()
    assert letter.targets == answer
    assert letter.strategy_digest == "5f3a"
    basis = Holding(inputs.account.at, {each.symbol: each.size for each in held})
    assert letter.basis == basis
    closing = replace(inputs, closing=True)
    assert plan_letter(blank, closing, decide(closing)).strategy_digest == FLAT


def test_scaled_weights_keep_their_stops() -> None:
    stops = StopPrices(Decimal(140), Decimal(170))
    scaled = scale_to_volatility(
        {"SOLUSDT": Target("SOLUSDT", Decimal("0.4"), stops)}, Decimal("0.8"), Decimal("0.2")
    )
    assert scaled == {"SOLUSDT": Target("SOLUSDT", Decimal("0.1"), stops)}


def test_two_decisions_with_one_plan_have_two_digests() -> None:
    plan = given()
    other = replace(plan.inputs, build="another")
    assert decision_digest(plan.inputs, plan.letter) == plan.plan_hash
    assert decision_digest(other, plan.letter) != plan.plan_hash
    unplanned = replace(plan.letter, legs=(), pinned=None)
    assert decision_digest(plan.inputs, unplanned) != plan.plan_hash


# --- plans that were looked at --------------------------------------------------------------------


def test_a_plan_is_fresh_to_the_last_moment() -> None:
    plan = given(fresh_s=60)
    assert changes_since(plan, now(plan, now=plan.fresh_until)) == []
    late = plan.fresh_until + timedelta(milliseconds=1)
    assert len(changes_since(plan, now(plan, now=late))) == 1


def test_its_tolerance_is_stored_with_it() -> None:
    plan = given(fresh_s=17, tolerance="0.013")
    assert given_plan_from_json(plan.to_json()).freshness == Freshness(17, Decimal("0.013"))


def test_its_letter_is_the_first_of_a_session_that_has_none() -> None:
    letter = given().letter
    assert (letter.number, letter.revision, letter.epoch) == (1, 1, 7)


@pytest.mark.parametrize("further", [0, 1, 2])
def test_as_many_changes_as_are_shown_are_told_without_a_rest(further: int) -> None:
    changes = [f"change {number}" for number in range(CHANGES_SHOWN_MAX + further)]
    shown = "; ".join(changes[:CHANGES_SHOWN_MAX])
    assert in_words(changes) == (f"{shown}; and {further} more" if further else shown)


def test_a_position_that_came_or_went_is_told_and_one_of_nothing_is_none() -> None:
    plan = given()
    came = (*now(plan).positions, position("CUSDT", "5", Decimal(1)))
    assert changes_since(plan, now(plan, positions=came)) == ["CUSDT was 0, is 5"]
    assert changes_since(plan, now(plan, positions=())) == ["AUSDT was 3, is 0"]
    nothing = (*now(plan).positions, position("CUSDT", "0", Decimal(1)))
    assert changes_since(plan, now(plan, positions=nothing)) == []
    empty = replace(plan, held={**plan.held, "CUSDT": ZERO})
    assert changes_since(empty, now(empty)) == []


def test_a_close_that_never_had_a_price_does_not_hide_what_moved() -> None:
    plan = given()
    marks = {"BUSDT": Decimal(10)}
    blind = replace(plan, inputs=replace(plan.inputs, marks=marks))
    (told,) = changes_since(blind, now(blind, marks={"BUSDT": Decimal(11)}))
    assert "BUSDT moved +10.00 %" in told
    assert "more than 0.5 %" in told


# --- coins ----------------------------------------------------------------------------------------


def test_a_coin_that_an_answer_leaves_out_is_not_forgotten() -> None:
    ledger = Ledger(holdings={"BTCUSDT": Held(Decimal("0.2"), Decimal(12_000))})
    assert taken_over(ledger, ()).holdings == ledger.holdings
    other = taken_over(ledger, [coin("ETHUSDT", "3", "3000")])
    assert other.holdings == {
        **ledger.holdings, "ETHUSDT": Held(Decimal(3), Decimal(9000)),
    }  # fmt: skip


def test_a_weight_just_beyond_rounding_is_refused() -> None:
    decide(make_inputs({"BTCUSDT": "1.000000001"}))
    with pytest.raises(StrategyFailed):
        decide(make_inputs({"BTCUSDT": "1.0000000011"}))
