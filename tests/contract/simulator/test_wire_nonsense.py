"""Whatever a request holds, an endpoint answers or refuses it, and the ledger stays balanced."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import EngineRejected, EngineSettings, PositionMode
from module.simulator.venue import Call
from module.simulator.wire.bitget_auth import ApiKey
from module.simulator.wire.bitget_codes import WireError
from module.simulator.wire.bitget_params import Params
from module.simulator.wire.bitget_table import ENDPOINTS
from tests.fakes.scripted_market import START_MS, ScriptedMarket

pytestmark = pytest.mark.timeout(120)
ROUNDS = 6_000
ANYTHING: tuple[object, ...] = (
    None, "", "0", "-1", "1", "0.01", "5", "49000", "50000", "51000", "1e11", "99999999999",
    "0.0000000001", "1e-30", "1e30", "NaN", "Infinity", True, 3, Decimal("0.02"), [], {}, "x" * 60,
    "buy", "sell", "long", "short", "limit", "market", "open", "close", "YES", "no", "all", "tpsl",
    "isolated", "crossed", "hedge_mode", "one_way_mode", "pos_loss", "profit_plan", "moving_plan",
    "normal_plan", "track_plan", "profit_loss", "mark_price", "fill_price", "ioc", "post_only",
    "cancel_both", "spot", "usdt_futures", "USDT", "total", "multiple", "my-id", "1750000020000",
)  # fmt: skip
_WORDS = (
    "side orderType size price force tradeSide reduceOnly marginMode clientOid stpMode leverage "
    "longLeverage shortLeverage holdSide amount posMode assetMode orderId planType triggerPrice "
    "triggerType executePrice rangeRate callbackRatio newSize newPrice newClientOid tpslType "
    "presetStopLossPrice presetStopSurplusPrice presetTakeProfitPrice stopLossTriggerPrice "
    "stopSurplusTriggerPrice newTriggerPrice fromType toType coin startTime endTime limit "
    "idLessThan planOrderId batchMode productType symbol newStopLossTriggerPrice"
)
WORDS = _WORDS.split()
LIKELY: dict[str, tuple[object, ...]] = {
    "side": ("buy", "sell"),
    "orderType": ("limit", "market"),
    "size": ("0.01", "0.05", "100"),
    "price": ("49000", "50500"),
    "triggerPrice": ("49000", "51000"),
    "executePrice": ("49000", "51000", "0"),
    "holdSide": ("buy", "sell", "long", "short"),
    "planType": ("pos_loss", "profit_plan", "moving_plan", "normal_plan", "total"),
    "rangeRate": ("1", "2.5"),
    "amount": ("10", "-3", "250"),
    "fromType": ("spot", "usdt_futures"),
    "toType": ("usdt_futures", "spot"),
}


def request_words(chance: random.Random) -> dict[str, object]:
    words: dict[str, object] = {
        "symbol": chance.choice(["BTCUSDT", "ethusdt"]),
        "productType": "USDT-FUTURES",
        "coin": "USDT",
    }
    words.update({name: chance.choice(values) for name, values in LIKELY.items()})
    for name in chance.sample(WORDS, chance.randrange(4)):
        words[name] = chance.choice(ANYTHING)
    for name in chance.sample(sorted(LIKELY), chance.randrange(4)):
        words.pop(name, None)
    if chance.random() < 0.2:
        inner = {name: words[name] for name in words if chance.random() < 0.8}
        words["orderList"] = words["orderIdList"] = [inner, {}]
    return words


@pytest.mark.parametrize("mode", list(PositionMode))
@pytest.mark.parametrize("seed", [11, 12])
def test_no_request_breaks_the_exchange(mode: PositionMode, seed: int) -> None:
    chance = random.Random(seed)
    market = ScriptedMarket()
    for minute in range(1, 400):
        level = 50_000 + chance.randrange(-1500, 1500)
        market.flat_from("BTCUSDT", minute, str(level))
    engine = Engine(market, EngineSettings(), START_MS)
    spot = {"USDT": Decimal(100_000), "BTC": Decimal(1)}
    engine.open_account("10000001", futures_usdt=Decimal(100_000), spot=spot, position_mode=mode)
    key = ApiKey("key", "secret", "pass", "10000001", "paper", ("coow",))
    private = [row for row in ENDPOINTS.values() if row.authority is not None]
    done = 0
    for _ in range(ROUNDS // 4):
        endpoint = chance.choice(private)
        try:
            endpoint.handler(Call(engine, "10000001", Params(request_words(chance)), key))
            done += 1
        except (WireError, EngineRejected):
            pass
        engine.advance_to(engine.now_ms + chance.choice([0, 60, 1000, 5000]))
        assert all(balance.available >= 0 for balance in engine.spot_balances("10000001"))
    engine.ledger.audit()
    assert done > ROUNDS // 20
