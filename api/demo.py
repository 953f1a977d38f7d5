"""`aifap run`: the main job shown at work, from an empty folder to a summary.

installation up ─► first user ─► paper account ─► POST /command/run-system, as any client
─► live progress ─► ten cycles, or Ctrl-C ─► flat (or kept) ─► summary from the stored rows,
checked against the exchange's own ledger ─► everything ended
"""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from rich.console import Console
from rich.live import Live

from api.client import LiveFeed, PlatformClient
from api.run_summary import RunSummary, summarize
from api.run_view import RunFacts, line_of, render, session_of
from api.standalone import Standalone, StandaloneOptions
from module.clock import SystemClock
from module.launch.processes import ProcessRecord
from module.model.errors import AifapError, Conflict
from module.model.market import MarketType
from module.model.sessions import TradeMode
from trading.bootstrap import build_clock

START_WAIT_S = 30.0
END_WAIT_S = 120.0
HOLD_WAIT_S = 120.0
LOOK_PAUSE_S = 0.25
CONDUCTOR = "run:conductor"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a person may choose for `aifap run`."""

    stack: StandaloneOptions
    fresh: bool
    cycles: int
    interval: str
    strategy: str
    keep: bool
    market: MarketType = MarketType.FUTURES
    balance: Decimal = Decimal(10_000)
    trade_mode: TradeMode = TradeMode.REBALANCING
    target_volatility: Decimal | None = None
    """Yearly, as a fraction; in the mode that scales by it."""

    @property
    def of_mode(self) -> dict[str, object]:
        """The mode's part of the request."""
        chosen: dict[str, object] = {"trade_mode": self.trade_mode.value}
        if self.target_volatility is not None:
            chosen["target_volatility"] = str(self.target_volatility)
        return chosen


class Interrupted(Exception):
    """Ctrl-C, or a polite signal: end the session first."""


def run(options: RunOptions, console: Console) -> int:
    """The exit code: 0 when the session ended as asked, by itself or on Ctrl-C."""
    if options.fresh:
        _clear(options.stack.data_dir)
    wanted = replace(options.stack, waits_for=CONDUCTOR)
    stack = Standalone(wanted, lambda line: console.print(f"[dim]{line}[/dim]"))
    clock = SystemClock()
    started = clock.monotonic()
    with _polite():
        try:
            stack.start()
            summary = _show(stack, options, console, clock, started)
        except Interrupted:
            console.print("[yellow]stopped before the session began[/yellow]")
            return 0
        finally:
            _ignore_signals()
            console.print("[dim]Stopping …[/dim]")
            stack.stop()
    summary.print(console)
    return 0 if summary.good else 1


def _show(
    stack: Standalone,
    options: RunOptions,
    console: Console,
    clock: SystemClock,
    started: float,
) -> RunSummary:
    token = stack.first_user("me") or stack.new_token("run")
    console.print(f"[bold]API[/bold]        {stack.api_url}")
    console.print(f"[bold]dashboard[/bold]  {stack.dashboard_url}")
    console.print(f"[bold]token[/bold]      {token}   [dim](shown once)[/dim]")
    client = PlatformClient(stack.api_url, token)
    session_id = _start_session(stack, client, options, clock)
    facts = RunFacts(session_id, stack.dashboard_url, stack.settings.market_id, options.cycles)
    feed = LiveFeed(client)
    try:
        try:
            _follow(stack, feed, facts, console, clock, None)
        except Interrupted:
            _ignore_signals()
            mode = "protected" if options.keep else "flat"
            console.print(f"[yellow]Ctrl-C: ending the session, {mode} …[/yellow]")
            client.get(f"/command/terminate?session_id={session_id}&mode={mode}")
            _follow(stack, feed, facts, console, clock, END_WAIT_S)
        _await_last_row(stack, session_id, clock)
        return summarize(stack.settings, session_id, clock.monotonic() - started)
    finally:
        feed.stop()


