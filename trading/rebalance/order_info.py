"""The letter of a cycle: what is to be traded, why, and how far each order has come. PURE.

`OrderInfo` is what `order_info.txt` holds. Every change makes a new value with the next revision;
the store refuses to go back. States of slices move only through `leg_state.move`. What was decided
(legs, skipped legs, stops) is never edited: what execution has to change of it stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

from module.model.canonical import Spelled, digest, instant_text, parse_instant
from module.model.errors import InvalidInput, InvariantViolated, require
from module.model.money import ZERO, plain
from module.model.orders import StopPrices
from trading.rebalance import plan_json as spell
from trading.rebalance.leg_record import (
    SLICES_MAX,
    LegRecord,
    Sized,
    Slice,
    given_up,
    next_slice,
    record_from_json,
    record_to_json,
    with_current,
    with_report,
)
from trading.rebalance.plan import Leg, OrderPlan, SkippedLeg

FORMAT_VERSION = 2
READABLE = (1, FORMAT_VERSION)
T = TypeVar("T")
_SINCE_2: Mapping[str, object] = {
    "residuals": {},
    "basis": None,
    "held_before": None,
    "held_after": None,
    "stops_now": {},
    "skipped_later": [],
    "noted": [],
    "corrections": {},
}

NO_MOVE = frozenset({"unexplained", "leftover_order", "foreign_order"})
"""Kinds of `Noted` that do not say by how much a position was moved (or are not believed)."""

__all__ = [
    "SLICES_MAX",
    "CycleStage",
    "Holding",
    "LegRecord",
    "Noted",
    "OrderInfo",
    "Sized",
    "Slice",
    "from_json",
    "given_up",
    "next_slice",
    "requested",
    "to_json",
    "with_current",
    "with_plan",
    "with_report",
]


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
class Holding:
    """Signed position sizes in base asset by symbol, as of one moment."""

    at: datetime
    sizes: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class Noted:
    """A difference between what should have been held and what was held, as it was classified."""

    kind: str
    symbol: str
    expected: Decimal
    actual: Decimal
    detail: str
    at: datetime


@dataclass(frozen=True, slots=True)
class OrderInfo:
    """One cycle's letter. `inputs` is the journal: what the plan was made from.

    `basis`: the positions that the plan was made from. `held_before`: what the letters before this
    one lead to; `held_after`: what was really held when a difference was recorded after the cycle.
    `stops_now` and `skipped_later`: what execution had to change of `stops` and to
    add to `skipped`. `noted`: differences found when the cycle began; `corrections`: how often each
    symbol was changed from outside since the session's start.
    """

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
    residuals: Mapping[str, Decimal] = field(default_factory=dict)
    basis: Holding | None = None
    held_before: Holding | None = None
    held_after: Holding | None = None
    stops_now: Mapping[str, StopPrices] = field(default_factory=dict)
    skipped_later: tuple[SkippedLeg, ...] = ()
    noted: tuple[Noted, ...] = ()
    corrections: Mapping[str, int] = field(default_factory=dict)
    pinned: _Pinned | None = field(default=None, compare=False, repr=False)

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

    def wanted_stops(self) -> dict[str, StopPrices]:
        """The stops that positions are to have: as planned, or as they had to be rounded since."""
        return {**self.stops, **self.stops_now}

    @property
    def has_sent(self) -> bool:
        """Whether a slice of any leg has been on its way, or may have been."""
        return any(part.may_have_left for record in self.legs for part in record.slices)

    @property
    def has_begun(self) -> bool:
        """Whether the exchange has had an order of it, or may have. Sent and proven absent it has
        not begun; the client ids of what was sent are used up all the same."""
        return any(part.may_have_arrived for record in self.legs for part in record.slices)

    @property
    def unproven_symbols(self) -> frozenset[str]:
        """Symbols with an order of which nobody knows yet whether the exchange has it (I5)."""
        return frozenset(record.leg.symbol for record in self.legs if record.is_unproven)

    def expected(self) -> Holding | None:
        """What should be held by what the letters say: the plan's basis and what was booked since;
        without a plan what the letters before lead to. None: nobody knows."""
        if self.held_after is not None:
            return self.held_after
        if self.basis is None:
            return self.held_before
        sizes = dict(self.basis.sizes)
        for record in self.legs:
            filled = record.filled_size
            if filled:
                symbol = record.leg.symbol
                sizes[symbol] = sizes.get(symbol, ZERO) + record.leg.side.sign * filled
        return Holding(self.basis.at, {name: size for name, size in sizes.items() if size})

    def leads_to(self) -> Holding | None:
        """`expected()`, and what others are known to have moved since this letter began: a change
        that a leader found when it took the letter up is not found again by the next cycle."""
        expected = self.expected()
        begun = self.basis or self.held_before
        if expected is None or begun is None or self.held_after is not None:
            return expected
        sizes = dict(expected.sizes)
        for item in self.noted:
            if item.at <= begun.at or item.kind in NO_MOVE:
                continue
            if item.actual == begun.sizes.get(item.symbol, ZERO):
                continue  # found in the very look that this letter begins with
            moved = item.actual - item.expected
            sizes[item.symbol] = sizes.get(item.symbol, ZERO) + moved
        held = {name: size for name, size in sizes.items() if name and size}
        return Holding(expected.at, held)

    @property
    def plan_digest(self) -> str:
        """SHA-256 of what was decided: legs, skipped legs, stops; not of how far it has come."""
        if self.pinned is not None and self.pinned.is_of(self):
            return self.pinned.digest
        return _digest_of(self)


@dataclass(frozen=True, slots=True)
class _Pinned:
    """The digest of what was decided, and its spelling: it is never edited, and written with every
    revision."""

    legs: tuple[Leg, ...]
    skipped: tuple[SkippedLeg, ...]
    stops: Mapping[str, StopPrices]
    residuals: Mapping[str, Decimal]
    digest: str
    spelled: Mapping[str, object]

    def is_of(self, info: OrderInfo) -> bool:
        """Whether `info` has the very same decision."""
        return (
            self.skipped is info.skipped
            and self.stops is info.stops
            and self.residuals is info.residuals
            and len(self.legs) == len(info.legs)
            and all(a is b.leg for a, b in zip(self.legs, info.legs, strict=True))
        )


def _pin(info: OrderInfo, found: str) -> OrderInfo:
    legs = tuple(record.leg for record in info.legs)
    spelled = _decided_to_json(info)
    pinned = _Pinned(legs, info.skipped, info.stops, info.residuals, found, spelled)
    return replace(info, pinned=pinned)


def _decided_to_json(info: OrderInfo) -> dict[str, object]:
    """What of the decision is written as it is."""
    return {
        "skipped": [Spelled(spell.skipped_to_json(item)) for item in info.skipped],
        "stops": Spelled({name: spell.stops_to_json(each) for name, each in info.stops.items()}),
        "residuals": Spelled(spell.sizes_to_json(info.residuals)),
    }


def _digest_of(info: OrderInfo) -> str:
    decided: dict[str, object] = {
        "legs": [spell.leg_to_json(record.leg) for record in info.legs],
        "skipped": [spell.skipped_to_json(item) for item in info.skipped],
        "stops": {name: spell.stops_to_json(stops) for name, stops in info.stops.items()},
    }
    if info.residuals:
        decided["residuals"] = spell.sizes_to_json(info.residuals)
    return digest(decided)


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
    basis: Holding | None = None,
) -> OrderInfo:
    """The letter once the plan is made from the positions `basis`; its digest is pinned."""
    planned = info.changed(
        stage=CycleStage.PLANNED,
        legs=tuple(LegRecord(leg) for leg in plan.legs),
        skipped=plan.skipped,
        stops=plan.stops,
        residuals=plan.residuals,
        inputs=Spelled(inputs),
        targets=Spelled(targets),
        strategy_digest=strategy_digest,
        basis=basis,
    )
    return _pin(planned, _digest_of(planned))


# --- spelling: one place for each direction -------------------------------------------------------


def to_json(info: OrderInfo) -> dict[str, object]:
    """The document as plain JSON values (decimal text, ISO times), with the plan's digest."""
    pinned = info.pinned if info.pinned is not None and info.pinned.is_of(info) else None
    decided = _decided_to_json(info) if pinned is None else pinned.spelled
    whole: dict[str, object] = {
        "version": FORMAT_VERSION,
        "session_id": info.session_id,
        "cycle": instant_text(info.cycle),
        "number": info.number,
        "epoch": info.epoch,
        "revision": info.revision,
        "stage": info.stage.value,
        "reason": info.reason,
        "strategy_digest": info.strategy_digest,
        "inputs": _as_spelled(info.inputs),
        "targets": _as_spelled(info.targets),
        "legs": [record_to_json(record) for record in info.legs],
        **decided,
        "basis": _holding_to_json(info.basis),
        "held_before": _holding_to_json(info.held_before),
        "held_after": _holding_to_json(info.held_after),
        "stops_now": {name: spell.stops_to_json(stops) for name, stops in info.stops_now.items()},
        "skipped_later": [spell.skipped_to_json(item) for item in info.skipped_later],
        "noted": [_noted_to_json(item) for item in info.noted],
        "corrections": dict(info.corrections),
        "plan_digest": info.plan_digest if pinned is None else pinned.digest,
    }
    return Spelled(whole)


