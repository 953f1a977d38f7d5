"""Does the judge notice? Known bugs, one at a time, in production's code, for one run each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from module.model.results import MinuteRows
from tests.simulation.minutes.world import MinutesWorld, Troubles
from tests.simulation.planted_bugs.bug import Patch

MINUTES = 700
SEEDS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Planted:
    """One bug; `caught_by`: the violations of which one must be seen; `troubles`: the odds of a
    world that meets it often."""

    name: str
    caught_by: tuple[str, ...]
    plant: Callable[[Patch], None]
    troubles: Troubles = field(default_factory=Troubles)


def _gaps_are_forgotten(patch: Patch) -> None:
    patch.replace("tests.simulation.minutes.store:MemoryStore.store_gaps", lambda *_: 0)


def _minutes_have_no_owner(patch: Patch) -> None:
    def anybody(self: Any, rows: MinuteRows, state: Any = None, *, make: Any = None) -> Any:
        known = self._tables.minutes.get((rows.session_id, rows.minute))
        if known is not None:
            rows = replace(rows, writer=known.writer)
        self._tables.minutes.pop((rows.session_id, rows.minute), None)
        return make(self, rows, state)

    def store_one(before: Any) -> Any:
        return lambda self, rows, state=None: anybody(self, rows, state, make=before)

    patch.wrap("tests.simulation.memory_postgres.results:MemoryResults.store_minute", store_one)
    patch.replace("monitoring.fleet:Fleet._is_complete", lambda *_: False)


def _spool_gets_new_times(patch: Patch) -> None:
    def restamped(before: Any) -> Any:
        def records(self: Any, file: Any) -> Any:
            return [
                replace(record, minute=record.minute + timedelta(minutes=1))
                if isinstance(record, MinuteRows)
                else record
                for record in before(self, file)
            ]

        return records

    patch.wrap("monitoring.fleet_folder:FleetFolder._records", restamped)


def _history_is_never_asked_again(patch: Patch) -> None:
    patch.replace("monitoring.fleet_notes:Notes.is_quiet", lambda *_: True)


def _changes_are_not_seen(patch: Patch) -> None:
    for place in ("monitoring.fleet:mark_of", "monitoring.fleet_storing:mark_of"):
        patch.replace(place, lambda _snapshot: "the same")


def _every_gap_has_one_cause(patch: Patch) -> None:
    from module.model.results import GapCause

    def same(before: Any) -> Any:
        return lambda self, session, minute, cause, detail: before(
            self, session, minute, GapCause.OVERRUN, detail
        )

    patch.wrap("monitoring.fleet:Fleet._gap", same)
    patch.replace(
        "monitoring.fleet:Fleet._true_cause",
        lambda _self, gap: replace(gap, cause=GapCause.OVERRUN),
    )


def _spool_is_emptied_too_early(patch: Patch) -> None:
    def hasty(before: Any) -> Any:
        return lambda self, store, until: before(self, lambda records: store(records[:-1]), until)

    patch.wrap("monitoring.fleet_folder:FleetFolder.drain", hasty)


def _nothing_is_spooled(patch: Patch) -> None:
    patch.replace("monitoring.fleet_folder:FleetFolder.keep", lambda *_: True)


def _ended_sessions_are_left(patch: Patch) -> None:
    def living(before: Any) -> Any:
        return lambda self, since: [row for row in before(self, since) if not row.is_over]

    patch.wrap("tests.simulation.minutes.store:MemoryStore.sessions", living)


def _notes_count_what_is_not_stored(patch: Patch) -> None:
    def dropped(before: Any) -> Any:
        def store(self: Any, batch: Any) -> Any:
            return before(self, batch[:-1]) + before(self, [])[:0] + [_added()]

        return store

    patch.wrap("tests.simulation.memory_postgres.results:MemoryResults.store_histories", dropped)


def _holes_are_not_looked_for(patch: Patch) -> None:
    """A fail-over forgets a minute behind a later one: of a watcher that went on."""
    patch.replace("monitoring.minute:Finwatcher._look_for_losses", lambda *_: True)
    patch.replace("monitoring.fleet:Fleet._old_holes", lambda *_: [])


def _causes_die_with_their_process(patch: Patch) -> None:
    patch.replace("monitoring.gaps:read_note", lambda _folder: None)


def _a_pass_knows_no_better(patch: Patch) -> None:
    """What a watcher that was born too late took for nobody's minute stays so."""
    patch.replace("monitoring.fleet:Fleet._better_known", lambda *_: [])


def _a_full_spool_swallows_gaps(patch: Patch) -> None:
    patch.replace("monitoring.gaps:MissingMinutes.put_back", lambda *_: None)


def _added() -> Any:
    from module.model.results import StoredAdditions

    return StoredAdditions(0)


RESTLESS = Troubles(watcher=0.2, fail_over=0.1)
"""Sessions' own watchers come and go beside the passes, and Postgres forgets often."""
LONELY = Troubles(
    no_pass=0.3, watcher=0.3, postgres_away=0.03, exchange_down=0.05, own_spool_bound=0.2
)
"""Sessions' own watchers are often alone, and at the bound of their spools."""
BUGS: Sequence[Planted] = (
    Planted("a gap is not recorded", ("lost-minute",), _gaps_are_forgotten),
    Planted("a minute has no owner", ("written-twice",), _minutes_have_no_owner),
    Planted("the spool is stored under other minutes", ("wrong-time",), _spool_gets_new_times),
    Planted("history is never asked for again", ("lost-history",), _history_is_never_asked_again),
    Planted("changes of an account are not seen", ("wrong-sums",), _changes_are_not_seen),
    Planted("every gap has one cause", ("untrue-cause",), _every_gap_has_one_cause),
    Planted(
        "the spool is emptied before all of it is stored",
        ("lost-minute", "needless-gap", "untrue-cause", "lost-history"),
        _spool_is_emptied_too_early,
    ),
    Planted("nothing is spooled", ("untrue-cause", "needless-gap"), _nothing_is_spooled),
    Planted("ended sessions are left alone", ("lost-minute",), _ended_sessions_are_left),
    Planted(
        "history that was not stored is counted",
        ("lost-history",),
        _notes_count_what_is_not_stored,
    ),
    Planted("holes are not looked for", ("lost-minute",), _holes_are_not_looked_for, RESTLESS),
    Planted(
        "causes die with their process",
        ("untrue-cause",),
        _causes_die_with_their_process,
        RESTLESS,
    ),
    Planted("a full spool swallows gaps", ("untrue-cause",), _a_full_spool_swallows_gaps, LONELY),
    Planted("a pass knows no better", ("untrue-cause",), _a_pass_knows_no_better, RESTLESS),
)


def found(bug: Planted, seed: int, minutes: int = MINUTES) -> set[str]:
    """The violations of one run with the bug."""
    patch = Patch()
    with tempfile.TemporaryDirectory(prefix="aifap-minutes-") as folder:
        try:
            bug.plant(patch)
            lived = MinutesWorld(seed, minutes, Path(folder), bug.troubles).run()
        finally:
            patch.put_back()
    return {violation.name for violation in lived.violations}


def check_all() -> int:
    """Plant each bug; 1 when one is not caught."""
    escaped = 0
    for bug in BUGS:
        caught: set[str] = set()
        for seed in SEEDS:
            caught = found(bug, seed)
            if caught & set(bug.caught_by):
                print(f"caught   {bug.name}: {', '.join(sorted(caught))} (seed {seed})")
                break
        else:
            escaped += 1
            print(f"ESCAPED  {bug.name}: saw {sorted(caught) or 'nothing'}")
    return 1 if escaped else 0
