"""A whole installation on one machine: Postgres, paper exchange, gateway, market, platform API.

    aifap up ─► Postgres (embedded) ─► migrations ─► simulator ─► gateway ─► market ─► API

Everything it starts ends with it. Sessions are handed over to the next start, unless somebody ends
them first.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from module.clock import SystemClock
from module.db.database import Database
from module.db.repositories.users import Role, UserRepository
from module.launch.local import LocalLauncher
from module.launch.stack import Service, Stack, answers, free_port, require_free, useless_by
from module.logs import open_log
from module.model.errors import Conflict, InvalidInput, Unavailable
from module.settings import Settings

DoorService = Literal["platform", "gateway", "market"]
HOST = "127.0.0.1"
WAITS_S = 300.0
FIRST_UPKEEP_S = 120.0
UPKEEP_PERIOD_S = (600.0, 86_400.0)


@dataclass(frozen=True, slots=True)
class StandaloneOptions:
    """What a person may choose. `speed`: world seconds per real second; 0 is unbounded.

    `start` is the world time of a new world (None: the present minute; candles: a week after the
    first). `waits_for`: the participant before whom a new world does not begin to move; session ids
    then follow from seed and start, so that the same session can be run again. `dashboard_port`: a
    second port of the API, where people look for the dashboard; 0: none.
    """

    data_dir: Path
    port: int
    workers: int = 1
    speed: float = 60.0
    seed: int = 7
    candles: Path | None = None
    start: datetime | None = None
    waits_for: str = ""
    dashboard_port: int = 0


class Standalone:
    """Starts and stops the services of one data folder. `say` gets a line for each step."""

    def __init__(self, options: StandaloneOptions, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._clock = SystemClock()
        self._lock = FileLock(str(options.data_dir / "run" / "stack.lock"))
        self._stack = Stack(options.data_dir / "logs", self._clock)
        self._postgres_runs = False
        self._upkeep: subprocess.Popen[bytes] | None = None
        self._upkeep_at_s = self._clock.monotonic() + FIRST_UPKEEP_S
        self.settings = Settings(data_dir=options.data_dir.resolve())

    @property
    def api_url(self) -> str:
        """Where the platform API listens."""
        return f"http://{HOST}:{self._options.port}"

    @property
    def dashboard_url(self) -> str:
        """Where people find the live page: at its own port, where it has one."""
        port = self.settings.dashboard_port or self._options.port
        return f"http://{HOST}:{port}/dashboard/"

    @property
    def failure(self) -> str | None:
        """Why the stack cannot go on, when it cannot."""
        return self._stack.failure

    def start(self) -> None:
        """Everything, in order. Conflict: this folder is in use. Unavailable: what, and its log."""
        self._take_folder()
        require_free(HOST, self._options.port, "--port")
        # What a killed installation left: its host and sessions know the old addresses.
        LocalLauncher(self.settings, self._clock).shut_down()
        gateway, market = self._port_again("gateway_url"), self._port_again("market_url")
        self._start_postgres()
        self._start_simulator()
        self._save(
            gateway_url=f"http://{HOST}:{gateway}",
            market_url=f"http://{HOST}:{market}",
            api_port=self._options.port,
            dashboard_port=self._free_dashboard_port(),
            dashboard_url=f"{self.api_url}/dashboard/",
        )
        self._say("Starting gateway, market data and API …")
        self._stack.start(self._doors("gateway", gateway))
        self._stack.start(self._doors("market", market))
        self._stack.start(self._doors("platform", self._options.port))
        LocalLauncher(self.settings, self._clock).ensure_host()
        self._stack.watch([self._guard_postgres, self._guard_host, self._guard_upkeep])

    def stop(self) -> None:
        """End everything that `start` started; sessions are handed over, Postgres stops last."""
        self._stack.stop_watching()
        self._stack.stop_one("platform")  # or a request that is under way might start a host
        LocalLauncher(self.settings, self._clock).shut_down()
        self._stack.stop()
        self._end_upkeep()
        if self._postgres_runs:
            from module.db.embedded import EmbeddedPostgres

            EmbeddedPostgres(self.settings).stop()
            self._postgres_runs = False
        if self._lock.is_locked:
            self._lock.release()

    def reload_settings(self) -> Settings:
        """What the installation of this folder wrote down when it last started."""
        saved = json.loads((self._data / "settings.json").read_text())
        return Settings(data_dir=self._data, **saved)

    def first_user(self, name: str) -> str | None:
        """A token for the installation's first user; None when there are users already."""
        with self._users() as users:
            if users.list_all():
                return None
            now = self._clock.wall()
            user = users.ensure(name, Role.SUPERVISOR, now)
            return users.issue_token(user.user_id, "first", now).secret

    def new_token(self, label: str) -> str:
        """A token of the oldest active supervisor's, good for a day."""
        with self._users() as users:
            able = [u for u in users.list_all() if u.role is Role.SUPERVISOR and u.active]
            if not able:
                raise Conflict("this installation has no active supervisor to act for")
            now = self._clock.wall()
            return users.issue_token(
                able[0].user_id, label, now, expires_at=now + timedelta(days=1)
            ).secret

    @contextmanager
    def _users(self) -> Iterator[UserRepository]:
        database = Database(self.settings, "finplatform", 1)
        try:
            yield UserRepository(database)
        finally:
            database.close()

    # --- steps -----------------------------------------------------------------------------------

    def _take_folder(self) -> None:
        folder = self._options.data_dir
        try:
            for part in (folder, folder / "run"):  # `parents` would not give them the mode
                part.parent.mkdir(parents=True, exist_ok=True)
                part.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"{folder} cannot be used: {error.strerror}") from error
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise Conflict(
                f"an installation already runs on {folder}; stop it, or choose another --data"
            ) from error

    def _start_postgres(self) -> None:
        from module.db.migrate import migrate_all

        if not self.settings.database_host:
            from module.db.embedded import EmbeddedPostgres

            self._say("Starting Postgres …")
            EmbeddedPostgres(self.settings).start(ends_with_parent=True)
            self._postgres_runs = True
        migrate_all(self.settings)

    def _port_again(self, name: str) -> int:
        """The port of this service when the folder's installation last ran, so that whoever reads
        its metrics finds it again; another one while somebody has that."""
        path = self._data / "settings.json"
        if path.exists():
            with suppress(Unavailable, ValueError):  # taken, or no address that can be read
                port = urlsplit(str(json.loads(path.read_text()).get(name, ""))).port
                if port:
                    require_free(HOST, port, "--data")
                    return port
        return free_port()

    def _free_dashboard_port(self) -> int:
        """The port that was asked for; 0, said aloud, while somebody else has it."""
        port = self._options.dashboard_port
        if not port or port == self._options.port:
            return 0
        try:
            require_free(HOST, port, "--dashboard-port")
        except Unavailable as error:
            self._say(f"{error.message}; the dashboard is at {self.api_url}/dashboard/ alone")
            return 0
        return port

    def _guard_postgres(self) -> None:
        """A Postgres that was killed comes back by itself; what was committed is there."""
        from module.db.embedded import EmbeddedPostgres

        server = EmbeddedPostgres(self.settings)
        if self._postgres_runs and server.pid is None:
            server.start()

    def _guard_host(self) -> None:
        """So does the session host; it adopts the sessions that run."""
        LocalLauncher(self.settings, self._clock).ensure_host()

    def _guard_upkeep(self) -> None:
        """Once a world day the stored minutes get their months, days and bounds."""
        if self._upkeep is not None and self._upkeep.poll() is None:
            return
        now_s = self._clock.monotonic()
        if now_s < self._upkeep_at_s:
            return
        shortest_s, day_s = UPKEEP_PERIOD_S
        speed = self._options.speed
        self._upkeep_at_s = now_s + (max(shortest_s, day_s / speed) if speed else shortest_s)
        with open_log(self._data / "logs" / "results-upkeep.log") as log:
            self._upkeep = subprocess.Popen(
                [sys.executable, "-m", "module.db.results_upkeep"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "AIFAP_DATA_DIR": str(self._data)},
            )

    def _end_upkeep(self) -> None:
        """What it had not done it does after the next start."""
        if self._upkeep is not None and self._upkeep.poll() is None:
            self._upkeep.kill()
            self._upkeep.wait()

    def _start_simulator(self) -> None:
        options = self._options
        port, clock_port = free_port(), free_port()
        self._say("Starting the paper exchange …")
        command = [sys.executable, "-m", "module.simulator.server"]
        command += ["--port", str(port), "--clock-port", str(clock_port)]
        command += ["--speed", f"{options.speed:g}", "--data", str(self._data / "simulator")]
        command += ["--secrets-file", str(self._simulator_secrets())]
        if options.candles is not None:
            command += ["--candles", str(options.candles.resolve())]
        else:
            command += ["--seed", str(options.seed)]
        if options.start is not None:
            command += ["--start", options.start.isoformat()]
        if options.waits_for:
            command += ["--expect", options.waits_for, "--hold-s", f"{WAITS_S:g}"]
        url = f"http://{HOST}:{port}"
        self._stack.start(
            Service("simulator", command, lambda: answers(HOST, port) and answers(HOST, clock_port))
        )
        self._save(
            simulator_url=url,
            world_clock=f"{HOST}:{clock_port}",
            market_id=self._market_id(url),
            id_seed=options.seed if options.waits_for else None,
            api_workers=options.workers,
        )

    @property
    def _data(self) -> Path:
        return self._options.data_dir.resolve()

    def _simulator_secrets(self) -> Path:
        """A file that only its owner may read: the control token, and one key to try it with."""
        path = self._data / "secrets" / "simulator.json"
        if not path.exists():
            document = {
                "control_token": self.settings.secret("control_token"),
                "api_key": f"paper-{secrets.token_hex(8)}",
                "api_secret": secrets.token_urlsafe(32),
                "passphrase": secrets.token_urlsafe(16),
            }
            path.touch(mode=0o600)
            path.write_text(json.dumps(document))
        return path

    def _market_id(self, url: str) -> str:
        import urllib3

        answer = urllib3.request(
            "GET",
            f"{url}/control/clock",
            headers={"Authorization": f"Bearer {self.settings.secret('control_token')}"},
            timeout=10.0,
        )
        document = answer.json()
        if answer.status != 200 or not isinstance(document.get("market_id"), str):
            raise InvalidInput(f"the paper exchange does not say which market it has: {document}")
        return str(document["market_id"])

    def _save(self, **changes: object) -> None:
        self.settings = self.settings.model_copy(update=changes)
        self.settings.save()

    def _doors(self, service: DoorService, port: int) -> Service:
        command = [sys.executable, "-m", "api.compose", "--host", HOST, "--port", str(port)]
        if service == "platform":
            command += ["--workers", str(self._options.workers)]
        environment: Mapping[str, str] = {
            "AIFAP_DATA_DIR": str(self._data),
            "AIFAP_SERVICES": json.dumps([service]),
        }
        goes_first = service == "gateway"
        return Service(
            service,
            command,
            lambda: answers(HOST, port),
            environment,
            goes_first,
            lambda: useless_by(HOST, port),
        )
