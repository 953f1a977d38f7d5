"""Seeded plans: which faults happen when, as a pure function of a seed.

The same seed, horizon, density and ids give the same plan on every machine; a plan goes to JSON
and back. Times count from the moment when the plan is given to an exchange.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal

from module.model.errors import InvalidInput
from module.simulator.faults.fault_entry import Entry, Words
from module.simulator.wire.bitget_params import Params

HORIZON_S = 24 * 3600
FAULTS_MAX = 10_000
_NTH_MAX = 3
_LASTING_S = (60, 300, 900)
"""How long a planned fault may wait for its request, or go on."""


@dataclass(frozen=True, slots=True)
class SeedWords:
    """What a plan is made of. `density` is faults per world hour, `ids` empty means all."""

    seed: int
    horizon_s: int = HORIZON_S
    density: Decimal = Decimal(1)
    ids: tuple[str, ...] = ()

    @classmethod
    def read(cls, values: Words) -> SeedWords:
        """From JSON words; InvalidInput or WireError names what is wrong."""
        plain = {
            name: Decimal(repr(value)) if isinstance(value, float) else value
            for name, value in values.items()
            if name != "ids"
        }
        words = Params(plain)
        ids = values.get("ids") or ()
        if not isinstance(ids, (list, tuple)):
            raise InvalidInput(f"ids is a list of ids of the catalogue, not {ids!r}")
        return cls(
            seed=words.integer("seed", 0),
            horizon_s=words.integer("horizon_s", HORIZON_S),
            density=words.positive("density") or Decimal(1),
            ids=tuple(str(each) for each in ids),
        )


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One fault of a plan: from `from_s` to `until_s` world seconds, at the `nth` fitting call."""

    fault: str
    variant: str
    from_s: int
    until_s: int
    nth: int

    def words(self) -> Words:
        """The words that it adds to its catalogue entry."""
        return {"from_s": self.from_s, "until_s": self.until_s, "nth": self.nth}

    def to_json(self) -> dict[str, object]:
        """Plain JSON; `from_json` reads it again."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Words) -> PlannedFault:
        """What `to_json` wrote."""
        words = Params(values)
        return cls(
            fault=words.needed("fault"),
            variant=words.needed("variant"),
            from_s=words.integer("from_s", 0),
            until_s=words.integer("until_s", 0),
            nth=words.integer("nth", 1),
        )


def draw_plan(catalogue: Mapping[str, Entry], words: SeedWords) -> tuple[PlannedFault, ...]:
    """The plan of a seed, in the order of time. InvalidInput names an id that is not injectable."""
    possible = [fault for fault, entry in catalogue.items() if not entry.excuse]
    wrong = sorted(set(words.ids) - set(possible))
    if wrong:
        raise InvalidInput(f"no such injectable faults: {wrong}; known are {possible}")
    number = int(words.density * words.horizon_s / 3600)
    if number > FAULTS_MAX:
        raise InvalidInput(f"a plan of {number} faults; at most {FAULTS_MAX} are allowed")
    ids = [fault for fault in possible if not words.ids or fault in words.ids]
    dice = random.Random(words.seed)  # noqa: S311  (a plan is to be repeatable, not secret)
    planned = [_planned(dice, catalogue, ids, words.horizon_s) for _ in range(number)]
    return tuple(sorted(planned, key=lambda fault: (fault.from_s, fault.fault, fault.variant)))


def _planned(
    dice: random.Random, catalogue: Mapping[str, Entry], ids: list[str], horizon_s: int
) -> PlannedFault:
    fault = ids[dice.randrange(len(ids))]
    variants = list(catalogue[fault].variants)
    variant = variants[dice.randrange(len(variants))]
    from_s = dice.randrange(max(1, horizon_s))
    until_s = from_s + _LASTING_S[dice.randrange(len(_LASTING_S))]
    return PlannedFault(fault, variant, from_s, until_s, 1 + dice.randrange(_NTH_MAX))
