"""Bitget's wire protocol as a raw ASGI application over one `Venue`.

    request → clock brought up to date → route → key, signature → limits → (fault before)
            → Venue.execute → (edits of the data) → envelope → (fault after) → reply

Everything between two awaits happens at one world time.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from urllib.parse import parse_qsl

from module.simulator.engine.engine_types import NEVER_MS
from module.simulator.faults.fault_desk import FaultCase
from module.simulator.venue import Call, Endpoint, Venue
from module.simulator.wire.bitget_auth import (
    TIMESTAMP_WINDOW_MS,
    ApiKey,
    SignedRequest,
    authenticate,
    check_receive_window,
    require_authority,
)
from module.simulator.wire.bitget_codes import (
    CLASSIC_ACCOUNT,
    TOO_MANY_REQUESTS,
    UNKNOWN_PATH,
    WireError,
)
from module.simulator.wire.bitget_params import Params, read_body
from module.simulator.wire.wire_answer import Ending, Reply, WireAnswer, envelope

Message = MutableMapping[str, object]
Scope = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

TRANSPORT_EXTENSION = "aifap.transport"
"""Scope extension with the connection's transport, so that a scripted fault can reset it."""
BODY_BYTES_MAX = 1 << 20
ADDRESS_LIMIT_PER_MINUTE = 6000
ADDRESS_BLOCK_MS = 5 * 60_000
SERVER_TIME = "/api/v2/public/time"
STAMP_EXPIRED = "40008"
WINDOW_MISSED = "40078"
_UNIFIED_PREFIXES = ("/api/v3/account/", "/api/v3/trade/", "/api/v3/position/")

_log = logging.getLogger(__name__)


