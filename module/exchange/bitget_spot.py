"""The spot wallet of one Bitget account (classic, v2): the `Venue` adapter.

    assets, tickers ─► coins ─┬─► snapshot: all that has a price, as longs (what a session plans by)
    trigger orders  ──────────┴─► holdings: what can be sold, on the lot (what stops protect)

The stops of coins are trigger orders of the sellable size (`bitget_spot_stops.py`), placed once
there is something to sell. A market buy is sent in quote coin, because Bitget wants it so: its size
is the base size at the best ask, cut to six decimals; where that ask is too far off the price that
it was planned at it is not sent (`OrderRequest.off_plan`). Its fee is taken from the coin, so that
what is held afterwards is less than what was filled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Final

from module.exchange import bitget_rows as rows
from module.exchange.agreement import StopReading, read_stops
from module.exchange.bitget_account import BitgetAccount
from module.exchange.bitget_orders import place_one, tell_answers
from module.exchange.bitget_public import read_spot_symbols
from module.exchange.bitget_requests import (
    Listing,
    at_once,
    first_page,
    quotes_in,
    read_key,
    read_pages,
    understood,
)
from module.exchange.bitget_spot_rows import spot_balance, spot_bill, spot_fill, spot_order
from module.exchange.bitget_spot_stops import STOP_LIST, SpotStops
from module.exchange.bitget_wire import BitgetWire, endpoint
from module.exchange.venue import (
    Ability,
    KeyReport,
    NoPosition,
    OnAnswer,
    PlacedStop,
    Priority,
    TradingMode,
    VenueAccess,
    WrongSideOfPrice,
    nobody_listens,
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
from module.model.errors import InvalidInput, NotFound, Rejected, Retryable, Unavailable
from module.model.market import Instrument, MarketType, Quote
from module.model.money import plain, round_down
from module.model.orders import (
    PRICE_MOVED,
    Fill,
    OrderReport,
    OrderRequest,
    OrderType,
    Outcome,
    Side,
    StopPrices,
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

OPEN_LIST = Listing(OPEN_ORDERS, None, "orderId")
FILL_LIST = Listing(FILLS, None, "tradeId")
BILL_LIST = Listing(BILLS, None, "billId")

QUOTE: Final = "USDT"
NO_PRICE: Final = "no-price"
RECEIVE_WINDOW_S: Final = 8.0
"""An order that comes later than so long after it was signed is refused (then 40078)."""
PRICE_LASTS: Final = timedelta(seconds=60)
"""So long a coin whose price cannot be read has the one before."""
QUOTE_STEP: Final = Decimal("0.000001")
_UNKNOWN_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Wallet:
    """Coins and last prices by symbol, read together."""

    balances: tuple[SpotBalance, ...]
    prices: Mapping[str, Decimal]

    def value_of(self, coin: SpotBalance) -> Decimal:
        """In quote coin; zero for a coin without a USDT pair."""
        return (coin.free + coin.locked) * self.prices.get(coin.asset + QUOTE, Decimal(0))

    @property
    def coins(self) -> list[tuple[SpotBalance, Decimal]]:
        """What has a price, with it; the quote coin is money."""
        priced = [(coin, self.prices.get(coin.asset + QUOTE)) for coin in self.balances]
        return [(coin, price) for coin, price in priced if price and coin.asset != QUOTE]


class BitgetSpot(BitgetAccount):
    """Implements `module.exchange.venue.Venue`. Thread safe."""

    _tickers = TICKERS
    _cancel_order = CANCEL

    def __init__(self, access: VenueAccess, wire: BitgetWire, clock: Clock) -> None:
        super().__init__(access, wire, clock, lambda: read_spot_symbols(wire, Priority.READ), {})
        self._stops = SpotStops(wire, clock)
        self._last_prices: dict[str, tuple[Decimal, datetime]] = {}

    @property
    def market(self) -> MarketType:
        """Spot."""
        return MarketType.SPOT

    @property
    def abilities(self) -> frozenset[Ability]:
        """Stops and bills; buys are in quote coin, and nothing is short or leveraged."""
        return frozenset((Ability.STOPS, Ability.BILLS))

    @property
    def takes_late_s(self) -> float:
        """The window that every order of ours carries."""
        return RECEIVE_WINDOW_S

    # --- reads ---------------------------------------------------------------------------------

    def check_key(self) -> KeyReport:
        """Ask the exchange who we are; Forbidden when it refuses the credentials."""
        return read_key(self._wire, trade_authority="stow")

    def snapshot(self, *, priority: Priority = Priority.READ) -> AccountSnapshot:
        """Coins at their last price with the stops that are in order, and the free quote coin; a
        coin without a USDT pair is a balance alone and counts nothing."""
        rules = self.instruments()
        self._wire.admit([ASSETS, TICKERS, OPEN_ORDERS, STOP_LIST.target], priority)
        assets, tickers, orders_page, stops_page = at_once(
            self._threads,
            lambda: self._wire.send(ASSETS, {}),
            lambda: self._wire.send(TICKERS, {}),
            lambda: self._wire.send(OPEN_ORDERS, first_page({})),
            lambda: self._wire.send(STOP_LIST.target, first_page({})),
        )
        wallet = self._wallet(assets, tickers, rules)
        orders = read_pages(
            self._wire, OPEN_LIST, {}, spot_order, priority=priority, first=orders_page
        )
        placed = self._stops.placed(priority, first=stops_page)
        equity = sum((wallet.value_of(coin) for coin in wallet.balances), Decimal(0))
        free = next((coin.free for coin in wallet.balances if coin.asset == QUOTE), Decimal(0))
        return AccountSnapshot(
            account_id=self._access.account_id,
            at=self._clock.now(),
            wallet_balance=equity,
            unrealized_pnl=Decimal(0),
            equity=equity,
            available=free,
            margin_used=Decimal(0),
            position_mode=PositionMode.ONE_WAY,
            positions=tuple(_held(coin, price, rules, placed) for coin, price in wallet.coins),
            open_orders=tuple(orders),
            balances=wallet.balances,
        )

    def positions(self, *, priority: Priority = Priority.READ) -> tuple[Position, ...]:
        """None on spot; see `holdings` and `snapshot`."""
        return ()

    def holdings(self, *, priority: Priority = Priority.READ) -> tuple[Position, ...]:
        """The coins that are free to be sold, as longs; what is under the minimum is not held."""
        rules = self.instruments()
        self._wire.admit([ASSETS, TICKERS], priority)
        assets, tickers = at_once(
            self._threads,
            lambda: self._wire.send(ASSETS, {}),
            lambda: self._wire.send(TICKERS, {}),
        )
        wallet = self._wallet(assets, tickers, rules)
        found = [(coin, price, _sellable(coin, price, rules)) for coin, price in wallet.coins]
        return tuple(_as_long(coin, size, price) for coin, price, size in found if size)

    def trading_mode(
        self, symbol: str, *, max_age_s: float = 0.0, priority: Priority = Priority.READ
    ) -> TradingMode:
        """There is none on spot: InvalidInput."""
        raise InvalidInput("a spot account has neither leverage nor margin mode")

    def trading_modes(
        self, symbols: Sequence[str], *, max_age_s: float, priority: Priority = Priority.READ
    ) -> Mapping[str, TradingMode]:
        """There are none on spot: InvalidInput."""
        raise InvalidInput("a spot account has neither leverage nor margin mode")

    def order(
        self, symbol: str, client_id: str, *, priority: Priority = Priority.READ
    ) -> OrderReport:
        """By client id; NotFound when the exchange does not know it (yet)."""
        found = self._read(
            ORDER_INFO,
            {"clientOid": client_id},
            lambda data: [spot_order(row) for row in rows.rows_of(data)],
            priority,
        )
        for report in found:
            if (report.client_id, report.symbol) == (client_id, symbol):
                return report
        raise NotFound(f"the exchange does not know order {client_id} (yet)")

    def fills(self, since: datetime) -> list[Fill]:
        """Executions from `since` on, oldest first; 90 days at most."""
        found = self._history(FILL_LIST, since, spot_fill)
        return sorted(found, key=lambda item: (item.at, item.trade_id))

    def bills(self, since: datetime) -> list[Bill]:
        """Movements of the wallet from `since` on, oldest first; 90 days at most."""
        found = self._history(BILL_LIST, since, spot_bill)
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

    def submit(
        self, orders: Sequence[OrderRequest], *, on_answer: OnAnswer = nobody_listens
    ) -> list[SubmitResult]:
        """Send admitted orders, one request each, all at once."""
        quotes: Mapping[str, Quote] = {}
        if any(_in_quote(order) for order in orders):
            priced = understood(lambda: rows.rows_of(self._wire.send(TICKERS, {})))
            quotes = quotes_in(priced, [order.symbol for order in orders if _in_quote(order)])
        answers = at_once(
            self._threads,
            *(partial(self._submit_one, order, quotes, on_answer) for order in orders),
        )
        return self._settle(answers, orders)

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
        held: Position | None = None,
        priority: Priority = Priority.PROTECTION,
    ) -> None:
        """One trigger order that sells all of the coin at market; triggered by the last price.

        Reading the wallet takes a tenth of a second's requests: what is `held` is not read again,
        or the stops of a whole book would take seconds."""
        if held is None:
            held = next((p for p in self.holdings(priority=priority) if p.symbol == symbol), None)
        if held is None or not protects_long:
            raise NoPosition(f"{symbol}: there is nothing to protect")
        with self._rules_checked():
            self._stops.set(held, trigger_price, is_stop_loss=is_stop_loss, priority=priority)

    def placed_stops(self, *, priority: Priority = Priority.PROTECTION) -> tuple[PlacedStop, ...]:
        """All trigger orders that `set_stop` made; those of a person are not among them."""
        return self._stops.placed(priority)

    def remove_stop(self, stop: PlacedStop, *, priority: Priority = Priority.PROTECTION) -> None:
        """Remove it; already gone counts as done."""
        self._stops.remove(stop, priority)

    # --- inside --------------------------------------------------------------------------------

    def _wallet(self, assets: object, tickers: object, pairs: Mapping[str, Instrument]) -> _Wallet:
        """Prices are read of what is there: a pair that is listed before it trades has none yet.

        A coin whose price cannot be read has the one that was read last: left out, it would be
        taken for sold, and its stop for left behind (C1). Unavailable where that is old and its
        pair trades. A pair that is not listed any more was removed (A20): nobody can sell it."""
        balances = understood(lambda: [spot_balance(row) for row in rows.rows_of(assets)])
        present = [coin for coin in balances if coin.free or coin.locked]
        needed = {coin.asset + QUOTE for coin in present} - {QUOTE + QUOTE}
        listed = understood(lambda: rows.rows_of(tickers))
        named = {str(row.get("symbol")): row for row in listed if row.get("symbol") in needed}
        prices = {QUOTE + QUOTE: Decimal(1)}
        now = self._clock.now()
        for symbol in sorted(named):
            price = rows.price(named[symbol], "lastPr")
            if price is None:
                price = self._price_before(symbol, now)
            else:
                self._last_prices[symbol] = (price, now)
            if price is not None:
                prices[symbol] = price
            elif symbol in pairs and pairs[symbol].tradable:
                raise Unavailable(f"the exchange tells no price of {symbol}; ask again")
        return _Wallet(tuple(sorted(present, key=lambda coin: coin.asset)), prices)

    def _price_before(self, symbol: str, now: datetime) -> Decimal | None:
        """The last one that was read, while it is young."""
        price, at = self._last_prices.get(symbol, (None, now))
        return price if abs(now - at) <= PRICE_LASTS else None

    def _submit_one(
        self, order: OrderRequest, quotes: Mapping[str, Quote], on_answer: OnAnswer
    ) -> SubmitResult | Retryable:
        answer = self._place(order, quotes)
        tell_answers([answer], on_answer)
        return answer

    def _place(self, order: OrderRequest, quotes: Mapping[str, Quote]) -> SubmitResult | Retryable:
        params: dict[str, object] = {
            "symbol": order.symbol,
            "side": order.side.value,
            "orderType": order.order_type.value,
            "force": "gtc",
            "size": plain(order.size),
            "clientOid": order.client_id,
            "requestTime": str(self._wire.timestamp_ms()),
            "receiveWindow": str(int(RECEIVE_WINDOW_S * 1000)),
        }
        if order.order_type is OrderType.LIMIT and order.price is not None:
            params["price"] = plain(order.price)
        reference = order.price
        if _in_quote(order):
            if order.symbol not in quotes:
                return self._refuse(order, NO_PRICE, f"{order.symbol} has no price now")
            reference = quotes[order.symbol].ask
            params["size"] = plain(round_down(order.size * reference, QUOTE_STEP))
            moved = order.off_plan(reference)
            if moved:
                return self._refuse(order, PRICE_MOVED, moved)
        why = _stops_wrong(order, reference)
        if why:
            return self._refuse(order, WrongSideOfPrice.code, why)
        return place_one(self._wire, PLACE, params, order, self.look_up)

    def _refuse(self, order: OrderRequest, code: str, why: str) -> SubmitResult | Retryable:
        """Not sent, unless it was sent before."""
        try:
            self.order(order.symbol, order.client_id, priority=Priority.ORDER)
        except NotFound:
            return SubmitResult(order.client_id, Outcome.REJECTED, None, code, why)
        except Retryable as error:
            return error
        except Rejected:
            pass  # the question is refused: that says nothing of the order
        return self.look_up(order)


def _sellable(coin: SpotBalance, price: Decimal, rules: Mapping[str, Instrument]) -> Decimal:
    """What a sale may sell of a coin: free, on the lot, over the pair's minimum; else zero."""
    pair = rules.get(coin.asset + QUOTE)
    if pair is None:
        return Decimal(0)
    size = round_down(coin.free, pair.size_step)
    enough = size >= pair.size_min and size * price >= pair.notional_min
    return size if enough else Decimal(0)


