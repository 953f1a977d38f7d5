"""Last, mark and index on the wire: each is a price of its own, and a jump can move one alone."""

from __future__ import annotations

from decimal import Decimal

import pytest

from module.clock import WorldClock
from tests.contract.simulator.wire_words import BTC, MIX
from tests.fakes.paper_exchange import RawBitget, SimulatorProcess

pytestmark = pytest.mark.timeout(120)
MARKET = f"{MIX}/market"


@pytest.mark.endpoint(f"GET {MARKET}/symbol-price", "a jump of last alone leaves mark and index")
def test_B14_last_jumps_and_the_mark_stays(
    raw: RawBitget, simulator: SimulatorProcess, clock: WorldClock
) -> None:
    (before,) = raw.get(f"{MARKET}/symbol-price", **BTC)
    words = {"symbol": "BTCUSDT", "factor": "0.9", "prices": ["last"]}
    answer = simulator.control("POST", "prices", words)
    (after,) = raw.get(f"{MARKET}/symbol-price", **BTC)
    assert abs(Decimal(after["price"]) / Decimal(before["price"]) - Decimal("0.9")) < Decimal(
        "0.001"
    )
    for name in ("markPrice", "indexPrice"):
        assert abs(Decimal(after[name]) / Decimal(before[name]) - 1) < Decimal("0.001")
    assert answer["last"] == after["price"]
    (ticker,) = raw.get(f"{MARKET}/ticker", **BTC)
    assert (ticker["markPrice"], ticker["lastPr"]) == (after["markPrice"], after["price"])
    bid = Decimal(ticker["bidPr"])
    assert bid > Decimal("0.94") * Decimal(after["markPrice"])  # the book keeps to its band
    simulator.control("POST", "prices", {**words, "factor": str(1 / Decimal("0.9"))})


@pytest.mark.endpoint(f"GET {MARKET}/candles", "kLineType MARK and INDEX")
def test_candles_of_the_three_prices_differ_and_only_last_has_volume(
    raw: RawBitget, clock: WorldClock
) -> None:
    clock.sleep(120)
    bars = {
        kind: raw.get(f"{MARKET}/candles", **BTC, granularity="1m", limit=20, kLineType=kind)
        for kind in ("MARKET", "MARK", "INDEX")
    }
    assert len({tuple(bar[0] for bar in found) for found in bars.values()}) == 1
    closes = {kind: [bar[4] for bar in found] for kind, found in bars.items()}
    assert closes["MARKET"] != closes["MARK"] != closes["INDEX"]
    assert all(Decimal(bar[5]) > 0 for bar in bars["MARKET"])
    assert all(bar[5] == bar[6] == "0" for bar in bars["MARK"] + bars["INDEX"])
    assert (
        raw.code("GET", f"{MARKET}/candles", **BTC, granularity="1m", kLineType="MOON") != "00000"
    )
