"""A leader's children and what speaks to a leader: real processes, pidfds, life lines, signals."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from module.clock import SystemClock
from module.launch.processes import ProcessIdentity, end_process, identify, open_pidfd
from module.model.errors import Unavailable
from module.model.sessions import EndState
from tests.fakes.leader import MemoryAlerts, MemoryRegistry, PlayedChild
from tests.fakes.order_info import MemoryOrderInfoStore
from tests.unit.trading.leading import make_spec
from trading.rebalance.order_info import CycleStage
from trading.session import children
from trading.session.announcer import Announcer
from trading.session.asking import PlanDesk
from trading.session.bells import Bells
from trading.session.children import Child, FinwatcherProcess, StrategyProcess
from trading.session.control import Control
from trading.session.letters import Letters, PatientStore
from trading.session.vigil import Vigil

ROOT = Path(__file__).resolve().parents[3]
REAL_S = 20.0
Body = Callable[[Sequence[int]], None]


class ForkedProcess:
    """Fits `children.Child`."""

    def __init__(self, identity: ProcessIdentity) -> None:
        self.identity = identity
        descriptor = open_pidfd(identity)
        assert descriptor is not None
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def end(self) -> None:
        end_process(self.identity, grace_s=0.5)


class TestForker:
    """Fits `children.Forker`: forks this process and runs the next of `bodies`."""

    __test__ = False

    def __init__(self, *bodies: Body) -> None:
        self.bodies = list(bodies)
        self.forked: list[ForkedProcess] = []
        self.roles: list[str] = []

    def fork(self, role: str, descriptors: Sequence[int]) -> Child:
        body = self.bodies.pop(0)
        gate_read, gate_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(gate_write)
                os.read(gate_read, 1)
                os.close(gate_read)
                body(descriptors)
            finally:
                os._exit(0)
        who = identify(pid)
        os.close(gate_read)
        os.close(gate_write)  # only now may it run, and end
        assert who is not None
        self.roles.append(role)
        self.forked.append(ForkedProcess(who))
        return self.forked[-1]

    def reap(self) -> None:
        for child in self.forked:
            end_process(child.identity, grace_s=0.1)
            os.waitpid(child.identity.pid, 0)


@pytest.fixture
def bells() -> Iterator[Bells]:
    found = Bells.create(SystemClock(), "leader", "strategy")
    yield found
    found.close()


def serves(descriptors: Sequence[int]) -> None:
    """A strategy process that is ready, and lives as long as its leader."""
    *bell_descriptors, life_line = descriptors
    os.eventfd_write(bell_descriptors[3], 1)
    select.select([life_line], [], [], 60)


def dies(_descriptors: Sequence[int]) -> None:
    """One that never becomes ready."""


def hangs(_descriptors: Sequence[int]) -> None:
    select.select([], [], [], 60)


def is_over(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], REAL_S)[0])


def test_a_strategy_process_is_there_once_it_rang(bells: Bells) -> None:
    forker = TestForker(serves)
    process = StrategyProcess(forker, bells.descriptors(), bells.rebalance_done.fileno())
    try:
        process.start()
        assert not bells.rebalance_done.is_set()
        assert select.select([process.fileno()], [], [], 0)[0] == []
        os.kill(forker.forked[0].identity.pid, signal.SIGKILL)
        assert is_over(process.fileno())
    finally:
        process.stop()
        forker.reap()


def test_its_life_line_ends_with_its_leader(bells: Bells) -> None:
    forker = TestForker(serves)
    process = StrategyProcess(forker, bells.descriptors(), bells.rebalance_done.fileno())
    process.start()
    pidfd = os.dup(process.fileno())
    process.stop()
    assert is_over(pidfd)
    os.close(pidfd)
    forker.reap()
    with pytest.raises(Unavailable):
        process.fileno()
    process.stop()


def test_one_that_dies_before_it_is_ready_is_unavailable(bells: Bells) -> None:
    forker = TestForker(dies)
    process = StrategyProcess(forker, bells.descriptors(), bells.rebalance_done.fileno())
    try:
        with pytest.raises(Unavailable):
            process.start()
    finally:
        process.stop()
        forker.reap()


def test_a_late_ring_of_the_one_before_is_not_this_ones(bells: Bells) -> None:
    forker = TestForker(dies)
    bells.rebalance_done.set()
    process = StrategyProcess(forker, bells.descriptors(), bells.rebalance_done.fileno())
    try:
        with pytest.raises(Unavailable):
            process.start()
    finally:
        process.stop()
        forker.reap()


def test_one_that_never_becomes_ready_is_unavailable(
    bells: Bells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "READY_WAIT_MS", 50)
    forker = TestForker(hangs)
    process = StrategyProcess(forker, bells.descriptors(), bells.rebalance_done.fileno())
    try:
        with pytest.raises(Unavailable):
            process.start()
    finally:
        process.stop()
        forker.reap()


def test_I20_starting_again_and_again_leaves_no_descriptor(bells: Bells) -> None:
    forker = TestForker(*[serves] * 4)
    process = StrategyProcess(forker, bells.descriptors(), bells.rebalance_done.fileno())
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(4):
        process.start()
    process.stop()
    forker.reap()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_O2_a_strategy_that_spins_for_ever_is_killed_once_its_session_is_to_end(
    bells: Bells,
) -> None:
    control = Control()

    def spins(descriptors: Sequence[int]) -> None:
        """Ready, then busy with the cycle for ever; the owner speaks meanwhile."""
        os.eventfd_write(descriptors[3], 1)
        select.select([descriptors[0]], [], [], REAL_S)
        os.write(control._write, bytes([signal.SIGUSR1]))
        while True:
            pass

    forker = TestForker(spins, serves)
    strategy = StrategyProcess(forker, bells.descriptors(), bells.rebalance_done.fileno())
    registry, clock = MemoryRegistry(), SystemClock()
    announcer = Announcer(make_spec(), "ada", MemoryAlerts(), clock)
    watcher = PlayedChild()
    vigil = Vigil("2611211102-ab3x", clock, registry, control, (strategy, watcher), announcer)
    letters = Letters(PatientStore(MemoryOrderInfoStore(), vigil.until_kept), "2611211102-ab3x")
    desk = PlanDesk(bells, strategy, clock, letters, vigil)
    try:
        strategy.start()
        registry.stop(EndState.PROTECTED)
        info, answered = desk.ask(letters.request(datetime(2026, 11, 21, 11, 5, tzinfo=UTC), 1, 0))
        assert (info.stage, answered) == (CycleStage.SKIPPED, False)
        assert info.reason.startswith("stopping")
        assert vigil.stop_wanted is EndState.PROTECTED
        os.waitid(os.P_PID, forker.forked[0].identity.pid, os.WEXITED | os.WNOWAIT)
        assert select.select([strategy.fileno()], [], [], 0)[0] == []  # another one is there
    finally:
        strategy.stop()
        forker.reap()
        control.close()


def test_finwatcher_outlives_its_leader() -> None:
    def watches(descriptors: Sequence[int]) -> None:
        os.write(descriptors[0], b"1")
        select.select([], [], [], 60)

    forker = TestForker(watches)
    process = FinwatcherProcess(forker)
    process.start()
    assert forker.roles == ["finwatcher"]
    process.stop()
    assert identify(forker.forked[0].identity.pid) == forker.forked[0].identity
    forker.reap()


CONTROLLED = """
import select, sys
from trading.session.control import Control
control = Control()
control.install()
print("up", flush=True)
while True:
    select.select([control.fileno()], [], [], 30)
    print(control.look(), control.hand_over, control.look(), flush=True)
"""


def test_signals_only_leave_a_byte_and_the_loop_reads_them() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CONTROLLED], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "True False False\n"
        for ignored in (signal.SIGINT, signal.SIGHUP):
            process.send_signal(ignored)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "True True False\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "True True False\n"
        assert process.poll() is None
    finally:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()
