"""Where money is born: the only functions that turn text, ints and floats into Decimal."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal, InvalidOperation

from module.model.errors import InvalidInput

ZERO = Decimal(0)
ONE = Decimal(1)
DIGITS_MAX = 400
"""So many places before or after the point: more than any float has. Spelled out, a number like
1e-999999999 would fill the memory."""


def parse_decimal(text: str | int | Decimal, *, name: str = "value") -> Decimal:
    """Return the exact finite Decimal that `text` spells; InvalidInput names `name` otherwise, or
    where it has more than DIGITS_MAX places."""
    kind = type(text)
    if kind is not str and (kind is bool or not isinstance(text, (str, int, Decimal))):
        raise InvalidInput(f"{name} must be a decimal string, got {type(text).__name__}")
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise InvalidInput(f"{name} is not a decimal number: {str(text)[:40]!r}") from error
    if not value.is_finite():
        raise InvalidInput(f"{name} must be finite, got {value}")
    if not -DIGITS_MAX <= value.adjusted() <= DIGITS_MAX:
        raise InvalidInput(f"{name} has more than {DIGITS_MAX} places: {str(text)[:40]!r}")
    return value


def decimal_from_float(number: float, *, name: str = "value") -> Decimal:
    """Return the shortest Decimal that reads back as `number` (through repr); finite only.

    0.1 becomes Decimal("0.1"), not 0.1000000000000000055511151231257827.
    """
    return parse_decimal(repr(float(number)), name=name)


def plain(value: Decimal) -> str:
    """Spell `value` without exponent and without trailing zeros: Decimal("1E+2") is "100"."""
    if not value:
        return "0"
    text = str(value)  # three times as quick as format
    if "E" in text:
        text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text


def round_down(value: Decimal, step: Decimal) -> Decimal:
    """Round `value` toward zero to a multiple of `step` (> 0): -0.0129 by 0.005 is -0.010."""
    return (value / step).to_integral_value(rounding=ROUND_DOWN) * step
