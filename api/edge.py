"""The outer wall of every API process: which Host, how large a body, how long it may take.

Pure ASGI, before any routing, so that no route can forget it.

    Host not ours → 421 · body too large → 413 · body too slow → 408 · else the application
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from api.problems import plain_problem

if TYPE_CHECKING:
    from module.settings import Settings

BODY_BYTES_MAX: Final = 640 * 1024  # a strategy of 256 kB, escaped as JSON, and its config
BODY_SECONDS_MAX: Final = 20.0
DRAINED_BYTES_MAX: Final = 32 * 1024 * 1024
DRAINED_SECONDS_MAX: Final = 5.0
DRAIN_SILENCE_S: Final = 0.5
CLOSING: Final = {"Connection": "close", "Cache-Control": "no-store"}
TOO_LARGE: Final = (
    f"the request body is larger than {BODY_BYTES_MAX // 1024} KiB ({BODY_BYTES_MAX} bytes), "
    "which is all that is read; send less"
)
HOST_SHOWN_MAX: Final = 80
PROBED_PATHS: Final = frozenset(
    {"/health/live", "/health/ready", "/metrics"}  # by pod address, not by name
)
SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
NO_STORE: Final = (b"cache-control", b"no-store")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def hosts_of(settings: Settings) -> frozenset[str]:
    """The Host names that this installation's doors answer to."""
    named = [settings.api_host, *settings.api_hosts, "localhost", "127.0.0.1", "::1"]
    urls = (settings.dashboard_url, settings.gateway_url, settings.market_url)
    named += [urlsplit(url).hostname or "" for url in urls if url]
    return frozenset(name.lower() for name in named if name)


class Edge:
    """ASGI middleware; `hosts` are lower-case names without port."""

    def __init__(self, app: App, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        known = _host_name(headers.get(b"host", b"")) in self._hosts
        if not known and scope["path"] not in PROBED_PATHS:
            await _refuse(421, _host_words(headers.get(b"host", b"")), scope, receive, send)
            return
        if "\0" in scope["path"]:  # Postgres keeps no NUL, and nothing is named with one
            await _refuse(
                404, "there is nothing at an address with a NUL (%00)", scope, receive, send
            )
            return
        if "\0" in unquote(scope["query_string"].decode("latin-1")):
            await _refuse(400, "a query holds no NUL (%00)", scope, receive, send)
            return
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or len(declared) > 12 or int(declared) > BODY_BYTES_MAX:
            await _refuse_rest(receive, send)
            return
        if int(declared) or b"transfer-encoding" in headers:
            try:
                async with asyncio.timeout(BODY_SECONDS_MAX):
                    body = await _read_body(receive)
            except TimeoutError:
                text = f"the request body did not arrive within {BODY_SECONDS_MAX:g} s"
                await _refuse(408, text, scope, receive, send)
                return
            if body is None:
                await _refuse_rest(receive, send)
                return
            receive = _replayed(body, receive)
        await self._app(scope, receive, _securing(send))


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body; None as soon as it is too large, whatever it said its length was."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)  # the client went away: the application sees what there is
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_BYTES_MAX:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _refuse_rest(receive: Receive, send: Send) -> None:
    """Say that the body is too large, then throw away what the client is still sending, within
    bounds: a connection that is closed meanwhile is reset, and its answer is never read."""
    answer = plain_problem(413, TOO_LARGE, CLOSING)
    start = {"type": "http.response.start", "status": 413, "headers": answer.raw_headers}
    await send(start)
    await send({"type": "http.response.body", "body": bytes(answer.body), "more_body": True})
    left = DRAINED_BYTES_MAX
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAINED_SECONDS_MAX):
            while left > 0:
                async with asyncio.timeout(DRAIN_SILENCE_S):
                    message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    break
                left -= len(message.get("body", b""))
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body in one piece, then whatever else the client has to say (that it went away)."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _securing(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = _with_security(message.get("headers", ()))
        await send(message)

    return send_with_headers


def _with_security(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept = list(headers)
    names = {name.lower() for name, _ in kept}
    kept.extend(pair for pair in SECURITY_HEADERS if pair[0] not in names)
    if NO_STORE[0] not in names:
        kept.append(NO_STORE)
    return kept


def _host_name(host: bytes) -> str:
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


def _host_words(host: bytes) -> str:
    """What a person does about a name that is not ours."""
    named = host.decode("latin-1").strip()[:HOST_SHOWN_MAX]
    return (
        f"this server does not answer for the Host {named!r}: use the address that it printed, "
        "or add the name to the setting AIFAP_API_HOSTS"
    )


async def _refuse(status: int, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    await plain_problem(status, detail, CLOSING)(scope, receive, send)
