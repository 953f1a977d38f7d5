"""One symbol's way to its goal in whole lots: how many, how many else, what is left of it. PURE.

A `Move` is all that `plan` knows of a symbol before the book is solved; then it becomes a leg, or a
skipped leg.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import NamedTuple

from module.model.accounts import Position
from module.model.market import Instrument, MarketType
from module.model.money import ONE, ZERO
from module.model.orders import NO_STOPS, StopPrices
from trading.rebalance.legs import DiffCase, SkipReason
from trading.rebalance.lots import RoundedUp, give_up
from trading.rebalance.weights import Target


@dataclass
class Move:
    """One symbol: what is held (`value`, signed notional; `current`, the same as a weight), and,
    once it is to be traded, how far.

    `distance`: notional to be traded, > 0. `grows`: that opens or increases; else it reduces what
    is held. `gross`: |notional| of the symbol when nothing of the move is traded (0 after the close
    of a flip), `gross_after`: once the chosen `lots` are. `stops` None: the target's do not fit the
    price. `after`: the leg of the close that comes first.

    Without slots, what is not set costs nothing: it is read from the class.
    """

    target: Target
    position: Position | None
    instrument: Instrument
    mark: Decimal
    value: Decimal
    current: Decimal
    case: DiffCase = field(default=DiffCase.SAME, init=False)
    grows: bool = field(default=True, init=False)
    gross: Decimal = field(default=ZERO, init=False)
    distance: Decimal = field(default=ZERO, init=False)
    lot_value: Decimal = field(default=ZERO, init=False)
    stops: StopPrices | None = field(default=NO_STOPS, init=False)
    after: str | None = field(default=None, init=False)
    lots: Decimal = field(default=ZERO, init=False)
    gross_after: Decimal = field(default=ZERO, init=False)
    reason: SkipReason = field(default=SkipReason.LOT_ROUNDING, init=False)

    def choose(self, lots: Decimal) -> None:
        """Trade so many lots."""
        self.lots = lots
        traded = lots * self.lot_value
        self.gross_after = self.gross + traded if self.grows else self.gross - traded

    def refused(self, lots: Decimal) -> SkipReason | None:
        """Why an order of so many lots cannot be sent; None when it can, or there is none."""
        if not lots:
            return None
        rules = self.instrument
        most = self.lots_max
        if most is not None and lots > most:
            return SkipReason.LOT_ROUNDING
        if lots == most and rules.market is MarketType.FUTURES:
            return None  # it takes all there is: no minimum counts
        if lots * rules.size_step < rules.size_min:
            return SkipReason.BELOW_MIN_SIZE
        if lots * self.lot_value < rules.notional_min:
            return SkipReason.BELOW_MIN_NOTIONAL
        return None

    @property
    def lots_max(self) -> Decimal | None:
        """What a reduction may take at most: all there is, of a coin what can be sold; None when it
        is no reduction."""
        if self.grows or self.position is None:
            return None
        step = self.instrument.size_step
        if self.instrument.market is MarketType.SPOT:
            return self.position.free_size // step
        return abs(self.position.size) / step

    @property
    def least_lots(self) -> Decimal:
        """The smallest order that the venue's minimums allow."""
        rules = self.instrument
        return max(
            (rules.size_min / rules.size_step).to_integral_value(ROUND_CEILING),
            (rules.notional_min / self.lot_value).to_integral_value(ROUND_CEILING),
        )

    def residual(self, lots: Decimal) -> Decimal:
        """How far from the goal so many lots leave it, in quote asset, ≥ 0."""
        return abs(self.distance - lots * self.lot_value)


def round_to_nearest(move: Move, gain_min: Decimal) -> None:
    """Choose the lots that leave the least residual: one of the two multiples next to the goal that
    the venue's minimums allow, or none. A tie goes to the smaller position.

    A single lot that goes beyond the goal must bring it at least `gain_min` (in quote asset) nearer
    than trading nothing: else a price that moves to and fro around half a lot would trade that lot
    to and fro, and pay for it each time.
    """
    lot_value = move.lot_value
    whole, rest = divmod(move.distance, lot_value)
    twice = rest + rest
    grows = move.grows
    up = twice > lot_value or (not grows and twice == lot_value)
    if up and not whole and twice - lot_value < gain_min:
        up = False
    nearest = whole + ONE if up else whole
    if nearest:  # the usual case in one look: an order that keeps the minimums
        rules = move.instrument
        traded = nearest * lot_value
        if (
            traded >= rules.notional_min
            and nearest * rules.size_step >= rules.size_min
            and (grows or traded <= move.gross)
        ):
            move.lots = nearest
            move.gross_after = move.gross + traded if grows else move.gross - traded
            return
    refusal = move.refused(nearest)
    if refusal is None:
        move.choose(nearest)
        return
    move.reason = refusal
    other = whole if up else whole + ONE
    fits = move.refused(other) is None and move.residual(other) < move.distance
    move.choose(other if fits else ZERO)


