"""A Unix socket in front of Postgres that loses the answer to COMMIT when told to."""

from __future__ import annotations

import contextlib
import selectors
import shutil
import socket
import tempfile
import threading
from pathlib import Path


class CommitLosingProxy:
    """Passes bytes on; the next `lose` COMMITs reach Postgres, their answers reach nobody."""

    def __init__(self, server_socket: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="aifap-proxy-"))
        self.lose = 0
        self.lost = 0
        self._server_socket = server_socket
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / ".s.PGSQL.5432"))
        self._listener.listen(16)
        self._listener.settimeout(0.1)
        self._run(self._accept)

    def close(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(timeout=5)
        self._listener.close()
        shutil.rmtree(self.folder)

    def _run(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self._server_socket))
        with client, server, selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while not self._ending.is_set():
                for key, _ in selector.select(0.1):
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    data = source.recv(65_536)
                    if not data:
                        return
                    key.data.sendall(data)
                    if source is client and b"COMMIT" in data and self.lose > 0:
                        self.lose -= 1
                        self.lost += 1
                        server.settimeout(5)
                        server.recv(65_536)  # it is committed now
                        return
