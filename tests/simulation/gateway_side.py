"""The gateway process of a simulated world, and the door through which sessions reach it.

    session ─► DirectExchange (production disciplines of GatewayExchange) ─► Door ─► task of the
    gateway process ─► module.gateway.service.Gateway ─► production venue ─► InProcessWire

Requests run side by side, as threads do: they give the world away where they wait for the exchange.
Objects cross the door as they are (the codec is proven elsewhere); errors cross it as problems.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

from module.exchange.gateway_client import GatewayExchange
from module.gateway.account_opening import OpeningRules
from module.gateway.moment import MomentClock
from module.gateway.owned_account import OwnedAccount
from module.gateway.protection import Look, PositionGuard
from module.gateway.protection_loop import ACTIVE_PERIOD
from module.gateway.service import Gateway, GatewayRules, GatewayStores
from module.model.accounts import (
    AccountSnapshot,
    Bill,
    ClosedPosition,
    MarginMode,
    SymbolSettings,
)
from module.model.canonical import parse_instant
from module.model.errors import AifapError
from module.model.market import Instrument, Quote
from module.model.orders import (
    Fill,
    MissingOrder,
    OrderReport,
    OrderRequest,
    OrderTrace,
    StopPrices,
    SubmitResult,
    WriteStamp,
)
from module.points import reach
from module.ports import AlertSink
from module.security.credentials import KeyRing
from module.wire.problem_codec import problem_body, status_of
from module.wire.service_http import Answer, LostError, NotSentError
from tests.fakes.gateway_stores import CREDENTIALS_KEY
from tests.simulation.exchange_side import Exchange
from tests.simulation.fault_postgres import SimulatedPostgres
from tests.simulation.hub import Hub, HubLock, Process, SimClock
from tests.simulation.in_process_venue import SimVenues

URL = "http://gateway.simulated"
CALL_MS = 1
ANSWER_TIMEOUT_MS = 45_000
CALM_AFTER = timedelta(seconds=12)
"""So long after the last change of an account a look can still find something to do by itself."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a gateway process stands on, and what outlives it."""

    hub: Hub
    exchange: Exchange
    postgres: SimulatedPostgres
    folder: Path
    account_id: str
    installation: str
    alerts: Callable[[Process], AlertSink]
    caught: Callable[[Process, BaseException, str], None]


class GatewayProcess:
    """One gateway process: production's `Gateway`, its protection loop in a task."""

    def __init__(self, ground: Ground, number: int) -> None:
        self.process = Process(ground.hub, "gateway", f"gateway-{number}")
        self.gateway_id = f"{ground.installation}:{number:04d}"
        self._ground = ground
        self.ready = False
        self.process.spawn(self._live, "protection")

    def _live(self) -> None:
        """A gateway that cannot begin ends, and is started again."""
        try:
            self._serve()
        except AifapError as error:
            self._ground.caught(self.process, error, "the gateway could not begin")
            self.process.hub.kill(self.process)

    def caught(self, error: AifapError, route: str) -> None:
        """A request is answered with a problem."""
        self._ground.caught(self.process, error, f"answer to {route}")

    def _serve(self) -> None:
        ground, process = self._ground, self.process
        clock = MomentClock(SimClock(process))
        self.gateway = Gateway(
            stores=GatewayStores(
                accounts=ground.postgres.accounts,
                leases=ground.postgres.leases(self.gateway_id),
                writes=ground.postgres.writes,
                stops=ground.postgres.stops,
                periods=ground.postgres.periods,
            ),
            venues=SimVenues(clock, ground.exchange, process),
            paper=None,
            clock=clock,
            make_loop_clock=lambda: SimClock(process),
            alerts=ground.alerts(process),
            rules=GatewayRules(
                installation=ground.installation,
                opening=OpeningRules(
                    simulator_url="http://exchange.simulated",
                    paper_market_id="synthetic:7",
                    allowed_venue_urls=("http://exchange.simulated",),
                    keys=KeyRing(lambda: {1: CREDENTIALS_KEY}),
                ),
                market_urls={},
                spool_folder=ground.folder / "gateway",
            ),
        )
        _cooperate(self.gateway, ground.hub)
        loop = self.gateway._loop
        self._calm = CalmGuard(loop._guard, ground)
        loop._guard = cast(PositionGuard, self._calm)
        loop._pipe = os.pipe()
        for end in loop._pipe:
            os.set_blocking(end, False)
            process.owns(end)
        self.gateway._desk.on_write = loop.nudge
        self.ready = True
        loop._run()

    def stir(self) -> None:
        """Something has changed outside: a loop that sleeps looks when it would have looked."""
        if not self.ready or not self.process.alive:
            return
        loop, now = self.gateway._loop, self._ground.hub.now()
        tick = self._calm.next_tick(now)
        watch = loop._watches.get(self._ground.account_id)
        if tick is None or watch is None or not watch.due or watch.due[0] <= tick:
            return
        watch.due = [tick]
        loop._ring()

    def death(self) -> None:
        """What the machine and Postgres do when the process is gone."""
        self._ground.postgres.disconnect(self.gateway_id)
        spool = getattr(getattr(self, "gateway", None), "_desk", None)
        file = None if spool is None else spool.audit._spool
        if file is not None and file._file >= 0:
            os.close(file._file)
            file._file = -1


