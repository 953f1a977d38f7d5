"""The last gate, PURE: what may leave for the exchange, whatever a strategy returned (promise 8).

Sits between the stamp check and the audit. Given the account's limits, its positions and prices,
says of each order why it may not leave, or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from module.model.accounts import Position
from module.model.errors import InvalidInput
from module.model.market import Instrument, MarketType, Quote
from module.model.money import parse_decimal, plain
from module.model.orders import PRICE_MOVED, OrderRequest, OrderType, Side


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard caps of one account. Money in quote asset; symbols None means any."""

    symbols: frozenset[str] | None = None
    order_notional_max: Decimal = Decimal(1_000_000)
    position_notional_max: Decimal = Decimal(2_000_000)
    leverage_max: Decimal = Decimal(20)
    orders_per_minute: int = 300
    kill_switch: bool = False
    halt_reason: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one order may not leave; `code` is stable, the text is for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class AccountView:
    """What the gate knows of the account: signed sizes in base asset, prices, rules.

    `in_flight` is signed size of opening orders that were sent and may not be filled yet.
    `positions` None: they could not be read, so nothing that depends on them is checked.
    """

    market: MarketType
    positions: Mapping[str, Position] | None
    in_flight: Mapping[str, Decimal]
    quotes: Mapping[str, Quote]
    instruments: Mapping[str, Instrument]
    leverages: Mapping[str, Decimal]
    orders_last_minute: int
    has_stop_orders: bool = True


def read_limits(document: Mapping[str, object]) -> Limits:
    """The limits that an account's JSON spells; what is absent keeps its default.

    InvalidInput names an unknown or ill-typed field: a limit that cannot be read must not be
    ignored.
    """
    known = set(Limits.__dataclass_fields__) | {"halted_at", "halted_by"}
    unknown = sorted(set(document) - known)
    if unknown:
        raise InvalidInput(f"unknown limits {unknown}; known are {sorted(known)}")
    defaults = Limits()
    symbols = document.get("symbols")
    if symbols is not None and not (
        isinstance(symbols, list) and all(isinstance(item, str) for item in symbols)
    ):
        raise InvalidInput(f"limits.symbols must be a list of symbols, got {symbols!r}"[:200])
    kill_switch = document.get("kill_switch", False)
    if not isinstance(kill_switch, bool):
        raise InvalidInput(f"limits.kill_switch must be true or false, got {kill_switch!r}"[:200])
    return Limits(
        symbols=None if symbols is None else frozenset(symbols),
        order_notional_max=_cap(document, "order_notional_max", defaults.order_notional_max),
        position_notional_max=_cap(
            document, "position_notional_max", defaults.position_notional_max
        ),
        leverage_max=_cap(document, "leverage_max", defaults.leverage_max),
        orders_per_minute=int(
            _cap(document, "orders_per_minute", Decimal(defaults.orders_per_minute))
        ),
        kill_switch=kill_switch,
        halt_reason=str(document.get("halt_reason") or ""),
    )


def judge_orders(
    orders: Sequence[OrderRequest], limits: Limits, view: AccountView
) -> dict[str, Refusal]:
    """Client id → refusal, for the orders that may not leave; orders of a batch add up."""
    refusals: dict[str, Refusal] = {}
    sent = view.orders_last_minute
    opening: dict[str, Decimal] = dict(view.in_flight)
    reducing: dict[str, Decimal] = {}
    for order in orders:
        refusal = _judge_shape(order, view)
        if refusal is None and order.reduce_only:
            refusal = _judge_reduction(order, view, reducing.get(order.symbol, Decimal(0)))
        elif refusal is None:
            refusal = _judge_opening(order, limits, view, opening.get(order.symbol, Decimal(0)))
            if refusal is None and sent >= limits.orders_per_minute:
                refusal = Refusal(
                    "limit-orders-per-minute",
                    f"{sent} orders in the last minute; at most {limits.orders_per_minute} may "
                    "leave, so this one waits for the next cycle",
                )
        if refusal is not None:
            refusals[order.client_id] = refusal
            continue
        sent += 1
        if order.reduce_only:
            reducing[order.symbol] = reducing.get(order.symbol, Decimal(0)) + order.size
        else:
            signed = order.side.sign * order.size
            opening[order.symbol] = opening.get(order.symbol, Decimal(0)) + signed
    return refusals


def _judge_shape(order: OrderRequest, view: AccountView) -> Refusal | None:
    instrument = view.instruments.get(order.symbol)
    if instrument is None:
        if _closes_all(order, view) and order.stops.empty:
            return None  # its rules are gone, it is not: the exchange decides (A20)
        return Refusal("unknown-symbol", f"{order.symbol} is not traded here")
    if not instrument.tradable and not order.reduce_only:  # some still take what closes (A20)
        return Refusal("not-tradable", f"{order.symbol} is not open for trading now")
    if order.size <= 0:
        return Refusal("size", f"size must be > 0, got {plain(order.size)}")
    if order.size % instrument.size_step and not _closes_all(order, view):
        step = plain(instrument.size_step)
        return Refusal("size", f"size {plain(order.size)} is not a multiple of the lot {step}")
    if (order.order_type is OrderType.LIMIT) != (order.price is not None):
        return Refusal("price", "a limit order has a price, a market order has none")
    prices = (order.price, order.stops.stop_loss, order.stops.take_profit)
    for price in prices:
        if price is not None and (price <= 0 or price % instrument.price_step):
            step = plain(instrument.price_step)
            return Refusal("price", f"price {plain(price)} is not a positive multiple of {step}")
    return None if order.stops.empty else _judge_stops(order, view)


