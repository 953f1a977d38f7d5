"""What the paper exchange never says and a real one may: one odd row, a refused question, a
contract that only closes, another collateral mode, an endpoint that is away on its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal

import pytest

from module.exchange.bitget_venue import CcxtVenues
from module.exchange.venue import PlacedStop, Priority, StopsFull, Venue, VenueAccess
from module.gateway.budget import RequestBudget
from module.model.accounts import Position, PositionMode, TradeEnv
from module.model.credentials import Credentials
from module.model.errors import Conflict, NotFound, OutcomeUnknown, Rejected, Unavailable
from module.model.market import Instrument, MarketType
from module.model.orders import OrderRequest, Outcome, StopPrices, SubmitResult
from tests.fakes.gateway_rig import GatewayRig, buy, sell
from tests.fakes.hand_clock import HandClock
from tests.fakes.memory_venue import MemoryVenue
from tests.fakes.scripted_exchange import (
    Scripted,
    ScriptedExchange,
    ok,
    refused,
    scripted_exchange,
)

pytestmark = pytest.mark.timeout(60)

PLACE = "/api/v2/mix/order/place-order"
DETAIL = "/api/v2/mix/order/detail"
POSITIONS = "/api/v2/mix/position/all-position"
CONTRACTS = "/api/v2/mix/market/contracts"
SPOT_PLACE, SPOT_ORDER = "/api/v2/spot/trade/place-order", "/api/v2/spot/trade/orderInfo"
TICKERS = "/api/v2/mix/market/tickers"
SPOT_TICKERS, SPOT_PAIRS = "/api/v2/spot/market/tickers", "/api/v2/spot/public/symbols"
STOPS = StopPrices(Decimal("55000.5"), Decimal("66000.1"))
CONTRACT = {
    "symbol": "BTCUSDT",
    "baseCoin": "BTC",
    "quoteCoin": "USDT",
    "pricePlace": "1",
    "priceEndStep": "1",
    "sizeMultiplier": "0.0001",
    "minTradeNum": "0.0001",
    "minTradeUSDT": "5",
    "maxMarketOrderQty": "220",
    "maxLever": "125",
    "takerFeeRate": "0.0006",
    "makerFeeRate": "0.0002",
    "symbolStatus": "normal",
}
HELD = {
    "symbol": "BTCUSDT",
    "holdSide": "long",
    "total": "0.01",
    "openPriceAvg": "60000",
    "markPrice": "60001",
    "unrealizedPL": "0.01",
    "leverage": "7",
    "marginMode": "crossed",
    "posMode": "one_way_mode",
    "assetMode": "single",
    "cTime": "1795000000000",
}
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
PRICE = {"symbol": "XRPUSDT", "lastPr": "0.5", "bidPr": "0.49", "askPr": "0.51", "ts": "1"}


@pytest.fixture
def exchange() -> Iterator[ScriptedExchange]:
    with scripted_exchange() as running:
        running.then("/api/v2/mix/account/account", ok({**HELD, "crossedMarginLeverage": 7}))
        running.then(SPOT_TICKERS, ok([PRICE]))
        running.then(SPOT_PAIRS, ok([PAIR]))
        yield running


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def opened(exchange: ScriptedExchange, clock: HandClock, market: MarketType) -> Venue:
    keys = Credentials("canary-key-123456", "canary-secret-123456", "canary-passphrase")
    access = VenueAccess("acc", exchange.base_url, market, TradeEnv.PAPER, keys)
    gate = RequestBudget(clock).for_account(exchange.base_url, "k")
    return CcxtVenues(clock).open_venue("bitget", access, gate)


@pytest.fixture
def futures(exchange: ScriptedExchange, clock: HandClock) -> Iterator[Venue]:
    venue = opened(exchange, clock, MarketType.FUTURES)
    yield venue
    venue.close()


@pytest.fixture
def spot(exchange: ScriptedExchange, clock: HandClock) -> Iterator[Venue]:
    venue = opened(exchange, clock, MarketType.SPOT)
    yield venue
    venue.close()


@pytest.fixture
def rig() -> GatewayRig:
    return GatewayRig()


# --- a question that is refused says nothing of the order ---


@pytest.mark.parametrize("code", ["40037", "40014", "40309", "40085"])
def test_I4_a_refused_question_does_not_make_an_order_refused(
    exchange: ScriptedExchange, futures: Venue, code: str
) -> None:
    """Keys that are revoked, a contract that is removed, between the order and the question."""
    exchange.then(PLACE, refused("40786"))
    exchange.then(DETAIL, refused(code))
    assert futures.look_up(buy()).outcome is Outcome.UNKNOWN
    exchange.then(DETAIL, refused("40309"))
    (result,) = opened_again(exchange).submit([buy()])
    assert result.outcome is Outcome.UNKNOWN


def opened_again(exchange: ScriptedExchange) -> Venue:
    """As a gateway whose pause after refused keys is over."""
    return opened(exchange, HandClock(), MarketType.FUTURES)


def test_I4_a_purchase_that_is_held_back_is_not_refused_while_nobody_says_whether_it_was_sent(
    exchange: ScriptedExchange, spot: Venue
) -> None:
    exchange.then(SPOT_ORDER, refused("40014"))
    wrong = buy(symbol="XRPUSDT", size="20", stops=StopPrices(Decimal("0.6")))
    (result,) = spot.submit([wrong])
    assert result.outcome is Outcome.UNKNOWN
    assert exchange.sent(SPOT_PLACE) == []


def test_A20_a_purchase_without_a_price_is_refused_and_the_others_leave(
    exchange: ScriptedExchange, spot: Venue
) -> None:
    """Its pair went between the last gate's look at the prices and the order."""
    exchange.then(SPOT_ORDER, ok([]))
    exchange.then(SPOT_PLACE, ok({"clientOid": "af-2", "orderId": "99"}))
    orders = [buy("af-1", "20", symbol="GONEUSDT"), buy("af-2", "20", symbol="XRPUSDT")]
    gone, bought = spot.submit(orders)
    assert (gone.outcome, gone.code) == (Outcome.REJECTED, "no-price")
    assert bought.outcome is Outcome.ACCEPTED
    assert [body["clientOid"] for body in exchange.sent(SPOT_PLACE)] == ["af-2"]


