"""Daily roll-ups: the last minute of each UTC day, kept when the minutes are gone.

    whoever writes a minute or a gap ── mark_days ─► result_days_due ── roll_up (upkeep) ─► …_1day

A mark and its minute are one transaction, and the roll-up takes the mark away in the transaction
that it reads the day in. So a day without a mark has a roll-up that is as new as its rows, however
late those came; a reader takes marked days from the minutes.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Final, cast

from sqlalchemy import Table, false, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.results_tables import (
    ResultDayDue,
    indicator_days_table,
    indicator_table,
    portfolio_days_table,
    portfolio_table,
)
from module.model.market import MarketType

DAYS_PER_TRANSACTION: Final = 200
DAY: Final = timedelta(days=1)
OWN_COLUMNS_OF_DAYS: Final = ("minutes", "gaps", "low_pv", "high_pv")
_DUE = cast(Table, ResultDayDue.__table__)
_INSTANT: Final = timedelta(microseconds=1)

_TAKE_MARKS = text(
    "DELETE FROM result_days_due WHERE (session_id, day) IN ("
    "SELECT session_id, day FROM result_days_due WHERE market = :market AND day < :before "
    "ORDER BY session_id, day LIMIT :most FOR UPDATE SKIP LOCKED) RETURNING session_id, day"
)
# `begins` is a value of the outer row: Postgres prunes the months for each day while it runs.
_DAYS_ASKED = (
    "unnest(CAST(:sessions AS text[]), CAST(:days AS date[]), CAST(:begins AS timestamptz[])) "
    "AS asked (session_id, day, begins)"
)
_INSIDE = (
    "{alias}.session_id = asked.session_id AND {alias}.minute > asked.begins "
    "AND {alias}.minute <= asked.begins + interval '24 hours' AND {alias}.minute < :until"
)


def day_of(minute: datetime) -> date:
    """The UTC day that a minute belongs to: 00:00 ends the day before it."""
    return (minute.astimezone(UTC) - _INSTANT).date()


def begin_of(day: date) -> datetime:
    """Its 00:00 UTC; the day's minutes are later than it, up to and with the next 00:00."""
    return datetime.combine(day, time.min, tzinfo=UTC)


def mark_days(session: Session, days: Iterable[tuple[str, date, MarketType]]) -> None:
    """Mark (session, day) as due, in the transaction that writes the day's row.

    The mark is locked even when it is there: a roll-up under way cannot take it meanwhile.
    """
    values = [
        {"session_id": name, "day": day, "market": market.value}
        for name, day, market in sorted(set(days))
    ]
    if not values:
        return
    statement = insert(_DUE).values(values)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[_DUE.c.session_id, _DUE.c.day],
            set_={"day": statement.excluded.day},
            where=false(),
        )
    )


def roll_up(database: Database, before: date) -> int:
    """Roll up what is due of the days before `before`; how many days of sessions that were.

    A day that somebody writes to at this moment stays due.
    """
    rolled = 0
    for market in MarketType:
        some = partial(_roll_up_some, market=market, before=before)
        while count := database.run_idempotent(some):
            rolled += count
    return rolled


def _roll_up_some(db: Session, market: MarketType, before: date) -> int:
    limits = {"market": market.value, "before": before, "most": DAYS_PER_TRANSACTION}
    taken = [(str(name), day) for name, day in db.execute(_TAKE_MARKS, limits)]
    if not taken:
        return 0
    asked: dict[str, object] = {
        "until": "infinity",
        "sessions": [name for name, _ in taken],
        "days": [day for _, day in taken],
        "begins": [begin_of(day) for _, day in taken],
    }
    portfolio, indicators = portfolio_days_table(market), indicator_days_table(market)
    # Minutes may have gone meanwhile (retention): a late row of such a day does not undo the day.
    db.execute(text(_upsert(portfolio, portfolio_days_sql(market), "minutes")), asked)
    db.execute(text(_upsert(indicators, indicator_days_sql(market), "minute")), asked)
    return len(taken)


def _upsert(table: Table, days_sql: str, grows: str) -> str:
    names = [column.name for column in table.columns]
    updates = ", ".join(f"{name} = excluded.{name}" for name in names)
    columns = ", ".join(names)
    return (
        f"INSERT INTO {table.name} AS known ({columns}) "  # noqa: S608
        f"SELECT {columns} FROM ({days_sql}) AS fresh "
        f"ON CONFLICT (session_id, day) DO UPDATE SET {updates} "
        f"WHERE excluded.{grows} >= known.{grows}"
    )


def portfolio_days_sql(market: MarketType, *, with_sums: bool = True) -> str:
    """The portfolio's days out of the minutes, up to `until`; `sessions`, `days` and `begins` are
    arrays. Without sums a day costs one step into the key instead of its 1,440 rows."""
    minutes = portfolio_table(market).name
    own = set(OWN_COLUMNS_OF_DAYS)
    columns = ", ".join(
        f"asked.{name}" if name == "day" else f"newest.{name}"
        for name in (column.name for column in portfolio_days_table(market).columns)
        if name not in own
    )
    newest = f"{_DAYS_ASKED} CROSS JOIN LATERAL ({_newest(minutes)}) AS newest"
    if not with_sums:
        return f"SELECT {columns} FROM {newest}"  # noqa: S608
    return (
        f"SELECT {columns}, sums.minutes, sums.low_pv, sums.high_pv, "  # noqa: S608
        f"(SELECT count(*) FROM result_gaps_1min AS g WHERE {_INSIDE.format(alias='g')}) AS gaps "
        f"FROM {newest} CROSS JOIN LATERAL (SELECT count(*) AS minutes, "
        "min(p.current_pv) AS low_pv, max(p.current_pv) AS high_pv "
        f"FROM {minutes} AS p WHERE {_INSIDE.format(alias='p')}) AS sums"
    )


def indicator_days_sql(market: MarketType) -> str:
    """The indicators' days out of the minutes; binds as above."""
    columns = ", ".join(
        f"asked.{name}" if name == "day" else f"newest.{name}"
        for name in (column.name for column in indicator_days_table(market).columns)
    )
    minutes = indicator_table(market).name
    return (
        f"SELECT {columns} FROM {_DAYS_ASKED} "  # noqa: S608
        f"CROSS JOIN LATERAL ({_newest(minutes)}) AS newest"
    )


def _newest(minutes: str) -> str:
    return (
        f"SELECT p.* FROM {minutes} AS p WHERE {_INSIDE.format(alias='p')} "  # noqa: S608
        "ORDER BY p.minute DESC LIMIT 1"
    )
