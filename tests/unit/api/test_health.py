"""`/health`: what is asked before a process is started again, or is sent requests."""

from __future__ import annotations

from pathlib import Path

from api.app import create_app
from api.wiring import ApiWiring
from module.clock import SystemClock
from module.model.errors import Unavailable
from module.settings import Settings
from tests.fakes.asgi_client import AsgiClient


class Rig:
    """A service with a Postgres, a neighbour and a thread that tests take away."""

    def __init__(self, folder: Path) -> None:
        self.has_postgres = self.has_neighbour = self.lives = True
        wiring = ApiWiring(
            settings=Settings.model_validate({"data_dir": folder, "services": ("gateway",)}),
            clock=SystemClock(),
            probes={"postgres": self._postgres},
            neighbours={"session-host": lambda: self.has_neighbour},
            vital={"protection": lambda: self.lives},
        )
        self.client = AsgiClient(create_app(wiring))

    def _postgres(self) -> None:
        if not self.has_postgres:
            raise Unavailable("Postgres is away")

    def told(self) -> tuple[int, int]:
        """Status of live and of ready."""
        live, ready = (self.client.get(f"/health/{one}").status for one in ("live", "ready"))
        return live, ready


def test_H11_what_a_process_needs_decides_whether_it_is_ready_and_never_whether_it_lives(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    assert rig.told() == (200, 200)
    rig.has_postgres = False
    assert rig.told() == (200, 503)


def test_H11_a_neighbour_that_is_away_is_named_and_cuts_nobody_off(tmp_path: Path) -> None:
    """The page and a wish to stop must arrive on a day on which the gateway is down."""
    rig = Rig(tmp_path)
    rig.has_neighbour = False
    assert rig.told() == (200, 200)
    checks = rig.client.get("/health/ready").json()["checks"]
    assert checks == {"postgres": "ok", "session-host": "failed"}


def test_H11_a_process_whose_thread_has_ended_for_good_asks_to_be_started_again(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    rig.lives = False
    assert rig.told() == (503, 200)
