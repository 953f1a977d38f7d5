"""Bitget's error codes: what the engine's refusals are called on the wire.

One table per family of endpoints, because the real exchange names one cause differently on futures
orders, stops and spot.
"""

from __future__ import annotations

from module.simulator.engine.engine_types import EngineRejected, RejectReason


class WireError(Exception):
    """An answer that is not a success: Bitget's code, its text, the HTTP status."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message
        self.status = status


TOO_MANY_REQUESTS = ("429", "Too Many Requests")
UNKNOWN_PATH = ("40404", "Request URL NOT FOUND")
CLASSIC_ACCOUNT = (
    "40084",
    "You are in Classic Account mode, and the Unified Account API is not supported at this time",
)

_UNIFIED_SIDE = "The order type for unilateral position must also be the unilateral position type."

_R = RejectReason
_MIX: dict[RejectReason, tuple[str, str]] = {
    _R.ACCOUNT_UNKNOWN: ("40037", "Apikey does not exist"),
    _R.SYMBOL_UNKNOWN: ("40034", "Parameter {detail} does not exist"),
    _R.SYMBOL_NOT_LISTED: ("40309", "The contract has been removed"),
    _R.SYMBOL_SUSPENDED: ("40844", "The contract is under temporary maintenance"),
    _R.VALUE_INVALID: ("400172", "Parameter verification failed {detail}"),
    _R.PARAMETER_MISSING: ("40019", "Parameter {detail} cannot be empty"),
    _R.MODE_MISMATCH: ("40774", _UNIFIED_SIDE),
    _R.MARGIN_MODE_MISMATCH: (
        "45117",
        "Currently holding positions or orders, the margin mode cannot be adjusted",
    ),
    _R.CLIENT_ID_DUPLICATE: ("40786", "Duplicate clientOid"),
    _R.CLIENT_ID_TOO_LONG: ("40304", "The length of clientOid cannot exceed 50"),
    _R.CLIENT_ID_CHARSET: ("40305", "clientOid has invalid characters: {detail}"),
    _R.SIZE_BELOW_MIN: ("45111", "less than the minimum order quantity"),
    _R.SIZE_ABOVE_MAX: ("45112", "more than the maximum order quantity"),
    _R.SIZE_STEP: ("22038", "The order size is not a multiple of the size step: {detail}"),
    _R.NOTIONAL_BELOW_MIN: ("45110", "less than the minimum amount 5 USDT"),
    _R.PRICE_STEP: ("45115", "The price you enter should be a multiple of the tick: {detail}"),
    _R.PRICE_ABOVE_BAND: ("22006", "The order price is above the price limit: {detail}"),
    _R.PRICE_BELOW_BAND: ("22008", "The order price is below the price limit: {detail}"),
    _R.INSUFFICIENT_MARGIN: ("40762", "The order amount exceeds the balance"),
    _R.INSUFFICIENT_BALANCE: ("40762", "The order amount exceeds the balance"),
    _R.POSITION_TIER_LIMIT: ("40921", "The position exceeds the limit of its leverage: {detail}"),
    _R.TOO_MANY_ORDERS: ("45118", "reached the upper limit of the number of open orders"),
    _R.TOO_MANY_POSITIONS: ("40761", "The total number of positions is too high: {detail}"),
    _R.NO_POSITION: ("22002", "No position to close"),
    _R.NOTHING_TO_REVERSE: ("40757", "Not enough position is available"),
    _R.CLOSE_TOO_LARGE: ("40757", "Not enough position is available"),
    _R.PRESET_TAKE_PROFIT_LONG: (
        "40830",
        "The take profit price of the long position should be greater than the current price",
    ),
    _R.PRESET_TAKE_PROFIT_SHORT: (
        "40832",
        "The take profit price of the short position should be less than the current price",
    ),
    _R.PRESET_STOP_LOSS_LONG: (
        "40834",
        "The stop loss price of the long position should be less than the current price",
    ),
    _R.PRESET_STOP_LOSS_SHORT: (
        "40836",
        "The stop loss price of the short position should be greater than the current price",
    ),
    _R.STOP_TAKE_PROFIT_LONG: (
        "40915",
        "Long position take profit price please > mark price {last_word}",
    ),
    _R.STOP_TAKE_PROFIT_SHORT: (
        "40832",
        "Short position take profit price please < mark price {last_word}",
    ),
    _R.STOP_LOSS_LONG: ("40917", "Stop price for long positions please < mark price {last_word}"),
    _R.STOP_LOSS_SHORT: ("45122", "Short position stop loss price please > mark price {last_word}"),
    _R.STOP_SIZE_TOO_LARGE: ("43029", "The size of the stop exceeds what can be closed"),
    _R.HOLD_SIDE_INVALID: ("43011", "The parameter does not meet the specification holdSide error"),
    _R.HOLD_SIDE_INVALID_HEDGE: (
        "43011",
        "The parameter does not meet the specification d delegateType is error",
    ),
    _R.PLAN_UNKNOWN: ("43020", "The plan order does not exist"),
    _R.PLAN_TYPE_UNSUPPORTED: ("40812", "The condition planType is not met"),
    _R.ORDER_UNKNOWN: ("40768", "Order does not exist"),
    _R.ORDER_DONE: ("22001", "No order to cancel"),
    _R.CANCEL_REPEATED: (
        "45129",
        "The same order may be cancelled once a second only",
    ),
    _R.MODIFY_NEEDS_CLIENT_ID: ("22003", "newClientOid is needed to modify size or price"),
    _R.MODIFY_NEEDS_SIZE_AND_PRICE: ("40925", "newSize and newPrice must be sent together"),
    _R.MODIFY_UNCHANGED: ("40923", "Order size and price have not changed"),
    _R.LEVERAGE_TOO_HIGH: ("45045", "The leverage exceeds the maximum of the symbol"),
    _R.LEVERAGE_OUT_OF_RANGE: ("45044", "The leverage is out of range"),
    _R.LEVERAGE_OPEN_ORDERS: ("40730", "There are open orders, the leverage cannot be adjusted"),
    _R.MARGIN_MODE_BUSY: (
        "45117",
        "Currently holding positions or orders, the margin mode cannot be adjusted",
    ),
    _R.POSITION_MODE_BUSY: (
        "40920",
        "Position or order exists, the position mode cannot be switched",
    ),
    _R.MARGIN_NOT_ISOLATED: ("40714", "No direct margin call is allowed"),
    _R.MARGIN_REDUCE_TOO_LARGE: ("40713", "Cannot exceed the maximum transferable margin amount"),
    _R.ASSET_MODE_UNSUPPORTED: ("40812", "The condition assetMode is not met"),
    _R.TRANSFER_TYPE_UNSUPPORTED: ("400172", "Parameter verification failed {detail}"),
}

_STOPS: dict[RejectReason, tuple[str, str]] = {
    _R.NO_POSITION: ("43023", "Insufficient position, can not set profit or stop loss"),
    _R.ORDER_UNKNOWN: ("43020", "The plan order does not exist"),
}

_MARGIN: dict[RejectReason, tuple[str, str]] = {
    _R.NO_POSITION: ("40709", "There is no position whose margin can be adjusted"),
    _R.INSUFFICIENT_MARGIN: ("40712", "Insufficient margin"),
}

_DETAIL: dict[RejectReason, tuple[str, str]] = {
    _R.ORDER_UNKNOWN: ("40109", "The data of the order cannot be found, please confirm the order"),
}

_SPOT: dict[RejectReason, tuple[str, str]] = {
    _R.CLIENT_ID_DUPLICATE: ("43118", "clientOrderId duplicate"),
    _R.INSUFFICIENT_BALANCE: ("43012", "Insufficient balance"),
    _R.NOTIONAL_BELOW_MIN: ("45110", "less than the minimum amount 1 USDT"),
    _R.SIZE_STEP: ("40808", "Parameter verification exception size checkBDScale error {detail}"),
    _R.PRICE_STEP: ("40808", "Parameter verification exception price checkBDScale error {detail}"),
    _R.ORDER_UNKNOWN: ("43001", "The order does not exist"),
    _R.ORDER_DONE: ("43001", "The order does not exist"),
    _R.CANCEL_REPEATED: ("43001", "The order does not exist"),
    _R.PLAN_UNKNOWN: ("43025", "Plan order does not exist"),
}

_FAMILIES: dict[str, dict[RejectReason, tuple[str, str]]] = {
    "mix": {},
    "stops": _STOPS,
    "margin": _MARGIN,
    "detail": _DETAIL,
    "spot": _SPOT,
}


def wire_error(error: EngineRejected, family: str) -> WireError:
    """The Bitget answer to a refusal of the engine, as endpoints of `family` spell it."""
    code, text = _FAMILIES[family].get(error.reason) or _MIX[error.reason]
    last_word = error.detail.rsplit(" ", 1)[-1]
    return WireError(code, text.format(detail=error.detail, last_word=last_word))
