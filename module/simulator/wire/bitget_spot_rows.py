"""Bitget's spot rows: the engine's records as the exchange spells them; see bitget_rows."""

from __future__ import annotations

from module.simulator.engine.engine_records import (
    FillRecord,
    OrderRecord,
    PlanRecord,
    SpotBalanceView,
)
from module.simulator.engine.engine_types import MarketType, OrderStatus, PlanStatus, PresetStop
from module.simulator.prices.instruments import base_coin_of
from module.simulator.wire.bitget_rows import (
    MARGIN_COIN,
    Row,
    number,
    shown_cancel_reason,
    shown_times,
)


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
        **_pair_fields(order),
        "cancelReason": shown_cancel_reason(order),
        **shown_times(order.created_ms, order.updated_ms),
    }


def _pair_fields(order: OrderRecord | PlanRecord) -> Row:
    """What the live exchange adds to the documented row; null is no trigger."""
    trigger = order.trigger_price
    return {
        "tpslType": "normal" if trigger is None else "tpsl",
        "triggerPrice": None if trigger is None else number(trigger),
        "quoteCoin": MARGIN_COIN,
        "baseCoin": base_coin_of(order.symbol, MARGIN_COIN),
    }


def waiting_order_row(plan: PlanRecord) -> Row:
    """A TP/SL order that has not fired, as `GET …/spot/trade/orderInfo` shows orders."""
    return {
        "userId": plan.account_id,
        "symbol": plan.symbol,
        "orderId": plan.plan_id,
        "clientOid": plan.client_id,
        "price": number(plan.price) or "0",
        "size": number(plan.size),
        "orderType": plan.order_type.value,
        "side": plan.side.value,
        "status": "live" if plan.status is PlanStatus.LIVE else "cancelled",
        "priceAvg": "0",
        "baseVolume": "0",
        "quoteVolume": "0",
        "enterPointSource": "API",
        "feeDetail": "",
        "orderSource": "normal",
        **_pair_fields(plan),
        "cancelReason": "" if plan.status is PlanStatus.LIVE else "normal_cancel",
        **shown_times(plan.created_ms, plan.updated_ms),
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
        "triggerPrice": number(order.trigger_price),
        "tpslType": "normal" if order.trigger_price is None else "tpsl",
        **_presets(order.take_profit, order.stop_loss),
        "orderSource": order.source.value,
        **shown_times(order.created_ms, order.updated_ms),
    }


def waiting_open_row(plan: PlanRecord) -> Row:
    """A TP/SL order that waits, as unfilled-orders shows it."""
    return {
        "userId": plan.account_id,
        "symbol": plan.symbol,
        "orderId": plan.plan_id,
        "clientOid": plan.client_id,
        "priceAvg": number(plan.price) or "0",
        "size": number(plan.size),
        "orderType": plan.order_type.value,
        "side": plan.side.value,
        "status": "live",
        "basePrice": "0",
        "baseVolume": "0",
        "quoteVolume": "0",
        "enterPointSource": "API",
        "triggerPrice": number(plan.trigger_price),
        "tpslType": "tpsl",
        **_presets(None, None),
        "orderSource": "normal",
        **shown_times(plan.created_ms, plan.updated_ms),
    }


def _presets(take_profit: PresetStop | None, stop_loss: PresetStop | None) -> Row:
    row: Row = {}
    for name, stop in (("TakeProfit", take_profit), ("StopLoss", stop_loss)):
        row[f"preset{name}Price"] = number(stop.trigger_price) if stop else ""
        row[f"execute{name}Price"] = number(stop.execute_price) if stop else ""
    return row


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
        "amount": number(fill.price * fill.size),  # what the wallet paid or got: not truncated
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
