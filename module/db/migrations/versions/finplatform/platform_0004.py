"""Periods in which positions stood without their stop; cycles by their end, writes by their time."""

import sqlalchemy as sa
from alembic import op

revision = "platform_0004"
down_revision = "platform_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "unprotected_periods",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("account_id", sa.String(length=36), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cause", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "unprotected_periods_account_start", "unprotected_periods", ["account_id", "started_at"]
    )
    op.create_index(
        "unprotected_periods_open",
        "unprotected_periods",
        ["account_id"],
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index("cycles_ended", "cycles", ["ended_at"])
    op.create_index("gateway_writes_session_sent", "gateway_writes", ["session_id", "sent_at"])
    op.drop_index("ix_gateway_writes_session_id", table_name="gateway_writes")