def _cooperate(gateway: Gateway, hub: Hub) -> None:
    """Locks of an account that are held across a request must let other tasks run."""
    desk = gateway._desk

    class Owned(dict[str, OwnedAccount]):
        def __setitem__(self, key: str, owned: OwnedAccount) -> None:
            owned.gate = cast(Any, HubLock(hub))
            owned.stops_gates = cast(Any, defaultdict(lambda: HubLock(hub)))
            super().__setitem__(key, owned)

    desk._owned = Owned()


class CalmGuard:
    """The production guard; a look that cannot find anything new is answered by the last one.

    Provably nothing new: since a look that ended well nothing of the account has changed at the
    exchange, no scripted fault can change what such a look reads, no clock was set, no question
    for an unknown order is due, and this process has nothing unsaved or wanted anew. A thorough
    look reads and forgets more: while an order is unknown, a clock is off or a fault can touch the
    list of stops each is made, and its answer is kept only when it came CALM_AFTER the last change
    (until then it may still forget what is wanted). Once both kinds are calm the loop sleeps as it
    does for an account with nothing open, and `next_tick` says when it would have looked again.
    """

    def __init__(self, guard: PositionGuard, ground: Ground) -> None:
        self._guard = guard
        self._ground = ground
        self._seen: tuple[object, ...] | None = None
        self._changed_at: datetime | None = None
        self._quick: Look | None = None
        self._thorough: Look | None = None
        self._calm_at: datetime | None = None

    def look(self, owned: OwnedAccount, *, thorough: bool) -> Look:
        """See `PositionGuard.look`."""
        now = self._ground.hub.now()
        state = self._state(owned)
        if state is None or state != self._seen:
            self._seen, self._changed_at = state, now
            self._quick = self._thorough = self._calm_at = None
        rests = self._may_rest(owned)
        if not rests:
            self._thorough = self._calm_at = None
        if self._quick is not None and self._thorough is not None:
            self._calm_at = now
            return Look(open=False, unprotected=())
        known = self._thorough if thorough else self._quick
        if known is not None and not self._guard._unresolved.is_due(owned):
            return known
        found = self._guard.look(owned, thorough=thorough)
        if state is None or found.unprotected or self._state(owned) != state:
            return found
        self._quick = found
        since = self._changed_at
        if thorough and rests and since is not None and now - since > CALM_AFTER:
            self._thorough = found
        return found

    def next_tick(self, now: datetime) -> datetime | None:
        """When the loop would look next if it did not sleep; None: it does not sleep."""
        if self._calm_at is None:
            return None
        passed = (now - self._calm_at) // ACTIVE_PERIOD
        return self._calm_at + (passed + 1) * ACTIVE_PERIOD

    def _may_rest(self, owned: OwnedAccount) -> bool:
        """Whether a thorough look, too, can find nothing new."""
        ground = self._ground
        disturbed = ground.exchange.may_disturb_a_look(thorough=True)
        return not (disturbed or owned.unresolved or ground.hub.skew_ms)

    def _state(self, owned: OwnedAccount) -> tuple[object, ...] | None:
        """What a quick look depends on; None while it may depend on more."""
        ground = self._ground
        audit = self._guard._desk.audit
        disturbed = ground.exchange.may_disturb_a_look(thorough=False)
        if disturbed or owned.bare or audit.waiting or self._guard._bare_since:
            return None
        wanted = tuple(sorted((w.symbol, w.updated_at, w.epoch) for w in owned.wanted.values()))
        return (
            ground.exchange.version,
            ground.hub.skew_ms,
            owned.skew_s if ground.hub.skew_ms else 0.0,
            tuple(owned.unresolved),
            owned.epoch,
            wanted,
            owned.lease_held,
            len(owned.verified),
        )

    def __getattr__(self, name: str) -> object:
        return getattr(self._guard, name)


