"""What was stored a moment ago and Postgres may still forget: a replica takes over that missed it.

    monitoring.minute ── note(record) ─► Unsettled ── look, each minute ─► store it again

A record counts as lasting once it is found there at its second look, a minute or more after it was
stored. A minute of which nothing is known any more (its process died too) becomes a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from module.model.results import GapRow, HistoryRows, MinuteRows
from monitoring.spool import SpoolRecord

MINUTE = timedelta(minutes=1)
LOOK_BACK = timedelta(minutes=10)
"""How far back a new process looks for minutes that the one before it has lost."""
LOOKS = 2


@dataclass(slots=True)
class _Noted:
    record: SpoolRecord
    looks: int = 0


class Unsettled:
    """One session's records that are not known to last. `sure_until`: every minute up to this one
    has its row or its gap for good; None until it is known where the stored rows end."""

    def __init__(self) -> None:
        self.sure_until: datetime | None = None
        self._minutes: dict[datetime, _Noted] = {}
        self._histories: list[_Noted] = []

    def note(self, record: SpoolRecord) -> None:
        """`record` has just been committed. A gap does not take the place of its minute's row."""
        if isinstance(record, HistoryRows):
            self._histories.append(_Noted(record))
        elif isinstance(record, MinuteRows):
            if record.portfolio is not None:
                self._minutes[record.minute] = _Noted(record)
        else:
            self._minutes.setdefault(record.minute, _Noted(record))

    def missing(self, there: set[datetime], last: datetime) -> Iterator[datetime]:
        """The minutes after `sure_until` up to `last` that are not `there`."""
        if self.sure_until is None:
            return
        minute = self.sure_until + MINUTE
        while minute <= last:
            if minute not in there:
                yield minute
            minute += MINUTE

    def look(
        self,
        there: set[datetime],
        last: datetime,
        store_again: Callable[[MinuteRows | GapRow], None],
    ) -> list[datetime]:
        """Compare with the minutes that are `there`; the missing ones of which nothing is known.

        What was lost goes to `store_again`, which notes it anew if it was committed.
        """
        unknown: list[datetime] = []
        missing = list(self.missing(there, last))
        for minute in missing:
            noted = self._minutes.pop(minute, None)
            if noted is None:
                unknown.append(minute)
            elif not isinstance(noted.record, HistoryRows):
                store_again(noted.record)
        for minute, noted in list(self._minutes.items()):
            if minute not in missing:
                noted.looks += 1
                if noted.looks >= LOOKS:
                    del self._minutes[minute]
        if self.sure_until is not None:
            open_minutes = [*missing, *self._minutes]
            sure = min(open_minutes) - MINUTE if open_minutes else last
            self.sure_until = max(self.sure_until, min(sure, last))
        return unknown

    def histories_to_repeat(self) -> list[HistoryRows]:
        """History that has been there for a look: to be stored once more (it is keyed, so what
        is there stays), and then known to last."""
        due: list[HistoryRows] = []
        for noted in list(self._histories):
            noted.looks += 1
            if noted.looks >= LOOKS and isinstance(noted.record, HistoryRows):
                self._histories.remove(noted)
                due.append(noted.record)
        return due
