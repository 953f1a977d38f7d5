"""Was every minute kept? Compares what is stored with what happened, minute by minute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from module.model.results import GapCause, MinuteRows, WatchedSession
from module.model.sessions import boundary_at_or_after
from tests.simulation.memory_postgres.results import ResultTables
from tests.simulation.minutes.accounts import LivingAccount

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Violation:
    """One promise that was not kept."""

    name: str
    session_id: str
    minute: datetime | None
    detail: str


@dataclass
class Facts:
    """What happened to the machine, by minute of its clock. `whole`: a pass (or the session's own
    watcher) that nothing disturbed went through that minute. `held_up`: the session's own watcher
    came too late for it, because here one steps after the other. `ended`: when each session truly
    ended, whatever the machine's clock said."""

    begun: set[tuple[str, datetime]] = field(default_factory=set)
    killed: set[tuple[str, datetime]] = field(default_factory=set)
    whole: set[datetime] = field(default_factory=set)
    overran: set[datetime] = field(default_factory=set)
    held_up: set[tuple[str, datetime]] = field(default_factory=set)
    ended: dict[str, datetime] = field(default_factory=dict)
    unreachable: set[tuple[str, datetime]] = field(default_factory=set)
    no_room: set[datetime] = field(default_factory=set)
    own_spool_full: set[tuple[str, datetime]] = field(default_factory=set)
    forgotten: set[datetime] = field(default_factory=set)
    postgres_away: set[datetime] = field(default_factory=set)
    clock_moved: set[datetime] = field(default_factory=set)


def judge_minutes(
    session: WatchedSession, tables: ResultTables, facts: Facts, last: datetime
) -> Iterator[Violation]:
    """Each minute from the session's first to its last one (or `last`) has a row or a true gap."""
    if session.ended_at is not None:
        last = min(last, boundary_at_or_after(session.ended_at, MINUTE))
    minute = boundary_at_or_after(session.started_at, MINUTE)
    while minute <= last:
        key = (session.session_id, minute)
        rows, gap = tables.minutes.get(key), tables.gaps.get(key)
        has_row = rows is not None and rows.portfolio is not None
        if has_row and gap is not None:
            yield Violation("row-and-gap", *key, f"gap says {gap.cause} ({gap.detail})")
        if not has_row and gap is None:
            yield Violation("lost-minute", *key, "neither a row nor a gap")
        if gap is not None and not has_row and not _is_true(gap.cause, key, facts):
            yield Violation("untrue-cause", *key, f"{gap.cause}: {gap.detail}")
        if gap is not None and not has_row and minute in facts.whole:
            yield Violation("needless-gap", *key, f"{gap.cause}: {gap.detail}; nothing was wrong")
        minute += MINUTE


def _is_true(cause: GapCause, key: tuple[str, datetime], facts: Facts) -> bool:
    minute = key[1]
    match cause:
        case GapCause.NOT_RUNNING:
            # Nobody ran, or nobody lived to tell: it was killed, or the disk took nothing.
            return (
                key not in facts.begun
                or key in facts.killed
                or minute in facts.no_room
                or minute in facts.clock_moved
            )
        case GapCause.OVERRUN:
            return minute in facts.overran or key in facts.held_up or minute in facts.clock_moved
        case GapCause.EXCHANGE_UNREACHABLE:
            return key in facts.unreachable
        case GapCause.STORE_LOST:
            return key in facts.begun and (
                minute in facts.forgotten or key in facts.killed or minute in facts.no_room
            )
        case GapCause.SESSION_UNREADABLE:
            return minute in facts.postgres_away
        case GapCause.SPOOL_FULL:
            return minute in facts.no_room or key in facts.own_spool_full
    return False


def judge_row(
    rows: MinuteRows, account: LivingAccount, session: WatchedSession
) -> Iterator[Violation]:
    """A row tells what the account said at the second that it names."""
    row = rows.portfolio
    if row is None:
        return
    key = (rows.session_id, rows.minute)
    answers = account.said.get(row.measured_at)
    if answers is None:
        yield Violation("invented-row", *key, f"nobody looked at {row.measured_at}")
        return
    said = next((one for one in answers if one.equity == row.current_pv), answers[-1])
    if row.current_pv != said.equity:
        yield Violation("wrong-value", *key, f"{row.current_pv}, the account had {said.equity}")
    if rows.symbols is not None:
        sizes = {item.symbol: item.size for item in rows.symbols if item.size}
        if sizes != dict(said.positions):
            yield Violation("wrong-positions", *key, f"{sizes}, it had {said.positions}")
    if not 0 <= (row.measured_at - rows.minute).total_seconds() < 120:
        yield Violation("wrong-time", *key, f"measured at {row.measured_at}")
    if said.settled and "history-stale" not in row.flags:
        if row.net_transfers != said.transfers:
            yield Violation("wrong-sums", *key, f"transfers {row.net_transfers}, {said.transfers}")
        if row.fees != said.fees:
            yield Violation("wrong-sums", *key, f"fees {row.fees}, were {said.fees}")


def judge_history(
    session: WatchedSession,
    tables: ResultTables,
    account: LivingAccount,
    told: datetime,
    ended: datetime | None,
) -> Iterator[Violation]:
    """Everything that happened within the session, and that the exchange had told of by `told`, is
    there once. `ended` is when it truly ended: by a clock that ran ahead it ended later, and what
    happened in between was not its own. (Nothing happens in an account before its session.)"""
    never = datetime.max.replace(tzinfo=session.started_at.tzinfo)
    end = min(session.ended_at or never, ended or never)
    wanted = Counter(
        (item.source, item.item_id)
        for item in account.items
        if session.started_at < item.at <= end and item.published_at <= told
    )
    stored = Counter(
        (source, item_id)
        for owner, source, item_id in tables.transactions
        if owner == session.session_id
    )
    stored += Counter(
        ("position", item_id) for owner, item_id in tables.positions if owner == session.session_id
    )
    for key in wanted - stored:
        yield Violation("lost-history", session.session_id, None, f"{key} is not stored")
