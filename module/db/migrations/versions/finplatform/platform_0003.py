"""Letters carry their digest; the archive of sessions whose truth is Postgres."""

import sqlalchemy as sa
from alembic import op

revision = "platform_0003"
down_revision = "platform_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("order_info", sa.Column("sha256", sa.String(length=64), nullable=True))
    op.create_table(
        "archived_cycles",
        sa.Column("session_id", sa.String(length=16), nullable=False),
        sa.Column("boundary", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.Column("bars", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["session_id"], ["active_sessions.session_id"]),
        sa.PrimaryKeyConstraint("session_id", "boundary"),
    )
