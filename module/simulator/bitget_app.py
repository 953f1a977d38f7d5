"""Bitget's wire protocol as a raw ASGI application over one `Venue`.

    request → clock brought up to date → route → key, signature → limits → (fault before)
            → Venue.execute → envelope → (fault after) → answer

Everything between two awaits happens at one world time.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Protocol
from urllib.parse import parse_qsl

import orjson

from module.simulator.bitget_auth import (
    ApiKey,
    SignedRequest,
    authenticate,
    check_receive_window,
    require_authority,
)
from module.simulator.bitget_codes import (
    CLASSIC_ACCOUNT,
    TOO_MANY_REQUESTS,
    UNKNOWN_PATH,
    WireError,
)
from module.simulator.bitget_params import Params
from module.simulator.faults import FaultAnswer, FaultMoment, FaultRule
from module.simulator.venue import Call, Endpoint, Venue

Message = MutableMapping[str, object]
Scope = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

TRANSPORT_EXTENSION = "aifap.transport"
"""Scope extension with the connection's transport, so that a scripted fault can reset it."""
BODY_BYTES_MAX = 1 << 20
ADDRESS_LIMIT_PER_MINUTE = 6000
ADDRESS_BLOCK_MS = 5 * 60_000
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


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """What goes back."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


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


class BitgetApp:
    """The ASGI application; see the module's docstring."""

    def __init__(
        self,
        venue: Venue,
        present: Present,
        wall: Callable[[], datetime],
        *,
        failed: Callable[[BaseException], None],
        address_limit_per_minute: int = ADDRESS_LIMIT_PER_MINUTE,
    ) -> None:
        self._venue = venue
        self._present = present
        self._wall = wall
        self._failed = failed
        self._limits = RequestLimits(address_limit_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await read_request(scope, receive)
        if request is None:
            await send_answer(send, WireAnswer(413, b""))
            return
        rule, answer = self._serve(request)
        if rule is None:
            await send_answer(send, answer)
        else:
            await misbehave(rule, answer, request, receive, send)

    def _serve(self, request: WireRequest) -> tuple[FaultRule | None, WireAnswer]:
        """The answer, and the fault that spoils it."""
        now_ms = self._present.sync()
        headers: dict[str, str] = {}
        rule: FaultRule | None = None
        try:
            if not self._limits.admit_address(request.address, now_ms):
                raise WireError(*TOO_MANY_REQUESTS, status=429)
            endpoint = self._route(request)
            key = self._caller(endpoint, request, now_ms)
            params = _read_params(request.signed)
            rule = self._fault(request, key, params, now_ms)
            if rule is not None and rule.moment is FaultMoment.BEFORE:
                self._venue.fault_fired(rule)
                if rule.answer is not FaultAnswer.HONEST:
                    return rule, _envelope(now_ms, None)
            left = self._limits.admit(endpoint, self._who(key, request), now_ms)
            headers["x-mbx-used-remain-limit"] = str(left or 0)
            if left is None:
                raise WireError(*TOO_MANY_REQUESTS, status=429)
            data = self._execute(endpoint, key, params, now_ms)
            answer = _envelope(now_ms, data, headers=headers)
        except WireError as error:
            answer = _envelope(
                now_ms, None, error.code, error.message, status=error.status, headers=headers
            )
        except Exception as error:  # noqa: BLE001  (a bug: the world stops, the caller is told)
            _log.critical("%s broke the simulator", request.path, exc_info=error)
            self._failed(error)
            return None, _envelope(now_ms, None, "50000", "the simulator stops", status=500)
        if rule is not None and rule.moment is FaultMoment.AFTER:
            self._venue.fault_fired(rule)
        return rule, answer

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
        key = authenticate(request.signed, self._venue.keys, now_ms, self._wall_ms())
        require_authority(key, endpoint.authority)
        return key

    def _who(self, key: ApiKey | None, request: WireRequest) -> str:
        return request.address if key is None else key.account_id

    def _fault(
        self, request: WireRequest, key: ApiKey | None, params: Params, now_ms: int
    ) -> FaultRule | None:
        if not self._venue.faults.rules:
            return None
        symbol = params.values.get("symbol")
        return self._venue.faults.due(
            request.path,
            "" if key is None else key.account_id,
            symbol.upper() if isinstance(symbol, str) else "",
            now_ms,
        )

    def _execute(
        self, endpoint: Endpoint, key: ApiKey | None, params: Params, now_ms: int
    ) -> object:
        if endpoint.receive_window:
            check_receive_window(params, now_ms, self._wall_ms())
        account_id = "" if key is None else key.account_id
        return self._venue.execute(endpoint, Call(self._venue.engine, account_id, params, key))

    def _wall_ms(self) -> int:
        return int(self._wall().timestamp() * 1000)


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


async def misbehave(
    rule: FaultRule, honest: WireAnswer, request: WireRequest, receive: Receive, send: Send
) -> None:
    """Give the client what `rule` says instead of the honest answer."""
    if rule.delay_s:
        await asyncio.sleep(rule.delay_s)
    match rule.answer:
        case FaultAnswer.HONEST:
            await send_answer(send, honest)
        case FaultAnswer.DROP | FaultAnswer.HANG:
            if rule.answer is FaultAnswer.DROP and request.transport is not None:
                request.transport.abort()
            while (await receive())["type"] != "http.disconnect":
                continue
        case FaultAnswer.STATUS:
            headers = {} if rule.retry_after_s is None else {"retry-after": str(rule.retry_after_s)}
            text = rule.body or f"<html>{rule.status}</html>"
            await send_answer(send, WireAnswer(rule.status, text.encode(), headers, "text/html"))
        case FaultAnswer.CODE:
            loaded = orjson.loads(honest.body)
            body = {**loaded, "code": rule.code, "msg": rule.message, "data": None}
            await send_answer(send, WireAnswer(400, orjson.dumps(body), honest.headers))
        case FaultAnswer.TRUNCATE:
            half = honest.body[: len(honest.body) // 2]
            await send_answer(send, WireAnswer(200, half, honest.headers))
        case FaultAnswer.BODY:
            await send_answer(send, WireAnswer(200, rule.body.encode(), honest.headers))


def _envelope(
    now_ms: int,
    data: object,
    code: str = "00000",
    message: str = "success",
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> WireAnswer:
    body = orjson.dumps({"code": code, "msg": message, "requestTime": now_ms, "data": data})
    return WireAnswer(status, body, headers or {})


def _read_params(request: SignedRequest) -> Params:
    """The query's words, or the JSON body's; a POST without a body may use the query."""
    if request.method == "GET" or not request.body:
        return Params(dict(parse_qsl(request.query, keep_blank_values=True)))
    try:
        loaded = json.loads(request.body, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise WireError("40020", "Parameter body error: not valid JSON") from error
    if not isinstance(loaded, dict):
        raise WireError("40020", "Parameter body error: not a JSON object")
    return Params(loaded)
