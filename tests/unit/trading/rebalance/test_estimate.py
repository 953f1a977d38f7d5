"""What a plan would cost and leave behind: walked by hand on small books."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from module.model.accounts import MarginMode, Position, PositionMode
from module.model.books import BookLevel, Depth, MarginTier
from module.model.market import Instrument, MarketType
from module.model.orders import NO_STOPS, StopPrices
from module.model.sessions import TradeMode
from trading.rebalance.decision import AccountInputs, CycleInputs, decide
from trading.rebalance.estimate import PlanEstimate, Surroundings, estimate_plan
from trading.rebalance.legs import Policy

AT = datetime(2026, 3, 2, 5, 7, tzinfo=UTC)
TIERS = (
    MarginTier(Decimal(0), Decimal(50_000), Decimal("0.004")),
    MarginTier(Decimal(50_000), Decimal(900_000), Decimal("0.01")),
)


def rules(symbol: str, market: MarketType = MarketType.FUTURES) -> Instrument:
    return Instrument(
        symbol, symbol.removesuffix("USDT"), "USDT", market,
        Decimal("0.01"), Decimal("0.001"), Decimal("0.001"), Decimal(5), Decimal(10**6),
        Decimal(125), Decimal("0.0006"), Decimal("0.0002"),
    )  # fmt: skip


def position(symbol: str, size: str, mark: str, **changes: object) -> Position:
    base = {
        "symbol": symbol, "size": Decimal(size), "entry_price": Decimal(mark),
        "mark_price": Decimal(mark), "margin_size": abs(Decimal(size)) * Decimal(mark),
        "unrealized_pnl": Decimal(0), "realized_pnl": Decimal(0), "fees": Decimal(0),
        "funding": Decimal(0), "leverage": Decimal(1), "margin_mode": MarginMode.CROSSED,
        "liquidation_price": None, "stops": NO_STOPS, "opened_at": AT,
    }  # fmt: skip
    return Position(**{**base, **changes})  # type: ignore[arg-type]


def depth(symbol: str, *, bids: Mapping[str, str], asks: Mapping[str, str]) -> Depth:
    def levels(side: Mapping[str, str]) -> tuple[BookLevel, ...]:
        return tuple(BookLevel(Decimal(price), Decimal(size)) for price, size in side.items())

    return Depth(symbol, levels(bids), levels(asks), AT)


def estimate(
    weights: Mapping[str, str],
    marks: Mapping[str, str],
    *,
    held: tuple[Position, ...] = (),
    depths: tuple[Depth, ...] = (),
    leverage: str = "1",
    equity: str = "1000",
    available: str = "1000",
    margin_mode: MarginMode = MarginMode.CROSSED,
    market: MarketType = MarketType.FUTURES,
    stops: Mapping[str, str] | None = None,
) -> PlanEstimate:
    answer = {symbol: {"weight": weight} for symbol, weight in weights.items()}
    for symbol, price in (stops or {}).items():
        answer[symbol]["presetStopLossPrice"] = price
    inputs = CycleInputs(
        session_id="2603020507-abcd",
        cycle=AT,
        policy=Policy(TradeMode.REBALANCING, market, Decimal(leverage), Decimal("0.01")),
        account=AccountInputs(
            AT, Decimal(equity), Decimal(available), PositionMode.ONE_WAY, held, ()
        ),
        initial_balance=Decimal(equity),
        allocated=None,
        compounding=True,
        answer=answer,
        marks={symbol: Decimal(mark) for symbol, mark in marks.items()},
        instruments={symbol: rules(symbol, market) for symbol in marks},
    )
    surroundings = Surroundings(
        depths={each.symbol: each for each in depths},
        tiers={} if market is MarketType.SPOT else dict.fromkeys(marks, TIERS),
        margin_mode=margin_mode,
    )
    return estimate_plan(inputs, decide(inputs), surroundings)


def test_a_buy_walks_the_asks_and_pays_the_average_of_what_it_meets() -> None:
    # 5 at 100.1, then 0.7 at 100.6, of the 5.7 wanted (weight 0.57 of 1000 at mark 100)
    book = depth("AUSDT", bids={"99.9": "9"}, asks={"100.1": "5", "100.6": "1", "103": "90"})
    found = estimate({"AUSDT": "0.57"}, {"AUSDT": "100"}, depths=(book,))
    (leg,) = found.legs
    paid = Decimal("5") * Decimal("100.1") + Decimal("0.7") * Decimal("100.6")
    assert leg.average_price == paid / Decimal("5.7")
    assert leg.slippage == paid - 570
    assert leg.slippage_fraction == (paid - 570) / 570
    assert leg.fee == paid * Decimal("0.0006")
    assert (leg.best_price, leg.worst_price) == (Decimal("100.1"), Decimal("100.6"))
    assert leg.levels == 2
    assert leg.is_whole
    assert (found.fees, found.slippage) == (leg.fee, leg.slippage)
    assert found.turnover == Decimal("0.57")
    assert found.turnover_notional == 570


def test_a_sell_above_the_mark_is_a_gain() -> None:
    book = depth("AUSDT", bids={"100.2": "90"}, asks={"100.4": "90"})
    found = estimate({"AUSDT": "-0.5"}, {"AUSDT": "100"}, depths=(book,))
    assert found.slippage == -Decimal("0.2") * 5
    assert found.after.equity == 1000 - found.fees + 1


def test_what_the_book_cannot_take_is_said_and_priced_at_its_worst_level() -> None:
    book = depth("AUSDT", bids={}, asks={"101": "2", "102": "1"})
    found = estimate({"AUSDT": "0.5"}, {"AUSDT": "100"}, depths=(book,))
    (leg,) = found.legs
    assert (leg.filled_size, leg.unfilled_size) == (Decimal(3), Decimal(2))
    assert not leg.is_whole
    assert leg.average_price == (Decimal(202) + 102 + 2 * 102) / 5
    assert leg.worst_price == 102


def test_without_a_book_a_leg_is_priced_at_its_reference() -> None:
    found = estimate({"AUSDT": "0.5"}, {"AUSDT": "100"})
    (leg,) = found.legs
    assert (leg.average_price, leg.slippage) == (Decimal(100), Decimal(0))
    assert leg.best_price is None
    assert leg.unfilled_size == 5


def test_the_second_leg_of_a_flip_meets_what_the_first_has_left() -> None:
    book = depth("AUSDT", bids={"99": "4", "98": "40"}, asks={})
    found = estimate(
        {"AUSDT": "-0.3"},
        {"AUSDT": "100"},
        held=(position("AUSDT", "3", "100"),),
        depths=(book,),
        available="700",
    )
    close, opening = found.legs
    assert close.average_price == 99
    assert opening.average_price == (Decimal(99) + 98 * (opening.leg.size - 1)) / opening.leg.size
    (line,) = found.positions
    assert line.size_before == 3
    assert line.size_after == -opening.leg.size
    assert line.weight_after == -opening.leg.size / 10


def test_margin_and_leverage_before_and_after() -> None:
    held = position("BUSDT", "2", "50", margin_size=Decimal(50), leverage=Decimal(2))
    found = estimate(
        {"AUSDT": "0.4", "BUSDT": "0.05"},
        {"AUSDT": "100", "BUSDT": "50"},
        held=(held,),
        leverage="2",
        available="950",
    )
    assert (found.before.margin_used, found.before.gross) == (Decimal(50), Decimal(100))
    assert found.before.leverage == Decimal("0.1")
    assert found.after.gross == 900  # 8 of A at 100, 2 of B at 50
    assert found.after.margin_used == 450
    assert found.after.available == 950 - 400 - found.fees
    assert found.after.leverage == 900 / (1000 - found.fees)
    assert found.turnover == Decimal("0.4")


def test_crossed_liquidation_price_is_where_equity_is_what_must_be_kept() -> None:
    found = estimate(
        {"AUSDT": "0.5", "BUSDT": "-0.5"},
        {"AUSDT": "100", "BUSDT": "10"},
        leverage="10",
    )
    by_symbol = {line.symbol: line for line in found.positions}
    long, short = by_symbol["AUSDT"], by_symbol["BUSDT"]
    rate = Decimal("0.0046")  # first tier and taker fee
    equity = found.after.equity
    for line, other in ((long, short), (short, long)):
        price = line.liquidation_after
        assert price is not None
        moved = equity + line.size_after * (price - line.mark)
        kept = rate * (abs(line.size_after) * price + abs(other.size_after) * other.mark)
        assert abs(moved - kept) < Decimal("1e-15")
        assert line.distance_after == abs(line.mark - price) / line.mark
    assert long.liquidation_after is not None
    assert long.liquidation_after < 100
    assert short.liquidation_after is not None
    assert short.liquidation_after > 10


def test_a_larger_position_falls_under_a_higher_tier() -> None:
    small = estimate({"AUSDT": "0.4"}, {"AUSDT": "100"}, leverage="100", equity="1000")
    large = estimate(
        {"AUSDT": "0.4"}, {"AUSDT": "100"}, leverage="100", equity="10000", available="10000"
    )
    assert small.positions[0].distance_after is not None
    assert large.positions[0].distance_after is not None
    # ten times the money and the position: only the fee share and the tier differ
    assert large.positions[0].distance_after < small.positions[0].distance_after


def test_isolated_liquidation_counts_the_positions_own_margin() -> None:
    found = estimate(
        {"AUSDT": "0.5"}, {"AUSDT": "100"}, leverage="10", margin_mode=MarginMode.ISOLATED
    )
    (line,) = found.positions
    price, size = line.liquidation_after, line.size_after
    assert price is not None
    own = size * 100 / 10 + size * (price - 100)
    assert abs(own - Decimal("0.0046") * size * price) < Decimal("1e-15")


def test_no_liquidation_price_where_no_price_reaches_it_or_nobody_publishes_it() -> None:
    unlevered = estimate({"AUSDT": "0.5"}, {"AUSDT": "100"})
    assert unlevered.positions[0].liquidation_after is None
    closed = estimate({}, {"AUSDT": "100"}, held=(position("AUSDT", "3", "100"),))
    assert closed.positions[0].liquidation_after is None
    assert closed.positions[0].distance_after is None


def test_stops_before_and_after() -> None:
    old, kept = StopPrices(stop_loss=Decimal(80)), StopPrices(stop_loss=Decimal(7))
    found = estimate(
        {"AUSDT": "0.3", "BUSDT": "0.1"},
        {"AUSDT": "100", "BUSDT": "10", "CUSDT": "5"},
        held=(
            position("AUSDT", "3", "100", stops=old),
            position("BUSDT", "10", "10", stops=kept),
            position("CUSDT", "20", "5", stops=kept),
        ),
        stops={"AUSDT": "90", "BUSDT": "7"},
    )
    lines = {line.symbol: line for line in found.positions}
    assert lines["AUSDT"].stops_before == old
    assert lines["AUSDT"].stops_after.stop_loss == 90
    assert lines["BUSDT"].stops_after == kept
    assert lines["CUSDT"].stops_after == NO_STOPS  # it is closed


def test_on_spot_free_money_is_what_is_not_spent() -> None:
    book = depth("AUSDT", bids={}, asks={"101": "90"})
    found = estimate({"AUSDT": "0.5"}, {"AUSDT": "100"}, depths=(book,), market=MarketType.SPOT)
    size = found.legs[0].leg.size
    assert found.after.available == 1000 - size * 101 - found.fees
    assert found.after.margin_used == 0
    assert found.positions[0].liquidation_after is None
