"""The live page's stream tells what changed, of one's own sessions, and nothing twice."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from api.answers import json_text
from api.live_views import LiveBoard, grafana_board
from module.db.repositories.users import Role
from module.model.errors import NotFound
from tests.fakes.platform import FakePlatform
from tests.integration.live_page.told import Told, tell


def told_by(platform: FakePlatform, role: Role = Role.TRADER) -> Told:
    name = f"board-{datetime.now(UTC).timestamp()}".replace(".", "-")
    user, _ = platform.person(name, role)
    return tell(platform, user)


def test_an_idle_second_costs_a_few_bytes(platform: FakePlatform) -> None:
    told = told_by(platform)
    told.minute(1, "10010.5")
    board = LiveBoard(None)
    first = board.changes(platform.doors, told.user)
    assert set(first) == {"now", "who", "order", "sessions", "selected", "alerts"}
    assert first["order"] == [told.session_id]
    idle = board.changes(platform.doors, told.user)
    assert set(idle) == {"now"}
    assert len(json_text(idle)) < 60


def test_only_what_changed_is_told(platform: FakePlatform) -> None:
    told = told_by(platform)
    other = tell(platform, told.user, label="other")
    board = LiveBoard(told.session_id)
    board.changes(platform.doors, told.user)
    other.minute(1, "9990.25")
    changed = board.changes(platform.doors, told.user)
    assert set(changed) == {"now", "sessions"}
    sessions = changed["sessions"]
    assert isinstance(sessions, dict)
    assert list(sessions) == [other.session_id]
    assert json_text(sessions[other.session_id]["newest"]["current_pv"]) == '"9990.25"'
    told.minute(1, "10001")
    assert set(board.changes(platform.doors, told.user)) == {"now", "sessions", "selected"}
    told.alert("something", "to know")
    assert set(board.changes(platform.doors, told.user)) == {"now", "alerts"}


def test_S10_nobody_is_told_of_a_session_of_somebody_else(platform: FakePlatform) -> None:
    told, stranger = told_by(platform), told_by(platform)
    seen = LiveBoard(None).changes(platform.doors, stranger.user)
    assert told.session_id not in json_text(seen)
    with pytest.raises(NotFound):
        LiveBoard(told.session_id).changes(platform.doors, stranger.user)


@pytest.mark.parametrize(("role", "all_of_them"), [(Role.MANAGER, False), (Role.SUPERVISOR, True)])
def test_what_a_person_may_do_is_told(
    platform: FakePlatform, role: Role, all_of_them: bool
) -> None:
    told = told_by(platform, role)
    who = LiveBoard(None).changes(platform.doors, told.user)["who"]
    assert isinstance(who, dict)
    assert who["may"] == {"start": True, "stop": True, "halt": True, "halt_all": all_of_them}


def test_the_board_of_grafana_stands_behind_its_address() -> None:
    assert (
        grafana_board("https://g.example/sub/")
        == "https://g.example/sub/d/aifap-trader/aifap-trader"
    )
    assert grafana_board("") is None
