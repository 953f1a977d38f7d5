"""Turns at one moment, comings and goings, far waits, pauses: the clock's edges in virtual time."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from module.simulator.world_clock import ClockHooks, WorldClockServer
from tests.fakes.stepped_world import START_MS, BeatingWorld
from tests.fakes.virtual_clock import Client, VirtualLoop, play

pytestmark = pytest.mark.timeout(60)
FAR_MS = 4_102_444_800_000  # 2100-01-01
DUE_MS = START_MS + 7_000


def quiet_world() -> BeatingWorld:
    """Nothing happens by itself before the year 2100."""
    return BeatingWorld(beat_ms=FAR_MS)


async def told(client: Client) -> bool:
    """Whether the clock says something to this client, given every chance to."""
    answer = asyncio.ensure_future(client.answer())
    for _ in range(50):
        await asyncio.sleep(0)
        if answer.done():
            return True
    answer.cancel()
    await asyncio.wait([answer])
    return False


def test_of_those_due_at_one_moment_lower_turns_go_first() -> None:
    async def scenario(server: WorldClockServer, port: int, loop: VirtualLoop) -> None:
        trader = await Client.connect(port, "a-trader", turn=2)
        watcher = await Client.connect(port, "b-watcher", turn=1)
        services = [await Client.connect(port, name) for name in ("c-service", "d-service")]
        for client in (trader, watcher, *services):
            await client.begin_wait(DUE_MS)
        for service in services:  # both at once: they have the same turn
            assert (await service.answer())["now_ms"] == DUE_MS
        assert not await told(watcher)
        await services[0].begin_wait(DUE_MS + 1)
        assert not await told(watcher)
        services[1].close()  # its turn ends with it
        assert (await watcher.answer())["now_ms"] == DUE_MS
        assert not await told(trader)
        await watcher.begin_wait(DUE_MS)  # once more at this moment, before the trader
        assert (await watcher.answer())["now_ms"] == DUE_MS
        assert not await told(trader)
        await watcher.begin_wait(DUE_MS + 2)
        assert (await trader.answer())["now_ms"] == DUE_MS
        assert server.sync() == DUE_MS
        await trader.begin_wait(DUE_MS + 3)
        assert (await services[0].answer())["now_ms"] == DUE_MS + 1

    play(scenario, quiet_world(), 0)


def test_whoever_is_rung_does_not_wait_for_a_turn() -> None:
    async def scenario(server: WorldClockServer, port: int, loop: VirtualLoop) -> None:
        service = await Client.connect(port, "service")
        strategy = await Client.connect(port, "strategy", turn=2)
        await strategy.begin_wait(DUE_MS)
        await service.ask({"op": "wake", "participant": "strategy"})
        assert (await strategy.answer())["op"] == "woken"

    play(scenario, quiet_world(), 0)


def test_waits_for_the_past_and_for_now_end_at_once_and_move_nothing() -> None:
    async def scenario(server: WorldClockServer, port: int, loop: VirtualLoop) -> None:
        client = await Client.connect(port, "leader")
        other = await Client.connect(port, "busy")
        assert await client.wait(START_MS - 86_400_000) == START_MS
        assert await client.wait(START_MS) == START_MS
        other.close()

    play(scenario, quiet_world(), 60)


@pytest.mark.parametrize("speed", [0, 1, 600])
def test_a_wait_until_2100_hinders_nobody(speed: float) -> None:
    async def scenario(server: WorldClockServer, port: int, loop: VirtualLoop) -> None:
        hermit = await Client.connect(port, "hermit")
        client = await Client.connect(port, "leader")
        await hermit.begin_wait(FAR_MS)
        for step in range(1, 6):
            assert await client.wait(START_MS + step * 3_600_000) == START_MS + step * 3_600_000
        assert not await told(hermit)
        client.close()

    play(scenario, quiet_world(), speed)


def test_alone_and_unbounded_a_wait_until_2100_is_over_at_once() -> None:
    async def scenario(server: WorldClockServer, port: int, loop: VirtualLoop) -> None:
        client = await Client.connect(port, "hermit")
        assert await client.wait(FAR_MS) == FAR_MS
        client.close()

    play(scenario, quiet_world(), 0)


@pytest.mark.parametrize("seed", range(4))
def test_fifty_participants_come_and_die_at_random(seed: int) -> None:
    """Nobody is told too early or too late, and time never runs while somebody is busy."""
    world = BeatingWorld(beat_ms=10_000)
    random = Random(seed)
    finished: list[str] = []

    async def live(number: int, port: int) -> None:
        name = f"p{number}"
        client = await Client.connect(port, name, turn=random.randrange(3))
        for _ in range(random.randrange(1, 12)):
            before_ms = world.now_ms
            for _ in range(random.randrange(4)):
                await asyncio.sleep(0)
            assert world.now_ms == before_ms, "time ran while somebody was busy"
            until_ms = before_ms + random.choice((-5, 0, 1, 40, 1_000, 60_000))
            if random.random() < 0.08:
                await client.begin_wait(until_ms)
                break  # dies in its sleep
            assert await client.wait(until_ms) == max(before_ms, until_ms)
        client.close()
        finished.append(name)

    async def scenario(server: WorldClockServer, port: int, loop: VirtualLoop) -> None:
        lives: list[asyncio.Task[None]] = []
        for number in range(50):
            lives.append(asyncio.ensure_future(live(number, port)))
            if random.random() < 0.5:
                await asyncio.sleep(0)
        await asyncio.gather(*lives)
        for _ in range(200):
            await asyncio.sleep(0.001)
            if not server.status().participants:
                break
        assert server.status().participants == ()
        assert server.status().alarms == 0

    play(scenario, world, 0)
    assert len(finished) == 50
    assert world.steps == sorted(world.steps), "time went back"


def test_a_participant_that_leaves_sets_free_running_time_free_again() -> None:
    async def scenario(server: WorldClockServer, port: int, loop: VirtualLoop) -> None:
        await asyncio.sleep(1)
        client = await Client.connect(port, "joins in mid-run")
        joined_ms = server.sync()
        assert joined_ms == pytest.approx(START_MS + 10_000, abs=30)
        await asyncio.sleep(100)
        assert server.sync() == joined_ms
        client.close()
        while server.status().participants:
            await asyncio.sleep(0.001)
        await asyncio.sleep(1)
        assert server.sync() == pytest.approx(joined_ms + 10_000, abs=1_100)

    play(scenario, quiet_world(), 10)


def test_a_pause_holds_everything_and_is_not_caught_up() -> None:
    async def scenario(server: WorldClockServer, port: int, loop: VirtualLoop) -> None:
        client = await Client.connect(port, "leader")
        await client.begin_wait(DUE_MS)
        await asyncio.sleep(0.01)
        server.set_paused(True)
        stood_ms = server.sync()
        await asyncio.sleep(3_600)
        assert server.sync() == stood_ms < DUE_MS
        assert server.status().paused
        server.set_paused(False)
        began_s = loop.time()
        assert (await client.answer())["now_ms"] == DUE_MS
        assert loop.time() - began_s == pytest.approx(7, abs=0.2)
        client.close()

    play(scenario, quiet_world(), 1)


def test_a_new_speed_counts_for_waits_that_have_begun() -> None:
    async def scenario(server: WorldClockServer, port: int, loop: VirtualLoop) -> None:
        client = await Client.connect(port, "leader")
        await client.begin_wait(START_MS + 3_600_000)
        await asyncio.sleep(0.01)
        server.set_speed(600)
        began_s = loop.time()
        assert (await client.answer())["now_ms"] == START_MS + 3_600_000
        assert loop.time() - began_s == pytest.approx(6, abs=0.2)
        await client.begin_wait(START_MS + 7_200_000)
        await asyncio.sleep(0.01)
        server.set_speed(0)
        began_s = loop.time()
        assert (await client.answer())["now_ms"] == START_MS + 7_200_000
        assert loop.time() - began_s == pytest.approx(0, abs=0.2)
        client.close()

    play(scenario, quiet_world(), 1)


def test_time_that_anybody_has_seen_was_noted_before() -> None:
    """So that a world that was killed and comes back at its last note never goes back."""
    notes: list[tuple[int, tuple[str, ...]]] = []
    world = BeatingWorld(beat_ms=10_000)

    async def scenario(server: WorldClockServer, port: int, loop: VirtualLoop) -> None:
        for _ in range(40):
            await asyncio.sleep(0.003)
            assert server.sync() <= max(noted for noted, _ in notes)
        assert len(notes) < 10, "a note for every look would slow every answer"
        client = await Client.connect(port, "leader")
        assert notes[-1] == (world.now_ms, ("leader",)), "with participants it is exact"
        await client.begin_wait(world.now_ms + 5_000)
        for _ in range(5):
            await asyncio.sleep(0.003)
            assert server.sync() == notes[-1][0]
        client.close()

    play(scenario, world, 60, ClockHooks(mark=lambda *note: notes.append(note)))
