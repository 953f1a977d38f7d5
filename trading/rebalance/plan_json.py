"""How a plan is spelled as JSON, both ways: legs, skipped legs, stops, and plain values. PURE.

The letter (`order_info`) is made of these; its plan digest is taken over them. Numbers are decimal
text, times ISO; what cannot be read is a TypeError, ValueError or KeyError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from module.model.money import parse_decimal, plain
from module.model.orders import NO_STOPS, Side, StopPrices
from trading.rebalance.plan import DiffCase, Leg, SkippedLeg, SkipReason


def leg_to_json(leg: Leg) -> dict[str, object]:
    """One planned leg."""
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
        "stops": stops_to_json(leg.stops),
        "after": leg.after,
    }


def leg_from_json(item: Mapping[str, object]) -> Leg:
    """What `leg_to_json` wrote."""
    return Leg(
        leg_id=text(item["leg_id"]),
        symbol=text(item["symbol"]),
        case=DiffCase(text(item["case"])),
        side=Side(text(item["side"])),
        size=decimal(item["size"]),
        reduce_only=bool(item["reduce_only"]),
        reference_price=decimal(item["reference_price"]),
        current_weight=decimal(item["current_weight"]),
        target_weight=decimal(item["target_weight"]),
        stops=stops_from_json(mapping(item["stops"])),
        after=optional_text(item["after"]),
    )


def skipped_to_json(item: SkippedLeg) -> dict[str, object]:
    """One skipped leg."""
    return {
        "symbol": item.symbol,
        "reason": item.reason.value,
        "current_weight": plain(item.current_weight),
        "target_weight": plain(item.target_weight),
    }


def skipped_from_json(item: Mapping[str, object]) -> SkippedLeg:
    """What `skipped_to_json` wrote."""
    return SkippedLeg(
        symbol=text(item["symbol"]),
        reason=SkipReason(text(item["reason"])),
        current_weight=decimal(item["current_weight"]),
        target_weight=decimal(item["target_weight"]),
    )


def stops_to_json(stops: StopPrices) -> dict[str, object]:
    """Stops of one position."""
    return {
        "stop_loss": None if stops.stop_loss is None else plain(stops.stop_loss),
        "take_profit": None if stops.take_profit is None else plain(stops.take_profit),
    }


def stops_from_json(item: Mapping[str, object]) -> StopPrices:
    """What `stops_to_json` wrote."""
    stops = StopPrices(optional_decimal(item["stop_loss"]), optional_decimal(item["take_profit"]))
    return NO_STOPS if stops.empty else stops


def text(value: object) -> str:
    """`value` if it is text; TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def optional_text(value: object) -> str | None:
    """`value` if it is text or null."""
    return None if value is None else text(value)


def integer(value: object) -> int:
    """`value` if it is a whole number; TypeError."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected an integer, got {type(value).__name__}")
    return value


def sizes_to_json(sizes: Mapping[str, Decimal]) -> dict[str, object]:
    """Decimals by name."""
    return {name: plain(size) for name, size in sizes.items()}


def sizes_from_json(value: object) -> dict[str, Decimal]:
    """What `sizes_to_json` wrote."""
    return {name: decimal(size) for name, size in mapping(value).items()}


def decimal(value: object) -> Decimal:
    """The number that the text `value` spells."""
    return parse_decimal(text(value))


def optional_decimal(value: object) -> Decimal | None:
    """The number that `value` spells, or None for null."""
    return None if value is None else decimal(value)


def mapping(value: object) -> Mapping[str, object]:
    """`value` if it is an object; TypeError."""
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    return value


def items(value: object) -> Sequence[object]:
    """`value` if it is a list; TypeError."""
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {type(value).__name__}")
    return value
