"""The decision of a cycle: targets, book and rules in; legs and skipped legs out. PURE.

    targets ──┐
    positions ├─► plan_rebalance ──► OrderPlan(legs: reducing first, skipped: with reasons, stops)
    rules     ┘

Notional = weight × base × leverage. Current weight = signed size × mark ÷ leverage ÷ base.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from module.model.accounts import Position
from module.model.errors import InvalidInput, require
from module.model.market import Instrument, MarketType
from module.model.money import ONE, ZERO, round_down
from module.model.orders import NO_STOPS, Side, StopPrices
from module.model.sessions import TradeMode
from trading.rebalance.rounding import round_stops, size_for_notional
from trading.rebalance.weights import Target


class DiffCase(StrEnum):
    """How a target differs from what is held."""

    NEW = "new"
    INCREASE = "increase"
    DECREASE = "decrease"
    OPPOSITE = "opposite"
    GONE = "gone"
    SAME = "same"


class SkipReason(StrEnum):
    """Why a difference is not traded."""

    BELOW_THRESHOLD = "below_threshold"
    BELOW_MIN_SIZE = "below_min_size"
    BELOW_MIN_NOTIONAL = "below_min_notional"
    NOT_TRADABLE = "not_tradable"
    NO_PRICE = "no_price"
    STOP_ON_WRONG_SIDE = "stop_on_wrong_side"
    NO_MARGIN_LEFT = "no_margin_left"


@dataclass(frozen=True, slots=True)
class Policy:
    """The session's rules for planning. `threshold` and weights are fractions of the base."""

    mode: TradeMode
    market: MarketType
    leverage: Decimal
    threshold: Decimal
    default_stop_loss_pct: Decimal | None = None
    slippage_buffer: Decimal = Decimal("0.002")


@dataclass(frozen=True, slots=True)
class Book:
    """What is held and what it is worth, from one snapshot. `base` in quote asset, > 0."""

    base: Decimal
    available: Decimal
    positions: Mapping[str, Position]
    marks: Mapping[str, Decimal]
    instruments: Mapping[str, Instrument]


@dataclass(frozen=True, slots=True)
class Leg:
    """One planned order. `size` in base asset, > 0, on the lot.

    `after` names the leg that must be confirmed first (the close of a flip). `stops` is what the
    position must have once this leg is filled.
    """

    leg_id: str
    symbol: str
    case: DiffCase
    side: Side
    size: Decimal
    reduce_only: bool
    reference_price: Decimal
    current_weight: Decimal
    target_weight: Decimal
    stops: StopPrices = NO_STOPS
    after: str | None = None

    @property
    def notional(self) -> Decimal:
        """Size at the reference price, in quote asset."""
        return self.size * self.reference_price


@dataclass(frozen=True, slots=True)
class SkippedLeg:
    """A difference that is not traded, and why; the residual stays visible."""

    symbol: str
    reason: SkipReason
    current_weight: Decimal
    target_weight: Decimal


@dataclass(frozen=True, slots=True)
class OrderPlan:
    """Legs in the order they are to be sent; `stops` of every position that should be there."""

    legs: tuple[Leg, ...]
    skipped: tuple[SkippedLeg, ...]
    stops: Mapping[str, StopPrices]


def plan_rebalance(targets: Mapping[str, Target], book: Book, policy: Policy) -> OrderPlan:
    """Return the legs that move `book` to `targets`: reducing legs first, then opening ones.

    A held symbol that is not in `targets` is closed in the modes `rebalancing` and
    `volatility_targeting`, left alone in `general`. The result does not depend on the order of the
    mappings. Planning again after a perfect execution gives no legs.
    """
    require(book.base > 0, f"planning needs a base above zero, got {book.base}")
    reducing: list[Leg] = []
    opening: list[Leg] = []
    skipped: list[SkippedLeg] = []
    stops: dict[str, StopPrices] = {}
    for symbol in sorted(_symbols(targets, book, policy)):
        target = targets.get(symbol, Target(symbol, ZERO))
        for part in process_symbol(target, book, policy):
            if isinstance(part, SkippedLeg):
                skipped.append(part)
            elif part.reduce_only:
                reducing.append(part)
            else:
                opening.append(part)
        will_hold = _holds_side(book, target) or any(leg.symbol == symbol for leg in opening)
        if will_hold and symbol in book.marks and symbol in book.instruments:
            entry = _entry_price(book, target)
            wanted = wanted_stops(target, entry, book.instruments[symbol], policy)
            if _stops_fit(wanted, book.marks[symbol], is_long=target.weight > 0):
                stops[symbol] = wanted
    return OrderPlan(tuple(reducing + opening), tuple(skipped), stops)


