"""Minute rows, history and gaps in a real Postgres: repeatable, owned, never both row and gap."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from module.db.database import Database
from module.db.embedded import EmbeddedPostgres
from module.db.repositories.results import ResultsRepository
from module.db.results_tables import RESULT_COLUMNS, ResultsBase
from module.model.accounts import BillKind
from module.model.errors import Unavailable
from module.model.market import MarketType
from module.model.results import (
    NO_TRADES,
    GapCause,
    GapRow,
    HistoryRows,
    MinuteRows,
    WatchedSession,
)
from module.settings import Settings
from monitoring.indicators import IndicatorState
from monitoring.ledger import HistoryLedger
from monitoring.metrics import Totals, measure_portfolio, measure_symbols
from tests.fakes.postgres_proxy import CommitLosingProxy
from tests.fakes.watched_account import (
    SESSION_ID,
    START,
    AccountExchange,
    WatchClock,
    bill,
    closed,
    fill,
    minute,
    position,
    session,
)


def rows(
    number: int,
    writer: str = "writer-1",
    wallet: str = "10000.123456789012345678",
    watched: WatchedSession | None = None,
) -> MinuteRows:
    """A minute's rows with numbers that use all 18 places."""
    watched = watched or session()
    exchange = AccountExchange(WatchClock(minute(number)), Decimal(wallet), (position(),))
    snapshot = exchange.snapshot()
    portfolio = measure_portfolio(snapshot, watched, Totals({}))
    state = IndicatorState.begin(minute(0), Decimal(10_000))
    state = state.advance(minute(number), portfolio.current_pv, portfolio.net_transfers)
    return MinuteRows(
        session_id=watched.session_id,
        owner_id=watched.owner_id,
        account_id=watched.account_id,
        market=watched.market,
        minute=minute(number),
        writer=writer,
        symbols=measure_symbols(snapshot, watched, Totals({})),
        portfolio=portfolio,
        indicators=state.read(NO_TRADES),
    )


def gap(number: int) -> GapRow:
    return GapRow(SESSION_ID, "owner", minute(number), GapCause.NOT_RUNNING, "", START)


def history(ledger: HistoryLedger) -> HistoryRows:
    at = minute(5)
    return HistoryRows(
        session_id=SESSION_ID,
        owner_id="owner",
        account_id="account",
        market=MarketType.FUTURES,
        transactions=(
            *ledger.book_fills([fill(1, at, pnl="12.5"), fill(2, at, pnl="-3")]),
            *ledger.book_bills(
                [
                    bill(1, at, BillKind.FUNDING, "-0.75"),
                    bill(2, at, BillKind.TRANSFER, "500"),
                    bill(3, at, BillKind.TRADE, "9.5"),
                ]
            ),
        ),
        positions=ledger.book_positions([closed(1, at, "4"), closed(2, at, "-1")]),
    )


def test_the_schema_that_migrations_made_is_the_one_of_the_tables(database: Database) -> None:
    with database.read() as db:
        there = inspect(db.connection())
        for table in ResultsBase.metadata.sorted_tables:
            columns = {item["name"]: item for item in there.get_columns(table.name)}
            assert set(columns) == {column.name for column in table.columns}, table.name
            for column in table.columns:
                found = columns[column.name]
                kind = found["type"].compile(db.get_bind().dialect)
                wanted = column.type.compile(db.get_bind().dialect)
                assert (kind, found["nullable"]) == (wanted, column.nullable), column
            key = there.get_pk_constraint(table.name)["constrained_columns"]
            assert key == [column.name for column in table.primary_key], table.name


def test_a_minute_comes_back_as_it_was_measured(store: ResultsRepository) -> None:
    written = rows(3)
    assert store.store_minute(written).written
    latest = store.latest(session())
    assert latest is not None
    portfolio, symbols, indicators = latest
    assert portfolio.minute == minute(3)
    assert portfolio.row == written.portfolio
    assert symbols == written.symbols
    assert indicators == written.indicators
    (point,) = store.curve(session(), None)
    assert point.current_pv == Decimal("10050.123456789012345678")
    assert store.curve(session(), minute(3)) == []


