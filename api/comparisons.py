"""Several sessions, or several periods of one, side by side: time-weighted curves from 100, and a
table of metrics of exactly the asked range.

    stored minutes (or days) of a period ─► IndicatorState, from the period's start on ─► metrics
                                         └► index points, one per bucket ─► aligned rows

A period is measured from its start to its end, both included: it begins with what the account was
worth at its start (the last row at or before it; else the session's initial balance; else its first
row). The numbers come from the functions that the finwatcher measures with, so that a period which
is the whole session has the session's own indicators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from module.db.repositories.results_periods import ResultsPeriods
from module.db.repositories.results_series import (
    Resolution,
    ResultsSeries,
    SeriesQuery,
    SeriesRow,
    Subject,
)
from module.model.errors import InvalidInput
from module.model.money import ONE, ZERO, decimal_from_float
from module.model.results import IndicatorRow, WatchedSession
from monitoring.indicators import DAYS_PER_YEAR, IndicatorState, advance_or_begin

COMPARED_MAX: Final = 12
MINUTES_MAX: Final = 200_000
POINTS_WANTED: Final = 500
POINTS_MAX: Final = 2_000
PAGE_ROWS: Final = 5_000
INDEX_START: Final = 100.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE: Final = timedelta(minutes=1)
_INDEX_COLUMNS: Final = ("cumulative_return",)
_MONEY_COLUMNS: Final = ("current_pv", "net_transfers", "fees", "funding", "realized_pnl")
_OF_MINUTES: Final = frozenset(
    field.name for field in fields(IndicatorRow) if field.name.endswith("_1min")
) | {"drawdown", "max_drawdown"}
_INDICATORS: Final = tuple(
    field.name for field in fields(IndicatorRow) if field.name not in ("flags", "returns_1min")
)
METRIC_COLUMNS: Final = (
    *("start_pv", "end_pv", "profit", "net_transfers", "fees", "funding", "realized_pnl"),
    *("minutes", "gaps", *_INDICATORS),
)


class Align(StrEnum):
    """What the curves have in common: the time since each one's start, or the calendar."""

    START = "start"
    CALENDAR = "calendar"


class Basis(StrEnum):
    """What a curve is measured from: every minute, or the last one of each UTC day."""

    MINUTE = "1min"
    DAY = "1day"


@dataclass(frozen=True, slots=True)
class Period:
    """One curve that is asked for: a session from `start` to `end`; `key` names it."""

    key: str
    session: WatchedSession
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve as it was measured. `points`: index (100 at the start) by bucket; `metrics` by the
    names of METRIC_COLUMNS, None where one does not exist (or needs minutes: basis 1day)."""

    period: Period
    begin: datetime
    first_minute: datetime | None
    last_minute: datetime | None
    metrics: Mapping[str, object]
    points: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Point:
    """One moment of a curve: PV, and sums since the session's start.

    `value` and `moved` are what the curve is made of: PV and net transfers where every minute is
    measured, the time-weighted index and nothing where days are (a transfer within the day is in
    the index already).
    """

    minute: datetime
    pv: Decimal
    transfers: Decimal
    fees: Decimal
    funding: Decimal
    realized_pnl: Decimal
    value: Decimal
    moved: Decimal


@dataclass(frozen=True, slots=True)
class Sources:
    """What a curve is read with; `days_per_year` annualises it."""

    series: ResultsSeries
    periods: ResultsPeriods
    days_per_year: int = DAYS_PER_YEAR


def choose_basis(periods: Sequence[Period], asked: Basis | None) -> Basis:
    """As asked; by itself every minute where that is at most MINUTES_MAX of them.

    InvalidInput when more minutes were asked for than one comparison may read.
    """
    minutes = sum(max(0, (each.end - each.start) // _MINUTE) for each in periods)
    if asked is Basis.MINUTE and minutes > MINUTES_MAX:
        raise InvalidInput(
            f"{minutes} minutes are more than the {MINUTES_MAX} that one comparison measures; "
            "ask for basis=1day, shorter periods or fewer"
        )
    if asked is not None:
        return asked
    return Basis.MINUTE if minutes <= MINUTES_MAX else Basis.DAY


def choose_resolution(
    periods: Sequence[Period], basis: Basis, asked: Resolution | None
) -> Resolution:
    """As asked; by itself the finest with at most POINTS_WANTED points on the longest curve.

    InvalidInput when the points would be too many, or finer than what is measured.
    """
    longest = max((each.end - each.start for each in periods), default=_MINUTE)
    if basis is Basis.DAY:
        if asked not in (None, Resolution.DAY):
            raise InvalidInput("with basis=1day there is one point a day: ask for resolution=1d")
        return Resolution.DAY
    if asked is None:
        fitting = (each for each in Resolution if longest / each.length <= POINTS_WANTED)
        return next(fitting, Resolution.DAY)
    if longest / asked.length > POINTS_MAX:
        raise InvalidInput(f"more than {POINTS_MAX} points a curve; ask for a coarser resolution")
    return asked


def measure(
    sources: Sources, period: Period, basis: Basis, resolution: Resolution, align: Align
) -> Curve:
    """Read the period's rows once, page by page, and measure them."""
    begin = max(period.start, period.session.started_at)
    base = _base(sources.series, period.session, begin, basis)
    state = None if base is None else IndicatorState.begin(base.minute, base.value)
    points: dict[int, float] = {}
    if base is not None:
        points[_bucket(max(begin, base.minute), begin, resolution, align)] = INDEX_START
    first = last = None
    pv_total, count = ZERO, 0
    for point in _rows(sources.series, period, begin, basis):
        base = base or point
        first, last = first or point, point
        pv_total, count = pv_total + point.pv, count + 1
        moved = point.moved - base.moved
        state = advance_or_begin(state, point.minute, point.value, moved, None)
        bucket = _bucket(point.minute, begin, resolution, align)
        points[bucket] = INDEX_START * state.minutes.value
    metrics: dict[str, object] = dict.fromkeys(METRIC_COLUMNS)
    gaps = sources.series.gap_counts(period.session, _after(begin), _after(period.end))
    metrics.update(minutes=count if basis is Basis.MINUTE else None, gaps=sum(gaps.values()))
    if base is not None and last is not None and state is not None:
        sums = sources.periods.trades(period.session, begin, period.end)
        metrics.update(_indicators(state.read(sums, sources.days_per_year), basis))
        metrics.update(_money(base, last))
        if pv_total > 0:
            metrics["turnover"] = float(sums.traded_notional * count / pv_total)
    return Curve(
        period=period,
        begin=begin,
        first_minute=None if first is None else first.minute,
        last_minute=None if last is None else last.minute,
        metrics=metrics,
        points=points,
    )


