"""The image: what the Dockerfile promises, what gets into it, and the default command at work."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.unit.deploy.rendering import DEPLOY, ROOT, containers_of, render_overlay

PACKAGES = ("api", "dashboards", "module", "monitoring", "trading")
START_POLLS_MAX = 300
POLL_S = 0.1


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.split(None, 1) for line in lines if line and not line.startswith("#")]
    return [(name, rest) for name, rest in pairs]


# --- the Dockerfile -------------------------------------------------------------------------------


def test_S46_packages_are_installed_from_the_lock_with_their_hashes(
    instructions: list[tuple[str, str]],
) -> None:
    commands = [
        command
        for name, rest in instructions
        if name == "RUN"
        for command in rest.split("&&")
        if re.search(r"\bpip\b.* (install|wheel) ", command)
    ]
    assert len(commands) == 5
    for command in commands:
        from_the_lock = "--require-hashes" in command and " -r " in command
        already_here = "--no-index --no-deps" in command
        our_own = "--no-deps" in command and command.strip().endswith(" .")
        assert from_the_lock or already_here or our_own, command
        if " wheel " in command:  # sources are built with the locked backend alone
            assert "--no-build-isolation" in command
        elif from_the_lock:
            assert "--only-binary :all:" in command
    assert not any(name == "ADD" for name, _ in instructions)


def test_S47_the_image_runs_as_a_number_that_is_not_root(
    instructions: list[tuple[str, str]],
) -> None:
    users = [rest for name, rest in instructions if name == "USER"]
    assert users == ["10001:10001"]
    last_from = max(i for i, (name, _) in enumerate(instructions) if name == "FROM")
    assert ("USER", users[0]) in instructions[last_from:]
    for one in render_overlay("production"):
        for _ in containers_of(one):
            template = one["spec"].get("template") or one["spec"]["jobTemplate"]["spec"]["template"]
            assert template["spec"]["securityContext"]["runAsUser"] == 10001


def test_S47_base_images_have_a_version_and_can_be_given_a_digest(
    instructions: list[tuple[str, str]],
) -> None:
    assert {rest.split()[0] for name, rest in instructions if name == "FROM"} == {"${PYTHON_IMAGE}"}
    (base,) = [rest for name, rest in instructions if name == "ARG"]
    assert base == "PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm"


def test_S50_no_secret_is_built_in(instructions: list[tuple[str, str]]) -> None:
    for name, rest in instructions:
        if name in ("ARG", "ENV"):
            assert not re.search(r"password|secret|token|key=", rest, re.IGNORECASE), rest


def test_the_default_command_is_the_platforms(instructions: list[tuple[str, str]]) -> None:
    (default,) = [rest for name, rest in instructions if name == "CMD"]
    (api,) = [
        one
        for one in render_overlay("production")
        if one["metadata"]["name"] == "dep-fin-aifap-bt-api"
    ]
    (container,) = containers_of(api)
    assert default == "[" + ", ".join(f'"{word}"' for word in container["command"]) + "]"


def test_only_what_the_image_needs_reaches_the_builder(
    instructions: list[tuple[str, str]],
) -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for name, rest in instructions
        if name == "COPY" and "--from=" not in rest
        for source in rest.split()[:-1]
    }
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(source == entry or source.startswith(f"{entry}/") for entry in let_in), source
    for entry in let_in:
        assert any(source == entry or source.startswith(f"{entry}/") for source in copied), entry
    assert not let_in & {".git", ".venv", "tests", ".aifap"}


def test_the_locks_hold_what_the_build_takes_from_them() -> None:
    backend = re.search(
        r"^setuptools==[^\n]*(\\\n +--hash=sha256:[0-9a-f]{64} ?)+",
        (ROOT / "requirements-dev.txt").read_text(),
        re.MULTILINE,
    )
    assert backend is not None
    assert (ROOT / "requirements.txt").read_text().count("--hash=sha256:") > 100


def test_hadolint_finds_nothing() -> None:
    own = Path(sys.executable).with_name("hadolint")
    program = str(own) if own.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("there is no hadolint here")
    ran = subprocess.run(
        [program, str(ROOT / "Dockerfile")], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "")


def test_every_file_of_the_packages_gets_into_the_wheel() -> None:
    """setuptools takes folders with an `__init__.py`, and other files by their declared names."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = declared["package-data"]["*"]
    assert set(declared["packages"]["find"]["include"]) == {f"{name}*" for name in PACKAGES}
    left_out = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            in_a_package = (path.parent / "__init__.py").exists()
            taken = path.suffix == ".py" or any(fnmatch(path.name, one) for one in patterns)
            if not (in_a_package and taken):
                left_out.append(str(path.relative_to(ROOT)))
    # Grafana reads these from the checkout; no process of ours does.
    assert [name for name in left_out if not name.startswith("dashboards/grafana/")] == []


# --- the default command at work ------------------------------------------------------------------


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """The default command, with the image's own configuration, on a Unix socket."""
    door = tmp_path / "door"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "AIFAP_DATA_DIR": str(tmp_path / "data"),
        "AIFAP_DATABASE_HOST": "127.0.0.1",
        "AIFAP_DATABASE_PORT": "9",
        "AIFAP_API_WORKERS": "2",
    }
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "--bind", f"unix:{door}"),
            *("--config", str(DEPLOY / "image" / "gunicorn.conf.py"), "api.asgi:application()"),
        ],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield door, process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)


def ask(door: Path, path: str, host: str = "localhost") -> tuple[int, dict[str, str]]:
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(30)
    connection.sock.connect(str(door))
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    connection.close()
    return answer.status, headers


def wait_until_it_lives(door: Path, process: subprocess.Popen[bytes]) -> dict[str, str]:
    for _ in range(START_POLLS_MAX):
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            status, headers = ask(door, "/health/live")
            if status == 200:
                return headers
        time.sleep(POLL_S)
    os.killpg(process.pid, signal.SIGKILL)
    said = process.communicate(timeout=30)[1].decode(errors="replace")
    raise AssertionError(f"gunicorn did not serve: {said[-2000:]}")


def test_H11_the_default_command_lives_without_postgres_is_not_ready_and_ends_when_told(
    gunicorn: tuple[Path, subprocess.Popen[bytes]],
) -> None:
    door, process = gunicorn
    headers = wait_until_it_lives(door, process)
    assert "server" not in headers
    assert ask(door, "/health/ready")[0] == 503
    assert ask(door, "/dashboard/", host="10.9.8.7")[0] == 421
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
