"""The paper exchange's engine: one world, one clock, any number of accounts.

    market source -> price feed -> Engine <- commands (wire layer, journal, backtests)
                                     |-> orders, fills, positions, bills, double-entry ledger

Pure and deterministic: the same market, settings and commands at the same world milliseconds give
the same ledger, byte for byte. Queries change nothing. The engine reads no clock: `advance_to`
moves its time and processes, in order, everything that becomes due. Not thread safe: one caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from module.model.errors import require
from module.simulator.engine import (
    delisting,
    liquidation,
    plans,
    quiet,
    retention,
    risk,
    settings_rules,
    spot_plans,
    spot_trading,
    stops,
    transfers,
)
from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_queries import EngineQueries
from module.simulator.engine.engine_records import (
    LeverageView,
    OrderRecord,
    PlanRecord,
    TransferRecord,
)
from module.simulator.engine.engine_types import (
    EngineRejected,
    EngineSettings,
    FuturesOrderCommand,
    HoldSide,
    MarginMode,
    MarketType,
    ModifyOrderCommand,
    ModifyPlanCommand,
    PlanOrderCommand,
    PlanType,
    PositionMode,
    PositionSide,
    PositionStopCommand,
    RejectReason,
    Side,
    SpotOrderCommand,
    SpotPlanCommand,
)
from module.simulator.engine.execution import arrive, match_symbol
from module.simulator.engine.order_changes import (
    cancel_by_id,
    close_all_positions,
    modify,
    reverse_position,
)
from module.simulator.engine.order_entry import accept_futures_order
from module.simulator.engine.price_feed import ALL_PRICES
from module.simulator.engine.world import World
from module.simulator.prices.market_source import DAY_MS, MarketSource, PriceKind


class Engine(EngineQueries):
    """The exchange. Commands raise `EngineRejected` and then have changed nothing."""

    def __init__(self, market: MarketSource, settings: EngineSettings, start_ms: int) -> None:
        super().__init__(World(market, settings, start_ms))

    # -- time ---------------------------------------------------------------------------------

    def next_event_ms(self) -> int:
        """When something happens by itself next (> now_ms or due now); NEVER_MS if nothing will."""
        return self._world.next_event_ms()

    def advance_to(self, when_ms: int) -> None:
        """Process everything due up to and including `when_ms`, in order; then it is `when_ms`."""
        world = self._world
        require(when_ms >= world.now_ms, f"time cannot go back from {world.now_ms} to {when_ms}")
        while (due_ms := world.next_event_ms()) <= when_ms:
            self._set_time(max(world.now_ms, due_ms))
            self._process_moment()
        self._set_time(when_ms)

    def _set_time(self, now_ms: int) -> None:
        """Time moves; the first move into a new UTC day forgets what is too old."""
        world = self._world
        new_day = now_ms // DAY_MS > world.now_ms // DAY_MS
        world.now_ms = now_ms
        if new_day:
            retention.forget(world)

    def _process_moment(self) -> None:
        """One moment: new prices act first, then funding, then orders that arrive."""
        world = self._world
        now_ms = world.now_ms
        symbols, stirred = world.take_due()
        for symbol in symbols:
            if world.delisted_ms(symbol) <= now_ms:
                delisting.settle(world, symbol)
            match_symbol(world, symbol)
            plans.fire_plans(world, symbol)
        for symbol, point in world.take_due_funding():
            risk.settle_funding(world, symbol, point)
        liquidation.liquidate_where_due(world)
        while (order := world.take_arrival(now_ms)) is not None:
            arrive(world, order)
            plans.fire_plans(world, order.symbol)
            world.stir(world.accounts[order.account_id])
        liquidation.liquidate_where_due(world)
        world.ledger.check()
        quiet.settle(world, symbols, stirred)

    # -- accounts -----------------------------------------------------------------------------

    def open_account(
        self,
        account_id: str,
        *,
        futures_usdt: Decimal = Decimal(0),
        spot: Mapping[str, Decimal] | None = None,
        position_mode: PositionMode = PositionMode.ONE_WAY,
    ) -> bool:
        """Open a futures and a spot wallet; False (and no change) if the account exists."""
        world = self._world
        if account_id in world.accounts:
            return False
        world.accounts[account_id] = AccountState(account_id, position_mode)
        if futures_usdt:
            self.deposit(account_id, MarketType.FUTURES, world.settings.settle_coin, futures_usdt)
        for coin, amount in sorted((spot or {}).items()):
            if amount:
                self.deposit(account_id, MarketType.SPOT, coin, amount)
        return True

    def transfer(
        self,
        account_id: str,
        source: MarketType,
        target: MarketType,
        coin: str,
        amount: Decimal,
        client_id: str | None = None,
    ) -> TransferRecord:
        """Move what is free between two wallets of the account, with a bill in each."""
        world = self._world
        account = world.acting(account_id)
        record = transfers.transfer_between(world, account, source, target, coin, amount, client_id)
        world.ledger.check()
        return record

    def deposit(self, account_id: str, wallet: MarketType, coin: str, amount: Decimal) -> None:
        """Move money from outside into a wallet (negative: out); a transfer, with its bill."""
        risk.transfer(self._world, self._world.acting(account_id), wallet, coin, amount)
        self._world.ledger.check()

    # -- futures orders -----------------------------------------------------------------------

    def place_order(self, account_id: str, command: FuturesOrderCommand) -> OrderRecord:
        """Accept a futures order; it arrives in the book `latency_ms` later and may fill then."""
        world = self._world
        order = accept_futures_order(world, world.acting(account_id), command)
        world.ledger.check()
        return order

    def cancel_order(
        self, account_id: str, *, order_id: str | None = None, client_id: str | None = None
    ) -> OrderRecord:
        """Cancel a live futures order at once; ORDER_UNKNOWN or ORDER_DONE otherwise."""
        world = self._world
        account = world.acting(account_id)
        return cancel_by_id(world, account, MarketType.FUTURES, order_id, client_id)

    def cancel_all(self, account_id: str, symbol: str | None = None) -> list[OrderRecord]:
        """Cancel every live futures order (of one symbol); [] if there is none."""
        return self._cancel_all(account_id, MarketType.FUTURES, symbol)

    def modify_order(
        self,
        account_id: str,
        command: ModifyOrderCommand,
        *,
        order_id: str | None = None,
        client_id: str | None = None,
    ) -> OrderRecord:
        """Replace size and price (a new order, returned) or change the attached stops in place."""
        world = self._world
        return modify(world, world.acting(account_id), command, order_id, client_id)

    def close_positions(
        self,
        account_id: str,
        symbol: str | None = None,
        hold_side: PositionSide | None = None,
    ) -> list[OrderRecord]:
        """Close at market exactly what is held, whatever minimum; NO_POSITION if none matches."""
        world = self._world
        return close_all_positions(world, world.acting(account_id), symbol, hold_side)

    def reverse_position(
        self,
        account_id: str,
        symbol: str,
        *,
        side: Side | None = None,
        size: Decimal | None = None,
        client_id: str | None = None,
    ) -> OrderRecord:
        """Close a position and open the other side (hedge: `size` of the `side` position)."""
        world = self._world
        account = world.acting(account_id)
        return reverse_position(world, account, symbol, side, size, client_id)

    # -- spot orders --------------------------------------------------------------------------

    def place_spot_order(self, account_id: str, command: SpotOrderCommand) -> OrderRecord:
        """Accept a spot order; a market buy's size is the quote amount to spend."""
        world = self._world
        return spot_trading.accept_spot_order(world, world.acting(account_id), command)

    def cancel_spot_order(
        self, account_id: str, *, order_id: str | None = None, client_id: str | None = None
    ) -> OrderRecord:
        """Cancel a live spot order at once; ORDER_UNKNOWN or ORDER_DONE otherwise."""
        world = self._world
        account = world.acting(account_id)
        return cancel_by_id(world, account, MarketType.SPOT, order_id, client_id)

    def replace_spot_order(
        self,
        account_id: str,
        command: SpotOrderCommand,
        *,
        order_id: str | None = None,
        client_id: str | None = None,
    ) -> OrderRecord:
        """Cancel a live spot order and place another; a refusal leaves the old one live."""
        world = self._world
        account = world.acting(account_id)
        return spot_plans.replace_spot_order(world, account, command, order_id, client_id)

    def place_spot_plan(self, account_id: str, command: SpotPlanCommand) -> PlanRecord:
        """A spot order that waits for a price: a TP/SL order or a trigger order."""
        world = self._world
        return spot_plans.place_spot_plan(world, world.acting(account_id), command)

    def modify_spot_plan(
        self,
        account_id: str,
        command: ModifyPlanCommand,
        *,
        plan_id: str | None = None,
        client_id: str | None = None,
    ) -> PlanRecord:
        """Change a waiting trigger order; PLAN_UNKNOWN otherwise."""
        world = self._world
        account = world.acting(account_id)
        return spot_plans.modify_spot_plan(world, account, command, plan_id, client_id)

    def cancel_spot_plan(
        self,
        account_id: str,
        *,
        plan_id: str | None = None,
        client_id: str | None = None,
        kind: PlanType = PlanType.SPOT_PLAN,
    ) -> PlanRecord:
        """End a waiting spot plan of `kind`; PLAN_UNKNOWN otherwise."""
        world = self._world
        account = world.acting(account_id)
        return spot_plans.cancel_spot_plan(world, account, plan_id, client_id, kind)

    def cancel_all_spot(self, account_id: str, symbol: str | None = None) -> list[OrderRecord]:
        """Cancel every live spot order (of one symbol)."""
        return self._cancel_all(account_id, MarketType.SPOT, symbol)

    def _cancel_all(
        self, account_id: str, market: MarketType, symbol: str | None
    ) -> list[OrderRecord]:
        world = self._world
        account = world.acting(account_id)
        chosen = [
            order
            for order in account.open_orders.values()
            if order.market is market and symbol in (None, order.symbol)
        ]
        for order in chosen:
            cancel_by_id(world, account, market, order.order_id, None)
        return chosen

    # -- stops and plans ----------------------------------------------------------------------

    def place_position_stop(self, account_id: str, command: PositionStopCommand) -> PlanRecord:
        """Protect an open position. pos_*: placing again moves the stop and keeps its id."""
        world = self._world
        return stops.place_position_stop(world, world.acting(account_id), command)

    def place_position_stops(
        self, account_id: str, commands: Sequence[PositionStopCommand]
    ) -> list[PlanRecord]:
        """Several stops at once: all of them or, where one is refused, none."""
        world = self._world
        return stops.place_position_stops(world, world.acting(account_id), commands)

    def place_plan_order(self, account_id: str, command: PlanOrderCommand) -> PlanRecord:
        """An order that waits for its trigger price (normal_plan, track_plan)."""
        world = self._world
        return plans.place_plan_order(world, world.acting(account_id), command)

    def modify_plan(
        self,
        account_id: str,
        command: ModifyPlanCommand,
        *,
        plan_id: str | None = None,
        client_id: str | None = None,
    ) -> PlanRecord:
        """Change a live stop or plan in place; the id stays. PLAN_UNKNOWN otherwise."""
        world = self._world
        return stops.modify_plan(world, world.acting(account_id), command, plan_id, client_id)

    def cancel_plan(
        self, account_id: str, *, plan_id: str | None = None, client_id: str | None = None
    ) -> PlanRecord:
        """Cancel a live stop or plan; PLAN_UNKNOWN otherwise."""
        world = self._world
        return stops.cancel_plan(world, world.acting(account_id), plan_id, client_id)

    def cancel_plans(
        self, account_id: str, plan_types: frozenset[PlanType], symbol: str | None = None
    ) -> list[PlanRecord]:
        """Cancel every live plan of these types (of one symbol); [] if there is none."""
        world = self._world
        account = world.acting(account_id)
        chosen = [
            plan
            for plan in account.plans.values()
            if plan.plan_type in plan_types and symbol in (None, plan.symbol)
        ]
        return [stops.cancel_plan(world, account, plan.plan_id, None) for plan in chosen]

    # -- account settings ---------------------------------------------------------------------

    def set_leverage(
        self,
        account_id: str,
        symbol: str,
        leverage: Decimal,
        hold_side: PositionSide | None = None,
    ) -> LeverageView:
        """Set leverage (isolated: of one side when `hold_side` says so). Same again is success."""
        world = self._world
        account = world.acting(account_id)
        return settings_rules.set_leverage(world, account, symbol, leverage, hold_side)

    def set_leverages(
        self, account_id: str, symbol: str, wanted: Mapping[PositionSide, Decimal]
    ) -> LeverageView:
        """Set the leverage of both sides at once: all of it or, refused, nothing."""
        world = self._world
        account = world.acting(account_id)
        return settings_rules.set_leverages(world, account, symbol, wanted)

    def set_position_margin(
        self, account_id: str, symbol: str, hold_side: PositionSide | None, amount: Decimal
    ) -> None:
        """Put margin into an isolated position (negative: take out what it does not need)."""
        world = self._world
        account = world.acting(account_id)
        settings_rules.set_position_margin(world, account, symbol, hold_side, amount)

    def set_margin_mode(self, account_id: str, symbol: str, mode: MarginMode) -> LeverageView:
        """Crossed or isolated; MARGIN_MODE_BUSY with a position or order on the symbol."""
        world = self._world
        return settings_rules.set_margin_mode(world, world.acting(account_id), symbol, mode)

    def set_position_mode(self, account_id: str, mode: PositionMode) -> PositionMode:
        """One-way or hedge; POSITION_MODE_BUSY with any position, order or plan."""
        world = self._world
        return settings_rules.set_position_mode(world, world.acting(account_id), mode)

    # -- test hook ----------------------------------------------------------------------------

    def disturb(self, event: Callable[[World], bool]) -> bool:
        """Let a scripted fault happen now, with all that follows from it; whether it changed
        anything."""
        world = self._world
        changed = event(world)
        if changed:
            self._process_moment()
        return changed

    def set_trigger_gate(self, gate: Callable[[PlanRecord], None]) -> None:
        """`gate` is asked before the order of a fired plan is made; EngineRejected refuses it."""
        self._world.trigger_gate = gate

    def jump_price(
        self, symbol: str, factor: Decimal, kinds: frozenset[PriceKind] = ALL_PRICES
    ) -> Decimal:
        """From now on the price of `symbol` is `factor` times what its source says.

        Acts at once on orders, stops and margins. Jumps multiply. Returns the new last price.
        """
        if factor <= 0:
            raise EngineRejected(RejectReason.VALUE_INVALID, f"factor {factor} must be above 0")
        world = self._world
        world.require_known(symbol)
        world.prices.jump(symbol, world.now_ms, factor, kinds)
        world.touch(symbol)
        self._process_moment()
        return world.prices.require_last(symbol, world.now_ms)


def hold_side_of(position_side: PositionSide, mode: PositionMode) -> HoldSide:
    """The word that stop orders use for a position: long is `long` in hedge, `buy` one-way."""
    if mode is PositionMode.HEDGE:
        return HoldSide(position_side.value)
    return HoldSide.BUY if position_side is PositionSide.LONG else HoldSide.SELL
