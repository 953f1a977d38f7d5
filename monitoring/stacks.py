"""The five parts of a finwatcher minute, one class per table; spot shares the code of futures.

Each part measures from what was gathered and knows nothing of the others, so that one that fails
(an exception of any kind leaves its method) does not stop them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from module.model.accounts import AccountSnapshot
from module.model.market import MarketType
from module.model.results import (
    ClosedPositionRow,
    IndicatorRow,
    PortfolioRow,
    SymbolRow,
    TransactionRow,
    WatchedSession,
)
from module.ports import Exchange
from monitoring.ledger import HistoryLedger
from monitoring.metrics import (
    IndicatorState,
    Totals,
    advance_or_begin,
    measure_portfolio,
    measure_symbols,
)


class StackFuturesResult:
    """`futures_result_1min`: one row per symbol held or wanted."""

    table: ClassVar[str] = "futures_result_1min"

    @property
    def name(self) -> str:
        """The part's name in alerts."""
        return type(self).__name__

    def measure(
        self, snapshot: AccountSnapshot, session: WatchedSession, totals: Totals
    ) -> tuple[SymbolRow, ...]:
        """The symbols at this minute."""
        return measure_symbols(snapshot, session, totals)


class StackFuturesPfResult:
    """`futures_portfolio_result_1min`: the account as a whole."""

    table: ClassVar[str] = "futures_portfolio_result_1min"

    @property
    def name(self) -> str:
        """The part's name in alerts."""
        return type(self).__name__

    def measure(
        self,
        snapshot: AccountSnapshot,
        session: WatchedSession,
        totals: Totals,
        *,
        late: bool,
        flags: tuple[str, ...],
    ) -> PortfolioRow:
        """The account at this minute."""
        return measure_portfolio(snapshot, session, totals, late=late, flags=flags)


class StackFuturesIndicatorResult:
    """`futures_indicator_result_1min_1day`: the curve so far.

    A minute may be measured again by the process that owns it (its last row): the curve then goes
    on from the minute before it.
    """

    table: ClassVar[str] = "futures_indicator_result_1min_1day"

    def __init__(self) -> None:
        self._before: IndicatorState | None = None
        self._now: IndicatorState | None = None
        self._minute: datetime | None = None

    @property
    def name(self) -> str:
        """The part's name in alerts."""
        return type(self).__name__

    def resume(self, state: IndicatorState | None) -> None:
        """Go on from `state`, the curve as stored (None: an empty curve)."""
        self._before = self._now = state
        self._minute = None

    def measure(self, minute: datetime, portfolio: PortfolioRow, totals: Totals) -> IndicatorRow:
        """The indicators with this minute's point."""
        before = self._before if minute == self._minute else self._now
        if before is not None and before.minute >= minute:  # resumed from this very minute
            return before.read(totals.trades, totals.trades_won)
        now = advance_or_begin(
            before,
            minute,
            portfolio.current_pv,
            portfolio.net_transfers,
            portfolio.initial_balance,
        )
        self._before, self._now, self._minute = before, now, minute
        return now.read(totals.trades, totals.trades_won)

    @property
    def state(self) -> dict[str, object] | None:
        """The running sums as they are to be stored."""
        return None if self._now is None else self._now.to_document()


class StackFuturesHistoricalTx:
    """`futures_historical_transactions_details`: fills, fees, funding, transfers; once each."""

    table: ClassVar[str] = "futures_historical_transactions_details"

    @property
    def name(self) -> str:
        """The part's name in alerts."""
        return type(self).__name__

    def collect(self, exchange: Exchange, ledger: HistoryLedger) -> tuple[TransactionRow, ...]:
        """What is new since the last stored time."""
        fills = exchange.fills(ledger.since("fill"))
        bills = exchange.bills(ledger.since("bill"))
        return (*ledger.book_fills(fills), *ledger.book_bills(bills))


class StackFuturesHistoricalPos:
    """`futures_historical_positions_info`: positions that are over; once each."""

    table: ClassVar[str] = "futures_historical_positions_info"

    @property
    def name(self) -> str:
        """The part's name in alerts."""
        return type(self).__name__

    def collect(self, exchange: Exchange, ledger: HistoryLedger) -> tuple[ClosedPositionRow, ...]:
        """What is new since the last stored time."""
        return ledger.book_positions(exchange.closed_positions(ledger.since("position")))


class StackSpotResult(StackFuturesResult):
    """`spot_result_1min`: coins at their price; a coin without a USDT pair has no row."""

    table = "spot_result_1min"


class StackSpotPfResult(StackFuturesPfResult):
    """`spot_portfolio_result_1min`."""

    table = "spot_portfolio_result_1min"


class StackSpotIndicatorResult(StackFuturesIndicatorResult):
    """`spot_indicator_result_1min_1day`."""

    table = "spot_indicator_result_1min_1day"


class StackSpotHistoricalTx(StackFuturesHistoricalTx):
    """`spot_historical_transactions_details`."""

    table = "spot_historical_transactions_details"


class StackSpotHistoricalPos(StackFuturesHistoricalPos):
    """`spot_historical_positions_info`."""

    table = "spot_historical_positions_info"


@dataclass(frozen=True, slots=True)
class Stacks:
    """The five parts of one session."""

    result: StackFuturesResult
    portfolio: StackFuturesPfResult
    indicators: StackFuturesIndicatorResult
    transactions: StackFuturesHistoricalTx
    positions: StackFuturesHistoricalPos

    @classmethod
    def of(cls, market: MarketType) -> Stacks:
        """The parts of an account of this market."""
        if market is MarketType.SPOT:
            return cls(
                StackSpotResult(),
                StackSpotPfResult(),
                StackSpotIndicatorResult(),
                StackSpotHistoricalTx(),
                StackSpotHistoricalPos(),
            )
        return cls(
            StackFuturesResult(),
            StackFuturesPfResult(),
            StackFuturesIndicatorResult(),
            StackFuturesHistoricalTx(),
            StackFuturesHistoricalPos(),
        )
