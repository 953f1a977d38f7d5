"""A session as the live page may meet it: minutes, gaps, fills, a cycle with its letter, alerts."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy import inspect

from module.db.platform_tables import Account
from module.db.repositories.session_records import new_row
from module.db.repositories.users import UserRecord
from module.model.market import MarketType
from module.model.orders import Side, StopPrices
from module.model.results import (
    GapCause,
    GapRow,
    HistoryRows,
    IndicatorRow,
    MinuteRows,
    PortfolioRow,
    SymbolRow,
    TransactionRow,
)
from module.model.sessions import SessionState
from module.ports import Alert, CycleRecord
from tests.fakes.platform import FakePlatform
from tests.fakes.stored_rows import paper_account, session_spec
from trading.rebalance.leg_record import LegRecord, Slice
from trading.rebalance.leg_state import LegState
from trading.rebalance.legs import DiffCase, Leg, OrderPlan, SkippedLeg, SkipReason
from trading.rebalance.order_info import CycleStage, requested, to_json, with_plan

CAPITAL: Final = Decimal(10_000)
HELD: Final = (("BTCUSDT", "5000.25", "0.05"), ("ETHUSDT", "-3000.5", "-1.2"))
MINUTE: Final = timedelta(minutes=1)
LEG: Final = Leg(
    leg_id="000",
    symbol="BTCUSDT",
    case=DiffCase.INCREASE,
    side=Side.BUY,
    size=Decimal("0.037"),
    reduce_only=False,
    reference_price=Decimal(61_000),
    current_weight=Decimal("0.25"),
    target_weight=Decimal("0.4757"),
    stops=StopPrices(Decimal(57_123), None),
)


def symbol_row(symbol: str, value: str, size: str) -> SymbolRow:
    """A position of that signed value; only the long one has a stop."""
    return SymbolRow(
        symbol=symbol,
        size=Decimal(size),
        entry_price=Decimal(61_000),
        mark_price=Decimal("61234.5"),
        position_value=Decimal(value),
        margin_size=abs(Decimal(value)),
        unrealized_pnl=Decimal("8.68"),
        unrealized_roe=0.0038,
        realized_pnl=Decimal(0),
        fees=Decimal("-1.35"),
        funding=Decimal(0),
        weight=float(value) / 10_000,
        target=0.4757,
        leverage=Decimal(1),
        liquidation_price=Decimal(55_111) if Decimal(value) > 0 else None,
        stop_loss=Decimal(57_123) if Decimal(value) > 0 else None,
        take_profit=None,
        flags="",
    )


@dataclass(slots=True)
class Told:
    """A session of a person, and the moment it was told until."""

    platform: FakePlatform
    user: UserRecord
    session_id: str
    account_id: str
    now: datetime
    epoch: int

    def minute(self, ago: int, worth: str, sharpe: float | None = 1.87) -> None:
        """What it was worth so many minutes before now."""
        at, value = self.now - ago * MINUTE, Decimal(worth)
        portfolio = PortfolioRow(
            current_pv=value,
            netprofit=value - CAPITAL,
            roe=float((value - CAPITAL) / CAPITAL),
            position_value=Decimal("1999.75"),
            gross_position_value=Decimal("8000.75"),
            cash=Decimal("1999.25"),
            unrealized_pnl=Decimal("17.36"),
            unrealized_roe=0.0022,
            margin_size=Decimal("8000.75"),
            available=CAPITAL,
            wallet_balance=value,
            initial_balance=CAPITAL,
            net_transfers=Decimal(0),
            realized_pnl=Decimal("-3.21"),
            fees=Decimal("-2.70"),
            funding=Decimal(0),
            positions=2,
            open_orders=0,
            unprotected=1,
            measured_at=at,
            late=False,
            flags="",
        )
        indicators = IndicatorRow(
            returns_1min=9,
            cumulative_return=0.01,
            drawdown=-0.0123,
            max_drawdown=-0.0519,
            sharpe_1min=None,
            sortino_1min=None,
            volatility_1min=None,
            returns_1day=12,
            sharpe_1day=sharpe,
            sortino_1day=None,
            volatility_1day=None,
            trades=4,
            trades_won=3,
            win_rate=0.75,
            flags="",
        )
        written = self.platform.doors.results.store_minute(
            MinuteRows(
                session_id=self.session_id,
                owner_id=self.user.user_id,
                account_id=self.account_id,
                market=MarketType.FUTURES,
                minute=at,
                writer="tests",
                symbols=tuple(symbol_row(*held) for held in HELD),
                portfolio=portfolio,
                indicators=indicators,
            )
        )
        assert written.written

    def gap(self, first_ago: int, last_ago: int, cause: GapCause) -> None:
        """Minutes that were not measured."""
        doors = self.platform.doors
        watched = doors.sessions.watched(self.session_id)
        gaps = [
            GapRow(self.session_id, self.user.user_id, self.now - ago * MINUTE, cause, "", self.now)
            for ago in range(first_ago, last_ago - 1, -1)
        ]
        doors.results.store_gaps(watched, gaps)

    def fill(self, number: int) -> None:
        """A fill of the first position."""
        row = TransactionRow(
            source="fill",
            exchange_id=f"fill-{number}",
            kind="fill",
            venue_kind="fill",
            order_id="1",
            symbol="BTCUSDT",
            side="buy",
            price=Decimal("61010.5"),
            size=Decimal("0.037"),
            quote_size=None,
            asset="USDT",
            amount=Decimal(0),
            fee=Decimal("-1.3542"),
            fee_asset="USDT",
            balance=None,
            is_taker=True,
            at=self.now - 9 * MINUTE,
        )
        self.platform.doors.results.store_history(
            HistoryRows(
                self.session_id, self.user.user_id, self.account_id, MarketType.FUTURES, (row,)
            )
        )

    def cycle(self, number: int, ago: int) -> datetime:
        """A cycle that bought, and skipped a leg; its boundary."""
        boundary = self.now - ago * MINUTE
        plan = OrderPlan(
            legs=(LEG,),
            skipped=(
                SkippedLeg("XRPUSDT", SkipReason.BELOW_MIN_NOTIONAL, Decimal(0), Decimal("0.0003")),
            ),
            stops={"BTCUSDT": LEG.stops},
        )
        bought = Slice(
            number=0,
            client_id=f"tests-{number}",
            size=LEG.size,
            state=LegState.FILLED,
            order_id="77",
            filled_size=LEG.size,
            average_price=Decimal(61_100),
            fee=Decimal("-1.3542"),
        )
        planned = with_plan(
            requested(self.session_id, boundary, number, self.epoch, number),
            plan,
            inputs={},
            targets={"BTCUSDT": {"weight": "0.4757"}, "XRPUSDT": {"weight": "0.0003"}},
            strategy_digest="d" * 64,
        )
        done = planned.with_legs({"000": LegRecord(LEG, (bought,))}, stage=CycleStage.DONE)
        letter = to_json(done)
        sessions = self.platform.doors.sessions
        sessions.write_order_info(self.session_id, letter, self.epoch, done.revision)
        sessions.record_cycle(
            self.epoch,
            CycleRecord(
                session_id=self.session_id,
                boundary=boundary,
                number=number,
                state="done",
                reason="",
                started_at=boundary,
                ended_at=boundary + timedelta(seconds=2),
                own_ms=412.0,
                targets={"BTCUSDT": {"weight": "0.4757"}},
                order_info=letter,
                digest=done.plan_digest,
            ),
        )
        return boundary

    def skipped_cycle(self, number: int, ago: int, reason: str) -> None:
        """A cycle that was not traded."""
        boundary = self.now - ago * MINUTE
        self.platform.doors.sessions.record_cycle(
            self.epoch,
            CycleRecord(
                session_id=self.session_id,
                boundary=boundary,
                number=number,
                state="skipped",
                reason=reason,
                started_at=boundary,
                ended_at=boundary,
                own_ms=None,
                targets=None,
                order_info=None,
                digest=None,
            ),
        )

    def alert(self, title: str, words: str, severity: str = "warning") -> None:
        """Something that people are told."""
        self.platform.doors.alerts.add(
            Alert(
                kind="tests",
                severity=severity,
                title=title,
                lines=(("what", words),),
                cause=f"tests:{title}",
                session_id=self.session_id,
                owner_id=self.user.user_id,
                at=self.now,
            ),
            [],
            self.now,
        )


def tell(
    platform: FakePlatform, user: UserRecord, strategy: str = "momentum", label: str = "mine"
) -> Told:
    """A session that runs for two hours, without a minute yet."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    account_id = platform.gateway.put(
        user.user_id,
        label,
        MarketType.FUTURES,
        paper_account(user.user_id).trade_env,
        CAPITAL,
    )
    spec = session_spec(user.user_id, account_id, now - timedelta(hours=2), strategy_name=strategy)
    doors = platform.doors
    doors.sessions.create(spec, sessions_max=1_000)
    epoch = doors.sessions.take_epoch(spec.session_id)
    doors.sessions.set_state(spec.session_id, SessionState.RUNNING, now, epoch=epoch)
    doors.sessions.heartbeat(spec.session_id, epoch, datetime.now(UTC))
    return Told(platform, user, spec.session_id, account_id, now, epoch)


def tell_many(pattern: Told, count: int) -> None:
    """So many further sessions of the person, each on an account of its own."""
    names = [column.key for column in inspect(Account).columns]
    with pattern.platform.databases[0].transaction() as db:
        row = db.get(Account, pattern.account_id)
        values = {name: getattr(row, name) for name in names}
        for number in range(count):
            account_id = str(uuid.uuid4())
            own = {"account_id": account_id, "label": f"desk-{number:03d}"}
            db.add(Account(**values | own))
            began = pattern.now - timedelta(
                minutes=number
            )  # an id is four characters and its minute
            spec = session_spec(pattern.user.user_id, account_id, began)
            db.add(new_row(spec, "file"))
