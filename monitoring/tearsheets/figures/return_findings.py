"""What was earned and risked: numbers by key, or the reasons why there are none."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final

import empyrical
import pandas as pd
from pyfolio.timeseries import get_top_drawdowns

from monitoring.tearsheets.figures.figure import Drawdown
from monitoring.tearsheets.figures.spelling import span
from monitoring.tearsheets.frames import Frames

DAYS_TO_ANNUALISE: Final = 30
RETURNS_FOR_TAILS: Final = 20
RETURNS_FOR_STEADINESS: Final = 10
WORST_DRAWDOWNS: Final = 5
NEVER_VARIED: Final = "the portfolio's value never varied"
Findings = dict[str, float | str]


def known(value: float | None, reason: str) -> float | str:
    """The number if there is one and it is finite, else the reason."""
    if value is None or not math.isfinite(value):
        return reason or "it cannot be computed"
    return value


def value_at_start(frames: Frames) -> float:
    """Where the curve begins."""
    begins = frames.document.initial_balance
    return float(begins) if begins is not None else float(frames.pv.iloc[0])


def result_findings(frames: Frames) -> Findings:
    """What came out."""
    last = float(frames.pv.iloc[-1])
    transfers = frames.document.curve.net_transfers
    moved = 0.0
    if transfers:
        counted_before = 0.0 if frames.document.initial_balance is not None else transfers[0]
        moved = float(transfers[-1]) - float(counted_before)
    several = len(frames.index) > 1
    total = float(frames.index.iloc[-1] / frames.index.iloc[0]) - 1.0 if several else None
    yearly = None
    too_short = _too_short(frames)
    if not too_short:
        yearly = float(empyrical.annual_return(frames.returns, annualization=frames.basis.per_year))
    return {
        "total_return": known(total, "there is one point only; a return needs two"),
        "net_profit": last - value_at_start(frames) - moved,
        "value_now": last,
        "net_transfers": moved,
        "annual_return": known(yearly, too_short),
    }


def _too_short(frames: Frames) -> str:
    if len(frames.returns) and frames.length >= timedelta(days=DAYS_TO_ANNUALISE):
        return ""
    return (
        f"{span(frames.length)} are too short to speak of a year: "
        f"at least {DAYS_TO_ANNUALISE} days are needed"
    )


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


def risk_findings(frames: Frames, drawdowns: tuple[Drawdown, ...]) -> Findings:
    """What could have been lost."""
    returns, word, count = frames.returns, frames.basis.word, len(frames.returns)
    depth, now = _depths(frames)
    volatility = at_risk = shortfall = None
    if count >= 2:
        volatility = float(
            empyrical.annual_volatility(returns, annualization=frames.basis.per_year)
        )
    if count >= RETURNS_FOR_TAILS:
        at_risk = float(empyrical.value_at_risk(returns, 0.05))
        shortfall = float(empyrical.conditional_value_at_risk(returns, 0.05))
    tails = f"at least {RETURNS_FOR_TAILS} returns of one {word} are needed; there are {count}"
    longest = max((item.length for item in drawdowns), default=timedelta(0))
    one = "there is one point only"
    return {
        "max_drawdown": known(depth, one),
        "drawdown": known(now, one),
        "longest_drawdown": longest.total_seconds() / 86_400,
        "volatility": known(volatility, _few(frames)),
        "value_at_risk": known(at_risk, tails),
        "expected_shortfall": known(shortfall, tails),
        "unprotected_s": known(frames.document.measured.unprotected_s, "it was not measured"),
    }


def _depths(frames: Frames) -> tuple[float | None, float | None]:
    if len(frames.index) < 2:
        return None, None
    depth = float(empyrical.max_drawdown(frames.fine))
    measured = frames.document.measured.max_drawdown
    if measured is not None:
        depth = min(depth, measured)
    now = float(frames.index.iloc[-1] / frames.index.max()) - 1.0
    return depth, now


def _few(frames: Frames) -> str:
    count, word = len(frames.returns), frames.basis.word
    if count < 2:
        return f"two returns of one {word} are needed; there {'is' if count else 'are'} {count}"
    return NEVER_VARIED


def ratio_findings(frames: Frames) -> Findings:
    """What was earned for what was risked."""
    returns, year = frames.returns, frames.basis.per_year
    count, word = len(returns), frames.basis.word
    varies = count >= 2 and bool(returns.std() > 0)
    losses = varies and bool((returns < 0).any())
    many = count >= RETURNS_FOR_STEADINESS
    too_short = _too_short(frames)
    sharpe = sortino = calmar = steady = None
    if varies:
        sharpe = float(empyrical.sharpe_ratio(returns, annualization=year))
    if losses:
        sortino = float(empyrical.sortino_ratio(returns, annualization=year))
    if losses and not too_short:
        calmar = float(empyrical.calmar_ratio(returns, annualization=year))
    if many and varies:
        steady = float(empyrical.stability_of_timeseries(returns))
    lossless = f"no {word} lost anything" if varies else _few(frames)
    unsteady = f"{RETURNS_FOR_STEADINESS} returns are needed; there are {count}"
    return {
        "sharpe": known(sharpe, _few(frames)),
        "sortino": known(sortino, lossless),
        "calmar": known(calmar, too_short or lossless),
        "steadiness": known(steady, NEVER_VARIED if many else unsteady),
        "won_periods": known(float((returns > 0).mean()) if count else None, _few(frames)),
    }
