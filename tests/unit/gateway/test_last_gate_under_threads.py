"""The caps hold per account, however many write at once and whatever is still in flight (I9)."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.gateway.owned_account import IN_FLIGHT_S, POSITIONS_FRESH, OwnedAccount
from module.model.accounts import Position
from module.model.errors import Retryable
from module.model.orders import Outcome
from tests.fakes.gateway_rig import GatewayRig, buy
from tests.fakes.gateway_stores import account
from tests.fakes.hand_clock import START

pytestmark = pytest.mark.timeout(60)
SIZES = st.lists(
    st.lists(st.integers(1, 40), min_size=1, max_size=5), min_size=2, max_size=6
)  # lots of 0.0001 by order, by thread


def limited(**limits: object) -> GatewayRig:
    rig = GatewayRig()
    rig.postgres.records["acc"] = replace(rig.postgres.records["acc"], limits=limits)
    return rig


def trade_at_once(rig: GatewayRig, batches: list[list[Decimal]]) -> list[str | None]:
    start = threading.Barrier(len(batches))
    codes: list[str | None] = []

    def trade(number: int, sizes: list[Decimal]) -> None:
        orders = [buy(f"af-{number}-{n}", str(size)) for n, size in enumerate(sizes)]
        start.wait(20)
        with contextlib.suppress(Retryable):
            codes.extend(r.code for r in rig.gateway.submit("acc", rig.stamp(), orders))

    threads = [
        threading.Thread(target=trade, args=(number, sizes)) for number, sizes in enumerate(batches)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return codes


@settings(max_examples=25, deadline=None)
@given(SIZES)
def test_I9_the_position_cap_holds_for_batches_that_arrive_at_once(
    batches: list[list[int]],
) -> None:
    rig = limited(position_notional_max="300")
    sizes = [[Decimal(lots).scaleb(-4) for lots in batch] for batch in batches]
    codes = trade_at_once(rig, sizes)
    held = sum((order.filled_size for order in rig.venue.orders.values()), Decimal(0))
    mark = rig.venue.quotes(["BTCUSDT"])["BTCUSDT"].mark
    assert held * mark <= 300
    wanted = sum((size for batch in sizes for size in batch), Decimal(0))
    if wanted * mark > 300:
        assert "limit-position-notional" in codes


@settings(max_examples=25, deadline=None)
@given(SIZES, st.integers(0, 12))
def test_I9_orders_per_minute_hold_for_batches_that_arrive_at_once(
    batches: list[list[int]], most: int
) -> None:
    rig = limited(orders_per_minute=most)
    trade_at_once(rig, [[Decimal("0.0001") for _ in batch] for batch in batches])
    count = sum(len(batch) for batch in batches)
    assert len(rig.venue.orders) == min(count, most)


def test_I9_a_gateway_that_starts_again_remembers_the_orders_of_the_last_minute() -> None:
    rig = limited(orders_per_minute=3)
    rig.gateway.submit("acc", rig.stamp(), [buy("af-1", "0.0001"), buy("af-2", "0.0001")])
    rig.postgres.owner = None  # it was killed
    second = rig.another("gw-2")
    first, other = second.submit("acc", rig.stamp(), [buy("af-3", "0.0001"), buy("af-4", "0.0001")])
    assert (first.outcome, other.code) == (Outcome.ACCEPTED, "limit-orders-per-minute")
    rig.clock.advance(61)
    assert second.submit("acc", rig.stamp(), [buy("af-5", "0.0001")])[0].code is None


# --- which readings of positions are good enough ---


def owned_with_reading(after_s: float = 0.0) -> OwnedAccount:
    owned = OwnedAccount(account(), GatewayRig().venue)
    owned.keep_positions((), owned.begin_reading(START + timedelta(seconds=after_s)))
    return owned


def is_fresh(owned: OwnedAccount, symbol: str, after_s: float) -> bool:
    return owned.fresh_positions([symbol], START + timedelta(seconds=after_s)) is not None


def test_a_write_makes_the_reading_old_for_its_symbol_alone() -> None:
    owned = owned_with_reading()
    owned.note_written({"BTCUSDT"}, START)
    assert not is_fresh(owned, "BTCUSDT", 0)
    assert is_fresh(owned, "ETHUSDT", 0)


def test_a_reading_that_began_before_the_answer_of_a_write_is_not_believed() -> None:
    owned = owned_with_reading()
    reading = owned.begin_reading(START)
    owned.note_written({"BTCUSDT"}, START)
    owned.keep_positions((), reading)
    assert not is_fresh(owned, "BTCUSDT", 0)


def test_a_reading_of_right_after_a_write_is_good_while_the_write_counts_as_in_flight() -> None:
    owned = owned_with_reading()
    owned.note_written({"BTCUSDT"}, START)
    owned.keep_positions((), owned.begin_reading(START))
    assert is_fresh(owned, "BTCUSDT", IN_FLIGHT_S - 0.1)
    assert POSITIONS_FRESH.total_seconds() > IN_FLIGHT_S
    assert not is_fresh(owned, "BTCUSDT", IN_FLIGHT_S + 0.1), "it may not show the fill"


def test_a_slow_reading_does_not_replace_a_later_one() -> None:
    owned = owned_with_reading()
    slow = owned.begin_reading(START)
    owned.note_written({"BTCUSDT"}, START)
    owned.keep_positions((), owned.begin_reading(START))
    owned.keep_positions((_position(),), slow)
    assert owned.positions == {}


def _position() -> Position:
    rig = GatewayRig()
    rig.venue.hold("BTCUSDT", Decimal("0.5"))
    return rig.venue.positions()[0]
