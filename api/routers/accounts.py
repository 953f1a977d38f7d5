"""One's accounts: `/accounts`. Secrets go in, to the gateway, and never come out again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response

from api.answers import answer
from api.commands import CommandAnswer, Key, once
from api.dependencies import (
    AtDoors,
    Doors,
    SignedIn,
    body_sha256,
    json_body,
    json_document,
    own_account,
)
from api.schemas import Deposit, NewAccount, NewPaperAccount
from module.db.repositories.accounts import AccountRecord
from module.db.repositories.audit import AuditEntry
from module.db.repositories.users import UserRecord
from module.model.accounts import TradeEnv
from module.model.credentials import Credentials
from module.model.errors import Conflict, InvalidInput

router = APIRouter(prefix="/accounts", tags=["accounts"])
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]


@router.get("")
def get_accounts(doors: AtDoors, user: SignedIn) -> Response:
    """One's accounts."""
    mine = doors.accounts.list_for_owner(user.user_id)
    return answer({"accounts": [_view(record) for record in mine]})


@router.get("/{account_id}")
def get_account(doors: AtDoors, user: SignedIn, account_id: str) -> Response:
    """One account."""
    return answer(_view(own_account(doors, user, account_id)))


@router.post("/paper", openapi_extra=json_document(NewPaperAccount))
def post_paper_account(
    doors: AtDoors,
    user: SignedIn,
    body: Annotated[NewPaperAccount, Depends(json_body(NewPaperAccount))],
) -> Response:
    """Open an account at the paper exchange."""
    label = body.label or f"paper-{body.market}"
    _note(doors, user, "paper-account-open", label)
    account_id = doors.gateway.open_paper_account(user.user_id, label, body.market, body.balance)
    return answer({"account_id": account_id, "label": label}, 201)


@router.post("", openapi_extra=json_document(NewAccount))
def post_account(
    doors: AtDoors,
    user: SignedIn,
    body: Annotated[NewAccount, Depends(json_body(NewAccount))],
) -> Response:
    """Add an account at a venue; the gateway checks the key there before it is kept."""
    _note(doors, user, "account-add-forced" if body.force else "account-add", body.label)
    account_id = doors.gateway.add_account(
        owner_id=user.user_id,
        label=body.label,
        venue=body.venue,
        market=body.market,
        trade_env=body.trade_env,
        base_url=_allowed_url(doors, body.base_url),
        credentials=Credentials(
            body.api_key.get_secret_value(),
            body.api_secret.get_secret_value(),
            body.passphrase.get_secret_value(),
        ),
        force=body.force,
    )
    return answer({"account_id": account_id, "label": body.label}, 201)


@router.post("/{account_id}/deposits", openapi_extra=json_document(Deposit))
def post_deposit(
    doors: AtDoors,
    user: SignedIn,
    account_id: str,
    body: Annotated[Deposit, Depends(json_body(Deposit))],
    request: Request,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Transfer USDT into a paper account."""
    record = own_account(doors, user, account_id)
    if record.trade_env is not TradeEnv.PAPER:
        raise Conflict(f"account {record.label!r} is {record.trade_env}; deposit at the venue")

    def carry_out(_plan: object) -> CommandAnswer:
        _note(doors, user, "deposit", record.account_id)
        doors.gateway.deposit(record.account_id, body.amount)
        return CommandAnswer(200, {"account_id": record.account_id, "message": "deposited"})

    sha256 = body_sha256(request)
    key = None if idempotency_key is None else Key(idempotency_key, f"{sha256[:32]}{account_id}")
    found = once(doors, user, key, {}, carry_out)
    return answer(found.document, found.status)


def _view(record: AccountRecord) -> dict[str, object]:
    return {
        "account_id": record.account_id,
        "label": record.label,
        "venue": record.venue,
        "market": record.market,
        "trade_env": record.trade_env,
        "initial_balance": record.initial_balance,
        "key_hint": record.key_hint,
        "limits": record.limits,
        "created_at": record.created_at,
    }


def _note(doors: Doors, user: UserRecord, action: str, subject: str) -> None:
    doors.audit.record(AuditEntry(user.user_id, action, subject, doors.clock.wall()))


def _allowed_url(doors: Doors, asked: str | None) -> str:
    """One of the installation's addresses; what a person types is only compared."""
    allowed = doors.settings.allowed_venue_urls
    if asked is None and allowed:
        return allowed[0]
    if asked not in allowed or asked is None:
        raise InvalidInput(f"base_url must be one of {', '.join(allowed) or '(none allowed)'}")
    return asked
