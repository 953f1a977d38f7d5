"""One table: our error → HTTP status and Problem+JSON. Every error answer of the API is made here.

The table itself (code ↔ class ↔ status) is `module.wire.problem_codec`, which clients share.
A validation error names fields, and never repeats what was sent where that may hold a secret; an
unexpected error says nothing of the inside.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from api.field_words import FieldError, field_error, spelled
from module.model.errors import AifapError, InvalidInput, InvariantViolated, Retryable
from module.wire.problem_codec import PROBLEM_CONTENT_TYPE, problem_body

if TYPE_CHECKING:
    from fastapi import FastAPI

RETRY_AFTER_DEFAULT_S = 1.0
FIELD_ERRORS_MAX = 50
_log = logging.getLogger(__name__)
PATH_SHOWN_MAX = 100
_TITLES = {
    400: "bad request",
    404: "not found",
    405: "method not allowed",
    408: "too slow",
    413: "too large",
    415: "unsupported media type",
    421: "misdirected",
}


class InvalidFields(InvalidInput):
    """Fields of a request are wrong; `errors` names each."""

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = tuple(errors)[:FIELD_ERRORS_MAX]
        super().__init__(f"the request is not valid: {'; '.join(map(spelled, self.errors))}")


class Problem(JSONResponse):
    """An answer that is a problem document."""

    media_type = PROBLEM_CONTENT_TYPE


def install_problems(app: FastAPI) -> None:
    """Make every error of `app` a problem document."""
    app.add_exception_handler(AifapError, _on_our_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_unexpected)


def problem(error: AifapError) -> Problem:
    """The answer that `error` travels as."""
    body = problem_body(error)
    if isinstance(error, InvalidFields):
        body["errors"] = [{"field": e.field, "message": e.message} for e in error.errors]
    headers: dict[str, str] = {}
    status = body["status"]
    if isinstance(error, Retryable) or status in (429, 503):
        wait_s = getattr(error, "retry_after_s", None) or RETRY_AFTER_DEFAULT_S
        headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Problem(body, status_code=int(str(status)), headers=headers)


def plain_problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Problem:
    """A problem that has no class of ours: what HTTP itself refuses (404, 405, 413 …)."""
    title = _TITLES.get(status, "refused")
    body = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "code": title.replace(" ", "-"),
    }
    return Problem(body, status_code=status, headers=dict(headers or {}))


def invalid_fields(
    error: ValidationError | RequestValidationError, *, shown: bool = False
) -> InvalidFields:
    """Pydantic's findings as ours: the path of each field and what it should be.

    `shown`: also what it was; only for requests that hold no secret.
    """
    return InvalidFields(field_error(item, shown=shown) for item in error.errors())


async def _on_our_error(_request: Request, error: Exception) -> Problem:
    if not isinstance(error, AifapError):  # registered for AifapError alone
        return await _on_unexpected(_request, error)
    if isinstance(error, InvariantViolated):
        _log.error("invariant violated: %s", error.message, exc_info=error)
        if error.code != InvariantViolated.code:  # said on purpose, to whom it concerns
            return problem(error)
        return problem(InvariantViolated("something that cannot be has happened; it was logged"))
    return problem(error)


async def _on_invalid_request(_request: Request, error: Exception) -> Problem:
    if not isinstance(error, RequestValidationError):
        return await _on_unexpected(_request, error)
    return problem(invalid_fields(error, shown=True))  # paths and queries: no secret goes there


async def _on_http_error(request: Request, error: Exception) -> Problem:
    if not isinstance(error, HTTPException):
        return await _on_unexpected(request, error)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
    return plain_problem(error.status_code, _http_words(request, error), headers)


def _http_words(request: Request, error: HTTPException) -> str:
    """What HTTP itself refuses, with the address that was asked for."""
    path = request.url.path
    where = path if len(path) <= PATH_SHOWN_MAX else f"{path[:PATH_SHOWN_MAX]}…"
    if error.status_code == 404:
        slash = "; leave out the slash at its end" if len(path) > 1 and path.endswith("/") else ""
        return f"there is nothing at {where}{slash}"
    if error.status_code == 405:
        return f"{where} does not take {request.method}; it takes {', '.join(_methods(request))}"
    return str(error.detail)


def _methods(request: Request) -> list[str]:
    """What the address takes: several routes may share it."""
    found: set[str] = set()
    for context in iter_route_contexts(request.app.routes):
        if context.path_regex.match(request.url.path):
            found |= set(context.methods or ())
    return sorted(found)


async def _on_unexpected(_request: Request, _error: Exception) -> Problem:
    """The server logs the error itself (it is raised on after this answer)."""
    return problem(InvariantViolated("an unexpected error; it was logged and nothing is said here"))
