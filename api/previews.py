"""`/temp`: what would be traded now, and carrying out exactly that.

    preview: whose account, which targets ─► Gatherer ─► decide ─► estimate ─► kept under its hash
    execute: fresh? nobody trades the account? ─► session with this one plan ─► launcher.start

The plan comes from `decide`, as a session's own cycle does. It is carried out by a session that has
nothing else to do (`trading/plan_session.py`): with an epoch of its own, the durable letter, the
journal, and somebody who takes it up after a crash. Its id is fixed with the preview, so that one
preview is carried out once, however often it is asked for.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from api.answers import spelled_object
from api.commands import CommandAnswer, Key, dashboard_url, once
from api.dependencies import Doors, own_account, own_session
from api.preview_schemas import PreviewRequest
from api.preview_view import execution_view, preview_view
from api.preview_wiring import PreviewPorts, PreviewTools
from module.db.repositories.accounts import AccountRecord
from module.db.repositories.audit import AuditEntry
from module.db.repositories.session_records import SessionRecord
from module.db.repositories.session_specs import spec_from_json, spec_to_json
from module.db.repositories.users import UserRecord
from module.files.preview_store import PreviewStore
from module.files.strategy_store import check_config, check_source
from module.model.accounts import AccountSnapshot
from module.model.errors import (
    AifapError,
    Conflict,
    InvalidInput,
    InvariantViolated,
    NotYet,
    OutcomeUnknown,
    RateLimited,
    StrategyFailed,
    Unavailable,
    require,
)
from module.model.market import MarketType
from module.model.money import ONE, ZERO, plain
from module.model.sessions import (
    EndState,
    SessionSpec,
    SessionState,
    boundary_at_or_before,
    new_session_id,
)
from trading.gathering import Gatherer, SeenMarket
from trading.plan_session import marks_now
from trading.rebalance.bars_seen import pack_bars
from trading.rebalance.decision import CycleInputs
from trading.rebalance.estimate import Surroundings, estimate_plan
from trading.rebalance.given_plan import (
    AccountNow,
    Freshness,
    GivenPlan,
    changes_since,
    give_plan,
    given_plan_from_json,
    in_words,
    sizes_of,
    symbols_to_watch,
)
from trading.rebalancing_strategy import policy_of

PLAN_OUTDATED: Final = "plan-outdated"
NOTHING_TO_TRADE: Final = "nothing-to-trade"
BY_HAND: Final = "given-weights"
MINUTE: Final = timedelta(minutes=1)
PLAN_LASTS: Final = timedelta(hours=1)
AT_ONCE_MAX: Final = 4
SESSION_ID_BYTES: Final = 16
_slots = threading.BoundedSemaphore(AT_ONCE_MAX)


@dataclass(frozen=True, slots=True)
class _Subject:
    """Whose account, under which rules, by whose word. `spec.session_id` is the session that would
    carry the plan out; `answer` None: the strategy of `source` is asked. `of` is the session that
    is previewed."""

    account: AccountRecord
    spec: SessionSpec
    source: str
    answer: Mapping[str, Mapping[str, str]] | None
    of: SessionRecord | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was read for a plan: its inputs, the sizes of everything that the account held, and the
    bars, packed for a replay (None: too many)."""

    inputs: CycleInputs
    held: Mapping[str, Decimal]
    bars: bytes | None


# --- preview --------------------------------------------------------------------------------------


