"""Until when a symbol may be left alone: no order, trigger or margin can be reached before.

    engine (after every moment) -> settle -> Attention.sleep_until

Two proofs make a symbol quiet over a stretch of time, from the bounds of its prices in it:
no resting order and no trigger lies within them, and the marks stay in the band in which none of
the holders can be liquidated. A band is found once per change of an account, for all its crossed
symbols together: equity in the worst corner of the bands still covers the requirement in the
worst corner (tiers never ask for less of a larger position). Where a proof fails the symbol is
looked at at every point of the price grid, as if there were no proofs: what happens is the same
either way, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from module.simulator.engine.account_state import AccountState
from module.simulator.engine.attention import Band, next_point_ms
from module.simulator.engine.engine_records import PositionRecord
from module.simulator.engine.engine_types import NEVER_MS, MarginMode, MarketType, TriggerType
from module.simulator.engine.price_feed import MinuteRanges
from module.simulator.engine.valuation import requirement_rate
from module.simulator.engine.world import World
from module.simulator.prices.market_source import MINUTE_MS

ZERO = Decimal(0)
NO_LIMIT = Decimal("Infinity")
_SAFETY = Decimal("0.000001")
"""USDT that must remain in the worst corner: far more than any rounding."""
_REACHES = tuple(Decimal(each) / 1000 for each in (500, 300, 200, 120, 70, 40, 20, 10, 5, 2))
"""Half widths of a band, as shares of the mark, that are tried."""
_STRETCH_MINUTES_MAX = 1440
_GROWTH = 4
"""A symbol that was left alone for a while is tried for this many times as long: looking far
ahead costs, and is wasted on a symbol of somebody who trades every minute."""


def settle(world: World, looked: Iterable[str], calmed: Iterable[str]) -> None:
    """After a moment: `looked` symbols and `calmed` accounts have been dealt with; go to sleep."""
    symbols = dict.fromkeys(looked)
    account_ids = dict.fromkeys(calmed)
    renewed = set(account_ids)
    for symbol in symbols:
        account_ids.update((account_id, None) for account_id, _ in world.holders.get(symbol, ()))
    if world.sleeps:
        for account_id in account_ids:
            account = world.accounts[account_id]
            if account_id in renewed or not _in_bands(world, account, symbols):
                world.attention.bands[account_id] = _safe_bands(world, account)
                symbols.update((symbol, None) for symbol, _ in account.positions)
    for symbol in symbols:
        world.attention.sleep_until(symbol, _quiet_until_ms(world, symbol), world.now_ms)


# -- liquidation ------------------------------------------------------------------------------


def _in_bands(world: World, account: AccountState, symbols: Iterable[str]) -> bool:
    bands = world.attention.bands.get(account.account_id, {})
    for symbol in symbols:
        if account.holds(symbol):
            band = bands.get(symbol)
            if band is None or not band.low < world.mark(symbol) < band.high:
                return False
    return True


def _safe_bands(world: World, account: AccountState) -> dict[str, Band]:
    """Marks that cannot liquidate the account as it is; a symbol without a proof is left out."""
    crossed: dict[str, list[PositionRecord]] = {}
    isolated: dict[str, list[PositionRecord]] = {}
    equity = world.ledger.balance(world.futures_wallet(account))
    for position in account.positions.values():
        if position.margin_mode is MarginMode.CROSSED:
            crossed.setdefault(position.symbol, []).append(position)
        else:
            equity -= position.isolated_margin
            isolated.setdefault(position.symbol, []).append(position)
    bands = _joint_bands(world, crossed, equity)
    for symbol, positions in isolated.items():
        alone = [
            _joint_bands(world, {symbol: [position]}, position.isolated_margin).get(symbol)
            for position in positions
        ]
        found = [band for band in alone if band is not None]
        if len(found) == len(positions):
            bands[symbol] = Band(max(b.low for b in found), min(b.high for b in found))
    return bands


def _joint_bands(
    world: World, positions: dict[str, list[PositionRecord]], money: Decimal
) -> dict[str, Band]:
    """The widest bands in which `money` and the positions' profits cover what they must keep."""
    marks = {symbol: world.mark(symbol) for symbol in positions}
    for reach in _REACHES:
        left = money
        for symbol, legs in positions.items():
            low, high = marks[symbol] * (1 - reach), marks[symbol] * (1 + reach)
            net = sum((leg.signed_size for leg in legs), ZERO)
            cost = sum((leg.signed_size * leg.entry_price for leg in legs), ZERO)
            notional = high * max(leg.size for leg in legs)
            left += min(net * low, net * high) - cost
            left -= notional * requirement_rate(world, symbol, notional)
        if left > _SAFETY:
            return {
                symbol: Band(mark * (1 - reach), mark * (1 + reach))
                for symbol, mark in marks.items()
            }
    return {}


