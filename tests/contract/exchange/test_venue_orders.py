"""The venue contract, orders: ids, idempotence, batches, parts, cancels, and what goes wrong.

Every case runs for every venue and market of `harness.py`; time stands still while the suite talks,
and `stage.pass_time` lets fills happen. docs/venues.md lists all cases.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from module.exchange.venue import Ability
from module.model.errors import (
    Forbidden,
    NotFound,
    RateLimited,
    Retryable,
    Unavailable,
)
from module.model.money import round_down
from module.model.orders import (
    OrderReport,
    OrderRequest,
    OrderStatus,
    OrderType,
    Outcome,
    Side,
)
from tests.contract.exchange.harness import Failure, Operation, Stage

pytestmark = pytest.mark.timeout(120)
needs = pytest.mark.needs


def test_a_market_buy_is_filled_and_held(stage: Stage) -> None:
    order = stage.order(Side.BUY, "0.0123")
    assert stage.send(order) == [Outcome.ACCEPTED]
    report = stage.venue.order("BTCUSDT", order.client_id)
    assert report.status is OrderStatus.FILLED
    assert report.filled_size == stage.about("0.0123")
    assert stage.held() == stage.about("0.0123")
    assert stage.held() <= report.filled_size <= Decimal("0.0123")


@needs(Ability.SHORT)
def test_a_sell_of_what_is_not_held_is_a_short(stage: Stage) -> None:
    assert stage.send(stage.order(Side.SELL, "0.02")) == [Outcome.ACCEPTED]
    assert stage.held() == Decimal("-0.02")


@pytest.mark.lacks(Ability.SHORT)
def test_without_shorts_a_sell_of_what_is_not_held_is_refused(stage: Stage) -> None:
    assert stage.send(stage.order(Side.SELL, "0.02")) == [Outcome.REJECTED]
    assert stage.held() == 0


def test_a_batch_of_several_symbols_is_answered_order_by_order(stage: Stage) -> None:
    orders = [
        stage.order(Side.BUY, "0.01"),
        stage.order(Side.BUY, "0.5", symbol="ETHUSDT"),
        stage.order(Side.BUY, "100", symbol="XRPUSDT"),
        stage.order(Side.BUY, "0.02"),
    ]
    assert stage.send(*orders) == [Outcome.ACCEPTED] * 4
    assert stage.held() == stage.about("0.03")
    assert stage.held("XRPUSDT") == stage.about("100")
    for order in orders:
        assert stage.venue.order(order.symbol, order.client_id).client_id == order.client_id


def test_A7_a_bad_leg_of_a_batch_spoils_no_other(stage: Stage) -> None:
    too_large = "1000000000"
    orders = [stage.order(Side.BUY, s, symbol="XRPUSDT") for s in ("100", too_large, "120")]
    assert stage.send(*orders) == [Outcome.ACCEPTED, Outcome.REJECTED, Outcome.ACCEPTED]
    assert stage.held("XRPUSDT") == stage.about("220")
    with pytest.raises(NotFound):
        stage.venue.order("XRPUSDT", orders[1].client_id)


def test_A6_the_same_order_again_is_the_same_order(stage: Stage) -> None:
    order = stage.order(Side.BUY, "0.01")
    first = stage.send(order)
    stage.venue.admit_orders([order])
    (result,) = stage.venue.submit([order])
    stage.pass_time()
    assert first == [result.outcome] == [Outcome.ACCEPTED]
    assert result.order_id == stage.venue.order("BTCUSDT", order.client_id).order_id
    assert stage.held() == stage.about("0.01")


def test_A6_another_order_under_the_same_id_is_a_clash_and_never_a_second_order(
    stage: Stage,
) -> None:
    order = stage.resting("0.01")
    stage.send(order)
    other = replace(order, size=Decimal("0.02"))
    stage.venue.admit_orders([other])
    (result,) = stage.venue.submit([other])
    stage.pass_time()
    assert (result.outcome, result.code) == (Outcome.UNKNOWN, "client-id-clash")
    assert [r.size for r in stage.venue.snapshot().open_orders] == [Decimal("0.01")]


def test_what_is_held_is_reduced_and_closed(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.03"))
    assert stage.send(stage.closing("0.01")) == [Outcome.ACCEPTED]
    assert stage.held() == pytest.approx(Decimal("0.02"), rel=Decimal("0.01"))
    assert stage.send(stage.closing(stage.sellable())) == [Outcome.ACCEPTED]
    assert stage.sellable() == 0
    assert stage.venue.positions() == stage.venue.holdings() == ()


@needs(Ability.POSITIONS)
def test_reduce_only_never_turns_a_position_round(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.03"))
    stage.send(stage.closing("0.05"))
    assert 0 <= stage.held() <= Decimal("0.03")
    stage.send(stage.closing(stage.held() or "0.01"))
    stage.send(stage.closing("0.01"))
    assert stage.held() == 0


def test_a_limit_order_rests_is_listed_and_can_be_cancelled_twice(stage: Stage) -> None:
    order = stage.resting()
    assert stage.send(order) == [Outcome.ACCEPTED]
    (report,) = stage.venue.snapshot().open_orders
    assert (report.client_id, report.status) == (order.client_id, OrderStatus.LIVE)
    stage.venue.cancel("BTCUSDT", order.client_id)
    stage.pass_time()
    stage.venue.cancel("BTCUSDT", order.client_id)
    assert stage.venue.order("BTCUSDT", order.client_id).status is OrderStatus.CANCELED
    assert stage.venue.snapshot().open_orders == ()


def test_A31_cancelling_what_has_filled_is_done_and_undoes_nothing(stage: Stage) -> None:
    order = stage.order(Side.BUY, "0.01")
    stage.send(order)
    stage.venue.cancel("BTCUSDT", order.client_id)
    assert stage.venue.order("BTCUSDT", order.client_id).status is OrderStatus.FILLED
    assert stage.held() == stage.about("0.01")


def test_an_order_that_nobody_sent_is_not_found(stage: Stage) -> None:
    with pytest.raises(NotFound):
        stage.venue.order("BTCUSDT", "af-never-sent")
    with pytest.raises(NotFound):
        stage.venue.cancel("BTCUSDT", "af-never-sent")
    unsent = stage.order(Side.BUY, "0.01")
    assert stage.venue.look_up(unsent).outcome is Outcome.UNKNOWN


def partly_filled(stage: Stage, size: Decimal) -> tuple[OrderRequest, OrderReport]:
    """A buy of `size` of XRPUSDT at the best price, of which the market took a part."""
    for _ in range(5):
        best = stage.venue.quotes(["XRPUSDT"])["XRPUSDT"].ask
        order = stage.order(
            Side.BUY, size, symbol="XRPUSDT", order_type=OrderType.LIMIT, price=best
        )
        assert stage.send(order) == [Outcome.ACCEPTED]
        part = stage.venue.order("XRPUSDT", order.client_id)
        if part.status is OrderStatus.PARTIALLY_FILLED:
            return order, part
        # the price fell on the way, and a deeper book took the whole
        sale = stage.closing(stage.sellable("XRPUSDT"), "XRPUSDT")
        assert stage.send(sale) == [Outcome.ACCEPTED]
    raise AssertionError("the market takes the whole, whatever is asked of it")


def test_an_order_fills_in_part_rests_alive_and_fills_the_rest(stage: Stage) -> None:
    stage.harness.deposit("400000")
    size = stage.harness.thin_market("XRPUSDT")
    since = stage.clock.now()
    order, part = partly_filled(stage, size)
    assert 0 < part.filled_size < part.size == size
    assert stage.held("XRPUSDT") == pytest.approx(part.filled_size, rel=Decimal("0.002"))
    (listed,) = stage.venue.snapshot().open_orders
    assert (listed.client_id, listed.size) == (order.client_id, size)
    assert listed.filled_size == part.filled_size
    whole = part
    for _ in range(8):
        stage.harness.bring_market_back(order)
        stage.pass_time()
        whole = stage.venue.order("XRPUSDT", order.client_id)
        if whole.status.is_terminal:
            break
    assert (whole.status, whole.filled_size) == (OrderStatus.FILLED, size)
    fills = [fill for fill in stage.venue.fills(since) if fill.order_id == whole.order_id]
    assert len(fills) >= 2
    assert sum(fill.size for fill in fills) == size
    assert order.price is not None
    assert all(fill.price <= order.price for fill in fills)
    assert stage.venue.snapshot().open_orders == ()


def test_B1_a_part_of_an_order_is_a_part_of_what_is_held(stage: Stage) -> None:
    since = stage.clock.now() - timedelta(minutes=5)
    order = stage.resting("0.05")
    stage.send(order)
    stage.harness.fill_part(order.client_id)
    stage.venue.order("BTCUSDT", order.client_id)
    stage.pass_time()
    report = stage.venue.order("BTCUSDT", order.client_id)
    assert report.status is OrderStatus.CANCELED
    assert 0 < report.filled_size < report.size == Decimal("0.05")
    assert report.average_price is not None
    assert stage.held() == pytest.approx(report.filled_size, rel=Decimal("0.002"))
    assert sum(fill.size for fill in stage.venue.fills(since)) == report.filled_size


# --- numbers on their way out ---


def test_sizes_and_prices_arrive_digit_by_digit_and_without_an_exponent(stage: Stage) -> None:
    size, price = Decimal("1E+2"), stage.price("0.97", "XRPUSDT").normalize()
    order = stage.resting(size, symbol="XRPUSDT", price=price)
    assert stage.send(order) == [Outcome.ACCEPTED]
    (report,) = stage.venue.snapshot().open_orders
    assert report.size == size
    assert stage.venue.look_up(order).outcome is Outcome.ACCEPTED


def test_A17_a_size_off_the_lot_is_refused_and_never_rounded(stage: Stage) -> None:
    step = stage.venue.instruments()["BTCUSDT"].size_step
    order = stage.resting(Decimal("0.01") + step / 10)
    stage.venue.admit_orders([order])
    (result,) = stage.venue.submit([order])
    assert result.outcome is Outcome.REJECTED
    assert result.rules_changed
    assert stage.venue.snapshot().open_orders == ()


def test_A17_a_price_off_the_tick_is_refused_and_never_rounded(stage: Stage) -> None:
    step = stage.venue.instruments()["BTCUSDT"].price_step
    order = stage.resting(price=stage.price("0.97") + step / 10)
    stage.venue.admit_orders([order])
    (result,) = stage.venue.submit([order])
    assert result.outcome is Outcome.REJECTED
    assert result.rules_changed
    assert stage.venue.snapshot().open_orders == ()


def test_a_market_buy_never_spends_more_than_its_size_is_worth(stage: Stage) -> None:
    since, size = stage.clock.now(), Decimal("0.0123")
    ask = stage.venue.quotes(["BTCUSDT"])["BTCUSDT"].ask
    stage.send(stage.order(Side.BUY, size))
    fills = stage.venue.fills(since)
    assert sum(fill.size for fill in fills) <= size
    spent = sum((fill.quote_size for fill in fills), Decimal(0))
    assert spent <= round_down(size * ask, Decimal("0.01")) * Decimal("1.01")


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
    assert stage.held() == stage.about("0.01")


def test_A18_a_refusal_is_final_has_the_venues_code_and_leaves_nothing(stage: Stage) -> None:
    order = stage.order(Side.BUY, "0.01")
    stage.harness.fail_next(Operation.SUBMIT, Failure.NO_MONEY)
    stage.venue.admit_orders([order])
    (result,) = stage.venue.submit([order])
    assert (result.outcome, result.code) == (Outcome.REJECTED, stage.harness.no_money_code)
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
    assert stage.held() == stage.about("0.01")


def test_A16_refused_keys_are_forbidden(stage: Stage) -> None:
    stage.harness.fail_next(Operation.HOLDINGS, Failure.BAD_KEYS)
    with pytest.raises(Forbidden):
        stage.venue.holdings()
    stage.pass_time(301)
    assert stage.venue.holdings() == ()