def make_preview(doors: Doors, user: UserRecord, request: PreviewRequest) -> dict[str, object]:
    """What would be traded now; kept for an hour under its `plan_hash`. Nothing is sent.

    NotFound for somebody else's session, account or strategy; StrategyFailed says what the
    strategy did wrong; InvalidInput which field does not fit; NotYet while the newest bar is
    missing; Unavailable while a part of the installation does not answer.
    """
    ports = _ports(doors)
    subject = _subject(doors, user, request)
    epoch = doors.accounts.get(subject.account.account_id).epoch
    freshness = Freshness(request.fresh_s, request.price_tolerance)
    with _slot(), ports.open(subject.account, subject.spec, subject.of) as tools:
        try:
            seen = _gather(doors, ports, tools, subject)
            inputs = seen.inputs
            given = give_plan(inputs, epoch, freshness, seen.held)
        except StrategyFailed as error:
            if subject.answer is None:
                raise
            what = error.message.removeprefix("the strategy returned ")
            raise InvalidInput(f"weights: {what}") from error
        traded = {leg.symbol for leg in given.decision.plan.legs}
        own = {position.symbol for position in inputs.account.positions}
        unfit = _unfit_settings(tools, subject.spec, given)
        surroundings = Surroundings(
            depths=tools.books.depth(sorted(traded)),
            tiers=tools.books.margin_tiers(sorted(traded | own)),
            margin_mode=subject.spec.margin_mode,
        )
    estimate = estimate_plan(inputs, given.decision, surroundings)
    living = doors.sessions.living_on_account(subject.account.account_id)
    view = preview_view(
        given,
        estimate,
        subject.account,
        subject.spec,
        of=None if subject.of is None else subject.of.session_id,
        living=None if living is None else living.session_id,
        priced=frozenset(surroundings.depths),
        unfit=unfit,
    )
    kept = {**given.to_json(), "spec": spec_to_json(subject.spec), "view": spelled_object(view)}
    PreviewStore(doors.settings.data_dir).put(
        user.user_id, given.plan_hash, kept, doors.clock.wall(), bars=seen.bars
    )
    return view


def _unfit_settings(tools: PreviewTools, spec: SessionSpec, given: GivenPlan) -> list[str]:
    """Symbols that would be opened while leverage or margin mode at the exchange are others, and
    may not or cannot be set: carrying the plan out would be refused before its first order."""
    opened = sorted({leg.symbol for leg in given.decision.plan.legs if not leg.reduce_only})
    if spec.market is MarketType.SPOT or not opened:
        return []
    rules = given.inputs.instruments
    beyond = [symbol for symbol in opened if spec.leverage > rules[symbol].leverage_max]
    if beyond:
        return [
            f"{symbol} takes a leverage of at most {plain(rules[symbol].leverage_max)}, the plan "
            f"wants {plain(spec.leverage)}"
            for symbol in beyond
        ]
    held = {position.symbol for position in given.inputs.account.positions}
    found = tools.exchange.symbol_settings(opened)
    return [
        f"{symbol} has leverage {plain(found[symbol].leverage)} {found[symbol].margin_mode} at the "
        f"exchange, the plan wants {plain(spec.leverage)} {spec.margin_mode}: "
        + ("it can be set only while it is flat" if symbol in held else "set it there, or allow it")
        for symbol in opened
        if (found[symbol].leverage, found[symbol].margin_mode) != (spec.leverage, spec.margin_mode)
        and (symbol in held or not spec.apply_account_settings)
    ]


def kept_view(doors: Doors, user: UserRecord, plan_hash: str) -> dict[str, object]:
    """A preview of the user's, as it was answered, and under `execution` what has become of it
    (None: nobody has asked for it); NotFound once it is gone."""
    kept = PreviewStore(doors.settings.data_dir).get(user.user_id, plan_hash)
    view = kept.get("view")
    if not isinstance(view, dict):
        raise InvariantViolated(f"preview {plan_hash} holds no view")
    record = doors.sessions.find(_spec_of(kept).session_id)
    if record is None:
        return {**view, "execution": None}
    letter = doors.sessions.read_order_info(record.session_id)
    return {**view, "execution": execution_view(record, letter)}


def _ports(doors: Doors) -> PreviewPorts:
    if doors.previews is None:
        raise Unavailable("this process makes no previews")
    return doors.previews


@contextmanager
def _slot() -> Iterator[None]:
    if not _slots.acquire(blocking=False):
        raise RateLimited(
            f"{AT_ONCE_MAX} previews are being made already; ask again", retry_after_s=2.0
        )
    try:
        yield
    finally:
        _slots.release()


def _gather(doors: Doors, ports: PreviewPorts, tools: PreviewTools, subject: _Subject) -> _Seen:
    """As a cycle of this minute would; of the minute before while its bar is still missing."""
    this_minute = boundary_at_or_before(doors.clock.now(), MINUTE)
    try:
        return _gather_at(this_minute, ports, tools, subject)
    except NotYet:
        return _gather_at(this_minute - MINUTE, ports, tools, subject)


