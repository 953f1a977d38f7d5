"""A source that does not ask again before there is room: the gateway has said when there is.

Several wait for the same bars at one boundary (the collector, sessions). Each may look as often as
it likes; while the request budget is used up a look costs no call.
"""

from __future__ import annotations

import threading
from datetime import datetime

from module.market.store import CandleSource
from module.model.errors import RateLimited
from module.model.market import Candle, MarketType
from module.model.series import Series
from module.ports import Clock

ROOM_UNKNOWN_S = 1.0


class PacedSource:
    """`source` with a memory for RateLimited. Thread safe."""

    def __init__(self, source: CandleSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._lock = threading.Lock()
        self._refused: tuple[datetime, float] | None = None

    def symbols(self, market: MarketType) -> frozenset[str]:
        """See `CandleSource.symbols`; it is asked rarely."""
        return self._source.symbols(market)

    def candles(self, series: Series, end: datetime, limit: int) -> list[Candle]:
        """See `CandleSource.candles`. RateLimited without a call until the time it named last."""
        with self._lock:
            refused = self._refused
        if refused is not None and (left_s := self._left_s(*refused)) > 0:
            raise RateLimited(
                f"the request budget has no room for candles for {left_s:.3f} s",
                retry_after_s=left_s,
            )
        try:
            return self._source.candles(series, end, limit)
        except RateLimited as error:
            wait_s = ROOM_UNKNOWN_S if error.retry_after_s is None else error.retry_after_s
            with self._lock:
                self._refused = (self._clock.now(), wait_s)
            raise

    def _left_s(self, at: datetime, wait_s: float) -> float:
        """Until there is room; a clock that was set back meanwhile makes it no longer."""
        passed_s = (self._clock.now() - at).total_seconds()
        return wait_s - passed_s if passed_s >= 0 else 0.0
