"""The five parts of a finwatcher minute, one class per table; spot shares the code of futures.

Each part measures from what was gathered and knows nothing of the others, so that one that fails
(an exception of any kind leaves its method) does not stop them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import ClassVar

from module.model.accounts import AccountSnapshot, Bill
from module.model.market import MarketType
from module.model.results import (
    ClosedPositionRow,
    IndicatorRow,
    PlannedOrder,
    PortfolioRow,
    SymbolRow,
    TransactionRow,
    WatchedSession,
)
from module.ports import Exchange
from monitoring.indicators import (
    DAYS_PER_YEAR,
    IndicatorState,
    TradeFigures,
    advance_or_begin,
)
from monitoring.ledger import HistoryLedger, is_coin_transfer
from monitoring.metrics import QUOTE_ASSET, Totals, measure_portfolio, measure_symbols

PlansOf = Callable[[datetime, datetime], Mapping[str, PlannedOrder]]
"""By order id, what the orders were planned at that were executed from one time to another."""


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
        unprotected_s: float | None,
    ) -> PortfolioRow:
        """The account at this minute."""
        return measure_portfolio(
            snapshot, session, totals, late=late, flags=flags, unprotected_s=unprotected_s
        )


class StackFuturesIndicatorResult:
    """`futures_indicator_result_1min_1day`: the curve so far.

    A minute may be measured again by the process that owns it (its last row): the curve then goes
    on from the minute before it.
    """

    table: ClassVar[str] = "futures_indicator_result_1min_1day"

    def __init__(self, days_per_year: int = DAYS_PER_YEAR) -> None:
        self._days_per_year = days_per_year
        self._before: IndicatorState | None = None
        self._now: IndicatorState | None = None
        self._minute: datetime | None = None
        self._figures: TradeFigures | None = None

    @property
    def name(self) -> str:
        """The part's name in alerts."""
        return type(self).__name__

    def resume(self, state: IndicatorState | None) -> None:
        """Go on from `state`, the curve as stored (None: an empty curve); it is the part's now."""
        self._now, self._before, self._minute = state, None, None

    def measure(self, minute: datetime, portfolio: PortfolioRow, totals: Totals) -> IndicatorRow:
        """The indicators with this minute's point."""
        now = self._step_back() if minute == self._minute else self._now
        if now is None or now.minute < minute:  # else resumed from this very minute
            self._keep_before(now)
            self._minute = minute
            now = self._now = advance_or_begin(
                now,
                minute,
                portfolio.current_pv,
                portfolio.net_transfers,
                portfolio.initial_balance,
            )
        figures = self._figures
        if figures is None or figures.sums is not totals.sums:  # something was traded
            figures = self._figures = TradeFigures.of(totals.sums)
        return now.read(figures, self._days_per_year)

    def _keep_before(self, now: IndicatorState | None) -> None:
        if now is None or self._before is None:
            self._before = None if now is None else now.copy()
        else:
            self._before.become(now)

    def _step_back(self) -> IndicatorState | None:
        """The curve before its last point; None: that was its first."""
        return None if self._before is None else self._before.copy()

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

    def collect(
        self, exchange: Exchange, ledger: HistoryLedger, seen: AccountSnapshot, plans: PlansOf
    ) -> tuple[TransactionRow, ...]:
        """What is new since the last stored time. `plans` is asked for the orders of new fills."""
        fills = ledger.new_fills(exchange.fills(ledger.since("fill")))
        bills = ledger.new_bills(exchange.bills(ledger.since("bill")))
        prices = self._prices(exchange, bills, seen)
        planned = plans(fills[0].at, fills[-1].at) if fills else {}
        # Money that came in first: a coin may be sold in the second it arrived.
        booked = ledger.book_bills(bills, prices)
        return (*ledger.book_fills(fills, planned), *booked)

    def _prices(
        self, _exchange: Exchange, _bills: Sequence[Bill], _seen: AccountSnapshot
    ) -> Mapping[str, Decimal]:
        """Prices of the coins that came or left; futures accounts hold quote asset only."""
        return {}


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
    """`spot_historical_transactions_details`; coins that came or left have their value."""

    table = "spot_historical_transactions_details"

    def _prices(
        self, exchange: Exchange, bills: Sequence[Bill], seen: AccountSnapshot
    ) -> Mapping[str, Decimal]:
        """By symbol, as this look at the account values them; a coin without a pair has none."""
        moved = {bill.asset + QUOTE_ASSET for bill in bills if is_coin_transfer(bill)}
        prices = {item.symbol: item.mark_price for item in seen.positions if item.symbol in moved}
        missing = moved - set(prices)
        if missing:  # it has left again, or came after the look
            listed = sorted(missing & set(exchange.instruments()))
            quotes = exchange.quotes(listed) if listed else {}
            prices |= {symbol: quote.last for symbol, quote in quotes.items()}
        return prices


class StackSpotHistoricalPos(StackFuturesHistoricalPos):
    """`spot_historical_positions_info`: round trips, told by the fills; after the transactions."""

    table = "spot_historical_positions_info"

    def collect(self, exchange: Exchange, ledger: HistoryLedger) -> tuple[ClosedPositionRow, ...]:
        """What the fills that were booked have ended."""
        return ledger.round_trips()


@dataclass(frozen=True, slots=True)
class Stacks:
    """The five parts of one session."""

    result: StackFuturesResult
    portfolio: StackFuturesPfResult
    indicators: StackFuturesIndicatorResult
    transactions: StackFuturesHistoricalTx
    positions: StackFuturesHistoricalPos

    @classmethod
    def of(cls, market: MarketType, days_per_year: int = DAYS_PER_YEAR) -> Stacks:
        """The parts of an account of this market."""
        if market is MarketType.SPOT:
            return cls(
                StackSpotResult(),
                StackSpotPfResult(),
                StackSpotIndicatorResult(days_per_year),
                StackSpotHistoricalTx(),
                StackSpotHistoricalPos(),
            )
        return cls(
            StackFuturesResult(),
            StackFuturesPfResult(),
            StackFuturesIndicatorResult(days_per_year),
            StackFuturesHistoricalTx(),
            StackFuturesHistoricalPos(),
        )
