"""Marks and trading rules of the symbols that `FakeExchange` lists."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from module.model.market import Instrument, MarketType

MARKS = {
    "ADAUSDT": Decimal("0.4517"),
    "BTCUSDT": Decimal("60123.4"),
    "DOGEUSDT": Decimal("0.12345"),
    "ETHUSDT": Decimal("3001.25"),
    "LINKUSDT": Decimal("13.579"),
    "SOLUSDT": Decimal("151.37"),
    "XRPUSDT": Decimal("0.5123"),
}
STEPS = {  # price step, size step
    "ADAUSDT": ("0.0001", "1"),
    "BTCUSDT": ("0.1", "0.0001"),
    "DOGEUSDT": ("0.00001", "1"),
    "ETHUSDT": ("0.01", "0.01"),
    "LINKUSDT": ("0.001", "0.1"),
    "SOLUSDT": ("0.01", "0.1"),
    "XRPUSDT": ("0.0001", "1"),
}


def make_instrument(symbol: str, **changes: object) -> Instrument:
    """The rules of one symbol; `changes` override fields."""
    price_step, size_step = STEPS[symbol]
    rules = Instrument(
        symbol=symbol,
        base_asset=symbol.removesuffix("USDT"),
        quote_asset="USDT",
        market=MarketType.FUTURES,
        price_step=Decimal(price_step),
        size_step=Decimal(size_step),
        size_min=Decimal(size_step),
        notional_min=Decimal(5),
        market_size_max=Decimal(1_000_000),
        leverage_max=Decimal(125),
        taker_fee=Decimal("0.0006"),
        maker_fee=Decimal("0.0002"),
    )
    return replace(rules, **changes)  # type: ignore[arg-type]
