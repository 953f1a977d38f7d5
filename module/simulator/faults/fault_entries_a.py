"""Group A: order submission and the exchange's interface."""

from __future__ import annotations

from module.simulator.faults.fault_entry import Entry, Words, codes

_SUBMIT: Words = {"operation": "@submit", "needs_success": True}
_BATCH: Words = {"operation": "batch-place-order,batch-orders", "needs_success": True}
_BEFORE_SUBMIT: Words = {"operation": "@submit", "moment": "before"}
_CANCEL: Words = {"operation": "@cancel"}
_SETTINGS: Words = {"operation": "@settings"}
_ANSWERED_DIFFERENTLY = "an accepted request's answer differed from the true one"
_REFUSED = "a request was refused so"

_DUPLICATE = {
    "40786": "Duplicate clientOid",
    "40708": "clientOid is repeated",
    "43118": "clientOrderId duplicate",
    "45034": "clientOid duplicate",
    "50060": "Duplicated clientOid",
    "25212": "Duplicate clientOid",
}
_AMBIGUOUS = {
    "40010": "Request timed out",
    "40015": "System is abnormal, please try again later",
    "40725": "service return an error",
    "45001": "Unknown error",
    "31016": "Batch processing exception",
    "40908": "Concurrent operation failed",
    "40910": "The current operation is being processed",
    "12018": "Request timeout",
}
_NO_KEY = {
    "40037": "Apikey does not exist",
    "40036": "passphrase is error",
    "40038": "The request ip address is not in the apikey ip whitelist",
}
_DONE = {
    "43001": "The order does not exist",
    "45055": "The current order status cannot be cancelled",
    "22001": "No order to cancel",
}
_BUSY_SETTING = {
    "45117": "Currently holding positions or orders, the margin mode cannot be adjusted",
    "40920": "Position or order exists, the position mode cannot be switched",
}
_MAINTENANCE = {
    "40200": "Server upgrade, please try again later",
    "45043": "The trading pair is under maintenance",
}


def _outage(starts_on: str) -> dict[str, tuple[Words, ...]]:
    rule: Words = {
        "operation": "*",
        "moment": "before",
        "span_s": 600,
        **({"starts_on": starts_on} if starts_on else {}),
    }
    return {
        "503": ({**rule, "answer": "status", "status": 503},),
        **codes(rule, _MAINTENANCE),
    }


