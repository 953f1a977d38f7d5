"""`aifap tearsheet`: a session's tear sheet through the API, or a curve's right here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Optional

import typer
from rich.console import Console

from api.account_commands import DEFAULT_DATA, Data, TokenFile, Url, User, signed_in
from api.run_view import mapping
from module.model.errors import AifapError, InvalidInput

if TYPE_CHECKING:
    from api.client import PlatformClient
    from monitoring.tearsheets.process import Sheet

CURVE_BYTES_MAX: Final = 64 * 1024**2
PATIENCE_S: Final = 600.0
LOOK_S: Final = 0.5


def tearsheet(
    session: Annotated[Optional[str], typer.Argument(help="A session of yours.")] = None,  # noqa: UP045
    curve: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Instead: a curve document (JSON); drawn here, without the API."),
    ] = None,
    html: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the page here; default: tear-sheet-SESSION.html."),
    ] = None,
    png: Annotated[Optional[Path], typer.Option(help="Write the picture here.")] = None,  # noqa: UP045
    numbers: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--json", help="Write the numbers here."),
    ] = None,
    start: Annotated[Optional[str], typer.Option(help="From this time on (ISO 8601).")] = None,  # noqa: UP045
    end: Annotated[Optional[str], typer.Option(help="Before this time.")] = None,  # noqa: UP045
    data: Data = DEFAULT_DATA,
    user: User = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Draw returns, drawdowns, exposure, turnover, costs and the numbers of them."""
    if (session is None) == (curve is None):
        raise AifapError("say whose tear sheet: a SESSION, or --curve FILE")
    if curve is not None and (start or end):
        raise AifapError("--start and --end go with a session")
    if html is None and png is None and numbers is None:
        html = Path(f"tear-sheet-{session or 'curve'}.html")
    wanted = {"html": html, "png": png, "json": numbers}
    console = Console()
    if curve is not None:
        sheet = _draw(curve)
        parts = {"html": sheet.html, "png": sheet.png, "json": sheet.json}
    else:
        with signed_in(data, user, url, token_file) as client:
            body: dict[str, object] = {"session_id": session}
            body.update({name: text for name, text in (("start", start), ("end", end)) if text})
            job = client.post("/analysis/tear-sheets?wait=10", body)
            own = str(job["address"])
            with console.status("Drawing …"):
                _await_ready(client, own, str(job["state"]))
            parts = {
                part: b"".join(client.download(f"{own}/{part}"))
                for part, path in wanted.items()
                if path is not None
            }
    for part, path in wanted.items():
        if path is not None:
            _write(path, parts[part])
            console.print(f"[green]written[/] {path} ({len(parts[part]) / 1024:,.0f} KB)")


def _await_ready(client: PlatformClient, own: str, state: str) -> None:
    from module.clock import SystemClock

    clock = SystemClock()
    end_at = clock.monotonic() + PATIENCE_S
    while state in ("queued", "drawing"):
        if clock.monotonic() >= end_at:
            raise AifapError(f"it is not drawn after {PATIENCE_S:g} s; it goes on: {own}")
        clock.pause(LOOK_S)
        job = client.get(own)
        state = str(job["state"])
        if state == "failed":
            raise AifapError(str(mapping(job["problem"])["detail"]))
    if state != "ready":
        raise AifapError(f"the tear sheet was {state}")


def _draw(path: Path) -> Sheet:
    """In a process of its own, as the API does it."""
    import tempfile

    from pydantic import ValidationError

    from api.dependencies import parse_json
    from api.problems import invalid_fields
    from module.clock import SystemClock
    from monitoring.tearsheets.document import CurveDocument
    from monitoring.tearsheets.process import draw_sheet

    try:
        with path.open("rb") as file:
            raw = file.read(CURVE_BYTES_MAX + 1)
    except OSError as error:
        raise AifapError(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > CURVE_BYTES_MAX:
        raise InvalidInput(f"{path} is longer than {CURVE_BYTES_MAX} bytes")
    try:
        document = CurveDocument.model_validate(parse_json(raw))
    except ValidationError as error:
        raise invalid_fields(error) from error
    with tempfile.TemporaryDirectory(prefix="aifap-tearsheet-") as scratch:
        return draw_sheet(
            document.model_dump_json().encode(), Path(scratch), SystemClock(), lambda: False
        )


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise AifapError(f"{path} cannot be written: {error.strerror}") from error
