"""What must be true before something opens: settings as wanted, closes seen, money that is free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

import pytest

from module.model.accounts import MarginMode, PositionMode, SymbolSettings
from module.model.errors import AifapError, Conflict, OutcomeUnknown, TooLate, Unavailable
from module.model.market import MarketType
from tests.fakes.exchange import Fails, FakeExchange, make_instrument
from tests.unit.trading.execution.desk import Desk, wanted
from trading.execution.ahead import set_ahead
from trading.execution.evidence import POLL_FIRST_S
from trading.execution.opening import (
    NO_MARGIN,
    POSITION_LOOKS,
    POSITION_WAIT_S,
    SETTING_TRIES,
    ClosedByAccount,
    require_one_way,
    see_closed,
    size_openings,
    verify_settings,
)
from trading.execution.scribe import Scribe
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import (
    Holding,
    OrderInfo,
    Sized,
    Slice,
    from_json,
    given_up,
)
from trading.rebalance.plan import SkipReason

ZERO = Decimal(0)


def scribe_of(desk: Desk, market: MarketType = MarketType.FUTURES) -> Scribe:
    rules = desk.rules()
    return Scribe(desk.ports(), replace(rules, policy=replace(rules.policy, market=market)))


# --- settings -------------------------------------------------------------------------------------


def settings(symbol: str, leverage: str, mode: MarginMode = MarginMode.CROSSED) -> SymbolSettings:
    return SymbolSettings(symbol, Decimal(leverage), mode)


def test_A21_what_does_not_open_needs_no_settings() -> None:
    desk = Desk()
    verify_settings(scribe_of(desk), [])
    verify_settings(scribe_of(desk, MarketType.SPOT), ["BTCUSDT"])
    assert desk.exchange.calls == []


def test_A21_settings_that_are_as_wanted_cost_one_question_for_the_whole_book() -> None:
    desk = Desk()
    verify_settings(scribe_of(desk), ["BTCUSDT", "ETHUSDT"])
    assert desk.exchange.calls == ["symbol_settings"]


def test_A21_a_large_book_is_asked_for_at_once_unless_something_has_to_be_set() -> None:
    """While settings are set, at the exchange's pace, those of the next symbols grow no older."""
    symbols = [f"S{number:02}USDT" for number in range(17)]
    for other, questions in (([], 2), (symbols[:1], 3)):
        desk = Desk(apply_account_settings=True)
        desk.exchange.modes = {symbol: settings(symbol, "7") for symbol in other}
        verify_settings(scribe_of(desk), symbols)
        assert desk.exchange.calls.count("symbol_settings") == questions
        assert desk.exchange.calls.count("apply_symbol_settings") == len(other)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (settings("ETHUSDT", "7"), "ETHUSDT has leverage 7 crossed on the exchange"),
        (settings("ETHUSDT", "1", MarginMode.ISOLATED), "leverage 1 isolated on the exchange"),
    ],
)
def test_A21_the_one_symbol_that_differs_is_named_with_what_is_wanted(
    found: SymbolSettings, said: str
) -> None:
    desk = Desk()
    desk.exchange.modes["ETHUSDT"] = found
    with pytest.raises(Conflict, match=f"{said}, the session wants 1 crossed: set it there"):
        verify_settings(scribe_of(desk), ["BTCUSDT", "ETHUSDT"])
    assert "apply_symbol_settings" not in desk.exchange.calls


def test_A21_every_symbol_that_differs_is_set_and_no_other() -> None:
    desk = Desk(apply_account_settings=True, leverage=Decimal(2))
    desk.exchange.hold("XRPUSDT", "1007")
    desk.exchange.modes["BTCUSDT"] = settings("BTCUSDT", "20")
    desk.exchange.modes["ETHUSDT"] = settings("ETHUSDT", "2", MarginMode.ISOLATED)
    verify_settings(scribe_of(desk), ["BTCUSDT", "ETHUSDT", "SOLUSDT"])
    assert desk.exchange.modes == {
        "BTCUSDT": settings("BTCUSDT", "2"),
        "ETHUSDT": settings("ETHUSDT", "2"),
    }
    assert desk.exchange.calls.count("apply_symbol_settings") == 2
    (stamp, _) = desk.exchange.stamps
    assert (stamp.epoch, stamp.cycle) == (desk.epoch, None)


def test_A21_a_held_symbol_is_named_with_what_it_can_be_set_to_while_flat() -> None:
    desk = Desk(apply_account_settings=True)
    desk.exchange.hold("ETHUSDT", "0.31")
    desk.exchange.modes["ETHUSDT"] = settings("ETHUSDT", "7")
    with pytest.raises(Conflict, match=r"leverage 7 .* and is held; 1 crossed can be set only"):
        verify_settings(scribe_of(desk), ["ETHUSDT"])
    assert desk.exchange.calls.count("apply_symbol_settings") == 0


