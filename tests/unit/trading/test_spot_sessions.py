"""Spot from the strategy's answer to what is held: gathered, decided and carried out for real.

The exchange is in memory and trades as Bitget does: purchases in USDT, fees in the coin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal

import pytest

from module.model.accounts import AccountSnapshot, MarginMode
from module.model.errors import StrategyFailed
from module.model.market import MarketType
from module.model.orders import Side, StopPrices
from module.model.sessions import EndState, SessionSpec, SessionState, TradeMode
from tests.fakes.clock import ManualClock
from tests.fakes.market import FakeMarket
from tests.fakes.order_info import MemoryOrderInfoStore
from tests.fakes.spot_exchange import SpotExchange
from tests.unit.trading.leading import FIRST_BOUNDARY, Session, make_spec
from trading.execution.account_review import AccountReview, Review
from trading.execution.auto_trade import ExecutionPorts, ExecutionRules, auto_trade
from trading.gathering import Gatherer, SeenMarket
from trading.leaving import held_in_words
from trading.rebalance.decision import CycleInputs, closing_inputs, decide, plan_letter
from trading.rebalance.order_info import CycleStage, OrderInfo, from_json, requested, to_json
from trading.rebalance.plan import SkipReason
from trading.rebalancing_main import Exit
from trading.rebalancing_strategy import flat_policy, policy_of
from trading.session.own_coins import OwnCoins

ZERO = Decimal(0)
LEAST_SOL = Decimal("0.01")
Answer = Mapping[str, Mapping[str, str]]


def weights(**by_symbol: str) -> Answer:
    return {symbol: {"weight": weight} for symbol, weight in by_symbol.items()}


@dataclass(slots=True)
class SpotSession:
    """One session's cycles in this thread. `own` is remade by `restart`, as by a new process."""

    spec: SessionSpec = field(
        default_factory=lambda: make_spec(market=MarketType.SPOT, threshold=ZERO)
    )
    clock: ManualClock = field(default_factory=ManualClock)
    store: MemoryOrderInfoStore = field(default_factory=MemoryOrderInfoStore)
    exchange: SpotExchange = field(init=False)
    own: OwnCoins = field(init=False)
    number: int = 0

    def __post_init__(self) -> None:
        self.exchange = SpotExchange(self.clock)
        self.restart()

    def restart(self) -> None:
        self.own = OwnCoins(self.spec, self.exchange, self.store)

    def cycle(self, answer: Answer) -> OrderInfo:
        """Five minutes later: what was decided, carried out."""
        gatherer = Gatherer(
            self.spec,
            policy_of(self.spec),
            self.exchange,
            lambda: Decimal(10_007),
            own=self.own.of,
        )
        blank = self._request()
        inputs = gatherer.gather(blank.cycle, answer, SeenMarket(FakeMarket()))
        return self._carry_out(plan_letter(blank, inputs, decide(inputs)))

    def flatten(self) -> OrderInfo:
        """As a leader leaves its account flat."""
        blank = self._request()
        snapshot = self.own.of(self.exchange.snapshot())
        inputs = closing_inputs(
            self.spec.session_id,
            blank.cycle,
            flat_policy(self.spec),
            snapshot,
            self.exchange.instruments(),
        )
        return self._carry_out(plan_letter(blank, inputs, decide(inputs)))

    def _request(self) -> OrderInfo:
        boundary = FIRST_BOUNDARY + self.spec.interval * self.number
        self.clock.sleep_until(boundary)
        self.number += 1
        written = self.store.written
        revision = from_json(written[-1]).revision + 1 if written else 0
        return requested(self.spec.session_id, boundary, self.number, 1, revision)

    def _carry_out(self, letter: OrderInfo) -> OrderInfo:
        self.store.write(to_json(letter), 1, letter.revision)
        rules = self._rules()
        done = auto_trade(letter, ExecutionPorts(self.exchange, self.store, self.clock), rules)
        assert done.stage is CycleStage.DONE, done.reason
        self.store.archive(to_json(done))
        self.clock.sleep(1.0)
        return done

    def _rules(self) -> ExecutionRules:
        return ExecutionRules(
            installation="test-house",
            session_id=self.spec.session_id,
            epoch=1,
            policy=policy_of(self.spec),
            margin_mode=MarginMode.CROSSED,
            apply_account_settings=False,
            stop_requested=lambda: False,
        )

    def review(self, last: OrderInfo) -> Review:
        """As a new leader compares the account with the letters."""
        ports = ExecutionPorts(self.exchange, self.store, self.clock)

        def look() -> AccountSnapshot:
            return self.own.of(self.exchange.snapshot())

        return AccountReview(ports, self._rules(), look, lambda: [last]).at_start(last, look())

    def weight(self, symbol: str) -> Decimal:
        """What is held of it, as a fraction of what the session started with."""
        asset = symbol.removesuffix("USDT")
        held = self.exchange.coins.get(asset, ZERO)
        return held * self.exchange.marks[symbol] / Decimal(10_007)


