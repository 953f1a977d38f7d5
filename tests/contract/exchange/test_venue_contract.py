"""What every venue must do, whatever it is: the fake, and Bitget's adapter over the real wire.

Time stands still while the suite talks; `stage.pass_time` lets fills happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count, pairwise
from typing import TYPE_CHECKING

import pytest

from module.exchange.bitget_venue import CcxtVenues
from module.exchange.venue import NoPosition, Venue, VenueAccess, WrongSideOfPrice
from module.gateway.budget import RequestBudget
from module.model.accounts import MarginMode, PositionMode, TradeEnv
from module.model.errors import NotFound
from module.model.market import Frequency, MarketType
from module.model.money import round_down
from module.model.orders import OrderRequest, OrderStatus, OrderType, Outcome, Side, StopPrices
from module.ports import Clock
from tests.fakes.hand_clock import HandClock
from tests.fakes.memory_venue import MemoryVenue
from tests.fakes.simulator_process import RunningSimulator, running_simulator

if TYPE_CHECKING:
    from module.clock import WorldClock

pytestmark = pytest.mark.timeout(120)


@dataclass
class Stage:
    """A venue with a fresh account, and the clock of its world."""

    venue: Venue
    clock: Clock
    is_real: bool
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def pass_time(self, seconds: float = 1.2) -> None:
        self.clock.sleep(seconds)

    def mark(self, symbol: str = "BTCUSDT") -> Decimal:
        return self.venue.quotes([symbol])[symbol].mark

    def price(self, factor: str, symbol: str = "BTCUSDT") -> Decimal:
        """A price on the tick, at `factor` of the mark."""
        step = self.venue.instruments()[symbol].price_step
        return round_down(self.mark(symbol) * Decimal(factor), step)

    def order(self, side: Side, size: str, **changes: object) -> OrderRequest:
        values: dict[str, object] = {
            "client_id": f"af-contract-{next(self.numbers)}",
            "symbol": "BTCUSDT",
            "side": side,
            "size": Decimal(size),
            "reduce_only": False,
            **changes,
        }
        return OrderRequest(**values)  # type: ignore[arg-type]

    def send(self, *orders: OrderRequest) -> list[Outcome]:
        self.venue.admit_orders(orders)
        outcomes = [result.outcome for result in self.venue.submit(orders)]
        self.pass_time()
        return outcomes

    def held(self, symbol: str = "BTCUSDT") -> Decimal:
        return next((p.size for p in self.venue.positions() if p.symbol == symbol), Decimal(0))


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("simulator")) as running:
        yield running


@pytest.fixture(scope="module")
def world(simulator: RunningSimulator) -> Iterator[WorldClock]:
    clock = simulator.clock("contract-suite")
    yield clock
    clock.close()


@pytest.fixture(params=["memory", "bitget"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param == "memory":
        hand = HandClock()
        yield Stage(MemoryVenue(hand), hand, is_real=False)
        return
    simulator: RunningSimulator = request.getfixturevalue("simulator")
    clock: WorldClock = request.getfixturevalue("world")
    credentials = simulator.open_account()
    budget = RequestBudget(clock)
    access = VenueAccess("acc", simulator.base_url, MarketType.FUTURES, TradeEnv.PAPER, credentials)
    gate = budget.for_account(simulator.base_url, credentials.api_key)
    venue = CcxtVenues(clock).open_venue("bitget", access, gate)
    clock.sleep(1.2)
    yield Stage(venue, clock, is_real=True)
    venue.close()


def test_a_fresh_account_is_flat_one_way_and_has_its_money(stage: Stage) -> None:
    snapshot = stage.venue.snapshot()
    assert snapshot.equity == snapshot.wallet_balance == snapshot.available == Decimal(10_007)
    assert (snapshot.positions, snapshot.open_orders) == ((), ())
    assert snapshot.position_mode is PositionMode.ONE_WAY
    assert snapshot.at == stage.clock.now()


def test_the_key_may_trade_and_not_withdraw(stage: Stage) -> None:
    report = stage.venue.check_key()
    assert (report.may_trade, report.may_withdraw) == (True, False)


def test_trading_rules_are_steps_and_caps(stage: Stage) -> None:
    rules = stage.venue.instruments()["BTCUSDT"]
    assert rules.tradable
    assert rules.quote_asset == "USDT"
    assert min(rules.price_step, rules.size_step, rules.size_min, rules.leverage_max) > 0
    assert rules.taker_fee > 0


def test_quotes_are_of_the_symbols_asked_for(stage: Stage) -> None:
    quotes = stage.venue.quotes(["ETHUSDT", "BTCUSDT"])
    assert set(quotes) == {"BTCUSDT", "ETHUSDT"}
    assert quotes["BTCUSDT"].bid <= quotes["BTCUSDT"].ask
    with pytest.raises(NotFound, match="NOSUCHUSDT"):
        stage.venue.quotes(["NOSUCHUSDT"])


def test_a_market_buy_with_stops_becomes_a_protected_long(stage: Stage) -> None:
    stops = StopPrices(stage.price("0.9"), stage.price("1.1"))
    order = stage.order(Side.BUY, "0.0123", stops=stops)
    assert stage.send(order) == [Outcome.ACCEPTED]
    report = stage.venue.order("BTCUSDT", order.client_id)
    assert (report.status, report.filled_size) == (OrderStatus.FILLED, Decimal("0.0123"))
    (position,) = stage.venue.positions()
    assert (position.symbol, position.size) == ("BTCUSDT", Decimal("0.0123"))
    assert position.stops == stops
    assert {s.is_stop_loss: s.trigger_price for s in stage.venue.placed_stops()} == {
        True: stops.stop_loss,
        False: stops.take_profit,
    }


def test_a_short_is_negative_and_its_stops_lie_the_other_way(stage: Stage) -> None:
    stops = StopPrices(stage.price("1.1"), stage.price("0.9"))
    assert stage.send(stage.order(Side.SELL, "0.02", stops=stops)) == [Outcome.ACCEPTED]
    (position,) = stage.venue.positions()
    assert position.size == Decimal("-0.02")
    assert position.stops == stops
    assert not any(stop.protects_long for stop in stage.venue.placed_stops())


def test_a_batch_of_several_symbols_is_answered_order_by_order(stage: Stage) -> None:
    orders = [
        stage.order(Side.BUY, "0.01"),
        stage.order(Side.BUY, "0.5", symbol="ETHUSDT"),
        stage.order(Side.SELL, "100", symbol="XRPUSDT"),
        stage.order(Side.BUY, "0.02"),
    ]
    assert stage.send(*orders) == [Outcome.ACCEPTED] * 4
    assert stage.held() == Decimal("0.03")
    assert stage.held("XRPUSDT") == Decimal(-100)
    for order in orders:
        assert stage.venue.order(order.symbol, order.client_id).client_id == order.client_id


def test_A6_the_same_order_again_is_the_same_order(stage: Stage) -> None:
    order = stage.order(Side.BUY, "0.01")
    first = stage.send(order)
    again = stage.venue
    again.admit_orders([order])
    (result,) = again.submit([order])
    stage.pass_time()
    assert first == [result.outcome] == [Outcome.ACCEPTED]
    assert result.order_id == stage.venue.order("BTCUSDT", order.client_id).order_id
    assert stage.held() == Decimal("0.01")


def test_A6_another_order_under_the_same_id_is_a_clash_and_never_a_second_order(
    stage: Stage,
) -> None:
    order = stage.order(Side.BUY, "0.01")
    stage.send(order)
    other = stage.order(Side.BUY, "0.02", client_id=order.client_id)
    stage.venue.admit_orders([other])
    (result,) = stage.venue.submit([other])
    stage.pass_time()
    assert (result.outcome, result.code) == (Outcome.UNKNOWN, "client-id-clash")
    assert stage.held() == Decimal("0.01")


def test_reduce_only_reduces_and_closes(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.03", stops=StopPrices(stage.price("0.9"))))
    assert stage.send(stage.order(Side.SELL, "0.01", reduce_only=True)) == [Outcome.ACCEPTED]
    assert stage.held() == Decimal("0.02")
    stage.send(stage.order(Side.SELL, "0.02", reduce_only=True))
    assert stage.venue.positions() == ()
    assert stage.venue.placed_stops() == ()


def test_a_limit_order_rests_is_listed_and_can_be_cancelled_twice(stage: Stage) -> None:
    order = stage.order(Side.BUY, "0.01", order_type=OrderType.LIMIT, price=stage.price("0.97"))
    assert stage.send(order) == [Outcome.ACCEPTED]
    assert [r.client_id for r in stage.venue.snapshot().open_orders] == [order.client_id]
    stage.venue.cancel("BTCUSDT", order.client_id)
    stage.pass_time()
    stage.venue.cancel("BTCUSDT", order.client_id)
    assert stage.venue.order("BTCUSDT", order.client_id).status is OrderStatus.CANCELED
    assert stage.venue.snapshot().open_orders == ()


def test_an_order_that_nobody_sent_is_not_found(stage: Stage) -> None:
    with pytest.raises(NotFound):
        stage.venue.order("BTCUSDT", "af-never-sent")
    unsent = stage.order(Side.BUY, "0.01")
    assert stage.venue.look_up(unsent).outcome is Outcome.UNKNOWN


def test_a_stop_is_an_upsert_and_can_be_removed(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.03"))
    place: Callable[[str], None] = lambda factor: stage.venue.set_stop(  # noqa: E731
        "BTCUSDT", is_stop_loss=True, protects_long=True, trigger_price=stage.price(factor)
    )
    place("0.8")
    (first,) = stage.venue.placed_stops()
    place("0.85")
    (second,) = stage.venue.placed_stops()
    assert first.trigger_price < second.trigger_price
    assert (second.symbol, second.is_stop_loss, second.protects_long) == ("BTCUSDT", True, True)
    stage.venue.remove_stop(second)
    assert stage.venue.placed_stops() == ()
    stage.venue.remove_stop(second)


def test_B6_a_stop_beyond_the_market_is_refused_by_name(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.03"))
    for is_loss, factor in ((True, "1.05"), (False, "0.95")):
        with pytest.raises(WrongSideOfPrice):
            stage.venue.set_stop(
                "BTCUSDT",
                is_stop_loss=is_loss,
                protects_long=True,
                trigger_price=stage.price(factor),
            )
    assert stage.venue.placed_stops() == ()


def test_a_stop_without_a_position_is_refused_by_name(stage: Stage) -> None:
    with pytest.raises(NoPosition):
        stage.venue.set_stop(
            "BTCUSDT", is_stop_loss=True, protects_long=True, trigger_price=stage.price("0.8")
        )


def test_leverage_and_margin_mode_are_read_back(stage: Stage) -> None:
    stage.venue.set_margin_mode("ETHUSDT", MarginMode.ISOLATED)
    stage.venue.set_leverage("ETHUSDT", Decimal(7))
    mode = stage.venue.trading_mode("ETHUSDT")
    assert mode.position_mode is PositionMode.ONE_WAY
    assert (mode.settings.leverage, mode.settings.margin_mode) == (
        Decimal(7),
        MarginMode.ISOLATED,
    )
    stage.pass_time()
    stage.venue.set_leverage("ETHUSDT", Decimal(7))
    assert stage.send(stage.order(Side.BUY, "0.5", symbol="ETHUSDT")) == [Outcome.ACCEPTED]
    (position,) = stage.venue.positions()
    assert (position.leverage, position.margin_mode) == (Decimal(7), MarginMode.ISOLATED)


def test_fills_are_told_oldest_first_from_a_moment_on(stage: Stage) -> None:
    before = stage.clock.now()
    stage.send(stage.order(Side.BUY, "0.03"))
    middle = stage.clock.now()
    stage.send(stage.order(Side.SELL, "0.01", reduce_only=True))
    fills = stage.venue.fills(before)
    assert sum(fill.size * fill.side.sign for fill in fills) == Decimal("0.02")
    assert [fill.at for fill in fills] == sorted(fill.at for fill in fills)
    assert {fill.side for fill in stage.venue.fills(middle)} == {Side.SELL}


def test_money_adds_up_to_the_last_digit(stage: Stage) -> None:
    before = stage.clock.now()
    if not stage.is_real:
        pytest.skip("the fake pays no fees")
    stage.send(stage.order(Side.BUY, "0.03"))
    stage.send(stage.order(Side.SELL, "0.03", reduce_only=True))
    snapshot = stage.venue.snapshot()
    bills = stage.venue.bills(before)
    assert Decimal(10_007) + sum(b.amount + b.fee for b in bills) == snapshot.wallet_balance
    (closed,) = stage.venue.closed_positions(before)
    assert closed.net_profit == snapshot.equity - Decimal(10_007)
    fills = stage.venue.fills(before)
    assert sum(f.fee for f in fills) == closed.open_fee + closed.close_fee
    assert all(f.fee < 0 and f.fee_asset == "USDT" for f in fills)


def test_candles_are_closed_oldest_first_and_on_the_grid(
    simulator: RunningSimulator, world: WorldClock
) -> None:
    gate = RequestBudget(world).for_account(simulator.base_url, "public")
    market = CcxtVenues(world).open_public("bitget", simulator.base_url, gate)
    for frequency, wanted in (
        (Frequency.MINUTE_1, 450),
        (Frequency.MINUTE_5, 3),
        (Frequency.HOUR_1, 26),
        (Frequency.DAY_1, 5),
        (Frequency.WEEK_1, 2),
    ):
        now = world.now()
        candles = market.candles(MarketType.FUTURES, "BTCUSDT", frequency, now, wanted)
        assert len(candles) == wanted, frequency
        opens = [candle.opens_at for candle in candles]
        assert all(b - a == frequency.length for a, b in pairwise(opens))
        assert candles[-1].closes_at <= now < candles[-1].closes_at + frequency.length
        monday = datetime(1970, 1, 5, tzinfo=UTC)
        assert all((opened - monday) % frequency.length == opened - opened for opened in opens)
        assert all(c.low <= min(c.open, c.close) <= c.high for c in candles)
        world.sleep(1.2)
    with pytest.raises(NotFound):
        market.candles(MarketType.FUTURES, "NOSUCHUSDT", Frequency.MINUTE_1, world.now(), 3)
    market.close()
