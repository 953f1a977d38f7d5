"""What previews see, by hand: one exchange, arithmetic bars, a scripted strategy, deep books."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from api.preview_wiring import PreviewTools
from module.clock import SystemClock
from module.db.repositories.accounts import AccountRecord
from module.db.repositories.session_records import SessionRecord
from module.model.books import BookLevel, Depth, MarginTier
from module.model.errors import AifapError
from module.model.market import Frequency
from module.model.sessions import SessionSpec
from module.ports import MarketData, StrategyOutput, WindowRequest
from tests.fakes.exchange import FakeExchange
from tests.fakes.market import FakeMarket
from trading.gathering import House, everything

WINDOW = WindowRequest(("BTCUSDT", "ETHUSDT"), 30, Frequency.MINUTE_1, ())
TIERS = (MarginTier(Decimal(0), Decimal(150_000), Decimal("0.004")),)
SPREAD = Decimal("0.0002")


@dataclass(slots=True)
class FakeBooks:
    """Fits `module.ports.OrderBooks`: one level of `size_usdt` each side, two basis points off."""

    exchange: FakeExchange
    size_usdt: Decimal = Decimal(5_000_000)
    unlisted: set[str] = field(default_factory=set)

    def depth(self, symbols: Sequence[str]) -> Mapping[str, Depth]:
        return {symbol: self._book(symbol) for symbol in symbols if symbol not in self.unlisted}

    def margin_tiers(self, symbols: Sequence[str]) -> Mapping[str, tuple[MarginTier, ...]]:
        return {symbol: TIERS for symbol in symbols if symbol not in self.unlisted}

    def _book(self, symbol: str) -> Depth:
        mark = self.exchange.marks[symbol]
        size = self.size_usdt / mark
        bid, ask = mark * (1 - SPREAD), mark * (1 + SPREAD)
        return Depth(
            symbol, (BookLevel(bid, size),), (BookLevel(ask, size),), self.exchange.clock.now()
        )


@dataclass(slots=True)
class FakeRunner:
    """Fits `module.ports.StrategyRunner`: asks for its window, then returns or raises."""

    targets: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: {
            "BTCUSDT": {"weight": "0.3", "presetStopLossPrice": "55000.04"},
            "ETHUSDT": {"weight": "-0.2"},
        }
    )
    raises: list[AifapError] = field(default_factory=list)
    calls: list[tuple[str, datetime]] = field(default_factory=list)

    def run(
        self, source: str, config: Mapping[str, object], at: datetime, market: MarketData
    ) -> StrategyOutput:
        self.calls.append((source, at))
        market.closed_bars(WINDOW.assets, WINDOW.frequency, WINDOW.window, at)
        if self.raises:
            raise self.raises.pop(0)
        return StrategyOutput(self.targets, (WINDOW,), "", 0.01)

    def close(self) -> None:
        pass


class FakePreviews:
    """Fits `api.preview_wiring.PreviewPorts`, the same exchange for every account. `opened` has
    (account id, the session that speaks)."""

    def __init__(self) -> None:
        self.house = House("build-17", "Asia/Seoul")
        self.exchange = FakeExchange(SystemClock())
        self.market = FakeMarket()
        self.runner = FakeRunner()
        self.books = FakeBooks(self.exchange)
        self.opened: list[tuple[str, str]] = []

    @contextmanager
    def open(
        self, account: AccountRecord, spec: SessionSpec, of: SessionRecord | None
    ) -> Iterator[PreviewTools]:
        self.opened.append((account.account_id, spec.session_id))
        yield PreviewTools(self.exchange, self.market, self.books, self.runner, everything)
