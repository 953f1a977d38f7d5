"""Bitget's spot trigger orders: place, modify, cancel, look up. They lock nothing while they wait.

The order that a trigger order makes has an id of its own and the plan's id as clientOid.
"""

from __future__ import annotations

from collections.abc import Sequence

from module.simulator.engine.engine_records import OrderRecord, PlanRecord
from module.simulator.engine.engine_types import (
    MarketType,
    ModifyPlanCommand,
    OrderType,
    PlanStatus,
    PlanType,
    SpotPlanCommand,
    TriggerType,
)
from module.simulator.venue import Call
from module.simulator.wire.bitget_codes import WireError
from module.simulator.wire.bitget_orders import BATCH_MAX
from module.simulator.wire.bitget_pages import HISTORY_REACH_MS, page
from module.simulator.wire.bitget_params import Params, missing, wrong
from module.simulator.wire.bitget_plans import sub_order_rows
from module.simulator.wire.bitget_rows import Row, number, shown_times
from module.simulator.wire.bitget_spot import spot_command, spot_symbol

_KINDS = frozenset({PlanType.SPOT_PLAN})
_STATUSES = {
    PlanStatus.LIVE: "not_trigger",
    PlanStatus.EXECUTED: "executed",
    PlanStatus.FAIL_EXECUTE: "fail_trigger",
    PlanStatus.CANCELLED: "cancelled",
}


def place_plan_order(call: Call) -> object:
    """`POST /api/v2/spot/trade/place-plan-order`: planType total counts the size in quote coin."""
    params = call.params
    spot_symbol(call, params)
    kind = (params.text("planType") or "amount").lower()
    if kind not in ("amount", "total"):
        raise wrong("planType", kind)
    trigger_type = _trigger_type(params)
    plan = call.engine.place_spot_plan(
        call.account_id,
        SpotPlanCommand(
            order=spot_command(params, price="executePrice"),
            trigger_price=params.needed_positive("triggerPrice"),
            trigger_type=trigger_type,
            in_quote=kind == "total",
        ),
    )
    return _ids_of(plan)


def _trigger_type(params: Params) -> TriggerType:
    """fill_price or mark_price; the documents' sample says market_price."""
    if (params.text("triggerType") or "").lower() == "market_price":
        return TriggerType.FILL_PRICE
    return params.choice("triggerType", TriggerType) or TriggerType.FILL_PRICE


def modify_plan_order(call: Call) -> object:
    """`POST /api/v2/spot/trade/modify-plan-order`: 43025 when there is no such plan."""
    params = call.params
    plan_id, client_id = _ids(params)
    command = ModifyPlanCommand(
        new_trigger_price=params.positive("triggerPrice"),
        new_size=params.positive("size"),
        new_execute_price=params.positive("executePrice"),
        new_order_type=params.choice("orderType", OrderType),
    )
    plan = call.engine.modify_spot_plan(
        call.account_id, command, plan_id=plan_id, client_id=client_id
    )
    return _ids_of(plan)


def cancel_plan_order(call: Call) -> object:
    """`POST /api/v2/spot/trade/cancel-plan-order`."""
    plan_id, client_id = _ids(call.params)
    call.engine.cancel_spot_plan(call.account_id, plan_id=plan_id, client_id=client_id)
    return {"result": "success"}


def batch_cancel_plan_order(call: Call) -> object:
    """`POST /api/v2/spot/trade/batch-cancel-plan-order`: all of the named pairs, or all."""
    symbols = _symbols(call.params)
    plans = [
        plan
        for plan in call.engine.plans(call.account_id, _KINDS)
        if symbols is None or plan.symbol in symbols
    ]
    for plan in plans:
        call.engine.cancel_spot_plan(call.account_id, plan_id=plan.plan_id)
    return {"successList": [_ids_of(plan) for plan in plans], "failureList": []}


def _symbols(params: Params) -> frozenset[str] | None:
    value = params.values.get("symbolList")
    if value is None or value == []:
        return None
    if not isinstance(value, list) or len(value) > BATCH_MAX:
        raise wrong("symbolList", value)
    if not all(isinstance(symbol, str) for symbol in value):
        raise wrong("symbolList", value)
    return frozenset(str(symbol).upper() for symbol in value)


# -- questions --------------------------------------------------------------------------------


def current_plans(call: Call) -> object:
    """`GET /api/v2/spot/trade/current-plan-order`: those that wait."""
    plans = call.engine.plans(call.account_id, _KINDS, call.params.optional_symbol())
    return _page(call, plans, limit=20)


def plan_history(call: Call) -> object:
    """`GET /api/v2/spot/trade/history-plan-order`: fired, failed and cancelled, 90 days back."""
    earliest_ms = call.now_ms - HISTORY_REACH_MS
    symbol = call.params.optional_symbol()
    plans = [
        plan
        for plan in call.engine.plan_history(call.account_id, _KINDS, symbol)
        if plan.updated_ms >= earliest_ms
    ]
    return _page(call, sorted(plans, key=lambda plan: int(plan.plan_id)), limit=100)


def plan_sub_order(call: Call) -> object:
    """`GET /api/v2/spot/trade/plan-sub-order`: the order that a plan has made."""
    plan_id = call.params.needed("planOrderId")
    known = (
        *call.engine.plans(call.account_id, _KINDS),
        *call.engine.plan_history(call.account_id, _KINDS),
    )
    for plan in known:
        if plan.plan_id == plan_id:
            return sub_order_rows(plan, _executed(call, plan))
    raise WireError("43025", "Plan order does not exist")


def _executed(call: Call, plan: PlanRecord) -> OrderRecord | None:
    if not plan.execute_order_id:
        return None
    order_id = plan.execute_order_id
    return call.engine.order(call.account_id, order_id=order_id, market=MarketType.SPOT)


def _page(call: Call, plans: Sequence[PlanRecord], *, limit: int) -> Row:
    rows, end_id = page(
        plans,
        call.params,
        key=lambda plan: plan.plan_id,
        at_ms=lambda plan: plan.created_ms,
        limit=limit,
    )
    older = end_id is not None and any(int(plan.plan_id) < int(end_id) for plan in plans)
    return {
        "nextFlag": older,
        "idLessThan": end_id,
        "orderList": [_plan_row(plan) for plan in rows],
    }


def _plan_row(plan: PlanRecord) -> Row:
    return {
        "orderId": plan.plan_id,
        "clientOid": plan.client_id,
        "symbol": plan.symbol,
        "size": number(plan.size),
        "executePrice": number(plan.execute_price),
        "triggerPrice": number(plan.trigger_price),
        "status": _STATUSES[plan.status],
        "orderType": plan.order_type.value,
        "side": plan.side.value,
        "planType": "total" if plan.in_quote else "amount",
        "triggerType": plan.trigger_type.value,
        "enterPointSource": "API",
        **shown_times(plan.created_ms, plan.updated_ms),
    }


def _ids_of(plan: PlanRecord) -> Row:
    return {"orderId": plan.plan_id, "clientOid": plan.client_id}


def _ids(params: Params) -> tuple[str | None, str | None]:
    plan_id, client_id = params.text("orderId"), params.text("clientOid")
    if plan_id is None and client_id is None:
        raise missing("orderId")
    return plan_id, client_id
