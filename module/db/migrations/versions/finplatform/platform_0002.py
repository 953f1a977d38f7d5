"""Key versions of credentials, whose account at the venue it is, labels free again after an end."""

import sqlalchemy as sa
from alembic import op

revision = "platform_0002"
down_revision = "platform_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "credential_keys",
        sa.Column("key_version", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("key_version"),
    )
    op.execute(
        "INSERT INTO credential_keys (key_version) "
        "SELECT DISTINCT key_version FROM account_credentials"
    )
    op.create_foreign_key(
        "account_credentials_key_version",
        "account_credentials",
        "credential_keys",
        ["key_version"],
        ["key_version"],
    )
    op.create_index(
        op.f("ix_account_credentials_key_version"), "account_credentials", ["key_version"]
    )
    op.add_column(
        "accounts",
        sa.Column("venue_user_id", sa.String(length=64), server_default="", nullable=False),
    )
    op.drop_constraint("accounts_owner_label", "accounts", type_="unique")
    op.create_index(
        "accounts_owner_label",
        "accounts",
        ["owner_id", "label"],
        unique=True,
        postgresql_where=sa.text("active"),
    )
    op.create_index(
        "accounts_one_per_venue_user",
        "accounts",
        ["venue", "market", "trade_env", "base_url", "venue_user_id"],
        unique=True,
        postgresql_where=sa.text("active AND venue_user_id <> ''"),
    )