@pytest.fixture
def session() -> SpotSession:
    return SpotSession()


def skipped(info: OrderInfo) -> dict[str, SkipReason]:
    return {item.symbol: item.reason for item in info.skipped}


def test_coins_are_bought_to_their_weights_and_the_fee_is_not_bought_again(
    session: SpotSession,
) -> None:
    wanted = weights(BTCUSDT="0.3", ETHUSDT="0.2", SOLUSDT="0.1")
    first = session.cycle(wanted)
    assert [record.leg.symbol for record in first.legs] == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    for symbol, fields in wanted.items():
        assert session.weight(symbol) == pytest.approx(
            Decimal(fields["weight"]), rel=Decimal("0.005")
        )
    second = session.cycle(wanted)
    assert second.legs == (), "with a threshold of zero the fee would be bought again and again"
    assert session.exchange.money > 3_900


@pytest.mark.parametrize("slip", ["1.004", "0.996"])
def test_a_purchase_in_usdt_that_bought_more_or_less_is_one_order(slip: str) -> None:
    session = SpotSession(make_spec(market=MarketType.SPOT))
    session.exchange.slip = Decimal(slip)
    done = session.cycle(weights(BTCUSDT="0.3", ETHUSDT="0.2"))
    assert [len(record.slices) for record in done.legs] == [1, 1]
    assert all(record.abandoned is None for record in done.legs)
    assert len(session.exchange.ledger) == 2
    assert session.cycle(weights(BTCUSDT="0.3", ETHUSDT="0.2")).legs == ()


def test_all_the_money_can_be_spent_and_no_more(session: SpotSession) -> None:
    session.cycle(weights(BTCUSDT="0.7", ETHUSDT="0.3"))
    assert 0 <= session.exchange.money < Decimal("40")
    again = session.cycle(weights(BTCUSDT="0.7", ETHUSDT="0.3"))
    bought = sum((record.filled_size * record.leg.reference_price for record in again.legs), ZERO)
    assert bought < Decimal("40")


def test_a_sale_takes_what_is_free_on_the_lot_and_dust_stays_visible(session: SpotSession) -> None:
    session.cycle(weights(BTCUSDT="0.3", SOLUSDT="0.1"))
    session.cycle(weights(BTCUSDT="0.3"))
    assert 0 < session.exchange.coins["SOL"] < Decimal("0.01")
    third = session.cycle(weights(BTCUSDT="0.3"))
    assert third.legs == ()
    assert skipped(third)["SOLUSDT"] is SkipReason.DUST
    assert third.residuals["SOLUSDT"] < 0
    done = session.flatten()
    assert [record.leg.symbol for record in done.legs] == ["BTCUSDT"]
    assert session.exchange.coins["BTC"] < Decimal("0.000001")


def test_what_somebodys_order_reserves_is_not_sold(session: SpotSession) -> None:
    session.cycle(weights(BTCUSDT="0.3"))
    session.exchange.locked["BTC"] = Decimal("0.02")
    session.cycle(weights())
    assert Decimal("0.02") <= session.exchange.coins["BTC"] < Decimal("0.020001")


