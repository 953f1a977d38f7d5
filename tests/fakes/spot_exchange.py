"""A spot account in memory: coins and money, as Bitget trades them.

`SpotExchange` fits `module.ports.Exchange`. A market buy is sized in USDT at the ask and fills at
the ask × `slip`; its fee is taken from the coin. A sale takes what is free, and its fee from the
money. Stops are kept as the gateway keeps them: there as soon as something is held.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from module.model.accounts import (
    AccountSnapshot,
    Bill,
    ClosedPosition,
    MarginMode,
    Position,
    PositionMode,
    SpotBalance,
    SymbolSettings,
)
from module.model.errors import InvalidInput, NotFound
from module.model.market import Instrument, MarketType, Quote
from module.model.money import round_down
from module.model.orders import (
    NO_STOPS,
    RULED_OUT,
    Fill,
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
from tests.fakes.exchange import MARKS, make_instrument

ZERO = Decimal(0)
CENT = Decimal("0.000001")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOTS = {"BTCUSDT": "0.000001", "ETHUSDT": "0.0001", "SOLUSDT": "0.01"}


def spot_instrument(symbol: str) -> Instrument:
    """The rules of a pair: small lots, 1 USDT at least, a fee of a thousandth."""
    lot = Decimal(LOTS.get(symbol, "0.1"))
    return make_instrument(
        symbol,
        market=MarketType.SPOT,
        size_step=lot,
        size_min=lot,
        notional_min=Decimal(1),
        leverage_max=Decimal(1),
        taker_fee=Decimal("0.001"),
        maker_fee=Decimal("0.001"),
    )


@dataclass(slots=True)
class SpotExchange:
    """`coins` by asset; `locked` of them is in orders of somebody else. One without a mark is a
    balance alone."""

    clock: Clock
    money: Decimal = Decimal(10_007)
    coins: dict[str, Decimal] = field(default_factory=dict)
    locked: dict[str, Decimal] = field(default_factory=dict)
    marks: dict[str, Decimal] = field(default_factory=lambda: dict(MARKS))
    slip: Decimal = Decimal(1)
    rules: dict[str, Instrument] = field(
        default_factory=lambda: {symbol: spot_instrument(symbol) for symbol in MARKS}
    )
    stops: dict[str, StopPrices] = field(default_factory=dict)
    stop_calls: list[tuple[str, StopPrices]] = field(default_factory=list)
    ledger: list[OrderRequest] = field(default_factory=list)
    told_fills: list[Fill] = field(default_factory=list)
    asked_fills: list[datetime] = field(default_factory=list)
    reports: dict[str, OrderReport] = field(default_factory=dict)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(90_001))

    def fire_stop(self, symbol: str) -> None:
        """The exchange sells what is free of a coin, by an order that no session sent."""
        position = self._position(symbol, self.coins[symbol.removesuffix("USDT")])
        sale = OrderRequest(f"stop-{symbol}", symbol, Side.SELL, position.free_size, True)
        self._submit_one(sale)
        self.stops.pop(symbol, None)

    # --- reads -----------------------------------------------------------------------------------

    def snapshot(self) -> AccountSnapshot:
        positions = tuple(
            self._position(asset + "USDT", size)
            for asset, size in sorted(self.coins.items())
            if size and asset + "USDT" in self.marks
        )
        equity = self.money + sum((position.value for position in positions), ZERO)
        return AccountSnapshot(
            account_id="account-7",
            at=self.clock.now(),
            wallet_balance=equity,
            unrealized_pnl=ZERO,
            equity=equity,
            available=self.money,
            margin_used=ZERO,
            position_mode=PositionMode.ONE_WAY,
            positions=positions,
            open_orders=(),
            balances=tuple(SpotBalance(a, s, ZERO) for a, s in sorted(self.coins.items())),
        )

    def instruments(self) -> Mapping[str, Instrument]:
        return dict(self.rules)

    def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        now = self.clock.now()
        if not set(symbols) <= self.marks.keys():
            raise NotFound(f"no price of {sorted(set(symbols) - self.marks.keys())}")
        found = {name: self.marks[name] for name in symbols}
        return {name: Quote(name, p, p, p, p, now) for name, p in found.items()}

    def order(self, symbol: str, client_id: str) -> OrderReport:
        if client_id not in self.reports:
            raise NotFound(f"order {client_id} is not known (yet)")
        return self.reports[client_id]

    def fills(self, since: datetime) -> Sequence[Fill]:
        self.asked_fills.append(since)
        return [fill for fill in self.told_fills if fill.at >= since]

    def bills(self, since: datetime) -> Sequence[Bill]:
        return []

    def closed_positions(self, since: datetime) -> Sequence[ClosedPosition]:
        return []

    def symbol_settings(self, symbols: Sequence[str]) -> Mapping[str, SymbolSettings]:
        raise InvalidInput("a spot account has neither leverage nor margin mode")

    # --- writes ----------------------------------------------------------------------------------

    def apply_symbol_settings(
        self, stamp: WriteStamp, symbol: str, leverage: Decimal, margin_mode: MarginMode
    ) -> SymbolSettings:
        raise InvalidInput("a spot account has neither leverage nor margin mode")

    def submit(self, stamp: WriteStamp, orders: Sequence[OrderRequest]) -> list[SubmitResult]:
        return [self._submit_one(order) for order in orders]

    def rule_out(self, stamp: WriteStamp, missing: MissingOrder) -> OrderTrace:
        return OrderTrace(missing.client_id, Passage.NEVER, None, RULED_OUT, "it never left")

    def cancel(self, stamp: WriteStamp, symbol: str, client_id: str) -> None:
        raise NotFound(f"order {client_id} is not open")

    def set_stops(self, stamp: WriteStamp, symbol: str, stops: StopPrices) -> StopPrices:
        if not self.coins.get(symbol.removesuffix("USDT")):
            raise NotFound(f"{symbol}: there is nothing to protect")
        self.stop_calls.append((symbol, stops))
        self.stops[symbol] = stops
        return stops

    # --- inside ----------------------------------------------------------------------------------

    def _position(self, symbol: str, size: Decimal) -> Position:
        rules, mark = self.rules[symbol], self.marks[symbol]
        free = round_down(size - self.locked.get(rules.base_asset, ZERO), rules.size_step)
        if free < rules.size_min or free * mark < rules.notional_min:
            free = ZERO
        return Position(
            symbol=symbol,
            size=size,
            entry_price=mark,
            mark_price=mark,
            margin_size=size * mark,
            unrealized_pnl=ZERO,
            realized_pnl=ZERO,
            fees=ZERO,
            funding=ZERO,
            leverage=Decimal(1),
            margin_mode=MarginMode.CROSSED,
            liquidation_price=None,
            stops=self.stops.get(symbol, NO_STOPS) if free else NO_STOPS,
            opened_at=EPOCH,
            locked=size - free,
        )

    def _submit_one(self, order: OrderRequest) -> SubmitResult:
        assert order.client_id not in self.reports, "sent twice"
        rules, ask = self.rules[order.symbol], self.marks[order.symbol]
        assert order.size % rules.size_step == 0
        asset = rules.base_asset
        held = self.coins.get(asset, ZERO)
        paid = round_down(order.size * ask, CENT)
        free = held - self.locked.get(asset, ZERO)
        if order.size > free if order.side is Side.SELL else paid > self.money:
            return SubmitResult(order.client_id, Outcome.REJECTED, None, "43012", "no coins")
        assert paid >= rules.notional_min
        self.ledger.append(order)
        if order.side is Side.SELL:
            filled, price, fee_asset = order.size, ask, "USDT"
            fee = filled * price * rules.taker_fee
            self.coins[asset] = held - filled
            self.money += filled * price - fee
        else:
            price, fee_asset = ask * self.slip, asset
            filled = (paid / price).quantize(Decimal("1e-12"))
            fee = filled * rules.taker_fee
            self.coins[asset] = held + filled - fee
            self.money -= paid
            self.stops[order.symbol] = order.stops
        self._tell(order, filled, price, fee, fee_asset)
        report = self.reports[order.client_id]
        return SubmitResult(order.client_id, Outcome.ACCEPTED, report.order_id)

    def _tell(
        self, order: OrderRequest, filled: Decimal, price: Decimal, fee: Decimal, asset: str
    ) -> None:
        now, order_id = self.clock.now(), str(next(self._ids))
        report = OrderReport(
            order_id=order_id,
            client_id=order.client_id,
            symbol=order.symbol,
            side=order.side,
            status=OrderStatus.FILLED,
            size=filled,
            filled_size=filled,
            average_price=price,
            fee=-fee,
            realized_pnl=ZERO,
            reduce_only=order.side is Side.SELL,
            source="market",
            created_at=now,
            updated_at=now,
        )
        self.reports[order.client_id] = report
        self.told_fills.append(
            Fill(
                trade_id=str(next(self._ids)),
                order_id=order_id,
                symbol=order.symbol,
                side=order.side,
                price=price,
                size=filled,
                quote_size=filled * price,
                fee=-fee,
                fee_asset=asset,
                realized_pnl=ZERO,
                is_taker=True,
                at=now,
            )
        )
