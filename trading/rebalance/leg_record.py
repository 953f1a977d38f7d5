"""One leg as it is carried out: its slices, what has become of each, and how they move. PURE.

Part of the letter (`order_info`). The planned leg itself is never edited: another size or other
stops stand beside it, with the reason. A further slice exists only after the one before is over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from module.model.canonical import Spelled, instant_text, parse_instant
from module.model.errors import require
from module.model.money import ZERO, plain
from module.model.orders import NOT_SENT, OrderReport, OrderStatus, StopPrices
from trading.rebalance import plan_json as spell
from trading.rebalance.leg_state import LegState, move
from trading.rebalance.plan import Leg

SLICES_MAX = 40
OVERFILL = Decimal("1.02")
"""More than this share of an order's size cannot have been executed (a spot purchase is sized in
the quote coin, so a falling price buys a little more)."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One exchange order of a leg; `number` counts from 0."""

    number: int
    client_id: str
    size: Decimal
    state: LegState = LegState.PLANNED
    order_id: str | None = None
    filled_size: Decimal = ZERO
    average_price: Decimal | None = None
    fee: Decimal = ZERO
    code: str | None = None
    message: str | None = None
    not_after: datetime | None = None
    rules_changed: bool = False

    @property
    def may_have_left(self) -> bool:
        """Whether it has been on its way; what was given up after it certainly did not leave has
        not."""
        if self.state is LegState.ABANDONED:
            return self.code != NOT_SENT
        return self.state is not LegState.PLANNED

    @property
    def may_have_arrived(self) -> bool:
        """Whether the exchange has had it, or may have; what is proven absent it never had."""
        if self.state is LegState.ABANDONED:
            return self.order_id is not None or self.filled_size > 0
        return self.state is not LegState.PLANNED


@dataclass(frozen=True, slots=True)
class Sized:
    """What execution made of a planned leg, and why: less money was free, or the rules changed."""

    size: Decimal
    stops: StopPrices
    reason: str


@dataclass(frozen=True, slots=True)
class LegRecord:
    """A planned leg, what execution made of it, and its slices so far."""

    leg: Leg
    slices: tuple[Slice, ...] = ()
    abandoned: str | None = None
    sized: Sized | None = None
    spelled: Spelled[object] | None = field(default=None, init=False, compare=False, repr=False)
    """Its JSON, once it was asked for: a letter is written more often than a leg changes."""

    @property
    def size(self) -> Decimal:
        """How much of it is to be traded: as planned, or as it was sized since."""
        return self.leg.size if self.sized is None else self.sized.size

    @property
    def stops(self) -> StopPrices:
        """What its opening orders carry."""
        return self.leg.stops if self.sized is None else self.sized.stops

    @property
    def carried(self) -> Leg:
        """The leg as it is carried out."""
        if self.sized is None:
            return self.leg
        return self.leg._replace(size=self.sized.size, stops=self.sized.stops)

    @property
    def filled_size(self) -> Decimal:
        """What the exchange has executed of it."""
        return sum((part.filled_size for part in self.slices), ZERO)

    @property
    def done_size(self) -> Decimal:
        """What need not be sent any more. An order that the exchange calls filled is done: one that
        was sized in the quote coin has bought a little more or less than its size."""
        return sum(
            (
                max(part.size, part.filled_size)
                if part.state is LegState.FILLED
                else part.filled_size
                for part in self.slices
            ),
            ZERO,
        )

    @property
    def current(self) -> Slice | None:
        """The newest slice."""
        return self.slices[-1] if self.slices else None

    @property
    def state(self) -> LegState:
        """The leg as a whole: what its newest slice is; abandoned when given up."""
        if self.abandoned is not None:
            return LegState.ABANDONED
        return self.current.state if self.current is not None else LegState.PLANNED

    @property
    def is_over(self) -> bool:
        """Nothing more will be sent for it and nothing is open."""
        if self.current is not None and not self.current.state.is_terminal:
            return False
        return self.abandoned is not None or self.done_size >= self.size

    @property
    def is_open(self) -> bool:
        """The exchange may have an order of it whose end nobody has seen."""
        return self.current is not None and self.current.state.may_exist

    @property
    def is_unproven(self) -> bool:
        """It was sent, and nobody has seen yet whether the exchange has it."""
        return self.current is not None and self.current.state.is_unproven


def next_slice(
    record: LegRecord, size_max: Decimal, identify: Callable[[str, int], str]
) -> LegRecord:
    """Add the slice that trades what is still missing of the leg, at most `size_max` of it.

    Only once the slice before is terminal (promise 1).
    """
    require(
        record.current is None or record.current.state.is_terminal,
        f"leg {record.leg.leg_id}: a further slice before the last one is over",
    )
    number = len(record.slices)
    size = min(record.size - record.done_size, size_max)
    require(size > 0, f"leg {record.leg.leg_id}: nothing left to slice")
    part = Slice(number, identify(record.leg.leg_id, number), size)
    return replace(record, slices=(*record.slices, part))


