"""Scripted faults of a market: prices that jump apart, changed rules, suspension, funding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from module.simulator.engine import risk
from module.simulator.engine.engine_types import MarketType
from module.simulator.engine.price_feed import ALL_PRICES
from module.simulator.engine.world import World
from module.simulator.faults.faults import FaultEffect, FaultWords
from module.simulator.prices.instruments import FuturesInstrument, SpotInstrument
from module.simulator.prices.market_source import FundingPoint, PriceKind


def _symbol(world: World, symbol: str) -> str:
    """The one that is meant; else a contract that somebody holds; else the first one."""
    return symbol or min(world.holders, default=next(iter(world.futures)))


def _jump(world: World, words: FaultWords, symbol: str) -> bool:
    """Last, mark, or all prices are `factor` times what they were, from now on."""
    chosen = _symbol(world, symbol)
    if words.factor == 1 or world.prices.last(chosen, world.now_ms) is None:
        return False
    kinds = ALL_PRICES if words.prices == "all" else frozenset((PriceKind(words.prices),))
    world.prices.jump(chosen, world.now_ms, words.factor, kinds)
    world.touch(chosen)
    return True


def _market_change(world: World, words: FaultWords, symbol: str) -> bool:
    """Tick, lot or minimum of a contract or pair become `factor` times as large (spot: a power
    of ten)."""
    chosen = _symbol(world, symbol)
    if words.wallet == MarketType.SPOT.value:
        pair = world.spot.get(chosen)
        changed_pair = None if pair is None else _changed_pair(pair, words)
        if changed_pair is None or changed_pair == pair:
            return False
        world.change_rules(changed_pair)
        return True
    rules = world.futures.get(chosen)
    changed = None if rules is None else _changed_contract(rules, words)
    if changed is None or changed == rules:
        return False
    world.change_rules(changed)
    return True


def _changed_contract(rules: FuturesInstrument, words: FaultWords) -> FuturesInstrument:
    whole = max(1, int(words.factor))
    match words.rule:
        case "tick":
            return replace(rules, price_end_step=rules.price_end_step * whole)
        case "lot":
            step = rules.size_step * whole
            minimum = -(-rules.size_min // step) * step
            return replace(rules, size_step=step, size_min=max(step, minimum))
        case _:
            return replace(rules, notional_min=rules.notional_min * words.factor)


def _changed_pair(rules: SpotInstrument, words: FaultWords) -> SpotInstrument:
    digits = words.factor.adjusted()
    match words.rule:
        case "tick":
            return replace(rules, price_precision=max(0, rules.price_precision - digits))
        case "lot":
            return replace(rules, quantity_precision=max(0, rules.quantity_precision - digits))
        case _:
            return replace(rules, notional_min=rules.notional_min * words.factor)


def _suspend(world: World, words: FaultWords, symbol: str) -> bool:
    """Nothing is traded in a symbol for `halt_s`; orders that are there wait."""
    chosen = _symbol(world, symbol)
    if not world.prices.is_trading(chosen, world.now_ms):
        return False
    world.prices.halt(chosen, world.now_ms + int(words.halt_s * 1000))
    return True


def _delist(world: World, words: FaultWords, symbol: str) -> bool:
    """A symbol is over: it never trades again."""
    chosen = _symbol(world, symbol)
    if world.is_over(chosen):
        return False
    world.delist(chosen)
    return True


def _funding(world: World, words: FaultWords, symbol: str) -> bool:
    """Every holder of a symbol settles funding at `rate` now."""
    chosen = _symbol(world, symbol)
    if not world.holders.get(chosen):
        return False
    before = world.ledger.count
    risk.settle_funding(world, chosen, FundingPoint(world.now_ms, words.rate))
    return world.ledger.count > before


EFFECTS: dict[FaultEffect, Callable[[World, FaultWords, str], bool]] = {
    FaultEffect.JUMP: _jump,
    FaultEffect.MARKET_CHANGE: _market_change,
    FaultEffect.SUSPEND: _suspend,
    FaultEffect.DELIST: _delist,
    FaultEffect.FUNDING: _funding,
}
