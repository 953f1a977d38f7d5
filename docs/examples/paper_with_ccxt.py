r"""Trade at the paper exchange with plain ccxt: futures in both position modes, and spot.

    python docs/examples/paper_with_ccxt.py                 # starts a paper exchange of its own
    python docs/examples/paper_with_ccxt.py --url http://127.0.0.1:8100 --key K --secret S \
        --passphrase P                                      # or trades at one that runs

Nothing here knows of the paper exchange but the address: take the two lines with `urls` away, and
the same program trades at Bitget. It opens, protects, reduces and closes, and reads everything
back: fills, positions, stops, history, the account's bills.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ccxt

PERPETUAL = "BTC/USDT:USDT"
PAIR = "BTC/USDT"
KEY, SECRET, PASSPHRASE = "example-key", "example-secret", "example-passphrase"
API_PARTS = (
    *("spot", "mix", "user", "p2p", "broker", "margin"),
    *("common", "tax", "convert", "copy", "earn", "uta"),
)
SETTLES_WITHIN_S = 10.0


def main() -> None:
    options = parse_options()
    with paper_exchange(options) as url:
        exchange = connect(url, options)
        print(f"connected to {url}: {len(exchange.markets)} markets")
        trade_one_way(exchange)
        trade_hedged(exchange)
        trade_spot(exchange)
        print("\neverything was closed again; done")


def trade_one_way(exchange: Any) -> None:
    """One net position per symbol: long with stops, moved, reduced, flipped to short, closed."""
    title("futures, one-way mode")
    exchange.set_position_mode(False, PERPETUAL)
    exchange.set_leverage(5, PERPETUAL)
    show_balance(exchange, "swap")
    price = exchange.fetch_ticker(PERPETUAL)["last"]

    order = exchange.create_order(
        PERPETUAL,
        "market",
        "buy",
        0.05,
        None,
        {
            "clientOrderId": "example-open",
            "stopLoss": {"triggerPrice": price * 0.9},
            "takeProfit": {"triggerPrice": price * 1.2},
        },
    )
    show_order(settled(exchange, order, PERPETUAL))
    show_positions(exchange)
    show_stops(exchange)

    (loss,) = [stop for stop in stops(exchange) if stop["info"]["planType"] == "pos_loss"]
    exchange.edit_order(
        loss["id"], PERPETUAL, "market", "sell", 0.05, None, {"stopLossPrice": price * 0.93}
    )
    print(f"the stop loss moves to {price * 0.93:,.1f}")
    show_stops(exchange)

    resting = exchange.create_order(PERPETUAL, "limit", "buy", 0.01, price * 0.97)
    edited = exchange.edit_order(resting["id"], PERPETUAL, "limit", "buy", 0.02, price * 0.96)
    waiting = exchange.fetch_open_orders(PERPETUAL)
    print(f"resting: {[(o['side'], o['amount'], o['price']) for o in waiting]}")
    exchange.cancel_order(edited["id"], PERPETUAL)

    trigger = {"triggerPrice": exchange.price_to_precision(PERPETUAL, price * 1.3)}
    plan = exchange.create_order(PERPETUAL, "market", "buy", 0.01, None, trigger)
    waiting = exchange.fetch_open_orders(PERPETUAL, params={"trigger": True})
    print(f"waiting for a price: {[(o['side'], o['amount'], o['triggerPrice']) for o in waiting]}")
    exchange.cancel_order(plan["id"], PERPETUAL, {"trigger": True, "planType": "normal_plan"})

    reduced = exchange.create_order(PERPETUAL, "market", "sell", 0.02, None, {"reduceOnly": True})
    show_order(settled(exchange, reduced, PERPETUAL))
    show_order(
        settled(exchange, exchange.create_order(PERPETUAL, "market", "sell", 0.08), PERPETUAL)
    )
    show_positions(exchange)
    exchange.close_position(PERPETUAL)
    until(lambda: not exchange.fetch_positions([PERPETUAL]), "the position to close")
    show_history(exchange)


def trade_hedged(exchange: Any) -> None:
    """A long and a short of one symbol side by side, each with its own stop."""
    title("futures, hedge mode")
    exchange.set_position_mode(True, PERPETUAL)
    price = exchange.fetch_ticker(PERPETUAL)["last"]
    for side, stop_loss in (("buy", price * 0.92), ("sell", price * 1.08)):
        order = exchange.create_order(
            PERPETUAL,
            "market",
            side,
            0.03,
            None,
            {"hedged": True, "stopLoss": {"triggerPrice": stop_loss}},
        )
        show_order(settled(exchange, order, PERPETUAL))
    show_positions(exchange)
    show_stops(exchange)
    closing = exchange.create_order(
        PERPETUAL, "market", "sell", 0.03, None, {"hedged": True, "reduceOnly": True}
    )
    show_order(settled(exchange, closing, PERPETUAL))
    exchange.close_position(PERPETUAL, "short")
    until(lambda: not exchange.fetch_positions([PERPETUAL]), "both sides to close")
    print(f"stops left behind: {len(stops(exchange))}")
    show_history(exchange)
    exchange.set_position_mode(False, PERPETUAL)


def trade_spot(exchange: Any) -> None:
    """Coins against USDT; the fee is taken from what is received."""
    title("spot")
    show_balance(exchange, "spot")
    bought = exchange.create_order(PAIR, "market", "buy", 1000, None, {"cost": 1000})
    show_order(settled(exchange, bought, PAIR))
    show_balance(exchange, "spot")
    price = exchange.fetch_ticker(PAIR)["last"]
    resting = exchange.create_order(PAIR, "limit", "buy", 0.001, price * 0.97)
    waiting = exchange.fetch_open_orders(PAIR)
    print(f"resting: {[(o['side'], o['amount'], o['price']) for o in waiting]}")
    exchange.cancel_order(resting["id"], PAIR)
    have = exchange.fetch_balance({"type": "spot"})["BTC"]["free"]
    amount = float(exchange.amount_to_precision(PAIR, have))
    show_order(settled(exchange, exchange.create_order(PAIR, "market", "sell", amount), PAIR))
    for trade in exchange.fetch_my_trades(PAIR):
        fee = trade["fee"]
        print(
            f"fill: {trade['side']} {trade['amount']} BTC at {trade['price']:,.2f}, "
            f"fee {fee['cost']} {fee['currency']}"
        )
    show_balance(exchange, "spot")


# --- reading back ---------------------------------------------------------------------------------


def settled(exchange: Any, order: Any, symbol: str) -> Any:
    """The order once it is over: the exchange accepts first and fills a moment later."""
    return until(
        lambda: (
            found
            if (found := exchange.fetch_order(order["id"], symbol))["status"] != "open"
            else None
        ),
        f"order {order['id']} to fill",
    )


def until(look: Any, what: str) -> Any:
    deadline = time.monotonic() + SETTLES_WITHIN_S
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError(f"waited {SETTLES_WITHIN_S:g} s for {what}")


def stops(exchange: Any) -> list[Any]:
    """Stops of positions, as the exchange holds them."""
    wanted = {"trigger": True, "planType": "profit_loss"}
    return list(exchange.fetch_open_orders(PERPETUAL, params=wanted))


def show_order(order: Any) -> None:
    print(
        f"{order['side']:4} {order['filled']} of {order['amount']} at {order['average']:,.2f}: "
        f"{order['status']}"
    )


def show_positions(exchange: Any) -> None:
    for position in exchange.fetch_positions([PERPETUAL]):
        print(
            f"position: {position['side']} {position['contracts']} from "
            f"{position['entryPrice']:,.2f}, {position['leverage']:g}x {position['marginMode']}, "
            f"unrealised {position['unrealizedPnl']:+.2f} USDT"
        )


def show_stops(exchange: Any) -> None:
    for stop in stops(exchange):
        info = stop["info"]
        print(f"stop: {info['planType']} of the {info['posSide']} at {stop['triggerPrice']:,.1f}")


def show_balance(exchange: Any, kind: str) -> None:
    balance = exchange.fetch_balance({"type": kind})
    held = {coin: amount for coin, amount in balance["total"].items() if amount}
    print("balance: " + ", ".join(f"{amount:,.8g} {coin}" for coin, amount in held.items()))


def show_history(exchange: Any) -> None:
    for trade in exchange.fetch_my_trades(PERPETUAL)[-4:]:
        print(f"fill: {trade['side']} {trade['amount']} at {trade['price']:,.2f}")
    for row in exchange.fetch_positions_history([PERPETUAL])[:2]:
        info = row["info"]
        print(f"closed: {info['holdSide']} {info['closeTotalPos']}, net {info['netProfit']} USDT")
    bills = exchange.fetch_ledger("USDT", limit=100)
    print(f"bills: {len(bills)}, the newest {bills[-1]['info']['businessType']}")
    show_balance(exchange, "swap")


def title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


# --- connecting -----------------------------------------------------------------------------------


def connect(url: str, options: argparse.Namespace) -> Any:
    exchange = ccxt.bitget(
        {
            "apiKey": options.key,
            "secret": options.secret,
            "password": options.passphrase,
            "urls": {"api": dict.fromkeys(API_PARTS, url)},
            "options": {"defaultType": "swap"},
        }
    )
    exchange.load_markets()
    return exchange


@contextmanager
def paper_exchange(options: argparse.Namespace) -> Iterator[str]:
    """The address that was given, or that of an exchange which ends with this program."""
    if options.url:
        yield options.url
        return
    command = [str(Path(sys.executable).with_name("aifap")), "simulator"]
    command += ["--speed", "60", "--balance", "50000"]
    command += ["--api-key", options.key, "--api-secret", options.secret]
    command += ["--passphrase", options.passphrase]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            ready = re.search(r"http://\S+", process.stdout.readline() if process.stdout else "")
            if ready is None:
                raise SystemExit("the paper exchange did not start")
            yield ready[0]
        finally:
            process.terminate()


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="a paper exchange that runs; default: start one")
    parser.add_argument("--key", default=KEY)
    parser.add_argument("--secret", default=SECRET)
    parser.add_argument("--passphrase", default=PASSPHRASE)
    return parser.parse_args()


if __name__ == "__main__":
    main()
