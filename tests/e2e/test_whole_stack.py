"""One session through the whole stack: every diff case on both sides, over more than five legs.

The judge is the simulated exchange's own ledger; the database and the API must say the same, by
exchange order id.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.e2e.installation import Installation

pytestmark = pytest.mark.timeout(240)

PHASES = """
LONGS, SHORTS = ("BTCUSDT", "ETHUSDT", "SOLUSDT"), ("XRPUSDT", "DOGEUSDT", "BNBUSDT")

def book(*weights):
    return dict(zip(LONGS + SHORTS, weights))

PHASES = [
    book(.12, .11, .1, -.12, -.11, -.1),    # new: three long, three short
    book(.17, .06, .1, -.17, -.06, -.1),    # increase and decrease on both sides, two stay
    book(-.12, .06, -.1, .12, -.06, .1),    # opposite, both ways
    # gone: two longs and two shorts; two new ones come
    {"ETHUSDT": .06, "DOGEUSDT": -.06, "ADAUSDT": .1, "LTCUSDT": -.1},
    {},                                     # flat
]

def strategy(context, config_dict):
    at = int(context.current_dt.timestamp())
    phase = PHASES[min((at - config_dict["first_s"]) // 120, len(PHASES) - 1)]
    if not phase:
        return {}
    prices = context.get_history(list(phase), window=3, frequency="1m", fields="close").iloc[-1]
    result = {}
    for symbol, weight in phase.items():
        away = 1 if weight > 0 else -1
        result[symbol] = {
            "weight": weight,
            "presetStopLossPrice": prices[symbol] * (1 - .2 * away),
            "presetStopSurplusPrice": prices[symbol] * (1 + .25 * away),
        }
    return result
"""
CASES = {
    1: Counter({("new", "buy"): 3, ("new", "sell"): 3}),
    2: Counter(
        {
            ("increase", "buy"): 1,
            ("decrease", "sell"): 1,
            ("increase", "sell"): 1,
            ("decrease", "buy"): 1,
        }
    ),
    # a flip is a close and an open on the same side of the wire
    3: Counter({("opposite", "sell"): 4, ("opposite", "buy"): 4}),
    4: Counter({("gone", "buy"): 2, ("gone", "sell"): 2, ("new", "buy"): 1, ("new", "sell"): 1}),
    5: Counter({("gone", "sell"): 2, ("gone", "buy"): 2}),
}


def test_every_diff_case_on_both_sides_agrees_with_the_exchange_ledger(
    installation: Installation,
) -> None:
    installation.upload("phases", PHASES)
    account = installation.paper_account("diffs")
    interval = timedelta(minutes=2)
    session = installation.start(
        account, "phases", interval, cycles=5, on_end="flat", threshold="0.005"
    )
    view = installation.wait_over(session)
    assert view["state"] == "ended", view["reason"]

    ledger = installation.ledger(account)
    with installation.sessions() as sessions:
        cycles = {
            cycle.number: cycle
            for cycle in sessions.cycles(session, 100)
            if (cycle.order_info or {}).get("strategy_digest") != "flat"
        }
    check_cases(cycles)
    check_orders(installation, session, ledger)
    check_money(installation, session, ledger)
    assert ledger["positions"] == []
    assert ledger["plans"] == [], "flat means nothing is left behind"
    assert installation.leftovers(session) == []


def check_cases(cycles: dict[int, Any]) -> None:
    for number, wanted in CASES.items():
        legs = cycles[number].order_info["legs"]
        found = Counter((leg["leg"]["case"], leg["leg"]["side"]) for leg in legs)
        assert found == wanted, f"cycle {number}: {found}"
        assert all(leg["state"] == "filled" for leg in legs), f"cycle {number}"
        order_ids = [int(leg["slices"][-1]["order_id"]) for leg in legs]
        reducing = [i for i, leg in zip(order_ids, legs, strict=True) if leg["leg"]["reduce_only"]]
        opening = [
            i for i, leg in zip(order_ids, legs, strict=True) if not leg["leg"]["reduce_only"]
        ]
        if reducing and opening:
            assert max(reducing) < min(opening), f"cycle {number}: opened before it reduced"


def check_orders(installation: Installation, session: str, ledger: Any) -> None:
    on_exchange = {order["clientOid"]: order["orderId"] for order in ledger["orders"]}
    assert len(on_exchange) == len(ledger["orders"]), "a client id stands twice on the exchange"
    assert installation.sent(session) == on_exchange
    by_api = installation.client.get(f"/results/{session}/transactions?limit=2000")
    transactions: Any = by_api["transactions"]
    assert {row["order_id"] for row in transactions} == set(on_exchange.values())
    assert {row["exchange_id"] for row in transactions} == {f["tradeId"] for f in ledger["fills"]}
    openings = [order for order in ledger["orders"] if order["reduceOnly"] == "NO"]
    assert all(order["presetStopLossPrice"] for order in openings), "an opening without a stop"


def check_money(installation: Installation, session: str, ledger: Any) -> None:
    series: Any = installation.client.get(f"/results/{session}/portfolio?limit=2000")["rows"]
    last = series[-1]
    assert Decimal(last["current_pv"]) == Decimal(ledger["futures"]["accountEquity"])
    assert Decimal(last["netprofit"]) == Decimal(last["current_pv"]) - 10_000
    assert Decimal(last["fees"]) == sum(
        (Decimal(f["feeDetail"][0]["totalFee"]) for f in ledger["fills"]), Decimal(0)
    )
    minutes = [row["minute"] for row in series]
    assert len(set(minutes)) == len(minutes)
    assert len(minutes) >= 10, "five cycles of two minutes have at least ten minutes"
    gaps: Any = installation.client.get(f"/results/{session}/gaps")["gaps"]
    assert gaps == []
    worst = max(row["unprotected"] for row in series)
    assert worst == 0, "a position stood without its stop at the turn of a minute"


def test_a_second_session_on_the_account_is_refused(installation: Installation) -> None:
    from module.model.errors import AifapError

    account = installation.paper_account("second")
    session = installation.start(account, "equal_weight", timedelta(minutes=5))
    try:
        with pytest.raises(AifapError, match=session) as refused:
            installation.start(account, "equal_weight", timedelta(minutes=5))
        assert refused.value.code == "conflict"
    finally:
        installation.terminate(session, "flat")
        installation.wait_over(session)


def test_a_protected_end_keeps_positions_with_their_stops(installation: Installation) -> None:
    installation.upload("phases", PHASES)
    account = installation.paper_account("kept")
    session = installation.start(account, "phases", timedelta(minutes=2), threshold="0.005")
    installation.wait_cycles(session, 1)
    installation.terminate(session, "protected")
    view = installation.wait_over(session)
    assert view["state"] == "ended", view["reason"]
    ledger = installation.ledger(account)
    assert len(ledger["positions"]) >= 4
    assert all(position["stopLoss"] for position in ledger["positions"])
    assert all(position["takeProfit"] for position in ledger["positions"])


def test_leverage_multiplies_the_notional_and_is_never_switched_silently(
    installation: Installation,
) -> None:
    """Notional = weight × base × L; margin = weight × base. Another leverage at the exchange stops
    the session before its first order, unless it may set it."""
    account = installation.paper_account("levered")
    words: dict[str, Any] = {"leverage": 3, "cycles": 1, "config": {"gross": 0.6}}
    refused = installation.start(
        account, "equal_weight", timedelta(minutes=2), apply_account_settings=False, **words
    )
    view = installation.wait_over(refused)
    assert view["state"] == "failed"
    assert "leverage" in view["reason"]
    assert "apply_account_settings" in view["reason"]
    assert installation.ledger(account)["orders"] == []
    session = installation.start(account, "equal_weight", timedelta(minutes=2), **words)
    view = installation.wait_over(session)
    assert view["state"] == "ended", view["reason"]
    positions = installation.ledger(account)["positions"]
    assert {position["leverage"] for position in positions} == {"3"}
    for position in positions:
        notional = Decimal(position["total"]) * Decimal(position["openPriceAvg"])
        assert notional == pytest.approx(Decimal(6_000), rel=Decimal("0.02")), position["symbol"]
    rows: Any = installation.client.get(f"/results/{session}/symbols?limit=100")["rows"]
    held = [row for row in rows if Decimal(row["size"]) > 0]
    assert held
    assert all(row["weight"] == pytest.approx(0.2, rel=0.05) for row in held)
