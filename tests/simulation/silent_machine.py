"""The machine while a simulated day runs: it prints nothing and collects no garbage."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator
from typing import Any

import structlog

from trading.session import vigil

HEARTBEAT_S = 30.0


_SILENT = structlog.make_filtering_bound_logger(logging.CRITICAL)


def _nobody(words: object, given: object) -> None:
    """Nobody listens."""


def _hearing(heard: Callable[[object, object], None]) -> type[Any]:
    """A logger of structlog that prints nothing and tells `heard`."""

    def say(self: object, event: object = None, *_: object, **words: object) -> None:
        heard(event, words.get("exc_info"))

    said = dict.fromkeys(("warning", "error", "exception", "critical"), say)
    return type("Hearing", (_SILENT,), dict(said))


@contextlib.contextmanager
def silent_machine(heard: Callable[[object, object], None] = _nobody) -> Iterator[None]:
    """Nothing is printed, `heard` hears of every warning and error (its words, its `exc_info`),
    leaders look up every half minute (a signal wakes them at once), and
    garbage waits until the day is over."""
    logs, words, beat = (
        logging.root.manager.disable,
        structlog.get_config(),
        vigil.HEARTBEAT_WORLD_S,
    )
    say = logging.Logger._log

    def hear(
        self: object, level: int, message: object, args: object, exc_info: object = None, **_: Any
    ) -> None:
        heard(message, exc_info)

    logging.disable(logging.INFO)
    logging.Logger._log = hear  # type: ignore[assignment,method-assign]
    structlog.configure(wrapper_class=_hearing(heard))
    vigil.HEARTBEAT_WORLD_S = HEARTBEAT_S
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        vigil.HEARTBEAT_WORLD_S = beat
        structlog.configure(**words)
        logging.Logger._log = say  # type: ignore[method-assign]
        logging.disable(logs)
        if collects:
            gc.enable()
