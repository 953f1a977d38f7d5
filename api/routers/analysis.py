"""Tear sheets of one's sessions and of curves that somebody hands in (PyfolioAPI): `/analysis`.

    POST ─► 202 and an address ─► GET until ready ─► html, png, json

Drawing happens elsewhere (`monitoring.tearsheets`); no request waits for it unless it asks to, and
then a few seconds at most.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Self

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.concurrency import run_in_threadpool

from api.answers import answer
from api.dependencies import AtDoors, Doors, SignedIn, json_body, json_document, own_session
from api.session_views import watched_shape
from module.clock import SystemClock
from module.db.repositories.results_curves import CurveRepository
from module.model.canonical import instant_text
from module.model.errors import AifapError, InvalidInput, NotFound, NotYet
from module.wire.problem_codec import error_from_problem
from monitoring.tearsheets.desk import Desk
from monitoring.tearsheets.document import CurveDocument, Instant
from monitoring.tearsheets.session_curve import session_document
from monitoring.tearsheets.shelf import Job, JobState, Shelf

if TYPE_CHECKING:
    from api.wiring import ApiWiring
    from module.db.repositories.users import UserRecord

router = APIRouter(prefix="/analysis", tags=["analysis"])
WAIT_S_MAX: Final = 10
LOOK_S: Final = 0.2
MINUTE: Final = timedelta(minutes=1)
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 1, 1, tzinfo=UTC)
_UNDER_WAY: Final = (JobState.QUEUED, JobState.DRAWING)
PAGE_POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox"
)
_TYPES: Final = {"html": "text/html; charset=utf-8", "png": "image/png", "json": "application/json"}


class TearSheetRequest(BaseModel):
    """A session of one's own and a range of it, or a curve; exactly one of the two."""

    holds_secrets: ClassVar[bool] = False
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)

    session_id: str | None = Field(None, max_length=32, description="A session of yours.")
    start: Instant | None = Field(None, description="From this minute on; default: its start.")
    end: Instant | None = Field(None, description="Before this minute; default: its last one.")
    curve: CurveDocument | None = Field(None, description="A backtest's own curve instead.")

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if (self.session_id is None) == (self.curve is None):
            raise ValueError("give either session_id or curve")
        if self.curve is not None and (self.start or self.end):
            raise ValueError("start and end go with session_id")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError("start must be before end")
        return self


@dataclass(frozen=True, slots=True)
class Analysis:
    """What the routes need: who sees to jobs, and the rows that they read."""

    desk: Desk
    rows: CurveRepository


@dataclass(frozen=True, slots=True)
class _Order:
    """What a sheet depends on, and how its curve is read when its turn comes."""

    subject: Mapping[str, object] = field(default_factory=dict)
    curve: Callable[[], CurveDocument] | None = None


def build_analysis(wiring: ApiWiring) -> Analysis:
    """The desk over the installation's data folder; starts nothing."""
    if wiring.platform is None:
        raise InvalidInput("this process opens no doors for people")
    shelf = Shelf(wiring.settings.data_dir.resolve())
    return Analysis(Desk(shelf, SystemClock()), CurveRepository(wiring.platform.finwatcher))


async def analysis_of(request: Request) -> Analysis:
    """The analysis of this application."""
    found = request.app.state.analysis
    if not isinstance(found, Analysis):
        raise InvalidInput("this process makes no tear sheets")
    return found


AtDesk = Annotated[Analysis, Depends(analysis_of)]
Asked = Annotated[TearSheetRequest, Depends(json_body(TearSheetRequest))]
Wait = Annotated[int, Query(ge=0, le=WAIT_S_MAX, description="Seconds to wait for it.")]


@router.post("/tear-sheets", status_code=202, openapi_extra=json_document(TearSheetRequest))
async def post_tear_sheet(
    request: Request, doors: AtDoors, user: SignedIn, at: AtDesk, asked: Asked, wait: Wait = 0
) -> Response:
    """Order a tear sheet; 202 with its address, 200 when it is ready (within `wait` seconds).

    The same question again is the same sheet, until rows of its range were stored or corrected (or
    the days a year are set otherwise). A sheet that cannot be made is a problem.
    """
    order = await run_in_threadpool(_order, doors, user, at, asked)
    job = await run_in_threadpool(_place, at, user, order)
    gone = asyncio.create_task(_disconnected(request))
    try:
        for _ in range(int(wait / LOOK_S)):
            if job.state not in _UNDER_WAY or gone.done():
                break
            await asyncio.wait({gone}, timeout=LOOK_S)
            job = await run_in_threadpool(at.desk.shelf.find, user.user_id, job.job_id)
    finally:
        gone.cancel()
    if job.state is JobState.FAILED:
        raise _problem_of(job)
    return _job_answer(job)


