"""What cycles planned and what became of it, as rows: from letters and from the gateway's record.

    letter (plain JSON) ─► CycleRow (one cycle in a line), cycle_plan (one cycle in detail)
    gateway_writes + legs ─► OrderRow (one order in a line)

Pure. A letter of an older build may lack a part: what it does not say is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal

from api.skip_words import words_for
from module.db.repositories.session_history import CycleLegs, SentWrite, StoredCycle
from module.model.canonical import parse_instant
from module.model.errors import InvalidInput, InvariantViolated
from module.model.money import parse_decimal
from trading.rebalance.leg_state import LegState

JsonObject = Mapping[str, object]
_GIVEN_UP = (LegState.REJECTED.value, LegState.ABANDONED.value)
_ORDER_FACTS = (
    *("version", "session_id", "cycle", "number", "stage", "reason", "epoch", "revision"),
    *("strategy_digest", "plan_digest", "targets", "stops", "stops_now", "residuals"),
    *("basis", "held_before", "held_after", "noted", "corrections"),
)

_NEWEST_FACTS = ("filled_size", "average_price", "message")
_ROW_FACTS = (
    *("symbol", "side", "case", "size", "reduce_only", "state", "abandoned"),
    *_NEWEST_FACTS,
)


@dataclass(frozen=True, slots=True)
class CycleRow:
    """One ended cycle: how many legs were planned, and what became of them. `own_ms`: the real time
    that it took. `skipped`: each with its reason (a code, and in `words`) and
    weights."""

    boundary: datetime
    number: int
    state: str
    reason: str
    started_at: datetime
    ended_at: datetime | None
    own_ms: float | None
    planned: int
    filled: int
    failed: int
    targets: Mapping[str, object]
    skipped: Sequence[JsonObject]
    residuals: Mapping[str, object]
    digest: str | None


@dataclass(frozen=True, slots=True)
class OrderRow:
    """One write that reached the gateway, and the slice of a leg that it is.

    `outcome`: what the gateway knows (None: under way or lost with it), `state`: what the letter
    knows. `price_off_bps`: filled worse than planned (positive) or better, in 1e-4 of
    `reference_price`. Fee negative when paid.
    """

    sent_at: datetime
    kind: str
    symbol: str
    side: str | None
    size: Decimal | None
    reduce_only: bool | None
    outcome: str | None
    state: str | None
    filled_size: Decimal | None
    average_price: Decimal | None
    reference_price: Decimal | None
    price_off_bps: float | None
    fee: Decimal | None
    stop_loss: Decimal | None
    take_profit: Decimal | None
    cycle: datetime | None
    cycle_number: int | None
    leg_id: str | None
    case: str | None
    slice: int | None
    client_id: str | None
    order_id: str | None
    code: str | None
    message: str | None
    epoch: int
    answered_at: datetime | None


CYCLE_COLUMNS = tuple(field.name for field in fields(CycleRow))
ORDER_COLUMNS = tuple(field.name for field in fields(OrderRow))


def cycle_row(cycle: StoredCycle) -> CycleRow:
    """The cycle in a line."""
    states = [str(leg.get("state")) for leg in cycle.legs]
    return CycleRow(
        boundary=cycle.boundary,
        number=cycle.number,
        state=cycle.state,
        reason=cycle.reason,
        started_at=cycle.started_at,
        ended_at=cycle.ended_at,
        own_ms=cycle.own_ms,
        planned=len(states),
        filled=states.count(LegState.FILLED.value),
        failed=sum(state in _GIVEN_UP for state in states),
        targets=cycle.targets or {},
        skipped=_skipped(cycle.skipped),
        residuals=cycle.residuals,
        digest=cycle.digest,
    )


def cycle_plan(letter: JsonObject, *, with_inputs: bool = False) -> dict[str, object]:
    """The cycle in detail: targets, each leg with its orders, what was skipped and why, stops, what
    was held. `inputs` (what the plan was made of) only when asked for: they are long."""
    document: dict[str, object] = {name: letter.get(name) for name in _ORDER_FACTS}
    document["legs"] = [leg_view(item) for item in _objects(letter.get("legs"))]
    skipped = (*_objects(letter.get("skipped")), *_objects(letter.get("skipped_later")))
    document["skipped"] = _skipped(skipped)
    if with_inputs:
        document["inputs"] = letter.get("inputs")
    return document


def _skipped(items: Iterable[JsonObject]) -> list[dict[str, object]]:
    """Each with its reason in `words`, too."""
    return [{**item, "words": words_for(str(item.get("reason", "")))} for item in items]


def order_rows(writes: Sequence[SentWrite], legs: Mapping[datetime, CycleLegs]) -> list[OrderRow]:
    """Each write, joined with the slice of its cycle's letter that has its client id."""
    slices = {
        str(part.get("client_id")): (found.number, _object(record.get("leg")), part)
        for found in legs.values()
        for record in found.legs
        for part in _objects(record.get("slices"))
    }
    return [_order(write, slices.get(write.client_id or "")) for write in writes]


