"""The exchange's ledger against the letters of a session: PURE, every check returns violations.

The ledger is the truth; a letter says what was meant. Client ids of the exchange's own fault
machinery and of the gateway's guard are told apart by their prefixes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from module.simulator.faults.fault_effects import FOREIGN_PREFIX, LEFTOVER_PREFIX
from trading.rebalance.decision import CycleInputs, decide

Letter = Mapping[str, Any]
Ledger = Mapping[str, Any]
GUARD_MARK = "guard-"
SLACK = Decimal("0.013")
"""Threshold of the session (0.005) and what a lot and a move of the price may add to it."""
ZERO = Decimal(0)


def slices(letters: Sequence[Letter]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Every planned order, as (leg, slice)."""
    for letter in letters:
        for record in letter.get("legs", ()):
            for part in record["slices"]:
                yield record["leg"], part


def foreign(order: Mapping[str, Any]) -> bool:
    """An order that a fault made, or the exchange itself (a stop, a liquidation)."""
    client_id = order["clientOid"]
    ours = order.get("orderSource", "market") in ("market", "normal", "limit")
    return client_id.startswith((FOREIGN_PREFIX, LEFTOVER_PREFIX)) or not ours


def judge_orders(ledger: Ledger, letters: Sequence[Letter], *, resized: bool = False) -> list[str]:
    """I1, I3, I4, I7: each slice at most once, nothing beyond the letters, outcomes as they are.

    `resized`: the exchange itself changed sizes, so sizes prove nothing.
    """
    found: list[str] = []
    orders = [*ledger["orders"], *ledger["spot_orders"]]
    own = [order for order in orders if not foreign(order)]
    twice = [name for name, count in Counter(o["clientOid"] for o in own).items() if count > 1]
    found += [f"I1: client id {name} stands twice on the exchange" for name in twice]
    by_client = {order["clientOid"]: order for order in own}
    planned = {part["client_id"]: (leg, part) for leg, part in slices(letters)}
    for client_id, order in by_client.items():
        if client_id not in planned and GUARD_MARK not in client_id:
            found.append(f"I3: order {client_id} of {order['symbol']} stands in no letter")
    for client_id, (leg, part) in planned.items():
        order = by_client.get(client_id)
        state = part["state"]
        if order is None:
            if state in ("filled", "acknowledged"):
                found.append(f"I4: {client_id} is {state} in the letter, unknown on the exchange")
            continue
        executed = _executed(order)
        if state == "rejected":
            found.append(f"I4: {client_id} is rejected in the letter, {_state(order)} there")
        elif state == "abandoned" and part["order_id"] is None:
            found.append(f"I4: {client_id} is absent in the letter, {_state(order)} there")
        elif state in ("filled", "abandoned") and executed != Decimal(part["filled_size"]):
            found.append(f"I7: {client_id} filled {part['filled_size']}, the exchange {executed}")
        if not resized and "posSide" in order and Decimal(order["size"]) > Decimal(part["size"]):
            found.append(f"I3: {client_id} was planned as {part['size']}, sent {order['size']}")
        if "reduceOnly" in order and (order["reduceOnly"] == "YES") != bool(leg["reduce_only"]):
            found.append(f"I6: {client_id} has another reduceOnly than its leg")
    return found


def _state(order: Mapping[str, Any]) -> str:
    return str(order.get("state") or order.get("status"))


def _executed(order: Mapping[str, Any]) -> Decimal:
    """Executed size in coins or contracts."""
    return Decimal(order["baseVolume"] or 0)


def judge_reductions(ledger: Ledger) -> list[str]:
    """I6: replay the fills; no reduce-only order made a position larger or turned it round."""
    if ledger["position_mode"] != "one_way_mode" and ledger["position_mode"] != "one_way":
        return []
    reducing = {order["orderId"] for order in ledger["orders"] if order["reduceOnly"] == "YES"}
    sizes: dict[str, Decimal] = {}
    found: list[str] = []
    for fill in ledger["fills"]:
        symbol = fill["symbol"]
        before = sizes.get(symbol, ZERO)
        after = before + Decimal(fill["baseVolume"]) * (1 if fill["side"] == "buy" else -1)
        sizes[symbol] = after
        if fill["orderId"] in reducing and (abs(after) > abs(before) or before * after < 0):
            found.append(
                f"I6: reduce-only order {fill['orderId']} took {symbol} from {before} to {after}"
            )
    return found


