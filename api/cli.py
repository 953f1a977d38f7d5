"""`aifap …`: the command line. Every failure is one readable line on stderr and exit code 2."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer
from rich.console import Console

from api.account_commands import DEFAULT_DATA, RUN_DATA, account_app, keys_app, settings_of
from api.halt_commands import halt, resume
from api.preview_command import preview
from api.replay_command import replay
from api.results_command import results_app
from api.tearsheet_command import tearsheet
from module.model.errors import AifapError

DEFAULT_PORT = 8000
DEFAULT_DASHBOARD_PORT = 8080
RUN_START = datetime(2026, 1, 5, tzinfo=UTC)
"""Where the synthetic world of `aifap run` begins, so that the same options are the same run."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Keeps crypto portfolios at their target weights.",
)
user_app = typer.Typer(no_args_is_help=True, help="People and their tokens.")
db_app = typer.Typer(no_args_is_help=True, help="The databases.")
app.add_typer(user_app, name="user")
app.add_typer(db_app, name="db")
app.add_typer(account_app, name="account")
app.add_typer(keys_app, name="keys")
app.add_typer(results_app, name="results")
app.command("replay")(replay)
app.command("halt")(halt)
app.command("resume")(resume)
app.command("preview")(preview)
app.command("tearsheet")(tearsheet)

Data = Annotated[Path, typer.Option("--data", help="The folder that holds everything.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Where the API listens (on 127.0.0.1).")]
DashboardPort = Annotated[
    int,
    typer.Option(
        min=0,
        max=65535,
        envvar="AIFAP_DASHBOARD_PORT",
        help="A second port, for the live page; skipped while it is taken; 0: none.",
    ),
]
Speed = Annotated[float, typer.Option(help="World seconds per second; 0: as fast as it goes.")]
Seed = Annotated[int, typer.Option(help="Of the synthetic market.")]
Start = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="World time (ISO 8601) at which a new world begins."),
]
Candles = Annotated[
    Optional[Path], typer.Option(help="Replay this folder: one file per symbol.")  # noqa: UP045
]


def main() -> None:
    """The console script."""
    try:
        app()
    except AifapError as error:
        print(f"aifap: {error.message}", file=sys.stderr)
        raise SystemExit(2) from error


@app.command()
def run(
    data: Data = RUN_DATA,
    port: Port = DEFAULT_PORT,
    speed: Speed = 60.0,
    seed: Seed = 7,
    candles: Candles = None,
    cycles: Annotated[int, typer.Option(min=1, help="End after so many.")] = 10,
    start: Start = None,
    interval: Annotated[str, typer.Option(help="Cycle length: 1m, 5m, 15m, 1h …")] = "5m",
    strategy: Annotated[str, typer.Option(help="A built-in strategy.")] = "momentum",
    market: Annotated[Literal["futures", "spot"], typer.Option(help="What is traded.")] = "futures",
    trade_mode: Annotated[
        Literal["rebalancing", "general", "volatility_targeting"],
        typer.Option(help="What weights mean."),
    ] = "rebalancing",
    target_volatility: Annotated[
        str, typer.Option(help="Of a year, as a fraction; scales all weights in its mode.")
    ] = "",
    balance: Annotated[str, typer.Option(help="USDT on the paper account.")] = "10000",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the positions open.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=8, help="API workers.")] = 1,
    dashboard_port: DashboardPort = DEFAULT_DASHBOARD_PORT,
) -> None:
    """Show the main job: a whole installation, one paper session, live progress, a summary."""
    from api.demo import RunOptions
    from api.demo import run as show
    from api.standalone import StandaloneOptions
    from module.model.market import MarketType
    from module.model.sessions import TradeMode

    _check_candles(candles)
    _check_interval(interval)
    begin = _moment(start) if start or candles else RUN_START
    stack = StandaloneOptions(
        data, port, workers, speed, seed, candles, begin, dashboard_port=dashboard_port
    )
    options = RunOptions(
        stack=stack,
        fresh=True,
        cycles=cycles,
        interval=interval,
        strategy=strategy,
        keep=keep,
        market=MarketType(market),
        balance=_money(balance),
        trade_mode=TradeMode(trade_mode),
        target_volatility=_volatility(trade_mode, target_volatility),
    )
    raise typer.Exit(show(options, Console()))


@app.command()
def up(
    data: Data = DEFAULT_DATA,
    port: Port = DEFAULT_PORT,
    speed: Speed = 1.0,
    seed: Seed = 7,
    candles: Candles = None,
    start: Start = None,
    workers: Annotated[int, typer.Option(min=1, max=8, help="API workers.")] = 1,
    dashboard_port: DashboardPort = DEFAULT_DASHBOARD_PORT,
) -> None:
    """Run the whole stack as a service until it is stopped."""
    from api.service import serve_until_stopped
    from api.standalone import StandaloneOptions

    _check_candles(candles)
    options = StandaloneOptions(
        data, port, workers, speed, seed, candles, _moment(start), dashboard_port=dashboard_port
    )
    raise typer.Exit(serve_until_stopped(options, Console()))


