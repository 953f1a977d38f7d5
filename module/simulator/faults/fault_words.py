"""Faults to and from JSON words: what the control door takes, the journal keeps, and tests read.

Unknown and wrong words are errors that name them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

from module.model.errors import InvalidInput
from module.simulator.faults.faults import (
    UNLIMITED,
    FaultAnswer,
    FaultChange,
    FaultEdit,
    FaultEffect,
    FaultMoment,
    FaultRule,
    FaultWords,
)
from module.simulator.wire.bitget_params import Params

E = TypeVar("E", bound=StrEnum)
DELAY_S_MAX = 600
_RELATIVE = ("from_s", "until_s", "at_s")
"""World seconds from the moment when the rule is given; kept as `from_ms` and so on."""
_KNOWN = frozenset((*(each.name for each in fields(FaultWords)), *_RELATIVE, "nth"))
_DEFAULTS = FaultWords()
_CHOICES = {
    "side": ("", "buy", "sell", "with", "against"),
    "prices": ("all", "last", "mark"),
    "rule": ("tick", "lot", "minimum"),
    "wallet": ("futures", "spot"),
}


def parse_words(values: Mapping[str, object], now_ms: int) -> FaultWords:
    """A fault from its JSON words; `nth` (1-based) may stand for `skip`, `at_s` for `at_ms`.

    InvalidInput (or WireError, for a malformed value) names what is wrong.
    """
    unknown = sorted(set(values) - _KNOWN)
    if unknown:
        raise InvalidInput(f"unknown words of a fault: {unknown}; known are {sorted(_KNOWN)}")
    words = Params({name: _exact(value) for name, value in values.items()})
    answer = _choice(words, "answer", FaultAnswer, _DEFAULTS.answer)
    change = _choice(words, "change", FaultChange, _DEFAULTS.change)
    edit = _choice(words, "edit", FaultEdit, _DEFAULTS.edit)
    effect = _choice(words, "effect", FaultEffect, _DEFAULTS.effect)
    span_s = words.positive("span_s")
    lasting = span_s is not None or "lag_s" in values or edit is FaultEdit.SKEW
    found = FaultWords(
        fault=_text(words, "fault"),
        operation=_text(words, "operation"),
        starts_on=_text(words, "starts_on"),
        moment=_choice(words, "moment", FaultMoment, _DEFAULTS.moment),
        skip=max(0, words.integer("nth", 1) - 1) if "nth" in values else words.integer("skip", 0),
        count=words.integer("count", UNLIMITED if lasting else 1),
        account_id=_text(words, "account_id"),
        symbol=_text(words, "symbol").upper(),
        from_ms=_moment(words, "from", now_ms),
        until_ms=_moment(words, "until", now_ms),
        at_ms=_moment(words, "at", now_ms),
        span_s=span_s,
        signed_only=_flag(values, "signed_only"),
        needs_success=_flag(values, "needs_success"),
        answer=answer,
        delay_s=_delay(words),
        status=words.integer("status", _DEFAULTS.status, most=999),
        code=_text(words, "code"),
        message=_text(words, "message"),
        body=_text(words, "body"),
        content_type=_text(words, "content_type"),
        retry_after_s=words.optional_ms("retry_after_s"),
        change=change,
        edit=edit,
        effect=effect,
        hold_s=_number(words, "hold_s"),
        lag_s=_number(words, "lag_s"),
        skew_s=_number(words, "skew_s"),
        halt_s=_number(words, "halt_s"),
        factor=_number(words, "factor"),
        share=_number(words, "share"),
        amount=_number(words, "amount"),
        rate=_number(words, "rate"),
        leg=words.integer("leg", _DEFAULTS.leg),
        side=_text(words, "side"),
        prices=_text(words, "prices"),
        rule=_text(words, "rule"),
        wallet=_text(words, "wallet"),
        coin=_text(words, "coin").upper(),
        client_id=_text(words, "client_id"),
        shown_status=_text(words, "shown_status"),
    )
    _check(found)
    return found


def words_json(words: FaultWords) -> dict[str, object]:
    """The words that differ from their defaults; `parse_words` reads them again."""
    shown: dict[str, object] = {}
    for each in fields(FaultWords):
        value = getattr(words, each.name)
        if value != getattr(_DEFAULTS, each.name):
            shown[each.name] = _plain(value)
    shown["count"] = words.count
    return shown


def rule_json(rule: FaultRule) -> dict[str, object]:
    """A rule as the control door shows it: id, words, how often seen, how often it changed
    something."""
    words = rule.words
    return {
        **words_json(words),
        "fault": words.fault,
        "operation": words.operation,
        "answer": words.answer.value,
        "moment": words.moment.value,
        "skip": words.skip,
        "account_id": words.account_id,
        "symbol": words.symbol,
        "started_ms": rule.started_ms,
        "seen": rule.seen,
        "fired": rule.fired,
    }


def _check(words: FaultWords) -> None:
    """What no single word shows: a fault must act somewhere, on something, some way."""
    if not words.operation and words.at_ms is None and not _needs_no_place(words):
        raise InvalidInput("a fault needs its operation (place-order, @submit, *) or at_s")
    if words.at_ms is not None and (words.operation or words.effect is FaultEffect.NONE):
        raise InvalidInput("at_s is for an effect without an operation")
    if words.at_ms is not None and words.effect is FaultEffect.REFUSE_TRIGGER:
        raise InvalidInput("refuse_trigger waits for a stop to fire: give from_s, not at_s")
    does = words.change or words.edit or words.effect or words.delay_s or words.content_type
    if words.answer is FaultAnswer.HONEST and not does:
        raise InvalidInput("a fault needs an answer, a delay_s, a change, an edit or an effect")
    if words.edit and (words.effect or words.change or words.answer is not FaultAnswer.HONEST):
        raise InvalidInput("an edit of true data stands alone: no answer, change or effect with it")
    if not 0 <= words.share <= 1:
        raise InvalidInput(f"share is 0 to 1, not {words.share}")
    if words.factor <= 0:
        raise InvalidInput(f"factor is above 0, not {words.factor}")
    for name, allowed in _CHOICES.items():
        if getattr(words, name) not in allowed:
            raise InvalidInput(f"{name} is one of {allowed}, not {getattr(words, name)!r}")


def _needs_no_place(words: FaultWords) -> bool:
    return words.edit is FaultEdit.SKEW or words.effect is FaultEffect.REFUSE_TRIGGER


def _exact(value: object) -> object:
    return Decimal(repr(value)) if isinstance(value, float) else value


def _text(words: Params, name: str) -> str:
    found = words.text(name)
    default = getattr(_DEFAULTS, name)
    return str(default) if found is None else found


def _number(words: Params, name: str) -> Decimal:
    found = words.decimal(name)
    default = getattr(_DEFAULTS, name)
    return Decimal(default) if found is None else found


def _choice(words: Params, name: str, kind: type[E], default: E) -> E:
    found = words.text(name)
    if found is None:
        return default
    try:
        return kind(found.lower())
    except ValueError as error:
        known = sorted(each.value for each in kind if each.value)
        raise InvalidInput(f"{name} is one of {known}, not {found!r}") from error


def _flag(values: Mapping[str, object], name: str) -> bool:
    value = values.get(name, False)
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} is true or false, not {value!r}")
    return value


def _delay(words: Params) -> Decimal:
    delay_s = words.decimal("delay_s") or Decimal(0)
    if not 0 <= delay_s <= DELAY_S_MAX:
        raise InvalidInput(f"delay_s is 0 to {DELAY_S_MAX}, not {delay_s}")
    return delay_s


def _moment(words: Params, name: str, now_ms: int) -> int | None:
    seconds = words.decimal(f"{name}_s")
    if seconds is None:
        return words.optional_ms(f"{name}_ms")
    if seconds < 0:
        raise InvalidInput(f"{name}_s counts from now on, {seconds} is in the past")
    return now_ms + int(seconds * 1000)


def _plain(value: object) -> object:
    if isinstance(value, StrEnum):
        return value.value
    return str(value) if isinstance(value, Decimal) else value
