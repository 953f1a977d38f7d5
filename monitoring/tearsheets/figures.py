"""The numbers of a tear sheet, each with its unit and what it means; imported by the worker.

empyrical and pyfolio compute them, always with the days a year that the document names (their own
default of 252 trading days would shrink the ratios of 365 by a sixth). What a short or quiet
history cannot tell is said with the reason instead of a number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

import empyrical
import numpy as np
import pandas as pd
from pyfolio.timeseries import get_top_drawdowns

from monitoring.tearsheets.frames import Frames

DAYS_TO_ANNUALISE = 30
RETURNS_FOR_TAILS = 20
RETURNS_FOR_STEADINESS = 10
WORST_DRAWDOWNS = 5
WORST_PERIODS = 5
UNSIGNED = frozenset({"volatility"})
NEVER_VARIED = "the portfolio's value never varied"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. `text` is it with its unit, or empty where `reason` says why there is none."""

    key: str
    title: str
    value: float | None
    unit: str
    text: str
    meaning: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Drawdown:
    """From a peak down to a valley and back; `recovered` is None while it lasts."""

    depth: float
    peak: datetime
    valley: datetime
    recovered: datetime | None
    length: timedelta


@dataclass(frozen=True, slots=True)
class Figures:
    """All of them, in the order of the page."""

    groups: tuple[tuple[str, tuple[Figure, ...]], ...]
    drawdowns: tuple[Drawdown, ...]
    best: tuple[tuple[datetime, float], ...]
    worst: tuple[tuple[datetime, float], ...]

    def find(self, key: str) -> Figure:
        """The figure of that key; KeyError without one."""
        for _, items in self.groups:
            for item in items:
                if item.key == key:
                    return item
        raise KeyError(key)


