"""What Bitget's answers prove, against a server that answers exactly what the table says."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from module.clock import to_epoch_ms
from module.exchange.bitget_codes import CODES, Verdict, verdict_of
from module.exchange.bitget_venue import CcxtVenues
from module.exchange.venue import (
    CLIENT_ID_CLASH,
    KeysRefused,
    UnifiedAccount,
    Venue,
    VenueAccess,
    answered_within,
    leaving_by,
)
from module.exchange.venue_clock import VenueClock
from module.gateway.budget import RequestBudget
from module.model.accounts import MarginMode, PositionMode, SymbolSettings, TradeEnv
from module.model.credentials import Credentials
from module.model.errors import Forbidden, NotFound, OutcomeUnknown, RateLimited, Unavailable
from module.model.market import MarketType
from module.model.orders import NOT_SENT, OrderType, Outcome, StopPrices
from tests.fakes.gateway_rig import buy
from tests.fakes.hand_clock import HandClock
from tests.fakes.scripted_exchange import (
    Scripted,
    ScriptedExchange,
    ok,
    refused,
    scripted_exchange,
)

pytestmark = pytest.mark.timeout(60)

PLACE = "/api/v2/mix/order/place-order"
BATCH = "/api/v2/mix/order/batch-place-order"
DETAIL = "/api/v2/mix/order/detail"
ACCOUNT = "/api/v2/mix/account/account"
POSITIONS = "/api/v2/mix/position/all-position"
TIME = "/api/v2/public/time"
CANARY = Credentials("canary-key-123456", "canary-secret-123456", "canary-passphrase")
MODE = {
    "marginMode": "crossed",
    "posMode": "one_way_mode",
    "crossedMarginLeverage": 3,
    "isolatedLongLever": 5,
    "isolatedShortLever": 5,
}
ORDER_ROW = {
    "symbol": "BTCUSDT",
    "size": "0.0123",
    "orderId": "99",
    "clientOid": "af-1",
    "baseVolume": "0",
    "fee": "",
    "price": "",
    "priceAvg": "",
    "state": "live",
    "side": "buy",
    "totalProfits": "",
    "reduceOnly": "NO",
    "orderSource": "normal",
    "cTime": "1795000000000",
    "uTime": "1795000000001",
}


@pytest.fixture
def exchange() -> Iterator[ScriptedExchange]:
    with scripted_exchange() as running:
        running.then(ACCOUNT, ok(MODE))
        yield running


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def venue(exchange: ScriptedExchange, clock: HandClock) -> Iterator[Venue]:
    access = VenueAccess("acc", exchange.base_url, MarketType.FUTURES, TradeEnv.PAPER, CANARY)
    gate = RequestBudget(clock).for_account(exchange.base_url, "k")
    venue = CcxtVenues(clock).open_venue("bitget", access, gate)
    yield venue
    venue.close()


def accepted(client_id: str = "af-1", order_id: str = "99") -> Scripted:
    return ok({"clientOid": client_id, "orderId": order_id})


class StandsStill(HandClock):
    """The process stands still for `for_s` when a request gets its signature."""

    for_s = 0.0

    def wall(self) -> datetime:
        found = super().wall()
        self.advance(self.for_s)
        return found


@pytest.mark.parametrize(("for_s", "leaves"), [(9.0, True), (11.0, False)])
def test_C8_what_is_signed_in_time_but_would_leave_late_does_not_leave(
    exchange: ScriptedExchange, for_s: float, leaves: bool
) -> None:
    """Asked after the signature: what stands still from here on carries a time before the deadline,
    and an exchange refuses it for its age."""
    clock = StandsStill()
    access = VenueAccess("acc", exchange.base_url, MarketType.FUTURES, TradeEnv.PAPER, CANARY)
    gate = RequestBudget(clock).for_account(exchange.base_url, "k")
    venue = CcxtVenues(clock).open_venue("bitget", access, gate)
    exchange.then(PLACE, accepted())
    venue.admit_orders([buy()])
    clock.for_s = for_s
    try:
        with leaving_by(clock.now() + timedelta(seconds=10)):
            if leaves:
                (result,) = venue.submit([buy()])
                assert result.outcome is Outcome.ACCEPTED
            else:
                with pytest.raises(Unavailable, match="nothing was sent"):
                    venue.submit([buy()])
    finally:
        venue.close()
    assert len(exchange.sent(PLACE)) == leaves


def test_an_order_is_sent_as_published_and_its_numbers_are_text(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    exchange.then(PLACE, accepted())
    order = buy(stops=StopPrices(Decimal("55000.5"), Decimal("66000.1")))
    (result,) = venue.submit([order])
    assert (result.outcome, result.order_id) == (Outcome.ACCEPTED, "99")
    assert exchange.sent(PLACE) == [
        {
            "symbol": "BTCUSDT",
            "productType": "USDT-FUTURES",
            "marginMode": "crossed",
            "marginCoin": "USDT",
            "clientOid": "af-1",
            "side": "buy",
            "orderType": "market",
            "size": "0.0123",
            "reduceOnly": "NO",
            "presetStopLossPrice": "55000.5",
            "presetStopSurplusPrice": "66000.1",
        }
    ]


def test_numbers_never_leave_with_an_exponent(exchange: ScriptedExchange, venue: Venue) -> None:
    exchange.then(PLACE, accepted())
    price, stops = Decimal("6E+4"), StopPrices(Decimal("5.5E+4"))
    order = buy(size="1E-3", order_type=OrderType.LIMIT, price=price, stops=stops)
    venue.admit_orders([order])
    venue.submit([order])
    (body,) = exchange.sent(PLACE)
    found = (body["size"], body["price"], body["presetStopLossPrice"])
    assert found == ("0.001", "60000", "55000")


def test_the_margin_mode_of_an_order_is_the_one_that_is_set(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    exchange.then(ACCOUNT, ok({**MODE, "marginMode": "isolated"}))
    exchange.then(PLACE, accepted())
    venue.submit([buy()])
    assert exchange.sent(PLACE)[0]["marginMode"] == "isolated"
    assert venue.trading_mode("BTCUSDT").settings.margin_mode is MarginMode.ISOLATED


HELD = {
    "symbol": "BTCUSDT",
    "holdSide": "long",
    "total": "0.01",
    "openPriceAvg": "60000",
    "markPrice": "60001",
    "unrealizedPL": "0.01",
    "leverage": "7",
    "marginMode": "isolated",
    "posMode": "one_way_mode",
    "assetMode": "single",
    "cTime": "1795000000000",
}


def test_A21_positions_tell_the_modes_of_what_is_held(
    exchange: ScriptedExchange, venue: Venue, clock: HandClock
) -> None:
    exchange.then(POSITIONS, ok([HELD]))
    modes = venue.trading_modes(["BTCUSDT", "ETHUSDT", "XRPUSDT"], max_age_s=30)
    assert len(exchange.sent(ACCOUNT)) == 2  # of what is flat
    held = modes["BTCUSDT"]
    assert held.settings == SymbolSettings("BTCUSDT", Decimal(7), MarginMode.ISOLATED)
    assert (held.position_mode, held.shares_collateral) == (PositionMode.ONE_WAY, False)
    assert venue.trading_modes(["BTCUSDT", "ETHUSDT"], max_age_s=30)["BTCUSDT"] == held
    assert len(exchange.sent(POSITIONS)) == 1
    clock.advance(31)
    exchange.then(POSITIONS, ok([{**HELD, "leverage": "3", "assetMode": "union"}]))
    changed = venue.trading_modes(["BTCUSDT", "ETHUSDT"], max_age_s=30)["BTCUSDT"]
    assert changed.settings.leverage == 3
    assert changed.shares_collateral


@pytest.mark.parametrize(
    "answer",
    [
        Scripted("<html>bad gateway</html>"),
        Scripted(""),
        Scripted('{"code":"00000","msg":"succ'),
        Scripted('{"code":"00000","msg":"success"}'),
        ok(None),
        ok([]),
        ok("99"),
        ok({"clientOid": "af-1"}),
        ok({"clientOid": "af-1", "orderId": ""}),
        ok({"clientOid": "AF-1", "orderId": "99"}),
        ok({"clientOid": "af-", "orderId": "99"}),
        Scripted("[1, 2]"),
        Scripted("null"),
        Scripted('{"code":"00000","data":{"clientOid":"af-1","orderId":"99"}}', status=500),
        Scripted("<html>", status=502),
        Scripted("", status=503),
        Scripted("", status=504),
        Scripted("moved", status=302, headers={"Location": "http://127.0.0.1:9/"}),
        Scripted(hang_up=True),
        Scripted('{"code":"00000",', cut=True),
        Scripted("[" * 50_000),
        refused("99999"),
        refused(""),
    ],
)
def test_A5_an_answer_that_proves_nothing_is_unknown(
    exchange: ScriptedExchange, venue: Venue, answer: Scripted
) -> None:
    exchange.then(PLACE, answer)
    (result,) = venue.submit([buy()])
    assert result.outcome is Outcome.UNKNOWN
    assert len(exchange.sent(PLACE)) == 1  # never repeated


@pytest.mark.parametrize(
    "code", ["40010", "40015", "40725", "45001", "31016", "40908", "40910", "12018"]
)
@pytest.mark.parametrize("status", [200, 400])
def test_A11_an_ambiguous_code_is_unknown(
    exchange: ScriptedExchange, venue: Venue, code: str, status: int
) -> None:
    exchange.then(PLACE, refused(code, status))
    assert venue.submit([buy()])[0].outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("code", ["40786", "40708", "43118", "45034", "50060", "25212"])
def test_A6_a_duplicate_is_looked_up_and_compared(
    exchange: ScriptedExchange, venue: Venue, code: str
) -> None:
    exchange.then(PLACE, refused(code))
    exchange.then(DETAIL, ok(ORDER_ROW))
    (same,) = venue.submit([buy()])
    (other,) = venue.submit([buy(size="0.0124")])
    exchange.then(DETAIL, refused("40109"))
    (absent,) = venue.submit([buy()])
    assert (same.outcome, same.order_id) == (Outcome.ACCEPTED, "99")
    assert (other.outcome, other.code) == (Outcome.UNKNOWN, CLIENT_ID_CLASH)
    assert absent.outcome is Outcome.UNKNOWN
    assert {body["clientOid"] for body in exchange.sent(PLACE)} == {"af-1"}


@pytest.mark.parametrize(
    "code", [code for code, verdict in CODES.items() if verdict is Verdict.REJECTED]
)
def test_I4_a_listed_refusal_is_a_proof(
    exchange: ScriptedExchange, venue: Venue, code: str
) -> None:
    exchange.then(PLACE, refused(code))
    (result,) = venue.submit([buy()])
    assert (result.outcome, result.code) == (Outcome.REJECTED, code)


def test_a_code_that_nobody_listed_proves_nothing() -> None:
    assert verdict_of("87654") is Verdict.UNKNOWN


def test_A7_every_leg_of_a_batch_is_classified_by_its_own_id(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    exchange.then(
        BATCH,
        ok(
            {
                "successList": [
                    {"orderId": "13", "clientOid": "af-3"},
                    {"orderId": "11", "clientOid": "af-1"},
                    {"orderId": "14", "clientOid": "AF-4"},
                ],
                "failureList": [
                    {"orderId": "", "clientOid": "af-2", "errorMsg": "x", "errorCode": "45110"},
                ],
            }
        ),
    )
    results = venue.submit([buy(f"af-{n}") for n in (1, 2, 3, 4, 5)])
    assert [(r.outcome, r.order_id, r.code) for r in results] == [
        (Outcome.ACCEPTED, "11", None),
        (Outcome.REJECTED, None, "45110"),
        (Outcome.ACCEPTED, "13", None),
        (Outcome.UNKNOWN, None, None),
        (Outcome.UNKNOWN, None, None),
    ]


def test_A7_a_leg_in_both_lists_is_a_clash(exchange: ScriptedExchange, venue: Venue) -> None:
    row = {"orderId": "11", "clientOid": "af-1", "errorMsg": "x", "errorCode": "45110"}
    exchange.then(BATCH, ok({"successList": [row], "failureList": [row]}))
    first, second = venue.submit([buy("af-1"), buy("af-2")])
    assert (first.outcome, first.code) == (Outcome.UNKNOWN, CLIENT_ID_CLASH)
    assert second.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("data", [None, [], {}, {"successList": "x", "failureList": None}, "ok"])
def test_0_3_a_batch_answer_of_another_shape_is_unknown_for_every_leg(
    exchange: ScriptedExchange, venue: Venue, data: object
) -> None:
    exchange.then(BATCH, ok(data))
    results = venue.submit([buy("af-1"), buy("af-2")])
    assert {result.outcome for result in results} == {Outcome.UNKNOWN}


def test_legs_of_several_symbols_go_side_by_side_and_an_unsent_one_says_so(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    exchange.then(PLACE, refused("429", 429))
    exchange.then(BATCH, ok({"successList": [], "failureList": []}))
    results = venue.submit([buy("af-1"), buy("af-2"), buy("af-3", symbol="ETHUSDT")])
    assert [(r.outcome, r.code) for r in results] == [
        (Outcome.UNKNOWN, None),
        (Outcome.UNKNOWN, None),
        (Outcome.REJECTED, NOT_SENT),
    ]


@pytest.mark.parametrize(
    ("answer", "wait_s"),
    [
        (Scripted('{"code":"429","msg":"Too Many Requests"}', 429, {"Retry-After": "7"}), 7),
        (Scripted("slow down", 429, {"Retry-After": "7"}), 7),
        (refused("429", 429), 1),
        (refused("30007", 200), 1),
        (Scripted("denied", 403), 120),
        (Scripted("banned", 418, {"Retry-After": "99"}), 99),
    ],
)
def test_A12_A13_a_stop_sign_is_obeyed_by_everything_of_the_key(
    exchange: ScriptedExchange, venue: Venue, clock: HandClock, answer: Scripted, wait_s: float
) -> None:
    venue.trading_mode("BTCUSDT")
    exchange.then(PLACE, answer)
    with pytest.raises(RateLimited) as caught:
        venue.submit([buy()])
    assert caught.value.retry_after_s == wait_s
    with pytest.raises(RateLimited):
        venue.positions()
    exchange.then(POSITIONS, ok([]))
    clock.advance(wait_s)
    assert venue.positions() == ()


def test_A13_repeated_stop_signs_without_a_time_wait_longer_and_longer(
    exchange: ScriptedExchange, venue: Venue, clock: HandClock
) -> None:
    exchange.then(POSITIONS, refused("429", 429))
    waits = []
    for _ in range(8):
        with pytest.raises(RateLimited) as caught:
            venue.positions()
        waits.append(caught.value.retry_after_s)
        clock.advance(caught.value.retry_after_s or 0)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_A14_maintenance_of_an_order_is_proven_not_to_have_happened(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    exchange.then(PLACE, refused("40200", 503))
    with pytest.raises(Unavailable):
        venue.submit([buy()])


def test_A1_who_has_little_patience_gives_a_silent_endpoint_twice_as_long_each_time(
    exchange: ScriptedExchange, venue: Venue, clock: HandClock
) -> None:
    exchange.then(POSITIONS, replace(ok([]), after_s=0.4))
    silent = 0
    with answered_within(0.05):
        for _ in range(10):
            try:
                assert venue.positions() == ()
                break
            except Unavailable:
                silent += 1
                clock.advance(5)  # there is room for the next request, and no open circuit
    assert 1 <= silent < 10
    assert venue.positions() == ()  # without hurry it is waited for


def test_A16_a_clock_that_is_set_back_does_not_shut_the_keys_out_for_longer(
    exchange: ScriptedExchange, venue: Venue, clock: HandClock
) -> None:
    exchange.then(POSITIONS, refused("40037"), ok([]))
    with pytest.raises(KeysRefused):
        venue.positions()
    with pytest.raises(KeysRefused) as caught:
        venue.positions()
    assert caught.value.again_in_s == 300
    clock.current -= timedelta(hours=1)
    assert venue.positions() == ()


@pytest.mark.parametrize("code", ["40037", "40036", "40038", "40009", "40006"])
def test_A16_refused_keys_are_tried_once_in_five_minutes(
    exchange: ScriptedExchange, venue: Venue, clock: HandClock, code: str
) -> None:
    exchange.then(POSITIONS, refused(code))
    for _ in range(50):
        with pytest.raises(Forbidden):
            venue.positions()
        clock.advance(5)
    assert len(exchange.sent(POSITIONS)) == 1
    exchange.then(POSITIONS, ok([]))
    clock.advance(60)
    assert venue.positions() == ()


def test_A23_a_clock_that_is_off_is_corrected_by_the_exchanges_own(
    exchange: ScriptedExchange, venue: Venue, clock: HandClock
) -> None:
    theirs = int(clock.wall().timestamp() * 1000) + 40_000
    exchange.then(POSITIONS, refused("40008"), ok([]))
    exchange.then(TIME, ok({"serverTime": str(theirs)}))
    with pytest.raises(Unavailable):
        venue.positions()
    assert venue.positions() == ()
    assert exchange.headers[-1]["ACCESS-TIMESTAMP"] == str(theirs)


def test_nothing_was_sent_where_nobody_listens(clock: HandClock) -> None:
    with scripted_exchange() as gone:
        base_url = gone.base_url
    access = VenueAccess("acc", base_url, MarketType.FUTURES, TradeEnv.PAPER, CANARY)
    gate = RequestBudget(clock).for_account(base_url, "k")
    venue = CcxtVenues(clock).open_venue("bitget", access, gate)
    venue._cache.margin_modes["BTCUSDT"] = MarginMode.CROSSED  # type: ignore[attr-defined]
    with pytest.raises(Unavailable, match="nothing was sent"):
        venue.submit([buy()])
    venue.close()


@pytest.mark.parametrize(
    "answer", [Scripted("<html>"), Scripted(hang_up=True), ok("x"), ok([{"symbol": "BTCUSDT"}])]
)
def test_S51_a_read_that_cannot_be_understood_may_be_asked_again(
    exchange: ScriptedExchange, venue: Venue, answer: Scripted
) -> None:
    exchange.then(POSITIONS, answer)
    with pytest.raises(Unavailable):
        venue.positions()


def test_an_order_that_is_not_known_is_not_found(exchange: ScriptedExchange, venue: Venue) -> None:
    exchange.then(DETAIL, refused("40109"))
    with pytest.raises(NotFound):
        venue.order("BTCUSDT", "af-1")


@pytest.mark.parametrize("code", ["43001", "45055", "22001"])
def test_A31_cancelling_what_is_over_is_done_after_asking(
    exchange: ScriptedExchange, venue: Venue, code: str
) -> None:
    exchange.then("/api/v2/mix/order/cancel-order", refused(code))
    exchange.then(DETAIL, ok({**ORDER_ROW, "state": "filled", "baseVolume": "0.0123"}))
    venue.cancel("BTCUSDT", "af-1")
    exchange.then(DETAIL, ok(ORDER_ROW))
    with pytest.raises(OutcomeUnknown):
        venue.cancel("BTCUSDT", "af-1")


def test_a_stop_that_the_exchange_only_pretends_to_cancel_is_noticed(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    from module.exchange.venue import PlacedStop

    row = {
        "planType": "pos_loss",
        "symbol": "BTCUSDT",
        "orderId": "7",
        "triggerPrice": "50000",
        "side": "sell",
        "posSide": "net",
    }
    exchange.then("/api/v2/mix/order/cancel-plan-order", ok({"successList": [], "failureList": []}))
    exchange.then("/api/v2/mix/order/orders-plan-pending", ok({"entrustedList": [row]}))
    with pytest.raises(OutcomeUnknown):
        venue.remove_stop(PlacedStop("BTCUSDT", "7", True, True, Decimal(50000)))
    sent = exchange.sent("/api/v2/mix/order/cancel-plan-order")
    assert sent[0]["planType"] == "pos_loss"


def test_pages_are_followed_to_the_end(exchange: ScriptedExchange, venue: Venue) -> None:
    def fill(number: int) -> dict[str, object]:
        return {
            "tradeId": str(number),
            "symbol": "BTCUSDT",
            "orderId": "1",
            "price": "60000.1",
            "baseVolume": "0.001",
            "feeDetail": [{"feeCoin": "USDT", "totalFee": "-0.036"}],
            "side": "buy",
            "quoteVolume": "60.0001",
            "profit": "0",
            "tradeScope": "taker",
            "cTime": str(1_795_000_000_000 + number),
        }

    path = "/api/v2/mix/order/fills"
    first = [fill(n) for n in range(250, 150, -1)]
    exchange.then(
        path,
        ok({"fillList": first, "endId": "151"}),
        ok({"fillList": [fill(n) for n in range(150, 120, -1)], "endId": "121"}),
        ok({"fillList": None, "endId": None}),
    )
    fills = venue.fills(HandClock().now())
    assert [fill.trade_id for fill in fills] == [str(n) for n in range(121, 251)]
    assert fills[0].fee == Decimal("-0.036")


def test_A23_what_the_exchange_wrote_down_just_now_is_asked_for_by_a_clock_that_is_behind(
    exchange: ScriptedExchange, venue: Venue, clock: HandClock
) -> None:
    """Rows carry the exchange's time: ours as the end of the window would hide the newest."""
    theirs = clock.now() + timedelta(seconds=20)
    exchange.then(TIME, ok({"serverTime": str(to_epoch_ms(theirs))}))
    venue.measure_clock()
    exchange.then("/api/v2/mix/order/fills", ok({"fillList": None, "endId": None}))
    assert venue.fills(theirs - timedelta(seconds=5)) == []
    (asked,) = exchange.queries("/api/v2/mix/order/fills")
    assert int(asked["endTime"]) > to_epoch_ms(theirs)


