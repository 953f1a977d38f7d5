"""How a session looks to its owner: the one shape that session-check, results and the page show."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from api.answers import spelled_object
from api.cycle_views import letter_rows
from api.dependencies import Doors
from module.db.repositories.accounts import AccountRecord
from module.db.repositories.alerts import StoredAlert
from module.db.repositories.halts import HALT_REASON, HALTED_AT, KILL_SWITCH
from module.db.repositories.results import StoredRow
from module.db.repositories.session_records import SessionRecord, watched_session
from module.db.repositories.users import Role, UserRecord
from module.model.results import IndicatorRow, PortfolioRow, SymbolRow, WatchedSession

LIVE_SESSIONS_MAX: Final = 20
OVER_SESSIONS_MAX: Final = 5
ALERTS_MAX: Final = 20
ORDERS_MAX: Final = 40


def session_view(
    record: SessionRecord, account: AccountRecord | None, now: datetime, wall: datetime
) -> dict[str, object]:
    """State, age (world seconds), cycle, heartbeat age (real seconds), and what it was asked."""
    spec = record.spec
    ended = record.ended_at or now
    beat = record.heartbeat_wall
    return {
        "session_id": record.session_id,
        "owner_id": record.owner_id,
        "state": record.state,
        "desired": record.desired,
        "end_state": record.end_state,
        "reason": record.reason,
        "age_s": max(0.0, (ended - spec.started_at).total_seconds()),
        "cycle": record.cycle,
        "last_boundary": record.last_boundary,
        "heartbeat_age_s": None if beat is None else max(0.0, (wall - beat).total_seconds()),
        "account_id": record.account_id,
        "account": "" if account is None else account.label,
        "halted": None if account is None else halted_view(account),
        "trade_env": spec.trade_env,
        "tradeType": spec.market,
        "strategy_name": spec.strategy_name,
        "strategy_digest": spec.strategy_digest,
        "trade_mode": spec.trade_mode,
        "interval_s": int(spec.interval.total_seconds()),
        "cycles_max": spec.cycles_max,
        "leverage": spec.leverage,
        "threshold": spec.threshold,
        "threshold_relative": spec.threshold_relative,
        "no_trade_band": spec.no_trade_band,
        "turnover_max": spec.turnover_max,
        "target_volatility": spec.target_volatility,
        "adopt_existing": spec.adopt_existing,
        "started_at": spec.started_at,
        "ends_at": spec.ends_at,
        "ended_at": record.ended_at,
        "restarts": record.restarts,
    }


def halted_view(account: AccountRecord) -> dict[str, object] | None:
    """The kill switch of the account: why, since when; None while it may open."""
    limits = account.limits
    if limits.get(KILL_SWITCH) is not True:
        return None
    return {"reason": str(limits.get(HALT_REASON, "")), "since": limits.get(HALTED_AT)}


def session_views(doors: Doors, records: Sequence[SessionRecord]) -> list[dict[str, object]]:
    """The views of several sessions, with one look at the clocks and at their accounts."""
    if not records:
        return []
    now, wall = doors.clock.now(), doors.clock.wall()
    named = doors.accounts.list_named({record.account_id for record in records})
    accounts = {account.account_id: account for account in named}
    return [session_view(record, accounts.get(record.account_id), now, wall) for record in records]


def visible_owner(user: UserRecord) -> str | None:
    """Whose sessions the user sees: their own; a supervisor everybody's (None)."""
    return None if user.role is Role.SUPERVISOR else user.user_id


def live_document(doors: Doors, user: UserRecord) -> dict[str, object]:
    """Everything the live page shows of the user's own sessions, now."""
    records = doors.sessions.list_for_owner(user.user_id, over_max=OVER_SESSIONS_MAX)
    sessions = []
    for record, view in zip(
        records[:LIVE_SESSIONS_MAX],
        session_views(doors, records[:LIVE_SESSIONS_MAX]),
        strict=True,
    ):
        latest = doors.results.latest(watched_shape(record))
        letter = letter_view(doors, record)
        sessions.append({**view, "result": latest_view(latest), "letter": letter})
    return {
        "now": doors.clock.now(),
        "sessions": sessions,
        "sessions_total": len(records),
        "alerts": alert_views(doors.alerts.latest(user.user_id, ALERTS_MAX)),
    }


def alert_views(alerts: Sequence[StoredAlert]) -> list[dict[str, object]]:
    """Alerts as people read them, with what became of each on its channels."""
    return [
        {
            "at": item.alert.at,
            "kind": item.alert.kind,
            "severity": item.alert.severity,
            "title": item.alert.title,
            "lines": [list(pair) for pair in item.alert.lines],
            "session_id": item.alert.session_id,
            "deliveries": dict(item.deliveries),
        }
        for item in alerts
    ]


def watched_shape(record: SessionRecord) -> WatchedSession:
    """The session as the results store names it (targets are not asked for here)."""
    return watched_session(record, None)


def latest_view(
    latest: tuple[StoredRow[PortfolioRow], tuple[SymbolRow, ...], IndicatorRow | None] | None,
) -> dict[str, object] | None:
    """The newest minute as one object; None before there is one."""
    if latest is None:
        return None
    portfolio, symbols, indicators = latest
    return {
        "minute": portfolio.minute,
        "portfolio": spelled_object(portfolio.row),
        "symbols": [spelled_object(row) for row in symbols],
        "indicators": None if indicators is None else spelled_object(indicators),
    }


def letter_view(doors: Doors, record: SessionRecord) -> dict[str, object] | None:
    """The last cycle's letter, cut down to what a person reads: targets, legs, what was skipped."""
    document = doors.sessions.read_order_info(record.session_id)
    if document is None:
        return None
    return {
        "cycle": document.get("cycle"),
        "number": document.get("number"),
        "stage": document.get("stage"),
        "reason": document.get("reason"),
        "targets": document.get("targets"),
        "skipped": document.get("skipped"),
        "orders": letter_rows(document, ORDERS_MAX),
    }