def with_current(record: LegRecord, state: LegState, **changes: object) -> LegRecord:
    """The newest slice moved to `state` (checked against the table) with `changes`."""
    current = record.current
    require(current is not None, f"leg {record.leg.leg_id} has no slice to move")
    assert current is not None
    moved = replace(current, state=move(current.state, state), **changes)  # type: ignore[arg-type]
    return replace(record, slices=(*record.slices[:-1], moved))


def given_up(record: LegRecord, reason: str) -> LegRecord:
    """The leg, to which nothing more is sent. A slice that did not leave is over with it."""
    if record.current is not None and record.current.state is LegState.PLANNED:
        record = with_current(record, LegState.ABANDONED)
    return replace(record, abandoned=reason)


def with_report(record: LegRecord, report: OrderReport) -> LegRecord:
    """What the exchange says of the newest slice, booked. An unknown slice is found by it.

    InvariantViolated when more was executed than was sent (B3).
    """
    current = record.current
    require(
        current is not None and current.client_id == report.client_id,
        f"report of {report.client_id} does not belong to leg {record.leg.leg_id}",
    )
    assert current is not None
    require(
        report.filled_size <= current.size * OVERFILL,
        f"order {report.client_id} of leg {record.leg.leg_id}: {plain(report.filled_size)} was "
        f"executed of {plain(current.size)} that was sent; the session halts",
    )
    booked: dict[str, object] = {
        "order_id": report.order_id,
        "filled_size": report.filled_size,
        "average_price": report.average_price,
        "fee": report.fee,
    }
    if current.state is not LegState.ACKNOWLEDGED:
        if not current.state.is_unproven:
            return record
        record = with_current(record, LegState.ACKNOWLEDGED)
    if report.status is OrderStatus.FILLED:
        return with_current(record, LegState.FILLED, **booked)
    if report.status is OrderStatus.CANCELED:
        return with_current(record, LegState.ABANDONED, **booked)
    return with_current(record, LegState.ACKNOWLEDGED, **booked)


# --- spelling -------------------------------------------------------------------------------------


def record_to_json(record: LegRecord) -> dict[str, object]:
    """The record as plain JSON values."""
    if record.spelled is None:
        object.__setattr__(record, "spelled", Spelled(_record_to_json(record)))
    assert record.spelled is not None
    return record.spelled


def _record_to_json(record: LegRecord) -> dict[str, object]:
    sized = record.sized
    return {
        "leg": spell.leg_to_json(record.leg),
        "state": record.state.value,
        "abandoned": record.abandoned,
        "sized": None
        if sized is None
        else {
            "size": plain(sized.size),
            "stops": spell.stops_to_json(sized.stops),
            "reason": sized.reason,
        },
        "slices": [_slice_to_json(part) for part in record.slices],
    }


def record_from_json(item: Mapping[str, object]) -> LegRecord:
    """What `record_to_json` wrote."""
    sized = item.get("sized")
    return LegRecord(
        leg=spell.leg_from_json(spell.mapping(item["leg"])),
        slices=tuple(_slice_from_json(spell.mapping(part)) for part in spell.items(item["slices"])),
        abandoned=spell.optional_text(item["abandoned"]),
        sized=None if sized is None else _sized_from_json(spell.mapping(sized)),
    )


def _sized_from_json(item: Mapping[str, object]) -> Sized:
    return Sized(
        spell.decimal(item["size"]),
        spell.stops_from_json(spell.mapping(item["stops"])),
        spell.text(item["reason"]),
    )


def _slice_to_json(part: Slice) -> dict[str, object]:
    return {
        "number": part.number,
        "client_id": part.client_id,
        "size": plain(part.size),
        "state": part.state.value,
        "order_id": part.order_id,
        "filled_size": plain(part.filled_size),
        "average_price": None if part.average_price is None else plain(part.average_price),
        "fee": plain(part.fee),
        "code": part.code,
        "message": part.message,
        "not_after": None if part.not_after is None else instant_text(part.not_after),
        "rules_changed": part.rules_changed,
    }


def _slice_from_json(item: Mapping[str, object]) -> Slice:
    not_after = spell.optional_text(item["not_after"])
    return Slice(
        number=spell.integer(item["number"]),
        client_id=spell.text(item["client_id"]),
        size=spell.decimal(item["size"]),
        state=LegState(spell.text(item["state"])),
        order_id=spell.optional_text(item["order_id"]),
        filled_size=spell.decimal(item["filled_size"]),
        average_price=spell.optional_decimal(item["average_price"]),
        fee=spell.decimal(item["fee"]),
        code=spell.optional_text(item["code"]),
        message=spell.optional_text(item["message"]),
        not_after=None if not_after is None else parse_instant(not_after),
        rules_changed=bool(item.get("rules_changed", False)),
    )