# --- rows ---


@pytest.mark.parametrize(
    "odd",
    [
        {"symbol": "NEWUSDT"},
        {**CONTRACT, "symbol": "NEWUSDT", "sizeMultiplier": ""},
        {**CONTRACT, "symbol": "NEWUSDT", "pricePlace": None},
        {**CONTRACT, "symbol": "NEWUSDT", "priceEndStep": "0"},
    ],
)
def test_A20_a_contract_whose_rules_cannot_be_read_hides_no_other(
    exchange: ScriptedExchange, futures: Venue, odd: Mapping[str, object]
) -> None:
    exchange.then(CONTRACTS, ok([odd, CONTRACT]))
    assert set(futures.instruments()) == {"BTCUSDT"}


def test_A5_rules_of_which_none_can_be_read_are_asked_for_again(
    exchange: ScriptedExchange, futures: Venue
) -> None:
    exchange.then(CONTRACTS, ok([{"symbol": "BTCUSDT"}]), ok([CONTRACT]))
    with pytest.raises(Unavailable):
        futures.instruments()
    assert set(futures.instruments()) == {"BTCUSDT"}


def test_A20_a_pair_whose_rules_cannot_be_read_hides_no_other(
    exchange: ScriptedExchange, spot: Venue
) -> None:
    exchange.then(
        SPOT_PAIRS, ok([{**PAIR, "symbol": "NEWUSDT", "quantityPrecision": "1e30"}, PAIR])
    )
    assert set(spot.instruments()) == {"XRPUSDT"}


@pytest.mark.parametrize("price", ["", None, "-", "NaN", "0", "-61000.5"])
def test_C1_a_pair_without_a_price_does_not_hide_the_wallet(
    exchange: ScriptedExchange, spot: Venue, clock: HandClock, price: str | None
) -> None:
    """A pair that is listed before it trades has no price yet. What is held keeps the price that
    was read last: left out it would be taken for sold, and its stop for left behind."""
    coins = [{"coin": "XRP", "available": "20", "frozen": "0", "locked": "0"}]
    exchange.then("/api/v2/spot/account/assets", ok(coins))
    exchange.then(SPOT_TICKERS, ok([{"symbol": "NEWUSDT", "lastPr": price}, PRICE]))
    (held,) = spot.holdings()
    assert (held.symbol, held.size, held.mark_price) == ("XRPUSDT", Decimal(20), Decimal("0.5"))
    for _ in range(2):
        clock.advance(29)
        exchange.then(SPOT_TICKERS, ok([{**PRICE, "lastPr": price}]))
        (held,) = spot.holdings()
        assert (held.symbol, held.size, held.mark_price) == ("XRPUSDT", Decimal(20), Decimal("0.5"))
    clock.advance(29)
    exchange.then(SPOT_TICKERS, ok([{**PRICE, "lastPr": price}]))
    with pytest.raises(Unavailable):  # of what is there the price must be known
        spot.holdings()
    exchange.then(SPOT_TICKERS, ok([PRICE]))
    assert spot.holdings() == (held,)


