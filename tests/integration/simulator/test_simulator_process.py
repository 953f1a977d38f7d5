"""The simulator as a process: start, control door, scripted faults, death and return."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import urllib3

from module.clock import WorldClock, to_epoch_ms
from tests.fakes.paper_exchange import (
    MIX,
    ROOT,
    START_MS,
    USDT,
    RawBitget,
    SimulatorProcess,
    market_order,
)

pytestmark = pytest.mark.timeout(180)
PLACE = f"{MIX}/order/place-order"
DETAIL = f"{MIX}/order/detail"


@pytest.fixture
def simulator() -> Iterator[SimulatorProcess]:
    process = SimulatorProcess()
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture
def clock(simulator: SimulatorProcess) -> Iterator[WorldClock]:
    with simulator.clock("test") as clock:
        yield clock


@pytest.fixture
def raw(simulator: SimulatorProcess, clock: WorldClock) -> RawBitget:
    return RawBitget(simulator.url)


def detail(raw: RawBitget, client_id: str) -> Any:
    return raw.get(DETAIL, symbol="BTCUSDT", clientOid=client_id, **USDT)


# -- start and end ----------------------------------------------------------------------------


def test_it_says_where_it_is_and_ends_cleanly_on_sigterm() -> None:
    process = SimulatorProcess()
    assert process.ready_line == (
        f"simulator ready: http://127.0.0.1:{process.port}  "
        f"clock 127.0.0.1:{process.clock_port}  market synthetic:7\n"
    )
    assert process.stop() == 0
    assert process.errors() == ""


def run(*arguments: str, words: str = "{}") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "module.simulator.server", "--secrets-file", "-"]
    return subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        input=words,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_busy_port_is_one_readable_line_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--port", str(port))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words", "says"),
    [
        (("--speed", "-1"), "{}", "speed"),
        (("--start", "yesterday"), "{}", "--start"),
        ((), "{", "JSON"),
        ((), '{"api_key": "k", "passphrase": "very-secret"}', "api_secret"),
        (("--candles", "/nonexistent/folder"), "{}", "/nonexistent/folder"),
    ],
)
def test_wrong_options_are_refused_with_a_reason(
    arguments: tuple[str, ...], words: str, says: str
) -> None:
    done = run("--port", "0", *arguments, words=words)
    assert done.returncode == 2
    assert says in done.stderr
    assert "very-secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_belongs_to_one_simulator_and_one_world(tmp_path: Path) -> None:
    process = SimulatorProcess(tmp_path)
    start = ("--start", "2026-03-02T10:00:00Z", "--data", str(tmp_path))
    assert "another simulator uses" in run("--port", "0", *start).stderr
    process.stop()
    other = run("--port", "0", "--seed", "8", *start)
    assert other.returncode == 2
    assert "synthetic:7" in other.stderr
    assert "synthetic:8" in other.stderr


# -- the control door -------------------------------------------------------------------------


def test_the_control_door_opens_only_with_its_token(simulator: SimulatorProcess) -> None:
    assert simulator.control_raw("GET", "ledger", token="")[0] == 401
    assert simulator.control_raw("GET", "ledger", token="wrong")[0] == 401
    assert simulator.control_raw("GET", "nothing")[0] == 404
    status, ledger = simulator.control_raw("GET", "ledger")
    assert (status, ledger["balanced"], ledger["market_id"]) == (200, True, "synthetic:7")


def test_without_a_token_the_control_door_stays_shut() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "module.simulator.server", "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[2]
        answer = urllib3.request(
            "GET", f"{url}/control/clock", headers={"Authorization": "Bearer "}
        )
        assert answer.status == 403
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def test_accounts_open_once_and_deposits_are_transfers(
    simulator: SimulatorProcess, clock: WorldClock
) -> None:
    words: dict[str, object] = {
        "api_key": "key-2",
        "api_secret": "secret-2",
        "passphrase": "pass-2",
        "futures_usdt": "777.5",
    }
    first = simulator.control("POST", "accounts", words)
    again = simulator.control("POST", "accounts", {**words, "futures_usdt": "1"})
    assert first == again
    assert simulator.control_raw("POST", "accounts", {**words, "api_secret": "x"})[0] == 409
    simulator.control("POST", "deposits", {"api_key": "key-2", "amount": "22.5"})
    nobody = {"api_key": "nobody", "amount": "1"}
    assert simulator.control_raw("POST", "deposits", nobody)[0] == 404
    account = simulator.account(2)
    assert account["wallet"] == "800.0"
    assert [bill["amount"] for bill in account["bills"]] == ["777.5", "22.5"]
    assert "secret-2" not in json.dumps(account)
    other = RawBitget(simulator.url, "key-2", "secret-2", "pass-2")
    (row,) = other.get(f"{MIX}/account/accounts", **USDT)
    assert row["accountEquity"] == "800"


def test_the_clock_is_shown_and_its_speed_changed(simulator: SimulatorProcess) -> None:
    with simulator.clock("somebody"):
        shown = simulator.control("GET", "clock")
        assert (shown["now_ms"], shown["speed"], shown["market_id"]) == (
            START_MS,
            0,
            "synthetic:7",
        )
        assert [row["name"] for row in shown["participants"]] == ["somebody"]
        assert simulator.control("POST", "clock", {"speed": 60})["speed"] == 60
    assert simulator.control_raw("POST", "clock", {"speed": -1})[0] == 422
    with simulator.clock(None) as observer:
        observer.sleep(1)  # nobody holds it: it flows
        assert to_epoch_ms(observer.now()) >= START_MS + 1000


# -- scripted faults --------------------------------------------------------------------------


def fault(simulator: SimulatorProcess, **words: object) -> None:
    simulator.control("POST", "faults", words)


def fired(simulator: SimulatorProcess) -> list[int]:
    return [rule["fired"] for rule in simulator.control("GET", "faults")["rules"]]


def test_A1_A4_an_answer_that_is_lost_after_acceptance_leaves_the_order(
    simulator: SimulatorProcess, raw: RawBitget, clock: WorldClock
) -> None:
    fault(simulator, operation="place-order", answer="drop", nth=2)
    raw.post(PLACE, **market_order("buy", "0.01", clientOid="first"))
    with pytest.raises(urllib3.exceptions.HTTPError):
        raw.post(PLACE, **market_order("buy", "0.01", clientOid="second"))
    assert fired(simulator) == [1]
    clock.sleep(0.1)
    assert detail(raw, "second")["state"] == "filled"
    assert raw.code("POST", PLACE, **market_order("buy", "0.01", clientOid="second")) == "40786"


def test_a_request_that_is_dropped_before_it_is_read_leaves_nothing(
    simulator: SimulatorProcess, raw: RawBitget
) -> None:
    fault(simulator, operation="place-order", answer="drop", moment="before")
    with pytest.raises(urllib3.exceptions.HTTPError):
        raw.post(PLACE, **market_order("buy", "0.01", clientOid="lost"))
    assert raw.code("GET", DETAIL, symbol="BTCUSDT", clientOid="lost", **USDT) == "40109"


def test_a_hanging_answer_ends_with_the_clients_patience(
    simulator: SimulatorProcess, raw: RawBitget, clock: WorldClock
) -> None:
    fault(simulator, operation="place-order", answer="hang")
    raw.pool = urllib3.PoolManager(retries=False, timeout=0.3)
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        raw.post(PLACE, **market_order("buy", "0.01", clientOid="hung"))
    clock.sleep(0.1)
    assert detail(raw, "hung")["state"] == "filled"


def test_A5_A11_bodies_codes_and_statuses_lie_as_scripted(
    simulator: SimulatorProcess, raw: RawBitget
) -> None:
    fault(simulator, operation="place-order", answer="code", code="40725")
    fault(simulator, operation="place-order", answer="truncate")
    fault(simulator, operation="place-order", answer="body", body="<html>hello</html>")
    fault(simulator, operation="place-order", answer="status", status=503, moment="before")
    fault(simulator, operation="place-order", answer="code", code="40762", moment="before")
    place = market_order("buy", "0.01")
    assert raw.code("POST", PLACE, **{**place, "clientOid": "a"}) == "40725"
    for client_id in ("b", "c", "d"):
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            raw.code("POST", PLACE, **{**place, "clientOid": client_id})
    assert raw.status == 503
    assert raw.code("POST", PLACE, **{**place, "clientOid": "e"}) == "40762"
    assert fired(simulator) == [1, 1, 1, 1, 1]
    orders = [row["clientOid"] for row in simulator.account()["orders"]]
    assert orders == ["a", "b", "c"]


def test_A12_A13_a_burst_of_429_says_when_to_come_back(
    simulator: SimulatorProcess, raw: RawBitget
) -> None:
    words = {"answer": "status", "status": 429, "moment": "before", "retry_after_s": 7}
    fault(simulator, operation="*", count=2, symbol="BTCUSDT", **words)
    for _ in range(2):
        with pytest.raises(ValueError, match="Expecting"):
            raw.code("POST", PLACE, **market_order("buy", "0.01"))
        assert (raw.status, raw.headers["retry-after"]) == (429, "7")
    raw.post(PLACE, **market_order("buy", "0.01"))
    assert fired(simulator) == [2]
    assert simulator.control("DELETE", "faults") == {"rules": []}
    assert simulator.control_raw("POST", "faults", {"operation": "x", "answer": "lie"})[0] == 422
    assert simulator.control_raw("POST", "faults", {"answer": "drop", "oops": 1})[0] == 422


# -- death and return -------------------------------------------------------------------------


def test_a_killed_simulator_comes_back_with_the_same_ledger_and_goes_on(tmp_path: Path) -> None:
    process = SimulatorProcess(tmp_path)
    clock = process.clock("trader")
    raw = RawBitget(process.url)
    process.control("POST", "deposits", {"api_key": "key-1", "amount": "12.25"})
    raw.post(f"{MIX}/account/set-leverage", **market_order("buy", "1"), leverage="4")
    last = Decimal(
        process.control("POST", "prices", {"symbol": "BTCUSDT", "factor": "1.1"})["last"]
    )
    stop = str((last * Decimal("0.8")).quantize(Decimal("0.1")))
    raw.post(PLACE, **market_order("buy", "0.5", clientOid="kept", presetStopLossPrice=stop))
    assert raw.code("POST", PLACE, **market_order("buy", "999", clientOid="refused")) != "00000"
    clock.sleep(3600 * 9)  # over a funding settlement
    raw.post(PLACE, **market_order("sell", "0.1", clientOid="in-flight"))  # not yet filled
    before = process.control("GET", "ledger?dump=1")
    process.kill()

    again = SimulatorProcess(tmp_path, port=process.port, clock_port=process.clock_port)
    after = again.control("GET", "ledger?dump=1")
    assert after["dump"] == before["dump"]
    assert after["accounts"] == before["accounts"]
    assert (after["digest"], after["now_ms"]) == (before["digest"], before["now_ms"])
    clock.sleep(1)  # reconnects by itself, and the order in flight arrives
    assert detail(RawBitget(again.url), "in-flight")["state"] == "filled"
    assert again.account()["closed_positions"] == []
    clock.close()
    again.stop()


def test_A1_an_order_that_was_answered_survives_a_kill_in_the_middle_of_a_burst(
    tmp_path: Path,
) -> None:
    process = SimulatorProcess(tmp_path)
    clock = process.clock("trader")
    answered: list[str] = []
    started = threading.Event()

    def burst() -> None:
        raw = RawBitget(process.url)
        for number in range(10_000):
            words = market_order("buy" if number % 2 else "sell", "0.01", clientOid=f"n-{number}")
            try:
                code = raw.code("POST", PLACE, **words)
            except (urllib3.exceptions.HTTPError, ValueError):
                return
            if code == "00000":
                answered.append(f"n-{number}")
            elif code == "429":
                clock.sleep(1)
            if len(answered) == 25:
                started.set()

    thread = threading.Thread(target=burst, daemon=True)
    thread.start()
    assert started.wait(60)
    process.kill()
    again = SimulatorProcess(tmp_path, port=process.port, clock_port=process.clock_port)
    clock.close()
    thread.join(30)
    ledger = again.control("GET", "ledger")
    kept = [row["clientOid"] for row in ledger["accounts"][0]["orders"]]
    assert len(kept) == len(set(kept))
    assert set(answered) <= set(kept)
    assert len(kept) <= len(answered) + 1  # at most one was accepted and not answered
    assert ledger["balanced"] is True
    again.stop()


def test_faults_that_have_happened_do_not_happen_again_after_a_restart(tmp_path: Path) -> None:
    process = SimulatorProcess(tmp_path)
    fault(process, operation="place-order", answer="code", code="40725")
    fault(process, operation="cancel-order", answer="code", code="40725")
    assert RawBitget(process.url).code("POST", PLACE, **market_order("buy", "0.01")) == "40725"
    process.kill()
    again = SimulatorProcess(tmp_path)
    assert fired(again) == [1, 0]
    again.stop()


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from module.clock import WorldClock
from tests.fakes.paper_exchange import MIX, RawBitget, market_order
url, port, name = sys.argv[2], int(sys.argv[3]), sys.argv[4]
clock = WorldClock("127.0.0.1", port, name)
offset = 1 if name == "b" else 0
raw = RawBitget(url, f"key-{offset + 1}", f"secret-{offset + 1}", f"pass-{offset + 1}")
print("here", flush=True)
clock.sleep(1 + offset / 10)
for step in range(6):
    side = "buy" if (step + offset) % 3 else "sell"
    raw.post(f"{MIX}/order/place-order", **market_order(side, "0.02", clientOid=f"{name}-{step}"))
    clock.sleep(37)
clock.sleep(20)
raw.post(f"{MIX}/order/close-positions", productType="USDT-FUTURES")
clock.sleep(1)
"""


def scripted_session(speed: float) -> str:
    """The ledger after two processes have traded for minutes of world time."""
    process = SimulatorProcess(speed=0)  # nothing may move before everybody is there
    second = {"api_key": "key-2", "api_secret": "secret-2", "passphrase": "pass-2"}
    gate = process.clock("gate")
    process.control("POST", "accounts", {**second, "futures_usdt": "5000"})
    process.control("POST", "clock", {"speed": speed})
    sessions = []
    for name in ("a", "b"):
        command = [sys.executable, "-c", SCRIPT, str(ROOT), process.url, str(process.clock_port)]
        session = subprocess.Popen([*command, name], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert session.stdout is not None
        assert session.stdout.readline() == "here\n"
        sessions.append(session)
    gate.sleep(280)
    for session in sessions:
        session.communicate(timeout=60)
        assert session.returncode == 0
    dump = process.control("GET", "ledger?dump=1")["dump"]
    gate.close()
    process.stop()
    return str(dump)


def test_speed_changes_nothing_in_the_result() -> None:
    slow, fast, unbounded = (scripted_session(speed) for speed in (60, 600, 0))
    assert len(json.loads(fast)["orders"]) == 14
    assert slow == fast == unbounded
