"""The second host: exec'd with an empty environment, forks one walled-in child per strategy call.

    strategy process ── Unix socket ──► runner host ── fork ──► child: lock_down, then user code

It holds no secret and no connection but its listening socket and its children's channels; pandas
and numpy are loaded before the first fork so that a call costs milliseconds. Whoever asked keeps
the time: when it hangs up, its child is killed; so are children that nobody hangs up on.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import math
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from module.clock import SystemClock, from_epoch_ms
from module.life_line import end_with_starter
from module.live_data_context import LiveDataContext
from module.model.canonical import parse_instant
from module.model.errors import AifapError, InvalidInput
from module.ports import Clock
from module.security.framing import ConnectionEnded, receive_message, send_message
from module.security.sandbox import Limits, lock_down

MARKET_WAIT_MAX_S = 120.0
"""Real seconds that a call may last beyond its own time: its bars are waited for in between."""
LOG_MAX = 8192
ANSWER_MAX_SYMBOLS = 1000
CHILDREN_MAX = 64
_STILL_MS = 1_772_445_600_000  # 2026-03-02T10:00:00Z, a whole minute


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -I -m trading.runner_host --socket-fd N --wall-s S --memory-mb M [--pod]`."""
    parser = argparse.ArgumentParser(prog="runner-host")
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--wall-s", type=float, required=True)
    parser.add_argument("--memory-mb", type=int, required=True)
    parser.add_argument("--pod", action="store_true")
    options = parser.parse_args(arguments)
    end_with_starter()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ["OMP_NUM_THREADS"] = "1"
    _warm()
    limits = Limits(cpu_s=math.ceil(options.wall_s) + 1, memory_mb=options.memory_mb)
    listener = socket.socket(fileno=options.socket_fd)
    _Host(listener, SystemClock(), limits, options.wall_s, pod=options.pod).serve()
    return 0


def _warm() -> None:
    """Load and use what strategies use, so that children share the pages and start at once."""
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame(
        np.arange(12.0).reshape(4, 3),
        index=pd.date_range("2026-01-01", periods=4, freq="min", tz="UTC"),
        columns=list("abc"),
    )
    frame.pct_change(1).rolling(2).mean().iloc[-1].to_dict()
    frame.corr()
    frame.ewm(span=3).std()
    _rehearse()
    gc.collect()
    gc.freeze()


class _StillMarket:
    """DataClient of a market in which nothing happens."""

    def fetch_bars(
        self, assets: Sequence[str], window: int, frequency: str
    ) -> Mapping[str, Sequence[Sequence[float]]]:
        closes_ms = [_STILL_MS - 60_000 * back for back in range(window - 1, -1, -1)]
        bars = [[close_ms, 7.0, 7.0, 7.0, 7.0, 1.0] for close_ms in closes_ms]
        return dict.fromkeys(assets, bars)


def _rehearse() -> None:
    """Do with bars of nothing what most strategies do with theirs.

    A child's first use of each page that it shares with its host copies the page: 10 of the 16 ms
    that it took from its bars to its answer. So it uses them while the bars are on their way.
    """
    context = LiveDataContext(_StillMarket(), from_epoch_ms(_STILL_MS), "UTC")
    names = ["A", "B", "C"]
    closes = context.get_history(names, 5, "1m", "close")
    both = context.get_history(names, 5, "1m", ["close", "volume"])
    both["A"]["close"].iloc[-1]
    closes.pct_change().dropna().std().to_dict()
    closes.index[-1].timestamp()
    closes.mean().sum()
    spell_targets({name: {"weight": float(closes[name].iloc[-1])} for name in names})


@dataclass(frozen=True, slots=True)
class _Running:
    """A child, the host's own end of its channel (to hear when the asker hangs up), its end."""

    child: int
    channel: socket.socket
    deadline_s: float


class _Host:
    """Accepts, forks, reaps, and kills what is over its time or has nobody to answer to."""

    def __init__(
        self, listener: socket.socket, clock: Clock, limits: Limits, wall_s: float, *, pod: bool
    ) -> None:
        self._listener = listener
        self._clock = clock
        self._limits = limits
        self._wall_s = wall_s
        self._pod = pod
        self._running: dict[int, _Running] = {}
        self._poller = select.poll()
        self._stopping = False

    def serve(self) -> None:
        """Until SIGTERM; children do not outlive it (they die with their host)."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._poller.register(wake_read, select.POLLIN)
        self._poller.register(self._listener, select.POLLIN)
        while not self._stopping:
            full = len(self._running) >= CHILDREN_MAX
            self._poller.modify(self._listener, 0 if full else select.POLLIN)
            for descriptor, _ in self._poller.poll(self._next_deadline_ms()):
                if descriptor == wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, 4096)
                elif descriptor == self._listener.fileno():
                    self._fork()
                else:
                    self._hung_up(descriptor)
            self._reap()
        for running in self._running.values():
            _kill(running.child)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _next_deadline_ms(self) -> int:
        if not self._running:
            return 60_000
        earliest_s = min(running.deadline_s for running in self._running.values())
        left_s = earliest_s - self._clock.monotonic()
        return max(10, int(left_s * 1000) + 1)

    def _fork(self) -> None:
        channel, _ = self._listener.accept()
        host = os.getpid()
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            _child(channel, self._limits, host, pod=self._pod)
        deadline_s = self._clock.monotonic() + self._wall_s + MARKET_WAIT_MAX_S
        self._running[child] = _Running(child, channel, deadline_s)
        self._poller.register(channel, 0)  # what it carries is not ours to read

    def _hung_up(self, descriptor: int) -> None:
        """Nobody waits for this child's answer any more (or it has just been read)."""
        self._poller.unregister(descriptor)
        for running in self._running.values():
            if running.channel.fileno() == descriptor:
                _kill(running.child)

    def _reap(self) -> None:
        now = self._clock.monotonic()
        for running in self._running.values():
            if now >= running.deadline_s:
                _kill(running.child)
        while self._running:
            try:
                ended, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if ended == 0:
                return
            over = self._running.pop(ended, None)
            if over is not None:
                with contextlib.suppress(KeyError):  # nobody had hung up on it
                    self._poller.unregister(over.channel)
                over.channel.close()


