"""Every kind of request that unmodified ccxt sends, answered out of the exchange's state.

One account trades (a position with stops, a resting order, trigger orders, a finished position,
paid funding, spot holdings); the reads look at it through ccxt and compare with the judge's view.
The writes are in `test_every_ccxt_write`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from module.clock import WorldClock
from tests.fakes.paper_exchange import SimulatorProcess, ccxt_client

pytestmark = pytest.mark.timeout(120)
BTC, ETH, SOL, PAIR = "BTC/USDT:USDT", "ETH/USDT:USDT", "SOL/USDT:USDT", "BTC/USDT"
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
STOPS = {"trigger": True, "planType": "profit_loss"}
TRIGGERS = {"trigger": True, "planType": "normal_plan"}
endpoint = pytest.mark.endpoint


@dataclass(frozen=True)
class Shop:
    """A ccxt client of an account that has traded, and who knows the truth about it."""

    ccxt: Any
    simulator: SimulatorProcess
    clock: WorldClock
    number: int
    last: float
    stop_id: str

    def judge(self) -> dict[str, Any]:
        """The account as the exchange itself has it."""
        return self.simulator.account(self.number)

    def now(self) -> int:
        """World time, ms."""
        return int(self.ccxt.fetch_time())


@pytest.fixture(scope="module")
def shop(simulator: SimulatorProcess) -> Iterator[Shop]:
    words = {
        "api_key": "key-900",
        "api_secret": "secret-900",
        "passphrase": "pass-900",
        "futures_usdt": "100000",
        "spot": {"USDT": "50000"},
    }
    simulator.control("POST", "accounts", words)
    with simulator.clock("shop") as clock:
        client = ccxt_client(simulator.url, "key-900", 900)
        client.load_markets()
        stop_id, last = _trade(client, clock)
        yield Shop(client, simulator, clock, 900, last, stop_id)


def _trade(client: Any, clock: WorldClock) -> tuple[str, float]:
    last = float(round(client.fetch_ticker(BTC)["last"], -3))  # ccxt sends triggers unrounded
    stops = {
        "stopLoss": {"triggerPrice": last * 0.5},
        "takeProfit": {"triggerPrice": last * 2},
        "clientOrderId": "shop-open",
    }
    client.create_order(BTC, "market", "buy", 0.1, None, stops)
    client.create_order(ETH, "market", "sell", 1)
    client.create_order(BTC, "limit", "buy", 0.02, last * 0.96, {"clientOrderId": "shop-rest"})
    client.create_order(BTC, "market", "buy", 0.01, None, {"triggerPrice": last * 1.9})
    client.create_order(PAIR, "market", "buy", 1000, None, {"cost": 1000})
    client.create_order(PAIR, "limit", "buy", 0.01, last * 0.96)
    clock.sleep(1)
    client.close_position(ETH)
    rate = client.fetch_funding_rate(BTC)
    clock.sleep((rate["fundingTimestamp"] - client.fetch_time()) / 1000 + 1)
    (position,) = client.fetch_positions([BTC])
    return position["info"]["stopLossId"], last


@pytest.fixture(autouse=True)
def fresh_second(request: pytest.FixtureRequest) -> None:
    """Request limits count per second of the world."""
    if "shop" in request.fixturenames:
        request.getfixturevalue("shop").clock.sleep(1)


# -- market data ------------------------------------------------------------------------------


@endpoint("GET /api/v2/mix/market/contracts", "load_markets: the six product types")
@endpoint("GET /api/v2/spot/public/symbols", "load_markets")
@endpoint("GET /api/v2/spot/public/coins", "load_markets")
@endpoint("GET /api/v2/margin/currencies", "load_markets: empty")
def test_load_markets_with_and_without_credentials_and_for_swaps_alone(shop: Shop) -> None:
    symbols = set(shop.ccxt.markets)
    assert {BTC, ETH, SOL, PAIR} <= symbols
    assert shop.ccxt.options["uta"] is False  # the probe of the unified account was refused
    for changed in ({"apiKey": None}, {"options": {"fetchMarkets": {"types": ["swap"]}}}):
        other = ccxt_client(shop.simulator.url, "key-900", 900)
        other.deep_extend(other.options, changed.get("options", {}))
        other.options = other.deep_extend(other.options, changed.get("options", {}))
        other.apiKey = changed.get("apiKey", other.apiKey)
        shop.clock.sleep(1)
        assert BTC in other.load_markets()
        assert (PAIR in other.markets) == ("apiKey" in changed)


@endpoint("GET /api/v2/public/time", "fetch_time is world time")
def test_fetch_time(shop: Shop) -> None:
    assert shop.ccxt.fetch_time() == shop.simulator.control("GET", "clock")["now_ms"]


@endpoint("GET /api/v2/mix/market/ticker", "fetch_ticker")
@endpoint("GET /api/v2/mix/market/tickers", "fetch_tickers, fetch_funding_rates")
@endpoint("GET /api/v2/spot/market/tickers", "fetch_tickers spot")
@endpoint("GET /api/v2/mix/market/symbol-price", "fetch_mark_price")
def test_tickers_agree_with_each_other(shop: Shop) -> None:
    one = shop.ccxt.fetch_ticker(BTC)
    assert one["bid"] < one["ask"]
    assert one["low"] <= one["last"] <= one["high"]
    many = shop.ccxt.fetch_tickers()
    assert many[BTC]["last"] == one["last"]
    assert set(shop.ccxt.fetch_tickers([BTC, ETH])) == {BTC, ETH}
    assert shop.ccxt.fetch_tickers([PAIR])[PAIR]["last"] == one["last"]
    assert shop.ccxt.fetch_mark_price(BTC)["markPrice"] == float(one["info"]["markPrice"])
    rates = shop.ccxt.fetch_funding_rates()
    assert rates[BTC]["fundingRate"] == shop.ccxt.fetch_funding_rate(BTC)["fundingRate"]


@endpoint("GET /api/v2/mix/market/merge-depth", "fetch_order_book")
@endpoint("GET /api/v2/spot/market/orderbook", "fetch_order_book spot")
def test_books_stand_around_the_price(shop: Shop) -> None:
    for symbol in (BTC, PAIR):
        book = shop.ccxt.fetch_order_book(symbol, 5)
        assert len(book["bids"]) == len(book["asks"]) == 5
        assert book["bids"][0][0] < shop.ccxt.fetch_ticker(symbol)["last"] < book["asks"][0][0]


@endpoint("GET /api/v2/mix/market/fills-history", "fetch_trades")
@endpoint("GET /api/v2/spot/market/fills-history", "fetch_trades spot")
def test_public_trades_lie_inside_their_candles(shop: Shop) -> None:
    for symbol in (BTC, PAIR):
        bars = {bar[0]: bar for bar in shop.ccxt.fetch_ohlcv(symbol, "1m", limit=20)}
        trades = shop.ccxt.fetch_trades(symbol, limit=12)
        assert len({trade["id"] for trade in trades}) == 12
        for trade in trades:
            bar = bars[trade["timestamp"] - trade["timestamp"] % 60_000]
            assert bar[3] <= trade["price"] <= bar[2]


@pytest.mark.parametrize(
    ("symbol", "timeframe", "length_ms"),
    [
        pytest.param(
            BTC, "1h", HOUR_MS, marks=endpoint("GET /api/v2/mix/market/candles", "fetch_ohlcv 1h")
        ),
        pytest.param(BTC, "5m", 300_000),
        pytest.param(BTC, "1d", DAY_MS),
        pytest.param(BTC, "1w", 7 * DAY_MS),
        pytest.param(
            PAIR, "1h", HOUR_MS, marks=endpoint("GET /api/v2/spot/market/candles", "fetch_ohlcv 1h")
        ),
    ],
)
def test_recent_candles_end_with_the_forming_one(
    shop: Shop, symbol: str, timeframe: str, length_ms: int
) -> None:
    bars = shop.ccxt.fetch_ohlcv(symbol, timeframe, limit=3)
    now = shop.now()
    assert [bar[0] - bars[0][0] for bar in bars] == [0, length_ms, 2 * length_ms]
    assert bars[-1][0] <= now < bars[-1][0] + length_ms


@endpoint("GET /api/v2/mix/market/candles", "fetch_ohlcv since, until, no limit, mark, 1M")
@endpoint("GET /api/v2/mix/market/history-candles", "fetch_ohlcv of 200 days ago")
@endpoint("GET /api/v2/mix/market/history-mark-candles", "fetch_ohlcv mark of 200 days ago")
@endpoint("GET /api/v2/mix/market/history-index-candles", "fetch_ohlcv index of 200 days ago")
@endpoint("GET /api/v2/spot/market/history-candles", "fetch_ohlcv of 200 days ago")
def test_candles_of_any_range(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch, now = shop.ccxt.fetch_ohlcv, shop.now()
    since = now - 20 * HOUR_MS
    # ccxt decides by its clock which endpoint to ask; the world is elsewhere in time.
    monkeypatch.setattr(shop.ccxt, "milliseconds", lambda: now)
    recent = fetch(BTC, "1h", since, 10)
    assert len(recent) == 10
    assert since <= recent[0][0] < since + HOUR_MS
    until = fetch(BTC, "5m", None, 50, {"until": now - DAY_MS})
    assert len(until) == 50
    assert until[-1][0] < now - DAY_MS
    assert len(fetch(BTC, "1h")) == 1000
    days = fetch(BTC, "1d", now - 400 * DAY_MS, 1000)
    assert all(bar[0] % DAY_MS == 0 for bar in days)
    shop.clock.sleep(1)
    long_ago = now - 200 * DAY_MS
    for symbol, price in ((BTC, None), (BTC, "mark"), (BTC, "index"), (PAIR, None)):
        old = fetch(symbol, "1h", long_ago, 100, {"price": price} if price else {})
        assert len(old) == 100
        assert abs(old[0][0] - long_ago) <= 100 * HOUR_MS
    months = fetch(BTC, "1M", None, 4)
    assert [shop.ccxt.iso8601(bar[0])[8:19] for bar in months] == ["01T00:00:00"] * 4
    mark = fetch(BTC, "1h", None, 5, {"price": "mark"})
    assert len(mark) == 5
    assert mark[-1][5] == 0
    pages = fetch(BTC, "1h", now - 40 * HOUR_MS, 20, {"paginate": True, "paginationCalls": 3})
    assert [bar[0] for bar in pages] == sorted({bar[0] for bar in pages})


@endpoint("GET /api/v2/mix/market/current-fund-rate", "fetch_funding_rate, fetch_funding_interval")
@endpoint("GET /api/v2/mix/market/history-fund-rate", "fetch_funding_rate_history")
@endpoint("GET /api/v2/mix/account/bill", "fetch_funding_history, fetch_ledger")
def test_funding_was_paid_at_the_rate_that_the_history_tells(shop: Shop) -> None:
    history = shop.ccxt.fetch_funding_rate_history(BTC, limit=10)
    assert len(history) == 10
    newest = history[-1]
    (paid,) = shop.ccxt.fetch_funding_history(BTC, limit=10)
    assert paid["timestamp"] == newest["timestamp"]
    assert (paid["amount"] < 0) == (newest["fundingRate"] > 0)
    assert shop.ccxt.fetch_funding_rate(BTC)["fundingTimestamp"] > newest["timestamp"]
    assert shop.ccxt.fetch_funding_interval(BTC)["interval"] == "8h"
    entries = shop.ccxt.fetch_ledger("USDT", limit=100)
    total = sum(
        Decimal(entry["info"]["amount"]) + Decimal(entry["info"]["fee"]) for entry in entries
    )
    assert total == Decimal(shop.judge()["wallet"])


@endpoint("GET /api/v2/mix/market/open-interest", "fetch_open_interest: what all accounts hold")
def test_open_interest_is_what_is_held(shop: Shop) -> None:
    assert shop.ccxt.fetch_open_interest(BTC)["openInterestAmount"] >= 0.1
    assert shop.ccxt.fetch_open_interest(SOL)["openInterestAmount"] == 0
    assert float(shop.ccxt.fetch_ticker(BTC)["info"]["holdingAmount"]) >= 0.1


@endpoint("GET /api/v2/mix/market/query-position-lever", "fetch_market_leverage_tiers")
@endpoint("GET /api/v2/common/trade-rate", "fetch_trading_fee")
def test_tiers_and_fees(shop: Shop) -> None:
    tiers = shop.ccxt.fetch_market_leverage_tiers(BTC)
    assert (tiers[0]["minNotional"], tiers[0]["maxLeverage"]) == (0, 125)
    assert all(low["maxNotional"] == high["minNotional"] for low, high in pairwise(tiers))
    assert shop.ccxt.fetch_trading_fee(BTC)["taker"] == 0.0006
    assert shop.ccxt.fetch_trading_fee(PAIR)["taker"] == 0.001


# -- the account ------------------------------------------------------------------------------


@endpoint("GET /api/v2/mix/account/accounts", "fetch_balance swap")
@endpoint("GET /api/v2/spot/account/assets", "fetch_balance spot")
def test_balances(shop: Shop) -> None:
    swap = shop.ccxt.fetch_balance({"type": "swap"})["USDT"]
    (row,) = shop.ccxt.fetch_balance({"type": "swap"})["info"]
    assert swap["total"] == float(row["accountEquity"])
    assert 0 < swap["free"] < swap["total"]
    unrealized = Decimal(row["unrealizedPL"])
    assert Decimal(row["accountEquity"]) - unrealized == Decimal(shop.judge()["wallet"])
    spot = shop.ccxt.fetch_balance({"type": "spot"})
    assert spot["BTC"]["free"] > 0
    assert spot["USDT"]["used"] == pytest.approx(0.01 * shop.last * 0.96, rel=1e-3)


@endpoint("GET /api/v2/mix/position/all-position", "fetch_positions")
@endpoint("GET /api/v2/mix/position/single-position", "fetch_position")
@endpoint("GET /api/v2/mix/position/history-position", "fetch_positions_history without a type")
def test_positions(shop: Shop) -> None:
    (position,) = shop.ccxt.fetch_positions()
    assert shop.ccxt.fetch_positions([BTC])[0]["contracts"] == position["contracts"] == 0.1
    single = shop.ccxt.fetch_position(BTC)
    assert (single["side"], single["marginMode"], single["hedged"]) == ("long", "cross", False)
    profit = (single["markPrice"] - single["entryPrice"]) * 0.1
    assert single["unrealizedPnl"] == pytest.approx(profit)
    assert single["info"]["stopLossId"] == shop.stop_id
    (closed,) = shop.ccxt.fetch_positions_history([ETH], None, 20)
    assert (closed["side"], closed["contracts"]) == ("short", 1.0)
    assert len(shop.ccxt.fetch_positions_history()) == 1


@endpoint("GET /api/v2/mix/account/account", "fetch_leverage, fetch_margin_mode")
def test_settings(shop: Shop) -> None:
    leverage = shop.ccxt.fetch_leverage(BTC)
    assert leverage["longLeverage"] == leverage["shortLeverage"] == 20
    assert shop.ccxt.fetch_margin_mode(BTC)["marginMode"] == "cross"


# -- orders that are there --------------------------------------------------------------------


@endpoint("GET /api/v2/mix/order/detail", "fetch_order by id and by client id")
@endpoint("GET /api/v2/mix/order/orders-pending", "fetch_open_orders")
@endpoint("GET /api/v2/mix/order/orders-history", "fetch_closed_orders")
@endpoint("GET /api/v2/mix/order/fills", "fetch_my_trades")
def test_orders_and_their_fills(shop: Shop) -> None:
    opened = shop.ccxt.fetch_order(None, BTC, {"clientOrderId": "shop-open"})
    assert shop.ccxt.fetch_order(opened["id"], BTC)["filled"] == 0.1
    assert (opened["status"], opened["side"], opened["remaining"]) == ("closed", "buy", 0)
    (resting,) = shop.ccxt.fetch_open_orders(BTC)
    assert resting["clientOrderId"] == "shop-rest"
    assert len(shop.ccxt.fetch_open_orders()) == 1
    assert opened["id"] in {row["id"] for row in shop.ccxt.fetch_closed_orders(BTC, None, 10)}
    (trade,) = shop.ccxt.fetch_my_trades(BTC, None, 10)
    assert (trade["order"], trade["takerOrMaker"]) == (opened["id"], "taker")
    assert trade["fee"]["cost"] == opened["fee"]["cost"] > 0
    cost = Decimal(str(trade["cost"]))
    assert Decimal(str(trade["fee"]["cost"])) == pytest.approx(cost * Decimal("0.0006"))


@endpoint("GET /api/v2/mix/order/orders-plan-pending", "fetch_open_orders: stops and triggers")
@endpoint("GET /api/v2/mix/order/orders-plan-history", "fetch_canceled_and_closed_orders: stops")
def test_stops_and_trigger_orders(shop: Shop) -> None:
    stops = shop.ccxt.fetch_open_orders(BTC, params=STOPS)
    assert {row["info"]["planType"] for row in stops} == {"pos_loss", "pos_profit"}
    assert shop.stop_id in {row["id"] for row in stops}
    (trigger,) = shop.ccxt.fetch_open_orders(BTC, params=TRIGGERS)
    assert trigger["triggerPrice"] == pytest.approx(shop.last * 1.9, rel=1e-4)
    assert shop.ccxt.fetch_canceled_and_closed_orders(BTC, params=STOPS) == []


@endpoint("GET /api/v2/spot/trade/orderInfo", "fetch_order")
@endpoint("GET /api/v2/spot/trade/fills", "fetch_my_trades")
@endpoint("GET /api/v2/spot/trade/unfilled-orders", "fetch_open_orders")
@endpoint("GET /api/v2/spot/trade/history-orders", "fetch_closed_orders")
def test_spot_orders(shop: Shop) -> None:
    (trade,) = shop.ccxt.fetch_my_trades(PAIR)
    order = shop.ccxt.fetch_order(trade["order"], PAIR)
    assert (order["status"], order["fee"]["currency"]) == ("closed", "BTC")
    assert trade["fee"]["cost"] == pytest.approx(trade["amount"] * 0.001, rel=1e-3)
    (resting,) = shop.ccxt.fetch_open_orders(PAIR)
    assert (resting["side"], resting["amount"]) == ("buy", 0.01)
    assert [row["id"] for row in shop.ccxt.fetch_closed_orders(PAIR)] == [order["id"]]


def test_a_wrong_secret_and_a_too_small_size_raise_what_they_raise_at_the_exchange(
    shop: Shop,
) -> None:
    import ccxt

    other = ccxt_client(shop.simulator.url, "key-900", 900)
    other.load_markets()
    other.secret = "wrong"
    with pytest.raises(ccxt.AuthenticationError, match="40009"):
        other.fetch_balance()
    with pytest.raises(ccxt.InvalidOrder):
        shop.ccxt.create_order(BTC, "market", "buy", 0.00001)
    mixed = [{"symbol": name, "type": "market", "side": "buy", "amount": 1} for name in (BTC, ETH)]
    with pytest.raises(ccxt.BadRequest):
        shop.ccxt.create_orders(mixed)
