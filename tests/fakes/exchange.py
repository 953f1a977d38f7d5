"""An exchange in memory that keeps a ledger of everything it ever accepted, and fails on cue.

`FakeExchange` fits `module.ports.Exchange` for one one-way futures account. Orders fill at the mark
unless a test says otherwise. `script[operation]` holds what the next calls of that operation do; an
empty queue means that all goes well. Fees are `fee_rate` of the notional.
"""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from module.model.accounts import (
    AccountSnapshot,
    Bill,
    ClosedPosition,
    MarginMode,
    Position,
    PositionMode,
    SymbolSettings,
)
from module.model.errors import AifapError, NotFound, OutcomeUnknown, Rejected, StaleWriter
from module.model.market import Instrument, MarketType, Quote
from module.model.orders import (
    NO_STOPS,
    Fill,
    OrderReport,
    OrderRequest,
    OrderStatus,
    Outcome,
    StopPrices,
    SubmitResult,
    WriteStamp,
)
from module.ports import Clock
from tests.fakes.crashes import CrashPlan

ZERO = Decimal(0)
CLIENT_ID_MAX = 32
BATCH_MAX = 5

MARKS = {
    "ADAUSDT": Decimal("0.4517"),
    "BTCUSDT": Decimal("60123.4"),
    "DOGEUSDT": Decimal("0.12345"),
    "ETHUSDT": Decimal("3001.25"),
    "LINKUSDT": Decimal("13.579"),
    "SOLUSDT": Decimal("151.37"),
    "XRPUSDT": Decimal("0.5123"),
}
STEPS = {  # price step, size step
    "ADAUSDT": ("0.0001", "1"),
    "BTCUSDT": ("0.1", "0.0001"),
    "DOGEUSDT": ("0.00001", "1"),
    "ETHUSDT": ("0.01", "0.01"),
    "LINKUSDT": ("0.001", "0.1"),
    "SOLUSDT": ("0.01", "0.1"),
    "XRPUSDT": ("0.0001", "1"),
}


def make_instrument(symbol: str, **changes: object) -> Instrument:
    """The rules of one symbol; `changes` override fields."""
    price_step, size_step = STEPS[symbol]
    rules = Instrument(
        symbol=symbol,
        base_asset=symbol.removesuffix("USDT"),
        quote_asset="USDT",
        market=MarketType.FUTURES,
        price_step=Decimal(price_step),
        size_step=Decimal(size_step),
        size_min=Decimal(size_step),
        notional_min=Decimal(5),
        market_size_max=Decimal(1_000_000),
        leverage_max=Decimal(125),
        taker_fee=Decimal("0.0006"),
        maker_fee=Decimal("0.0002"),
    )
    return replace(rules, **changes)  # type: ignore[arg-type]


# --- what can go wrong ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fails:
    """The call raises `error` and nothing happens."""

    error: AifapError


