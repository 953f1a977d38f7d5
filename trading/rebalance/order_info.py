"""The letter of a cycle: what is to be traded, why, and how far each order has come. PURE.

`OrderInfo` is what `order_info.txt` holds. Every change makes a new value with the next revision;
the store refuses to go back. States of slices move only through `leg_state.move`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from module.model.canonical import digest, instant_text, parse_instant
from module.model.errors import InvalidInput, InvariantViolated, require
from module.model.money import ZERO, parse_decimal, plain
from module.model.orders import NO_STOPS, OrderReport, OrderStatus, Side, StopPrices
from trading.rebalance.leg_state import LegState, move
from trading.rebalance.plan import DiffCase, Leg, OrderPlan, SkippedLeg, SkipReason

FORMAT_VERSION = 1
SLICES_MAX = 40


class CycleStage(StrEnum):
    """How far a cycle is: requested, planned, trading, protecting, done; or skipped, dropped."""

    REQUESTED = "requested"
    PLANNED = "planned"
    TRADING = "trading"
    PROTECTING = "protecting"
    DONE = "done"
    SKIPPED = "skipped"
    DROPPED = "dropped"

    @property
    def is_over(self) -> bool:
        return self in (CycleStage.DONE, CycleStage.SKIPPED, CycleStage.DROPPED)


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


@dataclass(frozen=True, slots=True)
class LegRecord:
    """A leg and its slices so far."""

    leg: Leg
    slices: tuple[Slice, ...] = ()
    abandoned: str | None = None

    @property
    def filled_size(self) -> Decimal:
        """What the exchange has executed of it."""
        return sum((part.filled_size for part in self.slices), ZERO)

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
        return self.abandoned is not None or self.filled_size >= self.leg.size


@dataclass(frozen=True, slots=True)
class OrderInfo:
    """One cycle's letter. `inputs` is the journal: what the plan was made from."""

    session_id: str
    cycle: datetime
    number: int
    epoch: int
    revision: int
    stage: CycleStage
    reason: str = ""
    strategy_digest: str = ""
    inputs: Mapping[str, object] = field(default_factory=dict)
    targets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    legs: tuple[LegRecord, ...] = ()
    skipped: tuple[SkippedLeg, ...] = ()
    stops: Mapping[str, StopPrices] = field(default_factory=dict)

    def changed(self, **changes: object) -> OrderInfo:
        """The next revision, with `changes`."""
        return replace(self, revision=self.revision + 1, **changes)  # type: ignore[arg-type]

    def leg(self, leg_id: str) -> LegRecord:
        """The record of a leg; it must exist."""
        for record in self.legs:
            if record.leg.leg_id == leg_id:
                return record
        raise InvariantViolated(f"cycle {self.cycle} has no leg {leg_id!r}")

    def with_legs(self, updates: Mapping[str, LegRecord], **changes: object) -> OrderInfo:
        """The next revision with these legs replaced."""
        legs = tuple(updates.get(record.leg.leg_id, record) for record in self.legs)
        return self.changed(legs=legs, **changes)

    @property
    def plan_digest(self) -> str:
        """SHA-256 of what was decided: legs, skipped legs, stops; not of how far it has come."""
        return digest(
            {
                "legs": [_leg_to_json(record.leg) for record in self.legs],
                "skipped": [_skipped_to_json(item) for item in self.skipped],
                "stops": {name: _stops_to_json(stops) for name, stops in self.stops.items()},
            }
        )


def requested(
    session_id: str, cycle: datetime, number: int, epoch: int, revision: int
) -> OrderInfo:
    """The letter with which the leader asks the strategy process for a plan."""
    return OrderInfo(session_id, cycle, number, epoch, revision, CycleStage.REQUESTED)


def with_plan(
    info: OrderInfo,
    plan: OrderPlan,
    *,
    inputs: Mapping[str, object],
    targets: Mapping[str, Mapping[str, str]],
    strategy_digest: str,
) -> OrderInfo:
    """The letter once the plan is made."""
    return info.changed(
        stage=CycleStage.PLANNED,
        legs=tuple(LegRecord(leg) for leg in plan.legs),
        skipped=plan.skipped,
        stops=plan.stops,
        inputs=inputs,
        targets=targets,
        strategy_digest=strategy_digest,
    )


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
    size = min(record.leg.size - record.filled_size, size_max)
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


def with_report(record: LegRecord, report: OrderReport) -> LegRecord:
    """What the exchange says of the newest slice, booked. An unknown slice is found by it."""
    current = record.current
    require(
        current is not None and current.client_id == report.client_id,
        f"report of {report.client_id} does not belong to leg {record.leg.leg_id}",
    )
    assert current is not None
    booked: dict[str, object] = {
        "order_id": report.order_id,
        "filled_size": report.filled_size,
        "average_price": report.average_price,
        "fee": report.fee,
    }
    if current.state is not LegState.ACKNOWLEDGED:
        if current.state is LegState.SENT or current.state is LegState.UNKNOWN:
            record = with_current(record, LegState.ACKNOWLEDGED, **booked)
        else:
            return record
    if report.status is OrderStatus.FILLED:
        return with_current(record, LegState.FILLED, **booked)
    if report.status is OrderStatus.CANCELED:
        return with_current(record, LegState.ABANDONED, **booked)
    return with_current(record, LegState.ACKNOWLEDGED, **booked)


# --- spelling: one place for each direction -------------------------------------------------------


