"""The router: one row per endpoint. Limits are per second, of the account or of the address."""

from __future__ import annotations

from module.simulator.venue import Endpoint, Handler
from module.simulator.wire import bitget_account as account
from module.simulator.wire import bitget_book as book
from module.simulator.wire import bitget_candles as candles
from module.simulator.wire import bitget_funding as funding
from module.simulator.wire import bitget_instruments as instruments
from module.simulator.wire import bitget_market as market
from module.simulator.wire import bitget_orders as orders
from module.simulator.wire import bitget_plans as plans
from module.simulator.wire import bitget_spot as spot
from module.simulator.wire import bitget_spot_plans as spot_plans
from module.simulator.wire import bitget_wallet as wallet

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
    _public(f"{_MIX}/market/merge-depth", book.merge_depth),
    _public(f"{_MIX}/market/candles", candles.candles),
    _public(f"{_MIX}/market/history-candles", candles.history_candles),
    _public(f"{_MIX}/market/history-mark-candles", candles.history_mark_candles),
    _public(f"{_MIX}/market/history-index-candles", candles.history_index_candles),
    _public(f"{_MIX}/market/current-fund-rate", funding.current_funding),
    _public(f"{_MIX}/market/history-fund-rate", funding.funding_history),
    _public(f"{_MIX}/market/funding-time", funding.funding_time),
    _public(f"{_MIX}/market/open-interest", funding.open_interest),
    _public(f"{_MIX}/market/fills", book.public_trades),
    _public(f"{_MIX}/market/fills-history", book.public_trades_history),
    _public(f"{_MIX}/market/vip-fee-rate", funding.mix_fee_levels),
    _public(f"{_SPOT}/public/symbols", instruments.spot_symbols),
    _public(f"{_SPOT}/public/coins", instruments.spot_coins, 3),
    _public("/api/v2/margin/currencies", instruments.no_rows),
    _public(f"{_SPOT}/market/tickers", market.spot_tickers),
    _public(f"{_SPOT}/market/orderbook", book.spot_order_book),
    _public(f"{_SPOT}/market/candles", candles.spot_candles),
    _public(f"{_SPOT}/market/history-candles", candles.spot_history_candles),
    _public(f"{_SPOT}/market/merge-depth", book.spot_merge_depth),
    _public(f"{_SPOT}/market/fills", book.spot_public_trades),
    _public(f"{_SPOT}/market/fills-history", book.spot_public_trades_history),
    _public(f"{_SPOT}/market/vip-fee-rate", funding.spot_fee_levels),
    # account
    _read("/api/v2/common/trade-rate", funding.trade_rate, 10, "coor"),
    _read("/api/v2/common/all-trade-rate", funding.all_trade_rates, 10, "coor"),
    _read(f"{_MIX}/account/accounts", account.accounts, 10, "coor"),
    _read(f"{_MIX}/account/account", account.account, 10, "coor"),
    _read(f"{_MIX}/account/bill", account.bills, 10, "coor"),
    _read("/api/v2/account/all-account-balance", wallet.all_balances, 1, "stor"),
    _read(f"{_SPOT}/account/info", wallet.spot_account_info, 1, "stor"),
    _read(f"{_SPOT}/account/assets", wallet.spot_assets, 10, "stor"),
    _read(f"{_SPOT}/account/bills", wallet.spot_bills, 10, "stor"),
    _read(f"{_SPOT}/account/transferRecords", wallet.transfer_records, 20, "stor"),
    _read(f"{_SPOT}/wallet/transfer-coin-info", wallet.transfer_coins, 10, "stor", "spot"),
    _write(f"{_SPOT}/wallet/transfer", wallet.transfer, 10, "stow", "spot"),
    _write(f"{_MIX}/account/set-leverage", account.set_leverage, 5, "coow"),
    _write(f"{_MIX}/account/set-margin", account.set_margin, 5, "coow", "margin"),
    _write(f"{_MIX}/account/set-asset-mode", account.set_asset_mode, 5, "coow"),
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
    _write(
        f"{_MIX}/order/cancel-all-orders",
        orders.cancel_all_orders,
        10,
        "coow",
        receive_window=True,
    ),
    _write(f"{_MIX}/order/click-backhand", orders.click_backhand, 10, "coow"),
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
    _write(f"{_SPOT}/trade/cancel-replace-order", spot.cancel_replace_order, 5, "stow", "spot"),
    _write(
        f"{_SPOT}/trade/batch-cancel-replace-order", spot.batch_cancel_replace, 5, "stow", "spot"
    ),
    _write(f"{_SPOT}/trade/place-plan-order", spot_plans.place_plan_order, 20, "stow", "spot"),
    _write(f"{_SPOT}/trade/modify-plan-order", spot_plans.modify_plan_order, 20, "stow", "spot"),
    _write(f"{_SPOT}/trade/cancel-plan-order", spot_plans.cancel_plan_order, 20, "stow", "spot"),
    _write(
        f"{_SPOT}/trade/batch-cancel-plan-order",
        spot_plans.batch_cancel_plan_order,
        5,
        "stow",
        "spot",
    ),
    _read(f"{_SPOT}/trade/current-plan-order", spot_plans.current_plans, 20, "stor", "spot"),
    _read(f"{_SPOT}/trade/history-plan-order", spot_plans.plan_history, 20, "stor", "spot"),
    _read(f"{_SPOT}/trade/plan-sub-order", spot_plans.plan_sub_order, 20, "stor", "spot"),
    _read(f"{_SPOT}/trade/orderInfo", spot.order_info, 20, "stor", "spot"),
    _read(f"{_SPOT}/trade/unfilled-orders", spot.unfilled_orders, 20, "stor", "spot"),
    _read(f"{_SPOT}/trade/history-orders", spot.history_orders, 20, "stor", "spot"),
    _read(f"{_SPOT}/trade/fills", spot.fills, 10, "stor", "spot"),
)

ENDPOINTS: dict[str, Endpoint] = {row.name: row for row in _ROWS}
