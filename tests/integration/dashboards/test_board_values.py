"""What boards show of lived sessions is what those sessions wrote: numbers against numbers."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from module.db.database import Database
from module.db.repositories.results import ResultsRepository
from module.db.repositories.session_records import watched_session
from module.db.repositories.sessions import SessionRepository
from module.model.results import WatchedSession
from module.settings import Settings
from tests.integration.dashboards.asked import Reader, boards, questions_of
from tests.integration.dashboards.frames import Answer
from tests.integration.dashboards.grafana_sql import Shown
from tests.integration.dashboards.lived_sessions import Lived

# While `busy` still holds positions.
HELD = timedelta(minutes=50)


def held(lived: Lived) -> Shown:
    return Shown(lived.start, lived.start + HELD)


def seen(reader: Reader, board: str, title: str, lived: Lived, number: int = 0) -> Answer:
    """What the panel shows of all sessions, or of `busy` where there is one."""
    found = [one for one in questions_of(board, boards()[board]) if one.title == title]
    values = reader.variables(board, held(lived))
    if isinstance(values["session"], str):
        values["session"] = lived.sessions["busy"]
    values |= {"earlier": "30 minutes"} if "earlier" in values else {}
    return reader.ask(found[number].source, found[number].text, held(lived), **values)


class Stored:
    """The rows as the product reads them."""

    def __init__(self, settings: Settings) -> None:
        self._platform = Database(settings, "finplatform", 1)
        self._finwatcher = Database(settings, "finwatcher", 1)
        self.results = ResultsRepository(self._finwatcher)

    def watched(self, session_id: str) -> WatchedSession:
        return watched_session(SessionRepository(self._platform).get(session_id), None)

    def until(self, lived: Lived, name: str) -> tuple[list[Any], list[Any]]:
        """Portfolio and indicator rows of the shown time, oldest first."""
        session, shown = self.watched(lived.sessions[name]), held(lived)
        end = shown.end + timedelta(microseconds=1)
        return (
            [one.row for one in self.results.portfolio_series(session, shown.start, end, 10_000)],
            [one.row for one in self.results.indicator_series(session, shown.start, end, 10_000)],
        )

    def close(self) -> None:
        self._platform.close()
        self._finwatcher.close()


@pytest.fixture(scope="module")
def stored(postgres: Settings, lived: Lived) -> Any:
    assert lived
    found = Stored(postgres)
    yield found
    found.close()


def test_the_fleets_totals_are_the_sums_of_its_sessions(
    reader: Reader, lived: Lived, stored: Stored
) -> None:
    newest = [stored.until(lived, name)[0][-1] for name in lived.sessions]
    value = float(sum(row.current_pv for row in newest))
    assert seen(reader, "fleet", "Value", lived).rows == [(pytest.approx(value),)]
    profit = float(sum(row.netprofit for row in newest))
    assert seen(reader, "fleet", "Net profit", lived).rows == [(pytest.approx(profit),)]
    positions = sum(row.positions for row in newest)
    assert seen(reader, "fleet", "Positions", lived).rows == [(positions,)]
    together = seen(reader, "fleet", "Value together", lived)
    assert together.rows[-1][1:] == (pytest.approx(value), 3.0)
    counts = {row[2] for row in together.rows}
    assert counts == {2.0, 3.0}  # three minutes of one session are missing


def test_exposure_by_symbol_is_that_of_all_positions(
    reader: Reader, lived: Lived, stored: Stored
) -> None:
    newest = [stored.until(lived, name)[0][-1] for name in lived.sessions]
    total = float(sum(row.position_value for row in newest))
    found = seen(reader, "fleet", "Exposure by symbol", lived)
    assert sum(found.column("USDT")) == pytest.approx(total)


def test_every_session_starts_at_100_and_ends_with_its_return(
    reader: Reader, lived: Lived, stored: Stored
) -> None:
    lines = by_line(seen(reader, "comparison", "Started at 100", lived))
    returns: dict[str, float] = dict(
        seen(reader, "comparison", "Return of the period, then and now", lived).rows
    )
    assert len(lines) == 3
    for name, session_id in lived.sessions.items():
        rows = stored.until(lived, name)[1]
        first, last = rows[0].cumulative_return, rows[-1].cumulative_return
        points = [value for _, value in lines[session_id]]
        assert points[0] == pytest.approx(100)
        assert points[-1] == pytest.approx(100 * (1 + last) / (1 + first))
        assert returns[session_id] == pytest.approx((1 + last) / (1 + first) - 1)


def test_from_each_ones_start_all_begin_at_the_left_edge(reader: Reader, lived: Lived) -> None:
    lines = by_line(seen(reader, "comparison", "From each one's start", lived))
    assert {line[0] for line in lines.values()} == {(lived.start, 100.0)}


def test_an_earlier_period_is_drawn_at_the_later_time(reader: Reader, lived: Lived) -> None:
    title = "Started at 100, then and now"
    now = by_line(seen(reader, "comparison", title, lived))
    earlier = by_line(seen(reader, "comparison", title, lived, 1))
    for session_id in lived.sessions.values():
        then = earlier[f"{session_id} earlier"]
        at = [when for when, _ in now[session_id]]
        assert then[0][0] == at[0] + timedelta(minutes=30)
        assert then[0][1] == 100.0
        drawn = dict(now[session_id])
        shared = [(when, value) for when, value in then if when - timedelta(minutes=30) in drawn]
        assert len(shared) == len(then)
        for when, value in shared:
            assert value == pytest.approx(drawn[when - timedelta(minutes=30)])


def test_the_nearest_liquidation_is_the_nearest_of_the_table(reader: Reader, lived: Lived) -> None:
    found = seen(reader, "risk", "Weights against targets", lived)
    distances = [value for value in found.column("To liquidation") if value is not None]
    assert seen(reader, "risk", "Nearest liquidation", lived).rows == [(min(distances),)]
    marks = zip(found.column("Mark"), found.column("Liquidation"), strict=True)
    expected = [abs(mark - price) / mark for mark, price in marks if price is not None]
    assert distances == pytest.approx(expected)


def test_drift_is_weight_minus_target_and_small_after_a_cycle(reader: Reader, lived: Lived) -> None:
    found = seen(reader, "risk", "Weights against targets", lived)
    for weight, target, drift in zip(
        found.column("Weight"), found.column("Target"), found.column("Drift"), strict=True
    ):
        assert drift == pytest.approx(weight - (target or 0))
        assert abs(drift) < 0.02


def test_fills_say_what_the_decision_cost(reader: Reader, lived: Lived) -> None:
    found = seen(reader, "risk", "Fills", lived)
    told = 0
    for row in found.rows:
        fill = dict(zip(found.names, row, strict=True))
        if fill["Decided at"] is None:
            assert fill["Slippage"] is None
            continue
        worse = fill["Price"] - fill["Decided at"]
        worse = worse if fill["Side"] == "buy" else -worse
        assert fill["Slippage"] == pytest.approx(worse / fill["Decided at"] * 1e4, abs=1e-6)
        told += 1
    assert told > 10


def test_operations_count_what_happened(reader: Reader, lived: Lived) -> None:
    assert seen(reader, "operations", "Cycles", lived).rows[0][1] == 1  # one was skipped
    (skipped,) = seen(reader, "operations", "Cycles that were not simply done", lived).rows
    assert skipped[1] == lived.sessions["busy"]
    assert skipped[4]
    gaps = seen(reader, "operations", "Missing minutes by session", lived)
    assert gaps.column("Minutes") == [3]
    states = seen(reader, "operations", "Sessions", lived)
    assert dict(zip(states.names, states.rows[0], strict=True)) == {
        "Running": 1,
        "On the way": 0,
        "Ended": 2,
        "Failed": 0,
    }


def test_a_stop_that_was_taken_away_is_an_unprotected_period(reader: Reader, lived: Lived) -> None:
    found = seen(reader, "risk", "Unprotected periods", lived)
    assert found.rows
    assert set(found.column("Cause")) == {"removed"}
    assert all(lasted >= 0 for lasted in found.column("Lasted"))


def test_a_curve_has_a_point_for_each_minute_and_nulls_where_one_is_missing(
    reader: Reader, lived: Lived
) -> None:
    found = seen(reader, "trader", "Portfolio Value Over Time", lived)
    times = found.column("time")
    assert {after - before for before, after in pairwise(times)} == {timedelta(minutes=1)}
    assert found.column("Portfolio value").count(None) == 3


def by_line(answer: Answer) -> dict[str, list[tuple[datetime, float]]]:
    """Points of each line, in order."""
    lines: dict[str, list[tuple[datetime, float]]] = {}
    for at, name, value in answer.rows:
        lines.setdefault(name, []).append((at, value))
    return lines
