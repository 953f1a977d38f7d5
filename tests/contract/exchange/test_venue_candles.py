"""The venue contract, public data without keys: rules and candles of the stage's market."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from module.model.errors import NotFound
from module.model.market import Frequency
from tests.contract.exchange.harness import Stage, Trait

pytestmark = pytest.mark.timeout(120)
MONDAY = datetime(1970, 1, 5, tzinfo=UTC)


@pytest.mark.needs(Trait.PUBLIC_DATA)
def test_candles_are_closed_oldest_first_and_on_the_grid(stage: Stage) -> None:
    public, market = stage.harness.public_market(), stage.venue.market
    assert "BTCUSDT" in public.instruments(market)
    for frequency, wanted in (
        (Frequency.MINUTE_1, 450),
        (Frequency.MINUTE_5, 3),
        (Frequency.HOUR_1, 26),
        (Frequency.DAY_1, 5),
        (Frequency.WEEK_1, 2),
    ):
        now = stage.clock.now()
        candles = public.candles(market, "BTCUSDT", frequency, now, wanted)
        assert len(candles) == wanted, frequency
        opens = [candle.opens_at for candle in candles]
        assert all(b - a == frequency.length for a, b in pairwise(opens))
        assert candles[-1].closes_at <= now < candles[-1].closes_at + frequency.length
        assert all((opened - MONDAY) % frequency.length == opened - opened for opened in opens)
        assert all(c.low <= min(c.open, c.close) <= c.high for c in candles)
        stage.pass_time()
    with pytest.raises(NotFound):
        public.candles(market, "NOSUCHUSDT", Frequency.MINUTE_1, stage.clock.now(), 3)
    public.close()
