"""`aifap preview`: what would be traded now, and carrying out exactly that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final, Optional

import typer
from rich.console import Console

from api.account_commands import DEFAULT_DATA, Data, TokenFile, Url, User, find_account, signed_in
from module.model.errors import AifapError

if TYPE_CHECKING:
    from api.client import PlatformClient

WIDTH_MIN: Final = 130
FOLLOW_S: Final = 120.0
FOLLOW_PAUSE_S: Final = 0.3
OVER: Final = ("ended", "failed")


def preview(
    session: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A session of yours: what its next cycle would trade."),
    ] = None,
    account: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Its id or label; default: your only account."),
    ] = None,
    strategy: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="One of yours, or a built-in."),
    ] = None,
    weights: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help='Instead of a strategy: JSON like {"BTCUSDT": 0.3}; {} closes all.'),
    ] = None,
    mode: Annotated[
        str, typer.Option(help="rebalancing, general or volatility_targeting.")
    ] = "rebalancing",
    leverage: Annotated[int, typer.Option(min=1, max=125)] = 1,
    fresh: Annotated[
        int, typer.Option(min=1, max=3600, help="Seconds (of the world) it may be carried out.")
    ] = 60,
    option: Annotated[
        list[str], typer.Option(help="NAME=VALUE of a further field, e.g. threshold=0.02; again.")
    ] = [],  # noqa: B006
    execute: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Carry out exactly the plan of this hash, while it is fresh."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The API's document, for programs.")] = (
        False
    ),
    data: Data = DEFAULT_DATA,
    user: User = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Show what would be traded now: orders, costs, margin, liquidation; nothing is sent.

    With --execute exactly that plan is carried out, if nothing has changed. Exit code 1: it was
    taken up and not all of it was filled.
    """
    console = Console()
    with signed_in(data, user, url, token_file) as client:
        if execute is not None:
            if session or account or strategy or weights:
                raise AifapError("--execute stands alone: the hash names everything else")
            raise typer.Exit(_execute(client, execute, console, as_json=as_json))
        body = _body(client, session, account, strategy, weights)
        body["fresh_s"] = fresh
        if session is None:
            body.update(trade_mode=mode, leverage=leverage)
        elif mode != "rebalancing" or leverage != 1:
            raise AifapError("--session brings its own mode and leverage")
        body.update(_options(option))
        found = client.post("/temp/preview", body)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    from api.preview_page import render_preview

    Console(width=max(console.width, WIDTH_MIN)).print(render_preview(found))


def _body(
    client: PlatformClient,
    session: str | None,
    account: str | None,
    strategy: str | None,
    weights: str | None,
) -> dict[str, object]:
    if session is not None:
        if account or strategy or weights:
            raise AifapError("--session brings its own account and strategy; leave them out")
        return {"session_id": session}
    if (strategy is None) == (weights is None):
        raise AifapError("say what to preview: --session, or --strategy, or --weights")
    body: dict[str, object] = {}
    if account is not None:
        body["account_id"] = find_account(client, account)
    if strategy is not None:
        body["strategy_name"] = strategy
    else:
        body["weights"] = _weights(str(weights))
    return body


def _weights(text: str) -> object:
    try:
        loaded = json.loads(text, parse_float=str, parse_constant=str)
    except ValueError as error:
        raise AifapError(f'--weights is not JSON ({error}); like {{"BTCUSDT": 0.3}}') from error
    if not isinstance(loaded, dict):
        raise AifapError('--weights must be an object, like {"BTCUSDT": 0.3, "ETHUSDT": -0.2}')
    return loaded


def _options(pairs: list[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise AifapError(f"--option {pair}: it is NAME=VALUE, e.g. threshold=0.02")
        known: Mapping[str, object] = {"true": True, "false": False}
        found[name.replace("-", "_")] = known.get(text, text)
    return found


def _execute(client: PlatformClient, plan_hash: str, console: Console, *, as_json: bool) -> int:
    """Command it, follow it to its end, tell each order; 1 when not all of it was filled."""
    answer = client.post("/temp/execute", {"plan_hash": plan_hash})
    if not as_json:
        console.print(str(answer["message"]))
    found = _follow(client, plan_hash)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        from api.preview_page import render_execution

        Console(width=max(console.width, WIDTH_MIN)).print(render_execution(found))
    return 0 if found.get("state") == "ended" and found.get("whole") is True else 1


def _follow(client: PlatformClient, plan_hash: str) -> Mapping[str, object]:
    """What has become of the plan, once it is over (or when we have waited long enough)."""
    from module.clock import SystemClock

    clock = SystemClock()
    give_up_at = clock.monotonic() + FOLLOW_S
    while True:
        found = client.get(f"/temp/previews/{plan_hash}").get("execution")
        execution = found if isinstance(found, dict) else {}
        if execution.get("state") in OVER or clock.monotonic() >= give_up_at:
            return execution
        clock.pause(FOLLOW_PAUSE_S)
