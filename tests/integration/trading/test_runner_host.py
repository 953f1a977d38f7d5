"""User code in its own process: what it returns, and how each way of failing reads (G1 to G5)."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psutil
import pytest

from module.model.errors import NotYet, StrategyFailed, Unavailable
from module.model.market import Candle, Frequency
from module.ports import StrategyOutput
from module.security.framing import send_message
from tests.fakes.market import FakeMarket, close_of
from tests.fakes.runner_process import RunnerProcess

ROOT = Path(__file__).resolve().parents[3]
AT = datetime(2026, 11, 21, 11, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def host() -> Iterator[RunnerProcess]:
    running = RunnerProcess(wall_s=8.0, memory_mb=384)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def hasty_host() -> Iterator[RunnerProcess]:
    """A host that gives a strategy one second."""
    running = RunnerProcess(wall_s=1.0)
    try:
        running.runner(20).run("def strategy(c, d):\n    return {}", {}, AT, FakeMarket())
        yield running
    finally:
        running.stop()


def run(
    host: RunnerProcess,
    source: str,
    config: Mapping[str, object] | None = None,
    market: FakeMarket | None = None,
) -> StrategyOutput:
    return host.runner().run(source, config or {}, AT, market or FakeMarket())


def fails(host: RunnerProcess, source: str) -> str:
    """What its owner reads."""
    with pytest.raises(StrategyFailed) as failed:
        run(host, source)
    return failed.value.message


def returning(expression: str) -> str:
    return f"def strategy(context, config_dict):\n    return {expression}\n"


# --- what works ---


def test_the_momentum_strategy_runs_as_it_was_written(host: RunnerProcess) -> None:
    source = (ROOT / "trading" / "strategies" / "momentum.py").read_text()
    market = FakeMarket()
    output = run(host, source, market=market)
    assert sorted(output.targets) == ["BTCUSDT", "SOLUSDT"]  # ETH falls in this market
    btc = output.targets["BTCUSDT"]
    assert btc["weight"] == "0.5"
    last = float(close_of("BTCUSDT", AT - timedelta(minutes=1)))
    assert float(btc["presetStopLossPrice"]) == pytest.approx(last * 0.97)
    assert market.asked == [(("BTCUSDT", "ETHUSDT", "SOLUSDT"), Frequency.MINUTE_1, 100, AT)]
    assert [w.window for w in output.windows] == [100]


def test_the_equal_weight_strategy_runs_with_its_settings(host: RunnerProcess) -> None:
    source = (ROOT / "trading" / "strategies" / "equal_weight.py").read_text()
    output = run(host, source, {"assets": ["BTCUSDT", "ETHUSDT"], "gross": 0.5})
    assert {s: f["weight"] for s, f in output.targets.items()} == {
        "BTCUSDT": "0.25",
        "ETHUSDT": "0.25",
    }


def test_numbers_keep_every_digit_and_their_kind_does_not_matter(host: RunnerProcess) -> None:
    source = """
from decimal import Decimal
import numpy as np
def strategy(context, config_dict):
    return {
        "A": 0.1, "B": {"weight": np.float64(0.1), "presetStopLossPrice": None},
        "C": Decimal("0.10000000000000000000000001"),
        "D": np.float32(0.5), "E": 1, "F": np.int64(0),
    }
"""
    found = {s: f["weight"] for s, f in run(host, source).targets.items()}
    assert found["C"] == "0.10000000000000000000000001"
    assert {s: Decimal(text) for s, text in found.items() if s != "C"} == {
        "A": Decimal("0.1"),
        "B": Decimal("0.1"),
        "D": Decimal("0.5"),
        "E": Decimal(1),
        "F": Decimal(0),
    }


def test_history_is_what_the_contract_says(host: RunnerProcess) -> None:
    source = """
def strategy(context, config_dict):
    one = context.get_history(["BTCUSDT"], window=3, frequency="5m", fields="close")
    many = context.get_history(["BTCUSDT", "ETHUSDT"], 2, "1m", ["open", "volume"])
    assert list(one.columns) == ["BTCUSDT"], one
    assert [str(when) for when in one.index] == [
        "2026-11-21 10:55:00+00:00", "2026-11-21 11:00:00+00:00", "2026-11-21 11:05:00+00:00"]
    assert list(many.columns) == [("BTCUSDT", "open"), ("BTCUSDT", "volume"),
                                  ("ETHUSDT", "open"), ("ETHUSDT", "volume")], many
    assert many[("ETHUSDT", "volume")].iloc[-1] == 17.25
    assert str(context.current_dt) == "2026-11-21 20:05:00+09:00", context.current_dt
    return {}
