"""One symbol in whole lots, at the venue's minimums: a lot is worth 1, an order must be 2 lots and
worth 3."""

from __future__ import annotations

from decimal import Decimal

import pytest

from module.model.market import MarketType
from tests.fakes.exchange import make_instrument
from tests.unit.trading.rebalance.books import position
from trading.rebalance.legs import SkipReason
from trading.rebalance.moves import (
    Move,
    round_to_nearest,
    scale_down,
    shrink_to_limit,
    smaller_choice,
)
from trading.rebalance.weights import Target

ZERO = Decimal(0)
TEN = Decimal(10)


def move(
    distance: str,
    *,
    held: str | None = None,
    minimums: bool = True,
    market: MarketType = MarketType.FUTURES,
    symbol: str = "SOLUSDT",
    lots: str = "0",
) -> Move:
    """An opening, or (of what is `held`) a reduction."""
    rules = make_instrument(
        symbol,
        market=market,
        size_step=Decimal("0.1"),
        size_min=Decimal("0.2") if minimums else ZERO,
        notional_min=Decimal(3) if minimums else ZERO,
    )
    there = None if held is None else position(symbol, held, TEN)
    value = ZERO if there is None else there.size * TEN
    found = Move(Target(symbol, Decimal("0.3")), there, rules, TEN, value, value / 1000)
    found.grows = held is None
    found.gross = abs(value)
    found.distance = Decimal(distance)
    found.lot_value = Decimal(1)
    found.choose(Decimal(lots))
    return found


@pytest.mark.parametrize(
    ("distance", "lots", "reason"),
    [
        ("4.4", "4", SkipReason.LOT_ROUNDING),
        ("4.5", "4", SkipReason.LOT_ROUNDING),  # a tie goes to the smaller position
        ("4.6", "5", SkipReason.LOT_ROUNDING),
        ("3", "3", SkipReason.LOT_ROUNDING),
        ("2.6", "3", SkipReason.LOT_ROUNDING),
        ("2.4", "3", SkipReason.BELOW_MIN_NOTIONAL),  # 2 are too little; 3 are nearer than none
        ("1.6", "0", SkipReason.BELOW_MIN_NOTIONAL),  # 2 are the nearest, and 1 is no order either
        ("1.5", "0", SkipReason.BELOW_MIN_SIZE),
        ("1.4", "0", SkipReason.BELOW_MIN_SIZE),
        ("0.4", "0", SkipReason.LOT_ROUNDING),
    ],
)
def test_an_opening_is_the_nearest_number_of_lots_that_the_venue_takes(
    distance: str, lots: str, reason: SkipReason
) -> None:
    found = move(distance)
    round_to_nearest(found, ZERO)
    assert (found.lots, found.gross_after) == (Decimal(lots), Decimal(lots))
    if not found.lots:
        assert found.reason is reason


@pytest.mark.parametrize(
    ("distance", "held", "lots"),
    [
        ("4.4", "5", "4"),
        ("4.5", "5", "5"),  # a tie goes to the smaller position
        ("4.6", "-5", "5"),
        ("2.4", "5", "3"),
        ("1.4", "5", "0"),
        ("2.6", "0.25", "0"),  # two and a half lots are there: two are too little, three too many
        ("2.9", "0.3", "3"),
        ("2", "0.2", "2"),  # all there is: no minimum counts
        ("1", "0.1", "1"),
        ("50", "5", "50"),
    ],
)
def test_a_reduction_takes_no_more_than_there_is(distance: str, held: str, lots: str) -> None:
    found = move(distance, held=held)
    round_to_nearest(found, ZERO)
    assert found.lots == Decimal(lots)
    assert found.gross_after == abs(Decimal(held)) * 10 - Decimal(lots)


@pytest.mark.parametrize(
    ("distance", "gain_min", "lots"),
    [("0.6", "0.2", "1"), ("0.6", "0.21", "0"), ("1.6", "5", "2"), ("1", "1", "1")],
)
def test_a_single_lot_beyond_the_goal_must_be_worth_it(
    distance: str, gain_min: str, lots: str
) -> None:
    found = move(distance, minimums=False)
    round_to_nearest(found, Decimal(gain_min))
    assert found.lots == Decimal(lots)


