"""A session's curve picked up where its stored indicator rows end.

    stored state, stored points after it ─► resume_curve ─► the running sums now
                                               └─► the indicator rows that those minutes lack

Minutes that were measured while the running sums could not be read (Postgres was away as a process
started, the spool was over its bound) have a portfolio row and no indicator row; the state that is
stored is older than all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from module.logs import get_logger
from module.model.canonical import parse_instant
from module.model.errors import InvariantViolated
from module.model.results import CurvePoint, MinuteRows, WatchedSession
from monitoring.indicators import DAYS_PER_YEAR, IndicatorState, advance_or_begin, replay
from monitoring.ports import ResultsStore

ROWS_PER_STEP_MAX = 1_440
"""A longer backlog is filled in over several steps; each leaves the state where it came to."""
_log = get_logger("monitoring.finwatcher")


def resume_curve(
    results: ResultsStore,
    session: WatchedSession,
    writer: str,
    say_refused: Callable[[MinuteRows, Mapping[str, str]], None],
    days_per_year: int = DAYS_PER_YEAR,
    rows_max: int = ROWS_PER_STEP_MAX,
) -> tuple[IndicatorState | None, bool]:
    """The curve as the stored rows leave it (None: an empty one), and whether that is all of it.

    Writes the indicator rows that are missing, with their own minutes, at most `rows_max` at once;
    a row that is there stays. Unavailable: some may have been written; it may be repeated.
    """
    document = results.indicator_state(session)
    state = None if document is None else IndicatorState.from_document(document)
    points = results.curve(session, None if state is None else state.minute)
    told = _minute_of(document)
    known = 0
    while known < len(points) and told is not None and points[known].minute <= told:
        known += 1  # the state is of another version: its rows are there
    state = replay(state, points[:known])
    missing = points[known : known + rows_max]
    if not missing:
        return state, True
    state, rows = _rows_of(results, session, writer, state, missing, days_per_year)
    is_all = known + len(missing) == len(points)
    document = None if is_all else state.to_document()
    batch = [(row, None) for row in rows[:-1]]
    outcomes = results.store_minutes([*batch, (rows[-1], document)])
    for row, outcome in zip(rows, outcomes, strict=True):
        say_refused(row, outcome.failed)
    _log.info("indicator rows filled in", rows=len(rows), all=is_all)
    return state, is_all


def _rows_of(
    results: ResultsStore,
    session: WatchedSession,
    writer: str,
    state: IndicatorState | None,
    points: Sequence[CurvePoint],
    days_per_year: int,
) -> tuple[IndicatorState, list[MinuteRows]]:
    """The state after `points` (at least one), and a row with the indicators alone for each."""
    sums_at = results.trade_sums_at(session, [point.minute for point in points])
    rows = []
    for point, sums in zip(points, sums_at, strict=True):
        state = advance_or_begin(
            state, point.minute, point.current_pv, point.net_transfers, point.initial_balance
        )
        rows.append(
            MinuteRows(
                session.session_id,
                session.owner_id,
                session.account_id,
                session.market,
                point.minute,
                writer,
                None,
                None,
                state.read(sums, days_per_year),
            )
        )
    if state is None:
        raise InvariantViolated("a curve goes on from at least one point")
    return state, rows


def _minute_of(document: Mapping[str, object] | None) -> datetime | None:
    """Up to which minute a stored state of any version has its rows; None: nobody knows."""
    try:
        return None if document is None else parse_instant(str(document["minute"]))
    except (KeyError, ValueError, InvariantViolated):
        return None
