"""Bitget's stop and trigger order endpoints.

A stop of a position is found and cancelled under its own planType; asking for another one is
answered with success and does nothing, as on the real exchange.
"""

from __future__ import annotations

from decimal import Decimal

from module.simulator.engine.engine_records import OrderRecord, PlanRecord
from module.simulator.engine.engine_types import (
    EngineRejected,
    HoldSide,
    ModifyPlanCommand,
    PlanOrderCommand,
    PlanStatus,
    PlanType,
    PositionStopCommand,
    PresetStop,
    RejectReason,
    StpMode,
    TriggerType,
)
from module.simulator.venue import Call
from module.simulator.wire.bitget_account import is_usdt_futures, margined_symbol, traded_symbol
from module.simulator.wire.bitget_codes import WireError
from module.simulator.wire.bitget_orders import (
    BATCH_MAX,
    changed_preset,
    each_alone,
    order_command,
    preset,
)
from module.simulator.wire.bitget_pages import HISTORY_REACH_MS, page
from module.simulator.wire.bitget_params import Params, missing
from module.simulator.wire.bitget_rows import Row, number, plan_history_row, plan_row

_STOP_TYPES = frozenset(kind for kind in PlanType if kind.protects_position)
_CANCELLED = (*_STOP_TYPES, PlanType.NORMAL_PLAN, PlanType.TRACK_PLAN)
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
    symbol = margined_symbol(call)
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
            callback_ratio=_percent(params, "rangeRate"),
            stp_mode=params.choice("stpMode", StpMode) or StpMode.NONE,
        ),
    )
    return _success(plan)


def _percent(params: Params, name: str) -> Decimal | None:
    """A share that the wire counts in percent."""
    value = params.positive(name)
    return None if value is None else value / Decimal(100)


def place_pos_tpsl(call: Call) -> object:
    """`POST /api/v2/mix/order/place-pos-tpsl`: take profit, stop loss, or both of a position."""
    symbol = margined_symbol(call)
    params = call.params
    commands: list[PositionStopCommand] = []
    for word, plan_type in (
        ("stopSurplus", PlanType.POS_PROFIT),
        ("stopLoss", PlanType.POS_LOSS),
    ):
        stop = preset(params, f"{word}TriggerPrice", f"{word}ExecutePrice", f"{word}TriggerType")
        if stop is None:
            continue
        command = PositionStopCommand(
            symbol=symbol,
            plan_type=plan_type,
            hold_side=_hold_side(params),
            trigger_price=stop.trigger_price,
            trigger_type=stop.trigger_type,
            execute_price=stop.execute_price,
            client_id=params.text(f"{word}ClientOid"),
        )
        commands.append(command)
    if not commands:
        raise missing("stopSurplusTriggerPrice or stopLossTriggerPrice")
    return [_both_row(plan) for plan in call.engine.place_position_stops(call.account_id, commands)]


def _both_row(plan: PlanRecord) -> Row:
    """One of the stops of place-pos-tpsl: the other's client id is empty."""
    profit = plan.plan_type.takes_profit
    return {
        "orderId": plan.plan_id,
        "stopSurplusClientOid": plan.client_id if profit else "",
        "stopLossClientOid": "" if profit else plan.client_id,
    }


def modify_tpsl_order(call: Call) -> object:
    """`POST /api/v2/mix/order/modify-tpsl-order`: 43020 when there is no such stop."""
    symbol = traded_symbol(call)
    params = call.params
    _require_of_symbol(call, symbol, params)
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
    margined_symbol(call)
    params = call.params
    plan_type = params.choice("planType", PlanType) or PlanType.NORMAL_PLAN
    words = Params({**params.values, **_renamed_presets(params)})
    plan = call.engine.place_plan_order(
        call.account_id,
        PlanOrderCommand(
            order=order_command(words),
            trigger_price=params.needed_positive("triggerPrice"),
            plan_type=plan_type,
            trigger_type=params.choice("triggerType", TriggerType) or TriggerType.FILL_PRICE,
            callback_ratio=_percent(params, "callbackRatio"),
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
    command = ModifyPlanCommand(
        new_trigger_price=params.positive("newTriggerPrice"),
        new_trigger_type=params.choice("newTriggerType", TriggerType),
        new_size=params.positive("newSize"),
        new_price=params.positive("newPrice"),
        new_callback_ratio=_percent(params, "newCallbackRatio"),
        new_take_profit=_new_preset(params, "newStopSurplus"),
        new_stop_loss=_new_preset(params, "newStopLoss"),
    )
    plan = call.engine.modify_plan(
        call.account_id,
        command,
        plan_id=params.text("orderId"),
        client_id=params.text("clientOid"),
    )
    return {"orderId": plan.plan_id, "clientOid": plan.client_id}


def _new_preset(params: Params, word: str) -> PresetStop | None:
    return changed_preset(
        params, f"{word}TriggerPrice", f"{word}ExecutePrice", f"{word}TriggerType"
    )


def cancel_plan_order(call: Call) -> object:
    """`POST /api/v2/mix/order/cancel-plan-order`: only plans of the planType that was asked for.

    Without a list, all of them (of the symbol). planType profit_loss cancels nothing.
    """
    params = call.params
    if not is_usdt_futures(params):
        raise EngineRejected(RejectReason.SYMBOL_UNKNOWN, "productType")
    name = (params.text("planType") or PlanType.NORMAL_PLAN.value).lower()
    kinds = frozenset(kind for kind in _CANCELLED if kind.value == name)
    items = params.items("orderIdList", most=BATCH_MAX, code_too_many="40912")
    symbol = params.optional_symbol()
    if name == "profit_loss":
        return {"successList": [], "failureList": []}
    if not kinds:
        raise EngineRejected(RejectReason.PLAN_TYPE_UNSUPPORTED, name)
    if not items:
        plans = call.engine.cancel_plans(call.account_id, kinds, symbol)
        return {"successList": [_success(plan) for plan in plans], "failureList": []}

    def cancel(item: Params) -> Row:
        plan = _require_of_symbol(call, symbol, item)
        return _success(call.engine.cancel_plan(call.account_id, plan_id=plan.plan_id))

    wanted = [item for item in items if not _is_of_another_kind(call, item, kinds)]
    return each_alone(wanted, cancel, "stops")


def _require_of_symbol(call: Call, symbol: str | None, ids: Params) -> PlanRecord:
    """The live plan that `ids` names; refused, as unknown, where it is of another contract."""
    plan = call.engine.plan(
        call.account_id, plan_id=ids.text("orderId"), client_id=ids.text("clientOid")
    )
    if symbol not in (None, plan.symbol):
        raise EngineRejected(RejectReason.PLAN_UNKNOWN, f"{plan.plan_id} is not of {symbol}")
    return plan


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
    kinds = _listed_types(call.params)
    plan_id = call.params.needed("planOrderId")
    known = [
        *call.engine.plans(call.account_id, kinds),
        *call.engine.plan_history(call.account_id, kinds),
    ]
    plan = next((plan for plan in known if plan.plan_id == plan_id), None)
    if plan is None:
        raise WireError("43020", "The plan order does not exist")
    return sub_order_rows(plan, _executed(call, plan))


def sub_order_rows(plan: PlanRecord, executed: OrderRecord | None) -> list[Row]:
    """The order that a plan has made: a list of one, or of none."""
    if executed is None:
        return []
    return [
        {
            "orderId": executed.order_id,
            "price": number(executed.price),
            "type": executed.order_type.value,
            "status": "fail" if plan.status is PlanStatus.FAIL_EXECUTE else "success",
        }
    ]


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