def test_E7_the_same_minute_by_two_processes_is_one_row(store: ResultsRepository) -> None:
    first = rows(1)
    barrier = threading.Barrier(4)
    answers: dict[str, bool] = {}

    def write(name: str) -> None:
        mine = rows(2, name, wallet=f"20000.{name}")
        barrier.wait(timeout=30)
        answers[name] = store.store_minute(mine, {"version": 1, "from": name}).written

    assert store.store_minute(first).written
    assert not store.store_minute(rows(1, "writer-2", wallet="99")).written
    threads = [threading.Thread(target=write, args=(str(number),)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(answers.values()) == [False, False, False, True]
    (winner,) = (name for name, written in answers.items() if written)
    series = store.portfolio_series(session(), minute(0), minute(9), 100)
    assert [item.minute for item in series] == [minute(1), minute(2)]
    assert series[0].row == first.portfolio
    assert series[1].row.wallet_balance == Decimal(f"20000.{winner}")
    assert store.indicator_state(session()) == {"version": 1, "from": winner}
    assert len(store.symbol_series(session(), minute(2), minute(3), 100)) == 1


def test_its_own_writer_may_measure_a_minute_again(store: ResultsRepository) -> None:
    store.store_minute(rows(1))
    flat = replace(rows(1, wallet="10500"), symbols=())
    assert store.store_minute(flat).written
    latest = store.latest(session())
    assert latest is not None
    assert latest[0].row.current_pv == Decimal(10_550)
    assert latest[1] == ()


def test_E2_a_commit_whose_answer_is_lost_leaves_one_row(
    store: ResultsRepository, postgres: Settings, postgres_server: EmbeddedPostgres
) -> None:
    proxy = CommitLosingProxy(postgres_server.socket_path)
    behind = Database(
        postgres.model_copy(update={"database_host": str(proxy.folder)}), "finwatcher", 1
    )
    try:
        behind.ping()
        proxy.lose = 2
        assert ResultsRepository(behind).store_minute(rows(4), {"version": 1}).written
        assert proxy.lost == 2
    finally:
        behind.close()
        proxy.close()
    assert len(store.portfolio_series(session(), minute(0), minute(9), 100)) == 1
    assert len(store.symbol_series(session(), minute(0), minute(9), 100)) == 1


def test_E5_a_locked_table_makes_the_minute_wait(
    store: ResultsRepository, database: Database, postgres: Settings
) -> None:
    impatient = Database(postgres, "finwatcher", 1, statement_timeout_ms=300)
    with database.transaction() as blocking:
        blocking.execute(text("LOCK TABLE futures_portfolio_result_1min"))
        with pytest.raises(Unavailable):
            ResultsRepository(impatient).store_minute(rows(1))
    assert ResultsRepository(impatient).store_minute(rows(1)).written
    impatient.close()


def test_what_the_database_refuses_of_one_part_leaves_the_others(store: ResultsRepository) -> None:
    good = rows(1)
    assert good.symbols is not None
    huge = replace(good.symbols[0], position_value=Decimal("1e30"))
    stored = store.store_minute(replace(good, symbols=(huge,)), {"version": 1})
    assert stored.written
    assert set(stored.failed) == {"symbols"}
    assert "numeric field overflow" in stored.failed["symbols"]
    latest = store.latest(session())
    assert latest is not None
    assert latest[1] == ()
    assert latest[2] == good.indicators


def test_gaps_never_cover_a_row_and_are_recorded_once(store: ResultsRepository) -> None:
    assert store.last_minute(session()) is None
    store.store_minute(rows(2))
    assert store.store_gaps(session(), [gap(1), gap(2), gap(3)]) == 2
    assert store.store_gaps(session(), [gap(1), gap(3)]) == 0
    assert store.last_minute(session()) == minute(3)
    assert store.kept_minutes(session(), minute(0), minute(2)) == {minute(1), minute(2)}
    found = store.gaps(session(), minute(0), minute(9), 100)
    assert found == [gap(1), gap(3)]
    assert found[0].cause is GapCause.NOT_RUNNING


def test_history_is_stored_once_and_summed_as_the_ledger_sums_it(store: ResultsRepository) -> None:
    ledger = HistoryLedger(START)
    written = history(ledger)
    assert store.store_history(written) == 7
    assert store.store_history(written) == 0
    stored = store.history(session(), timedelta(minutes=10))
    totals = ledger.totals_at(minute(6))
    assert stored.by_symbol["BTCUSDT"] == totals.by_symbol["BTCUSDT"]
    assert stored.net_transfers == totals.net_transfers == Decimal(500)
    assert (stored.sums.trades, stored.sums.trades_won) == (2, 1)
    assert stored.fill_at == stored.bill_at == stored.position_closed_at == minute(5)
    assert "bill:bill-2" in stored.recent
    again = HistoryLedger.resume(START, stored)
    assert history(again).transactions == ()
    newest = store.transactions(session(), "fill", 1)
    assert newest[0].exchange_id == "trade-2"


def test_the_history_of_an_empty_session_is_empty(store: ResultsRepository) -> None:
    stored = store.history(session(), timedelta(minutes=10))
    assert (stored.by_symbol, stored.net_transfers, stored.fill_at) == ({}, Decimal(0), None)
    assert store.latest(session()) is None


def test_spot_has_tables_of_its_own(store: ResultsRepository, database: Database) -> None:
    spot = session(market=MarketType.SPOT)
    assert store.store_minute(rows(1, watched=spot)).written
    assert store.latest(session()) is None
    assert store.latest(spot) is not None
    with database.read() as db:
        count = db.execute(
            text("SELECT count(*) FROM spot_result_1min WHERE session_id = :session"),
            {"session": SESSION_ID},
        ).scalar_one()
    assert count == 1


def test_a_series_is_bounded_to_its_newest_rows(store: ResultsRepository) -> None:
    for number in range(1, 6):
        store.store_minute(rows(number))
    series = store.portfolio_series(session(), minute(2), minute(5), 2)
    assert [item.minute for item in series] == [minute(3), minute(4)]


def test_the_dictionary_and_the_view_name_the_columns(
    store: ResultsRepository, database: Database
) -> None:
    store.store_minute(rows(1, wallet="9999"))
    with database.read() as db:
        named = db.execute(
            text("SELECT column_id, name FROM result_columns ORDER BY column_id")
        ).all()
        values: dict[str, float] = dict(
            db.execute(
                text(
                    "SELECT name, value FROM futures_portfolio_result_1min_columns "
                    "WHERE session_id = :session"
                ),
                {"session": SESSION_ID},
            ).all()
        )
    assert [tuple(row) for row in named] == [(number, name) for number, name, *_ in RESULT_COLUMNS]
    assert values["current_pv"] == 10_049.0
    assert values["marginSize"] == 1_550.0
    assert len(values) == len(RESULT_COLUMNS)


def test_E1_postgres_stops_for_three_minutes_and_nothing_is_lost(tmp_path: Path) -> None:
    """A whole finwatcher over a real server that is stopped and started again."""
    import shutil
    import tempfile

    from module.db.migrate import migrate
    from monitoring.finwatcher import Finwatcher, FinwatcherWiring
    from tests.fakes.watched_account import KeptAlerts, MemorySessions

    folder = Path(tempfile.mkdtemp(prefix="aifap-pg-"))
    settings = Settings(data_dir=folder)
    server = EmbeddedPostgres(settings)
    database = Database(settings, "finwatcher", 1)
    store = ResultsRepository(database)
    clock = WatchClock(START)
    alerts = KeptAlerts()
    exchange = AccountExchange(clock, positions=(position(),))
    wiring = FinwatcherWiring(
        SESSION_ID, clock, exchange, MemorySessions(session()), store, alerts, tmp_path
    )
    try:
        server.start(ends_with_parent=True)
        migrate(settings, "finwatcher")
        watcher = Finwatcher(wiring)
        for number in range(8):
            if number == 2:
                server.stop()
            if number == 5:
                server.start(ends_with_parent=True)
            clock.time = minute(number)
            exchange.wallet += 1
            watcher.step()
        series = store.portfolio_series(session(), minute(0), minute(99), 100)
        assert [item.minute for item in series] == [minute(number) for number in range(8)]
        assert [item.row.measured_at for item in series] == [item.minute for item in series]
        assert [int(item.row.current_pv) for item in series] == list(range(10_051, 10_059))
        assert store.gaps(session(), minute(0), minute(99), 100) == []
        indicators = store.indicator_series(session(), minute(0), minute(99), 100)
        assert [item.row.returns_1min for item in indicators] == list(range(1, 9))
        assert len(alerts.of_kind("metrics-spooled")) == 1
    finally:
        database.close()
        server.stop()
        shutil.rmtree(folder)