class Present(Protocol):
    """What brings world time up to date before a request is served."""

    def sync(self) -> int:
        """World time now, milliseconds."""
        ...


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One HTTP request, read whole."""

    signed: SignedRequest
    address: str
    transport: asyncio.Transport | None

    @property
    def path(self) -> str:
        """The path as it was sent."""
        return self.signed.path


class RequestLimits:
    """Counts requests per endpoint and caller within a world second, and per address a minute."""

    def __init__(self, address_limit_per_minute: int) -> None:
        self._seconds: dict[tuple[str, str], tuple[int, int]] = {}
        self._minutes: dict[str, tuple[int, int]] = {}
        self._blocked_until_ms: dict[str, int] = {}
        self._address_limit = address_limit_per_minute

    def admit_address(self, address: str, now_ms: int) -> bool:
        """Whether the address may ask at all; too many requests in a minute block it for five."""
        if now_ms < self._blocked_until_ms.get(address, 0):
            return False
        minute, used = self._minutes.get(address, (0, 0))
        this_minute = now_ms // 60_000
        used = used + 1 if minute == this_minute else 1
        self._minutes[address] = (this_minute, used)
        if used > self._address_limit:
            self._blocked_until_ms[address] = now_ms + ADDRESS_BLOCK_MS
            return False
        return True

    def admit(self, endpoint: Endpoint, caller: str, now_ms: int) -> int | None:
        """How many requests are left in this second after this one; None: it is one too many."""
        key = (endpoint.name, caller)
        second, used = self._seconds.get(key, (0, 0))
        this_second = now_ms // 1000
        used = used + 1 if second == this_second else 1
        if used > endpoint.limit_per_s:
            return None
        self._seconds[key] = (this_second, used)
        return endpoint.limit_per_s - used


class NoLimits(RequestLimits):
    """Lets everybody ask as often as they like: for load tests, never for honest paper trading."""

    def __init__(self) -> None:
        super().__init__(0)

    def admit_address(self, address: str, now_ms: int) -> bool:
        """Always."""
        return True

    def admit(self, endpoint: Endpoint, caller: str, now_ms: int) -> int | None:
        """As the first request of a second."""
        return endpoint.limit_per_s - 1


class BitgetApp:
    """The ASGI application; see the module's docstring."""

    def __init__(
        self,
        venue: Venue,
        present: Present,
        wall: Callable[[], datetime],
        *,
        failed: Callable[[BaseException], None],
        limits: RequestLimits | None = None,
    ) -> None:
        self._venue = venue
        self._present = present
        self._wall = wall
        self._failed = failed
        self._limits = limits or RequestLimits(ADDRESS_LIMIT_PER_MINUTE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await read_request(scope, receive)
        if request is None:
            await send_answer(send, WireAnswer(413, b""))
            return
        await send_reply(self.serve(request), request.transport, receive, send)

    def serve(self, request: WireRequest) -> Reply:
        """Do what the request asks; what the client gets. No socket and no waiting is involved,
        so that a simulation may call it in its own time.
        """
        now_ms = self._present.sync()
        headers: dict[str, str] = {}
        case: FaultCase | None = None
        data: object = None
        skew_ms = self._venue.faults.skew_ms()
        try:
            if not self._limits.admit_address(request.address, now_ms):
                raise WireError(*TOO_MANY_REQUESTS, status=429)
            endpoint = self._route(request)
            key = self._caller(endpoint, request, now_ms + skew_ms)
            params = self._words(request)
            account_id = "" if key is None else key.account_id
            faults = self._venue.faults
            case = faults.open_case(request.path, endpoint.name, account_id, params)
            if case is not None:
                early = case.before(functools.partial(self._patience_ms, endpoint, request, params))
                if early is not None:
                    return early
                params = case.params
            left = self._limits.admit(endpoint, self._who(key, request), now_ms)
            headers["x-mbx-used-remain-limit"] = str(left or 0)
            if left is None:
                raise WireError(*TOO_MANY_REQUESTS, status=429)
            data = self._execute(endpoint, key, params, now_ms + skew_ms)
            shown = data if case is None else case.edit(data)
            if skew_ms and endpoint.path == SERVER_TIME:
                shown = {"serverTime": str(now_ms + skew_ms)}
                faults.skew_changed()
            answer = self._envelope(now_ms + skew_ms, shown, headers, case)
        except WireError as error:
            if skew_ms and error.code in (STAMP_EXPIRED, WINDOW_MISSED):
                self._venue.faults.skew_changed()
            answer = envelope(
                now_ms + skew_ms,
                None,
                error.code,
                error.message,
                status=error.status,
                headers=headers,
            )
        except Exception as error:  # noqa: BLE001  (a bug: the world stops, the caller is told)
            _log.critical("%s broke the simulator", request.path, exc_info=error)
            self._failed(error)
            return Reply(envelope(now_ms, None, "50000", "the simulator stops", status=500))
        return Reply(answer) if case is None else case.after(answer, data)

    def _route(self, request: WireRequest) -> Endpoint:
        endpoint = self._venue.endpoints.get(f"{request.signed.method} {request.path}")
        if endpoint is not None:
            return endpoint
        if request.path.startswith(_UNIFIED_PREFIXES):
            raise WireError(*CLASSIC_ACCOUNT)
        raise WireError(*UNKNOWN_PATH, status=404)

    def _caller(self, endpoint: Endpoint, request: WireRequest, now_ms: int) -> ApiKey | None:
        """The key behind a private request; public ones ignore authentication headers."""
        if endpoint.authority is None:
            return None
        key = self._signer(request.signed, now_ms)
        require_authority(key, endpoint.authority)
        return key

    def _signer(self, signed: SignedRequest, now_ms: int) -> ApiKey:
        """Whose request it is."""
        return authenticate(signed, self._venue.keys, now_ms, self._wall_ms())

    def _words(self, request: WireRequest) -> Params:
        """What the request says, in its query or its body."""
        return _read_params(request.signed)

    def _envelope(
        self, now_ms: int, shown: object, headers: Mapping[str, str], case: FaultCase | None
    ) -> WireAnswer:
        """What a served request is answered with; `case`: the rules that have hit it."""
        return envelope(now_ms, shown, headers=headers)

    def _who(self, key: ApiKey | None, request: WireRequest) -> str:
        return request.address if key is None else key.account_id

    def _execute(
        self, endpoint: Endpoint, key: ApiKey | None, params: Params, now_ms: int
    ) -> object:
        if endpoint.receive_window:
            check_receive_window(params, now_ms, self._wall_ms())
        account_id = "" if key is None else key.account_id
        return self._venue.execute(endpoint, Call(self._venue.engine, account_id, params, key))

    def _patience_ms(self, endpoint: Endpoint, request: WireRequest, params: Params) -> int:
        """For how long from now on the exchange would still take this request."""
        now_ms = self._venue.now_ms + self._venue.faults.skew_ms()
        wall_ms = self._wall_ms()
        limits: list[int] = []
        stamp = request.signed.headers.get("access-timestamp", "")
        if endpoint.authority is not None and stamp.isdigit():
            limits.append(TIMESTAMP_WINDOW_MS - _age_ms(int(stamp), now_ms, wall_ms))
        sent_ms, window_ms = params.optional_ms("requestTime"), params.optional_ms("receiveWindow")
        if endpoint.receive_window and sent_ms is not None and window_ms is not None:
            limits.append(window_ms - _age_ms(sent_ms, now_ms, wall_ms))
        return min(limits, default=NEVER_MS)

    def _wall_ms(self) -> int:
        """Real time, as far ahead as a scripted fault has moved the exchange's clock."""
        return int(self._wall().timestamp() * 1000) + self._venue.faults.skew_ms()


async def read_request(scope: Scope, receive: Receive) -> WireRequest | None:
    """The whole request; None when its body is too large."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        chunk = message.get("body", b"")
        body += chunk if isinstance(chunk, bytes) else b""
        if len(body) > BODY_BYTES_MAX:
            return None
        if not message.get("more_body"):
            break
    raw_headers, client = scope.get("headers"), scope.get("client")
    headers: dict[str, str] = {}
    if isinstance(raw_headers, list):
        headers = {name.decode("latin-1"): text.decode("latin-1") for name, text in raw_headers}
    extensions = scope.get("extensions")
    transport = extensions.get(TRANSPORT_EXTENSION) if isinstance(extensions, dict) else None
    raw_path, query = scope.get("raw_path"), scope.get("query_string")
    return WireRequest(
        signed=SignedRequest(
            method=str(scope.get("method")),
            path=raw_path.decode("latin-1") if isinstance(raw_path, bytes) else "",
            query=query.decode("latin-1") if isinstance(query, bytes) else "",
            body=body,
            headers=headers,
        ),
        address=str(client[0]) if isinstance(client, tuple) else "",
        transport=transport,
    )


async def send_answer(send: Send, answer: WireAnswer) -> None:
    """Write it."""
    headers = {
        "content-type": answer.content_type,
        "content-length": str(len(answer.body)),
        **answer.headers,
    }
    encoded = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
    await send({"type": "http.response.body", "body": answer.body})


async def send_reply(
    reply: Reply, transport: asyncio.Transport | None, receive: Receive, send: Send
) -> None:
    """Carry a reply over its connection: late, whole, cut off, or not at all."""
    if reply.delay_s:
        await asyncio.sleep(reply.delay_s)
    if reply.ending is Ending.ANSWERED:
        await send_answer(send, reply.answer)
        return
    if reply.ending is Ending.CUT:
        await _send_half(send, reply.answer)
    if reply.ending is not Ending.SILENT and transport is not None:
        reset(transport)
    while (await receive())["type"] != "http.disconnect":
        continue


async def _send_half(send: Send, answer: WireAnswer) -> None:
    """Promise the whole answer and write its first half."""
    length = str(len(answer.body)).encode()
    headers = [(b"content-type", answer.content_type.encode()), (b"content-length", length)]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    half = answer.body[: len(answer.body) // 2]
    await send({"type": "http.response.body", "body": half, "more_body": True})
    await asyncio.sleep(0)


def reset(transport: asyncio.Transport) -> None:
    """End a connection so that the other side sees a reset, not an orderly end."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _age_ms(stamp_ms: int, world_ms: int, wall_ms: int) -> int:
    """How old a stamp is by the clock that it was read from: the nearer one."""
    return min(abs(stamp_ms - world_ms), abs(stamp_ms - wall_ms))


def _read_params(request: SignedRequest) -> Params:
    """The query's words, or the JSON body's; a POST without a body may use the query."""
    if request.method == "GET" or not request.body:
        return Params(dict(parse_qsl(request.query, keep_blank_values=True)))
    return read_body(request.body)