def test_why_an_order_cannot_be_sent() -> None:
    opening, reduction = move("9"), move("9", held="5")
    for each in (opening, reduction):
        assert [each.refused(Decimal(lots)) for lots in range(5)] == [
            None, SkipReason.BELOW_MIN_SIZE, SkipReason.BELOW_MIN_NOTIONAL, None, None,
        ]  # fmt: skip
    assert opening.refused(Decimal(51)) is None
    assert reduction.refused(Decimal(50)) is None
    assert reduction.refused(Decimal(51)) is SkipReason.LOT_ROUNDING
    coin = move("2", held="0.2", market=MarketType.SPOT)
    assert coin.refused(Decimal(2)) is SkipReason.BELOW_MIN_NOTIONAL, "a coin has its minimums"


def test_the_smallest_order_is_one_that_keeps_both_minimums() -> None:
    assert move("9").least_lots == 3
    assert move("9", minimums=False).least_lots == 0
    found = move("9")
    found.lot_value = Decimal("1.4")  # 3 ÷ 1.4 is more than two
    assert found.least_lots == 3
    found.lot_value = Decimal(9)
    assert found.least_lots == 2


@pytest.mark.parametrize(
    ("distance", "held", "lots", "smaller"),
    [
        ("4.6", None, "5", "4"),
        ("5", None, "5", None),
        ("5.4", None, "5", None),
        ("2.6", None, "3", "0"),  # two are no order
        ("4.4", "5", "4", "5"),
        ("4.4", "5", "5", None),
        ("5", "5", "5", None),
        ("0.4", "5", "0", None),  # one is no order
        ("2.4", "5", "2", "3"),
        ("50.4", "5", "50", None),  # there are no more
    ],
)
def test_the_next_smaller_position_within_a_lot_of_the_goal(
    distance: str, held: str | None, lots: str, smaller: str | None
) -> None:
    found = smaller_choice(move(distance, held=held, lots=lots))
    assert found == (None if smaller is None else Decimal(smaller))


def test_a_book_that_is_too_large_gives_up_the_lot_that_costs_least() -> None:
    near, far = move("4.6", lots="5"), move("4.9", lots="5", symbol="ADAUSDT")
    exact = move("5", lots="5", symbol="XRPUSDT")
    near.reason = far.reason = SkipReason.DUST
    shrink_to_limit([exact, near, far], Decimal("0.7"))
    assert [each.lots for each in (exact, near, far)] == [5, 4, 5]
    assert (near.reason, far.reason) == (SkipReason.LOT_ROUNDING, SkipReason.DUST)
    shrink_to_limit([exact, near, far], Decimal(2))
    assert [each.lots for each in (exact, near, far)] == [5, 4, 4]


def test_what_is_allowed_is_divided_evenly_and_the_rest_goes_where_most_was_lost() -> None:
    moves = [move("9", lots="9"), move("3", lots="3", symbol="ADAUSDT")]
    scale_down(moves, Decimal(12), SkipReason.TURNOVER_CAP)
    assert [each.lots for each in moves] == [9, 3]
    assert moves[0].reason is SkipReason.LOT_ROUNDING, "all of it is allowed"
    scale_down(moves, Decimal(9), SkipReason.TURNOVER_CAP)
    # three quarters are 6 of 9 (6.75) and 2 of 3 (2.25), which is no order; it lost most, and gets
    # the three that are an order
    assert [each.lots for each in moves] == [6, 3]
    assert {each.reason for each in moves} == {SkipReason.TURNOVER_CAP}
    assert [each.gross_after for each in moves] == [6, 3]


def test_nothing_is_traded_where_nothing_is_allowed() -> None:
    for allowed in ("0", "-7", "2.9"):
        moves = [move("9", lots="9"), move("0.4", symbol="ADAUSDT")]
        scale_down(moves, Decimal(allowed), SkipReason.TURNOVER_CAP)
        assert [each.lots for each in moves] == [0, 0]
        assert moves[1].reason is SkipReason.LOT_ROUNDING, "it was not to be traded anyway"


def test_what_no_order_can_use_goes_evenly_to_those_that_lack_most() -> None:
    moves = [move("20", lots="20", symbol=name) for name in ("ADAUSDT", "SOLUSDT", "XRPUSDT")]
    scale_down(moves, Decimal("31.5"), SkipReason.TURNOVER_CAP)
    assert [each.lots for each in moves] == [11, 10, 10]
    moves = [move("3", lots="3", symbol="ADAUSDT"), move("30", lots="30", symbol="XRPUSDT")]
    scale_down(moves, Decimal(32), SkipReason.TURNOVER_CAP)
    assert [each.lots for each in moves] == [3, 29]