def test_somebody_elses_coin_is_neither_sold_by_the_book_nor_at_the_end(
    session: SpotSession,
) -> None:
    session.cycle(weights(BTCUSDT="0.3"))
    session.exchange.coins["XRP"] = Decimal(700)
    again = session.cycle(weights(ETHUSDT="0.2"))
    assert sorted(record.leg.symbol for record in again.legs) == ["BTCUSDT", "ETHUSDT"]
    session.flatten()
    assert session.exchange.coins["XRP"] == 700
    assert session.exchange.coins["ETH"] < Decimal("0.0001")


def test_a_coin_that_the_strategy_names_counts_as_held(session: SpotSession) -> None:
    session.exchange.coins["XRP"] = Decimal(5_000)
    done = session.cycle(weights(XRPUSDT="0.3"))
    (record,) = done.legs
    assert record.leg.side is Side.BUY
    assert record.leg.size < Decimal(1_000), "the coins that are there are not bought again"
    session.cycle(weights())
    assert session.exchange.coins["XRP"] < 1


def test_adopted_coins_are_the_sessions_from_the_start() -> None:
    spec = make_spec(market=MarketType.SPOT, adopt_existing=True)
    session = SpotSession(spec)
    session.exchange.coins["XRP"] = Decimal(5_000)
    (record,) = session.cycle(weights()).legs
    assert (record.leg.symbol, record.leg.side) == ("XRPUSDT", Side.SELL)
    assert session.exchange.coins["XRP"] == 0


def test_in_general_mode_only_named_coins_are_touched() -> None:
    spec = make_spec(market=MarketType.SPOT, trade_mode=TradeMode.GENERAL)
    session = SpotSession(spec)
    session.cycle(weights(BTCUSDT="0.3", ETHUSDT="0.2"))
    done = session.cycle(weights(ETHUSDT="0"))
    assert [record.leg.symbol for record in done.legs] == ["ETHUSDT"]
    assert session.exchange.coins["BTC"] > Decimal("0.04")


def test_a_default_stop_is_measured_from_what_the_coin_has_cost() -> None:
    """From the mark it would follow the price down for ever and never fire."""
    spec = make_spec(market=MarketType.SPOT, default_stop_loss_pct=Decimal(10))
    session = SpotSession(spec)
    paid = session.exchange.marks["BTCUSDT"]
    session.cycle(weights(BTCUSDT="0.3"))
    stop = session.exchange.stops["BTCUSDT"].stop_loss
    assert stop == pytest.approx(paid * Decimal("0.9"), abs=Decimal("0.1"))
    session.exchange.marks["BTCUSDT"] = paid * Decimal("0.96")
    session.cycle(weights(BTCUSDT="0.3"))
    assert session.exchange.stops["BTCUSDT"].stop_loss == stop
    session.restart()
    session.exchange.marks["BTCUSDT"] = paid * Decimal("0.94")
    session.cycle(weights(BTCUSDT="0.3"))
    now = session.exchange.stops["BTCUSDT"].stop_loss
    assert now == pytest.approx(stop, rel=Decimal("0.005")), "a new process knows it too"


def test_new_stops_of_a_coin_that_is_not_traded_are_set(session: SpotSession) -> None:
    session.cycle({"BTCUSDT": {"weight": "0.3", "presetStopLossPrice": "50000"}})
    done = session.cycle({"BTCUSDT": {"weight": "0.3", "presetStopLossPrice": "51000.4"}})
    assert done.legs == ()
    assert session.exchange.stop_calls == [("BTCUSDT", StopPrices(Decimal("51000.4")))]


def test_B3_fills_are_asked_for_with_an_overlap_and_counted_once(session: SpotSession) -> None:
    session.cycle(weights(BTCUSDT="0.3"))
    session.cycle(weights(BTCUSDT="0.3"))
    paid = session.exchange.told_fills[0]
    late = replace(paid, trade_id="late", price=paid.price * 2, at=paid.at - timedelta(seconds=9))
    session.exchange.told_fills.insert(0, late)
    (bitcoin,) = session.own.of(session.exchange.snapshot()).positions
    assert bitcoin.entry_price > paid.price * Decimal("1.3"), "what is published late counts too"
    (again,) = session.own.of(session.exchange.snapshot()).positions
    assert again.entry_price == bitcoin.entry_price
    assert session.exchange.asked_fills[-1] == paid.at - timedelta(minutes=2)


