"""Which orders were durably planned, and what the letters say became of them.

A session's store is watched: a document counts from the moment when its `write` returned, or when
the truth of the store holds it (a commit whose answer was lost).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from module.model.errors import AifapError
from module.ports import OrderInfoStore
from tests.simulation.hub import Process

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PlannedSlice:
    """One order as the letter has it. `epoch` is of the newest letter that holds it."""

    session_id: str
    cycle: str
    leg_id: str
    symbol: str
    buys: bool
    size: Decimal
    leg_size: Decimal
    reduce_only: bool
    after: str | None
    epoch: int

    @property
    def leg(self) -> tuple[str, str, str]:
        """What makes the leg this one."""
        return self.session_id, self.cycle, self.leg_id


class LettersSeen:
    """All letters of a day. `wrote` and `archived` are told of each document."""

    def __init__(
        self,
        wrote: Callable[[Process, Document], None],
        archived: Callable[[Process, Document], None],
    ) -> None:
        self._wrote = wrote
        self._archived = archived
        self.on_read: Callable[[Document | None], None] = lambda document: None
        self._stores: list[OrderInfoStore] = []
        self.planned: dict[str, PlannedSlice] = {}
        self.latest: Document | None = None
        self.decided: Document | None = None
        """The newest letter that has a plan."""

    def watch(self, process: Process, store: OrderInfoStore) -> OrderInfoStore:
        """The same store, watched."""
        if len(self._stores) < 1 or type(self._stores[0]) is not type(store):
            self._stores.append(store)
        return cast(OrderInfoStore, WatchedStore(store, process, self))

    def durable(self, process: Process, document: Document) -> None:
        """This letter can be found by whoever comes next."""
        self._learn(document)
        self._wrote(process, document)

    def ended(self, process: Process, document: Document) -> None:
        """This cycle is archived."""
        self._archived(process, document)

    def lookup(self, client_id: str) -> PlannedSlice | None:
        """The slice of an order id; None when no letter ever planned it."""
        return self.planned.get(client_id)

    def _learn(self, document: Document) -> None:
        self.latest = document
        if document["legs"] or document["targets"]:
            self.decided = document
        for record in document["legs"]:
            leg, sized = record["leg"], record.get("sized")
            for part in record["slices"]:
                client_id = part["client_id"]
                known = self.planned.get(client_id)
                size = Decimal(part["size"])
                if known is not None and (known.epoch, known.size) == (document["epoch"], size):
                    continue  # of a plan that was made anew the newest counts
                leg_size = Decimal(leg["size"])
                if sized is not None:
                    leg_size = max(leg_size, Decimal(sized["size"]))
                self.planned[client_id] = PlannedSlice(
                    session_id=document["session_id"],
                    cycle=document["cycle"],
                    leg_id=leg["leg_id"],
                    symbol=leg["symbol"],
                    buys=leg["side"] == "buy",
                    size=size,
                    leg_size=leg_size,
                    reduce_only=leg["reduce_only"],
                    after=leg["after"],
                    epoch=document["epoch"],
                )


def _is_newer(document: Document, other: Document) -> bool:
    stamps = [(each["epoch"], each["revision"]) for each in (document, other)]
    return document["session_id"] == other["session_id"] and stamps[0] > stamps[1]


class WatchedStore:
    """Fits `OrderInfoStore`, and whatever more the store can do."""

    def __init__(self, store: OrderInfoStore, process: Process, seen: LettersSeen) -> None:
        self._store = store
        self._process = process
        self._seen = seen

    def read(self) -> Document | None:
        """As the store."""
        self._process.require_alive()
        found = self._store.read()
        self._seen.on_read(found)
        latest = self._seen.latest
        if found is not None and latest is not None and _is_newer(found, latest):
            # Its writer died once it was durable, and before it could know.
            self._seen.durable(self._process, found)
        return found

    def write(self, document: Document, epoch: int, revision: int) -> None:
        """As the store; then it is durable."""
        self._process.require_alive()
        try:
            self._store.write(document, epoch, revision)
        except AifapError:
            self._seen_anyway(document, epoch, revision)
            raise
        self._seen.durable(self._process, document)

    def _seen_anyway(self, document: Document, epoch: int, revision: int) -> None:
        """It may be there although the writer was told nothing, or that it failed."""
        try:
            found = self._store.read()
        except AifapError:
            return
        if found is not None and (found["epoch"], found["revision"]) == (epoch, revision):
            self._seen.durable(self._process, document)

    def archive(self, document: Document) -> None:
        """As the store."""
        self._process.require_alive()
        self._store.archive(document)
        self._seen.ended(self._process, document)

    def archived(self, count_max: int) -> Sequence[Document]:
        """As the store."""
        return self._store.archived(count_max)

    def keep_bars(self, cycle: datetime, content: bytes) -> None:
        """As the store."""
        self._process.require_alive()
        cast(Any, self._store).keep_bars(cycle, content)

    def bars_of(self, cycle: datetime) -> bytes | None:
        """As the store."""
        return cast("bytes | None", cast(Any, self._store).bars_of(cycle))
