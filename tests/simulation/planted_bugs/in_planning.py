"""Bugs of planning: what a half-done edit leaves behind."""

from __future__ import annotations

from typing import Any

from module.model.errors import InvariantViolated
from tests.simulation.planted_bugs.bug import Hunt, Patch, PlantedBug

SHORT = Hunt(hours=0.3, seeds=(1,))
"""The first cycle shows it."""
DECIDE = "trading.rebalancing_strategy:decide"


def _planning_raises(patch: Patch) -> None:
    def decide(*_: Any, **__: Any) -> Any:
        raise TypeError("Book.__init__() got an unexpected keyword argument")

    patch.replace(DECIDE, decide)


def _planning_gives_up(patch: Patch) -> None:
    def decide(*_: Any, **__: Any) -> Any:
        raise InvariantViolated("a plan that leads nowhere")

    patch.replace(DECIDE, decide)


BUGS: tuple[PlantedBug, ...] = (
    PlantedBug(
        "planning raises",
        "the strategy process ends with a TypeError in every cycle",
        ("bug",),
        _planning_raises,
        SHORT,
    ),
    PlantedBug(
        "planning gives up",
        "every cycle is skipped, with a broken invariant for its reason",
        ("bug",),
        _planning_gives_up,
        SHORT,
    ),
)
