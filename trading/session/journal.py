"""The journal of ended cycles: in the archive and in Postgres, at once or as soon as it can be.

A full disk or a Postgres that is away keeps no session from going on: each has what the other lacks
until it is there again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime

from module.logs import get_logger
from module.model.errors import PASSING
from module.ports import Clock, CycleRecord, OrderInfoStore, SessionRegistry
from trading.rebalance.order_info import OrderInfo, to_json

UNSTORED_MAX = 50
UNARCHIVED_MAX = 50

log = get_logger("trading.journal")


class Journal:
    """One leader's. `epoch` is the one that it took."""

    def __init__(
        self, store: OrderInfoStore, registry: SessionRegistry, clock: Clock, epoch: int
    ) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        self._epoch = epoch
        self._unstored: deque[CycleRecord] = deque(maxlen=UNSTORED_MAX)
        self._unarchived: deque[Mapping[str, object]] = deque(maxlen=UNARCHIVED_MAX)

    def keep(self, info: OrderInfo, own_ms: float | None = None) -> None:
        """Archive an ended cycle and store it; what cannot be kept now is kept later. `own_ms`: the
        real time that it took, in ms, where this process led it from its boundary on."""
        self._unarchived.append(to_json(info))
        self._unstored.append(_record(info, self._clock.now(), own_ms))
        self.flush()

    def flush(self) -> None:
        """What archive and Postgres do not have yet, oldest first."""
        self._flush_archive()
        while self._unstored:
            try:
                self._registry.record_cycle(self._epoch, self._unstored[0])
            except PASSING as error:
                log.warning("cycle not stored in Postgres yet", detail=error.message)
                return
            self._unstored.popleft()

    def _flush_archive(self) -> None:
        """Until the disk takes it the letter itself, or Postgres, has what is missing here."""
        while self._unarchived:
            try:
                self._store.archive(self._unarchived[0])
            except PASSING as error:
                log.error("cycle not archived yet", detail=error.message)
                return
            self._unarchived.popleft()

    def find_unstored(
        self, archived: Iterable[OrderInfo], number_stored: int, last_stored: datetime | None
    ) -> None:
        """Of what an earlier leader archived what it could not store: cycles with a higher number,
        or of a later boundary, than Postgres has."""
        for info in archived:
            if info.number > number_stored or last_stored is None or info.cycle > last_stored:
                self._unstored.append(_record(info, info.cycle, None))
        self.flush()


def _record(info: OrderInfo, ended_at: datetime, own_ms: float | None) -> CycleRecord:
    return CycleRecord(
        session_id=info.session_id,
        boundary=info.cycle,
        number=info.number,
        state=info.stage.value,
        reason=info.reason,
        started_at=info.cycle,
        ended_at=ended_at,
        own_ms=own_ms,
        targets=dict(info.targets),
        order_info=to_json(info),
        digest=info.plan_digest,
    )
