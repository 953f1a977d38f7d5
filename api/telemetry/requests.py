"""What an API process counts of its own requests, and how late its event loop is.

    server ─► Metered ─► Edge ─► routes        counted by route template, method and status class
    event loop ── every LAG_PERIOD_S ─► LagProbe

Workers of one platform share a folder of counters (PROMETHEUS_MULTIPROC_DIR, set by whoever starts
them), so that whichever is asked answers for all; a worker that died stays counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from module.ports import Clock

SHARED_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
ANSWER_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LAG_BOUNDS_S: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
LAG_PERIOD_S: Final = 0.5
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED: Final = "unmatched"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def shared_folder() -> Path | None:
    """Where the workers of this service keep what they count together; None: there is one."""
    folder = os.environ.get(SHARED_FOLDER)
    return Path(folder) if folder else None


class RequestMetrics:
    """The counters of one application. `registry` has those of this process, or of all workers."""

    def __init__(self, clock: Clock) -> None:
        from prometheus_client import (
            CollectorRegistry,
            Counter,
            Gauge,
            Histogram,
            disable_created_metrics,
        )

        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.clock = clock
        self._registry = CollectorRegistry()
        self.answered = Counter(
            "aifap_http_requests",
            "Requests that were answered, by route template and class of status.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "aifap_http_request_seconds",
            "Real time until an answer began.",
            ("route", "method"),
            buckets=ANSWER_BOUNDS_S,
            registry=self._registry,
        )
        self.under_way = Gauge(
            "aifap_http_requests_under_way",
            "Requests whose answer has not ended.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self.began = Gauge(
            "aifap_start_time_seconds",
            "When this service began, in seconds since 1970, real time.",
            registry=self._registry,
            multiprocess_mode="min",  # its first worker did
        )
        self.began.set(clock.wall().timestamp())
        self.lag = Histogram(
            "aifap_event_loop_lag_seconds",
            "How late the event loop of a worker was with what was due.",
            buckets=LAG_BOUNDS_S,
            registry=self._registry,
        )

    @property
    def is_shared(self) -> bool:
        """Whether several workers count together."""
        return SHARED_FOLDER in os.environ

    def registry(self) -> CollectorRegistry:
        """What to spell when somebody asks."""
        if not self.is_shared:
            return self._registry
        from prometheus_client import CollectorRegistry
        from prometheus_client.multiprocess import MultiProcessCollector

        _forget_the_dead(Path(os.environ[SHARED_FOLDER]))
        whole = CollectorRegistry()
        MultiProcessCollector(whole)  # type: ignore[no-untyped-call]  # it registers itself
        return whole


def _forget_the_dead(folder: Path) -> None:
    """What workers that are gone had under way ended with them. Their counters stay."""
    from prometheus_client.multiprocess import mark_process_dead

    for path in folder.glob("gauge_live*.db"):
        pid = int(path.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            with contextlib.suppress(FileNotFoundError):  # another worker was asked, too
                mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


class Metered:
    """ASGI middleware, the outermost: what the edge refuses is counted too."""

    def __init__(self, app: App, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        metrics = self._metrics
        began_s = metrics.clock.monotonic()
        status = 500
        took_s: float | None = None

        async def send_and_note(message: Message) -> None:
            nonlocal status, took_s
            if message["type"] == "http.response.start":
                status = message["status"]
                took_s = metrics.clock.monotonic() - began_s
            await send(message)

        metrics.under_way.inc()
        try:
            await self._app(scope, receive, send_and_note)
        finally:
            metrics.under_way.dec()
            route = str(getattr(scope.get("route"), "path", UNMATCHED))
            method = scope["method"] if scope["method"] in METHODS else "OTHER"
            metrics.answered.labels(route, method, f"{status // 100}xx").inc()
            metrics.answered.labels(route, method, "5xx")  # told as 0: a first failure is a step
            elapsed_s = metrics.clock.monotonic() - began_s if took_s is None else took_s
            metrics.seconds.labels(route, method).observe(elapsed_s)


class LagProbe:
    """Asks the running event loop to call back and notes by how much it was late."""

    def __init__(self, metrics: RequestMetrics) -> None:
        self._metrics = metrics
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, in the loop that is measured."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + LAG_PERIOD_S
        self._timer = loop.call_at(due_s, self._called, loop, due_s)

    def stop(self) -> None:
        """No further call."""
        if self._timer is not None:
            self._timer.cancel()

    def _called(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        self._metrics.lag.observe(max(0.0, loop.time() - due_s))
        self.start()


def spell(registries: Iterable[CollectorRegistry]) -> bytes:
    """Everything in Prometheus' text format."""
    from prometheus_client import generate_latest

    return b"".join(generate_latest(registry) for registry in registries)
