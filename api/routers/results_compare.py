"""Several sessions, or several periods of one, side by side (RqueryAPI): `/results/compare`."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from api.comparisons import (
    COMPARED_MAX,
    METRIC_COLUMNS,
    Align,
    Basis,
    Curve,
    Period,
    Sources,
    aligned,
    choose_basis,
    choose_resolution,
    measure,
)
from api.dependencies import own_session
from api.results_queries import Asked, AtList, Form, csv_answer, json_answer, read_instant
from api.session_views import watched_shape
from module.db.repositories.results_series import Resolution
from module.db.repositories.session_records import SessionRecord
from module.model.canonical import instant_text
from module.model.errors import InvalidInput

router = APIRouter(prefix="/results", tags=["results"])
CURVE_COLUMNS: Final = (
    *("key", "session_id", "strategy_name", "trade_env", "start", "end"),
    *("first_minute", "last_minute"),
)
LAST_ROW_WITHIN: Final = timedelta(minutes=2)
"""How long after a session's end its last minute is."""


class Table(StrEnum):
    """Which of its two tables a comparison is as CSV."""

    METRICS = "metrics"
    INDEX = "index"


@router.get("/compare")
def get_comparison(
    asked: AtList,
    session: Annotated[list[str], Query(max_length=COMPARED_MAX, description="Again for each.")],
    period: Annotated[
        list[str] | None,
        Query(max_length=COMPARED_MAX, description="START/END, again for each; else start, end."),
    ] = None,
    align: Align = Align.START,
    resolution: Resolution | None = None,
    basis: Basis | None = None,
    table: Table = Table.METRICS,
) -> Response:
    """Curves from 100 and metrics of exactly the asked periods, one of each session and period."""
    records = [own_session(asked.doors, asked.user, name) for name in dict.fromkeys(session)]
    periods = _periods(asked, records, _spans(asked, period))
    chosen = choose_basis(periods, basis)
    step = choose_resolution(periods, chosen, resolution)
    doors = asked.doors
    sources = Sources(doors.series, doors.periods, doors.settings.days_per_year)
    with asked.places.questions.one(asked.user.user_id):
        curves = [measure(sources, each, chosen, step, align) for each in periods]
    by_id = {record.session_id: record for record in records}
    heads = [_head(curve, by_id[curve.period.session.session_id]) for curve in curves]
    if asked.form is Form.CSV:
        return _csv(asked, table, align, step, curves, heads)
    name = "elapsed_s" if align is Align.START else "at"
    document = {
        "align": align,
        "basis": chosen,
        "resolution": step,
        "curves": [
            {**head, "metrics": curve.metrics} for head, curve in zip(heads, curves, strict=True)
        ],
        "rows": [{name: where, "index": values} for where, values in aligned(curves, step, align)],
    }
    return json_answer(asked.request, document)


def _spans(asked: Asked, period: list[str] | None) -> list[tuple[datetime, datetime]]:
    if not period:
        return [(asked.since, asked.until)]
    spans = []
    for text in period:
        start, slash, end = text.partition("/")
        if not slash:
            raise InvalidInput("a period is START/END, e.g. 2026-11-01T00:00Z/2026-12-01T00:00Z")
        since, until = read_instant("period", start), read_instant("period", end)
        if since >= until:
            raise InvalidInput(f"a period's start must be before its end: {text[:80]!r}")
        spans.append((since, until))
    return spans


def _periods(
    asked: Asked, records: list[SessionRecord], spans: list[tuple[datetime, datetime]]
) -> list[Period]:
    """Each session over each span, cut to what the session can have."""
    if len(records) * len(spans) > COMPARED_MAX:
        raise InvalidInput(
            f"{len(records)} sessions × {len(spans)} periods: at most {COMPARED_MAX} curves"
        )
    now = asked.doors.clock.now()
    found = []
    for record in records:
        over = now if record.ended_at is None else record.ended_at + LAST_ROW_WITHIN
        for number, (since, until) in enumerate(spans, start=1):
            key = record.session_id if len(spans) == 1 else f"{record.session_id}/{number}"
            start = max(since, record.spec.started_at)
            end = max(start, min(until, over))
            found.append(Period(key, watched_shape(record), start, end))
    return found


def _head(curve: Curve, record: SessionRecord) -> dict[str, object]:
    return {
        "key": curve.period.key,
        "session_id": record.session_id,
        "strategy_name": record.spec.strategy_name,
        "trade_env": record.spec.trade_env,
        "start": curve.period.start,
        "end": curve.period.end,
        "first_minute": curve.first_minute,
        "last_minute": curve.last_minute,
    }


def _csv(
    asked: Asked,
    table: Table,
    align: Align,
    step: Resolution,
    curves: list[Curve],
    heads: list[dict[str, object]],
) -> Response:
    title = f"comparison-{table}-{instant_text(asked.doors.clock.now())[:10]}"
    if table is Table.METRICS:
        columns = (*CURVE_COLUMNS, *METRIC_COLUMNS)
        rows = [
            [*(head[name] for name in CURVE_COLUMNS), *(c.metrics[m] for m in METRIC_COLUMNS)]
            for head, c in zip(heads, curves, strict=True)
        ]
        return csv_answer(asked, title, columns, iter([rows]))
    first = "elapsed_s" if align is Align.START else "at"
    columns = (first, *(curve.period.key for curve in curves))
    lines = [[where, *values] for where, values in aligned(curves, step, align)]
    return csv_answer(asked, title, columns, iter([lines]))
