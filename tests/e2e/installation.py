"""What end-to-end tests do with an installation: everything over HTTP, the ledger as the judge."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil
import urllib3

from api.client import PlatformClient
from api.standalone import Standalone
from module.db.database import Database
from module.db.repositories.accounts import AccountRepository
from module.db.repositories.sessions import SessionRepository
from module.launch.processes import ProcessRecord
from module.model.errors import AifapError
from module.model.sessions import boundary_at_or_after
from tests.fakes.webhook_server import WebhookServer
from trading.bootstrap import build_clock

WAIT_S = 90.0
CONDUCTOR = "test:conductor"


@dataclass
class Installation:
    """One running installation, its first user's token, and where its alerts go."""

    stack: Standalone
    token: str
    webhooks: WebhookServer | None = None

    @property
    def client(self) -> PlatformClient:
        return PlatformClient(self.stack.api_url, self.token)

    @contextlib.contextmanager
    def sessions(self) -> Iterator[SessionRepository]:
        database = Database(self.stack.settings, "finplatform", 1)
        try:
            yield SessionRepository(database)
        finally:
            database.close()

    def upload(self, name: str, source: str) -> None:
        self.client.post("/upload/strategies", {"name": name, "source": source})

    def paper_account(self, label: str) -> str:
        answer = self.client.post("/accounts/paper", {"label": label, "balance": "10000"})
        return str(answer["account_id"])

    def start(self, account_id: str, strategy: str, interval: timedelta, **fields: object) -> str:
        """A session whose strategy is told the first boundary (`config.first_s`).

        The world is held until the session's processes are part of it.
        """
        config = dict(fields.pop("config", {}))  # type: ignore[call-overload]
        with contextlib.closing(build_clock(self.stack.settings, CONDUCTOR)) as clock:
            first = boundary_at_or_after(clock.now() + timedelta(milliseconds=1), interval)
            body: dict[str, object] = {
                "tradeType": "futures",
                "strategy_name": strategy,
                "trade_mode": "rebalancing",
                "trade_env": "paper",
                "account_id": account_id,
                "interval": f"{int(interval.total_seconds() // 60)}m",
                "apply_account_settings": True,
                "config": {**config, "first_s": int(first.timestamp())},
                **fields,
            }
            session_id = str(self.client.post("/command/run-system", body)["session_id"])
            self.wait(lambda: self.view(session_id)["state"] != "starting", "the session to start")
        return session_id

    def view(self, session_id: str) -> dict[str, Any]:
        return self.client.get(f"/command/sessions/{session_id}")

    def calm_view(self, session_id: str) -> dict[str, Any]:
        """The view, however long a restarting part makes us wait."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                return self.view(session_id)
            except AifapError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = WAIT_S) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
            time.sleep(0.05)

    def wait_cycles(self, session_id: str, cycles: int) -> None:
        def there() -> bool:
            view = self.calm_view(session_id)
            assert view["state"] not in ("failed",), view["reason"]
            return bool(view["cycle"] >= cycles) or view["state"] == "ended"

        self.wait(there, f"{cycles} cycles of {session_id}")

    def wait_over(self, session_id: str) -> dict[str, Any]:
        self.wait(
            lambda: self.calm_view(session_id)["state"] in ("ended", "failed"),
            f"the end of {session_id}",
        )
        record = self.processes(session_id)
        self.wait(lambda: record.alive("finwatcher") is None, "finwatcher's last row")
        return self.calm_view(session_id)

    def terminate(self, session_id: str, mode: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                self.client.get(f"/command/terminate?session_id={session_id}&mode={mode}")
                return
            except AifapError as error:
                if error.code == "conflict":
                    return  # over already
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def processes(self, session_id: str) -> ProcessRecord:
        return ProcessRecord(self.stack.settings.data_dir / "sessions" / session_id)

    def ledger(self, account_id: str) -> Mapping[str, Any]:
        """The account in the paper exchange's own books."""
        database = Database(self.stack.settings, "finplatform", 1)
        try:
            hint = AccountRepository(database).get(account_id).key_hint
        finally:
            database.close()
        settings = self.stack.settings
        answer = urllib3.request(
            "GET",
            f"{settings.simulator_url}/control/ledger",
            headers={"Authorization": f"Bearer {settings.secret('control_token')}"},
            timeout=30.0,
            retries=urllib3.Retry(connect=20, backoff_factor=0.2),
        )
        document = answer.json()
        assert document["balanced"], "the exchange's books do not balance"
        found = [a for a in document["accounts"] if a["api_key"].endswith(hint[-4:])]
        return dict(found[-1])  # the newest, should two keys end alike

    def sent(self, session_id: str) -> dict[str, str]:
        """Client id → exchange order id, of everything our letters say the exchange took."""
        with self.sessions() as sessions:
            cycles = sessions.cycles(session_id, 10_000)
        found: dict[str, str] = {}
        for cycle in cycles:
            document: Mapping[str, Any] = cycle.order_info or {}
            for leg in document.get("legs", ()):
                for part in leg["slices"]:
                    if part["order_id"] is not None:
                        found[part["client_id"]] = part["order_id"]
        return found

    def leftovers(self, session_id: str) -> list[int]:
        """Processes of the session that still run."""
        record = self.processes(session_id).read()
        return [
            identity.pid
            for role, identity in record.items()
            if self.processes(session_id).alive(role) is not None
        ]


def kill(pid: int) -> None:
    """As the kernel's out-of-memory killer would."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def pid_listening_at(url: str) -> int:
    """The process that serves `url`."""
    port = int(url.rsplit(":", 1)[1].rstrip("/"))
    for connection in psutil.net_connections("tcp4"):
        if connection.status == psutil.CONN_LISTEN and tuple(connection.laddr)[1:] == (port,):
            assert connection.pid is not None
            return int(connection.pid)
    raise AssertionError(f"nobody listens at {url}")
