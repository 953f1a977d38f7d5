"""Letters in Postgres: the mirror of a session's file, or the truth of Jobs without a lasting disk.

    file store  ── write ─► PostgresMirror ─► order_info          (the file is the truth)
    Job         ── write ─► PostgresOrderInfoStore ─► order_info  (the file is rendered from it)
                ── archive, bars ─► archived_cycles

(epoch, revision) of a session's row only grows, whoever writes. A row carries the digest of its
document, an archived cycle its seal: what was altered in the database is noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.platform_tables import ArchivedCycle, OrderInfoMirror
from module.logs import get_logger
from module.model.canonical import canonical_json, digest, parse_instant
from module.model.errors import InvariantViolated, Retryable, StaleWriter
from module.model.sealed import seal, unseal
from module.points import reach

ARCHIVE_MAX: Final = 500
_UPSERT_FROM: Final = """
INSERT INTO order_info (session_id, epoch, revision, document, sha256)
SELECT :session_id, :epoch, :revision, CAST(:document AS jsonb), :sha256 {source}
ON CONFLICT (session_id) DO UPDATE SET epoch = excluded.epoch, revision = excluded.revision,
    document = excluded.document, sha256 = excluded.sha256
WHERE (order_info.epoch, order_info.revision) <= (excluded.epoch, excluded.revision)
RETURNING session_id
"""
_UPSERT: Final = text(_UPSERT_FROM.format(source=""))
_UPSERT_WITHOUT_WAITING: Final = text(
    _UPSERT_FROM.format(
        source="FROM (SELECT set_config('synchronous_commit', 'off', true)) AS without_waiting"
    )
)

log = get_logger("db.order_info")


def write_letter(
    database: Database,
    session_id: str,
    document: Mapping[str, object],
    epoch: int,
    revision: int,
    *,
    is_truth: bool = False,
) -> None:
    """Make the session's row hold `document`; StaleWriter when a newer (epoch, revision) is there.

    A commit whose answer was lost is repeated: the row then is what it would have become (E2). A
    mirror does not wait for the disk (`is_truth` does): it may miss the last second after a crash.
    """
    body = canonical_json(document)
    values = {
        "session_id": session_id,
        "epoch": epoch,
        "revision": revision,
        "document": body,
        "sha256": hashlib.sha256(body.encode()).hexdigest(),
    }
    if is_truth:
        rows = database.run_idempotent(lambda session: session.execute(_UPSERT, values).all())
    else:
        rows = database.run_alone(_UPSERT_WITHOUT_WAITING, values)
    if not rows:
        raise StaleWriter(
            f"the letter of session {session_id} in Postgres is newer than "
            f"{(epoch, revision)}: another process took the session over"
        )


def read_letter(database: Database, session_id: str) -> dict[str, object] | None:
    """The session's row, or None. InvariantViolated when it does not match its own digest."""
    with database.read() as session:
        row = session.get(OrderInfoMirror, session_id)
        if row is None:
            return None
        document: dict[str, object] = dict(row.document)
        stated = row.sha256
    if stated is not None and digest(document) != stated:
        raise InvariantViolated(
            f"the letter of session {session_id} in Postgres does not match its own digest: it "
            "was altered; nothing is traded until it is mended"
        )
    return document


class PostgresMirror:
    """The copy of one session's letter, as the file store's `Mirror`."""

    def __init__(self, database: Database, session_id: str) -> None:
        self._database = database
        self._session_id = session_id

    def write(self, document: Mapping[str, object], epoch: int, revision: int) -> None:
        """Follow the file."""
        write_letter(self._database, self._session_id, document, epoch, revision)

    def read(self) -> Mapping[str, object] | None:
        """The last copy."""
        return read_letter(self._database, self._session_id)


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


class PostgresOrderInfoStore:
    """The letter of one session. One truth: its row. A file, where there is a disk, shows it."""

    def __init__(
        self, database: Database, session_id: str, rendering: Rendering | None = None
    ) -> None:
        self._database = database
        self._session_id = session_id
        self._rendering = rendering

    def read(self) -> Mapping[str, object] | None:
        """The document, or None where there never was one. InvariantViolated when it was altered,
        Unavailable while Postgres is away."""
        return read_letter(self._database, self._session_id)

    def write(self, document: Mapping[str, object], epoch: int, revision: int) -> None:
        """Replace the document durably; then the file shows it, if it can.

        StaleWriter when there is a newer (epoch, revision). Unavailable when Postgres is away:
        treat as not saved.
        """
        write_letter(self._database, self._session_id, document, epoch, revision, is_truth=True)
        reach("order_info: written")
        self._show(lambda files: files.render(document))
        reach("order_info: rendered")

    def archive(self, document: Mapping[str, object]) -> None:
        """Keep an ended cycle; keeping it again replaces it. The oldest go beyond ARCHIVE_MAX."""
        self._keep(parse_instant(str(document["cycle"])), content=seal(document))
        reach("archive: written")
        self._show(lambda files: files.archive(document))

    def archived(self, count_max: int) -> Sequence[Mapping[str, object]]:
        """The newest ended cycles, oldest first; one that cannot be read is left out and logged."""
        with self._database.read() as session:
            rows = session.execute(
                select(ArchivedCycle.boundary, ArchivedCycle.content)
                .where(
                    ArchivedCycle.session_id == self._session_id,
                    ArchivedCycle.content.is_not(None),
                )
                .order_by(ArchivedCycle.boundary.desc())
                .limit(count_max)
            ).all()
        found: list[Mapping[str, object]] = []
        for boundary, content in reversed(rows):
            try:
                found.append(unseal(bytes(content or b""), self._label(boundary)))
            except InvariantViolated as error:
                log.warning("an archived cycle cannot be read", detail=error.message)
        return found

    def keep_bars(self, cycle: datetime, content: bytes) -> None:
        """Keep the bars that a cycle saw."""
        self._keep(cycle, bars=content)
        self._show(lambda files: files.keep_bars(cycle, content))

    def bars_of(self, cycle: datetime) -> bytes | None:
        """What was kept of a cycle's bars."""
        with self._database.read() as session:
            row = session.get(ArchivedCycle, (self._session_id, cycle))
            return None if row is None or row.bars is None else bytes(row.bars)

    def _show(self, show: Callable[[Rendering], None]) -> None:
        """A disk that refuses loses nothing: Postgres has it."""
        if self._rendering is None:
            return
        try:
            show(self._rendering)
        except Retryable as error:
            log.warning("not shown as a file", detail=error.message)

    def _label(self, boundary: datetime) -> str:
        return f"the archived cycle {boundary:%Y-%m-%dT%H:%M:%SZ} of session {self._session_id}"

    def _keep(self, cycle: datetime, **columns: bytes) -> None:
        statement = insert(ArchivedCycle).values(
            session_id=self._session_id, boundary=cycle, **columns
        )
        upsert = statement.on_conflict_do_update(
            index_elements=[ArchivedCycle.session_id, ArchivedCycle.boundary],
            set_={name: statement.excluded[name] for name in columns},
        )
        newest_dropped = (
            select(ArchivedCycle.boundary)
            .where(ArchivedCycle.session_id == self._session_id)
            .order_by(ArchivedCycle.boundary.desc())
            .offset(ARCHIVE_MAX)
            .limit(1)
            .scalar_subquery()
        )
        prune = delete(ArchivedCycle).where(
            ArchivedCycle.session_id == self._session_id,
            ArchivedCycle.boundary <= newest_dropped,
        )

        def work(session: Session) -> None:
            session.execute(upsert)
            session.execute(prune)

        self._database.run_idempotent(work)