"""
    assert run(host, source).targets == {}


def test_a_missing_bar_is_nan_in_prices_and_zero_in_volume(host: RunnerProcess) -> None:
    source = """
def strategy(context, config_dict):
    bars = context.get_history("BTCUSDT", 3, "1m", ["close", "volume"])["BTCUSDT"]
    return {"X": int(bars["close"].isna().iloc[1]) + 2 * int(bars["volume"].iloc[1] == 0)}
"""
    hole = FakeMarket(holes={("BTCUSDT", AT - timedelta(minutes=2))})
    assert run(host, source, market=hole).targets["X"]["weight"] == "3"


def test_G11_data_is_cut_at_the_decision(host: RunnerProcess) -> None:
    source = """
def strategy(context, config_dict):
    bars = context.get_history(["BTCUSDT"], window=500, frequency="1h", fields="close")
    return {"X": int((bars.index > context.current_dt).sum()), "N": len(bars)}
"""
    found = run(host, source).targets
    assert (found["X"]["weight"], found["N"]["weight"]) == ("0", "500")


def test_G10_packages_are_imported_inside_the_wall(host: RunnerProcess) -> None:
    source = """
import statistics, fractions, zoneinfo, csv, sqlite3
import scipy.stats, scipy.optimize
import numpy.linalg
def strategy(context, config_dict):
    slope = scipy.stats.linregress([1, 2, 3], [2.0, 4.0, 6.0]).slope
    numpy.linalg.svd(numpy.random.default_rng(7).normal(size=(80, 80)))
    return {"X": {"weight": round(float(slope), 6)}}
"""
    assert run(host, source).targets["X"]["weight"] == "2.0"


def test_threads_are_the_strategys_own_business(host: RunnerProcess) -> None:
    source = """
import threading
def strategy(context, config_dict):
    found = []
    try:
        thread = threading.Thread(target=found.append, args=(7,))
        thread.start()
        thread.join()
    except RuntimeError:
        found.append(7)  # refused where user limits count
    return {"X": found[0]}
"""
    assert run(host, source).targets["X"]["weight"] == "7"


def test_what_it_prints_is_kept_up_to_a_length(host: RunnerProcess) -> None:
    source = "def strategy(c, d):\n    print('look, ' + 'x' * 50_000)\n    return {}\n"
    log = run(host, source).log
    assert log.startswith("look, xxx")
    assert len(log) == 8192


def test_the_config_arrives_as_it_is(host: RunnerProcess) -> None:
    config: dict[str, object] = {"a": [1, 2.5, None], "b": {"c": "d"}}
    source = f"def strategy(c, d):\n    assert d == {config!r}, d\n    return {{}}\n"
    assert run(host, source, config).targets == {}


# --- what does not ---


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def strategy(context, config_dict):\n    x = 1\n    return x / 0\n", "line 3"),
        ("import no_such_package_17\n", "no_such_package_17"),
        ("import no_such_package_17\n", "line 1"),
        ("def strategy(context, config_dict)\n    return {}\n", "line 1"),
        ("x = 1\n", "strategy(context, config_dict)"),
        ("strategy = 7\n", "strategy(context, config_dict)"),
        ("def strategy():\n    return {}\n", "TypeError"),
        ("def strategy(c, d):\n    raise SystemExit(3)\n", "SystemExit"),
        ("def strategy(c, d):\n    raise KeyboardInterrupt\n", "KeyboardInterrupt"),
        ("import sys\nsys.exit(0)\n", "line 2"),
        ("def strategy(c, d):\n    return strategy(c, d)\n", "RecursionError"),
        ("class E(BaseException):\n    pass\ndef strategy(c, d):\n    raise E('mine')\n", "mine"),
        ("def strategy(c, d):\n    return d['no key']\n", "no key"),
        ("source with \0 in it", "null byte"),
    ],
)
def test_G3_what_it_raises_is_named_with_its_line(
    host: RunnerProcess, source: str, said: str
) -> None:
    message = fails(host, source)
    assert said in message, message
    assert "/work" not in message
    assert "runner_host" not in message


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("None", "NoneType"),
        ("7", "int"),
        ("['BTCUSDT']", "list"),
        ("{1: 0.5}", "1"),
        ("{'BTCUSDT': float('nan')}", "BTCUSDT"),
        ("{'BTCUSDT': float('-inf')}", "BTCUSDT"),
        ("{'BTCUSDT': {'weight': None, 'presetStopLossPrice': float('nan')}}", "BTCUSDT"),
        ("{'BTCUSDT': 'half'}", "half"),
        ("{'BTCUSDT': True}", "True"),
        ("{'BTCUSDT': [0.5]}", "0.5"),
        ("{'BTCUSDT': {'weight': {'deep': 1}}}", "deep"),
        ("{f'X{n}': 0.0 for n in range(100_000)}", "100000"),
        ("{'X' * 400_000: 0.1}", "refused"),
        ("{'BTCUSDT': 10 ** 5000}", "ValueError"),
        ("{'BTCUSDT': 1j}", "BTCUSDT"),
    ],
)
def test_G2_what_is_no_set_of_weights_is_named(
    host: RunnerProcess, expression: str, said: str
) -> None:
    assert said in fails(host, returning(expression))


def test_G2_a_return_value_nested_ten_thousand_deep_is_a_failure(host: RunnerProcess) -> None:
    source = """
