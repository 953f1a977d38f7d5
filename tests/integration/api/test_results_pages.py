"""Results in pages, in columns, in buckets and as files: whole, exact, and only one's own."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import event

import api.results_queries
from module.db.repositories.users import Role
from module.model.errors import Unavailable
from module.settings import Settings
from tests.fakes.measured_curves import MINUTE, store_curve
from tests.fakes.measured_run import (
    RANGE,
    START,
    WORTH,
    Run,
    add_session,
    measured_run,
    read_csv,
)
from tests.fakes.platform import FakePlatform, fake_platform

FILLED = "2025-03-04T00:00:00Z"


@pytest.fixture(scope="module")
def shared(postgres: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePlatform]:
    made = fake_platform(postgres, tmp_path_factory.mktemp("data"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def run(shared: FakePlatform) -> Run:
    return measured_run(shared, "runner")


# --- series ---------------------------------------------------------------------------------------


def minutes_of(rows: list[Any]) -> list[str]:
    return [row["minute"][11:16] for row in rows]


def follow(run: Run, what: str, query: str, name: str = "rows") -> list[list[Any]]:
    """All pages of a list, by their `next`."""
    pages: list[list[Any]] = []
    cursor = ""
    while True:
        document = run.get(what, f"{query}{cursor}").json()
        pages.append(document[name])
        if document["next"] is None:
            return pages
        cursor = f"&cursor={document['next']}"


def test_pages_go_back_from_the_newest_or_on_from_the_oldest(run: Run) -> None:
    newest = [minutes_of(page) for page in follow(run, "portfolio", "limit=3")]
    assert newest == [["00:02", "00:03", "00:04"], ["23:59", "00:00", "00:01"], ["23:58"]]
    oldest = [minutes_of(page) for page in follow(run, "portfolio", "limit=3&order=oldest")]
    assert oldest == [["23:58", "23:59", "00:00"], ["00:01", "00:02", "00:03"], ["00:04"]]
    link = run.get("portfolio", "limit=3").headers["link"]
    assert link.startswith(f"<{run.path}/portfolio?start=2025-03-03T00%3A00%3A00Z&")
    assert link.endswith('>; rel="next"')


def test_a_cut_between_two_symbols_of_one_minute_loses_none(run: Run) -> None:
    for order in ("newest", "oldest"):
        pages = follow(run, "symbols", f"limit=3&order={order}&columns=weight")
        rows = [(row["minute"], row["symbol"]) for page in pages for row in page]
        assert len(set(rows)) == len(rows) == 14
    only = run.rows("symbols", "symbol=ETHUSDT&columns=weight")
    assert [row["weight"] for row in only] == [-0.1] * 7


def test_columns_are_those_that_were_asked_for(run: Run) -> None:
    (row,) = run.rows("portfolio", "limit=1&columns=roe,minute,current_pv")
    assert list(row) == ["minute", "roe", "current_pv"]
    refused = run.get("indicators", "columns=sharpe_1day,profit")
    assert refused.status == 422
    (error,) = refused.json()["errors"]
    assert error["field"] == "columns"
    assert "there is no column 'profit'; known are minute, " in error["message"]
    assert "sharpe_1day" in error["message"]


def test_a_coarser_resolution_has_the_last_minute_of_each_bucket(run: Run) -> None:
    five = run.rows("portfolio", "resolution=5m&columns=current_pv")
    assert [(row["minute"][11:16], row["current_pv"]) for row in five] == [
        ("00:00", "9993.5"),
        ("00:04", "10601"),
    ]
    days = run.rows("portfolio", "resolution=1d&columns=current_pv,minutes,low_pv")
    assert [(row["minute"][:16], row["minutes"]) for row in days] == [
        ("2025-03-04T00:00", 3),
        ("2025-03-04T00:04", 4),
    ]
    assert run.get("portfolio", "resolution=7m").status == 422
    assert run.get("portfolio", "columns=low_pv").status == 422, "minutes have no low"


@pytest.mark.parametrize(
    "query",
    [
        "cursor=x",
        "cursor=%ff%ff",
        "cursor=W10",
        "limit=0",
        "format=xml",
        "order=random",
        "columns=",
        "resolution=1m;drop",
    ],
)
def test_a_question_that_is_none_is_refused(run: Run, query: str) -> None:
    answer = run.get("portfolio", query)
    assert answer.status == 422
    assert answer.headers["content-type"].startswith("application/problem+json")


def test_a_cursor_opens_no_other_list(run: Run) -> None:
    cursor = run.get("portfolio", "limit=3").json()["next"]
    assert run.get("portfolio", f"limit=2&cursor={cursor}").status == 200
    for what in ("indicators", "gaps", "trades"):
        assert run.get(what, f"limit=3&cursor={cursor}").status == 422
    assert run.get("portfolio", f"limit=3&columns=roe&cursor={cursor}").status == 422


def test_gaps_are_paged(run: Run) -> None:
    pages = follow(run, "gaps", "limit=2", "gaps")
    assert [minutes_of(page) for page in pages] == [["00:06", "00:07"], ["00:05"]]


# --- files ----------------------------------------------------------------------------------------


def test_a_file_has_everything_exactly_oldest_first(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.results_queries, "CSV_PAGE_ROWS", 3)
    answer = run.get("portfolio", "columns=current_pv,roe,late", Accept="text/csv")
    rows = read_csv(answer)
    assert [row["current_pv"] for row in rows] == list(WORTH)
    assert rows[0] == {
        "minute": "2025-03-03T23:58:00Z",
        "current_pv": "10010",
        "roe": "0.001",
        "late": "false",
    }
    name = f"aifap-{run.watched.session_id}-portfolio-1m.csv"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    page = run.get("portfolio", "columns=roe&limit=3&format=csv")
    assert [row["minute"][11:16] for row in read_csv(page)] == ["00:02", "00:03", "00:04"]
    assert 'rel="next"' in page.headers["link"]


def test_S43_a_file_of_gaps_runs_no_formula(run: Run) -> None:
    rows = read_csv(run.get("gaps", "format=csv"))
    assert [row["detail"] for row in rows] == ["'=slow"] * 3
    assert "\r\n" in run.get("gaps", "format=csv").body.decode()


@pytest.mark.parametrize(
    "what",
    ["portfolio", "indicators", "symbols", "gaps", "positions", "closed-positions", "orders",
     "trades", "bills", "transactions", "cycles"],
)  # fmt: skip
def test_every_list_is_also_a_file(run: Run, what: str) -> None:
    assert len(read_csv(run.get(what, "format=csv"))) >= 2


def test_a_file_is_packed_for_who_unpacks(run: Run) -> None:
    plain = run.get("portfolio", "format=csv")
    packed = run.get("portfolio", "format=csv", Accept_Encoding="br;q=1.0, gzip;q=0.8")
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    document = run.get("portfolio", Accept_Encoding="gzip")
    assert gzip.decompress(document.body) == run.get("portfolio", Accept_Encoding="gzip;q=0").body


def test_a_moment_of_trouble_in_the_middle_of_a_file_is_waited_out(
    run: Run, shared: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.results_queries, "CSV_PAGE_ROWS", 3)
    monkeypatch.setattr(api.results_queries, "READ_PAUSE_S", 0.0)
    whole = run.get("portfolio", "format=csv").body
    read: Callable[..., Any] = type(shared.doors.series).series
    calls = 0

    def troubled(*words: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (2, 3):
            raise Unavailable("database finwatcher does not answer")
        return read(*words)

    monkeypatch.setattr(type(shared.doors.series), "series", troubled)
    assert run.get("portfolio", "format=csv").body == whole
    calls = 1
    assert run.get("portfolio", "format=csv").status == 503, "before it begins it is said at once"


def test_S17_downloads_and_long_questions_are_bounded(run: Run, shared: FakePlatform) -> None:
    places = shared.app.state.result_places
    user_id = run.watched.owner_id
    for kind, query in (("downloads", "format=csv"), ("questions", "resolution=1h")):
        bounded = getattr(places, kind)
        with bounded.one(user_id), bounded.one(user_id):
            refused = run.get("portfolio", query)
            assert (refused.status, refused.json()["code"]) == (429, "rate-limited")
            assert int(refused.headers["retry-after"]) >= 1
            assert run.get("portfolio").status == 200
        assert run.get("portfolio", query).status == 200
        assert bounded.taken == 0


def test_who_has_the_answer_already_is_not_sent_it_again(run: Run) -> None:
    first = run.get("portfolio")
    again = run.get("portfolio", If_None_Match=f'"other", {first.headers["etag"]}')
    assert (again.status, again.body) == (304, b"")
    assert run.get("portfolio", "limit=2", If_None_Match=first.headers["etag"]).status == 200


# --- history --------------------------------------------------------------------------------------


def test_trades_and_bills_are_filtered_and_paged(run: Run) -> None:
    pages = follow(run, "trades", "limit=2", "trades")
    ids = [row["exchange_id"] for page in pages for row in page]
    assert ids == [f"trade-{number:04d}" for number in (4, 3, 2, 1, 0)]
    (sold,) = run.rows("trades", "symbol=ETHUSDT", "trades")
    assert (sold["side"], sold["decision_price"]) == ("sell", "60990")
    assert [row["kind"] for row in run.rows("bills", "", "bills")] == ["transfer", "funding"]
    (funding,) = run.rows("bills", "kind=funding", "bills")
    assert funding["amount"] == "-0.75"
    assert len(run.rows("bills", "kind=funding&kind=transfer", "bills")) == 2
    assert run.get("bills", "kind=gift").status == 422
    assert run.rows("transactions", "", "transactions") == run.rows("trades", "", "trades")


def test_positions_now_and_those_that_are_over(run: Run) -> None:
    now = run.get("positions").json()
    assert now["minute"] == "2025-03-04T00:04:00Z"
    assert [row["symbol"] for row in now["positions"]] == ["BTCUSDT", "ETHUSDT"]
    pages = follow(run, "closed-positions", "limit=1", "positions")
    assert [page[0]["net_profit"] for page in pages if page] == ["-3.25", "15.0305"]


def test_orders_tell_what_was_sent_and_what_became_of_it(run: Run) -> None:
    third, second, first = run.rows("orders", "", "orders")
    assert first["cycle"] == FILLED
    assert (first["cycle_number"], first["leg_id"], first["case"]) == (1, "BTCUSDT-open", "new")
    assert (first["outcome"], first["state"], first["order_id"]) == (
        "accepted", "filled", "order-1",
    )  # fmt: skip
    assert first["price_off_bps"] == 1.0, "6.1 of 61,000 worse than planned"
    assert (first["stop_loss"], first["fee"]) == ("59000", "-1.3542")
    assert second["cycle_number"] == 2
    assert third["cycle_number"] == 3, "the cycle under way is in the letter"
    pages = follow(run, "orders", "limit=1&order=oldest", "orders")
    assert [page[0]["client_id"] for page in pages] == ["af-1", "af-2", "af-3"]
    assert run.rows("orders", "outcome=rejected", "orders") == []
    assert len(run.rows("orders", "kind=all&symbol=BTCUSDT", "orders")) == 3


def test_cycles_tell_what_was_planned_done_and_skipped(run: Run) -> None:
    second, first = run.rows("cycles", "", "cycles")
    assert (first["boundary"], first["number"], second["number"]) == (FILLED, 1, 2)
    assert (first["planned"], first["filled"], first["failed"]) == (1, 1, 0)
    assert first["skipped"][0]["reason"] == "below_threshold"
    assert first["residuals"] == {"ETHUSDT": "0.005"}
    assert run.rows("cycles", "state=skipped", "cycles") == []


def test_one_cycle_in_detail_by_number_boundary_or_latest(run: Run) -> None:
    by_number = run.client.get(f"{run.path}/cycles/1").json()["cycle"]
    assert by_number == run.client.get(f"{run.path}/cycles/{FILLED}").json()["cycle"]
    (leg,) = by_number["legs"]
    assert (leg["case"], leg["state"], leg["orders"][0]["average_price"]) == (
        "new", "filled", "61006.1",
    )  # fmt: skip
    assert (leg["filled_size"], leg["average_price"]) == ("0.037", "61006.1")  # of its newest order
    assert "inputs" not in by_number
    full = run.client.get(f"{run.path}/cycles/1?inputs=true").json()["cycle"]
    assert full["inputs"] == {"much": "that is long"}
    newest = run.client.get(f"{run.path}/cycles/latest").json()["cycle"]
    assert (newest["number"], newest["stage"]) == (3, "trading")
    assert run.client.get(f"{run.path}/cycles/99").status == 404
    assert run.client.get(f"{run.path}/cycles/2025-03-04T00:01:00Z").status == 404
    assert run.client.get(f"{run.path}/cycles/tomorrow").status == 422


# --- sessions -------------------------------------------------------------------------------------


def test_sessions_are_filtered_paged_and_valued(shared: FakePlatform, run: Run) -> None:
    _, client = shared.person("lister")
    made = [add_session(shared, "lister", over=n >= 4) for n in range(7)]
    for session in made[:5]:
        store_curve(shared.doors.results, session, [(START + MINUTE, Decimal(10_077), Decimal(0))])

    def ids(query: str) -> list[str]:
        return [
            each["session_id"]
            for each in client.get(f"/results/sessions?{query}").json()["sessions"]
        ]

    everything = ids("")
    assert set(everything) == {session.session_id for session in made}
    assert set(everything[:4]) == {session.session_id for session in made[:4]}, "living ones first"
    paged: list[str] = []
    cursor = ""
    while True:
        document = client.get(f"/results/sessions?limit=3{cursor}").json()
        paged += [each["session_id"] for each in document["sessions"]]
        if document["next"] is None:
            break
        cursor = f"&cursor={document['next']}"
    assert paged == everything
    assert len(ids("state=over")) == 3
    assert len(ids("state=starting")) == 4
    assert len(ids("over=1")) == 5
    assert ids(f"account_id={made[0].account_id}") == [made[0].session_id]
    assert ids("strategy_name=other") == []
    assert ids("tradeType=spot") == []
    assert ids("trade_env=paper&start=2025-03-04T00:00:00Z") == []
    assert run.watched.session_id not in everything
    first = client.get(f"/results/sessions?account_id={made[0].account_id}").json()["sessions"][0]
    assert first["latest"]["current_pv"] == "10077"
    assert first["latest"]["cumulative_return"] == pytest.approx(0.0077)
    (row, *_) = read_csv(client.get("/results/sessions?format=csv&state=over"))
    assert row["state"] == "ended"
    assert row["latest_current_pv"] in ("10077", "")


def test_a_list_of_sessions_costs_the_same_queries_however_long_it_is(
    shared: FakePlatform,
) -> None:
    _, supervisor = shared.person("counter", Role.SUPERVISOR)
    for owner in ("first", "second", "third"):
        add_session(shared, owner)
    asked = [0]

    def count(*_: object) -> None:
        asked[0] += 1

    engines = [database.engine() for database in shared.databases]
    counts = []
    for engine in engines:
        event.listen(engine, "before_cursor_execute", count)
    try:
        for limit in (1, 3):
            asked[0] = 0
            found = supervisor.get(f"/results/sessions?limit={limit}").json()["sessions"]
            assert len(found) == limit
            counts.append(asked[0])
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", count)
    assert counts[0] == counts[1] > 0


# --- whose ----------------------------------------------------------------------------------------


def test_S10_nobody_elses_results_not_even_by_guessing(shared: FakePlatform, run: Run) -> None:
    _, stranger = shared.person("stranger")
    _, supervisor = shared.person("overseer", Role.SUPERVISOR)
    mine = add_session(shared, "stranger")
    cursor = run.get("portfolio", "limit=3").json()["next"]
    asks = [
        f"/results/{{0}}/{what}?{RANGE}{form}"
        for what in ("portfolio", "indicators", "symbols", "gaps", "positions", "orders",
                     "closed-positions", "trades", "bills", "transactions", "cycles",
                     "cycles/latest", "cycles/1")
        for form in ("", "&format=csv")
    ]  # fmt: skip
    asks += [
        "/results/{0}/latest",
        "/results/compare?session={0}",
        f"/results/compare?session={mine.session_id}&session={{0}}",
    ]
    paged = f"{run.path}/portfolio?{RANGE}&limit=3&cursor={cursor}"
    assert stranger.get(paged).status == 404, "a cursor opens no door"
    for ask in asks:
        seen = stranger.get(ask.format(run.watched.session_id))
        absent = stranger.get(ask.format("2503032357-zzzz"))
        assert seen.status == absent.status == 404, ask
        assert (
            seen.json()["detail"].replace(run.watched.session_id, "2503032357-zzzz")
            == (absent.json()["detail"])
        )
        if "cycles/" not in ask:
            assert supervisor.get(ask.format(run.watched.session_id)).status == 200, ask
    listed = stranger.get("/results/sessions").json()["sessions"]
    assert [each["session_id"] for each in listed] == [mine.session_id]
    assert len(supervisor.get("/results/sessions").json()["sessions"]) > 1