def test_S21_no_log_of_any_level_shows_a_secret(exchange: ScriptedExchange, venue: Venue) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        exchange.then(PLACE, Scripted(hang_up=True))
        exchange.then(POSITIONS, refused("40009"))
        (result,) = venue.submit([buy()])
        with pytest.raises(Forbidden) as caught:
            venue.positions()
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    told = f"{stream.getvalue()} {result} {caught.value!r} {venue!r}"
    assert "canary" not in told
    assert any(h.get("ACCESS-KEY") == CANARY.api_key for h in exchange.headers)


def test_a_demo_account_says_so_on_every_call(exchange: ScriptedExchange, clock: HandClock) -> None:
    exchange.then(POSITIONS, ok([]))
    access = VenueAccess("acc", exchange.base_url, MarketType.FUTURES, TradeEnv.DEMO, CANARY)
    gate = RequestBudget(clock).for_account(exchange.base_url, "k")
    venue = CcxtVenues(clock).open_venue("bitget", access, gate)
    venue.positions()
    venue.close()
    assert {name.lower(): v for name, v in exchange.headers[-1].items()}["paptrading"] == "1"


# --- who we are, and when ---

KEY_INFO = "/api/v2/spot/account/info"
UNIFIED = "/api/v3/account/settings"
CONTRACTS = "/api/v2/mix/market/contracts"
CONTRACT_ROW = {
    "symbol": "BTCUSDT",
    "baseCoin": "BTC",
    "quoteCoin": "USDT",
    "pricePlace": "1",
    "priceEndStep": "1",
    "volumePlace": "4",
    "sizeMultiplier": "0.0001",
    "minTradeNum": "0.0001",
    "minTradeUSDT": "5",
    "maxMarketOrderQty": "220",
    "maxLever": "125",
    "takerFeeRate": "0.0006",
    "makerFeeRate": "0.0002",
    "symbolStatus": "normal",
}


