"""Days of other kinds: spot, general, volatility targeting, isolated margin."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest

from module.clock import to_epoch_ms
from module.model.accounts import MarginMode
from module.model.canonical import parse_instant
from module.model.sessions import TradeMode
from module.ports import MarketData
from tests.simulation.day import live
from tests.simulation.day_kinds import KINDS, KINDS_OF_SEEDS, ORDINARY, VOLATILITY, day_kind
from tests.simulation.day_plan import FUTURES_IDS, SPOT_IDS, day_plan
from tests.simulation.report import DayResult, day_lines
from tests.simulation.spot_judge import QUOTE, coins, sellable
from tests.simulation.spot_strokes import HandStroke
from tests.simulation.world import World
from tests.simulation.world_plan import WorldPlan

MINUTE_MS = 60_000
VOLATILITY_MINUTES = 240


def quiet(kind: str, seed: int = 4, **changes: Any) -> WorldPlan:
    return WorldPlan(seed, hours=0.6, kind=KINDS[kind], watched=False, **changes)


@pytest.mark.parametrize("kind", ["general", "isolated", "spot-general"])
def test_a_quiet_day_of_each_kind_reaches_its_targets_and_ends_flat(
    kind: str, tmp_path: Path
) -> None:
    world = World(quiet(kind), tmp_path)
    report = world.run()
    assert report.violations == []
    assert report.cycles >= 2
    assert report.orders >= 10
    assert report.ended.startswith("ended")
    assert world.judge.left_over() == []
    if kind == "isolated":
        modes = {order.margin_mode.value for order in world.exchange.account.orders.values()}
        assert modes == {MarginMode.ISOLATED.value}


@pytest.mark.parametrize(("kind", "seed"), [("spot", 1), ("volatility", 8)])
def test_hours_in_which_everything_goes_wrong_break_no_promise(kind: str, seed: int) -> None:
    day = live(seed, 3.0, kind=kind)
    assert day_lines(day, verbose=False) == []
    assert day.faults >= 3
    assert day.orders >= 20


def test_coins_that_somebody_sends_are_neither_sold_nor_protected(tmp_path: Path) -> None:
    gift = HandStroke("B13", 400.0, "sends other coins", "")
    world = World(quiet("spot", strokes=(gift,)), tmp_path)
    report = world.run()
    assert report.violations == []
    assert report.hits["B13"] == 1
    held = {coin for coin in coins(world) if coin != QUOTE}
    (theirs,) = {coin for coin in held if coin + QUOTE not in world.symbols}
    assert sellable(world) == {}, "of its own coins the session has left nothing that can be sold"
    sold = {fill.symbol for fill in world.exchange.account.fills}
    assert theirs + QUOTE not in sold
    assert not world.exchange.account.plans


def test_a_spot_book_is_protected_within_two_seconds(tmp_path: Path) -> None:
    world = World(quiet("spot", dropped=0.0), tmp_path)
    report = world.run()
    assert report.violations == []
    bought = [order for order in world.exchange.account.orders.values() if order.quote_sized]
    assert len(bought) >= 9, "all symbols in one cycle"
    assert 0 < max(report.unprotected_s) <= 2.0


class Raw:
    """The day's strategy, and what it returned at each cycle."""

    def __init__(self, strategy: Any) -> None:
        self._strategy = strategy
        self.returned: dict[datetime, Mapping[str, Mapping[str, str]]] = {}

    def __call__(self, at: datetime, market: MarketData) -> Mapping[str, Mapping[str, str]]:
        self.returned[at] = self._strategy(at, market)
        return self.returned[at]


@pytest.mark.parametrize("kind", ["volatility", "spot-volatility"])
def test_volatility_targeting_from_the_strategy_to_the_positions(kind: str, tmp_path: Path) -> None:
    """Weights × target ÷ what the weighted book realised, measured anew from the market's bars."""
    world = World(quiet(kind), tmp_path)
    raw = Raw(world.strategy)
    world.strategy = cast(Any, raw)
    seen: list[tuple[Mapping[str, Any], dict[str, Decimal]]] = []
    ended = world.judge.letters._archived

    def archived(process: Any, document: Mapping[str, Any]) -> None:
        ended(process, document)
        if document["stage"] == "done" and document["strategy_digest"] != "flat":
            seen.append((document, world.judge.sizes()))

    world.judge.letters._archived = archived
    report = world.run()
    assert report.violations == []
    assert len(seen) >= 2
    for document, sizes in seen:
        at = parse_instant(document["cycle"])
        weights = {name: float(each["weight"]) for name, each in raw.returned[at].items()}
        realized = realized_volatility(world, weights, at)
        total = sum(map(abs, weights.values()))
        factor = min(float(VOLATILITY) / realized, 1 / total)
        assert sum(abs(float(each["weight"])) for each in document["targets"].values()) <= 1
        for symbol, weight in weights.items():
            scaled = float(document["targets"][symbol]["weight"])
            assert scaled == pytest.approx(weight * factor, rel=1e-6)
            held = sizes.get(symbol, Decimal(0)) * world.judge.price(symbol)
            reached = float(held / world.leverage / world.judge.equity())
            assert reached == pytest.approx(scaled, abs=float(world.threshold) + 0.004)


def realized_volatility(world: World, weights: Mapping[str, float], at: datetime) -> float:
    """Of the weighted book, for a year: the textbook's formula on the market's own minutes."""
    end_ms = to_epoch_ms(at)
    closes = {
        symbol: [
            float(bar.close)
            for bar in world.exchange.engine.candles(
                symbol,
                MINUTE_MS,
                start_ms=end_ms - VOLATILITY_MINUTES * MINUTE_MS,
                end_ms=end_ms,
                limit=VOLATILITY_MINUTES,
                include_forming=False,
            )
        ]
        for symbol in weights
    }
    book = weights.items()
    returns = [
        sum(weight * (closes[name][i + 1] / closes[name][i] - 1) for name, weight in book)
        for i in range(VOLATILITY_MINUTES - 1)
    ]
    return statistics.stdev(returns) * math.sqrt(365 * 24 * 60)


def test_the_seed_says_the_kind_and_the_ordinary_day_is_what_it_was() -> None:
    assert day_kind(20, None) is ORDINARY
    assert day_plan(6).kind is ORDINARY
    kinds = [day_kind(seed, name) for seed in range(40) for name in KINDS_OF_SEEDS.values()]
    assert {kind.interval.total_seconds() for kind in kinds} >= {300, 600, 900}
    assert {kind.allocated is None for kind in kinds} == {True, False}
    assert {kind.mode for kind in KINDS.values()} == set(TradeMode)
    assert day_plan(7, kind="spot") == day_plan(7, kind="spot")


def test_a_market_meets_only_faults_that_it_can_have() -> None:
    assert set(SPOT_IDS) < set(FUTURES_IDS)
    assert all(not name.startswith("spot_") for names in FUTURES_IDS.values() for name in names)
    assert SPOT_IDS["A19"] == ("spot_tick", "spot_lot", "spot_minimum")
    by_hand = [s for s in day_plan(7, kind="spot").strokes if isinstance(s, HandStroke)]
    assert len(by_hand) == 16
    assert not any(isinstance(s, HandStroke) for s in day_plan(7, kind="general").strokes)


def test_a_day_of_a_kind_is_repeated_as_that_kind() -> None:
    day = DayResult(17, 0.25, "spot", crash="WorldStuck: everybody waits")
    (line,) = day_lines(day, verbose=True)
    assert line.endswith("--seed 17 --kind spot --hours 6")
