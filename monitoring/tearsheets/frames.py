"""The document in the shapes that pandas, empyrical and pyfolio work on. Imported by the worker.

pyfolio's shapes: returns (non-cumulative, one per period), positions (value by symbol and `cash`,
so that a row sums to the portfolio's value), transactions (`amount` signed, `price`, `symbol`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import pandas as pd

from monitoring.tearsheets.document import CurveDocument
from monitoring.tearsheets.returns import (
    DAY,
    HOUR,
    Basis,
    Growth,
    Returns,
    choose_basis,
    growth,
    period_end,
    returns_of,
)

DAYS_FOR_DAILY_TURNOVER = 3


@dataclass(frozen=True, slots=True)
class Frames:
    """One document as series. Ratios are fractions, money in the quote asset, times UTC.

    `index` is what 1 unit became; `returns` are of `basis`, labelled by the period's end; `daily`
    by the UTC day itself. `gross` and `net` are exposures in parts of the portfolio's value.
    """

    document: CurveDocument
    undefined: int
    basis: Basis
    index: pd.Series[float]
    pv: pd.Series[float]
    returns: pd.Series[float]
    daily: pd.Series[float]
    fine: pd.Series[float]
    gross: pd.Series[float] | None
    net: pd.Series[float] | None
    positions: pd.DataFrame | None
    transactions: pd.DataFrame | None
    turnover: pd.Series[float] | None
    turnover_basis: Basis
    fees: pd.Series[float] | None
    funding: pd.Series[float] | None

    @property
    def length(self) -> timedelta:
        """From the curve's first moment to its last."""
        return timedelta(seconds=(self.index.index[-1] - self.index.index[0]).total_seconds())


def build_frames(document: CurveDocument) -> Frames:
    """Everything that figures and charts are made from."""
    curve = growth(document)
    basis = choose_basis(curve, document.days_per_year)
    index = _series(curve.at, curve.index)
    pv = _series(document.curve.at, _floats(document.curve.pv))
    positions = _positions(document, pv)
    transactions = _transactions(document)
    gross, net = _exposures(document, pv, positions)
    long_enough = curve.at[-1] - curve.at[0] >= DAYS_FOR_DAILY_TURNOVER * DAY
    turnover_basis = Basis(DAY if long_enough else HOUR)
    return Frames(
        document=document,
        undefined=curve.undefined,
        basis=basis,
        index=index,
        pv=pv,
        returns=_returns(returns_of(curve, basis)),
        daily=_by_day(returns_of(curve, Basis(DAY))),
        fine=_fine(curve),
        gross=gross,
        net=net,
        positions=positions,
        transactions=transactions,
        turnover=_turnover(transactions, pv, turnover_basis),
        turnover_basis=turnover_basis,
        fees=_running(document, document.curve.fees),
        funding=_running(document, document.curve.funding),
    )


def _floats(values: Sequence[Decimal]) -> list[float]:
    return [float(value) for value in values]


def _series(at: Sequence[datetime], values: Sequence[float]) -> pd.Series[float]:
    return pd.Series(list(values), index=_times(at), dtype=float)


def _times(at: Sequence[datetime]) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(list(at), tz="UTC")


def _returns(found: Returns) -> pd.Series[float]:
    return _series(found.ends, found.values)


def _by_day(found: Returns) -> pd.Series[float]:
    return _series([end - DAY for end in found.ends], found.values)


def _fine(curve: Growth) -> pd.Series[float]:
    """From point to point; 0 at the first, so that a drawdown can begin there."""
    return _series(curve.at, curve.index).pct_change().fillna(0.0)


def _running(document: CurveDocument, values: Sequence[Decimal] | None) -> pd.Series[float] | None:
    if values is None:
        return None
    found = _series(document.curve.at, _floats(values))
    begins = 0.0 if document.initial_balance is not None else float(found.iloc[0])
    return found - begins


def _positions(document: CurveDocument, pv: pd.Series[float]) -> pd.DataFrame | None:
    held = document.positions
    if held is None or not held.at:
        return None
    values = {symbol: _floats(items) for symbol, items in sorted(held.value.items())}
    frame = pd.DataFrame(values, index=_times(held.at), dtype=float)
    worth = pv.reindex(frame.index, method="ffill").bfill()
    frame["cash"] = worth - frame.sum(axis=1)
    return frame[worth > 0]


def _transactions(document: CurveDocument) -> pd.DataFrame | None:
    done = document.transactions
    if done is None:
        return None
    sign = {"buy": 1.0, "sell": -1.0}
    return pd.DataFrame(
        {
            "amount": [
                sign[side] * float(size) for side, size in zip(done.side, done.size, strict=True)
            ],
            "price": _floats(done.price),
            "symbol": done.symbol,
        },
        index=_times(done.at),
    )


def _exposures(
    document: CurveDocument, pv: pd.Series[float], positions: pd.DataFrame | None
) -> tuple[pd.Series[float] | None, pd.Series[float] | None]:
    """Gross and net, as measured; else from the positions, as pyfolio defines them."""
    from pyfolio.pos import get_long_short_pos
    from pyfolio.timeseries import gross_lev

    curve = document.curve
    worth = pv.where(pv > 0)
    gross = net = None
    if curve.gross_position_value is not None:
        gross = _series(curve.at, _floats(curve.gross_position_value)) / worth
    elif positions is not None and len(positions):
        gross = gross_lev(positions)
    if curve.position_value is not None:
        net = _series(curve.at, _floats(curve.position_value)) / worth
    elif positions is not None and len(positions):
        net = get_long_short_pos(positions)["net exposure"]
    return gross, net


def _turnover(
    transactions: pd.DataFrame | None, pv: pd.Series[float], basis: Basis
) -> pd.Series[float] | None:
    """Traded value ÷ portfolio value at the period's end, for every period that has a point.

    Days are pyfolio's; hours, which it does not know, are the same quotient.
    """
    from pyfolio.txn import get_turnover

    if transactions is None:
        return None
    ends = [period_end(moment.to_pydatetime(), basis.length) for moment in pv.index]
    starts = _times([end - basis.length for end in ends])
    worth = pv.groupby(starts).last()
    if transactions.empty:
        return worth * 0.0
    done = transactions.copy()
    done.index = _times(
        [period_end(moment.to_pydatetime(), basis.length) - basis.length for moment in done.index]
    )
    found: pd.Series[float]
    if basis.length == DAY:
        found = get_turnover(worth.to_frame("cash"), done, denominator="portfolio_value")
    else:
        value = (done["amount"].abs() * done["price"]).groupby(done.index).sum()
        found = value.div(worth).fillna(0.0)
    return found.reindex(worth.index).fillna(0.0)
