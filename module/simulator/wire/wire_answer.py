"""What goes back over the wire: an answer, and how (or whether) it reaches the client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import orjson


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """Status, body and headers of one HTTP answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


class Ending(StrEnum):
    """How an exchange of one request ends."""

    ANSWERED = "answered"
    """The client gets the whole answer."""
    RESET = "reset"
    """The connection is reset without a byte."""
    SILENT = "silent"
    """The client gets nothing, until it gives up."""
    CUT = "cut"
    """Half of the answer, then the connection is reset."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client gets, decided without a socket: whoever carries it waits `delay_s` first."""

    answer: WireAnswer
    ending: Ending = Ending.ANSWERED
    delay_s: float = 0.0


def envelope(
    now_ms: int,
    data: object,
    code: str = "00000",
    message: str = "success",
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> WireAnswer:
    """Bitget's envelope around `data`."""
    body = orjson.dumps({"code": code, "msg": message, "requestTime": now_ms, "data": data})
    return WireAnswer(status, body, headers or {})
