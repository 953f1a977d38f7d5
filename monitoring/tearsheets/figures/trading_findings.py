"""What was traded, paid and held: numbers by key, or the reasons why there are none."""

from __future__ import annotations

import numpy as np
import pandas as pd

from monitoring.tearsheets.figures.return_findings import Findings, known
from monitoring.tearsheets.frames import Frames


def trading_findings(frames: Frames) -> Findings:
    """Everything about fills, costs, closed trades and exposure."""
    return _fills(frames) | _slippage(frames) | _trades(frames) | _exposure(frames)


def _fills(frames: Frames) -> Findings:
    done = frames.transactions
    traded = None if done is None else float((done["amount"].abs() * done["price"]).sum())
    mean_worth = float(frames.pv.mean())
    unknown = "its fills are not known"
    fees, funding = _last(frames.fees), _last(frames.funding)
    turnover = traded / mean_worth if traded is not None and mean_worth > 0 else None
    cost_bps = -fees / traded * 1e4 if fees is not None and traded else None
    return {
        "fills": known(None if done is None else len(done), unknown),
        "traded_notional": known(traded, unknown),
        "turnover": known(turnover, unknown),
        "fees": known(fees, "it is not known"),
        "funding": known(funding, "it is not known"),
        "cost_bps": known(cost_bps, "nothing was traded, or its fees are not known"),
    }


def _last(series: pd.Series[float] | None) -> float | None:
    return None if series is None else float(series.iloc[-1])


def _slippage(frames: Frames) -> Findings:
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
    return {"slippage_bps": known(bps, "no fill has a known decision price")}


def _trades(frames: Frames) -> Findings:
    trades = frames.document.trades
    profits = np.array([] if trades is None else [float(item) for item in trades.net_profit])
    none = "closed positions are not known" if trades is None else "no position was closed"
    wins, losses = profits[profits > 0], profits[profits <= 0]
    lost = -float(losses.sum())
    several = bool(len(profits))
    return {
        "trades": known(None if trades is None else len(profits), none),
        "win_rate": known(len(wins) / len(profits) if several else None, none),
        "profit_factor": known(
            float(wins.sum()) / lost if lost > 0 else None,
            "no trade lost anything" if several else none,
        ),
        "average_win": known(
            float(wins.mean()) if len(wins) else None, "no trade won" if several else none
        ),
        "average_loss": known(
            float(losses.mean()) if len(losses) else None, "no trade lost" if several else none
        ),
    }


def _exposure(frames: Frames) -> Findings:
    gross, unknown = frames.gross, "positions are not known"
    if gross is None or not bool(gross.notna().any()):
        return {"gross_exposure_mean": unknown, "gross_exposure_max": unknown}
    return {
        "gross_exposure_mean": known(float(gross.mean()), unknown),
        "gross_exposure_max": known(float(gross.max()), unknown),
    }
