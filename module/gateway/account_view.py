"""What the last gate needs to know of an account before orders leave; readings are seconds old.

Modes of a symbol are read anew before the first order of each epoch, so that a session never opens
under a leverage, margin mode, position mode or asset mode that nobody has looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal

from module.exchange.venue import Ability, Priority, TradingMode
from module.gateway.account_desk import ONE_WAY_HINT, AccountDesk
from module.gateway.limits import AccountView, Refusal
from module.gateway.owned_account import OwnedAccount
from module.model.accounts import Position, PositionMode
from module.model.errors import Conflict, Unavailable
from module.model.market import MarketType
from module.model.orders import OrderRequest

MODE_FRESH_S = 300.0
MODE_FIRST_S = 30.0
SKEW_MAX_S = 30.0
SINGLE_ASSET_HINT = (
    "the account shares collateral between coins (asset mode union), which is not traded here: "
    "while it is flat, switch it at the exchange (Bitget: Futures, Settings, Asset mode, Single)"
)


def read_view(
    desk: AccountDesk, owned: OwnedAccount, orders: Sequence[OrderRequest]
) -> AccountView:
    """Positions, prices, rules, leverages. Conflict in hedge mode or with shared collateral.

    For a batch that only reduces, readings that fail are left out: reduce-only on the wire
    protects what cannot be checked here.
    """
    now = desk.clock.now()
    opening = {order.symbol for order in orders if not order.reduce_only}
    priority = Priority.ORDER if opening else Priority.CANCEL
    instruments = owned.venue.instruments()
    leverages: dict[str, Decimal] = {}
    positions: Mapping[str, Position] | None = {}
    if owned.venue.market is MarketType.FUTURES:
        for symbol in sorted({order.symbol for order in orders} & set(instruments)):
            mode = _mode(owned, symbol, priority, must=symbol in opening)
            if mode is not None:
                leverages[symbol] = mode.settings.leverage
        symbols = {order.symbol for order in orders}
        positions = _positions(desk, owned, priority, symbols, must=bool(opening))
    elif opening:  # what is held of a coin counts toward the cap of one position
        positions = _positions(desk, owned, priority, opening, must=True)
    quotes = desk.read_quotes(owned, opening & set(instruments)) if opening else {}
    return AccountView(
        market=owned.venue.market,
        positions=positions,
        in_flight=owned.exposure_in_flight(now),
        quotes=quotes,
        instruments=instruments,
        leverages=leverages,
        orders_last_minute=owned.orders_last_minute(now),
        has_stop_orders=Ability.STOPS in owned.venue.abilities,
    )


def held_back(owned: OwnedAccount, order: OrderRequest) -> Refusal | None:
    """Why this account opens nothing (or not this symbol) now, whatever its limits say."""
    if order.reduce_only:
        return None
    if owned.halted:
        return Refusal("halted", f"{owned.halted}; start the session again once it is understood")
    if order.symbol in owned.paused:
        return Refusal("paused", f"{owned.paused[order.symbol]}; start the session again to go on")
    if order.symbol in owned.bare:
        return Refusal("unprotected", f"{owned.bare[order.symbol]}; nothing is added to it")
    if abs(owned.skew_s) > SKEW_MAX_S:
        return Refusal(
            "clock-skew",
            f"our clock and the exchange's differ by {owned.skew_s:+.1f} s, more than "
            f"{SKEW_MAX_S:g} s: nothing opens until they agree; set this machine's clock (NTP)",
        )
    return None


def check_mode(account_id: str, mode: TradingMode, *, opens: bool = True) -> None:
    """Conflict, with the way to change it, for a mode that is not traded here. Whose collateral it
    is does not matter to what closes."""
    if mode.position_mode is PositionMode.HEDGE:
        raise Conflict(f"account {account_id} is in hedge mode; {ONE_WAY_HINT}")
    if mode.shares_collateral and opens:
        raise Conflict(f"account {account_id}: {SINGLE_ASSET_HINT}")


def _mode(
    owned: OwnedAccount, symbol: str, priority: Priority, *, must: bool
) -> TradingMode | None:
    is_first = symbol not in owned.verified
    try:
        mode = owned.venue.trading_mode(
            symbol, max_age_s=MODE_FIRST_S if is_first else MODE_FRESH_S, priority=priority
        )
    except Unavailable:
        if must:
            raise
        return None
    check_mode(owned.account_id, mode, opens=must)
    if not mode.shares_collateral:
        with owned.lock:
            owned.verified.add(symbol)
    return mode


def _positions(
    desk: AccountDesk,
    owned: OwnedAccount,
    priority: Priority,
    symbols: Collection[str],
    *,
    must: bool,
) -> Mapping[str, Position] | None:
    fresh = owned.fresh_positions(symbols, desk.clock.now())
    if fresh is not None:
        return fresh
    try:
        return desk.read_positions(owned, priority)
    except Unavailable:
        if must:
            raise
        return None