def _as_spelled(part: Mapping[str, T]) -> Spelled[T]:
    return part if isinstance(part, Spelled) else Spelled(part)


def from_json(document: Mapping[str, object]) -> OrderInfo:
    """Read what `to_json` wrote; InvariantViolated when it is not that, or was altered."""
    try:
        version = document["version"]
        require(version in READABLE, f"order_info version {version!r} is not {FORMAT_VERSION}")
        info = _read(document if version != 1 else {**_SINCE_2, **document})
    except (KeyError, ValueError, TypeError, InvalidInput) as error:
        raise InvariantViolated(f"order_info cannot be read: {error!r}") from error
    found = _digest_of(info)
    require(found == document.get("plan_digest"), "order_info: the plan does not match its digest")
    return _pin(info, found)


def _read(document: Mapping[str, object]) -> OrderInfo:
    text, mapping, items = spell.text, spell.mapping, spell.items
    return OrderInfo(
        session_id=text(document["session_id"]),
        cycle=parse_instant(text(document["cycle"])),
        number=spell.integer(document["number"]),
        epoch=spell.integer(document["epoch"]),
        revision=spell.integer(document["revision"]),
        stage=CycleStage(text(document["stage"])),
        reason=text(document["reason"]),
        strategy_digest=text(document["strategy_digest"]),
        inputs=_as_spelled(mapping(document["inputs"])),
        targets=Spelled(
            {
                name: {key: text(item) for key, item in mapping(fields).items()}
                for name, fields in mapping(document["targets"]).items()
            }
        ),
        legs=tuple(record_from_json(mapping(item)) for item in items(document["legs"])),
        skipped=tuple(spell.skipped_from_json(mapping(i)) for i in items(document["skipped"])),
        stops=_stops_by_symbol(document["stops"]),
        residuals=spell.sizes_from_json(document["residuals"]),
        basis=_holding_from_json(document["basis"]),
        held_before=_holding_from_json(document["held_before"]),
        held_after=_holding_from_json(document["held_after"]),
        stops_now=_stops_by_symbol(document["stops_now"]),
        skipped_later=tuple(
            spell.skipped_from_json(mapping(item)) for item in items(document["skipped_later"])
        ),
        noted=tuple(_noted_from_json(mapping(i)) for i in items(document["noted"])),
        corrections={
            name: spell.integer(count) for name, count in mapping(document["corrections"]).items()
        },
    )


