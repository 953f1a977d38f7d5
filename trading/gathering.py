"""Gathers what a plan depends on: the effects before `decide`, for sessions and previews.

    exchange: instruments, snapshot, quotes (while the bar is on its way) ─┐
    market ─► SeenMarket ─► runner (the user's function) ─► answer ────────┴─► CycleInputs ─► decide

Everything that was read is in the inputs, or named there by a digest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import TypeVar

from module.model.accounts import AccountSnapshot
from module.model.errors import (
    InvalidInput,
    NotFound,
    Retryable,
    Unavailable,
)
from module.model.market import Candle, Frequency, Instrument, Quote
from module.model.money import ONE, ZERO, decimal_from_float
from module.model.sessions import SessionSpec, TradeMode
from module.ports import Exchange, MarketData
from trading.rebalance.bars_seen import BarsSeen, see_bars, see_refusal
from trading.rebalance.decision import AccountInputs, CycleInputs, StrategyCall
from trading.rebalance.doubts import doubts_about
from trading.rebalance.plan import Policy
from trading.rebalance.weights import read_targets

AWAY = "away"  # how the reason of a cycle begins that the exchange missed
VOLATILITY_BARS = 240
VOLATILITY_RETURNS_MIN = 30
MINUTES_PER_YEAR = 365 * 24 * 60
T = TypeVar("T")


class ExchangeAway(Unavailable):
    """The account could not be read: no fault of the strategy, and the session waits."""

    code = AWAY


@dataclass(frozen=True, slots=True)
class House:
    """What of the installation a decision depends on: its build, the zone that user code sees."""

    build: str = ""
    timezone: str = "Asia/Seoul"


UNNAMED = House()


OwnPart = Callable[[AccountSnapshot, Collection[str]], AccountSnapshot]


def everything(snapshot: AccountSnapshot, _named: Collection[str]) -> AccountSnapshot:
    """All of the account is the session's."""
    return snapshot


@dataclass(frozen=True, slots=True)
class AccountReading:
    """What the exchange said at one time: rules, the whole account, quotes of what was likely to be
    needed."""

    instruments: Mapping[str, Instrument]
    snapshot: AccountSnapshot
    quotes: Mapping[str, Quote]


