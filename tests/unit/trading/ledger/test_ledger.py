"""Facts are counted once, and what follows from them is exact."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.model.accounts import Bill, BillKind
from module.model.errors import InvariantViolated
from module.model.orders import Fill, Side
from tests.unit.trading.rebalance.books import position
from trading.ledger.ledger import (
    Ledger,
    book_bills,
    book_fills,
    differences,
    filled_by_order,
    opened_with,
    overfilled,
)

AT = datetime(2026, 11, 20, 7, 15, tzinfo=UTC)
ZERO = Decimal(0)
SEEDS = st.integers(0, 2**40)
EXAMPLES = settings(max_examples=100, deadline=None, derandomize=True)


def fill(
    trade_id: int,
    side: Side,
    size: str | Decimal,
    price: str | Decimal,
    *,
    symbol: str = "ETHUSDT",
    fee: str = "0",
    fee_asset: str = "USDT",
    order_id: str = "77",
    second: int = 0,
) -> Fill:
    return Fill(
        trade_id=str(trade_id),
        order_id=order_id,
        symbol=symbol,
        side=side,
        price=Decimal(price),
        size=Decimal(size),
        quote_size=Decimal(size) * Decimal(price),
        fee=Decimal(fee),
        fee_asset=fee_asset,
        realized_pnl=ZERO,
        is_taker=True,
        at=AT + timedelta(seconds=second),
    )


def bill(number: int, kind: BillKind, amount: str, symbol: str = "", fee: str = "0") -> Bill:
    return Bill(
        str(number), kind, kind.value, symbol, "USDT", Decimal(amount), Decimal(fee), ZERO, AT
    )


def test_average_cost_and_realised_profit_of_a_long() -> None:
    ledger = book_fills(
        Ledger(wallet=Decimal(1000)),
        [
            fill(1, Side.BUY, "2", "100", fee="-0.12"),
            fill(2, Side.BUY, "1", "130", fee="-0.078", second=1),
            fill(3, Side.SELL, "1.5", "120", fee="-0.108", second=2),
        ],
    )
    held = ledger.holdings["ETHUSDT"]
    assert (held.size, held.entry_price) == (Decimal("1.5"), Decimal(110))
    assert held.realized_pnl == 15
    assert held.fees == Decimal("-0.306")
    assert ledger.wallet == 1000 + 15 - Decimal("0.306")
    assert ledger.unrealized_pnl({"ETHUSDT": Decimal(125)}) == Decimal("22.5")
    assert ledger.equity({"ETHUSDT": Decimal(125)}) == ledger.wallet + Decimal("22.5")


def test_a_flip_realises_what_was_held_and_opens_the_rest_at_its_price() -> None:
    ledger = book_fills(
        Ledger(), [fill(1, Side.SELL, "2", "100"), fill(2, Side.BUY, "3", "90", second=1)]
    )
    held = ledger.holdings["ETHUSDT"]
    assert (held.size, held.cost, held.realized_pnl) == (Decimal(1), Decimal(90), Decimal(20))


def test_a_closed_position_costs_nothing_and_has_no_entry() -> None:
    ledger = book_fills(
        Ledger(), [fill(1, Side.BUY, "3", "100"), fill(2, Side.SELL, "3", "101", second=1)]
    )
    held = ledger.holdings["ETHUSDT"]
    assert (held.size, held.cost, held.entry_price) == (ZERO, ZERO, None)
    assert held.realized_pnl == 3
    assert ledger.sizes == {}


def test_B3_the_same_fill_three_times_counts_once() -> None:
    once = fill(1, Side.BUY, "2", "100", fee="-0.12")
    ledger = book_fills(Ledger(), [once, once])
    assert ledger.sizes == {"ETHUSDT": Decimal(2)}
    assert book_fills(ledger, [once]) is ledger
    other = replace(once, trade_id="2")
    assert book_fills(ledger, [once, other]).sizes == {"ETHUSDT": Decimal(4)}


def test_B3_more_executed_than_ordered_is_found_whatever_the_trade_ids() -> None:
    fills = [fill(1, Side.BUY, "2", "100"), fill(1, Side.BUY, "2", "100")]
    assert filled_by_order(fills) == {"77": Decimal(2)}
    assert overfilled(fills, {"77": Decimal(2)}) == {}
    again = [*fills, fill(9, Side.BUY, "2", "100"), fill(3, Side.BUY, "5", "100", order_id="88")]
    assert overfilled(again, {"77": Decimal(2)}) == {"77": Decimal(2)}


def test_two_fills_of_one_trade_id_that_differ_are_refused() -> None:
    once = fill(1, Side.BUY, "2", "100")
    with pytest.raises(InvariantViolated, match="trade id 1"):
        book_fills(Ledger(), [once, replace(once, size=Decimal("2.1"))])


def test_one_trade_id_on_two_symbols_is_two_fills() -> None:
    fills = [fill(1, Side.BUY, "2", "100"), fill(1, Side.BUY, "3", "7", symbol="SOLUSDT")]
    assert book_fills(Ledger(), fills).sizes == {"ETHUSDT": Decimal(2), "SOLUSDT": Decimal(3)}


def test_a_fee_in_the_bought_coin_leaves_less_of_it() -> None:
    bought = fill(1, Side.BUY, "1", "100", fee="-0.001", fee_asset="ETH")
    ledger = book_fills(Ledger(wallet=Decimal(1000)), [bought])
    assert ledger.sizes == {"ETHUSDT": Decimal("0.999")}
    assert ledger.fees == Decimal("-0.1")
    assert ledger.cash == 900
    assert ledger.equity({"ETHUSDT": Decimal(100)}) == Decimal("999.9")
    sold = fill(2, Side.SELL, "0.999", "110", fee="-0.10989", second=1)
    assert book_fills(ledger, [sold]).cash == 900 + Decimal("109.89") - Decimal("0.10989")


def test_a_fee_in_a_third_coin_is_kept_apart() -> None:
    ledger = book_fills(Ledger(), [fill(1, Side.BUY, "1", "100", fee="-0.02", fee_asset="BGB")])
    assert (ledger.wallet, ledger.foreign_fees) == (ZERO, {"BGB": Decimal("-0.02")})


def test_bills_move_the_wallet_once_and_trades_are_left_to_their_fills() -> None:
    bills = [
        bill(1, BillKind.TRANSFER, "250"),
        bill(2, BillKind.FUNDING, "-0.37", "ETHUSDT"),
        bill(3, BillKind.TRADE, "11", "ETHUSDT", fee="-0.1"),
        bill(4, BillKind.LIQUIDATION, "-90", "ETHUSDT"),
        bill(5, BillKind.OTHER, "1.5"),
    ]
    ledger = book_bills(Ledger(wallet=Decimal(1000)), bills)
    assert (ledger.transfers, ledger.other) == (Decimal(250), Decimal("1.5"))
    assert ledger.funding == Decimal("-0.37")
    assert ledger.wallet == Decimal("1251.13")
    assert ledger.holdings["ETHUSDT"].funding == Decimal("-0.37")
    assert book_bills(ledger, [*bills, *bills]) is ledger


def test_a_fill_and_a_bill_of_one_id_are_two_facts() -> None:
    ledger = book_bills(Ledger(), [bill(1, BillKind.TRANSFER, "5")])
    assert book_fills(ledger, [fill(1, Side.BUY, "2", "100")]).sizes == {"ETHUSDT": Decimal(2)}


def test_what_is_held_is_compared_with_what_the_facts_say() -> None:
    start = opened_with([position("ETHUSDT", "1.5", Decimal(3000))], Decimal(9000))
    ledger = book_fills(start, [fill(1, Side.SELL, "0.5", "3100")])
    assert ledger.holdings["ETHUSDT"].realized_pnl == 50
    actual = {"ETHUSDT": Decimal("0.93"), "SOLUSDT": Decimal(-3)}
    assert differences(ledger, actual) == {"ETHUSDT": Decimal("-0.07"), "SOLUSDT": Decimal(-3)}
    assert differences(ledger, {"ETHUSDT": Decimal(1)}) == {}


def random_fills(seed: int) -> list[Fill]:
    draw = random.Random(seed)
    return [
        fill(
            number,
            draw.choice([Side.BUY, Side.SELL]),
            Decimal(draw.randint(1, 900)) / 100,
            Decimal(draw.randint(9000, 11000)) / 100,
            symbol=draw.choice(["ETHUSDT", "SOLUSDT", "XRPUSDT"]),
            fee=f"-0.{draw.randint(0, 999):03d}",
            second=draw.randint(0, 9),
        )
        for number in range(draw.randint(0, 40))
    ]


@EXAMPLES
@given(SEEDS)
def test_I7_sizes_and_money_are_those_of_the_facts(seed: int) -> None:
    fills = random_fills(seed)
    ledger = book_fills(Ledger(wallet=Decimal(10_000)), fills)
    marks = {symbol: Decimal("103.7") for symbol in ("ETHUSDT", "SOLUSDT", "XRPUSDT")}
    sizes = dict.fromkeys(marks, ZERO)
    paid = ZERO
    for each in fills:
        sizes[each.symbol] += each.side.sign * each.size
        paid += each.side.sign * each.quote_size - each.fee
    assert ledger.sizes == {symbol: size for symbol, size in sizes.items() if size}
    worth = sum((size * marks[symbol] for symbol, size in sizes.items()), ZERO)
    assert abs(ledger.equity(marks) - (10_000 - paid + worth)) < Decimal("1e-18")
    assert abs(ledger.cash - (10_000 - paid)) < Decimal("1e-18")


@EXAMPLES
@given(SEEDS)
def test_B4_the_order_in_which_fills_arrive_changes_nothing(seed: int) -> None:
    fills = random_fills(seed)
    shuffled = list(fills)
    random.Random(seed + 1).shuffle(shuffled)
    assert book_fills(Ledger(), shuffled + shuffled[:7]) == book_fills(Ledger(), fills)


@EXAMPLES
@given(SEEDS)
def test_booking_in_parts_with_repeats_is_booking_at_once(seed: int) -> None:
    fills = sorted(random_fills(seed), key=lambda each: (each.at, each.trade_id))
    draw = random.Random(seed + 1)
    ledger = Ledger()
    start = 0
    while start < len(fills):
        end = start + draw.randint(1, 6)
        ledger = book_fills(ledger, fills[max(0, start - draw.randint(0, 9)) : end])
        start = end
    whole = book_fills(Ledger(), fills)
    assert ledger.sizes == whole.sizes
    assert (ledger.fees, ledger.transfers) == (whole.fees, whole.transfers)
    # a part of a cost has as many digits as Decimal keeps
    assert abs(ledger.wallet - whole.wallet) < Decimal("1e-20")
    assert abs(ledger.cash - whole.cash) < Decimal("1e-20")
    assert len(ledger.seen) < 8, "generations are merged as they grow"
    assert frozenset().union(*ledger.seen) == frozenset().union(*whole.seen)
