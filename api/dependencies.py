"""Who stands at the door, and what the rooms behind it need.

Every route declares a policy by depending on one of `anybody`, `user_only`, `supervisor_only`,
`grant_only`, `scraper_only`; `check_policies` refuses to build an application with a route that
does not. Objects of other people are refused in one place each, `own_session` and `own_account`:
not found, and a row in the audit log.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from fastapi import Depends
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from api.field_words import FieldError
from api.problems import InvalidFields, invalid_fields
from module.db.repositories.accounts import AccountRecord, AccountRepository
from module.db.repositories.alerts import AlertRepository
from module.db.repositories.audit import AuditEntry, AuditRepository
from module.db.repositories.halts import HaltRepository
from module.db.repositories.idempotency import IdempotencyRepository
from module.db.repositories.results import ResultsRepository
from module.db.repositories.results_periods import ResultsPeriods
from module.db.repositories.results_series import ResultsSeries
from module.db.repositories.session_history import SessionHistory
from module.db.repositories.session_records import SessionRecord
from module.db.repositories.sessions import SessionRepository
from module.db.repositories.users import Role, UserRecord, UserRepository
from module.files.strategy_store import StrategyStore
from module.model.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    InvariantViolated,
    NotFound,
    Retryable,
    Unavailable,
)
from module.model.sessions import check_session_id
from module.security.tokens import bearer_token, read_grant

if TYPE_CHECKING:
    from fastapi import FastAPI

    from api.preview_wiring import PreviewPorts
    from api.wiring import AccountAdmin, ApiWiring
    from module.ports import Clock, SessionLauncher
    from module.settings import Settings

JSON_DIGITS_MAX: Final = 60
_log = logging.getLogger(__name__)
Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Doors:
    """What the platform's routers need, built once per process from the wiring."""

    settings: Settings
    clock: Clock
    users: UserRepository
    sessions: SessionRepository
    accounts: AccountRepository
    audit: AuditRepository
    halts: HaltRepository
    idempotency: IdempotencyRepository
    results: ResultsRepository
    series: ResultsSeries
    periods: ResultsPeriods
    history: SessionHistory
    alerts: AlertRepository
    strategies: StrategyStore
    launcher: SessionLauncher
    gateway: AccountAdmin
    previews: PreviewPorts | None = None


def build_doors(wiring: ApiWiring) -> Doors:
    """The repositories and stores over the wiring's databases; opens nothing yet."""
    platform = wiring.platform
    if platform is None:
        raise InvariantViolated("this process has no platform wiring")
    return Doors(
        settings=wiring.settings,
        clock=wiring.clock,
        users=UserRepository(platform.finplatform),
        sessions=SessionRepository(platform.finplatform),
        accounts=AccountRepository(platform.finplatform),
        audit=AuditRepository(platform.finplatform),
        halts=HaltRepository(platform.finplatform),
        idempotency=IdempotencyRepository(platform.finplatform),
        results=ResultsRepository(platform.finwatcher),
        series=ResultsSeries(platform.finwatcher),
        periods=ResultsPeriods(platform.finwatcher),
        history=SessionHistory(platform.finplatform),
        alerts=AlertRepository(platform.finplatform),
        strategies=StrategyStore(wiring.settings.data_dir),
        launcher=platform.launcher,
        gateway=platform.accounts,
        previews=platform.previews,
    )


async def doors_of(request: Request) -> Doors:
    """The doors of this application."""
    doors = request.app.state.doors
    if not isinstance(doors, Doors):
        raise Unavailable("this process opens no doors for people")
    return doors


AtDoors = Annotated[Doors, Depends(doors_of)]

# --- policies -------------------------------------------------------------------------------------


class Policy(StrEnum):
    """Who may use a route; the order is from weak to strong."""

    PUBLIC = "public"
    SCRAPE = "scrape"
    GRANT = "grant"
    USER = "user"
    SUPERVISOR = "supervisor"


async def anybody() -> None:
    """Public: no question asked."""


