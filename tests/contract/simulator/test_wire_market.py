"""Public market data and the general rules of the wire, read raw."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
import urllib3

from module.clock import WorldClock, to_epoch_ms
from tests.fakes.paper_exchange import MIX, SPOT, USDT, RawBitget, SimulatorProcess, market_order

pytestmark = pytest.mark.timeout(60)
endpoint = pytest.mark.endpoint
MARKET, SPOT_MARKET = f"{MIX}/market", f"{SPOT}/market"
BTC = {"symbol": "BTCUSDT", **USDT}
PAIR = {"symbol": "BTCUSDT"}
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


def opens(rows: list[list[str]]) -> list[int]:
    return [int(row[0]) for row in rows]


# -- candles ----------------------------------------------------------------------------------


def day_of(granularity: str, open_ms: int) -> tuple[str, int]:
    """Weekday and hour of an open."""
    when = datetime.fromtimestamp(open_ms / 1000, UTC)
    return when.strftime("%a"), when.hour


@endpoint(f"GET {MARKET}/candles", "every granularity: lengths, opens, the forming bar last")
@pytest.mark.parametrize(
    ("granularity", "length_ms"),
    [
        ("1m", MINUTE_MS),
        ("3m", 3 * MINUTE_MS),
        ("5m", 5 * MINUTE_MS),
        ("15m", 15 * MINUTE_MS),
        ("30m", 30 * MINUTE_MS),
        ("1H", HOUR_MS),
        ("2H", 2 * HOUR_MS),
        ("4H", 4 * HOUR_MS),
        ("6H", 6 * HOUR_MS),
        ("12H", 12 * HOUR_MS),
        ("1D", DAY_MS),
        ("3D", 3 * DAY_MS),
        ("1W", 7 * DAY_MS),
        ("6Hutc", 6 * HOUR_MS),
        ("12Hutc", 12 * HOUR_MS),
        ("1Dutc", DAY_MS),
        ("3Dutc", 3 * DAY_MS),
        ("1Wutc", 7 * DAY_MS),
    ],
)
def test_candles_of_every_length(
    raw: RawBitget, clock: WorldClock, granularity: str, length_ms: int
) -> None:
    rows = raw.get(f"{MARKET}/candles", **BTC, granularity=granularity, limit=4)
    times = opens(rows)
    assert [later - earlier for earlier, later in pairwise(times)] == [length_ms] * 3
    now_ms = to_epoch_ms(clock.now())
    assert times[-1] <= now_ms < times[-1] + length_ms
    assert all(len(row) == 7 and all(isinstance(text, str) for text in row) for row in rows)
    closed = raw.get(f"{MARKET}/history-candles", **BTC, granularity=granularity, limit=3)
    assert closed == rows[:-1]
    if length_ms >= DAY_MS:
        weekday, hour = day_of(granularity, times[0])
        assert hour == (0 if granularity.endswith("utc") else 16)
        if length_ms == 7 * DAY_MS:
            assert weekday == ("Mon" if granularity.endswith("utc") else "Sun")


@endpoint(f"GET {MARKET}/candles", "1M, 1Mutc: calendar months")
@endpoint(f"GET {SPOT_MARKET}/candles", "1M, 1Mutc: calendar months")
def test_months_are_calendar_months(raw: RawBitget, clock: WorldClock) -> None:
    utc: list[int] = []
    for name, words in ((f"{MARKET}/candles", BTC), (f"{SPOT_MARKET}/candles", PAIR)):
        utc = opens(raw.get(name, **words, granularity="1Mutc", limit=3))
        firsts = [datetime.fromtimestamp(open_ms / 1000, UTC) for open_ms in utc]
        assert all((first.day, first.hour) == (1, 0) for first in firsts)
        assert len(utc) == 3
        china = opens(raw.get(name, **words, granularity="1M", limit=3))
        assert china == [open_ms - 8 * HOUR_MS for open_ms in utc]
        clock.sleep(1)
    (month,) = raw.get(
        f"{MARKET}/history-candles", **BTC, granularity="1Mutc", limit=1, endTime=utc[-1]
    )
    days = raw.get(
        f"{MARKET}/history-candles",
        **BTC,
        granularity="1Dutc",
        limit=31,
        startTime=utc[-2],
        endTime=utc[-1],
    )
    assert Decimal(month[2]) == max(Decimal(day[2]) for day in days)
    assert (month[1], month[4]) == (days[0][1], days[-1][4])


@endpoint(f"GET {MARKET}/candles", "only start, only end, neither, both; aligned at the end")
def test_which_bars_a_range_means(raw: RawBitget, clock: WorldClock) -> None:
    now_ms = to_epoch_ms(clock.now())
    hour_ms = now_ms - now_ms % HOUR_MS

    def ask(**more: object) -> list[int]:
        return opens(raw.get(f"{MARKET}/candles", **BTC, granularity="1H", **more))

    assert ask(limit=2) == [hour_ms - HOUR_MS, hour_ms]
    start_ms = hour_ms - 5 * HOUR_MS
    assert ask(startTime=start_ms) == [start_ms + step * HOUR_MS for step in range(6)]
    assert ask(startTime=start_ms + 1)[0] == start_ms + HOUR_MS
    assert ask(endTime=start_ms, limit=2) == [start_ms - 2 * HOUR_MS, start_ms - HOUR_MS]
    assert ask(startTime=start_ms, endTime=start_ms + 3 * HOUR_MS) == [
        start_ms + step * HOUR_MS for step in range(3)
    ]
    assert ask(startTime=start_ms, endTime=hour_ms, limit=2) == [
        hour_ms - 2 * HOUR_MS,
        hour_ms - HOUR_MS,
    ]
    assert len(ask()) == 100
    assert ask(startTime=now_ms + DAY_MS) == []
    reach_ms = now_ms - 83 * DAY_MS
    assert ask(endTime=reach_ms) == []  # older hours are in the history
    old = raw.get(f"{MARKET}/history-candles", **BTC, granularity="1H", endTime=reach_ms)
    assert len(old) == 100


CANDLES = f"GET {MARKET}/candles"
HISTORY = f"GET {MARKET}/history-candles"


@pytest.mark.parametrize(
    ("route", "change", "code"),
    [
        pytest.param(route, change, code, marks=endpoint(route, f"refused: {words}"))
        for route, change, code, words in [
            (CANDLES, {"granularity": "7m"}, "400172", "an unknown granularity"),
            (CANDLES, {"granularity": ""}, "40019", "no granularity"),
            (CANDLES, {"limit": 1001}, "40053", "limit above 1000"),
            (CANDLES, {"limit": 0}, "40053", "limit 0"),
            (CANDLES, {"startTime": 2, "endTime": 1}, "40017", "start after end"),
            (CANDLES, {"startTime": 0, "endTime": 91 * DAY_MS}, "00001", "more than 90 days"),
            (CANDLES, {"kLineType": "LAST"}, "400172", "an unknown kLineType"),
            (CANDLES, {"symbol": "NOUSDT"}, "40034", "an unknown symbol"),
            (CANDLES, {"productType": "FUTURES"}, "400172", "an unknown productType"),
            (HISTORY, {"limit": 201}, "40053", "limit above 200"),
        ]
    ],
)
def test_a_wrong_range_has_its_code(
    raw: RawBitget, route: str, change: dict[str, object], code: str
) -> None:
    method, path = route.split()
    assert raw.code(method, path, **{**BTC, "granularity": "1H", **change}) == code
    assert raw.status == 400


@endpoint(f"GET {MARKET}/history-mark-candles", "without volume, near the last price")
@endpoint(f"GET {MARKET}/history-index-candles", "without volume, near the last price")
@endpoint(f"GET {MARKET}/candles", "kLineType in any case")
def test_mark_and_index_are_prices_of_their_own(raw: RawBitget) -> None:
    last = raw.get(f"{MARKET}/history-candles", **BTC, granularity="1H", limit=5)
    for kind in ("mark", "index"):
        rows = raw.get(f"{MARKET}/history-{kind}-candles", **BTC, granularity="1H", limit=5)
        assert opens(rows) == opens(last)
        assert {row[5] for row in rows} == {"0"}
        for row, traded in zip(rows, last, strict=True):
            assert Decimal(row[4]) == pytest.approx(Decimal(traded[4]), rel=Decimal("0.05"))
        same = raw.get(f"{MARKET}/candles", **BTC, granularity="1H", limit=6, kLineType=kind)
        assert same[:-1] == rows


@endpoint(f"GET {SPOT_MARKET}/candles", "every granularity, eight strings")
@endpoint(f"GET {SPOT_MARKET}/history-candles", "endTime is needed and is not included")
def test_spot_candles_have_names_and_a_column_of_their_own(
    raw: RawBitget, clock: WorldClock
) -> None:
    names = "1min 3min 5min 15min 30min 1h 4h 6h 12h 1day 3day 1week 1M 6Hutc 12Hutc 1Dutc"
    for name in (*names.split(), "3Dutc", "1Wutc", "1Mutc"):
        (row,) = raw.get(f"{SPOT_MARKET}/candles", **PAIR, granularity=name, limit=1)
        assert len(row) == 8
    clock.sleep(1)
    path = f"{SPOT_MARKET}/history-candles"
    assert raw.code("GET", path, **PAIR, granularity="1h") == "40019"
    assert raw.code("GET", path, **PAIR, granularity="1H", endTime=1) == "400172"
    end_ms = to_epoch_ms(clock.now()) // HOUR_MS * HOUR_MS
    rows = raw.get(path, **PAIR, granularity="1h", endTime=end_ms, limit=200)
    assert (len(rows), opens(rows)[-1]) == (200, end_ms - HOUR_MS)


# -- prices, depth, trades --------------------------------------------------------------------


@endpoint(f"GET {MARKET}/ticker", "a list of one, null delivery times")
@endpoint(f"GET {MARKET}/tickers", "every contract; other product types have none")
@endpoint(f"GET {MARKET}/symbol-price", "last, index, mark")
def test_tickers(raw: RawBitget) -> None:
    (row,) = raw.get(f"{MARKET}/ticker", **BTC)
    assert (row["deliveryStartTime"], row["deliveryTime"], row["deliveryStatus"]) == (
        None,
        None,
        "",
    )
    rows = {each["symbol"]: each for each in raw.get(f"{MARKET}/tickers", **USDT)}
    assert rows["BTCUSDT"] == row
    assert raw.get(f"{MARKET}/tickers", productType="usdc-futures") == []
    (price,) = raw.get(f"{MARKET}/symbol-price", **BTC)
    assert (price["price"], price["markPrice"], price["indexPrice"]) == (
        row["lastPr"],
        row["markPrice"],
        row["indexPrice"],
    )
    assert raw.code("GET", f"{MARKET}/ticker", **{**BTC, "symbol": "NOUSDT"}) == "40034"


@endpoint(f"GET {SPOT_MARKET}/tickers", "one, all, unknown")
def test_spot_tickers(raw: RawBitget) -> None:
    (row,) = raw.get(f"{SPOT_MARKET}/tickers", **PAIR)
    assert row in raw.get(f"{SPOT_MARKET}/tickers")
    assert raw.code("GET", f"{SPOT_MARKET}/tickers", symbol="NOUSDT") == "40034"


@endpoint(f"GET {MARKET}/merge-depth", "scale0 to scale3, limits, JSON numbers")
@endpoint(f"GET {SPOT_MARKET}/merge-depth", "scale0 to scale3, limits")
def test_depth_is_merged_on_ever_coarser_steps(raw: RawBitget, clock: WorldClock) -> None:
    for path, words in ((f"{MARKET}/merge-depth", BTC), (f"{SPOT_MARKET}/merge-depth", PAIR)):
        whole = raw.get(path, **words, limit="max")
        assert set(whole) == {"asks", "bids", "ts", "scale", "precision", "isMaxPrecision"}
        total = sum(Decimal(str(size)) for _, size in whole["bids"])
        for power, scale in enumerate(("scale0", "scale1", "scale2", "scale3")):
            book = raw.get(path, **words, limit="max", precision=scale)
            step = Decimal("0.1").scaleb(power)
            assert (Decimal(book["scale"]), book["precision"]) == (step, scale)
            prices = [Decimal(str(price)) for price, _ in book["asks"]]
            assert all(price % step == 0 for price in prices)
            assert prices == sorted(set(prices))
            assert sum(Decimal(str(size)) for _, size in book["bids"]) == total
        assert [len(raw.get(path, **words, limit=limit)["asks"]) for limit in (1, 5, 15, 50)] == [
            1,
            5,
            15,
            50,
        ]
        assert raw.code("GET", path, **words, precision="scale9") == "400172"
        clock.sleep(1)


@endpoint(f"GET {SPOT_MARKET}/orderbook", "strings, steps")
def test_the_spot_book_is_strings(raw: RawBitget) -> None:
    book = raw.get(f"{SPOT_MARKET}/orderbook", **PAIR, type="step2", limit=5)
    assert len(book["asks"]) <= 5
    assert all(Decimal(price) % 10 == 0 for price, _ in book["asks"])
    assert raw.code("GET", f"{SPOT_MARKET}/orderbook", **PAIR, type="fine") == "400172"


@endpoint(f"GET {MARKET}/fills", "the latest trades, newest first")
@endpoint(f"GET {MARKET}/fills-history", "paged by idLessThan, ranges of time")
@endpoint(f"GET {SPOT_MARKET}/fills", "the latest trades")
@endpoint(f"GET {SPOT_MARKET}/fills-history", "paged by idLessThan")
def test_public_trades_are_paged_and_lie_in_their_candles(
    raw: RawBitget, clock: WorldClock
) -> None:
    now_ms = to_epoch_ms(clock.now())
    for market, words in ((MARKET, BTC), (SPOT_MARKET, PAIR)):
        latest = raw.get(f"{market}/fills", **words, limit=10)
        first = raw.get(f"{market}/fills-history", **words, limit=6)
        rest = raw.get(f"{market}/fills-history", **words, limit=4, idLessThan=first[-1]["tradeId"])
        lower = [{**row, "side": row["side"].lower()} for row in [*first, *rest]]
        assert lower == latest
        assert [int(row["tradeId"]) for row in latest] == sorted(
            {int(row["tradeId"]) for row in latest}, reverse=True
        )
        assert all(int(row["ts"]) <= now_ms for row in latest)
        hour = raw.get(
            f"{market}/fills-history",
            **words,
            limit=1000,
            startTime=now_ms - HOUR_MS,
            endTime=now_ms,
        )
        assert 230 < len(hour) <= 245


# -- funding, interest, fees, lists -----------------------------------------------------------


@endpoint(f"GET {MARKET}/current-fund-rate", "one, all, other product types")
@endpoint(f"GET {MARKET}/funding-time", "the next settlement")
@endpoint(f"GET {MARKET}/history-fund-rate", "pages, newest first")
def test_funding(raw: RawBitget) -> None:
    (rate,) = raw.get(f"{MARKET}/current-fund-rate", **BTC)
    assert rate in raw.get(f"{MARKET}/current-fund-rate", **USDT)
    assert raw.get(f"{MARKET}/current-fund-rate", productType="COIN-FUTURES") == []
    (when,) = raw.get(f"{MARKET}/funding-time", **BTC)
    assert (when["nextFundingTime"], when["ratePeriod"]) == (rate["nextUpdate"], "8")
    assert int(rate["nextUpdate"]) % (8 * HOUR_MS) == 0
    path = f"{MARKET}/history-fund-rate"
    ten = raw.get(path, **BTC, pageSize=10)
    assert raw.get(path, **BTC, pageSize=5, pageNo=2) == ten[5:]
    times = [int(row["fundingTime"]) for row in ten]
    assert times == sorted(times, reverse=True)
    assert len(raw.get(path, **BTC)) == 20


@endpoint(f"GET {MARKET}/open-interest", "grows and shrinks with the accounts' positions")
def test_open_interest_follows_the_positions(raw: RawBitget, clock: WorldClock) -> None:
    def held() -> Decimal:
        answer = raw.get(f"{MARKET}/open-interest", **BTC)
        (row,) = raw.get(f"{MARKET}/ticker", **BTC)
        (size,) = [each["size"] for each in answer["openInterestList"]]
        assert size == row["holdingAmount"]
        return Decimal(size)

    before = held()
    raw.post(f"{MIX}/order/place-order", **market_order("buy", "0.02"))
    clock.sleep(0.2)
    assert held() == before + Decimal("0.02")
    raw.post(f"{MIX}/order/close-positions", **BTC)
    clock.sleep(0.2)
    assert held() == before


@endpoint(f"GET {MARKET}/vip-fee-rate", "one level for everybody")
@endpoint(f"GET {SPOT_MARKET}/vip-fee-rate", "one level for everybody")
@endpoint("GET /api/v2/common/trade-rate", "mix, spot, unknown")
@endpoint("GET /api/v2/common/all-trade-rate", "mix, spot, unknown")
def test_fee_rates_are_those_of_the_contracts(raw: RawBitget) -> None:
    (level,) = raw.get(f"{MARKET}/vip-fee-rate")
    assert (level["takerFeeRate"], level["makerFeeRate"]) == ("0.0006", "0.0002")
    assert raw.get(f"{SPOT_MARKET}/vip-fee-rate")[0]["takerFeeRate"] == "0.001"
    for business, taker in (("mix", "0.0006"), ("spot", "0.001")):
        rates = raw.get("/api/v2/common/trade-rate", symbol="BTCUSDT", businessType=business)
        assert rates["takerFeeRate"] == taker
        every = raw.get("/api/v2/common/all-trade-rate", businessType=business)
        assert {"symbol": "BTCUSDT", **rates} in every
    for path in ("/api/v2/common/trade-rate", "/api/v2/common/all-trade-rate"):
        assert raw.code("GET", path, symbol="BTCUSDT", businessType="earn") == "400172"


@endpoint(f"GET {MARKET}/contracts", "all, one, other product types, unknown")
@endpoint(f"GET {MARKET}/query-position-lever", "tiers without gaps")
@endpoint(f"GET {SPOT}/public/symbols", "all, one, unknown")
@endpoint(f"GET {SPOT}/public/coins", "all, one")
@endpoint("GET /api/v2/margin/currencies", "an empty list")
def test_lists(raw: RawBitget) -> None:
    rows = raw.get(f"{MARKET}/contracts", **USDT)
    (row,) = raw.get(f"{MARKET}/contracts", **BTC)
    assert row in rows
    assert (row["symbolStatus"], row["supportMarginCoins"]) == ("normal", ["USDT"])
    for name in ("COIN-FUTURES", "usdc-futures", "SUSDT-FUTURES", "SCOIN-FUTURES"):
        assert raw.get(f"{MARKET}/contracts", productType=name) == []
    tiers = raw.get(f"{MARKET}/query-position-lever", **BTC)
    assert all(low["endUnit"] == high["startUnit"] for low, high in pairwise(tiers))
    (pair,) = raw.get(f"{SPOT}/public/symbols", **PAIR)
    assert pair in raw.get(f"{SPOT}/public/symbols")
    (coin,) = raw.get(f"{SPOT}/public/coins", coin="BTC")
    assert coin in raw.get(f"{SPOT}/public/coins")
    assert raw.get("/api/v2/margin/currencies") == []
    for path in (f"{MARKET}/contracts", f"{SPOT}/public/symbols"):
        assert raw.code("GET", path, **{**BTC, "symbol": "NOUSDT"}) == "40034"


# -- the wire ---------------------------------------------------------------------------------


@endpoint("GET /api/v2/public/time", "envelope, key order, header, limit")
def test_the_envelope_and_what_is_left_of_a_second(raw: RawBitget) -> None:
    answers = [raw.call("GET", "/api/v2/public/time", {}) for _ in range(20)]
    assert (raw.headers["x-mbx-used-remain-limit"], raw.status) == ("0", 200)
    assert [list(answer) for answer in answers] == [["code", "msg", "requestTime", "data"]] * 20
    assert all(type(answer["requestTime"]) is int for answer in answers)
    assert answers[0]["data"] == {"serverTime": str(answers[0]["requestTime"])}
    over = raw.call("GET", "/api/v2/public/time", {})
    assert (raw.status, over["code"], over["msg"], over["data"]) == (
        429,
        "429",
        "Too Many Requests",
        None,
    )


def test_headers_that_mean_nothing_here_are_ignored(raw: RawBitget) -> None:
    stamp = str(int(time.time() * 1000))
    path, query = f"{MIX}/account/accounts", "productType=USDT-FUTURES"
    headers = {
        **raw.signed(f"GET{path}?{query}", stamp),
        "locale": "zh-CN",
        "X-CHANNEL-API-CODE": "p4sve",
    }
    assert raw.send("GET", path, query, "", headers)["code"] == "00000"
    public = raw.send("GET", "/api/v2/public/time", "", "", {**headers, "ACCESS-SIGN": "no"})
    assert public["code"] == "00000"


def test_an_rsa_key_signs_with_its_private_half(
    simulator: SimulatorProcess, clock: WorldClock, new_number: Callable[..., int]
) -> None:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    number = new_number(api_secret=pem.decode().strip())

    def ask(message: str) -> Any:
        stamp = str(int(time.time() * 1000))
        signature = private.sign((stamp + message).encode(), padding.PKCS1v15(), hashes.SHA256())
        headers = {
            "ACCESS-KEY": f"key-{number}",
            "ACCESS-SIGN": base64.b64encode(signature).decode(),
            "ACCESS-TIMESTAMP": stamp,
            "ACCESS-PASSPHRASE": f"pass-{number}",
        }
        url = f"{simulator.url}{MIX}/account/accounts?productType=USDT-FUTURES"
        return json.loads(urllib3.request("GET", url, headers=headers).data)["code"]

    good = f"GET{MIX}/account/accounts?productType=USDT-FUTURES"
    assert ask(good) == "00000"
    assert ask(good + "&more=1") == "40009"
    hmac_client = RawBitget(simulator.url, f"key-{number}", pem.decode().strip(), f"pass-{number}")
    assert hmac_client.code("GET", f"{MIX}/account/accounts", **USDT) == "40009"