def _gather_at(at: datetime, ports: PreviewPorts, tools: PreviewTools, subject: _Subject) -> _Seen:
    held: dict[str, Decimal] = {}

    def own(snapshot: AccountSnapshot, named: Collection[str]) -> AccountSnapshot:
        held.update(sizes_of(snapshot.positions))
        return tools.own(snapshot, named)

    market = SeenMarket(tools.market)
    answer = subject.answer
    if answer is None:
        answer = tools.runner.run(subject.source, subject.spec.config, at, market).targets
    began_with = None if subject.of is None else subject.of.initial_balance
    gatherer = Gatherer(
        spec=subject.spec,
        policy=policy_of(subject.spec),
        exchange=tools.exchange,
        initial_balance=lambda: ZERO if began_with is None else began_with,
        house=ports.house,
        own=own,
    )
    inputs = gatherer.gather(at, answer, market)
    if began_with is None:  # a session that starts now begins with what the account is worth now
        inputs = replace(inputs, initial_balance=inputs.account.equity)
    return _Seen(inputs, held, pack_bars(inputs.session_id, at, market.seen))


# --- whose account, which targets -----------------------------------------------------------------


def _subject(doors: Doors, user: UserRecord, request: PreviewRequest) -> _Subject:
    session_id = new_session_id(doors.clock.now(), secrets.token_bytes(SESSION_ID_BYTES))
    if request.session_id is not None:
        return _session_subject(doors, user, request.session_id, session_id)
    account = _account(doors, user, request.account_id)
    if account.market is MarketType.SPOT and request.leverage != ONE:
        raise InvalidInput("leverage must be 1 on spot")
    name, digest, source = "", "", ""
    config = dict(request.config)
    if request.strategy_name is not None:
        version = doors.strategies.latest(user.user_id, request.strategy_name)
        check_source(version.source.encode())
        doors.strategies.pin(version)
        config = {**version.config, **config}
        check_config(config)
        name, digest, source = version.name, version.digest, version.source
    now = doors.clock.now()
    spec = SessionSpec(
        session_id=session_id,
        installation=doors.settings.installation,
        owner_id=account.owner_id,
        account_id=account.account_id,
        market=account.market,
        market_id=account.market_id,
        trade_env=account.trade_env,
        trade_mode=request.trade_mode,
        strategy_name=name,
        strategy_digest=digest,
        config=config,
        interval=MINUTE,
        leverage=request.leverage,
        margin_mode=request.margin_mode,
        allocated=request.allocated,
        compounding=False,
        threshold=request.threshold,
        default_stop_loss_pct=request.default_stop_loss_pct,
        target_volatility=request.target_volatility,
        on_end=EndState.PROTECTED,
        apply_account_settings=request.apply_account_settings,
        adopt_existing=request.adopt_existing,
        started_at=now,
        ends_at=now + PLAN_LASTS,
        threshold_relative=request.threshold_relative,
        no_trade_band=request.no_trade_band,
        turnover_max=request.turnover_max,
    )
    return _Subject(account, spec, source, request.answer())


def _session_subject(
    doors: Doors, user: UserRecord, of_session_id: str, session_id: str
) -> _Subject:
    """A session's rules, its pinned strategy, its account: as its next cycle would plan."""
    of = own_session(doors, user, of_session_id)
    if of.spec.given_plan is not None:
        raise InvalidInput(
            f"session {of.session_id} carried out one given plan and has no strategy to ask"
        )
    account = own_account(doors, user, of.account_id)
    version = doors.strategies.read_version(
        of.owner_id, of.spec.strategy_name, of.spec.strategy_digest
    )
    now = doors.clock.now()
    spec = replace(of.spec, session_id=session_id, started_at=now, ends_at=now + PLAN_LASTS)
    return _Subject(account, spec, version.source, None, of)


def _account(doors: Doors, user: UserRecord, account_id: str | None) -> AccountRecord:
    if account_id is not None:
        return own_account(doors, user, account_id)
    mine = [each for each in doors.accounts.list_for_owner(user.user_id) if each.active]
    if len(mine) == 1:
        return mine[0]
    if not mine:
        raise InvalidInput("account_id: you have no account; POST /accounts or /accounts/paper")
    named = ", ".join(f"{each.account_id} ({each.label})" for each in mine[:10])
    raise InvalidInput(f"account_id: you have several accounts, name one of them: {named}")


# --- execute --------------------------------------------------------------------------------------