def user_only(request: Request, doors: AtDoors) -> UserRecord:
    """Whose token came with the request; looked up each time, so that revoking works at once.

    Without the database nobody is let in, and who is not in hears nothing of the inside.
    """
    token = bearer_token(request.headers.get("authorization"))
    try:
        return doors.users.authenticate(token, doors.clock.wall())
    except Retryable as error:
        _log.warning("nobody can be let in: %s", error.message)
        raise Unavailable(
            "tokens cannot be checked at the moment; ask again", retry_after_s=error.retry_after_s
        ) from error


SignedIn = Annotated[UserRecord, Depends(user_only)]


def supervisor_only(user: SignedIn) -> UserRecord:
    """The supervisor; Forbidden for everybody else who is signed in."""
    if user.role is not Role.SUPERVISOR:
        raise Forbidden("only a supervisor may do this")
    return user


Supervisor = Annotated[UserRecord, Depends(supervisor_only)]


async def grant_only(request: Request) -> None:
    """A grant of this installation; what it opens is each route's own question, but a scraper's
    opens none."""
    token = bearer_token(request.headers.get("authorization"))
    if read_grant(token, request.app.state.token_key).kind == "scrape":
        raise Forbidden("a scraper's token opens nothing but /metrics")


async def scraper_only(request: Request) -> None:
    """A grant that opens the numbers of this process."""
    token = bearer_token(request.headers.get("authorization"))
    read_grant(token, request.app.state.token_key).opens_metrics()


POLICY_OF: Final[dict[Callable[..., object], Policy]] = {
    anybody: Policy.PUBLIC,
    scraper_only: Policy.SCRAPE,
    grant_only: Policy.GRANT,
    user_only: Policy.USER,
    supervisor_only: Policy.SUPERVISOR,
}


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """One route and who may use it (None: nobody said)."""

    methods: tuple[str, ...]
    path: str
    policy: Policy | None


def route_policies(app: FastAPI) -> list[RoutePolicy]:
    """Every route of `app`, with its policy."""
    found = []
    for context in iter_route_contexts(app.routes):
        policies = set(_policies_of(getattr(context, "dependant", None)))
        strongest = max(policies, key=list(Policy).index) if policies else None
        methods = tuple(sorted(context.methods or ()))
        found.append(RoutePolicy(methods, context.path or "?", strongest))
    return found


def check_policies(app: FastAPI) -> None:
    """InvariantViolated when a route of `app` has no declared policy: deny by default."""
    silent = [f"{item.methods} {item.path}" for item in route_policies(app) if item.policy is None]
    if silent:
        raise InvariantViolated(f"routes without a policy: {', '.join(silent)}")


def _policies_of(dependant: Any) -> Iterator[Policy]:  # FastAPI's tree of dependencies
    for inner in getattr(dependant, "dependencies", ()):
        if inner.call in POLICY_OF:
            yield POLICY_OF[inner.call]
        yield from _policies_of(inner)


# --- parameters -----------------------------------------------------------------------------------


async def known_parameters(request: Request, _user: SignedIn) -> None:
    """Refuse a name in the query that the route does not know: `mod=flat` must not end a session
    as if nothing had been asked."""
    if not request.query_params:
        return
    known = tuple(dict.fromkeys(_query_names(request.scope["route"].dependant)))
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        names = f"known are {', '.join(known)}" if known else "this address takes none"
        said = f"there is no such parameter; {names}"
        raise InvalidFields(FieldError(name[:40], said) for name in unknown)


def _query_names(dependant: Any) -> Iterator[str]:  # FastAPI's tree of dependencies
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _query_names(inner)


# --- what is whose --------------------------------------------------------------------------------


def own_session(doors: Doors, user: UserRecord, session_id: str) -> SessionRecord:
    """The user's session; a supervisor's are all. NotFound for somebody else's."""
    record = doors.sessions.find(check_session_id(session_id))
    if record is not None and (record.owner_id == user.user_id or user.role is Role.SUPERVISOR):
        return record
    if record is not None:
        _note_refusal(doors, user, "session", session_id)
    raise NotFound(f"there is no session {session_id!r}")


