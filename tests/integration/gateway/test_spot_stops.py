"""Stops of spot coins at the real paper exchange: the gateway keeps them as trigger orders."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest

from module.clock import WorldClock
from module.exchange.venue import PlacedStop, WrongSideOfPrice
from module.model.market import MarketType
from module.model.orders import Outcome, Side, StopPrices
from tests.fakes.faulty_exchange import FaultyExchange, faulty_exchange
from tests.fakes.gateway_rig import buy, sell
from tests.fakes.simulator_process import RunningSimulator, running_simulator

pytestmark = pytest.mark.timeout(120)
Running = tuple[RunningSimulator, WorldClock]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_simulator(tmp_path_factory.mktemp("simulator")) as simulator:
        clock = simulator.clock("spot-stops")
        yield simulator, clock
        clock.close()


@pytest.fixture
def exchange(running: Running) -> Iterator[FaultyExchange]:
    with faulty_exchange(*running, market=MarketType.SPOT) as found:
        yield found


def placed(exchange: FaultyExchange) -> dict[bool, PlacedStop]:
    stops = exchange.gateway._desk.open(exchange.account_id).venue.placed_stops()
    assert len({stop.is_stop_loss for stop in stops}) == len(stops)
    return {stop.is_stop_loss: stop for stop in stops}


def coins(exchange: FaultyExchange, asset: str = "BTC") -> Decimal:
    balances = exchange.gateway.snapshot(exchange.account_id).balances
    return next((item.free for item in balances if item.asset == asset), Decimal(0))


def protected_coin(exchange: FaultyExchange) -> StopPrices:
    stops = exchange.stops()
    (result,) = exchange.submit(buy("af-1", "0.02", stops=stops))
    assert result.outcome is Outcome.ACCEPTED
    exchange.look()
    return stops


def test_bought_coins_have_exactly_their_stops_and_the_size_follows_the_balance(
    exchange: FaultyExchange,
) -> None:
    stops = protected_coin(exchange)
    found = placed(exchange)
    assert (found[True].trigger_price, found[False].trigger_price) == (
        stops.stop_loss,
        stops.take_profit,
    )
    lot = exchange.gateway.instruments(exchange.account_id)["BTCUSDT"].size_step
    assert {stop.size for stop in found.values()} == {coins(exchange) // lot * lot}
    ids = {stop.order_id for stop in found.values()}
    exchange.submit(sell("af-2", "0.005"))
    exchange.look()
    found = placed(exchange)
    assert {stop.size for stop in found.values()} == {coins(exchange) // lot * lot}
    assert {stop.order_id for stop in found.values()} == ids, "moved in place, never a gap"


def test_B5_a_stop_whose_answer_is_lost_is_there_once(exchange: FaultyExchange) -> None:
    rule = {"operation": "place-plan-order", "answer": "drop"}
    exchange.simulator.control("POST", "faults", rule)
    stops = protected_coin(exchange)
    assert exchange.fired() == 1
    exchange.look()
    assert {s.is_stop_loss: s.trigger_price for s in placed(exchange).values()} == {
        True: stops.stop_loss,
        False: stops.take_profit,
    }


def test_promise_2_a_removed_stop_is_back_at_the_next_look(exchange: FaultyExchange) -> None:
    protected_coin(exchange)
    venue = exchange.gateway._desk.open(exchange.account_id).venue
    for stop in venue.placed_stops():
        venue.remove_stop(stop)
        venue.remove_stop(stop)
    assert placed(exchange) == {}
    exchange.look()
    assert set(placed(exchange)) == {True, False}


def test_the_session_moves_and_removes_them_and_cannot_put_them_beyond_the_price(
    exchange: FaultyExchange,
) -> None:
    protected_coin(exchange)
    only_loss = StopPrices(exchange.price("0.95"))
    gateway, account_id = exchange.gateway, exchange.account_id
    assert gateway.set_stops(account_id, exchange.stamp(), "BTCUSDT", only_loss) == only_loss
    assert set(placed(exchange)) == {True}
    with pytest.raises(WrongSideOfPrice):
        gateway.set_stops(
            account_id, exchange.stamp(), "BTCUSDT", StopPrices(exchange.price("1.02"))
        )
    assert placed(exchange)[True].trigger_price == only_loss.stop_loss


def test_a_stop_that_fires_sells_the_coin_once_and_leaves_nothing_behind(
    exchange: FaultyExchange,
) -> None:
    protected_coin(exchange)
    exchange.simulator.control("POST", "prices", {"symbol": "BTCUSDT", "factor": "0.85"})
    exchange.look()
    assert coins(exchange) * exchange.price("1") < 1, "less than can be sold"
    exchange.look(12)
    assert placed(exchange) == {}
    assert exchange.gateway._desk.open(exchange.account_id).wanted == {}
    assert exchange.alerts.of_kind("protection") == []
    rows = exchange.ledger()["spot_orders"]
    assert isinstance(rows, list)
    sales = [row for row in rows if row["side"] == Side.SELL.value]
    assert len(sales) == 1


def test_a_sale_of_everything_takes_the_stops_with_it(exchange: FaultyExchange) -> None:
    protected_coin(exchange)
    lot = exchange.gateway.instruments(exchange.account_id)["BTCUSDT"].size_step
    (result,) = exchange.submit(sell("af-2", str(coins(exchange) // lot * lot)))
    assert result.outcome is Outcome.ACCEPTED, "waiting stops lock nothing"
    exchange.look()
    assert placed(exchange) == {}


def test_B6_a_price_that_has_passed_the_stop_sells_the_coin_at_market(
    exchange: FaultyExchange,
) -> None:
    exchange.submit(buy("af-1", "0.02", stops=exchange.stops()))
    exchange.simulator.control("POST", "prices", {"symbol": "BTCUSDT", "factor": "0.85"})
    exchange.look()
    exchange.clock.sleep(1.2)
    assert coins(exchange) * exchange.price("1") < 1
    assert len(exchange.alerts.of_kind("protection")) == 1


def test_stops_on_the_wrong_side_are_refused_before_anything_is_bought(
    exchange: FaultyExchange,
) -> None:
    wrong = StopPrices(exchange.price("1.05"))
    (result,) = exchange.submit(buy("af-1", "0.02", stops=wrong))
    assert (result.outcome, result.code) == (Outcome.REJECTED, WrongSideOfPrice.code)
    assert coins(exchange) == 0
