"""A leader's hand on its session's letter: the newest one, saved before anything depends on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, TypeVar

from module.logs import get_logger
from module.model.errors import AifapError, InvariantViolated
from module.points import reach
from module.ports import OrderInfoStore
from trading.rebalance.order_info import Noted, OrderInfo, from_json, requested, to_json

RECENT_MAX = 4
ARCHIVE_LOOK = 50
"""So many ended cycles a new leader looks at."""
T = TypeVar("T")
Errors = tuple[type[AifapError], ...]


class UntilKept(Protocol):
    """Repeats work for as long as the store refuses it, bounded (`Vigil.until_kept`)."""

    def __call__(self, work: Callable[[], T], at_once: Errors = ()) -> T:
        """The result; Conflict when it was refused for too long. `at_once` are not waited for."""
        ...


@dataclass(frozen=True, slots=True)
class PatientStore:
    """Fits `OrderInfoStore`: a disk, a lock or a Postgres that refuses is tried again by `until`.

    What it raises in the end says that nothing was saved, and never that the exchange is away.
    """

    store: OrderInfoStore
    until: UntilKept

    def read(self) -> Mapping[str, object] | None:
        """See `ports.OrderInfoStore`."""
        return self.until(self.store.read)

    def write(
        self, document: Mapping[str, object], epoch: int, revision: int, at_once: Errors = ()
    ) -> None:
        """See `ports.OrderInfoStore`; writing the same twice is harmless."""
        self.until(lambda: self.store.write(document, epoch, revision), at_once)

    def archive(self, document: Mapping[str, object]) -> None:
        """See `ports.OrderInfoStore`; tried once: the journal tries again."""
        self.store.archive(document)

    def archived(self, count_max: int) -> Sequence[Mapping[str, object]]:
        """See `ports.OrderInfoStore`."""
        return self.until(lambda: self.store.archived(count_max))


log = get_logger("trading.leader")


class Letters:
    """Reads and saves. `last` is the newest letter that this leader knows."""

    def __init__(self, store: PatientStore, session_id: str) -> None:
        self._store = store
        self._session_id = session_id
        self.last: OrderInfo | None = None
        self._recent: deque[OrderInfo] | None = None

    def find(self) -> OrderInfo | None:
        """What an earlier leader left, or None; a damaged letter is an error that names it."""
        document = self._store.read()
        self.last = None if document is None else from_json(document)
        return self.last

    def read(self) -> OrderInfo:
        """The letter, which must be there."""
        document = self._store.read()
        if document is None:
            raise InvariantViolated("order_info is gone in the middle of a cycle")
        self.last = from_json(document)
        return self.last

    def save(self, info: OrderInfo, at_once: Errors = ()) -> OrderInfo:
        """Durable when it returns; StaleWriter when a newer leader wrote. What keeps it from being
        saved is waited for, bounded, unless it is one of `at_once`."""
        reach("leader: letter to be saved")
        self._store.write(to_json(info), info.epoch, info.revision, at_once)
        reach("leader: letter saved")
        self.last = info
        return info

    def request(self, cycle: datetime, number: int, epoch: int) -> OrderInfo:
        """A request for the cycle's plan, not saved yet; what is known of before goes with it."""
        last = self.last
        revision = 0 if last is None else last.revision + 1
        asked = requested(self._session_id, cycle, number, epoch, revision)
        if last is None:
            return asked
        return replace(
            asked,
            held_before=last.leads_to(),
            corrections=last.corrections,
            noted=last.noted if last.cycle == cycle else _noted_after(last),
        )

    def archive(self) -> list[OrderInfo]:
        """What the archive has of the newest cycles, in the order in which they ended: a clock that
        was ahead for a while names cycles of a time that is still to come (C7). One that cannot be
        read is left out."""
        found: list[OrderInfo] = []
        for document in self._store.archived(ARCHIVE_LOOK):
            try:
                found.append(from_json(document))
            except InvariantViolated as error:
                log.warning("an archived cycle cannot be read", detail=error.message)
        found.sort(key=lambda info: (info.epoch, info.revision))
        self._recent = deque(found[-RECENT_MAX:], RECENT_MAX)
        return found

    def kept(self, info: OrderInfo) -> None:
        """Its cycle is over and archived."""
        self.last = info
        if self._recent is not None:
            self._recent.append(info)

    def recent(self) -> list[OrderInfo]:
        """The newest letters, oldest first: of ended cycles, then the last one."""
        if self._recent is None:
            self.archive()
        found = list(self._recent or ())
        return found if self.last is None or self.last in found else [*found, self.last]


def _noted_after(info: OrderInfo) -> tuple[Noted, ...]:
    """What was found after the cycle was over belongs to the next one's journal."""
    after = info.held_after
    return () if after is None else tuple(item for item in info.noted if item.at >= after.at)
