"""The strategy process: gathers, asks the runner, plans, writes the letter, rings.

    rebalance_start ─► read the letter (which cycle?) ─► gather ─► user's function in the runner
                    ─► plan_rebalance ─► letter (planned | skipped) ─► strategy_done
    autotrade_done  ─► rebalance_done

Trusted: it holds a token for one account, never an exchange key. The user's code is elsewhere.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import TypeVar

from module.model.accounts import AccountSnapshot, PositionMode
from module.model.errors import (
    AifapError,
    Conflict,
    NotFound,
    NotYet,
    RateLimited,
    Rejected,
    Retryable,
    Unavailable,
    require,
)
from module.model.market import Candle, Frequency, Instrument, MarketType, Quote
from module.model.money import decimal_from_float, plain
from module.model.sessions import SessionSpec, TradeMode
from module.ports import Clock, Exchange, MarketData, OrderInfoStore, StrategyRunner, WindowRequest
from trading.rebalance.order_info import CycleStage, OrderInfo, from_json, to_json, with_plan
from trading.rebalance.plan import Book, Policy, plan_rebalance, process_symbol, sizing_base
from trading.rebalance.weights import Target, read_targets, scale_to_volatility
from trading.session.bells import Bells

__all__ = ["StrategyWiring", "execute_strategy", "process_symbol", "run_strategy"]

AWAY = "away"  # how the reason of a cycle begins that the exchange missed
TRADED_WAIT_S = 3600.0
VOLATILITY_BARS = 240
MINUTES_PER_YEAR = 365 * 24 * 60
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StrategyWiring:
    """What the strategy process needs. `initial_balance`: the equity at the session's start."""

    spec: SessionSpec
    source: str
    initial_balance: Callable[[], Decimal]
    policy: Policy
    clock: Clock
    exchange: Exchange
    market: MarketData
    runner: StrategyRunner
    store: OrderInfoStore
    bells: Bells


def run_strategy(wiring: StrategyWiring, leader_gone: int) -> None:
    """Serve the leader until it is gone (`leader_gone` becomes readable when it dies)."""
    windows: tuple[WindowRequest, ...] = ()
    start = wiring.bells.rebalance_start
    wiring.bells.rebalance_done.set()  # ready
    while True:
        woken = wiring.clock.wait_readable([start.fileno(), leader_gone], None)
        if leader_gone in woken:
            return
        start.clear()
        info = _read(wiring.store)
        if info is None or info.stage is not CycleStage.REQUESTED:
            continue  # a bell may ring twice; the letter says there is nothing to do
        info, windows = _answer(wiring, info, windows)
        wiring.store.write(to_json(info), info.epoch, info.revision)
        wiring.bells.strategy_done.set()
        traded = wiring.bells.autotrade_done
        woken = wiring.clock.wait_readable([traded.fileno(), leader_gone], None)
        if leader_gone in woken:
            return
        traded.clear()
        wiring.bells.rebalance_done.set()


def _read(store: OrderInfoStore) -> OrderInfo | None:
    document = store.read()
    return None if document is None else from_json(document)


def _answer(
    wiring: StrategyWiring, info: OrderInfo, windows: tuple[WindowRequest, ...]
) -> tuple[OrderInfo, tuple[WindowRequest, ...]]:
    """A plan, or a cycle skipped with the reason that its owner will read."""
    try:
        return execute_strategy(wiring, info, windows)
    except NotYet as error:
        reason = f"the bar that closes at the boundary did not come: {error.message}"
        return info.changed(stage=CycleStage.SKIPPED, reason=f"no-bar: {reason}"), windows
    except Retryable as error:
        # Whatever its finer code (an open circuit): it passes, and is no fault of the strategy.
        known = error.code in (AWAY, RateLimited.code)
        reason = f"{error.code if known else Unavailable.code}: {error.message}"
        return info.changed(stage=CycleStage.SKIPPED, reason=reason), windows
    except AifapError as error:
        return info.changed(stage=CycleStage.SKIPPED, reason=f"{error.code}: {error.message}"), ()


