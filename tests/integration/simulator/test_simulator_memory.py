"""The simulator's folder under stress: damaged, full, locked, killed; time that never goes back."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import urllib3

from tests.fakes.paper_exchange import MIX, ROOT, START, RawBitget, SimulatorProcess, market_order

pytestmark = pytest.mark.timeout(180)
PLACE = f"{MIX}/order/place-order"


def refused(data: Path, *arguments: str, file_bytes_max: int | None = None) -> str:
    """Start a simulator that must end with code 2; the one line that it says."""

    def limit() -> None:
        if file_bytes_max is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))

    command = [sys.executable, "-m", "module.simulator.server", "--secrets-file", "-"]
    done = subprocess.run(
        [*command, "--port", "0", "--data", str(data), "--start", START, *arguments],
        cwd=ROOT,
        input="{}",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=limit,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("simulator: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def traded_world(data: Path, orders: int = 5) -> SimulatorProcess:
    process = SimulatorProcess(data)
    with process.clock("trader") as clock:
        raw = RawBitget(process.url)
        for number in range(orders):
            raw.post(PLACE, **market_order("buy", "0.01", clientOid=f"n-{number}"))
            clock.sleep(61)
    return process


def damage(path: Path, line_number: int, text: str) -> None:
    lines = path.read_text().splitlines(keepends=True)
    lines[line_number] = text
    path.write_text("".join(lines))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\x00\x00 zeros after a power cut\n", "does not parse"),
        ("[1, 2]\n", "is not an object"),
        ('{"at": "noon", "params": {}}\n', "is not a command"),
        ('{"at": 1772445600000, "call": "POST /x", "account": "1", "params": {}}\n', "unknown"),
        ('{"at": 5, "call": "POST /x", "account": "1", "params": {}}\n', "time cannot go back"),
    ],
)
def test_a_damaged_line_in_the_middle_of_the_journal_is_one_line_that_says_where(
    tmp_path: Path, text: str, says: str
) -> None:
    traded_world(tmp_path).kill()
    (tmp_path / "snapshot.json").unlink(missing_ok=True)
    damage(tmp_path / "journal.jsonl", 2, text)
    assert says in refused(tmp_path)


def test_a_last_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    process = traded_world(tmp_path)
    before = process.control("GET", "ledger?dump=1")["dump"]
    process.kill()
    with (tmp_path / "journal.jsonl").open("a") as journal:
        journal.write('{"at": 1772445600000, "call": "POST /api/v2/m')
    again = SimulatorProcess(tmp_path)
    assert again.control("GET", "ledger?dump=1")["dump"] == before
    again.stop()


def test_a_world_of_another_seed_a_folder_in_use_and_a_bad_folder_are_one_line(
    tmp_path: Path,
) -> None:
    process = traded_world(tmp_path, orders=1)
    assert "another simulator uses" in refused(tmp_path)
    process.stop()
    said = refused(tmp_path, "--seed", "8")
    assert "synthetic:7" in said
    assert "synthetic:8" in said
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    assert "a-file" in refused(blocked)
    (tmp_path / "time.json").write_text('{"now_ms": 177')
    assert "time.json" in refused(tmp_path)


def test_D21_a_full_disk_at_the_start_is_one_line(tmp_path: Path) -> None:
    assert "cannot be written" in refused(tmp_path / "new", file_bytes_max=0)


def test_D21_a_disk_that_fills_up_stops_the_simulator_before_it_answers_what_it_does_not_keep(
    tmp_path: Path,
) -> None:
    process = traded_world(tmp_path, orders=2)
    size = (tmp_path / "journal.jsonl").stat().st_size
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (size + 700, size + 700))
    answered = ["n-0", "n-1"]
    with process.clock("trader"):
        raw = RawBitget(process.url)
        for number in range(20):
            words = market_order("buy", "0.01", clientOid=f"late-{number}")
            try:
                if raw.code("POST", PLACE, **words) != "00000":
                    break
            except (urllib3.exceptions.HTTPError, ValueError):
                break
            answered.append(f"late-{number}")
    assert process.process.wait(30) == 1
    assert "journal.jsonl cannot be written" in process.errors()
    process.stop()
    again = SimulatorProcess(tmp_path)
    kept = [row["clientOid"] for row in again.account()["orders"]]
    assert kept == answered
    again.stop()


def test_a_durable_simulator_keeps_what_it_has_answered(tmp_path: Path) -> None:
    process = SimulatorProcess(tmp_path, extra=("--durable",))
    with process.clock("trader"):
        raw = RawBitget(process.url)
        for number in range(5):
            raw.post(PLACE, **market_order("buy", "0.01", clientOid=f"n-{number}"))
        process.kill()
    again = SimulatorProcess(tmp_path, extra=("--durable",))
    assert len(again.account()["orders"]) == 5
    again.stop()


def test_an_end_by_sigterm_leaves_a_snapshot_that_the_next_start_goes_on_from(
    tmp_path: Path,
) -> None:
    process = traded_world(tmp_path)
    with process.clock("waiter") as clock:
        clock.sleep(86_400 * 60)  # so many fundings are worth a snapshot
    before = process.control("GET", "ledger?dump=1")["dump"]
    process.stop()
    head = json.loads((tmp_path / "snapshot.json").read_bytes().partition(b"\n")[0])
    assert head["journal_bytes"] == (tmp_path / "journal.jsonl").stat().st_size
    again = SimulatorProcess(tmp_path)
    assert again.control("GET", "ledger?dump=1")["dump"] == before
    assert again.errors() == ""
    again.stop()


def test_free_running_time_never_goes_back_over_a_kill(tmp_path: Path) -> None:
    seen_ms = 0
    for speed in (600, 60, 5_000):
        process = SimulatorProcess(tmp_path, speed=speed, extra=("--unlimited",))
        until_s = time.monotonic() + 0.7
        while time.monotonic() < until_s:
            answer = urllib3.request("GET", f"{process.url}/api/v2/public/time").json()
            now_ms = int(answer["data"]["serverTime"])
            assert now_ms >= seen_ms, "the world went back in time"
            seen_ms = now_ms
        process.kill()


def test_a_new_world_waits_for_whom_it_expects(tmp_path: Path) -> None:
    extra = ("--expect", "conductor", "--hold-s", "120")
    process = SimulatorProcess(tmp_path, speed=600, extra=extra)
    start_ms = process.control("GET", "clock")["now_ms"]
    with process.clock("somebody else") as other:
        assert process.control("GET", "clock")["expected"] == ["conductor"]
        conductor = process.clock("conductor")
        other.close()
        conductor.sleep(1)
        assert int(conductor.now().timestamp() * 1000) == start_ms + 1000
        conductor.close()
    assert process.control("POST", "clock", {"paused": True})["paused"] is True
    stood_ms = process.control("GET", "clock")["now_ms"]
    time.sleep(0.1)
    assert process.control("GET", "clock")["now_ms"] == stood_ms
    assert process.control("POST", "clock", {"paused": False})["paused"] is False
    assert process.control_raw("POST", "clock", {"paused": "yes"})[0] == 422
    process.kill()
    again = SimulatorProcess(tmp_path, speed=600, extra=extra)
    assert again.control("GET", "clock")["expected"] == [], "a world that comes back goes on"
    again.stop()