def _held(
    coin: SpotBalance,
    price: Decimal,
    rules: Mapping[str, Instrument],
    placed: Sequence[PlacedStop],
) -> Position:
    """All of a coin, and how much of it can be sold, with the stops of that which are in order."""
    size, sellable = coin.free + coin.locked, _sellable(coin, price, rules)
    reading = read_stops(_as_long(coin, sellable, price), placed) if sellable else StopReading()
    held = _as_long(coin, size, price)
    return replace(held, stops=reading.stops, locked=size - sellable)


def _as_long(coin: SpotBalance, size: Decimal, price: Decimal) -> Position:
    """`size` of a coin in the words of positions."""
    return Position(
        symbol=coin.asset + QUOTE,
        size=size,
        entry_price=price,
        mark_price=price,
        margin_size=size * price,
        unrealized_pnl=Decimal(0),
        realized_pnl=Decimal(0),
        fees=Decimal(0),
        funding=Decimal(0),
        leverage=Decimal(1),
        margin_mode=MarginMode.CROSSED,
        liquidation_price=None,
        stops=StopPrices(),
        opened_at=_UNKNOWN_TIME,
    )


def _stops_wrong(order: OrderRequest, reference: Decimal | None) -> str:
    """Why the stops that shall be placed after this purchase never could be; else empty."""
    loss, profit = order.stops.stop_loss, order.stops.take_profit
    if reference is None:
        return ""
    if loss is not None and loss >= reference:
        return f"stop loss {plain(loss)} is not under the price {plain(reference)}"
    if profit is not None and profit <= reference:
        return f"take profit {plain(profit)} is not above the price {plain(reference)}"
    return ""


def _in_quote(order: OrderRequest) -> bool:
    return order.side is Side.BUY and order.order_type is OrderType.MARKET
