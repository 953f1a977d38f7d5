"""Many sessions' minutes in one go; what each one's outcome is, the store's own tests say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import pytest

from module.model.market import MarketType
from module.model.results import MinuteRows
from module.settings import Settings
from tests.fakes.result_rows import minute_rows, watched, without_portfolio
from tests.integration.db.results_rig import MINUTE, ResultsRig, at, results_rig

MOMENT = at("2026-11-21 07:15")
STATE = {"version": 1, "said": 'a "quoted"\\ tab\t, line\n'}


@pytest.fixture
def rig(postgres: Settings) -> Iterator[ResultsRig]:
    with results_rig(postgres) as made:
        yield made


def batch_of(count: int, **changes: object) -> list[MinuteRows]:
    return [
        replace(minute_rows(f"2611210000-{number:04d}", MOMENT, 9000 + number), **changes)  # type: ignore[arg-type]
        for number in range(count)
    ]


def test_a_batch_is_one_transaction_and_all_of_it_is_there(rig: ResultsRig) -> None:
    batch = batch_of(30)
    stored = rig.store.store_minutes([(rows, STATE) for rows in batch])
    assert {(item.written, tuple(item.failed)) for item in stored} == {(True, ())}
    transactions = "SELECT count(DISTINCT CAST(xmin AS text)) FROM futures_portfolio_result_1min"
    assert rig.value(transactions) == 1
    latest = rig.store.latest(watched(batch[17].session_id))
    assert latest is not None
    assert (latest[0].row, latest[1], latest[2]) == (
        batch[17].portfolio,
        batch[17].symbols,
        batch[17].indicators,
    )
    assert rig.store.indicator_state(watched(batch[17].session_id)) == STATE
    assert rig.value("SELECT count(*) FROM result_days_due") == 30


def test_who_is_refused_is_named_and_stops_nobody(rig: ResultsRig) -> None:
    batch = batch_of(9)
    assert batch[4].symbols is not None
    huge = replace(batch[4].symbols[0], position_value=Decimal("1e30"))
    batch[4] = replace(batch[4], symbols=(huge,))
    assert rig.store.store_minute(batch[7]).written
    batch[7] = replace(batch[7], writer="writer-2")
    stored = rig.store.store_minutes([(rows, STATE) for rows in batch])
    assert [item.written for item in stored] == [number != 7 for number in range(9)]
    assert [sorted(item.failed) for item in stored] == [
        ["symbols"] if number == 4 else [] for number in range(9)
    ]
    assert "numeric field overflow" in stored[4].failed["symbols"]
    assert rig.value("SELECT count(*) FROM futures_portfolio_result_1min") == 9
    assert rig.value("SELECT count(*) FROM futures_result_1min") == 8
    assert rig.value("SELECT count(*) FROM finwatcher_state") == 7


def test_a_drained_spool_may_hold_many_minutes_of_one_session(rig: ResultsRig) -> None:
    """Also one minute twice, both markets, and a minute whose portfolio part had failed."""
    name = "2611210000-0000"
    minutes = [minute_rows(name, MOMENT + number * MINUTE, 9000 + number) for number in range(5)]
    spot = minute_rows("2611210000-spot", MOMENT, market=MarketType.SPOT)
    again = minute_rows(name, MOMENT, 8000, symbols=())
    half = without_portfolio(minute_rows("2611210000-half", MOMENT))
    batch = [*reversed(minutes), spot, again, half]
    stored = rig.store.store_minutes([(rows, {"at": rows.minute.minute}) for rows in batch])
    assert {(item.written, tuple(item.failed)) for item in stored} == {(True, ())}
    series = rig.store.portfolio_series(watched(name), MOMENT, MOMENT + 9 * MINUTE, 99)
    assert [int(item.row.current_pv) for item in series] == [8000, 9001, 9002, 9003, 9004]
    assert len(rig.store.symbol_series(watched(name), MOMENT, MOMENT + 9 * MINUTE, 99)) == 4
    assert rig.store.indicator_state(watched(name)) == {"at": MOMENT.minute + 4}
    assert rig.store.latest(watched("2611210000-spot", MarketType.SPOT)) is not None
    assert rig.store.latest(watched("2611210000-half")) is None
    assert rig.value("SELECT count(*) FROM futures_result_1min WHERE session_id LIKE '%half'") == 1
    assert rig.store.store_minutes([]) == []
