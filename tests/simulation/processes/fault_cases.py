"""Which faults of the paper exchange are tried on a session, and how each is armed.

Every variant of the catalogue stands here: as a case, or excused with the reason why a session of
market orders cannot meet it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from module.simulator.faults.fault_catalogue import CATALOGUE
from module.simulator.faults.fault_entry import Words

ADDRESS_WIDE = ("A10", "A13", "A14", "A15", "A24")
"""They hit requests without a key too, so they are not limited to an account."""


class Arm(StrEnum):
    """When a fault is armed: before the first cycle, while positions and their stops stand, or long
    after the last order of a cycle, when nothing that happens to a position is our own doing."""

    FIRST = "first"
    RUNNING = "running"
    QUIET = "quiet"


@dataclass(frozen=True, slots=True)
class Case:
    """One fault on one session. `dirty`: it leaves a market that other cases cannot use."""

    fault: str
    variant: str
    rules: tuple[Words, ...]
    arm: Arm = Arm.RUNNING
    has_flat_cycle: bool = False
    dirty: bool = False
    cycles: int = 2

    @property
    def name(self) -> str:
        return f"{self.fault}/{self.variant}"


@dataclass(frozen=True, slots=True)
class _Way:
    """What a case differs in from the usual: words of its own, moment."""

    words: Words = field(default_factory=dict)
    arm: Arm = Arm.RUNNING
    has_flat_cycle: bool = False
    dirty: bool = False
    cycles: int = 2


_STOPS_GONE: Words = {
    "fault": "",
    "operation": "*",
    "signed_only": True,
    "moment": "before",
    "effect": "cancel_stops",
}
_STOP_FIRES: Words = {"at_s": 20, "effect": "jump", "symbol": "ETHUSDT", "factor": "0.75"}
_SHOWN_LIVE: Words = {"operation": "@order-reads", "edit": "go_back", "span_s": 45}

WAYS: Mapping[str, _Way] = {
    "A14": _Way({"span_s": 150}, cycles=4),
    "A15": _Way({"span_s": 150}, cycles=4),
    "A19": _Way(dirty=True, cycles=3),
    "A20": _Way({"symbol": "SOLUSDT", "halt_s": 150}, dirty=True, cycles=4),
    "A21": _Way(arm=Arm.FIRST),
    "A22": _Way(has_flat_cycle=True, cycles=4),
    "A23": _Way(cycles=3),
    "A24": _Way({"delay_s": 2, "span_s": 40}),
    "B2": _Way({"lag_s": 90}),
    "B6/moved": _Way(dirty=True),
    "B14": _Way(dirty=True),
    "B15": _Way(dirty=True),
}
"""By id, or by id and variant."""

NEEDS_STOPS_GONE = ("B5", "B6", "B7")
"""A session attaches stops to its orders; a stop is placed alone where one has vanished."""

_ONE_OF_A_SYMBOL = "a request of a session has one order: a cycle has one leg per symbol and phase"
_MARKET = "orders of a session are market orders: none is live when it would be cancelled"
_SPOT = "a session trades futures"
EXCUSED: Mapping[str, str] = {
    "A7": _ONE_OF_A_SYMBOL,
    "A8/shuffled": _ONE_OF_A_SYMBOL,
    "A18/spot": _SPOT,
    "A19/spot_tick": _SPOT,
    "A19/spot_lot": _SPOT,
    "A19/spot_minimum": _SPOT,
    "A26/price": "orders of a session have no price",
    "A28/cancel": _MARKET,
    "A30": _MARKET,
    "B13/dust": _SPOT,
    "A31": f"{_MARKET}; `over` is the case that it can meet",
}


def catalogue_rules(fault: str, variant: str) -> tuple[Words, ...]:
    """The rules of a variant, named."""
    return tuple({"fault": fault, **rule} for rule in CATALOGUE[fault].variants[variant])


EXTRA: tuple[Case, ...] = (
    # A filled order is shown as live for so long that it is cancelled.
    Case("A31", "over", ({"fault": "A31", **_SHOWN_LIVE},), cycles=3),
    *(
        Case(fault, f"{variant}-quiet", catalogue_rules(fault, variant), arm=Arm.QUIET)
        for fault, variant in (
            ("A28", "order"),
            ("A28", "close"),
            ("B12", "half"),
            ("B13", "third"),
        )
    ),
    # The session itself moves a stop that stands, and that is what fails.
    *(
        Case(fault, f"{variant}-moved", catalogue_rules(fault, variant))
        for fault, variant in (
            ("B5", "done"),
            ("B5", "not_done"),
            ("B6", "45062"),
            ("B7", "43031"),
            ("B7", "40890"),
            ("B7", "43071"),
        )
    ),
)
MAY_END = ("A16", "A21/45117", "A21/40920", "A22", "A26")
"""Faults that end a session: its keys, leverage, mode or orders are not what it needs."""


def excuse(fault: str, variant: str) -> str:
    """Why this variant cannot be met by a session; empty when it can."""
    return (
        CATALOGUE[fault].excuse or EXCUSED.get(fault, "") or EXCUSED.get(f"{fault}/{variant}", "")
    )


def all_cases() -> list[Case]:
    """Every variant that a session can meet, in the catalogue's order."""
    found = [
        _case(fault, variant, rules)
        for fault, entry in CATALOGUE.items()
        for variant, rules in entry.variants.items()
        if not excuse(fault, variant)
    ]
    return [*found, *EXTRA]


def chosen(selection: str) -> list[Case]:
    """`all`, `first` (one variant per id), or names with commas between: `A1,B6/moved`."""
    cases = all_cases()
    if selection == "all":
        return cases
    if selection == "first":
        by_id: dict[str, Case] = {}
        for case in cases:
            by_id.setdefault(case.fault, case)
        return list(by_id.values())
    wanted = selection.split(",")
    found = [case for case in cases if case.fault in wanted or case.name in wanted]
    met = {case.fault for case in found} | {case.name for case in found}
    missing = sorted(set(wanted) - met)
    if missing:
        raise ValueError(f"no such cases: {missing}; known are {[case.name for case in cases]}")
    return found


def _case(fault: str, variant: str, rules: tuple[Words, ...]) -> Case:
    way = WAYS.get(f"{fault}/{variant}") or WAYS.get(fault) or _Way()
    own: list[Words] = [{"fault": fault, **rule, **way.words} for rule in rules]
    if fault in NEEDS_STOPS_GONE:
        own.append(_STOPS_GONE)
    if fault == "B15":
        own.append(_STOP_FIRES)
    return Case(
        fault,
        variant,
        tuple(own),
        arm=way.arm,
        has_flat_cycle=way.has_flat_cycle,
        dirty=way.dirty,
        cycles=way.cycles,
    )
