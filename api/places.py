"""How much of something expensive may go on at once: of one person, and in this process.

One of each kind per process, in `app.state`; who finds no place is told when to ask again (429).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from module.model.errors import RateLimited

WAIT_S = 2.0


class Places:
    """`what` names it to people: "long questions", "downloads"."""

    def __init__(self, what: str, *, each_max: int, all_max: int) -> None:
        self._what = what
        self._each_max = each_max
        self._all_max = all_max
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """How many are in use now."""
        with self._lock:
            return self._taken.total()

    def take(self, user_id: str) -> None:
        """Claim a place; RateLimited when the person, or the process, has no more."""
        with self._lock:
            mine = self._taken[user_id]
            if mine >= self._each_max or self._taken.total() >= self._all_max:
                whose = f"{mine} of yours" if mine >= self._each_max else "too many of everybody's"
                raise RateLimited(
                    f"{whose} {self._what} are under way; wait until one is done",
                    retry_after_s=WAIT_S,
                )
            self._taken[user_id] += 1

    def give_back(self, user_id: str) -> None:
        """End a claim."""
        with self._lock:
            self._taken[user_id] -= 1
            if self._taken[user_id] <= 0:
                del self._taken[user_id]

    @contextmanager
    def one(self, user_id: str) -> Iterator[None]:
        """A place for the length of the block."""
        self.take(user_id)
        try:
            yield
        finally:
            self.give_back(user_id)
