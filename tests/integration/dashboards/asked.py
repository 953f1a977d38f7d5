"""Grafana's side of a board: the role that only reads, its datasources, every question of a board.

boards ─► questions_of ─► Reader.ask (variables, macros) ─► Answer ─► frames.flaws
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import psycopg2
import psycopg2.extensions

from dashboards.grafana.build import render_boards
from module.db.embedded import EmbeddedPostgres
from module.db.migrate import READER_ROLE
from tests.integration.dashboards.frames import Answer
from tests.integration.dashboards.grafana_sql import Shown, Value, expand

DATABASES: Final = {"aifap-results": "finwatcher", "aifap-sessions": "finplatform"}
METRICS_UID: Final = "aifap-metrics"
Json = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """One query of a board: a panel's target, a variable's, an annotation's."""

    board: str
    title: str
    kind: str
    shape: str
    source: str
    text: str
    points_max: int | None = None

    @property
    def is_sql(self) -> bool:
        """Whether Postgres answers it."""
        return self.source in DATABASES

    def __str__(self) -> str:
        return f"{self.board}: {self.title}"


@cache
def boards() -> dict[str, Json]:
    """Every board as Grafana reads it, by name."""
    made: dict[str, Json] = json.loads(json.dumps(render_boards()))
    return made


def questions_of(name: str, board: Json) -> Iterator[Question]:
    """Everything that a board asks."""
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            source = target["datasource"]["uid"]
            yield Question(
                name,
                panel["title"],
                panel["type"],
                target.get("format", "prometheus"),
                source,
                target["rawSql"] if source in DATABASES else target["expr"],
                panel.get("maxDataPoints"),
            )
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield Question(
                name,
                f"${variable['name']}",
                "variable",
                "table",
                variable["datasource"]["uid"],
                variable["query"],
            )
    for marks in board["annotations"]["list"]:
        target = marks["target"]
        yield Question(
            name,
            marks["name"],
            "annotation",
            target["format"],
            target["datasource"]["uid"],
            target["rawSql"],
        )


def all_questions() -> list[Question]:
    """Of all boards."""
    return [one for name, board in boards().items() for one in questions_of(name, board)]


class Reader:
    """The read-only role on both databases, as Grafana connects."""

    def __init__(self, connections: Mapping[str, psycopg2.extensions.connection]) -> None:
        self._connections = connections
        self._chosen: dict[tuple[object, ...], dict[str, Value]] = {}

    def ask(self, source: str, sql: str, shown: Shown, **variables: Value) -> Answer:
        """The query as Grafana sends it."""
        return self.run(source, expand(sql, shown, variables))

    def run(self, source: str, sql: str) -> Answer:
        """The SQL as it stands."""
        with self._connections[source].cursor() as cursor:
            cursor.execute(sql)
            description = cursor.description or ()
            return Answer(
                [column.name for column in description],
                [column.type_code for column in description],
                [tuple(row) for row in cursor.fetchall()] if description else [],
            )

    def panel(self, board: str, title: str, shown: Shown, **variables: Value) -> Answer:
        """What the one query of a panel gives."""
        (found,) = [
            one for one in questions_of(board, boards()[board]) if one.title == title and one.is_sql
        ]
        return self.ask(found.source, found.text, shown, **variables)

    def variables(self, board: str, shown: Shown, **wished: str) -> dict[str, Value]:
        """The board's variables as Grafana fills them: the options are asked for one after the
        other; `wished` where it is among them, else all (of several), else the first."""
        key = (board, shown, *sorted(wished.items()))
        if key not in self._chosen:
            self._chosen[key] = self._choose(board, shown, wished)
        return dict(self._chosen[key])

    def _choose(self, board: str, shown: Shown, wished: Mapping[str, str]) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for variable in boards()[board]["templating"]["list"]:
            name = variable["name"]
            if variable["type"] == "custom":
                values[name] = wished.get(name, variable["current"]["value"])
                continue
            found = self.ask(variable["datasource"]["uid"], variable["query"], shown, **values)
            options = [str(value) for value in found.column("__value")]
            if wished.get(name) in options:
                values[name] = [wished[name]] if variable["multi"] else wished[name]
            elif variable["multi"]:
                values[name] = options
            else:
                values[name] = options[0] if options else ""
        return values


@contextmanager
def reader_of(server: EmbeddedPostgres) -> Iterator[Reader]:
    """Connections of the read-only role to the server's databases."""
    connections = {
        uid: psycopg2.connect(
            host=str(server.socket_path.parent),
            port=server.port,
            user=READER_ROLE,
            password=server.reader_password(),
            dbname=name,
            connect_timeout=10,
        )
        for uid, name in DATABASES.items()
    }
    try:
        for connection in connections.values():
            connection.autocommit = True
        yield Reader(connections)
    finally:
        for connection in connections.values():
            connection.close()