def strategy(context, config_dict):
    deep = {}
    for _ in range(10_000):
        deep = {"x": deep}
    return {"BTCUSDT": deep}
"""
    assert fails(host, source)


@pytest.mark.parametrize(
    "call",
    [
        "get_history(['NOSUCH'], 5, '1m', 'close')",
        "get_history(['BTCUSDT'], 5, '7m', 'close')",
        "get_history(['BTCUSDT'], 0, '1m', 'close')",
        "get_history(['BTCUSDT'], 10_001, '1m', 'close')",
        "get_history(['BTCUSDT'], 2.5, '1m', 'close')",
        "get_history(['BTCUSDT'], True, '1m', 'close')",
        "get_history([], 5, '1m', 'close')",
        "get_history(['BTCUSDT'], 5, '1m', 'colour')",
    ],
)
def test_a_wrong_question_names_what_is_wrong_and_the_line(host: RunnerProcess, call: str) -> None:
    message = fails(host, f"def strategy(context, d):\n    x = 1\n    context.{call}\n")
    assert "line 3" in message


def test_a_numpy_window_is_a_whole_number_too(host: RunnerProcess) -> None:
    source = """
import numpy as np
def strategy(context, config_dict):
    return {"N": len(context.get_history(["BTCUSDT"], np.int64(5), "1m", "close"))}
"""
    assert run(host, source).targets["N"]["weight"] == "5"


@pytest.mark.parametrize("error", [NotYet("the bar of 11:05"), Unavailable("no market service")])
def test_what_the_market_has_not_passes_through(
    host: RunnerProcess, error: NotYet | Unavailable
) -> None:
    source = (
        "def strategy(c, d):\n    c.get_history(['BTCUSDT'], 5, '1m', 'close')\n    return {}\n"
    )
    market = FakeMarket()
    market.fails.append(error)
    with pytest.raises(type(error)):
        run(host, source, market=market)


@pytest.mark.parametrize(
    "line",
    [
        "import os; os._exit(0)",
        "import ctypes; ctypes.string_at(0)",
        "import os; os.abort()",
        "import os; os.kill(os.getpid(), 9)",
        "import os; [os.close(n) for n in range(64) if n > 2]",
        "import gc, socket; [s.close() for s in gc.get_objects() if isinstance(s, socket.socket)]",
        "x = 'a' * (3 << 30)",
        "x = [0] * (1 << 28)\n    while True: x.append(list(x))",
        "while True: print('x' * 1_000_000)",
    ],
)
def test_G4_G5_a_process_that_dies_or_eats_everything_is_a_failure(
    host: RunnerProcess, line: str
) -> None:
    message = fails(host, f"def strategy(context, config_dict):\n    {line}\n    return {{}}\n")
    reasons = ("MemoryError", "ended without an answer", "OSError", "did not answer within")
    assert any(reason in message for reason in reasons)
    assert run(host, returning("{'A': 0.5}")).targets == {"A": {"weight": "0.5"}}


def test_G4_a_fork_bomb_is_refused_at_its_first_fork(host: RunnerProcess) -> None:
    before = len(psutil.Process(host.process.pid).children(recursive=True))
    message = fails(host, "import os\ndef strategy(c, d):\n    while True:\n        os.fork()\n")
    assert "line 4" in message
    assert len(psutil.Process(host.process.pid).children(recursive=True)) <= before + 1


def test_G4_a_thread_bomb_meets_its_own_limits(host: RunnerProcess) -> None:
    source = """
