"""One stage per venue and market; cases that do not apply are skipped by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from module.clock import WorldClock
from tests.contract.exchange.harness import (
    HARNESSES,
    Stage,
    open_harness,
    opened_simulator,
)
from tests.fakes.simulator_process import RunningSimulator


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*abilities): the case asks for these of a venue")
    config.addinivalue_line("markers", "lacks(ability): the case is of venues without it")


@pytest.fixture(scope="package")
def simulator(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[RunningSimulator, WorldClock]]:
    with opened_simulator(tmp_path_factory.mktemp("simulator")) as running:
        yield running


@pytest.fixture(params=HARNESSES)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    kind = HARNESSES[request.param]
    declared = {*kind.abilities, *kind.traits}
    for marker in request.node.iter_markers("needs"):
        missing = [str(what) for what in marker.args if what not in declared]
        if missing:
            pytest.skip(f"{request.param} has no {', '.join(missing)}")
    for marker in request.node.iter_markers("lacks"):
        if any(what in declared for what in marker.args):
            pytest.skip(f"{request.param} has {', '.join(map(str, marker.args))}")
    found = Stage(open_harness(request.param, lambda: request.getfixturevalue("simulator")))
    yield found
    found.harness.close()
