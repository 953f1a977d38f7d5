"""Brings the three databases to the schema of this code, and refuses any other (E10).

One version tree per database under `migrations/versions`. All migrations of a database run in one
transaction under one lock: they are applied whole or not at all, and two processes that start at
once apply them once.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, MetaData, text
from sqlalchemy.exc import DBAPIError

from module.db.database import DATABASE_NAMES, Database, DatabaseName
from module.model.errors import Conflict, Unavailable

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from module.settings import Settings

READER_ROLE: Final = "aifap_reader"
MIGRATION_TIMEOUT_MS: Final = 600_000
LOCK_KEY: Final = 7_232_046_911
# Alembic's `context` belongs to the whole process: threads take turns.
_alembic_lock: Final = threading.Lock()
# What dashboards may see of `finplatform`; tokens, credentials, strategies, plans, and the contents
# of requests and answers are not among it.
READABLE_COLUMNS: Final[dict[str, str]] = {
    "accounts": "account_id, owner_id, label, venue, market, market_id, trade_env, active, "
    "initial_balance, created_at",
    "active_sessions": "session_id, owner_id, account_id, state, desired, end_state, started_at, "
    "ends_at, ended_at, reason, cycle, last_boundary, heartbeat_wall, initial_balance, restarts",
    "alert_deliveries": "alert_id, channel, state, attempts",
    "alert_outbox": "alert_id, kind, severity, title, session_id, owner_id, at",
    "audit_log": "audit_id, user_id, action, subject, at_wall",
    "cycles": "session_id, boundary, number, state, reason, started_at, ended_at, own_ms",
    "gateway_writes": "write_id, account_id, session_id, kind, symbol, outcome, sent_at, "
    "answered_at",
    "unprotected_periods": "id, account_id, symbol, started_at, ended_at, cause",
    "user_details": "user_id, name",
}
# Of the other two databases dashboards see all tables but these.
NOT_READABLE: Final = ("alembic_version", "finwatcher_state", "result_days_due")


@dataclass(frozen=True, slots=True)
class SchemaState:
    """`applied`: what the database says of itself (None: empty); `wanted`: what the code needs."""

    name: DatabaseName
    applied: str | None
    wanted: str
    known: bool


def migrate_all(settings: Settings) -> None:
    """Apply all missing migrations; running it twice, or in two processes, is harmless.

    Conflict, with nothing changed, when a database is newer than this code.
    """
    for name in DATABASE_NAMES:
        migrate(settings, name)


def migrate(settings: Settings, name: DatabaseName, revision: str = "head") -> None:
    """Bring one database to `revision`."""
    from alembic import command

    database = Database(settings, name, 1, statement_timeout_ms=MIGRATION_TIMEOUT_MS)
    try:
        with _alembic_lock, database.transaction() as session:
            connection = session.connection()
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
            state = _state(connection, name)
            if state.applied is not None and not state.known:
                raise Conflict(_too_new(state))
            config = _config(name)
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            _grant_reader(connection, name)
    finally:
        database.close()


def check_schema(settings: Settings) -> None:
    """Return when each database has exactly the schema of this code.

    Conflict names the database and what to do: migrate it, install newer code, or restore what
    somebody changed by hand. Unavailable when Postgres cannot be reached.
    """
    for name in DATABASE_NAMES:
        database = Database(settings, name, 1)
        try:
            with database.read() as session:
                connection = session.connection()
                _require_applied(_state(connection, name))
                _require_columns(connection, name)
        finally:
            database.close()


def schema_states(settings: Settings) -> list[SchemaState]:
    """What each database has and should have, for people to read."""
    states: list[SchemaState] = []
    for name in DATABASE_NAMES:
        database = Database(settings, name, 1)
        try:
            with database.read() as session:
                states.append(_state(session.connection(), name))
        finally:
            database.close()
    return states


def tables_of(name: DatabaseName) -> MetaData:
    """The tables that this code works with."""
    if name == "finplatform":
        from module.db.platform_tables import PlatformBase

        return PlatformBase.metadata
    if name == "fin_crypto":
        from module.db.market_tables import MarketBase

        return MarketBase.metadata
    from module.db.results_tables import ResultsBase

    return ResultsBase.metadata


def _config(name: DatabaseName) -> Config:
    from alembic.config import Config

    folder = Path(__file__).parent / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("version_locations", str(folder / "versions" / name).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    return config


def _scripts(name: DatabaseName) -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config(name))


def _state(connection: Connection, name: DatabaseName) -> SchemaState:
    from alembic.runtime.migration import MigrationContext

    scripts = _scripts(name)
    wanted = scripts.get_current_head()
    if wanted is None:
        raise Conflict(f"this build has no migrations for {name}; install it again")
    applied = MigrationContext.configure(connection).get_current_revision()
    known = applied in {script.revision for script in scripts.walk_revisions()}
    return SchemaState(name, applied, wanted, known)


def _require_applied(state: SchemaState) -> None:
    if state.applied == state.wanted:
        return
    if state.applied is None:
        raise Conflict(
            f"database {state.name} has no AIFAP schema yet; run `aifap db migrate`, then start "
            "again"
        )
    if not state.known:
        raise Conflict(_too_new(state))
    raise Conflict(
        f"database {state.name} has schema {state.applied}, this build needs {state.wanted}; run "
        "`aifap db migrate`, then start again"
    )


def _too_new(state: SchemaState) -> str:
    return (
        f"database {state.name} has schema {state.applied}, which this build does not know (its "
        f"newest is {state.wanted}); a newer AIFAP has migrated it: start that one"
    )


def _require_columns(connection: Connection, name: DatabaseName) -> None:
    rows = connection.execute(
        text(
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE table_schema = current_schema()"
        )
    )
    present = {(str(row[0]), str(row[1])) for row in rows}
    missing = sorted(
        f"{table.name}.{column.name}"
        for table in tables_of(name).sorted_tables
        for column in table.columns
        if (table.name, column.name) not in present
    )
    if missing:
        raise Conflict(
            f"database {name} says it is up to date but lacks {', '.join(missing[:5])}"
            f"{' and more' if len(missing) > 5 else ''}; it was changed by hand or restored in "
            "part: restore it from a backup before starting"
        )


def _grant_reader(connection: Connection, name: DatabaseName) -> None:
    """Let dashboards read what is theirs to read, where the installation has the role."""
    found = connection.execute(
        text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": READER_ROLE}
    ).first()
    if found is None:
        return
    try:
        connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {READER_ROLE}"))
        there = set(
            connection.scalars(
                text("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
            )
        )
        if name != "finplatform":
            connection.execute(
                text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER_ROLE}")
            )
            for table in there.intersection(NOT_READABLE):
                connection.execute(text(f"REVOKE ALL ON {table} FROM {READER_ROLE}"))
            return
        for table, columns in READABLE_COLUMNS.items():
            if table in there:
                connection.execute(text(f"GRANT SELECT ({columns}) ON {table} TO {READER_ROLE}"))
    except DBAPIError as error:
        raise Unavailable(
            f"the role {READER_ROLE} cannot be given its rights in {name} ({error.orig}); nothing "
            "was migrated"
        ) from error
