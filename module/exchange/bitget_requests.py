"""What the futures and the spot adapter of Bitget share: asking, paging, trading rules, keys."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

from module.exchange import bitget_rows as rows
from module.exchange.bitget_rows import BadRow, Row
from module.exchange.bitget_wire import CLASSIC_HINT, BitgetWire, Endpoint, endpoint
from module.exchange.venue import AccountFamily, KeyReport, Priority, UnifiedAccount
from module.model.errors import Conflict, NotFound, Rejected, Retryable, Unavailable
from module.model.market import Instrument, Quote
from module.ports import Clock

log = logging.getLogger(__name__)

BATCH_THREADS: Final = 5
PAGES_MAX: Final = 60
PAGE_LIMIT: Final = 100
RULES_FRESH: Final = timedelta(hours=1)
RULES_AGAIN: Final = timedelta(seconds=30)
"""So long after they could not be read the rules of before are not asked for again."""
HISTORY_REACH: Final = timedelta(days=89)

KEY_INFO = endpoint("privateSpotGetV2SpotAccountInfo", 1)
UNIFIED_SETTINGS = replace(endpoint("privateUtaGetV3AccountSettings", 1), is_probe=True)

T = TypeVar("T")


class TradingRules:
    """The instruments of one market, read again after an hour or when told that they changed.

    Where they cannot be read again those of before go on: what is held can be closed and protected
    though public data is away, and an exchange refuses what is wrong by new rules.
    """

    def __init__(self, read: Callable[[], Mapping[str, Instrument]], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._known: tuple[Mapping[str, Instrument], datetime] | None = None
        self._changed = False
        self._failed_at: datetime | None = None

    def get(self) -> Mapping[str, Instrument]:
        """By symbol, at most an hour old if they can be read; Retryable where there are none."""
        with self._lock:
            known, changed, failed_at = self._known, self._changed, self._failed_at
        now = self._clock.now()
        if known is not None:
            waits = failed_at is not None and abs(now - failed_at) <= RULES_AGAIN
            if waits or (not changed and now - known[1] <= RULES_FRESH):
                return known[0]
        try:
            found = self._read()
        except Retryable as error:
            if known is None:
                raise
            log.warning("trading rules are those of %s: %s", known[1], error.message)
            with self._lock:
                self._failed_at = now
            return known[0]
        with self._lock:
            self._known, self._changed, self._failed_at = (found, now), False, None
        return found

    def forget(self) -> None:
        """The exchange refused what these rules allow: the next `get` reads them anew (A19)."""
        with self._lock:
            self._changed, self._failed_at = True, None


def understood(parse: Callable[[], T]) -> T:
    """What `parse` makes of an answer to a read; Unavailable when it has another shape."""
    try:
        return parse()
    except (BadRow, StopIteration) as error:
        raise Unavailable(
            f"the exchange's answer is not as published ({error}); ask again", retry_after_s=0.5
        ) from error


def readable(data: object, parse: Callable[[Row], T]) -> list[T]:
    """The rows that can be read, of a list that must have some: one odd row (of a contract that is
    about to be listed, say) hides no other. Unavailable where none can."""
    found: list[T] = []
    odd: list[str] = []
    for row in understood(lambda: rows.rows_of(data)):
        try:
            found.append(parse(row))
        except BadRow as error:
            odd.append(f"{str(row.get('symbol'))[:40]!r} ({error})")
    if odd:
        log.warning("%d rows are not as published and left out: %s", len(odd), odd[0])
    if not found:
        raise Unavailable("the exchange's list has no row as published; ask again")
    return found


@dataclass(frozen=True, slots=True)
class Listing:
    """A list that comes in pages, newest first: which endpoint, and how a page says where it ends.

    Under `key` of an object whose field `end` names the next page; or (`key` None) a plain list
    whose last row's `end` does.
    """

    target: Endpoint
    key: str | None
    end: str = "endId"

    def rows_in(self, data: object) -> list[Row]:
        """The rows of one page."""
        return rows.rows_of(data, self.key)

    def end_of(self, data: object) -> str:
        """What the next page's ids are less than; empty after the last page."""
        page = self.rows_in(data)
        if len(page) < PAGE_LIMIT:
            return ""
        return rows.optional_text(page[-1] if self.key is None else rows.row_of(data), self.end)


def first_page(params: Mapping[str, object]) -> dict[str, object]:
    """`params` of a listing, with the size of its pages."""
    return {**params, "limit": str(PAGE_LIMIT)}


