"""What the trader's board shows, number by number, of rows that a test recognises."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from module.db.database import Database
from module.db.repositories.results import ResultsRepository
from module.db.repositories.sessions import SessionRepository
from module.db.repositories.users import Role, UserRepository
from module.model.market import MarketType
from module.model.results import GapCause, GapRow
from module.model.sessions import SessionState
from module.settings import Settings
from tests.integration.dashboards.asked import Reader, boards
from tests.integration.dashboards.frames import Row
from tests.integration.dashboards.grafana_sql import Shown
from tests.integration.dashboards.told_sessions import START, Told, stored_session, symbol_row

FUTURES_SESSION, SPOT_SESSION, OLD_SESSION = (
    "2611211200-futu",
    "2611211200-spot",
    "2601010000-aged",
)
WHOLE = Shown(START - timedelta(hours=1), START + timedelta(hours=2))
DOUBLE, TIMESTAMPTZ, TEXT, VARCHAR = 701, 1184, 25, 1043


# --- rows -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def owner(postgres: Settings) -> str:
    """An owner with a futures session, a spot session, and one that was over long ago."""
    platform, finwatcher = Database(postgres, "finplatform", 1), Database(postgres, "finwatcher", 1)
    owner_id = UserRepository(platform).add("trader", Role.TRADER, START).user_id
    futures, spot, old = (
        Told(session_id, owner_id, str(uuid.uuid4()), market)
        for session_id, market in (
            (FUTURES_SESSION, MarketType.FUTURES),
            (SPOT_SESSION, MarketType.SPOT),
            (OLD_SESSION, MarketType.FUTURES),
        )
    )
    long_ago = START - timedelta(days=324)
    for told, at in ((futures, START), (spot, START), (old, long_ago)):
        stored_session(platform, told, at)
    SessionRepository(platform).set_state(
        old.session_id, SessionState.ENDED, long_ago + timedelta(days=1), reason="asked to"
    )
    store = ResultsRepository(finwatcher)
    btc, eth, sol = (
        symbol_row("BTCUSDT", "5000.25"),
        symbol_row("ETHUSDT", "-3000.5", "-2"),
        symbol_row("SOLUSDT", "0", "0"),
    )
    for rows in (
        futures.minute(0, "10000.123456789012345678", None, (btc,)),
        futures.minute(1, "10100", 0.01, (btc, eth)),
        # minutes 2 and 3 are missing
        futures.minute(4, "10250.5", 0.02505, (btc, eth, sol)),
        spot.minute(2, "9999", -0.0001, (symbol_row("XRPUSDT", "777.5"),)),
        spot.minute(3, "9000", -0.1, ()),
    ):
        assert store.store_minute(rows).written
    store.store_gaps(
        futures.watched(),
        [
            GapRow(
                futures.session_id, owner_id, START + timedelta(minutes=number), cause, "", START
            )
            for number, cause in (
                (2, GapCause.EXCHANGE_UNREACHABLE),
                (3, GapCause.EXCHANGE_UNREACHABLE),
                (7, GapCause.EXCHANGE_UNREACHABLE),
                (8, GapCause.OVERRUN),
            )
        ],
    )
    platform.close()
    finwatcher.close()
    return owner_id


def panel(reader: Reader, title: str, session_id: str, shown: Shown = WHOLE) -> Any:
    """What a panel of the board gives."""
    return reader.panel("trader", title, shown, session=session_id, owner="nobody")


# --- variables ------------------------------------------------------------------------------------


def variable(name: str) -> dict[str, Any]:
    (found,) = [one for one in boards()["trader"]["templating"]["list"] if one["name"] == name]
    return dict(found)


def test_owners_and_their_sessions_can_be_chosen(reader: Reader, owner: str) -> None:
    owners = variable("owner")
    assert reader.ask(owners["datasource"]["uid"], owners["query"], WHOLE).rows == [
        (owner, "trader")
    ]
    chosen = variable("session")
    assert chosen["refresh"] == 2  # its query depends on the time range
    found = reader.ask(chosen["datasource"]["uid"], chosen["query"], WHOLE, owner=owner)
    assert found.names == ["__value", "__text"]
    assert found.rows == [
        (FUTURES_SESSION, f"{FUTURES_SESSION} · paper-futu · starting"),
        (SPOT_SESSION, f"{SPOT_SESSION} · paper-spot · starting"),
    ]


def test_sessions_of_another_time_are_not_offered(reader: Reader, owner: str) -> None:
    chosen = variable("session")
    long_ago = Shown(START - timedelta(days=324), START - timedelta(days=323, hours=12))
    found = reader.ask(chosen["datasource"]["uid"], chosen["query"], long_ago, owner=owner)
    assert [row[0] for row in found.rows] == [OLD_SESSION]


def test_a_name_with_a_quote_is_a_name(reader: Reader) -> None:
    chosen = variable("session")
    found = reader.ask(chosen["datasource"]["uid"], chosen["query"], WHOLE, owner="' OR '1'='1")
    assert found.rows == []
    assert panel(reader, "ROE", "' OR '1'='1").rows == []


# --- panels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "session_id", "names", "row"),
    [
        ("ROE", FUTURES_SESSION, ["ROE"], (0.02505,)),
        ("ROE", SPOT_SESSION, ["ROE"], (-0.1,)),
        ("Sharpe Ratio", FUTURES_SESSION, ["days", "minutes"], (None, 5.75)),
        ("Max Drawdown", FUTURES_SESSION, ["Max drawdown"], (-0.12,)),
        ("Max Drawdown", SPOT_SESSION, ["Max drawdown"], (-0.09,)),
    ],
)
def test_a_number_on_top_is_the_newest(
    reader: Reader, title: str, session_id: str, names: list[str], row: Row
) -> None:
    found = panel(reader, title, session_id)
    assert found.names == names
    assert found.rows == [row]
    assert set(found.types) == {DOUBLE}


@pytest.mark.parametrize("title", ["ROE", "Sharpe Ratio", "Max Drawdown"])
def test_a_number_on_top_is_the_newest_of_the_time_range(reader: Reader, title: str) -> None:
    until_minute_1 = replace(WHOLE, end=START + timedelta(minutes=1))
    expected: dict[str, Row] = {
        "ROE": (0.01,),
        "Sharpe Ratio": (None, 2.75),
        "Max Drawdown": (-0.03,),
    }
    assert panel(reader, title, FUTURES_SESSION, until_minute_1).rows == [expected[title]]


def test_the_curve_has_each_minute_in_order_and_leaves_gaps_open(reader: Reader) -> None:
    found = panel(reader, "Portfolio Value Over Time", FUTURES_SESSION)
    assert found.names == ["time", "Portfolio value", "Capital at work"]
    assert found.types == [TIMESTAMPTZ, DOUBLE, DOUBLE]
    assert [((row[0] - START).total_seconds(), *row[1:]) for row in found.rows] == [
        (0, 10000.123456789011, 10000.0),
        (60, 10100.0, 10000.0),
        (120, None, None),
        (180, None, None),
        (240, 10250.5, 10000.0),
    ]


def test_a_wider_interval_shows_the_last_minute_of_each(reader: Reader) -> None:
    found = panel(
        reader, "Portfolio Value Over Time", FUTURES_SESSION, replace(WHOLE, interval="2m")
    )
    assert [row[1] for row in found.rows] == [10100.0, None, 10250.5]
    found = panel(
        reader, "Portfolio Value Over Time", FUTURES_SESSION, replace(WHOLE, interval="1h")
    )
    assert [row[1] for row in found.rows] == [10250.5]


def test_the_curve_keeps_to_the_time_range_and_the_session(reader: Reader) -> None:
    only_minute_1 = Shown(START + timedelta(seconds=30), START + timedelta(seconds=90))
    found = panel(reader, "Portfolio Value Over Time", FUTURES_SESSION, only_minute_1)
    assert [row[1] for row in found.rows] == [10100.0]
    spot = panel(reader, "Portfolio Value Over Time", SPOT_SESSION)
    assert [row[1] for row in spot.rows] == [9999.0, 9000.0]


def test_holdings_are_those_of_the_newest_minute_largest_first(reader: Reader) -> None:
    sizes = panel(reader, "Position Sizes (USDT)", FUTURES_SESSION)
    assert sizes.names == ["symbol", "USDT"]
    assert sizes.types[0] in (TEXT, VARCHAR)
    assert sizes.types[1] == DOUBLE
    assert sizes.rows == [("BTCUSDT", 5000.25), ("ETHUSDT", -3000.5)]
    shares = panel(reader, "Position Allocation", FUTURES_SESSION)
    assert shares.rows == [("BTCUSDT", 5000.25), ("ETHUSDT", 3000.5)]


def test_a_flat_account_holds_nothing_whatever_it_held_before(reader: Reader) -> None:
    for title in ("Position Allocation", "Position Sizes (USDT)"):
        assert panel(reader, title, SPOT_SESSION).rows == []
        earlier = replace(WHOLE, end=START + timedelta(minutes=2, seconds=30))
        assert panel(reader, title, SPOT_SESSION, earlier).rows == [("XRPUSDT", 777.5)]


def test_neighbouring_missing_minutes_are_one_region(reader: Reader) -> None:
    (gaps,) = boards()["trader"]["annotations"]["list"]
    target = gaps["target"]
    found = reader.ask(
        target["datasource"]["uid"], target["rawSql"], WHOLE, session=FUTURES_SESSION
    )
    assert found.names == ["time", "timeend", "text"]
    assert found.rows == [
        (
            START + timedelta(minutes=2),
            START + timedelta(minutes=4),
            "exchange-unreachable (2 min)",
        ),
        (
            START + timedelta(minutes=7),
            START + timedelta(minutes=8),
            "exchange-unreachable (1 min)",
        ),
        (START + timedelta(minutes=8), START + timedelta(minutes=9), "overrun (1 min)"),
    ]
    first_gap = Shown(START, START + timedelta(minutes=5))
    found = reader.ask(
        target["datasource"]["uid"], target["rawSql"], first_gap, session=FUTURES_SESSION
    )
    assert len(found.rows) == 1
