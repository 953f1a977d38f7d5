"""What a session was worth comes out of the API as it went into the tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from api.session_views import live_document
from module.db.repositories.users import UserRecord
from module.db.results_upkeep import ResultsUpkeep, Retention
from module.model.market import MarketType
from module.model.results import GapCause, GapRow, MinuteRows
from tests.fakes.asgi_client import AsgiClient
from tests.fakes.measured_curves import (
    MINUTE,
    NOON,
    indicator_row,
    portfolio_row,
    store_curve,
    symbol_row,
)
from tests.fakes.measured_run import START, add_session, read_csv
from tests.fakes.platform import FakePlatform

DAYS = "portfolio?start=2025-03-01T00:00:00Z&end=2026-09-01T00:00:00Z&resolution=1d"
SEED_FIELDS = {
    "tradeType": "futures",
    "strategy_name": "momentum",
    "trade_mode": "rebalancing",
    "trade_env": "paper",
}


@pytest.fixture
def measured(platform: FakePlatform) -> tuple[UserRecord, AsgiClient, str]:
    """A session with three minutes of results."""
    name = f"person-{datetime.now(UTC).timestamp()}".replace(".", "-")
    user, client = platform.person(name)
    session_id = client.post("/command/run-system", SEED_FIELDS).json()["session_id"]
    record = platform.doors.sessions.get(session_id)
    for number, worth in enumerate(("10000", "10007.123456789012345678", "9993.5")):
        minute = NOON + timedelta(minutes=number)
        platform.doors.results.store_minute(
            MinuteRows(
                session_id=session_id,
                owner_id=user.user_id,
                account_id=record.account_id,
                market=MarketType.FUTURES,
                minute=minute,
                writer="tests",
                symbols=(symbol_row("BTCUSDT", 0.2266), symbol_row("ETHUSDT", -0.1)),
                portfolio=portfolio_row(minute, worth),
                indicators=indicator_row(-0.0014),
            )
        )
    return user, client, session_id


def test_the_latest_minute_is_whole_and_exact(
    measured: tuple[UserRecord, AsgiClient, str],
) -> None:
    _, client, session_id = measured
    result = client.get(f"/results/{session_id}/latest").json()["result"]
    assert result["minute"] == "2026-11-21T12:02:00Z"
    assert result["portfolio"]["current_pv"] == "9993.5"
    assert result["portfolio"]["roe"] == -0.00065
    assert [row["symbol"] for row in result["symbols"]] == ["BTCUSDT", "ETHUSDT"]
    assert result["symbols"][0]["target"] == 0.25
    assert result["indicators"]["drawdown"] == -0.0014
    assert result["indicators"]["sharpe_1day"] is None


def test_series_are_cut_by_time_and_by_length(
    measured: tuple[UserRecord, AsgiClient, str],
) -> None:
    _, client, session_id = measured

    def minutes(query: str, kind: str = "portfolio") -> list[str]:
        rows = client.get(f"/results/{session_id}/{kind}?{query}").json()["rows"]
        return [row["minute"][11:16] for row in rows]

    everything = "start=2026-11-21T00:00:00Z&end=2026-11-22T00:00:00Z"
    assert minutes(everything) == ["12:00", "12:01", "12:02"]
    assert minutes("start=2026-11-21T12:01:00Z&end=2026-11-21T12:02:00Z") == ["12:01"]
    assert minutes("start=2026-11-21T21:01:00%2B09:00&end=2026-11-22T00:00:00Z") == [
        "12:01",
        "12:02",
    ]
    assert minutes(f"{everything}&limit=1") == ["12:02"]
    assert minutes(everything, "symbols") == ["12:00"] * 2 + ["12:01"] * 2 + ["12:02"] * 2
    assert minutes(everything, "indicators") == ["12:00", "12:01", "12:02"]
    exact = client.get(f"/results/{session_id}/portfolio?{everything}").json()["rows"][1]
    assert exact["current_pv"] == "10007.123456789012345678"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=2001",
        "start=yesterday",
        "start=2026-11-21T12:00:00",
        "start=2026-11-21T12:00:00Z&end=2026-11-21T12:00:00Z",
        "end=99999-01-01T00:00:00Z",
        "start=0001-01-01T00:00:00%2B23:59",
    ],
)
def test_a_range_that_is_none_is_refused(
    measured: tuple[UserRecord, AsgiClient, str], query: str
) -> None:
    _, client, session_id = measured
    assert client.get(f"/results/{session_id}/portfolio?{query}").status == 422


def test_gaps_are_told_with_their_cause(
    platform: FakePlatform, measured: tuple[UserRecord, AsgiClient, str]
) -> None:
    user, client, session_id = measured
    minute = NOON + timedelta(minutes=7)
    gap = GapRow(session_id, user.user_id, minute, GapCause.OVERRUN, "slow", minute)
    platform.doors.results.store_gaps(platform.doors.sessions.watched(session_id), [gap])
    query = "start=2026-11-21T00:00:00Z&end=2026-11-22T00:00:00Z"
    (found,) = client.get(f"/results/{session_id}/gaps?{query}").json()["gaps"]
    assert (found["minute"], found["cause"]) == ("2026-11-21T12:07:00Z", "overrun")


def test_the_live_document_joins_session_result_and_letter(
    platform: FakePlatform, measured: tuple[UserRecord, AsgiClient, str]
) -> None:
    user, _, session_id = measured
    leg = {"leg_id": "open:BTCUSDT", "symbol": "BTCUSDT", "side": "buy", "size": "0.037"}
    slices = [{"number": 0, "filled_size": "0.037", "average_price": "61000.1", "message": None}]
    letter = {
        "cycle": "2026-11-21T12:00:00Z",
        "number": 1,
        "stage": "done",
        "reason": "",
        "inputs": {"much": "of no interest to a person"},
        "targets": {"BTCUSDT": {"weight": "0.25"}},
        "skipped": [],
        "legs": [{"leg": leg, "state": "filled", "abandoned": None, "slices": slices}],
    }
    platform.doors.sessions.write_order_info(session_id, letter, 1, 1)

    document = live_document(platform.doors, user)

    (session,) = [s for s in document["sessions"] if s["session_id"] == session_id]  # type: ignore[attr-defined]
    assert session["result"]["portfolio"]["current_pv"] == "9993.5"
    assert session["letter"]["targets"] == {"BTCUSDT": {"weight": "0.25"}}
    assert "inputs" not in session["letter"]
    (order,) = session["letter"]["orders"]
    assert (order["symbol"], order["state"], order["average_price"]) == (
        "BTCUSDT",
        "filled",
        "61000.1",
    )


def test_days_are_answered_after_their_minutes_are_gone(platform: FakePlatform) -> None:
    _, client = platform.person("archivist")
    old = add_session(platform, "archivist", over=True)
    new = add_session(platform, "archivist", started_at=START + timedelta(days=500))
    worth = (10_010, 10_020, 9_990, 10_400, 10_360)
    store_curve(
        platform.doors.results,
        old,
        [(START + n * MINUTE, Decimal(pv), Decimal(0)) for n, pv in enumerate(worth, start=1)],
    )
    store_curve(platform.doors.results, new, [(new.started_at, Decimal(10_000), Decimal(0))])
    path = f"/results/{old.session_id}"
    before = client.get(f"{path}/{DAYS}").json()["rows"]
    assert [(row["minute"], row["minutes"], row["current_pv"]) for row in before] == [
        ("2025-03-04T00:00:00Z", 3, "9990"),
        ("2025-03-04T00:02:00Z", 2, "10360"),
    ]
    indicators = client.get(f"{path}/{DAYS.replace('portfolio', 'indicators')}").json()["rows"]

    finplatform, finwatcher, *_ = platform.databases
    report = ResultsUpkeep(finwatcher, finplatform, Retention()).run(new.started_at + MINUTE)

    assert report.expired_sessions == 1
    assert client.get(f"{path}/{DAYS.replace('1d', '1m')}").json()["rows"] == []
    assert client.get(f"{path}/{DAYS}").json()["rows"] == before
    found = client.get(f"{path}/{DAYS.replace('portfolio', 'indicators')}").json()["rows"]
    assert found == indicators
    table = read_csv(client.get(f"{path}/{DAYS}&format=csv&columns=current_pv"))
    assert [row["current_pv"] for row in table] == ["9990", "10360"]
