"""Every query of the trader's board, on a real Postgres, as the role that Grafana has.

Rows come from the repositories that the product writes with; queries are expanded as Grafana does.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2.extensions
import pytest
import yaml

from dashboards.grafana.build import RESULTS, SESSIONS, build_trader_board, render_files
from module.db.database import Database
from module.db.embedded import EmbeddedPostgres
from module.db.migrate import READER_ROLE
from module.db.repositories.results import ResultsRepository
from module.db.repositories.sessions import SessionRepository
from module.db.repositories.users import Role, UserRepository
from module.model.market import MarketType
from module.model.results import (
    GapCause,
    GapRow,
)
from module.model.sessions import SessionState
from module.settings import Settings
from tests.integration.dashboards.grafana_sql import Shown, expand
from tests.integration.dashboards.told_sessions import START, Told, stored_session, symbol_row

PROVISIONING = Path(__file__).resolve().parents[3] / "dashboards" / "grafana" / "provisioning"
FUTURES_SESSION, SPOT_SESSION, OLD_SESSION = (
    "2611211200-futu",
    "2611211200-spot",
    "2601010000-aged",
)
WHOLE = Shown(START - timedelta(hours=1), START + timedelta(hours=2))
DATABASES = {"aifap-results": "finwatcher", "aifap-sessions": "finplatform"}
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Answer:
    """What a query gave: column names, their Postgres types, the rows."""

    names: list[str]
    types: list[int]
    rows: list[Row]


class Reader:
    """Grafana's side: the read-only role on both databases."""

    def __init__(self, connections: dict[str, psycopg2.extensions.connection]) -> None:
        self._connections = connections

    def ask(self, datasource: str, sql: str, shown: Shown, **variables: str) -> Answer:
        with self._connections[datasource].cursor() as cursor:
            cursor.execute(expand(sql, shown, variables))
            description = cursor.description or ()
            return Answer(
                [column.name for column in description],
                [column.type_code for column in description],
                [tuple(row) for row in cursor.fetchall()],
            )

    def panel(self, title: str, session_id: str, shown: Shown = WHOLE) -> Answer:
        (panel,) = [one for one in board_panels() if one["title"] == title]
        (target,) = panel["targets"]
        return self.ask(
            target["datasource"]["uid"], target["rawSql"], shown, session=session_id, owner="nobody"
        )


def board() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(build_trader_board()))
    return made


def board_panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = board()["panels"]
    return panels


# --- rows -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
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


@pytest.fixture
def reader(postgres: Settings, postgres_server: EmbeddedPostgres, owner: str) -> Iterator[Reader]:
    assert owner
    connections = {
        uid: psycopg2.connect(
            host=str(postgres_server.socket_path.parent),
            port=postgres_server.port,
            user=READER_ROLE,
            password=postgres_server.reader_password(),
            dbname=name,
            connect_timeout=10,
        )
        for uid, name in DATABASES.items()
    }
    for connection in connections.values():
        connection.autocommit = True
    yield Reader(connections)
    for connection in connections.values():
        connection.close()


# --- the files ------------------------------------------------------------------------------------


def test_the_board_in_the_checkout_is_the_one_of_the_code() -> None:
    for path, text in render_files().items():
        assert path.read_text() == text, f"run `python -m dashboards.grafana.build` for {path}"


def test_panels_have_numbers_of_their_own_and_do_not_cover_each_other() -> None:
    panels = board_panels()
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    on_top = sorted(panels, key=lambda one: (one["gridPos"]["y"], one["gridPos"]["x"]))[:3]
    assert [panel["title"] for panel in on_top] == ["ROE", "Sharpe Ratio", "Max Drawdown"]


def test_the_datasources_are_the_provisioned_ones_and_read_only() -> None:
    text = (PROVISIONING / "datasources" / "aifap.yaml").read_text()
    provisioned = {one["uid"]: one for one in yaml.safe_load(text)["datasources"]}
    assert {uid: one["jsonData"]["database"] for uid, one in provisioned.items()} == DATABASES
    for one in provisioned.values():
        assert one["user"] == READER_ROLE
        assert one["type"] == RESULTS["type"] == SESSIONS["type"]
        assert one["secureJsonData"]["password"].startswith("$__file{/")
        assert one["editable"] is False
    used = {panel["datasource"]["uid"] for panel in board_panels()}
    used |= {one["datasource"]["uid"] for one in board()["templating"]["list"]}
    assert used == set(DATABASES)


def test_S50_provisioning_holds_no_password() -> None:
    for path in PROVISIONING.rglob("*.yaml"):
        for line in path.read_text().splitlines():
            if "password:" in line:
                assert line.split("password:")[1].strip().startswith("$__file{"), path


# --- variables ------------------------------------------------------------------------------------


def variable(name: str) -> dict[str, Any]:
    (found,) = [one for one in board()["templating"]["list"] if one["name"] == name]
    return dict(found)


