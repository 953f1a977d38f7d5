"""`python -m tests.integration.dashboards.report`: every query of every board, run and told.

A Postgres is started, sessions are lived and stored, each query is asked as the read-only role with
the macros expanded: board, panel, rows, milliseconds, and what is wrong, if anything. Ends with 1
where a panel could not draw its answer. `--pages FOLDER` draws the boards as pages to look at.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from module.db.database import Database
from module.db.embedded import EmbeddedPostgres
from module.db.migrate import migrate_all
from module.db.results_rollups import roll_up
from module.settings import Settings
from tests.integration.dashboards.asked import Question, Reader, all_questions, reader_of
from tests.integration.dashboards.drawn import draw_pages
from tests.integration.dashboards.frames import Answer, flaws
from tests.integration.dashboards.grafana_sql import Shown
from tests.integration.dashboards.lived_sessions import Lived, live_and_store

LONG_AFTER = date(2026, 4, 1)
HELD_MINUTES = 50
EARLIER = "30 minutes"


@dataclass(frozen=True)
class Told:
    """What became of one question."""

    question: Question
    answer: Answer
    took_ms: float
    problems: list[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=Path, metavar="FOLDER")
    options = parser.parse_args(arguments)
    with lived_installation() as (reader, lived):
        shown = Shown(lived.start, lived.start + timedelta(minutes=HELD_MINUTES))
        told = [tell(reader, lived, shown, question) for question in all_questions()]
    print(f"{'board':<12} {'panel':<38} {'kind':<11} {'rows':>6} {'ms':>8}  ok")
    for one in told:
        asked = one.question
        ok = "yes" if not one.problems else "; ".join(one.problems)
        if not asked.is_sql:
            ok = "Prometheus: see test_board_files"
        print(
            f"{asked.board:<12} {asked.title[:38]:<38} {asked.kind:<11} "
            f"{len(one.answer.rows):>6} {one.took_ms:>8.1f}  {ok}"
        )
    bad = [one for one in told if one.problems]
    queries = sum(one.question.is_sql for one in told)
    print(f"{queries} queries of Postgres, {len(told) - queries} of Prometheus, {len(bad)} not ok")
    if options.pages is not None:
        draw_pages(options.pages, {one.question: one.answer for one in told})
    return 1 if bad else 0


def tell(reader: Reader, lived: Lived, shown: Shown, question: Question) -> Told:
    """Ask one question as the panel does, about the session that most happened to."""
    if not question.is_sql:
        return Told(question, Answer([], [], []), 0.0, [])
    values = reader.variables(question.board, shown, session=lived.sessions["busy"])
    if question.board in ("fleet", "comparison"):
        values = reader.variables(question.board, shown)
    began = time.perf_counter()
    answer = reader.ask(question.source, question.text, shown, **values | {"earlier": EARLIER})
    took_ms = (time.perf_counter() - began) * 1000
    problems = flaws(question.kind, question.shape, answer)
    return Told(question, answer, took_ms, problems or ([] if answer.rows else ["no rows"]))


@contextmanager
def lived_installation() -> Iterator[tuple[Reader, Lived]]:
    """A Postgres with lived sessions; nothing of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="aifap-panels-"))
    settings = Settings(data_dir=folder)
    server = EmbeddedPostgres(settings)
    try:
        server.start(ends_with_parent=True)
        migrate_all(settings)
        lived = live_and_store(settings)
        finwatcher = Database(settings, "finwatcher", 1)
        roll_up(finwatcher, LONG_AFTER)
        finwatcher.close()
        with reader_of(server) as reader:
            yield reader, lived
    finally:
        server.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
