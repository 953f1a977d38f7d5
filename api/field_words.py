"""What is wrong with one field, in words for whoever sent it. Pure; `api/problems.py` uses it.

    pydantic's finding ─► field and message: what it must be, and what it was

What was sent is told back only where the caller says that the request cannot hold a secret, and
then only a number, a boolean, or a short text; never the content of something larger.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

SHOWN_LENGTH_MAX: Final = 32
PATH_LENGTH_MAX: Final = 80
MESSAGE_LENGTH_MAX: Final = 300
WHOLE_REQUEST: Final = "request"

LABEL: Final = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$"
USER_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
SYMBOL: Final = r"^[A-Z0-9]{2,32}$"
IDENTIFIER: Final = r"^[A-Za-z0-9-]{1,64}$"
_PATTERNS: Final = {
    LABEL: "must begin with a letter or digit, then up to 63 letters, digits, spaces, . _ or -",
    USER_NAME: "must begin with a letter or digit, then up to 63 letters, digits, . _ or -",
    SYMBOL: "must be a symbol in capital letters and digits, such as BTCUSDT",
    IDENTIFIER: "must be an id of letters, digits and -",
}
_WORDS: Final = {
    "missing": "must be given",
    "extra_forbidden": "there is no such field",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_from_float": "must be a whole number",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "dict_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "finite_number": "must be a finite number",
    "decimal_type": "must be a decimal number",
    "decimal_parsing": "must be a decimal number",
}
_SILENT: Final = frozenset({"missing", "extra_forbidden", "string_too_short", "too_short"})
_PLACES: Final = frozenset({"body", "query", "path", "header", "[key]"})
_UNSEEN: Final = (("header",), ("cookie",))
_OURS: Final = ("Value error, ", "Assertion failed, ")


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field."""

    field: str
    message: str


def field_error(item: ErrorDetails, *, shown: bool) -> FieldError:
    """The finding in plain words. `shown`: no secret is among what was sent, so that a number or a
    short text may be told back."""
    kind, context = item["type"], item.get("ctx") or {}
    message = _message(kind, context, item["msg"])
    path = _path(item["loc"])
    sent = item.get("input")
    unsaid = kind in _SILENT or message.startswith(_WORDS["missing"]) or path == WHOLE_REQUEST
    of_several = kind == "value_error" and isinstance(sent, dict)  # its words name them
    if shown and not unsaid and not of_several and item["loc"][:1] not in _UNSEEN:
        message += _was(sent)
    return FieldError(path[:PATH_LENGTH_MAX], message[:MESSAGE_LENGTH_MAX])


def spelled(error: FieldError) -> str:
    """The finding in one line; without a name where it is of the request as a whole."""
    return error.message if error.field == WHOLE_REQUEST else f"{error.field}: {error.message}"


def _path(location: tuple[int | str, ...]) -> str:
    """Where it stands. In a query one name may be given several times: which one is not counted."""
    parts = location[:2] if location[:1] == ("query",) else location
    return ".".join(str(part) for part in parts if part not in _PLACES) or WHOLE_REQUEST


def _message(kind: str, context: Mapping[str, object], said: str) -> str:
    if kind in _WORDS:
        return _WORDS[kind]
    if kind in _BOUNDS:
        return _BOUNDS[kind](context)
    if kind in ("enum", "literal_error"):
        return _choice(str(context.get("expected", "")))
    if kind == "string_pattern_mismatch" and context.get("pattern") in _PATTERNS:
        return _PATTERNS[str(context["pattern"])]
    for prefix in _OURS:
        said = said.removeprefix(prefix)
    return said.replace("Input should", "must", 1)


def _number(context: Mapping[str, object], name: str) -> str:
    """A bound; pydantic spells that of a decimal `Decimal('1E+12')`."""
    text = str(context.get(name)).removeprefix("Decimal('").removesuffix("')")
    try:
        return format(Decimal(text), "f")
    except InvalidOperation:
        return text


_BOUNDS: Final[dict[str, Callable[[Mapping[str, object]], str]]] = {
    "greater_than": lambda context: f"must be over {_number(context, 'gt')}",
    "greater_than_equal": lambda context: f"must be at least {_number(context, 'ge')}",
    "less_than": lambda context: f"must be under {_number(context, 'lt')}",
    "less_than_equal": lambda context: f"must be at most {_number(context, 'le')}",
    "string_too_long": lambda context: f"may have {context.get('max_length')} characters at most",
    "string_too_short": lambda context: "must not be empty",
    "too_long": lambda context: f"may have {context.get('max_length')} entries at most",
    "too_short": lambda context: "must not be empty",
}


def _choice(expected: str) -> str:
    """`<Env.DEMO: 'demo'> or <Env.LIVE: 'live'>`, `'a', 'b' or 'c'`: the values alone."""
    values = re.findall(r"'([^']*)'", expected) or [expected]
    return f"must be {values[0]}" if len(values) == 1 else f"must be one of {', '.join(values)}"


def _was(sent: object) -> str:
    """How what was sent is told back."""
    if sent is None:
        return ", got null"
    if isinstance(sent, bool):
        return f", got {str(sent).lower()}"
    if isinstance(sent, int | float | Decimal):
        text = str(sent)
        return f", got {text}" if len(text) <= SHOWN_LENGTH_MAX else ", got a very long number"
    if isinstance(sent, str):
        if len(sent) <= SHOWN_LENGTH_MAX:
            return f", got {json.dumps(sent, ensure_ascii=False)}"
        return f", got a text of {len(sent)} characters"
    if isinstance(sent, list):
        return f", got a list of {len(sent)}"
    return ", got an object" if isinstance(sent, dict) else ""
