"""Canonical JSON: one spelling for one value, so that a digest means something.

Keys sorted, no white space, Decimals as plain strings, times as ISO 8601 UTC with `Z`. Floats are
refused: a float in something that is hashed is a bug.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum

from module.model.errors import InvariantViolated
from module.model.money import plain


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
    return json.dumps(
        to_plain_json(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )


def digest(value: object) -> str:
    """SHA-256 of the canonical spelling, 64 hex characters."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
