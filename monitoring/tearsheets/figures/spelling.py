"""How numbers are written for people, kind by kind. PURE."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final


def percent(value: float, digits: int = 2) -> str:
    """A fraction as percent: 0.0123 is `+1.23 %`."""
    shown = value * 100
    if 0 < abs(shown) < 0.01:
        digits = 4
    text = f"{shown:+,.{digits}f} %"
    return text.replace("-", "−") if float(f"{shown:.{digits}f}") else f"{0:.{digits}f} %"


def money(value: float, asset: str, *, signed: bool = True) -> str:
    """An amount with its asset."""
    sign = "+" if signed and value >= 0.005 else ""
    text = f"{sign}{value:,.2f} {asset}"
    return f"0.00 {asset}" if abs(value) < 0.005 else text.replace("-", "−")


def span(length: timedelta) -> str:
    """A length of time in its two largest units."""
    minutes = round(length.total_seconds() / 60)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h" if days < 30 else f"{days} days"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


QUOTE: Final = "quote asset"
KINDS: Final[dict[str, tuple[str, Callable[[float, str], str]]]] = {
    # kind: its unit, and the text of a value where money is of that asset
    "change": ("fraction", lambda value, _: percent(value)),
    "swing": ("fraction", lambda value, _: percent(value).removeprefix("+")),
    "share": ("fraction", lambda value, _: f"{value * 100:.1f} %"),
    "ratio": ("ratio", lambda value, _: f"{value:,.2f}".replace("-", "−")),
    "profit": (QUOTE, money),
    "amount": (QUOTE, lambda value, asset: money(value, asset, signed=False)),
    "count": ("count", lambda value, _: f"{value:,}"),
    "times": ("times", lambda value, _: f"{value:,.2f} ×"),
    "cost": ("1e-4", lambda value, _: f"{value:,.2f} bps"),
    "worse": ("1e-4", lambda value, _: f"{value:+,.2f} bps".replace("-", "−")),
    "seconds": ("s", lambda value, _: f"{value:,.0f} s"),
    "days": ("days", lambda value, _: span(timedelta(days=value)) if value else "never below"),
}
