"""The decision of a cycle as one function of one document. PURE.

    gather (effects) ─► CycleInputs ─► decide ─► Decision(targets, book, plan) ─► the letter
                              └─► the letter's `inputs`, byte for byte ─► replay

The strategy process, a preview, a replay and a backtest come to their plan through `decide`, so
that equal inputs cannot give different plans.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from module.model.accounts import AccountSnapshot, Position, PositionMode
from module.model.canonical import digest
from module.model.errors import Conflict, InvalidInput, InvariantViolated, require
from module.model.market import Instrument, MarketType
from module.model.money import ONE, ZERO, plain
from module.model.orders import OrderReport, Side
from module.model.sessions import TradeMode
from module.wire.model_codec import from_document, to_document
from trading.rebalance.bars_seen import BarsAsked
from trading.rebalance.doubts import doubts_since
from trading.rebalance.order_info import Holding, OrderInfo, with_plan
from trading.rebalance.plan import Book, OrderPlan, Policy, plan_rebalance, sizing_base
from trading.rebalance.weights import Target, read_targets, scale_to_volatility

INPUTS_VERSION = 1
FLAT = "flat"  # stands for the strategy where a session closes everything


@dataclass(frozen=True, slots=True)
class StrategyCall:
    """Which user code was asked, and with what. `config` is JSON text, exactly as it was given;
    `timezone` is the zone of `context.current_dt`. No name: nobody was asked (weights by hand, or
    everything is closed)."""

    owner_id: str = ""
    name: str = ""
    digest: str = ""
    config: str = "{}"
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class AccountInputs:
    """What a plan takes from one snapshot of the account, in quote asset."""

    at: datetime
    equity: Decimal
    available: Decimal
    position_mode: PositionMode
    positions: tuple[Position, ...]
    open_orders: tuple[OrderReport, ...] = ()

    @classmethod
    def of(cls, snapshot: AccountSnapshot) -> AccountInputs:
        """The parts of `snapshot`, positions and orders in a fixed order."""
        return cls(
            at=snapshot.at,
            equity=snapshot.equity,
            available=snapshot.available,
            position_mode=snapshot.position_mode,
            positions=tuple(sorted(snapshot.positions, key=lambda each: each.symbol)),
            open_orders=tuple(sorted(snapshot.open_orders, key=lambda each: each.client_id)),
        )


@dataclass(frozen=True, slots=True)
class CycleInputs:
    """Everything that a cycle's plan depends on; the letter's `inputs` is exactly this document.

    `answer`: what the strategy returned, numbers as decimal text. `instruments`: the rules of every
    symbol that is held, ordered or named. `marks`, `spreads` (half, as a fraction) and `volatility`
    (annualised fraction) by symbol; `realized_volatility` is the weighted book's, in the mode that
    needs it. `bars`: every window that was asked for, by whom it was needed in that order (the
    strategy's first). `doubted`: why a symbol's price is not believed. `build` names the code that
    decided; it does not change the plan.
    """

    session_id: str
    cycle: datetime
    policy: Policy
    account: AccountInputs
    initial_balance: Decimal
    allocated: Decimal | None
    compounding: bool
    answer: Mapping[str, Mapping[str, str]]
    marks: Mapping[str, Decimal]
    instruments: Mapping[str, Instrument]
    call: StrategyCall = StrategyCall()
    bars: tuple[BarsAsked, ...] = ()
    strategy_bars: int = 0
    target_volatility: Decimal | None = None
    realized_volatility: Decimal | None = None
    spreads: Mapping[str, Decimal] = field(default_factory=dict)
    volatility: Mapping[str, Decimal] = field(default_factory=dict)
    doubted: Mapping[str, str] = field(default_factory=dict)
    closing: bool = False
    build: str = ""
    version: int = INPUTS_VERSION

    def to_json(self) -> dict[str, object]:
        """The canonical document: decimal text, ISO times; the same for equal inputs."""
        document = to_document(self)
        assert isinstance(document, dict)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> CycleInputs:
        """Read what `to_json` wrote; InvariantViolated names what is wrong with it."""
        version = document.get("version")
        require(
            version == INPUTS_VERSION,
            f"the inputs of a cycle have version {version!r}, not {INPUTS_VERSION}: they are of "
            "another build and cannot be replayed by this one",
        )
        try:
            return from_document(cls, document, name="inputs")
        except InvalidInput as error:
            raise InvariantViolated(f"the inputs of a cycle cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from the inputs."""

    targets: Mapping[str, Target]
    book: Book
    plan: OrderPlan


def decide(inputs: CycleInputs) -> Decision:
    """The one way from inputs to a plan.

    StrategyFailed when the answer cannot be used; Conflict when the account's position mode cannot
    be traded; InvalidInput when there is nothing to trade with.
    """
    policy = inputs.policy
    if policy.market is MarketType.FUTURES and inputs.account.position_mode is PositionMode.HEDGE:
        raise Conflict(
            "the account is in hedge mode; set position mode to one-way on the exchange (while "
            "nothing is open), then start again"
        )
    targets = read_targets(inputs.answer, inputs.instruments, policy.market)
    if policy.mode is TradeMode.VOLATILITY_TARGETING and inputs.realized_volatility is not None:
        require(inputs.target_volatility is not None, "volatility targeting without a target")
        assert inputs.target_volatility is not None
        targets = scale_to_volatility(targets, inputs.realized_volatility, inputs.target_volatility)
    book = _book(inputs, targets)
    return Decision(targets, book, plan_rebalance(targets, book, policy))


def _book(inputs: CycleInputs, targets: Mapping[str, Target]) -> Book:
    account = inputs.account
    nothing_opens = not any(target.weight for target in targets.values())
    if inputs.closing or (account.equity <= 0 and nothing_opens):
        # whatever is left is closed, however little the account is worth
        base = max(account.equity, ONE)
    else:
        base = sizing_base(
            account.equity,
            inputs.allocated,
            inputs.initial_balance,
            compounding=inputs.compounding,
        )
    return Book(
        base=base,
        available=account.available,
        positions={position.symbol: position for position in account.positions},
        marks=inputs.marks,
        instruments=inputs.instruments,
        open_orders=_open_orders(account.open_orders),
        spreads=inputs.spreads,
        volatility=inputs.volatility,
        doubted=frozenset(inputs.doubted),
    )


def _open_orders(orders: Iterable[OrderReport]) -> dict[str, Decimal]:
    """By symbol, what orders that may still fill can add at most: all buys or all sells of it,
    whichever is more. Those that only reduce add nothing, but are there."""
    waiting: dict[tuple[str, Side], Decimal] = {}
    for order in orders:
        rest = order.size - order.filled_size
        if rest > 0 and not order.status.is_terminal:
            place = (order.symbol, order.side)
            adds = ZERO if order.reduce_only else rest
            waiting[place] = waiting.get(place, ZERO) + adds
    found: dict[str, Decimal] = {}
    for (symbol, _), size in waiting.items():
        found[symbol] = max(found.get(symbol, ZERO), size)
    return found


def closing_inputs(
    session_id: str,
    cycle: datetime,
    policy: Policy,
    snapshot: AccountSnapshot,
    instruments: Mapping[str, Instrument],
    build: str = "",
) -> CycleInputs:
    """The inputs of a plan that closes everything: no strategy is asked, marks are the snapshot's.

    `policy` is the session's with the mode `rebalancing`.
    """
    held = {position.symbol for position in snapshot.positions}
    return CycleInputs(
        session_id=session_id,
        cycle=cycle,
        policy=policy,
        account=AccountInputs.of(snapshot),
        initial_balance=snapshot.equity,
        allocated=None,
        compounding=True,
        answer={},
        marks={position.symbol: position.mark_price for position in snapshot.positions},
        instruments={name: instruments[name] for name in sorted(held & set(instruments))},
        closing=True,
        build=build,
    )


def completing_inputs(
    before: CycleInputs,
    at: datetime,
    account: AccountInputs,
    marks: Mapping[str, Decimal],
    instruments: Mapping[str, Instrument],
    build: str = "",
) -> CycleInputs:
    """The inputs of a plan at `at` that leads the present account to the targets of `before`.

    Nobody is asked again: the answer is the recorded one, volatilities and spreads are those of
    then; so a replay needs no strategy and no bars. A price far from that of then is doubted.
    """
    return replace(
        before,
        cycle=at,
        account=account,
        marks=marks,
        instruments=instruments,
        call=StrategyCall(digest=before.call.digest),
        bars=(),
        strategy_bars=0,
        doubted={**before.doubted, **doubts_since(before.marks, marks)},
        build=build,
    )


def plan_letter(info: OrderInfo, inputs: CycleInputs, decision: Decision) -> OrderInfo:
    """The letter once the plan is made: its `inputs` are all that made it."""
    return with_plan(
        info,
        decision.plan,
        inputs=inputs.to_json(),
        targets=spell_targets(decision.targets),
        strategy_digest=FLAT if inputs.closing else inputs.call.digest,
        basis=Holding(
            inputs.account.at,
            {position.symbol: position.size for position in inputs.account.positions},
        ),
    )


def decision_digest(inputs: CycleInputs, letter: OrderInfo) -> str:
    """SHA-256 over the inputs and the plan that they gave: what a preview is executed by."""
    return digest({"inputs": inputs.to_json(), "plan": letter.plan_digest})


def spell_targets(targets: Mapping[str, Target]) -> dict[str, dict[str, str]]:
    """Targets as a strategy would return them, in decimal text."""
    spelled: dict[str, dict[str, str]] = {}
    for symbol, target in targets.items():
        fields = {"weight": plain(target.weight)}
        if target.stops.stop_loss is not None:
            fields["presetStopLossPrice"] = plain(target.stops.stop_loss)
        if target.stops.take_profit is not None:
            fields["presetStopSurplusPrice"] = plain(target.stops.take_profit)
        spelled[symbol] = fields
    return spelled
