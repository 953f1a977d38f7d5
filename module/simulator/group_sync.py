"""Answers leave when the disk holds what they say; one wait for the disk serves all of a moment.

request -> journal line -> answer ready -> GroupSync.settle -> answer leaves
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from module.simulator.journal import WorldFolder


class GroupSync:
    """Syncs the journal of `folder` in a thread, one at a time; `failed` hears of a bad disk."""

    def __init__(self, folder: WorldFolder, failed: Callable[[BaseException], None]) -> None:
        self._folder = folder
        self._failed = failed
        self._running: asyncio.Task[None] | None = None

    async def settle(self) -> None:
        """Return when everything that the journal has now is on the disk."""
        wanted = self._folder.length
        while self._folder.synced_length < wanted:
            if self._running is None:
                self._running = asyncio.get_running_loop().create_task(self._sync())
            await asyncio.shield(self._running)

    async def _sync(self) -> None:
        try:
            await asyncio.sleep(0)  # whoever is served in this turn of the loop comes along
            await asyncio.get_running_loop().run_in_executor(None, self._folder.sync)
        except OSError as error:
            self._failed(error)
            raise
        finally:
            self._running = None
