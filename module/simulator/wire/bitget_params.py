"""The words of a request: typed, forgiving about case, strict about values.

Query strings and JSON bodies look the same to an endpoint. What is missing or wrong is answered
with the real exchange's codes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TypeVar

from module.simulator.wire.bitget_codes import WireError

E = TypeVar("E", bound=StrEnum)
PRODUCT_TYPES = ("USDT-FUTURES", "USDC-FUTURES", "COIN-FUTURES")
OLD_DEMO_PRODUCT_TYPES = ("SUSDT-FUTURES", "SUSDC-FUTURES", "SCOIN-FUTURES")
_DIGITS_MAX = 40
_PLAIN_NUMBER = re.compile(r"[-+.0-9eE]+")
"""Python reads more as a number: other scripts' digits, underscores, blanks around it."""
_EXPONENT_MAX = 11
"""Amounts stay below 10^12, so that products of two still fit exact decimals."""


BODY_DEPTH_MAX = 8
"""Objects and lists within each other; the deepest body of the protocol has three."""


def missing(name: str) -> WireError:
    """The answer when a needed parameter is absent or empty."""
    return WireError("40019", f"Parameter {name} cannot be empty")


def wrong(name: str, value: object) -> WireError:
    """The answer when a parameter has a value that it cannot have."""
    return WireError("400172", f"Parameter verification failed {name}: {str(value)[:50]}")


def read_body(body: bytes) -> Params:
    """The words of a JSON body; 40020 unless it is one object of text, numbers and lists.

    What passes can be journaled and echoed: whole characters, finite numbers, shallow nesting.
    """
    try:
        loaded = json.loads(body.decode(), parse_float=_exact, parse_constant=_not_a_number)
        _check_depth(loaded, BODY_DEPTH_MAX)
        if b"\\u" in body:  # half a surrogate pair can be spelled, and written nowhere
            json.dumps(loaded, default=str, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise WireError("40020", "Parameter body error: not valid JSON") from error
    if not isinstance(loaded, dict):
        raise WireError("40020", "Parameter body error: not a JSON object")
    return Params(loaded)


def _exact(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise ValueError(f"{text[:50]} is beyond every number") from error


def _not_a_number(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


def _check_depth(value: object, left: int) -> None:
    if left < 0:
        raise ValueError("nested too deeply")
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            if isinstance(inner, (dict, list)):
                _check_depth(inner, left - 1)


@dataclass(frozen=True, slots=True)
class Params:
    """The parameters of one request (or of one item of its list)."""

    values: Mapping[str, object]

    def text(self, name: str) -> str | None:
        """The value as text; None when it is absent, null or empty."""
        value = self.values.get(name)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
            raise wrong(name, value)
        return str(value)

    def needed(self, name: str) -> str:
        """The value as text; an error when there is none."""
        value = self.text(name)
        if value is None:
            raise missing(name)
        return value

    def symbol(self) -> str:
        """The needed symbol, in upper case."""
        return self.needed("symbol").upper()

    def coin(self, name: str = "coin") -> str | None:
        """A coin in upper case, or None."""
        value = self.text(name)
        return None if value is None else value.upper()

    def optional_symbol(self) -> str | None:
        """The symbol in upper case, or None."""
        value = self.text("symbol")
        return None if value is None else value.upper()

    def decimal(self, name: str) -> Decimal | None:
        """A finite number, or None when absent."""
        value = self.text(name)
        if value is None:
            return None
        try:
            number = Decimal(value)
        except InvalidOperation as error:
            raise wrong(name, value) from error
        if (
            not _PLAIN_NUMBER.fullmatch(value)
            or not number.is_finite()
            or len(value) > _DIGITS_MAX
            or number.adjusted() > _EXPONENT_MAX
            or number.adjusted() < -_DIGITS_MAX
        ):
            raise wrong(name, value)
        return number

    def positive(self, name: str) -> Decimal | None:
        """A number above zero, or None when absent; zero counts as absent, as `0` often means."""
        number = self.decimal(name)
        if number is None or number == 0:
            return None
        if number < 0:
            raise wrong(name, number)
        return number

    def needed_positive(self, name: str) -> Decimal:
        """A number above zero."""
        number = self.decimal(name)
        if number is None:
            raise missing(name)
        if number <= 0:
            raise wrong(name, number)
        return number

    def integer(self, name: str, default: int, *, most: int = 10**19) -> int:
        """A whole number of 0 or more; larger than `most` becomes `most`."""
        value = self.text(name)
        if value is None:
            return default
        if not value.isascii() or not value.isdigit() or len(value) > 19:
            raise wrong(name, value)
        return min(int(value), most)

    def optional_ms(self, name: str) -> int | None:
        """A time in milliseconds, or None."""
        return self.integer(name, 0) if self.text(name) is not None else None

    def choice(self, name: str, kind: type[E]) -> E | None:
        """A member of `kind`, in any case; None when absent."""
        value = self.text(name)
        if value is None:
            return None
        try:
            return kind(value.lower())
        except ValueError as error:
            raise wrong(name, value) from error

    def needed_choice(self, name: str, kind: type[E]) -> E:
        """A member of `kind`, in any case."""
        value = self.choice(name, kind)
        if value is None:
            raise missing(name)
        return value

    def yes(self, name: str) -> bool:
        """YES is True, NO and absent are False."""
        value = (self.text(name) or "no").lower()
        if value not in ("yes", "no"):
            raise wrong(name, value)
        return value == "yes"

    def items(self, name: str, *, most: int, code_too_many: str) -> list[Params] | None:
        """A list of objects, or None when absent; more than `most` is refused."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise wrong(name, value)
        if len(value) > most:
            raise WireError(code_too_many, f"{name} has more than {most} entries")
        if not all(isinstance(item, dict) for item in value):
            raise wrong(name, value)
        return [Params(item) for item in value]

    def product_type(self) -> str:
        """The needed product type, in upper case."""
        value = self.needed("productType").upper()
        if value not in PRODUCT_TYPES and value not in OLD_DEMO_PRODUCT_TYPES:
            raise wrong("productType", value)
        return value

    def with_defaults(self, defaults: Params, names: tuple[str, ...]) -> Params:
        """These parameters, with `names` taken from `defaults` where they are absent."""
        extra = {name: defaults.values[name] for name in names if name in defaults.values}
        return Params({**extra, **self.values})
