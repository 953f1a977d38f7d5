"""Calls an ASGI application in this process, without a server: one request, one whole answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from starlette.types import ASGIApp, Message

ANSWER_SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class CalledAnswer:
    """Status, headers in lower case, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # tests look into it
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class AsgiClient:
    """One caller with a token (or none). Each call has an event loop of its own."""

    app: ASGIApp
    token: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> CalledAnswer:
        """GET."""
        return self.call("GET", path, headers=headers)

    def delete(self, path: str) -> CalledAnswer:
        """DELETE."""
        return self.call("DELETE", path)

    def post(self, path: str, document: object = None, **headers: str) -> CalledAnswer:
        """POST of a JSON document; header names with `_` for `-`."""
        return self.call("POST", path, document=document, headers=headers)

    def patch(self, path: str, document: object) -> CalledAnswer:
        """PATCH of a JSON document."""
        return self.call("PATCH", path, document=document)

    def call(
        self,
        method: str,
        path: str,
        *,
        document: object = None,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> CalledAnswer:
        """Any request; `raw` is a body as it is."""
        body = raw if raw is not None else b""
        sent = {"host": "127.0.0.1", **self.headers}
        if document is not None:
            body = json.dumps(document).encode()
        if body or document is not None:
            sent.setdefault("content-type", "application/json")
            sent["content-length"] = str(len(body))
        if self.token is not None:
            sent["authorization"] = f"Bearer {self.token}"
        sent.update({k.lower().replace("_", "-"): v for k, v in (headers or {}).items()})
        return asyncio.run(
            asyncio.wait_for(_call(self.app, method, path, sent, body), ANSWER_SECONDS_MAX)
        )


async def _call(
    app: ASGIApp, method: str, path: str, headers: Mapping[str, str], body: bytes
) -> CalledAnswer:
    bare, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(bare),
        "raw_path": quote(bare, safe="/%:@!$&'()*+,;=~").encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    given = False
    never = asyncio.Event()
    status = 0
    answered: dict[str, str] = {}
    parts: list[bytes] = []

    async def receive() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        await never.wait()
        raise AssertionError("unreachable")

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            answered.update({k.decode().lower(): v.decode() for k, v in message["headers"]})
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    try:
        await app(scope, receive, send)
    except Exception:
        # The server-error middleware answers first and raises on, for the server's log.
        if status != 500:
            raise
    return CalledAnswer(status, answered, b"".join(parts))
