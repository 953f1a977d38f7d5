"""What a scripted call of `FakeExchange` does instead of going well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from module.model.errors import AifapError
from module.model.market import Instrument
from module.model.orders import SubmitResult


@dataclass(frozen=True, slots=True)
class Fails:
    """The call raises `error` and nothing happens."""

    error: AifapError


@dataclass(frozen=True, slots=True)
class Late:
    """The call takes `seconds` of world time first."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Lost:
    """It happens (for a batch: the first `accepted` orders, None: all), then the answer is lost."""

    accepted: int | None = None


@dataclass(frozen=True, slots=True)
class Refuses:
    """A batch in which the orders of these symbols are refused with a code; those of `rules`
    because the trading rules have become these."""

    codes: Mapping[str, str]
    rules: Mapping[str, Instrument] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Edits:
    """A batch whose list of results is edited before it is answered."""

    edit: Callable[[list[SubmitResult]], list[SubmitResult]]


@dataclass(frozen=True, slots=True)
class FillsPart:
    """A batch in which an order of `symbol` fills only `filled`; the rest is dropped (or rests)."""

    symbol: str
    filled: Decimal
    rests: bool = False


@dataclass(frozen=True, slots=True)
class ShowsCanceled:
    """A look at an order that shows it as cancelled, with nothing filled."""


Happening = Fails | Late | Lost | Refuses | Edits | FillsPart | ShowsCanceled
