"""How answers are spelled: money as decimal strings, times as ISO 8601 `Z`, ratios as numbers.

The one translation from our shapes to what people's programs read; a ratio that does not exist is
null, never NaN.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum

from fastapi import Response

from module.model.canonical import instant_text
from module.model.errors import InvariantViolated
from module.model.money import plain


def spelled(value: object) -> object:
    """`value` as plain JSON: dataclasses become objects, field by field."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, Enum):
        return spelled(value.value)
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return instant_text(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: spelled(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): spelled(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [spelled(item) for item in value]
    raise InvariantViolated(f"{type(value).__name__} has no spelling in an answer")


def spelled_object(value: object) -> dict[str, object]:
    """`spelled` of something that becomes an object."""
    document = spelled(value)
    if not isinstance(document, dict):
        raise InvariantViolated(f"{type(value).__name__} is no object")
    return document


def json_text(value: object) -> str:
    """The answer's text, without line breaks."""
    return json.dumps(spelled(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def answer(value: object, status: int = 200) -> Response:
    """`value` as a JSON answer."""
    return Response(json_text(value), status_code=status, media_type="application/json")