def _start_session(
    stack: Standalone, client: PlatformClient, options: RunOptions, clock: SystemClock
) -> str:
    """Open a paper account and start the session; the world stands still until it runs."""
    with contextlib.closing(build_clock(stack.settings, CONDUCTOR)):
        account = client.post(
            "/accounts/paper",
            {"label": "run", "market": options.market, "balance": str(options.balance)},
        )
        answer = client.post(
            "/command/run-system",
            {
                "tradeType": options.market,
                "strategy_name": options.strategy,
                **options.of_mode,
                "trade_env": "paper",
                "account_id": str(account["account_id"]),
                "interval": options.interval,
                "cycles": options.cycles,
                "on_end": "protected" if options.keep else "flat",
                "apply_account_settings": True,
            },
        )
        session_id = str(answer["session_id"])
        deadline = clock.monotonic() + HOLD_WAIT_S
        while clock.monotonic() < deadline:
            view = client.get(f"/command/sessions/{session_id}")
            if view["state"] != "starting":
                break
            clock.pause(0.02)
    return session_id


def _follow(
    stack: Standalone,
    feed: LiveFeed,
    facts: RunFacts,
    console: Console,
    clock: SystemClock,
    patience_s: float | None,
) -> None:
    """Show the session until it is over; AifapError when that takes longer than `patience_s`."""
    deadline = None if patience_s is None else clock.monotonic() + patience_s
    shown = ""
    with _screen(console) as screen:
        while True:
            document = feed.newest
            if screen is not None:
                screen.update(render(document, facts))
            elif document is not None:
                shown = _say_once(document, facts, console, shown)
            session = session_of(document, facts.session_id)
            if session is not None and session.get("state") in ("ended", "failed"):
                return
            if stack.failure is not None:
                raise AifapError(stack.failure)
            if deadline is not None and clock.monotonic() > deadline:
                raise AifapError(f"session {facts.session_id} did not end in {patience_s:.0f} s")
            clock.pause(LOOK_PAUSE_S)


def _say_once(document: Mapping[str, object], facts: RunFacts, console: Console, shown: str) -> str:
    """For a terminal that cannot redraw: a line for each stage of each cycle."""
    session = session_of(document, facts.session_id) or {}
    letter = session.get("letter")
    stage = letter.get("stage") if isinstance(letter, dict) else None
    state = f"{session.get('state')}:{session.get('cycle')}:{stage}"
    if state != shown:
        console.print(line_of(document, facts), highlight=False, soft_wrap=True)
    return state


@contextlib.contextmanager
def _screen(console: Console) -> Iterator[Live | None]:
    if not console.is_terminal:
        yield None
        return
    with Live(console=console, refresh_per_second=8, transient=False) as live:
        yield live


def _await_last_row(stack: Standalone, session_id: str, clock: SystemClock) -> None:
    """Finwatcher writes a last row and ends; then the stored rows are complete."""
    record = ProcessRecord(stack.settings.data_dir / "sessions" / session_id)
    deadline = clock.monotonic() + START_WAIT_S
    while record.alive("finwatcher") is not None and clock.monotonic() < deadline:
        clock.pause(0.05)


def _clear(folder: Path) -> None:
    """A run shows the job from an empty folder; only a folder that was a run's is emptied."""
    if not folder.exists():
        return
    from filelock import FileLock, Timeout

    if not (folder / "run" / "stack.lock").exists() and any(folder.iterdir()):
        raise Conflict(f"{folder} is not empty and not an installation's; choose another --data")
    (folder / "run").mkdir(exist_ok=True)
    try:
        with FileLock(str(folder / "run" / "stack.lock"), timeout=0):
            shutil.rmtree(folder)
    except Timeout as error:
        raise Conflict(f"an installation runs on {folder}; stop it, or choose --data") from error


@contextlib.contextmanager
def _polite() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP become `Interrupted`, once."""

    def interrupt(*_: object) -> None:
        _ignore_signals()
        raise Interrupted

    before = {
        number: signal.signal(number, interrupt)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