@pytest.mark.parametrize("error", [OutcomeUnknown("lost"), TooLate("nothing was sent")])
def test_A21_a_setting_is_said_again_a_few_times_and_no_more(error: AifapError) -> None:
    desk = Desk(apply_account_settings=True)
    desk.exchange.modes["ETHUSDT"] = settings("ETHUSDT", "7")
    desk.exchange.script["apply_symbol_settings"].extend([Fails(error)] * (SETTING_TRIES - 1))
    verify_settings(scribe_of(desk), ["ETHUSDT"])
    assert desk.exchange.modes["ETHUSDT"] == settings("ETHUSDT", "1")
    desk.exchange.modes["ETHUSDT"] = settings("ETHUSDT", "7")
    desk.exchange.calls.clear()
    desk.exchange.script["apply_symbol_settings"].extend([Fails(error)] * 99)
    with pytest.raises(Conflict, match=r"leverage 7 .* after it was told to be 1 crossed"):
        verify_settings(scribe_of(desk), ["ETHUSDT"])
    assert desk.exchange.calls.count("apply_symbol_settings") == SETTING_TRIES


def test_A21_a_gateway_that_is_away_is_not_a_setting_that_was_refused() -> None:
    desk = Desk(apply_account_settings=True)
    desk.exchange.modes["ETHUSDT"] = settings("ETHUSDT", "7")
    desk.exchange.script["apply_symbol_settings"].append(Fails(Unavailable("away")))
    with pytest.raises(Unavailable):
        verify_settings(scribe_of(desk), ["ETHUSDT"])


class StubbornExchange(FakeExchange):
    """Says what settings it has, which are not those that it was told."""

    def apply_symbol_settings(self, *said: object) -> SymbolSettings:
        self.calls.append("apply_symbol_settings")
        return self.modes["ETHUSDT"]


def test_A21_settings_that_read_back_otherwise_are_not_set() -> None:
    desk = Desk(apply_account_settings=True)
    desk.exchange = StubbornExchange(desk.clock, epoch=desk.epoch)
    desk.exchange.modes["ETHUSDT"] = settings("ETHUSDT", "7")
    with pytest.raises(Conflict, match="after it was told to be"):
        verify_settings(scribe_of(desk), ["ETHUSDT"])
    assert desk.exchange.calls.count("apply_symbol_settings") == 1


def test_A21_only_what_a_session_will_trade_is_set_ahead() -> None:
    """Not every symbol that the exchange lists, which others may trade by hand."""
    desk = Desk(apply_account_settings=True)
    desk.exchange.modes["BTCUSDT"] = settings("BTCUSDT", "20")
    desk.exchange.modes["ETHUSDT"] = settings("ETHUSDT", "7")
    set_ahead(desk.ports(), desk.rules(), frozenset({"BTCUSDT", "NOTLISTEDUSDT"}))
    assert desk.exchange.modes == {
        "BTCUSDT": settings("BTCUSDT", "1"),
        "ETHUSDT": settings("ETHUSDT", "7"),
    }


def test_A22_hedge_mode_is_refused_on_futures_only() -> None:
    desk = Desk()
    desk.exchange.position_mode = PositionMode.HEDGE
    snapshot = desk.exchange.snapshot()
    with pytest.raises(Conflict, match="hedge mode"):
        require_one_way(scribe_of(desk), snapshot)
    require_one_way(scribe_of(desk, MarketType.SPOT), snapshot)
    one_way = replace(snapshot, position_mode=PositionMode.ONE_WAY)
    require_one_way(scribe_of(desk), one_way)


# --- closes that the account shows ----------------------------------------------------------------


def with_slice(
    info: OrderInfo,
    leg_id: str,
    state: LegState = LegState.ACKNOWLEDGED,
    size: str | None = None,
    filled: str = "0",
) -> OrderInfo:
    """The leg with a further slice (of its whole size) that is in `state`."""
    record = info.leg(leg_id)
    number = len(record.slices)
    amount = record.size if size is None else Decimal(size)
    part = Slice(
        number, f"af-{leg_id.lower()}-{number}", amount, state, filled_size=Decimal(filled)
    )
    return info.with_legs({leg_id: replace(record, slices=(*record.slices, part))})


def closing(desk: Desk, **held: str) -> OrderInfo:
    """`held` is to be closed, BTC opened."""
    for symbol, size in held.items():
        desk.exchange.hold(symbol, size)
    info = desk.planned(wanted({"BTCUSDT": "0.3"}))
    desk.exchange.calls.clear()
    return info


