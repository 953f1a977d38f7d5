"""Accounts and sessions as stores keep them: whole, with numbers that no test relies on.

A test names what it is about: `paper_account(epoch=41)`, `session_spec(account, leverage=…)`.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from module.db.repositories.accounts import AccountRecord
from module.model.accounts import MarginMode, TradeEnv
from module.model.market import MarketType
from module.model.sessions import EndState, SessionSpec, TradeMode, new_session_id

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def paper_account(owner_id: str, **changes: object) -> AccountRecord:
    """A futures account at a paper exchange that nobody asks; not stored yet."""
    record = AccountRecord(
        account_id=str(uuid.uuid4()),
        owner_id=owner_id,
        label="mine",
        venue="bitget",
        market=MarketType.FUTURES,
        market_id="synthetic:7",
        trade_env=TradeEnv.PAPER,
        base_url="http://127.0.0.1:9",
        active=True,
        epoch=0,
        gateway_lease=None,
        initial_balance=Decimal(10_000),
        key_hint="…",
        limits={},
        created_at=NOON,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def session_spec(
    owner_id: str, account_id: str, started_at: datetime = NOON, **changes: object
) -> SessionSpec:
    """A session of five minutes on the account, two hours long; not stored yet."""
    spec = SessionSpec(
        session_id=new_session_id(started_at, uuid.uuid4().bytes),
        installation="tests",
        owner_id=owner_id,
        account_id=account_id,
        market=MarketType.FUTURES,
        market_id="synthetic:7",
        trade_env=TradeEnv.PAPER,
        trade_mode=TradeMode.REBALANCING,
        strategy_name="equal_weight",
        strategy_digest="d" * 64,
        config={},
        interval=timedelta(minutes=5),
        leverage=Decimal(1),
        margin_mode=MarginMode.CROSSED,
        allocated=None,
        compounding=False,
        threshold=Decimal("0.01"),
        default_stop_loss_pct=None,
        target_volatility=None,
        on_end=EndState.PROTECTED,
        apply_account_settings=False,
        adopt_existing=False,
        started_at=started_at,
        ends_at=started_at + timedelta(hours=2),
    )
    return replace(spec, **changes)  # type: ignore[arg-type]
