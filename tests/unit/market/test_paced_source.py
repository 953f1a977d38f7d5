"""While the request budget is used up, looking again costs no call."""

from __future__ import annotations

from datetime import timedelta

import pytest

from module.market.paced_source import PacedSource
from module.model.errors import RateLimited
from module.model.market import Candle, Frequency, MarketType
from module.model.series import Series
from tests.fakes.market_data import ArithmeticVenue, HandClock, at

NOW = at("2025-03-05 09:20")
LINE = Series("synthetic:7", MarketType.FUTURES, "BTCUSDT", Frequency.MINUTE_1)


def test_nothing_is_asked_before_the_time_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock(NOW)
    venue = ArithmeticVenue(clock)
    asked: list[Series] = []
    refusals: list[float | None] = [0.7, None]

    def candles(series: Series, end: object, limit: int) -> list[Candle]:
        asked.append(series)
        if refusals:
            raise RateLimited("no room", retry_after_s=refusals.pop(0))
        return []

    monkeypatch.setattr(venue, "candles", candles)
    source = PacedSource(venue, clock)

    def refused(calls: int) -> float:
        with pytest.raises(RateLimited) as caught:
            source.candles(LINE, NOW, 5)
        assert len(asked) == calls
        return caught.value.retry_after_s or 0.0

    assert refused(calls=1) == pytest.approx(0.7)
    clock.sleep(0.5)
    assert refused(calls=1) == pytest.approx(0.2)
    clock.sleep(0.2)
    refused(calls=2)
    clock.sleep(0.9)
    assert refused(calls=2) == pytest.approx(0.1)
    clock.sleep(0.1)
    assert source.candles(LINE, NOW + timedelta(seconds=2), 5) == []
    assert len(asked) == 3