def flat(desk: Desk, *symbols: str) -> None:
    for symbol in symbols:
        desk.exchange.hold(symbol, "0")


@pytest.mark.parametrize("size", ["1007", "-1007"])
def test_closes_that_the_account_shows_need_not_be_asked_for_one_by_one(size: str) -> None:
    desk = Desk()
    info = with_slice(closing(desk, XRPUSDT=size), "XRPUSDT-close")
    flat(desk, "XRPUSDT")
    found = see_closed(scribe_of(desk), info)
    assert found == ClosedByAccount(frozenset({"XRPUSDT-close"}), desk.exchange.snapshot())
    assert desk.clock.slept == [POLL_FIRST_S], "just acknowledged, it would not be shown at once"


def test_a_smaller_position_is_seen_as_well() -> None:
    desk = Desk()
    desk.exchange.hold("XRPUSDT", "9007")
    info = desk.planned(wanted({"BTCUSDT": "0.3", "XRPUSDT": "0.25"}))
    (leg_id,) = (record.leg.leg_id for record in info.legs if record.leg.reduce_only)
    reduced = info.leg(leg_id)
    left = Decimal(9007) - reduced.size
    assert left > 0
    desk.exchange.hold("XRPUSDT", left)
    assert see_closed(scribe_of(desk), with_slice(info, leg_id)) is not None
    desk.exchange.hold("XRPUSDT", left - 1)
    assert see_closed(scribe_of(desk), with_slice(info, leg_id)) is None


def test_a_close_of_which_the_account_shows_a_part_is_asked_for() -> None:
    desk = Desk()
    info = with_slice(closing(desk, XRPUSDT="1007"), "XRPUSDT-close")
    desk.exchange.hold("XRPUSDT", "1")
    assert see_closed(scribe_of(desk), info) is None


def test_one_close_that_is_not_shown_has_all_of_them_asked_for() -> None:
    desk = Desk()
    info = closing(desk, SOLUSDT="3", XRPUSDT="1007")
    info = with_slice(with_slice(info, "XRPUSDT-close"), "SOLUSDT-close")
    flat(desk, "SOLUSDT")
    assert see_closed(scribe_of(desk), info) is None
    flat(desk, "XRPUSDT")
    found = see_closed(scribe_of(desk), info)
    assert found is not None
    assert found.leg_ids == {"SOLUSDT-close", "XRPUSDT-close"}


@pytest.mark.parametrize("state", [LegState.SENT, LegState.UNKNOWN, LegState.PLANNED])
def test_I5_a_close_that_nobody_has_acknowledged_is_not_read_off_the_account(
    state: LegState,
) -> None:
    """The position may have been closed by somebody else, and the order may still come."""
    desk = Desk()
    info = closing(desk, SOLUSDT="3", XRPUSDT="1007")
    info = with_slice(with_slice(info, "XRPUSDT-close", state), "SOLUSDT-close")
    flat(desk, "SOLUSDT", "XRPUSDT")
    assert see_closed(scribe_of(desk), info) is None
    assert desk.exchange.calls == []


def test_a_close_that_has_not_left_is_not_read_off_the_account() -> None:
    desk = Desk()
    info = with_slice(closing(desk, SOLUSDT="3", XRPUSDT="1007"), "SOLUSDT-close")
    flat(desk, "SOLUSDT", "XRPUSDT")
    assert see_closed(scribe_of(desk), info) is None
    assert desk.exchange.calls == []


def test_a_close_in_several_slices_is_seen_with_its_last() -> None:
    desk = Desk()
    planned = closing(desk, XRPUSDT="1007")
    first = with_slice(planned, "XRPUSDT-close", LegState.FILLED, "411", "411")
    second = with_slice(first, "XRPUSDT-close", size="596", filled="100")
    flat(desk, "XRPUSDT")
    assert see_closed(scribe_of(desk), second) is not None
    third_follows = with_slice(first, "XRPUSDT-close", size="595", filled="100")
    desk.exchange.hold("XRPUSDT", "1")
    desk.exchange.calls.clear()
    assert see_closed(scribe_of(desk), third_follows) is None
    assert desk.exchange.calls == []


