"""Strokes on data, disk, clock, processes and from people: groups C, D, E and O of the catalogue.

equip(world) ─► FaultKit: DataFaults on tickers, bars and weights; SimulatedDisk in `os`
fault_draws.drawn_strokes(random, …) ─► Stroke.apply(world) at its second ─► world.hit(id)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from module.files.order_info_file import FILE_NAME
from module.model.errors import PASSING, Rejected
from module.model.sessions import DesiredState, EndState
from module.simulator.engine.engine_types import PlanType, PositionSide
from module.simulator.wire.bitget_app import WireRequest
from module.simulator.wire.wire_answer import Reply, WireAnswer
from tests.simulation.fault_data import SPOT_TICKERS, TICKERS, DataFault, DataFaults
from tests.simulation.fault_files import FileFault, SimulatedDisk
from tests.simulation.hub import EPOCH, Process, SimClock

if TYPE_CHECKING:
    from tests.simulation.world import World

MACHINE: Final = ("leader", "strategy", "finwatcher", "gateway")


@dataclass
class FaultKit:
    """What a world needs besides itself so that data and disk can go wrong."""

    data: DataFaults
    disk: SimulatedDisk
    letters_lost: int = 0


def equip(world: World) -> FaultKit:
    """Put the kit into a world that has not run yet; `with kit.disk:` around its run."""

    def now() -> datetime:
        return EPOCH + timedelta(milliseconds=world.hub.now_ms)

    kit = FaultKit(
        DataFaults(now, hits=world.hits),
        SimulatedDisk(world.folder, now, world.plan.seed, hits=world.hits),
    )
    world.wrap_market.append(lambda process, bars: kit.data.market(bars, SimClock(process)))
    world.strategy = cast(Any, kit.data.strategy(world.strategy))
    world.exchange._app = cast(Any, _EditedApp(world.exchange._app, kit.data))
    return kit


class _EditedApp:
    """The exchange's application, whose tickers arrive as the data faults want them."""

    def __init__(self, app: Any, data: DataFaults) -> None:
        self._app = app
        self._data = data

    def serve(self, request: WireRequest) -> Reply:
        """The true answer, or what became of it on the way."""
        reply: Reply = self._app.serve(request)
        path = request.signed.path
        if path not in (TICKERS, SPOT_TICKERS) or not self._data.on("C1", "C2", "C3", "C4"):
            return reply
        body = reply.answer.body.decode("utf-8", "replace")
        edited = self._data.edit_answer(path, body)
        if edited is body:
            return reply
        answer = reply.answer
        spelled = WireAnswer(answer.status, edited.encode(), answer.headers, answer.content_type)
        return replace(reply, answer=spelled)


# --- strokes --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DataStroke:
    """A data fault that begins now (C1 to C5, C9)."""

    fault_id: str
    at_s: float
    variant: str
    seconds: float
    symbol: str | None = None
    factor: Decimal = Decimal(10)

    def apply(self, world: World) -> None:
        """Armed; it counts when it has changed an answer."""
        now = EPOCH + timedelta(milliseconds=world.hub.now_ms)
        fault = DataFault(self.fault_id, self.variant, now, self.seconds, self.symbol, self.factor)
        world.kit.data.arm([fault])


@dataclass(frozen=True, slots=True)
class DiskStroke:
    """The disk refuses from now on (D20 so many times, D21 for so long)."""

    fault_id: str
    at_s: float
    seconds: float = 0.0
    times: int = 1

    def apply(self, world: World) -> None:
        """Armed; it counts when somebody met it."""
        now = EPOCH + timedelta(milliseconds=world.hub.now_ms)
        world.kit.disk.arm([FileFault(self.fault_id, now, self.seconds, self.times)])


@dataclass(frozen=True, slots=True)
class PowerCut:
    """The machine is off and on again (D6): every process is gone, what was not synced is lost.

    With a `point`: when the leader reaches it for the `nth` time."""

    at_s: float
    point: str = ""
    nth: int = 1
    fault_id: str = "D6"

    def apply(self, world: World) -> None:
        """Now, or at the point."""
        if not self.point:
            _cut(world)
            return
        left = [self.nth]

        def heard(process: Process, name: str) -> None:
            if process.role != "leader" or not name.startswith(self.point) or not left[0]:
                return
            left[0] -= 1
            if left[0] == 0:
                world.at(0, lambda: _cut(world))
                world.hub.wait((), world.hub.now_ms)  # the machine goes off under it

        world.at_point.append(heard)


def _cut(world: World) -> None:
    world.log("power cut")
    for role in MACHINE:
        world.kill(role)
    world.kit.disk.power_cut()


