"""The numbers of a tear sheet are the finwatcher's, of the same year; what lacks is said."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from module.model.results import IndicatorRow, TradeSums
from monitoring.indicators import IndicatorState
from monitoring.tearsheets.document import POINTS_MAX, CurveDocument
from monitoring.tearsheets.figures.figure import Figures
from monitoring.tearsheets.figures.measure import measure
from monitoring.tearsheets.frames import Frames, build_frames
from monitoring.tearsheets.returns import DAY, HOUR, MINUTE, Basis, choose_basis, growth, returns_of
from monitoring.tearsheets.worker import draw
from tests.fakes.curves import START, backtest_document, short_document

pytestmark = pytest.mark.filterwarnings("ignore:Module")


def read(document: dict[str, object]) -> CurveDocument:
    return CurveDocument.model_validate(document)


def sheet_of(document: dict[str, object]) -> tuple[Frames, Figures]:
    frames = build_frames(read(document))
    return frames, measure(frames)


def value(figures: Figures, key: str) -> float:
    found = figures.find(key).value
    assert found is not None, figures.find(key).reason
    return found


def indicators_of(document: CurveDocument) -> IndicatorRow:
    """The finwatcher's own indicators over the same points."""
    assert document.initial_balance is not None
    state = IndicatorState.begin(START, document.initial_balance)
    curve = document.curve
    moved = curve.net_transfers or [Decimal(0)] * len(curve.at)
    for at, pv, transfers in zip(curve.at, curve.pv, moved, strict=True):
        state = state.advance(at, pv, transfers)
    return state.read(TradeSums(), document.days_per_year)


@pytest.fixture(scope="module")
def ninety_days() -> tuple[Frames, Figures]:
    return sheet_of(backtest_document(symbols=3))


@pytest.mark.parametrize("days_per_year", [365, 251])
def test_ratios_of_days_equal_the_finwatchers(
    ninety_days: tuple[Frames, Figures], days_per_year: int
) -> None:
    frames, figures = ninety_days
    if days_per_year != frames.document.days_per_year:
        update = {"days_per_year": days_per_year}
        frames = build_frames(frames.document.model_copy(update=update))
        figures = measure(frames)
    assert frames.basis == Basis(DAY, days_per_year)
    row = indicators_of(frames.document)
    assert value(figures, "total_return") == pytest.approx(row.cumulative_return, abs=1e-9)
    assert value(figures, "max_drawdown") == pytest.approx(row.max_drawdown, abs=1e-9)
    assert value(figures, "sharpe") == pytest.approx(row.sharpe_1day, abs=1e-9)
    assert value(figures, "sortino") == pytest.approx(row.sortino_1day, abs=1e-9)
    assert value(figures, "volatility") == pytest.approx(row.volatility_1day, abs=1e-9)
    assert value(figures, "calmar") == pytest.approx(row.calmar_1day, abs=1e-9)


def test_a_year_has_365_days_in_every_number(ninety_days: tuple[Frames, Figures]) -> None:
    import empyrical

    frames, figures = ninety_days
    returns = frames.returns
    for key, function in (
        ("sharpe", empyrical.sharpe_ratio),
        ("sortino", empyrical.sortino_ratio),
        ("volatility", empyrical.annual_volatility),
        ("annual_return", empyrical.annual_return),
        ("calmar", empyrical.calmar_ratio),
    ):
        assert value(figures, key) == pytest.approx(function(returns, annualization=365))
        assert value(figures, key) != pytest.approx(function(returns), rel=1e-3), "252 leaked"


def test_a_deposit_is_no_profit() -> None:
    document = short_document(["10000", "12100", "12100"])
    curve: Any = document["curve"]
    curve["net_transfers"] = ["0", "2000", "2000"]
    frames, figures = sheet_of(document)
    assert value(figures, "total_return") == pytest.approx(0.01)
    assert value(figures, "net_profit") == pytest.approx(100)
    assert value(figures, "net_transfers") == pytest.approx(2000)
    assert frames.undefined == 0


def test_a_measured_return_goes_before_a_computed_one() -> None:
    document = short_document(["10000", "10500", "10600", "10706"])
    curve: Any = document["curve"]
    curve["cumulative_return"] = [0.0, 0.02, None, None]
    index = growth(read(document)).index
    assert index == pytest.approx((1.0, 1.02, 1.02 * 1.06 / 1.05, 1.02 * 1.0706 / 1.05))


