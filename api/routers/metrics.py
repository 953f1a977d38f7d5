"""What Prometheus reads of this process: `/metrics`, for the bearer of a scraper's token."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Depends, Request, Response

from api.dependencies import scraper_only
from api.telemetry.board import Board

router = APIRouter(tags=["metrics"], dependencies=[Depends(scraper_only)])
TEXT_FORMAT: Final = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/metrics", include_in_schema=False)
def get_metrics(request: Request) -> Response:
    """The numbers of this process and, on the platform, of the installation."""
    board: Board = request.app.state.board
    return Response(board.spell(), media_type=TEXT_FORMAT)