def test_where_nothing_is_to_open_nobody_hurries() -> None:
    desk = Desk()
    info = with_slice(closing(desk, XRPUSDT="1007"), "XRPUSDT-close")
    flat(desk, "XRPUSDT")
    over = given_up(info.leg("BTCUSDT-open"), "no margin left")
    assert see_closed(scribe_of(desk), info.with_legs({"BTCUSDT-open": over})) is None
    assert see_closed(scribe_of(desk), replace(info, basis=None)) is None
    opening_only = replace(info, legs=(info.leg("BTCUSDT-open"),))
    assert see_closed(scribe_of(desk), opening_only) is None
    ended = given_up(closing(desk, XRPUSDT="1007").leg("XRPUSDT-close"), "suspended")
    desk.exchange.calls.clear()
    assert see_closed(scribe_of(desk), info.with_legs({"XRPUSDT-close": ended})) is None
    assert desk.exchange.calls == []


def test_a_symbol_that_was_not_held_by_the_plan_is_compared_as_flat() -> None:
    """A close of what appeared after the look: by the letter nothing is there."""
    desk = Desk()
    info = with_slice(closing(desk, XRPUSDT="1007"), "XRPUSDT-close")
    assert info.basis is not None
    unknown = replace(info, basis=Holding(info.basis.at, {}))
    flat(desk, "XRPUSDT")
    assert see_closed(scribe_of(desk), unknown) is None


# --- sizes ----------------------------------------------------------------------------------------


def sized(desk: Desk, info: OrderInfo, closed: ClosedByAccount | None = None) -> OrderInfo:
    return size_openings(scribe_of(desk), info, desk.exchange.rules, closed)


def why(info: OrderInfo) -> Mapping[str, str | None]:
    return {record.leg.symbol: record.abandoned for record in info.legs if record.abandoned}


TWO = {"BTCUSDT": "0.5", "SOLUSDT": "0.45"}


def test_what_fits_leaves_as_it_was_planned_and_costs_no_letter() -> None:
    desk = Desk()
    info = desk.planned(wanted(TWO))
    assert sized(desk, info) is info
    assert len(desk.store.written) == 1


def test_what_is_free_is_shared_and_the_plan_stays_in_the_letter() -> None:
    desk = Desk()
    info = desk.planned(wanted(TWO, {"BTCUSDT": ("55000", None)}))
    desk.exchange.wallet = Decimal(4_001)
    done = sized(desk, info)
    for record in done.legs:
        assert record.size < record.leg.size == info.leg(record.leg.leg_id).size
        assert record.sized == Sized(record.size, record.leg.stops, "sized by what was free")
    assert from_json(desk.store.last) == info, "the batch that leaves saves it"
    assert done.plan_digest == info.plan_digest
    desk.exchange.wallet = Decimal(20_000)
    again = sized(desk, done)
    assert [record.size for record in again.legs] == [record.leg.size for record in info.legs]


def test_what_has_left_or_is_over_is_not_sized_anew() -> None:
    desk = Desk()
    info = desk.planned(wanted(TWO))
    info = with_slice(info, "BTCUSDT-open", LegState.ABANDONED, filled="0.01")
    over = given_up(info.leg("SOLUSDT-open"), "the session is stopping")
    info = info.with_legs({"SOLUSDT-open": over})
    desk.exchange.wallet = Decimal(1_001)
    desk.exchange.calls.clear()
    assert sized(desk, info) is info
    assert desk.exchange.calls == []


def test_nothing_free_gives_up_with_a_reason_that_is_said_once() -> None:
    desk = Desk()
    info = desk.planned(wanted(TWO))
    desk.exchange.wallet = Decimal(2)
    done = sized(desk, info)
    assert why(done) == {"BTCUSDT": NO_MARGIN, "SOLUSDT": NO_MARGIN}
    assert [(item.symbol, item.reason) for item in done.skipped_later] == [
        ("BTCUSDT", SkipReason.NO_MARGIN_LEFT),
        ("SOLUSDT", SkipReason.NO_MARGIN_LEFT),
    ]
    again = sized(desk, replace(info, skipped_later=done.skipped_later))
    assert again.skipped_later == done.skipped_later


def test_A20_a_symbol_without_rules_says_that_it_cannot_be_traded() -> None:
    desk = Desk()
    info = desk.planned(wanted(TWO))
    del desk.exchange.rules["SOLUSDT"]
    done = sized(desk, info)
    assert why(done) == {"SOLUSDT": "not_tradable"}
    assert done.leg("BTCUSDT-open").size == info.leg("BTCUSDT-open").size


def test_A28_a_frozen_symbol_opens_nothing_and_its_money_goes_to_the_others() -> None:
    desk = Desk(frozen={"BTCUSDT": "changed by hand four times"})
    info = desk.planned(wanted(TWO))
    desk.exchange.wallet = Decimal(5_001)
    done = sized(desk, info)
    assert why(done) == {"BTCUSDT": "changed by hand four times"}
    assert done.leg("SOLUSDT-open").sized is None


