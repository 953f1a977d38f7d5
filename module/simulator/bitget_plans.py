"""Bitget's stop and trigger order endpoints.

A stop of a position is found and cancelled under its own planType; asking for another one is
answered with success and does nothing, as on the real exchange.
"""

from __future__ import annotations

from decimal import Decimal

from module.simulator.bitget_account import HISTORY_REACH_MS, is_usdt_futures, page, traded_symbol
from module.simulator.bitget_codes import WireError
from module.simulator.bitget_orders import (
    BATCH_MAX,
    each_alone,
    order_command,
    preset,
)
from module.simulator.bitget_params import Params, missing
from module.simulator.bitget_rows import Row, plan_history_row, plan_row
from module.simulator.engine_records import OrderRecord, PlanRecord
from module.simulator.engine_types import (
    EngineRejected,
    HoldSide,
    ModifyPlanCommand,
    PlanOrderCommand,
    PlanStatus,
    PlanType,
    PositionStopCommand,
    RejectReason,
    TriggerType,
)
from module.simulator.venue import Call

_STOP_TYPES = frozenset(kind for kind in PlanType if kind.protects_position)
_LISTS = {
    "normal_plan": frozenset({PlanType.NORMAL_PLAN}),
    "track_plan": frozenset({PlanType.TRACK_PLAN}),
    "profit_loss": _STOP_TYPES,
}


def _success(plan: PlanRecord) -> Row:
    return {"clientOid": plan.client_id, "orderId": plan.plan_id}


def _listed_types(params: Params) -> frozenset[PlanType]:
    name = params.needed("planType").lower()
    if name not in _LISTS:
        raise EngineRejected(RejectReason.PLAN_TYPE_UNSUPPORTED, name)
    return _LISTS[name]


# -- stops of positions -----------------------------------------------------------------------


def place_tpsl_order(call: Call) -> object:
    """`POST /api/v2/mix/order/place-tpsl-order`: pos_* placed again moves, under the same id."""
    symbol = traded_symbol(call)
    params = call.params
    name = params.needed("planType").lower()
    if name not in {kind.value for kind in _STOP_TYPES}:
        raise EngineRejected(RejectReason.PLAN_TYPE_UNSUPPORTED, name)
    plan = call.engine.place_position_stop(
        call.account_id,
        PositionStopCommand(
            symbol=symbol,
            plan_type=PlanType(name),
            hold_side=_hold_side(params),
            trigger_price=params.needed_positive("triggerPrice"),
            trigger_type=params.choice("triggerType", TriggerType) or TriggerType.FILL_PRICE,
            execute_price=params.positive("executePrice"),
            size=params.positive("size"),
            client_id=params.text("clientOid"),
        ),
    )
    return _success(plan)


def place_pos_tpsl(call: Call) -> object:
    """`POST /api/v2/mix/order/place-pos-tpsl`: take profit, stop loss, or both of a position."""
    symbol = traded_symbol(call)
    params = call.params
    rows: list[Row] = []
    for word, plan_type, key in (
        ("stopSurplus", PlanType.POS_PROFIT, "stopSurplusClientOid"),
        ("stopLoss", PlanType.POS_LOSS, "stopLossClientOid"),
    ):
        stop = preset(params, f"{word}TriggerPrice", f"{word}ExecutePrice", f"{word}TriggerType")
        if stop is None:
            continue
        plan = call.engine.place_position_stop(
            call.account_id,
            PositionStopCommand(
                symbol=symbol,
                plan_type=plan_type,
                hold_side=_hold_side(params),
                trigger_price=stop.trigger_price,
                trigger_type=stop.trigger_type,
                execute_price=stop.execute_price,
                client_id=params.text(f"{word}ClientOid"),
            ),
        )
        row: Row = {"orderId": plan.plan_id, "stopSurplusClientOid": "", "stopLossClientOid": ""}
        row[key] = plan.client_id
        rows.append(row)
    if not rows:
        raise missing("stopSurplusTriggerPrice or stopLossTriggerPrice")
    return rows


