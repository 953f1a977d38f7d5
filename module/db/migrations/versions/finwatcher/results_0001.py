"""The first schema of `finwatcher`."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "results_0001"
down_revision = None
branch_labels = None
depends_on = None

FILL_DICTIONARY = """
INSERT INTO result_columns (column_id, name, unit, meaning) VALUES
    (1, 'current_pv', 'USDT', 'wallet balance + unrealised PnL'),
    (2, 'netprofit', 'USDT', 'current_pv - initial balance - net transfers'),
    (3, 'roe', 'fraction', 'netprofit / available'),
    (4, 'position_value', 'USDT', 'sum of signed notionals at mark'),
    (5, 'cash', 'USDT', 'wallet balance that no position uses as margin'),
    (8, 'unrealized_pnl', 'USDT', 'profit of open positions at mark'),
    (9, 'unrealized_roe', 'fraction', 'unrealized_pnl / marginSize'),
    (10, 'marginSize', 'USDT', 'margin of open positions'),
    (11, 'available', 'USDT', 'capital at work: initial balance + net transfers')
ON CONFLICT (column_id) DO NOTHING
"""

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


def upgrade() -> None:
    op.create_table(
        "finwatcher_state",
        sa.Column("session_id", sa.String(length=16), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("session_id"),
    )
    op.create_table(
        "futures_historical_positions_info",
        sa.Column("session_id", sa.String(length=16), nullable=False),
        sa.Column("exchange_id", sa.String(length=64), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=36), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("side", sa.String(length=8), nullable=False),
        sa.Column("entry_price", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("close_price", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("size", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("gross_pnl", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("funding", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("open_fee", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("close_fee", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("net_profit", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "exchange_id"),
    )
    op.create_index(
        "futures_historical_positions_info_session_closed",
        "futures_historical_positions_info",
        ["session_id", "closed_at"],
        unique=False,
    )
    op.create_table(
        "futures_historical_transactions_details",
        sa.Column("session_id", sa.String(length=16), nullable=False),
        sa.Column("source", sa.String(length=8), nullable=False),
        sa.Column("exchange_id", sa.String(length=64), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("venue_kind", sa.String(length=64), nullable=False),
        sa.Column("order_id", sa.String(length=64), nullable=True),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("side", sa.String(length=8), nullable=True),
        sa.Column("price", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("size", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("quote_size", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("asset", sa.String(length=16), nullable=False),
        sa.Column("amount", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("fee", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("fee_asset", sa.String(length=16), nullable=False),
        sa.Column("balance", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("is_taker", sa.Boolean(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "source", "exchange_id"),
    )
    op.create_index(
        "futures_historical_transactions_details_session_at",
        "futures_historical_transactions_details",
        ["session_id", "at"],
        unique=False,
    )
    op.create_table(
        "futures_indicator_result_1min_1day",
        sa.Column("session_id", sa.String(length=16), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=36), nullable=False),
        sa.Column("returns_1min", sa.Integer(), nullable=False),
        sa.Column("cumulative_return", sa.Double(), nullable=True),
        sa.Column("drawdown", sa.Double(), nullable=True),
        sa.Column("max_drawdown", sa.Double(), nullable=True),
        sa.Column("sharpe_1min", sa.Double(), nullable=True),
        sa.Column("sortino_1min", sa.Double(), nullable=True),
        sa.Column("volatility_1min", sa.Double(), nullable=True),
        sa.Column("returns_1day", sa.Integer(), nullable=False),
        sa.Column("sharpe_1day", sa.Double(), nullable=True),
        sa.Column("sortino_1day", sa.Double(), nullable=True),
        sa.Column("volatility_1day", sa.Double(), nullable=True),
        sa.Column("trades", sa.Integer(), nullable=False),
        sa.Column("trades_won", sa.Integer(), nullable=False),
        sa.Column("win_rate", sa.Double(), nullable=True),
        sa.Column("flags", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "minute"),
    )
    op.create_table(
        "futures_portfolio_result_1min",
        sa.Column("session_id", sa.String(length=16), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=36), nullable=False),
        sa.Column("current_pv", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("netprofit", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("roe", sa.Double(), nullable=True),
        sa.Column("position_value", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("gross_position_value", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("cash", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("unrealized_pnl", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("unrealized_roe", sa.Double(), nullable=True),
        sa.Column("margin_size", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("available", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("wallet_balance", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("initial_balance", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("net_transfers", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("realized_pnl", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("fees", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("funding", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("positions", sa.Integer(), nullable=False),
        sa.Column("open_orders", sa.Integer(), nullable=False),
        sa.Column("unprotected", sa.Integer(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("writer", sa.String(length=36), nullable=False),
        sa.Column("flags", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "minute"),
    )
    op.create_index(
        "futures_portfolio_result_1min_owner_minute",
        "futures_portfolio_result_1min",
        ["owner_id", "minute"],
        unique=False,
    )
    op.create_table(
        "futures_result_1min",
        sa.Column("session_id", sa.String(length=16), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=36), nullable=False),
        sa.Column("size", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("entry_price", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("mark_price", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("position_value", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("margin_size", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("unrealized_pnl", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("unrealized_roe", sa.Double(), nullable=True),
        sa.Column("realized_pnl", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("fees", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("funding", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("weight", sa.Double(), nullable=True),
        sa.Column("target", sa.Double(), nullable=True),
        sa.Column("leverage", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("liquidation_price", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("stop_loss", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("take_profit", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("flags", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "minute", "symbol"),
    )
    op.create_table(
        "result_columns",
        sa.Column("column_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("unit", sa.String(length=16), nullable=False),
        sa.Column("meaning", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("column_id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "result_gaps_1min",
        sa.Column("session_id", sa.String(length=16), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("cause", sa.String(length=32), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "minute"),
    )
    op.create_table(
        "spot_historical_positions_info",
        sa.Column("session_id", sa.String(length=16), nullable=False),
        sa.Column("exchange_id", sa.String(length=64), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=36), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("side", sa.String(length=8), nullable=False),
        sa.Column("entry_price", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("close_price", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("size", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("gross_pnl", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("funding", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("open_fee", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("close_fee", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("net_profit", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "exchange_id"),
    )
    op.create_index(
        "spot_historical_positions_info_session_closed",
        "spot_historical_positions_info",
        ["session_id", "closed_at"],
        unique=False,
    )
    op.create_table(
        "spot_historical_transactions_details",
        sa.Column("session_id", sa.String(length=16), nullable=False),
        sa.Column("source", sa.String(length=8), nullable=False),
        sa.Column("exchange_id", sa.String(length=64), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("venue_kind", sa.String(length=64), nullable=False),
        sa.Column("order_id", sa.String(length=64), nullable=True),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("side", sa.String(length=8), nullable=True),
        sa.Column("price", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("size", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("quote_size", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("asset", sa.String(length=16), nullable=False),
        sa.Column("amount", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("fee", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("fee_asset", sa.String(length=16), nullable=False),
        sa.Column("balance", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("is_taker", sa.Boolean(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "source", "exchange_id"),
    )
    op.create_index(
        "spot_historical_transactions_details_session_at",
        "spot_historical_transactions_details",
        ["session_id", "at"],
        unique=False,
    )
    op.create_table(
        "spot_indicator_result_1min_1day",
        sa.Column("session_id", sa.String(length=16), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=36), nullable=False),
        sa.Column("returns_1min", sa.Integer(), nullable=False),
        sa.Column("cumulative_return", sa.Double(), nullable=True),
        sa.Column("drawdown", sa.Double(), nullable=True),
        sa.Column("max_drawdown", sa.Double(), nullable=True),
        sa.Column("sharpe_1min", sa.Double(), nullable=True),
        sa.Column("sortino_1min", sa.Double(), nullable=True),
        sa.Column("volatility_1min", sa.Double(), nullable=True),
        sa.Column("returns_1day", sa.Integer(), nullable=False),
        sa.Column("sharpe_1day", sa.Double(), nullable=True),
        sa.Column("sortino_1day", sa.Double(), nullable=True),
        sa.Column("volatility_1day", sa.Double(), nullable=True),
        sa.Column("trades", sa.Integer(), nullable=False),
        sa.Column("trades_won", sa.Integer(), nullable=False),
        sa.Column("win_rate", sa.Double(), nullable=True),
        sa.Column("flags", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "minute"),
    )
    op.create_table(
        "spot_portfolio_result_1min",
        sa.Column("session_id", sa.String(length=16), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=36), nullable=False),
        sa.Column("current_pv", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("netprofit", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("roe", sa.Double(), nullable=True),
        sa.Column("position_value", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("gross_position_value", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("cash", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("unrealized_pnl", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("unrealized_roe", sa.Double(), nullable=True),
        sa.Column("margin_size", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("available", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("wallet_balance", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("initial_balance", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("net_transfers", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("realized_pnl", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("fees", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("funding", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("positions", sa.Integer(), nullable=False),
        sa.Column("open_orders", sa.Integer(), nullable=False),
        sa.Column("unprotected", sa.Integer(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("writer", sa.String(length=36), nullable=False),
        sa.Column("flags", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "minute"),
    )
    op.create_index(
        "spot_portfolio_result_1min_owner_minute",
        "spot_portfolio_result_1min",
        ["owner_id", "minute"],
        unique=False,
    )
    op.create_table(
        "spot_result_1min",
        sa.Column("session_id", sa.String(length=16), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("owner_id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=36), nullable=False),
        sa.Column("size", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("entry_price", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("mark_price", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("position_value", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("margin_size", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("unrealized_pnl", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("unrealized_roe", sa.Double(), nullable=True),
        sa.Column("realized_pnl", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("fees", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("funding", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("weight", sa.Double(), nullable=True),
        sa.Column("target", sa.Double(), nullable=True),
        sa.Column("leverage", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("liquidation_price", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("stop_loss", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("take_profit", sa.Numeric(precision=38, scale=18), nullable=True),
        sa.Column("flags", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "minute", "symbol"),
    )

    op.execute(FILL_DICTIONARY)
    for table in ("futures_portfolio_result_1min", "spot_portfolio_result_1min"):
        op.execute(VIEW_OF_COLUMNS.format(table=table))
