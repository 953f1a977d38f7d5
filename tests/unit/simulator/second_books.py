"""A second, simple bookkeeping of one account, from its fills and bills alone.

    engine's fills and bills -> SecondBooks -> compared with the engine's wallets and positions

It knows nothing of the engine's ledger, positions or rules: it adds up what the account was told.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_records import BillRecord, FillRecord
from module.simulator.engine.engine_types import MarketType, PositionMode, PositionSide, TradeSide

D = Decimal
ZERO = D(0)
ROUNDING = D("1e-9")
FUTURES_WORDS = {
    prefix + word
    for prefix in ("", "burst_", "force_")
    for word in ("buy", "sell", "open_long", "open_short", "close_long", "close_short")
}


@dataclass
class Held:
    """One position as this book sees it."""

    size: Decimal = ZERO
    cost: Decimal = ZERO


@dataclass
class SecondBooks:
    """What an account has, as its fills and bills say."""

    account_id: str
    wallets: defaultdict[tuple[MarketType, str], Decimal] = field(
        default_factory=lambda: defaultdict(Decimal)
    )
    coins: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    held: defaultdict[tuple[str, PositionSide], Held] = field(
        default_factory=lambda: defaultdict(Held)
    )
    traded: Decimal = ZERO
    billed: Decimal = ZERO
    other: Decimal = ZERO
    seen: dict[str, int] = field(default_factory=dict)

    def read(self, engine: Engine) -> None:
        """Take in what is new since the last time."""
        for market in MarketType:
            bills = engine.bills(self.account_id, market)
            for bill in bills[self._new(f"bills {market}", len(bills)) :]:
                self._bill(bill)
        futures = engine.fills(self.account_id)
        for fill in futures[self._new("futures", len(futures)) :]:
            self._futures_fill(engine, fill)
        spot = engine.fills(self.account_id, market=MarketType.SPOT)
        for fill in spot[self._new("spot", len(spot)) :]:
            self._spot_fill(fill)

    def _new(self, kind: str, count: int) -> int:
        before = self.seen.get(kind, 0)
        assert count >= before, f"{kind}: records have vanished"
        self.seen[kind] = count
        return before

    def _bill(self, bill: BillRecord) -> None:
        key = (bill.market, bill.coin)
        self.wallets[key] += bill.amount + bill.fee
        assert bill.balance == self.wallets[key]
        if bill.market is MarketType.SPOT:
            if bill.business_type not in ("buy", "sell"):
                self.coins[bill.coin] += bill.amount
        elif bill.business_type in FUTURES_WORDS:
            self.billed += bill.amount + bill.fee
        else:
            self.other += bill.amount + bill.fee

    def _futures_fill(self, engine: Engine, fill: FillRecord) -> None:
        self.traded += fill.profit + fill.fee
        order = engine.order(self.account_id, order_id=fill.order_id)
        left, profit = fill.size, D(0)
        closing = self.held[fill.symbol, self._closed_side(fill)]
        hedge_open = fill.position_mode is PositionMode.HEDGE and (
            fill.trade_side is TradeSide.OPEN
        )
        if not hedge_open and closing.size:
            size = min(left, closing.size)
            entry = closing.cost / closing.size
            profit = (fill.price - entry) * size * -fill.direction
            closing.cost -= entry * size
            closing.size -= size
            left -= size
        assert abs(profit - fill.profit) < ROUNDING * (1 + abs(profit)), (fill, profit)
        if left:
            assert not order.closes, f"{fill.order_id} may only reduce and opens {left}"
            side = PositionSide.LONG if fill.direction > 0 else PositionSide.SHORT
            self.held[fill.symbol, side].size += left
            self.held[fill.symbol, side].cost += left * fill.price

    @staticmethod
    def _closed_side(fill: FillRecord) -> PositionSide:
        return PositionSide.SHORT if fill.direction > 0 else PositionSide.LONG

    def _spot_fill(self, fill: FillRecord) -> None:
        base = fill.symbol.removesuffix("USDT")
        self.coins[base] += fill.size * fill.direction
        self.coins["USDT"] -= fill.size * fill.price * fill.direction
        self.coins[fill.fee_coin] += fill.fee

    def compare(self, engine: Engine) -> None:
        """The engine says the same."""
        name = self.account_id
        for (market, coin), amount in self.wallets.items():
            assert engine.wallet_balance(name, market, coin) == amount
        futures = engine.futures_balance(name)
        assert self.traded == self.billed
        assert futures.wallet == self.traded + self.other
        for coin, amount in self.coins.items():
            assert engine.wallet_balance(name, MarketType.SPOT, coin) == amount
        positions = {
            (view.position.symbol, view.position.side): view for view in engine.positions(name)
        }
        open_here = {key for key, held in self.held.items() if held.size}
        assert positions.keys() == open_here
        unrealized = D(0)
        for key, view in positions.items():
            held = self.held[key]
            assert view.position.size == held.size
            entry = held.cost / held.size
            assert abs(view.position.entry_price - entry) < ROUNDING * entry
            side = 1 if key[1] is PositionSide.LONG else -1
            unrealized += (view.mark_price - entry) * held.size * side
        assert abs(futures.unrealized - unrealized) < D("1e-6")
        assert abs(futures.equity - futures.wallet - unrealized) < D("1e-6")
