"""What one Bitget account does the same way on futures and on spot.

`BitgetFutures` and `BitgetSpot` stand on it: rules, clock, submitting and asking again, cancels,
histories. What differs (rows, endpoints, positions or coins, stops) is theirs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import ClassVar, Final, TypeVar

from module.exchange.agreement import difference
from module.exchange.bitget_orders import settle
from module.exchange.bitget_requests import (
    BATCH_THREADS,
    Listing,
    TradingRules,
    pick_quotes,
    read_history,
    understood,
)
from module.exchange.bitget_rows import Row
from module.exchange.bitget_wire import AgainstRules, BitgetWire, Endpoint
from module.exchange.venue import CLIENT_ID_CLASH, Priority, VenueAccess
from module.model.errors import NotFound, OutcomeUnknown, RateLimited, Rejected, Retryable
from module.model.market import Instrument, MarketType, Quote
from module.model.orders import OrderReport, OrderRequest, Outcome, SubmitResult
from module.ports import Clock

SAME_ID_AGAIN_S: Final = 1.05
HISTORY_SPAN: Final = timedelta(days=80)
HISTORY_AHEAD: Final = timedelta(seconds=2)

T = TypeVar("T")


class BitgetAccount(ABC):
    """The shared half of the two adapters. Thread safe."""

    _tickers: ClassVar[Endpoint]
    _cancel_order: ClassVar[Endpoint]
    _cancel_words: ClassVar[Mapping[str, object]] = {}

    def __init__(
        self,
        access: VenueAccess,
        wire: BitgetWire,
        clock: Clock,
        read_rules: Callable[[], Mapping[str, Instrument]],
        base: Mapping[str, object],
    ) -> None:
        """`base` goes with every request (the product type of futures)."""
        self._access = access
        self._wire = wire
        self._clock = clock
        self._base = base
        self._rules = TradingRules(read_rules, clock)
        self._threads = ThreadPoolExecutor(BATCH_THREADS, thread_name_prefix="venue")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._access.account_id!r})"

    @property
    @abstractmethod
    def market(self) -> MarketType:
        """Futures or spot."""

    @abstractmethod
    def order(
        self, symbol: str, client_id: str, *, priority: Priority = Priority.READ
    ) -> OrderReport:
        """By client id; NotFound when the exchange does not know it (yet)."""

    def close(self) -> None:
        """End threads and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._wire.close()

    def measure_clock(self) -> float:
        """Compare clocks, at most once a minute; seconds that the exchange is ahead of ours."""
        return self._wire.measure_clock()

    def instruments(self) -> Mapping[str, Instrument]:
        """Trading rules by symbol, at most an hour old."""
        return self._rules.get()

    def quotes(
        self, symbols: Sequence[str], *, priority: Priority = Priority.READ
    ) -> Mapping[str, Quote]:
        """Prices now (of spot the mark is the last price); NotFound names the symbols that have
        none."""
        return pick_quotes(self._wire.call(self._tickers, self._base, priority), symbols)

    def look_up(self, order: OrderRequest, *, priority: Priority = Priority.ORDER) -> SubmitResult:
        """Ask for an order that may have been sent: is it there, and is it this one (A6)?

        That the question is refused (keys, a contract that is gone) says nothing of the order."""
        try:
            report = self.order(order.symbol, order.client_id, priority=priority)
        except (Rejected, Retryable, OutcomeUnknown) as error:
            return SubmitResult(order.client_id, Outcome.UNKNOWN, message=error.message)
        other = difference(order, report, self.market)
        if not other:
            return SubmitResult(order.client_id, Outcome.ACCEPTED, report.order_id)
        return SubmitResult(
            order.client_id,
            Outcome.UNKNOWN,
            report.order_id,
            CLIENT_ID_CLASH,
            f"another order lives under client id {order.client_id}: {other}",
        )

    def cancel(self, symbol: str, client_id: str) -> None:
        """Cancel it; already over counts as done, after the exchange has confirmed it."""
        named = {"symbol": symbol, "clientOid": client_id}
        params = {**self._base, **self._cancel_words, **named}
        try:
            self._wire.call(self._cancel_order, params, Priority.CANCEL)
        except NotFound as error:
            report = self.order(symbol, client_id, priority=Priority.CANCEL)
            if not report.status.is_terminal:
                raise OutcomeUnknown(
                    f"order {client_id} is {report.status} although it could not be cancelled "
                    f"({error.message}); look again"
                ) from error
        except RateLimited as error:
            raise RateLimited(error.message, retry_after_s=SAME_ID_AGAIN_S) from error

    # --- for the two adapters --------------------------------------------------------------------

    def _settle(
        self, answers: Sequence[SubmitResult | Retryable], orders: Sequence[OrderRequest]
    ) -> list[SubmitResult]:
        """Results of a batch; after a refusal by the trading rules these are read anew (A19)."""
        results = settle(answers, orders)
        if any(result.rules_changed for result in results):
            self._rules.forget()
        return results

    @contextmanager
    def _rules_checked(self) -> Iterator[None]:
        """A stop that is refused for its digits: the tick may have changed, read it anew (A19)."""
        try:
            yield
        except AgainstRules:
            self._rules.forget()
            raise

    def _read(
        self,
        target: Endpoint,
        params: Mapping[str, object],
        parse: Callable[[object], T],
        priority: Priority,
    ) -> T:
        data = self._wire.call(target, {**self._base, **params}, priority)
        return understood(lambda: parse(data))

    def _history(
        self,
        listing: Listing,
        since: datetime,
        parse: Callable[[Row], T],
        span: timedelta = HISTORY_SPAN,
    ) -> list[T]:
        """All rows from `since` on, window by window, page by page.

        Until a moment after now by whichever clock is ahead: rows carry the exchange's time, and
        where ours is behind the newest of them would be missing."""
        ahead = timedelta(seconds=max(0.0, self._wire.skew_s)) + HISTORY_AHEAD
        now = self._clock.now() + ahead
        return read_history(self._wire, listing, self._base, parse, since=since, now=now, span=span)
