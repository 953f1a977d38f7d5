"""A letter box in memory that behaves like the file: old or new, never back, plain JSON only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from module.model.canonical import canonical_json
from module.model.errors import AifapError, StaleWriter
from tests.fakes.crashes import CrashPlan


class MemoryOrderInfoStore:
    """Fits `module.ports.OrderInfoStore`; `written` has every document that became durable."""

    def __init__(self, crashes: CrashPlan | None = None) -> None:
        self.written: list[dict[str, object]] = []
        self.archive_box: list[dict[str, object]] = []
        self.crashes = crashes or CrashPlan()
        self.fails_next: AifapError | None = None
        self.broken: AifapError | None = None  # every write raises it
        self.archive_broken: AifapError | None = None  # so does every archiving

    @property
    def last(self) -> dict[str, object]:
        """The letter that a new process would find."""
        return self.written[-1]

    def read(self) -> Mapping[str, object] | None:
        return json.loads(canonical_json(self.written[-1])) if self.written else None

    def write(self, document: Mapping[str, object], epoch: int, revision: int) -> None:
        self.crashes.reach("store.write: called")
        if self.broken is not None:
            raise self.broken
        if self.fails_next is not None:
            error, self.fails_next = self.fails_next, None
            raise error
        assert (document["epoch"], document["revision"]) == (epoch, revision)
        if self.written and _stamp(self.written[-1]) > (epoch, revision):
            raise StaleWriter(f"{_stamp(self.written[-1])} is newer than {(epoch, revision)}")
        self.written.append(json.loads(canonical_json(dict(document))))
        self.crashes.reach("store.write: durable")

    def archive(self, document: Mapping[str, object]) -> None:
        if self.archive_broken is not None:
            raise self.archive_broken
        self.archive_box.append(json.loads(canonical_json(dict(document))))

    def archived(self, count_max: int) -> Sequence[Mapping[str, object]]:
        return self.archive_box[-count_max:]


def _stamp(document: Mapping[str, object]) -> tuple[int, int]:
    epoch, revision = document["epoch"], document["revision"]
    assert isinstance(epoch, int)
    assert isinstance(revision, int)
    return epoch, revision
