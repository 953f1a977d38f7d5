"""The venue contract, the account: key, modes, settings, clock, money, histories, connections."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import psutil
import pytest

from module.exchange.venue import Ability, AccountFamily, UnifiedAccount
from module.model.accounts import MarginMode, PositionMode
from module.model.errors import InvalidInput, NotFound
from module.model.orders import Outcome, Side
from tests.contract.exchange.harness import (
    MONEY,
    Failure,
    Operation,
    Stage,
    Trait,
)

pytestmark = pytest.mark.timeout(120)
needs, lacks = pytest.mark.needs, pytest.mark.lacks
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def test_a_venue_declares_what_its_harness_declares(stage: Stage) -> None:
    assert stage.venue.abilities == stage.harness.abilities


def test_a_fresh_account_is_flat_and_has_its_money(stage: Stage) -> None:
    snapshot = stage.venue.snapshot()
    assert snapshot.equity == snapshot.wallet_balance == snapshot.available == MONEY
    assert (snapshot.positions, snapshot.open_orders) == ((), ())
    assert snapshot.position_mode is PositionMode.ONE_WAY
    assert snapshot.at == stage.clock.now()
    assert stage.venue.holdings() == ()


# --- key, family, modes ---


def test_the_key_may_trade_and_not_withdraw(stage: Stage) -> None:
    report = stage.venue.check_key()
    assert (report.may_trade, report.may_withdraw) == (True, False)
    assert report.family is AccountFamily.CLASSIC
    assert not report.shares_collateral


def test_a_key_of_another_account_family_is_refused_by_name(stage: Stage) -> None:
    stage.harness.fail_next(Operation.CHECK_KEY, Failure.OTHER_FAMILY)
    with pytest.raises(UnifiedAccount):
        stage.venue.check_key()
    stage.pass_time()
    assert stage.venue.check_key().may_trade


@needs(Ability.LEVERAGE)
def test_A22_hedge_mode_is_told_and_never_switched_back(stage: Stage) -> None:
    assert stage.venue.check_key().position_mode is PositionMode.ONE_WAY
    stage.pass_time()
    stage.harness.to_hedge_mode()
    assert stage.venue.trading_mode("BTCUSDT").position_mode is PositionMode.HEDGE
    assert stage.venue.check_key().position_mode is PositionMode.HEDGE


@needs(Ability.LEVERAGE)
def test_shared_collateral_is_told(stage: Stage) -> None:
    assert not stage.venue.trading_mode("BTCUSDT").shares_collateral
    stage.harness.share_collateral()
    assert stage.venue.trading_mode("BTCUSDT").shares_collateral


@needs(Ability.LEVERAGE)
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


@lacks(Ability.LEVERAGE)
def test_without_leverage_settings_are_refused_by_name(stage: Stage) -> None:
    with pytest.raises(InvalidInput):
        stage.venue.trading_mode("ETHUSDT")
    with pytest.raises(InvalidInput):
        stage.venue.set_leverage("ETHUSDT", Decimal(7))
    with pytest.raises(InvalidInput):
        stage.venue.set_margin_mode("ETHUSDT", MarginMode.ISOLATED)
    assert stage.venue.check_key().position_mode in (None, PositionMode.ONE_WAY)


@lacks(Ability.POSITIONS)
def test_without_positions_coins_are_balances_and_holdings(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.0123"))
    assert stage.venue.positions() == ()
    assert stage.venue.closed_positions(LONG_AGO) == []
    (held,) = stage.venue.holdings()
    assert (held.symbol, held.size) == ("BTCUSDT", stage.sellable())
    assert held.mark_price == stage.mark()


@lacks(Ability.POSITIONS)
def test_without_positions_a_snapshot_tells_all_of_a_coin_and_what_can_be_sold(
    stage: Stage,
) -> None:
    stage.send(stage.order(Side.BUY, "0.0123"))
    snapshot = stage.venue.snapshot()
    (coin,) = snapshot.positions
    assert (coin.symbol, coin.size) == ("BTCUSDT", stage.held())
    assert coin.free_size == stage.sellable()
    assert coin.leverage == 1
    assert coin.liquidation_price is None
    assert coin.unrealized_pnl == 0
    assert snapshot.equity == snapshot.available + coin.value
    assert snapshot.margin_used == 0


# --- clock ---


def test_A23_the_clocks_of_a_healthy_exchange_agree(stage: Stage) -> None:
    assert abs(stage.venue.measure_clock()) < 2


def test_A23_a_clock_that_is_ahead_is_measured_and_orders_go_on(stage: Stage) -> None:
    stage.venue.measure_clock()
    stage.harness.skew_clock(40)
    stage.pass_time(61)
    assert stage.venue.measure_clock() == pytest.approx(40, abs=2)
    assert stage.send(stage.order(Side.BUY, "0.01")) == [Outcome.ACCEPTED]


# --- money and numbers ---


def test_every_number_is_exact(stage: Stage) -> None:
    order = stage.order(Side.BUY, "0.0123")
    stage.send(order)
    snapshot = stage.venue.snapshot()
    (held,) = stage.venue.holdings()
    report = stage.venue.order("BTCUSDT", order.client_id)
    for number in (
        *(snapshot.equity, snapshot.available, snapshot.wallet_balance, snapshot.margin_used),
        *(held.size, held.entry_price, held.mark_price, held.margin_size),
        *(report.size, report.filled_size, report.fee),
    ):
        assert type(number) is Decimal
        assert number.is_finite()
    assert held.unrealized_pnl == held.size * (held.mark_price - held.entry_price)
    assert snapshot.equity == snapshot.wallet_balance + snapshot.unrealized_pnl


def test_equity_follows_the_price(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.02"))
    before = stage.venue.snapshot().equity
    stage.harness.move_price("BTCUSDT", "1.02")
    stage.pass_time()
    assert stage.venue.snapshot().equity > before


@needs(Ability.BILLS)
def test_money_adds_up_to_the_last_digit(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.03"))
    stage.send(stage.closing(stage.sellable()))
    sums: dict[str, Decimal] = {}
    for bill in stage.venue.bills(LONG_AGO):
        sums[bill.asset] = sums.get(bill.asset, Decimal(0)) + bill.amount + bill.fee
    snapshot = stage.venue.snapshot()
    coins = {b.asset: b.free + b.locked for b in snapshot.balances}
    if stage.can(Ability.POSITIONS):
        coins = {"USDT": snapshot.wallet_balance}
    assert {asset: total for asset, total in sums.items() if total} == coins


@needs(Ability.BILLS, Ability.POSITIONS)
def test_a_closed_position_adds_up_to_what_was_earned(stage: Stage) -> None:
    before = stage.clock.now()
    stage.send(stage.order(Side.BUY, "0.03"))
    stage.send(stage.closing("0.03"))
    (closed,) = stage.venue.closed_positions(before)
    assert closed.net_profit == stage.venue.snapshot().equity - MONEY
    fills = stage.venue.fills(before)
    assert sum(f.fee for f in fills) == closed.open_fee + closed.close_fee


@needs(Trait.FEES)
def test_fees_are_negative_and_name_their_coin(stage: Stage) -> None:
    before = stage.clock.now()
    stage.send(stage.order(Side.BUY, "0.03"))
    coin = "USDT" if stage.can(Ability.POSITIONS) else "BTC"
    fills = stage.venue.fills(before)
    assert fills
    assert all(fill.fee < 0 and fill.fee_asset == coin for fill in fills)


# --- histories ---


def test_fills_are_told_oldest_first_from_a_moment_on(stage: Stage) -> None:
    before = stage.clock.now()
    stage.send(stage.order(Side.BUY, "0.03"))
    middle = stage.clock.now()
    stage.send(stage.closing("0.01"))
    fills = stage.venue.fills(before)
    bought = sum(f.size for f in fills if f.side is Side.BUY)
    assert bought == stage.about("0.03")
    assert sum(f.size for f in fills if f.side is Side.SELL) == Decimal("0.01")
    assert [fill.at for fill in fills] == sorted(fill.at for fill in fills)
    assert {fill.side for fill in stage.venue.fills(middle)} == {Side.SELL}


def test_fills_and_bills_are_read_to_their_last_page_each_once(
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
    assert sum(fill.size for fill in fills) == stage.about("0.012")
    if stage.can(Ability.BILLS):
        bills = stage.venue.bills(since)
        assert len({bill.bill_id for bill in bills}) == len(bills) >= 8
        monkeypatch.undo()
        stage.pass_time()
        assert bills == stage.venue.bills(since)


def test_open_orders_are_read_to_their_last_page_each_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = [stage.resting("0.001") for _ in range(7)]
    assert stage.send(*orders[:4]) + stage.send(*orders[4:]) == [Outcome.ACCEPTED] * 7
    stage.harness.use_small_pages(monkeypatch)
    listed = [report.client_id for report in stage.venue.snapshot().open_orders]
    assert sorted(listed) == sorted(order.client_id for order in orders)


@needs(Ability.STOPS)
def test_stops_are_read_to_their_last_page_each_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"BTCUSDT": "0.01", "ETHUSDT": "0.2", "XRPUSDT": "500"}
    assert stage.send(*(stage.order(Side.BUY, z, symbol=s) for s, z in sizes.items())) == [
        Outcome.ACCEPTED
    ] * len(sizes)
    for symbol in sizes:
        for is_loss, factor in ((True, "0.8"), (False, "1.2")):
            stage.venue.set_stop(
                symbol,
                is_stop_loss=is_loss,
                protects_long=True,
                trigger_price=stage.price(factor, symbol),
            )
        stage.pass_time()
    stage.harness.use_small_pages(monkeypatch)
    stops = [(stop.symbol, stop.is_stop_loss) for stop in stage.venue.placed_stops()]
    assert sorted(stops) == sorted((s, is_loss) for s in sizes for is_loss in (True, False))


# --- public ---


def test_trading_rules_are_steps_and_caps(stage: Stage) -> None:
    rules = stage.venue.instruments()["BTCUSDT"]
    assert rules.tradable
    assert (rules.base_asset, rules.quote_asset) == ("BTC", "USDT")
    assert rules.market is stage.venue.market
    assert min(rules.price_step, rules.size_step, rules.leverage_max) > 0
    assert max(rules.size_min, rules.notional_min) > 0
    assert rules.taker_fee > 0


def test_quotes_are_of_the_symbols_asked_for(stage: Stage) -> None:
    quotes = stage.venue.quotes(["ETHUSDT", "BTCUSDT"])
    assert set(quotes) == {"BTCUSDT", "ETHUSDT"}
    assert quotes["BTCUSDT"].bid <= quotes["BTCUSDT"].ask
    with pytest.raises(NotFound, match="NOSUCHUSDT"):
        stage.venue.quotes(["NOSUCHUSDT"])


# --- connections ---


@needs(Trait.NETWORK)
def test_a_base_url_may_end_with_a_slash(stage: Stage) -> None:
    order = stage.resting()
    stage.send(order)
    other = stage.harness.another_adapter("/")
    assert other.look_up(order).outcome is Outcome.ACCEPTED
    other.cancel("BTCUSDT", order.client_id)


@needs(Trait.NETWORK)
def test_close_ends_connections_and_threads_and_may_be_called_twice(stage: Stage) -> None:
    process = psutil.Process()

    def sockets() -> int:
        return len([c for c in process.net_connections("tcp") if c.status == "ESTABLISHED"])

    before, threads = sockets(), process.num_threads()
    other = stage.harness.another_adapter()
    other.snapshot()
    assert sockets() > before
    other.close()
    other.close()
    assert sockets() == before
    stage.pass_time()
    assert process.num_threads() <= threads
