"""Each fill, bill and closed position counts once, and only up to the moment that is measured."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from module.exchange import bitget_rows
from module.model.accounts import BillKind
from module.model.results import StoredHistory, SymbolTotals, TradeSums
from monitoring.ledger import OVERLAP, HistoryLedger, quote_fee
from tests.fakes.paper_venue import PaperVenue
from tests.fakes.watched_account import MINUTE, START, bill, closed, fill, minute


def test_sums_take_profit_and_fees_from_fills_funding_and_transfers_from_bills() -> None:
    ledger = HistoryLedger(START)
    at = minute(1)
    ledger.book_fills([fill(1, at, pnl="12.5", fee="-1.5"), fill(2, at, pnl="-3", fee="-0.5")])
    ledger.book_bills(
        [
            bill(1, at, BillKind.TRADE, "12.5"),
            bill(2, at, BillKind.FUNDING, "-0.75"),
            bill(3, at, BillKind.TRANSFER, "500"),
            bill(4, at, BillKind.TRANSFER, "2", asset="ETH"),
        ]
    )
    totals = ledger.totals_at(at)
    assert totals.by_symbol["BTCUSDT"] == SymbolTotals(
        Decimal("9.5"), Decimal("-2.0"), Decimal("-0.75")
    )
    assert totals.net_transfers == Decimal(500)


def test_the_same_item_counts_once_however_often_it_is_fetched() -> None:
    ledger = HistoryLedger(START)
    item = fill(1, minute(1), pnl="12.5")
    assert len(ledger.book_fills([item])) == 1
    assert ledger.book_fills([item, item]) == ()
    assert ledger.totals_at(minute(2)).by_symbol["BTCUSDT"].realized_pnl == Decimal("12.5")


def test_what_happened_before_the_session_is_not_its_own() -> None:
    ledger = HistoryLedger(START)
    assert ledger.book_fills([fill(1, START - MINUTE)]) == ()
    assert ledger.book_bills([bill(1, START, BillKind.TRANSFER, "10000")]) == ()
    assert ledger.since("fill") == START


def test_what_happens_after_the_snapshot_waits_for_the_next_one() -> None:
    ledger = HistoryLedger(START)
    ledger.book_bills([bill(3, minute(2), BillKind.TRANSFER, "500")])
    assert ledger.totals_at(minute(1)).net_transfers == 0
    assert ledger.totals_at(minute(2)).net_transfers == Decimal(500)


def test_a_late_item_within_the_overlap_is_still_asked_for() -> None:
    ledger = HistoryLedger(START)
    ledger.book_fills([fill(1, minute(60))])
    assert ledger.since("fill") == minute(60) - OVERLAP
    assert len(ledger.book_fills([fill(2, minute(55))])) == 1


def test_a_restart_counts_nothing_twice() -> None:
    stored = StoredHistory(
        by_symbol={"BTCUSDT": SymbolTotals(realized_pnl=Decimal("12.5"))},
        net_transfers=Decimal(500),
        sums=TradeSums(trades=3, trades_won=2),
        fill_at=minute(60),
        bill_at=minute(58),
        position_closed_at=None,
        recent=frozenset({"fill:trade-1", "bill:bill-3"}),
    )
    ledger = HistoryLedger.resume(START, stored)
    assert ledger.book_fills([fill(1, minute(60), pnl="12.5")]) == ()
    assert ledger.book_bills([bill(3, minute(58), BillKind.TRANSFER, "500")]) == ()
    ledger.book_positions([closed(9, minute(61), "-4")])
    totals = ledger.totals_at(minute(62))
    assert totals.net_transfers == Decimal(500)
    assert (totals.sums.trades, totals.sums.trades_won) == (4, 2)


def test_old_ids_are_forgotten_only_once_they_cannot_come_back() -> None:
    ledger = HistoryLedger(START)
    for number in range(200):
        ledger.book_fills([fill(number, START + timedelta(minutes=number))])
    assert ledger.book_fills([fill(195, START + timedelta(minutes=195))]) == ()
    assert len(ledger._seen) <= 2 * OVERLAP / MINUTE + 2


def test_a_fee_taken_in_the_coin_counts_at_its_price() -> None:
    bought = replace(fill(1, minute(1)), fee=Decimal("-0.00005"), fee_asset="BTC")
    assert quote_fee(bought) == Decimal("-3.05000")


def test_what_was_traded_is_what_the_exchange_has_in_its_ledger_to_the_last_digit() -> None:
    """The venue tells price × size of each fill with four places; its own ledger has them all."""
    venue = PaperVenue()
    words = {"symbol": "BTCUSDT", "productType": "USDT-FUTURES", "marginCoin": "USDT"}
    begun = bitget_rows.instant({"now": str(venue.venue.now_ms)}, "now")
    for number, (side, size) in enumerate([("buy", "0.0137"), ("sell", "0.0211"), ("buy", "7.3")]):
        venue.advance(61)
        order = {"side": side, "size": size, "orderType": "market", "marginMode": "crossed"}
        venue.post("/api/v2/mix/order/place-order", **words, **order, clientOid=f"o-{number}")
    venue.advance(5)
    rows = venue.get("/api/v2/mix/order/fills", productType="USDT-FUTURES")["fillList"]
    fills = [bitget_rows.fill(row) for row in rows]
    ledger = HistoryLedger(begun)
    ledger.book_fills(fills)
    account = venue.engine.world.account(venue.account_id)
    exact = sum((order.filled_cost for order in account.orders.values()), Decimal(0))
    assert ledger.totals_at(max(fill.at for fill in fills)).sums.traded_notional == exact > 0
    assert sum((fill.quote_size for fill in fills), Decimal(0)) < exact
