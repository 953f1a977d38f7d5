"""Letters in memory; see `module.db.repositories.order_info`: the mirror, and the truth of Jobs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from module.model.canonical import parse_instant
from module.model.errors import Retryable
from module.model.sealed import seal, unseal
from module.points import reach
from tests.simulation.memory_postgres.server import Connection, Transaction
from tests.simulation.memory_postgres.sessions import MemorySessions, SessionTables


class Rendering(Protocol):
    """Where people look: files made from what Postgres has. Unavailable when the disk refuses."""

    def render(self, document: Mapping[str, object]) -> None:
        """Show the letter."""
        ...

    def archive(self, document: Mapping[str, object]) -> None:
        """Show an ended cycle."""
        ...

    def keep_bars(self, cycle: datetime, content: bytes) -> None:
        """Show the bars that a cycle saw."""
        ...


class MemoryMirror:
    """`PostgresMirror` of one session."""

    def __init__(self, sessions: MemorySessions, session_id: str) -> None:
        self._sessions = sessions
        self._session_id = session_id

    def write(self, document: Mapping[str, object], epoch: int, revision: int) -> None:
        """Follow the file."""
        self._sessions.write_order_info(self._session_id, document, epoch, revision)

    def read(self) -> Mapping[str, object] | None:
        """The last copy."""
        return self._sessions.read_order_info(self._session_id)


class MemoryLetterStore:
    """`PostgresOrderInfoStore` of one session: its row is the truth."""

    def __init__(
        self,
        connection: Connection,
        tables: SessionTables,
        session_id: str,
        rendering: Rendering | None = None,
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._mirror = MemoryMirror(MemorySessions(connection, tables), session_id)
        self._session_id = session_id
        self._rendering = rendering

    def read(self) -> Mapping[str, object] | None:
        """The document, or None where there never was one."""
        return self._mirror.read()

    def write(self, document: Mapping[str, object], epoch: int, revision: int) -> None:
        """Replace the document durably; then the file shows it, if it can."""
        self._mirror.write(document, epoch, revision)
        reach("order_info: written")
        self._show(lambda files: files.render(document))
        reach("order_info: rendered")

    def archive(self, document: Mapping[str, object]) -> None:
        """Keep an ended cycle; keeping it again replaces it."""
        cycle = parse_instant(str(document["cycle"]))
        content = seal(document)

        def work(transaction: Transaction) -> None:
            transaction.put(self._tables.archive, (self._session_id, cycle), content)

        self._connection.run_idempotent(work)
        reach("archive: written")
        self._show(lambda files: files.archive(document))

    def archived(self, count_max: int) -> Sequence[Mapping[str, object]]:
        """The newest ended cycles, oldest first."""
        self._connection.read()
        mine = sorted(key for key in self._tables.archive if key[0] == self._session_id)
        newest = mine[-count_max:] if count_max else []
        return [unseal(self._tables.archive[key], f"cycle {key[1]}") for key in newest]

    def keep_bars(self, cycle: datetime, content: bytes) -> None:
        """Keep the bars that a cycle saw."""

        def work(transaction: Transaction) -> None:
            transaction.put(self._tables.bars, (self._session_id, cycle), content)

        self._connection.run_idempotent(work)
        self._show(lambda files: files.keep_bars(cycle, content))

    def bars_of(self, cycle: datetime) -> bytes | None:
        """What was kept of a cycle's bars."""
        self._connection.read()
        return self._tables.bars.get((self._session_id, cycle))

    def _show(self, show: Callable[[Rendering], None]) -> None:
        """A disk that refuses loses nothing: the row has it."""
        if self._rendering is not None:
            with contextlib.suppress(Retryable):
                show(self._rendering)