def read_pages(
    wire: BitgetWire,
    listing: Listing,
    params: Mapping[str, object],
    parse: Callable[[Row], T],
    *,
    priority: Priority = Priority.READ,
    first: object = None,
) -> list[T]:
    """Every row of a listing, page by page; `first` is a first page that was read already."""
    asked = first_page(params)
    data = wire.call(listing.target, asked, priority) if first is None else first
    found: list[T] = []
    for _ in range(PAGES_MAX):
        found += understood(lambda d=data: [parse(row) for row in listing.rows_in(d)])  # type: ignore[misc]
        end = understood(lambda d=data: listing.end_of(d))  # type: ignore[misc]
        if not end:
            return found
        data = wire.call(listing.target, {**asked, "idLessThan": end}, priority)
    raise Conflict(f"{listing.target.method}: more than {PAGES_MAX} pages; ask for a shorter time")


def read_history(
    wire: BitgetWire,
    listing: Listing,
    params: Mapping[str, object],
    parse: Callable[[Row], T],
    *,
    since: datetime,
    now: datetime,
    span: timedelta,
) -> list[T]:
    """All rows from `since` (89 days back at most) until `now`, in windows of `span`."""
    start = max(since, now - HISTORY_REACH)
    found: list[T] = []
    while start <= now:
        end = min(start + span, now)
        window = {**params, "startTime": rows.to_ms(start), "endTime": rows.to_ms(end)}
        found.extend(read_pages(wire, listing, window, parse))
        start = end + timedelta(milliseconds=1)
    return found


def at_once(threads: ThreadPoolExecutor, *calls: Callable[[], T]) -> list[T]:
    """Run all of them side by side, each in the caller's context; the first error is raised once
    all have ended."""
    if len(calls) == 1:
        return [calls[0]()]
    futures = [threads.submit(copy_context().run, call) for call in calls]
    results: list[T] = []
    first: BaseException | None = None
    for future in futures:
        error = future.exception()
        if error is None:
            results.append(future.result())
        elif first is None:
            first = error
    if first is not None:
        raise first
    return results


def read_key(wire: BitgetWire, *, trade_authority: str) -> KeyReport:
    """What the key may do, of a classic account; UnifiedAccount for one of the other family.

    A v2 call of a unified key is refused (40085), and only a unified key may read v3's settings.
    """
    data = wire.call(KEY_INFO, {}, Priority.READ)
    report = key_report(understood(lambda: rows.row_of(data)), trade_authority=trade_authority)
    try:
        wire.call(UNIFIED_SETTINGS, {}, Priority.READ)
    except UnifiedAccount:
        return report  # 40084: "you are in classic account mode"
    except Rejected as error:
        log.info("no unified account behind the key: %s", error.message)
        return report
    raise UnifiedAccount(f"the exchange answers as a unified account does; {CLASSIC_HINT}")


def key_report(info: Row, *, trade_authority: str) -> KeyReport:
    """What a key may do. `wwow` is Bitget's word for withdrawals."""
    found = info.get("authorities")
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise Unavailable("the exchange does not say what the key may do; ask again")
    authorities = tuple(found)
    return KeyReport(
        may_trade=trade_authority in authorities,
        may_withdraw=any(item == "wwow" or "withdraw" in item.lower() for item in authorities),
        authorities=authorities,
        family=AccountFamily.CLASSIC,
        user_id=str(info.get("userId") or "")[:64],
        address_bound=bool(info["ips"]) if "ips" in info else None,
    )


def pick_quotes(data: object, symbols: Sequence[str]) -> dict[str, Quote]:
    """The quotes of `symbols` out of the list of all tickers; NotFound names those without one."""
    found = quotes_in(data, symbols)
    missing = sorted(set(symbols) - found.keys())
    if missing:
        raise NotFound(f"the exchange has no price of {', '.join(missing)[:200]}")
    return {symbol: found[symbol] for symbol in symbols}


def quotes_in(data: object, symbols: Sequence[str]) -> dict[str, Quote]:
    """As far as the list of all tickers has them: a symbol without a row, or with one whose prices
    are none, is left out and hides no other (C1). Unavailable where no row at all can be read."""
    wanted = set(symbols)
    listed = understood(lambda: rows.rows_of(data))
    found = {
        quote.symbol: quote
        for row in listed
        if row.get("symbol") in wanted and (quote := _quote(row)) is not None
    }
    if wanted and not found and all(_quote(row) is None for row in listed):
        raise Unavailable("the exchange's list has no price as published; ask again")
    return found


def _quote(row: Row) -> Quote | None:
    """None: its prices are none."""
    try:
        return rows.quote(row)
    except BadRow:
        return None
