"""Known bugs that the self-check plants, one at a time; each must be caught by the invariants."""

from tests.simulation.planted_bugs.bug import Hunt, Misbehave, Patch, PlantedBug, planted
from tests.simulation.planted_bugs.in_execution import BUGS as IN_EXECUTION
from tests.simulation.planted_bugs.in_gateway import BUGS as IN_GATEWAY
from tests.simulation.planted_bugs.in_letters import BUGS as IN_LETTERS
from tests.simulation.planted_bugs.in_planning import BUGS as IN_PLANNING

BUGS: tuple[PlantedBug, ...] = (*IN_EXECUTION, *IN_GATEWAY, *IN_LETTERS, *IN_PLANNING)

__all__ = ["BUGS", "Hunt", "Misbehave", "Patch", "PlantedBug", "planted"]
