"""The session host as a pod of its own: API pods wait for it, and its probe asks it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from module.launch.local import ELSEWHERE_TRIES, LocalLauncher
from module.model.errors import Unavailable
from module.settings import Settings
from tests.fakes.clock import ManualClock
from tests.unit.deploy.rendering import ROOT, containers_of, render_overlay

POLLS_MAX = 300
POLL_S = 0.1
SESSION = "2611211030-ab3x"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a host whose Postgres does not answer."""
    return {
        "PATH": os.environ["PATH"],
        "AIFAP_DATA_DIR": str(tmp_path),
        "AIFAP_DATABASE_HOST": "127.0.0.1",
        "AIFAP_DATABASE_PORT": "9",
    }


@pytest.fixture
def host(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    (container,) = next(
        list(containers_of(one))
        for one in render_overlay("production")
        if one["kind"] == "StatefulSet"
    )
    process = subprocess.Popen(
        [sys.executable, *container["command"][1:]],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def probe(environment: dict[str, str]) -> int:
    """The readiness probe of the manifest, on the folder of this test."""
    (container,) = next(
        list(containers_of(one))
        for one in render_overlay("production")
        if one["kind"] == "StatefulSet"
    )
    program, option, code = container["readinessProbe"]["exec"]["command"]
    assert (program, option) == ("python", "-c")
    assert '"/data"' in code
    words = [sys.executable, option, code.replace('"/data"', repr(environment["AIFAP_DATA_DIR"]))]
    ran = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, check=False)
    return ran.returncode


def test_H11_the_probe_asks_the_host_and_a_missing_postgres_is_no_reason(
    host: subprocess.Popen[bytes], environment: dict[str, str]
) -> None:
    for _ in range(POLLS_MAX):
        assert host.poll() is None
        if probe(environment) == 0:
            break
        time.sleep(POLL_S)
    assert probe(environment) == 0
    launcher = LocalLauncher(
        Settings(data_dir=Path(environment["AIFAP_DATA_DIR"]), session_host_elsewhere=True),
        ManualClock(),
    )
    launcher.ensure_host()
    host.send_signal(signal.SIGTERM)
    assert host.wait(30) == 0
    assert probe(environment) != 0


def test_an_api_pod_waits_for_the_host_and_never_starts_one(tmp_path: Path) -> None:
    clock = ManualClock()
    launcher = LocalLauncher(Settings(data_dir=tmp_path, session_host_elsewhere=True), clock)
    with pytest.raises(Unavailable, match="started elsewhere"):
        launcher.start(SESSION)
    assert len(clock.paused) == ELSEWHERE_TRIES
    assert list(tmp_path.iterdir()) == []  # neither a lock nor a log of a host of its own
