"""What a simulator process is told: its settings, its command line, its file of secrets."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from module.model.errors import InvalidInput
from module.simulator.control import parse_new_account
from module.simulator.engine.engine_types import PositionMode
from module.simulator.venue import NewAccount
from module.simulator.wire.bitget_auth import check_public_key


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """Everything that a simulator process needs to know.

    Port 0 is any free one. `candles` replays a folder; without it the market is synthetic from
    `seed`. `start` is the world time of a new world (default: now; a replay: a week
    after its first bar). `data_dir` None keeps nothing. `speed`: world seconds per real second at
    most, 0 unbounded. `accounts` are opened at the start unless they exist. `expect`: participants
    before whom a new world stands still; they, and those of a world that comes back, are waited for
    `hold_s` real seconds at most. `durable`: nothing is answered before the disk holds it, so that
    a loss of power costs nothing either. `unlimited`: requests are not counted (load tests).
    """

    host: str = "127.0.0.1"
    port: int = 0
    clock_port: int = 0
    data_dir: Path | None = None
    candles: Path | None = None
    seed: int = 7
    speed: float = 1.0
    start: datetime | None = None
    latency_ms: int = 50
    accounts: tuple[NewAccount, ...] = ()
    control_token: str = field(default="", repr=False)
    unlimited: bool = False
    hold_s: float = 10.0
    expect: tuple[str, ...] = ()
    keeps_snapshots: bool = True
    durable: bool = False


def read_secrets(text: str, defaults: Mapping[str, object]) -> tuple[str, tuple[NewAccount, ...]]:
    """Control token and accounts out of a secrets file.

    `{"control_token": …, "api_key": …, "api_secret": …, "passphrase": …}` and, for more than one
    account, `"accounts": [{…}, …]`. InvalidInput never shows what is inside.
    """
    try:
        loaded = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"the secrets file is not valid JSON (line {_line(error)})") from error
    if not isinstance(loaded, dict):
        raise InvalidInput("the secrets file is not a JSON object")
    listed = loaded.get("accounts", [])
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise InvalidInput("accounts in the secrets file is a list of objects")
    rows = [loaded, *listed] if loaded.get("api_key") else listed
    own = [each.name for each in fields(NewAccount)]
    accounts = [
        parse_new_account({**defaults, **{name: row[name] for name in own if name in row}})
        for row in rows
    ]
    return str(loaded.get("control_token") or ""), tuple(accounts)


def _line(error: Exception) -> object:
    return getattr(error, "lineno", "?")


def build_parser() -> argparse.ArgumentParser:
    """The options of the simulator; `aifap simulator` has the same."""
    parser = argparse.ArgumentParser(prog="module.simulator.server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8100)
    parser.add_argument("--clock-port", type=int, default=0)
    parser.add_argument(
        "--api-key", action="append", default=[], help="again for a further account; argv is public"
    )
    parser.add_argument("--api-secret", action="append", default=[])
    parser.add_argument(
        "--api-public-key", type=Path, action="append", default=[], help="PEM of an RSA key"
    )
    parser.add_argument("--passphrase", action="append", default=[])
    parser.add_argument("--control-token", default="")
    parser.add_argument("--secrets-file", default="", help="JSON with the secrets; - is stdin")
    parser.add_argument("--balance", type=Decimal, default=Decimal(100_000), help="USDT")
    parser.add_argument("--candles", type=Path, default=None, help="folder of candle files")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--latency-ms", type=int, default=50)
    parser.add_argument(
        "--position-mode", choices=[mode.value for mode in PositionMode], default="one_way"
    )
    parser.add_argument("--data", type=Path, default=None, help="folder that keeps the world")
    parser.add_argument("--start", default="", help="ISO 8601 world time of a new world")
    parser.add_argument(
        "--expect", action="append", default=[], help="a new world waits for this participant"
    )
    parser.add_argument(
        "--durable", action="store_true", help="answer when the disk has it: outlives power cuts"
    )
    parser.add_argument(
        "--unlimited", action="store_true", help="no request limits: for load tests alone"
    )
    parser.add_argument("--hold-s", type=float, default=10.0, help="for so long at most")
    return parser


def settings_from(arguments: argparse.Namespace) -> SimulatorSettings:
    """Settings out of parsed options, secrets read from where they are."""
    defaults: dict[str, object] = {
        "futures_usdt": arguments.balance,
        "spot": {"USDT": str(arguments.balance)},
        "position_mode": arguments.position_mode,
    }
    token: str = arguments.control_token
    accounts: tuple[NewAccount, ...] = ()
    if arguments.secrets_file:
        text = (
            sys.stdin.read()
            if arguments.secrets_file == "-"
            else Path(arguments.secrets_file).read_text()
        )
        saved_token, accounts = read_secrets(text, defaults)
        token = token or saved_token
    accounts = (*accounts, *_named_accounts(arguments, defaults))
    return SimulatorSettings(
        host=arguments.host,
        port=arguments.port,
        clock_port=arguments.clock_port,
        data_dir=arguments.data,
        candles=arguments.candles,
        seed=arguments.seed,
        speed=arguments.speed,
        start=_instant(arguments.start) if arguments.start else None,
        latency_ms=arguments.latency_ms,
        accounts=accounts,
        control_token=token,
        expect=tuple(arguments.expect),
        hold_s=arguments.hold_s,
        durable=arguments.durable,
        unlimited=arguments.unlimited,
    )


def _named_accounts(
    arguments: argparse.Namespace, defaults: Mapping[str, object]
) -> list[NewAccount]:
    """One account per --api-key; the secrets, then the public keys, belong to them in order."""
    secrets = [*arguments.api_secret, *map(_public_key, arguments.api_public_key)]
    keys, phrases = arguments.api_key, arguments.passphrase
    if not len(keys) == len(secrets) == len(phrases):
        raise InvalidInput(
            f"{len(keys)} --api-key, {len(secrets)} --api-secret (or --api-public-key) and "
            f"{len(phrases)} --passphrase: each account needs one of each"
        )
    if len(set(keys)) < len(keys):
        raise InvalidInput("every account has an --api-key of its own")
    return [
        parse_new_account({**defaults, "api_key": key, "api_secret": secret, "passphrase": phrase})
        for key, secret, phrase in zip(keys, secrets, phrases, strict=True)
    ]


def _public_key(path: Path) -> str:
    try:
        return check_public_key(path.read_text().strip())
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"{path} holds no RSA public key in PEM form") from error


def _instant(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(f"--start {text!r} is not ISO 8601, like 2026-11-21T10:00Z") from error
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
