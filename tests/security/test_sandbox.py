"""The wall around user code, with a real runner host and strategies that mean harm (S24 to S27)."""

from __future__ import annotations

import ast
import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from module.model.errors import StrategyFailed
from tests.fakes.market import FakeMarket
from tests.fakes.runner_process import RunnerProcess

AT = datetime(2026, 11, 21, 11, 5, tzinfo=UTC)
SECRET = "9f1c-the-secret-of-the-house"


@pytest.fixture(scope="module")
def host() -> Iterator[RunnerProcess]:
    os.environ["AIFAP_TEST_CANARY"] = SECRET
    running = RunnerProcess()
    try:
        yield running
    finally:
        running.stop()
        del os.environ["AIFAP_TEST_CANARY"]


def tell(host: RunnerProcess, body: str, config: dict[str, object] | None = None) -> str:
    """Run `body` inside a strategy; what it assigned to `found`, as text."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    source = f"def strategy(context, config_dict):\n{lines}\n    raise LookupError(str(found))\n"
    with pytest.raises(StrategyFailed) as failed:
        host.runner().run(source, config or {}, AT, FakeMarket())
    message = failed.value.message
    assert "LookupError: " in message, message
    return message.split("LookupError: ", 1)[1].rsplit(" (line", 1)[0]


def attempt(host: RunnerProcess, action: str, config: dict[str, object] | None = None) -> str:
    """Try `action`; "done" or the name of the error it met."""
    lines = "\n".join(f"    {line}" for line in action.strip().splitlines())
    body = f"try:\n{lines}\n    found = 'done'\nexcept BaseException as error:\n"
    return tell(host, body + "    found = type(error).__name__", config)


REFUSED = ("PermissionError", "FileNotFoundError", "OSError")


# --- what it can see ---


def test_S27_the_environment_holds_nothing_of_ours(host: RunnerProcess) -> None:
    found = tell(host, "import os\nfound = sorted(os.environ)")
    assert found == str(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"])
    assert SECRET not in tell(
        host,
        """
import ctypes
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
found = [libc.getenv(name) for name in (b'AIFAP_TEST_CANARY', b'PATH', b'HOME')]
""",
    )


def test_S26_the_channel_is_the_only_open_descriptor(host: RunnerProcess) -> None:
    found = tell(
        host,
        """
import os, stat
found = []
for number in range(64):
    try:
        facts = os.fstat(number)
    except OSError:
        continue
    found.append((number, 'socket' if stat.S_ISSOCK(facts.st_mode) else facts.st_rdev))