def test_midnight_belongs_to_the_day_before_and_gaps_are_bridged() -> None:
    at = [
        datetime(2026, 6, 1, 23, 59, tzinfo=UTC),
        datetime(2026, 6, 2, 0, 0, tzinfo=UTC),
        datetime(2026, 6, 4, 12, 0, tzinfo=UTC),
    ]
    document = CurveDocument.model_validate(
        {"title": "Gap", "curve": {"at": [one.isoformat() for one in at], "pv": [100, 110, 99]}}
    )
    found = returns_of(growth(document), Basis(DAY))
    assert found.ends == (datetime(2026, 6, 2, tzinfo=UTC), datetime(2026, 6, 5, tzinfo=UTC))
    assert found.values == pytest.approx((0.1, -0.1))


@pytest.mark.parametrize(
    ("points", "step", "length"),
    [
        (90, DAY, DAY),
        (24 * 12, HOUR, DAY),
        (24 * 5, HOUR, HOUR),
        (180, MINUTE, MINUTE),
        (60, 5 * MINUTE, 5 * MINUTE),
        (1, MINUTE, MINUTE),
        (2, MINUTE, MINUTE),
    ],
)
def test_the_basis_follows_the_length_of_the_history(
    points: int, step: timedelta, length: timedelta
) -> None:
    document = read(short_document([str(100 + place % 3) for place in range(points)], step))
    assert choose_basis(growth(document)) == Basis(length)


def test_three_hours_are_told_in_minutes_and_not_as_a_year() -> None:
    frames, figures = sheet_of(
        backtest_document(points=180, step=MINUTE, every=5, lookback=20, symbols=2)
    )
    row = indicators_of(frames.document)
    assert frames.basis.per_year == 525_600
    assert value(figures, "sharpe") == pytest.approx(row.sharpe_1min, abs=1e-9)
    for key in ("annual_return", "calmar"):
        assert "too short" in figures.find(key).reason
        assert figures.find(key).text == ""
    assert "±" in figures.find("sharpe").text


def test_one_point_tells_only_what_it_can() -> None:
    _, figures = sheet_of(short_document(["10000"]))
    assert figures.find("total_return").reason == "there is one point only; a return needs two"
    assert figures.find("value_now").text == "10,000.00 USDT"
    for _, items in figures.groups:
        for item in items:
            assert bool(item.text) != bool(item.reason), item.key
            assert "nan" not in item.text + item.reason
    won = figures.find("won_periods")
    assert (won.unit, won.reason) == (
        "fraction",
        "two returns of one minute are needed; there are 0",
    )
    assert (figures.drawdowns, figures.best, figures.worst) == ((), (), ())


def test_a_flat_curve_has_no_risk_and_no_ratio() -> None:
    _, figures = sheet_of(short_document(["10000"] * 40))
    assert figures.find("sharpe").reason == "the portfolio's value never varied"
    assert figures.find("total_return").text == "0.00 %"
    assert figures.find("max_drawdown").value == 0
    assert figures.drawdowns == ()


def test_a_value_of_zero_ends_no_sheet() -> None:
    frames, figures = sheet_of(short_document(["100", "0", "-5", "50", "60"]))
    assert frames.undefined == 2
    assert value(figures, "max_drawdown") == pytest.approx(-1.0)


def test_worst_drawdowns_are_calendar_time() -> None:
    pvs = ["100", "120", "90", "100", "121", "110", "115"]
    frames, figures = sheet_of(short_document(pvs, DAY))
    first, second = figures.drawdowns
    assert first.depth == pytest.approx(-0.25)
    assert (first.peak, first.recovered) == (START + DAY, START + 4 * DAY)
    assert first.length == 3 * DAY
    assert second.recovered is None
    assert second.length == frames.index.index[-1] - second.peak


