"""How a spot order is accepted, and what is free in a spot wallet."""

from __future__ import annotations

from decimal import ROUND_UP, Decimal

from module.simulator import order_checks
from module.simulator.engine_records import OrderRecord
from module.simulator.engine_types import (
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
from module.simulator.instruments import SpotInstrument
from module.simulator.ledger import WalletKey
from module.simulator.margin import MONEY_STEP
from module.simulator.order_entry import submit_order
from module.simulator.world import AccountState, World

ZERO = Decimal(0)


def locked_coin(world: World, order: OrderRecord) -> str:
    """The coin that a live spot order reserves: quote for buys, base for sells."""
    rules = world.spot[order.symbol]
    return rules.quote_coin if order.side is Side.BUY else rules.base_coin


def spot_frozen(world: World, account: AccountState, coin: str) -> Decimal:
    """What live spot orders reserve of `coin`."""
    return sum(
        (
            order.locked
            for order in account.open_orders.values()
            if order.market is MarketType.SPOT and locked_coin(world, order) == coin
        ),
        ZERO,
    )


def spot_available(world: World, account: AccountState, coin: str) -> Decimal:
    """What is in the wallet and not reserved."""
    wallet = WalletKey(account.account_id, MarketType.SPOT, coin)
    return world.ledger.balance(wallet) - spot_frozen(world, account, coin)


def accept_spot_order(
    world: World, account: AccountState, command: SpotOrderCommand
) -> OrderRecord:
    """Check the words, reserve the coin, and send the order on its way."""
    rules = world.spot_rules(command.symbol)
    if command.client_id is not None:
        world.claim_client_id(account.client_ids, MarketType.SPOT, command.client_id)
    _check_shape(rules, command)
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
    if command.side is Side.BUY:
        coin = rules.quote_coin
        locked = notional.quantize(MONEY_STEP, rounding=ROUND_UP)
    else:
        coin, locked = rules.base_coin, command.size
    free = spot_available(world, account, coin)
    if locked > free:
        raise EngineRejected(
            RejectReason.INSUFFICIENT_BALANCE, f"needs {locked} {coin}, {free} are available"
        )
    order = _build(world, account, rules, command)
    order.locked = locked
    return submit_order(world, account, order)


def _check_shape(rules: SpotInstrument, command: SpotOrderCommand) -> None:
    order_checks.check_price_type(command.order_type, command.price)
    if command.order_type is OrderType.MARKET and command.side is Side.BUY:
        order_checks.check_size_step(command.size, Decimal(1).scaleb(-rules.quote_precision))
    else:
        order_checks.check_size_step(command.size, rules.size_step)
        order_checks.check_limits(command.size, rules.size_min, rules.size_max)
    if command.order_type is OrderType.LIMIT and command.price is not None:
        order_checks.check_price_step(command.price, rules.price_step, "price")


def _build(
    world: World, account: AccountState, rules: SpotInstrument, command: SpotOrderCommand
) -> OrderRecord:
    market = command.order_type is OrderType.MARKET
    return OrderRecord(
        order_id=world.new_id(),
        client_id=command.client_id or world.new_id(),
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
        take_profit=None,
        stop_loss=None,
        created_ms=world.now_ms,
        updated_ms=world.now_ms,
        arrives_ms=world.now_ms + world.settings.latency_ms,
        fee_coin=rules.base_coin if command.side is Side.BUY else rules.quote_coin,
    )
