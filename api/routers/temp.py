"""What would be traded now, and carrying out exactly that: `/temp`.

Nothing here lasts: a preview is kept for an hour, and may be carried out while it is fresh.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response

from api.answers import answer
from api.commands import Key
from api.dependencies import AtDoors, SignedIn, body_sha256, json_body, json_document
from api.preview_schemas import ExecuteRequest, PreviewRequest
from api.previews import execute_preview, kept_view, make_preview

router = APIRouter(prefix="/temp", tags=["temp"])
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]
PreviewBody = Annotated[PreviewRequest, Depends(json_body(PreviewRequest))]
ExecuteBody = Annotated[ExecuteRequest, Depends(json_body(ExecuteRequest))]


@router.post("/preview", openapi_extra=json_document(PreviewRequest))
def post_preview(doors: AtDoors, user: SignedIn, body: PreviewBody) -> Response:
    """What would be traded now, what it would cost, what it would leave. Nothing is sent."""
    return answer(make_preview(doors, user, body))


@router.get("/previews/{plan_hash}")
def get_preview(doors: AtDoors, user: SignedIn, plan_hash: str) -> Response:
    """A preview of one's own, as it was answered."""
    return answer(kept_view(doors, user, plan_hash))


@router.post("/execute", openapi_extra=json_document(ExecuteRequest))
def post_execute(
    doors: AtDoors,
    user: SignedIn,
    body: ExecuteBody,
    request: Request,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Carry out exactly the plan of a preview, while it is fresh."""
    key = None if idempotency_key is None else Key(idempotency_key, body_sha256(request))
    found = execute_preview(doors, user, body.plan_hash, key)
    return answer(found.document, found.status)