def modify_tpsl_order(call: Call) -> object:
    """`POST /api/v2/mix/order/modify-tpsl-order`: 43020 when there is no such stop."""
    traded_symbol(call)
    params = call.params
    execute_price = params.decimal("executePrice")
    command = ModifyPlanCommand(
        new_trigger_price=params.needed_positive("triggerPrice"),
        new_trigger_type=params.choice("triggerType", TriggerType),
        new_size=params.positive("size"),
        new_execute_price=execute_price,
    )
    plan = call.engine.modify_plan(
        call.account_id,
        command,
        plan_id=params.text("orderId"),
        client_id=params.text("clientOid"),
    )
    return {"orderId": plan.plan_id, "clientOid": plan.client_id}


def _hold_side(params: Params) -> HoldSide:
    text = params.needed("holdSide").lower()
    try:
        return HoldSide(text)
    except ValueError as error:
        raise EngineRejected(RejectReason.HOLD_SIDE_INVALID, text) from error


# -- trigger orders ---------------------------------------------------------------------------


def place_plan_order(call: Call) -> object:
    """`POST /api/v2/mix/order/place-plan-order`: normal_plan or track_plan."""
    traded_symbol(call)
    params = call.params
    plan_type = params.choice("planType", PlanType) or PlanType.NORMAL_PLAN
    words = Params({**params.values, **_renamed_presets(params)})
    callback = params.positive("callbackRatio")
    plan = call.engine.place_plan_order(
        call.account_id,
        PlanOrderCommand(
            order=order_command(words),
            trigger_price=params.needed_positive("triggerPrice"),
            plan_type=plan_type,
            trigger_type=params.choice("triggerType", TriggerType) or TriggerType.FILL_PRICE,
            callback_ratio=None if callback is None else callback / Decimal(100),
        ),
    )
    return {"orderId": plan.plan_id, "clientOid": plan.client_id}


def _renamed_presets(params: Params) -> dict[str, object]:
    """Plan orders name their attached stops otherwise than plain orders do."""
    renamed: dict[str, object] = {}
    for word, name in (("stopSurplus", "StopSurplus"), ("stopLoss", "StopLoss")):
        for theirs, ours in (
            ("TriggerPrice", "Price"),
            ("ExecutePrice", "ExecutePrice"),
            ("TriggerType", "TriggerType"),
        ):
            value = params.values.get(word + theirs)
            if value is not None:
                renamed[f"preset{name}{ours}"] = value
    return renamed


def modify_plan_order(call: Call) -> object:
    """`POST /api/v2/mix/order/modify-plan-order`."""
    params = call.params
    if not is_usdt_futures(params):
        raise EngineRejected(RejectReason.PLAN_UNKNOWN, "product type")
    callback = params.positive("newCallbackRatio")
    command = ModifyPlanCommand(
        new_trigger_price=params.positive("newTriggerPrice"),
        new_trigger_type=params.choice("newTriggerType", TriggerType),
        new_size=params.positive("newSize"),
        new_price=params.positive("newPrice"),
        new_callback_ratio=None if callback is None else callback / Decimal(100),
    )
    plan = call.engine.modify_plan(
        call.account_id,
        command,
        plan_id=params.text("orderId"),
        client_id=params.text("clientOid"),
    )
    return {"orderId": plan.plan_id, "clientOid": plan.client_id}


