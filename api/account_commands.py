"""`aifap account …` and `aifap keys …`: accounts and their keys from the command line.

account …: the platform's own API, as a person who owns accounts (no secret is an argument)
keys …:    the databases and key files of this installation, as its operator
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Optional

import typer
from rich.console import Console
from rich.table import Table

from module.model.errors import AifapError, RateLimited

if TYPE_CHECKING:
    from api.client import PlatformClient
    from module.db.repositories.users import UserRecord, UserRepository
    from module.settings import Settings

DEFAULT_DATA = Path(".aifap/up")
RUN_DATA = Path(".aifap/run")
TOKEN_LASTS = timedelta(minutes=10)
LABEL_OF_TOKENS: Final = "command line"
CHECK_ATTEMPTS: Final = 3
CHECK_PAUSE_S: Final = 1.2
KEY_LINES: Final = ("api_key", "api_secret", "passphrase")

account_app = typer.Typer(no_args_is_help=True, help="Accounts at exchanges, and their keys.")
keys_app = typer.Typer(no_args_is_help=True, help="The keys that stored credentials rest under.")

Data = Annotated[
    Path, typer.Option("--data", envvar="AIFAP_DATA_DIR", help="The folder that holds everything.")
]
User = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Whose accounts; default: the first supervisor's."),
]
Url = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="An API elsewhere; asks for a token instead of using --data."),
]
TokenFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="With --url: a file that holds the token."),
]
KeysFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="Read the keys here (- is standard input): API key, secret, passphrase, one a line. "
        "Default: they are asked for."
    ),
]
Account = Annotated[str, typer.Argument(help="Its id, or its label.")]
Force = Annotated[bool, typer.Option("--force", help="Insist; it is written in the audit.")]


@account_app.command("add")
def add(
    label: Annotated[str, typer.Option(help="Your name for it.")],
    market: Annotated[str, typer.Option(help="futures or spot.")] = "futures",
    env: Annotated[str, typer.Option(help="paper, demo or live.")] = "demo",
    base_url: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="One of the allowed addresses; default: the first."),
    ] = None,
    balance: Annotated[str, typer.Option(help="USDT of a paper account.")] = "10000",
    keys_file: KeysFile = None,
    force: Force = False,
    data: Data = DEFAULT_DATA,
    user: User = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Add an account. The exchange is asked first: what does not fit is not saved."""
    console = Console()
    if env not in ("paper", "demo", "live"):
        raise AifapError(f"--env {env}: it must be paper, demo or live")
    body: dict[str, object] = {"label": label, "market": market}
    if env == "paper":
        body["balance"] = balance
    else:
        body.update(trade_env=env, force=force, **_read_keys(keys_file))
        if base_url is not None:
            body["base_url"] = base_url
    if env == "live":
        console.print("[bold yellow]live:[/] sessions on this account will trade real money")
    with signed_in(data, user, url, token_file) as client:
        made = client.post("/accounts/paper" if env == "paper" else "/accounts", body)
    console.print(f"[green]added[/] {label}: account {made['account_id']}")
    console.print(f"[dim]look at it: aifap account check {label}[/]")


