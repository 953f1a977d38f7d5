"""Server-sent events: what one's sessions are worth and do, as it happens, `/stream`.

`/stream/live` is the live page's one source: each second what changed since the last one.
`/stream/sessions` tells everything each second, for programs that keep no state. Both ask each time
whether the token still opens the door. Connections are bounded per person and process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from api.answers import json_text
from api.dependencies import AtDoors, Doors, SignedIn, own_session
from api.live_views import LiveBoard
from api.places import Places
from api.session_views import live_document
from module.db.repositories.users import UserRecord
from module.model.errors import AifapError, Retryable
from module.security.tokens import bearer_token

Told = tuple[str, object]
"""An event's name and document."""
router = APIRouter(prefix="/stream", tags=["stream"])
PERIOD_S: Final = 1.0
STREAMS_PER_USER_MAX: Final = 5
STREAMS_MAX: Final = 100
WAIT_S: Final = 10.0
EVENTS_MAX: Final = 43_200  # a day; the page connects again


def stream_places() -> Places:
    """How many streams may be open at once."""
    return Places("live streams", each_max=STREAMS_PER_USER_MAX, all_max=STREAMS_MAX, wait_s=WAIT_S)


class EventStream(Response):
    """Sends what `next_event` returns, every period, until it is None or the client goes."""

    media_type = "text/event-stream"

    def __init__(self, next_event: Callable[[], str | None], closed: Callable[[], None]) -> None:
        super().__init__()
        self._next_event = next_event
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for _ in range(EVENTS_MAX):
                event = await run_in_threadpool(self._next_event)
                if event is None or gone.done():
                    break
                await send(
                    {"type": "http.response.body", "body": event.encode(), "more_body": True}
                )
                await asyncio.wait({gone}, timeout=PERIOD_S)  # the client's going away ends it
            if not gone.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            self._closed()


@router.get("/sessions")
def get_stream(request: Request, doors: AtDoors, user: SignedIn) -> Response:
    """Events `sessions` (everything the page shows), `trouble` (asked again by itself), `end`."""
    return _stream(request, doors, user, lambda now: ("sessions", live_document(doors, now)))


@router.get("/live")
def get_live(
    request: Request,
    doors: AtDoors,
    user: SignedIn,
    session_id: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """Events `live` (what changed), `trouble` (asked again by itself), `end`.

    The first one is whole. `session_id`: whose details are told; default: one's newest session.
    """
    if session_id is not None:
        own_session(doors, user, session_id)
    board = LiveBoard(session_id)

    def look(now: UserRecord) -> tuple[str, object]:
        return "live", board.changes(doors, now)

    return _stream(request, doors, user, look)


def _stream(
    request: Request, doors: Doors, user: UserRecord, look: Callable[[UserRecord], Told]
) -> Response:
    places: Places = request.app.state.stream_places
    token = bearer_token(request.headers.get("authorization"))
    places.take(user.user_id)
    ended = False

    def next_event() -> str | None:
        nonlocal ended
        if ended:
            return None
        event, ended = _event(doors, token, look)
        return event

    return EventStream(next_event, lambda: places.give_back(user.user_id))


def _event(doors: Doors, token: str, look: Callable[[UserRecord], Told]) -> tuple[str, bool]:
    """The next event, and whether it is the last one."""
    try:
        user: UserRecord = doors.users.authenticate(token, doors.clock.wall())
        return _spell(*look(user)), False
    except Retryable as error:
        return _spell("trouble", {"message": error.message}), False
    except AifapError as error:
        return _spell("end", {"message": error.message, "code": error.code}), True


def _spell(name: str, document: object) -> str:
    return f"event: {name}\ndata: {json_text(document)}\n\n"


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
