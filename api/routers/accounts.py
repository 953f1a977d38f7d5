"""One's accounts: `/accounts`. Secrets go in, to the gateway, and never come out again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from api.answers import answer, spelled_object
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
from api.schemas import ChangedAccount, Deposit, NewAccount, NewKeys, NewPaperAccount
from module.db.repositories.accounts import AccountRecord
from module.db.repositories.audit import AuditEntry
from module.db.repositories.users import UserRecord
from module.model.accounts import TradeEnv
from module.model.credentials import Credentials
from module.model.errors import Conflict, InvalidInput

router = APIRouter(prefix="/accounts", tags=["accounts"])
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]


@router.get("")
def get_accounts(
    doors: AtDoors, user: SignedIn, everything: Annotated[bool, Query(alias="all")] = False
) -> Response:
    """One's accounts that are switched on; with `all=true` the others as well."""
    mine = doors.accounts.list_for_owner(user.user_id, with_inactive=everything)
    return answer({"accounts": [_view(record) for record in mine]})


@router.get("/{account_id}")
def get_account(doors: AtDoors, user: SignedIn, account_id: str) -> Response:
    """One account, switched on or not."""
    return answer(_view(own_account(doors, user, account_id, must_be_active=False)))


@router.post("/{account_id}/check")
def post_check(doors: AtDoors, user: SignedIn, account_id: str) -> Response:
    """What the exchange says of the account and its keys now: rights, modes, equity, clock."""
    record = own_account(doors, user, account_id, must_be_active=False)
    found = doors.gateway.check_account(record.account_id)
    return answer({**spelled_object(found), "fit": not found.faults, "label": record.label})


@router.patch("/{account_id}", openapi_extra=json_document(ChangedAccount))
def patch_account(
    doors: AtDoors,
    user: SignedIn,
    account_id: str,
    body: Annotated[ChangedAccount, Depends(json_body(ChangedAccount))],
) -> Response:
    """Change label, limits (they hold from the next order on), or switch off and on."""
    record = own_account(doors, user, account_id, must_be_active=False)
    if body.active is not None:
        _note(doors, user, _switching(body), record.account_id)
        if body.active:
            doors.gateway.switch_on_account(record.account_id)
        else:
            doors.gateway.switch_off_account(record.account_id, erase_keys=False, force=body.force)
    if body.label is not None or body.limits is not None:
        limits = None if body.limits is None else body.limits.document()
        _note(doors, user, "account-change", record.account_id, label=body.label, limits=limits)
        doors.accounts.change(record.account_id, label=body.label, limits=limits)
    return answer(_view(doors.accounts.get(record.account_id)))


@router.put("/{account_id}/credentials", openapi_extra=json_document(NewKeys))
def put_credentials(
    doors: AtDoors,
    user: SignedIn,
    account_id: str,
    body: Annotated[NewKeys, Depends(json_body(NewKeys))],
) -> Response:
    """Other keys of the same account at the venue; checked there, then used from now on."""
    record = own_account(doors, user, account_id, must_be_active=False)
    action = "account-keys-forced" if body.force else "account-keys"
    _note(doors, user, action, record.account_id)
    doors.gateway.replace_keys(record.account_id, _credentials(body), force=body.force)
    return answer(_view(doors.accounts.get(record.account_id)))


@router.delete("/{account_id}")
def delete_account(
    doors: AtDoors, user: SignedIn, account_id: str, force: bool = False
) -> Response:
    """Switch an idle, flat account off and forget its keys; its history stays."""
    record = own_account(doors, user, account_id, must_be_active=False)
    _note(doors, user, "account-delete-forced" if force else "account-delete", record.account_id)
    doors.gateway.switch_off_account(record.account_id, erase_keys=True, force=force)
    return answer(_view(doors.accounts.get(record.account_id)))


@router.post("/paper", status_code=201, openapi_extra=json_document(NewPaperAccount))
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


@router.post("", status_code=201, openapi_extra=json_document(NewAccount))
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
        credentials=_credentials(body),
        force=body.force,
    )
    return answer(_view(doors.accounts.get(account_id)), 201)


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


def _credentials(body: NewAccount | NewKeys) -> Credentials:
    return Credentials(
        body.api_key.get_secret_value(),
        body.api_secret.get_secret_value(),
        body.passphrase.get_secret_value(),
    )


def _switching(body: ChangedAccount) -> str:
    if body.active:
        return "account-switch-on"
    return "account-switch-off-forced" if body.force else "account-switch-off"


def _view(record: AccountRecord) -> dict[str, object]:
    return {
        "account_id": record.account_id,
        "label": record.label,
        "venue": record.venue,
        "market": record.market,
        "trade_env": record.trade_env,
        "base_url": record.base_url,
        "active": record.active,
        "initial_balance": record.initial_balance,
        "key_hint": record.key_hint,
        "limits": record.limits,
        "created_at": record.created_at,
    }


def _note(doors: Doors, user: UserRecord, action: str, subject: str, **detail: object) -> None:
    doors.audit.record(AuditEntry(user.user_id, action, subject, doors.clock.wall(), detail))


def _allowed_url(doors: Doors, asked: str | None) -> str:
    """One of the installation's addresses; what a person types is only compared."""
    allowed = doors.settings.allowed_venue_urls
    if asked is None and allowed:
        return allowed[0]
    if asked not in allowed or asked is None:
        raise InvalidInput(f"base_url must be one of {', '.join(allowed) or '(none allowed)'}")
    return asked