@dataclass(slots=True)
class _Box:
    """What a served request leaves for its client."""

    answer: Answer | None = None
    document: object = None
    done: bool = False


@dataclass(frozen=True)
class ObjectAnswer(Answer):
    """An answer whose body is an object that has not been spelled."""

    document: object = None

    def json(self) -> object:
        return self.document


@dataclass(eq=False)
class Door:
    """Stands for `ServiceHttp` between a client's process and whatever gateway runs now."""

    hub: Hub
    client: Process
    account_id: str
    current: Callable[[], GatewayProcess | None]
    calls: int = 0
    lost: int = field(default=0)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        document: object = None,
    ) -> Answer:
        """One request to the gateway: an answer, NotSentError, or LostError."""
        self.client.require_alive()
        self.calls += 1
        self.hub.wait((), self.hub.now_ms + CALL_MS)
        server = self.current()
        if server is None or not server.process.alive or not server.ready:
            raise NotSentError("connection refused")
        box = _Box()
        waiting = self.hub.current
        assert waiting is not None
        route = f"{method} {path.split('/', 4)[4]}"

        def serve() -> None:
            _serve(server, self.account_id, route, query or {}, document, box)

        task = server.process.spawn(serve, route)

        def wake() -> None:
            self.hub.make_ready(waiting)

        task.on_end.append(wake)
        self.hub.wait((), self.hub.now_ms + ANSWER_TIMEOUT_MS)
        task.on_end.remove(wake)
        if task.error is not None:
            raise task.error
        if not box.done or box.answer is None:
            self.lost += 1
            raise LostError("connection reset")
        return box.answer

    def close(self) -> None:
        """Nothing to close."""


def _serve(
    server: GatewayProcess,
    account_id: str,
    route: str,
    query: Mapping[str, str],
    document: object,
    box: _Box,
) -> None:
    """What `api.routers.gateway` does with a request, errors included."""
    try:
        found = _dispatch(server.gateway, account_id, route, query, document)
    except AifapError as error:
        import json

        server.caught(error, route)
        body = json.dumps(problem_body(error)).encode()
        box.answer = Answer(status_of(error), body)
    else:
        box.answer = ObjectAnswer(200, b"", found)
    reach("gateway: answered")
    box.done = True


def _dispatch(
    gateway: Gateway,
    account_id: str,
    route: str,
    query: Mapping[str, str],
    document: object,
) -> object:
    words = cast(tuple[Any, ...], document)
    if route.startswith("GET orders/"):
        return gateway.order(account_id, query["symbol"], unquote(route[11:]))
    if route.startswith("POST orders/") and route.endswith("/rule-out"):
        return gateway.rule_out(account_id, words[0], words[1])
    if route.startswith("POST orders/") and route.endswith("/cancel"):
        gateway.cancel(account_id, words[0], words[1], unquote(route[12:-7]))
        return {}
    if route.startswith("GET "):
        return _read(gateway, account_id, route[4:], query)
    writes: dict[str, Callable[..., object]] = {
        "POST orders": gateway.submit,
        "POST settings": gateway.apply_symbol_settings,
        "PUT stops": gateway.set_stops,
    }
    return writes[route](account_id, *words)


