"""Sudden death at a chosen moment: the n-th point that a run reaches raises `Crash`.

A sweep runs the same thing with n = 1, 2, 3 … until a run reaches no n-th point any more, so that
every point between two effects has been the last one once.
"""

from __future__ import annotations

from dataclasses import dataclass, field


class Crash(BaseException):
    """The process is gone. A BaseException, so that nothing on the way catches it."""


@dataclass(slots=True)
class CrashPlan:
    """Dies at the `die_at`-th point (0: never); `reached` names the points so far."""

    die_at: int = 0
    reached: list[str] = field(default_factory=list)

    def reach(self, name: str) -> None:
        """The run is at this point now."""
        self.reached.append(name)
        if len(self.reached) == self.die_at:
            raise Crash(f"{self.die_at}: {name}")

    def die_next(self) -> None:
        """It dies at the next point."""
        self.die_at = len(self.reached) + 1

    def forgive(self) -> None:
        """A new process: it does not die again."""
        self.die_at = 0
