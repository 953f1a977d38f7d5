"""Strategies in, and out again: `/upload`. Nothing that is uploaded is run here."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.answers import answer
from api.dependencies import AtDoors, SignedIn, json_body, json_document
from api.schemas import StrategyUpload
from module.db.repositories.audit import AuditEntry
from module.files.strategy_store import StrategyVersion

router = APIRouter(prefix="/upload", tags=["upload"])
HIDES = "; you now run it instead of the built-in one of that name"
UploadBody = Annotated[StrategyUpload, Depends(json_body(StrategyUpload))]


@router.post("/strategies", status_code=201, openapi_extra=json_document(StrategyUpload))
def post_strategy(doors: AtDoors, user: SignedIn, body: UploadBody) -> Response:
    """Keep a version of a strategy; the next session that names it runs this one."""
    built_in = [each.name for each in doors.strategies.list_for(user.user_id) if each.built_in]
    version = doors.strategies.save(
        user.user_id, body.name, body.source.encode("utf-8"), body.config
    )
    doors.audit.record(
        AuditEntry(
            user.user_id,
            "strategy-upload",
            version.name,
            doors.clock.wall(),
            {"digest": version.digest},
        )
    )
    return answer(
        {
            "message": f"strategy {version.name} saved"
            + (HIDES if version.name in built_in else ""),
            "strategy_name": version.name,
            "digest": version.digest,
        },
        201,
    )


@router.get("/strategies")
def get_strategies(doors: AtDoors, user: SignedIn) -> Response:
    """What one can run: one's own, then the built-in ones."""
    return answer({"strategies": doors.strategies.list_for(user.user_id)})


@router.get("/strategies/{name}")
def get_strategy(doors: AtDoors, user: SignedIn, name: str, digest: str | None = None) -> Response:
    """One version (default: the newest) of a strategy of one's own, or of a built-in."""
    return answer(_found(doors, user, name, digest))


def _found(doors: AtDoors, user: SignedIn, name: str, digest: str | None) -> StrategyVersion:
    if digest is None:
        return doors.strategies.latest(user.user_id, name)
    return doors.strategies.read_version(user.user_id, name, digest)
