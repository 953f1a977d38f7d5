"""What people command: start a session, end one. Each leaves one audit row and one answer.

    run_system: checks ─► session row (desired running, state starting) ─► launcher.start ─► answer
    terminate:  desired stopped, how to leave the account ─► launcher.stop ─► what will happen

Under an `Idempotency-Key` a command is carried out once, however often its request arrives and
whatever dies in between: the session id is fixed with the key before anything else happens.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from api.dependencies import Doors, own_account, own_session
from api.schemas import PAPER_BALANCE, RunSystemRequest
from module.db.repositories.accounts import AccountRecord
from module.db.repositories.audit import AuditEntry
from module.db.repositories.idempotency import Reservation
from module.db.repositories.session_records import SessionRecord
from module.db.repositories.users import UserRecord
from module.files.strategy_store import StrategyVersion, check_config, check_source
from module.model.accounts import TradeEnv
from module.model.errors import (
    AifapError,
    Conflict,
    InvalidInput,
    OutcomeUnknown,
    RateLimited,
    Unavailable,
)
from module.model.market import MarketType
from module.model.sessions import (
    DesiredState,
    EndState,
    SessionSpec,
    SessionState,
    new_session_id,
)

PRODUCT: Final = "AIFAP-BT"
KEY_PATTERN: Final = re.compile(r"[\x21-\x7e]{1,128}")
KEY_WAIT_S: Final = 20.0
KEY_PAUSE_S: Final = 0.2
SESSION_ID_BYTES: Final = 16
IDS_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Key:
    """An `Idempotency-Key` and the hash of the body it came with."""

    text: str
    body_sha256: str


@dataclass(frozen=True, slots=True)
class CommandAnswer:
    """What a command answers."""

    status: int
    document: Mapping[str, object]


def once(
    doors: Doors,
    user: UserRecord,
    key: Key | None,
    plan: Mapping[str, object],
    carry_out: Callable[[Mapping[str, object]], CommandAnswer],
) -> CommandAnswer:
    """Carry the command out once per key; without a key, now. `plan` is what the first one fixed.

    An error means that nothing came of it: the key is free again. Conflict for another body.
    """
    if key is None:
        return carry_out(plan)
    if not KEY_PATTERN.fullmatch(key.text):
        raise InvalidInput("Idempotency-Key must be 1 to 128 printable characters without spaces")
    reservation = _reserve(doors, user, key, plan)
    if reservation.status is not None:
        return CommandAnswer(reservation.status, reservation.answer or {})
    try:
        found = carry_out(reservation.plan)
    except OutcomeUnknown:
        raise  # it may have happened: the reservation stays and is taken over with the same plan
    except AifapError:
        doors.idempotency.release(user.user_id, key.text)
        raise
    doors.idempotency.keep(user.user_id, key.text, found.status, found.document)
    return found


def _reserve(doors: Doors, user: UserRecord, key: Key, plan: Mapping[str, object]) -> Reservation:
    """Ours to carry out, or answered. Another request under the key is waited for, bounded."""
    until = doors.clock.monotonic() + KEY_WAIT_S
    while True:
        reservation = doors.idempotency.reserve(
            user.user_id, key.text, key.body_sha256, plan, doors.clock.wall()
        )
        if reservation.ours or reservation.status is not None:
            return reservation
        if doors.clock.monotonic() >= until:
            raise RateLimited(
                "the first request under this Idempotency-Key is still being carried out; ask "
                "again later",
                retry_after_s=5.0,
            )
        doors.clock.pause(KEY_PAUSE_S)


# --- run-system -----------------------------------------------------------------------------------


def run_system(
    doors: Doors, user: UserRecord, request: RunSystemRequest, key: Key | None
) -> CommandAnswer:
    """Start a session of the user's.

    Conflict names the session that has the account already; InvalidInput says which field does
    not fit and why; Unavailable when the session could not be launched: it is then failed.
    """
    new_id = _new_session_id(doors, request)

    def carry_out(plan: Mapping[str, object]) -> CommandAnswer:
        session_id = str(plan["session_id"])
        record = doors.sessions.find(session_id) if session_id != new_id else None
        if record is None:
            record = _create_session(doors, user, request, session_id)
        _launch(doors, record)
        return CommandAnswer(
            200,
            {
                "message": f"{PRODUCT} running (session ID: {session_id})",
                "session_id": session_id,
                "dashboard_url": f"{dashboard_url(doors)}#session={session_id}",
            },
        )

    return once(doors, user, key, {"session_id": new_id}, carry_out)


def _new_session_id(doors: Doors, request: RunSystemRequest) -> str:
    """The first that is free: random, in a seeded paper world of those which seed and start give,
    so that the same session there has the same client ids."""
    now, seed = doors.clock.now(), doors.settings.id_seed
    is_seeded = seed is not None and request.trade_env is TradeEnv.PAPER
    for number in range(IDS_MAX):
        said = f"{seed}|{now.isoformat()}|{number}".encode()
        found = new_session_id(now, said if is_seeded else secrets.token_bytes(SESSION_ID_BYTES))
        if doors.sessions.find(found) is None:
            return found
    raise Conflict(f"{IDS_MAX} session ids of this minute are taken; wait for the next one")


def dashboard_url(doors: Doors) -> str:
    """Where people find the live page."""
    settings = doors.settings
    return settings.dashboard_url or f"http://{settings.api_host}:{settings.api_port}/dashboard/"


def _create_session(
    doors: Doors, user: UserRecord, request: RunSystemRequest, session_id: str
) -> SessionRecord:
    version = doors.strategies.latest(user.user_id, request.strategy_name)
    check_source(version.source.encode())
    config = {**version.config, **request.config}
    check_config(config)
    account = _choose_account(doors, user, request)
    doors.strategies.pin(version)
    spec = _spec(doors, user, request, session_id, account, replace(version, config=config))
    audit = AuditEntry(
        user.user_id,
        "run-system",
        session_id,
        doors.clock.wall(),
        {"account_id": account.account_id, "strategy": version.name, "digest": version.digest},
    )
    try:
        return doors.sessions.create(
            spec,
            sessions_max=doors.settings.sessions_max,
            audit=audit,
            order_info_store=doors.settings.order_info_store,
        )
    except OutcomeUnknown:
        found = doors.sessions.find(session_id)
        if found is None:
            raise
        return found


def _spec(
    doors: Doors,
    user: UserRecord,
    request: RunSystemRequest,
    session_id: str,
    account: AccountRecord,
    version: StrategyVersion,
) -> SessionSpec:
    started_at = doors.clock.now()
    return SessionSpec(
        session_id=session_id,
        installation=doors.settings.installation,
        owner_id=user.user_id,
        account_id=account.account_id,
        market=account.market,
        market_id=account.market_id,
        trade_env=account.trade_env,
        trade_mode=request.trade_mode,
        strategy_name=version.name,
        strategy_digest=version.digest,
        config=dict(version.config),
        interval=request.interval,
        leverage=request.leverage,
        margin_mode=request.margin_mode,
        allocated=request.allocated,
        compounding=request.compounding,
        threshold=request.threshold,
        threshold_relative=request.threshold_relative,
        no_trade_band=request.no_trade_band,
        turnover_max=request.turnover_max,
        default_stop_loss_pct=request.default_stop_loss_pct,
        target_volatility=request.target_volatility,
        on_end=request.on_end,
        apply_account_settings=request.apply_account_settings,
        adopt_existing=request.adopt_existing,
        started_at=started_at,
        ends_at=started_at + timedelta(seconds=int(request.trading_hours * 3600)),
        cycles_max=request.cycles,
    )


def _launch(doors: Doors, record: SessionRecord) -> None:
    if record.state.is_over:
        raise Conflict(
            f"session {record.session_id} is {record.state} ({record.reason}); start a new one "
            "under a new Idempotency-Key"
        )
    try:
        doors.launcher.start(record.session_id)
    except AifapError as error:
        reason = f"could not be launched: {error.message}"
        doors.sessions.set_state(
            record.session_id, SessionState.FAILED, doors.clock.now(), reason=reason
        )
        raise Unavailable(
            f"session {record.session_id} {reason}; it is failed and trades nothing"
        ) from error


def _choose_account(doors: Doors, user: UserRecord, request: RunSystemRequest) -> AccountRecord:
    market, env = request.trade_type, request.trade_env
    if request.account_id is not None:
        account = own_account(doors, user, request.account_id)
        if account.market is not market:
            raise InvalidInput(
                f"tradeType is {market}, but account {account.label!r} is a {account.market} one"
            )
        if account.trade_env is not env:
            raise InvalidInput(
                f"trade_env is {env}, but account {account.label!r} is {account.trade_env}"
            )
        return account
    matching = _matching(doors, user, market, env)
    if len(matching) > 1:
        named = ", ".join(f"{item.account_id} ({item.label})" for item in matching[:10])
        raise InvalidInput(
            f"account_id: you have several {env} {market} accounts, name one of them: {named}"
        )
    if matching:
        return matching[0]
    if env is not TradeEnv.PAPER:
        raise InvalidInput(f"you have no {env} {market} account; add one with POST /accounts")
    return _open_paper_account(doors, user, market)


def _matching(
    doors: Doors, user: UserRecord, market: MarketType, env: TradeEnv
) -> list[AccountRecord]:
    mine = doors.accounts.list_for_owner(user.user_id)
    return [item for item in mine if item.market is market and item.trade_env is env]


def _open_paper_account(doors: Doors, user: UserRecord, market: MarketType) -> AccountRecord:
    try:
        account_id = doors.gateway.open_paper_account(
            user.user_id, f"paper-{market}", market, PAPER_BALANCE
        )
    except (Conflict, OutcomeUnknown):
        # Another request of the same moment has opened it, or ours did and the answer was lost.
        matching = _matching(doors, user, market, TradeEnv.PAPER)
        if not matching:
            raise
        return matching[0]
    doors.audit.record(
        AuditEntry(user.user_id, "paper-account-open", account_id, doors.clock.wall())
    )
    return doors.accounts.get(account_id)


# --- terminate ------------------------------------------------------------------------------------


def terminate(
    doors: Doors, user: UserRecord, session_id: str, mode: EndState | None
) -> CommandAnswer:
    """Let the session stop and leave its account as `mode` says (default protected).

    Repeating is harmless; without a mode a flat that was asked for stays. Conflict when the
    session is over.
    """
    record = own_session(doors, user, session_id)
    if mode is None:
        stopping = record.desired is DesiredState.STOPPED
        mode = record.end_state if stopping else EndState.PROTECTED
    audit = AuditEntry(
        user.user_id, "terminate", session_id, doors.clock.wall(), {"mode": mode.value}
    )
    doors.sessions.set_desired(session_id, DesiredState.STOPPED, mode, audit=audit)
    will = {
        EndState.PROTECTED: "its positions stay, with their stops on the exchange",
        EndState.FLAT: "its positions are closed and nothing is left behind",
    }[mode]
    message = f"session {session_id} stops: {will}"
    carried = True
    try:
        doors.launcher.stop(session_id)
    except AifapError as error:
        carried = False
        message += f". It is recorded, and done as soon as the session host answers ({error.code})"
    return CommandAnswer(
        200,
        {"message": message, "session_id": session_id, "mode": mode.value, "delivered": carried},
    )
