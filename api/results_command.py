"""`aifap results …`: what sessions were worth, held, traded and planned, on a terminal or in files.

Through the platform's API: nothing here that curl could not do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, Literal, Optional
from urllib.parse import quote, urlencode

import typer
from rich.console import Console
from rich.table import Table

from api.account_commands import DEFAULT_DATA, Data, TokenFile, Url, User, signed_in
from api.run_view import clock_text, items, mapping, money, percent, price
from module.model.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    pass

results_app = typer.Typer(no_args_is_help=True, help="What sessions were worth, and what they did.")

What = Literal[
    "portfolio", "indicators", "symbols", "positions", "closed-positions", "orders", "trades",
    "bills", "cycles", "gaps",
]  # fmt: skip
WIDTH_MIN: Final = 140
WITH_RESOLUTION: Final = frozenset({"portfolio", "indicators", "symbols"})
COMPARED_METRICS: Final = (
    ("return", "cumulative_return", percent),
    ("profit", "profit", money),
    ("Sharpe (1day)", "sharpe_1day", price),
    ("Sortino (1day)", "sortino_1day", price),
    ("volatility (1day)", "volatility_1day", percent),
    ("max drawdown", "max_drawdown", percent),
    ("max drawdown (1day)", "max_drawdown_1day", percent),
    ("fees", "fees", money),
    ("funding", "funding", money),
    ("trades", "trades", str),
    ("win rate", "win_rate", percent),
    ("profit factor", "profit_factor", price),
    ("turnover", "turnover", price),
    ("slippage (bps)", "slippage_bps", price),
    ("minutes", "minutes", str),
    ("gaps", "gaps", str),
)

Session = Annotated[str, typer.Argument(help="A session's id.")]
Start = Annotated[Optional[str], typer.Option(help="From when on (ISO 8601 with an offset).")]  # noqa: UP045
End = Annotated[Optional[str], typer.Option(help="Until when, exclusive.")]  # noqa: UP045


@results_app.command("list")
def list_sessions(
    state: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="living, over, or one state; default: all, living ones first."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=2000, help="So many.")] = 50,
    data: Data = DEFAULT_DATA,
    user: User = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Show sessions and what they were worth last."""
    asked = {"limit": str(limit), **({} if state is None else {"state": state})}
    with signed_in(data, user, url, token_file) as client:
        found = client.get(f"/results/sessions?{urlencode(asked)}")
    rows = [mapping(item) for item in items(found["sessions"])]
    if not rows:
        Console().print("no sessions yet")
        return
    table = Table(box=None)
    for name in ("session", "state", "strategy", "env", "started"):
        table.add_column(name, no_wrap=True)
    for name in ("PV", "profit", "ROE", "Sharpe", "drawdown"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        latest = mapping(row.get("latest"))
        names = ("session_id", "state", "strategy_name", "trade_env")
        table.add_row(
            *(str(row[name]) for name in names),
            clock_text(row["started_at"]),
            money(latest.get("current_pv")),
            money(latest.get("netprofit"), signed=True),
            percent(latest.get("roe"), signed=True),
            price(latest.get("sharpe_1day")),
            percent(latest.get("max_drawdown")),
        )
    _wide().print(table)
    if found["next"] is not None:
        Console().print("[dim]there are more: --limit, --state, or aifap results export[/]")


@results_app.command("show")
def show(
    session: Session,
    data: Data = DEFAULT_DATA,
    user: User = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Show a session's newest minute: its value, what it holds, its newest cycles."""
    base = f"/results/{quote(session, safe='')}"
    with signed_in(data, user, url, token_file) as client:
        result = mapping(client.get(f"{base}/latest")["result"])
        cycles = items(client.get(f"{base}/cycles?limit=5")["cycles"])
    console = _wide()
    if not result:
        console.print(f"session {session} has no measured minute yet")
        return
    portfolio, numbers = mapping(result["portfolio"]), mapping(result["indicators"])
    console.print(
        f"[bold]{session}[/]  {clock_text(result['minute'])}  PV "
        f"{money(portfolio['current_pv'])}  net profit {money(portfolio['netprofit'], signed=True)}"
        f"  ROE {percent(portfolio['roe'], signed=True)}  max drawdown "
        f"{percent(numbers.get('max_drawdown'))}  Sharpe {price(numbers.get('sharpe_1day'))}"
    )
    held = Table("symbol", box=None)
    for name in ("size", "value", "weight", "target", "uPnL", "stop"):
        held.add_column(name, justify="right")
    rows = [mapping(item) for item in items(result["symbols"])]
    for row in rows:
        held.add_row(
            str(row["symbol"]),
            str(row["size"]),
            money(row["position_value"]),
            percent(row["weight"]),
            percent(row["target"]),
            money(row["unrealized_pnl"], signed=True),
            price(row["stop_loss"]),
        )
    console.print(held if rows else "nothing is held or wanted")
    _print_cycles(console, [mapping(item) for item in cycles])


@results_app.command("cycle")
def cycle(
    session: Session,
    which: Annotated[str, typer.Argument(help="Its number, its boundary, or latest.")] = "latest",
    data: Data = DEFAULT_DATA,
    user: User = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Show one cycle: what was planned, what became of it, what was skipped and why."""
    path = f"/results/{quote(session, safe='')}/cycles/{quote(which, safe='')}"
    with signed_in(data, user, url, token_file) as client:
        found = mapping(client.get(path)["cycle"])
    console = _wide()
    if not found:
        console.print(f"session {session} has no cycle yet")
        return
    reason = f"  {found['reason']}" if found["reason"] else ""
    console.print(f"[bold]{found['cycle']}[/]  #{found['number']}  {found['stage']}{reason}")
    legs = Table("leg", "case", "side", "size", "filled", "price", "state", "", box=None)
    for leg in map(mapping, items(found["legs"])):
        why = leg["abandoned"] or leg["message"] or ""
        names = ("leg_id", "case", "side", "size")
        legs.add_row(
            *(str(leg[name]) for name in names),
            str(leg["filled_size"] or "-"),
            price(leg["average_price"]),
            str(leg["state"]),
            str(why),
        )
    console.print(legs if found["legs"] else "nothing had to be traded")
    for item in map(mapping, items(found["skipped"])):
        console.print(
            f"skipped {item['symbol']}: {item['reason']} ({percent(item['current_weight'])} held, "
            f"{percent(item['target_weight'])} wanted)"
        )


@results_app.command("export")
def export(
    session: Session,
    what: Annotated[What, typer.Argument(help="Which rows.")] = "portfolio",
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The file (- is standard output); default: SESSION-WHAT.csv here."),
    ] = None,
    start: Start = None,
    end: End = None,
    resolution: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="1m, 5m, 15m, 1h, 4h or 1d (portfolio, indicators, symbols)."),
    ] = None,
    columns: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Names, like current_pv,roe (portfolio, indicators, symbols)."),
    ] = None,
    data: Data = DEFAULT_DATA,
    user: User = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Write rows of a session as CSV. A file appears when it is whole, never before."""
    if what not in WITH_RESOLUTION and (resolution or columns):
        raise InvalidInput(f"--resolution and --columns are of series; {what} has neither")
    options = {"start": start, "end": end, "resolution": resolution, "columns": columns}
    asked = urlencode({name: value for name, value in options.items() if value is not None})
    path = f"/results/{quote(session, safe='')}/{what}{'?' if asked else ''}{asked}"
    with signed_in(data, user, url, token_file) as client:
        if out == Path("-"):
            for part in client.download(path):
                sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
            return
        target = out or Path(f"{session}-{what}.csv")
        size = _save(client.download(path), target)
    Console(stderr=True).print(f"[green]saved[/] {target} ({size:,} bytes)")


@results_app.command("compare")
def compare(
    sessions: Annotated[list[str], typer.Argument(help="Sessions' ids.")],
    period: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="START/END; again for each. Default: --start and --end."),
    ] = None,
    start: Start = None,
    end: End = None,
    data: Data = DEFAULT_DATA,
    user: User = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Show metrics of several sessions, or periods of one, side by side."""
    asked = [("session", name) for name in sessions]
    asked += [("period", text) for text in period or ()]
    asked += [(name, text) for name, text in (("start", start), ("end", end)) if text]
    with signed_in(data, user, url, token_file) as client:
        found = client.get(f"/results/compare?{urlencode(asked)}")
    curves = [mapping(item) for item in items(found["curves"])]
    table = Table("", box=None)
    for curve in curves:
        table.add_column(f"{curve['key']}\n{curve['strategy_name']}", justify="right")
    for name in ("start", "end"):
        table.add_row(name, *(clock_text(curve[name]) for curve in curves))
    for title, name, spell in COMPARED_METRICS:
        values = [mapping(curve["metrics"])[name] for curve in curves]
        table.add_row(title, *("-" if value is None else spell(value) for value in values))
    _wide().print(table)
    Console().print(f"[dim]measured of every {str(found['basis']).removeprefix('1')}[/]")


# --- parts ----------------------------------------------------------------------------------------


def _print_cycles(console: Console, cycles: Sequence[Mapping[str, object]]) -> None:
    table = Table("cycle", "state", "planned", "filled", "failed", "skipped", "reason", box=None)
    for row in cycles:
        table.add_row(
            f"{clock_text(row['boundary'])} #{row['number']}",
            *(str(row[name]) for name in ("state", "planned", "filled", "failed")),
            str(len(items(row["skipped"]))),
            str(row["reason"]),
        )
    console.print(table)


def _save(parts: Iterator[bytes], target: Path) -> int:
    """Into a file beside it first; what breaks off leaves nothing. How many bytes it has."""
    unfinished = target.with_name(f".{target.name}.part")
    try:
        with unfinished.open("wb") as file:
            size = _write(parts, file)
        unfinished.replace(target)
    except OSError as error:
        raise Unavailable(f"{target} cannot be written: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return size


def _write(parts: Iterator[bytes], file: BinaryIO) -> int:
    return sum(file.write(part) for part in parts)


def _wide() -> Console:
    return Console(width=max(Console().width, WIDTH_MIN), highlight=False)
