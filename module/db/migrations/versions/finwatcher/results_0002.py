"""Exposure, unprotected seconds, Calmar, trades' money, turnover, slippage; what a fill was decided at.

Null in the rows that are there: they were measured before anybody asked.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "results_0002"
down_revision = "results_0001"
branch_labels = None
depends_on = None

MONEY: TypeEngine[Any] = sa.Numeric(precision=38, scale=18)
NEW_COLUMNS: dict[str, tuple[tuple[str, TypeEngine[Any]], ...]] = {
    "portfolio_result_1min": (
        ("gross_exposure", sa.Double()),
        ("net_exposure", sa.Double()),
        ("unprotected_s", sa.Double()),
    ),
    "indicator_result_1min_1day": (
        ("calmar_1min", sa.Double()),
        ("calmar_1day", sa.Double()),
        ("drawdown_1day", sa.Double()),
        ("max_drawdown_1day", sa.Double()),
        ("profit_factor", sa.Double()),
        ("average_win", MONEY),
        ("average_loss", MONEY),
        ("traded_notional", MONEY),
        ("turnover", sa.Double()),
        ("slippage_bps", sa.Double()),
        ("slippage_cost", MONEY),
    ),
    "historical_transactions_details": (
        ("client_id", sa.String(length=64)),
        ("decision_price", MONEY),
    ),
}


def upgrade() -> None:
    for market in ("futures", "spot"):
        for subject, columns in NEW_COLUMNS.items():
            for name, kind in columns:
                op.add_column(f"{market}_{subject}", sa.Column(name, kind, nullable=True))