def of_a_key(exchange: ScriptedExchange, unified: Scripted, mode: dict[str, object]) -> None:
    exchange.then(KEY_INFO, ok({"authorities": ["coow", "coor"], "userId": "7"}))
    exchange.then(UNIFIED, unified)
    exchange.then(CONTRACTS, ok([CONTRACT_ROW]))
    exchange.then(ACCOUNT, ok({**MODE, **mode}))


@pytest.mark.parametrize("answer", [refused("40084"), refused("40404", 404), refused("40014")])
def test_a_classic_key_is_told_by_what_v3_refuses(
    exchange: ScriptedExchange, venue: Venue, answer: Scripted
) -> None:
    of_a_key(exchange, answer, {"assetMode": "union"})
    report = venue.check_key()
    assert (report.family, report.position_mode) == ("classic", PositionMode.ONE_WAY)
    assert report.shares_collateral


def test_a_unified_key_is_told_by_v2_refusing_or_v3_answering(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    of_a_key(exchange, ok({"accountMode": "unified"}), {})
    with pytest.raises(UnifiedAccount, match="classic mode"):
        venue.check_key()
    exchange.then(POSITIONS, refused("40085"))
    with pytest.raises(UnifiedAccount, match="classic mode"):
        venue.positions()
    exchange.then(POSITIONS, ok([]))
    assert venue.positions() == ()


def test_A23_clocks_are_compared_once_a_minute_and_signatures_follow(
    exchange: ScriptedExchange, venue: Venue, clock: HandClock
) -> None:
    def theirs(ahead_ms: int) -> str:
        return str(int(clock.wall().timestamp() * 1000) + ahead_ms)

    exchange.then(POSITIONS, ok([]))
    exchange.then(TIME, ok({"serverTime": theirs(0)}))
    assert venue.measure_clock() == 0
    exchange.then(TIME, ok({"serverTime": theirs(63_000)}))
    clock.advance(59)
    assert venue.measure_clock() == 0
    clock.advance(1)
    assert venue.measure_clock() == 3
    venue.positions()
    assert exchange.headers[-1]["ACCESS-TIMESTAMP"] == theirs(3_000)
    clock.advance(60)
    exchange.then(TIME, ok({"serverTime": theirs(-200)}))
    assert venue.measure_clock() == pytest.approx(-0.2)
    venue.positions()
    assert exchange.headers[-1]["ACCESS-TIMESTAMP"] == theirs(0), "too little to correct"


def test_A23_an_exchange_of_a_stepped_world_is_compared_with_world_time(clock: HandClock) -> None:
    class World(HandClock):
        def wall(self) -> datetime:
            return self.current + timedelta(days=400)

    world = World()
    venue_clock = VenueClock(world)
    stated = int(world.now().timestamp() * 1000)
    assert venue_clock.learn(stated, world.wall(), was_refused=False) == 0
    assert venue_clock.timestamp_ms() == int(world.wall().timestamp() * 1000)
    assert venue_clock.learn(stated + 40_000, world.wall(), was_refused=False) == 40
    assert venue_clock.timestamp_ms() == stated + 40_000


def test_A14_requests_without_an_answer_open_the_circuit_and_one_answer_closes_it(
    exchange: ScriptedExchange, venue: Venue, clock: HandClock
) -> None:
    exchange.then(POSITIONS, Scripted(hang_up=True))
    for _ in range(12):
        with pytest.raises((Unavailable, RateLimited)):
            venue.positions()
        clock.advance(0.3)
    assert len(exchange.sent(POSITIONS)) == 5
    exchange.then(POSITIONS, ok([]))
    clock.advance(5)
    assert venue.positions() == ()
    assert venue.positions() == ()


def test_A14_a_refusal_is_an_answer(
    exchange: ScriptedExchange, venue: Venue, clock: HandClock
) -> None:
    exchange.then(POSITIONS, refused("40725"))
    for _ in range(7):
        with pytest.raises(Unavailable) as caught:
            venue.positions()
        assert caught.value.code == "40725"
        clock.advance(0.3)
