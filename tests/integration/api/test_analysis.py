"""Tear sheets through the API: from the rows that a session left to a page that people look at."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from module.clock import SystemClock
from module.db.repositories.results_curves import CurveRepository
from module.db.repositories.users import Role, UserRecord
from module.db.results_rollups import roll_up
from module.model.market import MarketType
from module.model.results import (
    ClosedPositionRow,
    GapCause,
    GapRow,
    HistoryRows,
    IndicatorRow,
    MinuteRows,
    PortfolioRow,
    SymbolRow,
    TradeSums,
    TransactionRow,
)
from module.settings import Settings
from monitoring.indicators import IndicatorState
from monitoring.tearsheets.session_curve import session_document, step_of
from tests.fakes.asgi_client import AsgiClient
from tests.fakes.curves import backtest_document, short_document
from tests.fakes.platform import FakePlatform, fake_platform
from tests.fakes.tear_sheets import KILLED, draw_with, shelf_of

CLOCK = SystemClock()
CHROMIUM = shutil.which("chromium")
SEED_FIELDS = {
    "tradeType": "futures",
    "strategy_name": "momentum",
    "trade_mode": "rebalancing",
    "trade_env": "paper",
}
MINUTES = 60
DEPOSIT_AT = 25
WAIT_S = 300.0


def worth_at(place: int) -> tuple[Decimal, Decimal]:
    """PV and net transfers of one minute: a saw with a trend, and a deposit of 500 on the way."""
    moved = Decimal(500) if place >= DEPOSIT_AT else Decimal(0)
    return 10_000 + moved + Decimal(place) / 3 - Decimal((place * 7) % 23), moved


def portfolio_of(at: datetime, pv: Decimal, moved: Decimal) -> PortfolioRow:
    return PortfolioRow(
        current_pv=pv,
        netprofit=pv - 10_000 - moved,
        roe=None,
        position_value=Decimal(2_000),
        gross_position_value=Decimal(6_000),
        cash=pv - 6_000,
        unrealized_pnl=Decimal(0),
        unrealized_roe=None,
        margin_size=Decimal(6_000),
        available=10_000 + moved,
        wallet_balance=pv,
        initial_balance=Decimal(10_000),
        net_transfers=moved,
        realized_pnl=Decimal(0),
        fees=Decimal("-3.25"),
        funding=Decimal("0.5"),
        positions=2,
        open_orders=0,
        unprotected=0,
        measured_at=at,
        late=False,
        flags="",
        unprotected_s=42.0,
    )


def symbol_of(symbol: str, value: Decimal) -> SymbolRow:
    return SymbolRow(
        symbol=symbol,
        size=value / 61_000,
        entry_price=Decimal(61_000),
        mark_price=Decimal(61_000),
        position_value=value,
        margin_size=abs(value),
        unrealized_pnl=Decimal(0),
        unrealized_roe=None,
        realized_pnl=Decimal(0),
        fees=Decimal(0),
        funding=Decimal(0),
        weight=None,
        target=None,
        leverage=Decimal(1),
        liquidation_price=None,
        stop_loss=None,
        take_profit=None,
        flags="",
    )


def fill_of(number: int, at: datetime) -> TransactionRow:
    return TransactionRow(
        source="fill",
        exchange_id=f"fill-{number}",
        kind="trade",
        venue_kind="open",
        order_id=f"order-{number}",
        symbol="BTCUSDT",
        side="buy" if number % 2 else "sell",
        price=Decimal(61_000),
        size=Decimal("0.01"),
        quote_size=Decimal(610),
        asset="USDT",
        amount=Decimal(0),
        fee=Decimal("-0.366"),
        fee_asset="USDT",
        balance=None,
        is_taker=True,
        at=at,
    )


def closed_of(number: int, at: datetime, profit: str) -> ClosedPositionRow:
    return ClosedPositionRow(
        exchange_id=f"closed-{number}",
        symbol="BTCUSDT",
        side="long",
        entry_price=Decimal(60_000),
        close_price=Decimal(61_000),
        size=Decimal("0.01"),
        gross_pnl=Decimal(10),
        funding=Decimal(0),
        open_fee=Decimal(0),
        close_fee=Decimal(0),
        net_profit=Decimal(profit),
        opened_at=at - timedelta(minutes=9),
        closed_at=at,
    )


class Measured:
    """One person, their session, and MINUTES stored minutes of it."""

    def __init__(self, platform: FakePlatform, name: str, minutes: int) -> None:
        self.platform = platform
        self.user: UserRecord
        self.user, self.client = platform.person(name)
        self.session_id = self.client.post("/command/run-system", SEED_FIELDS).json()["session_id"]
        self.record = platform.doors.sessions.get(self.session_id)
        started = self.record.spec.started_at
        self.first = started.replace(second=0, microsecond=0) + timedelta(minutes=1)
        state = IndicatorState.begin(started, Decimal(10_000))
        self.last: IndicatorRow | None = None
        year = platform.doors.settings.days_per_year
        for place in range(minutes):
            pv, moved = worth_at(place)
            state = state.advance(self.first + place * timedelta(minutes=1), pv, moved)
            self.last = state.read(TradeSums(), year)
            self.store(place, self.last)
        moments = [self.first + place * timedelta(minutes=6) for place in range(9)]
        self.store_history(
            tuple(fill_of(n, at) for n, at in enumerate(moments)),
            (closed_of(1, moments[3], "12"), closed_of(2, moments[5], "-4")),
        )

    def store(self, place: int, indicators: IndicatorRow | None, read_late_s: int = 0) -> None:
        """The rows of one minute, as they were read `read_late_s` after it."""
        at = self.first + place * timedelta(minutes=1)
        portfolio = portfolio_of(at + timedelta(seconds=read_late_s), *worth_at(place))
        self.platform.doors.results.store_minute(
            MinuteRows(
                session_id=self.session_id,
                owner_id=self.user.user_id,
                account_id=self.record.account_id,
                market=MarketType.FUTURES,
                minute=at,
                writer="writer-1",
                symbols=(
                    symbol_of("BTCUSDT", Decimal(4_000)),
                    symbol_of("ETHUSDT", Decimal(-2_000)),
                ),
                portfolio=portfolio,
                indicators=indicators,
            )
        )

    def store_history(
        self, fills: tuple[TransactionRow, ...], closed: tuple[ClosedPositionRow, ...] = ()
    ) -> None:
        self.platform.doors.results.store_history(
            HistoryRows(
                session_id=self.session_id,
                owner_id=self.user.user_id,
                account_id=self.record.account_id,
                market=MarketType.FUTURES,
                transactions=fills,
                positions=closed,
            )
        )

    def store_gap(self, place: int) -> None:
        at = self.first + place * timedelta(minutes=1)
        gap = GapRow(self.session_id, self.user.user_id, at, GapCause.STORE_LOST, "it was away", at)
        watched = self.platform.doors.sessions.watched(self.session_id)
        assert self.platform.doors.results.store_gaps(watched, [gap]) == 1

    def order(self, wait: int = 0, **fields: object) -> dict[str, object]:
        body = {"session_id": self.session_id, **fields}
        found = self.client.post(f"/analysis/tear-sheets?wait={wait}", body)
        assert found.status in (200, 202), found.body
        return dict(found.json())


def name_of_now() -> str:
    return f"analyst-{datetime.now(UTC).timestamp()}".replace(".", "-")


@pytest.fixture(scope="module")
def measured(postgres: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    """One hour, in an installation whose years are not the usual ones."""
    made = fake_platform(postgres, tmp_path_factory.mktemp("data"), days_per_year=251)
    yield Measured(made, name_of_now(), MINUTES)
    made.close()


@pytest.fixture
def barely(platform: FakePlatform) -> Measured:
    """Two minutes, and sheets that are drawn by a stand-in."""
    draw_with(platform)
    return Measured(platform, name_of_now(), 2)


def ready(client: AsgiClient, address: str) -> dict[str, object]:
    """The job when it is over."""
    end_at = CLOCK.monotonic() + WAIT_S
    while CLOCK.monotonic() < end_at:
        job = client.get(address).json()
        if job["state"] not in ("queued", "drawing"):
            return dict(job)
        CLOCK.pause(0.4)
    raise AssertionError("it is not drawn")


@pytest.mark.timeout(900)
def test_a_session_becomes_a_page_a_picture_and_the_finwatchers_own_numbers(
    measured: Measured, tmp_path: Path
) -> None:
    job = measured.order()
    assert job["state"] in ("queued", "drawing")
    done = ready(measured.client, str(job["address"]))
    assert done["state"] == "ready", done
    page, picture, numbers = (
        measured.client.get(str(done[part])) for part in ("html", "png", "json")
    )
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "sandbox" in page.headers["content-security-policy"]
    assert picture.body.startswith(b"\x89PNG")
    assert measured.session_id.encode() in page.body

    figures = {name: item["value"] for name, item in numbers.json()["figures"].items()}
    last = measured.last
    assert last is not None
    assert figures["total_return"] == pytest.approx(last.cumulative_return, abs=1e-9)
    assert figures["max_drawdown"] == pytest.approx(last.max_drawdown, abs=1e-9)
    assert figures["sharpe"] == pytest.approx(last.sharpe_1min, abs=1e-9)
    assert figures["volatility"] == pytest.approx(last.volatility_1min, abs=1e-9)
    assert numbers.json()["periods_per_year"] == 251 * 1440
    pv, moved = worth_at(MINUTES - 1)
    assert figures["net_profit"] == pytest.approx(float(pv - 10_000 - moved))
    assert figures["net_transfers"] == 500
    assert (figures["fills"], figures["trades"], figures["win_rate"]) == (9, 2, 0.5)
    assert figures["profit_factor"] == pytest.approx(3.0)
    assert figures["unprotected_s"] == 42
    assert figures["traded_notional"] == pytest.approx(9 * 610)
    assert figures["gross_exposure_max"] == pytest.approx(0.6, abs=0.01)

    again = measured.order(wait=1)
    assert (again["state"], again["job_id"]) == ("ready", job["job_id"])
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: nobody looked at the page")
    _looks_whole(page.body, tmp_path)


def _looks_whole(page: bytes, folder: Path) -> None:
    """As a browser lays it out on a phone: every picture is there, nothing is wider than it."""
    assert CHROMIUM is not None
    look = (
        b"<script>addEventListener('load', () => { const bad = [...document.images].filter("
        b"i => !i.naturalWidth).length; document.title = `${document.images.length} pictures, "
        b"${bad} broken, ${document.documentElement.scrollWidth - innerWidth} too wide`; });"
        b"</script>"
    )
    # The page forbids scripts; this copy of it lets one look.
    copy = page.replace(b"default-src 'none';", b"default-src 'none'; script-src 'unsafe-inline';")
    (folder / "page.html").write_bytes(copy.replace(b"</main>", look + b"</main>"))
    with tempfile.TemporaryDirectory(prefix="aifap-look-") as profile:
        found = subprocess.run(
            [
                CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900",
                f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--dump-dom",
                f"file://{folder}/page.html",
            ],
            capture_output=True, check=True, timeout=WAIT_S,
        )  # fmt: skip
    title = found.stdout.decode().partition("<title>")[2].partition("</title>")[0]
    pictures, _, rest = title.partition(" pictures, ")
    assert int(pictures) >= 8, title
    broken, _, wide = rest.partition(" broken, ")
    assert broken == "0"
    assert int(wide.split()[0]) <= 0


def test_the_rows_of_a_range_are_read_thinned_and_whole(measured: Measured) -> None:
    rows = CurveRepository(measured.platform.databases[1])
    watched = measured.platform.doors.sessions.watched(measured.session_id)
    later = measured.first + timedelta(minutes=30)
    document = session_document(rows, watched, later, later + timedelta(minutes=20))
    assert (len(document.curve.at), document.initial_balance) == (20, None)
    assert document.curve.at[0] == later
    span = rows.span(watched, measured.first, later + timedelta(days=1))
    assert span is not None
    steps = rows.points(watched, span, timedelta(minutes=5))
    minutes = [row.minute for row in steps]
    assert minutes[-1] == span.last
    assert all(int(at.timestamp()) % 300 == 0 for at in minutes[:-1])
    assert len({(int(at.timestamp()) - 1) // 300 for at in minutes}) == len(minutes)
    assert document.positions is not None
    assert document.positions.value["ETHUSDT"][0] == -2_000
    assert [step_of(timedelta(days=days)) for days in (1, 10, 50, 300, 900)] == [
        timedelta(minutes=1),
        timedelta(minutes=5),
        timedelta(minutes=15),
        timedelta(hours=1),
        timedelta(days=1),
    ]


def test_days_that_are_rolled_up_are_told_apart_by_their_roll_ups(
    platform: FakePlatform, barely: Measured
) -> None:
    """A year is not counted minute by minute, and still nothing that comes late is missed."""
    database = platform.databases[1]
    rows = CurveRepository(database)
    watched = platform.doors.sessions.watched(barely.session_id)
    span = rows.span(watched, barely.first, barely.first + timedelta(days=1))
    assert span is not None
    after = (span.last + timedelta(days=1)).date()
    counted = rows.stock(watched, span)
    assert (counted.rolled, counted.minutes, counted.indicators) == ("", 2, 2)
    assert roll_up(database, after) >= 1
    rolled = rows.stock(watched, span)
    assert (bool(rolled.rolled), rolled.minutes, rolled.measured_at) == (True, 0, None)
    assert rows.stock(watched, span) == rolled, "nothing changed"
    barely.store(1, barely.last, read_late_s=9)
    due = rows.stock(watched, span)
    assert due.minutes == 2
    assert roll_up(database, after) >= 1
    assert len({counted, rolled, due, rows.stock(watched, span)}) == 4


def test_a_backtests_curve_is_taken_as_it_is(platform: FakePlatform) -> None:
    draw_with(platform)
    _, client = platform.person("backtester")
    curve = backtest_document(points=24 * 20, symbols=2)
    asked = client.post("/analysis/tear-sheets?wait=10", {"curve": curve})
    assert asked.status in (200, 202), asked.body
    done = ready(client, asked.json()["address"])
    assert asked.headers["location"] == done["address"]
    assert done["subject"]["title"] == "Momentum, five symbols"  # type: ignore[index]
    assert client.get(str(done["html"])).body == b"page"
    assert [job["job_id"] for job in client.get("/analysis/tear-sheets").json()["tear_sheets"]] == [
        done["job_id"]
    ]
    assert client.delete(str(done["address"])).json()["state"] == "cancelled"
    assert client.get(str(done["address"])).status == 404


def test_what_cannot_be_made_is_a_problem_that_says_why(
    platform: FakePlatform, barely: Measured
) -> None:
    client = barely.client
    session_id = client.post("/command/run-system", SEED_FIELDS).json().get("session_id")
    far = {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}
    curve = short_document(["1", "2"])
    for body, status in (
        ({"session_id": barely.session_id, **far}, 404),
        ({"session_id": session_id or "2611211010-zzzz"}, 404),
        ({}, 422),
        ({"session_id": barely.session_id, "curve": curve}, 422),
        ({"curve": {**curve, "title": ""}}, 422),
        ({"curve": curve, "start": "2020-01-01T00:00:00Z"}, 422),
        ({"session_id": "../../etc"}, 422),
    ):
        found = client.post("/analysis/tear-sheets", body)
        assert found.status == status, (body, found.body)
        assert found.headers["content-type"] == "application/problem+json"
    assert client.post("/analysis/tear-sheets?wait=11", {"curve": curve}).status == 422


def test_a_full_queue_and_a_failed_drawing_are_problems(
    platform: FakePlatform, barely: Measured
) -> None:
    draw_with(platform, KILLED)
    shelf = shelf_of(platform)
    body = {"curve": short_document(["1", "2"])}
    job = barely.client.post("/analysis/tear-sheets", body).json()
    done = ready(barely.client, job["address"])
    assert (done["state"], done["problem"]["status"]) == ("failed", 503)  # type: ignore[index]
    page = barely.client.get(f"{job['address']}/html")
    assert (page.status, page.headers["content-type"]) == (503, "application/problem+json")

    places = [shelf.take_place(f"somebody-{number}") for number in range(8)]
    full = barely.client.post("/analysis/tear-sheets", body)
    assert (full.status, full.json()["reason"]) == (503, "tear-sheet-queue-full")
    assert int(full.headers["retry-after"]) >= 1
    for pair in places:
        for held in pair:
            held.release()


def test_what_is_filled_in_or_corrected_later_makes_a_new_sheet(
    platform: FakePlatform, barely: Measured
) -> None:
    def job_now() -> str:
        job = barely.order(wait=10)
        ready(barely.client, str(job["address"]))
        return str(job["job_id"])

    barely.store(4, barely.last)  # minutes 2 and 3 lie in a spool
    changes: tuple[Callable[[], object], ...] = (
        lambda: barely.store(2, None),
        lambda: barely.store(2, barely.last),
        lambda: barely.store(4, barely.last, read_late_s=9),
        lambda: barely.store_history((fill_of(77, barely.first + timedelta(minutes=1)),)),
        lambda: barely.store_history((), (closed_of(77, barely.first, "3"),)),
        lambda: barely.store_gap(3),
    )
    seen = [job_now()]
    for change in changes:
        assert job_now() == seen[-1], "nothing changed"
        change()
        seen.append(job_now())
    assert len(set(seen)) == 7
    curve = short_document(["1", "2"])
    jobs = [
        barely.client.post("/analysis/tear-sheets?wait=10", {"curve": body}).json()["job_id"]
        for body in (curve, {**curve, "days_per_year": 365}, {**curve, "days_per_year": 250})
    ]
    assert jobs[0] == jobs[1] != jobs[2]


def test_S10_tear_sheets_of_others_are_not_there(platform: FakePlatform, barely: Measured) -> None:
    job = barely.order(wait=10)
    ready(barely.client, str(job["address"]))
    _, stranger = platform.person("stranger")
    _, supervisor = platform.person("overseer", Role.SUPERVISOR)
    for part in ("", "/html", "/png", "/json"):
        assert stranger.get(f"{job['address']}{part}").status == 404
        assert supervisor.get(f"{job['address']}{part}").status == 404
    assert stranger.delete(str(job["address"])).status == 404
    refused = stranger.post("/analysis/tear-sheets", {"session_id": barely.session_id})
    assert refused.status == 404
    for name in ("..", "%2e%2e%2fowner", "0" * 31, "x" * 200):
        assert stranger.get(f"/analysis/tear-sheets/{name}/html").status == 404
    own = supervisor.post("/analysis/tear-sheets", {"session_id": barely.session_id})
    assert own.json()["job_id"] != job["job_id"], "a supervisor's sheet is their own"
    ready(supervisor, own.json()["address"])