def _read(gateway: Gateway, account_id: str, what: str, query: Mapping[str, str]) -> object:
    if "symbols" in query:
        symbols = query["symbols"].split(",")
        by_symbol = {"quotes": gateway.quotes, "settings": gateway.symbol_settings}
        return by_symbol[what](account_id, symbols)
    if "since" in query:
        histories: dict[str, Callable[[str, datetime], object]] = {
            "fills": gateway.fills,
            "bills": gateway.bills,
            "closed-positions": gateway.closed_positions,
        }
        return histories[what](account_id, parse_instant(query["since"]))
    looks: dict[str, Callable[[str], object]] = {
        "snapshot": gateway.snapshot,
        "instruments": gateway.instruments,
    }
    return looks[what](account_id)


class DirectExchange(GatewayExchange):
    """`GatewayExchange` without the codec: the same repeats, waits and promises."""

    def __init__(self, door: Door, account_id: str, process: Process) -> None:
        super().__init__(URL, account_id, "", SimClock(process))
        self._http = cast(Any, door)

    def snapshot(self) -> AccountSnapshot:
        return cast(AccountSnapshot, self._read("/snapshot"))

    def instruments(self) -> Mapping[str, Instrument]:
        return cast(Mapping[str, Instrument], self._read("/instruments"))

    def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        if not symbols:
            return {}
        found = self._read("/quotes", {"symbols": ",".join(symbols)})
        return cast(Mapping[str, Quote], found)

    def symbol_settings(self, symbols: Sequence[str]) -> Mapping[str, SymbolSettings]:
        if not symbols:
            return {}
        found = self._read("/settings", {"symbols": ",".join(symbols)})
        return cast(Mapping[str, SymbolSettings], found)

    def order(self, symbol: str, client_id: str) -> OrderReport:
        return cast(OrderReport, self._read(f"/orders/{client_id}", {"symbol": symbol}))

    def fills(self, since: datetime) -> Sequence[Fill]:
        return cast(Sequence[Fill], self._read("/fills", {"since": since.isoformat()}))

    def bills(self, since: datetime) -> Sequence[Bill]:
        return cast(Sequence[Bill], self._read("/bills", {"since": since.isoformat()}))

    def closed_positions(self, since: datetime) -> Sequence[ClosedPosition]:
        found = self._read("/closed-positions", {"since": since.isoformat()})
        return cast(Sequence[ClosedPosition], found)

    def apply_symbol_settings(
        self, stamp: WriteStamp, symbol: str, leverage: Decimal, margin_mode: MarginMode
    ) -> SymbolSettings:
        words = (stamp, symbol, leverage, margin_mode)
        return cast(SymbolSettings, self._write("POST", "/settings", words, stamp))

    def submit(self, stamp: WriteStamp, orders: Sequence[OrderRequest]) -> list[SubmitResult]:
        answer = self._write("POST", "/orders", (stamp, tuple(orders)), stamp)
        return list(cast(Sequence[SubmitResult], answer))

    def rule_out(self, stamp: WriteStamp, missing: MissingOrder) -> OrderTrace:
        path = f"/orders/{missing.client_id}/rule-out"
        return cast(OrderTrace, self._write("POST", path, (stamp, missing), stamp))

    def cancel(self, stamp: WriteStamp, symbol: str, client_id: str) -> None:
        self._write("POST", f"/orders/{client_id}/cancel", (stamp, symbol), stamp)

    def set_stops(self, stamp: WriteStamp, symbol: str, stops: StopPrices) -> StopPrices:
        return cast(StopPrices, self._write("PUT", "/stops", (stamp, symbol, stops), stamp))
