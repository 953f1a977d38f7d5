"""Ten thousand random commands in any order: after each of them the books are right.

Two accounts trade three symbols with everything the engine offers, in both position modes, while
time passes and prices jump. After every operation the ledger balances and equals a second
bookkeeping, and what must never happen has not. Afterwards the same operations are done again in
a new engine (in some worlds one that looks at every price instead of sleeping through quiet
time): the ledger is the same, byte for byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal
from functools import partial
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from module.simulator.engine.engine import Engine, hold_side_of
from module.simulator.engine.engine_types import (
    EngineRejected,
    EngineSettings,
    Force,
    FuturesOrderCommand,
    MarginMode,
    MarketType,
    ModifyOrderCommand,
    ModifyPlanCommand,
    OrderType,
    PlanOrderCommand,
    PlanType,
    PositionMode,
    PositionSide,
    PositionStopCommand,
    PresetStop,
    Side,
    SpotOrderCommand,
    SpotPlanCommand,
    StpMode,
    TradeSide,
    TriggerType,
)
from module.simulator.prices.market_source import PriceKind
from module.simulator.prices.synthetic import SyntheticMarket
from tests.fakes.scripted_market import START_MS
from tests.unit.simulator.second_books import SecondBooks

D = Decimal
MARKET = SyntheticMarket(11)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")
NAMES = ("ann", "bob")
OPERATIONS_MIN = 10_000
EXAMPLES = 15
"""Worlds of one round; rounds of other seeds follow until there are enough operations."""
ROUNDS_MAX = 20
STEPS = 100
WALKED_EVERY = 8
"""Worlds; the second run of such a one is slow."""

ISOLATED = MarginMode.ISOLATED

Operation = Callable[[Engine], object]


def doing(method: str, *arguments: object, **named: object) -> Operation:
    """A call of the engine that can be made again in another one."""
    return lambda engine: getattr(engine, method)(*arguments, **named)


names = st.sampled_from(NAMES)
symbols = st.sampled_from(SYMBOLS)
sides = st.sampled_from(list(Side))
forces = st.sampled_from(list(Force))
triggers = st.sampled_from(list(TriggerType))
notionals = st.integers(1, 250)
"""In units of 100 USDT."""
aways = st.integers(-450, 450)
"""Distance from the last price, in hundredths of a percent."""
picks = st.integers(0, 4)
"""Which of the things that are there."""
rarely = st.sampled_from([False, False, False, True])


class Exchange(RuleBasedStateMachine):
    """The public engine under everything that its users can do."""

    done: ClassVar[Counter[str]] = Counter()
    met: ClassVar[Counter[str]] = Counter()
    worlds: ClassVar[int] = 0

    @initialize(
        modes=st.tuples(*[st.sampled_from(list(PositionMode))] * 2),
        isolated=rarely,
        money=st.integers(1, 6),
        leverage=st.integers(5, 75),
        first=st.lists(st.tuples(names, symbols, sides, notionals), min_size=2, max_size=5),
    )
    def open(
        self,
        modes: tuple[PositionMode, PositionMode],
        isolated: bool,
        money: int,
        leverage: int,
        first: list[tuple[str, str, Side, int]],
    ) -> None:
        Exchange.worlds += 1
        self.engine = self.fresh(sleeps=True)
        self.script: list[Operation] = []
        self.books = {name: SecondBooks(name) for name in NAMES}
        for name, mode in zip(NAMES, modes, strict=True):
            self.do("open", partial(self.fund, name, mode, money))
            for symbol in SYMBOLS:
                if isolated:
                    self.do("margin mode", doing("set_margin_mode", name, symbol, ISOLATED))
                self.do("leverage", doing("set_leverage", name, symbol, D(leverage)))
        for name, symbol, side, notional in first:
            command = self.order(name, symbol, side, notional * 2, stops_at=300)
            self.do("trade", doing("place_order", name, command))
        self.pass_time(60)

    @staticmethod
    def fresh(*, sleeps: bool) -> Engine:
        engine = Engine(MARKET, EngineSettings(), START_MS)
        engine._world.sleeps = sleeps
        return engine

    @staticmethod
    def fund(name: str, mode: PositionMode, money: int, engine: Engine) -> None:
        engine.open_account(
            name,
            futures_usdt=D(1000 * money),
            spot={"USDT": D(4000), "BTC": D("0.2"), "ETH": D(2), "DOGE": D(9000)},
            position_mode=mode,
        )

    # -- doing and checking -------------------------------------------------------------------

    def do(self, name: str, operation: Operation) -> None:
        """Do it, write it down for the second run, and check everything."""
        Exchange.done[name] += 1
        self.script.append(operation)
        try:
            operation(self.engine)
        except EngineRejected as refusal:
            Exchange.met[f"refused {refusal.reason}"] += 1
        self.check()

    def check(self) -> None:
        engine = self.engine
        engine.ledger.check()
        for name, books in self.books.items():
            if engine.has_account(name):
                books.read(engine)
                books.compare(engine)
                self.check_account(name)

    def check_account(self, name: str) -> None:
        engine = self.engine
        balance = engine.futures_balance(name)
        orders = engine.open_orders(name)
        spot_orders = engine.open_orders(name, market=MarketType.SPOT)
        held = {(v.position.symbol, v.position.side) for v in engine.positions(name)}
        assert balance.available >= 0
        assert balance.max_available >= 0
        assert balance.wallet >= 0 or held
        assert balance.locked == sum((order.locked for order in orders), D(0))
        for order in [*orders, *spot_orders]:
            assert order.locked >= 0
            assert order.filled_size >= 0
            assert order.remaining > 0
        plans = engine.plans(name)
        for plan in plans:
            assert plan.protects is None or (plan.symbol, plan.protects) in held
        whole = [(p.symbol, p.protects, p.plan_type) for p in plans if p.plan_type.whole_position]
        assert len(whole) == len(set(whole))
        if engine.position_mode(name) is PositionMode.ONE_WAY:
            assert len({symbol for symbol, _ in held}) == len(held)
        for coin in engine.spot_balances(name):
            assert coin.available >= 0
            assert coin.frozen >= 0
            wallet = engine.wallet_balance(name, MarketType.SPOT, coin.coin)
            assert coin.available + coin.frozen == wallet
        for market in MarketType:
            ids = [order.client_id for order in engine.all_orders(name, market=market)]
            assert len(ids) == len(set(ids))

    def teardown(self) -> None:
        """The whole story once more: every order against its fills, and a second run."""
        if not hasattr(self, "engine"):
            return
        engine = self.engine
        engine.ledger.audit()
        for name in NAMES:
            for market in MarketType:
                self.check_orders(name, market)
            Exchange.met.update(bill.business_type for bill in engine.bills(name))
            Exchange.met.update(f"plan {p.plan_type} {p.status}" for p in engine.plan_history(name))
            Exchange.met.update(f"scope {fill.scope}" for fill in engine.fills(name))
        again = self.fresh(sleeps=Exchange.worlds % WALKED_EVERY != 0)
        for operation in self.script:
            try:
                operation(again)
            except EngineRejected:
                continue
        assert again.ledger_dump() == engine.ledger_dump()
        for name in NAMES:
            assert str(again.plan_history(name)) == str(engine.plan_history(name))
            assert again.bills(name) == engine.bills(name)

    def check_orders(self, name: str, market: MarketType) -> None:
        fills = self.engine.fills(name, market=market)
        filled: Counter[str] = Counter()
        fees: Counter[str] = Counter()
        for fill in fills:
            filled[fill.order_id] += fill.size  # type: ignore[assignment]  # a Counter of Decimal
            fees[fill.order_id] += fill.fee  # type: ignore[assignment]
        for order in self.engine.all_orders(name, market=market):
            assert order.filled_size == filled[order.order_id]
            assert order.fee == fees[order.order_id]
            assert order.remaining >= 0

    # -- words --------------------------------------------------------------------------------

    def size(self, symbol: str, notional: int) -> Decimal:
        step = self.engine.futures_instruments()[symbol].size_step
        lots = D(notional * 100) / self.engine.last_price(symbol) / step
        return lots.to_integral_value(ROUND_DOWN) * step + step

    def price(self, symbol: str, away: int) -> Decimal:
        step = self.engine.futures_instruments()[symbol].price_step
        last = self.engine.last_price(symbol)
        return ((last + last * away / 10_000) / step).to_integral_value() * step

    def order(
        self,
        name: str,
        symbol: str,
        side: Side,
        notional: int,
        *,
        closes: bool = False,
        limit: Decimal | None = None,
        force: Force = Force.GTC,
        stops_at: int = 0,
        client_id: str | None = None,
        stp_mode: StpMode = StpMode.NONE,
    ) -> FuturesOrderCommand:
        hedge = self.engine.position_mode(name) is PositionMode.HEDGE
        stop = PresetStop(self.price(symbol, -side.sign * stops_at)) if stops_at else None
        gain = PresetStop(self.price(symbol, side.sign * stops_at)) if stops_at > 200 else None
        return FuturesOrderCommand(
            symbol,
            side,
            OrderType.MARKET if limit is None else OrderType.LIMIT,
            self.size(symbol, notional),
            limit,
            force,
            (TradeSide.CLOSE if closes else TradeSide.OPEN) if hedge else None,
            closes and not hedge,
            client_id=client_id,
            take_profit=gain,
            stop_loss=stop,
            stp_mode=stp_mode,
        )

    # -- futures ------------------------------------------------------------------------------

    @rule(
        name=names,
        symbol=symbols,
        side=sides,
        notional=notionals,
        closes=rarely,
        stops_at=st.sampled_from([0, 0, 150, 300]),
        client_id=st.sampled_from([None, None, "a-1", "b-2"]),
    )
    def trade(
        self,
        name: str,
        symbol: str,
        side: Side,
        notional: int,
        closes: bool,
        stops_at: int,
        client_id: str | None,
    ) -> None:
        command = self.order(
            name,
            symbol,
            side,
            notional,
            closes=closes,
            stops_at=stops_at,
            client_id=client_id,
        )
        self.do("trade", doing("place_order", name, command))
        self.pass_time(60)

    @rule(name=names, symbol=symbols, side=sides, notional=notionals)
    def trade_and_wait(self, name: str, symbol: str, side: Side, notional: int) -> None:
        command = self.order(name, symbol, side, notional, stops_at=notional)
        self.do("trade", doing("place_order", name, command))
        self.pass_time(notional * 4_000)

    @rule(
        name=names,
        symbol=symbols,
        side=sides,
        notional=notionals,
        closes=rarely,
        away=st.one_of(st.integers(-30, 30), aways),
        force=forces,
        stp_mode=st.sampled_from(list(StpMode)),
    )
    def rest(
        self,
        name: str,
        symbol: str,
        side: Side,
        notional: int,
        closes: bool,
        away: int,
        force: Force,
        stp_mode: StpMode,
    ) -> None:
        command = self.order(
            name,
            symbol,
            side,
            notional,
            closes=closes,
            limit=self.price(symbol, away),
            force=force,
            stp_mode=stp_mode,
        )
        self.do("rest", doing("place_order", name, command))

    @rule(name=names, pick=picks, notional=notionals, away=aways, what=st.integers(0, 7))
    def change(self, name: str, pick: int, notional: int, away: int, what: int) -> None:
        """Modify or cancel something that is there, whatever it is."""
        for order in self.engine.open_orders(name)[pick % 2 :][:1]:
            order_id = order.order_id
            if what == 0:
                self.do("cancel all", doing("cancel_all", name))
            elif what < 3:
                self.do("cancel", doing("cancel_order", name, order_id=order_id))
            elif what == 3:
                stop = PresetStop(self.price(order.symbol, -480 * order.direction))
                change = ModifyOrderCommand(new_stop_loss=stop)
                self.do("modify", doing("modify_order", name, change, order_id=order_id))
            else:
                change = ModifyOrderCommand(
                    new_client_id=f"m-{len(self.script)}",
                    new_size=self.size(order.symbol, notional),
                    new_price=self.price(order.symbol, away),
                )
                self.do("modify", doing("modify_order", name, change, order_id=order_id))
        for plan in self.engine.plans(name)[pick % 2 :][:1]:
            plan_id = plan.plan_id
            if what == 0:
                kinds = frozenset(PlanType) - {PlanType.SPOT_PLAN, PlanType.SPOT_TPSL}
                self.do("cancel plans", doing("cancel_plans", name, kinds))
            elif what < 3:
                self.do("cancel plan", doing("cancel_plan", name, plan_id=plan_id))
            else:
                moved = ModifyPlanCommand(self.price(plan.symbol, away))
                self.do("move plan", doing("modify_plan", name, moved, plan_id=plan_id))
        for order in self.engine.open_orders(name, market=MarketType.SPOT)[pick : pick + 1]:
            self.do("cancel spot", doing("cancel_spot_order", name, order_id=order.order_id))

    @rule(name=names, symbol=symbols, side=sides, what=st.integers(0, 5))
    def close(self, name: str, symbol: str, side: Side, what: int) -> None:
        if what < 2:
            self.do("reverse", doing("reverse_position", name, symbol, side=side))
        else:
            self.do("close", doing("close_positions", name, None if what == 2 else symbol))

    # -- stops and plans ----------------------------------------------------------------------

    @rule(
        name=names,
        pick=picks,
        kind=st.sampled_from([kind for kind in PlanType if kind.protects_position]),
        away=st.integers(20, 400),
        trigger=triggers,
        limit=rarely,
    )
    def protect(
        self, name: str, pick: int, kind: PlanType, away: int, trigger: TriggerType, limit: bool
    ) -> None:
        mode = self.engine.position_mode(name)
        views = self.engine.positions(name)
        for view in views[pick % max(1, len(views)) :][:1]:
            position = view.position
            sign = position.side.sign * (1 if kind.takes_profit else -1)
            price = self.price(position.symbol, away * sign)
            command = PositionStopCommand(
                position.symbol,
                kind,
                hold_side_of(position.side, mode),
                price,
                trigger,
                price if limit and not kind.trails else None,
                None if kind.whole_position else position.size,
                callback_ratio=D("0.01") if kind.trails else None,
            )
            self.do(f"protect {kind}", doing("place_position_stop", name, command))

    @rule(
        name=names,
        symbol=symbols,
        side=sides,
        notional=notionals,
        away=aways,
        trigger=triggers,
        tracks=rarely,
        closes=rarely,
    )
    def plan(
        self,
        name: str,
        symbol: str,
        side: Side,
        notional: int,
        away: int,
        trigger: TriggerType,
        tracks: bool,
        closes: bool,
    ) -> None:
        command = PlanOrderCommand(
            self.order(name, symbol, side, notional, closes=closes),
            self.price(symbol, away),
            PlanType.TRACK_PLAN if tracks else PlanType.NORMAL_PLAN,
            trigger,
            D("0.01") if tracks else None,
        )
        self.do("plan", doing("place_plan_order", name, command))

    # -- spot ---------------------------------------------------------------------------------

    @rule(
        name=names,
        symbol=symbols,
        side=sides,
        notional=st.integers(1, 6),
        away=aways,
        limit=st.booleans(),
        force=forces,
        stops=rarely,
    )
    def spot(
        self,
        name: str,
        symbol: str,
        side: Side,
        notional: int,
        away: int,
        limit: bool,
        force: Force,
        stops: bool,
    ) -> None:
        bought = side is Side.BUY
        size = D(notional * 100) if bought and not limit else self.size(symbol, notional)
        stop = PresetStop(self.price(symbol, -480)) if stops and bought and limit else None
        command = SpotOrderCommand(
            symbol,
            side,
            OrderType.LIMIT if limit else OrderType.MARKET,
            size,
            self.price(symbol, away) if limit else None,
            force,
            stop_loss=stop,
        )
        self.do("spot", doing("place_spot_order", name, command))

    @rule(name=names, symbol=symbols, side=sides, notional=st.integers(1, 6), away=aways)
    def spot_plan(self, name: str, symbol: str, side: Side, notional: int, away: int) -> None:
        command = SpotPlanCommand(
            SpotOrderCommand(
                symbol,
                side,
                OrderType.LIMIT,
                self.size(symbol, notional),
                self.price(symbol, away),
            ),
            self.price(symbol, away),
            locks=notional % 2 == 0,
        )
        self.do("spot plan", doing("place_spot_plan", name, command))

    # -- settings and money -------------------------------------------------------------------

    @rule(name=names, symbol=symbols, leverage=st.integers(1, 75), what=st.integers(0, 7))
    def set(self, name: str, symbol: str, leverage: int, what: int) -> None:
        if what < 5:
            self.do("leverage", doing("set_leverage", name, symbol, D(leverage)))
        elif what < 7:
            margin_mode = MarginMode.CROSSED if leverage % 2 else ISOLATED
            self.do("margin mode", doing("set_margin_mode", name, symbol, margin_mode))
        else:
            mode = PositionMode.HEDGE if leverage % 2 else PositionMode.ONE_WAY
            self.do("position mode", doing("set_position_mode", name, mode))

    @rule(name=names, pick=picks, amount=st.integers(-200, 200))
    def position_margin(self, name: str, pick: int, amount: int) -> None:
        for view in self.engine.positions(name)[pick : pick + 1]:
            symbol, side = view.position.symbol, view.position.side
            hedge = self.engine.position_mode(name) is PositionMode.HEDGE
            hold: PositionSide | None = side if hedge else None
            self.do(
                "position margin",
                doing("set_position_margin", name, symbol, hold, D(amount)),
            )

    @rule(name=names, amount=st.integers(-3000, 1500), between=st.booleans(), inward=st.booleans())
    def money(self, name: str, amount: int, between: bool, inward: bool) -> None:
        futures, spot = MarketType.FUTURES, MarketType.SPOT
        if between:
            source, target = (spot, futures) if inward else (futures, spot)
            self.do(
                "transfer",
                doing("transfer", name, source, target, "USDT", D(abs(amount))),
            )
        else:
            self.do("deposit", doing("deposit", name, futures, "USDT", D(amount)))

    # -- the world ----------------------------------------------------------------------------

    @rule(step_ms=st.one_of(st.integers(1, 20_000), st.integers(20_000, 400_000)))
    def wait(self, step_ms: int) -> None:
        self.pass_time(step_ms)

    @rule(minutes=st.integers(10, 100))
    def wait_long(self, minutes: int) -> None:
        self.pass_time(minutes * 60_000)

    def pass_time(self, step_ms: int) -> None:
        self.do("time", lambda engine: engine.advance_to(engine.now_ms + step_ms))

    @rule(
        symbol=symbols,
        percent=st.integers(90, 112),
        kinds=st.sampled_from([frozenset(PriceKind), frozenset({PriceKind.LAST})]),
    )
    def jump(self, symbol: str, percent: int, kinds: frozenset[PriceKind]) -> None:
        self.do("jump", doing("jump_price", symbol, D(percent) / 100, kinds))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ten_thousand_random_operations_keep_every_promise() -> None:
    chosen = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    for number in range(ROUNDS_MAX):
        if sum(Exchange.done.values()) < OPERATIONS_MIN:
            run_state_machine_as_test(seed(number)(Exchange), settings=chosen)
    assert sum(Exchange.done.values()) >= OPERATIONS_MIN, Exchange.done
    for event in (
        "burst_sell",
        "burst_close_long",
        "contract_settle_fee",
        "risk_captital_user_transfer",
        "scope maker",
        "scope taker",
        "plan pos_loss executed",
        "plan pos_profit executed",
        "plan normal_plan executed",
        "plan track_plan executed",
    ):
        assert Exchange.met[event], (event, sorted(Exchange.met.items()))