""",
    )
    null = Path(os.devnull).stat().st_rdev
    standard = [(number, null) for number in range(3)]
    listed = ast.literal_eval(found)
    assert listed[:3] == standard
    assert [kind for _, kind in listed[3:]] == ["socket"]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/etc/hostname",
        "/proc/self/environ",
        "/proc/self/maps",
        "/proc/1/environ",
        "/dev/shm",
        "/tmp",
        "/",
        "/root",
        "/home",
        "/work",
        "/sys/class/net",
    ],
)
def test_S25_no_file_of_the_machine_can_be_read(host: RunnerProcess, path: str) -> None:
    action = (
        f"import os\nos.listdir({path!r}) if os.path.isdir({path!r}) else open({path!r}).read()"
    )
    assert attempt(host, action) in REFUSED


def test_S25_the_secrets_of_the_data_folder_cannot_be_read(
    host: RunnerProcess, tmp_path: Path
) -> None:
    secret = tmp_path / "secrets" / "token_key"
    secret.parent.mkdir()
    secret.write_text(SECRET)
    assert attempt(host, f"open({str(secret)!r}).read()") in REFUSED
    assert attempt(host, f"import os\nos.listdir({str(tmp_path)!r})") in REFUSED
    assert attempt(host, f"import os\nos.chmod({str(secret)!r}, 0o777)") == "PermissionError"
    assert attempt(host, f"import os\nos.utime({str(secret)!r}, (1, 1))") == "PermissionError"
    assert attempt(host, f"import os\nos.chown({str(secret)!r}, 7, 7)") == "PermissionError"


@pytest.mark.parametrize("file", ["environ", "maps", "mem", "cmdline"])
def test_S22_the_hosts_process_cannot_be_read(host: RunnerProcess, file: str) -> None:
    assert attempt(host, f"open('/proc/{host.process.pid}/{file}', 'rb').read()") in REFUSED
    assert attempt(host, f"open('/proc/{os.getpid()}/{file}', 'rb').read()") in REFUSED


# --- what it can reach ---


def test_S24_no_socket_of_any_kind_and_nobody_hears_it(host: RunnerProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.settimeout(0.2)
        port = canary.getsockname()[1]
        action = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)"
        assert attempt(host, action) == "PermissionError"
        with pytest.raises(TimeoutError):
            canary.accept()
    for family, kind in (
        ("AF_INET", "SOCK_DGRAM"),
        ("AF_INET6", "SOCK_STREAM"),
        ("AF_UNIX", "SOCK_STREAM"),
    ):
        action = f"import socket\nsocket.socket(socket.{family}, socket.{kind})"
        assert attempt(host, action) == "PermissionError"


def test_S24_the_runner_hosts_own_socket_cannot_be_reached(host: RunnerProcess) -> None:
    action = f"import socket\nsocket.socket(socket.AF_UNIX).connect({str(host.socket_path)!r})"
    assert attempt(host, action) == "PermissionError"


@pytest.mark.parametrize(
    "path", ["{tmp}/planted", "/tmp/planted", "/dev/shm/planted", "planted", "/root/planted"]
)
def test_S25_nothing_can_be_written(host: RunnerProcess, tmp_path: Path, path: str) -> None:
    place = path.format(tmp=tmp_path)
    assert attempt(host, f"open({place!r}, 'w').write('x')") in REFUSED
    assert attempt(host, f"import os\nos.mkdir({place!r})") in REFUSED
    assert list(tmp_path.iterdir()) == []


def test_S25_packages_can_be_read_but_not_changed(host: RunnerProcess) -> None:
    assert attempt(host, "import json\nopen(json.__file__).read()") == "done"
    assert attempt(host, "import json\nopen(json.__file__, 'a').write('x')") in REFUSED


def test_S22_nobody_can_be_signalled_or_traced(host: RunnerProcess) -> None:
    parent, me = host.process.pid, os.getpid()
    for action in (
        f"import os\nos.kill({parent}, 9)",
        f"import os\nos.kill({me}, 0)",
        "import os\nos.kill(os.getppid(), 9)",
        "import os\nos.killpg(0, 0)",
        f"import os\nos.pidfd_open({parent})",
        "import os\nos.kill(-1, 0)",
    ):
        assert attempt(host, action) == "PermissionError", action
    assert host.process.poll() is None
    traced = tell(
        host,
        f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"found = libc.ptrace(16, {parent}, 0, 0), ctypes.get_errno()",
    )
    assert traced == "(-1, 1)"


def test_G4_no_process_can_be_started(host: RunnerProcess) -> None:
    for action in (
        "import os\nos.fork()",
        "import subprocess\nsubprocess.run(['/bin/true'])",
        "import os\nos.execv('/bin/true', ['true'])",
        "import os\nos.posix_spawn('/bin/true', ['true'], {})",
        "import multiprocessing\nmultiprocessing.Process(target=print).start()",
    ):
        assert attempt(host, action) in REFUSED, action


def test_S27_limits_cannot_be_raised(host: RunnerProcess) -> None:
    for name in ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_NOFILE", "RLIMIT_FSIZE"):
        action = f"import resource\nresource.setrlimit(resource.{name}, (-1, -1))"
        assert attempt(host, action) in (*REFUSED, "ValueError")
        assert attempt(host, f"import resource\nresource.getrlimit(resource.{name})") == "done"


def test_S25_no_memory_outlives_the_call(host: RunnerProcess) -> None:
    found = tell(
        host,
        """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
found = libc.shmget(7, 4096, 0o1666), libc.msgget(7, 0o1666), libc.semget(7, 1, 0o1666)
""",
    )
    assert found == "(-1, -1, -1)"


def test_S23_the_wall_cannot_be_taken_down_from_inside(host: RunnerProcess) -> None:
    found = tell(
        host,
        """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
found = [libc.prctl(1, 0, 0, 0, 0), libc.prctl(4, 1, 0, 0, 0), libc.unshare(0x10000000),
         libc.chroot(b'/'), libc.setns(0, 0)]
""",
    )
    assert found == "[-1, -1, -1, -1, -1]"


# --- what it leaves ---


def test_S25_nothing_is_left_from_call_to_call(host: RunnerProcess) -> None:
    look = "found = [hasattr(builtins, 'left'), 'left' in sys.modules, hasattr(json, 'left')]"
    leave = "builtins.left = json.left = 17\nsys.modules['left'] = json"
    assert tell(host, f"import builtins, sys, json\n{leave}\n{look}") == "[True, True, True]"
    assert tell(host, f"import builtins, sys, json\n{look}") == "[False, False, False]"


def test_I20_no_child_and_no_descriptor_is_left(host: RunnerProcess) -> None:
    tell(host, "found = 1")
    me = psutil.Process(host.process.pid)
    before = me.num_fds()

    def call() -> None:
        tell(host, "import os\nfound = os.getpid()")

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    tell(host, "found = 1")
    living = [child for child in me.children() if child.status() != psutil.STATUS_ZOMBIE]
    psutil.wait_procs(living, timeout=10)
    assert me.num_fds() <= before  # the host may have been closing the first call's, back then


def test_the_host_itself_was_given_nothing(host: RunnerProcess) -> None:
    environment = Path(f"/proc/{host.process.pid}/environ").read_bytes()
    assert environment == b""
    assert SECRET not in host.logged()
