"""Which lots to give up where there are too many combinations to compare: what is nearly best."""

from __future__ import annotations

from decimal import Decimal

import pytest

from trading.rebalance.lots import RoundedUp, give_up


def items(**by_symbol: tuple[str, str]) -> list[RoundedUp]:
    """Symbol → (what it frees, what it loses)."""
    return [
        RoundedUp(symbol, Decimal(frees), Decimal(loss))
        for symbol, (frees, loss) in by_symbol.items()
    ]


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No combination may be looked at: the quick answer is the answer."""
    monkeypatch.setattr("trading.rebalance.lots.STATES_MAX", -1)


@pytest.mark.usefixtures("in_a_hurry")
@pytest.mark.parametrize(
    ("rounded", "excess", "expected"),
    [
        # the cheapest per unit until it is enough
        (items(A=("6", "0.6"), B=("6", "1.2"), C=("6", "1.8")), "10", {"A", "B"}),
        (items(C=("6", "0.6"), B=("6", "1.2"), A=("6", "1.8")), "12", {"B", "C"}),
        # B alone is enough, so the cheaper A stays rounded up
        (items(A=("1", "0.1"), B=("10", "2")), "10", {"B"}),
        (items(A=("1", "0.1"), B=("1", "0.11"), C=("10", "2")), "10", {"C"}),
        # of A and B one is superfluous: the dearer
        (items(A=("4", "0.4"), B=("4", "0.5"), C=("8", "1.6")), "11", {"A", "C"}),
        (items(B=("4", "0.4"), A=("4", "0.5"), C=("8", "1.6")), "11", {"B", "C"}),
    ],
)
def test_the_quick_answer_frees_enough_and_nothing_of_it_is_superfluous(
    rounded: list[RoundedUp], excess: str, expected: set[str]
) -> None:
    assert give_up(rounded, Decimal(excess)) == expected
    assert give_up(rounded[::-1], Decimal(excess)) == expected


def test_among_equal_losses_the_one_that_frees_most_then_the_later_symbols() -> None:
    most = items(A=("5", "1"), B=("7", "1"), C=("5", "1"))
    assert give_up(most, Decimal(4)) == {"B"}
    later = items(A=("5", "1"), B=("5", "1"), C=("5", "1"))
    assert give_up(later, Decimal(4)) == {"C"}
    assert give_up(later, Decimal(10)) == {"B", "C"}


def test_nothing_is_given_up_for_nothing_and_all_where_all_is_not_enough() -> None:
    both = items(A=("5", "1"), B=("5", "1"))
    for excess in ("0", "-3"):
        assert give_up(both, Decimal(excess)) == set()
    for excess in ("10", "11"):
        assert give_up(both, Decimal(excess)) == {"A", "B"}
    assert give_up(both, Decimal("0.01")) == {"B"}
