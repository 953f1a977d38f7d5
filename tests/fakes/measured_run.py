"""A session with something of everything that results tell, in real databases; nobody runs it."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from module.db.platform_tables import GatewayWrite
from module.model.market import MarketType
from module.model.results import (
    ClosedPositionRow,
    GapCause,
    GapRow,
    HistoryRows,
    WatchedSession,
)
from module.model.sessions import DesiredState, SessionState
from module.ports import CycleRecord
from monitoring.indicators import IndicatorState
from tests.fakes.asgi_client import AsgiClient, CalledAnswer
from tests.fakes.measured_curves import MINUTE, fill_row, store_curve
from tests.fakes.platform import FakePlatform
from tests.fakes.stored_rows import session_spec

START = datetime(2025, 3, 3, 23, 57, tzinfo=UTC)
RANGE = "start=2025-03-03T00:00:00Z&end=2025-03-05T00:00:00Z"
WORTH = ("10010", "10007.123456789012345678", "9993.5", "10495", "10600.25", "10580", "10601")
MOVED = ("0", "0", "0", "500", "500", "500", "500")


@dataclass(frozen=True)
class Run:
    """A session with seven minutes around midnight, a deposit of 500 in the fourth."""

    client: AsgiClient
    watched: WatchedSession
    state: IndicatorState

    @property
    def path(self) -> str:
        return f"/results/{self.watched.session_id}"

    def get(self, what: str, query: str = "", **headers: str) -> CalledAnswer:
        return self.client.get(f"{self.path}/{what}?{RANGE}&{query}", **headers)

    def rows(self, what: str, query: str = "", name: str = "rows") -> list[Any]:
        return list(self.get(what, query).json()[name])


def measured_run(platform: FakePlatform, owner: str) -> Run:
    """Seven minutes, five fills, two bills, two closed positions, three gaps, three cycles."""
    _, client = platform.person(owner)
    watched = add_session(platform, owner)
    points = [
        (START + number * MINUTE, Decimal(worth), Decimal(moved))
        for number, (worth, moved) in enumerate(zip(WORTH, MOVED, strict=True), start=1)
    ]
    state = store_curve(platform.doors.results, watched, points)
    store_history(platform, watched)
    store_cycles(platform, watched)
    return Run(client, watched, state)


def add_session(
    platform: FakePlatform, owner: str, *, over: bool = False, started_at: datetime = START
) -> WatchedSession:
    """A session of 10,000 USDT; nobody runs it."""
    user, _ = platform.person(owner)
    label = f"account-{platform.gateway.opened}"
    account = platform.gateway.open_paper_account(
        user.user_id, label, MarketType.FUTURES, Decimal(10_000)
    )
    spec = session_spec(user.user_id, account, started_at)
    sessions = platform.doors.sessions
    sessions.create(spec, sessions_max=1000)
    epoch = sessions.take_epoch(spec.session_id)
    sessions.set_initial_balance(spec.session_id, epoch, Decimal(10_000))
    if over:
        sessions.set_desired(spec.session_id, DesiredState.STOPPED)
        sessions.set_state(spec.session_id, SessionState.ENDED, START + timedelta(minutes=7))
    return sessions.watched(spec.session_id)


def store_history(platform: FakePlatform, watched: WatchedSession) -> None:
    at = START + 3 * MINUTE
    fills = [fill_row(number, at + number * MINUTE / 10) for number in range(5)]
    fills[4] = replace(fills[4], symbol="ETHUSDT", side="sell")
    bill = replace(fills[0], source="bill", price=None, size=None, quote_size=None, client_id=None)
    bills = [
        replace(bill, exchange_id="bill-1", kind="funding", amount=Decimal("-0.75"), at=at),
        replace(bill, exchange_id="bill-2", kind="transfer", amount=Decimal(500), at=at + MINUTE),
    ]
    closed = ClosedPositionRow(
        exchange_id="position-1",
        symbol="BTCUSDT",
        side="long",
        entry_price=Decimal(61_000),
        close_price=Decimal(61_500),
        size=Decimal("0.037"),
        gross_pnl=Decimal("18.5"),
        funding=Decimal("-0.75"),
        open_fee=Decimal("-1.3542"),
        close_fee=Decimal("-1.3653"),
        net_profit=Decimal("15.0305"),
        opened_at=at,
        closed_at=at + 2 * MINUTE,
    )
    lost = replace(closed, exchange_id="position-2", net_profit=Decimal("-3.25"))
    platform.doors.results.store_history(
        HistoryRows(
            session_id=watched.session_id,
            owner_id=watched.owner_id,
            account_id=watched.account_id,
            market=watched.market,
            transactions=(*fills, *bills),
            positions=(closed, lost),
        )
    )
    gap = GapRow(watched.session_id, watched.owner_id, at, GapCause.OVERRUN, "=slow", at)
    platform.doors.results.store_gaps(watched, [replace(gap, minute=START + n * MINUTE) for n in
                                                (8, 9, 10)])  # fmt: skip


def letter(number: int, cycle: str) -> dict[str, object]:
    leg = {
        "leg_id": "BTCUSDT-open", "symbol": "BTCUSDT", "case": "new", "side": "buy",
        "size": "0.037", "reduce_only": False, "reference_price": "61000",
        "current_weight": "0", "target_weight": "0.25", "after": None,
        "stops": {"stop_loss": "59000", "take_profit": None},
    }  # fmt: skip
    part = {
        "number": 0, "client_id": f"af-{number}", "size": "0.037", "state": "filled",
        "order_id": f"order-{number}", "filled_size": "0.037", "average_price": "61006.1",
        "fee": "-1.3542", "code": None, "message": None, "not_after": None,
    }  # fmt: skip
    skipped = {
        "symbol": "ETHUSDT", "reason": "below_threshold",
        "current_weight": "0.1", "target_weight": "0.105",
    }  # fmt: skip
    return {
        "version": 2, "cycle": cycle, "number": number, "stage": "done", "reason": "",
        "inputs": {"much": "that is long"}, "targets": {"BTCUSDT": {"weight": "0.25"}},
        "legs": [{"leg": leg, "state": "filled", "abandoned": None, "sized": None,
                  "slices": [part]}],
        "skipped": [skipped], "stops": {}, "residuals": {"ETHUSDT": "0.005"},
        "plan_digest": "f" * 64,
    }  # fmt: skip


def store_cycles(platform: FakePlatform, watched: WatchedSession) -> None:
    sessions = platform.doors.sessions
    epoch = sessions.get(watched.session_id).epoch
    for number, minutes in enumerate((3, 8), start=1):
        boundary = START + minutes * MINUTE
        document = letter(number, f"{boundary:%Y-%m-%dT%H:%M:%SZ}")
        sessions.record_cycle(
            epoch,
            CycleRecord(
                session_id=watched.session_id,
                boundary=boundary,
                number=number,
                state="done",
                reason="",
                started_at=boundary,
                ended_at=boundary + timedelta(seconds=2),
                own_ms=41.5,
                targets={"BTCUSDT": {"weight": "0.25"}},
                order_info=document,
                digest="f" * 64,
            ),
        )
        send(platform, watched, epoch, number, boundary)
    under_way = letter(3, "2025-03-04T00:10:00Z") | {"stage": "trading"}
    sessions.write_order_info(watched.session_id, under_way, epoch, 1)
    send(platform, watched, epoch, 3, START + 13 * MINUTE)


def send(
    platform: FakePlatform, watched: WatchedSession, epoch: int, number: int, at: datetime
) -> None:
    """A row of the gateway's record, as it is before and after an order is sent."""
    row = GatewayWrite(
        account_id=watched.account_id,
        session_id=watched.session_id,
        epoch=epoch,
        kind="order",
        client_id=f"af-{number}",
        symbol="BTCUSDT",
        request={
            "cycle": f"{at:%Y-%m-%dT%H:%M:%SZ}",
            "order": {
                "side": "buy", "size": "0.037", "reduce_only": False, "reference_price": "61000",
                "stops": {"stop_loss": "59000", "take_profit": None},
            },
        },
        outcome="accepted",
        answer={"order_id": f"order-{number}"},
        sent_at=at,
        answered_at=at + timedelta(milliseconds=80),
    )  # fmt: skip
    with platform.databases[0].transaction() as db:
        db.add(row)


def read_csv(answer: CalledAnswer) -> list[dict[str, str]]:
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    return list(csv.DictReader(io.StringIO(answer.body.decode(), newline="")))
