"""What Grafana does to a query before Postgres sees it: variables first, then macros.

    rawSql ─► variables (in the browser) ─► macros (its Postgres datasource) ─► Postgres

As Grafana 11 does it: a macro's arguments end at the first closing parenthesis, so parentheses
inside them break here as they break there; a value of several is spelled as its format says; a
variable that takes several is quoted even where no format is named. What Grafana does not know is
refused: it would reach Postgres as it stands, or fail there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$(\w+)")
MACRO = re.compile(r"\$([_a-zA-Z0-9]+)\(([^)]*)\)")
DURATION_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
# The widths of a point that Grafana rounds to (its own table, from a minute on).
ROUNDED_S = (60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
             604_800)  # fmt: skip

Value = str | Sequence[str]


@dataclass(frozen=True)
class Shown:
    """The time range and interval that a person looks at."""

    start: datetime
    end: datetime
    interval: str = "1m"

    @classmethod
    def across(cls, start: datetime, end: datetime, points: int = 1000) -> Shown:
        """As a panel that is so many points wide asks: the interval that Grafana chooses."""
        width_s = (end - start) / timedelta(seconds=1) / points
        wide = next((each for each in ROUNDED_S if each >= width_s), ROUNDED_S[-1])
        return cls(start, end, f"{wide}s")


def expand(sql: str, shown: Shown, variables: Mapping[str, Value]) -> str:
    """The SQL that Postgres gets. ValueError for what Grafana would leave in it."""
    asked = _put_variables(sql, shown, variables)
    # A value of a variable may hold such text; only the board's own is refused.
    known = {*variables, "__interval", "__interval_ms", "__from", "__to"}
    for match in VARIABLE.finditer(sql):
        name = match[1] or match[3]
        is_macro = sql[match.end() : match.end() + 1] == "("
        if name not in known and not is_macro:
            raise ValueError(f"Grafana would leave {match[0]} in the query: {sql}")
    return _expand_macros(asked, shown)


def _put_variables(sql: str, shown: Shown, variables: Mapping[str, Value]) -> str:
    builtin = {
        "__interval": shown.interval,
        "__interval_ms": str(interval_s(shown) * 1000),
        "__from": str(int(shown.start.timestamp() * 1000)),
        "__to": str(int(shown.end.timestamp() * 1000)),
    }

    def put(match: re.Match[str]) -> str:
        name, form = match[1] or match[3], match[2]
        if name in builtin:
            return builtin[name]
        if name not in variables:
            return match[0]  # a macro, or something that Grafana does not know
        return _spelled(variables[name], form)

    return VARIABLE.sub(put, sql)


def _spelled(value: Value, form: str | None) -> str:
    is_one = isinstance(value, str)
    values = [value] if isinstance(value, str) else list(value)
    quoted = ",".join("'" + each.replace("'", "''") + "'" for each in values)
    if form == "sqlstring":
        return quoted or "''"
    if form in ("raw", "csv"):
        return ",".join(values)
    if form is None:
        return values[0].replace("'", "''") if is_one else quoted
    raise ValueError(f"unknown format {form}")


def _expand_macros(sql: str, shown: Shown) -> str:
    start, end = f"'{_text(shown.start)}'", f"'{_text(shown.end)}'"

    def macro(match: re.Match[str]) -> str:
        name = match[1].removeprefix("__")
        arguments = [part.strip(" ") for part in match[2].split(",")]
        first = arguments[0]
        # Followed by a comma it gives its column a name, as it did in old boards.
        if name == "timeGroup" and sql[match.end() : match.end() + 1] == ",":
            name = "timeGroupAlias"
        if name == "time":
            return f'{first} AS "time"'
        if name == "timeEpoch":
            return f'extract(epoch from {first}) as "time"'
        if name == "timeFilter":
            return f"{first} BETWEEN {start} AND {end}"
        if name == "timeFrom":
            return start
        if name == "timeTo":
            return end
        if name == "unixEpochFilter":
            times = (int(each.timestamp()) for each in (shown.start, shown.end))
            return "{0} >= {1} AND {0} <= {2}".format(first, *times)
        if name in ("timeGroup", "timeGroupAlias"):
            seconds = _seconds(arguments[1].strip("'"))
            group = f"floor(extract(epoch from {first})/{seconds})*{seconds}"
            return group + (' AS "time"' if name == "timeGroupAlias" else "")
        raise ValueError(f"unknown macro {name}")

    return MACRO.sub(macro, sql)


def interval_s(shown: Shown) -> int:
    """Seconds that one point stands for."""
    return _seconds(shown.interval)


def _seconds(duration: str) -> int:
    match = re.fullmatch(r"(\d+)([smhdw])", duration)
    if match is None:
        raise ValueError(f"not a duration: {duration}")
    return int(match[1]) * DURATION_S[match[2]]


def _text(when: datetime) -> str:
    """RFC 3339 with as many digits as there are."""
    text = f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}".rstrip("0").rstrip(".")
    return text + "Z"
