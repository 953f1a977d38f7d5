"""An HTTP server that answers exactly what a test wrote down, byte by byte, or hangs up."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Scripted:
    """One answer. `hang_up` resets the connection after the request was read; `cut` announces
    more bytes than are sent; `after_s` real seconds it comes late.
    """

    body: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hang_up: bool = False
    cut: bool = False
    after_s: float = 0.0


def ok(data: object) -> Scripted:
    """Bitget's envelope of success."""
    return Scripted(json.dumps({"code": "00000", "msg": "success", "requestTime": 1, "data": data}))


def refused(code: str, status: int = 400) -> Scripted:
    """Bitget's envelope of an error."""
    body = {"code": code, "msg": f"said {code}", "requestTime": 1, "data": None}
    return Scripted(json.dumps(body), status)


class ScriptedExchange:
    """`script[path]` is a queue of answers; the last one stays. Requests are kept."""

    def __init__(self) -> None:
        self.script: dict[str, deque[Scripted]] = defaultdict(deque)
        self.requests: list[tuple[str, str, dict[str, object]]] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.headers: list[Mapping[str, str]] = []
        self._lock = threading.Lock()
        exchange = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                exchange._answer(self)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def then(self, path: str, *answers: Scripted) -> None:
        """These answers next, in this order; the last one again and again."""
        self.script[path] = deque(answers)

    def sent(self, path: str) -> list[dict[str, object]]:
        """The bodies that reached `path`."""
        return [body for _, where, body in self.requests if where == path]

    def queries(self, path: str) -> list[dict[str, str]]:
        """What was asked of `path` in its address."""
        return [words for where, words in self.asked if where == path]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        address = urlsplit(handler.path)
        path = address.path
        length = int(handler.headers.get("Content-Length") or 0)
        raw = handler.rfile.read(length) if length else b"{}"
        with self._lock:
            self.requests.append((handler.command, path, json.loads(raw)))
            self.asked.append((path, dict(parse_qsl(address.query))))
            self.headers.append(dict(handler.headers))
            queue = self.script.get(path) or deque([refused("40404", 404)])
            answer = queue.popleft() if len(queue) > 1 else queue[0]
        if answer.after_s:
            time.sleep(answer.after_s)
        if answer.hang_up:
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.close_connection = True
            handler.connection.close()
            return
        body = answer.body.encode()
        with contextlib.suppress(ConnectionError):  # whoever asked may have given it up
            self._send(handler, answer, body)

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, answer: Scripted, body: bytes) -> None:
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) + (100 if answer.cut else 0)))
        handler.end_headers()
        handler.wfile.write(body)
        if answer.cut:
            handler.close_connection = True


@contextmanager
def scripted_exchange() -> Iterator[ScriptedExchange]:
    exchange = ScriptedExchange()
    try:
        yield exchange
    finally:
        exchange.close()