def cycle_of_write(write: SentWrite) -> datetime | None:
    """The boundary of the cycle that a write is of; None where it is of none."""
    text = write.request.get("cycle")
    if not isinstance(text, str):
        return None
    try:
        return parse_instant(text)
    except (ValueError, OverflowError, InvariantViolated):
        return None


def _order(write: SentWrite, found: tuple[int, JsonObject, JsonObject] | None) -> OrderRow:
    asked = _object(write.request.get("order"))
    number, leg, part = found if found is not None else (None, {}, {})
    stops = _object(asked.get("stops"))
    side = _text(asked.get("side")) or _text(leg.get("side"))
    average = _decimal(part.get("average_price"))
    reference = _decimal(asked.get("reference_price")) or _decimal(leg.get("reference_price"))
    return OrderRow(
        sent_at=write.sent_at,
        kind=write.kind,
        symbol=write.symbol,
        side=side,
        size=_decimal(asked.get("size")),
        reduce_only=_flag(asked.get("reduce_only")),
        outcome=write.outcome,
        state=_text(part.get("state")),
        filled_size=_decimal(part.get("filled_size")),
        average_price=average,
        reference_price=reference,
        price_off_bps=_price_off_bps(side, average, reference),
        fee=_decimal(part.get("fee")),
        stop_loss=_decimal(stops.get("stop_loss")),
        take_profit=_decimal(stops.get("take_profit")),
        cycle=cycle_of_write(write),
        cycle_number=number,
        leg_id=_text(leg.get("leg_id")),
        case=_text(leg.get("case")),
        slice=_number(part.get("number")),
        client_id=write.client_id,
        order_id=_text(part.get("order_id")) or _text(write.answer.get("order_id")),
        code=_text(part.get("code")) or _text(write.answer.get("code")),
        message=_text(part.get("message")) or _text(write.answer.get("message")),
        epoch=write.epoch,
        answered_at=write.answered_at,
    )


def _price_off_bps(
    side: str | None, average: Decimal | None, reference: Decimal | None
) -> float | None:
    if average is None or not reference or side not in ("buy", "sell"):
        return None
    sign = 1 if side == "buy" else -1
    return float(sign * (average - reference) / reference * 10_000)


def letter_rows(letter: JsonObject, rows_max: int) -> list[dict[str, object]]:
    """The first legs of a letter that may be under way, in a row's worth of facts each; what the
    letter does not say is None."""
    legs = _objects(letter.get("legs"))[:rows_max]
    return [{name: leg.get(name) for name in _ROW_FACTS} for leg in map(leg_view, legs)]


def leg_view(record: JsonObject) -> dict[str, object]:
    """A leg with what execution made of it, flat: its orders, and what the newest of them says."""
    orders = _objects(record.get("slices"))
    newest = orders[-1] if orders else {}
    return {
        **_object(record.get("leg")),
        "state": record.get("state"),
        "abandoned": record.get("abandoned"),
        "sized": record.get("sized"),
        "orders": orders,
        **{name: newest.get(name) for name in _NEWEST_FACTS},
    }


def _object(value: object) -> JsonObject:
    return value if isinstance(value, Mapping) else {}


def _objects(value: object) -> list[JsonObject]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _decimal(value: object) -> Decimal | None:
    if not isinstance(value, (str, int, Decimal)) or isinstance(value, bool):
        return None
    try:
        return parse_decimal(value)
    except InvalidInput:
        return None
