"""Start, look at and end sessions: `/command`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from api.answers import answer
from api.commands import Key, run_system, terminate
from api.dependencies import (
    AtDoors,
    Doors,
    SignedIn,
    body_sha256,
    json_body,
    json_document,
    own_session,
)
from api.halts import HaltPorts, HaltWish, halt, halt_ports, resume
from api.schemas import HaltRequest, ResumeRequest, RunSystemRequest
from api.session_views import session_views, visible_owner
from module.db.repositories.users import UserRecord
from module.model.sessions import EndState

router = APIRouter(prefix="/command", tags=["command"])
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]
HaltBody = Annotated[HaltRequest, Depends(json_body(HaltRequest))]
ResumeBody = Annotated[ResumeRequest, Depends(json_body(ResumeRequest))]
RunBody = Annotated[RunSystemRequest, Depends(json_body(RunSystemRequest))]


@router.post("/run-system", openapi_extra=json_document(RunSystemRequest))
def post_run_system(
    doors: AtDoors,
    user: SignedIn,
    body: RunBody,
    request: Request,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Start a session; it goes on whatever becomes of this connection."""
    key = None if idempotency_key is None else Key(idempotency_key, body_sha256(request))
    found = run_system(doors, user, body, key)
    return answer(found.document, found.status)


@router.get("/session-check")
def get_session_check(
    doors: AtDoors, user: SignedIn, over: Annotated[int, Query(ge=0, le=200)] = 10
) -> Response:
    """One's sessions that run, and the latest `over` that are over. A supervisor sees all."""
    records = doors.sessions.list_for_owner(visible_owner(user), over_max=over)
    views = session_views(doors, records)
    return answer(
        {
            "sessions": [v for v, r in zip(views, records, strict=True) if not r.state.is_over],
            "over": [v for v, r in zip(views, records, strict=True) if r.state.is_over],
        }
    )


@router.get("/sessions/{session_id}")
def get_session(doors: AtDoors, user: SignedIn, session_id: str) -> Response:
    """One session: its view, its newest cycles, its spec with everything it was asked."""
    record = own_session(doors, user, session_id)
    cycles = doors.sessions.cycles(session_id, 20)
    spec = record.spec
    return answer(
        {
            **session_views(doors, [record])[0],
            "initial_balance": record.initial_balance,
            "epoch": record.epoch,
            "margin_mode": spec.margin_mode,
            "allocated": spec.allocated,
            "compounding": spec.compounding,
            "threshold": spec.threshold,
            "default_stop_loss_pct": spec.default_stop_loss_pct,
            "target_volatility": spec.target_volatility,
            "on_end": spec.on_end,
            "apply_account_settings": spec.apply_account_settings,
            "adopt_existing": spec.adopt_existing,
            "config": spec.config,
            "cycles": [
                {
                    "boundary": cycle.boundary,
                    "number": cycle.number,
                    "state": cycle.state,
                    "reason": cycle.reason,
                    "started_at": cycle.started_at,
                    "ended_at": cycle.ended_at,
                    "own_ms": cycle.own_ms,
                    "targets": cycle.targets,
                    "skipped": (cycle.order_info or {}).get("skipped", []),
                    "digest": cycle.digest,
                }
                for cycle in cycles
            ],
        }
    )


@router.get("/terminate")
def get_terminate(
    doors: AtDoors,
    user: SignedIn,
    session_id: Annotated[str, Query(max_length=64)],
    mode: EndState | None = None,
) -> Response:
    """End a session; without a mode it leaves its account protected."""
    found = terminate(doors, user, session_id, mode)
    return answer(found.document, found.status)


@router.post("/terminate")
def post_terminate(
    doors: AtDoors,
    user: SignedIn,
    session_id: Annotated[str, Query(max_length=64)],
    mode: EndState | None = None,
) -> Response:
    """The same."""
    found = terminate(doors, user, session_id, mode)
    return answer(found.document, found.status)


@router.post("/halt", openapi_extra=json_document(HaltRequest))
def post_halt(doors: AtDoors, user: SignedIn, body: HaltBody) -> Response:
    """The kill switch: these accounts open nothing more. Answers when that is true."""
    wish = _wish(doors, user, body.account_id, everything=body.everything, reason=body.reason)
    found = halt(_halt_ports(doors), user, wish)
    return answer(found.document, found.status)


@router.post("/resume", openapi_extra=json_document(ResumeRequest))
def post_resume(doors: AtDoors, user: SignedIn, body: ResumeBody) -> Response:
    """Lift the kill switch."""
    wish = _wish(doors, user, body.account_id, everything=body.everything)
    found = resume(_halt_ports(doors), user, wish)
    return answer(found.document, found.status)


def _halt_ports(doors: Doors) -> HaltPorts:
    return halt_ports(doors.settings, doors.halts, doors.alerts, doors.clock)


def _wish(
    doors: Doors, user: UserRecord, account_id: str | None, *, everything: bool, reason: str = ""
) -> HaltWish:
    mine = doors.accounts.list_for_owner(user.user_id)
    return HaltWish(account_id, everything, [one.account_id for one in mine], reason)
