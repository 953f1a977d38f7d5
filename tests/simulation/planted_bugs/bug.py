"""What a planted bug is: a name, one line of what it is, and how it gets into the running code.

    with planted(bug): World(plan, folder).run()   the production code has the bug meanwhile

A bug replaces functions of production modules for the length of one simulation and changes nothing
on the disk. It is what a hasty hand might have written; the checks of the simulation know nothing
of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from module.simulator.faults.fault_catalogue import catalogue_words
from tests.simulation.fault_postgres import DatabaseFault
from tests.simulation.hub import EPOCH
from tests.simulation.world import START_MS, World
from tests.simulation.world_plan import Stroke


class Patch:
    """Replaces attributes and puts them back in the opposite order."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any]] = []

    def replace(self, where: str, new: Any) -> Any:
        """Put `new` at "module:name" or "module:Class.name"; what was there before."""
        module, _, path = where.partition(":")
        owner: Any = importlib.import_module(module)
        *parents, name = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        before = owner.__dict__[name]
        self._undo.append((owner, name, before))
        setattr(owner, name, new)
        return before

    def wrap(self, where: str, make: Callable[[Any], Any]) -> None:
        """Put what `make` makes of the original there."""
        self.replace(where, make(self.replace(where, None)))

    def put_back(self) -> None:
        """As it was."""
        while self._undo:
            owner, name, before = self._undo.pop()
            setattr(owner, name, before)


@dataclass(frozen=True)
class Hunt:
    """The days on which a bug is looked for: what goes wrong on them besides the bug.

    `strokes` and `database` are put into an otherwise quiet day of `hours`; the seeds are tried
    one after another.
    """

    strokes: Sequence[Stroke] = ()
    database: Sequence[DatabaseFault] = ()
    hours: float = 1.25
    seeds: Sequence[int] = (1, 2, 3)


@dataclass(frozen=True)
class PlantedBug:
    """One bug. `caught_by`: the invariants of which one must be seen broken."""

    name: str
    what: str
    caught_by: tuple[str, ...]
    plant: Callable[[Patch], None]
    hunt: Hunt = field(default_factory=Hunt)


@contextmanager
def planted(bug: PlantedBug) -> Iterator[None]:
    """The production code has the bug for the length of the block."""
    patch = Patch()
    try:
        bug.plant(patch)
        yield
    finally:
        patch.put_back()


def database_fault(fault_id: str, at_s: float, **words: Any) -> DatabaseFault:
    """A database fault at a second of the day."""
    at = EPOCH + timedelta(milliseconds=START_MS + int(at_s * 1000))
    return DatabaseFault(fault_id, at, **words)


@dataclass(frozen=True, slots=True)
class Misbehave:
    """The exchange misbehaves by an entry of its catalogue, or (no id) by a rule in `words`."""

    fault_id: str
    at_s: float
    variant: str = ""
    words: tuple[tuple[str, object], ...] = ()

    def apply(self, world: World) -> None:
        """Every rule of the entry."""
        if not self.fault_id:
            world.exchange.fault(dict(self.words))
            return
        for rule in catalogue_words(self.fault_id, self.variant, dict(self.words)):
            world.exchange.fault(rule)
