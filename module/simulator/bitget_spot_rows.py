"""Bitget's spot rows: the engine's records as the exchange spells them; see bitget_rows."""

from __future__ import annotations

from module.simulator.bitget_rows import Row, number, shown_cancel_reason, shown_times
from module.simulator.engine_records import FillRecord, OrderRecord, SpotBalanceView
from module.simulator.engine_types import MarketType, OrderStatus


def spot_status(status: OrderStatus) -> str:
    """Spot writes cancelled with two l."""
    return "cancelled" if status is OrderStatus.CANCELED else status.value


def spot_asset_row(balance: SpotBalanceView) -> Row:
    """A row of `GET …/spot/account/assets`."""
    return {
        "coin": balance.coin,
        "available": number(balance.available),
        "frozen": number(balance.frozen),
        "locked": "0",
        "limitAvailable": "0",
        "uTime": str(balance.updated_ms),
    }


def spot_order_row(order: OrderRecord) -> Row:
    """A row of `GET …/spot/trade/orderInfo` and of history-orders; feeDetail is a JSON string."""
    return {
        "userId": order.account_id,
        "symbol": order.symbol,
        "orderId": order.order_id,
        "clientOid": order.client_id,
        "price": number(order.price) or "0",
        "size": number(order.size),
        "orderType": order.order_type.value,
        "side": order.side.value,
        "status": spot_status(order.status),
        "priceAvg": number(order.average_price) or "0",
        "baseVolume": number(order.filled_size),
        "quoteVolume": number(order.filled_cost),
        "enterPointSource": "API",
        "feeDetail": _spot_fee_text(order),
        "orderSource": order.source.value,
        "cancelReason": shown_cancel_reason(order),
        **shown_times(order.created_ms, order.updated_ms),
    }


def spot_open_order_row(order: OrderRecord) -> Row:
    """A row of `GET …/spot/trade/unfilled-orders`: the limit price sits in priceAvg."""
    return {
        "userId": order.account_id,
        "symbol": order.symbol,
        "orderId": order.order_id,
        "clientOid": order.client_id,
        "priceAvg": number(order.price) or "0",
        "size": number(order.size),
        "orderType": order.order_type.value,
        "side": order.side.value,
        "status": spot_status(order.status),
        "basePrice": number(order.average_price) or "0",
        "baseVolume": number(order.filled_size),
        "quoteVolume": number(order.filled_cost),
        "enterPointSource": "API",
        "triggerPrice": "",
        "tpslType": "normal",
        "presetTakeProfitPrice": "",
        "executeTakeProfitPrice": "",
        "presetStopLossPrice": "",
        "executeStopLossPrice": "",
        "orderSource": order.source.value,
        **shown_times(order.created_ms, order.updated_ms),
    }


def spot_fill_row(fill: FillRecord) -> Row:
    """A row of `GET …/spot/trade/fills`: feeDetail is an object."""
    return {
        "userId": fill.account_id,
        "symbol": fill.symbol,
        "orderId": fill.order_id,
        "tradeId": fill.trade_id,
        "orderType": fill.order_type.value,
        "side": fill.side.value,
        "priceAvg": number(fill.price),
        "size": number(fill.size),
        "amount": number(fill.quote_volume),
        "feeDetail": {
            "deduction": "no",
            "feeCoin": fill.fee_coin,
            "totalDeductionFee": "",
            "totalFee": number(fill.fee),
        },
        "tradeScope": fill.scope.value,
        **shown_times(fill.at_ms, fill.at_ms),
    }


def _spot_fee_text(order: OrderRecord) -> str:
    if not order.filled_size or order.market is not MarketType.SPOT:
        return ""
    fee = number(order.fee)
    coin = f'"{order.fee_coin}":{{"deduction":false,"feeCoinCode":"{order.fee_coin}",'
    new = f'"newFees":{{"c":0,"d":0,"deduction":false,"r":{fee},"t":{fee},"totalDeductionFee":0}}'
    return f'{{{new},{coin}"totalDeductionFee":0,"totalFee":{fee}}}}}'
