"""`aifap up`: the standalone installation as a service, until it is told to stop."""

from __future__ import annotations

import signal

from rich.console import Console

from api.standalone import Standalone, StandaloneOptions
from module.clock import SystemClock
from module.model.errors import AifapError

LOOK_PAUSE_S = 0.25


def serve_until_stopped(options: StandaloneOptions, console: Console) -> int:
    """Start everything, say where it is, wait for SIGINT or SIGTERM, hand the sessions over."""
    stack = Standalone(options, lambda line: console.print(f"[dim]{line}[/dim]"))
    clock = SystemClock()
    told: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _frame: told.append(got))
    try:
        stack.start()
        token = stack.first_user("me")
        console.print(f"[bold]API[/bold]        {stack.api_url}")
        console.print(f"[bold]dashboard[/bold]  {stack.dashboard_url}")
        if token is not None:
            console.print(f"[bold]token[/bold]      {token}   [dim](shown once)[/dim]")
        console.print("[green]ready[/green]; Ctrl-C stops it")
        while not told:
            if stack.failure is not None:
                raise AifapError(stack.failure)
            clock.pause(LOOK_PAUSE_S)
        console.print("[dim]Stopping; running sessions go on at the next start …[/dim]")
    finally:
        stack.stop()
    return 0
