"""A seeded market without beginning or end: one factor, jumps, volatility clusters.

Daily levels are sums of value noise over octaves of 1 to 256 days (a random walk that stays within
its range for ever), so any day is computed without walking from the beginning of time. Within a
day every symbol follows beta x factor + its own noise, bridged between the two daily levels: a
day's last close is the next day's first open. Both generators, `random.Random` and numpy's frozen
`RandomState`, give the same numbers from the same seed in every version and on every machine.

Last trades at index x (1 + basis), the mark at half of the basis. The basis is drawn every hour
within +-0.04 % and moves in a straight line between; index and mark have a half and three quarters
of the wicks of last.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from random import Random
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from module.simulator.prices.instruments import (
    FuturesInstrument,
    SpotInstrument,
    futures_instrument,
    spot_instrument,
)
from module.simulator.prices.market_source import (
    FOREVER_MS,
    HOUR_MS,
    MINUTE_MS,
    Bar,
    FundingPoint,
    PriceKind,
)
from module.simulator.prices.minute_path import Ticks
from module.simulator.prices.tick_bars import TickBlock, TickScale

DAY_MINUTES = 1440
FUNDING_MS = 8 * HOUR_MS
_OCTAVES = 9
_DAYS_KEPT = 60
_FACTOR = "factor"
_BASIS_MAX = 40
"""In hundredths of a thousandth."""
_BASIS_UNIT = 60 * 100_000
_LEAN_DAYS_KEPT = 4
_DAY_BARS_KEPT = 50_000

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
_MINUTES: Floats = np.arange(DAY_MINUTES + 1, dtype=np.float64)

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class SymbolModel:
    """How one symbol moves: price it hovers around, share of the factor, own daily volatility."""

    symbol: str
    price: Decimal
    beta: float
    own_volatility: float
    turnover_usdt_per_minute: float


FACTOR_VOLATILITY = 0.022
MODELS = (
    SymbolModel("ADAUSDT", Decimal("0.7213"), 1.35, 0.026, 250_000),
    SymbolModel("AVAXUSDT", Decimal("27.413"), 1.40, 0.027, 200_000),
    SymbolModel("BCHUSDT", Decimal("431.57"), 1.15, 0.024, 150_000),
    SymbolModel("BNBUSDT", Decimal("612.34"), 0.85, 0.014, 300_000),
    SymbolModel("BTCUSDT", Decimal("68431.7"), 1.00, 0.006, 4_000_000),
    SymbolModel("DOGEUSDT", Decimal("0.18243"), 1.45, 0.033, 700_000),
    SymbolModel("ETHUSDT", Decimal("3187.42"), 1.15, 0.014, 2_500_000),
    SymbolModel("LINKUSDT", Decimal("15.873"), 1.30, 0.025, 200_000),
    SymbolModel("LTCUSDT", Decimal("91.37"), 1.05, 0.022, 150_000),
    SymbolModel("SOLUSDT", Decimal("163.291"), 1.40, 0.024, 1_200_000),
    SymbolModel("SUIUSDT", Decimal("2.8713"), 1.50, 0.034, 350_000),
    SymbolModel("XRPUSDT", Decimal("0.9137"), 1.20, 0.027, 800_000),
)


@dataclass(frozen=True, slots=True)
class _DayShape:
    """The noise of one name on one day: cumulated minute returns and their volatility."""

    path: Floats
    """1441 values, from 0 to 0: the walk with its trend taken out."""
    volatility: Floats
    """Standard deviation of each of the 24 hours' minute returns."""


