"""The router: one row per endpoint. Limits are per second, of the account or of the address."""

from __future__ import annotations

from module.simulator import bitget_account as account
from module.simulator import bitget_instruments as instruments
from module.simulator import bitget_market as market
from module.simulator import bitget_orders as orders
from module.simulator import bitget_plans as plans
from module.simulator import bitget_spot as spot
from module.simulator.venue import Endpoint, Handler

_MIX = "/api/v2/mix"
_SPOT = "/api/v2/spot"


def _public(path: str, handler: Handler, limit_per_s: int = 20) -> Endpoint:
    return Endpoint("GET", path, handler, limit_per_s)


def _read(
    path: str, handler: Handler, limit_per_s: int, authority: str, family: str = "mix"
) -> Endpoint:
    return Endpoint("GET", path, handler, limit_per_s, authority, family)


def _write(
    path: str,
    handler: Handler,
    limit_per_s: int,
    authority: str,
    family: str = "mix",
    *,
    receive_window: bool = False,
) -> Endpoint:
    return Endpoint(
        "POST",
        path,
        handler,
        limit_per_s,
        authority,
        family,
        writes=True,
        receive_window=receive_window,
    )


_ROWS = (
    # market
    _public("/api/v2/public/time", market.server_time),
    _public(f"{_MIX}/market/contracts", instruments.contracts),
    _public(f"{_MIX}/market/query-position-lever", instruments.position_tiers),
    _public(f"{_MIX}/market/tickers", market.tickers),
    _public(f"{_MIX}/market/ticker", market.ticker),
    _public(f"{_MIX}/market/symbol-price", market.symbol_price),
    _public(f"{_MIX}/market/merge-depth", market.merge_depth),
    _public(f"{_MIX}/market/candles", market.candles),
    _public(f"{_MIX}/market/history-candles", market.history_candles),
    _public(f"{_MIX}/market/history-mark-candles", market.history_candles),
    _public(f"{_MIX}/market/history-index-candles", market.history_candles),
    _public(f"{_MIX}/market/current-fund-rate", market.current_funding),
    _public(f"{_MIX}/market/history-fund-rate", market.funding_history),
    _public(f"{_MIX}/market/funding-time", market.funding_time),
    _public(f"{_MIX}/market/open-interest", market.open_interest),
    _public(f"{_SPOT}/public/symbols", instruments.spot_symbols),
    _public(f"{_SPOT}/public/coins", instruments.spot_coins, 3),
    _public("/api/v2/margin/currencies", instruments.no_rows),
    _public(f"{_SPOT}/market/tickers", market.spot_tickers),
    _public(f"{_SPOT}/market/orderbook", market.spot_order_book),
    _public(f"{_SPOT}/market/candles", market.spot_candles),
    _public(f"{_SPOT}/market/history-candles", market.spot_history_candles),
    # account
    _read(f"{_MIX}/account/accounts", account.accounts, 10, "coor"),
    _read(f"{_MIX}/account/account", account.account, 10, "coor"),
    _read(f"{_MIX}/account/bill", account.bills, 10, "coor"),
    _read("/api/v2/account/all-account-balance", account.all_balances, 1, "stor"),
    _read(f"{_SPOT}/account/info", account.spot_account_info, 1, "stor"),
    _read(f"{_SPOT}/account/assets", account.spot_assets, 10, "stor"),
    _read(f"{_SPOT}/account/bills", account.spot_bills, 10, "stor"),
    _write(f"{_MIX}/account/set-leverage", account.set_leverage, 5, "coow"),
    _write(f"{_MIX}/account/set-margin-mode", account.set_margin_mode, 5, "coow"),
    _write(f"{_MIX}/account/set-position-mode", account.set_position_mode, 5, "coow"),
    # positions
    _read(f"{_MIX}/position/all-position", account.all_positions, 5, "cpor"),
    _read(f"{_MIX}/position/single-position", account.single_position, 10, "cpor"),
    _read(f"{_MIX}/position/history-position", account.position_history, 20, "cpor"),
    # futures orders
    _write(f"{_MIX}/order/place-order", orders.place_order, 10, "coow"),
    _write(f"{_MIX}/order/batch-place-order", orders.batch_place_order, 5, "coow"),
    _write(f"{_MIX}/order/modify-order", orders.modify_order, 10, "coow"),
    _write(f"{_MIX}/order/cancel-order", orders.cancel_order, 10, "coow"),
    _write(f"{_MIX}/order/batch-cancel-orders", orders.batch_cancel_orders, 10, "coow"),
    _write(f"{_MIX}/order/cancel-all-orders", orders.cancel_all_orders, 10, "coow"),
    _write(f"{_MIX}/order/close-positions", orders.close_positions, 1, "coow"),
    _read(f"{_MIX}/order/detail", orders.order_detail, 10, "coor", "detail"),
    _read(f"{_MIX}/order/orders-pending", orders.orders_pending, 10, "coor"),
    _read(f"{_MIX}/order/orders-history", orders.orders_history, 10, "coor"),
    _read(f"{_MIX}/order/fills", orders.fills, 10, "coor"),
    _read(f"{_MIX}/order/fill-history", orders.fill_history, 10, "coor"),
    # stops and trigger orders
    _write(f"{_MIX}/order/place-tpsl-order", plans.place_tpsl_order, 10, "coow", "stops"),
    _write(f"{_MIX}/order/place-pos-tpsl", plans.place_pos_tpsl, 10, "coow", "stops"),
    _write(f"{_MIX}/order/modify-tpsl-order", plans.modify_tpsl_order, 10, "coow", "stops"),
    _write(f"{_MIX}/order/place-plan-order", plans.place_plan_order, 10, "coow"),
    _write(f"{_MIX}/order/modify-plan-order", plans.modify_plan_order, 10, "coow", "stops"),
    _write(f"{_MIX}/order/cancel-plan-order", plans.cancel_plan_order, 10, "coow", "stops"),
    _read(f"{_MIX}/order/orders-plan-pending", plans.orders_plan_pending, 10, "coor"),
    _read(f"{_MIX}/order/orders-plan-history", plans.orders_plan_history, 10, "coor"),
    _read(f"{_MIX}/order/plan-sub-order", plans.plan_sub_order, 10, "coor", "stops"),
    # spot orders
    _write(f"{_SPOT}/trade/place-order", spot.place_order, 10, "stow", "spot", receive_window=True),
    _write(f"{_SPOT}/trade/batch-orders", spot.batch_orders, 5, "stow", "spot"),
    _write(f"{_SPOT}/trade/cancel-order", spot.cancel_order, 10, "stow", "spot"),
    _write(f"{_SPOT}/trade/batch-cancel-order", spot.batch_cancel_order, 10, "stow", "spot"),
    _write(f"{_SPOT}/trade/cancel-symbol-order", spot.cancel_symbol_order, 5, "stow", "spot"),
    _read(f"{_SPOT}/trade/orderInfo", spot.order_info, 20, "stor", "spot"),
    _read(f"{_SPOT}/trade/unfilled-orders", spot.unfilled_orders, 20, "stor", "spot"),
    _read(f"{_SPOT}/trade/history-orders", spot.history_orders, 20, "stor", "spot"),
    _read(f"{_SPOT}/trade/fills", spot.fills, 10, "stor", "spot"),
)

ENDPOINTS: dict[str, Endpoint] = {row.name: row for row in _ROWS}
