"""The strategy process: gathers, asks the runner, plans, writes the letter, rings.

    rebalance_start ─► read the letter (which cycle?) ─► the account, while the bar is on its way
                    ─► user's function in the runner ─► gather ─► decide (pure)
                    ─► letter (planned | skipped) ─► strategy_done
                    ─► the bars it saw, for the archive
    autotrade_done  ─► rebalance_done

Trusted: it holds a token for one account, never an exchange key. The user's code is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal

from module.logs import get_logger
from module.model.errors import (
    AifapError,
    NotYet,
    RateLimited,
    Retryable,
    Unavailable,
)
from module.model.sessions import SessionSpec, TradeMode
from module.points import reach
from module.ports import (
    BarsArchive,
    Clock,
    Exchange,
    MarketData,
    OrderInfoStore,
    StrategyRunner,
)
from trading.gathering import (
    AWAY,
    UNNAMED,
    Gatherer,
    House,
    OwnPart,
    SeenMarket,
    everything,
)
from trading.rebalance.bars_seen import pack_bars
from trading.rebalance.decision import decide, plan_letter
from trading.rebalance.order_info import CycleStage, OrderInfo, from_json, to_json
from trading.rebalance.plan import Policy, process_symbol
from trading.session.bells import Bells

__all__ = [
    "AWAY",
    "StrategyWiring",
    "execute_strategy",
    "flat_policy",
    "keep_bars",
    "policy_of",
    "process_symbol",
    "run_strategy",
]

READING_AGE_MAX = timedelta(seconds=2.5)
"""World (or real) time after which the account is read again once the strategy has answered.
Shorter than what the leader trades without a further look (`freshness.LOOK_AGAIN_S`)."""

ORDERS_FIRST = timedelta(seconds=0.3)
"""World time for which a plan's bars wait to be kept: their way to the disk would be in the way of
the letter that its first order waits for."""

log = get_logger("trading.strategy")


@dataclass(frozen=True, slots=True)
class StrategyWiring:
    """What the strategy process needs. `initial_balance`: the equity at the session's start.
    `archive`: where the bars of a cycle are kept for replay (None: nowhere). `own`: what of the
    account is the session's."""

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
    archive: BarsArchive | None = None
    house: House = UNNAMED
    own: OwnPart = everything


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request became. `market`: what was seen, where there is a plan to replay with it."""

    info: OrderInfo
    market: SeenMarket | None = None


def run_strategy(wiring: StrategyWiring, leader_gone: int) -> None:
    """Serve the leader until it is gone (`leader_gone` becomes readable when it dies)."""
    likely: frozenset[str] = frozenset()
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
        answer = _answer(wiring, info, likely)
        likely = frozenset(answer.info.targets) or likely
        reach("strategy: answered")
        wiring.store.write(to_json(answer.info), answer.info.epoch, answer.info.revision)
        reach("strategy: letter written")
        wiring.bells.strategy_done.set()
        reach("strategy: rung")
        traded = wiring.bells.autotrade_done
        if wiring.archive is not None and answer.market is not None:
            until = wiring.clock.now() + ORDERS_FIRST
            wiring.clock.wait_readable([traded.fileno(), leader_gone], until)
            keep_bars(wiring, answer)
        woken = wiring.clock.wait_readable([traded.fileno(), leader_gone], None)
        if leader_gone in woken:
            return
        traded.clear()
        wiring.bells.rebalance_done.set()


def _read(store: OrderInfoStore) -> OrderInfo | None:
    document = store.read()
    return None if document is None else from_json(document)


def _answer(wiring: StrategyWiring, info: OrderInfo, likely: Collection[str]) -> Answer:
    """A plan, or a cycle skipped with the reason that its owner will read."""
    try:
        return execute_strategy(wiring, info, likely)
    except NotYet as error:
        reason = f"the bar that closes at the boundary did not come: {error.message}"
        return Answer(info.changed(stage=CycleStage.SKIPPED, reason=f"no-bar: {reason}"))
    except Retryable as error:
        # Whatever its finer code (an open circuit): it passes, and is no fault of the strategy.
        known = error.code in (AWAY, RateLimited.code)
        reason = f"{error.code if known else Unavailable.code}: {error.message}"
        return Answer(info.changed(stage=CycleStage.SKIPPED, reason=reason))
    except AifapError as error:
        reason = f"{error.code}: {error.message}"
        return Answer(info.changed(stage=CycleStage.SKIPPED, reason=reason))


def execute_strategy(wiring: StrategyWiring, info: OrderInfo, likely: Collection[str]) -> Answer:
    """One cycle's decision: read the account, ask the user's function, gather, decide.

    What does not depend on the answer is read first: the bar is on its way meanwhile. `likely`: the
    symbols of the last answer. The letter's `inputs` hold everything that the plan depends on; bars
    are named there by digests, and kept for the archive afterwards.
    """
    gatherer = Gatherer(
        wiring.spec,
        wiring.policy,
        wiring.exchange,
        wiring.initial_balance,
        wiring.house,
        wiring.own,
    )
    began, began_s = wiring.clock.now(), wiring.clock.monotonic()
    reading = gatherer.read_account(likely)
    market = SeenMarket(wiring.market)
    output = wiring.runner.run(wiring.source, wiring.spec.config, info.cycle, market)
    is_fresh = timedelta(0) <= wiring.clock.now() - began <= READING_AGE_MAX
    is_fresh = is_fresh and wiring.clock.monotonic() - began_s <= READING_AGE_MAX.total_seconds()
    inputs = gatherer.gather(info.cycle, output.targets, market, reading if is_fresh else None)
    return Answer(plan_letter(info, inputs, decide(inputs)), market)


def keep_bars(wiring: StrategyWiring, answer: Answer) -> None:
    """The bars of a plan, once the leader is trading it: off the path to the first order.

    A cycle whose bars could not be kept is traded all the same; its replay says what is missing.
    """
    if wiring.archive is None or answer.market is None:
        return
    info = answer.info
    packed = pack_bars(info.session_id, info.cycle, answer.market.seen)
    if packed is None:
        log.warning("too many bars to keep for a replay", cycle=info.cycle)
        return
    try:
        wiring.archive.keep_bars(info.cycle, packed)
    except Retryable as error:
        log.warning("the bars of a cycle were not kept for its replay", detail=error.message)


def policy_of(spec: SessionSpec) -> Policy:
    """The session's pinned rules for planning."""
    return Policy(
        mode=spec.trade_mode,
        market=spec.market,
        leverage=spec.leverage,
        threshold=spec.threshold,
        default_stop_loss_pct=spec.default_stop_loss_pct,
        threshold_relative=spec.threshold_relative,
        no_trade_band=spec.no_trade_band,
        turnover_max=spec.turnover_max,
    )


def flat_policy(spec: SessionSpec) -> Policy:
    """The rules for leaving the account flat: the whole book, whatever the mode and its caps."""
    return replace(
        policy_of(spec), mode=TradeMode.REBALANCING, no_trade_band=None, turnover_max=None
    )
