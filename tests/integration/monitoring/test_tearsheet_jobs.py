"""Tear sheets are made beside everything else: bounded, shared by all workers, nobody else's."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from module.clock import SystemClock
from module.model.errors import (
    InvalidInput,
    InvariantViolated,
    LimitExceeded,
    NotFound,
    RateLimited,
    Unavailable,
)
from monitoring.tearsheets.desk import Desk
from monitoring.tearsheets.document import CurveDocument
from monitoring.tearsheets.process import Stopped, draw_sheet
from monitoring.tearsheets.shelf import (
    KEPT,
    QUEUE_MAX,
    QUEUE_PER_OWNER_MAX,
    Job,
    JobState,
    Shelf,
)
from tests.fakes.curves import short_document

CLOCK = SystemClock()
READS = "import sys; raw = sys.stdin.buffer.read(); "
DRAWS = READS + (
    'w = sys.stdout.buffer.write; w(b\'{"html": 4, "png": 3, "json": 2}\\n\' + b\'pagepic{}\')'
)
WAITS = "import time; time.sleep(600)"
WAIT_S = 60.0


def program(text: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", text)


def curve() -> CurveDocument:
    return CurveDocument.model_validate(short_document(["100", "101"]))


def desk_of(folder: Path, text: str, wall_s_max: float = WAIT_S) -> Desk:
    return Desk(Shelf(folder), CLOCK, command=program(text), wall_s_max=wall_s_max)


def ended(desk: Desk, job: Job) -> Job:
    """The job when it is over."""
    end_at = CLOCK.monotonic() + WAIT_S
    while CLOCK.monotonic() < end_at:
        held = desk.shelf.hold(job.owner_id, job.job_id)
        if held is not None:
            held.release()
            return desk.shelf.find(job.owner_id, job.job_id)
        CLOCK.pause(0.02)
    raise AssertionError("it is not over")


def test_a_sheet_is_made_once_and_every_worker_knows_it(tmp_path: Path) -> None:
    first, second = desk_of(tmp_path, DRAWS), desk_of(tmp_path, "raise SystemExit(9)")
    job = first.ask("owner-1", {"kind": "session", "last": "a"}, curve)
    assert ended(first, job).state is JobState.READY
    again = second.ask("owner-1", {"kind": "session", "last": "a"}, curve)
    assert (again.job_id, again.state) == (job.job_id, JobState.READY)
    assert second.shelf.part("owner-1", job.job_id, "html") == b"page"
    assert second.shelf.part("owner-1", job.job_id, "png") == b"pic"
    other = first.shelf.job_id("owner-1", {"kind": "session", "last": "b"})
    assert other != job.job_id, "a further minute is a further sheet"


def test_S10_a_sheet_is_its_owners_alone_and_lies_in_private(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, DRAWS)
    job = desk.ask("owner-1", {"kind": "session"}, curve)
    ended(desk, job)
    with pytest.raises(NotFound):
        desk.shelf.find("owner-2", job.job_id)
    with pytest.raises(NotFound):
        desk.shelf.part("owner-2", job.job_id, "html")
    assert desk.shelf.job_id("owner-2", {"kind": "session"}) != job.job_id
    for path in (tmp_path / "tearsheets").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0 or ".scratch" in str(path), path


@pytest.mark.parametrize("name", ["..", "../x", "a" * 31, "A" * 32, "0" * 32 + "\n", "%2e%2e", ""])
def test_S20_a_path_is_no_job(tmp_path: Path, name: str) -> None:
    shelf = Shelf(tmp_path)
    with pytest.raises(NotFound):
        shelf.find("owner-1", name)
    with pytest.raises(InvalidInput):
        shelf.find(f"../{name}", "0" * 32)


def test_what_draws_has_no_secret_and_reads_from_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIFAP_DATABASE_PASSWORD", "CANARY")
    text = READS + (
        "import json, os, stat; told = json.dumps([dict(os.environ), sys.argv, len(raw), "
        "stat.S_ISFIFO(os.fstat(0).st_mode)]).encode(); head = json.dumps({'html': len(told), "
        "'png': 0, 'json': 0}).encode(); sys.stdout.buffer.write(head + b'\\n' + told)"
    )
    document = b"x" * 3_000_000  # more than a pipe holds at once
    sheet = draw_sheet(document, tmp_path / "s", CLOCK, lambda: False, command=program(text))
    environment, arguments, size, is_pipe = json.loads(sheet.html)
    assert (arguments, size, is_pipe) == (["-c"], 3_000_000, True)
    assert "CANARY" not in str(environment)
    assert not [name for name in environment if name.startswith("AIFAP")]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (READS + "import os; os.kill(os.getpid(), 9)", Unavailable, "SIGKILL"),
        (READS + "import os; os.kill(os.getpid(), 24)", LimitExceeded, "computing time"),
        (READS + "raise SystemExit(77)", LimitExceeded, "memory"),
        (READS + "raise ValueError('CANARY')", InvariantViolated, "logged"),
        (READS + 'print(\'{"refused": "curve.pv: no"}\')', InvalidInput, "curve.pv: no"),
        ("raise SystemExit(0)", InvariantViolated, "logged"),
    ],
)
def test_however_the_process_ends_it_is_told(
    tmp_path: Path, text: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        draw_sheet(b"{}", tmp_path, CLOCK, lambda: False, command=program(text))
    assert "CANARY" not in str(caught.value)


def test_one_that_takes_too_long_is_ended_and_the_job_says_so(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, WAITS, wall_s_max=0.3)
    job = ended(desk, desk.ask("owner-1", {"kind": "slow"}, curve))
    assert job.state is JobState.FAILED
    assert job.problem["code"] == "limit-exceeded"
    assert job.problem["reason"] == "tear-sheet-timed-out"


def test_one_that_is_stopped_ends_and_may_be_asked_for_again(tmp_path: Path) -> None:
    desk, elsewhere = desk_of(tmp_path, WAITS), desk_of(tmp_path, DRAWS)
    job = desk.ask("owner-1", {"kind": "session"}, curve)
    elsewhere.cancel(elsewhere.shelf.find("owner-1", job.job_id))
    assert ended(desk, job).state is JobState.CANCELLED
    again = elsewhere.ask("owner-1", {"kind": "session"}, curve)
    assert ended(elsewhere, again).state is JobState.READY


def test_stopping_is_heard_while_it_draws(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        draw_sheet(b"{}", tmp_path, CLOCK, lambda: True, command=program(WAITS))


def test_S17_the_queue_is_bounded_for_one_and_for_all(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    places = [shelf.take_place("owner-1") for _ in range(QUEUE_PER_OWNER_MAX)]
    with pytest.raises(RateLimited):
        shelf.take_place("owner-1")
    owners = [f"other-{number}" for number in range(QUEUE_MAX - QUEUE_PER_OWNER_MAX)]
    places += [shelf.take_place(owner) for owner in owners]
    desk = desk_of(tmp_path, DRAWS)
    with pytest.raises(Unavailable) as caught:
        desk.ask("late", {"kind": "session"}, curve)
    assert caught.value.code == "tear-sheet-queue-full"
    for pair in places:
        for held in pair:
            held.release()
    assert ended(desk, desk.ask("late", {"kind": "session"}, curve)).state is JobState.READY


def test_who_waits_for_a_turn_draws_when_it_comes(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    turns = [shelf.take_drawing_place(), shelf.take_drawing_place()]
    assert shelf.take_drawing_place() is None
    desk = desk_of(tmp_path, DRAWS)
    job = desk.ask("owner-1", {"kind": "session"}, curve)
    assert shelf.find("owner-1", job.job_id).state is JobState.QUEUED
    for turn in turns:
        assert turn is not None
        turn.release()
    assert ended(desk, job).state is JobState.READY


def test_a_job_whose_process_died_says_that_it_was_interrupted(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, DRAWS)
    reading, release = threading.Event(), threading.Event()

    def slow() -> CurveDocument:
        reading.set()
        release.wait(WAIT_S)
        return curve()

    job = desk.ask("owner-1", {"kind": "session"}, slow)
    assert reading.wait(WAIT_S)
    assert desk.ask("owner-1", {"kind": "session"}, curve).state is JobState.DRAWING
    release.set()
    over = ended(desk, job)
    desk.shelf.save(replace(over, state=JobState.DRAWING))  # as a death leaves it
    found = desk.shelf.find("owner-1", job.job_id)
    assert (found.state, found.problem["reason"]) == (JobState.FAILED, "tear-sheet-interrupted")
    assert ended(desk, desk.ask("owner-1", {"kind": "session"}, curve)).state is JobState.READY


def test_a_curve_that_cannot_be_read_fails_with_its_own_words(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, DRAWS)

    def away() -> CurveDocument:
        raise Unavailable("database finwatcher does not answer")

    job = ended(desk, desk.ask("owner-1", {"kind": "session"}, away))
    assert (job.state, job.problem["status"]) == (JobState.FAILED, 503)

    def broken() -> CurveDocument:
        raise ZeroDivisionError("CANARY")

    job = ended(desk, desk.ask("owner-1", {"kind": "other"}, broken))
    assert job.problem["code"] == "invariant-violated"
    assert "CANARY" not in str(job.problem)


def test_old_sheets_go_and_those_under_way_stay(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, DRAWS)
    old = ended(desk, desk.ask("owner-1", {"kind": "old"}, curve))
    young = ended(desk, desk.ask("owner-1", {"kind": "young"}, curve))
    busy = ended(desk, desk.ask("owner-2", {"kind": "busy"}, curve))
    folder = tmp_path / "tearsheets"
    past = (CLOCK.wall() - KEPT - timedelta(hours=1)).timestamp()
    for job in (old, busy):
        os.utime(folder / job.owner_id / job.job_id, (past, past))
    held = desk.shelf.hold("owner-2", busy.job_id)
    desk.shelf.tidy(CLOCK.wall())
    assert held is not None
    held.release()
    assert [job.job_id for job in desk.shelf.jobs("owner-1")] == [young.job_id]
    assert [job.job_id for job in desk.shelf.jobs("owner-2")] == [busy.job_id]
    assert not list(folder.rglob(f"{old.job_id}*"))


def test_all_sheets_together_are_bounded_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import monitoring.tearsheets.shelf as shelf_room

    desk = desk_of(tmp_path, DRAWS)
    jobs = [ended(desk, desk.ask("owner-1", {"kind": str(n)}, curve)) for n in range(3)]
    for place, job in enumerate(jobs):
        moment = CLOCK.wall().timestamp() - 100 + place
        os.utime(tmp_path / "tearsheets" / "owner-1" / job.job_id, (moment, moment))
    monkeypatch.setattr(shelf_room, "BYTES_MAX", 600)
    desk.shelf.tidy(CLOCK.wall())
    left = [job.job_id for job in desk.shelf.jobs("owner-1")]
    assert jobs[2].job_id in left
    assert jobs[0].job_id not in left


def test_the_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Its first act ties it to its starter, before it reads anything."""
    import subprocess

    from monitoring.tearsheets.process import COMMAND, ROOT

    starter = (
        "import subprocess, sys; p = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE); "
        "print(p.pid, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", starter, *COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    end_at = CLOCK.monotonic() + WAIT_S
    while Path(f"/proc/{worker}").exists() and CLOCK.monotonic() < end_at:
        if b"Z" in Path(f"/proc/{worker}/stat").read_bytes().split(b")")[-1][:3]:
            break
        CLOCK.pause(0.02)
    else:
        assert not Path(f"/proc/{worker}").exists()
