"""USDT futures of one Bitget account (classic, v2), one-way position mode: the `Venue` adapter."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import ClassVar, Final

from module.exchange import bitget_rows as rows
from module.exchange.bitget_account import BitgetAccount
from module.exchange.bitget_orders import by_symbol, place, requests_for, tell_answers
from module.exchange.bitget_requests import (
    Listing,
    at_once,
    first_page,
    quotes_in,
    read_key,
    read_pages,
    readable,
    understood,
)
from module.exchange.bitget_rows import BadRow
from module.exchange.bitget_wire import (
    SIGNATURE_HOLDS_S,
    BitgetWire,
    Endpoint,
    NoChange,
    endpoint,
)
from module.exchange.venue import (
    Ability,
    KeyReport,
    OnAnswer,
    PlacedStop,
    Priority,
    TradingMode,
    VenueAccess,
    nobody_listens,
)
from module.model.accounts import (
    AccountSnapshot,
    Bill,
    ClosedPosition,
    MarginMode,
    Position,
    PositionMode,
)
from module.model.errors import (
    NotFound,
    OutcomeUnknown,
    Rejected,
    Retryable,
    Unavailable,
)
from module.model.market import Instrument, MarketType
from module.model.money import plain
from module.model.orders import (
    Fill,
    OrderReport,
    OrderRequest,
    SubmitResult,
)
from module.ports import Clock

log = logging.getLogger(__name__)

PRODUCT: Final = "USDT-FUTURES"
COIN: Final = "USDT"
MODE_FRESH: Final = timedelta(minutes=5)
LOOKED_FRESH: Final = timedelta(seconds=3)
BILLS_SPAN: Final = timedelta(days=29)
_BASE: Final = {"productType": PRODUCT}

ACCOUNTS = endpoint("privateMixGetV2MixAccountAccounts", 10)
ACCOUNT = endpoint("privateMixGetV2MixAccountAccount", 10)
POSITIONS = endpoint("privateMixGetV2MixPositionAllPosition", 5)
CLOSED = endpoint("privateMixGetV2MixPositionHistoryPosition", 20)
PENDING = endpoint("privateMixGetV2MixOrderOrdersPending", 10)
DETAIL = endpoint("privateMixGetV2MixOrderDetail", 10)
FILLS = endpoint("privateMixGetV2MixOrderFills", 10)
BILLS = endpoint("privateMixGetV2MixAccountBill", 10)
PLANS = endpoint("privateMixGetV2MixOrderOrdersPlanPending", 10)
CANCEL = endpoint("privateMixPostV2MixOrderCancelOrder", 10, is_write=True)
SET_LEVERAGE = endpoint("privateMixPostV2MixAccountSetLeverage", 5, is_write=True)
SET_MARGIN_MODE = endpoint("privateMixPostV2MixAccountSetMarginMode", 5, is_write=True)
PLACE_STOP = endpoint("privateMixPostV2MixOrderPlaceTpslOrder", 10, is_write=True)
CANCEL_PLAN = endpoint("privateMixPostV2MixOrderCancelPlanOrder", 10, is_write=True)
CONTRACTS = endpoint("publicMixGetV2MixMarketContracts", 20)
TICKERS = endpoint("publicMixGetV2MixMarketTickers", 20)

PENDING_LIST = Listing(PENDING, "entrustedList")
FILL_LIST = Listing(FILLS, "fillList")
BILL_LIST = Listing(BILLS, "bills")
CLOSED_LIST = Listing(CLOSED, "list")
PLAN_LIST = Listing(PLANS, "entrustedList")


@dataclass(slots=True)
class _Cache:
    """What changes rarely: modes by symbol."""

    modes: dict[str, tuple[TradingMode, datetime]] = field(default_factory=dict)
    margin_modes: dict[str, MarginMode] = field(default_factory=dict)
    account_mode: tuple[PositionMode, datetime] | None = None
    looked_at: datetime | None = None
    """When positions were asked for last."""
    unpriced: frozenset[str] = frozenset()
    """What positions had no mark then."""

    def knows(self, symbol: str, now: datetime, max_age_s: float) -> bool:
        """Whether its mode was read within the last `max_age_s`."""
        known = self.modes.get(symbol)
        return known is not None and (now - known[1]).total_seconds() <= max_age_s


class BitgetFutures(BitgetAccount):
    """Implements `module.exchange.venue.Venue`. Thread safe."""

    _tickers = TICKERS
    _cancel_order = CANCEL
    _cancel_words: ClassVar[Mapping[str, object]] = {"marginCoin": COIN}

    def __init__(self, access: VenueAccess, wire: BitgetWire, clock: Clock) -> None:
        super().__init__(access, wire, clock, lambda: read_contracts(wire, Priority.READ), _BASE)
        self._cache = _Cache()
        self._lock = threading.Lock()

    @property
    def market(self) -> MarketType:
        """Futures."""
        return MarketType.FUTURES

    @property
    def abilities(self) -> frozenset[Ability]:
        """All there are."""
        return frozenset(Ability)

    @property
    def takes_late_s(self) -> float:
        """As every signed request (its orders have no window of their own)."""
        return SIGNATURE_HOLDS_S

    # --- reads ---------------------------------------------------------------------------------

    def check_key(self) -> KeyReport:
        """Ask the exchange who we are; Forbidden when it refuses the credentials."""
        report = read_key(self._wire, trade_authority="coow")
        mode = self.trading_mode(self._any_symbol())
        return replace(
            report, position_mode=mode.position_mode, shares_collateral=mode.shares_collateral
        )

    def snapshot(self, *, priority: Priority = Priority.READ) -> AccountSnapshot:
        """Wallet, positions, open orders: asked for at once, under one admission."""
        self._wire.admit([ACCOUNTS, POSITIONS, PENDING], priority)
        asked_at = self._clock.now()
        wallet_data, position_data, order_data = at_once(
            self._threads,
            lambda: self._wire.send(ACCOUNTS, _BASE),
            lambda: self._wire.send(POSITIONS, {**_BASE, "marginCoin": COIN}),
            lambda: self._wire.send(PENDING, first_page(_BASE)),
        )
        wallet = understood(
            lambda: next(row for row in rows.rows_of(wallet_data) if row.get("marginCoin") == COIN)
        )
        positions = self._positions_from(position_data, asked_at, priority)
        orders = read_pages(
            self._wire, PENDING_LIST, _BASE, rows.order_report, priority=priority, first=order_data
        )
        mode = self._position_mode(position_data, priority)
        equity = understood(lambda: rows.number(wallet, "accountEquity"))
        unrealized = sum((position.unrealized_pnl for position in positions), Decimal(0))
        stated = understood(lambda: rows.optional_number(wallet, "unrealizedPL"))
        if stated is not None:
            unrealized = stated
        return AccountSnapshot(
            account_id=self._access.account_id,
            at=self._clock.now(),
            wallet_balance=equity - unrealized,
            unrealized_pnl=unrealized,
            equity=equity,
            available=understood(lambda: rows.number(wallet, "available")),
            margin_used=sum((position.margin_size for position in positions), Decimal(0)),
            position_mode=mode,
            positions=positions,
            open_orders=tuple(orders),
        )

    def positions(self, *, priority: Priority = Priority.READ) -> tuple[Position, ...]:
        """Open positions with their stops."""
        asked_at = self._clock.now()
        data = self._wire.call(POSITIONS, {**_BASE, "marginCoin": COIN}, priority)
        return self._positions_from(data, asked_at, priority)

    def holdings(self, *, priority: Priority = Priority.READ) -> tuple[Position, ...]:
        """The positions."""
        return self.positions(priority=priority)

    def trading_mode(
        self, symbol: str, *, max_age_s: float = 0.0, priority: Priority = Priority.READ
    ) -> TradingMode:
        """Position mode, margin mode and leverage; at most `max_age_s` world seconds old.

        Of a symbol that is held the positions tell them: only others are asked for one by one.
        """
        with self._lock:
            known = self._cache.modes.get(symbol)
        now = self._clock.now()
        if known is not None and (now - known[1]).total_seconds() <= max_age_s and max_age_s > 0:
            return known[0]
        params = {"symbol": symbol, "marginCoin": COIN}
        mode = self._read(
            ACCOUNT, params, lambda d: rows.trading_mode(rows.row_of(d), symbol), priority
        )
        with self._lock:
            self._cache.modes[symbol] = (mode, now)
            self._cache.margin_modes[symbol] = mode.settings.margin_mode
            self._cache.account_mode = (mode.position_mode, now)
        return mode

    def trading_modes(
        self, symbols: Sequence[str], *, max_age_s: float, priority: Priority = Priority.READ
    ) -> dict[str, TradingMode]:
        """As `trading_mode`; one look at the positions tells those of all that are held."""
        now = self._clock.now()
        with self._lock:
            old = [symbol for symbol in symbols if not self._cache.knows(symbol, now, max_age_s)]
            looked_at = self._cache.looked_at
        if len(old) > 1 and (looked_at is None or abs(now - looked_at) > LOOKED_FRESH):
            self.positions(priority=priority)
        return {
            symbol: self.trading_mode(symbol, max_age_s=max_age_s, priority=priority)
            for symbol in symbols
        }

    def order(
        self, symbol: str, client_id: str, *, priority: Priority = Priority.READ
    ) -> OrderReport:
        """By client id; NotFound when the exchange does not know it (yet)."""
        params = {"symbol": symbol, "clientOid": client_id}
        report = self._read(DETAIL, params, lambda d: rows.order_report(rows.row_of(d)), priority)
        if report.client_id != client_id or report.symbol != symbol:
            raise Unavailable(f"asked for order {client_id}, told of another; ask again")
        return report

    def fills(self, since: datetime) -> list[Fill]:
        """Executions from `since` on, oldest first; the exchange knows 90 days."""
        found = self._history(FILL_LIST, since, rows.fill)
        return sorted(found, key=lambda item: (item.at, item.trade_id))

    def bills(self, since: datetime) -> list[Bill]:
        """Movements of the wallet from `since` on, oldest first; 90 days at most."""
        found = self._history(BILL_LIST, since, rows.bill, BILLS_SPAN)
        return sorted(found, key=lambda item: (item.at, item.bill_id))

    def closed_positions(self, since: datetime) -> list[ClosedPosition]:
        """Positions that ended from `since` on, oldest first; 90 days at most."""
        found = self._history(CLOSED_LIST, since, rows.closed_position)
        return sorted(found, key=lambda item: (item.closed_at, item.position_id))

    def placed_stops(self, *, priority: Priority = Priority.PROTECTION) -> tuple[PlacedStop, ...]:
        """All whole-position stops that the exchange holds for the account."""
        params = {**_BASE, "planType": "profit_loss"}
        found = read_pages(self._wire, PLAN_LIST, params, rows.placed_stop, priority=priority)
        return tuple(stop for stop in found if stop is not None)

    # --- settings ------------------------------------------------------------------------------

    def set_leverage(self, symbol: str, leverage: Decimal) -> None:
        """Set it; the caller has seen that the symbol is flat and reads back."""
        params = {**_BASE, "symbol": symbol, "marginCoin": COIN, "leverage": plain(leverage)}
        self._set(SET_LEVERAGE, symbol, params)

    def set_margin_mode(self, symbol: str, margin_mode: MarginMode) -> None:
        """Set it; the caller has seen that the symbol is flat and reads back."""
        params = {**_BASE, "symbol": symbol, "marginCoin": COIN, "marginMode": margin_mode.value}
        self._set(SET_MARGIN_MODE, symbol, params)

    def _set(self, target: Endpoint, symbol: str, params: Mapping[str, object]) -> None:
        try:
            self._wire.call(target, params, Priority.ORDER)
        except NoChange:
            pass
        finally:
            with self._lock:
                self._cache.modes.pop(symbol, None)

    # --- orders --------------------------------------------------------------------------------

    def admit_orders(
        self, orders: Sequence[OrderRequest], *, priority: Priority = Priority.ORDER
    ) -> None:
        """Take the request budget that submitting `orders` needs, all or nothing: RateLimited."""
        for symbol in sorted({order.symbol for order in orders}):
            self._margin_mode(symbol, priority)
        self._wire.admit(requests_for(orders), priority)

    def submit(
        self, orders: Sequence[OrderRequest], *, on_answer: OnAnswer = nobody_listens
    ) -> list[SubmitResult]:
        """Send admitted orders: one request per symbol, all at once."""
        answers = at_once(
            self._threads,
            *(
                partial(self._place, self._common(symbol), group, on_answer)
                for symbol, group in by_symbol(orders).items()
            ),
        )
        by_id: dict[str, SubmitResult | Retryable] = {}
        for answer in answers:
            by_id.update(answer)
        return self._settle([by_id[order.client_id] for order in orders], orders)

    def _place(
        self, common: Mapping[str, object], group: Sequence[OrderRequest], on_answer: OnAnswer
    ) -> dict[str, SubmitResult | Retryable]:
        answers = place(self._wire, common, group, self.look_up)
        tell_answers(answers.values(), on_answer)
        return answers

    def _common(self, symbol: str) -> dict[str, object]:
        return {
            **_BASE,
            "symbol": symbol,
            "marginCoin": COIN,
            "marginMode": self._margin_mode(symbol, Priority.ORDER).value,
        }

    def _margin_mode(self, symbol: str, priority: Priority) -> MarginMode:
        """As last seen in positions or settings: an order must name what is set, never switch."""
        with self._lock:
            known = self._cache.margin_modes.get(symbol)
        return known or self.trading_mode(symbol, priority=priority).settings.margin_mode

    # --- stops ---------------------------------------------------------------------------------

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
        """Place or move the position's stop: an upsert on the exchange, triggered by the mark."""
        params = {
            **_BASE,
            "symbol": symbol,
            "marginCoin": COIN,
            "planType": "pos_loss" if is_stop_loss else "pos_profit",
            "triggerPrice": plain(trigger_price),
            "triggerType": "mark_price",
            "holdSide": "buy" if protects_long else "sell",
        }
        with self._rules_checked():
            data = self._wire.call(PLACE_STOP, params, priority)
        if not isinstance(data, Mapping) or not rows.optional_text(data, "orderId"):
            raise OutcomeUnknown(f"{symbol}: the stop's answer names no order; read it back")

    def remove_stop(self, stop: PlacedStop, *, priority: Priority = Priority.PROTECTION) -> None:
        """Remove it under its own plan type (any other is answered with success and no effect)."""
        params = {
            **_BASE,
            "symbol": stop.symbol,
            "marginCoin": COIN,
            "planType": "pos_loss" if stop.is_stop_loss else "pos_profit",
            "orderIdList": [{"orderId": stop.order_id}],
        }
        try:
            data = self._wire.call(CANCEL_PLAN, params, priority)
            done = rows.rows_of(data, "successList")
        except (NotFound, BadRow):
            done = []
        if any(row.get("orderId") == stop.order_id for row in done):
            return
        if any(left.order_id == stop.order_id for left in self.placed_stops(priority=priority)):
            raise OutcomeUnknown(f"{stop.symbol}: stop {stop.order_id} is still there; look again")

    # --- inside --------------------------------------------------------------------------------

    def _positions_from(
        self, data: object, asked_at: datetime, priority: Priority
    ) -> tuple[Position, ...]:
        held = understood(lambda: [r for r in rows.rows_of(data) if rows.number(r, "total")])
        marks = self._marks_of(
            [str(row.get("symbol")) for row in held if rows.price(row, "markPrice") is None],
            priority,
        )
        found = understood(
            lambda: [rows.position(row, marks.get(str(row.get("symbol")))) for row in held]
        )
        modes = understood(lambda: [rows.mode_of_position(row) for row in held])
        with self._lock:
            self._cache.looked_at = asked_at
            self._cache.margin_modes.update({item.symbol: item.margin_mode for item in found})
            for mode in modes:
                known = self._cache.modes.get(mode.settings.symbol)
                if known is None or known[1] <= asked_at:
                    self._cache.modes[mode.settings.symbol] = (mode, asked_at)
        return tuple(sorted(found, key=lambda item: item.symbol))

    def _marks_of(self, unpriced: Sequence[str], priority: Priority) -> Mapping[str, Decimal]:
        """Of positions whose rows have no mark (C1): the tickers', as far as they have one. Neither
        guard nor last gate wait for that: they need sizes and stops, and the exchange judges by its
        own mark where a stop may be."""
        with self._lock:
            told, self._cache.unpriced = self._cache.unpriced, frozenset(unpriced)
        if not unpriced:
            return {}
        if not told.issuperset(unpriced):
            log.warning(
                "positions without a mark are priced by their ticker, else at their entry: %s",
                ", ".join(unpriced)[:200],
            )
        if priority is not Priority.READ:
            return {}
        try:
            tickers = self._wire.call(TICKERS, _BASE, priority)
            return {name: each.mark for name, each in quotes_in(tickers, unpriced).items()}
        except (Retryable, Rejected) as error:
            log.warning("no tickers for positions without a mark: %s", error.message)
            return {}

    def _position_mode(self, position_data: object, priority: Priority) -> PositionMode:
        held = understood(lambda: rows.rows_of(position_data))
        if held:
            return understood(lambda: rows.position_mode(held[0]))
        with self._lock:
            known = self._cache.account_mode
        if known is not None and self._clock.now() - known[1] <= MODE_FRESH:
            return known[0]
        return self.trading_mode(self._any_symbol(), priority=priority).position_mode

    def _any_symbol(self) -> str:
        """Position mode and asset mode are the account's: any symbol tells them."""
        for item in self.instruments().values():
            if item.tradable:
                return item.symbol
        raise Unavailable("the exchange lists no tradable contract; ask again")


def read_contracts(wire: BitgetWire, priority: Priority) -> dict[str, Instrument]:
    """All USDT contracts by symbol."""
    data = wire.call(CONTRACTS, _BASE, priority)
    return {item.symbol: item for item in readable(data, rows.contract)}
