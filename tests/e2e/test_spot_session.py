"""One spot session through the whole stack: coins bought, changed, protected, sold.

The judge is the paper exchange's own ledger. Somebody else's coin lies in the same wallet.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import urllib3

from module.clock import SystemClock
from module.model.errors import AifapError
from tests.e2e.installation import CONDUCTOR, Installation
from trading.bootstrap import build_clock

pytestmark = pytest.mark.timeout(240)

COINS = """
PHASES = [
    {"BTCUSDT": .3, "ETHUSDT": .2, "SOLUSDT": .1},     # three are bought
    {"BTCUSDT": .4, "ETHUSDT": .1, "SOLUSDT": .1},     # more of one, less of another
    {"BTCUSDT": .4, "ADAUSDT": .2, "SOLUSDT": .1},     # one goes, one comes
    {"BTCUSDT": .4, "ADAUSDT": .2, "SOLUSDT": .1},     # nothing to do
]

def strategy(context, config_dict):
    at = int(context.current_dt.timestamp())
    phase = PHASES[min((at - config_dict["first_s"]) // 120, len(PHASES) - 1)]
    prices = context.get_history(list(phase), window=3, frequency="1m", fields="close").iloc[-1]
    return {
        symbol: {
            "weight": weight,
            "presetStopLossPrice": prices[symbol] * .8,
            "presetStopSurplusPrice": prices[symbol] * 1.25,
        }
        for symbol, weight in phase.items()
    }
"""
CASES = {
    1: Counter({("new", "buy"): 3}),
    2: Counter({("increase", "buy"): 1, ("decrease", "sell"): 1}),
    3: Counter({("gone", "sell"): 1, ("new", "buy"): 1}),
    4: Counter(),
}
# both stops for each coin of the session, none for the coin that is somebody else's
PROTECTED = Counter(
    (symbol, kind)
    for symbol in ("ADAUSDT", "BTCUSDT", "SOLUSDT")
    for kind in ("af-stop-l", "af-stop-p")
)
INTERVAL = timedelta(minutes=2)
PROTECTED_WITHIN_S = 10.0


def pass_cycles(installation: Installation, clock: SystemClock, session: str, cycles: int) -> None:
    """Let the world go on, a quarter of a minute at a time, until so many cycles are done."""
    for _ in range(100):
        view = installation.view(session)
        assert view["state"] == "running", view["reason"]
        if view["cycle"] >= cycles:
            return
        clock.sleep(15.0)
    raise AssertionError(f"{cycles} cycles were not done")


def spot_account(installation: Installation, label: str) -> str:
    body = {"label": label, "market": "spot", "balance": "10000"}
    return str(installation.client.post("/accounts/paper", body)["account_id"])


def deposit(installation: Installation, account: str, coin: str, amount: str) -> None:
    """Somebody sends a coin to the account's wallet at the exchange."""
    settings = installation.stack.settings
    answer = urllib3.request(
        "POST",
        f"{settings.simulator_url}/control/deposits",
        headers={"Authorization": f"Bearer {settings.secret('control_token')}"},
        body=json.dumps(
            {
                "api_key": installation.ledger(account)["api_key"],
                "wallet": "spot",
                "coin": coin,
                "amount": amount,
            }
        ),
    )
    assert answer.status == 200, answer.data


def coins_of(ledger: Any) -> dict[str, Decimal]:
    return {
        row["coin"]: Decimal(row["available"]) + Decimal(row["frozen"])
        for row in ledger["spot"]
        if Decimal(row["available"]) + Decimal(row["frozen"])
    }


def test_a_spot_session_rebalances_coins_and_ends_flat(installation: Installation) -> None:
    installation.upload("coins", COINS)
    account = spot_account(installation, "coins")
    session = installation.start(
        account,
        "coins",
        INTERVAL,
        tradeType="spot",
        cycles=4,
        on_end="flat",
        threshold="0.03",
        no_trade_band="0.5",
        turnover_max="1.5",
        apply_account_settings=False,
    )
    with closing(build_clock(installation.stack.settings, CONDUCTOR)) as clock:
        pass_cycles(installation, clock, session, 1)
        deposit(installation, account, "XRP", "700")
        pass_cycles(installation, clock, session, 3)
        clock.sleep(PROTECTED_WITHIN_S)
        assert stops_of(installation.ledger(account)) == PROTECTED
    view = installation.wait_over(session)
    assert view["state"] == "ended", view["reason"]
    assert view["no_trade_band"] == "0.5"
    ledger = installation.ledger(account)
    check_cases(installation, session)
    check_orders(installation, session, ledger)
    check_money(installation, session, ledger)
    assert ledger["plans"] == [], "flat means nothing is left behind"
    assert installation.leftovers(session) == []


def check_cases(installation: Installation, session: str) -> None:
    with installation.sessions() as sessions:
        cycles: dict[int, Any] = {
            cycle.number: cycle.order_info
            for cycle in sessions.cycles(session, 100)
            if (cycle.order_info or {}).get("strategy_digest") != "flat"
        }
    for number, wanted in CASES.items():
        legs = cycles[number]["legs"]
        found = Counter((leg["leg"]["case"], leg["leg"]["side"]) for leg in legs)
        assert found == wanted, f"cycle {number}: {found}"
        assert all(leg["state"] == "filled" for leg in legs), f"cycle {number}"
        assert all(len(leg["slices"]) == 1 for leg in legs), f"cycle {number}: sent twice"
        assert all(leg["symbol"] != "XRPUSDT" for leg in cycles[number]["skipped"])


def stops_of(ledger: Any) -> Counter[tuple[str, str]]:
    return Counter((plan["symbol"], plan["clientOid"][:9]) for plan in ledger["plans"])


def check_orders(installation: Installation, session: str, ledger: Any) -> None:
    on_exchange = {order["clientOid"]: order["orderId"] for order in ledger["spot_orders"]}
    assert len(on_exchange) == len(ledger["spot_orders"]), "a client id stands twice"
    assert installation.sent(session) == on_exchange
    assert ledger["orders"] == [], "nothing was traded on futures"
    answer = installation.client.get(f"/results/{session}/transactions?limit=2000")
    transactions: Any = answer["transactions"]
    fills = {row["exchange_id"] for row in transactions if row["source"] == "fill"}
    assert fills == {fill["tradeId"] for fill in ledger["spot_fills"]}


def check_money(installation: Installation, session: str, ledger: Any) -> None:
    """What is left is money, somebody else's coin, and dust that no order may sell."""
    coins = coins_of(ledger)
    assert coins.pop("XRP") == 700
    money = coins.pop("USDT")
    assert Decimal(9_500) < money < Decimal(10_500)
    series: Any = installation.client.get(f"/results/{session}/portfolio?limit=2000")["rows"]
    last = series[-1]
    assert Decimal(last["cash"]) == money
    assert Decimal(last["current_pv"]) == money + Decimal(last["position_value"])
    bare = max(row["unprotected"] for row in series)
    assert bare <= 1, "besides somebody else's, a coin stood without its stop"
    assert installation.client.get(f"/results/{session}/gaps")["gaps"] == []
    assert all(amount < Decimal("0.01") for amount in coins.values()), f"left behind: {coins}"


def test_coins_that_are_there_are_refused_or_adopted(installation: Installation) -> None:
    account = spot_account(installation, "adopted")
    deposit(installation, account, "XRP", "700")
    words = {"tradeType": "spot", "on_end": "flat", "apply_account_settings": False}
    refused = installation.start(account, "equal_weight", INTERVAL, **words)
    view = installation.wait_over(refused)
    assert view["state"] == "failed"
    assert "XRPUSDT" in view["reason"]
    assert "adopt_existing" in view["reason"]
    installation.upload("nothing", "def strategy(context, config_dict):\n    return {}\n")
    session = installation.start(
        account, "nothing", INTERVAL, adopt_existing=True, cycles=1, **words
    )
    view = installation.wait_over(session)
    assert view["state"] == "ended", view["reason"]
    assert set(coins_of(installation.ledger(account))) <= {"USDT"}


def test_leverage_is_refused_on_spot(installation: Installation) -> None:
    account = spot_account(installation, "levered-spot")
    with pytest.raises(AifapError, match="leverage: must be 1 on spot, got 2"):
        installation.start(account, "equal_weight", INTERVAL, tradeType="spot", leverage=2)