@dataclass(frozen=True, slots=True)
class Gatherer:
    """Gathers for one session (or for what would be one). `initial_balance`: the equity at its
    start. `own`: a snapshot with only what the session may touch, the symbols that it names being
    among that (on spot the session's own coins)."""

    spec: SessionSpec
    policy: Policy
    exchange: Exchange
    initial_balance: Callable[[], Decimal]
    house: House = UNNAMED
    own: OwnPart = everything

    def read_account(self, likely: Collection[str]) -> AccountReading:
        """What does not depend on the strategy's answer; `likely`: the symbols that it may name.

        ExchangeAway while the account cannot be read.
        """
        instruments = _asked(self.exchange.instruments)
        snapshot = _asked(self.exchange.snapshot)
        named = named_in(likely, snapshot) & set(instruments)
        return AccountReading(instruments, snapshot, self._quotes(snapshot, sorted(named)))

    def gather(
        self,
        at: datetime,
        answer: Mapping[str, Mapping[str, str]],
        market: SeenMarket,
        reading: AccountReading | None = None,
    ) -> CycleInputs:
        """The inputs of the plan for `at`, `answer` being what the strategy returned through
        `market` (or weights given by hand). `reading`: the account as read a moment ago; None: it
        is read now.

        StrategyFailed when the answer cannot be used; ExchangeAway while the account cannot be
        read; NotYet and Unavailable as the market raises them.
        """
        strategy_bars = len(market.seen)
        read = self.read_account(answer) if reading is None else reading
        instruments = read.instruments
        snapshot = _asked(lambda: self.own(read.snapshot, set(answer)))
        spec, policy = self.spec, self.policy
        measured = measure_volatility(answer, instruments, policy, market, at)
        named = named_in(answer, snapshot)
        quotes = self._quotes(snapshot, sorted(named), read.quotes)
        marks = marks_of(snapshot, quotes)
        return CycleInputs(
            session_id=spec.session_id,
            cycle=at,
            policy=policy,
            account=AccountInputs.of(snapshot),
            initial_balance=self.initial_balance(),
            allocated=spec.allocated,
            compounding=spec.compounding,
            answer={name: dict(fields) for name, fields in sorted(answer.items())},
            marks=marks,
            instruments={name: instruments[name] for name in sorted(named & set(instruments))},
            call=self._call(),
            bars=tuple(each.asked for each in market.seen),
            strategy_bars=strategy_bars,
            target_volatility=spec.target_volatility,
            realized_volatility=measured.of_book,
            spreads=_half_spreads(quotes) if policy.no_trade_band is not None else {},
            volatility=dict(measured.by_symbol),
            doubted=doubts_about(marks, quotes, [each.bars for each in market.seen], at),
            build=self.house.build,
        )

    def _call(self) -> StrategyCall:
        spec = self.spec
        config = json.dumps(spec.config, separators=(",", ":"), ensure_ascii=False)
        return StrategyCall(
            spec.owner_id, spec.strategy_name, spec.strategy_digest, config, self.house.timezone
        )

    def _quotes(
        self,
        snapshot: AccountSnapshot,
        named: Sequence[str],
        known: Mapping[str, Quote] | None = None,
    ) -> dict[str, Quote]:
        """Quotes of what the snapshot does not price, and with bands of everything; one that has
        none (delisted, A20; an odd row, C1) is left out: the plan skips it with a reason, and the
        others are traded. Those in `known` are not asked for again."""
        held = {position.symbol for position in snapshot.positions}
        needs_spread = self.policy.no_trade_band is not None
        needed = [symbol for symbol in named if needs_spread or symbol not in held]
        found = {symbol: known[symbol] for symbol in needed if known and symbol in known}
        wanted = [symbol for symbol in needed if symbol not in found]
        return {**found, **self._quotes_there(wanted)} if wanted else found

    def _quotes_there(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Halves are asked for until what has no quote stands alone: of 30 symbols one costs some
        ten questions."""
        try:
            return _asked(partial(self.exchange.quotes, symbols))
        except NotFound:
            if len(symbols) == 1:
                return {}
        half = len(symbols) // 2
        return {**self._quotes_there(symbols[:half]), **self._quotes_there(symbols[half:])}


def named_in(answer: Collection[str], snapshot: AccountSnapshot) -> set[str]:
    """Every symbol that a plan may speak of: returned, held, or with an order that waits."""
    held = {position.symbol for position in snapshot.positions}
    return set(answer) | held | {order.symbol for order in snapshot.open_orders}


def marks_of(snapshot: AccountSnapshot, quotes: Mapping[str, Quote]) -> dict[str, Decimal]:
    """Of what is held the snapshot's own, that sized its margin; of the others the quote's."""
    marks = {symbol: quote.mark for symbol, quote in quotes.items()}
    marks.update({position.symbol: position.mark_price for position in snapshot.positions})
    return dict(sorted(marks.items()))


def _half_spreads(quotes: Mapping[str, Quote]) -> dict[str, Decimal]:
    """Half of ask − bid as a fraction of the mark: what a market order pays besides its fee."""
    return {
        symbol: max(quote.ask - quote.bid, ZERO) / 2 / quote.mark
        for symbol, quote in sorted(quotes.items())
        if quote.mark > 0
    }


def _asked(read: Callable[[], T]) -> T:
    try:
        return read()
    except Retryable as error:
        raise ExchangeAway(error.message) from error


# --- bars -----------------------------------------------------------------------------------------


class SeenMarket:
    """The market as one cycle sees it: every request is answered once, and remembered."""

    def __init__(self, market: MarketData) -> None:
        self._market = market
        self._seen: dict[tuple[tuple[str, ...], Frequency, int], BarsSeen] = {}

    @property
    def seen(self) -> tuple[BarsSeen, ...]:
        """What was asked so far, each window once, in the order of the first request."""
        return tuple(self._seen.values())

    def closed_bars(
        self, symbols: Sequence[str], frequency: Frequency, window: int, end: datetime
    ) -> Mapping[str, Sequence[Candle]]:
        """From what was seen, else from the market."""
        key = (tuple(symbols), frequency, window)
        known = self._seen.get(key)
        if known is not None and not known.asked.refusal:
            return known.bars
        try:
            bars = self._market.closed_bars(symbols, frequency, window, end)
        except (NotFound, InvalidInput) as error:
            self._seen[key] = see_refusal(symbols, frequency, window, error)
            raise
        self._seen[key] = see_bars(symbols, frequency, window, bars)
        return bars


@dataclass(frozen=True, slots=True)
class Measured:
    """Annualised volatilities as fractions: of the weighted book (None: not needed, or it holds
    nothing), and by symbol where the policy needs them."""

    of_book: Decimal | None
    by_symbol: Mapping[str, Decimal]


def measure_volatility(
    answer: Mapping[str, Mapping[str, str]],
    instruments: Mapping[str, Instrument],
    policy: Policy,
    market: MarketData,
    at: datetime,
) -> Measured:
    """What the policy needs of the last VOLATILITY_BARS minutes of the symbols in `answer`.

    StrategyFailed when the answer cannot be used; Unavailable when there are too few minutes to
    scale a book by. A symbol with too few has no volatility of its own, and so no band.
    """
    targets = read_targets(answer, instruments, policy.market)
    weights = {name: each.weight for name, each in targets.items() if each.weight != 0}
    scales = policy.mode is TradeMode.VOLATILITY_TARGETING
    if not weights or not (scales or policy.no_trade_band is not None):
        return Measured(None, {})
    bars = market.closed_bars(sorted(weights), Frequency.MINUTE_1, VOLATILITY_BARS, at)
    of_book = _book_volatility(weights, bars) if scales else None
    by_symbol: dict[str, Decimal] = {}
    if policy.no_trade_band is not None:
        for symbol in sorted(weights):
            returns = minute_returns({symbol: ONE}, bars)
            if len(returns) >= VOLATILITY_RETURNS_MIN:
                by_symbol[symbol] = annualised_deviation(returns)
    return Measured(of_book, by_symbol)


def _book_volatility(
    weights: Mapping[str, Decimal], bars: Mapping[str, Sequence[Candle]]
) -> Decimal:
    returns = minute_returns(weights, bars)
    if len(returns) < VOLATILITY_RETURNS_MIN:
        raise Unavailable(
            f"the volatility of {', '.join(sorted(weights))[:200]} cannot be measured: there are "
            f"{len(returns)} one-minute returns that all of them have, {VOLATILITY_RETURNS_MIN} "
            "are needed; nothing is traded until there are"
        )
    return annualised_deviation(returns)


def minute_returns(
    weights: Mapping[str, Decimal], bars: Mapping[str, Sequence[Candle]]
) -> list[float]:
    """Returns of the weighted book from minute to minute, oldest first.

    Only pairs of neighbouring minutes count in which every symbol has a bar with a price above
    zero: a gap is no return.
    """
    closes = {
        symbol: {
            candle.closes_at: float(candle.close)
            for candle in bars.get(symbol, ())
            if candle.close.is_finite() and candle.close > 0
        }
        for symbol in weights
    }
    times = sorted(set.intersection(*(set(series) for series in closes.values())))
    return [
        sum(
            float(weight) * (closes[symbol][later] / closes[symbol][earlier] - 1)
            for symbol, weight in weights.items()
        )
        for earlier, later in pairwise(times)
        if later - earlier == Frequency.MINUTE_1.length
    ]


def annualised_deviation(returns: Sequence[float]) -> Decimal:
    """Sample standard deviation of at least two one-minute returns × √(minutes of 365 days)."""
    mean = sum(returns) / len(returns)
    variance = sum((value - mean) ** 2 for value in returns) / (len(returns) - 1)
    return decimal_from_float(round(math.sqrt(variance * MINUTES_PER_YEAR), 12))
