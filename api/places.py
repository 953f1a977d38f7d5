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
    """`what` names it to people: "long questions", "downloads"; `wait_s`: when to ask again."""

    def __init__(self, what: str, *, each_max: int, all_max: int, wait_s: float = WAIT_S) -> None:
        self._what = what
        self._each_max = each_max
        self._all_max = all_max
        self._wait_s = wait_s
        self._all_said = f"as many {what} as this server has places for"
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
                many = f"{mine} {self._what} of yours" if mine >= self._each_max else self._all_said
                raise RateLimited(
                    f"{many} are under way; end one, or wait until one is done",
                    retry_after_s=self._wait_s,
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
