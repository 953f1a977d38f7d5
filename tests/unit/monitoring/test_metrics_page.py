"""docs/metrics.md names every stored column with its unit, and its worked numbers come out."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Boolean, DateTime, Double, Integer, Numeric, String, Table

from module.db.results_tables import indicator_table, portfolio_table, symbols_table
from module.model.market import MarketType
from module.model.results import (
    CurvePoint,
    IndicatorRow,
    PortfolioRow,
    SymbolRow,
    SymbolTotals,
    TradeSums,
)
from monitoring.indicators import replay
from monitoring.metrics import Totals, measure_portfolio, measure_symbols
from tests.fakes.watched_account import (
    START,
    AccountExchange,
    WatchClock,
    position,
    session,
)

PAGE = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"
HEADINGS = ("column", "formula", "unit", "source", "edge cases", "example")
KEYS = {"session_id", "owner_id", "account_id", "minute", "symbol", "writer"}
KINDS: dict[str, type | tuple[type, ...]] = {
    "USDT": Numeric,
    "coins": Numeric,
    "USDT a coin": Numeric,
    "times": (Numeric, Double),
    "fraction": Double,
    "ratio": Double,
    "1e-4": Double,
    "s": Double,
    "count": Integer,
    "time": DateTime,
    "yes or no": Boolean,
    "words": String,
}


def tables() -> dict[str, list[dict[str, str]]]:
    """The page's tables by their section's heading, each row by its column's heading."""
    found: dict[str, list[dict[str, str]]] = {}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.M)[1:]:
        lines = [line for line in section.splitlines() if line.startswith("|")]
        if lines:
            rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
            assert tuple(rows[0]) == HEADINGS
            found[section.splitlines()[0]] = [
                dict(zip(HEADINGS, row, strict=True)) for row in rows[2:]
            ]
    return found


def example_moment() -> tuple[PortfolioRow, tuple[SymbolRow, ...]]:
    """The page's moment: two positions, one without its stop."""
    short = replace(
        position("ETHUSDT", "-1.5", "2000", "1500", "-20", stop_loss=None),
        entry_price=Decimal("1986.666"),
    )
    exchange = AccountExchange(WatchClock(START), Decimal(10_870), (position(), short))
    totals = Totals(
        {"BTCUSDT": SymbolTotals(Decimal("7.5"), Decimal("-1.5"), Decimal("-0.25"))},
        Decimal(500),
    )
    watched = session(targets=(("BTCUSDT", Decimal("0.3")),))
    snapshot = exchange.snapshot()
    row = measure_portfolio(snapshot, watched, totals, unprotected_s=61.25)
    return row, measure_symbols(snapshot, watched, totals)


def example_curve() -> IndicatorRow:
    """The page's curve: four minutes about a midnight, and a deposit in the third."""
    first = datetime(2026, 3, 3, 23, 59, tzinfo=UTC)
    values = (("10100", "0"), ("9999", "0"), ("10698.98", "500"), ("10645.4851", "500"))
    points = [
        CurvePoint(
            first + number * timedelta(minutes=1), Decimal(pv), Decimal(moved), Decimal(10_000)
        )
        for number, (pv, moved) in enumerate(values)
    ]
    state = replay(None, points)
    assert state is not None
    return state.read(
        TradeSums(
            trades=5,
            trades_won=3,
            won=Decimal(120),
            lost=Decimal(-80),
            traded_notional=Decimal(30_000),
            slippage_cost=Decimal(6),
            slippage_notional=Decimal(24_000),
        )
    )


CASES = {
    "The portfolio": (portfolio_table(MarketType.FUTURES), portfolio_table(MarketType.SPOT)),
    "Symbols": (symbols_table(MarketType.FUTURES), symbols_table(MarketType.SPOT)),
    "Indicators": (indicator_table(MarketType.FUTURES), indicator_table(MarketType.SPOT)),
}


@pytest.mark.parametrize("heading", CASES)
def test_every_stored_column_is_on_the_page_with_its_unit_and_no_other(heading: str) -> None:
    rows = {row["column"].strip("`"): row for row in tables()[heading]}
    for table in CASES[heading]:
        columns = {column.name: column for column in table.columns if column.name not in KEYS}
        assert set(rows) == set(columns)
        for name, column in columns.items():
            assert isinstance(column.type, KINDS[rows[name]["unit"]]), name
            assert column.nullable == ("null" in rows[name]["edge cases"]), name
            assert rows[name]["formula"], name
            assert rows[name]["source"], name


def test_a_futures_table_and_its_spot_twin_have_the_same_columns() -> None:
    for futures, spot in CASES.values():
        assert _shape(futures) == _shape(spot)


def _shape(table: Table) -> list[tuple[str, str, bool]]:
    return [(column.name, str(column.type), bool(column.nullable)) for column in table.columns]


@pytest.mark.parametrize("heading", CASES)
def test_the_worked_numbers_come_out(heading: str) -> None:
    portfolio, symbols = example_moment()
    row = {
        "The portfolio": portfolio,
        "Symbols": next(item for item in symbols if item.symbol == "BTCUSDT"),
        "Indicators": example_curve(),
    }[heading]
    for told in tables()[heading]:
        name, text = told["column"].strip("`"), told["example"].replace(",", "")
        value = getattr(row, name)
        if isinstance(value, bool):
            assert text == ("yes" if value else "no"), name
        elif isinstance(value, datetime):
            assert datetime.fromisoformat(text) == value, name
        elif value is None or value == "":
            assert text == "—", name
        elif isinstance(value, str):
            assert text == value, name
        else:
            assert float(text.replace("−", "-")) == pytest.approx(float(value), rel=1e-6), name


def test_the_page_is_linked_from_the_readme_or_another_page() -> None:
    pages = [PAGE.parents[1] / "README.md", *PAGE.parent.glob("*.md")]
    assert any("metrics.md" in page.read_text() for page in pages if page != PAGE)