@dataclass(frozen=True, slots=True)
class LockStroke:
    """The letter's lock hangs (D10), or is no file any more (D9), for so long."""

    fault_id: str
    at_s: float
    seconds: float
    kind: str = ""

    def apply(self, world: World) -> None:
        """On the session that lives now."""
        lock = _letter(world)
        if lock is None:
            return
        lock = lock.with_name(f"{FILE_NAME}.lock")
        disk = world.kit.disk
        if self.fault_id == "D10":
            disk.hold_lock(lock)
            world.at(self.seconds, lambda: disk.let_go(lock))
        else:
            disk.break_lock(lock, self.kind)
            world.at(self.seconds, lambda: disk.mend_lock(lock))


@dataclass(frozen=True, slots=True)
class Litter:
    """A killed writer of an earlier day has left a temporary file in the session's folder."""

    at_s: float
    fault_id: str = "D6"

    def apply(self, world: World) -> None:
        """It lies there until the next letter is written."""
        letter = _letter(world)
        if letter is not None:
            world.kit.disk.litter(letter)


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL of a role's process: now, or at the `nth` time that it reaches a point."""

    fault_id: str
    at_s: float
    role: str
    point: str | None = None
    nth: int = 1
    times: int = 1

    def apply(self, world: World) -> None:
        """`times` > 1 with a point: each of its successors too (D17)."""
        if self.point is not None:
            for _ in range(self.times):
                world.kill_at(self.role, self.point, self.nth, self.fault_id)
        elif world.kill(self.role):
            world.hit(self.fault_id)


@dataclass(frozen=True, slots=True)
class Storm:
    """The leader dies now, and `times` more, each time soon after it has started (D17)."""

    at_s: float
    times: int
    fault_id: str = "D17"

    def apply(self, world: World) -> None:
        """The first death is now; the next ones are looked for every half second."""
        left = [self.times]

        def again() -> None:
            if world.kill("leader"):
                world.hit(self.fault_id)
                left[0] -= 1
            if left[0] > 0:
                world.at(0.5, again)

        again()


@dataclass(frozen=True, slots=True)
class Pause:
    """SIGSTOP for so long, at once or at a point (C8; E8 for the finwatcher's 75 s)."""

    fault_id: str
    at_s: float
    role: str
    seconds: float
    point: str | None = None
    nth: int = 1

    def apply(self, world: World) -> None:
        """The process stands still, the world goes on."""
        if self.point is not None:
            world.pause_at(self.role, self.point, self.nth, self.seconds, self.fault_id)
        elif world.pause(self.role, self.seconds):
            world.hit(self.fault_id)


@dataclass(frozen=True, slots=True)
class SecondLeader:
    """The leader stands still for so long, is taken for dead, and another one leads when it goes on
    (C8): the older epoch may send nothing any more."""

    at_s: float
    seconds: float
    point: str = "execution: before submit"
    fault_id: str = "C8"

    def apply(self, world: World) -> None:
        """At the point; its successor starts two seconds later."""
        armed = [True]

        def heard(process: Process, name: str) -> None:
            host = world.host
            if not armed[0] or host is None or process is not host.leader or name != self.point:
                return
            armed[0] = False
            world.hit(self.fault_id)
            world.log(f"pause {process.name} at {name}; it is taken for dead")
            process.stand_still(self.seconds)

            def replace_it() -> None:
                if host.leader is process:
                    host.leader = None
                    host.look()

            world.at(2.0, replace_it)
            world.at(self.seconds + 120.0, lambda: world.hub.kill(process))
            world.hub.wait((), world.hub.now_ms)

        world.at_point.append(heard)


@dataclass(frozen=True, slots=True)
class SecondGateway:
    """The gateway stands still for so long, its connections are cut, and another one takes the
    account (C8): whatever the first still has on its way finds that it is fenced. With
    `leader_too` the leader is killed meanwhile: its successor asks the other gateway."""

    at_s: float
    seconds: float
    point: str = "gateway: judged"
    leader_too: bool = False
    fault_id: str = "C8"

    def apply(self, world: World) -> None:
        """At the point; its successor starts a second later."""
        armed = [True]

        def heard(process: Process, name: str) -> None:
            now = world.gateway
            if not armed[0] or now is None or process is not now.process or name != self.point:
                return
            armed[0] = False
            world.hit(self.fault_id)
            world.log(f"pause {process.name} at {name}; it is taken for dead")
            process.stand_still(self.seconds)

            def replace_it() -> None:
                if world.gateway is now and process.alive:
                    world.postgres.server.cut_connections()
                    world.start_gateway()

            if self.leader_too:
                world.at(0.5, lambda: cast(None, world.kill("leader")))
            world.at(1.0, replace_it)
            world.at(self.seconds + 120.0, lambda: world.hub.kill(process))
            world.hub.wait((), world.hub.now_ms)

        world.at_point.append(heard)


