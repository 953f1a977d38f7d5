"""Rows kept in the session's folder come back whole, in order, and never more than once."""

from __future__ import annotations

import resource
from datetime import timedelta
from pathlib import Path

import pytest

from module.model.errors import Unavailable
from module.model.results import GapCause, GapRow, HistoryRows, MinuteRows, TradeSums
from monitoring.indicators import IndicatorState
from monitoring.ledger import HistoryLedger
from monitoring.metrics import Totals, measure_portfolio, measure_symbols
from monitoring.spool import Spool, SpoolRecord
from tests.fakes.watched_account import (
    SESSION_ID,
    START,
    AccountExchange,
    WatchClock,
    closed,
    fill,
    minute,
    position,
    session,
)


def rows(number: int) -> MinuteRows:
    exchange = AccountExchange(WatchClock(minute(number) + timedelta(microseconds=1234)))
    exchange.positions = (position(),)
    snapshot = exchange.snapshot()
    portfolio = measure_portfolio(snapshot, session(), Totals({}))
    state = IndicatorState.begin(minute(number), portfolio.available or portfolio.current_pv)
    return MinuteRows(
        session_id=SESSION_ID,
        owner_id="owner",
        account_id="account",
        market=session().market,
        minute=minute(number),
        writer="writer-1",
        symbols=measure_symbols(snapshot, session(), Totals({})),
        portfolio=portfolio,
        indicators=state.advance(
            minute(number), portfolio.current_pv, portfolio.net_transfers
        ).read(TradeSums(trades=1, trades_won=1)),
    )


def gap(number: int) -> GapRow:
    return GapRow(SESSION_ID, "owner", minute(number), GapCause.EXCHANGE_UNREACHABLE, "503", START)


def history() -> HistoryRows:
    ledger = HistoryLedger(START)
    return HistoryRows(
        SESSION_ID,
        "owner",
        "account",
        session().market,
        ledger.book_fills([fill(1, minute(1), pnl="1.25")]),
        ledger.book_positions([closed(1, minute(2), "3.5")]),
    )


def test_every_kind_of_record_comes_back_as_it_was(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    written: list[SpoolRecord] = [rows(1), gap(2), history(), rows(3)]
    assert not spool
    for record in written:
        assert spool.append(record)
    read: list[SpoolRecord] = []
    assert spool
    assert Spool(tmp_path).drain(read.append) == 4
    assert read == written
    assert not spool


def test_what_could_not_be_stored_stays_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(4):
        spool.append(gap(number))
    stored: list[SpoolRecord] = []

    def store(record: SpoolRecord) -> None:
        if len(stored) == 2:
            raise Unavailable("away again")
        stored.append(record)

    with pytest.raises(Unavailable):
        spool.drain(store)
    rest: list[SpoolRecord] = []
    spool.drain(rest.append)
    assert stored + rest == [gap(number) for number in range(4)]


def test_a_line_torn_by_a_kill_is_put_aside_and_the_others_are_read(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(gap(1))
    path = tmp_path / "finwatcher.spool"
    path.write_bytes(path.read_bytes() + b'{"kind": "gap", "rec')
    spool.append(gap(2))
    read: list[SpoolRecord] = []
    assert spool.drain(read.append) == 2
    assert read == [gap(1), gap(2)]
    assert b'"rec' in (tmp_path / "finwatcher.unreadable").read_bytes()


def test_E12_over_its_bound_the_spool_keeps_portfolio_rows_and_gaps_only(tmp_path: Path) -> None:
    spool = Spool(tmp_path, detail_bytes_max=2_000)
    kept = [spool.append(rows(number)) for number in range(40)]
    assert kept[0]
    assert not kept[-1]
    read: list[SpoolRecord] = []
    spool.drain(read.append)
    minutes = [record for record in read if isinstance(record, MinuteRows)]
    assert minutes[0].symbols is not None
    assert minutes[-1].symbols is None
    assert all(record.portfolio is not None for record in minutes)


def test_D21_a_full_disk_leaves_whole_lines_only(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert spool.append(gap(1))
    path = tmp_path / "finwatcher.spool"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 17, hard))
    try:
        assert not spool.append(rows(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert spool.append(gap(3))
    read: list[SpoolRecord] = []
    assert spool.drain(read.append) == 2
    assert read == [gap(1), gap(3)]
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    Spool(tmp_path / "session").append(gap(1))
    assert (tmp_path / "session" / "finwatcher.spool").stat().st_mode & 0o777 == 0o600