def execute_strategy(
    wiring: StrategyWiring, info: OrderInfo, windows: Sequence[WindowRequest]
) -> tuple[OrderInfo, tuple[WindowRequest, ...]]:
    """One cycle's decision: the letter with its plan, and the windows the strategy asked for.

    `windows` of the last cycle are fetched ahead. Everything the plan depends on goes into the
    letter's `inputs`.
    """
    market = _AheadMarket(wiring.market, windows, info.cycle)
    output = wiring.runner.run(wiring.source, wiring.spec.config, info.cycle, market)
    instruments = _asked(wiring.exchange.instruments)
    snapshot = _asked(wiring.exchange.snapshot)
    _check_account(wiring.spec, snapshot)
    targets = read_targets(output.targets, instruments, wiring.spec.market)
    if wiring.spec.trade_mode is TradeMode.VOLATILITY_TARGETING:
        targets = _target_volatility(targets, market, wiring.spec, info.cycle)
    book = gather_book(wiring, snapshot, instruments, targets)
    plan = plan_rebalance(targets, book, wiring.policy)
    planned = with_plan(
        info,
        plan,
        inputs=_journal(book, snapshot, wiring.policy, output.windows),
        targets=_spell(targets),
        strategy_digest=wiring.spec.strategy_digest,
    )
    return planned, output.windows


def gather_book(
    wiring: StrategyWiring,
    snapshot: AccountSnapshot,
    instruments: Mapping[str, Instrument],
    targets: Mapping[str, Target],
) -> Book:
    """Positions, marks and base from one snapshot; marks of unheld targets from quotes."""
    marks = {position.symbol: position.mark_price for position in snapshot.positions}
    missing = sorted(set(targets) - set(marks))
    if missing:
        marks.update({name: quote.mark for name, quote in _quotes(wiring, missing).items()})
    spec = wiring.spec
    base = sizing_base(
        snapshot.equity,
        spec.allocated,
        wiring.initial_balance(),
        compounding=spec.compounding,
    )
    return Book(
        base=base,
        available=snapshot.available,
        positions={position.symbol: position for position in snapshot.positions},
        marks=marks,
        instruments=instruments,
    )


def _quotes(wiring: StrategyWiring, symbols: Sequence[str]) -> dict[str, Quote]:
    """Quotes of `symbols`; one that has none (it was delisted, A20) is left out: the plan skips it
    with a reason, and the others are traded."""
    try:
        return dict(_asked(lambda: wiring.exchange.quotes(symbols)))
    except NotFound:
        found: dict[str, Quote] = {}
        for symbol in symbols:
            with contextlib.suppress(NotFound):
                found.update(_asked(partial(wiring.exchange.quotes, [symbol])))
        return found


class ExchangeAway(Unavailable):
    """The account could not be read: no fault of the strategy, and the session waits."""

    code = AWAY


def _asked(read: Callable[[], T]) -> T:
    try:
        return read()
    except Retryable as error:
        raise ExchangeAway(error.message) from error


def _check_account(spec: SessionSpec, snapshot: AccountSnapshot) -> None:
    if spec.market is MarketType.SPOT:
        # Coins are not read as positions yet: planning without them would buy again every cycle.
        raise Conflict("a spot account cannot be rebalanced yet; nothing is traded on it")
    if snapshot.position_mode is not PositionMode.ONE_WAY:
        raise Conflict(
            "the account is in hedge mode; set position mode to one-way on the exchange (while "
            "nothing is open), then start again"
        )


def _target_volatility(
    targets: Mapping[str, Target], market: MarketData, spec: SessionSpec, at: datetime
) -> dict[str, Target]:
    require(spec.target_volatility is not None, "volatility targeting without a target")
    assert spec.target_volatility is not None
    traded = sorted(symbol for symbol, target in targets.items() if target.weight != 0)
    if not traded:
        return dict(targets)
    bars = market.closed_bars(traded, Frequency.MINUTE_1, VOLATILITY_BARS, at)
    realized = realized_volatility({s: targets[s].weight for s in traded}, bars)
    return scale_to_volatility(targets, realized, spec.target_volatility)


