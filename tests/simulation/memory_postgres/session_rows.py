"""Rows whose keys begin with a session's id: as a database's index on it would find them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

Key = TypeVar("Key", bound="tuple[Any, ...]")
Row = TypeVar("Row")


class SessionRows(dict[Key, Row]):
    """A dict that knows each session's keys, in the order they came in, and which keys changed."""

    def __init__(self) -> None:
        super().__init__()
        self._by_session: dict[str, dict[Key, None]] = {}
        self.changed: dict[Key, None] = {}
        """Keys that were put since somebody cleared this."""
        self.highest: dict[str, Key] = {}
        """The highest key that each session ever had."""

    def of(self, session_id: str) -> Iterator[tuple[Key, Row]]:
        """The session's rows."""
        return ((key, self[key]) for key in self._by_session.get(session_id, ()))

    def __setitem__(self, key: Key, row: Row) -> None:
        super().__setitem__(key, row)
        self._by_session.setdefault(key[0], {})[key] = None
        self.changed[key] = None
        self.highest[key[0]] = max(key, self.highest.get(key[0], key))

    def __delitem__(self, key: Key) -> None:
        super().__delitem__(key)
        del self._by_session[key[0]][key]

    def pop(self, key: Key, *default: Any) -> Any:
        """As a dict's."""
        if key not in self:
            return super().pop(key, *default)
        self._by_session[key[0]].pop(key)
        return super().pop(key)