import threading
def strategy(context, config_dict):
    gate = threading.Event()
    for _ in range(100_000):
        threading.Thread(target=gate.wait, daemon=True).start()
    return {}
"""
    assert "RuntimeError" in fails(host, source)


@pytest.mark.parametrize(
    "line",
    [
        "while True: pass",
        "import time; time.sleep(600)",
        "sum(range(10 ** 12))",
        "import threading; threading.Event().wait()",
        "import re; re.match('(a+)+$', 'a' * 40 + 'b')",
    ],
)
def test_G1_a_strategy_that_hangs_is_ended_at_its_time(
    hasty_host: RunnerProcess, line: str
) -> None:
    with pytest.raises(StrategyFailed, match="did not answer within"):
        run(hasty_host, f"def strategy(context, config_dict):\n    {line}\n    return {{}}\n")
    me = psutil.Process(hasty_host.process.pid)
    _, alive = psutil.wait_procs(me.children(recursive=True), timeout=10)
    assert alive == []
    assert run(hasty_host, returning("{}")).targets == {}


def test_G1_time_spent_answering_windows_counts(hasty_host: RunnerProcess) -> None:
    source = """
def strategy(context, config_dict):
    while True:
        context.get_history(["BTCUSDT"], 1, "1m", "close")
"""
    with pytest.raises(StrategyFailed, match=r"windows|answer"):
        run(hasty_host, source)


def test_G1_time_in_which_the_bar_is_waited_for_does_not_count(hasty_host: RunnerProcess) -> None:
    class LateMarket(FakeMarket):
        def closed_bars(
            self, symbols: Sequence[str], frequency: Frequency, window: int, end: datetime
        ) -> Mapping[str, Sequence[Candle]]:
            time.sleep(2.5)
            return super().closed_bars(symbols, frequency, window, end)

    source = """
def strategy(context, config_dict):
    context.get_history(["BTCUSDT"], 1, "1m", "close")
    return {"A": 0.25}
"""
    assert run(hasty_host, source, market=LateMarket()).targets == {"A": {"weight": "0.25"}}


def test_G1_a_child_whose_asker_hung_up_is_ended(host: RunnerProcess) -> None:
    me = psutil.Process(host.process.pid)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.connect(str(host.socket_path))
    send_message(
        channel,
        {
            "source": "import time\ndef strategy(c, d):\n    time.sleep(600)\n",
            "config": {},
            "at": "2026-11-21T11:05:00Z",
            "timezone": "UTC",
        },
    )
    deadline_s = time.monotonic() + 20
    while not (children := me.children()) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert len(children) == 1
    channel.close()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_S26_a_forged_message_is_no_answer(host: RunnerProcess) -> None:
    """User code may write to the channel itself: what it can say is weights, and nothing else."""
    source = """
import gc, json, socket, struct
def strategy(context, config_dict):
    channel = next(s for s in gc.get_objects() if isinstance(s, socket.socket) and s.fileno() > 2)
    body = json.dumps(%s).encode()
    channel.sendall(struct.pack("!I", len(body)) + body)
    while True: pass
"""
    for message in (
        {"op": "terminate", "session_id": "2611211102-zzzz"},
        {"op": "answer", "targets": {"BTCUSDT": {"weight": 0.5}}},
        {"op": "answer", "targets": {"BTCUSDT": "0.5"}},
        {"op": "answer", "targets": [1]},
        {"op": "history", "assets": "BTCUSDT", "window": 5, "frequency": "1m"},
        {"op": "history", "assets": ["BTCUSDT"], "window": 10**9, "frequency": "1m"},
        {"op": "history", "assets": ["BTCUSDT"], "window": 5, "frequency": "../1m"},
    ):
        with pytest.raises(StrategyFailed):
            run(host, source % repr(message))