def _holds_side(book: Book, target: Target) -> bool:
    """Whether what is held is on the target's side: only then are the target's stops its own."""
    position = book.positions.get(target.symbol)
    return position is not None and position.size * target.weight > 0


def _symbols(targets: Mapping[str, Target], book: Book, policy: Policy) -> Iterable[str]:
    if policy.mode is TradeMode.GENERAL:
        return set(targets)
    return set(targets) | set(book.positions)


def process_symbol(target: Target, book: Book, policy: Policy) -> Sequence[Leg | SkippedLeg]:
    """The diff of one symbol: nothing, one leg, a flip (close, then open), or a skipped leg."""
    symbol = target.symbol
    position = book.positions.get(symbol)
    held = position.size if position is not None else ZERO
    mark = book.marks.get(symbol)
    instrument = book.instruments.get(symbol)
    if instrument is None or mark is None or mark <= 0:
        return _without_price(target, position, book, policy)
    current = held * mark / policy.leverage / book.base
    wanted = size_for_notional(target.weight * book.base * policy.leverage, mark, instrument)
    diff = _Diff(target, current, held, wanted, mark, instrument, book, policy)
    if target.weight == 0:
        return [diff.close(DiffCase.GONE)] if held != 0 else []
    if not instrument.tradable:
        return [diff.skip(SkipReason.NOT_TRADABLE)]
    if held == 0:
        return diff.open(DiffCase.NEW, abs(wanted))
    if abs(target.weight - current) < policy.threshold:
        return [diff.skip(SkipReason.BELOW_THRESHOLD)] if wanted != held else []
    if (held > 0) != (target.weight > 0):
        close = diff.close(DiffCase.OPPOSITE)
        opened = diff.open(DiffCase.OPPOSITE, abs(wanted), after=close.leg_id)
        return [close, *opened]
    if abs(wanted) > abs(held):
        return diff.open(DiffCase.INCREASE, abs(wanted) - abs(held))
    return diff.reduce(abs(held) - abs(wanted))


def _without_price(
    target: Target, position: Position | None, book: Book, policy: Policy
) -> Sequence[Leg | SkippedLeg]:
    """A symbol whose price or rules are missing: a held one still closes, nothing else trades."""
    if position is None:
        if target.weight == 0:
            return []
        return [SkippedLeg(target.symbol, SkipReason.NO_PRICE, ZERO, target.weight)]
    current = position.value / policy.leverage / book.base
    if target.weight == 0:
        return [
            Leg(
                leg_id=f"{target.symbol}-close",
                symbol=target.symbol,
                case=DiffCase.GONE,
                side=Side.SELL if position.size > 0 else Side.BUY,
                size=abs(position.size),
                reduce_only=True,
                reference_price=position.mark_price,
                current_weight=current,
                target_weight=ZERO,
            )
        ]
    return [SkippedLeg(target.symbol, SkipReason.NO_PRICE, current, target.weight)]


@dataclass(frozen=True, slots=True)
class _Diff:
    """One symbol's difference, and the legs that can be made of it."""

    target: Target
    current: Decimal
    held: Decimal
    wanted: Decimal
    mark: Decimal
    instrument: Instrument
    book: Book
    policy: Policy

    def skip(self, reason: SkipReason) -> SkippedLeg:
        return SkippedLeg(self.target.symbol, reason, self.current, self.target.weight)

    def close(self, case: DiffCase) -> Leg:
        """Exactly what is there; no minimum stands in its way."""
        return self._leg("close", case, abs(self.held), opening=False)

    def reduce(self, size: Decimal) -> Sequence[Leg | SkippedLeg]:
        size = round_down(size, self.instrument.size_step)
        if size == 0 or size < self.instrument.size_min:
            return [self.skip(SkipReason.BELOW_MIN_SIZE)]
        if size * self.mark < self.instrument.notional_min:
            return [self.skip(SkipReason.BELOW_MIN_NOTIONAL)]
        return [self._leg("reduce", DiffCase.DECREASE, size, opening=False)]

    def open(
        self, case: DiffCase, size: Decimal, after: str | None = None
    ) -> Sequence[Leg | SkippedLeg]:
        if abs(self.target.weight) < self.policy.threshold and case is DiffCase.NEW:
            return [self.skip(SkipReason.BELOW_THRESHOLD)]
        size = round_down(size, self.instrument.size_step)  # what is held may be off a new lot
        if size == 0 or size < self.instrument.size_min:
            return [self.skip(SkipReason.BELOW_MIN_SIZE)]
        if size * self.mark < self.instrument.notional_min:
            return [self.skip(SkipReason.BELOW_MIN_NOTIONAL)]
        entry = _entry_price(self.book, self.target)
        stops = wanted_stops(self.target, entry, self.instrument, self.policy)
        if not _stops_fit(stops, self.mark, is_long=self.target.weight > 0):
            return [self.skip(SkipReason.STOP_ON_WRONG_SIDE)]
        return [self._leg("open", case, size, opening=True, stops=stops, after=after)]

    def _leg(
        self,
        kind: str,
        case: DiffCase,
        size: Decimal,
        *,
        opening: bool,
        stops: StopPrices = NO_STOPS,
        after: str | None = None,
    ) -> Leg:
        grows_long = self.target.weight > 0 if opening else self.held < 0
        return Leg(
            leg_id=f"{self.target.symbol}-{kind}",
            symbol=self.target.symbol,
            case=case,
            side=Side.BUY if grows_long else Side.SELL,
            size=size,
            reduce_only=not opening,
            reference_price=self.mark,
            current_weight=self.current,
            target_weight=self.target.weight,
            stops=stops,
            after=after,
        )


