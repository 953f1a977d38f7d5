"""The live page, read from its three files at start: `/dashboard/`. Nothing from the internet."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Depends, Response
from starlette.responses import RedirectResponse

from api.dependencies import anybody
from module.model.errors import NotFound

router = APIRouter(tags=["dashboard"], dependencies=[Depends(anybody)])
PAGE: Final = "index.html"
_TYPES: Final = {
    PAGE: "text/html; charset=utf-8",
    "live.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
}
_CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILES: Final = {name: (files("dashboards.live") / name).read_bytes() for name in _TYPES}


@router.get("/", include_in_schema=False)
async def get_root() -> Response:
    """The page is elsewhere."""
    return RedirectResponse("/dashboard/")


@router.get("/dashboard/", include_in_schema=False)
async def get_page() -> Response:
    """The page."""
    return _file(PAGE)


@router.get("/dashboard/{name}", include_in_schema=False)
async def get_file(name: str) -> Response:
    """What the page is made of."""
    if name not in _FILES:
        raise NotFound("there is nothing here")
    return _file(name)


def _file(name: str) -> Response:
    headers = {"Content-Security-Policy": _CONTENT_POLICY, "Cache-Control": "no-cache"}
    return Response(_FILES[name], media_type=_TYPES[name], headers=headers)
