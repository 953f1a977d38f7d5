"""Whether this process lives and whether it can work: `/health`."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Depends, Request, Response

from api.answers import answer
from api.dependencies import anybody
from api.wiring import ApiWiring
from module.model.errors import AifapError

router = APIRouter(prefix="/health", tags=["health"], dependencies=[Depends(anybody)])
_log = logging.getLogger(__name__)


@router.get("/live")
async def get_live() -> Response:
    """This process answers."""
    return answer({"status": "ok"})


@router.get("/ready")
def get_ready(request: Request) -> Response:
    """200 when everything this process needs answers; 503 names what does not."""
    wiring: ApiWiring = request.app.state.wiring
    states: dict[str, str] = {}
    for name, probe in wiring.probes.items():
        try:
            states[name] = "failed" if probe() is False else "ok"
        except AifapError as error:
            _log.warning("not ready, %s: %s", name, error.message)
            states[name] = "failed"
    ready = "failed" not in states.values()
    return answer({"status": "ok" if ready else "failed", "checks": states}, 200 if ready else 503)
