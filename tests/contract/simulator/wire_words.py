"""Words that the wire tests share: paths, usual orders, a quiet moment."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from module.clock import WorldClock, to_epoch_ms
from tests.fakes.paper_exchange import (
    BTC,
    MIX,
    SPOT,
    USDT,
    RawBitget,
    SimulatorProcess,
    market_order,
)

ORDER = f"{MIX}/order"
ACCOUNT = f"{MIX}/account"
POSITION = f"{MIX}/position"
PLACE = f"{ORDER}/place-order"
DETAIL = f"{ORDER}/detail"
PENDING = f"{ORDER}/orders-pending"
PLANS = f"{ORDER}/orders-plan-pending"
STOPS = {**USDT, "planType": "profit_loss"}
TRADE = f"{SPOT}/trade"
POINT_MS = 5000
"""Prices change at these moments, so an order that is sent just after one meets a known price."""


def last_price(raw: RawBitget, symbol: str = "BTCUSDT") -> Decimal:
    """The last price of a contract."""
    (row,) = raw.get(f"{MIX}/market/symbol-price", symbol=symbol, **USDT)
    return Decimal(row["price"])


def priced(raw: RawBitget, share: str, step: str = "0.1") -> str:
    """A price at `share` of the last one, on the tick."""
    return str((last_price(raw) * Decimal(share)).quantize(Decimal(step)))


def limit_order(raw: RawBitget, share: str = "0.97", **more: object) -> dict[str, object]:
    """The words of a limit buy of 0.01 BTC at `share` of the last price."""
    words = {**market_order("buy", "0.01"), "orderType": "limit", "price": priced(raw, share)}
    return {**words, **more}


def opened(raw: RawBitget, clock: WorldClock, side: str = "buy", **more: object) -> Any:
    """A position of 0.01 BTC; the answer of its order."""
    answer = raw.post(PLACE, **market_order(side, "0.01", **more))
    clock.sleep(0.1)
    return answer


def detail_of(raw: RawBitget, order: Any) -> Any:
    """The order's detail."""
    return raw.get(DETAIL, orderId=order["orderId"], symbol="BTCUSDT", **USDT)


def positions(raw: RawBitget) -> Any:
    """All of them."""
    return raw.get(f"{POSITION}/all-position", **USDT)


def calm(clock: WorldClock) -> None:
    """Wait until a price has just come, so that none comes during the next seconds."""
    now_ms = to_epoch_ms(clock.now())
    clock.sleep((POINT_MS - now_ms % POINT_MS + 100) / 1000)


def client_of(simulator: SimulatorProcess, number: int) -> RawBitget:
    """A raw client of the account with that number."""
    return RawBitget(simulator.url, f"key-{number}", f"secret-{number}", f"pass-{number}")


def closed(raw: RawBitget, clock: WorldClock) -> None:
    """Close everything and wait for it."""
    clock.sleep(1)
    raw.post(f"{ORDER}/close-positions", **USDT)
    clock.sleep(0.1)


__all__ = [
    "ACCOUNT",
    "BTC",
    "DETAIL",
    "MIX",
    "ORDER",
    "PENDING",
    "PLACE",
    "PLANS",
    "POSITION",
    "SPOT",
    "STOPS",
    "TRADE",
    "USDT",
    "calm",
    "client_of",
    "closed",
    "detail_of",
    "last_price",
    "limit_order",
    "market_order",
    "opened",
    "positions",
    "priced",
]
