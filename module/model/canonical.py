"""Canonical JSON: one spelling for one value, so that a digest means something.

Keys sorted, no white space, Decimals as plain strings, times as ISO 8601 UTC with `Z`. Floats are
refused: a float in something that is hashed is a bug.

A letter is spelled with every revision, and little of it changes: what stays is a `Spelled`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import NoReturn, TypeVar

from module.model.errors import InvariantViolated
from module.model.money import plain

Item = TypeVar("Item")


def instant_text(when: datetime) -> str:
    """Spell an aware time as ISO 8601 UTC with `Z`, milliseconds only where there are any."""
    if when.tzinfo is None:
        raise InvariantViolated(f"naive time {when!r} must not leave a function")
    utc = when.astimezone(UTC)
    style = "milliseconds" if utc.microsecond else "seconds"
    return utc.replace(tzinfo=None).isoformat(timespec=style) + "Z"


def parse_instant(text: str) -> datetime:
    """Read what `instant_text` wrote (any ISO 8601 with an offset); the result is aware UTC."""
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise InvariantViolated(f"time without offset: {text!r}")
    return when.astimezone(UTC)


def to_plain_json(value: object) -> object:
    """Translate Decimals, times, enums, tuples and mappings into what JSON knows; floats raise."""
    kind = type(value)
    if kind is str or value is None or kind is int or kind is bool:  # most of what comes here
        return value
    if kind is dict:
        return {
            str(key): item if type(item) is str else to_plain_json(item)
            for key, item in value.items()  # type: ignore[attr-defined]
        }
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, Enum):
        return to_plain_json(value.value)
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, Mapping):
        return {str(key): to_plain_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [to_plain_json(item) for item in items]
    raise InvariantViolated(f"{type(value).__name__} has no canonical spelling: {value!r}"[:200])


def canonical_json(value: object) -> str:
    """The one spelling of `value`."""
    if type(value) is Spelled:
        return value.text
    return _SPELL(to_plain_json(value))


class Spelled(dict[str, Item]):
    """An object of plain JSON values that is never changed: it is spelled once, and that spelling
    becomes part of the spelling of every `Spelled` that holds it (itself, or in a list).

    A copy of it (`dict(…)`, `copy.deepcopy`) is a plain dict again.
    """

    __slots__ = ("_text",)
    _text: str

    @classmethod
    def read(cls, text: str) -> Spelled[object] | None:
        """The object that `canonical_json` spelled as `text`, and its own objects, with their
        spelling; None for anything that does not look so."""
        found: dict[str, object] = {}
        at = 1
        if not text.startswith('{"'):
            return None
        while text[at - 1 : at + 1] in ('{"', ',"'):
            try:
                key, colon = _READ(text, at)
                value, end = _READ(text, colon + 1)
            except ValueError:
                return None
            if type(value) is dict:
                value = Spelled(value)
                value._text = text[colon + 1 : end]
            if text[colon] != ":" or key in found:
                return None
            found[key] = value
            at = end + 1
        if text[at - 1 :] != "}" or list(found) != sorted(found):
            return None
        whole = Spelled(found)
        whole._text = text
        return whole

    @property
    def text(self) -> str:
        """The one spelling of it."""
        try:
            return self._text
        except AttributeError:
            parts = [f"{_SPELL(key)}:{_text_of(self[key])}" for key in sorted(self)]
            self._text = "{" + ",".join(parts) + "}"
            return self._text

    def __reduce__(self) -> tuple[type[dict[str, Item]], tuple[dict[str, Item]]]:
        return dict, (dict(self),)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a spelled document is never changed; change a copy")

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = pop = popitem = setdefault = clear = _refuse


_READ = json.JSONDecoder().raw_decode
_SPELL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
"""One encoder for all: `json.dumps` with such wishes makes a new one each time."""


def _text_of(value: object) -> str:
    if type(value) is str:
        return _SPELL(value)
    if type(value) is list and value and type(value[0]) is Spelled:
        return "[" + ",".join(map(_text_of, value)) + "]"
    return canonical_json(value)


def digest(value: object) -> str:
    """SHA-256 of the canonical spelling, 64 hex characters."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