def measure(frames: Frames) -> Figures:
    """Every number of the sheet."""
    drawdowns = worst_drawdowns(frames)
    ordered = frames.returns.sort_values()
    few = min(WORST_PERIODS, len(ordered) // 2)
    return Figures(
        groups=(
            ("Result", _result(frames)),
            ("Risk", _risk(frames, drawdowns)),
            ("Return for risk", _ratios(frames)),
            ("Trading and costs", _trading(frames)),
        ),
        drawdowns=drawdowns,
        best=tuple(_dated(ordered[::-1], few, best=True)),
        worst=tuple(_dated(ordered, few, best=False)),
    )


def _dated(ordered: pd.Series[float], count: int, *, best: bool) -> list[tuple[datetime, float]]:
    moments = pd.DatetimeIndex(ordered.index).to_pydatetime()
    found = [(moment, float(value)) for moment, value in zip(moments, ordered, strict=True)]
    kept = [item for item in found if (item[1] > 0 if best else item[1] < 0)]
    return kept[:count]


# --- spelling -------------------------------------------------------------------------------------


def percent(value: float, digits: int = 2) -> str:
    """A fraction as percent: 0.0123 is `+1.23 %`."""
    shown = value * 100
    if 0 < abs(shown) < 0.01:
        digits = 4
    text = f"{shown:+,.{digits}f} %"
    return text.replace("-", "−") if float(f"{shown:.{digits}f}") else f"{0:.{digits}f} %"


def money(value: float, asset: str, *, signed: bool = True) -> str:
    """An amount with its asset."""
    sign = "+" if signed and value >= 0.005 else ""
    text = f"{sign}{value:,.2f} {asset}"
    return f"0.00 {asset}" if abs(value) < 0.005 else text.replace("-", "−")


def span(length: timedelta) -> str:
    """A length of time in its two largest units."""
    minutes = round(length.total_seconds() / 60)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h" if days < 30 else f"{days} days"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def _told(key: str, title: str, value: float | None, unit: str, text: str, meaning: str) -> Figure:
    return Figure(key, title, value, unit, text, meaning)


def _ratio(
    key: str, title: str, value: float | None, meaning: str, reason: str, unit: str = "ratio"
) -> Figure:
    """A number that may not exist."""
    if value is None or not math.isfinite(value):
        return Figure(key, title, None, unit, "", meaning, reason or "it cannot be computed")
    spelled = percent(value) if unit == "fraction" else f"{value:,.2f}".replace("-", "−")
    if key in UNSIGNED:
        spelled = spelled.removeprefix("+")
    return Figure(key, title, float(value), unit, spelled, meaning)


# --- result ---------------------------------------------------------------------------------------


def _result(frames: Frames) -> tuple[Figure, ...]:
    document, asset = frames.document, frames.document.quote_asset
    begins = document.initial_balance
    first = float(begins) if begins is not None else float(frames.pv.iloc[0])
    last = float(frames.pv.iloc[-1])
    transfers = document.curve.net_transfers
    moved = 0.0
    if transfers:
        moved = float(transfers[-1]) - (0.0 if begins is not None else float(transfers[0]))
    points = len(frames.index)
    one = "there is one point only; a return needs two"
    total = float(frames.index.iloc[-1] / frames.index.iloc[0]) - 1.0 if points > 1 else None
    profit = last - first - moved
    return (
        _ratio(
            "total_return",
            "Total return",
            total,
            "What one unit of money earned over the whole time. Time-weighted: deposits and "
            "withdrawals do not count as profit or loss.",
            one,
            "fraction",
        ),
        _told(
            "net_profit",
            "Net profit",
            profit,
            asset,
            money(profit, asset),
            "Value at the end, minus value at the start, minus what was paid in.",
        ),
        _told(
            "value_now",
            "Value at the end",
            last,
            asset,
            money(last, asset, signed=False),
            f"It began at {money(first, asset, signed=False)}.",
        ),
        _told(
            "net_transfers",
            "Paid in, net",
            moved,
            asset,
            money(moved, asset),
            "Deposits minus withdrawals meanwhile.",
        ),
        _annual_return(frames),
    )


def _annual_return(frames: Frames) -> Figure:
    value, reason = None, _too_short(frames)
    if not reason:
        value = float(empyrical.annual_return(frames.returns, annualization=frames.basis.per_year))
    return _ratio(
        "annual_return",
        "Return per year",
        value,
        f"The total return as a yearly rate (compounded, {frames.basis.days_per_year} days).",
        reason,
        "fraction",
    )


def _too_short(frames: Frames) -> str:
    if len(frames.returns) and frames.length >= timedelta(days=DAYS_TO_ANNUALISE):
        return ""
    return (
        f"{span(frames.length)} are too short to speak of a year: "
        f"at least {DAYS_TO_ANNUALISE} days are needed"
    )


# --- risk -----------------------------------------------------------------------------------------


def worst_drawdowns(frames: Frames) -> tuple[Drawdown, ...]:
    """The deepest ones on the curve's own points, deepest first; lengths are calendar time."""
    if len(frames.fine) < 2 or not (frames.fine < 0).any():
        return ()
    found = []
    for peak, valley, recovered in get_top_drawdowns(frames.fine, top=WORST_DRAWDOWNS):
        depth = float(frames.index[valley] / frames.index[peak]) - 1.0
        if depth >= 0:
            continue
        over = None if pd.isnull(recovered) else recovered.to_pydatetime()
        begin = peak.to_pydatetime()
        until = over or frames.index.index[-1].to_pydatetime()
        found.append(Drawdown(depth, begin, valley.to_pydatetime(), over, until - begin))
    return tuple(sorted(found, key=lambda item: item.depth))


def _risk(frames: Frames, drawdowns: tuple[Drawdown, ...]) -> tuple[Figure, ...]:
    returns, word, count = frames.returns, frames.basis.word, len(frames.returns)
    depth, now = _depths(frames)
    volatility = None
    if count >= 2:
        volatility = float(
            empyrical.annual_volatility(returns, annualization=frames.basis.per_year)
        )
    tails = f"at least {RETURNS_FOR_TAILS} returns of one {word} are needed; there are {count}"
    many = count >= RETURNS_FOR_TAILS
    lengths = [item.length for item in drawdowns]
    longest = max(lengths, default=timedelta(0))
    one = "there is one point only"
    return (
        _ratio(
            "max_drawdown",
            "Deepest drawdown",
            depth,
            "The largest fall from a peak to a later low.",
            one,
            "fraction",
        ),
        _ratio(
            "drawdown",
            "Drawdown at the end",
            now,
            "How far the end lies below the highest point so far.",
            one,
            "fraction",
        ),
        _told(
            "longest_drawdown",
            "Longest time below a peak",
            longest.total_seconds() / 86_400,
            "days",
            span(longest) if drawdowns else "never below",
            f"Among the {WORST_DRAWDOWNS} deepest drawdowns.",
        ),
        _ratio(
            "volatility",
            "Volatility per year",
            volatility,
            f"How much the value swings: standard deviation of the returns of one {word}, "
            f"scaled to a year of {frames.basis.days_per_year} days.",
            _few(frames),
            "fraction",
        ),
        _ratio(
            "value_at_risk",
            f"A bad {word} (5 %)",
            float(empyrical.value_at_risk(returns, 0.05)) if many else None,
            f"One {word} in twenty was worse than this.",
            tails,
            "fraction",
        ),
        _ratio(
            "expected_shortfall",
            f"Average of the bad {word}s",
            float(empyrical.conditional_value_at_risk(returns, 0.05)) if many else None,
            f"Mean of the worst twentieth of all returns of one {word}.",
            tails,
            "fraction",
        ),
        _protection(frames),
    )


def _depths(frames: Frames) -> tuple[float | None, float | None]:
    if len(frames.index) < 2:
        return None, None
    depth = float(empyrical.max_drawdown(frames.fine))
    measured = frames.document.measured.max_drawdown
    if measured is not None:
        depth = min(depth, measured)
    now = float(frames.index.iloc[-1] / frames.index.max()) - 1.0
    return depth, now


def _protection(frames: Frames) -> Figure:
    value = frames.document.measured.unprotected_s
    return Figure(
        "unprotected_s",
        "Time without a stop",
        value,
        "s",
        "" if value is None else f"{value:,.0f} s",
        "Seconds times positions that stood without the stop they should have had.",
        "it was not measured" if value is None else "",
    )


def _few(frames: Frames) -> str:
    count, word = len(frames.returns), frames.basis.word
    if count < 2:
        plural = "return" if count == 1 else "returns"
        return f"two returns of one {word} are needed; there is {count} {plural}"
    return NEVER_VARIED


# --- return for risk ------------------------------------------------------------------------------


def _ratios(frames: Frames) -> tuple[Figure, ...]:
    returns, year = frames.returns, frames.basis.per_year
    count, word = len(returns), frames.basis.word
    varies = count >= 2 and bool(returns.std() > 0)
    sharpe = float(empyrical.sharpe_ratio(returns, annualization=year)) if varies else None
    losses = varies and bool((returns < 0).any())
    sortino = float(empyrical.sortino_ratio(returns, annualization=year)) if losses else None
    too_short = _too_short(frames)
    calmar = None
    if losses and not too_short:
        calmar = float(empyrical.calmar_ratio(returns, annualization=year))
    steady = None
    if count >= RETURNS_FOR_STEADINESS and varies:
        steady = float(empyrical.stability_of_timeseries(returns))
    won = float((returns > 0).mean()) if count else None
    lossless = _few(frames) if not varies else f"no {word} lost anything"
    return (
        _sharpe(frames, sharpe),
        _ratio(
            "sortino",
            "Sortino ratio",
            sortino,
            "Like Sharpe, but only losses count as risk.",
            lossless,
        ),
        _ratio(
            "calmar",
            "Calmar ratio",
            calmar,
            "Return per year divided by the deepest drawdown.",
            too_short or lossless,
        ),
        _ratio(
            "steadiness",
            "Steadiness",
            steady,
            "How close the growth is to an even line: 1 is even, 0 is chance.",
            NEVER_VARIED
            if count >= RETURNS_FOR_STEADINESS
            else f"{RETURNS_FOR_STEADINESS} returns are needed; there are {count}",
        ),
        _ratio(
            "won_periods",
            f"{word.capitalize()}s that gained",
            won,
            f"Share of the {count:,} returns of one {word} that were above zero.",
            _few(frames),
            "share",
        )
        if won is None
        else Figure(
            "won_periods",
            f"{word.capitalize()}s that gained",
            won,
            "fraction",
            f"{won * 100:.1f} %",
            f"Share of the {count:,} returns of one {word} that were above zero.",
        ),
    )


def _sharpe(frames: Frames, sharpe: float | None) -> Figure:
    """With its standard error, √((1 + s² ÷ 2) ÷ n) of one period (Lo, 2002)."""
    word, count = frames.basis.word, len(frames.returns)
    figure = _ratio(
        "sharpe",
        "Sharpe ratio",
        sharpe,
        f"Mean return divided by its swing, per year of {frames.basis.days_per_year} days, from "
        f"{count:,} returns of one {word}; risk-free rate 0.",
        _few(frames),
    )
    if figure.value is None:
        return figure
    once = figure.value / math.sqrt(frames.basis.per_year)
    error = math.sqrt((1.0 + once * once / 2.0) / count * frames.basis.per_year)
    meaning = figure.meaning
    if error > abs(figure.value):
        meaning += (
            " The margin is wider than the number: this history does not tell luck from skill."
        )
    return Figure(
        figure.key,
        figure.title,
        figure.value,
        figure.unit,
        f"{figure.text} ± {error:,.2f}",
        meaning,
    )


# --- trading --------------------------------------------------------------------------------------


def _trading(frames: Frames) -> tuple[Figure, ...]:
    asset = frames.document.quote_asset
    done = frames.transactions
    if done is None:
        traded, count = None, None
    else:
        traded, count = float((done["amount"].abs() * done["price"]).sum()), len(done)
    mean_worth = float(frames.pv.mean())
    unknown = "its fills are not known"
    fees = None if frames.fees is None else float(frames.fees.iloc[-1])
    funding = None if frames.funding is None else float(frames.funding.iloc[-1])
    turnover = traded / mean_worth if traded is not None and mean_worth > 0 else None
    cost_bps = -fees / traded * 1e4 if fees is not None and traded else None
    return (
        Figure(
            "fills",
            "Fills",
            count,
            "count",
            "" if count is None else f"{count:,}",
            "Orders, or parts of them, that were carried out.",
            unknown if count is None else "",
        ),
        Figure(
            "traded_notional",
            "Traded value",
            traded,
            asset,
            "" if traded is None else money(traded, asset, signed=False),
            "Size times price, over all fills, bought and sold.",
            unknown if traded is None else "",
        ),
        Figure(
            "turnover",
            "Turnover",
            turnover,
            "times",
            "" if turnover is None else f"{turnover:,.2f} ×",
            "Traded value divided by the mean value of the portfolio.",
            unknown if turnover is None else "",
        ),
        _amount("fees", "Fees", fees, asset, "What the exchange took; negative: paid."),
        _amount("funding", "Funding", funding, asset, "Paid or received for holding futures."),
        Figure(
            "cost_bps",
            "Fees per traded value",
            cost_bps,
            "1e-4",
            "" if cost_bps is None else f"{cost_bps:,.2f} bps",
            "In hundredths of a percent of the traded value.",
            "" if cost_bps is not None else "nothing was traded, or its fees are not known",
        ),
        _slippage(frames),
        *_trades(frames),
        *_exposure(frames),
    )


def _amount(key: str, title: str, value: float | None, asset: str, meaning: str) -> Figure:
    text = "" if value is None else money(value, asset)
    return Figure(key, title, value, asset, text, meaning, "" if text else "it is not known")


def _slippage(frames: Frames) -> Figure:
    """Σ cost against the decision price ÷ Σ value of those fills."""
    done = frames.document.transactions
    prices = done.decision_price if done is not None else None
    cost = value = 0.0
    if done is not None and prices is not None:
        for side, size, price, decided in zip(
            done.side, done.size, done.price, prices, strict=True
        ):
            if decided is None:
                continue
            worse = price - decided if side == "buy" else decided - price
            cost += float(worse * size)
            value += float(price * size)
    bps = cost / value * 1e4 if value else None
    return Figure(
        "slippage_bps",
        "Slippage",
        bps,
        "1e-4",
        "" if bps is None else f"{bps:+,.2f} bps".replace("-", "−"),
        "How much worse than at the moment of the decision it was bought and sold; "
        "negative is better.",
        "no fill has a known decision price" if bps is None else "",
    )


def _trades(frames: Frames) -> tuple[Figure, ...]:
    trades = frames.document.trades
    profits = np.array([] if trades is None else [float(item) for item in trades.net_profit])
    asset = frames.document.quote_asset
    reason = "closed positions are not known" if trades is None else "no position was closed"
    wins, losses = profits[profits > 0], profits[profits <= 0]
    count = None if trades is None else len(profits)
    rate = len(wins) / len(profits) if len(profits) else None
    lost = -float(losses.sum())
    factor = float(wins.sum()) / lost if lost > 0 else None
    return (
        Figure(
            "trades",
            "Closed trades",
            count,
            "count",
            "" if count is None else f"{count:,}",
            "Positions that were opened and closed.",
            reason if count is None else "",
        ),
        Figure(
            "win_rate",
            "Trades that won",
            rate,
            "fraction",
            "" if rate is None else f"{rate * 100:.1f} %",
            "Share of closed trades with a profit after fees and funding.",
            reason if rate is None else "",
        ),
        _ratio(
            "profit_factor",
            "Profit factor",
            factor,
            "What all winning trades earned, divided by what all others lost.",
            "no trade lost anything" if len(profits) else reason,
        ),
        _amount_or(
            "average_win", "Average winner", wins, asset, "no trade won" if len(profits) else reason
        ),
        _amount_or(
            "average_loss", "Average loser", losses, asset,
            "no trade lost" if len(profits) else reason,
        ),
    )  # fmt: skip


def _amount_or(
    key: str, title: str, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], asset: str,
    reason: str,
) -> Figure:  # fmt: skip
    if not len(values):
        return Figure(key, title, None, asset, "", "Mean net profit of such trades.", reason)
    value = float(values.mean())
    return Figure(key, title, value, asset, money(value, asset), "Mean net profit of such trades.")


def _exposure(frames: Frames) -> tuple[Figure, ...]:
    gross = frames.gross
    known = gross is not None and bool(gross.notna().any())
    mean = float(gross.mean()) if gross is not None and known else None
    top = float(gross.max()) if gross is not None and known else None
    meaning = "Value of all positions, long and short alike, divided by the portfolio's value."
    reason = "positions are not known"
    return tuple(
        Figure(
            key,
            title,
            value,
            "times",
            "" if value is None else f"{value:,.2f} ×",
            meaning,
            reason if value is None else "",
        )
        for key, title, value in (
            ("gross_exposure_mean", "Leverage in use, mean", mean),
            ("gross_exposure_max", "Leverage in use, highest", top),
        )
    )
