"""The logs of one's own sessions: `/logging`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.answers import answer
from api.dependencies import AtDoors, SignedIn, own_session
from module.files.session_folder import TAIL_LINES_MAX, list_logs, read_log_tail

router = APIRouter(prefix="/logging", tags=["logging"])


@router.get("/{session_id}")
def get_logs(doors: AtDoors, user: SignedIn, session_id: str) -> Response:
    """Which logs the session has."""
    record = own_session(doors, user, session_id)
    return answer({"logs": list_logs(doors.settings.data_dir, record.session_id)})


@router.get("/{session_id}/{part}")
def get_log(
    doors: AtDoors,
    user: SignedIn,
    session_id: str,
    part: str,
    lines: Annotated[int, Query(ge=1, le=TAIL_LINES_MAX)] = 200,
) -> Response:
    """The last lines of one log."""
    record = own_session(doors, user, session_id)
    tail = read_log_tail(doors.settings.data_dir, record.session_id, part, lines)
    return answer({"session_id": record.session_id, "part": part, "lines": tail})
