"""D21: a world whose folder is full goes on; its time is noted again when there is room."""

from __future__ import annotations

import errno

from module.simulator.world_clock import WorldClockServer


def test_D21_a_mark_that_cannot_be_written_does_not_stop_the_world() -> None:
    class FullDisk:
        def mark(self, now_ms: int, participants: tuple[str, ...]) -> None:
            raise OSError(errno.ENOSPC, f"no space for {now_ms} {participants}")

    class World:
        now_ms = 17

    server = WorldClockServer.__new__(WorldClockServer)
    for name, value in {
        "_hooks": FullDisk(),
        "_world": World(),
        "_participants": {},
        "_loop_time": lambda: 3.5,
    }.items():
        setattr(server, name, value)
    server._mark()
    assert server._marked_s == 3.5
