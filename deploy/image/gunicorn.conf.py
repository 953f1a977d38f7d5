"""How gunicorn serves the platform API in the image.

    gunicorn --config /app/gunicorn.conf.py 'api.asgi:application()'

Read by gunicorn itself. Nothing is written but into memory, so the root file system may be
read-only; where it listens and with how many workers are settings of the installation.
"""

from pathlib import Path
from typing import Any

from uvicorn.workers import UvicornWorker

from api.compose import share_counters
from module.settings import Settings

_settings = Settings()


class Worker(UvicornWorker):
    """uvicorn as `api.compose` starts it: quiet about itself, bounded when it stops."""

    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012 - as uvicorn declares it
        "loop": "auto",
        "http": "auto",
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": 5,
    }


if _settings.api_workers > 1:
    share_counters(Path("/dev/shm/aifap-metrics"))  # noqa: S108 - in memory, of this pod alone


_ports = [_settings.api_port, _settings.dashboard_port]
bind = [f"{_settings.api_host}:{port}" for port in dict.fromkeys(_ports) if port]
workers = _settings.api_workers
worker_class = Worker
worker_tmp_dir = "/dev/shm"  # noqa: S108 - heartbeats in memory, never on a disk that stalls
control_socket_disable = True
timeout = 60
graceful_timeout = 20
errorlog = "-"
loglevel = "warning"
proc_name = "aifap-platform"
