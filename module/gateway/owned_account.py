"""One account as this gateway process knows it: keys in use, last readings, writes under way.

`AccountDesk` opens and keeps these; the paths of orders, settings and stops write here what they
send, so that nobody takes a reading that began before a write for the truth after it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from module.db.repositories.accounts import AccountRecord
from module.db.repositories.gateway_writes import KnownWrite
from module.db.repositories.wanted_stops import WantedStops
from module.exchange.venue import Venue
from module.gateway.limits import Limits
from module.model.accounts import Position
from module.model.market import Quote
from module.model.orders import OrderRequest

POSITIONS_FRESH = timedelta(seconds=3)
QUOTES_FRESH = timedelta(seconds=3)
STOPS_FRESH = timedelta(seconds=1)
SENT_KEPT = 1000
TOUCH_LASTS = timedelta(seconds=30)
IN_FLIGHT_S = 2.0


@dataclass(frozen=True, slots=True)
class Reading:
    """When a reading of positions began: after which write of ours, at what world time."""

    turn: int
    at: datetime


@dataclass(slots=True)
class OwnedAccount:
    """What this process knows of one account. Fields are guarded by `lock` unless said."""

    record: AccountRecord
    venue: Venue
    lock: threading.RLock = field(default_factory=threading.RLock)
    gate: threading.Lock = field(default_factory=threading.Lock)
    stops_gates: defaultdict[str, threading.Lock] = field(
        default_factory=lambda: defaultdict(threading.Lock)
    )
    limits: Limits = field(default_factory=Limits)
    epoch: int = 0
    lease_held: bool = False
    recovered: bool = False
    relist_periods: bool = True
    owned_since: datetime | None = None
    positions: dict[str, Position] | None = None
    positions_at: datetime | None = None
    positions_turn: int = 0
    turn: int = 0
    written: dict[str, tuple[int, datetime]] = field(default_factory=dict)
    stops_written: dict[str, int] = field(default_factory=dict)
    last_seen: tuple[Position, ...] = ()
    quotes: dict[str, tuple[Quote, datetime]] = field(default_factory=dict)
    in_flight: dict[str, tuple[str, Decimal, datetime | None]] = field(default_factory=dict)
    order_times: deque[datetime] = field(default_factory=deque)
    wanted: dict[str, WantedStops] = field(default_factory=dict)
    unresolved: dict[int, KnownWrite] = field(default_factory=dict)
    sent: OrderedDict[str, OrderRequest] = field(default_factory=OrderedDict)
    ids: OrderedDict[str, str] = field(default_factory=OrderedDict)
    touched: dict[str, datetime] = field(default_factory=dict)
    verified: set[str] = field(default_factory=set)
    halted: str = ""
    paused: dict[str, str] = field(default_factory=dict)
    bare: dict[str, str] = field(default_factory=dict)
    skew_s: float = 0.0

    @property
    def account_id(self) -> str:
        return self.record.account_id

    def stops_gate(self, symbol: str) -> threading.Lock:
        """Held by whoever writes stops of the symbol, until what is wanted is on record: else the
        guard would see the new stop, still know the old wish, and move the stop back (I2)."""
        with self.lock:
            return self.stops_gates[symbol]

    def begin_epoch(self, epoch: int) -> None:
        """Another session (or leader) writes from now on: what stopped the one before is over,
        and modes are read anew before anything opens."""
        with self.lock:
            if epoch == self.epoch:
                return
            self.epoch = epoch
            self.halted = ""
            self.paused.clear()
            self.verified.clear()

    def touch(self, symbols: Iterable[str], now: datetime) -> None:
        """Orders of these symbols are ours: positions may change by them for a while."""
        with self.lock:
            self.touched.update(dict.fromkeys(symbols, now))

    def is_touched(self, symbol: str, since: datetime) -> bool:
        """Whether a change of the position since `since` may be our own doing."""
        with self.lock:
            at = self.touched.get(symbol)
            busy = any(write.symbol == symbol for write in self.unresolved.values())
            return busy or (at is not None and at >= since - TOUCH_LASTS)

    def remember_sent(self, order: OrderRequest) -> None:
        """Keep what was asked, to compare with what the exchange shows (A26)."""
        with self.lock:
            self.sent[order.client_id] = order
            while len(self.sent) > SENT_KEPT:
                self.sent.popitem(last=False)

    def forget_sent(self, client_ids: Iterable[str]) -> None:
        """They have not left after all."""
        with self.lock:
            for client_id in client_ids:
                self.sent.pop(client_id, None)

    def remember_id(self, order_id: str | None, client_id: str) -> None:
        """The venue's own name of an order of ours: its fills carry nothing else (B3)."""
        if not order_id or client_id not in self.sent:
            return
        with self.lock:
            self.ids[order_id] = client_id
            while len(self.ids) > SENT_KEPT:
                self.ids.popitem(last=False)

    def orders_last_minute(self, now: datetime) -> int:
        """How many orders left in the last sixty world seconds."""
        while self.order_times and self.order_times[0] <= now - timedelta(seconds=60):
            self.order_times.popleft()
        return len(self.order_times)

    def exposure_in_flight(self, now: datetime) -> dict[str, Decimal]:
        """Signed size by symbol of opening orders that positions may not show yet."""
        with self.lock:
            for client_id, (_, _, until) in list(self.in_flight.items()):
                if until is not None and until <= now:
                    del self.in_flight[client_id]
            total: dict[str, Decimal] = {}
            for symbol, signed, _ in self.in_flight.values():
                total[symbol] = total.get(symbol, Decimal(0)) + signed
            return total

    def note_written(self, symbols: Iterable[str], now: datetime) -> None:
        """Orders of these symbols leave, or were answered: readings that began before are old."""
        with self.lock:
            self.turn += 1
            self.written.update(dict.fromkeys(symbols, (self.turn, now)))

    def note_stops_written(self, symbol: str) -> None:
        """A stop of this symbol is about to change, or has: readings that began before are old."""
        with self.lock:
            self.turn += 1
            self.stops_written[symbol] = self.turn

    def fresh_position(self, symbol: str, now: datetime) -> Position | None:
        """The position with its stops as it was read within the last second, and after the last
        order and the last stop of the symbol were answered; None: it has to be read."""
        with self.lock:
            if self.positions_at is None or now - self.positions_at > STOPS_FRESH:
                return None
            ordered, _ = self.written.get(symbol, (0, now))
            if max(ordered, self.stops_written.get(symbol, 0)) > self.positions_turn:
                return None
            return (self.positions or {}).get(symbol)

    def begin_reading(self, now: datetime) -> Reading:
        """Call before positions are asked for; goes with what was read to `keep_positions`."""
        with self.lock:
            return Reading(self.turn, now)

    def keep_positions(self, positions: tuple[Position, ...], reading: Reading) -> None:
        """Remember a reading until a write or a few seconds make it old."""
        with self.lock:
            if self.positions_at is not None and self.positions_turn > reading.turn:
                return  # a later reading was faster
            self.positions = {position.symbol: position for position in positions}
            self.positions_at, self.positions_turn = reading.at, reading.turn
            self.last_seen = positions

    def forget_positions(self) -> None:
        """A write may have changed them."""
        with self.lock:
            self.turn += 1
            self.positions = None
            self.positions_at = None

    def fresh_positions(self, symbols: Iterable[str], now: datetime) -> dict[str, Position] | None:
        """The last reading, if it is only seconds old and true for `symbols`: it began after the
        last write of each, and shows it by now, or that write still counts as in flight."""
        with self.lock:
            began = self.positions_at
            if began is None or now - began > POSITIONS_FRESH:
                return None
            for symbol in symbols:
                turn, at = self.written.get(symbol, (0, began))
                shown = at + timedelta(seconds=IN_FLIGHT_S)
                if turn > self.positions_turn or (turn and began < shown <= now):
                    return None
            return self.positions

    def fresh_quotes(self, symbols: set[str], now: datetime) -> dict[str, Quote]:
        """Those of the last readings that are only seconds old."""
        with self.lock:
            return {
                symbol: self.quotes[symbol][0]
                for symbol in symbols
                if symbol in self.quotes and now - self.quotes[symbol][1] <= QUOTES_FRESH
            }
