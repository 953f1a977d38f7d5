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
async def get_live(request: Request) -> Response:
    """200 while this process is of use: it answers, and no thread that it exists for has ended.

    503: nothing but a restart helps. What others do, or fail to do, changes nothing here.
    """
    wiring: ApiWiring = request.app.state.wiring
    ended = [name for name, lives in wiring.vital.items() if not lives()]
    if ended:
        _log.error("this process must be started again: %s ended", ", ".join(ended))
        return answer({"status": "failed", "ended": ended}, 503)
    return answer({"status": "ok"})


@router.get("/ready")
def get_ready(request: Request) -> Response:
    """200 when everything this process needs answers; 503 names what does not.

    A neighbour that does not answer is named too, and no reason to keep requests from this process.
    """
    wiring: ApiWiring = request.app.state.wiring
    states: dict[str, str] = {}
    for name, probe in {**wiring.probes, **wiring.neighbours}.items():
        try:
            states[name] = "failed" if probe() is False else "ok"
        except AifapError as error:
            _log.warning("not ready, %s: %s", name, error.message)
            states[name] = "failed"
    ready = all(states[name] == "ok" for name in wiring.probes)
    return answer({"status": "ok" if ready else "failed", "checks": states}, 200 if ready else 503)