def aligned(
    curves: Sequence[Curve], resolution: Resolution, align: Align
) -> list[tuple[datetime | int, list[float | None]]]:
    """One row per bucket that any curve has a point in: elapsed seconds (or the bucket's end), and
    each curve's index, None where it has no point there."""
    buckets = sorted({bucket for curve in curves for bucket in curve.points})
    seconds = int(resolution.length.total_seconds())
    return [
        (
            bucket * seconds if align is Align.START else _EPOCH + bucket * resolution.length,
            [curve.points.get(bucket) for curve in curves],
        )
        for bucket in buckets
    ]


# --- reading --------------------------------------------------------------------------------------


def _base(
    series: ResultsSeries, session: WatchedSession, begin: datetime, basis: Basis
) -> Point | None:
    """What a period begins with."""
    if begin <= session.started_at and session.initial_balance is not None:
        pv = session.initial_balance
        value = pv if basis is Basis.MINUTE else ONE
        return Point(session.started_at, pv, ZERO, ZERO, ZERO, ZERO, value, ZERO)
    before = SeriesQuery(
        subject=Subject.PORTFOLIO,
        columns=_MONEY_COLUMNS,
        start=_EPOCH,
        end=_after(begin),
        rows_max=1,
        newest_first=True,
    )
    rows = series.series(session, before).rows
    if not rows:
        return None
    if basis is Basis.MINUTE:
        return _point(rows[0])
    query = replace(before, subject=Subject.INDICATORS, columns=_INDEX_COLUMNS)
    found = series.series(session, query).rows
    return _day_point(rows[0], found[0][1]) if found else None


def _rows(series: ResultsSeries, period: Period, begin: datetime, basis: Basis) -> Iterator[Point]:
    """The period's rows behind its begin, oldest first."""
    query = SeriesQuery(
        subject=Subject.PORTFOLIO,
        columns=_MONEY_COLUMNS,
        start=_after(begin),
        end=_after(period.end),
        resolution=Resolution.MINUTE if basis is Basis.MINUTE else Resolution.DAY,
        rows_max=PAGE_ROWS,
    )
    if query.end <= query.start:
        return
    if basis is Basis.MINUTE:
        yield from map(_point, _pages(series, period.session, query))
        return
    about_index = replace(query, subject=Subject.INDICATORS, columns=_INDEX_COLUMNS)
    index = {row[0]: row[1] for row in _pages(series, period.session, about_index)}
    for row in _pages(series, period.session, query):
        point = _day_point(row, index.get(row[0]))
        if point is not None:
            yield point


def _pages(
    series: ResultsSeries, session: WatchedSession, query: SeriesQuery
) -> Iterator[SeriesRow]:
    while True:
        page = series.series(session, query)
        yield from page.rows
        if page.next_after is None:
            return
        query = replace(query, after=page.next_after)


def _point(row: SeriesRow) -> Point:
    minute, pv, transfers, fees, funding, realized_pnl = row
    return Point(minute, pv, transfers, fees, funding, realized_pnl, pv, transfers)


def _day_point(row: SeriesRow, cumulative_return: float | None) -> Point | None:
    """None where the index does not exist."""
    if cumulative_return is None:
        return None
    minute, pv, transfers, fees, funding, realized_pnl = row
    value = decimal_from_float(1.0 + cumulative_return)
    return Point(minute, pv, transfers, fees, funding, realized_pnl, value, ZERO)


def _after(when: datetime) -> datetime:
    """The first minute behind `when`."""
    return _EPOCH + ((when - _EPOCH) // _MINUTE + 1) * _MINUTE


def _bucket(minute: datetime, begin: datetime, resolution: Resolution, align: Align) -> int:
    """The bucket (begin, begin + length] that a minute lies in, by the number of its end."""
    origin = begin if align is Align.START else _EPOCH
    return -((origin - minute) // resolution.length)


# --- spelling -------------------------------------------------------------------------------------


def _indicators(row: IndicatorRow, basis: Basis) -> dict[str, object]:
    values = asdict(row)
    unknown = _OF_MINUTES if basis is Basis.DAY else frozenset()
    return {name: None if name in unknown else values[name] for name in _INDICATORS}


def _money(base: Point, last: Point) -> dict[str, object]:
    """What changed between the two."""
    transfers = last.transfers - base.transfers
    return {
        "start_pv": base.pv,
        "end_pv": last.pv,
        "profit": last.pv - base.pv - transfers,
        "net_transfers": transfers,
        "fees": last.fees - base.fees,
        "funding": last.funding - base.funding,
        "realized_pnl": last.realized_pnl - base.realized_pnl,
    }
