"""Words between a launcher or leader and the session host: one JSON line each way, Unix socket.

    {"op": "start"|"stop"|"poll"|"ping"|"shutdown", "session_id"?: …}
    {"op": "fork", "role": "strategy"|"finwatcher", "session_id": …} + descriptors (SCM_RIGHTS)

Answer: {"ok": true, …} or {"ok": false, "error": …}. Only processes of the host's own user may
speak (SO_PEERCRED).
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from module.model.errors import Unavailable

LINE_MAX = 65_536
ANSWER_TIMEOUT_S = 30.0
DESCRIPTORS_MAX = 8


def host_socket_path(data_dir: Path) -> Path:
    """Where this build's host listens."""
    return data_dir / "run" / f"host-{build_id()}.sock"


def runner_socket_path(data_dir: Path) -> Path:
    """Where this build's runner host listens."""
    return data_dir / "run" / f"runner-{build_id()}.sock"


@cache
def build_id() -> str:
    """Eight characters that differ between builds: a digest over the package's own sources."""
    root = Path(__file__).resolve().parents[2]
    summary = hashlib.sha256()
    for room in ("api", "module", "monitoring", "trading"):
        for path in sorted((root / room).rglob("*.py")):
            summary.update(str(path.relative_to(root)).encode())
            summary.update(path.read_bytes())
    return summary.hexdigest()[:8]


def ask_host(
    path: Path,
    message: Mapping[str, object],
    descriptors: Sequence[int] = (),
    timeout_s: float = ANSWER_TIMEOUT_S,
) -> dict[str, object]:
    """Send one request and return the answer; Unavailable when no host listens or it refuses."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.settimeout(timeout_s)
    try:
        channel.connect(str(path))
        line = json.dumps(message).encode() + b"\n"
        if descriptors:
            socket.send_fds(channel, [line], list(descriptors))
        else:
            channel.sendall(line)
        answer = _read_line(channel)
    except OSError as error:
        raise Unavailable(f"the session host at {path} does not answer: {error}") from error
    finally:
        channel.close()
    if not answer.get("ok"):
        raise Unavailable(f"the session host refused {message.get('op')}: {answer.get('error')}")
    return answer


def _read_line(channel: socket.socket) -> dict[str, object]:
    data = b""
    while not data.endswith(b"\n"):
        part = channel.recv(4096)
        if not part or len(data) > LINE_MAX:
            raise ConnectionResetError("the host closed the connection without an answer")
        data += part
    try:
        loaded = json.loads(data)
    except ValueError as error:
        raise ConnectionResetError("the host's answer is not JSON") from error
    if not isinstance(loaded, dict):
        raise ConnectionResetError("the host's answer is not an object")
    return loaded


def read_request(channel: socket.socket) -> tuple[dict[str, object], list[int]]:
    """The host's side: one request and the descriptors that came with it."""
    data, descriptors, _, _ = socket.recv_fds(channel, LINE_MAX, DESCRIPTORS_MAX)
    try:
        while data and not data.endswith(b"\n") and len(data) < LINE_MAX:
            part = channel.recv(LINE_MAX - len(data))
            if not part:
                break
            data += part
    except OSError:  # a line that never ends: nobody else would close what came with it
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    try:
        loaded = json.loads(data)
    except ValueError:
        return {}, list(descriptors)
    return (loaded if isinstance(loaded, dict) else {}), list(descriptors)


def peer_uid(channel: socket.socket) -> int:
    """The user on the other side of a Unix socket."""
    raw = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])
