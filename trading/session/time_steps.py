"""What a leader makes of a machine's clock that is set back or forward (C7).

    boundary to wait for   ─► Boundaries.next_after   what was traded is never traded again
    each look at the clock ─► was_set_back            the wait ends; the boundary is chosen anew
    a plan's first sight   ─► FirstSight.age_s        its age by real time, whatever the clock says

World time decides what a cycle is; real time only says that a plan is at least so old.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from module.model.sessions import boundary_at_or_after
from module.ports import Clock
from trading.rebalance.order_info import CycleStage, OrderInfo

STEP_MIN = timedelta(seconds=2)
"""Less is no step: clocks are slewed, and readings come in any order."""
KNOWN_MAX = 20_000
"""So many traded cycles are remembered: two weeks of minutes."""
_MOMENT = timedelta(milliseconds=1)


def was_set_back(before: datetime, now: datetime) -> bool:
    """Whether a clock that said `before` and now says `now` was set back in between."""
    return before - now > STEP_MIN


@dataclass(frozen=True, slots=True)
class NextBoundary:
    """The next cycle's boundary. `passed_over`: boundaries before it that were traded already,
    while the clock was ahead; each is named once."""

    boundary: datetime
    passed_over: tuple[datetime, ...] = ()


class Boundaries:
    """Which boundary comes next. One leader's."""

    def __init__(self, interval: timedelta) -> None:
        self._interval = interval
        self._traded: dict[datetime, None] = {}
        self._told: set[datetime] = set()
        self._last: datetime | None = None

    def recall(self, letters: Iterable[OrderInfo]) -> None:
        """Ended cycles of leaders before this one."""
        for info in letters:
            self.note(info)

    def note(self, info: OrderInfo) -> None:
        """A cycle is over. One of which nothing can have left may be traded at its own time."""
        self._last = info.cycle
        if info.stage is not CycleStage.DONE and not info.has_sent:
            return
        self._traded[info.cycle] = None
        while len(self._traded) > KNOWN_MAX:
            del self._traded[next(iter(self._traded))]

    def next_after(self, now: datetime) -> NextBoundary:
        """The first boundary after `now` that was not traded yet."""
        boundary = boundary_at_or_after(now + _MOMENT, self._interval)
        passed: list[datetime] = []
        while boundary in self._traded or self._is_just_over(boundary, now):
            if boundary - now > STEP_MIN and boundary not in self._told:
                self._told.add(boundary)
                passed.append(boundary)
            boundary += self._interval
        return NextBoundary(boundary, tuple(passed))

    def _is_just_over(self, boundary: datetime, now: datetime) -> bool:
        """Its cycle is over although it has not come by the clock: a slewed clock, no step."""
        return boundary == self._last and boundary - now <= STEP_MIN


def told_already_traded(passed: datetime, following: datetime) -> str:
    """Why the cycle of `passed` is not traded, for its owner; `following` is the next boundary."""
    return (
        f"already-traded: the cycle of {passed:%Y-%m-%d %H:%M} UTC was traded while this machine's "
        "clock was ahead; nothing is traded twice. The next cycle is that of "
        f"{following:%Y-%m-%d %H:%M} UTC"
    )


def told_missed(boundary: datetime, now: datetime) -> str:
    """Why the cycle of `boundary`, whose time is long over, is not traded."""
    return (
        f"missed: {boundary:%H:%M} UTC was {(now - boundary).total_seconds():.0f} s ago when "
        "noticed: this process stood still, or the machine's clock was set forward"
    )


class FirstSight:
    """How old the plan of a letter is at least, by what this process has seen of it itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._plan: tuple[datetime, str] | None = None
        self._seen_s = 0.0
        self._age_then_s = 0.0

    def note(self, info: OrderInfo) -> None:
        """A letter is at hand; the first one of its plan counts."""
        if info.basis is None or self._plan == _plan_of(info):
            return
        age = self._clock.now() - info.basis.at
        self._plan, self._seen_s = _plan_of(info), self._clock.monotonic()
        self._age_then_s = max(0.0, age.total_seconds())

    def age_s(self, info: OrderInfo) -> float:
        """Seconds: how old the plan was by the clock when it was noted, and the real time since;
        0 for a plan that was not."""
        if self._plan is None or self._plan != _plan_of(info):
            return 0.0
        return self._age_then_s + self._clock.monotonic() - self._seen_s


def _plan_of(info: OrderInfo) -> tuple[datetime, str]:
    return info.cycle if info.basis is None else info.basis.at, info.plan_digest
