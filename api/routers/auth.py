"""Who one is, and one's tokens: `/auth`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Response

from api.answers import answer, spelled_object
from api.dependencies import AtDoors, Doors, SignedIn, json_body, json_document
from api.schemas import NewToken
from module.db.repositories.users import IssuedToken, UserRecord
from module.model.errors import Conflict

router = APIRouter(prefix="/auth", tags=["auth"])
TOKENS_MAX: Final = 50
TokenBody = Annotated[NewToken, Depends(json_body(NewToken))]


@router.get("/whoami")
def get_whoami(user: SignedIn) -> Response:
    """Whose token this is."""
    return answer(user)


@router.get("/tokens")
def get_tokens(doors: AtDoors, user: SignedIn) -> Response:
    """One's tokens, without their secrets."""
    return answer({"tokens": doors.users.list_tokens(user.user_id)})


@router.post("/tokens", status_code=201, openapi_extra=json_document(NewToken))
def post_token(doors: AtDoors, user: SignedIn, body: TokenBody) -> Response:
    """Make a token; its secret is in this answer and nowhere else."""
    return answer(issued_view(issue_token(doors, user.user_id, body, user)), 201)


@router.delete("/tokens/{token_id}")
def delete_token(doors: AtDoors, user: SignedIn, token_id: str) -> Response:
    """Revoke a token; it opens nothing from the next request on."""
    record = doors.users.revoke_token(
        user.user_id, token_id, doors.clock.wall(), audit_by=user.user_id
    )
    return answer(record)


def issue_token(doors: Doors, user_id: str, body: NewToken, by: UserRecord) -> IssuedToken:
    """Make a token for a user; Conflict when they have too many that are in force."""
    wall = doors.clock.wall()
    held = [t for t in doors.users.list_tokens(user_id) if t.revoked_at is None]
    if len(held) >= TOKENS_MAX:
        raise Conflict(f"there are {len(held)} tokens in force; revoke one first")
    ends = None if body.days is None else wall + timedelta(days=body.days)
    return doors.users.issue_token(user_id, body.label, wall, ends, audit_by=by.user_id)


def issued_view(issued: IssuedToken) -> dict[str, object]:
    """The one answer that holds a token's secret."""
    return {**spelled_object(issued.record), "token": issued.secret}
