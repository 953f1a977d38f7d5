"""A leader's hand on its session's letter: the newest one, saved before anything depends on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Protocol, TypeVar

from module.logs import get_logger
from module.model.errors import InvariantViolated
from module.points import reach
from module.ports import OrderInfoStore
from trading.rebalance.order_info import Noted, OrderInfo, from_json, requested, to_json

RECENT_MAX = 4
T = TypeVar("T")


class Patiently(Protocol):
    """Repeats work for as long as what it needs is away, bounded (`Vigil.patiently`)."""

    def __call__(self, work: Callable[[], T]) -> T:
        """The result, or the error that outlived the patience."""
        ...


log = get_logger("trading.leader")


class Letters:
    """Reads and saves. `last` is the newest letter that this leader knows. A disk or lock that
    fails for a moment is waited for by `patiently`, bounded; then it is the caller's error, and
    nothing was saved."""

    def __init__(self, store: OrderInfoStore, session_id: str, patiently: Patiently) -> None:
        self._store = store
        self._session_id = session_id
        self._patiently = patiently
        self.last: OrderInfo | None = None

    def find(self) -> OrderInfo | None:
        """What an earlier leader left, or None; a damaged letter is an error that names it."""
        document = self._patiently(self._store.read)
        self.last = None if document is None else from_json(document)
        return self.last

    def read(self) -> OrderInfo:
        """The letter, which must be there."""
        document = self._patiently(self._store.read)
        if document is None:
            raise InvariantViolated("order_info is gone in the middle of a cycle")
        self.last = from_json(document)
        return self.last

    def save(self, info: OrderInfo) -> OrderInfo:
        """Durable when it returns; StaleWriter when a newer leader wrote."""
        reach("leader: letter to be saved")
        document = to_json(info)
        self._patiently(lambda: self._store.write(document, info.epoch, info.revision))
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
            held_before=last.expected(),
            corrections=last.corrections,
            noted=_noted_after(last),
        )

    def recent(self) -> list[OrderInfo]:
        """The newest letters, oldest first: archived cycles, then the last one. An archived one
        that cannot be read is left out."""
        found: list[OrderInfo] = []
        for document in self._store.archived(RECENT_MAX):
            try:
                found.append(from_json(document))
            except InvariantViolated as error:
                log.warning("an archived cycle cannot be read", detail=error.message)
        return found if self.last is None else [*found, self.last]

    def is_archived(self, info: OrderInfo) -> bool:
        """Whether the archive has this ended cycle; a leader may die right before it does so."""
        cycle = to_json(info)["cycle"]
        return any(document.get("cycle") == cycle for document in self._store.archived(1))


def _noted_after(info: OrderInfo) -> tuple[Noted, ...]:
    """What was found after the cycle was over belongs to the next one's journal."""
    after = info.held_after
    return () if after is None else tuple(item for item in info.noted if item.at >= after.at)
