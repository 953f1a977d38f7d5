"""Programming errors of our own processes, wherever production turns them into words.

    a body that raises (strategy, finwatcher, leader, gateway)  ─► raised      the process ends
    a log line that is written while an error is handled        ─► heard       it is caught, said
    what the gateway answers with a problem                     ─► caught      words are read
    a letter that skips its cycle                               ─► skipped     the reason begins so
    a session that ends by itself                               ─► session_over   its reason

Whatever the exchange, Postgres, the disk and the clock do has an error of ours with a kind
(`Retryable`, `Rejected`, `OutcomeUnknown`) or is an `OSError`. Anything else, and
`InvariantViolated`, is a mistake in the code: production records it, tells somebody and goes on,
which is right for production and says nothing good of a simulated day.
"""

from __future__ import annotations

import builtins
import re
import sys
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from module.model.errors import AifapError, InvariantViolated
from module.model.sessions import SessionState
from tests.simulation.hub import Process, Task

if TYPE_CHECKING:
    from module.db.repositories.session_records import SessionRecord
    from tests.simulation.world import World

FRAMES = 3
EXCHANGES_MISTAKE = re.compile(
    r"is halted: order \S+ (is another than was sent|of .* was filled with .*: an invented)"
)
"""An order that the exchange has altered, a fill that it has invented (A26, B3): the invariant that
is violated is not ours."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a session of a simulated day may fail: words of its reason, the groups of the catalogue
    whose faults lead there, and how many sessions one fault may cost (its owner starts another
    while the fault lasts)."""

    name: str
    words: re.Pattern[str]
    groups: str
    sessions_each: int = 1


CAUSES = (
    Cause("hedge mode", re.compile(r"^the account is in hedge mode"), "AB", 4),
    Cause("an unexplained difference", re.compile(r"is not what the letters lead to"), "ABDO"),
    Cause("the exchange's refusal", re.compile(r"^Bitget \w+: "), "AB", 3),
    Cause(
        "settings",
        re.compile(
            r"and is held; .* can be set only while|after it was told to be"
            r"|has open orders; leverage and margin mode change only while"
        ),
        "AB",
        3,
    ),
    Cause("an altered order", EXCHANGES_MISTAKE, "AB"),
    Cause("unresolved orders", re.compile(r"orders are still unresolved after"), "AB"),
    Cause("a letter not kept", re.compile(r"letter could not be kept for"), "DE"),
    Cause("its leader's deaths", re.compile(r"^its leader ended \d+ times"), "D"),
    Cause("stops not as set", re.compile(r": stops are .* after they were set to"), "AB"),
    Cause("not flat", re.compile(r"^the account could not be made flat"), "AB"),
    Cause("holdings", re.compile(r"^the account already holds "), "AB", 3),
)
"""Of all that a session can fail with, what the faults of a day explain. Planning that fails again
and again is not among it."""


def is_mistake(error: BaseException) -> bool:
    """Whether no fault of the world explains this error, only the code."""
    if isinstance(error, InvariantViolated):
        return EXCHANGES_MISTAKE.search(error.message) is None
    return isinstance(error, Exception) and not isinstance(error, AifapError | OSError)


def names_mistake(reason: str) -> bool:
    """Whether words for people begin with the name of such an error."""
    name = reason.partition(":")[0].strip()
    if name == InvariantViolated.code:
        return EXCHANGES_MISTAKE.search(reason) is None
    kind: object = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        return not issubclass(kind, OSError)
    return name.isidentifier() and name.endswith(("Error", "Exception"))


class ErrorsWatch:
    """See the module's docstring; each place is told once a day."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._told: set[tuple[str, str]] = set()
        self.failures: Counter[str] = Counter()
        """Sessions that failed, by the cause that explains them."""

    # --- errors ----------------------------------------------------------------------------------

    def heard(self, words: object, given: object = None) -> None:
        """Something is written to a log, perhaps because an error is being handled."""
        error = given if isinstance(given, BaseException) else sys.exception()
        task = self._world.hub.current
        if error is not None and task is not None and is_mistake(error):
            self.caught(task.process, error, f"said as {str(words)!r:.60}")

    def caught(self, process: Process, error: BaseException, how: str) -> None:
        """Production has caught an error; one of a process that is dying means nothing."""
        if not process.alive or not is_mistake(error):
            return
        frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
        where = " < ".join(f"{_place(f.filename)}:{f.lineno} {f.name}" for f in reversed(frames))
        self._tell(process.role, f"{type(error).__name__}: {error}", f"{how}; {where}")

    def raised(self, task: Task) -> None:
        """A process has ended with an exception that nobody of it caught."""
        assert task.error is not None
        trace = "".join(traceback.format_exception(task.error)[-6:])
        self._tell(task.name, f"{type(task.error).__name__}: {task.error}", trace)

    def _tell(self, who: str, what: str, where: str) -> None:
        if (what, where) not in self._told:
            self._told.add((what, where))
            self._world.judge.violate("bug", f"{who}: {what} ({where})")

    # --- what production says --------------------------------------------------------------------

    def skipped(self, document: Mapping[str, Any]) -> None:
        """A cycle is over without a plan: its reason is no mistake of ours."""
        if document["stage"] == "skipped" and names_mistake(str(document["reason"])):
            self._tell("strategy", str(document["reason"]), f"skipped cycle {document['cycle']}")

    def session_over(self, record: SessionRecord) -> None:
        """A session has ended by itself: somebody was told why, and the day has the cause of it."""
        world, reason = self._world, record.reason
        if "cannot be read" in reason or "own digest" in reason:
            world.judge.violate("I13", f"session {record.session_id} failed: {reason}")
        if record.state is not SessionState.FAILED:
            return
        if names_mistake(reason):
            self._tell("session", reason, record.session_id)
        self._explain(record)
        alerts = world.postgres.alert_tables.alerts.values()
        spool = world.folder / "alerts" / "outbox.spool"
        told = any(alert.session_id == record.session_id for alert, _, _ in alerts)
        if not told and not spool.exists():
            world.judge.violate(
                "I16", f"session {record.session_id} failed and told nobody: {reason}"
            )

    def _explain(self, record: SessionRecord) -> None:
        """A failed session has a reason that the day's faults can lead to, and not too often."""
        reason = record.reason
        for cause in CAUSES:
            if cause.words.search(reason) is None:
                continue
            self.failures[cause.name] += 1
            strokes = self._met(cause.groups)
            if self.failures[cause.name] > strokes * cause.sessions_each:
                self._world.judge.violate(
                    "failed",
                    f"session {record.session_id} is number {self.failures[cause.name]} that "
                    f"failed by {cause.name}, and {strokes} faults could make one: {reason}",
                )
            return
        self._world.judge.violate(
            "failed", f"session {record.session_id} failed, and no fault explains it: {reason}"
        )

    def _met(self, groups: str) -> int:
        """How many faults of these groups of the catalogue have met the day so far."""
        world = self._world
        rules = Counter(rule.words.fault[:1] for rule in world.exchange.given if rule.fired)
        hits = Counter(fault[:1] for fault in world.hits.elements())
        database = Counter(fault[:1] for fault in world.postgres.hits.elements())
        return sum((rules + hits + database)[group] for group in groups)


def _place(path: str) -> str:
    """A file's path, as it is called within the project."""
    for room in ("/module/", "/trading/", "/monitoring/", "/tests/"):
        _, found, rest = path.rpartition(room)
        if found:
            return f"{found[1:]}{rest}"
    return path
