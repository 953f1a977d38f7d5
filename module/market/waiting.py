"""Requests that wait for bars: told when the last one has come, with nobody asking meanwhile.

    request ─► its newest bars are not there ─► until_there ─(the book stored them)─► answered
                                                     └─ now and then one look for all that are
                                                        waited for, whoever and however many wait

A request that waits is a coroutine: no thread, and no look of its own. The looks are for bars that
a venue publishes late, and for symbols that no collector follows yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from module.market.book import EDGE_RETRY_AFTER, CandleBook
from module.model.series import Series

Bar = tuple[Series, datetime]
"""A native bar: its series and its opening."""

LOOK_AGAIN_S: Final = EDGE_RETRY_AFTER.total_seconds()
"""Real seconds between two looks for bars that are waited for; the book asks no more often."""


@dataclass(slots=True, eq=False)
class _Wait:
    """One request: what it lacks, and how it is told."""

    missing: set[Bar]
    loop: asyncio.AbstractEventLoop
    there: asyncio.Event


class BarWaits:
    """Who waits for which bars of a book. Arrivals come from any thread, waits from one loop."""

    def __init__(self, book: CandleBook, look: Callable[[Collection[Bar]], None]) -> None:
        """`look` asks for bars that are waited for, in a thread; what fails there is its own."""
        self._book = book
        self._look = look
        self._lock = threading.Lock()
        self._waits: dict[Bar, set[_Wait]] = {}
        self._looking: asyncio.Task[None] | None = None
        book.on_bars = self._arrived

    def __len__(self) -> int:
        """How many bars are waited for."""
        return len(self._waits)

    def are_looked_for(self, bars: Collection[Bar]) -> bool:
        """Whether the book lacks some of `bars`, and all that it lacks is waited for already."""
        with self._lock:
            missing = [bar for bar in bars if not self._book.has(*bar)]
            return bool(missing) and all(bar in self._waits for bar in missing)

    async def until_there(self, bars: Collection[Bar], seconds: float) -> bool:
        """Wait until the book has all of `bars`, at most so many real seconds; False: it had them
        all before."""
        wait = _Wait(set(), asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            wait.missing.update(bar for bar in bars if not self._book.has(*bar))
            for bar in wait.missing:
                self._waits.setdefault(bar, set()).add(wait)
        if not wait.missing:
            return False
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on())
        try:
            async with asyncio.timeout(seconds):
                await wait.there.wait()
        except TimeoutError:
            pass  # whoever asked hears what is missing
        finally:
            self._forget(wait)
        return True

    def _arrived(self, series: Series, openings: Collection[datetime]) -> None:
        """The book has these bars now."""
        with self._lock:
            for opens_at in openings if self._waits else ():
                for wait in self._waits.pop((series, opens_at), ()):
                    wait.missing.discard((series, opens_at))
                    if not wait.missing:
                        with contextlib.suppress(RuntimeError):  # its loop is over, as it is
                            wait.loop.call_soon_threadsafe(wait.there.set)

    def _forget(self, wait: _Wait) -> None:
        with self._lock:
            for bar in wait.missing:
                others = self._waits.get(bar)
                if others is not None:
                    others.discard(wait)
                    if not others:
                        del self._waits[bar]

    async def _look_on(self) -> None:
        """Until nobody waits."""
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            with self._lock:
                bars = list(self._waits)
            if not bars:
                return
            await asyncio.to_thread(self._look, bars)
