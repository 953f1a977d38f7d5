"""What a strategy returned → targets that can be planned. First step of a cycle's decision.

A target is refused here or it is within the limits: |weight| sums to at most 1, spot is never
short, every number is finite, every symbol is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from module.model.errors import InvalidInput, StrategyFailed
from module.model.market import Instrument, MarketType
from module.model.money import ONE, ZERO, parse_decimal
from module.model.orders import NO_STOPS, StopPrices

WEIGHT_SUM_TOLERANCE = Decimal("1e-9")
SYMBOLS_MAX = 500
PRICE_MAX = Decimal("1e12")
_STOP_KEYS = {
    "presetStopSurplusPrice": "take_profit",
    "presetStopLossPrice": "stop_loss",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What one symbol should be. `weight` is a signed fraction of the base put up as margin."""

    symbol: str
    weight: Decimal
    stops: StopPrices = NO_STOPS


def read_targets(
    returned: Mapping[str, Mapping[str, str]],
    instruments: Mapping[str, Instrument],
    market: MarketType,
) -> dict[str, Target]:
    """Turn a strategy's answer (numbers as decimal text) into targets, sorted by symbol.

    StrategyFailed names the symbol and what is wrong with it. A sum of |weight| over 1 by at most
    1e-9 (rounding in the user's own arithmetic) is scaled back to exactly 1.
    """
    if len(returned) > SYMBOLS_MAX:
        raise StrategyFailed(
            f"the strategy returned {len(returned)} symbols; at most {SYMBOLS_MAX}"
        )
    targets: dict[str, Target] = {}
    for symbol in sorted(returned):
        targets[symbol] = _read_target(symbol, returned[symbol], instruments, market)
    total = sum((abs(target.weight) for target in targets.values()), ZERO)
    if total > ONE + WEIGHT_SUM_TOLERANCE:
        raise StrategyFailed(
            f"the absolute weights add up to {total}; at most 1 is allowed. Nothing is traded"
        )
    if total > ONE:
        targets = {
            symbol: Target(symbol, target.weight / total, target.stops)
            for symbol, target in targets.items()
        }
    return targets


def recorded_target(symbol: str, fields: Mapping[str, str]) -> Target:
    """A target as a letter keeps it: `read_targets` has judged it before it was planned."""
    stops = {name: Decimal(fields[key]) for key, name in _STOP_KEYS.items() if key in fields}
    return Target(symbol, Decimal(fields.get("weight", "0")), StopPrices(**stops))


def _read_target(
    symbol: str,
    fields: Mapping[str, str],
    instruments: Mapping[str, Instrument],
    market: MarketType,
) -> Target:
    if symbol not in instruments:
        raise StrategyFailed(f"the strategy returned the unknown symbol {symbol!r}")
    if "weight" not in fields:
        raise StrategyFailed(f"the strategy returned no weight for {symbol}")
    unknown = sorted(set(fields) - {"weight", *_STOP_KEYS})
    if unknown:
        raise StrategyFailed(f"the strategy returned unknown fields for {symbol}: {unknown}")
    try:
        weight = parse_decimal(fields["weight"], name=f"weight of {symbol}")
        stops = {
            name: parse_decimal(fields[key], name=f"{key} of {symbol}")
            for key, name in _STOP_KEYS.items()
            if key in fields
        }
    except InvalidInput as error:
        raise StrategyFailed(f"the strategy's answer cannot be used: {error.message}") from error
    if abs(weight) > ONE + WEIGHT_SUM_TOLERANCE:
        raise StrategyFailed(
            f"weight of {symbol} is {weight:.6g}; at most 1 is allowed. Nothing is traded"
        )
    for name, price in stops.items():
        if not 0 < price <= PRICE_MAX:
            raise StrategyFailed(
                f"the strategy returned {name} {price:.6g} for {symbol}; "
                f"it must be above 0 and at most {PRICE_MAX:g}"
            )
    if market is MarketType.SPOT and weight < 0:
        raise StrategyFailed(f"weight of {symbol} is {weight}: a spot account cannot be short")
    return Target(
        symbol,
        weight,
        StopPrices(stop_loss=stops.get("stop_loss"), take_profit=stops.get("take_profit")),
    )


def scale_to_volatility(
    targets: Mapping[str, Target], realized_volatility: Decimal, target_volatility: Decimal
) -> dict[str, Target]:
    """Scale all weights by target ÷ realised volatility, capped so that Σ|weight| ≤ 1.

    Both volatilities are annualised fractions. A realised volatility of 0 (nothing moved, or
    nothing is held) leaves the weights as they are: there is nothing to scale by.
    """
    if realized_volatility <= 0:
        return dict(targets)
    total = sum((abs(target.weight) for target in targets.values()), ZERO)
    if total == 0:
        return dict(targets)
    factor = min(target_volatility / realized_volatility, ONE / total)
    return {
        symbol: Target(symbol, target.weight * factor, target.stops)
        for symbol, target in targets.items()
    }