def test_owners_and_their_sessions_can_be_chosen(reader: Reader, owner: str) -> None:
    owners = variable("owner")
    assert reader.ask(owners["datasource"]["uid"], owners["query"], WHOLE).rows == [(owner,)]
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
    assert reader.panel("ROE", "' OR '1'='1").rows == []


# --- panels ---------------------------------------------------------------------------------------

DOUBLE, NUMERIC, TEXT = 701, 1700, 25
VARCHAR = 1043


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
    found = reader.panel(title, session_id)
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
    assert reader.panel(title, FUTURES_SESSION, until_minute_1).rows == [expected[title]]


def test_the_curve_has_each_minute_in_order_and_leaves_gaps_open(reader: Reader) -> None:
    found = reader.panel("Portfolio Value Over Time", FUTURES_SESSION)
    assert found.names == ["time", "Portfolio value", "Capital at work"]
    assert found.types == [NUMERIC, DOUBLE, DOUBLE]
    first = int(START.timestamp())
    assert [(int(row[0]) - first, *row[1:]) for row in found.rows] == [
        (0, 10000.123456789011, 10000.0),
        (60, 10100.0, 10000.0),
        (240, 10250.5, 10000.0),
    ]


def test_a_wider_interval_shows_the_last_minute_of_each(reader: Reader) -> None:
    found = reader.panel(
        "Portfolio Value Over Time", FUTURES_SESSION, replace(WHOLE, interval="2m")
    )
    assert [row[1] for row in found.rows] == [10100.0, 10250.5]
    found = reader.panel(
        "Portfolio Value Over Time", FUTURES_SESSION, replace(WHOLE, interval="1h")
    )
    assert [row[1] for row in found.rows] == [10250.5]


def test_the_curve_keeps_to_the_time_range_and_the_session(reader: Reader) -> None:
    only_minute_1 = Shown(START + timedelta(seconds=30), START + timedelta(seconds=90))
    found = reader.panel("Portfolio Value Over Time", FUTURES_SESSION, only_minute_1)
    assert [row[1] for row in found.rows] == [10100.0]
    spot = reader.panel("Portfolio Value Over Time", SPOT_SESSION)
    assert [row[1] for row in spot.rows] == [9999.0, 9000.0]


def test_holdings_are_those_of_the_newest_minute_largest_first(reader: Reader) -> None:
    sizes = reader.panel("Position Sizes (USDT)", FUTURES_SESSION)
    assert sizes.names == ["symbol", "USDT"]
    assert sizes.types[0] in (TEXT, VARCHAR)
    assert sizes.types[1] == DOUBLE
    assert sizes.rows == [("BTCUSDT", 5000.25), ("ETHUSDT", -3000.5)]
    shares = reader.panel("Position Allocation", FUTURES_SESSION)
    assert shares.rows == [("BTCUSDT", 5000.25), ("ETHUSDT", 3000.5)]


def test_a_flat_account_holds_nothing_whatever_it_held_before(reader: Reader) -> None:
    for title in ("Position Allocation", "Position Sizes (USDT)"):
        assert reader.panel(title, SPOT_SESSION).rows == []
        earlier = replace(WHOLE, end=START + timedelta(minutes=2, seconds=30))
        assert reader.panel(title, SPOT_SESSION, earlier).rows == [("XRPUSDT", 777.5)]


def test_neighbouring_missing_minutes_are_one_region(reader: Reader) -> None:
    (gaps,) = board()["annotations"]["list"]
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


def test_every_query_gives_rows_of_the_range_and_none_of_another(
    reader: Reader, owner: str
) -> None:
    """A query that forgets the time range would still find rows in another year."""
    asked = 0
    elsewhere = Shown(START - timedelta(days=700), START - timedelta(days=699))
    for panel in board_panels():
        for target in panel["targets"]:
            uid, sql = target["datasource"]["uid"], target["rawSql"]
            here = reader.ask(uid, sql, WHOLE, session=FUTURES_SESSION, owner=owner)
            assert here.rows, panel["title"]
            assert reader.ask(uid, sql, elsewhere, session=FUTURES_SESSION).rows == []
            asked += 1
    assert asked == 6


# --- the role -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("datasource", "sql"),
    [
        ("aifap-results", "DELETE FROM futures_result_1min"),
        ("aifap-results", "SET transaction_read_only = off; DELETE FROM futures_result_1min"),
        ("aifap-sessions", "SELECT * FROM api_tokens"),
        ("aifap-sessions", "SELECT * FROM accounts"),
        ("aifap-sessions", "SELECT spec FROM active_sessions"),
    ],
)
def test_S50_grafanas_role_writes_nothing_and_sees_no_secret(
    reader: Reader, datasource: str, sql: str
) -> None:
    with pytest.raises(psycopg2.Error):
        reader.ask(datasource, sql, WHOLE)