class SyntheticMarket:
    """A market made from a seed; the same seed gives the same bars for ever."""

    def __init__(self, seed: int, models: Sequence[SymbolModel] = MODELS) -> None:
        self._seed = seed
        self._models = {model.symbol: model for model in models}
        names = sorted(self._models)
        self._futures = tuple(futures_instrument(n, self._models[n].price) for n in names)
        self._spot = tuple(spot_instrument(n, self._models[n].price) for n in names)
        self._scales = {
            rules.symbol: TickScale(rules.price_step, rules.size_step) for rules in self._futures
        }
        self._blocks: OrderedDict[tuple[str, int], TickBlock] = OrderedDict()
        self._days: OrderedDict[tuple[str, int, PriceKind], tuple[Ticks, int, int]] = OrderedDict()
        self._leaning: OrderedDict[tuple[str, int, PriceKind], TickBlock] = OrderedDict()
        self._factor_days: OrderedDict[int, _DayShape] = OrderedDict()
        self._generator = np.random.RandomState(0)
        self._noise = lru_cache(maxsize=65_536)(self._draw)

    # -- MarketSource -------------------------------------------------------------------------

    @property
    def market_id(self) -> str:
        """`synthetic:<seed>`."""
        return f"synthetic:{self._seed}"

    def futures(self) -> Sequence[FuturesInstrument]:
        """One contract per model."""
        return self._futures

    def spot(self) -> Sequence[SpotInstrument]:
        """One pair per model."""
        return self._spot

    def span(self, symbol: str | None = None) -> tuple[int | None, int | None]:
        """Endless both ways."""
        return None, None

    def native_minutes(self, symbol: str) -> int:
        """Minutes are what it is made of."""
        return 1

    def bar(
        self,
        symbol: str,
        open_ms: int,
        kind: PriceKind = PriceKind.LAST,
        low_first: bool | None = None,
    ) -> Bar | None:
        """The minute that opens at `open_ms`; there is always one."""
        return self.merged_bar(symbol, open_ms, 1, kind)

    def latest_bar(self, symbol: str, open_ms: int) -> Bar | None:
        """The same as `bar`."""
        return self.bar(symbol, open_ms - open_ms % MINUTE_MS)

    def merged_bar(
        self, symbol: str, open_ms: int, minutes: int, kind: PriceKind = PriceKind.LAST
    ) -> Bar | None:
        """Minutes as one bar, day by day."""
        if symbol not in self._models or minutes <= 0:
            return None
        parts = [
            self._day(symbol, day, kind)
            if end - first == DAY_MINUTES
            else self._block_of(symbol, day, kind).merged(first, end)
            for day, first, end in _days(open_ms, minutes)
        ]
        ticks = (
            parts[0][0][0],
            max(part[0][1] for part in parts),
            min(part[0][2] for part in parts),
            parts[-1][0][3],
        )
        lots = sum(part[1] for part in parts)
        return self._scales[symbol].bar(open_ms, ticks, lots, sum(part[2] for part in parts))

    def extremes(
        self, symbol: str, open_ms: int, minutes: int, kind: PriceKind = PriceKind.LAST
    ) -> tuple[Decimal, Decimal] | None:
        """Lowest and highest price of these minutes."""
        if symbol not in self._models or minutes <= 0:
            return None
        parts = [
            self._block_of(symbol, day, kind).extremes(first, end)
            for day, first, end in _days(open_ms, minutes)
        ]
        step = self._scales[symbol].price_step
        return min(part[0] for part in parts) * step, max(part[1] for part in parts) * step

    def funding_interval_h(self, symbol: str, at_ms: int) -> int:
        """Hours between settlements."""
        return FUNDING_MS // HOUR_MS

    def known_until_ms(self, now_ms: int) -> int:
        """All of it is known."""
        return FOREVER_MS

    def next_funding(self, symbol: str, after_ms: int) -> FundingPoint | None:
        """Every eight hours."""
        if symbol not in self._models:
            return None
        settlement_ms = (after_ms // FUNDING_MS + 1) * FUNDING_MS
        return FundingPoint(settlement_ms, self._funding_rate(symbol, settlement_ms))

    def funding_between(self, symbol: str, first_ms: int, last_ms: int) -> Sequence[FundingPoint]:
        """The settlements of [first_ms, last_ms]."""
        if symbol not in self._models:
            return ()
        first = -(-first_ms // FUNDING_MS) * FUNDING_MS
        return tuple(
            FundingPoint(moment, self._funding_rate(symbol, moment))
            for moment in range(first, last_ms + 1, FUNDING_MS)
        )

    def _funding_rate(self, symbol: str, settlement_ms: int) -> Decimal:
        """Around 0.01 %, sometimes negative, within +-0.075 %."""
        random = _seeded(f"{self._seed}:funding:{symbol}:{settlement_ms}")
        millionths = round(100 + random.gauss(0.0, 90.0))
        return Decimal(max(-750, min(750, millionths))).scaleb(-6)

    # -- daily levels -------------------------------------------------------------------------

    def _draw(self, name: str, octave: int, index: int) -> float:
        return _seeded(f"{self._seed}:{name}:{octave}:{index}").gauss(0.0, 1.0)

    def _value_noise(self, name: str, day: int, octave: int) -> float:
        index, rest = divmod(day, 1 << octave)
        share = rest / (1 << octave)
        here = self._noise(name, octave, index)
        return here + (self._noise(name, octave, index + 1) - here) * share if share else here

    def _level(self, name: str, day: int, volatility: float) -> float:
        """Log level at the start of a day. Daily changes have about `volatility`."""
        total = 0.0
        for octave in range(_OCTAVES):
            total += math.sqrt(1 << octave) * self._value_noise(name, day, octave)
        return total * volatility / 2.0

    def _log_price(self, symbol: str, day: int) -> float:
        model = self._models[symbol]
        level = model.beta * self._level(_FACTOR, day, FACTOR_VOLATILITY)
        return level + self._level(symbol, day, model.own_volatility)

    # -- one day ------------------------------------------------------------------------------

    def _frozen(self, random: Random) -> np.random.RandomState:
        """numpy's generator whose numbers never change between versions, seeded by `random`.

        One for all: making one costs more than the numbers of a day.
        """
        self._generator.seed([random.getrandbits(32) for _ in range(4)])
        return self._generator

    def _shape(self, name: str, day: int, volatility: float) -> _DayShape:
        """Minute noise with volatility clusters and, on some days, a jump."""
        random = _seeded(f"{self._seed}:day:{name}:{day}")
        calm = math.exp(0.45 * self._value_noise(name + ":volatility", day, 2))
        minute_volatility = volatility * calm / math.sqrt(DAY_MINUTES)
        jump_at = random.randrange(DAY_MINUTES) if random.random() < 0.12 else -1
        jump = random.gauss(0.0, 1.3 * volatility)
        state = random.gauss(0.0, 0.35)
        hours: list[float] = []
        for _ in range(DAY_MINUTES // 60):
            state = 0.8 * state + random.gauss(0.0, 0.25)
            hours.append(minute_volatility * math.exp(state))
        volatilities = np.array(hours)
        returns = self._frozen(random).standard_normal(DAY_MINUTES) * np.repeat(volatilities, 60)
        if jump_at >= 0:
            returns[jump_at] += jump
        path = np.concatenate(([0.0], np.cumsum(returns)))
        return _DayShape(path - path[-1] / DAY_MINUTES * _MINUTES, volatilities)

    def _factor_day(self, day: int) -> _DayShape:
        found = self._factor_days.get(day)
        if found is None:
            found = self._shape(_FACTOR, day, FACTOR_VOLATILITY)
            _keep(self._factor_days, day, found, _DAYS_KEPT)
        return found

    def _block(self, symbol: str, day: int) -> TickBlock:
        key = (symbol, day)
        found = self._blocks.get(key)
        if found is None:
            found = self._make_block(symbol, day)
            _keep(self._blocks, key, found, _DAYS_KEPT * len(self._models))
        return found

    def _day(self, symbol: str, day: int, kind: PriceKind) -> tuple[Ticks, int, int]:
        key = (symbol, day, kind)
        found = self._days.get(key)
        if found is None:
            found = self._block_of(symbol, day, kind).merged(0, DAY_MINUTES)
            _keep(self._days, key, found, _DAY_BARS_KEPT)
        return found

    def _block_of(self, symbol: str, day: int, kind: PriceKind) -> TickBlock:
        if kind is PriceKind.LAST:
            return self._block(symbol, day)
        key = (symbol, day, kind)
        found = self._leaning.get(key)
        if found is None:
            basis = [self._basis(symbol, day * 24 + hour) for hour in range(25)]
            found = _leaned(self._block(symbol, day), basis, kind)
            _keep(self._leaning, key, found, 2 * _LEAN_DAYS_KEPT * len(self._models))
        return found

    def _basis(self, symbol: str, hour: int) -> int:
        return _seeded(f"{self._seed}:basis:{symbol}:{hour}").randint(-_BASIS_MAX, _BASIS_MAX)

    def _make_block(self, symbol: str, day: int) -> TickBlock:
        model = self._models[symbol]
        factor = self._factor_day(day)
        own = self._shape(symbol, day, model.own_volatility)
        start, end = self._log_price(symbol, day), self._log_price(symbol, day + 1)
        drift = (end - start) / DAY_MINUTES
        scale = self._scales[symbol]
        base = float(model.price / scale.price_step)
        logs = start + drift * _MINUTES + model.beta * factor.path + own.path
        exponentials = np.array([math.exp(value) for value in logs.tolist()])
        marks = np.maximum(1, np.rint(base * exponentials).astype(np.int64))
        lots_per_minute = model.turnover_usdt_per_minute / float(model.price * scale.size_step)
        spreads = np.sqrt((model.beta * factor.volatility) ** 2 + own.volatility**2)
        random = _seeded(f"{self._seed}:bars:{symbol}:{day}")
        return _dressed(marks, np.repeat(spreads, 60), lots_per_minute, self._frozen(random))


def _dressed(
    marks: Whole, spreads: Floats, lots_per_minute: float, random: np.random.RandomState
) -> TickBlock:
    """Bars between the 1441 `marks` of a day, with wicks and volumes of an exponential law.

    `spreads` is the standard deviation of each minute's return.
    """
    above, below, busy = random.standard_exponential((3, DAY_MINUTES))
    opens, closes = marks[:-1], marks[1:]
    tops, bottoms = np.maximum(opens, closes), np.minimum(opens, closes)
    reach = opens * spreads * 0.5
    highs = tops + np.rint(reach * above).astype(np.int64)
    lows = np.maximum(1, bottoms - np.rint(reach * below).astype(np.int64))
    surprise = (tops - bottoms) / (opens * spreads)
    lots = np.rint(lots_per_minute * (0.3 + 0.5 * surprise + busy / 2.0)).astype(np.int64)
    return TickBlock.of(opens, highs, lows, closes, np.maximum(1, lots))


def _leaned(last: TickBlock, basis: Sequence[int], kind: PriceKind) -> TickBlock:
    """Index or mark of one day: last without its basis (mark: half of it), with shorter wicks."""
    halves, wick_quarters = (2, 2) if kind is PriceKind.INDEX else (1, 3)
    hours = np.array(basis, dtype=np.int64)
    minutes = np.arange(60)
    # the basis on the straight line between two hours, times sixty
    between = np.outer(hours[:-1], 60 - minutes) + np.outer(hours[1:], minutes)
    shares = np.append(between.ravel(), hours[-1] * 60) * halves
    opens, highs, lows, closes = (np.array(column) for column in last.prices())
    above, below = highs - np.maximum(opens, closes), np.minimum(opens, closes) - lows
    opens = opens - opens * shares[:-1] // (2 * _BASIS_UNIT)
    closes = closes - closes * shares[1:] // (2 * _BASIS_UNIT)
    highs = np.maximum(opens, closes) + above * wick_quarters // 4
    lows = np.minimum(opens, closes) - below * wick_quarters // 4
    opens, highs, lows, closes = (np.maximum(1, column) for column in (opens, highs, lows, closes))
    return TickBlock.of(opens, highs, lows, closes, np.zeros(DAY_MINUTES, dtype=np.int64))


def _days(open_ms: int, minutes: int) -> Iterator[tuple[int, int, int]]:
    """The days that some minutes lie in, each with its first minute and the one after its last."""
    first = open_ms // MINUTE_MS
    end = first + minutes
    while first < end:
        day, minute = divmod(first, DAY_MINUTES)
        count = min(end - first, DAY_MINUTES - minute)
        yield day, minute, minute + count
        first += count


def _seeded(text: str) -> Random:
    """A generator that depends on `text` alone, on every machine."""
    return Random(text)  # noqa: S311  prices of a simulation, not a secret


def _keep(cache: OrderedDict[Key, Value], key: Key, value: Value, size_max: int) -> None:
    """Remember `value`, forgetting what was made longest ago."""
    cache[key] = value
    while len(cache) > size_max:
        cache.popitem(last=False)
