"""What `/metrics` tells of finwatchers is what they have left in their folders."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import Metric

from api.telemetry.finwatchers import WatchNotes, part_names
from module.files.session_folder import make_session_folder
from module.files.watch_note import WatchNote, leave_note
from module.model.market import MarketType
from module.model.results import GapCause, GapRow
from monitoring.spool import Spool

NOW = datetime(2026, 3, 3, 9, 20, tzinfo=UTC)
FIRST, SECOND, DEAD = "2603030917-ab3x", "2603030918-cd4y", "2603030919-ef5z"


def leave(data_dir: Path, session_id: str, note: WatchNote, *, spooled: bool = False) -> None:
    folder = make_session_folder(data_dir, session_id)
    leave_note(folder, note)
    if spooled:
        Spool(folder).append(
            GapRow(session_id, "owner", note.minute, GapCause.EXCHANGE_UNREACHABLE, "", NOW)
        )


def told(data_dir: Path, *watched: str) -> Mapping[tuple[str, str], float]:
    """Values by name and part."""
    notes = WatchNotes(data_dir, data_dir / "finwatcher")
    found = {}
    for family in notes.families(watched, NOW):
        assert isinstance(family, Metric)
        for sample in family.samples:
            found[sample.name, sample.labels.get("part", "")] = sample.value
    return found


def ago(minutes: int) -> datetime:
    return NOW - timedelta(minutes=minutes)


def test_without_notes_everything_is_zero(tmp_path: Path) -> None:
    found = told(tmp_path)
    assert set(found.values()) == {0}
    assert {part for _, part in found} == {"", "other", *part_names()}
    assert len(part_names()) == 10
    assert part_names()[0] == "StackFuturesResult"
    assert MarketType.SPOT.value.title() in part_names()[5]


def test_waiting_minutes_add_up_and_the_oldest_has_its_age(tmp_path: Path) -> None:
    leave(tmp_path, FIRST, WatchNote(ago(0), waiting=3, waiting_since=ago(2)), spooled=True)
    leave(tmp_path, SECOND, WatchNote(ago(9), waiting=4, waiting_since=ago(13)), spooled=True)
    (tmp_path / "finwatcher").mkdir()
    leave_note(tmp_path / "finwatcher", WatchNote(ago(1), waiting=7, waiting_since=ago(5)))
    found = told(tmp_path, FIRST, SECOND)
    assert found["aifap_finwatcher_waiting_records", ""] == 14
    assert found["aifap_finwatcher_waiting_oldest_seconds", ""] == 13 * 60


def test_what_another_has_stored_for_a_dead_watcher_waits_no_more(tmp_path: Path) -> None:
    leave(tmp_path, DEAD, WatchNote(ago(30), waiting=9, waiting_since=ago(40)))
    found = told(tmp_path, DEAD)
    assert found["aifap_finwatcher_waiting_records", ""] == 0
    assert found["aifap_finwatcher_waiting_oldest_seconds", ""] == 0


def test_parts_that_failed_lately_are_counted_by_name_and_the_rest_as_other(
    tmp_path: Path,
) -> None:
    leave(tmp_path, FIRST, WatchNote(ago(0), failed={"StackFuturesResult": 1, "curve": 1}))
    leave(tmp_path, SECOND, WatchNote(ago(1), failed={"StackFuturesResult": 1, "Spool": 1}))
    leave(tmp_path, DEAD, WatchNote(ago(3), failed={"StackFuturesResult": 1}))
    found = told(tmp_path, FIRST, SECOND, DEAD)
    assert found["aifap_finwatcher_failed_parts", "StackFuturesResult"] == 2
    assert found["aifap_finwatcher_failed_parts", "other"] == 2
    assert found["aifap_finwatcher_failed_parts", "StackSpotResult"] == 0


def test_while_nobody_knows_the_sessions_their_folders_are_looked_through(tmp_path: Path) -> None:
    leave(tmp_path, FIRST, WatchNote(ago(0), failed={"StackSpotPfResult": 1}))
    (tmp_path / "sessions" / "something else").mkdir()
    assert told(tmp_path)["aifap_finwatcher_failed_parts", "StackSpotPfResult"] == 1
