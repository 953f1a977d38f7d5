"""The live page, read from its files at start: `/dashboard/`. Nothing from the internet."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Header, Response
from starlette.responses import RedirectResponse

from api.dependencies import AtDoors, anybody
from api.live_views import grafana_origin
from module.model.errors import NotFound

router = APIRouter(tags=["dashboard"], dependencies=[Depends(anybody)])
PAGE: Final = "index.html"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
Known = Annotated[str | None, Header(alias="If-None-Match")]


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page; `tag` changes with its content."""

    content: bytes
    media_type: str
    tag: str


def _read_files() -> dict[str, PageFile]:
    found = {}
    for entry in files("dashboards.live").iterdir():
        media_type = _TYPES.get(PurePath(entry.name).suffix)
        if media_type is not None:
            content = entry.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[entry.name] = PageFile(content, media_type, tag)
    return found


_FILES: Final = _read_files()


@router.get("/", include_in_schema=False)
@router.get("/dashboard", include_in_schema=False)
async def get_root() -> Response:
    """The page is elsewhere."""
    return RedirectResponse("/dashboard/")


@router.get("/dashboard/", include_in_schema=False)
async def get_page(doors: AtDoors, known: Known = None) -> Response:
    """The page."""
    return _file(doors.settings.grafana_url, PAGE, known)


@router.get("/dashboard/{name}", include_in_schema=False)
async def get_file(doors: AtDoors, name: str, known: Known = None) -> Response:
    """What the page is made of."""
    if name not in _FILES:
        raise NotFound("there is nothing here")
    return _file(doors.settings.grafana_url, name, known)


def content_policy(grafana_url: str) -> str:
    """What the page may load: its own files; and a frame of Grafana's, where there is one."""
    origin = grafana_origin(grafana_url)
    return f"{_CONTENT_POLICY}; frame-src {origin}" if origin else _CONTENT_POLICY


def _file(grafana_url: str, name: str, known: str | None) -> Response:
    """The file, or 304 when the browser has it: it asks each time, so that no old one is used."""
    file = _FILES[name]
    headers = {
        "Content-Security-Policy": content_policy(grafana_url),
        "Cache-Control": "no-cache",
        "ETag": file.tag,
    }
    if known == file.tag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
