"""Snapshots of a world, so that coming back does not take as long as the world is old.

    Venue -> snapshot.json: what program, how far the journal was, the state -> Venue

Written whole beside the old one and renamed. A snapshot that does not fit (another program, another
journal, a damaged file) is left aside with a warning: the journal alone is the truth, it only takes
longer.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import orjson

from module.clock import SystemClock
from module.model.errors import AifapError, InvalidInput
from module.simulator.journal import WorldFolder
from module.simulator.snapshot_codec import Decoder, Encoder
from module.simulator.venue import Venue

FORMAT: Final = 1
LOOK_S: Final = 1.0
AFTER_S: Final = 2.0
WORTH_AT_END: Final = 100
"""At the end of the process, when nobody waits, so much less work is worth a snapshot."""
WORK_PER_WRITING: Final = 5
"""A large world is written less often: for a second of writing there are five of work."""
_FIRST_OWN_DESCRIPTOR: Final = 3
_DESCRIPTORS_MAX: Final = 65_536
_log = logging.getLogger(__name__)


@cache
def program_digest() -> str:
    """What this program is: a snapshot of any other is not read."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def parts_of(venue: Venue) -> list[object]:
    """The objects that a fresh venue has already, in a fixed order."""
    world = venue.engine.world
    return [
        *(world, world.ledger, world.book, world.exposure, world.prices, world.attention),
        *(venue.faults, venue.faults.plan),
    ]


def take_snapshot(venue: Venue, folder: WorldFolder) -> bytes:
    """The world of now; InvariantViolated names what cannot be kept."""
    length, tail = folder.position()
    body = orjson.dumps(Encoder(parts_of(venue)).document())
    head = {
        "format": FORMAT,
        "program": program_digest(),
        "journal_bytes": length,
        "journal_tail": tail,
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return json.dumps(head).encode() + b"\n" + body


def restore_snapshot(venue: Venue, folder: WorldFolder) -> int:
    """Bring a fresh venue to where the folder's snapshot was; the journal goes on at that byte.

    0 when there is no snapshot that fits: `venue` is as fresh as before. InvalidInput when it broke
    in the middle: make another venue, and read the journal from its beginning.
    """
    content = folder.read_snapshot()
    if content is None:
        return 0
    head, _, body = content.partition(b"\n")
    try:
        words = json.loads(head)
        fits = (
            words["format"] == FORMAT
            and words["program"] == program_digest()
            and words["sha256"] == hashlib.sha256(body).hexdigest()
        )
        length = int(words["journal_bytes"])
        fits = fits and folder.tail_at(length) == words["journal_tail"]
    except (ValueError, KeyError, TypeError) as error:
        _log.warning("the snapshot is not read (%r); the journal is", error)
        return 0
    if not fits:
        _log.warning("the snapshot is of another program or journal; the journal is read")
        return 0
    _fill(venue, body)
    return length


def _fill(venue: Venue, body: bytes) -> None:
    try:
        document = json.loads(body)
        parts = parts_of(venue)
        layouts = [(str(name), list(names)) for name, names in document["layouts"]]
        decoder = Decoder(parts, layouts)
        rows = zip(parts, document["parts"], document["states"], strict=True)
        for part, (name, names), state in rows:
            if type(part).__name__ != name:
                raise InvalidInput(f"{name} stands where {type(part).__name__} should")
            decoder.fill(part, names, state)
        venue.engine.world.renew_rules()
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise InvalidInput(f"the snapshot does not load ({error!r})") from error


def bring_back(make_venue: Callable[[], Venue], folder: WorldFolder) -> Venue:
    """The venue as the folder's journal left it, from its last snapshot on if there is one.

    InvalidInput names the line that cannot be done again.
    """
    seconds = SystemClock().monotonic
    began_s = seconds()
    venue = make_venue()
    try:
        done = restore_snapshot(venue, folder)
    except InvalidInput as error:
        _log.warning("%s; the journal is read", error.message)
        venue, done = make_venue(), 0
    for entry in folder.entries(done):
        try:
            venue.replay(entry)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise InvalidInput(
                f"the journal's {entry.call} at {entry.at_ms} ms cannot be done again ({error!r}); "
                "restore the folder, or use another"
            ) from error
    venue.spent_s = seconds() - began_s
    return venue


async def keep_snapshots(venue: Venue, folder: WorldFolder) -> None:
    """Take one whenever it is worth it, until cancelled; then a last one."""
    keeper = SnapshotKeeper(venue, folder, SystemClock().monotonic)
    try:
        while True:
            await asyncio.sleep(LOOK_S)
            keeper.look()
    finally:
        keeper.finish()


class SnapshotKeeper:
    """Decides when; a child process writes, so that nobody waits for it.

    `spent_s` of the venue is what coming back would cost since the last one.
    """

    def __init__(
        self,
        venue: Venue,
        folder: WorldFolder,
        seconds: Callable[[], float],
        *,
        after_s: float = AFTER_S,
    ) -> None:
        """`seconds`: real time. `after_s`: how much work is worth a snapshot, at least."""
        self._venue = venue
        self._folder = folder
        self._seconds = seconds
        self._after_s = after_s
        self._writer: int | None = None
        self._began_s = 0.0

    def look(self) -> None:
        """Begin one if it is worth it; called every second or so."""
        if self._writer is not None:
            done, _ = os.waitpid(self._writer, os.WNOHANG)
            if not done:
                return
            self._writer = None
            took_s = self._seconds() - self._began_s
            self._after_s = max(self._after_s, took_s * WORK_PER_WRITING)
        if self._venue.spent_s >= self._after_s:
            self._venue.spent_s = 0.0
            self._began_s = self._seconds()
            self._writer = self._write_in_child()

    def finish(self) -> None:
        """At the end of the process: wait for the writer, and write what is worth it."""
        if self._writer is not None:
            os.waitpid(self._writer, 0)
            self._writer = None
        if self._venue.spent_s >= self._after_s / WORTH_AT_END:
            self._write()

    def _write_in_child(self) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            os.closerange(_FIRST_OWN_DESCRIPTOR, _DESCRIPTORS_MAX)  # no port stays taken with it
            self._write()
        finally:
            os._exit(0)

    def _write(self) -> None:
        try:
            self._folder.write_snapshot(take_snapshot(self._venue, self._folder))
        except (AifapError, OSError) as error:
            _log.warning("no snapshot was written: %s", error)
