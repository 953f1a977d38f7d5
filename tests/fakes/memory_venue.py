"""A venue in memory: fills at once at the mark, keeps stops, fails when a test scripts it."""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from module.exchange.agreement import difference
from module.exchange.venue import (
    CLIENT_ID_CLASH,
    Ability,
    KeyReport,
    NoPosition,
    OnAnswer,
    PlacedStop,
    Priority,
    PublicMarket,
    RequestGate,
    TradingMode,
    Venue,
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
    SymbolSettings,
)
from module.model.errors import AifapError, NotFound, OutcomeUnknown, Rejected
from module.model.market import Instrument, MarketType, Quote
from module.model.orders import (
    Fill,
    OrderReport,
    OrderRequest,
    OrderStatus,
    OrderType,
    Outcome,
    Side,
    StopPrices,
    SubmitResult,
)
from module.ports import Clock

MARKS = {
    "BTCUSDT": Decimal("60123.4"),
    "ETHUSDT": Decimal("3001.25"),
    "XRPUSDT": Decimal("0.5123"),
}
STEPS = {
    "BTCUSDT": (Decimal("0.1"), Decimal("0.0001")),
    "ETHUSDT": (Decimal("0.01"), Decimal("0.01")),
    "XRPUSDT": (Decimal("0.0001"), Decimal(1)),
}


def instrument(symbol: str) -> Instrument:
    """The rules of one of the three symbols."""
    price_step, size_step = STEPS[symbol]
    return Instrument(
        symbol=symbol,
        base_asset=symbol.removesuffix("USDT"),
        quote_asset="USDT",
        market=MarketType.FUTURES,
        price_step=price_step,
        size_step=size_step,
        size_min=size_step,
        notional_min=Decimal(5),
        market_size_max=Decimal(100_000),
        leverage_max=Decimal(125),
        taker_fee=Decimal("0.0006"),
        maker_fee=Decimal("0.0002"),
    )


def _quote(symbol: str, mark: Decimal, now: datetime) -> Quote:
    return Quote(symbol=symbol, bid=mark, ask=mark, last=mark, mark=mark, at=now)