def test_a_futures_account_is_the_sessions_as_it_is(session: SpotSession) -> None:
    session.spec = make_spec()
    session.restart()
    session.exchange.coins["XRP"] = Decimal(700)
    snapshot = session.exchange.snapshot()
    assert session.own.of(snapshot) is snapshot
    assert session.exchange.asked_fills == []


def test_nothing_is_short_on_spot(session: SpotSession) -> None:
    with pytest.raises(StrategyFailed, match="cannot be short"):
        session.cycle(weights(BTCUSDT="-0.1"))


def test_volatility_targeting_scales_a_spot_book_down_and_never_above_one() -> None:
    for target, least, most in (("1e-9", "0", "0.001"), ("10", "0.9", "1")):
        spec = make_spec(
            market=MarketType.SPOT,
            trade_mode=TradeMode.VOLATILITY_TARGETING,
            target_volatility=Decimal(target),
        )
        session = SpotSession(spec)
        done = session.cycle(weights(BTCUSDT="0.3", ETHUSDT="0.2"))
        total = sum(Decimal(fields["weight"]) for fields in done.targets.values())
        assert Decimal(least) < total <= Decimal(most)
        assert session.exchange.money >= 0


def test_A20_a_coin_that_was_delisted_is_still_held_and_fails_no_session(
    session: SpotSession,
) -> None:
    wanted = weights(BTCUSDT="0.3", SOLUSDT="0.1")
    session.cycle(wanted)
    last = session.cycle(wanted)
    held = session.exchange.coins["SOL"]
    del session.exchange.marks["SOLUSDT"], session.exchange.rules["SOLUSDT"]
    for _ in range(3):
        session.restart()
        review = session.review(last)
        assert (review.findings, review.verdict.stop) == ((), "")
        coin = session.own.of(session.exchange.snapshot()).positions[-1]
        assert (coin.symbol, coin.size) == ("SOLUSDT", held)
        assert (coin.mark_price, coin.free_size) == (ZERO, ZERO)
        last = session.cycle(weights(BTCUSDT="0.3"))
        assert skipped(last)["SOLUSDT"] is SkipReason.NO_PRICE
    last = session.flatten()
    assert [record.leg.symbol for record in last.legs] == ["BTCUSDT"]
    left = session.own.of(session.exchange.snapshot())
    assert f"SOLUSDT {held.normalize():f} (has no price, cannot be sold)" in held_in_words(left)


def test_A20_a_price_that_one_reading_left_out_hides_no_coin(session: SpotSession) -> None:
    last = session.cycle(weights(BTCUSDT="0.3", SOLUSDT="0.1"))
    price = session.exchange.marks.pop("SOLUSDT")
    assert session.review(last).findings == ()
    session.exchange.marks["SOLUSDT"] = price
    assert session.review(last).findings == ()
    session.flatten()
    assert session.exchange.coins["SOL"] < LEAST_SOL


def test_A19_a_minimum_that_grew_makes_dust_and_keeps_nothing_else_from_trading(
    session: SpotSession,
) -> None:
    session.cycle(weights(BTCUSDT="0.3", SOLUSDT="0.1"))
    rules = session.exchange.rules
    rules["SOLUSDT"] = replace(rules["SOLUSDT"], size_min=session.exchange.coins["SOL"] * 2)
    done = session.cycle(weights(ETHUSDT="0.2"))
    assert skipped(done) == {"SOLUSDT": SkipReason.DUST}
    assert sorted(record.leg.symbol for record in done.legs) == ["BTCUSDT", "ETHUSDT"]


def test_I9_a_spot_cycle_plans_the_same_again_from_its_letter(session: SpotSession) -> None:
    session.exchange.coins["XRP"] = Decimal(700)
    session.cycle(weights(BTCUSDT="0.3", SOLUSDT="0.1"))
    done = session.cycle(weights(ETHUSDT="0.2"))
    inputs = session.store.archive_box[-1]["inputs"]
    assert isinstance(inputs, dict)
    again = decide(CycleInputs.from_json(inputs)).plan
    assert again.legs == tuple(record.leg for record in done.legs)
    assert "XRPUSDT" not in str(inputs), "what is not the session's is not in its journal"


