"""Takes orders for tear sheets and sees to them, off the path of whoever asked.

    ask ─► on the shelf already? ─► that one
        └► a place in the queue ─► a thread that reads the curve, waits for its turn, has it drawn

Everything that others must know is on the shelf, so any worker of the API answers for any job; this
process only holds the locks of the jobs that it sees to, and they end with it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from module.model.canonical import instant_text
from module.model.errors import AifapError, InvariantViolated, Unavailable
from module.ports import Clock
from module.wire.problem_codec import problem_body
from monitoring.tearsheets.document import CurveDocument
from monitoring.tearsheets.process import COMMAND, WALL_S_MAX, Stopped, draw_sheet
from monitoring.tearsheets.shelf import Held, Job, JobState, Shelf, new_job

QUEUE_S_MAX: Final = 600.0
LOOK_S: Final = 0.1
HOLD_TRIES_MAX: Final = 20
_log = logging.getLogger(__name__)


class Desk:
    """One per process. `clock`: real time is all it looks at."""

    def __init__(
        self,
        shelf: Shelf,
        clock: Clock,
        *,
        command: Sequence[str] = COMMAND,
        wall_s_max: float = WALL_S_MAX,
    ) -> None:
        self.shelf = shelf
        self._clock = clock
        self._command = command
        self._wall_s_max = wall_s_max

    def ask(
        self,
        owner_id: str,
        subject: Mapping[str, object],
        curve: Callable[[], CurveDocument],
    ) -> Job:
        """The job of `subject`: the one that is there, else a new one that begins to wait.

        `curve` reads the document, later, in another thread. RateLimited or Unavailable when there
        is no place in the queue.
        """
        job_id = self.shelf.job_id(owner_id, subject)
        for _ in range(HOLD_TRIES_MAX):
            held = self.shelf.hold(owner_id, job_id)
            if held is not None:
                return self._begin(
                    new_job(job_id, owner_id, subject, self._clock.wall()), held, curve
                )
            try:
                job = self.shelf.find(owner_id, job_id)
            except AifapError:
                job = None  # its first record is just being written
            if job is not None and job.state in (JobState.QUEUED, JobState.DRAWING):
                return job
            self._clock.pause(LOOK_S / 4)
        raise Unavailable("this tear sheet is being seen to; ask again", retry_after_s=1.0)

    def cancel(self, job: Job) -> Job:
        """Ask for a job to be stopped; one that is over is forgotten."""
        if job.state in (JobState.QUEUED, JobState.DRAWING):
            self.shelf.stop(job.owner_id, job.job_id)
        else:
            self.shelf.remove(job.owner_id, job.job_id)
        return replace(job, state=JobState.CANCELLED)

    def _begin(self, job: Job, held: Held, curve: Callable[[], CurveDocument]) -> Job:
        try:
            if self.shelf.has_all(job.owner_id, job.job_id):
                known = self.shelf.find(job.owner_id, job.job_id)
                if known.state is JobState.READY:
                    held.release()
                    return known
            places = self.shelf.take_place(job.owner_id)
        except BaseException:
            held.release()
            raise
        locks = (held, *places)
        try:
            self.shelf.save(job)
            self.shelf.forget_stop(job)
            threading.Thread(
                target=self._see_to, args=(job, curve, locks), name="tear-sheet", daemon=True
            ).start()
        except BaseException:
            _release(locks)
            raise
        return job

    def _see_to(self, job: Job, curve: Callable[[], CurveDocument], locks: Sequence[Held]) -> None:
        """The top of the thread: whatever happens is on the shelf before the locks go."""
        try:
            try:
                ended = self._draw(job, curve)
            except Stopped:
                ended = replace(job, state=JobState.CANCELLED)
            except AifapError as error:
                if isinstance(error, InvariantViolated):
                    _log.error("a tear sheet failed: %s", error.message, exc_info=error)
                ended = replace(job, state=JobState.FAILED, problem=problem_body(error))
            except Exception as error:  # noqa: BLE001  # the top of a thread: recorded, ends
                _log.error("a tear sheet failed", exc_info=error)
                told = InvariantViolated("the tear sheet could not be drawn; it was logged")
                ended = replace(job, state=JobState.FAILED, problem=problem_body(told))
            self.shelf.save(replace(ended, finished_at=instant_text(self._clock.wall())))
            self.shelf.tidy(self._clock.wall())
        except AifapError as error:  # the disk refuses: the job will look interrupted
            _log.error("a tear sheet's record could not be kept: %s", error.message)
        finally:
            _release(locks)

    def _draw(self, job: Job, curve: Callable[[], CurveDocument]) -> Job:
        turn = self._wait_for_turn(job)
        try:
            drawing = replace(job, state=JobState.DRAWING)
            self.shelf.save(drawing)
            document = curve().model_dump_json().encode()
            sheet = draw_sheet(
                document,
                self.shelf.scratch,
                self._clock,
                lambda: self.shelf.wants_stop(job),
                command=self._command,
                wall_s_max=self._wall_s_max,
            )
            self.shelf.put(job, sheet)
            return replace(job, state=JobState.READY)
        finally:
            turn.release()

    def _wait_for_turn(self, job: Job) -> Held:
        end_at = self._clock.monotonic() + QUEUE_S_MAX
        while True:
            turn = self.shelf.take_drawing_place()
            if turn is not None:
                return turn
            if self.shelf.wants_stop(job):
                raise Stopped
            if self._clock.monotonic() >= end_at:
                raise Unavailable(
                    f"its turn did not come within {QUEUE_S_MAX:g} s; ask again later",
                    retry_after_s=30.0,
                )
            self._clock.pause(LOOK_S)


def _release(locks: Sequence[Held]) -> None:
    for lock in locks:
        lock.release()
