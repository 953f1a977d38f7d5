"""A runner host that cannot start is started again after growing pauses, not all the time."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import trading.session_host as session_host_module
from module.settings import Settings
from tests.fakes.clock import ManualClock
from trading.session_host import RUNNER_PAUSE_MAX_S, GrowingPause, HostTruth, SessionHost


def _starts(pauses: GrowingPause, lives_s: list[float]) -> list[float]:
    """How long after each end it was started again."""
    now, waited = 1000.0, []
    for lived_s in lives_s:
        pauses.began(now)
        now += lived_s
        ended = now
        while not pauses.is_over(now):
            now += 0.25
        waited.append(now - ended)
    return waited


def test_pauses_double_up_to_a_bound_and_begin_anew_after_a_life() -> None:
    pauses = GrowingPause(0.5, 30.0, 60.0)
    assert _starts(pauses, [0.2] * 9) == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert _starts(pauses, [61, 0.2, 0.2, 59]) == [0, 0, 0.5, 1]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """With a path that a Unix socket takes."""
    with tempfile.TemporaryDirectory(prefix="aifap-") as folder:
        yield Path(folder)


def test_a_runner_host_that_cannot_start_is_tried_half_a_minute_apart(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    clock = ManualClock()
    monkeypatch.setattr(session_host_module, "SystemClock", lambda: clock)
    truth = HostTruth(Settings(data_dir=data_dir), list, lambda *_: None)
    host = SessionHost(Settings(data_dir=data_dir), {}, truth)
    starts: list[tuple[subprocess.Popen[bytes], float]] = []
    with host.runner_only():
        while clock.monotonic() < 300:
            runner = host._runner
            assert runner is not None
            runner.wait(20)
            if not starts or starts[-1][0] is not runner:
                starts.append((runner, clock.monotonic()))
            clock.advance(0.2)
            host._reconcile()
    waits = [later - earlier for (_, earlier), (_, later) in itertools.pairwise(starts)]
    assert len(waits) < 16
    assert waits[0] < 1
    assert RUNNER_PAUSE_MAX_S - 1 < max(waits) <= RUNNER_PAUSE_MAX_S + 1
