"""Bitget's spot adapter against a server that answers exactly what the table says."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest

from module.exchange.bitget_venue import CcxtVenues
from module.exchange.venue import NoPosition, PlacedStop, Venue, VenueAccess, WrongSideOfPrice
from module.gateway.budget import RequestBudget
from module.model.accounts import AccountSnapshot, TradeEnv
from module.model.credentials import Credentials
from module.model.errors import OutcomeUnknown, Rejected, Unavailable
from module.model.market import MarketType
from module.model.orders import PRICE_MOVED, OrderType, Outcome, StopPrices
from tests.fakes.gateway_rig import buy
from tests.fakes.hand_clock import HandClock
from tests.fakes.scripted_exchange import ScriptedExchange, ok, refused, scripted_exchange

pytestmark = pytest.mark.timeout(60)

TRADE = "/api/v2/spot/trade/"
PLACE, ORDER_INFO = TRADE + "place-order", TRADE + "orderInfo"
PLANS, PLACE_PLAN = TRADE + "current-plan-order", TRADE + "place-plan-order"
MODIFY_PLAN, CANCEL_PLAN = TRADE + "modify-plan-order", TRADE + "cancel-plan-order"
PAIR = {
    "symbol": "XRPUSDT",
    "baseCoin": "XRP",
    "quoteCoin": "USDT",
    "pricePrecision": "4",
    "quantityPrecision": "2",
    "minTradeAmount": "0",
    "minTradeUSDT": "1",
    "takerFeeRate": "0.001",
    "makerFeeRate": "0.001",
    "status": "online",
}


def coin(free: str, asset: str = "XRP") -> dict[str, str]:
    return {"coin": asset, "available": free, "frozen": "0", "locked": "0"}


def plan(order_id: str, client_id: str, trigger: str = "0.41", size: str = "99.87") -> object:
    words = {"orderId": order_id, "clientOid": client_id, "symbol": "XRPUSDT", "side": "sell"}
    return {**words, "triggerPrice": trigger, "size": size, "status": "not_trigger"}


def plans(*rows: object) -> object:
    return {"nextFlag": False, "idLessThan": "1", "orderList": list(rows)}


@pytest.fixture
def exchange() -> Iterator[ScriptedExchange]:
    with scripted_exchange() as running:
        ticker = {"symbol": "XRPUSDT", "lastPr": "0.5", "bidPr": "0.49", "askPr": "0.51", "ts": "1"}
        running.then("/api/v2/spot/market/tickers", ok([ticker]))
        running.then("/api/v2/spot/public/symbols", ok([PAIR]))
        running.then("/api/v2/spot/account/assets", ok([coin("99.8799"), coin("5", "USDT")]))
        yield running


@pytest.fixture
def venue(exchange: ScriptedExchange) -> Iterator[Venue]:
    clock = HandClock()
    keys = Credentials("canary-key-123456", "canary-secret-123456", "canary-passphrase")
    access = VenueAccess("acc", exchange.base_url, MarketType.SPOT, TradeEnv.PAPER, keys)
    gate = RequestBudget(clock).for_account(exchange.base_url, "k")
    venue = CcxtVenues(clock).open_venue("bitget", access, gate)
    yield venue
    venue.close()


def set_loss(venue: Venue, trigger: str = "0.4") -> None:
    venue.set_stop("XRPUSDT", is_stop_loss=True, protects_long=True, trigger_price=Decimal(trigger))


def test_sizes_and_prices_leave_in_plain_digits(exchange: ScriptedExchange, venue: Venue) -> None:
    exchange.then(PLACE, ok({"clientOid": "af-1", "orderId": "9"}))
    price = Decimal("5E-1")
    order = buy(size="1E+2", symbol="XRPUSDT", order_type=OrderType.LIMIT, price=price)
    venue.submit([order])
    (body,) = exchange.sent(PLACE)
    assert (body["size"], body["price"]) == ("100", "0.5")


def test_a_market_buy_is_sent_in_quote_coin_at_the_ask_cut_down(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    exchange.then(PLACE, ok({"clientOid": "af-1", "orderId": "9"}))
    venue.submit([buy(size="3.3333333", symbol="XRPUSDT")])
    (body,) = exchange.sent(PLACE)
    assert body["size"] == "1.699999"


@pytest.mark.parametrize("planned_at", ["0.051", "0.463", "0.567", "5.1"])
def test_C3_a_purchase_is_not_sent_at_a_price_far_off_the_planned_one(
    exchange: ScriptedExchange, venue: Venue, planned_at: str
) -> None:
    exchange.then(ORDER_INFO, ok([]))
    order = buy(size="10", symbol="XRPUSDT", reference_price=Decimal(planned_at))
    (result,) = venue.submit([order])
    assert (result.outcome, result.code) == (Outcome.REJECTED, PRICE_MOVED)
    assert planned_at in str(result.message)
    assert exchange.sent(PLACE) == []


@pytest.mark.parametrize("planned_at", ["0.464", "0.51", "0.566"])
def test_a_purchase_near_its_planned_price_spends_at_most_a_tenth_more(
    exchange: ScriptedExchange, venue: Venue, planned_at: str
) -> None:
    exchange.then(PLACE, ok({"clientOid": "af-1", "orderId": "9"}))
    planned = Decimal(planned_at)
    venue.submit([buy(size="10", symbol="XRPUSDT", reference_price=planned)])
    (body,) = exchange.sent(PLACE)
    assert Decimal(str(body["size"])) <= 10 * planned * Decimal("1.1")


def test_stops_do_not_travel_with_a_purchase(exchange: ScriptedExchange, venue: Venue) -> None:
    exchange.then(PLACE, ok({"clientOid": "af-1", "orderId": "9"}))
    order = buy(size="10", symbol="XRPUSDT", stops=StopPrices(Decimal("0.4"), Decimal("0.6")))
    assert [r.outcome for r in venue.submit([order])] == [Outcome.ACCEPTED]
    (body,) = exchange.sent(PLACE)
    assert not any("reset" in name for name in body)


@pytest.mark.parametrize("stops", [StopPrices(Decimal("0.51")), StopPrices(None, Decimal("0.5"))])
def test_stops_that_could_never_be_placed_refuse_the_purchase(
    exchange: ScriptedExchange, venue: Venue, stops: StopPrices
) -> None:
    exchange.then(ORDER_INFO, ok([]))
    (result,) = venue.submit([buy(size="10", symbol="XRPUSDT", stops=stops)])
    assert (result.outcome, result.code) == (Outcome.REJECTED, WrongSideOfPrice.code)
    assert exchange.sent(PLACE) == []


def test_such_a_purchase_is_not_called_refused_where_nobody_can_say_whether_it_was_sent(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    exchange.then(ORDER_INFO, refused("40725", 500))
    with pytest.raises(Unavailable):
        venue.submit([buy(size="10", symbol="XRPUSDT", stops=StopPrices(Decimal("0.51")))])
    assert exchange.sent(PLACE) == []


def test_a_stop_is_a_trigger_order_of_all_that_can_be_sold(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    exchange.then(PLANS, ok(plans()))
    exchange.then(PLACE_PLAN, ok({"orderId": "9", "clientOid": "x"}))
    set_loss(venue)
    (body,) = exchange.sent(PLACE_PLAN)
    client_id = body.pop("clientOid")
    assert str(client_id).startswith("af-stop-l-")
    assert body == {
        "symbol": "XRPUSDT",
        "side": "sell",
        "triggerPrice": "0.4",
        "orderType": "market",
        "planType": "amount",
        "size": "99.87",
        "triggerType": "fill_price",
    }


def test_a_stop_is_moved_in_place_and_doubles_are_removed(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    found = [plan("7", "af-stop-l-1"), plan("6", "af-stop-l-0"), plan("5", "af-stop-p-0", "0.6")]
    exchange.then(PLANS, ok(plans(*found)))
    exchange.then(MODIFY_PLAN, ok({"orderId": "7", "clientOid": "af-stop-l-1"}))
    exchange.then(CANCEL_PLAN, ok({"result": "success"}))
    set_loss(venue)
    (body,) = exchange.sent(MODIFY_PLAN)
    assert body == {
        "orderId": "7",
        "triggerPrice": "0.4",
        "orderType": "market",
        "size": "99.87",
    }
    assert exchange.sent(CANCEL_PLAN) == [{"orderId": "6"}]
    assert exchange.sent(PLACE_PLAN) == []


def test_a_stop_that_is_in_order_is_left_alone(exchange: ScriptedExchange, venue: Venue) -> None:
    exchange.then(PLANS, ok(plans(plan("7", "af-stop-l-1"))))
    set_loss(venue, "0.41")
    assert exchange.sent(MODIFY_PLAN) == exchange.sent(PLACE_PLAN) == []


def test_a_persons_own_trigger_orders_are_not_ours(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    bought = {**dict(plan("8", "af-stop-l-2")), "side": "buy"}  # type: ignore[call-overload]
    exchange.then(PLANS, ok(plans(plan("7", "by-hand"), plan("6", "af-stop-x-1"), bought)))
    assert venue.placed_stops() == ()


def test_a_stop_that_goes_while_it_is_moved_is_looked_at_again(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    exchange.then(PLANS, ok(plans(plan("7", "af-stop-l-1"))))
    exchange.then(MODIFY_PLAN, refused("43025"))
    with pytest.raises(Unavailable, match="look again"):
        set_loss(venue)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (ok({}), OutcomeUnknown),
        (refused("40010"), OutcomeUnknown),
        (refused("43012"), Rejected),
    ],
)
def test_B5_only_the_exchanges_own_answer_says_that_a_stop_is_placed(
    exchange: ScriptedExchange, venue: Venue, answer: object, error: type[Exception]
) -> None:
    exchange.then(PLANS, ok(plans()))
    exchange.then(PLACE_PLAN, answer)  # type: ignore[arg-type]
    with pytest.raises(error):
        set_loss(venue)


def test_what_is_beyond_the_price_or_not_held_is_not_sent(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    with pytest.raises(WrongSideOfPrice):
        set_loss(venue, "0.5")
    with pytest.raises(NoPosition):
        venue.set_stop(
            "XRPUSDT", is_stop_loss=True, protects_long=False, trigger_price=Decimal("0.6")
        )
    assert exchange.sent(PLACE_PLAN) == []


def test_removing_a_stop_that_is_gone_is_done_after_asking(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    stop = PlacedStop("XRPUSDT", "7", True, True, Decimal("0.41"), Decimal("99.87"))
    exchange.then(CANCEL_PLAN, refused("43025"))
    exchange.then(PLANS, ok(plans(plan("7", "af-stop-l-1"))), ok(plans()))
    with pytest.raises(OutcomeUnknown, match="still there"):
        venue.remove_stop(stop)
    venue.remove_stop(stop)


def test_dust_is_not_held(exchange: ScriptedExchange, venue: Venue) -> None:
    (held,) = venue.holdings()
    assert (held.symbol, held.size) == ("XRPUSDT", Decimal("99.87"))
    exchange.then("/api/v2/spot/account/assets", ok([coin("1.99")]))
    assert venue.holdings() == ()


# --- the account as positions ----------------------------------------------------------------


def frozen(free: str, held: str, asset: str = "XRP") -> dict[str, str]:
    return {"coin": asset, "available": free, "frozen": held, "locked": "0"}


def look(exchange: ScriptedExchange, venue: Venue, *stops: object) -> AccountSnapshot:
    exchange.then(TRADE + "unfilled-orders", ok([]))
    exchange.then(PLANS, ok(plans(*stops)))
    return venue.snapshot()


def test_a_snapshot_has_the_coins_as_longs_with_the_stops_that_are_in_order(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    snapshot = look(
        exchange, venue, plan("1", "af-stop-l-7-1", "0.41"), plan("2", "af-stop-p-7-2", "0.6", "50")
    )
    (ripple,) = snapshot.positions
    assert (ripple.symbol, ripple.size, ripple.mark_price) == (
        "XRPUSDT",
        Decimal("99.8799"),
        Decimal("0.5"),
    )
    assert (ripple.free_size, ripple.leverage) == (Decimal("99.87"), Decimal(1))
    assert ripple.stops == StopPrices(Decimal("0.41"), None), "one of another size is not in order"
    assert snapshot.equity == Decimal("99.8799") * Decimal("0.5") + 5
    assert snapshot.available == 5
    assert snapshot.closable == (ripple,)


def test_what_an_order_reserves_counts_but_cannot_be_sold(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    exchange.then("/api/v2/spot/account/assets", ok([frozen("9.999", "90")]))
    (ripple,) = look(exchange, venue).positions
    assert (ripple.size, ripple.free_size) == (Decimal("99.999"), Decimal("9.99"))


def test_dust_stays_visible_and_nothing_of_it_can_be_sold(
    exchange: ScriptedExchange, venue: Venue
) -> None:
    exchange.then("/api/v2/spot/account/assets", ok([coin("1.99"), coin("3", "NOPAIR")]))
    snapshot = look(exchange, venue)
    (ripple,) = snapshot.positions
    assert (ripple.size, ripple.locked) == (Decimal("1.99"), Decimal("1.99"))
    assert snapshot.closable == ()
    assert [balance.asset for balance in snapshot.balances] == ["NOPAIR", "XRP"]
