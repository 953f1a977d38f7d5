"""What should be held against what is held: every difference classified by evidence. PURE.

    what the letters lead to ──┐
    one look at the account ───┼─► differences ─► classify ─► Finding ─► judge ─► Verdict
    fills, bills, closed ones ─┘   (none: no evidence is asked for)

Evidence first: a forced execution is a liquidation or ADL; an execution of an order that no letter
knows is a stop that fired, or somebody's trade. What nothing explains is judged by its size (B13):
dust and one lot are tolerated (the next plan corrects them), above 2 % the session stops.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from module.model.accounts import AccountSnapshot, Bill, BillKind, ClosedPosition
from module.model.money import ZERO, plain
from module.model.orders import Fill, FillCause, OrderReport, StopPrices
from trading.execution.freshness import TOLERATED
from trading.rebalance.order_info import Holding, Noted, OrderInfo

CORRECTIONS_MAX = 3
"""So often a position that was changed from outside is traded back; then it is left alone (A28)."""

EVIDENCE_MARGIN = timedelta(seconds=5)
"""How far before the plan's snapshot evidence is asked for: clocks differ."""

STOP_NEAR = Decimal("0.02")
"""A close counts as a stop's when its price is beyond the stop, or at most this share before it."""


class Difference(StrEnum):
    """Why something other is held than the letters lead to; `docs/order-states.md` explains."""

    LIQUIDATION = "liquidation"
    PARTIAL_LIQUIDATION = "partial_liquidation"
    ADL = "adl"
    STOP_LOSS = "stop_loss"
    TAKE_PROFIT = "take_profit"
    MANUAL_TRADE = "manual_trade"
    TRANSFER = "transfer"
    LEFTOVER_ORDER = "leftover_order"
    FOREIGN_ORDER = "foreign_order"
    DUST = "dust"
    ONE_LOT = "one_lot"
    SMALL = "small"
    UNEXPLAINED = "unexplained"


FORCED = frozenset({Difference.LIQUIDATION, Difference.PARTIAL_LIQUIDATION, Difference.ADL})
FROM_OUTSIDE = FORCED | {Difference.MANUAL_TRADE}
"""What counts as a change from outside: it is traded back CORRECTIONS_MAX times at most."""
QUIET = frozenset({Difference.DUST, Difference.ONE_LOT, Difference.SMALL})
"""Recorded in the letter, but nobody is told."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference. Sizes in base asset, signed; of a transfer `actual` is the amount."""

    kind: Difference
    symbol: str
    expected: Decimal
    actual: Decimal
    detail: str

    def noted(self, at: datetime) -> Noted:
        """As the letter records it."""
        return Noted(self.kind.value, self.symbol, self.expected, self.actual, self.detail, at)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the exchange says happened since the letters' last look.

    `own_orders`: the exchange's ids of orders that letters know; `since`: when the account was
    as expected (None: it does not matter).
    """

    fills: Sequence[Fill] = ()
    bills: Sequence[Bill] = ()
    closed: Sequence[ClosedPosition] = ()
    own_orders: frozenset[str] = frozenset()
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows: why the session stops (empty: it goes on), symbols that open nothing more with
    the reason, and how often each symbol was changed from outside by now."""

    stop: str = ""
    frozen: Mapping[str, str] = field(default_factory=dict)
    corrections: Mapping[str, int] = field(default_factory=dict)


def holding_of(snapshot: AccountSnapshot) -> Holding:
    """Positions of one look at the account."""
    return Holding(snapshot.at, {position.symbol: position.size for position in snapshot.positions})


def differences(
    expected: Holding, actual: Holding, uncertain: Iterable[str] = ()
) -> dict[str, tuple[Decimal, Decimal]]:
    """Symbol → (expected, actual) where they are not equal; `uncertain` symbols are left out:
    an order of theirs is not resolved yet."""
    left_out = set(uncertain)
    found: dict[str, tuple[Decimal, Decimal]] = {}
    for symbol in sorted((set(expected.sizes) | set(actual.sizes)) - left_out):
        should, held = expected.sizes.get(symbol, ZERO), actual.sizes.get(symbol, ZERO)
        if should != held:
            found[symbol] = (should, held)
    return found


def classify(
    found: Mapping[str, tuple[Decimal, Decimal]],
    evidence: Evidence,
    lots: Mapping[str, Decimal],
    stops: Mapping[str, StopPrices],
) -> tuple[Finding, ...]:
    """Each difference with its cause. `stops`: what the letters wanted, by symbol."""
    return tuple(
        _classify_one(symbol, should, held, evidence, lots.get(symbol, ZERO), stops.get(symbol))
        for symbol, (should, held) in found.items()
    )


def transfers(bills: Sequence[Bill]) -> tuple[Finding, ...]:
    """Money that came or went without a trade, each bill once."""
    unique = {bill.bill_id: bill for bill in bills if bill.kind is BillKind.TRANSFER}
    return tuple(
        Finding(
            Difference.TRANSFER,
            "",
            ZERO,
            bill.amount,
            f"{plain(bill.amount)} {bill.asset} ({bill.venue_kind})",
        )
        for bill in unique.values()
    )


def leftovers(
    orders: Sequence[OrderReport], letter: OrderInfo | None, own_prefix: str
) -> tuple[list[OrderReport], list[OrderReport]]:
    """Open orders that no letter waits for: (ours from an older run, somebody else's) (A29)."""
    known = {
        part.client_id
        for record in (() if letter is None else letter.legs)
        for part in record.slices
    }
    unknown = [order for order in orders if order.client_id not in known]
    ours = [order for order in unknown if order.client_id.startswith(own_prefix)]
    return ours, [order for order in unknown if order not in ours]


