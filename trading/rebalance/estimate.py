"""What a plan would cost and leave behind, before anything is sent. PURE.

    plan + order books ──► LegEstimate: average price, slippage, fee, what the book cannot take
    inputs + legs ──► AccountEstimate before and after ──► PositionEstimate: liquidation distance

Money is in quote asset (USDT). A cost is positive, a gain negative. The estimate reads the books as
they are: others may trade first, so it is a figure to decide by, and no promise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from module.model.accounts import MarginMode, Position
from module.model.books import BookLevel, Depth, MarginTier
from module.model.market import Instrument, MarketType
from module.model.money import ZERO
from module.model.orders import NO_STOPS, Side, StopPrices
from trading.rebalance.decision import CycleInputs, Decision
from trading.rebalance.fitting import fit_opening_legs
from trading.rebalance.legs import Leg, Policy


@dataclass(frozen=True, slots=True)
class LegEstimate:
    """One leg against the order book.

    `filled_size` (base asset) is what the levels that the venue shows can take; `unfilled_size` is
    the rest, which the estimate prices at the worst level shown (at the reference price where there
    is no book). `slippage` is (average − reference price) × size in the direction of the order.
    """

    leg: Leg
    filled_size: Decimal
    unfilled_size: Decimal
    best_price: Decimal | None
    average_price: Decimal
    worst_price: Decimal | None
    levels: int
    fee: Decimal
    slippage: Decimal

    @property
    def slippage_fraction(self) -> Decimal:
        """Slippage as a fraction of what the leg is worth at its reference price."""
        return self.slippage / self.leg.notional if self.leg.notional else ZERO

    @property
    def is_whole(self) -> bool:
        """Whether the book can take all of it."""
        return self.unfilled_size == 0


@dataclass(frozen=True, slots=True)
class PositionEstimate:
    """One symbol before and after the plan. Sizes signed, prices at mark, 0 where there is none.

    Liquidation prices are None where there is none: flat, spot, too little at stake for any price
    of this symbol alone, or (after) where the venue does not publish what must be kept. *Before* is
    the exchange's own figure, *after* is ours.
    """

    symbol: str
    mark: Decimal
    size_before: Decimal
    size_after: Decimal
    weight_before: Decimal
    weight_after: Decimal
    target_weight: Decimal | None
    margin_before: Decimal
    margin_after: Decimal
    liquidation_before: Decimal | None
    liquidation_after: Decimal | None
    stops_before: StopPrices
    stops_after: StopPrices

    @property
    def distance_before(self) -> Decimal | None:
        """How far the mark may move, as a fraction of it, until what is held is liquidated."""
        return _distance(self.mark, self.liquidation_before)

    @property
    def distance_after(self) -> Decimal | None:
        """The same once the plan is carried out."""
        return _distance(self.mark, self.liquidation_after)


@dataclass(frozen=True, slots=True)
class AccountEstimate:
    """The account at one moment: `gross` is Σ |notional| at mark, `leverage` gross ÷ equity."""

    equity: Decimal
    available: Decimal
    margin_used: Decimal
    gross: Decimal

    @property
    def leverage(self) -> Decimal:
        """How many times its equity the account holds."""
        return self.gross / self.equity if self.equity > 0 else ZERO


@dataclass(frozen=True, slots=True)
class OpeningsEstimate:
    """What of the opening legs the money reaches for: `free` is what should be there once the
    reductions are done, `wanted` and `reached` are Σ notional as planned and as `fit_opening_legs`
    would cut it, `left_out` the symbols of which nothing remains."""

    free: Decimal
    wanted: Decimal
    reached: Decimal
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanEstimate:
    """Everything a preview tells about a plan. `turnover` is Σ leg margin ÷ base. Costs and what is
    held afterwards are those of the whole plan; `openings` says where the money is too little."""

    legs: tuple[LegEstimate, ...]
    positions: tuple[PositionEstimate, ...]
    before: AccountEstimate
    after: AccountEstimate
    openings: OpeningsEstimate
    turnover: Decimal
    turnover_notional: Decimal

    @property
    def fees(self) -> Decimal:
        """Of all legs, in quote asset."""
        return sum((leg.fee for leg in self.legs), ZERO)

    @property
    def slippage(self) -> Decimal:
        """Of all legs, in quote asset."""
        return sum((leg.slippage for leg in self.legs), ZERO)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an estimate needs besides the decision: order books, margin rules, and the margin mode
    of what is opened (what is held has its own)."""

    depths: Mapping[str, Depth]
    tiers: Mapping[str, tuple[MarginTier, ...]]
    margin_mode: MarginMode


