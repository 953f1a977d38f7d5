"""One database server in memory: tables, transactions that are whole or nothing, lost commits.

repository ─► Connection.transaction ─► gate (a fault?) ─► work ─► gate ─► commit ─► gate (answer?)

Rows are frozen records in dicts; a transaction writes through and keeps the old rows, so undoing
it, and a fail-over that forgets the last seconds, put them back. One thread, nothing waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol, TypeVar, cast

from sqlalchemy.orm import Session

from module.db.database import Database
from module.points import reach

BEFORE_COMMIT = "postgres: before commit"
COMMITTED = "postgres: committed"
KEPT_S = 10.0
"""How far back a fail-over can reach."""

Key = TypeVar("Key")
Row = TypeVar("Row")
Result = TypeVar("Result")


class Gate(Protocol):
    """What may happen to a transaction. Each may raise Unavailable or OutcomeUnknown."""

    def begin(self, database: str) -> None:
        """A transaction or a read wants a connection to `database`."""
        ...

    def before_commit(self, database: str) -> None:
        """Its work is done, with changes, and nothing is committed yet: raising undoes it."""
        ...

    def lose_answer(self, database: str) -> bool | None:
        """Whether the answer to this COMMIT is lost: True after, False before it was applied."""
        ...

    def answer_lost(self, database: str) -> None:
        """Raise what the caller sees of a COMMIT without an answer."""
        ...


class OpenGate:
    """Nothing ever goes wrong."""

    def begin(self, database: str) -> None:
        """Granted."""

    def before_commit(self, database: str) -> None:
        """Go on."""

    def lose_answer(self, database: str) -> bool | None:
        """It arrives."""
        return None

    def answer_lost(self, database: str) -> None:
        """Never asked."""


@dataclass(slots=True)
class Transaction:
    """The changes of one transaction, with what was there before."""

    undo: list[Callable[[], None]] = field(default_factory=list)

    def put(self, table: MutableMapping[Key, Row], key: Key, row: Row) -> None:
        """Insert or replace one row."""
        self._remember(table, key)
        table[key] = row

    def remove(self, table: MutableMapping[Key, Row], key: Key) -> None:
        """Delete one row; none is no error."""
        if key in table:
            self._remember(table, key)
            del table[key]

    def _remember(self, table: MutableMapping[Key, Row], key: Key) -> None:
        if key in table:
            before = table[key]
            self.undo.append(lambda: table.__setitem__(key, before))
        else:
            self.undo.append(lambda: cast(None, table.pop(key, None)))

    def roll_back(self) -> None:
        """Put everything back, the last change first."""
        while self.undo:
            self.undo.pop()()


@dataclass(slots=True)
class Server:
    """The server: what is committed, since when, and how many times its connections were cut.

    `locks` are advisory locks: key → (holder, generation); a new generation frees them all.
    """

    now: Callable[[], datetime]
    gate: Gate = field(default_factory=OpenGate)
    generation: int = 0
    locks: dict[str, tuple[str, int]] = field(default_factory=dict)
    _history: deque[tuple[datetime, Callable[[], None]]] = field(default_factory=deque)

    def commit(self, transaction: Transaction) -> None:
        """Make it lasting; a fail-over within KEPT_S may still forget it."""
        now = self.now()
        while self._history and now - self._history[0][0] > timedelta(seconds=KEPT_S):
            self._history.popleft()
        self._history.extend((now, undo) for undo in transaction.undo)
        transaction.undo = []

    def cut_connections(self) -> None:
        """Every connection breaks, every advisory lock is free."""
        self.generation += 1
        self.locks.clear()

    def forget_since(self, when: datetime) -> int:
        """A replica takes over that never saw what was committed after `when`; how many changes."""
        forgotten = 0
        while self._history and self._history[-1][0] > when:
            self._history.pop()[1]()
            forgotten += 1
        return forgotten


class Connection:
    """One database of the server, as a process uses it; shaped like `module.db.Database`."""

    def __init__(self, server: Server, database: str) -> None:
        self.server = server
        self.database = database

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A transaction; see `Database.transaction` for what may be raised."""
        server, gate = self.server, self.server.gate
        gate.begin(self.database)
        transaction = Transaction()
        try:
            yield transaction
            lost: bool | None = None
            if transaction.undo:
                gate.before_commit(self.database)
                reach(BEFORE_COMMIT)
                lost = gate.lose_answer(self.database)
            if lost is False:
                gate.answer_lost(self.database)
        except BaseException:
            transaction.roll_back()
            raise
        if transaction.undo:
            server.commit(transaction)
            reach(COMMITTED)
        if lost:
            gate.answer_lost(self.database)

    def read(self) -> None:
        """A connection for reading; Unavailable while there is none."""
        self.server.gate.begin(self.database)

    def run_idempotent(self, work: Callable[[Transaction], Result]) -> Result:
        """The production rule itself, over this connection's transactions."""
        return Database.run_idempotent(
            cast(Database, self), cast(Callable[[Session], Result], work)
        )