@account_app.command("list")
def list_accounts(
    everything: Annotated[
        bool, typer.Option("--all", help="Those that are switched off as well.")
    ] = False,
    data: Data = DEFAULT_DATA,
    user: User = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Show the accounts; of their keys only the last four characters."""
    with signed_in(data, user, url, token_file) as client:
        rows = _accounts(client, everything=everything)
    if not rows:
        Console().print("no accounts yet; aifap account add --label NAME --env paper")
        return
    table = Table("label", "env", "market", "venue", "key", "state", "account", box=None)
    for row in rows:
        state = "on" if row["active"] else "[dim]off[/]"
        limits = row["limits"]
        if isinstance(limits, dict) and limits.get("kill_switch"):
            state += " [red]kill switch[/]"
        names = ("label", "trade_env", "market", "venue", "key_hint")
        table.add_row(*(str(row[name]) for name in names), state, str(row["account_id"]))
    Console(width=max(Console().width, 120)).print(table)


@account_app.command("check")
def check(
    account: Account,
    data: Data = DEFAULT_DATA,
    user: User = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Ask the exchange: may it trade, in which modes, what is it worth. Exit code 1: not fit."""
    with signed_in(data, user, url, token_file) as client:
        found = _ask_patiently(client, f"/accounts/{find_account(client, account)}/check")
    console = Console()
    table = Table(box=None, show_header=False)
    for title, text in _check_lines(found):
        table.add_row(title, text)
    console.print(table)
    for name, style in (("faults", "red"), ("warnings", "yellow")):
        said = found[name]
        for line in said if isinstance(said, list) else []:
            console.print(f"[{style}]{name[:-1]}[/]: {line}")
    console.print("[green]fit to be traded[/]" if found["fit"] else "[red]not fit to be traded[/]")
    if not found["fit"]:
        raise typer.Exit(1)


@account_app.command("rotate-keys")
def rotate_account_keys(
    account: Account,
    keys_file: KeysFile = None,
    force: Force = False,
    data: Data = DEFAULT_DATA,
    user: User = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Give an account new keys of the same account at the exchange; sessions trade on."""
    with signed_in(data, user, url, token_file) as client:
        account_id = find_account(client, account)
        client.put(f"/accounts/{account_id}/credentials", {**_read_keys(keys_file), "force": force})
    Console().print(f"[green]saved[/]: {account} uses its new keys; delete the old ones there")


@account_app.command("deactivate")
def deactivate(
    account: Account,
    erase_keys: Annotated[
        bool, typer.Option("--erase-keys", help="Forget its keys as well.")
    ] = False,
    force: Force = False,
    data: Data = DEFAULT_DATA,
    user: User = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Switch an account off: no session starts on it. It must be idle and flat."""
    with signed_in(data, user, url, token_file) as client:
        account_id = find_account(client, account)
        if erase_keys:
            client.delete(f"/accounts/{account_id}?force={str(force).lower()}")
        else:
            client.patch(f"/accounts/{account_id}", {"active": False, "force": force})
    keys = "its keys are forgotten" if erase_keys else "its keys are kept"
    Console().print(f"[green]off[/]: {account}; {keys}, its history stays")


@account_app.command("activate")
def activate(
    account: Account,
    data: Data = DEFAULT_DATA,
    user: User = None,
    url: Url = None,
    token_file: TokenFile = None,
) -> None:
    """Switch an account on again, once the exchange has confirmed its keys."""
    with signed_in(data, user, url, token_file) as client:
        client.patch(f"/accounts/{find_account(client, account)}", {"active": True})
    Console().print(f"[green]on[/]: {account}")


# --- keys at rest ---------------------------------------------------------------------------------


@keys_app.command("list")
def list_key_versions(data: Data = DEFAULT_DATA) -> None:
    """Show the key versions, and how many accounts' credentials rest under each."""
    from module.db.database import Database
    from module.db.repositories.credential_keys import CredentialKeyRepository
    from module.gateway.key_rotation import list_keys
    from module.security.key_files import KeyFolder

    settings = settings_of(data)
    database = Database(settings, "finplatform", 1)
    try:
        lines = list_keys(
            KeyFolder(settings.data_dir / "secrets"), CredentialKeyRepository(database)
        )
    finally:
        database.close()
    table = Table("version", "accounts", "fingerprint", "", box=None)
    for line in lines:
        said = "seals what is new" if line.newest else ""
        said = "retired, kept for backups" if line.retired else said
        said = "[red]missing: put it back[/]" if line.missing else said
        table.add_row(str(line.version), str(line.rows), line.fingerprint or "-", said)
    Console().print(table)


@keys_app.command("rotate")
def rotate(data: Data = DEFAULT_DATA) -> None:
    """Move all stored credentials to a new key and retire the old one. Sessions trade on.

    May be killed and repeated: it goes on where it was.
    """
    from module.clock import SystemClock
    from module.db.database import Database
    from module.db.repositories.credential_keys import CredentialKeyRepository
    from module.gateway.key_rotation import rotate_keys
    from module.security.key_files import KeyFolder

    console = Console()
    settings = settings_of(data)
    database = Database(settings, "finplatform", 2)
    try:
        rows = CredentialKeyRepository(database)
        with rows.rotating():
            report = rotate_keys(
                KeyFolder(settings.data_dir / "secrets"), rows, SystemClock().now(), console.print
            )
    finally:
        database.close()
    console.print(f"{report.moved} accounts moved to key version {report.version}")
    for version in report.retired:
        console.print(f"key version {version} is retired")
    for version in report.kept_files:
        console.print(f"[yellow]now remove key version {version} from the Secret[/]")
    if report.failed:
        raise AifapError(
            f"{len(report.failed)} accounts' credentials do not open and stay behind, so their "
            "key stays too; save their keys again (aifap account rotate-keys), then repeat this"
        )


# --- parts ----------------------------------------------------------------------------------------


@contextmanager
def signed_in(
    data: Path, user: str | None, url: str | None, token_file: Path | None
) -> Iterator[PlatformClient]:
    """A client of the API: of this folder's installation with a token for the moment, or of `url`
    with the person's own."""
    from api.client import PlatformClient

    if url is not None:
        yield PlatformClient(url, _read_token(token_file))
        return
    from module.clock import SystemClock
    from module.db.database import Database
    from module.db.repositories.users import UserRepository

    settings = settings_of(data)
    database = Database(settings, "finplatform", 1)
    try:
        users = UserRepository(database)
        owner = acting_user(users, user)
        clock = SystemClock()
        now = clock.wall()
        token = users.issue_token(owner.user_id, LABEL_OF_TOKENS, now, expires_at=now + TOKEN_LASTS)
        try:
            yield PlatformClient(f"http://{settings.api_host}:{settings.api_port}", token.secret)
        finally:
            users.revoke_token(
                owner.user_id, token.record.token_id, clock.wall(), audit_by=owner.user_id
            )
    finally:
        database.close()


def acting_user(users: UserRepository, name: str | None) -> UserRecord:
    from module.db.repositories.users import Role

    known = [one for one in users.list_all() if one.active]
    if name is None:
        known = [one for one in known if one.role is Role.SUPERVISOR] or known
    else:
        known = [one for one in known if one.name == name]
    if not known:
        who = "active user" if name is None else f"active user {name!r}"
        raise AifapError(f"this installation has no {who}; aifap user create NAME makes one")
    return known[0]


def _accounts(client: PlatformClient, *, everything: bool) -> list[Mapping[str, object]]:
    found = client.get(f"/accounts?all={str(everything).lower()}")["accounts"]
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def find_account(client: PlatformClient, account: str) -> str:
    """The id of an account that is named by id or label; an active one first."""
    rows = _accounts(client, everything=True)
    named = [row for row in rows if account in (row["account_id"], row["label"])]
    for row in [row for row in named if row["active"]] + named:
        return str(row["account_id"])
    known = ", ".join(str(row["label"]) for row in rows[:10]) or "none"
    raise AifapError(f"there is no account {account!r}; yours: {known}")


def _ask_patiently(client: PlatformClient, path: str) -> Mapping[str, object]:
    """Exchanges tell only once a second what a key may do."""
    from module.clock import SystemClock

    for _ in range(CHECK_ATTEMPTS):
        try:
            return client.post(path, {})
        except AifapError as error:
            if error.code != RateLimited.code:
                raise
        SystemClock().pause(CHECK_PAUSE_S)
    return client.post(path, {})


def _check_lines(found: Mapping[str, object]) -> list[tuple[str, str]]:
    bound = {True: "listed addresses only", False: "any address", None: "not said"}
    address = found["address_bound"]
    ahead = found["clock_ahead_ms"]
    rights = found["authorities"]
    may = [word for word in ("trade", "withdraw") if found[f"may_{word}"]]
    return [
        ("account", f"{found['label']} ({found['trade_env']}, {found['base_url']})"),
        ("family", f"{found['family']}, {found['position_mode'] or 'no position'} mode"),
        ("key may", " and ".join(may) or "neither trade nor withdraw"),
        ("key works from", bound[address if isinstance(address, bool) else None]),
        ("rights", ", ".join(map(str, rights)) if isinstance(rights, list) else ""),
        ("equity", f"{found['equity']} USDT ({found['available']} available)"),
        ("open there", f"{found['positions']} positions, {found['open_orders']} orders"),
        ("clock", f"{ahead:+d} ms from ours" if isinstance(ahead, int) else ""),
    ]


def _read_keys(path: Path | None) -> dict[str, str]:
    """API key, secret and passphrase, from a file, standard input or the keyboard."""
    if path is None:
        words = ("API key", "API secret", "Passphrase")
        return {
            name: _asked(word, hide=name != "api_key")
            for name, word in zip(KEY_LINES, words, strict=True)
        }
    lines = _lines(path)
    if len(lines) != len(KEY_LINES):
        place = "standard input" if str(path) == "-" else str(path)
        raise AifapError(
            f"{place} must hold three lines: API key, secret, passphrase; it has {len(lines)}"
        )
    return dict(zip(KEY_LINES, lines, strict=True))


def _read_token(path: Path | None) -> str:
    lines = [_asked("Token", hide=True)] if path is None else _lines(path)
    if len(lines) != 1:
        raise AifapError(f"{path} must hold one line: the token")
    return lines[0]


def _lines(path: Path) -> list[str]:
    read: Callable[[], str] = sys.stdin.read if str(path) == "-" else path.read_text
    try:
        return [line.strip() for line in read().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise AifapError(f"{path} cannot be read: {error}") from error


def _asked(word: str, *, hide: bool) -> str:
    if not sys.stdin.isatty():
        raise AifapError(f"{word} cannot be asked for without a terminal; give --keys-file")
    return str(typer.prompt(word, hide_input=hide)).strip()


def settings_of(data: Path) -> Settings:
    """The settings of the installation in `data` (the environment still wins); of that of `aifap
    run` where nothing was said and it is the only one."""
    from module.db.address import address_file
    from module.settings import Settings

    settings = Settings(data_dir=data.resolve())
    if data == DEFAULT_DATA and not address_file(settings).exists():
        of_run = Settings(data_dir=RUN_DATA.resolve())
        if address_file(of_run).exists():
            return of_run
    return settings
