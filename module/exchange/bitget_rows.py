"""Bitget's rows to our vocabulary, PURE. Text becomes Decimal here and nowhere else.

Answers of an exchange are untrusted: a row that is not shaped as published raises `BadRow`, which
the caller turns into *unknown* (of a write) or *ask again* (of a read).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from module.exchange.venue import PlacedStop, TradingMode
from module.model.accounts import (
    Bill,
    BillKind,
    ClosedPosition,
    MarginMode,
    Position,
    PositionMode,
    SymbolSettings,
)
from module.model.books import BookLevel, Depth, MarginTier
from module.model.errors import InvalidInput
from module.model.market import Candle, Frequency, Instrument, MarketType, Quote
from module.model.money import parse_decimal
from module.model.orders import Fill, FillCause, OrderReport, OrderStatus, Side, StopPrices

Row = Mapping[str, object]
ZERO: Final = Decimal(0)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

ORDER_STATUS: Final = {
    "live": OrderStatus.LIVE,
    "new": OrderStatus.LIVE,
    "init": OrderStatus.LIVE,
    "partially_filled": OrderStatus.PARTIALLY_FILLED,
    "filled": OrderStatus.FILLED,
    "canceled": OrderStatus.CANCELED,
    "cancelled": OrderStatus.CANCELED,
}
_MARGIN_MODES: Final = {"crossed": MarginMode.CROSSED, "isolated": MarginMode.ISOLATED}
_POSITION_MODES: Final = {
    "one_way_mode": PositionMode.ONE_WAY,
    "hedge_mode": PositionMode.HEDGE,
}
_TRADE_BILLS: Final = frozenset(
    ("buy", "sell", "open_long", "close_long", "open_short", "close_short")
)


class BadRow(Exception):
    """A row that is not shaped as published; the text names the field, not its content."""


def rows_of(data: object, key: str | None = None) -> list[Row]:
    """The list of objects in `data` (or under `key` of it); null is an empty list."""
    if key is not None:
        if data is None:
            return []
        if not isinstance(data, Mapping) or key not in data:
            raise BadRow(f"no {key}")
        data = data[key]
    if data is None:
        return []
    if not isinstance(data, list) or not all(isinstance(item, Mapping) for item in data):
        raise BadRow(f"{key or 'data'} is not a list of objects")
    return data


def row_of(data: object) -> Row:
    """`data`, which must be an object."""
    if not isinstance(data, Mapping):
        raise BadRow("data is not an object")
    return data


def text(row: Row, name: str) -> str:
    """A text that must be there."""
    value = row.get(name)
    if type(value) is str:  # what nearly all of them are
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadRow(f"{name} is missing")
    return str(value)


def optional_text(row: Row, name: str) -> str:
    """A text that may be missing or null."""
    value = row.get(name)
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def number(row: Row, name: str) -> Decimal:
    """A number that must be there."""
    try:
        return parse_decimal(text(row, name), name=name)
    except InvalidInput as error:
        raise BadRow(f"{name} is not a number") from error


def optional_number(row: Row, name: str) -> Decimal | None:
    """A number that may be missing, null or empty."""
    value = row.get(name)
    if value is None or value == "":
        return None
    return number(row, name)


def price(row: Row, name: str) -> Decimal | None:
    """A price above zero; None for whatever else is there."""
    try:
        found = optional_number(row, name)
    except BadRow:
        return None
    return found if found is not None and found > 0 else None


def number_or_zero(row: Row, name: str) -> Decimal:
    """A number, zero where there is none."""
    return optional_number(row, name) or ZERO


def instant(row: Row, *names: str) -> datetime:
    """Milliseconds since the epoch, under the first of `names` that is there."""
    for name in names:
        value = row.get(name)
        if value not in (None, ""):
            return from_ms(text(row, name))
    raise BadRow(f"{names[0]} is missing")


def from_ms(value: str) -> datetime:
    """The time that a text of milliseconds spells."""
    if not (value.isascii() and value.isdigit()) or len(value) > 14:  # until the year 5138
        raise BadRow("a time is not in milliseconds")
    return _EPOCH + timedelta(milliseconds=int(value))


def to_ms(when: datetime) -> str:
    """Whole milliseconds since the epoch as text, rounded down."""
    return str((when - _EPOCH) // timedelta(milliseconds=1))


def side(row: Row) -> Side:
    """Direction of an order or fill."""
    try:
        return Side(text(row, "side").lower())
    except ValueError as error:
        raise BadRow("side is neither buy nor sell") from error


def margin_mode(row: Row) -> MarginMode:
    """crossed or isolated."""
    found = _MARGIN_MODES.get(text(row, "marginMode"))
    if found is None:
        raise BadRow("marginMode is unknown")
    return found


def position_mode(row: Row) -> PositionMode:
    """one-way or hedge."""
    found = _POSITION_MODES.get(text(row, "posMode"))
    if found is None:
        raise BadRow("posMode is unknown")
    return found


def contract(row: Row, leverage_default: str = "125") -> Instrument:
    """A row of `contracts`: the price step is priceEndStep × 10^-pricePlace."""
    place = _places(row, "pricePlace")
    step = number(row, "priceEndStep").scaleb(-place)
    market_max = optional_number(row, "maxMarketOrderQty")
    order_max = optional_number(row, "maxOrderQty")
    highest = market_max or order_max or Decimal(10) ** 12
    leverage = optional_number(row, "maxLever") or Decimal(leverage_default)
    return Instrument(
        symbol=text(row, "symbol").upper(),
        base_asset=text(row, "baseCoin"),
        quote_asset=text(row, "quoteCoin"),
        market=MarketType.FUTURES,
        price_step=_positive(step, "priceEndStep"),
        size_step=_positive(number(row, "sizeMultiplier"), "sizeMultiplier"),
        size_min=number(row, "minTradeNum"),
        notional_min=number_or_zero(row, "minTradeUSDT"),
        market_size_max=_positive(highest, "maxMarketOrderQty"),
        leverage_max=_positive(leverage, "maxLever"),
        taker_fee=number(row, "takerFeeRate"),
        maker_fee=number(row, "makerFeeRate"),
        tradable=text(row, "symbolStatus") == "normal",
    )


def _places(row: Row, name: str) -> int:
    """A count of decimals."""
    found = number(row, name)
    if not 0 <= found <= 18:
        raise BadRow(f"{name} is out of range")
    return int(found)


def spot_symbol(row: Row) -> Instrument:
    """A row of `symbols`: precisions are counts of decimals."""
    price_place = _places(row, "pricePrecision")
    size_place = _places(row, "quantityPrecision")
    highest = optional_number(row, "maxTradeAmount")
    return Instrument(
        symbol=text(row, "symbol").upper(),
        base_asset=text(row, "baseCoin"),
        quote_asset=text(row, "quoteCoin"),
        market=MarketType.SPOT,
        price_step=Decimal(1).scaleb(-price_place),
        size_step=Decimal(1).scaleb(-size_place),
        size_min=number_or_zero(row, "minTradeAmount"),
        notional_min=number_or_zero(row, "minTradeUSDT"),
        market_size_max=highest if highest else Decimal(10) ** 12,
        leverage_max=Decimal(1),
        taker_fee=number(row, "takerFeeRate"),
        maker_fee=number(row, "makerFeeRate"),
        tradable=text(row, "status") == "online",
    )


def quote(row: Row) -> Quote:
    """A ticker row, whose prices are above zero; bid, ask and mark fall back to the last price
    where there is none."""
    last = _positive(number(row, "lastPr"), "lastPr")
    return Quote(
        symbol=text(row, "symbol").upper(),
        bid=_positive(optional_number(row, "bidPr") or last, "bidPr"),
        ask=_positive(optional_number(row, "askPr") or last, "askPr"),
        last=last,
        mark=_positive(optional_number(row, "markPrice") or last, "markPrice"),
        at=instant(row, "ts"),
    )


def position(row: Row, otherwise: Decimal | None = None) -> Position:
    """A row of `all-position`. Fees and funding negative when paid.

    A row without a mark is priced `otherwise`, else at its entry: how much is held, and with which
    stops, is known whatever it is worth. PnL that is not stated follows from the price.
    """
    hold = text(row, "holdSide")
    if hold not in ("long", "short"):
        raise BadRow("holdSide is neither long nor short")
    total = number(row, "total")
    size = total if hold == "long" else -total
    entry = number(row, "openPriceAvg")
    mark = _positive(price(row, "markPrice") or otherwise or entry, "markPrice")
    unrealized = optional_number(row, "unrealizedPL")
    liquidation = optional_number(row, "liquidationPrice")
    return Position(
        symbol=text(row, "symbol").upper(),
        size=size,
        entry_price=entry,
        mark_price=mark,
        margin_size=number_or_zero(row, "marginSize"),
        unrealized_pnl=size * (mark - entry) if unrealized is None else unrealized,
        realized_pnl=number_or_zero(row, "achievedProfits"),
        fees=-abs(number_or_zero(row, "deductedFee")),
        funding=number_or_zero(row, "totalFee"),
        leverage=number(row, "leverage"),
        margin_mode=margin_mode(row),
        liquidation_price=liquidation if liquidation and liquidation > 0 else None,
        stops=StopPrices(
            _present(optional_number(row, "stopLoss")), _present(optional_number(row, "takeProfit"))
        ),
        opened_at=instant(row, "cTime"),
    )


def trading_mode(row: Row, symbol: str) -> TradingMode:
    """The answer of `account`: crossed leverage, or isolated (both sides must agree one-way)."""
    mode = margin_mode(row)
    name = "crossedMarginLeverage" if mode is MarginMode.CROSSED else "isolatedLongLever"
    settings = SymbolSettings(symbol, number(row, name), mode)
    return TradingMode(position_mode(row), settings, row.get("assetMode") == "union")


def mode_of_position(row: Row) -> TradingMode:
    """What a row of `all-position` says of how its symbol is traded."""
    symbol = text(row, "symbol").upper()
    settings = SymbolSettings(symbol, number(row, "leverage"), margin_mode(row))
    return TradingMode(position_mode(row), settings, row.get("assetMode") == "union")


def order_report(row: Row) -> OrderReport:
    """A row of `detail`, `orders-pending` or `orders-history`."""
    state = optional_text(row, "state") or text(row, "status")
    status = ORDER_STATUS.get(state)
    if status is None:
        raise BadRow("the order's state is unknown")
    return OrderReport(
        order_id=text(row, "orderId"),
        client_id=optional_text(row, "clientOid"),
        symbol=text(row, "symbol").upper(),
        side=side(row),
        status=status,
        size=number(row, "size"),
        filled_size=number_or_zero(row, "baseVolume"),
        average_price=_present(optional_number(row, "priceAvg")),
        fee=number_or_zero(row, "fee"),
        realized_pnl=number_or_zero(row, "totalProfits"),
        reduce_only=optional_text(row, "reduceOnly").upper() == "YES",
        source=optional_text(row, "orderSource") or "normal",
        created_at=instant(row, "cTime"),
        updated_at=instant(row, "uTime", "cTime"),
    )


def fill(row: Row) -> Fill:
    """A row of `fills`; `feeDetail` is a list, and its fees are negative."""
    fees = rows_of(row.get("feeDetail"))
    return Fill(
        trade_id=text(row, "tradeId"),
        order_id=text(row, "orderId"),
        symbol=text(row, "symbol").upper(),
        side=side(row),
        price=number(row, "price"),
        size=number(row, "baseVolume"),
        quote_size=number(row, "quoteVolume"),
        fee=sum((number_or_zero(item, "totalFee") for item in fees), ZERO),
        fee_asset=text(fees[0], "feeCoin") if fees else "USDT",
        realized_pnl=number_or_zero(row, "profit"),
        is_taker=optional_text(row, "tradeScope") != "maker",
        at=instant(row, "cTime"),
        cause=fill_cause(optional_text(row, "tradeSide")),
    )


def fill_cause(trade_side: str) -> FillCause:
    """Forced closes have a trade side of their own (`burst_sell_single`, `reduce_close_long`)."""
    if "_adl_" in trade_side:
        return FillCause.ADL
    if trade_side.startswith(("burst_", "reduce_", "force_")):
        return FillCause.LIQUIDATION
    return FillCause.ORDER


def bill(row: Row) -> Bill:
    """A row of `bill`: `amount` is PnL, funding or transfer without the fee."""
    venue_kind = text(row, "businessType")
    return Bill(
        bill_id=text(row, "billId"),
        kind=bill_kind(venue_kind),
        venue_kind=venue_kind,
        symbol=optional_text(row, "symbol").upper(),
        asset=text(row, "coin"),
        amount=number(row, "amount"),
        fee=number_or_zero(row, "fee"),
        balance=number_or_zero(row, "balance"),
        at=instant(row, "cTime"),
    )


def bill_kind(venue_kind: str) -> BillKind:
    """Why the wallet changed, in our words."""
    if venue_kind in _TRADE_BILLS:
        return BillKind.TRADE
    if venue_kind == "contract_settle_fee":
        return BillKind.FUNDING
    if venue_kind.startswith("trans_"):
        return BillKind.TRANSFER
    if venue_kind.startswith(("burst_", "force_")):
        return BillKind.LIQUIDATION
    return BillKind.OTHER


def closed_position(row: Row) -> ClosedPosition:
    """A row of `history-position` (its times are spelled `ctime`, `utime`)."""
    return ClosedPosition(
        position_id=text(row, "positionId"),
        symbol=text(row, "symbol").upper(),
        is_long=text(row, "holdSide") == "long",
        entry_price=number(row, "openAvgPrice"),
        close_price=number(row, "closeAvgPrice"),
        size=number(row, "closeTotalPos"),
        gross_pnl=number(row, "pnl"),
        funding=number_or_zero(row, "totalFunding"),
        open_fee=number_or_zero(row, "openFee"),
        close_fee=number_or_zero(row, "closeFee"),
        net_profit=number(row, "netProfit"),
        opened_at=instant(row, "ctime", "cTime"),
        closed_at=instant(row, "utime", "uTime"),
    )


def placed_stop(row: Row) -> PlacedStop | None:
    """A row of `orders-plan-pending`, if it is a whole-position stop; one-way the side closes."""
    plan = text(row, "planType")
    if plan not in ("pos_loss", "pos_profit"):
        return None
    pos_side = optional_text(row, "posSide")
    in_hedge = pos_side in ("long", "short")
    return PlacedStop(
        symbol=text(row, "symbol").upper(),
        order_id=text(row, "orderId"),
        is_stop_loss=plan == "pos_loss",
        protects_long=pos_side == "long" if in_hedge else side(row) is Side.SELL,
        trigger_price=number(row, "triggerPrice"),
    )


def candles(data: object, symbol: str, frequency: Frequency) -> list[Candle]:
    """The answer of a candle endpoint: a list of lists."""
    if not isinstance(data, list):
        raise BadRow("candles are not a list")
    return [candle(cells, symbol, frequency) for cells in data]


def candle(cells: object, symbol: str, frequency: Frequency) -> Candle:
    """Seven or eight texts: open time, open, high, low, close, base volume, …"""
    if not isinstance(cells, Sequence) or isinstance(cells, str) or len(cells) < 6:
        raise BadRow("a candle is not a list of seven")
    named = dict(zip(("t", "o", "h", "l", "c", "v"), cells, strict=False))
    return Candle(
        symbol=symbol,
        frequency=frequency,
        opens_at=from_ms(text(named, "t")),
        open=_positive(number(named, "o"), "open"),
        high=_positive(number(named, "h"), "high"),
        low=_positive(number(named, "l"), "low"),
        close=_positive(number(named, "c"), "close"),
        volume=number(named, "v"),
    )


def depth(row: Row, symbol: str) -> Depth:
    """An answer of `merge-depth`: lists of [price, size], best first."""
    return Depth(
        symbol=symbol,
        bids=_levels(row, "bids", direction=-1),
        asks=_levels(row, "asks", direction=1),
        at=instant(row, "ts"),
    )


def _levels(row: Row, name: str, *, direction: int) -> tuple[BookLevel, ...]:
    cells = row.get(name)
    if not isinstance(cells, list):
        raise BadRow(f"{name} is not a list")
    levels: list[BookLevel] = []
    for cell in cells:
        if not isinstance(cell, Sequence) or isinstance(cell, str) or len(cell) < 2:
            raise BadRow(f"a level of {name} is not a pair")
        named = {"price": cell[0], "size": cell[1]}
        level = BookLevel(_positive(number(named, "price"), name), number(named, "size"))
        if levels and (level.price - levels[-1].price) * direction <= 0:
            raise BadRow(f"{name} are not in order")
        levels.append(level)
    return tuple(levels)


def margin_tier(row: Row) -> MarginTier:
    """A row of `query-position-lever`."""
    return MarginTier(
        from_notional=number(row, "startUnit"),
        to_notional=number(row, "endUnit"),
        maintenance_rate=number(row, "keepMarginRate"),
    )


def _positive(value: Decimal, name: str) -> Decimal:
    if value <= 0:
        raise BadRow(f"{name} is not positive")
    return value


def _present(value: Decimal | None) -> Decimal | None:
    """Zero means "none" where Bitget writes it."""
    return value if value else None
