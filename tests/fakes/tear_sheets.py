"""Tear sheets without drawing: a stand-in for the process that draws, and a sheet that is there."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Final

from api.routers.analysis import Analysis
from module.clock import SystemClock
from module.db.repositories.results_curves import CurveRepository
from monitoring.tearsheets.desk import Desk
from monitoring.tearsheets.process import Sheet
from monitoring.tearsheets.shelf import JobState, Shelf, new_job
from tests.fakes.platform import FakePlatform

DRAWS: Final = (
    "import sys; sys.stdin.buffer.read(); sys.stdout.buffer.write("
    'b\'{"html": 4, "png": 3, "json": 2}\\n\' + b\'pagepic{}\')'
)
KILLED: Final = "import os; os.kill(os.getpid(), 9)"


def program(text: str) -> tuple[str, ...]:
    """A command that starts quickly."""
    return (sys.executable, "-S", "-c", text)


def shelf_of(platform: FakePlatform) -> Shelf:
    """Where the application keeps its sheets."""
    return Shelf(platform.folder.resolve())


def draw_with(platform: FakePlatform, text: str = DRAWS) -> None:
    """Let the application have its sheets drawn by this program."""
    rows = CurveRepository(platform.databases[1])
    desk = Desk(shelf_of(platform), SystemClock(), command=program(text))
    platform.app.state.analysis = Analysis(desk, rows)


def put_sheet(platform: FakePlatform, owner_id: str) -> str:
    """A sheet that is ready; its job."""
    shelf = shelf_of(platform)
    subject = {"kind": "curve", "title": "made earlier"}
    job = new_job(shelf.job_id(owner_id, subject), owner_id, subject, SystemClock().wall())
    shelf.put(job, Sheet(b"page", b"pic", b"{}"))
    shelf.save(replace(job, state=JobState.READY))
    return job.job_id
