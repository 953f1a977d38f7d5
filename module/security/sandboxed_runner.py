"""StrategyRunner behind the wall: the trusted side of the channel to a runner child.

One child per call: a strategy keeps no state between cycles, so that a cycle can be replayed from
its journal. The child asks for bars, we answer with data cut at the decision time; then it gives
one set of weights. Time-outs are real time; what the market takes to answer does not count: the
child is there, and has come as far as it could, when the bar arrives.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from module.model.canonical import instant_text
from module.model.errors import (
    InvalidInput,
    NotFound,
    StrategyFailed,
    Unavailable,
)
from module.model.market import Candle, Frequency
from module.ports import Clock, MarketData, StrategyOutput, WindowRequest
from module.security.framing import ConnectionEnded, receive_message, send_message

ANSWER_MAX = 256 * 1024
REQUESTS_MAX = 200
CONNECT_TRIES = 50
CONNECT_PAUSE_S = 0.1
GRACE_S = 1.0


class _StopWatch:
    """Real seconds of a call, without those in which the market was asked."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started_s = clock.monotonic()

    def seconds(self) -> float:
        """So far."""
        return self._clock.monotonic() - self._started_s

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What happens inside does not count."""
        stopped_s = self._clock.monotonic()
        try:
            yield
        finally:
            self._started_s += self._clock.monotonic() - stopped_s


class SandboxedRunner:
    """Runs strategies in children of the runner host that listens at `socket_path`."""

    def __init__(
        self, socket_path: Path, clock: Clock, *, timeout_s: float, display_timezone: str
    ) -> None:
        self._socket_path = socket_path
        self._clock = clock
        self._timeout_s = timeout_s
        self._display_timezone = display_timezone

    def run(
        self, source: str, config: Mapping[str, object], at: datetime, market: MarketData
    ) -> StrategyOutput:
        """Call `strategy(context, config)` as of world time `at`.

        StrategyFailed says what the user's code did wrong; NotYet and Unavailable pass through
        from the market; Unavailable also when there is no runner host.
        """
        watch = _StopWatch(self._clock)
        with self._connect() as channel:
            request = {
                "source": source,
                "config": dict(config),
                "at": instant_text(at),
                "timezone": self._display_timezone,
            }
            try:
                send_message(channel, request)
                return self._converse(channel, at, market, watch)
            except TimeoutError as error:
                raise StrategyFailed(self._too_slow()) from error
            except ConnectionEnded as error:
                if watch.seconds() >= self._timeout_s:
                    raise StrategyFailed(self._too_slow()) from error  # its CPU limit was faster
                raise StrategyFailed(
                    "the strategy's process ended without an answer (killed by its CPU or memory "
                    "limit, or by itself); nothing is traded"
                ) from error

    def _too_slow(self) -> str:
        return f"the strategy did not answer within {self._timeout_s:g} s; nothing is traded"

    def close(self) -> None:
        """Nothing runs between calls."""

    def _connect(self) -> socket.socket:
        for _ in range(CONNECT_TRIES):
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                channel.connect(str(self._socket_path))
            except (FileNotFoundError, ConnectionRefusedError):
                channel.close()
                self._clock.pause(CONNECT_PAUSE_S)
            else:
                return channel
        raise Unavailable(f"no runner host answers at {self._socket_path}; strategies cannot run")

    def _converse(
        self, channel: socket.socket, at: datetime, market: MarketData, watch: _StopWatch
    ) -> StrategyOutput:
        windows: list[WindowRequest] = []
        for _ in range(REQUESTS_MAX):
            left = self._timeout_s + GRACE_S - watch.seconds()
            if left <= 0:
                raise TimeoutError
            channel.settimeout(left)
            try:
                message = receive_message(channel, ANSWER_MAX)
            except InvalidInput as error:
                raise StrategyFailed(f"the strategy's answer was refused: {error}") from error
            if message.get("op") != "history":
                return _read_answer(message, windows, watch.seconds())
            window = _read_window(message)
            windows.append(window)
            with watch.stopped():
                answer = self._answer_window(window, at, market)
            send_message(channel, answer)
        raise StrategyFailed(f"the strategy asked for more than {REQUESTS_MAX} windows of bars")

    def _answer_window(
        self, window: WindowRequest, at: datetime, market: MarketData
    ) -> dict[str, object]:
        try:
            bars = market.closed_bars(window.assets, window.frequency, window.window, at)
        except (NotFound, InvalidInput) as error:
            return {"error": error.message}
        return {"bars": {asset: _rows(bars[asset]) for asset in window.assets}}


def _rows(candles: Sequence[Candle]) -> list[list[float]]:
    return [
        [
            int(candle.closes_at.timestamp() * 1000),
            float(candle.open),
            float(candle.high),
            float(candle.low),
            float(candle.close),
            float(candle.volume),
        ]
        for candle in candles
    ]


def _read_window(message: Mapping[str, object]) -> WindowRequest:
    assets, window = message.get("assets"), message.get("window")
    frequency = message.get("frequency")
    if (
        not isinstance(assets, list)
        or not all(isinstance(asset, str) for asset in assets)
        or not isinstance(window, int)
        or not isinstance(frequency, str)
        or not 1 <= window <= 10_000
        or not 1 <= len(assets) <= 200
    ):
        raise StrategyFailed("the strategy's process sent a malformed request")
    try:
        parsed = Frequency.parse(frequency)
    except InvalidInput as error:
        raise StrategyFailed(error.message) from error
    return WindowRequest(tuple(assets), window, parsed, ())


def _read_answer(
    message: Mapping[str, object], windows: Sequence[WindowRequest], seconds: float
) -> StrategyOutput:
    if message.get("op") != "answer":
        raise StrategyFailed("the strategy's process sent something that is not an answer")
    log = str(message.get("log", ""))[:8192]
    problem = message.get("error")
    if problem is not None:
        raise StrategyFailed(str(problem)[:4000])
    targets = message.get("targets")
    if not isinstance(targets, dict):
        raise StrategyFailed("the strategy returned no set of weights")
    checked: dict[str, dict[str, str]] = {}
    for symbol, fields in targets.items():
        if not isinstance(fields, dict) or not all(isinstance(v, str) for v in fields.values()):
            raise StrategyFailed(f"the strategy's answer for {symbol[:40]!r} is malformed")
        checked[symbol] = {str(name): str(value) for name, value in fields.items()}
    return StrategyOutput(checked, tuple(windows), log, seconds)
