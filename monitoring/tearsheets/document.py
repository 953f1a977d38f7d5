"""What a tear sheet is made from: one neutral document, whoever traded.

    session: `session_curve` reads it from the stored rows       backtest: hands it in as JSON

Columns, not rows, so that a year of hours fits a request. Money is given as decimal strings or JSON
numbers; times are ISO 8601 with an offset. Everything is bounded here, once, for all doors.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from module.model.canonical import parse_instant
from module.model.errors import InvariantViolated
from monitoring.indicators import DAYS_PER_YEAR

VERSION: Final = 1
POINTS_MAX: Final = 20_000
SYMBOLS_MAX: Final = 200
CELLS_MAX: Final = 400_000
TRANSACTIONS_MAX: Final = 50_000
TRADES_MAX: Final = 50_000
NOTES_MAX: Final = 12
YEAR_MIN: Final = 1900
YEAR_MAX: Final = 2200
"""What draws counts nanoseconds in 64 bits: 1677 to 2262."""
AMOUNT_MAX: Final = Decimal("1e15")


def _instant(value: object) -> datetime:
    when = _read_instant(value)
    if not YEAR_MIN <= when.year <= YEAR_MAX:
        raise ValueError(f"must be of the years {YEAR_MIN} to {YEAR_MAX}")
    return when


def _read_instant(value: object) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value
    if not isinstance(value, str) or len(value) > 40:
        raise ValueError("must be an ISO 8601 time with an offset, e.g. 2026-11-21T10:30:00Z")
    try:
        return parse_instant(value)
    except (ValueError, OverflowError, InvariantViolated):
        raise ValueError(
            "must be an ISO 8601 time with an offset, e.g. 2026-11-21T10:30:00Z"
        ) from None


Instant = Annotated[datetime, BeforeValidator(_instant)]
Money = Annotated[Decimal, Field(allow_inf_nan=False, ge=-AMOUNT_MAX, le=AMOUNT_MAX)]
AboveZero = Annotated[Decimal, Field(allow_inf_nan=False, gt=0, le=AMOUNT_MAX)]
Ratio = Annotated[float, Field(allow_inf_nan=False, ge=-1e9, le=1e9)]
Symbol = Annotated[str, Field(pattern=r"^[A-Z0-9][A-Z0-9/:._-]{0,31}$")]
Line = Annotated[str, Field(min_length=1, max_length=200)]


class Columns(BaseModel):
    """Lists of equal length."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _equally_long(self) -> Self:
        lengths = {name: len(value) for name, value in self if isinstance(value, list)}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} has {length}" for name, length in sorted(lengths.items()))
            raise ValueError(f"all columns must be equally long: {told}")
        return self


class Curve(Columns):
    """Portfolio value over time, oldest first.

    `pv` and the exposures are in the quote asset at that moment; `net_transfers`, `fees` (negative
    when paid) and `funding` are running totals since the start. `cumulative_return` is the
    time-weighted return since the start where it has been measured; elsewhere it is computed from
    `pv` and `net_transfers`.
    """

    at: list[Instant] = Field(min_length=1, max_length=POINTS_MAX)
    pv: list[Money]
    net_transfers: list[Money] | None = None
    cumulative_return: list[Ratio | None] | None = None
    gross_position_value: list[Money] | None = None
    position_value: list[Money] | None = None
    fees: list[Money] | None = None
    funding: list[Money] | None = None

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for earlier, later in pairwise(self.at):
            if later <= earlier:
                raise ValueError("at: times must rise strictly, oldest first")
        return self


class Positions(BaseModel):
    """Signed value of each symbol at mark (negative: short) at times of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: list[Instant] = Field(max_length=POINTS_MAX)
    value: dict[Symbol, list[Money]] = Field(max_length=SYMBOLS_MAX)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.at) * len(self.value) > CELLS_MAX:
            raise ValueError(f"at most {CELLS_MAX} numbers (times x symbols)")
        for symbol, values in self.value.items():
            if len(values) != len(self.at):
                raise ValueError(f"{symbol} has {len(values)} values for {len(self.at)} times")
        for earlier, later in pairwise(self.at):
            if later <= earlier:
                raise ValueError("at: times must rise strictly, oldest first")
        return self


class Transactions(Columns):
    """Fills. `size` in the base asset, `fee` in the quote asset (negative when paid);
    `decision_price` is what the price was when the order was decided, where somebody knows."""

    at: list[Instant] = Field(max_length=TRANSACTIONS_MAX)
    symbol: list[Symbol]
    side: list[Literal["buy", "sell"]]
    size: list[AboveZero]
    price: list[AboveZero]
    fee: list[Money] | None = None
    decision_price: list[AboveZero | None] | None = None


class Trades(Columns):
    """Positions that are over; `net_profit` after fees and funding, in the quote asset."""

    closed_at: list[Instant] = Field(max_length=TRADES_MAX)
    symbol: list[Symbol]
    net_profit: list[Money]


class Measured(BaseModel):
    """What was measured more finely than the curve shows; ratios are fractions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_drawdown: Annotated[float, Field(ge=-1e3, le=0, allow_inf_nan=False)] | None = None
    unprotected_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    gap_minutes: int | None = Field(None, ge=0)


class CurveDocument(BaseModel):
    """Version 1 of the document. `initial_balance`: the curve begins there, at `started_at`.

    `days_per_year` annualises its ratios; where it is not given, the installation's setting does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    title: str = Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]+$")
    subtitle: str = Field("", max_length=160, pattern=r"^[^\x00-\x1f\x7f]*$")
    quote_asset: str = Field("USDT", pattern=r"^[A-Z0-9]{2,12}$")
    initial_balance: AboveZero | None = None
    started_at: Instant | None = None
    days_per_year: int = Field(DAYS_PER_YEAR, ge=1, le=366)
    curve: Curve
    positions: Positions | None = None
    transactions: Transactions | None = None
    trades: Trades | None = None
    measured: Measured = Measured()
    notes: list[Line] = Field(default_factory=list, max_length=NOTES_MAX)

    @model_validator(mode="after")
    def _begins_before(self) -> Self:
        if self.started_at is not None and self.started_at > self.curve.at[0]:
            raise ValueError("started_at must not be after the curve's first time")
        return self
