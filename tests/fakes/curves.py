"""Curve documents as a backtest would hand them in: a small momentum book over the synthetic
market's candles, with fees, funding, a deposit, closed trades; and short or odd histories."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from module.clock import to_epoch_ms
from module.model.canonical import instant_text
from module.simulator.prices.synthetic import MODELS, SyntheticMarket

START = datetime(2026, 6, 1, tzinfo=UTC)
FEE_RATE = 0.0006
FUNDING_RATE = 0.00003
SLIPPAGE = 0.00025
DEPOSIT = 2_000.0


def backtest_document(
    *,
    points: int = 24 * 90,
    step: timedelta = timedelta(hours=1),
    symbols: int = 5,
    every: int = 24,
    lookback: int = 168,
    seed: int = 12,
) -> dict[str, object]:
    """A book that is long what rose and short what fell, rebalanced `every` points."""
    names = [model.symbol for model in MODELS][:symbols]
    minutes = int(step / timedelta(minutes=1))
    first_ms = to_epoch_ms(START)
    market = SyntheticMarket(seed)
    closes: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        for place in range(points):
            bar = market.merged_bar(name, first_ms + place * minutes * 60_000, minutes)
            assert bar is not None
            closes[name].append(float(bar.close))
    book = _Book(names, closes, lookback)
    for place in range(points):
        book.step(
            place, START + (place + 1) * step, rebalance=place % every == 0 and place >= lookback
        )
    return book.document()


class _Book:
    def __init__(self, names: list[str], closes: dict[str, list[float]], lookback: int) -> None:
        self.names, self.closes, self.lookback = names, closes, lookback
        self.size = dict.fromkeys(names, 0.0)
        self.cost = dict.fromkeys(names, 0.0)
        self.cash, self.fees, self.funding, self.moved = 10_000.0, 0.0, 0.0, 0.0
        self.curve: dict[str, list[object]] = {
            name: []
            for name in (
                "at", "pv", "net_transfers", "gross_position_value", "position_value", "fees",
                "funding",
            )
        }  # fmt: skip
        self.values: dict[str, list[object]] = {name: [] for name in names}
        self.fills: dict[str, list[object]] = {
            name: [] for name in ("at", "symbol", "side", "size", "price", "fee", "decision_price")
        }
        self.trades: dict[str, list[object]] = {
            name: [] for name in ("closed_at", "symbol", "net_profit")
        }

    def step(self, place: int, at: datetime, *, rebalance: bool) -> None:
        price = {name: self.closes[name][place] for name in self.names}
        funding = -sum(self.size[name] * price[name] for name in self.names) * FUNDING_RATE
        self.cash, self.funding = self.cash + funding, self.funding + funding
        if place == 30 * 24:
            self.cash, self.moved = self.cash + DEPOSIT, self.moved + DEPOSIT
        if rebalance:
            worth = self._worth(price)
            past = {
                name: price[name] / self.closes[name][place - self.lookback] - 1
                for name in self.names
            }
            scale = sum(abs(value) for value in past.values()) or 1.0
            for name in self.names:
                self._trade(name, 0.9 * past[name] / scale * worth / price[name], price[name], at)
        held = [self.size[name] * price[name] for name in self.names]
        row = (
            instant_text(at), _text(self._worth(price)), _text(self.moved),
            _text(sum(map(abs, held))), _text(sum(held)), _text(self.fees), _text(self.funding),
        )  # fmt: skip
        for column, cell in zip(self.curve.values(), row, strict=True):
            column.append(cell)
        for name, value in zip(self.names, held, strict=True):
            self.values[name].append(_text(value))

    def _worth(self, price: dict[str, float]) -> float:
        return self.cash + sum(self.size[name] * price[name] for name in self.names)

    def _trade(self, name: str, wanted: float, decided: float, at: datetime) -> None:
        change = wanted - self.size[name]
        if abs(change) * decided < 60:
            return
        price = decided * (1 + SLIPPAGE * (1 if change > 0 else -1))
        fee = abs(change) * price * FEE_RATE
        if self.size[name] * wanted < 0:  # the side turns: the old trade is over
            profit = self.size[name] * price - self.cost[name]
            row: tuple[object, ...] = (instant_text(at), name, _text(profit - fee))
            for column, cell in zip(self.trades.values(), row, strict=True):
                column.append(cell)
            self.cost[name] = wanted * price
        else:
            self.cost[name] += change * price
        self.size[name] = wanted
        self.cash -= change * price + fee
        self.fees -= fee
        side = "buy" if change > 0 else "sell"
        row = (
            instant_text(at), name, side, _text(abs(change)), _text(price), _text(-fee),
            _text(decided),
        )  # fmt: skip
        for column, cell in zip(self.fills.values(), row, strict=True):
            column.append(cell)

    def document(self) -> dict[str, object]:
        return {
            "version": 1,
            "title": "Momentum, five symbols",
            "subtitle": "backtest over synthetic candles, 0.06 % fee, 2.5 bps slippage",
            "initial_balance": "10000",
            "started_at": instant_text(START),
            "curve": self.curve,
            "positions": {"at": self.curve["at"], "value": self.values},
            "transactions": self.fills,
            "trades": self.trades,
        }


def short_document(pvs: list[str], step: timedelta = timedelta(minutes=1)) -> dict[str, object]:
    """Only a curve: the first value is the start."""
    at = [instant_text(START + place * step) for place in range(len(pvs))]
    return {"title": "Short", "curve": {"at": at, "pv": pvs}}


def _text(value: float) -> str:
    return str(Decimal(repr(round(value, 8))))