@app.command()
def simulator(
    api_key: Annotated[list[str], typer.Option(help="Of its account; again for a further one.")],
    passphrase: Annotated[list[str], typer.Option(help="One for each key.")],
    api_secret: Annotated[list[str], typer.Option(help="One for each key.")] = [],  # noqa: B006
    api_public_key: Annotated[
        list[Path], typer.Option(help="Instead of a secret: PEM file of an RSA key.")
    ] = [],  # noqa: B006
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 0,
    clock_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the world clock; 0: any.")
    ] = 0,
    balance: Annotated[str, typer.Option(help="USDT.")] = "100000",
    candles: Candles = None,
    seed: Seed = 7,
    speed: Speed = 1.0,
    position_mode: Annotated[
        Literal["one_way", "hedge"], typer.Option(help="Of the accounts at their opening.")
    ] = "one_way",
    control_token: Annotated[
        str, typer.Option(help="Opens /control: prices, faults, the ledger; without it, closed.")
    ] = "",
    data: Annotated[
        Optional[Path], typer.Option(help="Keep the world here; else nothing is kept.")  # noqa: UP045
    ] = None,
    start: Annotated[Optional[str], typer.Option(help="World time of a new world.")] = None,  # noqa: UP045
    durable: Annotated[
        bool, typer.Option("--durable", help="Answer when the disk has it: outlives power cuts.")
    ] = False,
) -> None:
    """The paper exchange alone: any Bitget client can be pointed at it."""
    from module.simulator.server import main as serve

    arguments = ["--port", str(port), "--clock-port", str(clock_port), "--seed", str(seed)]
    for name, texts in (
        ("--api-key", api_key),
        ("--api-secret", api_secret),
        ("--api-public-key", api_public_key),
        ("--passphrase", passphrase),
    ):
        arguments += [f"{name}={text}" for text in texts]
    arguments += ["--balance", str(_money(balance)), "--speed", str(speed)]
    arguments += ["--position-mode", position_mode, *(["--durable"] if durable else [])]
    if control_token:
        arguments += [f"--control-token={control_token}"]
    for name, value in (("--candles", candles), ("--data", data), ("--start", start)):
        if value is not None:
            arguments += [name, str(value)]
    raise typer.Exit(serve(arguments))


@user_app.command("create")
def create_user(
    name: str,
    role: Annotated[str, typer.Option(help="trader, manager or supervisor.")] = "trader",
    data: Data = DEFAULT_DATA,
) -> None:
    """Create a user and print their token, once."""
    from module.clock import SystemClock
    from module.db.database import Database
    from module.db.repositories.users import Role, UserRepository

    try:
        wanted = Role(role)
    except ValueError as error:
        raise AifapError(f"unknown role {role!r}; known are {', '.join(Role)}") from error
    database = Database(settings_of(data), "finplatform", 1)
    now = SystemClock().wall()
    try:
        users = UserRepository(database)
        user = users.add(name, wanted, now)
        token = users.issue_token(user.user_id, "first", now)
    finally:
        database.close()
    print(token.secret)


@app.command("metrics-token")
def metrics_token(data: Data = DEFAULT_DATA) -> None:
    """Print the token that opens /metrics of every service, for Prometheus' credentials file."""
    from module.security.tokens import mint_grant, scrape_grant

    key = settings_of(data).secret("token_key")
    print(mint_grant(scrape_grant("prometheus"), key))


@db_app.command("migrate")
def migrate(data: Data = DEFAULT_DATA) -> None:
    """Bring the three databases to this version's schema."""
    from module.db.migrate import migrate_all

    migrate_all(settings_of(data))
    print("the databases are up to date")


@db_app.command("reader-password")
def reader_password(data: Data = DEFAULT_DATA) -> None:
    """Print the password of aifap_reader in the installation's own Postgres, for Grafana."""
    from module.db.embedded import EmbeddedPostgres

    print(EmbeddedPostgres(settings_of(data)).reader_password())


def _money(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation as error:
        raise AifapError(f"{text!r} is not an amount of USDT") from error
    if not amount.is_finite() or amount <= 0:
        raise AifapError(f"the balance must be above zero, got {text}")
    return amount


def _volatility(trade_mode: str, text: str) -> Decimal | None:
    """Of the mode that scales by it; the others take none."""
    if (trade_mode == "volatility_targeting") is not bool(text):
        raise AifapError(
            "--trade-mode volatility_targeting and --target-volatility (0.4 is 40 % a year) go "
            f"together; got {trade_mode} and {text or 'none'}"
        )
    if not text:
        return None
    try:
        volatility = Decimal(text)
    except InvalidOperation as error:
        raise AifapError(f"{text!r} is not a volatility: a fraction such as 0.4") from error
    if not volatility.is_finite() or volatility <= 0:
        raise AifapError(f"the target volatility must be above zero, got {text}")
    return volatility


def _moment(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise AifapError(f"--start {text} is not ISO 8601, like 2026-01-05T00:00Z") from error
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _check_interval(text: str) -> None:
    """Before anything is started; the API would say the same, later."""
    from pydantic import TypeAdapter, ValidationError

    from api.field_words import field_error
    from api.schemas import Interval

    try:
        TypeAdapter(Interval).validate_python(text)
    except ValidationError as error:
        said = field_error(error.errors()[0], shown=False).message
        raise AifapError(f"--interval {text}: {said}") from error


def _check_candles(folder: Path | None) -> None:
    if folder is not None and not folder.is_dir():
        raise AifapError(f"{folder} is not a folder with candle files")
