"""A light load: signed requests over keep-alive connections, one at a time on each.

Everything that costs time (signing, spelling) is done before the clock starts, so that what is
measured is the server and the sockets. One thread, one event loop.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import statistics
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

SUCCESS = b'"code":"00000"'
ANSWER_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Keys:
    """Of the account that asks."""

    api_key: str
    api_secret: str
    passphrase: str


@dataclass(frozen=True, slots=True)
class Load:
    """What a run found; seconds of each request, and how many were refused."""

    connections: int
    elapsed_s: float
    times_s: Sequence[float] = field(repr=False)
    refused: int = 0

    @property
    def per_second(self) -> float:
        return len(self.times_s) / self.elapsed_s

    def percentile_ms(self, percent: int) -> float:
        return statistics.quantiles(self.times_s, n=100)[percent - 1] * 1000

    def line(self) -> str:
        return (
            f"{self.per_second:8.0f} /s   p50 {self.percentile_ms(50):6.2f} ms   "
            f"p99 {self.percentile_ms(99):6.2f} ms"
        )


def signed(
    keys: Keys, method: str, path: str, body: Mapping[str, str] | None = None, query: str = ""
) -> bytes:
    """One request as it goes over the wire, signed now (good for half a minute)."""
    text = "" if body is None else json.dumps(body, separators=(",", ":"))
    target = f"{path}?{query}" if query else path
    stamp = str(int(time.time() * 1000))
    proof = hmac.new(
        keys.api_secret.encode(), f"{stamp}{method}{target}{text}".encode(), hashlib.sha256
    ).digest()
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: 127.0.0.1",
        f"ACCESS-KEY: {keys.api_key}",
        f"ACCESS-SIGN: {base64.b64encode(proof).decode()}",
        f"ACCESS-TIMESTAMP: {stamp}",
        f"ACCESS-PASSPHRASE: {keys.passphrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(text)}",
    ]
    return ("\r\n".join(lines) + f"\r\n\r\n{text}").encode()


def market_orders(keys: Keys, count: int) -> list[bytes]:
    """`count` signed market orders of 0.001 BTC, buys and sells in turn."""
    return [
        signed(
            keys,
            "POST",
            "/api/v2/mix/order/place-order",
            {
                "symbol": "BTCUSDT",
                "productType": "USDT-FUTURES",
                "marginCoin": "USDT",
                "marginMode": "crossed",
                "orderType": "market",
                "side": ("buy", "sell")[number % 2],
                "size": "0.001",
            },
        )
        for number in range(count)
    ]


def run_load(port: int, requests: Sequence[bytes], connections: int) -> Load:
    """Send all of `requests` over so many connections; returns when each has its answer."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(port, requests, connections))


async def _run(port: int, requests: Sequence[bytes], connections: int) -> Load:
    waiting = deque(requests)
    times: list[float] = []
    refused: list[bytes] = []
    loop = asyncio.get_running_loop()
    callers = []
    for _ in range(connections):
        _, caller = await loop.create_connection(
            lambda: _Caller(waiting, times, refused), "127.0.0.1", port
        )
        callers.append(caller)
    started = time.perf_counter()
    for caller in callers:
        caller.begin()
    await asyncio.wait_for(
        asyncio.gather(*(caller.done for caller in callers)),
        ANSWER_TIMEOUT_S + len(requests) / 100,
    )
    elapsed = time.perf_counter() - started
    if refused:
        print(f"  {len(refused)} refused, the first: {refused[0][-300:]!r}")
    return Load(connections, elapsed, times, len(refused))


class _Caller(asyncio.Protocol):
    """One connection: asks, waits for the whole answer, asks again."""

    def __init__(self, waiting: deque[bytes], times: list[float], refused: list[bytes]) -> None:
        self._waiting = waiting
        self._times = times
        self._refused = refused
        self._buffer = b""
        self._asked = 0.0
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def begin(self) -> None:
        assert self._transport is not None
        if not self._waiting:
            self._transport.close()
            self.done.set_result(None)
            return
        request = self._waiting.popleft()
        self._asked = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        self._times.append(time.perf_counter() - self._asked)
        if SUCCESS not in body:
            self._refused.append(self._buffer)
        self._buffer = b""
        self.begin()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"the server closed ({error})"))


def _length(head: bytes) -> int:
    for line in _lines(head):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


def _lines(head: bytes) -> Iterator[bytes]:
    yield from head.split(b"\r\n")[1:]
