"""The leader dies at every point between two effects; a new one finds the letter and goes on.

Whatever the point: no order twice, nothing unplanned, the account at its targets or the residual on
record, and the position protected.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from module.model.accounts import MarginMode, SymbolSettings
from module.model.orders import StopPrices
from tests.fakes.crashes import Crash
from tests.fakes.exchange import FillsPart, Lost
from tests.unit.trading.execution.desk import Desk, wanted
from trading.execution.auto_trade import auto_trade
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import CycleStage, OrderInfo, from_json

STOPS = {"BTCUSDT": ("55000", "70000"), "ETHUSDT": ("3300", None)}
TARGETS = wanted({"BTCUSDT": "0.3", "ETHUSDT": "-0.2", "SOLUSDT": "0.1"}, STOPS)
REACHED = {
    "BTCUSDT": Decimal("0.0499"),
    "ETHUSDT": Decimal("-0.67"),
    "SOLUSDT": Decimal("6.6"),
    "XRPUSDT": Decimal(0),
}
POINTS_MAX = 400


def all_well(_desk: Desk) -> None:
    """Nothing else goes wrong."""


def answer_lost(desk: Desk) -> None:
    desk.exchange.script["submit"].extend([Lost(), Lost(accepted=1)])


def slow_index(desk: Desk) -> None:
    desk.exchange.index_lag_s = 3.0


def stops_lost(desk: Desk) -> None:
    desk.exchange.presets_lost = True


def filled_in_parts(desk: Desk) -> None:
    desk.exchange.script["submit"].extend(
        [FillsPart("XRPUSDT", Decimal(411)), FillsPart("BTCUSDT", Decimal("0.0123"))]
    )


def other_leverage(desk: Desk) -> None:
    desk.apply_account_settings = True
    desk.exchange.modes["BTCUSDT"] = SymbolSettings("BTCUSDT", Decimal(9), MarginMode.ISOLATED)


WORLDS = [all_well, answer_lost, slow_index, stops_lost, filled_in_parts, other_leverage]


def build(prepare: Callable[[Desk], None]) -> tuple[Desk, OrderInfo]:
    """A desk that holds a flip, a decrease and a close, with the letter of the cycle planned."""
    desk = Desk()
    desk.exchange.fee_rate = Decimal(0)  # so that the targets are the same sizes later
    desk.exchange.hold("ETHUSDT", "0.31")
    desk.exchange.hold("SOLUSDT", "16.5")
    desk.exchange.hold("XRPUSDT", "1007")
    prepare(desk)
    return desk, desk.planned(TARGETS)


def check(desk: Desk) -> None:
    """What must hold in any case (I1, I3, I6)."""
    desk.exchange.require_exactly_once()
    letters = [from_json(document) for document in desk.store.written]
    planned = {
        part.client_id: part.size
        for letter in letters
        for record in letter.legs
        for part in record.slices
    }
    for order in desk.exchange.ledger:
        assert planned[order.client_id] == order.size
    for symbol, size in REACHED.items():
        held = desk.exchange.held(symbol)
        assert abs(held) <= max(abs(size), Decimal(1007) if symbol == "XRPUSDT" else Decimal(17))


def converge(desk: Desk) -> None:
    """The next cycles, until nothing is left to trade: at most two."""
    for _ in range(2):
        desk.clock.advance(60)
        desk.epoch = max(desk.epoch, desk.exchange.epoch)
        done = desk.trade(TARGETS)
        assert done.stage is CycleStage.DONE
    assert {symbol: desk.exchange.held(symbol) for symbol in REACHED} == REACHED
    assert desk.exchange.stops_of("BTCUSDT") == StopPrices(Decimal(55000), Decimal(70000))
    assert desk.exchange.stops_of("ETHUSDT") == StopPrices(Decimal(3300))
    desk.exchange.require_exactly_once()


def die_at(point: int, prepare: Callable[[Desk], None]) -> tuple[Desk, bool]:
    """A desk whose leader died at its `point`-th point, and whether it reached it at all."""
    desk, letter = build(prepare)
    desk.crashes.reached.clear()
    desk.crashes.die_at = point
    try:
        auto_trade(letter, desk.ports(), desk.rules())
    except Crash:
        return desk, True
    return desk, False


@pytest.mark.parametrize("prepare", WORLDS)
def test_D2_D3_D4_a_crash_at_every_point_then_finished_by_the_next_leader(
    prepare: Callable[[Desk], None],
) -> None:
    points = 0
    for point in range(1, POINTS_MAX):
        desk, died = die_at(point, prepare)
        if not died:
            break
        points += 1
        done = desk.resume()
        assert done.stage is CycleStage.DONE
        assert all(record.state.is_terminal for record in done.legs)
        check(desk)
        for record in done.legs:
            short = record.leg.size - record.filled_size
            assert short == 0 or record.abandoned or record.state is LegState.ABANDONED
        converge(desk)
    assert points > 20


@pytest.mark.parametrize("prepare", WORLDS)
def test_D2_a_crash_at_every_point_then_dropped_as_too_old(
    prepare: Callable[[Desk], None],
) -> None:
    for point in range(1, POINTS_MAX):
        desk, died = die_at(point, prepare)
        if not died:
            break
        desk.clock.advance(3600)
        before = len(desk.exchange.ledger)
        dropped = desk.settle()
        assert dropped.stage is CycleStage.DROPPED
        assert len(desk.exchange.ledger) == before  # nothing new was sent
        assert all(record.is_over for record in dropped.legs)
        check(desk)
        converge(desk)


def test_D2_a_second_crash_while_recovering_from_the_first() -> None:
    for first in range(1, POINTS_MAX, 7):
        desk, died = die_at(first, answer_lost)
        if not died:
            break
        for second in range(3, POINTS_MAX, 11):
            desk.crashes.reached.clear()
            desk.crashes.die_at = second
            desk.epoch += 1
            letter = from_json(desk.store.last).changed(epoch=desk.epoch)
            try:
                auto_trade(letter, desk.ports(), desk.rules())
            except Crash:
                check(desk)
                continue
            break
        if not from_json(desk.store.last).stage.is_over:
            desk.resume()
        desk.crashes.forgive()
        check(desk)
        converge(desk)


def test_D3_what_the_exchange_did_before_the_crash_is_booked_once() -> None:
    desk, letter = build(all_well)
    desk.crashes.reached.clear()
    auto_trade(letter, desk.ports(), desk.rules())
    point = desk.crashes.reached.index("exchange.submit: sent") + 1
    died, _ = die_at(point, all_well)
    assert len(died.exchange.ledger) == 3
    done = died.resume()
    assert sum(1 for order in died.exchange.ledger if order.reduce_only) == 3
    assert all(len(record.slices) == 1 for record in done.legs)


def test_D4_a_slice_that_was_written_and_never_sent_is_sent_once_and_at_once() -> None:
    desk, letter = build(all_well)
    desk.crashes.reached.clear()
    auto_trade(letter, desk.ports(), desk.rules())
    point = desk.crashes.reached.index("exchange.submit: called") + 1
    died, _ = die_at(point, all_well)
    assert died.exchange.ledger == []
    began = died.clock.now()
    done = died.resume()
    assert (died.clock.now() - began).total_seconds() < 1
    assert {symbol: died.exchange.held(symbol) for symbol in REACHED} == REACHED
    first = done.leg("XRPUSDT-close").slices
    assert [part.state for part in first] == [LegState.ABANDONED, LegState.FILLED]
    assert first[0].client_id != first[1].client_id
