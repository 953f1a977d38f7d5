"""A spot venue in memory: coins instead of positions, and stops that have a size of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from module.exchange.agreement import passed
from module.exchange.venue import (
    Ability,
    NoPosition,
    PlacedStop,
    Priority,
    TradingMode,
    WrongSideOfPrice,
)
from module.model.accounts import AccountSnapshot, MarginMode, Position, PositionMode, SpotBalance
from module.model.errors import InvalidInput, OutcomeUnknown
from module.model.market import Instrument, MarketType
from module.model.orders import (
    OrderReport,
    OrderRequest,
    Outcome,
    Side,
    StopPrices,
    SubmitResult,
)
from tests.fakes.memory_venue import MARKS, MemoryVenue, instrument

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_STOP_ORDERS = "there are no stop orders here"


class MemorySpot(MemoryVenue):
    """`stops` as in `MemoryVenue`; `more_stops` are ones that should not be there."""

    more_stops: tuple[PlacedStop, ...] = ()

    @property
    def market(self) -> MarketType:
        return MarketType.SPOT

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset((Ability.STOPS, Ability.EXACT_BUYS))

    def instruments(self) -> dict[str, Instrument]:
        return {s: replace(instrument(s), market=MarketType.SPOT) for s in MARKS}

    def snapshot(self, *, priority: Priority = Priority.READ) -> AccountSnapshot:
        self._happens("snapshot")
        coins = [
            SpotBalance(symbol.removesuffix("USDT"), position.size, Decimal(0))
            for symbol, position in sorted(self.held.items())
        ]
        equity = self.cash + sum(
            (p.size * self.marks[symbol] for symbol, p in self.held.items()), Decimal(0)
        )
        return AccountSnapshot(
            account_id=self.account_id,
            at=self.clock.now(),
            wallet_balance=equity,
            unrealized_pnl=Decimal(0),
            equity=equity,
            available=self.cash,
            margin_used=Decimal(0),
            position_mode=PositionMode.ONE_WAY,
            positions=tuple(_coin(p, p.stops) for p in self._positions() if p.size),
            open_orders=tuple(r for r in self.orders.values() if not r.status.is_terminal),
            balances=(*coins, SpotBalance("USDT", self.cash, Decimal(0))),
        )

    def positions(self, *, priority: Priority = Priority.READ) -> tuple[Position, ...]:
        return ()

    def holdings(self, *, priority: Priority = Priority.READ) -> tuple[Position, ...]:
        self._happens("positions")
        return tuple(_coin(p, StopPrices()) for p in self._positions() if p.size)

    def trading_mode(
        self, symbol: str, *, max_age_s: float = 0.0, priority: Priority = Priority.READ
    ) -> TradingMode:
        raise InvalidInput("a spot account has neither leverage nor margin mode")

    def set_leverage(self, symbol: str, leverage: Decimal) -> None:
        raise InvalidInput("a spot account has no leverage")

    def set_margin_mode(self, symbol: str, margin_mode: MarginMode) -> None:
        raise InvalidInput("a spot account has no margin mode")

    def _submit_one(self, order: OrderRequest) -> SubmitResult:
        held = self.held.get(order.symbol)
        has_coins = held is not None and held.size >= order.size
        if order.side is Side.SELL and order.client_id not in self.orders and not has_coins:
            return SubmitResult(order.client_id, Outcome.REJECTED, None, "43012", "no coins")
        return super()._submit_one(order)

    def _fill(self, order: OrderRequest, report: OrderReport) -> None:
        self.cash -= order.side.sign * order.size * self.marks[order.symbol]
        super()._fill(order, report)

    def _preset(self, order: OrderRequest) -> None:
        """Stops do not travel with a purchase."""

    def hold(self, symbol: str, size: Decimal, *, opened_at: datetime | None = None) -> None:
        """Stops stay where they are, as those of a spot exchange do."""
        stops = dict(self.stops)
        super().hold(symbol, size, opened_at=opened_at)
        self.stops = stops

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
        held = {position.symbol: position for position in self._positions()}.get(symbol)
        if held is None or not protects_long:
            raise NoPosition(f"{symbol}: nothing to protect")
        if passed(trigger_price, held, is_stop_loss=is_stop_loss):
            raise WrongSideOfPrice(f"{symbol}: {trigger_price} is beyond {held.mark_price}")
        self._place(symbol, is_stop_loss, True, trigger_price)
        self.more_stops = tuple(
            s for s in self.more_stops if (s.symbol, s.is_stop_loss) != (symbol, is_stop_loss)
        )
        if lost:
            raise OutcomeUnknown("lost")

    def _place(self, symbol: str, is_loss: bool, is_long: bool, price: Decimal) -> None:
        super()._place(symbol, is_loss, is_long, price)
        placed = self.stops[(symbol, is_loss)]
        self.stops[(symbol, is_loss)] = replace(placed, size=self.held[symbol].size)

    def placed_stops(self, *, priority: Priority = Priority.PROTECTION) -> tuple[PlacedStop, ...]:
        return super().placed_stops() + self.more_stops

    def remove_stop(self, stop: PlacedStop, *, priority: Priority = Priority.PROTECTION) -> None:
        if stop in self.more_stops:
            self._happens("remove_stop")
            self.more_stops = tuple(s for s in self.more_stops if s != stop)
            return
        super().remove_stop(stop)

    def sold(self, symbol: str) -> Decimal:
        """How much of a coin was sold."""
        sales: Sequence[Decimal] = [
            f.size for f in self.fill_log if f.symbol == symbol and f.side is Side.SELL
        ]
        return sum(sales, Decimal(0))


def _coin(position: Position, stops: StopPrices) -> Position:
    """What it has cost and since when it is there nobody knows."""
    return replace(
        position,
        entry_price=position.mark_price,
        unrealized_pnl=Decimal(0),
        leverage=Decimal(1),
        liquidation_price=None,
        stops=stops,
        opened_at=EPOCH,
    )


class MemoryBare(MemorySpot):
    """A spot venue that buys and sells, and has no stop orders."""

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset((Ability.EXACT_BUYS,))

    def _submit_one(self, order: OrderRequest) -> SubmitResult:
        if not order.stops.empty:
            return SubmitResult(order.client_id, Outcome.REJECTED, None, "stops", NO_STOP_ORDERS)
        return super()._submit_one(order)

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
        raise InvalidInput(NO_STOP_ORDERS)

    def placed_stops(self, *, priority: Priority = Priority.PROTECTION) -> tuple[PlacedStop, ...]:
        return ()
