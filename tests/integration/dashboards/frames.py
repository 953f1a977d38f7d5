"""What Grafana wants of an answer before it can draw it, by kind of panel.

A time series has a column `time` in ascending order, numbers beside it, and at most one column of
words, the name of the line that a row belongs to; a number panel one row of numbers; a ring and
lying bars a name and a number in each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

INTEGERS: Final = frozenset({20, 21, 23})
NUMBERS: Final = INTEGERS | {700, 701, 1700}
WORDS: Final = frozenset({25, 1043})
TIMES: Final = frozenset({1114, 1184})

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Answer:
    """What a query gave: column names, their Postgres types, the rows."""

    names: list[str]
    types: list[int]
    rows: list[Row]

    def of(self, kinds: frozenset[int]) -> list[str]:
        """The columns of those types."""
        return [name for name, kind in zip(self.names, self.types, strict=True) if kind in kinds]

    def column(self, name: str) -> list[Any]:
        """A column's values."""
        at = self.names.index(name)
        return [row[at] for row in self.rows]


def flaws(kind: str, shape: str, answer: Answer) -> list[str]:
    """Why a panel of that kind could not draw the answer; nothing where it can."""
    found: list[str] = []
    if len(set(answer.names)) < len(answer.names):
        found.append(f"two columns have one name: {answer.names}")
    if shape == "time_series":
        return found + _flaws_of_series(answer)
    if kind == "stat":
        return found + _flaws_of_numbers(answer)
    if kind in ("piechart", "bargauge"):
        return found + _flaws_of_rows(answer)
    if kind == "annotation":
        return found + _missing(answer, ("time", TIMES), ("timeend", TIMES), ("text", WORDS))
    if kind == "variable":
        return found + _missing(answer, ("__value", WORDS), ("__text", WORDS))
    return found + ([] if answer.names else ["no column"])


def _flaws_of_series(answer: Answer) -> list[str]:
    if answer.names[:1] != ["time"]:
        return [f"the first column is not time: {answer.names}"]
    found: list[str] = []
    if answer.types[0] not in TIMES | NUMBERS:
        found.append(f"time is of type {answer.types[0]}")
    words, numbers = answer.of(WORDS), [name for name in answer.of(NUMBERS) if name != "time"]
    if words not in ([], ["metric"]):
        found.append(f"words that name no line: {words}")
    if not numbers or len(words) + len(numbers) + 1 != len(answer.names):
        found.append(f"not all of {answer.names} are numbers ({answer.types})")
    times = answer.column("time")
    if None in times or times != sorted(times):
        found.append("time does not ascend")
    keys: Sequence[object] = (
        list(zip(times, answer.column("metric"), strict=True)) if words else times
    )
    if len(set(keys)) < len(keys):
        found.append("two rows are one point")
    return found


def _flaws_of_numbers(answer: Answer) -> list[str]:
    found = [] if len(answer.rows) <= 1 else [f"{len(answer.rows)} rows for one number"]
    if answer.of(NUMBERS) != answer.names:
        found.append(f"not all of {answer.names} are numbers ({answer.types})")
    return found


def _flaws_of_rows(answer: Answer) -> list[str]:
    if len(answer.names) != 2 or len(answer.of(WORDS)) != 1 or len(answer.of(NUMBERS)) != 1:
        return [f"not a name and a number: {answer.names} ({answer.types})"]
    names = answer.column(answer.of(WORDS)[0])
    return [] if len(set(names)) == len(names) else ["a name comes twice"]


def _missing(answer: Answer, *wanted: tuple[str, frozenset[int]]) -> list[str]:
    return [
        f"no column {name} of a fitting type ({answer.names}, {answer.types})"
        for name, kinds in wanted
        if name not in answer.of(kinds)
    ]
