"""The platform's own HTTP API as the command line uses it: nothing that curl could not do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping

import urllib3

from module.model.errors import AifapError, Unavailable

TIMEOUT_S = 30.0
DOWNLOAD_BYTES = 65_536


class PlatformClient:
    """One person's token at one address."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._pool = urllib3.PoolManager(retries=False)

    def get(self, path: str) -> dict[str, object]:
        """GET `path`; a problem is raised with the API's own words."""
        return self._call("GET", path, None)

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, object]:
        """POST `body` to `path`; a problem is raised with the API's own words."""
        return self._call("POST", path, json.dumps(body).encode())

    def put(self, path: str, body: Mapping[str, object]) -> dict[str, object]:
        """PUT `body` to `path`; a problem is raised with the API's own words."""
        return self._call("PUT", path, json.dumps(body).encode())

    def patch(self, path: str, body: Mapping[str, object]) -> dict[str, object]:
        """PATCH `path` with `body`; a problem is raised with the API's own words."""
        return self._call("PATCH", path, json.dumps(body).encode())

    def delete(self, path: str) -> dict[str, object]:
        """DELETE `path`; a problem is raised with the API's own words."""
        return self._call("DELETE", path, None)

    def events(self, path: str) -> Iterator[tuple[str, dict[str, object]]]:
        """Server-sent events of `path` as (name, document), until the stream ends."""
        answer = self._pool.request(
            "GET",
            self._url + path,
            headers=self._headers,
            preload_content=False,
            timeout=urllib3.Timeout(connect=5.0, read=TIMEOUT_S),
        )
        name, buffer = "", b""
        for chunk in answer.stream(4096):
            buffer += chunk
            while b"\n" in buffer:
                line, buffer = buffer.split(b"\n", 1)
                if line.startswith(b"event: "):
                    name = line[7:].decode()
                elif line.startswith(b"data: "):
                    yield name, json.loads(line[6:])

    def download(self, path: str) -> Iterator[bytes]:
        """GET `path` as CSV, piece by piece. Unavailable when it ends before it is whole."""
        headers = {**self._headers, "Accept": "text/csv", "Accept-Encoding": "gzip"}
        try:
            answer = self._pool.request(
                "GET", self._url + path, headers=headers, preload_content=False, timeout=TIMEOUT_S
            )
            if answer.status >= 400:
                raise _problem(f"GET {path}", answer.status, answer.data)
            yield from answer.stream(DOWNLOAD_BYTES, decode_content=True)
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(f"the download from {self._url} broke off: {error}") from error

    def _call(self, method: str, path: str, body: bytes | None) -> dict[str, object]:
        try:
            answer = self._pool.request(
                method, self._url + path, body=body, headers=self._headers, timeout=TIMEOUT_S
            )
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(f"the API at {self._url} does not answer: {error}") from error
        if answer.status >= 400:
            raise _problem(f"{method} {path}", answer.status, answer.data)
        return _read_object(f"{method} {path}", answer.status, answer.data)


def _problem(what: str, status: int, raw: bytes) -> AifapError:
    """The API's own words."""
    document = _read_object(what, status, raw)
    detail = str(document.get("detail", document))
    return AifapError(detail, code=str(document.get("code", status)))


def _read_object(what: str, status: int, raw: bytes) -> dict[str, object]:
    try:
        return dict(json.loads(raw))
    except (ValueError, TypeError) as error:
        raise Unavailable(f"{what} answered {status} without JSON") from error


class LiveFeed:
    """The newest live document, kept by a thread that follows `/stream/sessions`."""

    def __init__(self, client: PlatformClient) -> None:
        self._client = client
        self._stopping = threading.Event()
        self._newest: dict[str, object] | None = None
        self.trouble = ""
        self._thread = threading.Thread(target=self._follow, name="live-feed", daemon=True)
        self._thread.start()

    @property
    def newest(self) -> dict[str, object] | None:
        """What was heard last; None before anything was."""
        return self._newest

    def stop(self) -> None:
        """Stop listening (the thread ends with the next event)."""
        self._stopping.set()

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                for name, document in self._client.events("/stream/sessions"):
                    if self._stopping.is_set():
                        return
                    if name == "sessions":
                        self._newest, self.trouble = document, ""
                    else:
                        self.trouble = str(document.get("message"))
            except (urllib3.exceptions.HTTPError, ValueError) as error:
                self.trouble = f"the API does not answer: {error}"
            self._stopping.wait(0.5)
