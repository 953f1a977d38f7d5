"""One sheet, one process: started niced and without secrets, fed over a pipe, waited for, bounded.

Its limits (CPU seconds, memory) are its own first act (`worker`); the time-out and the wish to stop
are watched from here. However it ends, what it was is gone with it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from module.files.atomic import make_private_folder
from module.model.errors import InvalidInput, InvariantViolated, LimitExceeded, Unavailable
from module.ports import Clock

WALL_S_MAX: Final = 300.0
LOOK_S: Final = 0.1
SHEET_BYTES_MAX: Final = 24 * 1024**2
SAID_BYTES_MAX: Final = 2_000
OUT_OF_MEMORY: Final = 77
ROOT: Final = Path(__file__).resolve().parents[2]
COMMAND: Final = (sys.executable, "-P", "-m", "monitoring.tearsheets.worker")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sheet:
    """One tear sheet: a page, a picture, and its numbers for programs."""

    html: bytes
    png: bytes
    json: bytes


class Stopped(Exception):
    """Somebody asked to stop; nothing was drawn."""


def draw_sheet(
    document: bytes,
    scratch: Path,
    clock: Clock,
    stopped: Callable[[], bool],
    *,
    command: Sequence[str] = COMMAND,
    wall_s_max: float = WALL_S_MAX,
) -> Sheet:
    """The sheet of a `CurveDocument` in JSON.

    Stopped when asked to; LimitExceeded when it takes too long or too much memory; InvalidInput
    when the document is refused; Unavailable when somebody ended the process: ask again.
    """
    make_private_folder(scratch)
    end_at = clock.monotonic() + wall_s_max
    answer = said = b""
    taken, given = os.pipe()
    try:
        process = subprocess.Popen(
            command,
            stdin=taken,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(scratch),
            cwd=scratch,
        )
    except BaseException:
        os.close(given)
        raise
    finally:
        os.close(taken)
    feeder = threading.Thread(target=_feed, args=(given, document), name="tear-sheet-feed")
    feeder.start()
    try:
        while True:
            try:
                answer, said = process.communicate(timeout=LOOK_S)
                break
            except subprocess.TimeoutExpired:
                pass
            if stopped():
                raise Stopped
            if clock.monotonic() >= end_at:
                raise LimitExceeded(
                    f"drawing took longer than {wall_s_max:g} s and was ended; "
                    "ask for a shorter range, or later",
                    code="tear-sheet-timed-out",
                )
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
        feeder.join()
    return _sheet(process.returncode, answer, said)


def _feed(given: int, document: bytes) -> None:
    """Write the document; the reader's end ends it too."""
    with contextlib.suppress(BrokenPipeError), os.fdopen(given, "wb") as pipe:
        pipe.write(document)


def _environment(scratch: Path) -> dict[str, str]:
    """Nothing of ours but where the code is."""
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(scratch),
        "PYTHONPATH": os.pathsep.join([str(ROOT)]),
        "MPLCONFIGDIR": str(scratch),
        "MPLBACKEND": "agg",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def _sheet(code: int, answer: bytes, said: bytes) -> Sheet:
    told = said[-SAID_BYTES_MAX:].decode(errors="backslashreplace")
    if code == OUT_OF_MEMORY or (code != 0 and "MemoryError" in told):
        raise LimitExceeded(
            "drawing needed more memory than it may use; ask for a shorter range",
            code="tear-sheet-too-large",
        )
    if code == -signal.SIGXCPU:
        raise LimitExceeded(
            "drawing needed more computing time than it may use; ask for a shorter range",
            code="tear-sheet-too-large",
        )
    if code < 0:
        raise Unavailable(
            f"the process that drew it was ended from outside ({signal.Signals(-code).name}); "
            "ask again",
            retry_after_s=5.0,
        )
    head, _, rest = answer.partition(b"\n")
    try:
        lengths = json.loads(head)
    except ValueError as error:
        _log.error("a tear sheet could not be drawn (exit code %s): %s", code, told)
        raise InvariantViolated("the tear sheet could not be drawn; it was logged") from error
    if "refused" in lengths:
        raise InvalidInput(f"the curve is not valid: {lengths['refused']}")
    parts = []
    for name in ("html", "png", "json"):
        parts.append(rest[: lengths[name]])
        rest = rest[lengths[name] :]
    if sum(map(len, parts)) > SHEET_BYTES_MAX or rest:
        raise InvariantViolated(f"a tear sheet has more than {SHEET_BYTES_MAX} bytes")
    return Sheet(*parts)