def judge(findings: Sequence[Finding], corrections: Mapping[str, int]) -> Verdict:
    """What follows from `findings`; `corrections` are those of the cycles before.

    Above 2 % without any explanation the session stops. A symbol that is changed from outside for
    more than CORRECTIONS_MAX cycles opens nothing more: nobody is fought in a loop (A28).
    """
    counts = dict(corrections)
    frozen: dict[str, str] = {}
    unexplained = [finding for finding in findings if finding.kind is Difference.UNEXPLAINED]
    for symbol in sorted({f.symbol for f in findings if f.kind in FROM_OUTSIDE}):
        counts[symbol] = counts.get(symbol, 0) + 1
    for symbol, count in counts.items():
        if count > CORRECTIONS_MAX:
            frozen[symbol] = (
                f"{symbol} was changed from outside {count} times; it opens nothing more until a "
                "session is started again"
            )
    stop = ""
    if unexplained:
        told = "; ".join(finding.detail for finding in unexplained)
        stop = f"the account is not what the letters lead to, and nothing explains it: {told}"
    return Verdict(stop, frozen, counts)


def _classify_one(
    symbol: str,
    should: Decimal,
    held: Decimal,
    evidence: Evidence,
    lot: Decimal,
    stops: StopPrices | None,
) -> Finding:
    described = f"{symbol} is {plain(held)}, by the letters {plain(should)}"
    foreign = _foreign_fills(symbol, should, held, lot, evidence)
    forced = [fill for fill in foreign if fill.cause is not FillCause.ORDER]
    if forced:
        kind = Difference.ADL
        if any(fill.cause is FillCause.LIQUIDATION for fill in forced):
            kind = Difference.PARTIAL_LIQUIDATION if held else Difference.LIQUIDATION
        return Finding(kind, symbol, should, held, f"{described}: closed by force")
    if any(b.kind is BillKind.LIQUIDATION and b.symbol == symbol for b in evidence.bills):
        kind = Difference.PARTIAL_LIQUIDATION if held else Difference.LIQUIDATION
        return Finding(kind, symbol, should, held, f"{described}: the wallet shows a liquidation")
    if foreign and _explains(foreign, should, held, lot):
        prices = [fill.price for fill in foreign]
        kind = _kind_of_close(should, held, prices, stops)
        return Finding(kind, symbol, should, held, f"{described}: {_told(kind)}")
    if any(_moves_coin(bill, symbol, held - should) for bill in evidence.bills):
        detail = f"{described}: the coin was transferred"
        return Finding(Difference.TRANSFER, symbol, should, held, detail)
    closed = [item for item in evidence.closed if item.symbol == symbol]
    if should and not held and closed:
        kind = _kind_of_close(should, held, [closed[-1].close_price], stops)
        return Finding(kind, symbol, should, held, f"{described}: {_told(kind)}")
    return Finding(_kind_by_size(should, held, lot), symbol, should, held, described)


def _foreign_fills(
    symbol: str, should: Decimal, held: Decimal, lot: Decimal, evidence: Evidence
) -> list[Fill]:
    """Executions of orders that no letter knows, each trade id once (B3): those since the account
    was as expected, or with the margin for clocks that differ where only that explains it."""
    unique = {fill.trade_id: fill for fill in evidence.fills if fill.symbol == symbol}
    foreign = [fill for fill in unique.values() if fill.order_id not in evidence.own_orders]
    since = evidence.since
    later = [fill for fill in foreign if since is None or fill.at >= since]
    if _explains(later, should, held, lot) or not _explains(foreign, should, held, lot):
        return later
    return foreign


def _explains(fills: Sequence[Fill], should: Decimal, held: Decimal, lot: Decimal) -> bool:
    moved = sum((fill.side.sign * fill.size for fill in fills), ZERO)
    return abs(moved - (held - should)) <= max(lot, abs(held - should) * TOLERATED)


def _moves_coin(bill: Bill, symbol: str, moved: Decimal) -> bool:
    """A transfer of the coin itself, on spot."""
    if bill.kind is not BillKind.TRANSFER or not symbol.startswith(bill.asset):
        return False
    return abs(bill.amount - moved) <= abs(moved) * TOLERATED


def _kind_of_close(
    should: Decimal, held: Decimal, prices: Sequence[Decimal], stops: StopPrices | None
) -> Difference:
    """A position that ended where its stop was ended by it; anything else was somebody. Of a coin
    a stop leaves what is off the lot."""
    if not should or stops is None or abs(held) > abs(should) * TOLERATED:
        return Difference.MANUAL_TRADE
    direction = 1 if should > 0 else -1
    for price in prices:
        loss, profit = stops.stop_loss, stops.take_profit
        if loss is not None and (price - loss) * direction <= loss * STOP_NEAR:
            return Difference.STOP_LOSS
        if profit is not None and (profit - price) * direction <= profit * STOP_NEAR:
            return Difference.TAKE_PROFIT
    return Difference.MANUAL_TRADE


def _kind_by_size(should: Decimal, held: Decimal, lot: Decimal) -> Difference:
    apart = abs(held - should)
    if apart < lot:
        return Difference.DUST
    if apart == lot:
        return Difference.ONE_LOT
    if should and held and apart <= abs(should) * TOLERATED and should * held > 0:
        return Difference.SMALL
    return Difference.UNEXPLAINED


def _told(kind: Difference) -> str:
    return {
        Difference.STOP_LOSS: "its stop loss fired",
        Difference.TAKE_PROFIT: "its take profit fired",
    }.get(kind, "an order that is not this session's")
