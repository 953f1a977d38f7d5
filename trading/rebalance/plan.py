"""The decision of a cycle: targets, book and rules in; legs and skipped legs out. PURE.

    targets ──┐   each symbol: close, move, skip   the whole book        turnover
    positions ├─► ─────────────────────────────► ─► lots (moves, lots) ─► cap ─► OrderPlan
    rules     ┘   thresholds, bands, stops

Notional = weight × base × leverage. Current weight = signed size × mark ÷ leverage ÷ base.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from decimal import Decimal
from operator import attrgetter

from module.model.accounts import Position
from module.model.errors import InvalidInput, require
from module.model.market import MarketType
from module.model.money import ZERO, round_down
from module.model.orders import NO_STOPS, Side, StopPrices
from module.model.sessions import TradeMode
from trading.rebalance.bands import edge_of_band, half_width
from trading.rebalance.fitting import fit_opening_legs, resized, rounded_anew
from trading.rebalance.legs import (
    Book,
    DiffCase,
    Leg,
    OrderPlan,
    Policy,
    SkippedLeg,
    SkipReason,
)
from trading.rebalance.moves import (
    Move,
    round_to_nearest,
    round_up_again,
    scale_down,
    shrink_to_limit,
)
from trading.rebalance.stops import entry_price, stops_fit, wanted_stops
from trading.rebalance.weights import Target

__all__ = [
    "Book",
    "DiffCase",
    "Leg",
    "OrderPlan",
    "Policy",
    "SkipReason",
    "SkippedLeg",
    "fit_opening_legs",
    "plan_rebalance",
    "process_symbol",
    "resized",
    "rounded_anew",
    "sizing_base",
    "wanted_stops",
]

_SYMBOL = attrgetter("symbol")
# Members as plain names: looking one up in its enumeration costs as much as adding two Decimals.
_BUY, _SELL = Side.BUY, Side.SELL
_NEW, _OPPOSITE, _GONE = DiffCase.NEW, DiffCase.OPPOSITE, DiffCase.GONE
_INCREASE, _DECREASE = DiffCase.INCREASE, DiffCase.DECREASE


def plan_rebalance(targets: Mapping[str, Target], book: Book, policy: Policy) -> OrderPlan:
    """Return the legs that move `book` to `targets`: reducing legs first, then opening ones.

    A held symbol that is not in `targets` is closed in the modes `rebalancing` and
    `volatility_targeting`, left alone in `general`. Sizes are the nearest lots as long as the book
    then stays within base × leverage; else some are rounded down, those that cost the least
    accuracy. The result does not depend on the order of the mappings. Planning again after a
    perfect execution gives no legs (unless `turnover_max` has left something to do).
    """
    require(book.base > 0, f"planning needs a base above zero, got {book.base}")
    planner = _Planner(book, policy)
    named: AbstractSet[str] = targets.keys()
    if policy.mode is not TradeMode.GENERAL:
        named = named | book.positions.keys()
    for symbol in sorted(named):
        planner.consider(targets.get(symbol) or Target(symbol, ZERO))
    if policy.mode is TradeMode.GENERAL:
        planner.leave_alone(book.positions.keys() - named)
    planner.solve()
    return planner.finish()


def process_symbol(target: Target, book: Book, policy: Policy) -> Sequence[Leg | SkippedLeg]:
    """The diff of one symbol as if only it had a target: nothing, one leg, a flip (close, then
    open), or a skipped leg."""
    plan = plan_rebalance({target.symbol: target}, book, replace(policy, mode=TradeMode.GENERAL))
    return [*plan.legs, *plan.skipped]


class _Planner:
    """A plan in the making: what is decided per symbol, and the sums over the book.

    `fixed` is the |notional| that no move changes, `closed` what closing legs trade.
    """

    def __init__(self, book: Book, policy: Policy) -> None:
        self.book = book
        self.policy = policy
        self.positions, self.marks, self.instruments = book.positions, book.marks, book.instruments
        self.capital = book.base * policy.leverage
        self.threshold = policy.threshold
        self.gain_min = policy.threshold * self.capital
        self.is_spot = policy.market is MarketType.SPOT
        self.has_default_stop = policy.default_stop_loss_pct is not None
        # The base is made of what is held: where that has no sure price, no size is sure.
        self.base_is_doubted = not book.positions.keys().isdisjoint(book.doubted)
        self.is_plain = (
            policy.threshold_relative is None
            and policy.no_trade_band is None
            and not book.open_orders
            and not book.doubted
        )
        self.fixed = ZERO
        self.closed = ZERO
        self.reducing: list[Leg] = []
        self.opening: list[Leg] = []
        self.moves: list[Move] = []
        self.skipped: list[SkippedLeg] = []
        self.stops: dict[str, StopPrices] = {}
        self.residuals: dict[str, Decimal] = {}

    # --- one symbol -------------------------------------------------------------------------------

    def consider(self, target: Target) -> None:
        """Decide whether this symbol is closed, moved, or left, and why."""
        symbol = target.symbol
        weight = target.weight
        position = self.positions.get(symbol)
        mark = self.marks.get(symbol)
        instrument = self.instruments.get(symbol)
        if instrument is None or mark is None or mark <= ZERO:
            self._without_price(target, position)
        elif position is None or not position.size:
            if weight:
                self._approach(Move(target, None, instrument, mark, ZERO, ZERO), turns=False)
        else:
            value = position.size * mark
            move = Move(target, position, instrument, mark, value, value / self.capital)
            if weight:
                self._approach(move, turns=(value > ZERO) is not (weight > ZERO))
            else:
                self._close(move, position, _GONE)

    def _approach(self, move: Move, *, turns: bool) -> None:
        """A symbol with a target: left with a reason, or traded toward it. `turns`: what is held is
        on the other side, and is closed first."""
        weight = move.target.weight
        if self.is_spot:
            require(weight > 0, f"{move.target.symbol}: a weight of {weight} on spot")
        drift = abs(weight - move.current)
        goal = weight
        reason: SkipReason | None = None
        if not move.instrument.tradable:
            reason = SkipReason.NOT_TRADABLE
            if not turns:
                self._leave(move, reason)
                return
        if drift < self.threshold or (self.is_spot and self._is_fee(move, drift)):
            self._leave(move, SkipReason.BELOW_THRESHOLD)
            return
        if not self.is_plain:
            goal, why = self._goal(move, drift)
            if why is not None and goal == move.current:
                self._leave(move, why)
                return
            reason = reason or why
        if turns and move.position is not None:
            if reason is None and abs(weight) < self.threshold:
                reason = SkipReason.BELOW_THRESHOLD
            move.after = self._close(move, move.position, _OPPOSITE)
        if reason is None:
            reason = self._aim(move, abs(goal * self.capital), turns=turns)
        if reason is None:
            self.moves.append(move)
        elif turns:
            self.residuals[move.target.symbol] = weight
            self._skip(move, reason)
        else:
            self._leave(move, reason)

    def _is_fee(self, move: Move, drift: Decimal) -> bool:
        """Whether no more is missing than the fee that was taken out of a coin when it was bought,
        and a lot: buying that again would pay a fee again, for ever."""
        rules, weight = move.instrument, move.target.weight
        lot = rules.size_step * move.mark / self.capital
        return 0 < move.current < weight and drift <= weight * rules.taker_fee + lot

    def _goal(self, move: Move, drift: Decimal) -> tuple[Decimal, SkipReason | None]:
        """The weight to trade to, and why it may not be; with a goal other than the current weight,
        what is held on the other side is to be closed all the same."""
        policy = self.policy
        symbol = move.target.symbol
        weight = move.target.weight
        if self.base_is_doubted or symbol in self.book.doubted:
            return weight, SkipReason.DOUBTFUL_PRICE
        relative = policy.threshold_relative
        if relative is not None and drift < relative * abs(weight):
            return move.current, SkipReason.BELOW_THRESHOLD
        if symbol in self.book.open_orders:
            return weight, SkipReason.OPEN_ORDER
        if policy.no_trade_band is None:
            return weight, None
        cost = move.instrument.taker_fee + self.book.spreads.get(symbol, ZERO)
        volatility = self.book.volatility.get(symbol, ZERO)
        half = half_width(weight, cost, volatility, policy.no_trade_band)
        edge = edge_of_band(weight, move.current, half)
        stays = not edge or edge == move.current
        return edge, (SkipReason.WITHIN_BAND if stays else None)

    def _aim(self, move: Move, wanted: Decimal, *, turns: bool) -> SkipReason | None:
        """Toward |notional| `wanted` in lots; the limit of the book is asked later. Or why not."""
        gross = ZERO if turns else abs(move.value)
        distance = wanted - gross
        if distance <= ZERO:
            move.grows = False
            distance = -distance
        move.gross = gross
        move.distance = distance
        move.lot_value = move.instrument.size_step * move.mark
        if self.has_default_stop or move.target.stops is not NO_STOPS:
            move.stops = self._stops(move)
            if move.stops is None and move.grows:
                return SkipReason.STOP_ON_WRONG_SIDE
        if turns:
            move.case = _OPPOSITE
        elif move.position is None:
            move.case = _NEW
        elif move.grows:
            move.case = _INCREASE
        else:
            move.case = _DECREASE
            if self.is_spot:
                self._sell_what_is_free(move)
        gain_min = self.gain_min
        if not self.is_plain and self.policy.threshold_relative is not None:
            gain_min = max(gain_min, self.policy.threshold_relative * wanted)
        round_to_nearest(move, gain_min)
        return None

    def _sell_what_is_free(self, move: Move) -> None:
        """Of a coin whole lots that no order has locked."""
        most = (move.lots_max or ZERO) * move.lot_value
        if most < move.distance:
            move.distance = most
            move.reason = SkipReason.DUST

    def _close(self, move: Move, position: Position, case: DiffCase) -> str | None:
        """All there is, by no minimum held back; on spot what cannot be sold is dust, and stays.
        Returns the leg's id."""
        size = abs(position.size)
        if self.is_spot:
            rules = move.instrument
            size = round_down(position.free_size, rules.size_step)
            if size <= 0 or size < rules.size_min or size * move.mark < rules.notional_min:
                self._leave(move, SkipReason.DUST)
                return None
            left = (position.size - size) * move.mark
            self.fixed += left
            self._remain(position.symbol, -left)
        leg_id = f"{position.symbol}-close"
        side = _SELL if position.size > ZERO else _BUY
        weight = move.target.weight
        self.reducing.append(
            Leg(leg_id, position.symbol, case, side, size, True, move.mark, move.current, weight)
        )
        self.closed += size * move.mark
        return leg_id

    def _without_price(self, target: Target, position: Position | None) -> None:
        """A symbol whose price or rules are missing: a held one still closes (of a coin what can be
        sold), also where its target is on the other side; nothing else trades."""
        symbol, weight = target.symbol, target.weight
        left = ZERO if position is None else position.value
        current = left / self.capital
        closes = False
        if position is not None and position.free_size and position.size * weight <= 0:
            closes = True
            side, case = (_SELL if position.size > 0 else _BUY), (_OPPOSITE if weight else _GONE)
            size, price, leg_id = position.free_size, position.mark_price, f"{symbol}-close"
            self.reducing.append(
                Leg(leg_id, symbol, case, side, size, True, price, current, weight)
            )
            self.closed += size * price
            left += side.sign * size * price
        self.fixed += abs(left)
        if weight or left:
            self.residuals[symbol] = weight - left / self.capital
        if weight or (position is not None and not closes):
            is_priced = position is not None and position.mark_price > ZERO
            reason = SkipReason.DUST if is_priced and not weight else SkipReason.NO_PRICE
            self.skipped.append(SkippedLeg(symbol, reason, current, weight))

    def leave_alone(self, symbols: Iterable[str]) -> None:
        """What is held and not this plan's to touch takes its part of the limit."""
        for symbol in symbols:
            position = self.book.positions[symbol]
            mark = self.book.marks.get(symbol, position.mark_price)
            self.fixed += abs(position.size * mark)

    # --- what becomes of it -----------------------------------------------------------------------

    def _leave(self, move: Move, reason: SkipReason) -> None:
        """Nothing is traded; what is held stays, with the target's stops if it is on its side."""
        self.fixed += abs(move.value)
        off = move.target.weight * self.capital - move.value
        self._remain(move.target.symbol, off)
        if move.value * move.target.weight > 0:
            self._protect(move.target.symbol, self._stops(move))
        within_a_lot = abs(off) < move.instrument.size_step * move.mark
        if reason is not SkipReason.BELOW_THRESHOLD or not move.value or not within_a_lot:
            self._skip(move, reason)

    def _skip(self, move: Move, reason: SkipReason) -> None:
        target = move.target
        self.skipped.append(SkippedLeg(target.symbol, reason, move.current, target.weight))

    def _remain(self, symbol: str, notional: Decimal) -> None:
        if notional:
            self.residuals[symbol] = notional / self.capital

    def _protect(self, symbol: str, stops: StopPrices | None) -> None:
        if stops is not None:
            self.stops[symbol] = stops

    def _stops(self, move: Move) -> StopPrices | None:
        """The target's stops; None when the price is beyond one of them already."""
        entry = entry_price(move.target, move.position, move.mark)
        stops = wanted_stops(move.target, entry, move.instrument, self.policy)
        return stops if stops_fit(stops, move.mark, is_long=move.target.weight > 0) else None

    # --- the book ---------------------------------------------------------------------------------

    def solve(self) -> None:
        """Keep the limit of the book, then the turnover."""
        self._keep_limit()
        if self.policy.turnover_max is not None:
            self._keep_turnover(self.policy.turnover_max * self.capital)

    def _keep_limit(self) -> None:
        """base × leverage: what rounding up adds is taken back where it would exceed that; where
        what stays untraded leaves less room than the targets ask for, the openings get less.

        What would rest is not disturbed for less than the threshold: prices that carry a full book
        over its limit and back would trade a lot to and fro.
        """
        excess = self._gross() - self.capital
        if excess > ZERO:
            disturbs = excess > self.gain_min
            given_up = shrink_to_limit(
                [move for move in self.moves if disturbs or move.lots], excess
            )
            excess = self._gross() - self.capital
            if excess > ZERO:
                self._open_less(excess, SkipReason.BOOK_LIMIT)
                round_up_again(given_up, self.capital - self._gross())

    def _open_less(self, excess: Decimal, reason: SkipReason) -> None:
        """Take `excess` of notional off the openings, of each the same part."""
        if excess > ZERO:
            openings = [move for move in self.moves if move.grows]
            added = sum((move.lots * move.lot_value for move in openings), ZERO)
            scale_down(openings, added - excess, reason)

    def _gross(self) -> Decimal:
        total = self.fixed
        for move in self.moves:
            total += move.gross_after
        for symbol, size in self.book.open_orders.items():
            total += size * self.book.marks.get(symbol, ZERO)
        return total

    def _keep_turnover(self, allowed: Decimal) -> None:
        """All moves get the same part of what the closes leave. Where that keeps a reduction from
        making room, openings get less: the book grows no larger than the whole plan would be."""
        limit = max(self.capital, self._gross())
        scale_down(self.moves, allowed - self.closed, SkipReason.TURNOVER_CAP)
        self._open_less(self._gross() - limit, SkipReason.TURNOVER_CAP)

    # --- the plan ---------------------------------------------------------------------------------

    def finish(self) -> OrderPlan:
        """Moves become legs; everything is put in its order."""
        capital = self.capital
        for move in self.moves:
            target = move.target
            symbol = target.symbol
            weight = target.weight
            is_long = weight > ZERO
            lots = move.lots
            reached = move.gross_after
            off = weight * capital - (reached if is_long else -reached)
            if off:
                self.residuals[symbol] = off / capital
            if reached and move.stops is not None:
                self.stops[symbol] = move.stops
            if not lots:
                self._unmoved(move, abs(off))
                continue
            grows = move.grows
            leg = Leg(
                f"{symbol}-open" if grows else f"{symbol}-reduce",
                symbol,
                move.case,
                _BUY if grows is is_long else _SELL,
                lots * move.instrument.size_step,
                not grows,
                move.mark,
                move.current,
                weight,
                (move.stops or NO_STOPS) if grows else NO_STOPS,
                move.after,
            )
            (self.opening if grows else self.reducing).append(leg)
        self.reducing.sort(key=_SYMBOL)
        self.skipped.sort(key=_SYMBOL)
        return OrderPlan(
            tuple(self.reducing + self.opening), tuple(self.skipped), self.stops, self.residuals
        )

    def _unmoved(self, move: Move, off: Decimal) -> None:
        """A move of no lots; silent where every difference is traded and less than a lot is left:
        `off`, in quote asset."""
        rounding = move.reason is SkipReason.LOT_ROUNDING and off < move.lot_value
        if not (rounding and move.value and not self.policy.threshold):
            self._skip(move, move.reason)


def sizing_base(
    equity: Decimal, allocated: Decimal | None, initial_balance: Decimal, *, compounding: bool
) -> Decimal:
    """min(allocated, PV), or PV with `compounding`; allocated defaults to the initial balance."""
    if equity <= 0:
        raise InvalidInput(f"the account's equity is {equity}: there is nothing to trade with")
    if compounding:
        return equity
    return min(allocated if allocated is not None else initial_balance, equity)