@dataclass(frozen=True, slots=True)
class Late:
    """The call takes `seconds` of world time first."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Lost:
    """It happens (for a batch: the first `accepted` orders, None: all), then the answer is lost."""

    accepted: int | None = None


@dataclass(frozen=True, slots=True)
class Refuses:
    """A batch in which the orders of these symbols are refused with a code; those of `rules`
    because the trading rules have become these."""

    codes: Mapping[str, str]
    rules: Mapping[str, Instrument] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Edits:
    """A batch whose list of results is edited before it is answered."""

    edit: Callable[[list[SubmitResult]], list[SubmitResult]]


@dataclass(frozen=True, slots=True)
class FillsPart:
    """A batch in which an order of `symbol` fills only `filled`; the rest is dropped (or rests)."""

    symbol: str
    filled: Decimal
    rests: bool = False


@dataclass(frozen=True, slots=True)
class ShowsCanceled:
    """A look at an order that shows it as cancelled, with nothing filled."""


Happening = Fails | Late | Lost | Refuses | Edits | FillsPart | ShowsCanceled


@dataclass(slots=True)
class _Held:
    size: Decimal
    entry_price: Decimal
    opened_at: datetime
    stops: StopPrices = NO_STOPS


@dataclass(slots=True)
class FakeExchange:
    """See the module. `ledger` has every accepted order once, in the order of acceptance."""

    clock: Clock
    wallet: Decimal = Decimal(10_007)
    marks: dict[str, Decimal] = field(default_factory=lambda: dict(MARKS))
    leverage: Decimal = Decimal(1)
    fee_rate: Decimal = Decimal("0.0006")
    index_lag_s: float = 0.0
    epoch: int = 0
    crashes: CrashPlan = field(default_factory=CrashPlan)
    rules: dict[str, Instrument] = field(
        default_factory=lambda: {symbol: make_instrument(symbol) for symbol in MARKS}
    )
    script: dict[str, deque[Happening]] = field(default_factory=lambda: defaultdict(deque))
    ledger: list[OrderRequest] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    batches: list[list[OrderRequest]] = field(default_factory=list)
    stamps: list[WriteStamp] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    stop_calls: list[tuple[str, StopPrices]] = field(default_factory=list)
    position_mode: PositionMode = PositionMode.ONE_WAY
    presets_lost: bool = False
    before_submit: Callable[[Sequence[OrderRequest]], None] | None = None
    modes: dict[str, SymbolSettings] = field(default_factory=dict)
    _held: dict[str, _Held] = field(default_factory=dict)
    _reports: dict[str, OrderReport] = field(default_factory=dict)
    _fills: list[Fill] = field(default_factory=list)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(70_001))

    # --- what a test says and sees ---------------------------------------------------------------

    def hold(self, symbol: str, size: Decimal | str, stops: StopPrices = NO_STOPS) -> None:
        """Make the position exactly this, entered at the mark."""
        amount = Decimal(size)
        self._held.pop(symbol, None)
        if amount:
            self._held[symbol] = _Held(amount, self.marks[symbol], self.clock.now(), stops)

    def held(self, symbol: str) -> Decimal:
        """Signed size."""
        found = self._held.get(symbol)
        return ZERO if found is None else found.size

    def stops_of(self, symbol: str) -> StopPrices:
        return self._held[symbol].stops

    def accepted_ids(self) -> list[str]:
        """Client ids as they were accepted."""
        return [order.client_id for order in self.ledger]

    def require_exactly_once(self) -> None:
        """I1: no client id was accepted twice."""
        ids = self.accepted_ids()
        assert len(ids) == len(set(ids)), f"accepted twice: {ids}"

    # --- reads -----------------------------------------------------------------------------------

    def snapshot(self) -> AccountSnapshot:
        self._happens("snapshot")
        positions = tuple(self._position(symbol) for symbol in sorted(self._held))
        unrealized = sum((p.unrealized_pnl for p in positions), ZERO)
        margin = sum((p.margin_size for p in positions), ZERO)
        return AccountSnapshot(
            account_id="account-7",
            at=self.clock.now(),
            wallet_balance=self.wallet,
            unrealized_pnl=unrealized,
            equity=self.wallet + unrealized,
            available=self.wallet + unrealized - margin,
            margin_used=margin,
            position_mode=self.position_mode,
            positions=positions,
            open_orders=tuple(r for r in self._reports.values() if not r.status.is_terminal),
        )

    def instruments(self) -> Mapping[str, Instrument]:
        self._happens("instruments")
        return dict(self.rules)

    def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        self._happens("quotes")
        missing = sorted(set(symbols) - set(self.marks))
        if missing:
            raise NotFound(f"no price of {missing}")
        now = self.clock.now()
        return {name: _quote(name, self.marks[name], now) for name in symbols}

    def symbol_settings(self, symbols: Sequence[str]) -> Mapping[str, SymbolSettings]:
        self._happens("symbol_settings")
        return {symbol: self._settings(symbol) for symbol in symbols}

    def order(self, symbol: str, client_id: str) -> OrderReport:
        events = self._happens("order")
        report = self._reports.get(client_id)
        lag = timedelta(seconds=self.index_lag_s)
        if report is None or report.symbol != symbol or self.clock.now() < report.created_at + lag:
            raise NotFound(f"order {client_id} is not known (yet)")
        if any(isinstance(event, ShowsCanceled) for event in events):
            return replace(report, status=OrderStatus.CANCELED, filled_size=ZERO)
        return report

    def fills(self, since: datetime) -> Sequence[Fill]:
        return [fill for fill in self._fills if fill.at >= since]

    def bills(self, since: datetime) -> Sequence[Bill]:
        return []

    def closed_positions(self, since: datetime) -> Sequence[ClosedPosition]:
        return []

    # --- writes ----------------------------------------------------------------------------------

    def submit(self, stamp: WriteStamp, orders: Sequence[OrderRequest]) -> list[SubmitResult]:
        assert 1 <= len(orders) <= BATCH_MAX, f"a batch of {len(orders)}"
        if self.before_submit is not None:
            self.before_submit(orders)
        events = self._happens("submit")
        self._admit(stamp)
        self.batches.append(list(orders))
        lost = next((event for event in events if isinstance(event, Lost)), None)
        going = orders if lost is None else orders[: lost.accepted]
        results = [self._submit_one(order, events) for order in going]
        self.crashes.reach("exchange.submit: sent")
        for event in events:
            if isinstance(event, Edits):
                results = event.edit(results)
        if lost is not None:
            raise OutcomeUnknown("the answer to the batch was lost")
        return results

    def cancel(self, stamp: WriteStamp, symbol: str, client_id: str) -> None:
        lost = self._happens("cancel")
        self._admit(stamp)
        report = self._reports.get(client_id)
        if report is None:
            raise NotFound(f"order {client_id} is not known")
        if not report.status.is_terminal:
            self._reports[client_id] = replace(report, status=OrderStatus.CANCELED)
        self.canceled.append(client_id)
        self.crashes.reach("exchange.cancel: done")
        if lost:
            raise OutcomeUnknown("the answer to the cancel was lost")

    def apply_symbol_settings(
        self, stamp: WriteStamp, symbol: str, leverage: Decimal, margin_mode: MarginMode
    ) -> SymbolSettings:
        self._happens("apply_symbol_settings")
        self._admit(stamp)
        assert symbol not in self._held, f"settings of {symbol} changed while it is held"
        self.modes[symbol] = SymbolSettings(symbol, leverage, margin_mode)
        self.crashes.reach("exchange.apply_symbol_settings: done")
        return self.modes[symbol]

    def set_stops(self, stamp: WriteStamp, symbol: str, stops: StopPrices) -> StopPrices:
        lost = self._happens("set_stops")
        self._admit(stamp)
        held = self._held.get(symbol)
        if held is None:
            raise NotFound(f"{symbol}: no position")
        _require_right_side(symbol, held.size > 0, stops, self.marks[symbol])
        for price in (stops.stop_loss, stops.take_profit):
            if price is not None and price % self.rules[symbol].price_step:
                raise Rejected(f"{symbol}: {price} is not on the tick", code="45115")
        self.stop_calls.append((symbol, stops))
        held.stops = stops
        self.crashes.reach("exchange.set_stops: done")
        if lost:
            raise OutcomeUnknown("the answer to the stops was lost")
        return held.stops

    # --- inside ----------------------------------------------------------------------------------

    def _happens(self, operation: str) -> list[Happening]:
        """Note the call and take what is scripted for it; raise what is to be raised."""
        self.crashes.reach(f"exchange.{operation}: called")
        self.calls.append(operation)
        if not self.script[operation]:
            return []
        event = self.script[operation].popleft()
        if isinstance(event, Fails):
            raise event.error
        if isinstance(event, Late):
            self.clock.sleep(event.seconds)
            return []
        return [event]

    def _admit(self, stamp: WriteStamp) -> None:
        """Promise 4, as the gateway keeps it."""
        self.stamps.append(stamp)
        if stamp.epoch < self.epoch:
            raise StaleWriter(f"epoch {stamp.epoch} is older than {self.epoch}")
        if self.clock.now() > stamp.not_after:
            raise StaleWriter(f"{stamp.not_after} has passed; nothing was sent")
        self.epoch = stamp.epoch

    def _submit_one(self, order: OrderRequest, events: Sequence[Happening]) -> SubmitResult:
        assert 1 <= len(order.client_id) <= CLIENT_ID_MAX
        assert order.size > 0
        for event in events:
            if isinstance(event, Refuses) and order.symbol in event.codes:
                code = event.codes[order.symbol]
                changed = order.symbol in event.rules
                self.rules.update(event.rules)
                return SubmitResult(
                    order.client_id, Outcome.REJECTED, None, code, "refused", rules_changed=changed
                )
        if order.client_id in self._reports:
            known = self._reports[order.client_id]
            assert (known.symbol, known.side, known.size) == (order.symbol, order.side, order.size)
            return SubmitResult(order.client_id, Outcome.ACCEPTED, known.order_id)
        refusal = self._refusal(order)
        if refusal is not None:
            return SubmitResult(order.client_id, Outcome.REJECTED, None, refusal, "refused")
        part = next(
            (e for e in events if isinstance(e, FillsPart) and e.symbol == order.symbol), None
        )
        report = self._accept(order, part)
        return SubmitResult(order.client_id, Outcome.ACCEPTED, report.order_id)

    def _refusal(self, order: OrderRequest) -> str | None:
        """The venue's own rules: lots, reduce-only, margin."""
        rules, mark = self.rules[order.symbol], self.marks[order.symbol]
        if order.size % rules.size_step or order.size > rules.market_size_max:
            return "45111"
        held = self.held(order.symbol)
        if order.reduce_only:
            wrong_way = held * order.side.sign >= 0 or order.size > abs(held)
            return "22002" if wrong_way else None
        if held and held * order.side.sign < 0:
            return "40774"  # one-way mode: an opening order against the position
        cost = order.size * mark * (1 / self._settings(order.symbol).leverage + self.fee_rate)
        snapshot_free = self.wallet - sum(
            (
                abs(h.size) * self.marks[s] / self._settings(s).leverage
                for s, h in self._held.items()
            ),
            ZERO,
        )
        return "40762" if cost > snapshot_free else None

    def _accept(self, order: OrderRequest, part: FillsPart | None) -> OrderReport:
        self.ledger.append(order)
        filled = order.size if part is None else part.filled
        status = OrderStatus.FILLED
        if part is not None:
            status = OrderStatus.PARTIALLY_FILLED if part.rests else OrderStatus.CANCELED
        mark = self.marks[order.symbol]
        fee = filled * mark * self.fee_rate
        now = self.clock.now()
        report = OrderReport(
            order_id=str(next(self._ids)),
            client_id=order.client_id,
            symbol=order.symbol,
            side=order.side,
            status=status,
            size=order.size,
            filled_size=filled,
            average_price=mark if filled else None,
            fee=-fee,
            realized_pnl=ZERO,
            reduce_only=order.reduce_only,
            source="normal",
            created_at=now,
            updated_at=now,
        )
        self._reports[order.client_id] = report
        self._fill(order, report.order_id, filled, mark, fee)
        return report

    def _fill(
        self, order: OrderRequest, order_id: str, filled: Decimal, mark: Decimal, fee: Decimal
    ) -> None:
        before = self._held.get(order.symbol)
        size = (ZERO if before is None else before.size) + order.side.sign * filled
        self.wallet -= fee
        if before is not None and order.reduce_only:
            self.wallet += (mark - before.entry_price) * -order.side.sign * filled
        stops = NO_STOPS if before is None else before.stops
        if not order.stops.empty and not self.presets_lost:
            stops = order.stops
        entry = mark if before is None else before.entry_price
        opened_at = self.clock.now() if before is None else before.opened_at
        self._held.pop(order.symbol, None)
        if size:
            self._held[order.symbol] = _Held(size, entry, opened_at, stops)
        if filled:
            self._fills.append(
                Fill(
                    trade_id=str(next(self._ids)),
                    order_id=order_id,
                    symbol=order.symbol,
                    side=order.side,
                    price=mark,
                    size=filled,
                    quote_size=filled * mark,
                    fee=-fee,
                    fee_asset="USDT",
                    realized_pnl=ZERO,
                    is_taker=True,
                    at=self.clock.now(),
                )
            )

    def _settings(self, symbol: str) -> SymbolSettings:
        default = SymbolSettings(symbol, self.leverage, MarginMode.CROSSED)
        return self.modes.get(symbol, default)

    def _position(self, symbol: str) -> Position:
        held, mark = self._held[symbol], self.marks[symbol]
        settings = self._settings(symbol)
        return Position(
            symbol=symbol,
            size=held.size,
            entry_price=held.entry_price,
            mark_price=mark,
            margin_size=abs(held.size) * mark / settings.leverage,
            unrealized_pnl=held.size * (mark - held.entry_price),
            realized_pnl=ZERO,
            fees=ZERO,
            funding=ZERO,
            leverage=settings.leverage,
            margin_mode=settings.margin_mode,
            liquidation_price=None,
            stops=held.stops,
            opened_at=held.opened_at,
        )


def _quote(symbol: str, price: Decimal, at: datetime) -> Quote:
    return Quote(symbol, bid=price, ask=price, last=price, mark=price, at=at)


def _require_right_side(symbol: str, is_long: bool, stops: StopPrices, mark: Decimal) -> None:
    direction = 1 if is_long else -1
    for price, beyond in ((stops.stop_loss, -1), (stops.take_profit, 1)):
        if price is not None and (price - mark) * direction * beyond <= 0:
            raise Rejected(f"{symbol}: a stop at {price} would trigger at once", code="40834")
