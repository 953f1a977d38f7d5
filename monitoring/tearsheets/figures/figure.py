"""What a sheet's numbers are, once they are found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. `text` is it with its unit, or empty where `reason` says why there is none."""

    key: str
    title: str
    value: float | None
    unit: str
    text: str
    meaning: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Drawdown:
    """From a peak down to a valley and back; `recovered` is None while it lasts."""

    depth: float
    peak: datetime
    valley: datetime
    recovered: datetime | None
    length: timedelta


@dataclass(frozen=True, slots=True)
class Figures:
    """All of them, in the order of the page."""

    groups: tuple[tuple[str, tuple[Figure, ...]], ...]
    drawdowns: tuple[Drawdown, ...]
    best: tuple[tuple[datetime, float], ...]
    worst: tuple[tuple[datetime, float], ...]

    def find(self, key: str) -> Figure:
        """The figure of that key; KeyError without one."""
        for _, items in self.groups:
            for item in items:
                if item.key == key:
                    return item
        raise KeyError(key)
