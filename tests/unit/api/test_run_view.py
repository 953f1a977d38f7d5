"""What `aifap run` says while it works and at its end: how far it is, and of which moment."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from api.run_summary import RunSummary
from api.run_view import RunFacts, line_of, progress, render

FACTS = RunFacts("2601050000-ab3x", "http://127.0.0.1:8080/dashboard/", "synthetic:7", 12)


def session(state: str = "running", cycle: int | None = 7, **fields: object) -> dict[str, object]:
    return {"session_id": FACTS.session_id, "state": state, "cycle": cycle, "end_state": "flat",
            "reason": "", "letter": {"stage": "done"}, **fields}  # fmt: skip


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (session(cycle=0, letter=None), "waiting for the first of 12 cycles"),
        (session(cycle=None), "waiting for the first of 12 cycles"),
        (session(letter=None), "cycle 7 of 12: begins"),
        (session(), "cycle 7 of 12: done"),
        (session(cycle=13), "cycle 12 of 12, ending flat"),
        (session("stopping"), "cycle 7 of 12, ending flat"),
        (session("ended", reason="its 12 cycles are done; flat"),
         "ended: its 12 cycles are done; flat"),
        (session("failed"), "failed: no reason was given"),
    ],
)  # fmt: skip
def test_progress_counts_the_cycles_that_were_asked_for(
    told: dict[str, object], words: str
) -> None:
    assert progress(told, FACTS) == words


def test_a_line_says_of_which_minute_what_is_held_is() -> None:
    result = {
        "minute": "2026-01-05T00:34:00Z",
        "portfolio": {"current_pv": "9987.654", "roe": "-0.0012346"},
        "symbols": [
            {"symbol": "BTCUSDT", "size": "0.4", "weight": "0.3313"},
            {"symbol": "ETHUSDT", "size": "0", "weight": "0"},
        ],
    }
    document = {"now": "2026-01-05T00:35:01Z", "sessions": [session(result=result)]}
    assert line_of(document, FACTS) == (
        "01-05 00:35 UTC  cycle 7 of 12: done  PV 9,987.65  ROE -0.12 %  "
        "held at 00:34: BTCUSDT 33.13 %"
    )
    result["symbols"] = []
    assert line_of(document, FACTS).endswith("held at 00:34: nothing")
    console = Console(file=StringIO(), width=140)
    console.print(render(document, FACTS))
    assert "cycle 7 of 12: done" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_end_tells_the_last_weights_and_what_is_held_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line: dict[str, object] = {
        "cycles": 12, "orders": 3, "fills": 3, "weights": {"BTCUSDT": "0.3313"},
        "weights_at": "2026-01-05T01:01:00Z", "targets": {}, "end": "flat", "held": {},
        "pv": "9987", "netprofit": "-13", "roe": -0.0013, "max_drawdown": -0.002, "seconds": 9.0,
        "ledger": "ab" * 32,
    }  # fmt: skip
    said = StringIO()
    RunSummary("2601050000-ab3x", "ended", "done", line, ()).print(Console(file=said, width=80))
    assert "after cycle 12 (at 01-05 01:01 UTC): BTCUSDT 33.13 %" in said.getvalue()
    assert "at its end (flat): nothing is held" in said.getvalue()
    kept = {**line, "end": "protected", "held": {"BTCUSDT": "0.04"}}
    RunSummary("2601050000-ab3x", "ended", "done", kept, ()).print(Console(file=said, width=80))
    assert "at its end (protected): BTCUSDT 0.04" in said.getvalue()
    assert '"held": {}' in capsys.readouterr().out
