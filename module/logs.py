"""Logs: one JSON object a line, world-readable by machines, never a secret.

Values under telling names are masked, and so is anything that looks like a token of ours.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, TextIO

import structlog

_SECRET_NAMES = re.compile(
    r"(secret|password|passphrase|token|api_?key|authorization|signature|ciphertext)", re.I
)
_SECRET_VALUES = re.compile(r"\b(aifap_[A-Za-z0-9_\-]{8,}|Bearer\s+\S+)")
_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}


def mask_secrets(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """structlog processor: nothing secret leaves."""
    for name, value in event.items():
        if _SECRET_NAMES.search(name):
            event[name] = "***"
        elif isinstance(value, str):
            event[name] = _SECRET_VALUES.sub("***", value)
    return event


def configure_logs(process: str, level: str = "INFO", file: TextIO | None = None) -> None:
    """All logs of this process go to `file` (default stderr) with its name on them."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            mask_secrets,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file or sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(process=process)
    logging.basicConfig(level=logging.WARNING, stream=file or sys.stderr, force=True)


def open_log(path: Path) -> TextIO:
    """Append to `path` (mode 0600), line by line."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600, exist_ok=True)
    return path.open("a", buffering=1)


def get_logger(name: str) -> Any:  # structlog binds loggers at run time
    """A logger for one room."""
    return structlog.get_logger(room=name)
