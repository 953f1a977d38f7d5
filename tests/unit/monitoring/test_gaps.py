"""Why a minute is missing is known across processes: by the note that each leaves in its folder."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from module.files.watch_note import NOTE_NAME, SPANS_MAX, WatchNote, leave_note, read_note
from module.model.errors import Unavailable
from module.model.results import GapCause
from monitoring.spool import Spool
from tests.fakes.watched_account import minute
from tests.fakes.watched_session import Watched

ENDLESS = b"""{"minute": "2026-03-03T09:18:00+00:00", "stored": [], "failed": {}, "waiting": 0,
"waiting_since": null,
"missing": [["0026-03-03T09:18:00+00:00", "2026-03-03T09:18:00+00:00", "overrun"]]}"""


def forget(watched: Watched, *numbers: int) -> None:
    """A replica takes over that never saw these minutes."""
    for number in numbers:
        watched.results.minutes.pop(minute(number), None)
        watched.results.gap_rows.pop(minute(number), None)


def causes(watched: Watched) -> dict[int, GapCause]:
    return {
        int((at - minute(0)) / timedelta(minutes=1)): gap.cause
        for at, gap in watched.results.gap_rows.items()
    }


def test_what_the_process_before_had_stored_was_lost_and_not_unmeasured(watched: Watched) -> None:
    watched.run_minutes(0, 4)
    forget(watched, 3, 4)
    watched.new_process()
    watched.run_minutes(6, 6)
    assert causes(watched) == {
        3: GapCause.STORE_LOST,
        4: GapCause.STORE_LOST,
        5: GapCause.NOT_RUNNING,
    }
    watched.assert_no_silent_gap(6)


def test_minutes_that_nobody_looked_at_are_not_lost_when_their_gaps_are_forgotten(
    watched: Watched,
) -> None:
    watched.run_minutes(0, 1)
    watched.new_process()
    watched.run_minutes(4, 4)
    forget(watched, 2, 3, 4)
    watched.new_process()
    watched.run_minutes(5, 5)
    assert causes(watched) == {
        2: GapCause.NOT_RUNNING,
        3: GapCause.NOT_RUNNING,
        4: GapCause.STORE_LOST,
    }


def test_a_cause_that_could_not_be_recorded_outlives_its_process(watched: Watched) -> None:
    watched.run_minutes(0, 0)
    watched.new_process()
    watched.sessions.away = True
    watched.run_minutes(1, 2)
    watched.sessions.away = False
    watched.new_process()
    watched.run_minutes(3, 3)
    assert causes(watched) == {1: GapCause.SESSION_UNREADABLE, 2: GapCause.SESSION_UNREADABLE}


def test_a_known_cause_is_spooled_before_it_is_known_where_the_rows_end(watched: Watched) -> None:
    watched.run_minutes(0, 0)
    watched.new_process()
    watched.results.away = True
    watched.exchange.down = Unavailable("the exchange is down for maintenance")
    watched.run_minutes(1, 1)
    watched.results.away, watched.exchange.down = False, None
    watched.new_process()
    watched.run_minutes(2, 2)
    (gap,) = watched.results.gap_rows.values()
    assert (gap.minute, gap.cause) == (minute(1), GapCause.EXCHANGE_UNREACHABLE)
    assert gap.detail == "the exchange is down for maintenance"  # a note has the cause alone


@pytest.mark.parametrize("restarted", [False, True])
def test_E12_causes_outlive_a_spool_that_takes_no_more(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    monkeypatch.setattr("monitoring.minute.Spool", partial(Spool, detail_bytes_max=0))
    watched.new_process()
    watched.run_minutes(0, 0)
    watched.results.away = True
    watched.run_minutes(1, 1)
    size = (watched.folder / "finwatcher.spool").stat().st_size
    watched.run_minutes(2, 2)
    watched.exchange.down = Unavailable("the exchange is down for maintenance")
    watched.run_minutes(3, 4)
    assert (watched.folder / "finwatcher.spool").stat().st_size == size
    if restarted:
        watched.new_process()
    watched.results.away, watched.exchange.down = False, None
    watched.run_minutes(5, 5)
    assert causes(watched) == {
        2: GapCause.SPOOL_FULL,
        3: GapCause.EXCHANGE_UNREACHABLE,
        4: GapCause.EXCHANGE_UNREACHABLE,
    }
    watched.assert_no_silent_gap(5)


def test_the_note_says_what_waits_and_what_failed(watched: Watched) -> None:
    watched.run_minutes(0, 0)
    watched.results.away = True
    watched.run_minutes(1, 3)
    note = read_note(watched.folder)
    assert note is not None
    assert (note.minute, note.waiting, note.waiting_since) == (minute(3), 3, minute(1))
    watched.new_process()  # it counts what the one before it left
    watched.run_minutes(4, 4)
    note = read_note(watched.folder)
    assert note is not None
    assert (note.waiting, note.waiting_since) == (4, minute(1))
    watched.results.away = False
    watched.run_minutes(5, 5)
    note = read_note(watched.folder)
    assert note is not None
    assert (note.waiting, note.waiting_since, note.failed) == (0, None, {})
    assert note.stored >= {minute(number) for number in range(6)}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"minute": 7}',
        b"\xff",
        b'{"minute": "2026-03-03T09:18:00"}',
        ENDLESS,
    ],
)
def test_a_note_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NOTE_NAME).write_bytes(content)
    assert read_note(tmp_path) is None


def test_a_note_reads_as_it_was_left(tmp_path: Path) -> None:
    note = WatchNote(
        minute(7),
        frozenset({minute(3), minute(6)}),
        {minute(5): GapCause.SESSION_UNREADABLE},
        {"StackFuturesResult": 2},
        17,
        minute(-40),
    )
    leave_note(tmp_path, note)
    assert read_note(tmp_path) == note
    assert [path.name for path in tmp_path.iterdir()] == [NOTE_NAME]
    assert json.loads((tmp_path / NOTE_NAME).read_text())["waiting"] == 17


def test_a_note_has_room_for_the_causes_of_a_long_outage(tmp_path: Path) -> None:
    missing = dict.fromkeys(map(minute, range(40_000)), GapCause.EXCHANGE_UNREACHABLE)
    missing[minute(7)] = GapCause.SESSION_UNREADABLE
    del missing[minute(11)]
    leave_note(tmp_path, WatchNote(minute(40_000), missing=missing))
    note = read_note(tmp_path)
    assert note is not None
    assert note.missing == missing


def test_of_more_causes_than_a_note_holds_the_newest_are_left(tmp_path: Path) -> None:
    causes = (GapCause.EXCHANGE_UNREACHABLE, GapCause.SESSION_UNREADABLE)
    missing = {minute(number): causes[number % 2] for number in range(3_000)}
    leave_note(tmp_path, WatchNote(minute(3_000), missing=missing))
    note = read_note(tmp_path)
    assert note is not None
    assert sorted(note.missing) == sorted(missing)[-SPANS_MAX:]


def test_where_no_folder_is_none_is_made_for_a_note(tmp_path: Path) -> None:
    leave_note(tmp_path / "none", WatchNote(minute(1)))
    assert list(tmp_path.iterdir()) == []
