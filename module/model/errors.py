"""The error tree: an error says first whether to try again, to give up, or to halt.

AifapError
├── Retryable              nothing happened, or asking again is harmless: back off, bounded
│   ├── RateLimited        wait `retry_after_s` first
│   ├── Unavailable        the other side is down, in maintenance, or does not answer a read
│   └── NotYet             the thing asked for will exist soon (a bar that has not closed)
├── Rejected               final: the same request will be refused again
│   ├── InvalidInput       the caller's words are wrong
│   ├── NotFound           there is no such thing (or it is somebody else's)
│   ├── Forbidden          credentials or permissions refuse it
│   ├── Conflict           it clashes with what is there (second session, busy account)
│   ├── StaleWriter        a newer epoch owns it: another process took over
│   ├── TooLate            `not_after` passed before it could be sent: nothing was sent
│   └── LimitExceeded      the last gate refused it
├── OutcomeUnknown         a write whose answer was lost: it may have happened
└── InvariantViolated      our bug: halt and alert
"""

from __future__ import annotations


class AifapError(Exception):
    """Root of all errors that AIFAP raises on purpose; `code` is stable, the text is for people."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code

    @property
    def message(self) -> str:
        """What happened, with which values, and what happens next."""
        return str(self.args[0])


class Retryable(AifapError):
    """Nothing happened, or asking again is harmless; `retry_after_s` is in world seconds."""

    code = "retryable"

    def __init__(
        self, message: str, *, code: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class RateLimited(Retryable):
    """The budget is used up; `retry_after_s` says when there is room again."""

    code = "rate-limited"


class Unavailable(Retryable):
    """The other side is down, in maintenance, or did not answer a read."""

    code = "unavailable"


class NotYet(Retryable):
    """What was asked for will exist soon."""

    code = "not-yet"


class Rejected(AifapError):
    """Final: the same request would be refused again."""

    code = "rejected"


class InvalidInput(Rejected):
    """The caller's words are wrong; the message names the field and the value."""

    code = "invalid-input"


class NotFound(Rejected):
    """There is no such thing, or it is not the caller's to see."""

    code = "not-found"


class Unauthenticated(Rejected):
    """The caller did not say who they are, or the proof is not valid."""

    code = "unauthenticated"


class Forbidden(Rejected):
    """Credentials or permissions refuse it."""

    code = "forbidden"


class Conflict(Rejected):
    """It clashes with what is there."""

    code = "conflict"


class StaleWriter(Rejected):
    """A newer epoch owns the account or the letter: whoever hears it stops writing."""

    code = "stale-writer"


class TooLate(Rejected):
    """The write came after its `not_after`, and certainly nothing was sent.

    Who owns the account has not changed: its writer may write again, with a new `not_after`.
    """

    code = "too-late"


class LimitExceeded(Rejected):
    """The last gate before the exchange refused the order."""

    code = "limit-exceeded"


class StrategyFailed(Rejected):
    """The user's function raised, hung, or returned something that is not a set of weights."""

    code = "strategy-failed"


class OutcomeUnknown(AifapError):
    """A write was sent and its answer was lost: it may have happened. Ask the exchange by id."""

    code = "outcome-unknown"


# What a repeatable call may meet and simply be repeated after: it did not work now, or it did and
# nobody heard.
PASSING = (Retryable, OutcomeUnknown)


class InvariantViolated(AifapError):
    """Something that cannot be is: our bug. Halt, leave the account protected, alert."""

    code = "invariant-violated"


def require(condition: bool, message: str) -> None:
    """Raise `InvariantViolated` with `message` unless `condition` holds (stays on under -O)."""
    if not condition:
        raise InvariantViolated(message)
