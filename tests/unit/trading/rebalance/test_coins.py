"""Whose a coin is, and what it has cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from module.model.accounts import MarginMode, Position
from module.model.orders import NO_STOPS, Fill, Side
from trading.ledger.ledger import Ledger, book_fills
from trading.rebalance.coins import own_coins, taken_over

START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
ZERO = Decimal(0)


def fill(number: int, side: Side, size: str, price: str, symbol: str = "BTCUSDT") -> Fill:
    amount, paid = Decimal(size), Decimal(price)
    return Fill(
        trade_id=f"trade-{number}",
        order_id=f"order-{number}",
        symbol=symbol,
        side=side,
        price=paid,
        size=amount,
        quote_size=amount * paid,
        fee=-(amount if side is Side.BUY else amount * paid) / 1000,
        fee_asset=symbol.removesuffix("USDT") if side is Side.BUY else "USDT",
        realized_pnl=ZERO,
        is_taker=True,
        at=START + timedelta(minutes=number),
    )


def coin(symbol: str, size: str, mark: str = "64000", locked: str = "0") -> Position:
    price = Decimal(mark)
    return Position(
        symbol=symbol,
        size=Decimal(size),
        entry_price=price,
        mark_price=price,
        margin_size=Decimal(size) * price,
        unrealized_pnl=ZERO,
        realized_pnl=ZERO,
        fees=ZERO,
        funding=ZERO,
        leverage=Decimal(1),
        margin_mode=MarginMode.CROSSED,
        liquidation_price=None,
        stops=NO_STOPS,
        opened_at=datetime(1970, 1, 1, tzinfo=UTC),
        locked=Decimal(locked),
    )


def test_a_coin_has_cost_what_its_purchases_cost_on_average() -> None:
    ledger = book_fills(
        Ledger(),
        [
            fill(1, Side.BUY, "0.2", "60000"),
            fill(2, Side.BUY, "0.1", "63000"),
            fill(3, Side.SELL, "0.25", "70000"),
        ],
    )
    (bitcoin,) = own_coins([coin("BTCUSDT", "0.0497")], ledger, ())
    assert bitcoin.entry_price == pytest.approx(Decimal(61_000), rel=Decimal("1e-12"))
    assert bitcoin.size == Decimal("0.0497"), "the exchange says how much there is"


def test_what_is_known_from_before_goes_on_from_what_the_exchange_has() -> None:
    before = taken_over(Ledger(), [coin("BTCUSDT", "0.0999", "61000")])
    ledger = book_fills(before, [fill(9, Side.BUY, "0.1", "63000")])
    (bitcoin,) = own_coins([coin("BTCUSDT", "0.1998")], ledger, ())
    assert bitcoin.entry_price == Decimal(62_000)


def test_coins_that_were_neither_bought_nor_adopted_are_somebody_elses() -> None:
    ledger = book_fills(Ledger(), [fill(1, Side.BUY, "0.2", "60000")])
    positions = [coin("BTCUSDT", "0.1998"), coin("ETHUSDT", "3", "3000"), coin("XRPUSDT", "9", "1")]
    own = own_coins(positions, ledger, {"ETHUSDT"})
    assert [(each.symbol, each.entry_price) for each in own] == [
        ("BTCUSDT", Decimal(60_000)),
        ("ETHUSDT", Decimal(3_000)),
    ]


def test_what_was_sold_completely_is_not_owned_when_somebody_sends_it_again() -> None:
    ledger = book_fills(
        Ledger(), [fill(1, Side.BUY, "0.2", "60000"), fill(2, Side.SELL, "0.1998", "61000")]
    )
    assert taken_over(ledger, ()).holdings == {}
    assert own_coins([coin("BTCUSDT", "1")], taken_over(ledger, ()), ()) == ()


def test_a_sale_of_what_was_never_bought_makes_nothing_a_sessions_own() -> None:
    ledger = book_fills(Ledger(), [fill(1, Side.SELL, "1", "3000", "ETHUSDT")])
    assert own_coins([coin("ETHUSDT", "2", "3000")], taken_over(ledger, ()), ()) == ()


def test_an_adopted_coin_keeps_the_price_at_which_it_was_adopted() -> None:
    own = own_coins([coin("ETHUSDT", "2", "3000")], Ledger(), {"ETHUSDT"})
    ledger = taken_over(Ledger(), own)
    (later,) = own_coins([coin("ETHUSDT", "2", "2700")], ledger, ())
    assert (later.entry_price, later.mark_price) == (Decimal(3_000), Decimal(2_700))