def estimate_plan(
    inputs: CycleInputs, decision: Decision, surroundings: Surroundings
) -> PlanEstimate:
    """What carrying out the decision now would cost, and what the account would hold afterwards.

    Legs of one symbol that hit the same side of its book (the two of a flip) meet one after the
    other what the one before has left. Nothing here changes the plan.
    """
    account, plan, book = inputs.account, decision.plan, decision.book
    legs = _walk(plan.legs, book.instruments, surroundings.depths)
    held = _held(account.positions, inputs.policy.market)
    outcomes = _outcomes(legs, held, inputs.policy, surroundings.margin_mode)
    world = _World(decision, inputs.policy, surroundings, outcomes)
    before = AccountEstimate(
        equity=account.equity,
        available=account.available,
        margin_used=sum((each.margin for each in held.values()), ZERO),
        gross=sum((abs(each.value) for each in account.positions), ZERO),
    )
    after = _account_after(world, before, legs, held)
    reductions = tuple(item for item in legs if item.leg.reduce_only)
    reduced = _outcomes(reductions, held, inputs.policy, surroundings.margin_mode)
    free = _account_after(replace(world, outcomes=reduced), before, reductions, held).available
    notional = sum((leg.notional for leg in plan.legs), ZERO)
    return PlanEstimate(
        legs=legs,
        positions=tuple(_position(world, symbol, after.equity) for symbol in sorted(outcomes)),
        before=before,
        after=after,
        openings=_openings(plan.legs, free, decision, inputs.policy),
        turnover=notional / inputs.policy.leverage / book.base,
        turnover_notional=notional,
    )


# --- the order book -------------------------------------------------------------------------------


def _walk(
    legs: Sequence[Leg], instruments: Mapping[str, Instrument], depths: Mapping[str, Depth]
) -> tuple[LegEstimate, ...]:
    left: dict[tuple[str, Side], list[BookLevel]] = {}
    estimates = []
    for leg in legs:
        depth = depths.get(leg.symbol)
        if depth is not None:
            left.setdefault((leg.symbol, leg.side), list(depth.met_by(leg.side)))
        instrument = instruments.get(leg.symbol)
        fee_rate = ZERO if instrument is None else instrument.taker_fee
        estimates.append(_meet(leg, left.get((leg.symbol, leg.side), []), fee_rate))
    return tuple(estimates)


def _meet(leg: Leg, levels: list[BookLevel], fee_rate: Decimal) -> LegEstimate:
    """The leg against `levels`, of which it takes away what it trades."""
    best = levels[0].price if levels else None
    missing, paid, worst, met = leg.size, ZERO, best, 0
    while levels and missing > 0:
        level = levels.pop(0)
        taken = min(missing, level.size)
        missing -= taken
        paid += taken * level.price
        worst = level.price
        met += 1
        if taken < level.size:
            levels.insert(0, BookLevel(level.price, level.size - taken))
    paid += missing * (worst if worst is not None else leg.reference_price)
    return LegEstimate(
        leg=leg,
        filled_size=leg.size - missing,
        unfilled_size=missing,
        best_price=best,
        average_price=paid / leg.size,
        worst_price=worst,
        levels=met,
        fee=paid * fee_rate,
        slippage=(paid - leg.notional) * leg.side.sign,
    )


