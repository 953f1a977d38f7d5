"""The role that Grafana has: what it may read, table by table, and that it writes nothing."""

from __future__ import annotations

import psycopg2
import pytest

from module.db.migrate import tables_of
from module.settings import Settings
from tests.integration.dashboards.asked import Reader

pytestmark = pytest.mark.usefixtures("postgres")

SESSIONS, RESULTS = "aifap-sessions", "aifap-results"
READABLE = """
SELECT c.table_name, c.column_name
FROM information_schema.columns AS c
WHERE c.table_schema = 'public'
  AND has_column_privilege(format('public.%I', c.table_name)::regclass, c.column_name, 'SELECT')
"""
WRITABLE = """
SELECT t.tablename, p.privilege
FROM pg_tables AS t
CROSS JOIN unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'])
  AS p(privilege)
WHERE t.schemaname = 'public'
  AND has_table_privilege(format('public.%I', t.tablename)::regclass, p.privilege)
"""
# Keys, tokens, strategies, letters, what was asked and answered: none of it on a dashboard.
NEVER = {
    "account_credentials": None,
    "api_tokens": None,
    "archived_cycles": None,
    "credential_keys": None,
    "idempotency_keys": None,
    "order_info": None,
    "permissions": None,
    "wanted_stops": None,
    "accounts": {"key_hint", "venue_user_id", "base_url", "limits", "gateway_lease"},
    "active_sessions": {"spec", "leader_host", "leader_pid"},
    "alert_deliveries": {"last_error"},
    "alert_outbox": {"lines", "cause"},
    "audit_log": {"detail"},
    "cycles": {"targets", "order_info", "digest"},
    "gateway_writes": {"request", "answer", "client_id"},
    "user_details": {"role", "active"},
}


def readable(reader: Reader, source: str) -> dict[str, set[str]]:
    """Columns that the role may read, by table."""
    found: dict[str, set[str]] = {}
    for table, column in reader.run(source, READABLE).rows:
        found.setdefault(table, set()).add(column)
    return found


def test_S50_it_reads_nothing_secret(reader: Reader) -> None:
    found = readable(reader, SESSIONS)
    for table, columns in NEVER.items():
        if columns is None:
            assert table not in found
        else:
            assert not columns & found[table], table


def test_S50_every_table_of_the_platform_is_decided_upon(reader: Reader) -> None:
    """A new table is not readable, and a readable one is known here or has nothing to hide."""
    known = {table.name for table in tables_of("finplatform").sorted_tables}
    assert set(readable(reader, SESSIONS)) - NEVER.keys() <= {"unprotected_periods"}
    assert NEVER.keys() - known == set()


def test_of_results_it_reads_what_sessions_did(reader: Reader) -> None:
    found = set(readable(reader, RESULTS))
    hidden = {"finwatcher_state", "result_days_due", "alembic_version"}
    assert not found & hidden
    tables = {table.name for table in tables_of("finwatcher").sorted_tables}
    assert tables - hidden <= found


@pytest.mark.parametrize("source", [SESSIONS, RESULTS])
def test_S50_it_may_write_nowhere(reader: Reader, source: str) -> None:
    assert reader.run(source, WRITABLE).rows == []


@pytest.mark.parametrize(
    ("source", "sql"),
    [
        (RESULTS, "DELETE FROM futures_result_1min"),
        (RESULTS, "SET transaction_read_only = off; DELETE FROM futures_result_1min"),
        (RESULTS, "CREATE TABLE mine (id int)"),
        (RESULTS, "SELECT document FROM finwatcher_state"),
        (SESSIONS, "UPDATE active_sessions SET desired = 'stopped'"),
        (SESSIONS, "SELECT * FROM api_tokens"),
        (SESSIONS, "SELECT * FROM accounts"),
        (SESSIONS, "SELECT ciphertext FROM account_credentials"),
        (SESSIONS, "SELECT spec FROM active_sessions"),
        (SESSIONS, "SELECT order_info FROM cycles"),
        (SESSIONS, "SELECT pg_read_file('/etc/passwd')"),
        (SESSIONS, "COPY (SELECT 1) TO PROGRAM 'true'"),
        (SESSIONS, "SET ROLE aifap"),
    ],
)
def test_S50_what_it_must_not_do_is_refused(reader: Reader, source: str, sql: str) -> None:
    with pytest.raises(psycopg2.Error):
        reader.run(source, sql)


def test_a_query_that_takes_too_long_ends(reader: Reader, postgres: Settings) -> None:
    """A board that is left open must not hold the database that sessions need."""
    assert postgres
    for source in (SESSIONS, RESULTS):
        (row,) = reader.run(source, "SHOW statement_timeout").rows
        assert row[0] != "0", source
