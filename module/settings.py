"""Settings of an installation, read from the environment and from `<data>/settings.json`.

Environment variables are `AIFAP_<NAME>`. Secrets are files of mode 0600 under `<data>/secrets`, so
that no secret is ever in an argument or in an environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets as random_source
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from module.model.errors import InvalidInput

SECRET_NAMES = ("database_password", "token_key", "control_token")


class _SavedSettings(PydanticBaseSettingsSource):
    """What the installation wrote for its own processes; the environment wins over it.

    The installation is the one whose `data_dir` is given; no other's settings are mixed into it.
    """

    def __init__(self, settings_cls: type[BaseSettings], folder: object) -> None:
        super().__init__(settings_cls)
        self._folder = Path(str(folder or os.environ.get("AIFAP_DATA_DIR") or ".aifap"))

    def get_field_value(self, field: object, field_name: str) -> tuple[object, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, object]:
        path = self._folder / "settings.json"
        if not path.exists():
            return {}
        try:
            loaded = json.loads(path.read_text())
        except ValueError as error:
            raise InvalidInput(f"{path} is not valid JSON ({error}); mend or remove it") from error
        return {str(key): value for key, value in loaded.items()}


class Settings(BaseSettings):
    """Everything that differs between installations."""

    model_config = SettingsConfigDict(env_prefix="AIFAP_", extra="forbid")

    data_dir: Path = Field(Path(".aifap"), description="The one folder that holds all state.")
    installation: str = Field("local", description="Its name; part of client ids.")

    database_host: str = Field("", description="Host or socket folder; empty: embedded.")
    database_port: int = 5432
    database_user: str = "aifap"
    database_pool_size: int = 5
    database_statement_timeout_ms: int = Field(5000, ge=100)

    order_info_store: Literal["file", "postgres"] = Field(
        "file",
        description="Where the letters of new sessions live; postgres: no lasting disk is needed.",
    )

    services: tuple[Literal["platform", "gateway", "market"], ...] = Field(
        ("platform",), description="Which doors this API process opens."
    )
    api_host: str = "127.0.0.1"
    api_port: int = 8000
    api_workers: int = Field(1, ge=1, le=16)
    api_hosts: tuple[str, ...] = Field((), description="Further Host names that requests may name.")
    dashboard_url: str = Field("", description="Where people find the dashboard; empty: the API.")
    dashboard_port: int = Field(
        0, ge=0, le=65535, description="A second port of the same doors, for the live page; 0: off."
    )
    grafana_url: str = Field(
        "",
        pattern=r"^(https?://[A-Za-z0-9.\-]+(:\d{1,5})?(/[A-Za-z0-9._~/-]*)?)?$",
        description="Where people's browsers find Grafana; the live page then shows its board.",
    )
    gateway_url: str = "http://127.0.0.1:8001"
    market_url: str = "http://127.0.0.1:8002"

    simulator_url: str = Field("", description="The paper exchange; empty: no paper accounts.")
    world_clock: str = Field("", description="host:port of a stepped clock; empty: real time.")
    market_id: str = Field("bitget-live", description="Whose candles it has.")
    id_seed: int | None = Field(
        None, description="Paper sessions get ids out of this and their start; empty: random ones."
    )
    allowed_venue_urls: tuple[str, ...] = ("https://api.bitget.com",)

    strategy_timeout_s: float = Field(20.0, gt=0, le=600)
    strategy_memory_mb: int = Field(1024, ge=64)
    sandbox: Literal["landlock", "pod"] = "landlock"
    sessions_max: int = Field(200, ge=1)
    days_per_year: int = Field(
        365, ge=1, le=366, description="Annualises indicators: 365 for markets that never close."
    )
    finwatcher_dir: Path | None = Field(
        None,
        description=(
            "What a pass of the finwatcher over all sessions keeps between passes, and while "
            "Postgres is away; empty: in the data folder."
        ),
    )
    session_host_elsewhere: bool = Field(
        False, description="The session host is a pod of its own: never start one from here."
    )

    minutes_kept_days: int = Field(
        400, ge=31, description="How long a session's minutes stay after its last one; days stay."
    )
    paper_kept_days: int = Field(
        90, ge=1, description="The same for paper sessions, after they ended; their fills go too."
    )

    slack_webhook_url: str = ""
    discord_webhook_url: str = ""
    webhook_hosts: tuple[str, ...] = ("hooks.slack.com", "discord.com", "discordapp.com")
    display_timezone: str = "Asia/Seoul"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            env_settings,
            _SavedSettings(settings_cls, init_settings().get("data_dir")),
        )

    def save(self) -> None:
        """Write what the other processes must know to `<data>/settings.json`."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.data_dir / "settings.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(self.model_dump_json(indent=2, exclude={"data_dir"}) + "\n")
        temporary.chmod(0o600)
        temporary.replace(path)

    def secret(self, name: str) -> str:
        """The secret `name`; created with 256 random bits if this installation has none yet."""
        if name not in SECRET_NAMES:
            raise InvalidInput(f"unknown secret {name!r}; known are {', '.join(SECRET_NAMES)}")
        folder = self.data_dir / "secrets"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / name
        if not path.exists():
            # Written whole, then linked: whoever reads it meanwhile sees nothing or all of it.
            temporary = folder / f".{name}.{random_source.token_hex(6)}"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(random_source.token_urlsafe(32))
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(temporary)
            temporary.unlink()
        return path.read_text().strip()