@dataclass(frozen=True, slots=True)
class LoseLetter:
    """The letter's file is gone (D6): the next leader finds it in the mirror, or in its row."""

    at_s: float
    fault_id: str = "D6"

    def apply(self, world: World) -> None:
        """Leader and file, at once."""
        letter = _letter(world)
        if letter is not None and world.kill("leader"):
            letter.unlink()
            world.kit.letters_lost += world.plan.letters == "file"
            world.hit(self.fault_id)


@dataclass(frozen=True, slots=True)
class GapMove:
    """While the gateway stands still, every stop is cancelled at the exchange and the price of one
    held symbol jumps past where its stop was (B6): it can only be closed."""

    at_s: float
    seconds: float = 3.0
    fault_id: str = "B6"

    def apply(self, world: World) -> None:
        """Of the held symbols the first that has a stop."""
        account = world.exchange.account
        stopped = sorted(
            (plan.symbol, plan.protects is PositionSide.LONG)
            for plan in account.plans.values()
            if plan.plan_type is PlanType.POS_LOSS and plan.protects is not None
        )
        if not stopped or not world.pause("gateway", self.seconds):
            return
        symbol, is_long = stopped[0]
        kinds = frozenset((PlanType.POS_LOSS, PlanType.POS_PROFIT))
        factor = Decimal("0.93") if is_long else Decimal("1.07")
        world.exchange.act(lambda e: e.cancel_plans(world.exchange.account_id, kinds))
        world.exchange.act(lambda e: e.jump_price(symbol, factor))
        world.hit(self.fault_id)


@dataclass(frozen=True, slots=True)
class ClockStep:
    """The machine's wall clock jumps, and is set right after a while (C7)."""

    at_s: float
    seconds: float
    for_s: float = 600.0
    fault_id: str = "C7"

    def apply(self, world: World) -> None:
        """Every process of the machine sees it."""
        world.step_wall_clock(self.seconds)
        world.hit(self.fault_id)
        world.at(self.for_s, lambda: world.step_wall_clock(0))


@dataclass(frozen=True, slots=True)
class Command:
    """Somebody commands; `COMMANDS` says what each word does."""

    fault_id: str
    at_s: float
    command: str

    def apply(self, world: World) -> None:
        """It counts when it met a session to change, or was refused as it must be."""
        if COMMANDS[self.command](world):
            world.hit(self.fault_id)


def _terminate_many(world: World) -> bool:
    """Flat, twenty times within two seconds (O3)."""
    asked = world.owner.terminate(EndState.FLAT)
    for number in range(1, 20):
        world.at(number / 10, lambda: cast(None, world.owner.terminate(EndState.FLAT)))
    return asked


def _terminate_and_die(world: World) -> bool:
    """Twice, then the leader is killed while it ends, twice (D16)."""
    asked = world.owner.terminate(EndState.FLAT)
    world.at(0.3, lambda: cast(None, world.owner.terminate(EndState.FLAT)))
    for second in (0.8, 4.0):
        world.at(second, lambda: cast(None, world.kill("leader")))
    return asked


def _kill_switch(world: World) -> bool:
    """From two places; off again after half an hour (O8)."""
    world.owner.kill_switch(on=True)
    world.at(0.05, lambda: world.owner.kill_switch(on=True))
    world.at(1800, lambda: world.owner.kill_switch(on=False))
    return True


def _end_somebody_elses(world: World) -> bool:
    """Terminate a session that is not there, and one that is over (O5): refused, no effect."""
    wanted = ["2603020000-none"]
    over = world.postgres.session_tables.sessions.values()
    wanted += [record.session_id for record in over if record.state.is_over][:1]
    refused = 0
    for session_id in wanted:
        try:
            world.postgres.sessions.set_desired(session_id, DesiredState.STOPPED, EndState.FLAT)
        except Rejected:
            refused += 1
        except PASSING:
            return False
        else:
            world.judge.violate("I11", f"session {session_id} took a command")
    return refused == len(wanted)


def _run_again(world: World) -> bool:
    """run-system thrice while a session lives (O1, A27): refused each time."""
    return sum(world.owner.run_again() for _ in range(3)) > 0


def _terminate(world: World) -> bool:
    """Protected, whatever is on its way (O2)."""
    return world.owner.terminate(EndState.PROTECTED)


COMMANDS: Final[Mapping[str, Callable[[World], bool]]] = {
    "run-system again": _run_again,
    "terminate protected": _terminate,
    "terminate flat, twenty times": _terminate_many,
    "terminate flat, and die": _terminate_and_die,
    "kill switch": _kill_switch,
    "somebody else's session": _end_somebody_elses,
}


def _letter(world: World) -> Path | None:
    host = world.host
    if host is None or host.is_over:
        return None
    found: Path | None = None
    with contextlib.suppress(StopIteration):
        found = next(iter(world.folder.rglob(f"{host.ground.spec.session_id}/{FILE_NAME}")))
    return found
