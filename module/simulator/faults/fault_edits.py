"""Lies about true data: batch answers that lost a leg, reads that lag, fills that come twice.

Pure over the rows that an endpoint returns; nothing of the exchange changes. Each edit says
whether it really changed something: an index lag counts when it hid an order, not when it looked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from module.simulator.engine.engine import Engine
from module.simulator.faults.faults import FaultEdit, FaultWords
from module.simulator.wire.bitget_codes import WireError
from module.simulator.wire.bitget_rows import Row, plan_row

_LISTS = ("entrustedList", "fillList", "orderList", "list")
_OVER = ("filled", "canceled", "cancelled")
_NOT_FOUND = ("40109", "The data of the order cannot be found, please confirm the order")


@dataclass(frozen=True, slots=True)
class ReadView:
    """Where the data comes from: for edits that need more than the rows."""

    engine: Engine
    account_id: str
    symbol: str | None


def edit(words: FaultWords, data: object, view: ReadView) -> object | None:
    """The data as the client sees it; None when there was nothing to change.

    WireError where the change is a refusal: an order that is not found yet.
    """
    match words.edit:
        case FaultEdit.LOSE_LEG | FaultEdit.DOUBLE_LEG | FaultEdit.SHUFFLE:
            return _batch(words, data)
        case FaultEdit.OTHER_CASE:
            return _client_ids(data, str.swapcase)
        case FaultEdit.CUT_ID:
            return _client_ids(data, lambda client_id: client_id[:-1])
        case FaultEdit.HIDE_ORDERS | FaultEdit.HIDE_FILLS:
            return _hide_young(words, data, view.engine.now_ms)
        case FaultEdit.REPEAT_FILL | FaultEdit.RENUMBER_FILL:
            return _again(words, data)
        case FaultEdit.GO_BACK:
            return _go_back(words, data)
        case FaultEdit.KEEP_STOPS:
            return _keep_stops(words, data, view)
        case _:
            return None


# -- batch answers ----------------------------------------------------------------------------


def _batch(words: FaultWords, data: object) -> object | None:
    if not isinstance(data, dict) or not isinstance(data.get("successList"), list):
        return None
    done: list[Row] = list(data["successList"])
    failed: list[Row] = list(data.get("failureList") or [])
    if words.edit is FaultEdit.SHUFFLE:
        mixed = [*reversed(done)]
        return None if mixed == done else {**data, "successList": mixed}
    if words.leg >= len(done):
        return None
    leg = done[words.leg]
    if words.edit is FaultEdit.LOSE_LEG:
        return {**data, "successList": [row for row in done if row is not leg]}
    failure = {**leg, "errorMsg": words.message, "errorCode": words.code}
    return {**data, "failureList": [*failed, failure]}


def _client_ids(data: object, change: Callable[[str], str]) -> object | None:
    """Every clientOid of a write's answer through `change`."""
    if not isinstance(data, dict):
        return None
    if isinstance(data.get("successList"), list):
        rows = [_with_client_id(row, change) for row in data["successList"]]
        changed = {**data, "successList": rows}
    else:
        changed = _with_client_id(data, change)
    return None if changed == data else changed


def _with_client_id(row: Row, change: Callable[[str], str]) -> Row:
    client_id = row.get("clientOid")
    return {**row, "clientOid": change(client_id)} if isinstance(client_id, str) else row


# -- reads ------------------------------------------------------------------------------------


def _rows_of(data: object) -> tuple[str, list[Row]] | None:
    """The name of the list and its rows; the name is empty where the data is the list."""
    if isinstance(data, list):
        return "", data
    if isinstance(data, dict):
        for name in _LISTS:
            if name in data:
                return name, list(data[name] or [])
    return None


def _with_rows(data: object, name: str, rows: list[Row]) -> object:
    if not name or not isinstance(data, dict):
        return rows
    shown = {**data, name: rows or None}
    return shown if rows else {**shown, "endId": None}


def _hide_young(words: FaultWords, data: object, now_ms: int) -> object | None:
    """Without what is younger than the lag; a single order is refused as unknown."""
    youngest_ms = now_ms - int(words.lag_s * 1000)
    listed = _rows_of(data)
    if listed is None:
        if isinstance(data, dict) and _created_ms(data) > youngest_ms:
            raise WireError(*_NOT_FOUND)
        return None
    name, rows = listed
    kept = [row for row in rows if _created_ms(row) <= youngest_ms]
    return None if len(kept) == len(rows) else _with_rows(data, name, kept)


def _created_ms(row: Row) -> int:
    created = row.get("cTime")
    return int(created) if isinstance(created, str) and created.isdigit() else 0


def _again(words: FaultWords, data: object) -> object | None:
    listed = _rows_of(data)
    if listed is None or not listed[1]:
        return None
    name, rows = listed
    newest = rows[0]
    if words.edit is FaultEdit.REPEAT_FILL:
        return _with_rows(data, name, [newest, newest, *rows])
    other = {**newest, "tradeId": str(int(str(newest.get("tradeId") or 0)) + 1)}
    return _with_rows(data, name, [other, *rows])


def _go_back(words: FaultWords, data: object) -> object | None:
    """Orders that are over look as if they were not."""
    listed = _rows_of(data)
    if listed is None:
        earlier = _earlier(words, data) if isinstance(data, dict) else data
        return None if earlier == data else earlier
    name, rows = listed
    changed = [_earlier(words, row) for row in rows]
    return None if changed == rows else _with_rows(data, name, changed)


def _earlier(words: FaultWords, row: Row) -> Row:
    for key in ("state", "status"):
        if row.get(key) in _OVER and row[key] != words.shown_status:
            nothing = {"baseVolume": "0", "quoteVolume": "0", "priceAvg": "", "fee": "0"}
            emptied = {name: text for name, text in nothing.items() if name in row}
            return {**row, **emptied, key: words.shown_status}
    return row


def _keep_stops(words: FaultWords, data: object, view: ReadView) -> object | None:
    """Stops that have just ended stand in the list of live ones."""
    listed = _rows_of(data)
    if listed is None:
        return None
    name, rows = listed
    earliest_ms = view.engine.now_ms - int(words.lag_s * 1000)
    ended = [
        {**plan_row(plan), "planStatus": "live"}
        for plan in view.engine.plan_history(view.account_id, None, view.symbol)
        if plan.protects is not None and plan.updated_ms > earliest_ms
    ]
    if not ended:
        return None
    shown = _with_rows(data, name, [*reversed(ended), *rows])
    if isinstance(shown, dict) and shown.get("endId") is None:
        shown["endId"] = str(ended[0]["orderId"])
    return shown
