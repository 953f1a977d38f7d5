"""Market data as metrics: whether candles arrive."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from api.telemetry.samples import counter, gauge
from module.market.service import MarketHealth


def market_metrics(health: MarketHealth, now: datetime) -> Iterator[object]:
    """Families for `samples.once`; `now` is world time."""
    yield gauge("aifap_market_ok", "1 while nothing is wrong with the candles.", health.ok)
    yield gauge(
        "aifap_market_collector_running", "1 while the collector runs.", health.collector_running
    )
    yield gauge("aifap_market_watched_symbols", "Symbols that it follows.", health.watched)
    yield counter("aifap_market_unsound_bars", "Bars that were not believed.", health.unsound_bars)
    if health.collected_until is not None:
        yield gauge(
            "aifap_market_newest_candle_age_seconds",
            "World time since the close of the newest candle that every watched symbol has.",
            max(0.0, (now - health.collected_until).total_seconds()),
        )
