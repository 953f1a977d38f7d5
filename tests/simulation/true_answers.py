"""When the exchange did not answer truly, and whom that concerned: what stops the judge's clock.

    Exchange.carry ─► spoiled(...)   a scripted fault changed what a request brings
    World.gateway_stood ─► stood     the gateway does not run (SIGSTOP)
    ProtectionWatch ─► withheld_ms(symbol, from, to)   so much of that time does not count

Only requests count without which no stop can be seen or placed, and only for the position that they
are about. What a fault does inside the exchange (somebody cancels a stop, a price jumps) stops no
clock: the exchange answers truly, it has to be asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from module.exchange.bitget_wire import BAN_S, CREDENTIALS_PAUSE
from module.simulator.faults.faults import (
    STOPS,
    FaultAnswer,
    FaultEdit,
    FaultRule,
    names,
)
from module.simulator.wire.wire_answer import Ending

if TYPE_CHECKING:
    from tests.simulation.exchange_side import Carried

NEEDED: Final = (
    "all-position",
    "orders-plan-pending",
    "cancel-plan-order",
    "place-order",
    "time",
    "assets",
    "current-plan-order",
    "place-plan-order",
    *STOPS.split(","),
)
"""The last parts of the paths by which stops are seen and placed, and positions closed."""
ON_THE_WAY_MS: Final = 64
PENALTY_MS: Final = 1_000
KEPT_MS: Final = 900_000
KEYS_REFUSED: Final = "A16"

Span = tuple[int, int, str]
"""From, to, and the symbol that it concerned; empty: all of them."""


@dataclass(slots=True)
class _Trouble:
    """A rule that has spoiled something, for as long as it would do it again."""

    rule: FaultRule
    first_ms: int
    last_ms: int

    def until_ms(self, now_ms: int) -> int:
        """Until when it would have; at most now."""
        words, rule = self.rule.words, self.rule
        if rule.is_over:
            return self.last_ms
        ends = [now_ms]
        if words.until_ms is not None:
            ends.append(words.until_ms)
        if words.span_s is not None and rule.started_ms is not None:
            ends.append(rule.started_ms + int(words.span_s * 1000))
        return max(self.last_ms, min(ends))


class TrueAnswers:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._troubles: list[_Trouble] = []
        self._refused: Span | None = None

    def spoiled(self, carried: Carried, rules: Iterable[FaultRule]) -> None:
        """These rules have just changed something while this request was served."""
        lying = [rule for rule in rules if _lies(rule)]
        if not lying:
            return
        reply, served_ms = carried.reply, carried.served_ms
        symbol = str(carried.params.get("symbol") or "")
        delay_ms = int(reply.delay_s * 1000)
        if reply.ending is Ending.SILENT or delay_ms >= carried.timeout_ms:
            delay_ms = carried.timeout_ms
        if names(",".join(NEEDED), carried.path):
            self._spans.append((carried.sent_ms, served_ms + delay_ms + ON_THE_WAY_MS, symbol))
        self._punished(carried)
        for rule in lying:
            if not any(names(rule.words.operation, path) for path in NEEDED):
                continue
            if rule.words.edit is FaultEdit.KEEP_STOPS:
                lag_ms = int(rule.words.lag_s * 1000)
                self._spans.append((served_ms, served_ms + lag_ms, symbol))
                continue
            known = next((each for each in self._troubles if each.rule is rule), None)
            if known is None:
                self._troubles.append(_Trouble(rule, served_ms, served_ms))
            else:
                known.last_ms = served_ms
        if any(rule.words.fault == KEYS_REFUSED for rule in lying):
            pause_ms = int(CREDENTIALS_PAUSE.total_seconds() * 1000)
            first_ms = carried.sent_ms if self._refused is None else self._refused[0]
            self._refused = (first_ms, served_ms + pause_ms, "")

    def _punished(self, carried: Carried) -> None:
        """After a 429 or a ban the address has to be silent for a while."""
        status, headers = carried.reply.answer.status, carried.reply.answer.headers
        if carried.reply.ending is not Ending.ANSWERED or status not in (403, 418, 429):
            return
        wait_ms = PENALTY_MS if status == 429 else int(BAN_S * 1000)
        for name, text in headers.items():
            if name.lower() == "retry-after" and text.isdigit():
                wait_ms = int(text) * 1000
        self._spans.append((carried.sent_ms, carried.served_ms + wait_ms + ON_THE_WAY_MS, ""))

    def answered(self, carried: Carried) -> None:
        """A request that no fault touched: keys that were refused are good again."""
        is_signed = not ("/public/" in carried.path or "/market/" in carried.path)
        if self._refused is not None and is_signed:
            self._spans.append((self._refused[0], carried.served_ms, ""))
            self._refused = None

    def withheld_ms(
        self, symbol: str, since_ms: int, now_ms: int, stood: Sequence[tuple[int, int]] = ()
    ) -> int:
        """Of the time from `since_ms` to `now_ms`: how much the exchange did not answer truly of
        this symbol, or (`stood`) nobody could ask it."""
        if not (self._spans or self._troubles or self._refused or stood):
            return 0
        spans: list[tuple[int, int]] = [*stood]
        spans += [(a, b) for a, b, about in self._spans if about in ("", symbol)]
        for trouble in self._troubles:
            if trouble.rule.words.symbol in ("", symbol):
                spans.append((trouble.first_ms, trouble.until_ms(now_ms)))
        if self._refused is not None:
            spans.append(self._refused[:2])
        return _covered(spans, since_ms, now_ms)

    def forget(self, now_ms: int) -> None:
        """What is long over is not looked at again."""
        horizon_ms = now_ms - KEPT_MS
        self._spans = [span for span in self._spans if span[1] > horizon_ms]
        self._troubles = [t for t in self._troubles if t.until_ms(now_ms) > horizon_ms]


def fired_rules(
    rules: Sequence[FaultRule], before: Sequence[tuple[FaultRule, int]]
) -> list[FaultRule]:
    """The rules that have changed something since `before`."""
    known = {id(rule): fired for rule, fired in before}
    return [rule for rule in rules if rule.fired != known.get(id(rule), 0)]


def _lies(rule: FaultRule) -> bool:
    """Whether what the client gets is not what is so."""
    words = rule.words
    return (
        words.answer is not FaultAnswer.HONEST
        or words.edit is not FaultEdit.NONE
        or words.delay_s > 0
        or bool(words.content_type)
    )


def _covered(spans: Iterable[tuple[int, int]], since_ms: int, now_ms: int) -> int:
    """The length of the union of `spans` within the window."""
    total, reached = 0, since_ms
    for start, end in sorted(spans):
        until = min(end, now_ms)
        if until > max(start, reached):
            total += until - max(start, reached)
            reached = until
    return total
