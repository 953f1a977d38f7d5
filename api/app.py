"""The one FastAPI factory: which doors it opens is the wiring's choice.

    Metered ─► Edge (host, body) ─► problems ─► routers: health │ metrics │ platform │ gateway │ …

The application refuses to be built with a route that has no declared policy.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from fastapi import APIRouter, Depends, FastAPI
from starlette.concurrency import run_in_threadpool

from api.dependencies import (
    Supervisor,
    build_doors,
    check_policies,
    grant_only,
    known_parameters,
)
from api.edge import Edge, hosts_of
from api.openapi import with_problems
from api.problems import install_problems
from api.routers import health, metrics
from api.telemetry.board import Board
from api.telemetry.requests import LagProbe, Metered
from api.wiring import ApiWiring

TITLE: Final = "AIFAP"
VERSION: Final = "1"


def create_app(wiring: ApiWiring) -> FastAPI:
    """The application of one process. Opens no connection; background work starts with it."""

    board = Board(wiring)
    lag = LagProbe(board.requests)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        started = []
        try:
            lag.start()
            for work in wiring.background:
                await run_in_threadpool(work.start)
                started.append(work)
            yield
        finally:
            lag.stop()
            for work in reversed(started):
                await run_in_threadpool(work.stop)

    app = FastAPI(
        title=TITLE,
        version=VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.wiring = wiring
    app.state.token_key = wiring.token_key
    app.state.doors = None
    app.state.board = board
    install_problems(app)
    app.include_router(health.router)
    app.include_router(metrics.router)
    if wiring.platform is not None:
        _open_platform(app, wiring)
    for router in _service_routers(wiring):
        app.include_router(router, dependencies=[Depends(grant_only)])
    check_policies(app)
    app.add_middleware(Edge, hosts=hosts_of(wiring.settings))
    app.add_middleware(Metered, metrics=board.requests)
    return app


def _open_platform(app: FastAPI, wiring: ApiWiring) -> None:
    from api.results_queries import result_places
    from api.routers import (
        accounts,
        analysis,
        auth,
        command,
        dashboard,
        logging,
        results,
        results_compare,
        results_records,
        stream,
        temp,
        upload,
        users,
    )

    app.state.doors = build_doors(wiring)
    app.state.analysis = analysis.build_analysis(wiring)
    app.state.stream_places = stream.stream_places()
    app.state.result_places = result_places()
    rooms = (
        command,
        upload,
        logging,
        temp,
        auth,
        users,
        accounts,
        results,
        results_records,
        results_compare,
        analysis,
        stream,
    )
    for room in rooms:
        app.include_router(room.router, dependencies=[Depends(known_parameters)])
    app.include_router(dashboard.router)

    @app.get("/openapi.json", include_in_schema=False)
    def get_openapi(_user: Supervisor) -> dict[str, object]:
        """What the doors take and answer, for supervisors."""
        return with_problems(app.openapi())


def _service_routers(wiring: ApiWiring) -> list[APIRouter]:
    routers = []
    if wiring.services.gateway is not None:
        from api.routers.gateway import build_router as build_gateway_router

        routers.append(build_gateway_router(wiring.services.gateway, wiring.token_key))
    if wiring.services.market is not None:
        from api.routers.market import build_router as build_market_router

        routers.append(build_market_router(wiring.services.market, wiring.token_key))
    return routers
