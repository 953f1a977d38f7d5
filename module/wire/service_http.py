"""One HTTP call to a service of our own installation, classified by what may have happened.

Knows nothing of retries: it says whether an answer came, whether the request was certainly not
sent, or whether it is lost (sent, no usable answer). `urllib3` with pooled connections; a forked
child makes its own pool.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from module.model.errors import InvalidInput

if TYPE_CHECKING:
    import urllib3

_CONNECT_TIMEOUT_S = 2.0
_ANSWER_BYTES_MAX = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of a complete answer."""

    status: int
    body: bytes

    def json(self) -> object:
        """The body as JSON; ValueError when it is not."""
        return json.loads(self.body)


class NotSentError(Exception):
    """No connection: the other side certainly has not seen the request."""


class LostError(Exception):
    """The request left and no whole answer came back: it may have been carried out."""


class Connections:
    """Kept connections of one process; thread safe. At most `size` to a host stay open."""

    def __init__(self, size: int = 4) -> None:
        self._size = size
        self._pool: urllib3.PoolManager | None = None
        self._pool_pid = 0

    def pool(self) -> urllib3.PoolManager:
        """The pool; a forked child makes its own."""
        import urllib3

        if self._pool is None or self._pool_pid != os.getpid():
            self._pool = urllib3.PoolManager(maxsize=self._size)
            self._pool_pid = os.getpid()
        return self._pool

    def close(self) -> None:
        """Leave no connection open."""
        if self._pool is not None and self._pool_pid == os.getpid():
            self._pool.clear()
        self._pool = None


class ServiceHttp:
    """Calls under one base URL with one bearer token. The token is never printed.

    `connections` are somebody's who makes calls with several tokens, and are theirs to close.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        answer_timeout_s: float = 45.0,
        connections: Connections | None = None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise InvalidInput(f"not a service address: {base_url!r}")
        self.base_url = base_url.rstrip("/")
        self._token = token
        self._answer_timeout_s = answer_timeout_s
        self._shared = connections is not None
        self._connections = connections or Connections()

    def __repr__(self) -> str:
        return f"ServiceHttp({self.base_url!r})"

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        document: object = None,
    ) -> Answer:
        """One request, one answer. NotSentError or LostError when there is none."""
        import urllib3
        from urllib3.exceptions import (
            ConnectTimeoutError,
            HTTPError,
            NameResolutionError,
            NewConnectionError,
        )

        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        body = None
        if document is not None:
            body = json.dumps(document, separators=(",", ":")).encode()
            headers["Content-Type"] = "application/json"
        try:
            response = self._connections.pool().request(
                method,
                self.base_url + path,
                fields=dict(query) if query else None,
                body=body,
                headers=headers,
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=self._answer_timeout_s),
            )
        except (NewConnectionError, NameResolutionError, ConnectTimeoutError) as error:
            raise NotSentError(f"{method} {self.base_url}{path}: {error}") from error
        except HTTPError as error:
            raise LostError(f"{method} {self.base_url}{path}: {type(error).__name__}") from error
        if len(response.data) > _ANSWER_BYTES_MAX:
            raise LostError(f"{method} {self.base_url}{path}: answer of {len(response.data)} bytes")
        return Answer(response.status, response.data)

    def close(self) -> None:
        """Leave no connection open."""
        if not self._shared:
            self._connections.close()
