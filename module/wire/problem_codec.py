"""Our errors over HTTP, both ways: one table of code ↔ class ↔ status (Problem+JSON, RFC 9457).

Clients of our own services may not import `api`; `api/problems.py` uses this table as well, so an
error is the same class on both ends of the wire.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from module.model.errors import (
    AifapError,
    Conflict,
    Forbidden,
    InvalidInput,
    InvariantViolated,
    LimitExceeded,
    NotFound,
    NotYet,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    Retryable,
    StaleWriter,
    StrategyFailed,
    TooLate,
    Unauthenticated,
    Unavailable,
)

PROBLEM_CONTENT_TYPE = "application/problem+json"

STATUS_BY_CLASS: dict[type[AifapError], int] = {
    InvalidInput: 422,
    LimitExceeded: 422,
    StrategyFailed: 422,
    NotFound: 404,
    Unauthenticated: 401,
    Forbidden: 403,
    Conflict: 409,
    StaleWriter: 409,
    TooLate: 409,
    RateLimited: 429,
    Unavailable: 503,
    NotYet: 425,
    OutcomeUnknown: 502,
    Rejected: 400,
    InvariantViolated: 500,
}
CLASS_BY_CODE: dict[str, type[AifapError]] = {kind.code: kind for kind in STATUS_BY_CLASS}
_CLASS_BY_STATUS: dict[int, type[AifapError]] = {
    422: InvalidInput,
    404: NotFound,
    401: Unauthenticated,
    403: Forbidden,
    409: Conflict,
    429: RateLimited,
    503: Unavailable,
    425: NotYet,
    502: Unavailable,
    504: Unavailable,
    400: Rejected,
}


def class_of(error: AifapError) -> type[AifapError]:
    """The row of the table that `error` belongs to: its own class or the nearest ancestor."""
    for kind in type(error).__mro__:
        if kind in STATUS_BY_CLASS:
            return kind
    if isinstance(error, Retryable):
        return Unavailable
    return InvariantViolated


def status_of(error: AifapError) -> int:
    """The HTTP status that `error` travels with."""
    return STATUS_BY_CLASS[class_of(error)]


def problem_body(error: AifapError) -> dict[str, object]:
    """The Problem+JSON document of `error`.

    `code` is the class's stable code; a code of the error's own (a venue's, say) goes along as
    `reason`.
    """
    kind = class_of(error)
    body: dict[str, object] = {
        "type": "about:blank",
        "title": kind.code.replace("-", " "),
        "status": STATUS_BY_CLASS[kind],
        "detail": error.message,
        "code": kind.code,
    }
    if error.code != kind.code:
        body["reason"] = error.code
    if isinstance(error, Retryable) and error.retry_after_s is not None:
        body["retry_after_s"] = error.retry_after_s
    return body


def error_from_problem(status: int, body: bytes | str | Mapping[str, object]) -> AifapError:
    """The error that a problem document spells; from the status alone where there is none.

    Never raises: what cannot be read becomes Unavailable for a status of 5xx and Rejected else.
    """
    document = _read_document(body)
    code = document.get("code")
    detail = document.get("detail")
    message = detail if isinstance(detail, str) and detail else f"the answer was HTTP {status}"
    fallback: type[AifapError] = Unavailable if status >= 500 else Rejected
    if isinstance(code, str) and code in CLASS_BY_CODE:
        kind = CLASS_BY_CODE[code]
    else:
        kind = _CLASS_BY_STATUS.get(status, fallback)
    reason = document.get("reason")
    own_code = reason if isinstance(reason, str) and reason else None
    if issubclass(kind, Retryable):
        after = document.get("retry_after_s")
        seconds = float(after) if isinstance(after, (int, float)) and 0 <= after < 86_400 else None
        return kind(message, code=own_code, retry_after_s=seconds)
    return kind(message, code=own_code)


def names_an_error(body: bytes | str | Mapping[str, object]) -> bool:
    """Whether `body` is a problem document of ours, with a code of the table."""
    return _read_document(body).get("code") in CLASS_BY_CODE


def _read_document(body: bytes | str | Mapping[str, object]) -> Mapping[str, object]:
    if isinstance(body, Mapping):
        return body
    try:
        loaded = json.loads(body)
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}
