"""`aifap halt` and `aifap resume`: the kill switch from the command line.

Through the platform's API; when that does not answer, straight to this installation's Postgres: a
kill switch works as long as anything does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Optional

import typer
from rich.console import Console

from api.account_commands import (
    DEFAULT_DATA,
    Data,
    TokenFile,
    Url,
    acting_user,
    find_account,
    settings_of,
    signed_in,
)
from module.model.errors import AifapError, Unavailable

HALT_PATH: Final = "/command/halt"
RESUME_PATH: Final = "/command/resume"

Account = Annotated[Optional[str], typer.Option(help="Its id, or its label.")]  # noqa: UP045
Everything = Annotated[
    bool, typer.Option("--all", help="Every account of the installation (supervisors).")
]
Reason = Annotated[str, typer.Option(help="Shown to people, and with every refused order.")]
User = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="As whom; default: the first supervisor."),
]


def halt(
    account: Account = None,
    everything: Everything = False,
    reason: Reason = "",
    data: Data = DEFAULT_DATA,
    user: User = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Open nothing more: on one account, on all, or (without either) on all of one's own.

    Reducing orders and stops still leave. Exit code 1: orders that left before have no outcome yet.
    """
    found = _command(HALT_PATH, account, everything, reason, data, user, url, token_file)
    console = Console()
    console.print(f"[bold red]halted[/]: {found['message']}")
    _print_accounts(console, found)
    console.print(
        f"[dim]recorded after {found['recorded_ms']} ms, all of it {found['took_ms']} ms[/]"
    )
    under_way = found["under_way"]
    for account_id, ids in under_way.items() if isinstance(under_way, Mapping) else ():
        console.print(f"[yellow]under way[/] on {account_id}: {', '.join(map(str, ids))}")
    if not found["settled"]:
        raise typer.Exit(1)


def resume(
    account: Account = None,
    everything: Everything = False,
    data: Data = DEFAULT_DATA,
    user: User = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Lift the kill switch: on one account, on all, or on all of one's own."""
    found = _command(RESUME_PATH, account, everything, "", data, user, url, token_file)
    console = Console()
    console.print(f"[green]resumed[/]: {found['message']}")
    _print_accounts(console, found)


def _print_accounts(console: Console, found: Mapping[str, object]) -> None:
    accounts = found["accounts"]
    for row in accounts if isinstance(accounts, list) else []:
        before = "was halted" if row["was_halted"] else "was not halted"
        why = f", reason: {row['reason']}" if row["reason"] else ""
        console.print(f"  {row['label']} ({row['account_id']}): {before}{why}")


def _command(
    path: str,
    account: str | None,
    everything: bool,
    reason: str,
    data: Path,
    user: str | None,
    url: str | None,
    token_file: Path | None,
) -> Mapping[str, object]:
    if account is not None and everything:
        raise AifapError("give --account or --all, not both")
    body: dict[str, object] = {"all": everything}
    if path == HALT_PATH:
        body["reason"] = reason
    try:
        with signed_in(data, user, url, token_file) as client:
            if account is not None:
                body["account_id"] = find_account(client, account)
            return client.post(path, body)
    except Unavailable as error:
        if url is not None:
            raise
        Console(stderr=True).print(f"[yellow]{error.message}[/]; going to Postgres directly")
        return _directly(path, account, everything, reason, data, user)


def _directly(
    path: str, account: str | None, everything: bool, reason: str, data: Path, user: str | None
) -> Mapping[str, object]:
    """The same command without the API: for the operator of this installation."""
    from api import halts
    from module.clock import SystemClock
    from module.db.database import Database
    from module.db.repositories.accounts import AccountRepository
    from module.db.repositories.alerts import AlertRepository
    from module.db.repositories.halts import HaltRepository
    from module.db.repositories.users import UserRepository
    from trading.bootstrap import build_clock

    settings = settings_of(data)
    clock = build_clock(settings, None)
    try:
        clock.now()
    except Unavailable:  # the paper exchange is down as well
        clock = SystemClock()
    database = Database(settings, "finplatform", 1)
    try:
        owner = acting_user(UserRepository(database), user)
        mine = AccountRepository(database).list_for_owner(owner.user_id)
        named = [one.account_id for one in mine if account in (one.account_id, one.label)]
        if account is not None and not named:
            named = [account]
        wish = halts.HaltWish(
            account_id=None if account is None else named[0],
            everything=everything,
            own_ids=[one.account_id for one in mine],
            reason=reason,
        )
        ports = halts.halt_ports(
            settings, HaltRepository(database), AlertRepository(database), clock
        )
        carry_out = halts.halt if path == HALT_PATH else halts.resume
        return carry_out(ports, owner, wish).document
    finally:
        database.close()
