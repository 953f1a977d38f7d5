"""The spot wallet of one Bitget account (classic, v2): the `Venue` adapter.

Balances are holdings, not positions, and they have no position stops: those calls say so. A market
buy is sent in quote coin, because Bitget wants it so: its size is the base size at the best ask,
cut to the pair's quote precision.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, TypeVar

from module.exchange import bitget_rows as rows
from module.exchange.bitget_orders import refused, settle
from module.exchange.bitget_public import read_spot_symbols
from module.exchange.bitget_requests import (
    BATCH_THREADS,
    PAGE_LIMIT,
    PAGES_MAX,
    TradingRules,
    pick_quotes,
    read_key,
    understood,
)
from module.exchange.bitget_rows import BadRow, Row
from module.exchange.bitget_wire import BitgetWire, Duplicate, endpoint
from module.exchange.venue import (
    CLIENT_ID_CLASH,
    KeyReport,
    PlacedStop,
    Priority,
    TradingMode,
    VenueAccess,
    difference,
)
from module.model.accounts import (
    AccountSnapshot,
    Bill,
    ClosedPosition,
    MarginMode,
    Position,
    PositionMode,
    SpotBalance,
)
from module.model.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    OutcomeUnknown,
    Rejected,
    Retryable,
)
from module.model.market import Instrument, MarketType, Quote
from module.model.money import plain, round_down
from module.model.orders import (
    Fill,
    OrderReport,
    OrderRequest,
    OrderType,
    Outcome,
    Side,
    SubmitResult,
)
from module.ports import Clock

ASSETS = endpoint("privateSpotGetV2SpotAccountAssets", 10)
OPEN_ORDERS = endpoint("privateSpotGetV2SpotTradeUnfilledOrders", 20)
ORDER_INFO = endpoint("privateSpotGetV2SpotTradeOrderInfo", 20)
FILLS = endpoint("privateSpotGetV2SpotTradeFills", 10)
BILLS = endpoint("privateSpotGetV2SpotAccountBills", 10)
PLACE = endpoint("privateSpotPostV2SpotTradePlaceOrder", 10, is_write=True)
CANCEL = endpoint("privateSpotPostV2SpotTradeCancelOrder", 10, is_write=True)
TICKERS = endpoint("publicSpotGetV2SpotMarketTickers", 20)

QUOTE: Final = "USDT"
QUOTE_STEP: Final = Decimal("0.000001")
_NO_STOPS: Final = "spot balances have no position stops; start with software_stops"

T = TypeVar("T")


class BitgetSpot:
    """Implements `module.exchange.venue.Venue`. Thread safe."""

    def __init__(self, access: VenueAccess, wire: BitgetWire, clock: Clock) -> None:
        self._access = access
        self._wire = wire
        self._clock = clock
        self._rules = TradingRules(lambda: read_spot_symbols(wire, Priority.READ), clock)
        self._threads = ThreadPoolExecutor(BATCH_THREADS, thread_name_prefix="venue")

    def __repr__(self) -> str:
        return f"BitgetSpot({self._access.account_id!r})"

    @property
    def market(self) -> MarketType:
        """Spot."""
        return MarketType.SPOT

    def close(self) -> None:
        """End threads and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._wire.close()

    # --- reads ---------------------------------------------------------------------------------

    def check_key(self) -> KeyReport:
        """Ask the exchange who we are; Forbidden when it refuses the credentials."""
        return read_key(self._wire, trade_authority="stow")

    def measure_clock(self) -> float:
        """Compare clocks, at most once a minute; seconds that the exchange is ahead of ours."""
        return self._wire.measure_clock()

    def snapshot(self, *, priority: Priority = Priority.READ) -> AccountSnapshot:
        """Balances valued at last prices; a coin without a USDT pair counts nothing."""
        self._wire.admit([ASSETS, TICKERS, OPEN_ORDERS], priority)
        assets = self._wire.send(ASSETS, {})
        tickers = self._wire.send(TICKERS, {})
        orders = self._wire.send(OPEN_ORDERS, {"limit": str(PAGE_LIMIT)})
        balances = understood(lambda: [_balance(row) for row in rows.rows_of(assets)])
        balances = [item for item in balances if item.free or item.locked]
        prices = understood(
            lambda: {str(r.get("symbol")): rows.number(r, "lastPr") for r in rows.rows_of(tickers)}
        )
        prices[QUOTE + QUOTE] = Decimal(1)
        equity = sum(
            (
                (item.free + item.locked) * prices.get(item.asset + QUOTE, Decimal(0))
                for item in balances
            ),
            Decimal(0),
        )
        free = next((item.free for item in balances if item.asset == QUOTE), Decimal(0))
        return AccountSnapshot(
            account_id=self._access.account_id,
            at=self._clock.now(),
            wallet_balance=equity,
            unrealized_pnl=Decimal(0),
            equity=equity,
            available=free,
            margin_used=Decimal(0),
            position_mode=PositionMode.ONE_WAY,
            positions=(),
            open_orders=tuple(understood(lambda: [spot_order(r) for r in rows.rows_of(orders)])),
            balances=tuple(sorted(balances, key=lambda item: item.asset)),
        )

    def positions(self, *, priority: Priority = Priority.READ) -> tuple[Position, ...]:
        """None on spot."""
        return ()

    def instruments(self) -> Mapping[str, Instrument]:
        """Trading rules of the USDT pairs, at most an hour old."""
        return self._rules.get()

    def quotes(
        self, symbols: Sequence[str], *, priority: Priority = Priority.READ
    ) -> Mapping[str, Quote]:
        """Prices now; the mark is the last price."""
        return pick_quotes(self._wire.call(TICKERS, {}, priority), symbols)

    def trading_mode(
        self, symbol: str, *, max_age_s: float = 0.0, priority: Priority = Priority.READ
    ) -> TradingMode:
        """There is none on spot: InvalidInput."""
        raise InvalidInput("a spot account has neither leverage nor margin mode")

    def order(
        self, symbol: str, client_id: str, *, priority: Priority = Priority.READ
    ) -> OrderReport:
        """By client id; NotFound when the exchange does not know it (yet)."""
        data = self._wire.call(ORDER_INFO, {"clientOid": client_id}, priority)
        found = understood(lambda: [spot_order(row) for row in rows.rows_of(data)])
        for report in found:
            if (report.client_id, report.symbol) == (client_id, symbol):
                return report
        raise NotFound(f"the exchange does not know order {client_id} (yet)")

    def fills(self, since: datetime) -> list[Fill]:
        """Executions from `since` on, oldest first; 90 days at most."""
        found = self._newest_first(FILLS.method, since, _spot_fill, lambda fill: fill.trade_id)
        return sorted(found, key=lambda item: (item.at, item.trade_id))

    def bills(self, since: datetime) -> list[Bill]:
        """Movements of the wallet from `since` on, oldest first; 90 days at most."""
        found = self._newest_first(BILLS.method, since, _spot_bill, lambda bill: bill.bill_id)
        return sorted(found, key=lambda item: (item.at, item.bill_id))

    def closed_positions(self, since: datetime) -> list[ClosedPosition]:
        """None on spot."""
        return []

    # --- writes --------------------------------------------------------------------------------

    def admit_orders(
        self, orders: Sequence[OrderRequest], *, priority: Priority = Priority.ORDER
    ) -> None:
        """Take the request budget that submitting `orders` needs, all or nothing: RateLimited."""
        needs_price = any(_in_quote(order) for order in orders)
        self._wire.admit([PLACE] * len(orders) + [TICKERS] * needs_price, priority)

    def submit(self, orders: Sequence[OrderRequest]) -> list[SubmitResult]:
        """Send admitted orders, one request each, all at once."""
        quotes: Mapping[str, Quote] = {}
        if any(_in_quote(order) for order in orders):
            data = self._wire.send(TICKERS, {})
            quotes = pick_quotes(data, sorted({o.symbol for o in orders if _in_quote(o)}))
        futures = [self._threads.submit(self._submit_one, order, quotes) for order in orders]
        results = settle([future.result() for future in futures], orders)
        if any(result.rules_changed for result in results):
            self._rules.forget()
        return results

    def look_up(self, order: OrderRequest, *, priority: Priority = Priority.ORDER) -> SubmitResult:
        """Ask for an order that may have been sent; a buy in quote coin has a size of its own."""
        try:
            report = self.order(order.symbol, order.client_id, priority=priority)
        except (NotFound, Retryable, OutcomeUnknown) as error:
            return SubmitResult(order.client_id, Outcome.UNKNOWN, message=error.message)
        other = difference(order, report, self.market)
        if not other:
            return SubmitResult(order.client_id, Outcome.ACCEPTED, report.order_id)
        return SubmitResult(
            order.client_id,
            Outcome.UNKNOWN,
            report.order_id,
            CLIENT_ID_CLASH,
            f"another order lives under client id {order.client_id}: {other}",
        )

    def cancel(self, symbol: str, client_id: str) -> None:
        """Cancel it; already over counts as done, after the exchange has confirmed it."""
        try:
            self._wire.call(CANCEL, {"symbol": symbol, "clientOid": client_id}, Priority.CANCEL)
        except NotFound as error:
            if not self.order(symbol, client_id, priority=Priority.CANCEL).status.is_terminal:
                raise OutcomeUnknown(f"{error.message}, and it is still open; ask again") from error

    def set_leverage(self, symbol: str, leverage: Decimal) -> None:
        """There is none on spot."""
        raise InvalidInput("a spot account has no leverage")

    def set_margin_mode(self, symbol: str, margin_mode: MarginMode) -> None:
        """There is none on spot."""
        raise InvalidInput("a spot account has no margin mode")

    def set_stop(
        self,
        symbol: str,
        *,
        is_stop_loss: bool,
        protects_long: bool,
        trigger_price: Decimal,
        priority: Priority = Priority.PROTECTION,
    ) -> None:
        """Refused: there is no position stop on spot."""
        raise InvalidInput(_NO_STOPS)

    def placed_stops(self, *, priority: Priority = Priority.PROTECTION) -> tuple[PlacedStop, ...]:
        """None on spot."""
        return ()

    def remove_stop(self, stop: PlacedStop, *, priority: Priority = Priority.PROTECTION) -> None:
        """Refused: there is no position stop on spot."""
        raise InvalidInput(_NO_STOPS)

    # --- inside --------------------------------------------------------------------------------

    def _submit_one(
        self, order: OrderRequest, quotes: Mapping[str, Quote]
    ) -> SubmitResult | Retryable:
        if not order.stops.empty:
            return SubmitResult(order.client_id, Outcome.REJECTED, None, "stops", _NO_STOPS)
        params: dict[str, object] = {
            "symbol": order.symbol,
            "side": order.side.value,
            "orderType": order.order_type.value,
            "force": "gtc",
            "size": plain(order.size),
            "clientOid": order.client_id,
        }
        if order.order_type is OrderType.LIMIT and order.price is not None:
            params["price"] = plain(order.price)
        if _in_quote(order):
            spent = round_down(order.size * quotes[order.symbol].ask, QUOTE_STEP)
            params["size"] = plain(spent)
        try:
            data = rows.row_of(self._wire.send(PLACE, params))
            if data.get("clientOid") != order.client_id or not rows.optional_text(data, "orderId"):
                raise BadRow("the answer names another order")
            return SubmitResult(order.client_id, Outcome.ACCEPTED, rows.text(data, "orderId"))
        except (BadRow, OutcomeUnknown) as error:
            return SubmitResult(order.client_id, Outcome.UNKNOWN, message=str(error))
        except Duplicate:
            return self.look_up(order)
        except Retryable as error:
            return error
        except Rejected as error:
            return refused(order, error)

    def _newest_first(
        self,
        method: str,
        since: datetime,
        parse: Callable[[Row], T],
        identify: Callable[[T], str],
    ) -> list[T]:
        """Pages of a plain list, newest first, until a page is not full."""
        target = FILLS if method == FILLS.method else BILLS
        now = self._clock.now()
        start = max(since, now - timedelta(days=89))
        params: dict[str, object] = {
            "startTime": rows.to_ms(start),
            "endTime": rows.to_ms(now),
            "limit": str(PAGE_LIMIT),
        }
        found: list[T] = []
        for _ in range(PAGES_MAX):
            data = self._wire.call(target, params, Priority.READ)
            page = understood(lambda d=data: [parse(row) for row in rows.rows_of(d)])  # type: ignore[misc]
            found.extend(page)
            if len(page) < PAGE_LIMIT:
                return found
            params["idLessThan"] = identify(page[-1])
        raise Conflict(f"{method}: more than {PAGES_MAX} pages; ask for a shorter time")


