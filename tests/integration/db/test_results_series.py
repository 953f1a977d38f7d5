"""Series, latest values, history and gaps as readers get them, against the rows one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text

from module.db.repositories.results_series import (
    PositionCursor,
    PositionQuery,
    Resolution,
    SeriesCursor,
    SeriesQuery,
    SeriesRow,
    Subject,
    TransactionCursor,
    TransactionQuery,
    series_columns,
)
from module.model.errors import InvalidInput
from module.model.market import MarketType
from module.model.results import (
    ClosedPositionRow,
    GapCause,
    HistoryRows,
    TransactionRow,
)
from module.settings import Settings
from tests.fakes.result_rows import ACCOUNT_ID, OWNER_ID, minute_rows, watched
from tests.integration.db.results_rig import MINUTE, ResultsRig, at, results_rig

NAME, OTHER = "2602270000-one1", "2602270000-two2"
BEGIN = at("2026-02-27 22:00")
EPOCH = at("1970-01-01 00:00")
ZERO = Decimal(0)


@pytest.fixture(scope="module")
def rig(postgres: Settings) -> Iterator[ResultsRig]:
    """Two sessions over a month's end, with holes in each hour and a whole day off."""
    with results_rig(postgres) as made:
        made.upkeep(BEGIN)
        minutes = [
            BEGIN + number * MINUTE
            for number in range(0, 5 * 24 * 60, 3)
            if number % 11 < 7 and not 2000 < number < 3800
        ]
        made.measure(NAME, minutes)
        made.measure(OTHER, [BEGIN + 5 * MINUTE], 77)
        made.miss(NAME, BEGIN + MINUTE, BEGIN + 2 * MINUTE)
        yield made


def whole(rig: ResultsRig) -> list[SeriesRow]:
    query = SeriesQuery(Subject.PORTFOLIO, ("current_pv",), EPOCH, at("2100-01-01"), rows_max=9000)
    return rig.series.series(watched(NAME), query).rows