def test_turnover_and_exposures_are_what_the_fills_and_positions_say(
    ninety_days: tuple[Frames, Figures],
) -> None:
    frames, figures = ninety_days
    done = frames.document.transactions
    assert done is not None
    traded = sum(size * price for size, price in zip(done.size, done.price, strict=True))
    assert value(figures, "traded_notional") == pytest.approx(float(traded))
    mean = float(sum(frames.document.curve.pv)) / len(frames.document.curve.pv)
    assert value(figures, "turnover") == pytest.approx(float(traded) / mean)
    assert frames.turnover is not None
    assert len(frames.turnover) == 90
    assert value(figures, "slippage_bps") == pytest.approx(2.5, rel=0.01)
    without = read({**backtest_document(points=400, symbols=2), "title": "Positions only"})
    curve = without.curve.model_copy(update={"gross_position_value": None, "position_value": None})
    told, derived = build_frames(without), build_frames(without.model_copy(update={"curve": curve}))
    assert told.gross is not None
    assert derived.gross is not None
    assert derived.gross.to_numpy() == pytest.approx(told.gross.to_numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"pv": ["1"]}, "equally long"),
        ({"at": []}, "at"),
        ({"pv": ["NaN", "1"]}, "pv"),
        ({"pv": ["1e40", "1"]}, "pv"),
        ({"at": ["2026-06-01T00:00:00", "2026-06-01T00:01:00Z"]}, "offset"),
        ({"at": ["2026-06-01T00:01:00Z", "2026-06-01T00:01:00Z"]}, "rise"),
        ({"secret": ["1", "1"]}, "secret"),
        ({"at": ["1500-06-01T00:00:00Z", "2026-06-01T00:01:00Z"]}, "years 1900 to 2200"),
        ({"at": ["2026-06-01T00:00:00Z", "9999-12-31T23:59:59Z"]}, "years 1900 to 2200"),
        ({"at": ["2026-06-01T00:00:00Z"] * (POINTS_MAX + 1)}, "at"),
    ],
)
def test_a_curve_that_is_none_is_refused(change: dict[str, object], where: str) -> None:
    document = short_document(["1", "2"])
    curve: Any = document["curve"]
    with pytest.raises(ValidationError, match=where):
        read({**document, "curve": {**curve, **change}})


def test_symbols_and_titles_are_plain() -> None:
    document = short_document(["1", "2"])
    at = document["curve"]["at"]  # type: ignore[index]
    for symbol in ("<b>", "$x$", "a b", "", "A" * 33):
        with pytest.raises(ValidationError):
            read({**document, "positions": {"at": at, "value": {symbol: ["1", "2"]}}})
    with pytest.raises(ValidationError):
        read({**document, "title": "a\nb"})


def test_a_sheet_is_one_page_that_needs_nothing_and_escapes_what_it_was_given() -> None:
    title = "<script>alert(1)</script> $\\frac{1}{2}$"
    raw = json.dumps({**short_document(["100", "101", "99", "103"]), "title": title})
    head, _, rest = draw(raw.encode()).partition(b"\n")
    lengths = json.loads(head)
    page = rest[: lengths["html"]].decode()
    picture = rest[lengths["html"] :][: lengths["png"]]
    numbers = json.loads(rest[lengths["html"] + lengths["png"] :])
    assert picture.startswith(b"\x89PNG")
    assert numbers["title"] == title
    assert numbers["figures"]["total_return"]["value"] == pytest.approx(0.03)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http:" not in page
    assert "https:" not in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert page.count("Not drawn: ") >= 4
    for earlier, later in pairwise(["Total return", "Worst drawdowns", "Return for risk", "Fees"]):
        assert page.index(earlier) < page.index(later)


def test_what_is_no_document_is_refused_by_name() -> None:
    told = json.loads(draw(b'{"title": "x", "curve": {"at": [], "pv": []}}'))
    assert told["refused"].startswith("curve.at")


def test_a_long_line_is_drawn_by_the_extremes_of_its_stretches() -> None:
    import numpy as np
    import pandas as pd

    from monitoring.tearsheets.charts.axes import POINTS_DRAWN_MAX, thin

    values = np.sin(np.arange(2_161) / 7.0)
    values[5:40] = np.nan  # a hole of several stretches
    values[1_003], values[1_777] = 9.5, -9.5
    whole = pd.Series(values, index=pd.date_range(START, periods=len(values), freq="h"))
    drawn = thin(whole)
    assert len(drawn) <= POINTS_DRAWN_MAX + 2
    assert drawn.index.is_monotonic_increasing
    assert drawn.index.is_unique
    assert (drawn.index[0], drawn.index[-1]) == (whole.index[0], whole.index[-1])
    assert (drawn.max(), drawn.min()) == (9.5, -9.5)
    for places in np.array_split(np.arange(len(values)), POINTS_DRAWN_MAX // 2):
        part = whole.iloc[places].dropna()
        if len(part):
            assert part.idxmin() in drawn.index
            assert part.idxmax() in drawn.index
    assert thin(whole.iloc[:POINTS_DRAWN_MAX]).size == POINTS_DRAWN_MAX