def test_A20_a_coin_whose_pair_is_not_listed_any_more_is_held_no_longer(
    exchange: ScriptedExchange, spot: Venue
) -> None:
    coins = [{"coin": "XRP", "available": "20", "frozen": "0", "locked": "0"}]
    exchange.then("/api/v2/spot/account/assets", ok(coins))
    exchange.then(SPOT_TICKERS, ok([PRICE]))
    assert len(spot.holdings()) == 1
    exchange.then(SPOT_TICKERS, ok([{**PRICE, "symbol": "NEWUSDT"}]))
    assert spot.holdings() == ()


@pytest.mark.parametrize("price", ["", "0", "-1"])
def test_A20_a_coin_whose_pair_no_longer_trades_and_has_no_price_hides_no_other(
    exchange: ScriptedExchange, spot: Venue, price: str
) -> None:
    coins = [
        {"coin": coin, "available": "20", "frozen": "0", "locked": "0"} for coin in ("XRP", "OLD")
    ]
    exchange.then("/api/v2/spot/account/assets", ok(coins))
    exchange.then(SPOT_PAIRS, ok([PAIR, {**PAIR, "symbol": "OLDUSDT", "status": "offline"}]))
    exchange.then(SPOT_TICKERS, ok([{**PRICE, "symbol": "OLDUSDT", "lastPr": price}, PRICE]))
    (held,) = spot.holdings()
    assert held.symbol == "XRPUSDT"


NO_PRICES: tuple[dict[str, object], ...] = (
    {"lastPr": ""},
    {"lastPr": None},
    {"lastPr": "0"},
    {"lastPr": "-1"},
    {"markPrice": "-"},
    {"markPrice": "-0.5"},
    {"bidPr": "NaN"},
    {"ts": ""},
)


@pytest.mark.parametrize("odd", NO_PRICES)
def test_C1_a_symbol_whose_prices_are_none_hides_no_other(
    exchange: ScriptedExchange, futures: Venue, odd: Mapping[str, object]
) -> None:
    rows = [{**PRICE, "symbol": name, "markPrice": "0.5"} for name in ("XRPUSDT", "ETHUSDT")]
    exchange.then(TICKERS, ok([{**rows[0], **odd}, rows[1]]))
    assert futures.quotes(["ETHUSDT"])["ETHUSDT"].mark == Decimal("0.5")
    with pytest.raises(NotFound, match=r"no price of XRPUSDT$"):
        futures.quotes(["ETHUSDT", "XRPUSDT"])


@pytest.mark.parametrize("listed", [[], [{**PRICE, "lastPr": ""}], None])
def test_A5_a_list_in_which_nothing_has_a_price_is_asked_for_again(
    exchange: ScriptedExchange, futures: Venue, listed: object
) -> None:
    exchange.then(TICKERS, ok(listed))
    with pytest.raises(Unavailable):
        futures.quotes(["XRPUSDT"])


def test_C1_a_purchase_whose_price_is_none_is_refused_and_the_others_leave(
    exchange: ScriptedExchange, spot: Venue
) -> None:
    exchange.then(SPOT_TICKERS, ok([PRICE, {**PRICE, "symbol": "ODDUSDT", "lastPr": "0"}]))
    exchange.then(SPOT_ORDER, ok([]))
    exchange.then(SPOT_PLACE, ok({"clientOid": "af-2", "orderId": "99"}))
    orders = [buy("af-1", "20", symbol="ODDUSDT"), buy("af-2", "20", symbol="XRPUSDT")]
    odd, bought = spot.submit(orders)
    assert (odd.outcome, odd.code) == (Outcome.REJECTED, "no-price")
    assert bought.outcome is Outcome.ACCEPTED


