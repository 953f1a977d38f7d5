"""What spot coins cost, and which round trips are over, follows from the fills alone."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from module.model.accounts import BillKind
from module.model.orders import Fill, Side
from module.model.results import ClosedPositionRow, StoredHistory, TransactionRow
from monitoring.fleet_notes import Notes, from_document, to_document
from monitoring.ledger import HistoryLedger
from monitoring.lots import CoinTrade, LotCost, SpotBook
from tests.fakes.watched_account import START, bill, fill, minute

BTC = "BTCUSDT"
NOTHING = (Decimal(0), None)


def trade(
    number: int,
    side: str,
    size: str,
    price: str,
    *,
    fee: str = "0",
    coin_fee: str = "0",
    at: datetime | None = None,
) -> CoinTrade:
    return CoinTrade(
        f"t{number}",
        BTC,
        side == "buy",
        Decimal(size),
        Decimal(price),
        Decimal(fee),
        Decimal(coin_fee),
        at or minute(number),
    )


def coin_fill(number: int, side: Side, size: str, price: str, fee: str, asset: str) -> Fill:
    return replace(
        fill(number, minute(number), fee=fee),
        side=side,
        size=Decimal(size),
        price=Decimal(price),
        quote_size=Decimal(size) * Decimal(price),
        fee_asset=asset,
    )


def test_a_round_trip_earns_what_the_money_says() -> None:
    book = SpotBook()
    assert book.trade(trade(1, "buy", "1", "100", fee="-0.1", coin_fee="-0.001")) == NOTHING
    assert book.costs() == {BTC: LotCost(Decimal("0.999"), Decimal(100))}
    realized, trip = book.trade(trade(2, "sell", "0.999", "110", fee="-0.1"))
    assert realized == Decimal("9.99")
    assert trip is not None
    assert (trip.entry_price, trip.close_price) == (Decimal(100), Decimal(110))
    assert (trip.gross_pnl, trip.open_fee, trip.close_fee) == (
        Decimal("9.99"),
        Decimal("-0.1"),
        Decimal("-0.1"),
    )
    money = Decimal("0.999") * 110 - Decimal("0.1") - 100
    assert trip.net_profit == money == Decimal("9.79")
    assert (trip.exchange_id, trip.opened_at, trip.closed_at) == ("t2", minute(1), minute(2))
    assert (trip.side, trip.funding) == ("long", Decimal(0))
    assert book.costs() == {}


def test_buying_more_averages_and_selling_keeps_the_average() -> None:
    book = SpotBook()
    book.trade(trade(1, "buy", "2", "100"))
    book.trade(trade(2, "buy", "1", "130"))
    assert book.costs()[BTC] == LotCost(Decimal(3), Decimal(110))
    assert book.trade(trade(3, "sell", "1", "120")) == (Decimal(10), None)
    assert book.costs()[BTC] == LotCost(Decimal(2), Decimal(110))


def test_dust_that_no_venue_would_sell_ends_the_trip() -> None:
    book = SpotBook()
    book.trade(trade(1, "buy", "1", "100"))
    assert book.trade(trade(2, "sell", "0.98", "100"))[1] is None, "2 USDT are left"
    _, trip = book.trade(trade(3, "sell", "0.011", "100"))
    assert trip is not None
    assert trip.size == Decimal("0.991")
    book.trade(trade(4, "buy", "1", "200"))
    assert book.costs()[BTC] == LotCost(Decimal(1), Decimal(200)), "the rest is forgotten"


def test_coins_of_before_the_session_have_no_cost() -> None:
    book = SpotBook()
    assert book.trade(trade(1, "sell", "5", "100")) == NOTHING
    book.trade(trade(2, "buy", "1", "100"))
    realized, trip = book.trade(trade(3, "sell", "3", "110", fee="-0.3"))
    assert realized == Decimal(10)
    assert trip is not None
    assert (trip.size, trip.close_fee) == (Decimal(1), Decimal("-0.1"))


def test_what_is_published_late_does_not_open_a_trip_that_is_told() -> None:
    book = SpotBook()
    book.trade(trade(2, "buy", "1", "100"))
    book.trade(trade(5, "sell", "2", "110"))
    book.trade(trade(3, "buy", "1", "100"))
    assert book.costs() == {}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.integers(min_value=1, max_value=400),
            st.integers(min_value=50, max_value=150),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_trips_and_what_is_held_account_for_all_the_money(
    trades: list[tuple[bool, int, int]],
) -> None:
    """Cash flow of all trades = net profit of the trips + what open lots realised − their cost."""
    book, cash, told, held = SpotBook(), Decimal(0), Decimal(0), Decimal(0)
    realized_open, fees_open = Decimal(0), Decimal(0)
    for number, (is_buy, hundredths, price) in enumerate(trades):
        size = Decimal(hundredths) / 100
        if not is_buy:
            size = min(size, held)
            if size == 0:
                continue
        fee = -size * price / 1000
        item = trade(number, "buy" if is_buy else "sell", str(size), str(price), fee=str(fee))
        average = book.costs()[BTC].average if BTC in book.costs() else Decimal(0)
        realized, trip = book.trade(item)
        cash += (-size if is_buy else size) * price + fee
        held += size if is_buy else -size
        realized_open, fees_open = realized_open + realized, fees_open + fee
        if trip is not None:
            told += trip.net_profit
            cash += held * average  # the forgotten rest, at what it cost
            held = realized_open = fees_open = Decimal(0)
    cost = sum((lot.size * lot.average for lot in book.costs().values()), Decimal(0))
    assert abs(cash - (told + realized_open + fees_open - cost)) < Decimal("1e-9")


# --- in the ledger --------------------------------------------------------------------------------


def test_spot_fills_realise_against_what_the_coins_have_cost() -> None:
    ledger = HistoryLedger(START, SpotBook())
    bought, sold = ledger.book_fills(
        [
            coin_fill(2, Side.SELL, "0.04", "62000", "-2.48", "USDT"),
            coin_fill(1, Side.BUY, "0.05", "61000", "-0.00005", "BTC"),
        ]
    )
    assert (bought.amount, sold.amount) == (Decimal(0), Decimal(40))
    totals = ledger.totals_at(minute(2))
    assert totals.by_symbol[BTC].realized_pnl == Decimal(40)
    assert totals.by_symbol[BTC].fees == Decimal("-5.53")
    assert totals.costs[BTC] == LotCost(Decimal("0.00995"), Decimal(61_000))
    assert ledger.round_trips() == ()


def test_a_fee_in_a_third_coin_is_not_counted_as_coins_of_the_pair() -> None:
    ledger = HistoryLedger(START, SpotBook())
    ledger.book_fills([coin_fill(1, Side.BUY, "0.05", "61000", "-0.3", "BGB")])
    totals = ledger.totals_at(minute(1))
    assert totals.by_symbol[BTC].fees == 0
    assert totals.costs[BTC].size == Decimal("0.05")


def test_a_round_trip_counts_once_and_is_told_again_after_a_kill_before_it_was_stored() -> None:
    fills = [
        coin_fill(1, Side.BUY, "0.05", "61000", "0", "USDT"),
        coin_fill(2, Side.SELL, "0.05", "60000", "0", "USDT"),
    ]
    ledger = HistoryLedger(START, SpotBook())
    rows = ledger.book_fills(fills)
    (trip,) = ledger.round_trips()
    assert (trip.net_profit, trip.exchange_id) == (Decimal(-50), "trade-2")
    assert ledger.round_trips() == ()
    sums = ledger.totals_at(minute(2)).sums
    assert (sums.trades, sums.trades_won, sums.lost) == (1, 0, Decimal(-50))

    stored = StoredHistory(
        {}, Decimal(0), sums, minute(2), None, None, frozenset({"fill:trade-1", "fill:trade-2"})
    )
    again = HistoryLedger.resume(START, replace(stored, open_fills=rows), SpotBook())
    assert again.book_fills(fills) == ()
    assert again.round_trips() == (trip,)


def test_a_restart_goes_on_from_the_open_trip() -> None:
    ledger = HistoryLedger(START, SpotBook())
    rows = ledger.book_fills([coin_fill(1, Side.BUY, "0.05", "61000", "-0.00005", "BTC")])
    stored = StoredHistory(
        {},
        Decimal(0),
        ledger.sums,
        minute(1),
        None,
        None,
        frozenset({"fill:trade-1"}),
        open_fills=rows,
    )
    again = HistoryLedger.resume(START, stored, SpotBook())
    assert again.totals_at(minute(1)).costs == ledger.totals_at(minute(1)).costs


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(1, 9), st.integers(900, 1_100)),
        min_size=1,
        max_size=40,
    ),
    st.lists(st.integers(1, 40), max_size=4),
)
def test_a_checkpoint_of_the_lots_goes_on_as_the_whole_book(
    trades: list[tuple[bool, int, int]], cuts: list[int]
) -> None:
    """Passes that each begin from what the last one left, beside one that reads all fills."""
    whole, passing = HistoryLedger(START, SpotBook()), HistoryLedger(START, SpotBook())
    trips: list[ClosedPositionRow] = []
    all_trips: list[ClosedPositionRow] = []
    rows: list[TransactionRow] = []
    for number, (is_buy, size, price) in enumerate(trades, start=1):
        side = Side.BUY if is_buy else Side.SELL
        traded = coin_fill(number, side, f"0.{size}", str(price), "-0.01", "USDT")
        if number in cuts:
            notes = Notes(passing.stored(), "mark", START, START)
            kept = from_document(json.loads(json.dumps(to_document(notes))))
            assert kept is not None
            assert kept.history is not None
            assert kept.history.open_fills == ()
            passing = HistoryLedger.resume(START, kept.history, SpotBook())
        rows += whole.book_fills([traded])
        passing.book_fills([traded])
        all_trips += whole.round_trips()
        trips += passing.round_trips()
    assert trips == all_trips
    assert whole.book is not None
    assert passing.book is not None
    assert (passing.book.lots, passing.book.ended) == (whole.book.lots, whole.book.ended)
    end = minute(len(trades))
    assert passing.totals_at(end) == whole.totals_at(end)
    stored = replace(
        passing.stored(),
        lots=None,  # from the rows, as when there is no checkpoint
        open_fills=tuple(row for row in rows if row.at > whole.book.ended.get(BTC, START)),
    )
    rebuilt = HistoryLedger.resume(START, stored, SpotBook())
    assert rebuilt.totals_at(end) == whole.totals_at(end)


def test_notes_of_another_shape_are_not_gone_on_from() -> None:
    ledger = HistoryLedger(START, SpotBook())
    document = to_document(Notes(ledger.stored(), "mark", START, START))
    assert from_document(document) is not None
    assert from_document(document | {"shape": "older"}) is None


def test_coins_that_are_sent_in_are_a_transfer_at_their_price_then() -> None:
    ledger = HistoryLedger(START, SpotBook())
    sent = bill(1, minute(1), BillKind.TRANSFER, "0.02", asset="BTC")
    (row,) = ledger.book_bills([sent], {BTC: Decimal(60_000)})
    assert (row.symbol, row.price, row.quote_size) == (BTC, Decimal(60_000), Decimal(1_200))
    totals = ledger.totals_at(minute(1))
    assert totals.net_transfers == Decimal(1_200)
    assert totals.costs[BTC] == LotCost(Decimal("0.02"), Decimal(60_000))
    ledger.book_bills(
        [bill(2, minute(2), BillKind.TRANSFER, "-0.01", asset="BTC")], {BTC: Decimal(70_000)}
    )
    totals = ledger.totals_at(minute(2))
    assert totals.net_transfers == Decimal(500)
    assert totals.costs[BTC] == LotCost(Decimal("0.01"), Decimal(60_000))


def test_a_coin_without_a_price_moves_nothing_that_is_measured() -> None:
    ledger = HistoryLedger(START, SpotBook())
    (row,) = ledger.book_bills([bill(1, minute(1), BillKind.TRANSFER, "7", asset="XYZ")])
    assert (row.price, row.quote_size) == (None, None)
    assert ledger.totals_at(minute(1)).net_transfers == 0
