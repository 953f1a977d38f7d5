"""What Grafana does to a query before Postgres sees it: variables first, then macros.

As its Postgres datasource does it: a macro's arguments end at the first closing parenthesis, so
parentheses inside them break here as they break there. Only what is known is replaced; what is left
over of `$__` is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$(\w+)")
DURATION_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Shown:
    """The time range and interval that a person looks at."""

    start: datetime
    end: datetime
    interval: str = "1m"


def expand(sql: str, shown: Shown, variables: dict[str, str]) -> str:
    """The SQL that Postgres gets."""
    expanded = _expand_macros(_put_variables(sql, shown, variables), shown)
    if "$__" in expanded or "${" in expanded:
        raise ValueError(f"Grafana would leave this in the query: {expanded}")
    return expanded


def _put_variables(sql: str, shown: Shown, variables: dict[str, str]) -> str:
    builtin = {
        "__interval": shown.interval,
        "__interval_ms": str(_seconds(shown.interval) * 1000),
        "__from": str(int(shown.start.timestamp() * 1000)),
        "__to": str(int(shown.end.timestamp() * 1000)),
    }

    def put(match: re.Match[str]) -> str:
        name, form = match[1] or match[3], match[2]
        if name in builtin:
            return builtin[name]
        if name not in variables:
            return match[0]  # a macro, or something that Grafana does not know
        value = variables[name]
        if form == "sqlstring":
            return "'" + value.replace("'", "''") + "'"
        if form in ("raw", "csv", "pipe"):
            return value
        if form is None:
            return value.replace("'", "''")
        raise ValueError(f"unknown format {form}")

    return VARIABLE.sub(put, sql)


def _expand_macros(sql: str, shown: Shown) -> str:
    def macro(match: re.Match[str]) -> str:
        name = match[1]
        arguments = [part.strip() for part in match[2].split(",")]
        start, end = f"'{_text(shown.start)}'", f"'{_text(shown.end)}'"
        if name == "timeFilter":
            return f"{arguments[0]} BETWEEN {start} AND {end}"
        if name == "timeFrom":
            return start
        if name == "timeTo":
            return end
        if name in ("timeGroup", "timeGroupAlias"):
            seconds = _seconds(arguments[1].strip("'\""))
            group = f"floor(extract(epoch from {arguments[0]})/{seconds})*{seconds}"
            return group + (' AS "time"' if name == "timeGroupAlias" else "")
        raise ValueError(f"unknown macro {name}")

    return re.sub(r"\$__(\w+)\(([^)]*)\)", macro, sql)


def _seconds(duration: str) -> int:
    match = re.fullmatch(r"(\d+)([smhd])", duration)
    if match is None:
        raise ValueError(f"not a duration: {duration}")
    return int(match[1]) * DURATION_S[match[2]]


def _text(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
