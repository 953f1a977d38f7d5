"""Planning and booking one cycle in which every leg trades: the production code, per cycle.

A book of N assets, half long and half short, goes to other weights: some legs increase, some
reduce, some turn round. Timed: `plan_rebalance`, then `book_fills` of one fill per leg. Beside it
in the same run: the same differences with plain floats (a loop), and with pandas (aligned Series);
both round each size down, and know no limits, minimums, stops, residuals, legs, fills, profit.
Microseconds of this process's CPU, median of many cycles.

    python -m benchmarks planning [--cycles 400]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from module.model.accounts import MarginMode, Position
from module.model.market import Instrument, MarketType
from module.model.orders import NO_STOPS, Fill
from module.model.sessions import TradeMode
from trading.ledger.ledger import Ledger, book_fills, opened_with
from trading.rebalance.plan import Book, OrderPlan, Policy, plan_rebalance
from trading.rebalance.weights import Target

AT = datetime(2026, 11, 20, 7, 15, tzinfo=UTC)
BUDGET_US = {10: 190.0, 100: 900.0}
POLICY = Policy(TradeMode.REBALANCING, MarketType.FUTURES, Decimal(2), Decimal("0.0001"))
BASE = Decimal("1000007.31")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks planning")
    parser.add_argument("--cycles", type=int, default=400)
    options = parser.parse_args(arguments)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    missed = 0
    for assets, budget_us in BUDGET_US.items():
        cycle = Cycle(assets)
        planned = median_us(cycle.plan, options.cycles)
        booked = median_us(cycle.book_all, options.cycles)
        floats = median_us(cycle.diff_floats, options.cycles)
        frames = median_us(cycle.diff_pandas, max(20, options.cycles // 10))
        total = planned + booked
        missed += total > budget_us
        print(
            f"{assets:4d} assets, {len(cycle.the_plan.legs)} legs: {total:7.1f} µs a cycle "
            f"(plan {planned:.1f} + booking {booked:.1f}; {total / assets:.1f} µs an asset), "
            f"budget {budget_us:.0f}"
        )
        print(f"     plain floats {floats:7.1f} µs   ratio ours / floats {total / floats:6.2f} x")
        print(f"     pandas       {frames:7.1f} µs   ratio ours / pandas {total / frames:6.2f} x")
    return 1 if missed else 0


def median_us(call: Callable[[], object], times: int) -> float:
    """Median CPU time of one call, after a few that do not count."""
    for _ in range(max(5, times // 20)):
        call()
    spent: list[float] = []
    for _ in range(times):
        started = time.process_time_ns()
        call()
        spent.append((time.process_time_ns() - started) / 1000)
    return statistics.median(spent)


class Cycle:
    """One cycle of a book of `assets` symbols, with what each way of doing it needs."""

    def __init__(self, assets: int) -> None:
        self.symbols = [f"C{number:03d}USDT" for number in range(assets)]
        self.book = self._book()
        self.targets = self._targets()
        self.the_plan: OrderPlan = plan_rebalance(self.targets, self.book, POLICY)
        traded = {leg.symbol for leg in self.the_plan.legs}
        if len(traded) != assets:
            raise RuntimeError(f"{len(traded)} of {assets} symbols trade; every one must")
        self.ledger: Ledger = opened_with(self.book.positions.values(), BASE)
        self.fills = self._fills()
        self._prepare_floats()

    def plan(self) -> OrderPlan:
        return plan_rebalance(self.targets, self.book, POLICY)

    def book_all(self) -> Ledger:
        return book_fills(self.ledger, self.fills)

    def diff_floats(self) -> list[tuple[str, float]]:
        """Symbol and signed size, as a short script would find them."""
        found: list[tuple[str, float]] = []
        for symbol in self.symbols:
            price = self.prices[symbol]
            wanted = self.weights[symbol] * self.capital / price
            difference = wanted - self.held[symbol]
            lots = int(difference / self.steps[symbol])
            if abs(difference) * price / self.capital >= 0.0001 and lots:
                found.append((symbol, lots * self.steps[symbol]))
        return found

    def diff_pandas(self) -> object:
        import numpy as np

        wanted = self.weight_series * self.capital / self.price_series
        difference = wanted - self.held_series
        lots = np.trunc(difference / self.step_series)
        size = lots * self.step_series
        moved = (difference.abs() * self.price_series / self.capital) >= 0.0001
        return size[moved & (lots != 0)]

    def _book(self) -> Book:
        marks = {s: Decimal(7 + 13 * n % 997) + Decimal("0.37") for n, s in enumerate(self.symbols)}
        share = Decimal("0.8") / len(self.symbols)
        positions = {}
        for number, symbol in enumerate(self.symbols):
            size = (share * BASE * 2 / marks[symbol]).quantize(Decimal("0.001"))
            positions[symbol] = _position(symbol, size if number % 2 else -size, marks[symbol])
        instruments = {symbol: _instrument(symbol) for symbol in self.symbols}
        return Book(BASE, BASE, positions, marks, instruments)

    def _targets(self) -> dict[str, Target]:
        """A third larger, a third smaller, a third on the other side."""
        share = Decimal("0.8") / len(self.symbols)
        factors = (Decimal("1.21"), Decimal("0.63"), Decimal("-0.87"))
        return {
            symbol: Target(symbol, share * factors[n % 3] * (1 if n % 2 else -1))
            for n, symbol in enumerate(self.symbols)
        }

    def _fills(self) -> Sequence[Fill]:
        return [
            Fill(
                trade_id=f"13579{number}",
                order_id=f"24680{number}",
                symbol=leg.symbol,
                side=leg.side,
                price=leg.reference_price,
                size=leg.size,
                quote_size=leg.notional,
                fee=-leg.notional * Decimal("0.0006"),
                fee_asset="USDT",
                realized_pnl=Decimal(0),
                is_taker=True,
                at=AT,
            )
            for number, leg in enumerate(self.the_plan.legs)
        ]

    def _prepare_floats(self) -> None:
        import pandas as pd

        self.capital = float(BASE * POLICY.leverage)
        self.prices = {s: float(mark) for s, mark in self.book.marks.items()}
        self.weights = {s: float(target.weight) for s, target in self.targets.items()}
        self.held = {s: float(held.size) for s, held in self.book.positions.items()}
        self.steps = {s: float(rules.size_step) for s, rules in self.book.instruments.items()}
        self.price_series = pd.Series(self.prices)
        self.weight_series = pd.Series(self.weights)
        self.held_series = pd.Series(self.held)
        self.step_series = pd.Series(self.steps)


def _position(symbol: str, size: Decimal, mark: Decimal) -> Position:
    zero = Decimal(0)
    margin = abs(size) * mark / 2
    return Position(
        symbol, size, mark, mark, margin, zero, zero, zero, zero, Decimal(2), MarginMode.CROSSED,
        None, NO_STOPS, AT,
    )  # fmt: skip


def _instrument(symbol: str) -> Instrument:
    return Instrument(
        symbol=symbol,
        base_asset=symbol.removesuffix("USDT"),
        quote_asset="USDT",
        market=MarketType.FUTURES,
        price_step=Decimal("0.01"),
        size_step=Decimal("0.001"),
        size_min=Decimal("0.001"),
        notional_min=Decimal(5),
        market_size_max=Decimal(1_000_000),
        leverage_max=Decimal(125),
        taker_fee=Decimal("0.0006"),
        maker_fee=Decimal("0.0002"),
    )