def _stops_by_symbol(value: object) -> dict[str, StopPrices]:
    return {
        name: spell.stops_from_json(spell.mapping(stops))
        for name, stops in spell.mapping(value).items()
    }


def _holding_to_json(holding: Holding | None) -> dict[str, object] | None:
    if holding is None:
        return None
    return {"at": instant_text(holding.at), "sizes": spell.sizes_to_json(holding.sizes)}


def _holding_from_json(value: object) -> Holding | None:
    if value is None:
        return None
    item = spell.mapping(value)
    return Holding(parse_instant(spell.text(item["at"])), spell.sizes_from_json(item["sizes"]))


def _noted_to_json(item: Noted) -> dict[str, object]:
    return {
        "kind": item.kind,
        "symbol": item.symbol,
        "expected": plain(item.expected),
        "actual": plain(item.actual),
        "detail": item.detail,
        "at": instant_text(item.at),
    }


def _noted_from_json(item: Mapping[str, object]) -> Noted:
    return Noted(
        kind=spell.text(item["kind"]),
        symbol=spell.text(item["symbol"]),
        expected=spell.decimal(item["expected"]),
        actual=spell.decimal(item["actual"]),
        detail=spell.text(item["detail"]),
        at=parse_instant(spell.text(item["at"])),
    )