def _kill(child: int) -> None:
    """The child and its group (it may not have made one yet)."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(child, signal.SIGKILL)


def _child(channel: socket.socket, limits: Limits, host: int, *, pod: bool) -> None:
    """The life of one call. Never returns to the host's loop."""
    code = 1
    try:
        lock_down(limits, channel.fileno(), pod_is_boundary=pod)
        if os.getppid() != host:
            return  # it ended before it was asked to take this child with it
        send_message(channel, _answer(channel))
        code = 0
    except ConnectionEnded:
        code = 0  # whoever asked is gone
    except AifapError as error:
        with contextlib.suppress(ConnectionEnded):
            send_message(channel, {"op": "answer", "error": error.message})
    finally:
        os._exit(code)


def _answer(channel: socket.socket) -> dict[str, object]:
    """Run the user's function; its own mistakes become an `error` for its owner."""
    request = receive_message(channel)
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            targets = _call(channel, request)
    except ConnectionEnded:
        raise
    except BaseException as error:  # noqa: BLE001 - user code may raise anything, SystemExit too
        return {
            "op": "answer",
            "error": describe_failure(error),
            "log": output.getvalue()[:LOG_MAX],
        }
    return {"op": "answer", "targets": targets, "log": output.getvalue()[:LOG_MAX]}


def _call(channel: socket.socket, request: Mapping[str, object]) -> dict[str, dict[str, str]]:
    context = LiveDataContext(
        _AskingClient(channel), parse_instant(str(request["at"])), str(request["timezone"])
    )
    config = request["config"]
    namespace: dict[str, object] = {"__name__": "strategy", "__file__": "strategy.py"}
    code = compile(str(request["source"]), "strategy.py", "exec")
    exec(code, namespace)  # noqa: S102 - this child exists to run it, behind the wall
    function = namespace.get("strategy")
    if not callable(function):
        raise InvalidInput("strategy.py defines no function `strategy(context, config_dict)`")
    return spell_targets(function(context, config))


class _AskingClient:
    """DataClient that asks the trusted side."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._rehearsed = False

    def fetch_bars(
        self, assets: Sequence[str], window: int, frequency: str
    ) -> Mapping[str, Sequence[Sequence[float]]]:
        send_message(
            self._channel,
            {"op": "history", "assets": list(assets), "window": window, "frequency": frequency},
        )
        if not self._rehearsed:
            self._rehearsed = True
            with contextlib.suppress(Exception):  # user code may have changed pandas
                _rehearse()
        answer = receive_message(self._channel)
        if "error" in answer:
            raise InvalidInput(str(answer["error"]))
        bars = answer["bars"]
        if not isinstance(bars, dict):
            raise InvalidInput("the market answered without bars")
        return bars


def spell_targets(returned: object) -> dict[str, dict[str, str]]:
    """Numbers to decimal text, shapes checked; InvalidInput names the symbol and the value."""
    if not isinstance(returned, Mapping):
        raise InvalidInput(
            f"strategy() returned {type(returned).__name__}; it must return a dict of weights"
        )
    if len(returned) > ANSWER_MAX_SYMBOLS:
        raise InvalidInput(f"strategy() returned {len(returned)} symbols")
    spelled: dict[str, dict[str, str]] = {}
    for symbol, value in returned.items():
        if not isinstance(symbol, str):
            raise InvalidInput(f"strategy() returned the key {symbol!r}; keys are symbols")
        fields = value if isinstance(value, Mapping) else {"weight": value}
        spelled[symbol] = {
            str(name): _spell(number, symbol, str(name))
            for name, number in fields.items()
            if number is not None
        }
    return spelled


def _spell(number: object, symbol: str, name: str) -> str:
    if isinstance(number, bool) or not hasattr(number, "__float__"):
        raise InvalidInput(f"{name} of {symbol} is {number!r:.60}, not a number")
    if isinstance(number, (int, Decimal)):
        text = str(number)
        finite = Decimal(number).is_finite()
    else:
        text = repr(float(number))
        finite = math.isfinite(float(number))
    if not finite:
        raise InvalidInput(f"{name} of {symbol} is {text}; it must be a finite number")
    return text


def describe_failure(error: BaseException) -> str:
    """What the owner reads: the error and where in their file it arose."""
    lines = [
        f"line {frame.lineno}, in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == "strategy.py"
    ]
    where = f" ({'; '.join(lines[-3:])} of strategy.py)" if lines else ""
    if isinstance(error, SyntaxError) and error.filename == "strategy.py":
        where = f" (line {error.lineno} of strategy.py)"
    if isinstance(error, InvalidInput):
        return f"{error.message}{where}"
    said = str(error)[:500]
    if isinstance(error, MemoryError) and not said:
        said = "it needs more memory than its limit (AIFAP_STRATEGY_MEMORY_MB)"
    return f"the strategy raised {type(error).__name__}: {said}{where}"


if __name__ == "__main__":
    sys.exit(main())
