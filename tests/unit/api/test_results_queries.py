"""How questions to the results are read: forms, columns, cursors, places."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.places import Places
from api.problems import InvalidFields
from api.results_queries import (
    Form,
    accepted_form,
    key_instant,
    read_columns,
    read_cursor,
    read_instant,
    spell_cursor,
)
from module.model.errors import InvalidInput, RateLimited

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
QUESTION = "0123456789abcdef"
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Form.JSON),
        ("*/*", Form.JSON),
        ("text/csv", Form.CSV),
        ("text/csv; charset=utf-8", Form.CSV),
        ("application/json, text/csv", Form.JSON),
        ("application/json;q=0.5, text/csv;q=0.9", Form.CSV),
        ("text/csv;q=0", Form.JSON),
        ("text/csv;q=nonsense", Form.JSON),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Form.JSON),
    ],
)
def test_the_accept_header_decides(accept: str, form: Form) -> None:
    assert accepted_form(accept) is form


def test_columns_keep_the_order_they_were_asked_in() -> None:
    known = ("current_pv", "netprofit", "roe")
    assert read_columns(None, known) == known
    assert read_columns("roe, current_pv,roe", known) == ("roe", "current_pv")


@pytest.mark.parametrize("text", ["", " , ", "profit", "roe,profit", "roe;drop table"])
def test_an_unknown_column_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(InvalidFields, match="known are current_pv, roe"):
        read_columns(text, ("current_pv", "roe"))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    age_us=st.integers(0, 10**15),
    key=st.lists(st.one_of(TEXTS, st.integers(0, 2**63 - 1)), min_size=1),
)
def test_a_cursor_comes_back_as_it_went(age_us: int, key: list[str | int]) -> None:
    since = NOON - timedelta(microseconds=age_us)
    until = NOON + timedelta(microseconds=7)
    text = spell_cursor(QUESTION, since, until, key)
    assert read_cursor(text, QUESTION) == (since, until, tuple(key))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(max_size=80))
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        read_cursor(text, QUESTION)


def test_a_cursor_of_another_question_or_of_another_shape_is_refused() -> None:
    good = spell_cursor(QUESTION, NOON, NOON, ("x",))
    with pytest.raises(InvalidInput, match="another question"):
        read_cursor(good, "f" * 16)
    for document in (
        [QUESTION, "yesterday", NOON.isoformat(), "x"],
        [QUESTION, NOON.isoformat(), NOON.isoformat()],
        [QUESTION, NOON.isoformat(), NOON.isoformat(), {"a": 1}],
        [QUESTION, 7, NOON.isoformat(), "x"],
        [QUESTION, NOON.isoformat(), NOON.isoformat(), "a\0b"],
        [QUESTION, NOON.isoformat(), NOON.isoformat(), "\ud800"],
        {"question": QUESTION},
        7,
    ):
        forged = base64.urlsafe_b64encode(json.dumps(document).encode()).decode()
        with pytest.raises(InvalidInput):
            read_cursor(forged, QUESTION)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_times_at_the_calendars_ends_leave_room_for_arithmetic(text: str) -> None:
    end = datetime.fromisoformat(text)
    for when in (read_instant("start", text), key_instant(text)):
        assert abs(when - end) > timedelta(days=365)
    forged = spell_cursor(QUESTION, end, end, ("x",))
    assert read_cursor(forged, QUESTION)[:2] == (when, when)


def test_places_are_bounded_for_one_and_for_all() -> None:
    places = Places("long questions", each_max=2, all_max=3)
    places.take("ann")
    places.take("ann")
    with pytest.raises(RateLimited, match="2 long questions of yours are under way"):
        places.take("ann")
    with places.one("ben"), pytest.raises(RateLimited) as refused:
        places.take("eve")
    assert refused.value.retry_after_s
    assert places.taken == 2
    with places.one("eve"):
        pass
    places.give_back("ann")
    places.give_back("ann")
    assert places.taken == 0