# --- the account ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What is held of a symbol once its legs are done; `entry` is the average price of it, `margin`
    what is set aside for it, `realized` the profit of what was closed, before fees."""

    before: Position | None
    size: Decimal = ZERO
    entry: Decimal = ZERO
    margin: Decimal = ZERO
    realized: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class _World:
    decision: Decision
    policy: Policy
    surroundings: Surroundings
    outcomes: Mapping[str, _Outcome]

    def mark(self, symbol: str) -> Decimal:
        """The mark that the plan was made with; of what it does not touch, the snapshot's."""
        known = self.decision.book.marks.get(symbol)
        if known is not None:
            return known
        before = self.outcomes[symbol].before
        return before.mark_price if before is not None else ZERO

    def margin_mode(self, symbol: str) -> MarginMode:
        return _margin_mode(self.outcomes[symbol], self.surroundings.margin_mode)

    def crossed_profit(self, outcomes: Mapping[str, _Outcome]) -> Decimal:
        """Unrealised, of what shares the account's money."""
        return sum(
            (
                each.size * (self.mark(symbol) - each.entry)
                for symbol, each in outcomes.items()
                if self.margin_mode(symbol) is MarginMode.CROSSED
            ),
            ZERO,
        )

    def rate(self, symbol: str) -> Decimal | None:
        """What must be kept of the position, as a fraction: its tier's rate + the taker fee."""
        notional = abs(self.outcomes[symbol].size) * self.mark(symbol)
        tiers = self.surroundings.tiers.get(symbol)
        instrument = self.decision.book.instruments.get(symbol)
        if not tiers or instrument is None:
            return None
        rate = next((t.maintenance_rate for t in tiers if notional <= t.to_notional), None)
        return (tiers[-1].maintenance_rate if rate is None else rate) + instrument.taker_fee


def _margin_mode(outcome: _Outcome, opened: MarginMode) -> MarginMode:
    """What is held has its own, what is opened that of the session."""
    return opened if outcome.before is None else outcome.before.margin_mode


def _held(positions: Sequence[Position], market: MarketType) -> dict[str, _Outcome]:
    """What is there before the first leg. Coins have no margin."""
    return {
        each.symbol: _Outcome(
            each,
            each.size,
            each.entry_price,
            ZERO if market is MarketType.SPOT else each.margin_size,
        )
        for each in positions
    }


def _outcomes(
    legs: Sequence[LegEstimate], held: Mapping[str, _Outcome], policy: Policy, opened: MarginMode
) -> dict[str, _Outcome]:
    """Margin as the exchange has it of what stays; of what is added |notional| ÷ leverage, at mark
    (crossed) or at the price that was paid (isolated)."""
    found = dict(held)
    for item in legs:
        leg = item.leg
        known = found.get(leg.symbol, _Outcome(None))
        change = leg.size * leg.side.sign
        size = known.size + change
        if known.size * change < 0:  # a reduction leaves the entry as it is
            profit = (known.entry - item.average_price) * change
            found[leg.symbol] = replace(
                known,
                size=size,
                margin=known.margin * size / known.size,
                realized=known.realized + profit,
            )
            continue
        worth = abs(known.size) * known.entry + leg.size * item.average_price
        crossed = _margin_mode(known, opened) is MarginMode.CROSSED
        price = leg.reference_price if crossed else item.average_price
        added = ZERO if policy.market is MarketType.SPOT else leg.size * price / policy.leverage
        found[leg.symbol] = replace(
            known, size=size, entry=worth / abs(size), margin=known.margin + added
        )
    return found


def _account_after(
    world: _World,
    before: AccountEstimate,
    legs: Sequence[LegEstimate],
    held: Mapping[str, _Outcome],
) -> AccountEstimate:
    """Free money: a crossed loss is taken off it, a crossed profit counts once it is realised."""
    fees = sum((item.fee for item in legs), ZERO)
    slippage = sum((item.slippage for item in legs), ZERO)
    margin_used = sum((each.margin for each in world.outcomes.values()), ZERO)
    if world.policy.market is MarketType.SPOT:
        bought = sum(
            (item.average_price * item.leg.size * item.leg.side.sign for item in legs), ZERO
        )
        available = before.available - bought - fees
    else:
        realized = sum((each.realized for each in world.outcomes.values()), ZERO)
        losses = min(ZERO, world.crossed_profit(world.outcomes))
        losses -= min(ZERO, world.crossed_profit(held))
        available = before.available + before.margin_used - margin_used + realized + losses - fees
    return AccountEstimate(
        equity=before.equity - fees - slippage,
        available=max(ZERO, available),
        margin_used=margin_used,
        gross=sum(
            (abs(each.size) * world.mark(symbol) for symbol, each in world.outcomes.items()), ZERO
        ),
    )


