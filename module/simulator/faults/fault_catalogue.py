"""The catalogue of faults that an exchange can cause: id, variants in words, what counts.

    control door {"catalogue": "A9", "lag_s": 5} -> words_of -> FaultWords
    control door {"seed": 7, "density": 4}       -> fault_seeds -> the same

The ids are those of the fault list that the tests of the whole product use: A is submission and the
exchange's interface, B is fills, positions and stops. What an exchange cannot cause is excused here
by name. docs/faults.md holds the same table for people; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from module.model.errors import InvalidInput
from module.simulator.faults.fault_entries_a import ENTRIES_A
from module.simulator.faults.fault_entries_b import ENTRIES_B
from module.simulator.faults.fault_entry import Entry, Words
from module.simulator.faults.fault_seeds import PlannedFault, SeedWords, draw_plan
from module.simulator.faults.fault_words import parse_words
from module.simulator.faults.faults import FaultWords

CATALOGUE: Mapping[str, Entry] = {entry.fault: entry for entry in (*ENTRIES_A, *ENTRIES_B)}
INJECTABLE: tuple[str, ...] = tuple(fault for fault, entry in CATALOGUE.items() if not entry.excuse)
_SEED_WORDS = frozenset(("seed", "density", "horizon_s", "ids"))


def catalogue_words(fault: str, variant: str = "", own: Words | None = None) -> list[Words]:
    """The rules of one entry in JSON words; `own` words replace the entry's in each of them.

    InvalidInput for an unknown id or variant, and for an id that is excused, with its reason.
    """
    entry = CATALOGUE.get(fault)
    if entry is None:
        raise InvalidInput(f"no fault {fault!r} in the catalogue; known are {list(CATALOGUE)}")
    if entry.excuse:
        raise InvalidInput(f"{fault} cannot be injected here: {entry.excuse}")
    chosen = variant or next(iter(entry.variants))
    if chosen not in entry.variants:
        raise InvalidInput(f"{fault} has no variant {chosen!r}; it has {list(entry.variants)}")
    return [{"fault": fault, **rule, **(own or {})} for rule in entry.variants[chosen]]


def seeded_plan(
    seed: int, horizon_s: int, density: Decimal, ids: Sequence[str] = ()
) -> tuple[PlannedFault, ...]:
    """Which faults happen in `horizon_s` world seconds, `density` an hour: pure, in order of time.

    `ids` limits it to some faults. InvalidInput names an id that cannot be injected.
    """
    return draw_plan(CATALOGUE, SeedWords(seed, horizon_s, density, tuple(ids)))


def planned_words(plan: Iterable[PlannedFault]) -> list[Words]:
    """The rules of a plan in JSON words; their times count from the moment they are given."""
    return [
        rule
        for fault in plan
        for rule in catalogue_words(fault.fault, fault.variant, fault.words())
    ]


def words_of(values: Words, now_ms: int) -> list[FaultWords]:
    """What `POST /control/faults` means: a seeded plan, an entry of the catalogue, or one rule.

    InvalidInput (or WireError) names the words that are wrong.
    """
    if "seed" in values:
        unknown = sorted(set(values) - _SEED_WORDS)
        if unknown:
            raise InvalidInput(f"unknown words of a plan: {unknown}; known are {_known()}")
        plan = draw_plan(CATALOGUE, SeedWords.read(values))
        return [parse_words(rule, now_ms) for rule in planned_words(plan)]
    if "catalogue" in values:
        own = {name: word for name, word in values.items() if name not in ("catalogue", "variant")}
        fault, variant = str(values["catalogue"]), str(values.get("variant") or "")
        return [parse_words(rule, now_ms) for rule in catalogue_words(fault, variant, own)]
    return [parse_words(values, now_ms)]


def catalogue_json() -> list[Words]:
    """The whole catalogue, as the control door shows it."""
    return [
        {
            "fault": entry.fault,
            "title": entry.title,
            "counts": entry.counts,
            "excuse": entry.excuse,
            "variants": {name: list(rules) for name, rules in entry.variants.items()},
        }
        for entry in CATALOGUE.values()
    ]


def _known() -> list[str]:
    return sorted(_SEED_WORDS)
