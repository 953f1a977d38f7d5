"""Where the installation's Postgres listens: a host and port, or the folder of a Unix socket."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from module.model.errors import Unavailable

if TYPE_CHECKING:
    from module.settings import Settings

SOCKET_PORT: Final = 5432


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """`host` is a name, or an absolute folder that holds the socket `.s.PGSQL.<port>`."""

    host: str
    port: int


def postgres_folder(settings: Settings) -> Path:
    """The folder of the embedded server, whether or not it exists."""
    return settings.data_dir.resolve() / "postgres"


def address_file(settings: Settings) -> Path:
    """Where the embedded server says how to reach it."""
    return postgres_folder(settings) / "address.json"


def server_address(settings: Settings) -> ServerAddress:
    """The address in the settings, else the embedded server's.

    Unavailable when there is neither: the embedded server has never been started here.
    """
    if settings.database_host:
        return ServerAddress(settings.database_host, settings.database_port)
    path = address_file(settings)
    try:
        document = json.loads(path.read_text())
        return ServerAddress(str(document["socket_folder"]), int(document["port"]))
    except FileNotFoundError as error:
        raise Unavailable(
            f"no Postgres has been started in {path.parent}; start the installation first, or set "
            "AIFAP_DATABASE_HOST"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"{path} cannot be read ({error}); start Postgres again") from error
