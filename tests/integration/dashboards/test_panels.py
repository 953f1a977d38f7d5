"""Every query of every board, on what sessions wrote, as the role that Grafana has.

The macros and variables are expanded as Grafana does it; each answer must be one that the panel can
draw, and must have rows wherever there is something to show.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.integration.dashboards.asked import Question, Reader, all_questions
from tests.integration.dashboards.frames import flaws
from tests.integration.dashboards.grafana_sql import Shown, Value, expand
from tests.integration.dashboards.lived_sessions import Lived

QUESTIONS = [one for one in all_questions() if one.is_sql]
# While the session `busy` still holds positions; and all of it, flat at the end.
HELD_MINUTES = 50
EARLIER = "30 minutes"
# What has nothing to show although everything else has: nothing is held at the end; every minute
# was measured, every cycle done, no stop taken away; coins are not liquidated.
EMPTY_WHEN_FLAT = {
    "Position Allocation",
    "Position Sizes (USDT)",
    "Weights against targets",
    "Nearest liquidation",
    "Exposure by symbol",
}
NOTHING_WENT_WRONG = {
    "Unprotected periods",
    "Missing minutes",
    "Missing minutes by cause",
    "Missing minutes by session",
    "Cycles that were not simply done",
}
EMPTY_ON_SPOT = NOTHING_WENT_WRONG | {
    "Nearest liquidation",
    "Distance to liquidation",
    "Writes that were not taken",
}
# Ratios of days need two of them; nothing of a row was missing; a skipped cycle took no time; in an
# hour nobody may have won.
EMPTY_WITHIN_A_DAY = {
    ("Cycles that were not simply done", "Own time"),
    ("Sharpe Ratio", "days"),
    ("Sessions", "Sharpe"),
    ("Sessions", "Flags"),
    ("Metrics", "Sharpe"),
    ("Metrics", "Sortino"),
    ("Metrics", "Volatility"),
    ("Metrics", "Average win"),
    ("Metrics", "Profit factor"),
    ("Newest minute of each session", "Flags"),
}
MINUTE_TABLE = re.compile(r"(_1min|_1min_1day)(_y\d{4}m\d\d|_default)?$")


def held(lived: Lived) -> Shown:
    return Shown(lived.start, lived.start + timedelta(minutes=HELD_MINUTES))


def whole(lived: Lived) -> Shown:
    return Shown(lived.start, lived.end)


def values_for(
    reader: Reader, question: Question, shown: Shown, session_id: str
) -> dict[str, Value]:
    """As Grafana fills the board; a period is compared with one that these short lives have."""
    values = reader.variables(question.board, shown, session=session_id)
    return values | {"earlier": EARLIER}


def answer_flaws(
    reader: Reader, question: Question, shown: Shown, values: dict[str, Value]
) -> tuple[list[str], int]:
    """What keeps the panel from drawing, and how many rows there are."""
    answer = reader.ask(question.source, question.text, shown, **values)
    return flaws(question.kind, question.shape, answer), len(answer.rows)


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_every_query_gives_rows_that_its_panel_can_draw(
    reader: Reader, lived: Lived, question: Question
) -> None:
    shown = held(lived)
    values = values_for(reader, question, shown, lived.sessions["busy"])
    found, rows = answer_flaws(reader, question, shown, values)
    assert found == []
    assert rows > 0


def empty_ones(reader: Reader, shown: Shown, session_id: str) -> set[str]:
    """The questions of all boards that have no rows; none may be of a wrong form."""
    empty = set()
    for question in QUESTIONS:
        values = values_for(reader, question, shown, session_id)
        found, rows = answer_flaws(reader, question, shown, values)
        assert found == [], question
        if not rows:
            empty.add(question.title)
    return empty


@pytest.mark.parametrize(
    ("life", "may_be_empty"),
    [("busy", EMPTY_WHEN_FLAT), ("living", NOTHING_WENT_WRONG), ("spot", EMPTY_ON_SPOT)],
)
def test_every_query_fits_every_kind_of_session(
    reader: Reader, lived: Lived, life: str, may_be_empty: set[str]
) -> None:
    """One that is over and flat, one that still runs, one of coins."""
    assert empty_ones(reader, whole(lived), lived.sessions[life]) <= may_be_empty


@pytest.mark.parametrize("points", [1000, 3])
def test_every_query_fits_every_width_of_a_point(reader: Reader, lived: Lived, points: int) -> None:
    """Up to days that stand for one point, where rows of days are read."""
    shown = Shown.across(lived.start - timedelta(days=30), lived.end, points)
    assert empty_ones(reader, shown, lived.sessions["busy"]) <= EMPTY_WHEN_FLAT


def test_every_column_has_values(reader: Reader, lived: Lived) -> None:
    """A column that is always empty is drawn, and says nothing."""
    shown, empty = held(lived), set()
    for question in QUESTIONS:
        values = reader.variables(question.board, shown) | {"earlier": EARLIER}
        if isinstance(values["session"], str):
            values["session"] = lived.sessions["busy"]
        answer = reader.ask(question.source, question.text, shown, **values)
        for name in answer.names:
            if all(value in (None, "") for value in answer.column(name)):
                empty.add((question.title, name))
    assert empty <= EMPTY_WITHIN_A_DAY


def test_no_query_finds_rows_of_another_time(reader: Reader, lived: Lived) -> None:
    """One that forgets the time range would still find the sessions."""
    here = whole(lived)
    year = timedelta(days=700)
    elsewhere = Shown(here.start - year, here.end - year)
    for question in QUESTIONS:
        values = values_for(reader, question, here, lived.sessions["busy"])
        answer = reader.ask(question.source, question.text, elsewhere, **values)
        if question.kind == "stat":
            assert [v for row in answer.rows for v in row if v] == [] or is_state(question)
        elif question.title not in ("$owner", "Sessions"):
            assert answer.rows == [], question


def is_state(question: Question) -> bool:
    """Sessions are counted as they are now, whatever time is looked at."""
    return question.title == "Sessions"


def test_a_query_shows_the_chosen_session_only(reader: Reader, lived: Lived) -> None:
    shown = whole(lived)
    for question in QUESTIONS:
        if question.kind == "variable":
            continue
        values = values_for(reader, question, shown, lived.sessions["spot"])
        answer = reader.ask(question.source, question.text, shown, **values)
        for name in ("Session", "metric"):
            if name in answer.names:
                others = {lived.sessions["busy"], lived.sessions["living"]}
                assert not others & set(answer.column(name)), question


@pytest.mark.parametrize(
    "value",
    [
        "' OR '1'='1",
        "'; DELETE FROM cycles; --",
        "') UNION SELECT name FROM user_details --",
        "\\' OR true --",
        "${owner} $1",
    ],
)
def test_S26_a_value_is_a_value_whatever_it_says(reader: Reader, lived: Lived, value: str) -> None:
    shown = whole(lived)
    for question in QUESTIONS:
        if question.title in ("$owner", "Commands", "Alerts"):
            continue  # what does not depend on the session
        several = not isinstance(reader.variables(question.board, shown).get("session", ""), str)
        values: dict[str, Value] = {
            "owner": [value] if several else value,
            "session": [value] if several else value,
            "earlier": EARLIER,
        }
        answer = reader.ask(question.source, question.text, shown, **values)
        if question.kind == "stat":
            assert [cell for row in answer.rows for cell in row if cell] == [], question
        else:
            assert answer.rows == [], question


def test_S26_a_macro_in_a_value_runs_nothing(reader: Reader, lived: Lived) -> None:
    """Grafana expands it inside of the quotes: nonsense at worst, refused by Postgres."""
    import psycopg2

    shown = whole(lived)
    value = "$__timeFrom() OR true OR $__timeFrom()"
    for question in QUESTIONS:
        if question.board != "trader" or question.kind == "variable":
            continue
        with pytest.raises(psycopg2.Error):
            reader.ask(question.source, question.text, shown, session=value, owner=value)


# --- plans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_no_query_reads_minutes_of_other_sessions(
    reader: Reader, lived: Lived, question: Question
) -> None:
    """Every table of minutes is entered by its key: session first."""
    for shown in (whole(lived), replace(whole(lived), interval="1d")):
        values = values_for(reader, question, shown, lived.sessions["busy"])
        sql = expand(question.text, shown, values)
        told = f"SET LOCAL enable_seqscan = off; EXPLAIN (FORMAT JSON) {sql}"
        plan = reader.run(question.source, told).rows[0][0]
        document = plan if isinstance(plan, list) else json.loads(plan)
        for node in scans_of(document[0]["Plan"]):
            assert "session_id" in node.get("Index Cond", ""), node


def scans_of(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes that read rows of minutes (a bitmap scan's condition is its child's)."""
    if MINUTE_TABLE.search(node.get("Relation Name", "")):
        inner = [node, *(each for each in node.get("Plans", ()) if "Bitmap" in each["Node Type"])]
        yield {**node, "Index Cond": "".join(each.get("Index Cond", "") for each in inner)}
    for child in node.get("Plans", ()):
        yield from scans_of(child)


def test_a_query_reads_the_months_of_its_range_alone(reader: Reader, lived: Lived) -> None:
    shown = whole(lived)
    for question in QUESTIONS:
        values = values_for(reader, question, shown, lived.sessions["busy"])
        sql = expand(question.text, shown, values)
        plan = json.dumps(reader.run(question.source, f"EXPLAIN (FORMAT JSON) {sql}").rows[0][0])
        months = set(re.findall(r"_y(\d{4}m\d\d)", plan))
        assert months <= {"2026m02", "2026m03"}, question
