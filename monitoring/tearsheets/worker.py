"""The process that draws one tear sheet: limits first, then one document in, one sheet out.

    standard input: CurveDocument as JSON ─► frames ─► figures ─► charts ─► standard output

It has no secret, no database, no network of its own; what it may use is limited before the heavy
libraries are loaded. Anything it refuses is told as JSON, so that the other end need not guess.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from typing import Final

from module.life_line import end_with_starter
from monitoring.tearsheets.process import OUT_OF_MEMORY

CPU_S: Final = 60
CPU_GRACE_S: Final = 5
MEMORY_BYTES: Final = 2 * 1024**3
FILE_BYTES: Final = 32 * 1024**2
FILES: Final = 64
NICENESS: Final = 5
DOCUMENT_BYTES_MAX: Final = 64 * 1024**2


def main() -> int:
    """Draw the document on standard input. 0: the sheet, or the reason why not, was written."""
    end_with_starter()
    limit_itself()
    raw = sys.stdin.buffer.read(DOCUMENT_BYTES_MAX + 1)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no part of the sheet
    try:
        with out:
            out.write(draw(raw))
    except MemoryError:
        return OUT_OF_MEMORY
    return 0


def limit_itself() -> None:
    """CPU seconds, memory, file sizes; for good. Already lower limits stay."""
    os.nice(NICENESS)
    for kind, wanted in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        highest = resource.getrlimit(kind)[1]
        value = wanted if highest == resource.RLIM_INFINITY else min(wanted, highest)
        # The CPU limit speaks (SIGXCPU) before it kills, so that the reason can be told.
        hard = value + CPU_GRACE_S if kind == resource.RLIMIT_CPU else value
        with contextlib.suppress(ValueError, OSError):  # the lower limit stays then
            resource.setrlimit(kind, (value, hard))


def draw(raw: bytes) -> bytes:
    """One line of JSON that says how long each part is, then page, picture, numbers; or one line
    with `refused`: what is wrong with the document."""
    import warnings

    from pydantic import ValidationError

    from monitoring.tearsheets.document import CurveDocument

    if len(raw) > DOCUMENT_BYTES_MAX:
        return _refusal(f"the document is longer than {DOCUMENT_BYTES_MAX} bytes")
    try:
        document = CurveDocument.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        return _refusal(f"{where}: {first['msg']}")
    warnings.simplefilter("ignore")  # pyfolio's remarks on what is not installed
    from monitoring.tearsheets.charts.drawing import draw_all, draw_picture
    from monitoring.tearsheets.figures.measure import measure
    from monitoring.tearsheets.frames import build_frames
    from monitoring.tearsheets.page import numbers, render

    frames = build_frames(document)
    figures = measure(frames)
    page = render(frames, figures, draw_all(frames, figures)).encode()
    picture = draw_picture(frames, figures)
    told = json.dumps(numbers(frames, figures), allow_nan=False).encode()
    head = {"html": len(page), "png": len(picture), "json": len(told)}
    return json.dumps(head).encode() + b"\n" + page + picture + told


def _refusal(reason: str) -> bytes:
    return json.dumps({"refused": reason[:500]}).encode() + b"\n"


if __name__ == "__main__":
    raise SystemExit(main())