def last_of_buckets(
    rows: list[SeriesRow], start: datetime, end: datetime, length: timedelta
) -> list[SeriesRow]:
    """What the bucket rule says, from the rows themselves."""
    kept: dict[int, SeriesRow] = {}
    for row in rows:
        if start <= row[0] < end:
            kept[-((EPOCH - row[0]) // length)] = row  # the bucket's end, whole lengths up
    return list(kept.values())


def pages(
    rig: ResultsRig, query: SeriesQuery, market: MarketType = MarketType.FUTURES
) -> list[SeriesRow]:
    found: list[SeriesRow] = []
    after: SeriesCursor | None = None
    for _ in range(200):
        page = rig.series.series(watched(NAME, market), replace(query, after=after))
        assert len(page.rows) <= query.rows_max
        found.extend(page.rows)
        after = page.next_after
        if after is None:
            return found
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("resolution", list(Resolution))
def test_a_series_has_the_last_row_of_each_bucket_page_by_page(
    rig: ResultsRig, resolution: Resolution, newest_first: bool
) -> None:
    start, end = BEGIN + timedelta(minutes=61), BEGIN + timedelta(days=4, hours=7, minutes=2)
    wanted = last_of_buckets(whole(rig), start, end, resolution.length)
    if newest_first:
        wanted.reverse()
    rows_max = {Resolution.MINUTE: 300, Resolution.DAY: 2}.get(resolution, 37)
    query = SeriesQuery(
        Subject.PORTFOLIO,
        ("current_pv",),
        start,
        end,
        resolution,
        rows_max,
        newest_first=newest_first,
    )
    assert pages(rig, query) == wanted


def test_days_are_the_same_before_and_after_they_are_rolled_up(rig: ResultsRig) -> None:
    columns = ("current_pv", "minutes", "gaps", "low_pv", "high_pv", "flags")
    query = SeriesQuery(
        Subject.PORTFOLIO, columns, EPOCH, at("2100-01-01"), Resolution.DAY, rows_max=50
    )
    before = rig.series.series(watched(NAME), query).rows
    first_day = [row for row in whole(rig) if row[0] <= at("2026-02-28 00:00")]
    assert before[0][:4] == (*first_day[-1], len(first_day), 2)
    indicators = SeriesQuery(
        Subject.INDICATORS, ("returns_1min",), EPOCH, at("2100-01-01"), Resolution.DAY
    )
    numbers = rig.series.series(watched(NAME), indicators).rows
    assert rig.upkeep(BEGIN + timedelta(days=30)).days_rolled > 0
    assert rig.series.series(watched(NAME), query).rows == before
    assert rig.series.series(watched(NAME), indicators).rows == numbers
    late = before[0][0] - MINUTE
    rig.measure(NAME, [late], 123)  # seen at once, before the next upkeep
    assert rig.series.series(watched(NAME), query).rows[0][2:5] == (len(first_day) + 1, 2, 123)


def test_symbols_are_the_book_at_the_buckets_last_minute(rig: ResultsRig) -> None:
    spot, minutes = MarketType.SPOT, [BEGIN, BEGIN + 2 * MINUTE, BEGIN + 7 * MINUTE]
    held = (("ADAUSDT", "BTCUSDT"), ("BTCUSDT",), ("BTCUSDT", "ETHUSDT", "XRPUSDT"))
    for minute, symbols in zip(minutes, held, strict=True):
        rig.store.store_minute(minute_rows(NAME, minute, market=spot, symbols=symbols))
    query = SeriesQuery(
        Subject.SYMBOLS,
        ("position_value",),
        EPOCH,
        at("2100-01-01"),
        Resolution.FIVE_MINUTES,
        rows_max=2,
    )
    value = Decimal("1550.25")
    assert pages(rig, query, spot) == [
        (minutes[0], "ADAUSDT", value),  # 22:00 ends the bucket before
        (minutes[0], "BTCUSDT", value),
        (minutes[1], "BTCUSDT", value),
        *((minutes[2], symbol, value) for symbol in held[2]),
    ]
    newest = SeriesQuery(
        Subject.SYMBOLS, (), EPOCH, at("2100-01-01"), rows_max=4, newest_first=True
    )
    assert [row[1] for row in pages(rig, newest, spot)] == [
        *("XRPUSDT", "ETHUSDT", "BTCUSDT", "BTCUSDT", "BTCUSDT", "ADAUSDT")
    ]
    one = SeriesQuery(Subject.SYMBOLS, (), EPOCH, at("2100-01-01"), symbol="ETHUSDT")
    assert pages(rig, one, spot) == [(minutes[2], "ETHUSDT")]


def test_a_series_reads_only_the_months_it_is_about(rig: ResultsRig) -> None:
    with rig.database.read() as db:
        plan = "\n".join(
            db.scalars(
                text(
                    "EXPLAIN SELECT minute, current_pv FROM futures_portfolio_result_1min "
                    "WHERE session_id = :name AND minute >= :start AND minute < :end "
                    "ORDER BY minute LIMIT 100"
                ),
                {"name": NAME, "start": at("2026-03-05 00:00"), "end": at("2026-03-06 00:00")},
            )
        )
    assert "_y2026m03" in plan
    assert "_y2026m02" not in plan
    assert "_default" not in plan


def test_what_cannot_be_asked_for_is_named(rig: ResultsRig) -> None:
    later = at("2100-01-01")
    for query, words in (
        (SeriesQuery(Subject.PORTFOLIO, ("owner_id",), EPOCH, later), "no column 'owner_id'"),
        (SeriesQuery(Subject.PORTFOLIO, ("low_pv",), EPOCH, later), "no column 'low_pv' at 1m"),
        (SeriesQuery(Subject.PORTFOLIO, (), later, EPOCH), "from a time to a later one"),
        (SeriesQuery(Subject.PORTFOLIO, (), EPOCH, later, rows_max=0), "1 to 100000 rows"),
        (SeriesQuery(Subject.INDICATORS, (), EPOCH, later, symbol="X"), "has no symbol"),
    ):
        with pytest.raises(InvalidInput, match=words):
            rig.series.series(watched(NAME), query)
    assert "session_id" not in series_columns(Subject.SYMBOLS)


def test_the_newest_minutes_of_many_sessions_come_at_once(rig: ResultsRig) -> None:
    sessions = [watched(NAME), watched(OTHER), watched("2602270000-none")]
    found = rig.series.latest_of(sessions)
    assert set(found) == {NAME, OTHER}
    assert found[OTHER].minute == BEGIN + 5 * MINUTE
    assert found[OTHER].portfolio.current_pv == 77
    indicators = found[NAME].indicators
    assert indicators is not None
    minute = found[NAME].minute
    assert indicators.returns_1min == minute.hour * 60 + minute.minute
    span = rig.series.span(watched(NAME))
    assert span is not None
    assert (span.first_minute, span.last_minute) == (whole(rig)[0][0], minute)
    assert rig.series.span(sessions[2]) is None


def fill(
    number: int, at_minute: int, kind: str = "trade", symbol: str = "BTCUSDT"
) -> TransactionRow:
    return TransactionRow(
        source="bill" if kind != "trade" else "fill",
        exchange_id=f"id-{number}",
        kind=kind,
        venue_kind=kind,
        order_id=None,
        symbol=symbol,
        side="buy",
        price=Decimal("50000.5"),
        size=Decimal("0.01"),
        quote_size=Decimal("500.005"),
        asset="USDT",
        amount=Decimal("1.25"),
        fee=Decimal("-0.3"),
        fee_asset="USDT",
        balance=None,
        is_taker=True,
        at=BEGIN + at_minute * MINUTE,
    )


def closed(number: int, symbol: str) -> ClosedPositionRow:
    return ClosedPositionRow(
        exchange_id=f"position-{number}",
        symbol=symbol,
        side="long",
        entry_price=Decimal(50_000),
        close_price=Decimal(50_100),
        size=Decimal("0.01"),
        gross_pnl=Decimal(1),
        funding=ZERO,
        open_fee=Decimal("-0.3"),
        close_fee=Decimal("-0.3"),
        net_profit=Decimal("0.4"),
        opened_at=BEGIN,
        closed_at=BEGIN + (number // 2) * MINUTE,
    )


def test_history_is_filtered_and_paged(rig: ResultsRig) -> None:
    rows = HistoryRows(
        NAME,
        OWNER_ID,
        ACCOUNT_ID,
        MarketType.FUTURES,
        (
            *(fill(number, number // 3) for number in range(10)),
            fill(20, 2, "funding"),
            fill(21, 3, "transfer", ""),
            fill(22, 3, "trade", "ETHUSDT"),
        ),
        tuple(closed(number, "BTCUSDT" if number % 2 else "ETHUSDT") for number in range(7)),
    )
    bad = HistoryRows(OTHER, OWNER_ID, ACCOUNT_ID, MarketType.FUTURES, (fill(1, 1),))
    refused = HistoryRows(
        "2602270000-bad1",
        OWNER_ID,
        ACCOUNT_ID,
        MarketType.FUTURES,
        (fill(1, 1, symbol="S" * 40),),
    )
    stored = rig.store.store_histories([rows, refused, bad, rows])
    assert [item.new for item in stored] == [20, 0, 1, 0]
    assert [item.refused is None for item in stored] == [True, False, True, True]
    assert "too long" in str(stored[1].refused)

    session = watched(NAME)
    read = rig.series.transactions(session, TransactionQuery(source="fill", symbol="BTCUSDT"))
    assert read == sorted(rows.transactions[:10], key=lambda r: (r.at, r.exchange_id), reverse=True)
    bills = rig.series.transactions(session, TransactionQuery(kinds=("funding", "transfer")))
    assert [row.exchange_id for row in bills] == ["id-21", "id-20"]
    early = TransactionQuery(start=BEGIN, end=BEGIN + MINUTE)
    assert len(rig.series.transactions(session, early)) == 3
    seen: list[str] = []
    after: TransactionCursor | None = None
    while page := rig.series.transactions(session, TransactionQuery(rows_max=4, after=after)):
        seen.extend(row.exchange_id for row in page)
        after = TransactionCursor(page[-1].at, page[-1].source, page[-1].exchange_id)
    assert len(seen) == len(set(seen)) == 13

    positions: list[str] = []
    cursor: PositionCursor | None = None
    while found := rig.series.closed_positions(session, PositionQuery(rows_max=3, after=cursor)):
        positions.extend(row.exchange_id for row in found)
        cursor = PositionCursor(found[-1].closed_at, found[-1].exchange_id)
    assert positions == [f"position-{number}" for number in (6, 5, 4, 3, 2, 1, 0)]
    ethereum = rig.series.closed_positions(session, PositionQuery(symbol="ETHUSDT"))
    assert [row.exchange_id[-1] for row in ethereum] == ["6", "4", "2", "0"]


def test_gaps_are_counted_by_cause(rig: ResultsRig) -> None:
    counted = rig.series.gap_counts(watched(NAME), BEGIN, BEGIN + 2 * MINUTE)
    assert counted == {GapCause.NOT_RUNNING: 1}
    assert rig.series.gap_counts(watched(OTHER), EPOCH, at("2100-01-01")) == {}
