"""Accounts that live by themselves: prices move every second, trades, funding and transfers happen.

What an account said, and when, is written down: the judge compares it with what was stored.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from module.model.accounts import (
    AccountSnapshot,
    Bill,
    BillKind,
    ClosedPosition,
    MarginMode,
    Position,
    PositionMode,
)
from module.model.errors import Unavailable
from module.model.market import Instrument, Quote
from module.model.orders import Fill, Side, StopPrices
from module.ports import Clock

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
PUBLISHED_LATE_S = 90.0
STIRRED = timedelta(minutes=10)
"""Items are written down almost in the order of their times: none is this much out of place."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that happened, and since when the exchange tells of it."""

    source: str
    item_id: str
    at: datetime
    published_at: datetime
    what: Fill | Bill | ClosedPosition


@dataclass(frozen=True, slots=True)
class Answer:
    """What the account said at one moment."""

    equity: Decimal
    positions: Mapping[str, Decimal]
    transfers: Decimal
    fees: Decimal
    settled: bool
    """Nothing that has happened was still unpublished then, or a moment before."""


@dataclass
class LivingAccount:
    """One futures account. `down_until`, `hangs`, `slow_s`: the exchange's moods. It has a clock
    of its own (`exchange_now`); the machine's may be wrong."""

    account_id: str
    clock: Clock
    rng: random.Random
    exchange_now: Callable[[], datetime]
    wallet: Decimal = Decimal(10_000)
    down_until: datetime | None = None
    hangs: bool = False
    slow_s: float = 0.0
    held: dict[str, tuple[Decimal, Decimal]] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    sums: list[tuple[Decimal, Decimal]] = field(default_factory=lambda: [(Decimal(0), Decimal(0))])
    """Transfers and fees of the first so many items."""
    said: dict[datetime, list[Answer]] = field(default_factory=dict)
    """What it said at each time of the machine's clock; set back, it reads a time twice."""
    refused: list[datetime] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def seen_by(self, clock: Clock) -> LivingAccount:
        """The same account, for who waits by another clock."""
        view = copy.copy(self)
        view.clock = clock
        return view

    def live(self, first: datetime, last: datetime) -> None:
        """What happens between two moments, in order."""
        for number in range(self.rng.choice((0, 0, 0, 1, 1, 3))):
            at = first + (last - first) * (number + self.rng.random()) / 4
            self._happen(at.replace(microsecond=self.rng.randrange(1000) * 1000))

    def _happen(self, at: datetime) -> None:
        kind = self.rng.random()
        number = len(self.items)
        late = self.rng.random() < 0.1
        shown = at + timedelta(seconds=self.rng.uniform(1, PUBLISHED_LATE_S) if late else 0)
        symbol = self.rng.choice(SYMBOLS)
        if kind < 0.7:
            self._trade(symbol, at, shown, number)
        elif kind < 0.9:
            amount = Decimal(self.rng.randrange(-300, 300)) / 100 or Decimal(1)
            self._move(BillKind.FUNDING, symbol, amount, at, shown, number)
        else:
            amount = Decimal(self.rng.randrange(-300, 500)) or Decimal(7)
            self._move(BillKind.TRANSFER, "", amount, at, shown, number)

    def _trade(self, symbol: str, at: datetime, shown: datetime, number: int) -> None:
        price, fee = self._mark(symbol, at), Decimal("-0.75")
        size, entry = self.held.pop(symbol, (Decimal(0), Decimal(0)))
        pnl = size * (price - entry)
        if not size:
            self.held[symbol] = (Decimal(self.rng.choice((-5, -2, 2, 5))) / 10, price)
        side = Side.BUY if self.held.get(symbol, (Decimal(-1), 0))[0] > 0 else Side.SELL
        amount = abs(size or self.held[symbol][0])
        self.wallet += pnl + fee
        fill = Fill(
            trade_id=f"t{number}",
            order_id=f"o{number}",
            symbol=symbol,
            side=side,
            price=price,
            size=amount,
            quote_size=amount * price,
            fee=fee,
            fee_asset="USDT",
            realized_pnl=pnl,
            is_taker=True,
            at=at,
        )
        self._write_down(Item("fill", fill.trade_id, at, shown, fill))
        if size:
            closed = ClosedPosition(
                position_id=f"p{number}",
                symbol=symbol,
                is_long=size > 0,
                entry_price=entry,
                close_price=price,
                size=amount,
                gross_pnl=pnl,
                funding=Decimal(0),
                open_fee=fee,
                close_fee=fee,
                net_profit=pnl + fee + fee,
                opened_at=at - timedelta(minutes=1),
                closed_at=at,
            )
            self._write_down(Item("position", closed.position_id, at, shown, closed))

    def _move(
        self,
        kind: BillKind,
        symbol: str,
        amount: Decimal,
        at: datetime,
        shown: datetime,
        number: int,
    ) -> None:
        self.wallet += amount
        bill = Bill(
            bill_id=f"b{number}",
            kind=kind,
            venue_kind=kind.value,
            symbol=symbol,
            asset="USDT",
            amount=amount,
            fee=Decimal(0),
            balance=self.wallet,
            at=at,
        )
        self._write_down(Item("bill", bill.bill_id, at, shown, bill))

    def _write_down(self, item: Item) -> None:
        self.items.append(item)
        self.sums.append(_plus(self.sums[-1], item.what))

    def _since(self, at: datetime) -> int:
        """The number of items that are certainly all before `at`."""
        number = len(self.items)
        while number and self.items[number - 1].at > at - STIRRED:
            number -= 1
        return number

    def _mark(self, symbol: str, at: datetime) -> Decimal:
        seconds = (at - EPOCH).total_seconds()
        wave = 5 * math.sin(seconds / 700 + SYMBOLS.index(symbol))
        return Decimal(round(10_000 + 100 * wave)) / 100

    # --- what the exchange tells ------------------------------------------------------------------

    def snapshot(self) -> AccountSnapshot:
        """The account now; Unavailable while the exchange is down."""
        try:
            self.clock.sleep(self.slow_s)
        except Unavailable:
            self.refused.append(self.clock.now())
            raise
        at = self.clock.now()
        self._answer()
        positions = tuple(self._position(symbol, at) for symbol in sorted(self.held))
        pnl = sum((item.unrealized_pnl for item in positions), Decimal(0))
        older = self._since(at)
        transfers, fees = self.sums[older]
        for item in self.items[older:]:
            if item.at <= at:
                transfers, fees = _plus((transfers, fees), item.what)
        recent = timedelta(seconds=PUBLISHED_LATE_S) + timedelta(minutes=6)
        settled = at == self.exchange_now() and all(
            item.published_at == item.at or at - item.published_at > recent
            for item in self.items[self._since(at - 2 * recent) :]
            if at - item.at < 2 * recent
        )
        sizes = {item.symbol: item.size for item in positions}
        answer = Answer(self.wallet + pnl, sizes, transfers, fees, settled)
        self.said.setdefault(at, []).append(answer)
        return AccountSnapshot(
            account_id=self.account_id,
            at=at,
            wallet_balance=self.wallet,
            unrealized_pnl=pnl,
            equity=self.wallet + pnl,
            available=self.wallet,
            margin_used=Decimal(0),
            position_mode=PositionMode.ONE_WAY,
            positions=positions,
            open_orders=(),
        )

    def _position(self, symbol: str, at: datetime) -> Position:
        size, entry = self.held[symbol]
        mark = self._mark(symbol, at)
        return Position(
            symbol=symbol,
            size=size,
            entry_price=entry,
            mark_price=mark,
            margin_size=abs(size) * mark,
            unrealized_pnl=size * (mark - entry),
            realized_pnl=Decimal(0),
            fees=Decimal(0),
            funding=Decimal(0),
            leverage=Decimal(1),
            margin_mode=MarginMode.CROSSED,
            liquidation_price=None,
            stops=StopPrices(),
            opened_at=at,
        )

    def fills(self, since: datetime) -> Sequence[Fill]:
        """Published executions."""
        return [item for item in self._published(since) if isinstance(item, Fill)]

    def bills(self, since: datetime) -> Sequence[Bill]:
        """Published movements."""
        return [item for item in self._published(since) if isinstance(item, Bill)]

    def closed_positions(self, since: datetime) -> Sequence[ClosedPosition]:
        """Published ends of positions."""
        return [item for item in self._published(since) if isinstance(item, ClosedPosition)]

    def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Nobody asks for a futures account's."""
        raise NotImplementedError

    def instruments(self) -> Mapping[str, Instrument]:
        """Nobody asks for a futures account's."""
        raise NotImplementedError

    def _published(self, since: datetime) -> list[Fill | Bill | ClosedPosition]:
        self._answer()
        now = self.exchange_now()
        self.asked.append("history")
        return [
            item.what
            for item in self.items[self._since(since) :]
            if item.at >= since and item.published_at <= now
        ]

    def _answer(self) -> None:
        now = self.clock.now()
        if self.hangs:
            self.refused.append(now)
            for _ in range(30):
                self.clock.pause(2.0)  # a clock that gives up ends it
        if self.hangs or (self.down_until is not None and now < self.down_until):
            self.refused.append(now)
            raise Unavailable("the exchange is down for maintenance")


def _plus(
    sums: tuple[Decimal, Decimal], what: Fill | Bill | ClosedPosition
) -> tuple[Decimal, Decimal]:
    """Transfers and fees with this item's."""
    if isinstance(what, Fill):
        return sums[0], sums[1] + what.fee
    if isinstance(what, Bill) and what.kind is BillKind.TRANSFER:
        return sums[0] + what.amount, sums[1]
    return sums