def cancel_plan_order(call: Call) -> object:
    """`POST /api/v2/mix/order/cancel-plan-order`: only plans of the planType that was asked for.

    Without a list, all of them (of the symbol). planType profit_loss cancels nothing.
    """
    params = call.params
    if not is_usdt_futures(params):
        raise EngineRejected(RejectReason.SYMBOL_UNKNOWN, "productType")
    name = (params.text("planType") or PlanType.NORMAL_PLAN.value).lower()
    kinds = frozenset(kind for kind in PlanType if kind.value == name)
    items = params.items("orderIdList", most=BATCH_MAX, code_too_many="40912")
    symbol = params.optional_symbol()
    if not kinds:
        return {"successList": [], "failureList": []}
    if not items:
        plans = call.engine.cancel_plans(call.account_id, kinds, symbol)
        return {"successList": [_success(plan) for plan in plans], "failureList": []}

    def cancel(item: Params) -> Row:
        plan_id, client_id = item.text("orderId"), item.text("clientOid")
        plan = call.engine.plan(call.account_id, plan_id=plan_id, client_id=client_id)
        return _success(call.engine.cancel_plan(call.account_id, plan_id=plan.plan_id))

    wanted = [item for item in items if not _is_of_another_kind(call, item, kinds)]
    return each_alone(wanted, cancel, "stops")


def _is_of_another_kind(call: Call, item: Params, kinds: frozenset[PlanType]) -> bool:
    try:
        plan = call.engine.plan(
            call.account_id, plan_id=item.text("orderId"), client_id=item.text("clientOid")
        )
    except EngineRejected:
        return False
    return plan.plan_type not in kinds


# -- questions --------------------------------------------------------------------------------


def orders_plan_pending(call: Call) -> object:
    """`GET /api/v2/mix/order/orders-plan-pending`: null instead of an empty list."""
    kinds = _listed_types(call.params)
    if not is_usdt_futures(call.params):
        return {"entrustedList": None, "endId": None}
    plans = call.engine.plans(call.account_id, kinds, call.params.optional_symbol())
    rows, end_id = _plan_page(call, plans)
    return {"entrustedList": [plan_row(plan) for plan in rows] or None, "endId": end_id}


def orders_plan_history(call: Call) -> object:
    """`GET /api/v2/mix/order/orders-plan-history`: executed, failed and cancelled ones."""
    kinds = _listed_types(call.params)
    if not is_usdt_futures(call.params):
        return {"entrustedList": None, "endId": None}
    status = call.params.choice("planStatus", PlanStatus)
    earliest_ms = call.now_ms - HISTORY_REACH_MS
    plans = [
        plan
        for plan in call.engine.plan_history(call.account_id, kinds, call.params.optional_symbol())
        if plan.updated_ms >= earliest_ms and status in (None, plan.status)
    ]
    rows, end_id = _plan_page(call, sorted(plans, key=lambda plan: int(plan.plan_id)))
    found = [plan_history_row(plan, _executed(call, plan)) for plan in rows]
    return {"entrustedList": found or None, "endId": end_id}


def plan_sub_order(call: Call) -> object:
    """`GET /api/v2/mix/order/plan-sub-order`: the orders that a plan order has made."""
    plan_id = call.params.needed("planOrderId")
    for plan in call.engine.plan_history(call.account_id):
        executed = _executed(call, plan) if plan.plan_id == plan_id else None
        if executed is not None:
            return [
                {
                    "planOrderId": plan_id,
                    "orderId": executed.order_id,
                    "price": str(executed.price or ""),
                    "type": executed.order_type.value,
                    "status": "success",
                    "msg": "",
                }
            ]
    raise WireError("43020", "The plan order does not exist")


def _executed(call: Call, plan: PlanRecord) -> OrderRecord | None:
    if not plan.execute_order_id:
        return None
    return call.engine.order(call.account_id, order_id=plan.execute_order_id)


def _plan_page(call: Call, plans: list[PlanRecord]) -> tuple[list[PlanRecord], str | None]:
    order_id, client_id = call.params.text("orderId"), call.params.text("clientOid")
    chosen = [
        plan
        for plan in plans
        if order_id in (None, plan.plan_id) and client_id in (None, plan.client_id)
    ]
    return page(
        chosen,
        call.params,
        key=lambda plan: plan.plan_id,
        at_ms=lambda plan: plan.created_ms,
        limit=100,
    )