@router.get("/tear-sheets")
def get_tear_sheets(user: SignedIn, at: AtDesk) -> Response:
    """One's tear sheets that are kept or under way, newest first."""
    return answer({"tear_sheets": [_view(job) for job in at.desk.shelf.jobs(user.user_id)]})


@router.get("/tear-sheets/{job_id}")
def get_tear_sheet(user: SignedIn, at: AtDesk, job_id: str) -> Response:
    """How far it is: queued, drawing, ready, failed (with the problem) or cancelled."""
    return answer(_view(at.desk.shelf.find(user.user_id, job_id)))


@router.delete("/tear-sheets/{job_id}")
def delete_tear_sheet(user: SignedIn, at: AtDesk, job_id: str) -> Response:
    """Stop it if it is under way, forget it if it is over."""
    job = at.desk.shelf.find(user.user_id, job_id)
    return answer(_view(at.desk.cancel(job)))


@router.get("/tear-sheets/{job_id}/html")
def get_html(user: SignedIn, at: AtDesk, job_id: str) -> Response:
    """The page: one file, no script, nothing from elsewhere."""
    return _part(at, user, job_id, "html")


@router.get("/tear-sheets/{job_id}/png")
def get_png(user: SignedIn, at: AtDesk, job_id: str) -> Response:
    """The picture."""
    return _part(at, user, job_id, "png")


@router.get("/tear-sheets/{job_id}/json")
def get_json(user: SignedIn, at: AtDesk, job_id: str) -> Response:
    """The numbers, for programs."""
    return _part(at, user, job_id, "json")


# --- orders ---------------------------------------------------------------------------------------


def _order(doors: Doors, user: UserRecord, at: Analysis, asked: TearSheetRequest) -> _Order:
    year = doors.settings.days_per_year
    document = asked.curve
    if document is not None:
        if "days_per_year" not in document.model_fields_set:
            document = document.model_copy(update={"days_per_year": year})
        curve = document
        digest = hashlib.sha256(document.model_dump_json().encode()).hexdigest()
        subject = {"kind": "curve", "title": document.title, "sha256": digest}
        return _Order(subject, lambda: curve)
    watched = watched_shape(own_session(doors, user, str(asked.session_id)))
    since, until = asked.start or _FIRST, asked.end or _LAST
    span = at.rows.span(watched, since, until)
    if span is None:
        raise NotFound(
            f"session {watched.session_id} has no stored minutes in that range (yet): there is "
            "nothing to draw"
        )
    stock = at.rows.stock(watched, span)
    if since > watched.started_at:
        since = span.first
    return _Order(
        {
            "kind": "session",
            "session_id": watched.session_id,
            "first": instant_text(span.first),
            "last": instant_text(span.last),
            "whole": since <= watched.started_at,
            "days_per_year": year,
            "stored": {
                **asdict(stock),
                "measured_at": None
                if stock.measured_at is None
                else instant_text(stock.measured_at),
            },
        },
        lambda: session_document(at.rows, watched, since, span.last + MINUTE, year),
    )


def _place(at: Analysis, user: UserRecord, order: _Order) -> Job:
    if order.curve is None:
        raise InvalidInput("give either session_id or curve")
    return at.desk.ask(user.user_id, order.subject, order.curve)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


# --- answers --------------------------------------------------------------------------------------


def _view(job: Job) -> dict[str, object]:
    own = f"/analysis/tear-sheets/{job.job_id}"
    view: dict[str, object] = {
        "job_id": job.job_id,
        "state": job.state,
        "subject": job.subject,
        "asked_at": job.asked_at,
        "finished_at": job.finished_at,
        "address": own,
    }
    if job.state is JobState.READY:
        view.update({part: f"{own}/{part}" for part in _TYPES})
    if job.state is JobState.FAILED:
        view["problem"] = job.problem
    return view


def _job_answer(job: Job) -> Response:
    found = answer(_view(job), status=200 if job.state is JobState.READY else 202)
    found.headers["Location"] = f"/analysis/tear-sheets/{job.job_id}"
    if job.state in _UNDER_WAY:
        found.headers["Retry-After"] = "1"
    return found


def _part(at: Analysis, user: UserRecord, job_id: str, part: str) -> Response:
    job = at.desk.shelf.find(user.user_id, job_id)
    if job.state in _UNDER_WAY:
        raise NotYet("this tear sheet is being made; ask again", retry_after_s=1.0)
    if job.state is JobState.FAILED:
        raise _problem_of(job)
    content = at.desk.shelf.part(user.user_id, job_id, part)
    headers = {
        "Content-Disposition": f'inline; filename="tear-sheet-{job_id[:8]}.{part}"',
        "Cache-Control": "private, no-store",
    }
    if part == "html":
        headers["Content-Security-Policy"] = PAGE_POLICY
    return Response(content, media_type=_TYPES[part], headers=headers)


def _problem_of(job: Job) -> AifapError:
    status = job.problem.get("status")
    return error_from_problem(status if isinstance(status, int) else 500, job.problem)