def _closes_all(order: OrderRequest, view: AccountView) -> bool:
    """It closes exactly what is held, which may be off a lot that has changed since (A19)."""
    position = (view.positions or {}).get(order.symbol)
    return order.reduce_only and position is not None and abs(position.size) == order.size


def _judge_stops(order: OrderRequest, view: AccountView) -> Refusal | None:
    """Stops belong to what an order opens, where the exchange has stop orders."""
    if order.reduce_only or (view.market is MarketType.SPOT and order.side is Side.SELL):
        return Refusal("stops", "a reducing order carries no stops")
    if not view.has_stop_orders:
        return Refusal("stops", "this exchange has no stop orders here; start with software_stops")
    return None


def _judge_reduction(order: OrderRequest, view: AccountView, before: Decimal) -> Refusal | None:
    """Reduce-only must be true: against the position, and not more than is there."""
    if view.market is MarketType.SPOT:
        if order.side is Side.SELL:
            return None
        return Refusal("reduce-only", f"{order.symbol}: on spot only a sell reduces")
    if view.positions is None:
        return None
    position = view.positions.get(order.symbol)
    held = position.size if position is not None else Decimal(0)
    coming = view.in_flight.get(order.symbol, Decimal(0))
    if coming * order.side.sign < 0:
        held += coming  # an opening order that was filled after positions were read counts
    if held == 0:
        return Refusal("no-position", f"{order.symbol}: there is no position to reduce")
    if (held > 0) == (order.side is Side.BUY):
        return Refusal(
            "reduce-only",
            f"{order.symbol}: a {order.side} does not reduce a position of {plain(held)}",
        )
    if before + order.size > abs(held):
        return Refusal(
            "reduce-only",
            f"{order.symbol}: reducing {plain(before + order.size)} of {plain(held)} "
            "would turn the position round",
        )
    return None


def _judge_opening(
    order: OrderRequest, limits: Limits, view: AccountView, before: Decimal
) -> Refusal | None:
    if limits.kill_switch:
        why = f" ({limits.halt_reason})" if limits.halt_reason else ""
        return Refusal("kill-switch", f"the kill switch is on{why}: only reducing orders leave")
    if limits.symbols is not None and order.symbol not in limits.symbols:
        return Refusal("limit-symbols", f"{order.symbol} is not on the account's list of symbols")
    quote = view.quotes.get(order.symbol)
    if quote is None or view.positions is None:
        return Refusal("no-price", f"{order.symbol}: no price or position to check limits with")
    is_buy = order.side is Side.BUY
    if view.market is MarketType.SPOT and not is_buy:
        return None
    off_plan = order.off_plan(quote.mark) or order.off_plan(quote.ask if is_buy else quote.bid)
    if off_plan:
        return Refusal(PRICE_MOVED, off_plan)
    price = order.price if order.price is not None else max(quote.mark, quote.ask)
    notional = order.size * price
    if notional > limits.order_notional_max:
        return Refusal(
            "limit-order-notional",
            f"{order.symbol}: {plain(notional)} is more than the {plain(limits.order_notional_max)}"
            " that one order may be worth",
        )
    position = view.positions.get(order.symbol)
    held = position.size if position is not None else Decimal(0)
    signed = order.side.sign * order.size
    if held and (held > 0) != (signed > 0):
        return Refusal(
            "would-flip",
            f"{order.symbol}: an opening {order.side} against a position of {plain(held)}; close "
            "it first with a reduce-only order",
        )
    after = abs(held + before + signed) * quote.mark
    if after > limits.position_notional_max:
        return Refusal(
            "limit-position-notional",
            f"{order.symbol}: a position of {plain(after)} is more than the "
            f"{plain(limits.position_notional_max)} that one position may be worth",
        )
    leverage = view.leverages.get(order.symbol)
    if view.market is MarketType.FUTURES and (leverage is None or leverage > limits.leverage_max):
        return Refusal(
            "limit-leverage",
            f"{order.symbol}: leverage {leverage} is not within {plain(limits.leverage_max)}; "
            "set it while the symbol is flat",
        )
    return None


def _cap(document: Mapping[str, object], name: str, default: Decimal) -> Decimal:
    value = document.get(name)
    if value is None:
        return default
    if not isinstance(value, (str, int)):
        raise InvalidInput(f"limits.{name} must be a decimal string, got {value!r}"[:200])
    cap = parse_decimal(value, name=f"limits.{name}")
    if cap < 0:
        raise InvalidInput(f"limits.{name} must not be negative, got {cap}")
    return cap