def realized_volatility(
    weights: Mapping[str, Decimal], bars: Mapping[str, Sequence[Candle]]
) -> Decimal:
    """Annualised standard deviation of the weighted book's one-minute returns (365 days).

    Only minutes in which every symbol has a bar count; fewer than two returns give 0.
    """
    closes = {
        symbol: {candle.closes_at: float(candle.close) for candle in bars[symbol]}
        for symbol in weights
    }
    times = sorted(set.intersection(*(set(series) for series in closes.values())))
    returns = [
        sum(
            float(weight) * (closes[symbol][later] / closes[symbol][earlier] - 1)
            for symbol, weight in weights.items()
        )
        for earlier, later in pairwise(times)
    ]
    if len(returns) < 2:
        return Decimal(0)
    mean = sum(returns) / len(returns)
    variance = sum((value - mean) ** 2 for value in returns) / (len(returns) - 1)
    return decimal_from_float(round(math.sqrt(variance * MINUTES_PER_YEAR), 12))


def _journal(
    book: Book, snapshot: AccountSnapshot, policy: Policy, windows: Sequence[WindowRequest]
) -> dict[str, object]:
    """What the plan was made from, in decimal text: enough to make it again."""
    return {
        "base": plain(book.base),
        "equity": plain(snapshot.equity),
        "available": plain(book.available),
        "leverage": plain(policy.leverage),
        "threshold": plain(policy.threshold),
        "mode": policy.mode.value,
        "positions": {
            position.symbol: {
                "size": plain(position.size),
                "entry_price": plain(position.entry_price),
                "margin_size": plain(position.margin_size),
            }
            for position in snapshot.positions
        },
        "marks": {symbol: plain(mark) for symbol, mark in sorted(book.marks.items())},
        "windows": [
            {"assets": list(w.assets), "window": w.window, "frequency": w.frequency.value}
            for w in windows
        ],
    }


def _spell(targets: Mapping[str, Target]) -> dict[str, dict[str, str]]:
    spelled: dict[str, dict[str, str]] = {}
    for symbol, target in targets.items():
        fields = {"weight": plain(target.weight)}
        if target.stops.stop_loss is not None:
            fields["presetStopLossPrice"] = plain(target.stops.stop_loss)
        if target.stops.take_profit is not None:
            fields["presetStopSurplusPrice"] = plain(target.stops.take_profit)
        spelled[symbol] = fields
    return spelled


class _AheadMarket:
    """Answers the windows of the last cycle from what was fetched before the user's code ran."""

    def __init__(self, market: MarketData, windows: Sequence[WindowRequest], at: datetime) -> None:
        self._market = market
        self._ready: dict[tuple[tuple[str, ...], Frequency, int], Mapping[str, Sequence[Candle]]]
        self._ready = {}
        for window in windows:
            key = (window.assets, window.frequency, window.window)
            if key in self._ready:
                continue
            with contextlib.suppress(Rejected):  # if the strategy asks again, it reads why
                self._ready[key] = market.closed_bars(
                    window.assets, window.frequency, window.window, at
                )

    def closed_bars(
        self, symbols: Sequence[str], frequency: Frequency, window: int, end: datetime
    ) -> Mapping[str, Sequence[Candle]]:
        """From what is ready, else from the market."""
        found = self._ready.get((tuple(symbols), frequency, window))
        if found is not None:
            return found
        return self._market.closed_bars(symbols, frequency, window, end)


def policy_of(spec: SessionSpec) -> Policy:
    """The session's pinned rules for planning."""
    return Policy(
        mode=spec.trade_mode,
        market=spec.market,
        leverage=spec.leverage,
        threshold=spec.threshold,
        default_stop_loss_pct=spec.default_stop_loss_pct,
    )


def flat_policy(spec: SessionSpec) -> Policy:
    """The rules for leaving the account flat: the whole book, whatever the mode."""
    return replace(policy_of(spec), mode=TradeMode.REBALANCING)