def own_account(
    doors: Doors, user: UserRecord, account_id: str, *, must_be_active: bool = True
) -> AccountRecord:
    """The user's own account. NotFound for somebody else's, supervisors included: what is traded
    with is its owner's alone. Conflict when it is switched off, unless that does not matter."""
    missing = NotFound(f"there is no account {account_id[:64]!r}")
    try:
        record = doors.accounts.get(account_id)
    except NotFound as error:
        raise missing from error
    if record.owner_id != user.user_id:
        _note_refusal(doors, user, "account", account_id)
        raise missing
    if must_be_active and not record.active:
        raise Conflict(f"account {record.label!r} is switched off; switch it on first")
    return record


def _note_refusal(doors: Doors, user: UserRecord, kind: str, subject: str) -> None:
    doors.audit.record(
        AuditEntry(user.user_id, "refused", subject, doors.clock.wall(), {"kind": kind})
    )


# --- bodies ---------------------------------------------------------------------------------------


def json_body(model: type[Body]) -> Callable[[Request], Awaitable[Body]]:
    """A dependency that reads the request's JSON strictly and checks it against `model`.

    Numbers become Decimal by their text, never floats; duplicate keys, NaN, absurd numbers and
    depths are refused. What is wrong is answered by field; what was sent is told back only where
    `model.holds_secrets` says that there is no secret in it.
    """

    async def read(request: Request) -> Body:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            was = f"is {kind[:64]}" if kind else "is missing"
            raise HTTPException(
                415, f"send a JSON document with Content-Type: application/json; the header {was}"
            )
        raw = await request.body()
        request.state.body_sha256 = hashlib.sha256(raw).hexdigest()
        document = parse_json(raw)
        try:
            return model.model_validate(document)
        except ValidationError as error:
            shown = not getattr(model, "holds_secrets", True)
            raise invalid_fields(error, shown=shown) from None  # the chain would hold what was sent

    return read


def body_sha256(request: Request) -> str:
    """What the body that `json_body` has read hashes to."""
    return str(request.state.body_sha256)


def json_document(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a body that `json_body(model)` reads."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def parse_json(raw: bytes) -> object:
    """The one value that `raw` spells, strictly; InvalidInput says what is wrong with it."""
    try:
        text = raw.decode("utf-8")
        document: object = json.loads(
            text,
            parse_float=_number,
            parse_int=_integer,
            parse_constant=_no_constant,
            object_pairs_hook=_object,
        )
    except RecursionError as error:
        raise InvalidInput("the JSON is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the body is not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InvalidInput(f"the body is not JSON: {error.msg} at {where}") from error
    _check_strings(document)
    return document


def plain_numbers(value: object) -> object:
    """The same JSON value with floats for Decimals: how a strategy's config is handed on."""
    if isinstance(value, Decimal):
        number = float(value)
        if not math.isfinite(number):
            raise ValueError("holds a number that is too large")
        return number
    if isinstance(value, dict):
        return {key: plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_numbers(item) for item in value]
    return value


def _number(text: str) -> Decimal:
    if len(text) > JSON_DIGITS_MAX:
        raise InvalidInput("the JSON holds a number of too many digits")
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise InvalidInput("the JSON holds a number that cannot be read") from error
    if value and not -JSON_DIGITS_MAX < value.adjusted() < JSON_DIGITS_MAX:
        raise InvalidInput("the JSON holds a number that is too large or too small")
    return value


def _integer(text: str) -> int:
    if len(text) > JSON_DIGITS_MAX:
        raise InvalidInput("the JSON holds a number of too many digits")
    return int(text)


def _no_constant(text: str) -> object:
    raise InvalidInput(f"the JSON holds {text}, which is no number")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidInput("the JSON holds an object with a key twice")
    return found


def _check_strings(value: object) -> None:
    """No NUL (Postgres keeps none) and no half of a surrogate pair, in keys or values."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, str) and (
            "\0" in item or any("\ud800" <= character <= "\udfff" for character in item)
        ):
            raise InvalidInput("the JSON holds text with a NUL or half a surrogate pair")
