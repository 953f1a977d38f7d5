"""Group B: fills, positions, take profits and stop losses."""

from __future__ import annotations

from module.simulator.faults.fault_entry import Entry, Words, codes

_SUBMIT: Words = {"operation": "@submit", "needs_success": True}
_STOPS: Words = {"operation": "@stops"}
_STEP: Words = {"operation": "*", "signed_only": True, "moment": "before"}
_FILLS: Words = {"operation": "@fill-reads"}
_LISTED_DIFFERENTLY = "a list of fills differed from the true one"
_REFUSED = "a stop was refused so"

_WRONG_SIDE = {
    "40834": "The stop loss price of the long position should be less than the current price",
    "40836": "The stop loss price of the short position should be greater than the current price",
    "40917": "Stop price for long positions please < mark price",
    "45062": "The stop loss price should be less than the current price",
    "45122": "Short position stop loss price please > mark price",
}
_NO_STOP = {
    "43031": "The stop already exists",
    "40890": "The number of trigger orders has reached its limit",
    "43071": "Trigger orders are under maintenance",
}

ENTRIES_B: tuple[Entry, ...] = (
    Entry(
        "B1",
        "an order fills to `share`, the rest is cancelled",
        "a part filled and a rest was cancelled",
        {"part": ({**_SUBMIT, "effect": "fill_part", "share": "0.5"},)},
    ),
    Entry(
        "B2",
        "a fill is missing from the list of fills for `lag_s`",
        "a read hid a fill",
        {"lag": ({**_FILLS, "edit": "hide_fills", "lag_s": 10},)},
    ),
    Entry(
        "B3",
        "a fill is listed three times, or once more under another trade id",
        _LISTED_DIFFERENTLY,
        {
            "repeated": ({**_FILLS, "edit": "repeat_fill"},),
            "renumbered": ({**_FILLS, "edit": "renumber_fill"},),
        },
    ),
    Entry(
        "B4",
        "a fill before the acknowledgement, or an order whose state goes backwards",
        "an order filled early, or a read showed an earlier state",
        {
            "early": ({**_SUBMIT, "effect": "settle"},),
            "backwards": ({"operation": "@order-reads", "edit": "go_back"},),
            "cancelled": (
                {"operation": "@order-reads", "edit": "go_back", "shown_status": "canceled"},
            ),
        },
    ),
    Entry(
        "B5",
        "the placing of a stop times out, done or not done",
        "the answer to a stop was lost",
        {
            "done": ({**_STOPS, "needs_success": True, "answer": "drop"},),
            "not_done": ({**_STOPS, "moment": "before", "answer": "drop"},),
        },
    ),
    Entry(
        "B6",
        "a stop is refused for the wrong side of the price, said or because the price moved",
        "a stop was refused so (`moved`: the price moved before it)",
        {
            **codes({**_STOPS, "moment": "before"}, _WRONG_SIDE),
            "moved": ({**_STOPS, "moment": "before", "effect": "jump", "factor": "0.8"},),
        },
    ),
    Entry(
        "B7",
        "a stop is refused: it exists, there are too many, maintenance",
        _REFUSED,
        codes({**_STOPS, "moment": "before"}, _NO_STOP),
    ),
    Entry(
        "B8",
        "a stop is left behind by its position: listed for `lag_s`, or really",
        "a list showed a stop that is over, or an orphan lives",
        {
            "listed": ({"operation": "orders-plan-pending", "edit": "keep_stops", "lag_s": 30},),
            "really": ({**_STEP, "effect": "leave_stop"},),
        },
    ),
    Entry(
        "B9",
        "a stop is moved: the old one is cancelled, the new one fails",
        "a live stop was cancelled and the new one refused",
        {
            "refused": (
                {**_STOPS, "moment": "before", "effect": "cancel_stops", "answer": "code"},
            ),
            "lost": ({**_STOPS, "moment": "before", "effect": "cancel_stops", "answer": "drop"},),
        },
    ),
    Entry(
        "B10",
        "a position without a stop",
        "the stops of a position are gone",
        {
            "cancelled": ({**_STEP, "effect": "cancel_stops"},),
            "opened": ({**_STEP, "effect": "foreign_order"},),
        },
    ),
    Entry(
        "B11",
        "a position goes between two requests: liquidated, deleveraged, or its profit taken",
        "the position was closed",
        {
            "liquidated": ({**_STEP, "effect": "liquidate"},),
            "deleveraged": ({**_STEP, "effect": "adl"},),
            "profit": ({**_STEP, "effect": "take_profit"},),
        },
    ),
    Entry(
        "B12",
        "a partial liquidation takes `share` of a position",
        "the position shrank",
        {"half": ({**_STEP, "effect": "liquidate", "share": "0.5"},)},
    ),
    Entry(
        "B13",
        "a position differs from what was booked: by dust, by a lot, by 30 %",
        "a foreign fill changed the position (dust: of a spot coin)",
        {
            "lot": ({**_STEP, "effect": "foreign_order", "side": "with", "share": 0},),
            "third": ({**_STEP, "effect": "foreign_order", "side": "against", "share": "0.3"},),
            "dust": (
                {
                    **_STEP,
                    "effect": "debit",
                    "wallet": "spot",
                    "coin": "BTC",
                    "amount": "0.00000001",
                },
            ),
        },
    ),
    Entry(
        "B14",
        "last and mark go apart: one of them is `factor` times what it was",
        "one price moved",
        {
            "last": ({**_STEP, "effect": "jump", "prices": "last", "factor": "0.95"},),
            "mark": ({**_STEP, "effect": "jump", "prices": "mark", "factor": "0.95"},),
        },
    ),
    Entry(
        "B15",
        "a stop fires and its order is refused",
        "a fired stop made no order",
        {"refused": ({"effect": "refuse_trigger"},)},
    ),
    Entry(
        "B16",
        "funding settles between two requests, at `rate`",
        "somebody paid or received",
        {"funding": ({**_STEP, "effect": "funding", "rate": "0.001"},)},
    ),
    Entry(
        "B17",
        "a position shrinks under a stop that has a size of its own",
        "the position shrank",
        {"shrunk": ({**_STEP, "effect": "foreign_close", "share": "0.5"},)},
    ),
)