def _openings(
    legs: Sequence[Leg], free: Decimal, decision: Decision, policy: Policy
) -> OpeningsEstimate:
    opening = [leg for leg in legs if not leg.reduce_only]
    fitted, skipped = fit_opening_legs(opening, free, decision.book.instruments, policy)
    return OpeningsEstimate(
        free=free,
        wanted=sum((leg.notional for leg in opening), ZERO),
        reached=sum((leg.notional for leg in fitted), ZERO),
        left_out=tuple(item.symbol for item in skipped),
    )


def _position(world: _World, symbol: str, equity_after: Decimal) -> PositionEstimate:
    outcome = world.outcomes[symbol]
    before = outcome.before
    mark = world.mark(symbol)
    target = world.decision.targets.get(symbol)
    unit = world.policy.leverage * world.decision.book.base
    size_before = ZERO if before is None else before.size
    is_spot = world.policy.market is MarketType.SPOT
    stops_before = NO_STOPS if before is None else before.stops
    # what the plan opens or turns, it gives stops; what it does not mention keeps its own
    planned = world.decision.plan.stops.get(symbol, stops_before)
    stops_after = planned if outcome.size else NO_STOPS
    return PositionEstimate(
        symbol=symbol,
        mark=mark,
        size_before=size_before,
        size_after=outcome.size,
        weight_before=size_before * mark / unit,
        weight_after=outcome.size * mark / unit,
        target_weight=None if target is None else target.weight,
        margin_before=ZERO if before is None or is_spot else before.margin_size,
        margin_after=outcome.margin,
        liquidation_before=None if before is None else before.liquidation_price,
        liquidation_after=_liquidation_price(world, symbol, equity_after),
        stops_before=stops_before,
        stops_after=stops_after,
    )


# --- liquidation ----------------------------------------------------------------------------------


def _liquidation_price(world: _World, symbol: str, equity: Decimal) -> Decimal | None:
    """The mark of `symbol` at which the account (crossed) or the position (isolated) keeps just
    what it must, all other prices as they are. None where no price above zero does that.

    With size s, mark m, rate r = maintenance rate + taker fee, crossed, equity E without isolated
    margins and K = what the other crossed positions must keep (Bitget's published rule):

        E + s·(p − m) = K + r·|s|·p   ⇒   p = (E − K − s·m) ÷ (r·|s| − s)

    1 BTC long at mark 100, E = 20, K = 0, r = 0.01: p = (20 − 100) ÷ (0.01 − 1) = 80.8. Isolated:
    the same with the position's own margin and profit for E, and K = 0.
    """
    outcome = world.outcomes[symbol]
    rate = world.rate(symbol)
    if outcome.size == 0 or rate is None or world.policy.market is MarketType.SPOT:
        return None
    mark, size = world.mark(symbol), outcome.size
    if world.margin_mode(symbol) is MarginMode.ISOLATED:
        own = outcome.margin + size * (mark - outcome.entry)
        others = ZERO
    else:
        own = equity
        others = ZERO
        for name, other in world.outcomes.items():
            if name == symbol or other.size == 0:
                continue
            if world.margin_mode(name) is MarginMode.ISOLATED:
                own -= other.margin + other.size * (world.mark(name) - other.entry)
                continue
            kept = world.rate(name)
            if kept is None:
                return None
            others += kept * abs(other.size) * world.mark(name)
    divisor = rate * abs(size) - size
    if divisor == 0:
        return None
    price = (own - others - size * mark) / divisor
    return price if price > 0 else None


def _distance(mark: Decimal, price: Decimal | None) -> Decimal | None:
    if price is None or mark <= 0:
        return None
    return abs(mark - price) / mark