# --- the leader ----------------------------------------------------------------------------------


def led(coins: Mapping[str, str], **changes: object) -> tuple[Session, SpotExchange]:
    """A session of one cycle (or more) that a real leader leads on an account with these coins."""
    words = {"cycles_max": 1, "on_end": EndState.FLAT, **changes}
    spec = make_spec(market=MarketType.SPOT, **words)
    whole = Session(spec, weights={"BTCUSDT": "0.3"})
    exchange = SpotExchange(whole.clock)
    exchange.coins.update({asset: Decimal(size) for asset, size in coins.items()})
    whole.exchange = exchange  # type: ignore[assignment]
    return whole, exchange


def test_dust_refuses_no_start_and_is_no_reason_not_to_be_flat() -> None:
    session, exchange = led({"SOL": "0.0041"})
    assert session.lead() is Exit.OVER
    assert session.registry.row.state is SessionState.ENDED
    assert session.registry.states[-1][1].endswith("; flat")
    assert exchange.coins["SOL"] == Decimal("0.0041")
    assert exchange.coins["BTC"] < Decimal("0.000001")


def test_coins_that_can_be_sold_refuse_the_start_unless_they_are_adopted() -> None:
    session, exchange = led({"SOL": "3"})
    session.lead()
    assert session.registry.row.state is SessionState.FAILED
    assert "already holds SOLUSDT" in session.registry.states[-1][1]
    assert exchange.ledger == []
    session, exchange = led({"SOL": "3"}, adopt_existing=True)
    session.lead()
    assert session.registry.row.state is SessionState.ENDED
    assert exchange.coins["SOL"] == 0


def test_a_stop_that_fired_is_told_and_the_session_goes_on() -> None:
    session, exchange = led({}, cycles_max=2, default_stop_loss_pct=Decimal(10))

    def fall() -> None:
        exchange.marks["BTCUSDT"] *= Decimal("0.89")
        exchange.fire_stop("BTCUSDT")

    session.clock.at(FIRST_BOUNDARY + timedelta(minutes=2), fall)
    session.lead()
    assert session.registry.row.state is SessionState.ENDED
    assert "stop loss" in str([alert.lines for alert in session.alerts.sent])
    purchases = [order for order in exchange.ledger if order.side is Side.BUY]
    assert len(purchases) == 2, "the strategy still wants it, so it is bought again"


def test_coins_that_somebody_sends_are_told_and_the_session_goes_on() -> None:
    session, exchange = led({}, cycles_max=2)
    session.clock.at(
        FIRST_BOUNDARY + timedelta(minutes=2), lambda: exchange.coins.update(XRP=Decimal(700))
    )
    session.lead()
    assert session.registry.row.state is SessionState.ENDED
    assert "transfer" in str([alert.lines for alert in session.alerts.sent])


def test_the_fee_that_was_taken_from_a_coin_is_no_difference() -> None:
    session, exchange = led({}, cycles_max=2)
    session.lead()
    assert session.registry.row.state is SessionState.ENDED
    assert all(not document["noted"] for document in session.store.archive_box)
    assert exchange.asked_fills == [], "nothing had to be explained"


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4])
def test_A28_one_odd_reading_leaves_nothing_behind_where_the_end_is_flat(number: int) -> None:
    session, exchange = led({})
    odd = OddReading(exchange, session, number)
    session.exchange = odd  # type: ignore[assignment]
    assert session.lead() is Exit.OVER
    assert odd.readings > number
    assert session.registry.states[-1][1].endswith("; flat")
    assert exchange.coins["BTC"] < exchange.rules["BTCUSDT"].size_min


class OddReading:
    """An exchange whose reading of that number, counted from the session's stopping, is empty."""

    def __init__(self, exchange: SpotExchange, session: Session, number: int) -> None:
        self._exchange, self._session, self._number = exchange, session, number
        self.readings = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._exchange, name)

    def snapshot(self) -> AccountSnapshot:
        whole = self._exchange.snapshot()
        if self._session.registry.row.state is not SessionState.STOPPING:
            return whole
        self.readings += 1
        if self.readings - 1 != self._number:
            return whole
        return replace(whole, positions=(), balances=())
