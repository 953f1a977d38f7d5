"""The terminal page of a preview: every figure that decides is on it, whatever is missing."""

from __future__ import annotations

from rich.console import Console

from api.preview_page import render_execution, render_preview
from api.skip_words import SKIP_WORDS, words_for
from trading.rebalance.legs import SkipReason

LEG: dict[str, object] = {
    "symbol": "BTCUSDT",
    "action": "flip: open",
    "side": "sell",
    "size": "0.1346",
    "notional": "10510.3217",
    "current_weight": "0.3006",
    "target_weight": "-0.35",
    "reference_price": "78085.6",
    "stop_loss": None,
    "estimate": {
        "average_price": "78088.3",
        "unfilled_size": "0.01",
        "slippage": "1.5",
        "slippage_fraction": "0.00015",
        "fee": "6.3057",
    },
}
SIDE: dict[str, object] = {
    "size": "0",
    "weight": "0",
    "margin": "0",
    "liquidation_price": None,
    "liquidation_distance": None,
    "stop_loss": None,
}
ACCOUNT: dict[str, object] = {
    "equity": "10007.5",
    "available": "4976.21",
    "margin_used": "5014.79",
    "gross": "15044.36",
    "leverage": "1.5",
}
VIEW: dict[str, object] = {
    "plan_hash": "3f" * 32,
    "made_at": "2026-01-05T01:28:45.750Z",
    "fresh_until": "2026-01-05T01:29:45.750Z",
    "price_tolerance": "0.005",
    "session_id": None,
    "strategy_name": None,
    "account": "desk",
    "trade_env": "paper",
    "market": "futures",
    "trade_mode": "rebalancing",
    "leverage": "3",
    "margin_mode": "crossed",
    "threshold": "0.01",
    "base": "10007.5",
    "legs": [LEG],
    "skipped": [
        {
            "symbol": "XRPUSDT",
            "words": "the difference is smaller than the threshold",
            "current_weight": "0",
            "target_weight": "0.001",
            "residual": "0.001",
        }
    ],
    "positions": [
        {
            "symbol": "BTCUSDT",
            "before": SIDE,
            "after": {**SIDE, "size": "-0.1346", "liquidation_price": "82001.5",
                      "liquidation_distance": "0.0501"},
        }
    ],
    "totals": {
        "legs": 1,
        "fees": "6.3057",
        "slippage": "1.5",
        "cost": "7.8057",
        "cost_fraction": "0.000743",
        "turnover": "0.35",
        "turnover_notional": "10510.3217",
    },
    "before": ACCOUNT,
    "after": ACCOUNT,
    "notes": ["without a stop loss afterwards: BTCUSDT"],
    "executable": True,
}  # fmt: skip


def page(view: dict[str, object]) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(render_preview(view))
    return capture.get()


def test_everything_that_decides_is_on_the_page() -> None:
    text = page(VIEW)
    for part in (
        "weights by hand on desk (paper futures)", "sell 0.1346", "30.06 % → -35.00 %",
        "78,088.30 !", "1.50 (1.5 bp)", "6.31", "10,510.32", "turnover 35.00 %", "1.50x",
        "82,001.50", "5.01 %", "– → -0.1346", "smaller than the threshold", "0.10 %",
        "without a stop loss afterwards", f"aifap preview --execute {'3f' * 32}",
        "2026-01-05 01:29:45.750Z",
    ):  # fmt: skip
        assert part in text, part


def test_a_plan_of_nothing_is_a_page_too() -> None:
    empty = {**VIEW, "legs": [], "positions": [], "skipped": [], "executable": False}
    text = page(empty)
    assert "Nothing would be traded." in text
    assert "No position, before or after." in text
    assert "--execute" not in text


def test_of_a_session_and_of_a_strategy() -> None:
    assert "session 2601050153-sihy on desk" in page({**VIEW, "session_id": "2601050153-sihy"})
    assert "strategy momentum on desk" in page({**VIEW, "strategy_name": "momentum"})


def test_what_became_of_it() -> None:
    leg = {
        "symbol": "BTCUSDT", "action": "open", "side": "buy", "size": "0.3", "state": "filled",
        "filled": "0.3", "average_price": "78088.3", "fee": "5.4", "message": None,
    }  # fmt: skip
    console = Console(width=140)
    with console.capture() as capture:
        console.print(
            render_execution(
                {"session_id": "s-1", "state": "ended", "reason": "the plan …", "legs": [leg]}
            )
        )
    text = capture.get()
    for part in ("buy 0.3", "filled", "78,088.30", "5.40", "session s-1 ended: the plan …"):
        assert part in text


def test_every_reason_of_the_planner_has_words() -> None:
    assert {reason.value for reason in SkipReason} <= set(SKIP_WORDS)
    assert words_for("something_new") == "something new"
