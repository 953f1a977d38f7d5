"""One simulator process per test file; one fresh account and a held world per test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from module.clock import WorldClock
from tests.fakes.paper_exchange import RawBitget, SimulatorProcess
from tests.fakes.paper_venue import PaperVenue

_numbers = itertools.count(2)


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    """A world at unbounded speed: it moves only when the test's clock waits."""
    process = SimulatorProcess()
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture
def clock(simulator: SimulatorProcess) -> Iterator[WorldClock]:
    """The test is the one participant: nothing happens unless it sleeps."""
    with simulator.clock("test") as clock:
        clock.sleep(1)  # a fresh second for the request limits
        yield clock


@pytest.fixture
def new_number(simulator: SimulatorProcess) -> Callable[..., int]:
    """Opens accounts; key-N, secret-N, pass-N."""

    def make(**more: object) -> int:
        number = next(_numbers)
        words: dict[str, object] = {
            "api_key": f"key-{number}",
            "api_secret": f"secret-{number}",
            "passphrase": f"pass-{number}",
            "futures_usdt": "100000",
            "spot": {"USDT": "50000"},
        }
        simulator.control("POST", "accounts", {**words, **more})
        return number

    return make


@pytest.fixture
def number(new_number: Callable[..., int]) -> int:
    """A fresh account."""
    return new_number()


@pytest.fixture
def raw(simulator: SimulatorProcess, clock: WorldClock, number: int) -> RawBitget:
    """A raw client of the fresh account."""
    return RawBitget(simulator.url, f"key-{number}", f"secret-{number}", f"pass-{number}")


@pytest.fixture
def paper() -> PaperVenue:
    """The paper exchange in this process, without a socket."""
    return PaperVenue()
