"""What an account would look like after a plan, with everything in it at once: positions that the
plan does not touch, crossed and isolated ones, tiers at their edges. Checked against the equations,
not against the way they are solved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

import pytest

from module.model.accounts import MarginMode, Position, PositionMode
from module.model.books import Depth, MarginTier
from module.model.market import Instrument, MarketType
from module.model.orders import NO_STOPS, StopPrices
from module.model.sessions import TradeMode
from tests.unit.trading.rebalance.test_estimate import AT, depth, position, rules
from trading.rebalance.decision import AccountInputs, CycleInputs, decide
from trading.rebalance.estimate import (
    PlanEstimate,
    PositionEstimate,
    Surroundings,
    estimate_plan,
)
from trading.rebalance.legs import Policy

FEE = Decimal("0.0006")
OWN = StopPrices(Decimal("7.7"))


def tiers(*steps: tuple[str, str]) -> tuple[MarginTier, ...]:
    """(up to which notional, rate) from zero upwards."""
    found, start = [], Decimal(0)
    for end, rate in steps:
        found.append(MarginTier(start, Decimal(end), Decimal(rate)))
        start = Decimal(end)
    return tuple(found)


TIERS = {
    "AUSDT": tiers(("600", "0.004"), ("9000", "0.05")),  # 600 is still of the first
    "BUSDT": tiers(("50", "0.005"), ("80", "0.01"), ("100", "0.02")),  # 200 is beyond the last
    "CUSDT": tiers(("1000", "0.007")),
    "EUSDT": tiers(("100", "0.003"), ("1000", "0.006")),
}
HELD = (
    position("AUSDT", "3", "100", entry_price=Decimal(90), margin_size=Decimal(15),
             liquidation_price=Decimal("55.5"), stops=OWN),
    position("BUSDT", "-20", "10", entry_price=Decimal(11), margin_size=Decimal(44),
             margin_mode=MarginMode.ISOLATED, stops=OWN),
    position("CUSDT", "1", "90", entry_price=Decimal(95), margin_size=Decimal("4.4"), stops=OWN),
    position("DUSDT", "10", "20", margin_size=Decimal("10.1"), stops=OWN),
)  # fmt: skip


def estimated(
    *,
    mode: TradeMode = TradeMode.GENERAL,
    margin_mode: MarginMode = MarginMode.ISOLATED,
    weights: Iterable[tuple[str, str]] = (("AUSDT", "0.2"), ("DUSDT", "0"), ("EUSDT", "-0.08")),
    marks: Iterable[tuple[str, str]] = (
        ("AUSDT", "100"), ("CUSDT", "90"), ("DUSDT", "20"), ("EUSDT", "0.8"),
    ),
    depths: tuple[Depth, ...] = (
        depth("AUSDT", bids={}, asks={"101": "1", "102": "9"}),
    ),
    held: tuple[Position, ...] = HELD,
    equity: str = "150",
    leverage: str = "20",
    known: dict[str, tuple[MarginTier, ...]] | None = None,
    instruments: dict[str, Instrument] | None = None,
    market: MarketType = MarketType.FUTURES,
) -> PlanEstimate:  # fmt: skip
    inputs = CycleInputs(
        session_id="2603020507-abcd",
        cycle=AT,
        policy=Policy(mode, market, Decimal(leverage), Decimal("0.01")),
        account=AccountInputs(AT, Decimal(equity), Decimal(70), PositionMode.ONE_WAY, held, ()),
        initial_balance=Decimal(equity),
        allocated=None,
        compounding=True,
        answer={symbol: {"weight": weight} for symbol, weight in weights},
        marks={symbol: Decimal(mark) for symbol, mark in marks},
        instruments=instruments or {f"{asset}USDT": rules(f"{asset}USDT") for asset in "ABCDE"},
    )
    surroundings = Surroundings(
        depths={each.symbol: each for each in depths},
        tiers=TIERS if known is None else known,
        margin_mode=margin_mode,
    )
    return estimate_plan(inputs, decide(inputs), surroundings)


def lines(found: PlanEstimate) -> dict[str, PositionEstimate]:
    return {line.symbol: line for line in found.positions}


FEES = FEE * (305 + 200 + 240)  # 3 A bought for 305, 10 D sold at 20, 300 E sold at 0.8
SLIPPED = Decimal(5)


def test_the_account_before_and_after() -> None:
    found = estimated()
    assert (found.before.margin_used, found.before.gross) == (Decimal("73.5"), Decimal(790))
    assert found.after.equity == 150 - FEES - SLIPPED
    # A 600 ÷ 20, B and C as the exchange says, E 240 ÷ 20
    assert found.after.margin_used == 30 + 44 + Decimal("4.4") + 12
    assert found.after.gross == 600 + 200 + 90 + 240
    # the crossed profit of 25 (A 30, C -5), of which the slippage takes 5, is free neither way
    after = 70 + Decimal("73.5") - Decimal("90.4") - FEES
    assert found.after.available == after
    assert (found.fees, found.slippage) == (FEES, SLIPPED)
    assert found.turnover_notional == 300 + 200 + 240
    assert found.turnover == Decimal(740) / 20 / 150


def test_every_position_before_and_after() -> None:
    found = lines(estimated())
    assert list(found) == ["AUSDT", "BUSDT", "CUSDT", "DUSDT", "EUSDT"]
    sizes = {name: (int(line.size_before), int(line.size_after)) for name, line in found.items()}
    assert sizes == {
        "AUSDT": (3, 6), "BUSDT": (-20, -20), "CUSDT": (1, 1), "DUSDT": (10, 0), "EUSDT": (0, -300),
    }  # fmt: skip
    weights = {symbol: (line.weight_before, line.weight_after) for symbol, line in found.items()}
    assert weights == {
        symbol: (before * found[symbol].mark / 3000, after * found[symbol].mark / 3000)
        for symbol, (before, after) in sizes.items()
    }
    assert found["BUSDT"].mark == 10, "what the plan does not price has the exchange's mark"
    assert [line.target_weight for line in found.values()] == [
        Decimal("0.2"), None, None, Decimal(0), Decimal("-0.08"),
    ]  # fmt: skip
    assert [line.margin_before for line in found.values()] == [
        Decimal(15), Decimal(44), Decimal("4.4"), Decimal("10.1"), Decimal(0),
    ]  # fmt: skip
    assert [line.margin_after for line in found.values()] == [
        Decimal(30), Decimal(44), Decimal("4.4"), Decimal(0), Decimal(12),
    ]  # fmt: skip
    assert [line.liquidation_before for line in found.values()] == [
        Decimal("55.5"), None, None, None, None,
    ]  # fmt: skip
    assert found["AUSDT"].distance_before == Decimal("0.445")


def test_what_the_plan_does_not_mention_keeps_its_stops() -> None:
    found = lines(estimated())
    assert {symbol: line.stops_after for symbol, line in found.items()} == {
        "AUSDT": NO_STOPS,  # the strategy gave none
        "BUSDT": OWN,
        "CUSDT": OWN,
        "DUSDT": NO_STOPS,  # it is closed
        "EUSDT": NO_STOPS,
    }
    assert [line.stops_before for line in found.values()] == [OWN, OWN, OWN, OWN, NO_STOPS]


ENTRY_OF_A = Decimal(270 + 305) / 6
RATES = {
    "AUSDT": Decimal("0.0046"), "BUSDT": Decimal("0.0206"), "CUSDT": Decimal("0.0076"),
    "EUSDT": Decimal("0.0066"),
}  # fmt: skip


def gone(found: PlanEstimate, symbol: str) -> Decimal:
    """The price of liquidation, which there must be."""
    price = lines(found)[symbol].liquidation_after
    assert price is not None
    return price


def test_crossed_positions_share_what_isolated_ones_leave() -> None:
    found = estimated()
    # B: margin 44 and a profit of 20; E: margin 12, entered at its mark
    shared = found.after.equity - 44 - 20 - 12
    for symbol, other in (("AUSDT", "CUSDT"), ("CUSDT", "AUSDT")):
        line, beside = lines(found)[symbol], lines(found)[other]
        price = gone(found, symbol)
        kept = RATES[symbol] * line.size_after * price
        kept += RATES[other] * beside.size_after * beside.mark
        assert abs(shared + line.size_after * (price - line.mark) - kept) < Decimal("1e-15")
        assert 0 < price < line.mark


def test_isolated_positions_have_their_own_margin_and_profit() -> None:
    found = estimated()
    for symbol, size, entry, margin in (
        ("BUSDT", -20, Decimal(11), 44),  # what the exchange says, more than 220 ÷ 20
        ("EUSDT", -300, Decimal("0.8"), 12),
    ):
        price = gone(found, symbol)
        own = margin + size * (price - entry)
        assert abs(own - RATES[symbol] * abs(size) * price) < Decimal("1e-15")
        assert price > lines(found)[symbol].mark
    assert gone(found, "EUSDT") < 1


def test_an_isolated_position_that_grows_is_entered_at_the_average() -> None:
    held = tuple(
        replace(each, margin_mode=MarginMode.ISOLATED) if each.symbol == "AUSDT" else each
        for each in HELD
    )
    price = gone(estimated(held=held), "AUSDT")
    own = 15 + Decimal(305) / 20 + 6 * (price - ENTRY_OF_A)
    assert abs(own - RATES["AUSDT"] * 6 * price) < Decimal("1e-15")


def test_an_isolated_position_that_shrinks_keeps_its_entry() -> None:
    held = (replace(HELD[0], margin_mode=MarginMode.ISOLATED),)
    found = estimated(held=held, weights=(("AUSDT", "0.05"),))  # 150: 1.5
    price = gone(found, "AUSDT")
    assert lines(found)["AUSDT"].size_after == Decimal("1.5")
    own = Decimal(15) / 2 + Decimal("1.5") * (price - 90)
    assert abs(own - RATES["AUSDT"] * Decimal("1.5") * price) < Decimal("1e-15")
    assert lines(found)["AUSDT"].margin_after == Decimal("7.5")


@pytest.mark.parametrize(
    ("entry", "shared"),
    [
        ("80", "20"),  # a profit of 20 is free once it is realised
        ("130", "0"),  # a loss of 30 was taken off what was free all along
    ],
)
def test_closing_makes_a_crossed_profit_free(entry: str, shared: str) -> None:
    """1 at 100 with margin 10, sold at the mark: 70 were free, and 10 come back, less the fee."""
    held = position("AUSDT", "1", "100", entry_price=Decimal(entry), margin_size=Decimal(10))
    found = estimated(held=(held,), weights=(("AUSDT", "0"),), depths=())
    assert found.after.available == 80 + Decimal(shared) - 100 * FEE
    kept = estimated(held=(held,), weights=(), depths=())
    assert (kept.legs, kept.after) == ((), kept.before)


def test_closing_an_isolated_position_gives_back_its_margin_and_its_profit() -> None:
    """B, short 20 from 11, bought back at the mark of 10: a profit of 20, and the margin of 44."""
    found = estimated(
        held=(HELD[1],), weights=(("BUSDT", "0"),), depths=(), marks=(("BUSDT", "10"),)
    )
    assert found.after.available == 70 + 44 + 20 - 200 * FEE


def test_what_the_money_reaches_for_is_told_beside_the_plan() -> None:
    """A is closed at its mark: 70 were free, 10 and a profit of 20 come back, less the fee. At
    leverage 20 E needs notional × 1.002 × (1 ÷ 20 + fee)."""
    held = position("AUSDT", "1", "100", entry_price=Decimal(80), margin_size=Decimal(10))
    free = 100 - 100 * FEE
    per_unit = Decimal("1.002") * (Decimal(1) / 20 + FEE)
    for weight, cut in (("-0.6", False), ("-0.7", True)):
        found = estimated(
            held=(held,), weights=(("AUSDT", "0"), ("EUSDT", weight)), depths=()
        ).openings
        assert (found.free, found.left_out) == (free, ())
        assert found.wanted == abs(Decimal(weight)) * 3000
        assert (found.reached < found.wanted) is cut
        if cut:
            assert 0 <= free - found.reached * per_unit < Decimal("0.001")
    broke = estimated(weights=(("EUSDT", "-0.9"),), depths=(), held=(), equity="60000").openings
    assert broke.free == 70
    small = {"EUSDT": replace(rules("EUSDT"), notional_min=Decimal(5000))}
    left = estimated(
        weights=(("EUSDT", "-0.9"),), depths=(), held=(), equity="60000", instruments=small
    ).openings
    assert (left.reached, left.left_out) == (Decimal(0), ("EUSDT",))


def test_coins_have_no_margin_before_or_after() -> None:
    coin = position("AUSDT", "2", "100")
    found = estimated(
        held=(coin,), weights=(("AUSDT", "0.5"),), depths=(), equity="1000", leverage="1",
        market=MarketType.SPOT, known={},
        instruments={"AUSDT": rules("AUSDT", MarketType.SPOT)},
    )  # fmt: skip
    line = lines(found)["AUSDT"]
    assert found.before.margin_used == found.after.margin_used == 0
    assert line.margin_before == line.margin_after == 0
    assert line.size_after == 5


def test_several_other_crossed_positions_are_kept_together() -> None:
    found = estimated(margin_mode=MarginMode.CROSSED)
    shared = found.after.equity - 44 - 20
    price = gone(found, "CUSDT")
    others = RATES["AUSDT"] * 600 + RATES["EUSDT"] * 240
    assert abs(shared + (price - 90) - others - RATES["CUSDT"] * price) < Decimal("1e-15")


def test_nobody_says_a_price_where_the_venue_does_not_publish_what_must_be_kept() -> None:
    known = {symbol: steps for symbol, steps in TIERS.items() if symbol != "CUSDT"}
    found = lines(estimated(known=known))
    assert found["CUSDT"].liquidation_after is None
    assert found["AUSDT"].liquidation_after is None, "C's part of the shared money is unknown"
    assert found["BUSDT"].liquidation_after is not None, "an isolated one needs no other"


def test_a_price_of_just_zero_is_none() -> None:
    """5 at 100 with 500 of equity and nothing to pay: worthless, and only then liquidated."""
    free = {"AUSDT": replace(rules("AUSDT"), taker_fee=Decimal(0))}
    found = estimated(
        held=(), weights=(("AUSDT", "0.5"),), depths=(), equity="500", leverage="2",
        margin_mode=MarginMode.CROSSED, instruments=free, known={"AUSDT": TIERS["AUSDT"]},
    )  # fmt: skip
    assert lines(found)["AUSDT"].size_after == 5
    assert lines(found)["AUSDT"].liquidation_after is None


def test_a_position_of_which_everything_must_be_kept_has_no_price() -> None:
    """Whatever the mark, a long with a rate of one keeps just as much as it is worth."""
    free = {"AUSDT": replace(rules("AUSDT"), taker_fee=Decimal(0))}
    found = estimated(
        held=(), weights=(("AUSDT", "0.5"),), depths=(), margin_mode=MarginMode.CROSSED,
        instruments=free, known={"AUSDT": tiers(("9000", "1"))},
    )  # fmt: skip
    assert lines(found)["AUSDT"].liquidation_after is None


@pytest.mark.parametrize(
    ("mark", "price", "expected"),
    [("0", "5", None), ("1", "0.75", Decimal("0.25")), ("0.5", "0.75", Decimal("0.5"))],
)
def test_a_distance_is_a_fraction_of_the_mark(
    mark: str, price: str, expected: Decimal | None
) -> None:
    line = replace(
        lines(estimated())["CUSDT"], mark=Decimal(mark), liquidation_after=Decimal(price)
    )
    assert line.distance_after == expected
