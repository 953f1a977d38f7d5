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
from module.model.errors import AifapError, NotFound, OutcomeUnknown, Rejected, StaleWriter, TooLate
from module.model.market import Instrument, Quote
from module.model.orders import (
    NO_STOPS,
    RULED_OUT,
    Fill,
    FillCause,
    MissingOrder,
    OrderReport,
    OrderRequest,
    OrderStatus,
    OrderTrace,
    Outcome,
    Passage,
    Side,
    StopPrices,
    SubmitResult,
    WriteStamp,
)
from module.ports import Clock
from tests.fakes.crashes import CrashPlan
from tests.fakes.happenings import (
    Edits,
    Fails,
    FillsPart,
    Happening,
    Late,
    Lost,
    Refuses,
    ShowsCanceled,
)
from tests.fakes.rules import MARKS, make_instrument

__all__ = [
    "MARKS",
    "Edits",
    "Fails",
    "FakeExchange",
    "FillsPart",
    "Happening",
    "Late",
    "Lost",
    "Refuses",
    "ShowsCanceled",
    "make_instrument",
]

ZERO = Decimal(0)
CLIENT_ID_MAX = 32
BATCH_MAX = 5


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
    takes_late_s: float = 35.0
    taken: bool = False
    down: AifapError | None = None
    handed: set[str] = field(default_factory=set)
    ruled_out: set[str] = field(default_factory=set)
    lost_sight: set[str] = field(default_factory=set)
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
    overfills: Decimal | None = None
    fills_hidden_until: datetime | None = None
    billed: list[Bill] = field(default_factory=list)
    ended: list[ClosedPosition] = field(default_factory=list)
    before_cancel: Callable[[str], None] | None = None
    stops_at: list[datetime] = field(default_factory=list)
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

    def outside(self, symbol: str, moved: str, cause: FillCause = FillCause.ORDER) -> None:
        """Somebody else's order (or force) moves the position by `moved`, and fills show it."""
        size = Decimal(moved)
        side = Side.BUY if size > 0 else Side.SELL
        order = OrderRequest("outside", symbol, side, abs(size), reduce_only=False)
        self._fill(order, str(next(self._ids)), abs(size), self.marks[symbol], ZERO)
        self._fills[-1] = replace(self._fills[-1], cause=cause)

    def close_by_hand(self, symbol: str) -> None:
        """Somebody closes the position, if there is one."""
        if self.held(symbol):
            self.outside(symbol, str(-self.held(symbol)))

    def rest(self, order: OrderRequest) -> None:
        """An order that waits on the exchange, of whomever."""
        now = self.clock.now()
        self._reports[order.client_id] = OrderReport(
            order_id=str(next(self._ids)),
            client_id=order.client_id,
            symbol=order.symbol,
            side=order.side,
            status=OrderStatus.LIVE,
            size=order.size,
            filled_size=ZERO,
            average_price=None,
            fee=ZERO,
            realized_pnl=ZERO,
            reduce_only=order.reduce_only,
            source="normal",
            created_at=now,
            updated_at=now,
        )

    def arrive(self, order: OrderRequest) -> None:
        """An order that was held back on the way is accepted now."""
        if order.client_id not in self._reports and self._refusal(order) is None:
            self._accept(order, None)

    def fill_rest(self, symbol: str) -> None:
        """What rests of the symbol's orders is executed now."""
        for client_id, report in list(self._reports.items()):
            if report.symbol != symbol or report.status.is_terminal:
                continue
            order = next(order for order in self.ledger if order.client_id == client_id)
            rest, mark = report.size - report.filled_size, self.marks[symbol]
            self._fill(order, report.order_id, rest, mark, rest * mark * self.fee_rate)
            self._reports[client_id] = replace(
                report, status=OrderStatus.FILLED, filled_size=report.size
            )

    def lose_sight(self, client_id: str) -> None:
        """This order is over, and shown in no list of orders any more; its fills are."""
        self.lost_sight.add(client_id)

    def forget(self, client_id: str) -> None:
        """As if this order had never arrived."""
        order = next(order for order in self.ledger if order.client_id == client_id)
        report = self._reports.pop(client_id)
        self.ledger.remove(order)
        self._fills = [fill for fill in self._fills if fill.order_id != report.order_id]
        before = self._held.pop(order.symbol)
        rest = before.size - order.side.sign * report.filled_size
        if rest:
            self._held[order.symbol] = replace(before, size=rest)

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
            open_orders=tuple(
                report
                for report in self._reports.values()
                if not report.status.is_terminal and report.client_id not in self.lost_sight
            ),
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
        if client_id in self.lost_sight:
            report = None
        if report is None or report.symbol != symbol or self.clock.now() < report.created_at + lag:
            raise NotFound(f"order {client_id} is not known (yet)")
        if self.overfills is not None:
            return replace(report, filled_size=report.size * self.overfills)
        if any(isinstance(event, ShowsCanceled) for event in events):
            return replace(report, status=OrderStatus.CANCELED, filled_size=ZERO)
        return report

    def fills(self, since: datetime) -> Sequence[Fill]:
        self._happens("fills")
        if self.fills_hidden_until is not None and self.clock.now() < self.fills_hidden_until:
            return []
        return [fill for fill in self._fills if fill.at >= since]

    def bills(self, since: datetime) -> Sequence[Bill]:
        return [bill for bill in self.billed if bill.at >= since]

    def closed_positions(self, since: datetime) -> Sequence[ClosedPosition]:
        self._happens("closed_positions")
        return [position for position in self.ended if position.closed_at >= since]

    # --- writes ----------------------------------------------------------------------------------

    def submit(self, stamp: WriteStamp, orders: Sequence[OrderRequest]) -> list[SubmitResult]:
        assert 1 <= len(orders) <= BATCH_MAX, f"a batch of {len(orders)}"
        if self.before_submit is not None:
            self.before_submit(orders)
        events = self._happens("submit")
        self._admit(stamp)
        self.batches.append(list(orders))
        self.handed.update({order.client_id for order in orders} - self.ruled_out)
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

    def rule_out(self, stamp: WriteStamp, missing: MissingOrder) -> OrderTrace:
        self._happens("rule_out")
        self._admit(stamp)
        client_id = missing.client_id
        if self.taken and client_id in self._reports:
            number = self._reports[client_id].order_id
            return OrderTrace(client_id, Passage.TAKEN, order_id=number)
        if client_id in self.handed:
            arrives_by = missing.not_after + timedelta(seconds=self.takes_late_s)
            return OrderTrace(client_id, Passage.LEFT, arrives_by)
        self.ruled_out.add(client_id)
        return OrderTrace(client_id, Passage.NEVER, None, RULED_OUT, "it never left")

    def cancel(self, stamp: WriteStamp, symbol: str, client_id: str) -> None:
        if self.before_cancel is not None:
            self.before_cancel(symbol)
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
        self.stops_at.append(self.clock.now())
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
            if self.down is not None:
                raise self.down
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
            raise TooLate(f"{stamp.not_after} has passed; nothing was sent")
        self.epoch = stamp.epoch

    def _submit_one(self, order: OrderRequest, events: Sequence[Happening]) -> SubmitResult:
        assert 1 <= len(order.client_id) <= CLIENT_ID_MAX
        assert order.size > 0
        if order.client_id in self.ruled_out:
            return SubmitResult(order.client_id, Outcome.REJECTED, None, RULED_OUT, "ruled out")
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
