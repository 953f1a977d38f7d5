"""The runner host's own life: missing, orphaned, ended; its children go with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from module.clock import SystemClock
from module.model.errors import Unavailable
from module.security.sandboxed_runner import SandboxedRunner
from tests.fakes.clock import ManualClock
from tests.fakes.market import FakeMarket
from tests.fakes.runner_process import RunnerProcess
from tests.integration.trading.test_runner_host import AT, ROOT, fails, returning, run


def test_a_strategy_whose_host_is_missing_is_unavailable(tmp_path: Path) -> None:
    clock = ManualClock()
    runner = SandboxedRunner(
        tmp_path / "nobody.sock", clock, timeout_s=5, display_timezone="Asia/Seoul"
    )
    with pytest.raises(Unavailable):
        runner.run(returning("{}"), {}, AT, FakeMarket())
    assert clock.paused


STARTER = """
import sys, time
from tests.fakes.runner_process import RunnerProcess
host = RunnerProcess(wall_s=30)
host.runner(20).run("def strategy(c, d):\\n    return {}", {}, __import__("datetime").datetime.now(
    __import__("datetime").UTC), None)
print(host.process.pid, host.folder, flush=True)
time.sleep(60)
"""


def test_I20_a_host_whose_starter_was_killed_ends_too() -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert starter.stdout is not None
        pid, folder = starter.stdout.readline().split()
        host = psutil.Process(int(pid))
        starter.kill()
        starter.wait(10)
        _, alive = psutil.wait_procs([host], timeout=10)
        assert alive == []
        shutil.rmtree(folder)
    finally:
        starter.kill()
        starter.wait(10)
        assert starter.stdout is not None
        starter.stdout.close()


def test_a_host_that_ends_takes_its_children_with_it() -> None:
    running = RunnerProcess(wall_s=30)
    try:
        assert run(running, returning("{}")).targets == {}
        failed: list[str] = []

        def hang() -> None:
            failed.append(fails(running, "def strategy(c, d):\n    while True: pass\n"))

        thread = threading.Thread(target=hang)
        thread.start()
        me = psutil.Process(running.process.pid)
        clock = SystemClock()
        deadline = clock.monotonic() + 20
        while not (children := me.children()) and clock.monotonic() < deadline:
            clock.pause(0.02)
        assert children
        running.process.kill()
        thread.join(20)
        assert failed
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []
    finally:
        running.stop()
