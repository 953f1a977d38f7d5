"""Accounts, leases, audit rows and wanted stops: the model answers as Postgres does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from module.db.repositories.gateway_writes import (
    WriteEntry,
    WriteKind,
    WriteOutcome,
    named_for_later,
)
from module.db.repositories.unprotected_periods import BareCause, begin_period
from module.db.repositories.wanted_stops import WantedStops
from module.model.accounts import TradeEnv
from module.model.credentials import SealedCredentials
from module.model.errors import Conflict, NotFound, StaleWriter, Unavailable
from module.model.orders import StopPrices
from tests.contract.postgres_model.conftest import Stores
from tests.fakes.stored_rows import NOON

pytestmark = pytest.mark.timeout(60)


def order(client_id: str, size: str = "0.0123") -> WriteEntry:
    """A row of an order."""
    return WriteEntry(WriteKind.ORDER, "BTCUSDT", {"size": size}, client_id)


def test_an_account_is_found_and_its_label_is_taken(stores: Stores) -> None:
    record = stores.account()
    found = stores.accounts.get(record.account_id)
    assert (found.epoch, found.trade_env, found.initial_balance) == (
        7,
        TradeEnv.PAPER,
        Decimal("10007.5"),
    )
    with pytest.raises(Conflict):
        stores.account(owner_id=record.owner_id)
    assert record.account_id in {known.account_id for known in stores.accounts.list_active()}
    assert stores.accounts.sealed_credentials(record.account_id) == SealedCredentials(1, b"sealed")
    with pytest.raises(NotFound):
        stores.accounts.get("nobody")


def test_an_account_that_is_off_has_no_wishes_and_no_writes(stores: Stores) -> None:
    record = stores.account()
    stores.leases("gw-1").claim(record.account_id)
    stores.stops.put(
        WantedStops(record.account_id, "BTCUSDT", True, StopPrices(Decimal(9)), 7, NOON)
    )
    assert not stores.accounts.switch_off(record.account_id, erase_keys=True).active
    assert stores.stops.list_for_account(record.account_id) == []
    with pytest.raises(NotFound):
        stores.writes.reserve_orders(stores.author(record), [order("af-1")], NOON)
    with pytest.raises(Conflict):
        stores.accounts.change(record.account_id, active=True)


def test_one_gateway_owns_an_account_until_it_is_gone(stores: Stores) -> None:
    record = stores.account()
    first, second = stores.leases("gw-1"), stores.leases("gw-2")
    first.claim(record.account_id)
    first.claim(record.account_id)
    with pytest.raises(Unavailable) as refused:
        second.claim(record.account_id)
    assert refused.value.code == "lease-lost"
    assert stores.accounts.get(record.account_id).gateway_lease == "gw-1"
    first.close()
    second.claim(record.account_id)
    with pytest.raises(Unavailable) as fenced:
        stores.writes.reserve_orders(stores.author(record), [order("af-1")], NOON)
    assert fenced.value.code == "lease-lost"
    second.close()


def test_a_row_is_reserved_once_and_again_only_when_it_was_not_sent(stores: Stores) -> None:
    record = stores.account()
    lease = stores.leases("gw-1")
    lease.claim(record.account_id)
    author = stores.author(record)
    first = stores.writes.reserve_orders(author, [order("af-1"), order("af-2")], NOON)
    assert (set(first.fresh), set(first.seen)) == ({"af-1", "af-2"}, set())
    outcomes = {
        first.fresh["af-1"]: (WriteOutcome.ACCEPTED, {"order_id": "71"}),
        first.fresh["af-2"]: (WriteOutcome.NOT_SENT, {"message": "paused"}),
    }
    stores.writes.record_outcomes(outcomes, NOON)
    again = stores.writes.reserve_orders(
        author, [order("af-1"), order("af-2", "0.0124"), order("af-3")], NOON + timedelta(seconds=3)
    )
    assert (set(again.fresh), set(again.seen)) == ({"af-2", "af-3"}, {"af-1"})
    requests = {row.client_id: row.request for row in stores.writes.unresolved(record.account_id)}
    assert requests["af-2"] == {"size": "0.0124"}
    assert again.fresh["af-2"] == first.fresh["af-2"]
    assert again.seen["af-1"].outcome is WriteOutcome.ACCEPTED
    assert again.seen["af-1"].request == {"size": "0.0123"}
    assert dict(again.seen["af-1"].answer) == {"order_id": "71"}
    lease.close()


def test_what_never_left_is_ruled_out_and_takes_no_reservation_any_more(stores: Stores) -> None:
    record = stores.account()
    lease = stores.leases("gw-1")
    lease.claim(record.account_id)
    author = stores.author(record)
    rows = stores.writes.reserve_orders(author, [order("af-1"), order("af-2")], NOON).fresh
    stores.writes.record_outcomes({rows["af-2"]: (WriteOutcome.NOT_SENT, {})}, NOON)
    later = NOON + timedelta(seconds=3)
    for _ in range(2):
        told = [stores.writes.rule_out(author, order(f"af-{n}"), later) for n in (1, 2, 3)]
        assert [row.outcome for row in told] == [None, *[WriteOutcome.RULED_OUT] * 2]
        assert told[0].sent_at == NOON
    again = stores.writes.reserve_orders(author, [order("af-2"), order("af-3")], later)
    assert (set(again.fresh), set(again.seen)) == (set(), {"af-2", "af-3"})
    assert stores.writes.sent_since(record.account_id, NOON - timedelta(seconds=1)) == [NOON]
    at = NOON + timedelta(seconds=5)
    stores.writes.record_outcomes({rows["af-1"]: (WriteOutcome.UNKNOWN, {})}, at)
    assert stores.writes.rule_out(author, order("af-1"), later).answered_at == at
    with pytest.raises(StaleWriter):
        stores.writes.rule_out(stores.author(record, epoch=6), order("af-4"), later)
    lease.close()


def test_another_epoch_than_the_accounts_writes_nothing(stores: Stores) -> None:
    record = stores.account()
    lease = stores.leases("gw-1")
    lease.claim(record.account_id)
    for epoch in (6, 8):
        with pytest.raises(StaleWriter):
            stores.writes.reserve_orders(stores.author(record, epoch=epoch), [order("af-1")], NOON)
        with pytest.raises(StaleWriter):
            stops = WriteEntry(WriteKind.STOPS, "BTCUSDT", {})
            stores.writes.reserve(stores.author(record, epoch=epoch), stops, NOON)
    assert stores.writes.unresolved(record.account_id) == []
    lease.close()


def test_a_proven_outcome_is_never_weakened_and_the_unknown_is_listed(stores: Stores) -> None:
    record = stores.account()
    lease = stores.leases("gw-1")
    lease.claim(record.account_id)
    author = stores.author(record)
    rows = stores.writes.reserve_orders(author, [order("af-1"), order("af-2")], NOON).fresh
    stop = stores.writes.reserve(author, WriteEntry(WriteKind.STOPS, "BTCUSDT", {}), NOON)
    stores.writes.reserve(author, WriteEntry(WriteKind.CANCEL, "BTCUSDT", {}), NOON)
    stores.writes.record_outcomes({rows["af-1"]: (WriteOutcome.UNKNOWN, {})}, NOON)
    stores.writes.record_outcomes({rows["af-1"]: (WriteOutcome.REJECTED, {"code": "1"})}, NOON)
    stores.writes.record_outcomes({rows["af-1"]: (WriteOutcome.UNKNOWN, {})}, NOON)
    open_ids = [write.write_id for write in stores.writes.unresolved(record.account_id)]
    assert open_ids == [stop, rows["af-2"]]
    newest = [write.write_id for write in stores.writes.unresolved(record.account_id, limit=1)]
    assert newest == [stop]
    lease.close()


def test_what_is_told_late_is_written_once(stores: Stores) -> None:
    record = stores.account()
    author = stores.author(record)
    entry = WriteEntry(WriteKind.STOPS, "BTCUSDT", {"late_id": "a1"})
    sent = WriteEntry(WriteKind.ORDER, "BTCUSDT", {"late_id": "b1"}, "af-9")
    for _ in range(3):
        stores.writes.add_late(author, [(entry, WriteOutcome.UNKNOWN, {}, NOON)])
        stores.writes.add_late(author, [(sent, WriteOutcome.UNKNOWN, {}, NOON)])
    told = [write.request["late_id"] for write in stores.writes.unresolved(record.account_id)]
    assert told == ["b1", "a1"]


def test_E2_a_reservation_that_nobody_heard_of_is_one_row_with_what_is_told_late(
    stores: Stores,
) -> None:
    record = stores.account()
    lease = stores.leases("gw-1")
    lease.claim(record.account_id)
    author = stores.author(record)
    heard, unheard = (
        named_for_later(WriteEntry(WriteKind.STOPS, "BTCUSDT", {"wanted": "1"})) for _ in range(2)
    )
    stores.writes.reserve(author, heard, NOON)
    row = stores.writes.reserve(author, unheard, NOON)
    late = replace(unheard, request={**unheard.request, "late_id": "a1"})
    for _ in range(2):
        stores.writes.add_late(author, [(late, WriteOutcome.UNKNOWN, {}, NOON)])
    open_writes = {w.write_id: w for w in stores.writes.unresolved(record.account_id)}
    assert len(open_writes) == 2
    assert open_writes[row].outcome is WriteOutcome.UNKNOWN
    assert open_writes[row].request["late_id"] == "a1"
    lease.close()


def test_a_newer_wish_stays(stores: Stores) -> None:
    record = stores.account()

    def wanted(price: str, epoch: int, seconds: int) -> WantedStops:
        at = NOON + timedelta(seconds=seconds)
        stops = StopPrices(Decimal(price))
        return WantedStops(record.account_id, "BTCUSDT", True, stops, epoch, at)

    def kept() -> list[Decimal | None]:
        rows = stores.stops.list_for_account(record.account_id)
        return [row.stops.stop_loss for row in rows]

    stores.stops.put(wanted("51000.5", 7, 10))
    stores.stops.put(wanted("50000.5", 7, 0))
    stores.stops.put(wanted("49000.5", 6, 20))
    stores.stops.remove(record.account_id, "BTCUSDT", NOON + timedelta(seconds=5))
    assert kept() == [Decimal("51000.5")]
    stores.stops.put(wanted("50000.5", 7, 10))
    assert kept() == [Decimal("50000.5")]
    stores.stops.put(wanted("48000.5", 8, 0))
    stores.stops.remove(record.account_id, "BTCUSDT", NOON)
    assert kept() == []


def test_what_was_accepted_and_its_stops_are_on_record_together(stores: Stores) -> None:
    record = stores.account()
    lease = stores.leases("gw-1")
    lease.claim(record.account_id)
    rows = stores.writes.reserve_orders(stores.author(record), [order("af-1")], NOON).fresh
    stops = StopPrices(Decimal("51000.5"), Decimal("71000.5"))
    wish = WantedStops(record.account_id, "BTCUSDT", True, stops, 7, NOON)
    older = WantedStops(record.account_id, "BTCUSDT", True, StopPrices(), 6, NOON)
    stores.writes.record_outcomes({rows["af-1"]: (WriteOutcome.ACCEPTED, {})}, NOON, [wish])
    stores.writes.record_outcomes({}, NOON, [older])
    assert stores.stops.list_for_account(record.account_id) == [wish]
    assert stores.writes.unresolved(record.account_id) == []
    lease.close()


def test_orders_that_left_lately_are_counted_whoever_sent_them(stores: Stores) -> None:
    record = stores.account()
    lease = stores.leases("gw-1")
    lease.claim(record.account_id)
    author = stores.author(record)
    opening = WriteEntry(WriteKind.ORDER, "BTCUSDT", {"order": {"reduce_only": False}}, "af-3")
    closing = WriteEntry(WriteKind.ORDER, "BTCUSDT", {"order": {"reduce_only": True}}, "af-4")
    for seconds, entry in ((0, order("af-1")), (5, order("af-2")), (9, opening), (9, closing)):
        at = NOON + timedelta(seconds=seconds)
        row = stores.writes.reserve_orders(author, [entry], at).fresh
        if entry.client_id == "af-2":
            outcome = (WriteOutcome.NOT_SENT, {"message": "paused"})
            stores.writes.record_outcomes({row["af-2"]: outcome}, at)
    nine = NOON + timedelta(seconds=9)
    assert stores.writes.sent_since(record.account_id, NOON) == [nine, nine]
    lease.close()


def test_an_unprotected_period_is_one_row_however_often_it_is_told(stores: Stores) -> None:
    account = stores.account().account_id
    period = begin_period(account, "BTCUSDT", NOON, BareCause.OPENED)
    assert begin_period(account, "BTCUSDT", NOON, BareCause.FOUND).period_id == period.period_id
    stores.periods.put([period])
    stores.periods.put([period])
    assert stores.periods.open_of(account) == [period]
    ended = period.ended(NOON + timedelta(seconds=7))
    stores.periods.put([ended])
    stores.periods.put([period, period.ended(NOON + timedelta(seconds=99))])
    assert stores.periods.open_of(account) == []
    assert stores.periods.seconds(account, NOON, NOON + timedelta(hours=1)) == 7.0


def test_unprotected_seconds_are_counted_within_the_time_that_is_asked_for(stores: Stores) -> None:
    account, other = stores.account().account_id, stores.account().account_id
    btc = begin_period(account, "BTCUSDT", NOON, BareCause.OPENED)
    eth = begin_period(account, "ETHUSDT", NOON + timedelta(seconds=2), BareCause.REMOVED)
    stores.periods.put([btc.ended(NOON + timedelta(seconds=5)), eth])
    until = NOON + timedelta(seconds=10)
    found = stores.periods.seconds_of({account: NOON + timedelta(seconds=4), other: NOON}, until)
    assert found == {account: 1.0 + 6.0, other: 0.0}
    assert stores.periods.seconds(account, until, until) == 0.0
    assert stores.periods.seconds_of({}, until) == {}
