"""Minutes and gaps by month, daily roll-ups, and which days' roll-ups are due.

The rows that are there are moved, none is lost; each table keeps the names of its key and indexes.
A partition for what has no month of its own yet catches every other row (module.db.results_upkeep
gives those rows their month).
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "results_0003"
down_revision = "results_0002"
branch_labels = None
depends_on = None

MARKETS = ("futures", "spot")
KEYS = {
    "futures_result_1min": "session_id, minute, symbol",
    "spot_result_1min": "session_id, minute, symbol",
    "futures_portfolio_result_1min": "session_id, minute",
    "spot_portfolio_result_1min": "session_id, minute",
    "futures_indicator_result_1min_1day": "session_id, minute",
    "spot_indicator_result_1min_1day": "session_id, minute",
    "result_gaps_1min": "session_id, minute",
}
OWNER_INDEX = "CREATE INDEX {table}_owner_minute ON {table} (owner_id, minute)"
PORTFOLIOS = tuple(f"{market}_portfolio_result_1min" for market in MARKETS)
INDICATORS = tuple(f"{market}_indicator_result_1min_1day" for market in MARKETS)

VIEW_OF_COLUMNS = """
CREATE VIEW {table}_columns AS
SELECT r.session_id, r.owner_id, r.minute, c.column_id, d.name, c.value
FROM {table} AS r
CROSS JOIN LATERAL (VALUES
    (1, r.current_pv::double precision),
    (2, r.netprofit::double precision),
    (3, r.roe),
    (4, r.position_value::double precision),
    (5, r.cash::double precision),
    (8, r.unrealized_pnl::double precision),
    (9, r.unrealized_roe),
    (10, r.margin_size::double precision),
    (11, r.available::double precision)
) AS c (column_id, value)
JOIN result_columns AS d USING (column_id)
"""

# The row of 00:00 belongs to the day before it, as in the indicators.
DAYS_DUE = """
INSERT INTO result_days_due (session_id, day, market)
SELECT DISTINCT session_id,
    ((minute - interval '1 microsecond') AT TIME ZONE 'UTC')::date, '{market}'
FROM {market}_portfolio_result_1min
ON CONFLICT DO NOTHING
"""


def upgrade() -> None:
    for table in PORTFOLIOS:
        op.execute(f"DROP VIEW {table}_columns")
    for table, key in KEYS.items():
        _partition(table, key)
    for table in PORTFOLIOS:
        op.execute(OWNER_INDEX.format(table=table))
        op.execute(VIEW_OF_COLUMNS.format(table=table))
        _add_days(table, f"{table.removesuffix('_1min')}_1day")
        op.execute(
            f"ALTER TABLE {table.removesuffix('_1min')}_1day "
            "ADD COLUMN minutes integer NOT NULL, ADD COLUMN gaps integer NOT NULL, "
            "ADD COLUMN low_pv numeric(38, 18) NOT NULL, ADD COLUMN high_pv numeric(38, 18) NOT NULL"
        )
    for table in INDICATORS:
        _add_days(table, f"{table.removesuffix('_1min_1day')}_1day")
    op.create_table(
        "result_days_due",
        sa.Column("session_id", sa.String(length=16), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("market", sa.String(length=8), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "day"),
    )
    for market in MARKETS:
        op.execute(DAYS_DUE.format(market=market))


def _partition(table: str, key: str) -> None:
    op.execute(
        f"CREATE TABLE {table}_moving (LIKE {table} INCLUDING DEFAULTS) PARTITION BY RANGE (minute)"
    )
    op.execute(f"CREATE TABLE {table}_default PARTITION OF {table}_moving DEFAULT")
    months = op.get_bind().execute(
        sa.text(f"SELECT DISTINCT date_trunc('month', minute, 'UTC') FROM {table}")  # noqa: S608
    )
    for (first,) in months.all():
        first = first.astimezone(UTC)
        following = datetime(first.year + first.month // 12, first.month % 12 + 1, 1, tzinfo=UTC)
        op.execute(
            f"CREATE TABLE {table}_y{first:%Y}m{first:%m} PARTITION OF {table}_moving "
            f"FOR VALUES FROM ('{first.isoformat()}') TO ('{following.isoformat()}')"
        )
    op.execute(f"INSERT INTO {table}_moving SELECT * FROM {table}")  # noqa: S608
    op.execute(f"DROP TABLE {table}")
    op.execute(f"ALTER TABLE {table}_moving RENAME TO {table}")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {table}_pkey PRIMARY KEY ({key})")


def _add_days(minutes: str, days: str) -> None:
    op.execute(f"CREATE TABLE {days} (LIKE {minutes} INCLUDING DEFAULTS, day date NOT NULL)")
    op.execute(f"ALTER TABLE {days} ADD CONSTRAINT {days}_pkey PRIMARY KEY (session_id, day)")