ENTRIES_A: tuple[Entry, ...] = (
    Entry(
        "A1",
        "the answer to an accepted order is lost",
        _ANSWERED_DIFFERENTLY,
        {
            "reset": ({**_SUBMIT, "answer": "drop"},),
            "silence": ({**_SUBMIT, "answer": "hang"},),
        },
    ),
    Entry(
        "A2",
        "of a batch only the first `leg` orders arrive, they fill, and the answer is lost",
        "an order of the request filled at once",
        {
            "filled": (
                {**_SUBMIT, "change": "first_legs", "leg": 1, "effect": "settle", "answer": "drop"},
            ),
            "closed": ({**_SUBMIT, "effect": "settle_and_close", "answer": "drop"},),
        },
    ),
    Entry(
        "A3",
        "a request arrives `hold_s` world seconds late, its client hears nothing",
        "a request was held back (one that came too late for its stamps never arrives)",
        {
            "reset": ({"operation": "@submit", "answer": "hold_drop", "moment": "before"},),
            "silence": ({"operation": "@submit", "answer": "hold", "moment": "before"},),
        },
    ),
    Entry(
        "A4",
        "the connection is reset after the request was read",
        _ANSWERED_DIFFERENTLY,
        {
            "reset": ({**_SUBMIT, "answer": "drop"},),
            "cut": ({**_SUBMIT, "answer": "cut"},),
            "never_read": ({**_BEFORE_SUBMIT, "answer": "drop"},),
        },
    ),
    Entry(
        "A5",
        "200 with a body that is not an answer",
        _ANSWERED_DIFFERENTLY,
        {
            "html": (
                {
                    **_SUBMIT,
                    "answer": "body",
                    "body": "<html><body>gateway</body></html>",
                    "content_type": "text/html",
                },
            ),
            "empty": ({**_SUBMIT, "answer": "body", "body": ""},),
            "truncated": ({**_SUBMIT, "answer": "truncate"},),
            "null": ({**_SUBMIT, "answer": "null"},),
            "content_type": ({**_SUBMIT, "answer": "honest", "content_type": "text/plain"},),
        },
    ),
    Entry(
        "A6",
        "an accepted order is answered with a duplicate client id",
        _ANSWERED_DIFFERENTLY,
        codes(_SUBMIT, _DUPLICATE),
    ),
    Entry(
        "A7",
        "a batch answer with a leg refused, in neither list, or in both",
        "the answer's lists changed",
        {
            "lost": ({**_BATCH, "edit": "lose_leg"},),
            "both": ({**_BATCH, "edit": "double_leg"},),
            "mixed": ({**_BATCH, "change": "spoil_leg"},),
        },
    ),
    Entry(
        "A8",
        "a batch answer in another order, or client ids echoed wrong",
        "order or ids of the answer changed",
        {
            "shuffled": ({**_BATCH, "edit": "shuffle"},),
            "case": ({**_SUBMIT, "edit": "other_case"},),
            "cut": ({**_SUBMIT, "edit": "cut_id"},),
        },
    ),
    Entry(
        "A9",
        "reads do not know an order for `lag_s` after it was accepted",
        "a read hid an order",
        {"lag": ({"operation": "@order-reads", "edit": "hide_orders", "lag_s": 3},)},
    ),
    Entry(
        "A10",
        "after an order, the next `count` connections that ask for it are refused",
        "a connection was refused",
        {
            "reads": (
                {
                    "operation": "@order-reads",
                    "starts_on": "@submit",
                    "moment": "before",
                    "answer": "drop",
                    "count": 20,
                },
            ),
            "all": ({"operation": "*", "moment": "before", "answer": "drop", "count": 20},),
        },
    ),
    Entry(
        "A11",
        "an accepted order is answered with a code that proves nothing",
        _ANSWERED_DIFFERENTLY,
        codes(_SUBMIT, _AMBIGUOUS),
    ),
    Entry(
        "A12",
        "429 with Retry-After",
        _REFUSED,
        {
            "429": ({**_BEFORE_SUBMIT, "answer": "status", "status": 429, "retry_after_s": 7},),
        },
    ),
    Entry(
        "A13",
        "429 without Retry-After, 429 in the body only, then a ban of the address",
        _REFUSED,
        {
            status: (
                {"operation": "*", "moment": "before", "answer": "status", "status": 429},
                {
                    "operation": "*",
                    "moment": "before",
                    "answer": "code",
                    "code": "429",
                    "message": "Too Many Requests",
                    "status": 200,
                    "skip": 1,
                },
                {
                    "operation": "*",
                    "moment": "before",
                    "answer": "status",
                    "status": int(status),
                    "skip": 2,
                    "span_s": 120,
                },
            )
            for status in ("418", "403")
        },
    ),
    Entry(
        "A14",
        "maintenance: every request of `span_s` world seconds is refused",
        _REFUSED,
        _outage(""),
    ),
    Entry(
        "A15",
        "maintenance that begins with the first order",
        _REFUSED,
        _outage("@submit"),
    ),
    Entry(
        "A16",
        "the key is revoked, its passphrase changed, or the address not allowed any more",
        _REFUSED,
        codes({"operation": "*", "moment": "before", "signed_only": True, "count": 1000}, _NO_KEY),
    ),
    Entry(
        "A17",
        "minimum notional, minimum size, step and price band refuse some legs",
        excuse="these rules are always on in the engine: send such an order; A19 changes them",
    ),
    Entry(
        "A18",
        "money leaves the account before an order",
        "money was there and left, as a transfer to outside",
        {
            "debit": ({**_BEFORE_SUBMIT, "effect": "debit"},),
            "spot": ({**_BEFORE_SUBMIT, "effect": "debit", "wallet": "spot"},),
        },
    ),
    Entry(
        "A19",
        "tick, lot or minimum of a contract (or pair) become `factor` times as large",
        "a rule of the market changed",
        {
            head + rule: (
                {
                    **_BEFORE_SUBMIT,
                    "effect": "market_change",
                    "wallet": wallet,
                    "rule": rule,
                    "factor": 10,
                },
            )
            for wallet, head in (("futures", ""), ("spot", "spot_"))
            for rule in ("tick", "lot", "minimum")
        },
    ),
    Entry(
        "A20",
        "a symbol is suspended for `halt_s`, or delisted",
        "a symbol that traded does not any more",
        {
            "suspended": ({**_BEFORE_SUBMIT, "effect": "suspend", "halt_s": 600},),
            "delisted": ({**_BEFORE_SUBMIT, "effect": "delist"},),
        },
    ),
    Entry(
        "A21",
        "a settings call is done but its answer lost, or refused because nothing may change",
        _ANSWERED_DIFFERENTLY,
        {
            "lost": ({**_SETTINGS, "needs_success": True, "answer": "drop"},),
            **codes({**_SETTINGS, "moment": "before"}, _BUSY_SETTING),
        },
    ),
    Entry(
        "A22",
        "somebody switches the account's position mode",
        "the mode changed (the exchange refuses while anything is open)",
        {"switched": ({"operation": "*", "moment": "before", "effect": "position_mode"},)},
    ),
    Entry(
        "A23",
        "the exchange's clock is `skew_s` ahead",
        "a time was answered wrong, or a signature refused (40008, 40078)",
        {
            "always": ({"edit": "skew", "skew_s": 40},),
            "for_a_while": ({"edit": "skew", "skew_s": 40, "span_s": 300},),
        },
    ),
    Entry(
        "A24",
        "answers take `delay_s` of the client's time",
        "an answer was late",
        {"slow": ({"operation": "*", "answer": "honest", "delay_s": 25, "span_s": 300},)},
    ),
    Entry(
        "A25",
        "the TLS certificate is invalid, or DNS names another host",
        excuse="the simulator speaks plain HTTP; certificates and names are the client's proxy's",
    ),
    Entry(
        "A26",
        "the exchange takes an order with another size or price than was sent",
        "an order was accepted with changed words",
        {
            "size": ({**_SUBMIT, "change": "size", "factor": 2},),
            "price": ({**_SUBMIT, "change": "price", "factor": "0.99"},),
        },
    ),
    Entry(
        "A27",
        "two sessions trade one account",
        excuse="an exchange does not know sessions: start two; A28 acts from outside",
    ),
    Entry(
        "A28",
        "somebody else orders, cancels or closes on the account",
        "something was ordered, cancelled or closed",
        {
            "order": ({"operation": "*", "moment": "before", "effect": "foreign_order"},),
            "cancel": ({"operation": "*", "moment": "before", "effect": "foreign_cancel"},),
            "close": ({"operation": "*", "moment": "before", "effect": "foreign_close"},),
        },
    ),
    Entry(
        "A29",
        "a resting order with the prefix `client_id` of an older run or another program",
        "the order was accepted",
        {
            "older": (
                {"operation": "*", "signed_only": True, "moment": "before", "effect": "leftover"},
            ),
        },
    ),
    Entry(
        "A30",
        "an order fills while its cancel is on the way, and the cancel's answer is lost",
        "the order filled in full",
        {
            "lost": ({**_CANCEL, "moment": "before", "effect": "fill_order", "answer": "drop"},),
            "told": ({**_CANCEL, "moment": "before", "effect": "fill_order"},),
        },
    ),
    Entry(
        "A31",
        "the cancel of an order that is over already",
        "a live order ended right before its cancel, or a cancel that worked was answered so",
        {
            "filled": ({**_CANCEL, "moment": "before", "effect": "fill_order"},),
            "cancelled": ({**_CANCEL, "moment": "before", "effect": "cancel_order"},),
            **codes({**_CANCEL, "needs_success": True}, _DONE),
        },
    ),
)