def test_A22_nothing_is_sized_in_hedge_mode() -> None:
    desk = Desk()
    info = desk.planned(wanted(TWO))
    desk.exchange.position_mode = PositionMode.HEDGE
    with pytest.raises(Conflict, match="hedge mode"):
        sized(desk, info)


# flips


def flip(desk: Desk) -> OrderInfo:
    desk.exchange.hold("ETHUSDT", "0.31")
    info = desk.planned(wanted({"ETHUSDT": "-0.2", "SOLUSDT": "0.1"}))
    assert info.leg("ETHUSDT-open").leg.after == "ETHUSDT-close"
    return info


def test_I6_a_flip_opens_only_after_a_close_that_was_confirmed_whole() -> None:
    desk = Desk()
    info = with_slice(flip(desk), "ETHUSDT-close", LegState.ABANDONED, filled="0.30")
    desk.exchange.hold("ETHUSDT", "0.01")
    done = sized(desk, info)
    said = "ETHUSDT-close was not confirmed, so nothing opens the other way"
    assert why(done) == {"ETHUSDT": said}
    other = Desk()
    info = with_slice(flip(other), "ETHUSDT-close", LegState.FILLED, filled="0.31")
    flat(other, "ETHUSDT")
    assert sized(other, info) is info


def test_a_close_that_the_account_shows_is_confirmed_and_not_looked_at_again() -> None:
    desk = Desk()
    info = with_slice(flip(desk), "ETHUSDT-close")
    flat(desk, "ETHUSDT")
    closed = ClosedByAccount(frozenset({"ETHUSDT-close"}), desk.exchange.snapshot())
    desk.exchange.calls.clear()
    assert sized(desk, info, closed) is info
    assert desk.exchange.calls == []
    other = ClosedByAccount(frozenset({"XRPUSDT-close"}), closed.snapshot)
    assert list(why(sized(desk, info, other))) == ["ETHUSDT"]


@pytest.mark.parametrize("state", [LegState.SENT, LegState.UNKNOWN])
def test_I5_a_flip_whose_close_nobody_has_seen_waits_and_is_not_given_up(state: LegState) -> None:
    desk = Desk()
    info = with_slice(flip(desk), "ETHUSDT-close", state)
    assert sized(desk, info) is info


# positions that are not as the letter says


def test_B12_nothing_is_added_to_a_position_that_is_another() -> None:
    desk = Desk()
    desk.exchange.hold("SOLUSDT", "10")
    info = desk.planned(wanted({"SOLUSDT": "0.25", "BTCUSDT": "0.1"}))
    desk.exchange.hold("SOLUSDT", "5")
    done = sized(desk, info)
    said = "the position of SOLUSDT is 5, by the letter 10; nothing is added to it in this cycle"
    assert why(done) == {"SOLUSDT": said}
    assert desk.clock.slept == [POSITION_WAIT_S] * (POSITION_LOOKS - 1)
    assert desk.exchange.calls.count("snapshot") == 1 + POSITION_LOOKS


def test_an_exchange_that_shows_a_position_late_gets_a_further_look() -> None:
    desk = Desk()
    desk.exchange.hold("SOLUSDT", "10")
    info = desk.planned(wanted({"SOLUSDT": "0.25"}))
    desk.exchange.hold("SOLUSDT", "5")
    desk.clock.after(POSITION_WAIT_S / 2, lambda: desk.exchange.hold("SOLUSDT", "10"))
    assert sized(desk, info) is info
    assert desk.clock.slept == [POSITION_WAIT_S]


def test_a_close_that_is_shown_late_is_looked_at_again() -> None:
    """The snapshot that showed the closes is old by now for what opens."""
    desk = Desk()
    desk.exchange.hold("SOLUSDT", "10")
    info = desk.planned(wanted({"SOLUSDT": "0.25"}))
    desk.exchange.hold("SOLUSDT", "5")
    closed = ClosedByAccount(frozenset(), desk.exchange.snapshot())
    desk.exchange.hold("SOLUSDT", "10")
    desk.exchange.calls.clear()
    assert sized(desk, info, closed) is info
    assert desk.exchange.calls == ["snapshot"]


def test_B13_a_lot_more_or_less_is_no_other_position() -> None:
    desk = Desk()
    desk.exchange.rules["SOLUSDT"] = make_instrument("SOLUSDT", size_step=Decimal(1))
    desk.exchange.hold("SOLUSDT", "10")
    info = desk.planned(wanted({"SOLUSDT": "0.25"}))
    desk.exchange.hold("SOLUSDT", "9")
    assert sized(desk, info) is info