def test_a_row_of_nothing_held_is_no_position_whatever_else_it_says(
    exchange: ScriptedExchange, futures: Venue
) -> None:
    empty = {**HELD, "symbol": "ETHUSDT", "total": "0", "openPriceAvg": "", "markPrice": ""}
    exchange.then(POSITIONS, ok([empty, HELD]))
    (position,) = futures.positions()
    assert position.symbol == "BTCUSDT"
    exchange.then(POSITIONS, ok([{**empty, "total": ""}, HELD]))
    with pytest.raises(Unavailable):  # how much is held it does not say
        futures.positions()


WALLET = {"marginCoin": "USDT", "accountEquity": "1000", "available": "900", "unrealizedPL": "0.01"}
ETH = {**HELD, "symbol": "ETHUSDT", "openPriceAvg": "3000", "stopLoss": "2900", "holdSide": "short"}


def answers_account(exchange: ScriptedExchange, *positions: Mapping[str, object]) -> None:
    exchange.then(POSITIONS, ok(list(positions)))
    exchange.then("/api/v2/mix/account/accounts", ok([WALLET]))
    exchange.then("/api/v2/mix/order/orders-pending", ok({"entrustedList": None, "endId": None}))


@pytest.mark.parametrize("mark", ["", None, "0", 0, "-1", "NaN", "-"])
def test_C1_a_position_without_a_mark_is_priced_by_its_ticker_and_hides_no_other(
    exchange: ScriptedExchange, futures: Venue, mark: object
) -> None:
    answers_account(exchange, {**ETH, "markPrice": mark, "unrealizedPL": ""}, HELD)
    exchange.then(TICKERS, ok([{**PRICE, "symbol": "ETHUSDT", "markPrice": "3010"}, PRICE]))
    snapshot = futures.snapshot()
    bitcoin, ether = snapshot.positions
    assert (ether.size, ether.mark_price) == (Decimal("-0.01"), Decimal(3010))
    assert ether.unrealized_pnl == Decimal("-0.10")
    assert (bitcoin.mark_price, snapshot.equity) == (Decimal(60001), Decimal(1000))


@pytest.mark.parametrize(
    "tickers", [ok([PRICE]), Scripted("<html>", status=503), refused("40200"), ok(None)]
)
def test_C1_a_position_that_nobody_prices_is_priced_at_its_entry(
    exchange: ScriptedExchange, futures: Venue, tickers: Scripted
) -> None:
    answers_account(exchange, {**ETH, "markPrice": ""}, HELD)
    exchange.then(TICKERS, tickers)
    _, ether = futures.snapshot().positions
    assert (ether.mark_price, ether.stops.stop_loss) == (Decimal(3000), Decimal(2900))


def test_C1_the_guard_sees_a_position_without_a_mark_and_waits_for_no_ticker(
    exchange: ScriptedExchange, futures: Venue
) -> None:
    answers_account(exchange, {**ETH, "markPrice": ""}, HELD)
    bitcoin, ether = futures.holdings(priority=Priority.PROTECTION)
    assert (bitcoin.symbol, ether.symbol) == ("BTCUSDT", "ETHUSDT")
    assert ether.stops == StopPrices(Decimal(2900))
    assert exchange.queries(TICKERS) == []


@pytest.mark.parametrize("when", ["999999999999999", "²", "-1", "1795000000000.5"])
def test_A5_a_time_that_is_none_is_asked_for_again(
    exchange: ScriptedExchange, futures: Venue, when: str
) -> None:
    exchange.then(POSITIONS, ok([{**HELD, "cTime": when}]))
    with pytest.raises(Unavailable):
        futures.positions()


# --- trading rules that cannot be read again ---


@pytest.mark.parametrize("answer", [Scripted("<html>", status=503), refused("40200"), ok(None)])
def test_rules_that_cannot_be_read_again_stay_those_of_before(
    exchange: ScriptedExchange, futures: Venue, clock: HandClock, answer: Scripted
) -> None:
    exchange.then(CONTRACTS, ok([CONTRACT]))
    assert futures.instruments()["BTCUSDT"].size_step == Decimal("0.0001")
    clock.advance(3601)
    exchange.then(CONTRACTS, answer)
    assert set(futures.instruments()) == {"BTCUSDT"}
    asked = len(exchange.sent(CONTRACTS))
    assert set(futures.instruments()) == {"BTCUSDT"}
    assert len(exchange.sent(CONTRACTS)) == asked  # not at every order
    clock.advance(31)
    exchange.then(CONTRACTS, ok([{**CONTRACT, "sizeMultiplier": "0.001"}]))
    assert futures.instruments()["BTCUSDT"].size_step == Decimal("0.001")


