"""Counters of what Postgres has by time: they never fall while the service lives, and miss nothing.

    rows by slices of SLICE_S ── pass after pass ─► RunningTotals ─► counters of `/metrics`

Every slice is counted soon after it is over and again when late rows have come (an outage's, out of
a spool); what is more than last time is added. Totals begin with zero when the service does.
Workers that share a folder of counters share these too: whichever is asked goes on from where the
last one stopped. World time.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from module.db.repositories.installation_counts import SLICE_S, SliceCount

STEP_MAX_S: Final = 3600
"""So much time is counted by one question at most; the rest by the next ones."""

Ask = Callable[[datetime, datetime], Sequence[SliceCount]]
Sums = dict[str, tuple[int, float]]
"""Number and sum by key."""


@dataclass(slots=True)
class Tally:
    """Of one kind of rows. `passes`: up to when (epoch seconds) each pass has counted."""

    passes: list[int]
    totals: Sums = field(default_factory=dict)
    slices: dict[int, Sums] = field(default_factory=dict)

    def advance(self, now_s: int, delays_s: Sequence[int], step_s: int, ask: Ask) -> None:
        """Count what is due at `now_s`, in whole steps. What `ask` raises is raised."""
        reach_s = now_s
        for number, delay_s in enumerate(delays_s):
            since_s = self.passes[number]
            until_s = _whole(now_s - delay_s, step_s)
            until_s = min(until_s, since_s + STEP_MAX_S, reach_s)
            if until_s > since_s:
                for found in ask(_instant(since_s), _instant(until_s)):
                    self._add(found)
                self.passes[number] = until_s
            reach_s = self.passes[number]
        for known_s in [each for each in self.slices if each < reach_s]:
            del self.slices[known_s]

    def _add(self, found: SliceCount) -> None:
        counted = self.slices.setdefault(found.slice_s, {})
        number, total = counted.get(found.key, (0, 0.0))
        more, sum_more = max(0, found.number - number), max(0.0, found.total - total)
        counted[found.key] = (number + more, total + sum_more)
        number, total = self.totals.get(found.key, (0, 0.0))
        self.totals[found.key] = (number + more, total + sum_more)


class RunningTotals:
    """Tallies by name: of this process, or (`folder`) of all that share it. Thread safe only where
    one thread at a time asks."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[str, Tally] = {}

    def advance(
        self,
        name: str,
        now: datetime,
        delays: Sequence[timedelta],
        ask: Ask,
        step_s: int = SLICE_S,
    ) -> Mapping[str, tuple[int, float]]:
        """The totals of `name` by key at `now`. `delays`: how long after a slice's end it is
        counted, each longer than the one before. `step_s`: so much time (whole slices) is counted
        at once, so that not every caller asks. What `ask` raises is raised, and asked again."""
        now_s = int(now.timestamp())
        delays_s = [int(delay.total_seconds()) for delay in delays]
        with self._held(name) as known:
            tally = known.setdefault(name, Tally([_whole(now_s, step_s)] * len(delays_s)))
            tally.advance(now_s, delays_s, step_s, ask)
            return dict(tally.totals)

    @contextmanager
    def _held(self, name: str) -> Iterator[dict[str, Tally]]:
        """The tallies, for this caller alone; kept where the block ends well."""
        if self._folder is None:
            yield self._known
            return
        path = self._folder / f"{name}.totals"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._folder / f"{name}.lock", flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            known = {name: _read(path.read_text())} if path.exists() else {}
            yield known
            temporary = path.with_suffix(".new")
            temporary.write_text(_spelled(known[name]))
            temporary.replace(path)
        finally:
            os.close(descriptor)


def _whole(at_s: int, step_s: int) -> int:
    return at_s - at_s % step_s


def _instant(at_s: int) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)


def _spelled(tally: Tally) -> str:
    return json.dumps([tally.passes, tally.totals, list(tally.slices.items())])


def _read(text: str) -> Tally:
    passes, totals, slices = json.loads(text)
    return Tally(passes, _sums(totals), {at_s: _sums(sums) for at_s, sums in slices})


def _sums(document: Mapping[str, Sequence[float]]) -> Sums:
    return {key: (int(number), float(total)) for key, (number, total) in document.items()}