def to_json(info: OrderInfo) -> dict[str, object]:
    """The document as plain JSON values (decimal text, ISO times), with the plan's digest."""
    return {
        "version": FORMAT_VERSION,
        "session_id": info.session_id,
        "cycle": instant_text(info.cycle),
        "number": info.number,
        "epoch": info.epoch,
        "revision": info.revision,
        "stage": info.stage.value,
        "reason": info.reason,
        "strategy_digest": info.strategy_digest,
        "inputs": dict(info.inputs),
        "targets": {name: dict(fields) for name, fields in info.targets.items()},
        "legs": [_record_to_json(record) for record in info.legs],
        "skipped": [_skipped_to_json(item) for item in info.skipped],
        "stops": {name: _stops_to_json(stops) for name, stops in info.stops.items()},
        "plan_digest": info.plan_digest,
    }


def from_json(document: Mapping[str, object]) -> OrderInfo:
    """Read what `to_json` wrote; InvariantViolated when it is not that, or was altered."""
    try:
        version = document["version"]
        require(
            version == FORMAT_VERSION, f"order_info version {version!r} is not {FORMAT_VERSION}"
        )
        info = OrderInfo(
            session_id=_text(document["session_id"]),
            cycle=parse_instant(_text(document["cycle"])),
            number=_integer(document["number"]),
            epoch=_integer(document["epoch"]),
            revision=_integer(document["revision"]),
            stage=CycleStage(_text(document["stage"])),
            reason=_text(document["reason"]),
            strategy_digest=_text(document["strategy_digest"]),
            inputs=_mapping(document["inputs"]),
            targets={
                name: {key: _text(item) for key, item in _mapping(fields).items()}
                for name, fields in _mapping(document["targets"]).items()
            },
            legs=tuple(_record_from_json(_mapping(item)) for item in _items(document["legs"])),
            skipped=tuple(_skipped_from_json(_mapping(i)) for i in _items(document["skipped"])),
            stops={
                name: _stops_from_json(_mapping(stops))
                for name, stops in _mapping(document["stops"]).items()
            },
        )
    except (KeyError, ValueError, TypeError, InvalidInput) as error:
        raise InvariantViolated(f"order_info cannot be read: {error!r}") from error
    require(
        info.plan_digest == document.get("plan_digest"),
        "order_info: the plan does not match its digest",
    )
    return info


def _record_to_json(record: LegRecord) -> dict[str, object]:
    return {
        "leg": _leg_to_json(record.leg),
        "state": record.state.value,
        "abandoned": record.abandoned,
        "slices": [_slice_to_json(part) for part in record.slices],
    }


def _record_from_json(item: Mapping[str, object]) -> LegRecord:
    return LegRecord(
        leg=_leg_from_json(_mapping(item["leg"])),
        slices=tuple(_slice_from_json(_mapping(part)) for part in _items(item["slices"])),
        abandoned=_optional_text(item["abandoned"]),
    )


def _leg_to_json(leg: Leg) -> dict[str, object]:
    return {
        "leg_id": leg.leg_id,
        "symbol": leg.symbol,
        "case": leg.case.value,
        "side": leg.side.value,
        "size": plain(leg.size),
        "reduce_only": leg.reduce_only,
        "reference_price": plain(leg.reference_price),
        "current_weight": plain(leg.current_weight),
        "target_weight": plain(leg.target_weight),
        "stops": _stops_to_json(leg.stops),
        "after": leg.after,
    }


def _leg_from_json(item: Mapping[str, object]) -> Leg:
    return Leg(
        leg_id=_text(item["leg_id"]),
        symbol=_text(item["symbol"]),
        case=DiffCase(_text(item["case"])),
        side=Side(_text(item["side"])),
        size=_decimal(item["size"]),
        reduce_only=bool(item["reduce_only"]),
        reference_price=_decimal(item["reference_price"]),
        current_weight=_decimal(item["current_weight"]),
        target_weight=_decimal(item["target_weight"]),
        stops=_stops_from_json(_mapping(item["stops"])),
        after=_optional_text(item["after"]),
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
    not_after = _optional_text(item["not_after"])
    return Slice(
        number=_integer(item["number"]),
        client_id=_text(item["client_id"]),
        size=_decimal(item["size"]),
        state=LegState(_text(item["state"])),
        order_id=_optional_text(item["order_id"]),
        filled_size=_decimal(item["filled_size"]),
        average_price=_optional_decimal(item["average_price"]),
        fee=_decimal(item["fee"]),
        code=_optional_text(item["code"]),
        message=_optional_text(item["message"]),
        not_after=None if not_after is None else parse_instant(not_after),
        rules_changed=bool(item.get("rules_changed", False)),
    )


def _skipped_to_json(item: SkippedLeg) -> dict[str, object]:
    return {
        "symbol": item.symbol,
        "reason": item.reason.value,
        "current_weight": plain(item.current_weight),
        "target_weight": plain(item.target_weight),
    }


def _skipped_from_json(item: Mapping[str, object]) -> SkippedLeg:
    return SkippedLeg(
        symbol=_text(item["symbol"]),
        reason=SkipReason(_text(item["reason"])),
        current_weight=_decimal(item["current_weight"]),
        target_weight=_decimal(item["target_weight"]),
    )


def _stops_to_json(stops: StopPrices) -> dict[str, object]:
    return {
        "stop_loss": None if stops.stop_loss is None else plain(stops.stop_loss),
        "take_profit": None if stops.take_profit is None else plain(stops.take_profit),
    }


def _stops_from_json(item: Mapping[str, object]) -> StopPrices:
    stops = StopPrices(_optional_decimal(item["stop_loss"]), _optional_decimal(item["take_profit"]))
    return NO_STOPS if stops.empty else stops


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected an integer, got {type(value).__name__}")
    return value


def _decimal(value: object) -> Decimal:
    return parse_decimal(_text(value))


def _optional_decimal(value: object) -> Decimal | None:
    return None if value is None else _decimal(value)


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    return value


def _items(value: object) -> Sequence[object]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {type(value).__name__}")
    return value