def _entry_price(book: Book, target: Target) -> Decimal:
    """What a default stop is measured from: the entry of what is held on that side, else the mark.

    Measured from the mark it would follow a slow fall down for ever and never trigger.
    """
    if _holds_side(book, target):
        return book.positions[target.symbol].entry_price
    return book.marks[target.symbol]


def wanted_stops(
    target: Target, entry: Decimal, instrument: Instrument, policy: Policy
) -> StopPrices:
    """The target's stops on the tick; the session's default from `entry` where it gives none."""
    stop_loss = target.stops.stop_loss
    if stop_loss is None and policy.default_stop_loss_pct is not None:
        direction = ONE if target.weight > 0 else -ONE
        stop_loss = entry * (ONE - direction * policy.default_stop_loss_pct / 100)
    return round_stops(StopPrices(stop_loss, target.stops.take_profit), instrument)


def _stops_fit(stops: StopPrices, mark: Decimal, *, is_long: bool) -> bool:
    """A long's stop-loss is below the price and its take-profit above; a short's the reverse."""
    direction = 1 if is_long else -1
    if stops.stop_loss is not None and (mark - stops.stop_loss) * direction <= 0:
        return False
    return stops.take_profit is None or (stops.take_profit - mark) * direction > 0


def fit_opening_legs(
    legs: Sequence[Leg],
    available: Decimal,
    instruments: Mapping[str, Instrument],
    policy: Policy,
) -> tuple[list[Leg], list[SkippedLeg]]:
    """Shrink opening legs, all by one factor, so that margin, fees and slippage fit `available`.

    Called once the reducing legs are confirmed, with what is then really free. Legs that fall
    under a minimum are skipped with NO_MARGIN_LEFT. Needed per leg = notional × (1 + slippage) ÷
    leverage + notional × taker fee.
    """
    needed = sum((_needed(leg, instruments[leg.symbol], policy) for leg in legs), ZERO)
    if needed <= available or needed == 0:
        return list(legs), []
    factor = max(available, ZERO) / needed
    fitted: list[Leg] = []
    skipped: list[SkippedLeg] = []
    for leg in legs:
        instrument = instruments[leg.symbol]
        size = size_for_notional(leg.notional * factor, leg.reference_price, instrument)
        enough = (
            size >= instrument.size_min and size * leg.reference_price >= instrument.notional_min
        )
        if enough and size > 0:
            fitted.append(resized(leg, size))
        else:
            skipped.append(
                SkippedLeg(
                    leg.symbol, SkipReason.NO_MARGIN_LEFT, leg.current_weight, leg.target_weight
                )
            )
    return fitted, skipped


def resized(leg: Leg, size: Decimal) -> Leg:
    """The same leg with another size."""
    return replace(leg, size=size)


def rounded_anew(leg: Leg, filled: Decimal, instrument: Instrument) -> Leg | None:
    """The leg by the rules as they are now, `filled` of it being done; None when nothing of the
    rest may be traded any more. Minimums stand in the way of opening only (A19)."""
    rest = round_down(leg.size - filled, instrument.size_step)
    too_small = rest < instrument.size_min or rest * leg.reference_price < instrument.notional_min
    if rest <= 0 or (too_small and not leg.reduce_only):
        return None
    return replace(leg, size=filled + rest, stops=round_stops(leg.stops, instrument))


def _needed(leg: Leg, instrument: Instrument, policy: Policy) -> Decimal:
    notional = leg.notional * (ONE + policy.slippage_buffer)
    return notional / policy.leverage + notional * instrument.taker_fee


def sizing_base(
    equity: Decimal, allocated: Decimal | None, initial_balance: Decimal, *, compounding: bool
) -> Decimal:
    """min(allocated, PV), or PV with `compounding`; allocated defaults to the initial balance."""
    if equity <= 0:
        raise InvalidInput(f"the account's equity is {equity}: there is nothing to trade with")
    if compounding:
        return equity
    return min(allocated if allocated is not None else initial_balance, equity)
