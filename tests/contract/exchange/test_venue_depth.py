"""The venue contract, order books and margin rules without keys."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest

from module.model.errors import NotFound
from module.model.market import MarketType
from module.model.orders import Side
from tests.contract.exchange.harness import Stage, Trait

pytestmark = pytest.mark.timeout(120)


@pytest.mark.needs(Trait.PUBLIC_DATA)
def test_depth_is_best_first_and_around_the_quote(stage: Stage) -> None:
    public, market = stage.harness.public_market(), stage.venue.market
    depth = public.depth(market, "BTCUSDT")
    assert depth.symbol == "BTCUSDT"
    assert len(depth.bids) > 1
    assert len(depth.asks) > 1
    assert all(a.price > b.price for a, b in pairwise(depth.bids))
    assert all(a.price < b.price for a, b in pairwise(depth.asks))
    assert depth.bids[0].price < depth.asks[0].price
    assert all(level.size > 0 for level in (*depth.bids, *depth.asks))
    assert depth.met_by(Side.BUY) == depth.asks
    assert depth.met_by(Side.SELL) == depth.bids
    quote = stage.venue.quotes(["BTCUSDT"])["BTCUSDT"]
    assert abs(depth.asks[0].price / quote.ask - 1) < Decimal("0.05")
    with pytest.raises(NotFound, match="NOSUCHUSDT"):
        public.depth(market, "NOSUCHUSDT")
    public.close()


@pytest.mark.needs(Trait.PUBLIC_DATA)
def test_margin_tiers_ask_more_of_larger_positions(stage: Stage) -> None:
    if stage.venue.market is not MarketType.FUTURES:
        pytest.skip("spot has no margin")
    public = stage.harness.public_market()
    tiers = public.margin_tiers("BTCUSDT")
    assert tiers[0].from_notional == 0
    assert all(a.to_notional == b.from_notional for a, b in pairwise(tiers))
    assert all(a.maintenance_rate < b.maintenance_rate for a, b in pairwise(tiers))
    assert all(0 < tier.maintenance_rate < 1 for tier in tiers)
    with pytest.raises(NotFound, match="NOSUCHUSDT"):
        public.margin_tiers("NOSUCHUSDT")
    public.close()
