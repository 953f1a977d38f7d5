"""How a spot order is accepted, and what is free in a spot wallet."""

from __future__ import annotations

from decimal import ROUND_UP, Decimal

from module.simulator.engine import order_checks
from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import OrderRecord, PlanRecord
from module.simulator.engine.engine_types import (
    EngineRejected,
    MarginMode,
    MarketType,
    OrderSource,
    OrderType,
    PositionSide,
    RejectReason,
    Side,
    SpotOrderCommand,
)
from module.simulator.engine.ledger import WalletKey
from module.simulator.engine.margin import MONEY_STEP
from module.simulator.engine.order_entry import submit_order
from module.simulator.engine.world import World
from module.simulator.prices.instruments import SpotInstrument

ZERO = Decimal(0)


def locked_coin(world: World, order: OrderRecord | PlanRecord) -> str:
    """The coin that a waiting or live spot order reserves: quote for buys, base for sells."""
    rules = world.spot[order.symbol]
    return rules.quote_coin if order.side is Side.BUY else rules.base_coin


def spot_frozen(world: World, account: AccountState, coin: str) -> Decimal:
    """What live spot orders and waiting TP/SL orders reserve of `coin`."""
    frozen = ZERO
    for order in account.open_orders.values():
        if order.market is MarketType.SPOT and locked_coin(world, order) == coin:
            frozen += order.locked
    for plan in account.plans.values():
        if plan.locked and locked_coin(world, plan) == coin:
            frozen += plan.locked
    return frozen


def spot_available(world: World, account: AccountState, coin: str) -> Decimal:
    """What is in the wallet and not reserved."""
    wallet = WalletKey(account.account_id, MarketType.SPOT, coin)
    return world.ledger.balance(wallet) - spot_frozen(world, account, coin)


def needed_coins(
    rules: SpotInstrument, command: SpotOrderCommand, reference: Decimal
) -> tuple[str, Decimal]:
    """What an order reserves: quote coin at `reference` (buys) or the base coin that it sells."""
    if command.side is Side.SELL:
        return rules.base_coin, command.size
    quote_sized = command.order_type is OrderType.MARKET
    cost = command.size if quote_sized else command.size * reference
    return rules.quote_coin, cost.quantize(MONEY_STEP, rounding=ROUND_UP)


def require_coins(world: World, account: AccountState, coin: str, amount: Decimal) -> None:
    """Refuse what the wallet has not free."""
    free = spot_available(world, account, coin)
    if amount > free:
        raise EngineRejected(
            RejectReason.INSUFFICIENT_BALANCE, f"needs {amount} {coin}, {free} are available"
        )


def accept_spot_order(
    world: World,
    account: AccountState,
    command: SpotOrderCommand,
    source: OrderSource | None = None,
    *,
    waited: PlanRecord | None = None,
) -> OrderRecord:
    """Check the words, reserve the coin, and send the order on its way.

    `waited`: the TP/SL order that has fired; its ids go on in the order.
    """
    rules = world.spot_rules(command.symbol)
    if command.client_id is not None:
        world.claim_client_id(account.client_ids, MarketType.SPOT, command.client_id)
    check_shape(rules, command)
    last = world.require_trading(command.symbol)
    limit = command.price if command.order_type is OrderType.LIMIT else None
    if limit is not None:
        order_checks.check_band(limit, last, rules.price_band)
    live = account.live_orders(command.symbol, MarketType.SPOT)
    if len(live) >= world.settings.open_orders_max:
        raise EngineRejected(RejectReason.TOO_MANY_ORDERS, f"{len(live)} live orders")
    reference = limit if limit is not None else last
    quote_sized = command.order_type is OrderType.MARKET and command.side is Side.BUY
    notional = command.size if quote_sized else command.size * reference
    order_checks.check_notional(notional, rules.notional_min)
    _check_presets(command, reference)
    coin, locked = needed_coins(rules, command, reference)
    require_coins(world, account, coin, locked)
    order = _build(world, account, rules, command, waited)
    order.source = source or order.source
    order.locked = locked
    return submit_order(world, account, order)


def _check_presets(command: SpotOrderCommand, reference: Decimal) -> None:
    """Attached stops sell what a purchase has bought; they lie on their side of its price."""
    if command.take_profit is None and command.stop_loss is None:
        return
    if command.side is Side.SELL:
        raise EngineRejected(RejectReason.VALUE_INVALID, "a sale has no attached stops")
    order_checks.check_preset_sides(command, command.side.sign, reference)


def check_shape(rules: SpotInstrument, command: SpotOrderCommand) -> None:
    """Steps and limits of a spot order, without looking at the market."""
    order_checks.check_price_type(command.order_type, command.price)
    if command.order_type is OrderType.MARKET and command.side is Side.BUY:
        order_checks.check_size_step(command.size, Decimal(1).scaleb(-rules.quote_precision))
    else:
        order_checks.check_size_step(command.size, rules.size_step, rules.size_min)
        order_checks.check_size_max(command.size, rules.size_max)
    if command.order_type is OrderType.LIMIT and command.price is not None:
        order_checks.check_price_step(command.price, rules.price_step, "price")
    for preset in (command.take_profit, command.stop_loss):
        if preset is not None:
            order_checks.check_preset_steps(preset, rules.price_step)


def _build(
    world: World,
    account: AccountState,
    rules: SpotInstrument,
    command: SpotOrderCommand,
    waited: PlanRecord | None,
) -> OrderRecord:
    market = command.order_type is OrderType.MARKET
    if waited is not None:
        order_id = waited.plan_id
    else:
        order_id = world.new_order_id(account.account_id, MarketType.SPOT, command.symbol)
    client_id = waited.client_id if waited is not None else command.client_id
    return OrderRecord(
        order_id=order_id,
        client_id=client_id or order_id,
        account_id=account.account_id,
        market=MarketType.SPOT,
        symbol=command.symbol,
        side=command.side,
        direction=command.side.sign,
        order_type=command.order_type,
        force=command.force,
        size=command.size,
        price=None if market else command.price,
        position_side=PositionSide.NET,
        trade_side=None,
        reduce_only=False,
        margin_mode=MarginMode.CROSSED,
        position_mode=account.position_mode,
        leverage=Decimal(1),
        source=OrderSource.MARKET if market else OrderSource.NORMAL,
        take_profit=command.take_profit,
        stop_loss=command.stop_loss,
        stp_mode=command.stp_mode,
        created_ms=world.now_ms,
        updated_ms=world.now_ms,
        arrives_ms=world.now_ms + world.settings.latency_ms,
        fee_coin=rules.base_coin if command.side is Side.BUY else rules.quote_coin,
    )
