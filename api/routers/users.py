"""People: `/users`, for the supervisor."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.answers import answer
from api.dependencies import AtDoors, Supervisor, json_body, json_document
from api.routers.auth import issue_token, issued_view
from api.schemas import ChangedUser, NewToken, NewUser

router = APIRouter(prefix="/users", tags=["users"])


@router.get("")
def get_users(doors: AtDoors, _user: Supervisor) -> Response:
    """Everybody."""
    return answer({"users": doors.users.list_all()})


@router.post("", status_code=201, openapi_extra=json_document(NewUser))
def post_user(
    doors: AtDoors, user: Supervisor, body: Annotated[NewUser, Depends(json_body(NewUser))]
) -> Response:
    """Add a person; give them a token with POST /users/{user_id}/tokens."""
    added = doors.users.add(body.name, body.role, doors.clock.wall(), audit_by=user.user_id)
    return answer(added, 201)


@router.patch("/{user_id}", openapi_extra=json_document(ChangedUser))
def patch_user(
    doors: AtDoors,
    user: Supervisor,
    user_id: str,
    body: Annotated[ChangedUser, Depends(json_body(ChangedUser))],
) -> Response:
    """Change a person's role, or lock them out; it holds from their next request on."""
    changed = doors.users.change(
        user_id,
        doors.clock.wall(),
        audit_by=user.user_id,
        role=body.role,
        active=body.active,
    )
    return answer(changed)


@router.post("/{user_id}/tokens", status_code=201, openapi_extra=json_document(NewToken))
def post_user_token(
    doors: AtDoors,
    user: Supervisor,
    user_id: str,
    body: Annotated[NewToken, Depends(json_body(NewToken))],
) -> Response:
    """Make a token for a person; its secret is in this answer and nowhere else."""
    return answer(issued_view(issue_token(doors, user_id, body, user)), 201)