def signed_size(position: Mapping[str, Any]) -> Decimal:
    """Contracts, negative for a short."""
    size = Decimal(position["total"])
    return size if position["holdSide"] in ("long", "buy") else -size


def judge_stops(ledger: Ledger, letters: Sequence[Letter], *, failed: bool) -> list[str]:
    """I2, I20: each position has exactly the stops that its letter wants; no stop is left over.

    Of a session that `failed` in a cycle any letter's stops will do: the last one was not finished.
    """
    found: list[str] = []
    letter = next((each for each in letters if each["stops"]), None)
    wanted = {} if letter is None else letter["stops"]
    held = {position["symbol"]: signed_size(position) for position in ledger["positions"]}
    plans = [plan for plan in ledger["plans"] if plan["planType"] in ("pos_loss", "pos_profit")]
    for symbol, size in held.items():
        stops = wanted.get(symbol)
        if stops is None:
            continue
        weight = Decimal((letter or {})["targets"].get(symbol, {}).get("weight", "0"))
        for kind, name in (("pos_loss", "stop_loss"), ("pos_profit", "take_profit")):
            live = [p for p in plans if (p["symbol"], p["planType"]) == (symbol, kind)]
            if stops[name] is None:
                continue
            if len(live) != 1:
                found.append(f"I2: {symbol} {size} has {len(live)} live {kind}")
            elif weight * size > 0 and Decimal(live[0]["triggerPrice"]) not in _prices(
                letters if failed else letters[:1], symbol, name, Decimal(stops[name])
            ):
                found.append(
                    f"I2: {symbol} has {kind} {live[0]['triggerPrice']}, wanted {stops[name]}"
                )
    found += [
        f"I20: {plan['planType']} of {plan['symbol']} is left, the position is gone"
        for plan in ledger["plans"]
        if plan["symbol"] not in held
    ]
    return found


def _prices(letters: Sequence[Letter], symbol: str, name: str, now: Decimal) -> set[Decimal]:
    """What letters wanted this stop to be."""
    texts = [each["stops"].get(symbol, {}).get(name) for each in letters]
    return {now, *(Decimal(text) for text in texts if text is not None)}


def judge_targets(ledger: Ledger, letter: Letter | None) -> tuple[list[str], set[str]]:
    """I16: weights that are not the targets and that no record explains; codes of those that are.

    Futures only: a position's mark prices it.
    """
    if letter is None or letter["stage"] != "done":
        stage = "no letter" if letter is None else f"{letter['stage']}: {letter['reason']}"
        return [f"I16: the last cycle is {stage}"], set()
    base = decide(CycleInputs.from_json(letter["inputs"])).book.base
    now = {
        p["symbol"]: signed_size(p) * Decimal(p["markPrice"]) / base for p in ledger["positions"]
    }
    why = _residuals(letter)
    found: list[str] = []
    codes: set[str] = set()
    for symbol in sorted({*now, *letter["targets"]}):
        wanted = Decimal(letter["targets"].get(symbol, {}).get("weight", "0"))
        if abs(now.get(symbol, ZERO) - wanted) <= SLACK:
            continue
        if symbol in why:
            codes |= why[symbol]
        else:
            found.append(f"I16: {symbol} is at {now.get(symbol, ZERO):.4f}, wanted {wanted}")
    return found, codes


def _residuals(letter: Letter) -> dict[str, set[str]]:
    """By symbol, why something of it was not traded."""
    why: dict[str, set[str]] = {}
    for item in letter["skipped"]:
        if item["reason"] != "below_threshold":
            why.setdefault(item["symbol"], set()).add(item["reason"])
    for record in letter["legs"]:
        if record["state"] in ("rejected", "abandoned"):
            last = record["slices"][-1] if record["slices"] else {}
            code = str(last.get("code") or record["abandoned"] or record["state"])
            why.setdefault(record["leg"]["symbol"], set()).add(code[:60])
    return why