def test_A19_rules_that_changed_and_cannot_be_read_stay_those_of_before(
    exchange: ScriptedExchange, futures: Venue, clock: HandClock
) -> None:
    """An order was refused by the new ones; what is held can be closed all the same."""
    exchange.then(CONTRACTS, ok([CONTRACT]))
    futures.instruments()
    exchange.then(PLACE, refused("45110"))
    assert futures.submit([buy()])[0].rules_changed
    exchange.then(CONTRACTS, Scripted("<html>", status=503))
    assert futures.instruments()["BTCUSDT"].size_step == Decimal("0.0001")
    clock.advance(31)
    exchange.then(CONTRACTS, ok([{**CONTRACT, "sizeMultiplier": "0.001"}]))
    assert futures.instruments()["BTCUSDT"].size_step == Decimal("0.001")


def test_rules_that_were_never_read_are_not_made_up(
    exchange: ScriptedExchange, futures: Venue
) -> None:
    exchange.then(CONTRACTS, Scripted("<html>", status=503))
    with pytest.raises(Unavailable):
        futures.instruments()


# --- the gateway ---


class WithRules(MemoryVenue):
    """Whose rules a test changes, or takes away."""

    rules: Mapping[str, Instrument] | None = None
    rules_away = False

    def instruments(self) -> Mapping[str, Instrument]:
        if self.rules_away:
            raise Unavailable("public data is away")
        return super().instruments() if self.rules is None else self.rules


def with_rules(rig: GatewayRig) -> WithRules:
    venue = WithRules(rig.clock)
    rig.venue = rig.venues.by_account["acc"] = venue
    return venue


def test_A20_a_contract_that_opens_nothing_more_can_be_closed(rig: GatewayRig) -> None:
    """Before a contract goes it takes closes only (Bitget: `limit_open`)."""
    venue = with_rules(rig)
    rig.gateway.submit("acc", rig.stamp(), [buy("af-1")])
    rules = venue.instruments()
    venue.rules = {**rules, "BTCUSDT": replace(rules["BTCUSDT"], tradable=False)}
    opening, closing = rig.gateway.submit("acc", rig.stamp(), [buy("af-2"), sell("af-3")])
    assert (opening.outcome, opening.code) == (Outcome.REJECTED, "not-tradable")
    assert closing.outcome is Outcome.ACCEPTED
    assert venue.held == {}


def test_A20_what_is_held_of_a_contract_without_rules_can_be_closed_whole(rig: GatewayRig) -> None:
    venue = with_rules(rig)
    rig.gateway.submit("acc", rig.stamp(), [buy("af-1")])
    rules = venue.instruments()
    venue.rules = {name: rules[name] for name in rules if name != "BTCUSDT"}
    results = rig.gateway.submit(
        "acc", rig.stamp(), [buy("af-2"), sell("af-3", "0.0100"), sell("af-4")]
    )
    assert [result.code for result in results] == ["unknown-symbol", "unknown-symbol", None]
    assert venue.held == {}


def test_B6_a_position_is_closed_though_the_trading_rules_cannot_be_read(rig: GatewayRig) -> None:
    venue = with_rules(rig)
    venue.presets_lost = True
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    venue.marks["BTCUSDT"] = Decimal("54321.9")
    venue.rules_away = True
    rig.gateway.protect_now("acc")
    assert venue.held == {}


def test_C1_an_order_without_a_price_is_refused_and_the_others_of_its_batch_leave(
    rig: GatewayRig,
) -> None:
    """Its price went between the plan and the order."""
    del rig.venue.marks["XRPUSDT"]
    batch = [buy("af-1"), buy("af-2", "20", symbol="XRPUSDT")]
    taken, refused_one = rig.gateway.submit("acc", rig.stamp(), batch)
    assert taken.outcome is Outcome.ACCEPTED
    assert (refused_one.outcome, refused_one.code) == (Outcome.REJECTED, "no-price")