def spot_order(row: Row) -> OrderReport:
    """A row of `orderInfo` or `unfilled-orders`; `feeDetail` is JSON in a text."""
    state = rows.ORDER_STATUS.get(rows.text(row, "status"))
    if state is None:
        raise BadRow("the order's status is unknown")
    bought_in_quote = row.get("orderType") == "market" and row.get("side") == "buy"
    size = rows.number(row, "size")
    filled = rows.number_or_zero(row, "baseVolume")
    return OrderReport(
        order_id=rows.text(row, "orderId"),
        client_id=rows.optional_text(row, "clientOid"),
        symbol=rows.text(row, "symbol").upper(),
        side=rows.side(row),
        status=state,
        size=filled if bought_in_quote else size,
        filled_size=filled,
        average_price=rows.optional_number(row, "priceAvg") if filled else None,
        fee=_order_fee(rows.optional_text(row, "feeDetail")),
        realized_pnl=Decimal(0),
        reduce_only=row.get("side") == "sell",
        source=rows.optional_text(row, "orderSource") or "normal",
        created_at=rows.instant(row, "cTime"),
        updated_at=rows.instant(row, "uTime", "cTime"),
    )


def _order_fee(detail: str) -> Decimal:
    """The sum that `newFees` states; zero where nothing was paid."""
    if not detail:
        return Decimal(0)
    try:
        loaded = json.loads(detail, parse_float=str)
    except ValueError as error:
        raise BadRow("feeDetail is not JSON") from error
    fees = loaded.get("newFees") if isinstance(loaded, dict) else None
    if isinstance(fees, dict):
        return rows.number_or_zero(fees, "t")
    return Decimal(0)


