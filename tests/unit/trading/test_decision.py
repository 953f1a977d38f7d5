"""One function from inputs to a plan, and the inputs as one document that says everything."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.model.accounts import PositionMode
from module.model.canonical import canonical_json
from module.model.errors import Conflict, InvalidInput, InvariantViolated, StrategyFailed
from module.model.market import Frequency
from module.model.orders import Side
from module.model.sessions import TradeMode
from tests.fakes.exchange import MARKS
from tests.unit.trading.deciding import (
    LONG_STOPS,
    make_inputs,
    make_order,
    make_position,
    planned,
)
from trading.rebalance.bars_seen import BarsAsked
from trading.rebalance.decision import CycleInputs, StrategyCall, decide, decision_digest
from trading.rebalance.order_info import from_json, to_json


def through_text(inputs: CycleInputs) -> CycleInputs:
    """As a replay gets it: through canonical JSON text."""
    return CycleInputs.from_json(json.loads(canonical_json(inputs.to_json())))


SIZES = st.decimals(Decimal("-3"), Decimal("3"), places=4).filter(lambda size: size != 0)
WEIGHTS = st.decimals(Decimal("-0.14"), Decimal("0.14"), places=5)
SYMBOLS = st.sampled_from(sorted(MARKS))


@st.composite
def any_inputs(draw: st.DrawFn) -> CycleInputs:
    """Books, answers, modes and options of every kind."""
    weights = draw(st.dictionaries(SYMBOLS, WEIGHTS.map(str)))
    held = draw(st.dictionaries(SYMBOLS, SIZES.map(str), max_size=5))
    positions = tuple(
        make_position(symbol, size, stops=LONG_STOPS) for symbol, size in sorted(held.items())
    )
    waiting = draw(st.lists(SYMBOLS, unique=True, max_size=2))
    orders = tuple(make_order(symbol, Side.BUY, "2", "0.5") for symbol in waiting)
    inputs = make_inputs(weights, positions, orders)
    policy = replace(
        inputs.policy,
        mode=draw(st.sampled_from(TradeMode)),
        leverage=draw(st.sampled_from([Decimal(1), Decimal("2.5")])),
        default_stop_loss_pct=draw(st.none() | st.just(Decimal("3.7"))),
        threshold_relative=draw(st.none() | st.just(Decimal("0.05"))),
        no_trade_band=draw(st.none() | st.just(Decimal("1.5"))),
        turnover_max=draw(st.none() | st.just(Decimal("0.3"))),
    )
    return replace(
        inputs,
        policy=policy,
        target_volatility=Decimal("0.4"),
        realized_volatility=draw(st.none() | st.just(Decimal("0.612345678901"))),
        spreads={symbol: Decimal("0.00017") for symbol in inputs.marks},
        volatility={symbol: Decimal("0.55") for symbol in inputs.marks},
        compounding=draw(st.booleans()),
        call=StrategyCall("owner-3", "momentum", "5f3a", '{"b":1.5,"a":[]}', "Asia/Seoul"),
        bars=(BarsAsked(("BTCUSDT",), Frequency.MINUTE_1, 100, "ab" * 32),),
        strategy_bars=1,
    )


@settings(max_examples=40, deadline=None)
@given(any_inputs())
def test_a_decision_of_the_document_is_the_decision_of_the_inputs(inputs: CycleInputs) -> None:
    again = through_text(inputs)
    assert again == inputs
    assert canonical_json(again.to_json()) == canonical_json(inputs.to_json())
    first, second = planned(inputs), planned(again)
    assert canonical_json(to_json(first)) == canonical_json(to_json(second))
    assert from_json(to_json(first)).inputs == inputs.to_json()


def test_every_input_is_in_the_digest() -> None:
    inputs = make_inputs({"BTCUSDT": "0.3"}, (make_position("ETHUSDT", "0.31"),))
    other = replace(inputs, account=replace(inputs.account, available=Decimal("9003.18")))
    assert planned(inputs).plan_digest == planned(other).plan_digest
    assert decision_digest(inputs, planned(inputs)) != decision_digest(other, planned(other))
    assert decision_digest(inputs, planned(inputs)) == decision_digest(inputs, planned(inputs))


def test_orders_that_wait_are_part_of_the_book() -> None:
    inputs = make_inputs(
        {},
        orders=(
            make_order("BTCUSDT", Side.BUY, "2", "0.5"),
            make_order("ETHUSDT", Side.SELL, "0.7"),
        ),
    )
    assert decide(inputs).book.open_orders == {
        "BTCUSDT": Decimal("1.5"),
        "ETHUSDT": Decimal("0.7"),
    }


def test_the_book_is_scaled_by_what_it_realised() -> None:
    inputs = make_inputs({"BTCUSDT": "0.8"})
    policy = replace(inputs.policy, mode=TradeMode.VOLATILITY_TARGETING)
    inputs = replace(
        inputs,
        policy=policy,
        target_volatility=Decimal("0.2"),
        realized_volatility=Decimal("0.8"),
    )
    assert decide(inputs).targets["BTCUSDT"].weight == Decimal("0.2")


def test_a_hedge_mode_account_is_refused() -> None:
    inputs = make_inputs({"BTCUSDT": "0.3"})
    hedged = replace(inputs.account, position_mode=PositionMode.HEDGE)
    with pytest.raises(Conflict, match="one-way"):
        decide(replace(inputs, account=hedged))


def test_an_answer_that_cannot_be_used_says_so() -> None:
    with pytest.raises(StrategyFailed, match=r"1\.4"):
        decide(make_inputs({"BTCUSDT": "1.4"}))


@pytest.mark.parametrize("equity", ["0", "-31.7"])
def test_an_account_that_is_worth_nothing_can_still_be_closed(equity: str) -> None:
    held = (make_position("BTCUSDT", "0.0132"), make_position("ETHUSDT", "-0.57"))
    inputs = make_inputs({}, held)
    broke = replace(inputs, account=replace(inputs.account, equity=Decimal(equity)))
    sizes = {leg.symbol: (leg.size, leg.reduce_only) for leg in decide(broke).plan.legs}
    assert sizes == {"BTCUSDT": (Decimal("0.0132"), True), "ETHUSDT": (Decimal("0.57"), True)}
    wants = replace(broke, answer={"ETHUSDT": {"weight": "0.1"}})
    with pytest.raises(InvalidInput, match="nothing to trade with"):
        decide(wants)


def test_closing_needs_no_base_and_no_answer() -> None:
    inputs = make_inputs({}, (make_position("ETHUSDT", "0.31"),), closing=True)
    inputs = replace(inputs, account=replace(inputs.account, equity=Decimal("-3")))
    assert [leg.leg_id for leg in decide(inputs).plan.legs] == ["ETHUSDT-close"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 2}, "version 2"),
        ({"version": None}, "version None"),
        ({"initial_balance": 1.5}, "initial_balance"),
        ({"answer": []}, "answer"),
        ({"marks": {"BTCUSDT": "NaN"}}, "BTCUSDT"),
        ({"policy": None}, "policy"),
        ({"bars": [{"assets": [], "window": 1, "digest": ""}]}, "frequency"),
    ],
)
def test_a_document_that_is_no_inputs_is_named(change: dict[str, object], told: str) -> None:
    document = {**make_inputs({"BTCUSDT": "0.3"}).to_json(), **change}
    with pytest.raises(InvariantViolated, match=told):
        CycleInputs.from_json(document)


def test_inputs_of_before_an_option_existed_still_decide() -> None:
    document = make_inputs({"BTCUSDT": "0.3"}).to_json()
    for name in ("spreads", "volatility", "bars", "build", "closing", "call"):
        del document[name]
    assert [leg.leg_id for leg in decide(CycleInputs.from_json(document)).plan.legs] == [
        "BTCUSDT-open"
    ]