class MemoryVenue:
    """Fits `module.exchange.venue.Venue`. `script[operation]` holds what the next calls do:
    an exception to raise (before anything happens), or "lost" (it happens, the answer is lost).
    """

    def __init__(self, clock: Clock, account_id: str = "acc", cash: Decimal = Decimal(10_007)):
        self.clock = clock
        self.account_id = account_id
        self.cash = cash
        self.marks = dict(MARKS)
        self.held: dict[str, Position] = {}
        self.orders: dict[str, OrderReport] = {}
        self.modes: dict[str, SymbolSettings] = {
            symbol: SymbolSettings(symbol, Decimal(3), MarginMode.CROSSED) for symbol in MARKS
        }
        self.position_mode = PositionMode.ONE_WAY
        self.stops: dict[tuple[str, bool], PlacedStop] = {}
        self.script: dict[str, deque[AifapError | str]] = defaultdict(deque)
        self.calls: list[str] = []
        self.presets_lost = False
        self.fill_log: list[Fill] = []
        self.at_hand: dict[str, Decimal] = {}
        self.authorities: tuple[str, ...] = ("coow", "coor")
        self.skew_s = 0.0
        self.shares_collateral = False
        self.user_id = ""
        self.closed = False
        self._ids = itertools.count(9_001)

    @property
    def market(self) -> MarketType:
        return MarketType.FUTURES

    @property
    def takes_late_s(self) -> float:
        return 30.0

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset(Ability) - {Ability.BILLS}

    def _happens(self, operation: str) -> bool:
        """Note the call; raise what is scripted. True: it happens, but the answer is lost."""
        self.calls.append(operation)
        if not self.script[operation]:
            return False
        event = self.script[operation].popleft()
        if isinstance(event, AifapError):
            raise event
        return event == "lost"

    def check_key(self) -> KeyReport:
        self._happens("check_key")
        return KeyReport(
            "coow" in self.authorities,
            "wwow" in self.authorities,
            self.authorities,
            position_mode=self.position_mode,
            shares_collateral=self.shares_collateral,
            user_id=self.user_id,
        )

    def measure_clock(self) -> float:
        self._happens("measure_clock")
        return self.skew_s

    def snapshot(self, *, priority: Priority = Priority.READ) -> AccountSnapshot:
        self._happens("snapshot")
        positions = self._positions()
        unrealized = sum((p.unrealized_pnl for p in positions), Decimal(0))
        margin = sum((p.margin_size for p in positions), Decimal(0))
        return AccountSnapshot(
            account_id=self.account_id,
            at=self.clock.now(),
            wallet_balance=self.cash,
            unrealized_pnl=unrealized,
            equity=self.cash + unrealized,
            available=self.cash - margin,
            margin_used=margin,
            position_mode=self.position_mode,
            positions=positions,
            open_orders=tuple(r for r in self.orders.values() if not r.status.is_terminal),
        )

    def positions(self, *, priority: Priority = Priority.READ) -> tuple[Position, ...]:
        self._happens("positions")
        return self._positions()

    def holdings(self, *, priority: Priority = Priority.READ) -> tuple[Position, ...]:
        return self.positions(priority=priority)

    def instruments(self) -> Mapping[str, Instrument]:
        return {symbol: instrument(symbol) for symbol in MARKS}

    def quotes(
        self, symbols: Sequence[str], *, priority: Priority = Priority.READ
    ) -> Mapping[str, Quote]:
        self._happens("quotes")
        missing = sorted(set(symbols) - set(self.marks))
        if missing:
            raise NotFound(f"no price of {missing}")
        now = self.clock.now()
        return {s: _quote(s, self.marks[s], now) for s in symbols}

    def trading_mode(
        self, symbol: str, *, max_age_s: float = 0.0, priority: Priority = Priority.READ
    ) -> TradingMode:
        self._happens("trading_mode")
        return TradingMode(self.position_mode, self.modes[symbol], self.shares_collateral)

    def trading_modes(
        self, symbols: Sequence[str], *, max_age_s: float, priority: Priority = Priority.READ
    ) -> dict[str, TradingMode]:
        return {name: self.trading_mode(name, max_age_s=max_age_s) for name in symbols}

    def set_leverage(self, symbol: str, leverage: Decimal) -> None:
        self._happens("set_leverage")
        self.modes[symbol] = replace(self.modes[symbol], leverage=leverage)

    def set_margin_mode(self, symbol: str, margin_mode: MarginMode) -> None:
        self._happens("set_margin_mode")
        self.modes[symbol] = replace(self.modes[symbol], margin_mode=margin_mode)

    def admit_orders(
        self, orders: Sequence[OrderRequest], *, priority: Priority = Priority.ORDER
    ) -> None:
        self._happens("admit_orders")

    def submit(
        self, orders: Sequence[OrderRequest], *, on_answer: OnAnswer = nobody_listens
    ) -> list[SubmitResult]:
        lost_all = self._happens("submit")
        results: list[SubmitResult] = []
        for order in orders:
            result = self._submit_one(order)
            if lost_all:
                result = SubmitResult(order.client_id, Outcome.UNKNOWN, message="lost")
            on_answer(result)
            results.append(result)
        return results

    def _submit_one(self, order: OrderRequest) -> SubmitResult:
        try:
            lost = self._happens("submit_one")
        except OutcomeUnknown as error:
            return SubmitResult(order.client_id, Outcome.UNKNOWN, message=error.message)
        except Rejected as error:
            return SubmitResult(
                order.client_id,
                Outcome.REJECTED,
                None,
                error.code,
                error.message,
                rules_changed=error.code == "rules",
            )
        if order.client_id in self.orders:
            return self.look_up(order)
        broken = self._broken_rule(order)
        if broken:
            return SubmitResult(
                order.client_id, Outcome.REJECTED, None, "rules", broken, rules_changed=True
            )
        report = self._accept(order)
        if lost:
            return SubmitResult(order.client_id, Outcome.UNKNOWN, message="lost")
        return SubmitResult(order.client_id, Outcome.ACCEPTED, report.order_id)

    def _broken_rule(self, order: OrderRequest) -> str:
        rules = instrument(order.symbol)
        if order.size % rules.size_step or order.size > rules.market_size_max:
            return f"size {order.size}"
        if order.price is not None and order.price % rules.price_step:
            return f"price {order.price}"
        return ""

    def _accept(self, order: OrderRequest) -> OrderReport:
        now = self.clock.now()
        fills = order.order_type is OrderType.MARKET
        taken = self._reducible(order) if order.reduce_only else order.size
        report = OrderReport(
            order_id=str(next(self._ids)),
            client_id=order.client_id,
            symbol=order.symbol,
            side=order.side,
            status=OrderStatus.FILLED if fills else OrderStatus.LIVE,
            size=order.size,
            filled_size=taken if fills else Decimal(0),
            average_price=self.marks[order.symbol] if fills else None,
            fee=Decimal(0),
            realized_pnl=Decimal(0),
            reduce_only=order.reduce_only,
            source="normal",
            created_at=now,
            updated_at=now,
        )
        self.orders[order.client_id] = report
        if fills and taken:
            self._fill(replace(order, size=taken), report)
        elif order.symbol in self.at_hand:
            self._meet(order, report)
        return report

    def _reducible(self, order: OrderRequest) -> Decimal:
        """How much of a reduce-only order there is to reduce."""
        held = self.held.get(order.symbol)
        if held is None or (held.size > 0) == (order.side is Side.BUY):
            return Decimal(0)
        return min(order.size, abs(held.size))

    def _meet(self, order: OrderRequest, report: OrderReport) -> None:
        """A limit order takes what is at hand within its price; the rest of it rests."""
        mark = self.marks[order.symbol]
        if order.price is None or (order.price - mark) * order.side.sign < 0:
            return
        size = min(report.size - report.filled_size, self.at_hand[order.symbol])
        filled = report.filled_size + size
        whole = filled == report.size
        self.orders[order.client_id] = replace(
            report,
            status=OrderStatus.FILLED if whole else OrderStatus.PARTIALLY_FILLED,
            filled_size=filled,
            average_price=mark,
        )
        self._fill(replace(order, size=size), report)

    def meet_again(self, order: OrderRequest) -> None:
        """The market has come back to a resting order of a thin market (`at_hand`)."""
        self._meet(order, self.orders[order.client_id])

    def fill_part(self, client_id: str) -> None:
        """Two fifths of a resting order are filled, at the mark; the rest is over."""
        report = self.orders[client_id]
        part = report.size * Decimal("0.4")
        self.orders[client_id] = replace(
            report,
            status=OrderStatus.CANCELED,
            filled_size=part,
            average_price=self.marks[report.symbol],
        )
        order = OrderRequest(client_id, report.symbol, report.side, part, report.reduce_only)
        self._fill(order, report)

    def _fill(self, order: OrderRequest, report: OrderReport) -> None:
        mark = self.marks[order.symbol]
        before = self.held.get(order.symbol)
        size = (before.size if before else Decimal(0)) + order.side.sign * order.size
        self.fill_log.append(
            Fill(
                trade_id=str(next(self._ids)),
                order_id=report.order_id,
                symbol=order.symbol,
                side=order.side,
                price=mark,
                size=order.size,
                quote_size=order.size * mark,
                fee=Decimal(0),
                fee_asset="USDT",
                realized_pnl=Decimal(0),
                is_taker=True,
                at=self.clock.now(),
            )
        )
        self.hold(order.symbol, size, opened_at=before.opened_at if before else None)
        if not order.stops.empty and not self.presets_lost:
            self._preset(order)

    def _preset(self, order: OrderRequest) -> None:
        is_long = order.side is Side.BUY
        for is_loss, price in ((True, order.stops.stop_loss), (False, order.stops.take_profit)):
            if price is not None:
                self._place(order.symbol, is_loss, is_long, price)

    def hold(self, symbol: str, size: Decimal, *, opened_at: datetime | None = None) -> None:
        """Make the position exactly this, as a person at the exchange's web page could."""
        if not size:
            self.held.pop(symbol, None)
            self.stops.pop((symbol, True), None)
            self.stops.pop((symbol, False), None)
            return
        mark = self.marks[symbol]
        self.held[symbol] = Position(
            symbol=symbol,
            size=size,
            entry_price=mark,
            mark_price=mark,
            margin_size=abs(size) * mark / self.modes[symbol].leverage,
            unrealized_pnl=Decimal(0),
            realized_pnl=Decimal(0),
            fees=Decimal(0),
            funding=Decimal(0),
            leverage=self.modes[symbol].leverage,
            margin_mode=self.modes[symbol].margin_mode,
            liquidation_price=None,
            stops=StopPrices(),
            opened_at=opened_at or self.clock.now(),
        )

    def look_up(self, order: OrderRequest, *, priority: Priority = Priority.ORDER) -> SubmitResult:
        try:
            report = self.order(order.symbol, order.client_id)
        except AifapError as error:
            return SubmitResult(order.client_id, Outcome.UNKNOWN, message=error.message)
        if not difference(order, report, self.market):
            return SubmitResult(order.client_id, Outcome.ACCEPTED, report.order_id)
        return SubmitResult(order.client_id, Outcome.UNKNOWN, report.order_id, CLIENT_ID_CLASH)

    def order(
        self, symbol: str, client_id: str, *, priority: Priority = Priority.READ
    ) -> OrderReport:
        self._happens("order")
        report = self.orders.get(client_id)
        if report is None or report.symbol != symbol:
            raise NotFound(f"order {client_id} is not known (yet)")
        return report

    def cancel(self, symbol: str, client_id: str) -> None:
        self._happens("cancel")
        report = self.order(symbol, client_id)
        if not report.status.is_terminal:
            self.orders[client_id] = replace(report, status=OrderStatus.CANCELED)

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
        lost = self._happens("set_stop")
        position = self.held.get(symbol)
        if position is None or (position.size > 0) != protects_long:
            raise NoPosition(f"{symbol}: no position")
        mark = self.marks[symbol]
        should_be_below = is_stop_loss == protects_long
        if (trigger_price < mark) != should_be_below:
            raise WrongSideOfPrice(f"{symbol}: {trigger_price} is beyond {mark}")
        self._place(symbol, is_stop_loss, protects_long, trigger_price)
        if lost:
            raise OutcomeUnknown("lost")

    def _place(self, symbol: str, is_loss: bool, is_long: bool, price: Decimal) -> None:
        known = self.stops.get((symbol, is_loss))
        order_id = known.order_id if known else str(next(self._ids))
        self.stops[(symbol, is_loss)] = PlacedStop(symbol, order_id, is_loss, is_long, price)

    def placed_stops(self, *, priority: Priority = Priority.PROTECTION) -> tuple[PlacedStop, ...]:
        self._happens("placed_stops")
        return tuple(self.stops.values())

    def remove_stop(self, stop: PlacedStop, *, priority: Priority = Priority.PROTECTION) -> None:
        self._happens("remove_stop")
        self.stops.pop((stop.symbol, stop.is_stop_loss), None)

    def fills(self, since: datetime) -> list[Fill]:
        return [fill for fill in self.fill_log if fill.at >= since]

    def bills(self, since: datetime) -> list[Bill]:
        return []

    def closed_positions(self, since: datetime) -> list[ClosedPosition]:
        return []

    def close(self) -> None:
        self.closed = True

    def _positions(self) -> tuple[Position, ...]:
        return tuple(
            replace(
                position,
                mark_price=self.marks[symbol],
                unrealized_pnl=position.size * (self.marks[symbol] - position.entry_price),
                stops=StopPrices(self._trigger(symbol, True), self._trigger(symbol, False)),
            )
            for symbol, position in sorted(self.held.items())
        )

    def _trigger(self, symbol: str, is_loss: bool) -> Decimal | None:
        stop = self.stops.get((symbol, is_loss))
        return stop.trigger_price if stop else None


class MemoryVenues:
    """Fits `VenueFactory`: hands out the venues that a test prepared."""

    def __init__(self, *venues: MemoryVenue) -> None:
        self.by_account = {venue.account_id: venue for venue in venues}
        self.opened: list[VenueAccess] = []
        self.spare: MemoryVenue | None = None

    def open_venue(self, venue: str, access: VenueAccess, gate: RequestGate) -> Venue:
        self.opened.append(access)
        found = self.by_account.get(access.account_id, self.spare)
        assert found is not None, access.account_id
        return found

    def open_public(self, venue: str, base_url: str, gate: RequestGate) -> PublicMarket:
        raise NotImplementedError