def smaller_choice(move: Move) -> Decimal | None:
    """The lots next to the chosen ones that leave a smaller position, still within a lot of the
    goal; None when the chosen ones are the smallest."""
    lots = move.lots
    if move.grows:
        if lots * move.lot_value <= move.distance:
            return None
        return lots - ONE if move.refused(lots - ONE) is None else ZERO
    if lots * move.lot_value >= move.distance:
        return None
    return lots + ONE if move.refused(lots + ONE) is None else None


class GivenUp(NamedTuple):
    """A move that went down for the limit: from `nearest` lots to `smaller` ones."""

    move: Move
    nearest: Decimal
    smaller: Decimal

    @property
    def rounded_up(self) -> RoundedUp:
        """What going down frees and costs."""
        move = self.move
        return RoundedUp(
            move.target.symbol,
            abs(self.nearest - self.smaller) * move.lot_value,
            move.residual(self.smaller) - move.residual(self.nearest),
        )


def shrink_to_limit(moves: Sequence[Move], excess: Decimal) -> list[GivenUp]:
    """Round sizes down again, at the least rise of Σ|residual|, until `excess` of notional is gone
    or every one is at its smaller choice. Returns those that went down."""
    choices: list[GivenUp] = []
    for move in moves:
        smaller = smaller_choice(move)
        if smaller is not None:
            choices.append(GivenUp(move, move.lots, smaller))
    names = give_up([each.rounded_up for each in choices], excess)
    given_up = [each for each in choices if each.move.target.symbol in names]
    for each in given_up:
        each.move.choose(each.smaller)
        each.move.reason = SkipReason.LOT_ROUNDING
    return given_up


def round_up_again(given_up: Sequence[GivenUp], room: Decimal) -> None:
    """What went down goes up again as far as the openings, cut to whole lots of what the limit
    leaves them, have left `room`: else the next cycle would trade it back."""
    able = [each for each in given_up if each.move.lots == each.smaller]
    items = [each.rounded_up for each in able]
    names = give_up(items, sum((item.frees for item in items), ZERO) - room)
    for each in able:
        if each.move.target.symbol not in names:
            each.move.choose(each.nearest)


def scale_down(moves: Sequence[Move], allowed: Decimal, reason: SkipReason) -> None:
    """Trade at most `allowed` notional of the moves: of each the same part, down to the lot; what
    that leaves goes to those that lost most, as an order that the venue takes or one lot more each,
    then evenly, until no order would get another lot. `reason` says why a move is not made."""
    wanted = sum((move.lots * move.lot_value for move in moves), ZERO)
    left = max(allowed, ZERO)
    if wanted <= left:
        return
    factor = left / wanted
    short: list[tuple[Decimal, str, Move, Decimal]] = []
    for move in moves:
        if not move.lots:
            continue
        planned, part = move.lots, move.lots * factor
        lots = part // ONE
        move.choose(lots if move.refused(lots) is None else ZERO)
        move.reason = reason
        left -= move.lots * move.lot_value
        lost = (part - move.lots) * move.lot_value
        short.append((-lost, move.target.symbol, move, planned))
    by_loss = [(move, planned) for _, _, move, planned in sorted(short, key=lambda item: item[:2])]
    for move, planned in by_loss:
        lots = max(move.lots + ONE, move.least_lots)
        cost = (lots - move.lots) * move.lot_value
        if lots <= planned and cost <= left:
            move.choose(lots)
            left -= cost
    _hand_out(left, [(move, planned) for move, planned in by_loss if move.lots])


def _hand_out(left: Decimal, short: Sequence[tuple[Move, Decimal]]) -> None:
    """`left` of notional to moves that have less than their planned lots: to all the same part of
    what each lacks; what that leaves of lots in their order."""
    lacking = sum(((planned - move.lots) * move.lot_value for move, planned in short), ZERO)
    for part in (min(left / lacking, ONE) if lacking else ZERO, ONE):
        for move, planned in short:
            more = min((planned - move.lots) * part // ONE, left // move.lot_value)
            if more:
                move.choose(move.lots + more)
                left -= more * move.lot_value
