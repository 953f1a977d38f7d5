"""How Bitget pages its lists: newest first, `endId` of one page is `idLessThan` of the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import TypeVar

from module.simulator.prices.market_source import DAY_MS
from module.simulator.venue import Call
from module.simulator.wire.bitget_codes import WireError
from module.simulator.wire.bitget_params import Params

Item = TypeVar("Item")
HISTORY_REACH_MS = 90 * DAY_MS
"""No list goes back further."""
HISTORY_SPAN_DAYS = 90


def oldest_ms(call: Call) -> int:
    """From when on a listing can have anything: 90 days back, or where the request begins."""
    start_ms = call.params.optional_ms("startTime")
    return max(call.now_ms - HISTORY_REACH_MS, 0 if start_ms is None else start_ms)


def page(
    items: Sequence[Item],
    params: Params,
    *,
    key: Callable[[Item], str],
    at_ms: Callable[[Item], int],
    limit: int,
    limit_max: int = 100,
    span_days: int = HISTORY_SPAN_DAYS,
) -> tuple[list[Item], str | None]:
    """One page of `items`, highest id first, and its endId (None when there is nothing).

    A limit above `limit_max` counts as `limit_max`. Refuses 40017 where the end lies before the
    start, 00001 where more than `span_days` lie between them.
    """
    before = params.optional_ms("idLessThan")
    start_ms, end_ms = params.optional_ms("startTime"), params.optional_ms("endTime")
    check_span(start_ms, end_ms, span_days)
    size = max(1, params.integer("limit", limit, most=limit_max))
    numbered = [
        (int(key(item)), item)
        for item in items
        if (start_ms is None or at_ms(item) >= start_ms)
        and (end_ms is None or at_ms(item) <= end_ms)
    ]
    if before is not None:
        numbered = [(number, item) for number, item in numbered if number < before]
    numbered.sort(key=itemgetter(0), reverse=True)
    found = [item for _, item in numbered[:size]]
    return found, key(found[-1]) if found else None


def check_span(start_ms: int | None, end_ms: int | None, span_days: int) -> None:
    """Refuse a range of time that ends before it begins, or is too long."""
    if start_ms is None or end_ms is None:
        return
    if end_ms < start_ms:
        raise WireError("40017", "Parameter verification failed startTime > endTime")
    if end_ms - start_ms > span_days * DAY_MS:
        raise WireError(
            "00001", f"startTime and endTime interval cannot be greater than {span_days} days"
        )
