"""What every venue must do, whatever it is: the fake, and Bitget's adapter over the real wire.

A venue enters with a harness of its own (`harness.py`): how to open an account, move a price, make
a call fail. Time stands still while the suite talks; `stage.pass_time` lets fills happen. Cases:

    ids            an order is found under its client id, and nobody else's order is
    idempotence    the same order again is the same order; another one under its id is a clash
    unknown        an answer that is lost or is nonsense proves nothing, and asking finds the order
    refusals       no money; against the trading rules, which says so; off the lot
    retryable      rate limit, maintenance: nothing was sent, and it can be sent afterwards
    credentials    refused keys are Forbidden and not asked again at once; the key's rights, family
    reduce-only    reduces, closes, and its position's stops go with it
    stops          placed with the order, read, moved, removed, wrong side, no position, lost answer
    fills          whole, in part, told once and oldest first, histories page by page
    settings       one-way mode, leverage, margin mode are read back as set; hedge mode is told
    money          adds up to the last digit; every number is exact
    clock          the exchange's time is compared with ours
    public data    rules, quotes, candles
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from module.exchange.bitget_venue import CcxtVenues
from module.exchange.venue import AccountFamily, NoPosition, WrongSideOfPrice
from module.gateway.budget import RequestBudget
from module.model.accounts import MarginMode, PositionMode
from module.model.errors import (
    Forbidden,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    Retryable,
    Unavailable,
)
from module.model.market import Frequency, MarketType
from module.model.orders import OrderStatus, OrderType, Outcome, Side, StopPrices
from tests.contract.exchange.harness import (
    HARNESSES,
    BitgetHarness,
    Failure,
    MemoryHarness,
    Operation,
    Stage,
    opened_simulator,
)
from tests.fakes.simulator_process import RunningSimulator

if TYPE_CHECKING:
    from module.clock import WorldClock

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def simulator(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[RunningSimulator, WorldClock]]:
    with opened_simulator(tmp_path_factory.mktemp("simulator")) as running:
        yield running


@pytest.fixture(params=HARNESSES)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param == "memory":
        yield Stage(MemoryHarness())
        return
    simulator, clock = request.getfixturevalue("simulator")
    harness = BitgetHarness(simulator, clock)
    yield Stage(harness)
    harness.venue.close()
    simulator.control("DELETE", "faults")


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
    if not stage.harness.pays_fees:
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
    simulator: tuple[RunningSimulator, WorldClock],
) -> None:
    exchange, world = simulator
    gate = RequestBudget(world).for_account(exchange.base_url, "public")
    market = CcxtVenues(world).open_public("bitget", exchange.base_url, gate)
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


# --- what goes wrong ---


@pytest.mark.parametrize("failure", [Failure.LOST_ANSWER, Failure.NONSENSE])
def test_A1_A5_an_answer_that_proves_nothing_is_unknown_and_asking_finds_the_order(
    stage: Stage, failure: Failure
) -> None:
    order = stage.order(Side.BUY, "0.01")
    stage.harness.fail_next(Operation.SUBMIT, failure)
    assert stage.send(order) == [Outcome.UNKNOWN]
    assert stage.venue.look_up(order).outcome is Outcome.ACCEPTED
    assert stage.send(order) == [Outcome.ACCEPTED]
    assert stage.held() == Decimal("0.01")


def test_A18_a_refusal_is_final_has_the_venues_code_and_leaves_nothing(stage: Stage) -> None:
    order = stage.order(Side.BUY, "0.01")
    stage.harness.fail_next(Operation.SUBMIT, Failure.NO_MONEY)
    stage.venue.admit_orders([order])
    (result,) = stage.venue.submit([order])
    assert (result.outcome, result.code) == (Outcome.REJECTED, "40762")
    assert not result.rules_changed
    stage.pass_time()
    assert stage.held() == 0
    with pytest.raises(NotFound):
        stage.venue.order("BTCUSDT", order.client_id)


def test_A19_a_refusal_of_size_or_price_says_that_the_rules_may_have_changed(
    stage: Stage,
) -> None:
    order = stage.order(Side.BUY, "0.01")
    stage.harness.fail_next(Operation.SUBMIT, Failure.AGAINST_RULES)
    stage.venue.admit_orders([order])
    (result,) = stage.venue.submit([order])
    assert (result.outcome, result.rules_changed) == (Outcome.REJECTED, True)
    stage.pass_time()
    assert stage.venue.instruments()["BTCUSDT"].tradable


@pytest.mark.parametrize(
    ("failure", "error", "wait_s"),
    [(Failure.RATE_LIMITED, RateLimited, 7), (Failure.MAINTENANCE, Unavailable, 1)],
)
def test_A12_A14_what_was_not_sent_says_so_and_can_be_sent_afterwards(
    stage: Stage, failure: Failure, error: type[Retryable], wait_s: float
) -> None:
    order = stage.order(Side.BUY, "0.01")
    stage.harness.fail_next(Operation.SUBMIT, failure)
    stage.venue.admit_orders([order])
    with pytest.raises(error) as caught:
        stage.venue.submit([order])
    assert failure is not Failure.RATE_LIMITED or caught.value.retry_after_s == 7
    stage.pass_time(wait_s + 1)
    assert stage.send(order) == [Outcome.ACCEPTED]
    assert stage.held() == Decimal("0.01")


def test_A16_refused_keys_are_forbidden(stage: Stage) -> None:
    stage.harness.fail_next(Operation.POSITIONS, Failure.BAD_KEYS)
    with pytest.raises(Forbidden):
        stage.venue.positions()
    stage.pass_time(301)
    assert stage.venue.positions() == ()


def test_B5_a_stop_whose_answer_is_lost_is_unknown_and_may_be_repeated(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.03"))
    price = stage.price("0.8")
    stage.harness.fail_next(Operation.SET_STOP, Failure.LOST_ANSWER)
    place = partial(
        stage.venue.set_stop,
        "BTCUSDT",
        is_stop_loss=True,
        protects_long=True,
        trigger_price=price,
    )
    with pytest.raises(OutcomeUnknown):
        place()
    place()
    assert [stop.trigger_price for stop in stage.venue.placed_stops()] == [price]


def test_B1_a_part_of_an_order_is_a_part_of_a_position(stage: Stage) -> None:
    order = stage.order(Side.BUY, "0.05", order_type=OrderType.LIMIT, price=stage.price("0.97"))
    stage.send(order)
    stage.harness.fill_part(order.client_id)
    stage.venue.order("BTCUSDT", order.client_id)
    stage.pass_time()
    report = stage.venue.order("BTCUSDT", order.client_id)
    assert report.status is OrderStatus.CANCELED
    assert 0 < report.filled_size < report.size == Decimal("0.05")
    assert report.average_price is not None
    assert stage.held() == report.filled_size
    assert sum(fill.size for fill in stage.venue.fills(order_time(stage))) == report.filled_size


def order_time(stage: Stage) -> datetime:
    return stage.clock.now() - timedelta(minutes=5)


# --- the account as it is set ---


def test_A22_hedge_mode_is_told_and_never_switched_back(stage: Stage) -> None:
    stage.harness.to_hedge_mode()
    assert stage.venue.trading_mode("BTCUSDT").position_mode is PositionMode.HEDGE
    assert stage.venue.check_key().position_mode is PositionMode.HEDGE


def test_the_key_belongs_to_a_classic_account_in_one_way_mode(stage: Stage) -> None:
    report = stage.venue.check_key()
    assert report.family is AccountFamily.CLASSIC
    assert report.position_mode is PositionMode.ONE_WAY
    assert not report.shares_collateral


def test_A23_the_clocks_of_a_healthy_exchange_agree(stage: Stage) -> None:
    assert abs(stage.venue.measure_clock()) < 2


# --- numbers ---


def test_every_number_is_exact(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.0123"))
    snapshot = stage.venue.snapshot()
    (position,) = snapshot.positions
    for number in (
        *(snapshot.equity, snapshot.available, snapshot.wallet_balance, snapshot.margin_used),
        *(position.size, position.entry_price, position.mark_price, position.margin_size),
    ):
        assert type(number) is Decimal
        assert number.is_finite()
    assert position.unrealized_pnl == position.size * (position.mark_price - position.entry_price)
    assert snapshot.equity == snapshot.wallet_balance + snapshot.unrealized_pnl


def test_profit_follows_the_mark(stage: Stage) -> None:
    stage.send(stage.order(Side.SELL, "0.02"))
    before = stage.venue.snapshot().equity
    stage.harness.move_price("BTCUSDT", "0.98")
    stage.pass_time()
    assert stage.venue.snapshot().equity > before


def test_histories_are_read_to_their_last_page(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    since = stage.clock.now()
    for _ in range(4):
        assert stage.send(stage.order(Side.BUY, "0.001"), stage.order(Side.BUY, "0.002")) == [
            Outcome.ACCEPTED,
            Outcome.ACCEPTED,
        ]
    stage.harness.use_small_pages(monkeypatch)
    fills = stage.venue.fills(since)
    assert len({fill.trade_id for fill in fills}) == len(fills) >= 8
    assert sum(fill.size for fill in fills) == Decimal("0.012")
    if stage.harness.pays_fees:
        assert len(stage.venue.bills(since)) >= 8