def execute_preview(
    doors: Doors, user: UserRecord, plan_hash: str, key: Key | None
) -> CommandAnswer:
    """Carry out exactly the plan of a preview, once, while it is fresh.

    Conflict `plan-outdated` says what has changed since; Conflict names the session that trades
    the account. Asked again, it answers with the session that has carried it out.
    """

    def carry_out(_plan: Mapping[str, object]) -> CommandAnswer:
        kept = PreviewStore(doors.settings.data_dir).get(user.user_id, plan_hash)
        given = given_plan_from_json(kept)
        require(given.plan_hash == plan_hash, f"preview {plan_hash} is kept under another name")
        record = doors.sessions.find(given.inputs.session_id)
        if record is None:
            record = _begin(doors, user, given, _spec_of(kept))
        if not record.state.is_over:
            _launch(doors, record)
        return CommandAnswer(200, _told(doors, record, plan_hash))

    return once(doors, user, key, {"plan_hash": plan_hash}, carry_out)


def _begin(doors: Doors, user: UserRecord, given: GivenPlan, spec: SessionSpec) -> SessionRecord:
    account = own_account(doors, user, spec.account_id)
    require(policy_of(spec) == given.inputs.policy, "a preview's rules are not its plan's")
    if not given.does_anything:
        raise Conflict("the plan has no legs: there is nothing to trade", code=NOTHING_TO_TRADE)
    living = doors.sessions.living_on_account(account.account_id)
    if living is not None and living.session_id != spec.session_id:
        raise Conflict(_busy(living))
    with _ports(doors).open(account, spec, None) as tools:
        snapshot = tools.exchange.snapshot()
        marks = marks_now(tools.exchange, snapshot, symbols_to_watch(given))
    epoch = doors.accounts.get(account.account_id).epoch
    found = AccountNow(doors.clock.now(), epoch, snapshot.positions, snapshot.open_orders, marks)
    changes = changes_since(given, found)
    if changes:
        raise Conflict(
            f"preview {given.plan_hash[:12]}… is not what it was: {in_words(changes)}. Nothing was "
            "traded; make another preview",
            code=PLAN_OUTDATED,
        )
    return _create(doors, user, given, spec)


def _create(doors: Doors, user: UserRecord, given: GivenPlan, spec: SessionSpec) -> SessionRecord:
    now = doors.clock.now()
    of_plan = replace(
        spec,
        strategy_name=spec.strategy_name or BY_HAND,
        given_plan=given.plan_hash,
        cycles_max=1,
        on_end=EndState.PROTECTED,
        adopt_existing=True,
        started_at=now,
        ends_at=now + PLAN_LASTS,
    )
    audit = AuditEntry(
        user.user_id,
        "execute-preview",
        spec.session_id,
        doors.clock.wall(),
        {"account_id": spec.account_id, "plan_hash": given.plan_hash},
    )
    try:
        return doors.sessions.create(of_plan, sessions_max=doors.settings.sessions_max, audit=audit)
    except (Conflict, OutcomeUnknown):
        found = doors.sessions.find(spec.session_id)
        if found is None:
            raise
        return found  # another request for the same plan was faster, or ours did get there


def _launch(doors: Doors, record: SessionRecord) -> None:
    try:
        doors.launcher.start(record.session_id)
    except AifapError as error:
        fresh = doors.sessions.get(record.session_id)
        if fresh.state is not SessionState.STARTING:
            return  # the host found it by itself
        reason = f"could not be launched: {error.message}"
        doors.sessions.set_state(
            record.session_id, SessionState.FAILED, doors.clock.now(), reason=reason
        )
        raise Unavailable(
            f"the plan {reason}; session {record.session_id} is failed and trades nothing"
        ) from error


def _told(doors: Doors, record: SessionRecord, plan_hash: str) -> dict[str, object]:
    session_id = record.session_id
    if record.state.is_over:
        message = f"plan {plan_hash[:12]}… was taken up already (session ID: {session_id})"
    else:
        message = f"plan {plan_hash[:12]}… is carried out (session ID: {session_id})"
    return {
        "message": message,
        "session_id": session_id,
        "plan_hash": plan_hash,
        "state": record.state.value,
        "reason": record.reason,
        "dashboard_url": f"{dashboard_url(doors)}#session={session_id}",
    }


def _busy(living: SessionRecord) -> str:
    return (
        f"session {living.session_id} trades this account and is its one writer. Let its next "
        "cycle trade, or end it (GET /command/terminate?session_id="
        f"{living.session_id}&mode=protected leaves positions and stops as they are), wait until "
        "it is over, and make another preview"
    )


def _spec_of(kept: Mapping[str, object]) -> SessionSpec:
    spec = kept.get("spec")
    if not isinstance(spec, dict):
        raise InvariantViolated("a stored preview has no spec")
    return spec_from_json(spec)
