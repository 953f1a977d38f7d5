"""The clock's pace on an event loop whose own time is virtual: nothing is really waited for."""

from __future__ import annotations

import asyncio

import pytest

from module.model.errors import InvalidInput
from module.simulator.world_clock import WorldClockServer
from tests.fakes.stepped_world import START_MS, BeatingWorld
from tests.fakes.virtual_clock import Client, VirtualLoop, play

pytestmark = pytest.mark.timeout(30)


def test_a_minute_at_speed_60_takes_one_second() -> None:
    world = BeatingWorld(beat_ms=10_000)

    async def scenario(server: WorldClockServer, port: int, loop: VirtualLoop) -> None:
        client = await Client.connect(port, "leader")
        began_s = loop.time()
        assert await client.wait(START_MS + 60_000) == START_MS + 60_000
        assert loop.time() - began_s == pytest.approx(1.0, abs=0.11)
        client.close()

    play(scenario, world, 60)
    assert world.steps == [START_MS + 10_000 * beat for beat in range(1, 7)]


def test_time_that_a_busy_participant_held_does_not_come_back() -> None:
    async def scenario(server: WorldClockServer, port: int, loop: VirtualLoop) -> None:
        client = await Client.connect(port, "leader")
        await asyncio.sleep(30)  # busy for half a minute
        assert server.sync() == START_MS
        began_s = loop.time()
        await client.wait(START_MS + 10_000)
        assert 9.8 < loop.time() - began_s < 10.2
        client.close()

    play(scenario, BeatingWorld(), 1)


def test_nobody_registered_means_time_flows_and_everybody_sees_it() -> None:
    world = BeatingWorld()

    async def scenario(server: WorldClockServer, port: int, loop: VirtualLoop) -> None:
        await asyncio.sleep(2.5)
        assert server.sync() == pytest.approx(START_MS + 25_000, abs=20)
        await asyncio.sleep(10)
        assert server.sync() == pytest.approx(START_MS + 125_000, abs=20)

    play(scenario, world, 10)
    assert {START_MS + 60_000, START_MS + 120_000} <= set(world.steps)


def test_onlookers_see_time_flow_while_all_participants_wait() -> None:
    async def scenario(server: WorldClockServer, port: int, loop: VirtualLoop) -> None:
        client = await Client.connect(port, "leader")
        waiting = asyncio.ensure_future(client.wait(START_MS + 40_000))
        await asyncio.sleep(10)
        assert server.sync() == pytest.approx(START_MS + 10_000, abs=200)
        began = server.sync()
        server.poke()
        assert server.sync() == began
        onlooker = await Client.connect(port, None)
        await asyncio.sleep(10)
        assert (await onlooker.ask({"op": "now"}))["now_ms"] == pytest.approx(
            START_MS + 20_000, abs=200
        )
        onlooker.close()
        assert await waiting == START_MS + 40_000
        client.close()

    play(scenario, BeatingWorld(), 1)


def test_an_unbounded_world_without_anybody_stands_still() -> None:
    world = BeatingWorld()

    async def scenario(server: WorldClockServer, port: int, loop: VirtualLoop) -> None:
        await asyncio.sleep(1000)
        assert server.sync() == START_MS
        server.set_speed(5)
        await asyncio.sleep(4)
        assert server.sync() == pytest.approx(START_MS + 20_000, abs=10)
        with pytest.raises(InvalidInput):
            server.set_speed(-1)

    play(scenario, world, 0)


def test_a_world_that_breaks_says_so_and_stops() -> None:
    class BreakingWorld(BeatingWorld):
        def advance_to(self, when_ms: int) -> None:
            raise ZeroDivisionError("a bug")

    broken: list[BaseException] = []

    async def scenario(server: WorldClockServer, port: int, loop: VirtualLoop) -> None:
        loop.set_exception_handler(lambda _, context: None)
        server._hooks.failed = broken.append
        await asyncio.sleep(120)
        assert server.sync() == START_MS

    play(scenario, BreakingWorld(), 1)
    assert [type(error) for error in broken] == [ZeroDivisionError]