def test_A22_with_shared_collateral_nothing_opens_and_everything_closes(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy("af-1")])
    rig.venue.shares_collateral = True
    rig.clock.advance(301)
    (closed,) = rig.gateway.submit("acc", rig.stamp(), [sell("af-2")])
    assert closed.outcome is Outcome.ACCEPTED
    with pytest.raises(Conflict, match="Asset mode"):
        rig.gateway.submit("acc", rig.stamp(), [buy("af-3")])
    rig.venue.position_mode = PositionMode.HEDGE
    with pytest.raises(Conflict, match="One-way mode"):  # where what closes could open
        rig.gateway.submit("acc", rig.stamp(), [sell("af-4")])


def test_I2_stops_are_mended_while_the_list_of_stops_cannot_be_read(rig: GatewayRig) -> None:
    """Leftovers are looked for once a minute; that must not cost a position its stop."""
    rig.venue.presets_lost = True
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    rig.venue.script["placed_stops"].extend([Unavailable("no answer")] * 50)
    began = rig.clock.now()
    while not rig.venue.stops and (rig.clock.now() - began).total_seconds() < 30:
        rig.clock.sleep_until(rig.gateway._loop.step(rig.clock.now()))
    assert {stop.trigger_price for stop in rig.venue.stops.values()} == {
        STOPS.stop_loss,
        STOPS.take_profit,
    }
    assert (rig.clock.now() - began).total_seconds() <= 2


class Blinking(MemoryVenue):
    """Whose next reading of positions is empty, though they are there."""

    blinks = 0

    def positions(self, *, priority: Priority = Priority.READ) -> tuple[Position, ...]:
        found = super().positions(priority=priority)
        if self.blinks:
            self.blinks -= 1
            return ()
        return found


def test_I2_one_reading_without_a_position_does_not_take_its_stop_away(rig: GatewayRig) -> None:
    venue = Blinking(rig.clock)
    rig.venue = rig.venues.by_account["acc"] = venue
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    venue.blinks = 1
    rig.gateway.protect_now("acc")
    assert "remove_stop" not in venue.calls
    venue.hold("BTCUSDT", Decimal(0))
    venue.stops[("BTCUSDT", True)] = PlacedStop("BTCUSDT", "77", True, True, Decimal(50000))
    rig.gateway.protect_now("acc")
    assert venue.stops == {}


class Hedged(MemoryVenue):
    """Where somebody has opened the other side of what is held."""

    hedged = False

    def positions(self, *, priority: Priority = Priority.READ) -> tuple[Position, ...]:
        found = super().positions(priority=priority)
        return (*found, *(replace(held, size=-held.size) for held in found if self.hedged))


@pytest.mark.parametrize("restarted", [False, True])
def test_A22_a_symbol_held_long_and_short_is_told_at_once_and_once(restarted: bool) -> None:
    rig = GatewayRig()
    venue = Hedged(rig.clock)
    rig.venue = rig.venues.by_account["acc"] = venue
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    gateway = rig.gateway
    if restarted:
        rig.postgres.owner = None
        gateway = rig.another("gw-2")
    else:
        gateway._loop.step(rig.clock.now())
    venue.hedged = True
    for _ in range(40):
        rig.clock.advance(5)
        gateway._loop.step(rig.clock.now())
    (told,) = rig.alerts.of_kind("protection")
    assert "two positions of BTCUSDT" in str(told.lines)
    assert "One-way mode" in str(told.lines)
    venue.hedged = False
    rig.venue.stops.clear()
    for _ in range(2):
        rig.clock.advance(5)
        gateway._loop.step(rig.clock.now())
    assert len(rig.venue.stops) == 2  # the guard is back
    venue.hedged = True
    rig.clock.advance(5)
    gateway._loop.step(rig.clock.now())
    assert len(rig.alerts.of_kind("protection")) == 2