# -- orders, triggers and bands of one symbol -------------------------------------------------


@dataclass(slots=True)
class _Limits:
    """What prices must not reach. Orders rest at or beyond theirs, triggers fire at theirs."""

    order_low: Decimal = ZERO
    order_high: Decimal = NO_LIMIT
    last_low: Decimal = ZERO
    last_high: Decimal = NO_LIMIT
    mark_low: Decimal = ZERO
    mark_high: Decimal = NO_LIMIT

    def keep(self, ranges: MinuteRanges, band: Decimal) -> bool:
        """No price within the ranges reaches anything.

        The book stands around last, kept within mark x (1 +- band): orders see both.
        """
        return (
            self.last_low < ranges.last_low
            and ranges.last_high < self.last_high
            and self.mark_low < ranges.mark_low
            and ranges.mark_high < self.mark_high
            and self.order_low < min(ranges.last_low, ranges.mark_low * (1 + band))
            and self.order_high > max(ranges.last_high, ranges.mark_high * (1 - band))
        )


def _limits(world: World, symbol: str) -> _Limits | None:
    """What the prices of a symbol can reach; None if every single point matters."""
    limits = _Limits()
    for order in world.resting.get(symbol, {}).values():
        price = order.price or ZERO
        if order.direction > 0:
            limits.order_low = max(limits.order_low, price)
        else:
            limits.order_high = min(limits.order_high, price)
    for plan in world.plans.get(symbol, {}).values():
        if plan.best_price is not None:
            return None  # it follows the price
        trigger = plan.trigger_price
        on_mark = plan.trigger_type is TriggerType.MARK_PRICE
        if plan.fires_above and on_mark:
            limits.mark_high = min(limits.mark_high, trigger)
        elif plan.fires_above:
            limits.last_high = min(limits.last_high, trigger)
        elif on_mark:
            limits.mark_low = max(limits.mark_low, trigger)
        else:
            limits.last_low = max(limits.last_low, trigger)
    for account_id, _ in world.holders.get(symbol, {}):
        band = world.attention.bands.get(account_id, {}).get(symbol)
        if band is None:
            return None
        limits.mark_low = max(limits.mark_low, band.low)
        limits.mark_high = min(limits.mark_high, band.high)
    return limits


def _quiet_until_ms(world: World, symbol: str) -> int:
    """The next moment at which `symbol` must be looked at; NEVER_MS if nobody cares about it."""
    if not (symbol in world.resting or symbol in world.plans or symbol in world.holders):
        return NEVER_MS
    now_ms = world.now_ms
    limits = _limits(world, symbol) if world.sleeps else None
    if limits is None:
        return next_point_ms(now_ms)
    market = MarketType.FUTURES if symbol in world.futures else MarketType.SPOT
    rules = world.futures[symbol] if market is MarketType.FUTURES else world.spot[symbol]
    ranges = world.prices.minute_ranges(symbol, now_ms)
    if ranges is None or not limits.keep(ranges, rules.price_band):
        return next_point_ms(now_ms)
    minute_end_ms = now_ms - now_ms % MINUTE_MS + MINUTE_MS
    latest_ms = max(minute_end_ms, world.market.known_until_ms(now_ms))
    until_ms = minute_end_ms
    rested_minutes = (now_ms - world.attention.looked_ms(symbol)) // MINUTE_MS
    minutes = min(_STRETCH_MINUTES_MAX, max(1, _GROWTH * rested_minutes))
    while minutes and latest_ms > minute_end_ms:
        tried_ms = min(minute_end_ms + minutes * MINUTE_MS, latest_ms)
        ahead = world.prices.ranges_until(symbol, now_ms, tried_ms - 1)
        if ahead is not None and limits.keep(ahead, rules.price_band):
            until_ms = tried_ms
            break
        minutes //= _GROWTH
    delisted_ms = world.delisted_ms(symbol)
    return until_ms if delisted_ms <= now_ms else min(until_ms, delisted_ms)
