"""Misbehaviour on demand: scripted faults of the wire, by operation and n-th call.

A rule says when it acts (`before` the engine sees the request, or `after` the engine has done it)
and what the client gets instead of the honest answer. A fault is counted when it really changed
something: that number is what tests assert on, so that a fault which never happened fails a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from module.model.errors import InvalidInput


class FaultMoment(StrEnum):
    """Before the engine sees the request, or after it has done it."""

    BEFORE = "before"
    AFTER = "after"


class FaultAnswer(StrEnum):
    """What the client gets."""

    HONEST = "honest"
    """The true answer (late, with `delay_s`)."""
    DROP = "drop"
    """The connection is reset without a byte."""
    HANG = "hang"
    """Nothing, until the client gives up."""
    STATUS = "status"
    """HTTP `status` with a body that is not the exchange's."""
    CODE = "code"
    """The exchange's envelope with business code `code`."""
    TRUNCATE = "truncate"
    """HTTP 200 with the first half of the true body."""
    BODY = "body"
    """HTTP 200 with the text `body`."""


@dataclass(slots=True, eq=False)
class FaultRule:
    """One scripted fault. `skip` matching calls pass first, then `count` are changed.

    `operation` is the last part of the path (place-order), the whole path, or `*`. Empty filters
    match everything. `until_ms` ends the rule in world time. `delay_s` is real time.
    """

    operation: str
    answer: FaultAnswer
    moment: FaultMoment = FaultMoment.AFTER
    skip: int = 0
    count: int = 1
    account_id: str = ""
    symbol: str = ""
    until_ms: int | None = None
    delay_s: float = 0.0
    status: int = 502
    code: str = "40725"
    message: str = "service return an error"
    body: str = ""
    retry_after_s: int | None = None
    seen: int = 0
    fired: int = 0

    def matches(self, path: str, account_id: str, symbol: str, now_ms: int) -> bool:
        """Whether it looks at this request at all."""
        return (
            self.operation in ("*", path, path.rsplit("/", 1)[-1])
            and self.account_id in ("", account_id)
            and self.symbol in ("", symbol)
            and (self.until_ms is None or now_ms <= self.until_ms)
        )


@dataclass(slots=True)
class FaultPlan:
    """All rules, in the order in which they were given; the first that is due acts."""

    rules: list[FaultRule] = field(default_factory=list)

    def add(self, words: Mapping[str, object]) -> FaultRule:
        """A rule from its JSON words; InvalidInput names what is wrong."""
        rule = parse_rule(words)
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """No more faults."""
        self.rules.clear()

    def due(self, path: str, account_id: str, symbol: str, now_ms: int) -> FaultRule | None:
        """The rule that changes this request; every matching rule counts it as seen."""
        chosen: FaultRule | None = None
        for rule in self.rules:
            if not rule.matches(path, account_id, symbol, now_ms):
                continue
            rule.seen += 1
            if chosen is None and rule.seen > rule.skip and rule.fired < rule.count:
                chosen = rule
        return chosen


_TEXTS = ("operation", "account_id", "symbol", "code", "message", "body")
_NUMBERS = ("skip", "count", "until_ms", "status", "retry_after_s")


def parse_rule(words: Mapping[str, object]) -> FaultRule:
    """A rule from its JSON words; `nth` (1-based) may be given instead of `skip`."""
    known = {*_TEXTS, *_NUMBERS, "answer", "moment", "nth", "delay_s"}
    unknown = sorted(set(words) - known)
    if unknown:
        raise InvalidInput(f"unknown words of a fault: {unknown}; known are {sorted(known)}")
    texts = {name: str(words[name]) for name in _TEXTS if name in words}
    operation = texts.pop("operation", "")
    if not operation:
        raise InvalidInput("a fault needs its operation, for example place-order or *")
    numbers = {name: _whole(words[name], name) for name in _NUMBERS if name in words}
    if "nth" in words:
        numbers["skip"] = max(0, _whole(words["nth"], "nth") - 1)
    try:
        answer = FaultAnswer(str(words.get("answer", "")))
        moment = FaultMoment(str(words.get("moment", "after")))
        delay_s = float(str(words.get("delay_s", 0)))
    except ValueError as error:
        raise InvalidInput(f"a fault's answer, moment or delay_s is wrong: {error}") from error
    if not 0 <= delay_s <= 600:
        raise InvalidInput(f"delay_s is 0 to 600, not {delay_s}")
    rule = FaultRule(operation=operation, answer=answer, moment=moment, delay_s=delay_s)
    for name, text in texts.items():
        setattr(rule, name, text)
    for name, number in numbers.items():
        setattr(rule, name, number)
    return rule


def rule_json(rule: FaultRule) -> dict[str, object]:
    """A rule as the control API shows it."""
    return {
        "operation": rule.operation,
        "answer": rule.answer.value,
        "moment": rule.moment.value,
        "skip": rule.skip,
        "count": rule.count,
        "account_id": rule.account_id,
        "symbol": rule.symbol,
        "seen": rule.seen,
        "fired": rule.fired,
    }


def _whole(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"{name} must be a whole number of 0 or more, not {value!r}")
    return value