def _spot_fill(row: Row) -> Fill:
    """A row of spot `fills`; `feeDetail` is one object."""
    fee = rows.row_of(row.get("feeDetail") or {})
    return Fill(
        trade_id=rows.text(row, "tradeId"),
        order_id=rows.text(row, "orderId"),
        symbol=rows.text(row, "symbol").upper(),
        side=rows.side(row),
        price=rows.number(row, "priceAvg"),
        size=rows.number(row, "size"),
        quote_size=rows.number(row, "amount"),
        fee=rows.number_or_zero(fee, "totalFee"),
        fee_asset=rows.optional_text(fee, "feeCoin") or QUOTE,
        realized_pnl=Decimal(0),
        is_taker=rows.optional_text(row, "tradeScope") != "maker",
        at=rows.instant(row, "cTime"),
    )


def _spot_bill(row: Row) -> Bill:
    venue_kind = rows.optional_text(row, "businessType") or rows.optional_text(row, "groupType")
    kind = rows.bill_kind(venue_kind.lower())
    if rows.optional_text(row, "groupType").lower() == "transfer":
        kind = rows.bill_kind("trans_")
    return Bill(
        bill_id=rows.text(row, "billId"),
        kind=kind,
        venue_kind=venue_kind,
        symbol="",
        asset=rows.text(row, "coin").upper(),
        amount=rows.number(row, "size"),
        fee=rows.number_or_zero(row, "fees"),
        balance=rows.number_or_zero(row, "balance"),
        at=rows.instant(row, "cTime"),
    )


def _balance(row: Row) -> SpotBalance:
    return SpotBalance(
        asset=rows.text(row, "coin").upper(),
        free=rows.number(row, "available"),
        locked=rows.number_or_zero(row, "frozen") + rows.number_or_zero(row, "locked"),
    )


def _in_quote(order: OrderRequest) -> bool:
    return order.side is Side.BUY and order.order_type is OrderType.MARKET