def test_I2_B7_room_is_not_made_by_a_reading_without_the_position_that_needs_it(
    rig: GatewayRig,
) -> None:
    venue = Blinking(rig.clock)
    rig.venue = rig.venues.by_account["acc"] = venue
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    other = StopPrices(Decimal("0.4"), Decimal("0.6"))
    rig.gateway.submit("acc", rig.stamp(), [buy("af-2", "20", symbol="XRPUSDT", stops=other)])
    rig.gateway.protect_now("acc")
    del venue.stops[("BTCUSDT", True)]
    full = StopsFull("too many", code="40890")
    venue.script["set_stop"].append(full)
    taken = venue.set_stop

    def set_stop(*words: object, **named: object) -> None:
        venue.blinks = int(bool(venue.script["set_stop"]))
        taken(*words, **named)  # type: ignore[arg-type]

    venue.set_stop = set_stop  # type: ignore[method-assign]
    rig.gateway.protect_now("acc")
    assert ("XRPUSDT", True) in venue.stops
    assert rig.gateway.protect_now("acc") == ()
    assert {name for name, _ in venue.stops} == {"BTCUSDT", "XRPUSDT"}


class TakesNoProfit(MemoryVenue):
    """Which has no room for take profits (a limit of stop orders, a price too far away)."""

    takes_profits = False

    def set_stop(
        self,
        symbol: str,
        *,
        is_stop_loss: bool,
        protects_long: bool,
        trigger_price: Decimal,
        held: Position | None = None,
        priority: Priority = Priority.PROTECTION,
    ) -> None:
        if not is_stop_loss and not self.takes_profits:
            raise Rejected("too many trigger orders", code="40890")
        super().set_stop(
            symbol,
            is_stop_loss=is_stop_loss,
            protects_long=protects_long,
            trigger_price=trigger_price,
        )


def test_B7_a_position_with_its_stop_loss_is_not_closed_for_a_take_profit_that_is_refused(
    rig: GatewayRig,
) -> None:
    venue = TakesNoProfit(rig.clock)
    rig.venue = rig.venues.by_account["acc"] = venue
    venue.presets_lost = True
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    for _ in range(20):
        rig.gateway.protect_now("acc")
        rig.clock.advance(3)
    assert venue.held["BTCUSDT"].size == Decimal("0.0123")
    assert venue._positions()[0].stops == StopPrices(STOPS.stop_loss)
    (told,) = rig.alerts.of_kind("protection")
    assert "take profit" in told.title
    (more,) = rig.gateway.submit("acc", rig.stamp(), [buy("af-2")])
    assert more.code == "unprotected"
    rows = len(rig.postgres.writes)
    for _ in range(20):  # not at every look: each costs a request, and a row for ever
        rig.gateway.protect_now("acc")
        rig.clock.advance(1)
    assert len(rig.postgres.writes) - rows <= 1
    venue.stops.clear()  # what it has is mended at once all the same
    rig.gateway.protect_now("acc")
    assert venue._positions()[0].stops == StopPrices(STOPS.stop_loss)
    venue.takes_profits = True
    rig.clock.advance(31)
    assert rig.gateway.protect_now("acc") == ()
    assert venue._positions()[0].stops == STOPS


class SilentAboutOrders(MemoryVenue):
    """Which answers everything but questions for orders, for which it lets one wait ten seconds."""

    is_silent = False

    def look_up(self, order: OrderRequest, *, priority: Priority = Priority.ORDER) -> SubmitResult:
        if not self.is_silent:
            return super().look_up(order, priority=priority)
        assert isinstance(self.clock, HandClock)
        self.clock.advance(10)
        return SubmitResult(order.client_id, Outcome.UNKNOWN, message="no answer")


def test_I2_silence_about_unknown_orders_delays_no_stop_by_more_than_one_answer(
    rig: GatewayRig,
) -> None:
    venue = SilentAboutOrders(rig.clock)
    rig.venue = rig.venues.by_account["acc"] = venue
    rig.gateway.submit("acc", rig.stamp(), [buy("af-0", stops=STOPS)])
    venue.script["submit_one"].extend([OutcomeUnknown("no answer")] * 3)
    unknown = [buy(f"af-{n}", "2", symbol="XRPUSDT") for n in (1, 2, 3)]
    rig.gateway.submit("acc", rig.stamp(), unknown)
    venue.stops.clear()
    venue.is_silent = True
    began = rig.clock.now()
    assert rig.gateway.protect_now("acc") == ()
    assert (rig.clock.now() - began).total_seconds() <= 10
    assert {name for name, _ in venue.stops} == {"BTCUSDT"}
    venue.is_silent = False
    for _ in range(40):
        rig.clock.advance(5)
        rig.gateway.protect_now("acc")
    assert venue.calls.count("order") >= 3  # all of them are asked for
