"""Asks for writes whose outcome nobody knows, at a pace of its own.

    a look at the account ─► those whose question is due ─► the exchange ─► on record, wanted stops

A look comes twice a second while a stop is missing and right after each write; how often an order
is asked for must not follow from that. Each is asked for again after 0.3, 0.6, 1.2 … 60 seconds, so
it is known at most twice as late as it came; once more where the position of its symbol changes,
for that may have been this order. One that never arrived costs 17 questions until it is given up.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

from module.db.repositories.gateway_writes import KnownWrite, WriteKind
from module.db.repositories.wanted_stops import WantedStops
from module.gateway.account_desk import AccountDesk
from module.gateway.order_path import OrderPath
from module.gateway.owned_account import OwnedAccount
from module.gateway.quiet_log import QuietLog
from module.model.errors import InvalidInput, Retryable
from module.model.orders import StopPrices
from module.wire.model_codec import from_document

log = logging.getLogger(__name__)

KEPT = timedelta(minutes=10)
PER_LOOK = 3
LOOK_S = 1.0
"""Once questions have taken so long the others wait for the next look: stops are mended first."""
AGAIN_S = 0.3
AGAIN_MAX_S = 60.0


@dataclass(slots=True)
class _Question:
    """When (in time that never goes back) a write is asked for next, and how long after that."""

    due_s: float = float("-inf")
    pause_s: float = AGAIN_S


@dataclass(slots=True)
class UnresolvedWrites:
    """The questions of all accounts; an account's are asked by its looks, one at a time."""

    desk: AccountDesk
    orders: OrderPath
    _quiet: QuietLog = field(init=False)
    _questions: dict[str, dict[int, _Question]] = field(default_factory=dict)
    _sizes: dict[str, dict[str, Decimal]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._quiet = QuietLog(log, self.desk.clock)

    def resolve(self, owned: OwnedAccount) -> bool:
        """Ask for those that are due, the newest first. True while any outcome is unknown."""
        now = self.desk.clock.now()
        with owned.lock:
            writes = sorted(owned.unresolved.values(), key=lambda write: -write.write_id)
        asked = self._questions.get(owned.account_id, {})
        self._questions[owned.account_id] = asked = {
            write.write_id: asked.get(write.write_id) or _Question() for write in writes
        }
        now_s = self.desk.clock.monotonic()
        due = [write for write in writes if asked[write.write_id].due_s <= now_s]
        for write in due[:PER_LOOK]:
            if self.desk.clock.monotonic() - now_s > LOOK_S:
                break
            if self._resolve_one(owned, write) or (
                write.sent_at is None or now - write.sent_at > KEPT
            ):
                with owned.lock:
                    owned.unresolved.pop(write.write_id, None)
                continue
            question = asked[write.write_id]
            question.due_s = self.desk.clock.monotonic() + question.pause_s
            question.pause_s = min(2 * question.pause_s, AGAIN_MAX_S)
        return bool(owned.unresolved)

    def compare(self, owned: OwnedAccount, sizes: Mapping[str, Decimal]) -> None:
        """A look has found positions of these signed sizes: what is unknown in a symbol whose size
        is another than at the look before is asked for at the next one."""
        before = self._sizes.get(owned.account_id, {})
        self._sizes[owned.account_id] = dict(sizes)
        asked = self._questions.get(owned.account_id)
        if not asked:
            return
        moved = {name for name in {*before, *sizes} if before.get(name) != sizes.get(name)}
        with owned.lock:
            writes = [write for write in owned.unresolved.values() if write.symbol in moved]
        for write in writes:
            if write.write_id in asked:
                asked[write.write_id].due_s = float("-inf")

    def is_due(self, owned: OwnedAccount) -> bool:
        """Whether the next look has something to ask for."""
        asked, now_s = self._questions.get(owned.account_id, {}), self.desk.clock.monotonic()
        with owned.lock:
            ids = tuple(owned.unresolved)
        return any(name not in asked or asked[name].due_s <= now_s for name in ids)

    def _resolve_one(self, owned: OwnedAccount, write: KnownWrite) -> bool:
        try:
            if write.kind is WriteKind.ORDER:
                return self.orders.resolve(owned, write)
            known = owned.wanted.get(write.symbol)
            is_older = (
                known is not None and write.sent_at is not None and known.updated_at > write.sent_at
            )
            if write.epoch == owned.epoch and not is_older:
                stops = from_document(StopPrices, write.request.get("stops"), name="stops")
                self.desk.want_stops(
                    owned,
                    WantedStops(
                        owned.account_id,
                        write.symbol,
                        write.request.get("is_long") is True,
                        stops,
                        write.epoch,
                        self.desk.clock.now(),
                    ),
                )
            return True
        except (Retryable, InvalidInput) as error:
            self._quiet.warning(
                f"{owned.account_id}:unresolved",
                f"write {write.write_id} stays unresolved: {error.message}",
            )
            return False
