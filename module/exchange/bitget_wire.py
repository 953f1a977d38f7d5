"""One Bitget account on the wire: ccxt signs and sends, we read status, code and body ourselves.

ccxt's unified calls lose rejections and turn broken answers into success, so only its implicit
(raw) calls are used, and its error handling is replaced: every answer comes here as it was.
Nothing is repeated, nothing waits, nothing is printed.

ccxt objects are not thread safe. A call borrows one from a small pool and gives it back; an object
is used by one thread at a time and keeps its connection alive between calls.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from module.exchange.bitget_codes import SUCCESS, Verdict, verdict_of
from module.exchange.venue import (
    NoPosition,
    Priority,
    RequestGate,
    RequestKind,
    WrongSideOfPrice,
)
from module.model.credentials import Credentials
from module.model.errors import (
    AifapError,
    Forbidden,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    Unavailable,
)
from module.ports import Clock

log = logging.getLogger(__name__)

TIMEOUT_MS: Final = 10_000
CONNECTIONS_MAX: Final = 8
CREDENTIALS_PAUSE: Final = timedelta(minutes=5)
BAN_S: Final = 120.0
PENALTY_FIRST_S: Final = 1.0
PENALTY_MAX_S: Final = 60.0
_API_KEYS: Final = (
    *("spot", "mix", "user", "p2p", "broker", "margin"),
    *("common", "tax", "convert", "copy", "earn", "uta"),
)

# ccxt logs request headers, which hold the key and the passphrase, at debug level.
_SILENT = logging.Logger("ccxt-silenced", level=logging.CRITICAL + 1)


class Duplicate(Rejected):
    """The client id is known to the exchange: the first one got there."""

    code = "duplicate-client-id"


class NoChange(Rejected):
    """It is already as asked."""

    code = "no-change"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One implicit method of ccxt, its published limit, and whether it changes anything."""

    method: str
    kind: RequestKind
    is_write: bool


def endpoint(method: str, per_second: int, *, is_write: bool = False) -> Endpoint:
    """`method` is ccxt's implicit name; its prefix says whether it is signed."""
    private = method.startswith("private")
    return Endpoint(method, RequestKind(method, per_second, private), is_write)


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One HTTP answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(slots=True)
class WireState:
    """What the last answers taught: clock offset, penalties, refused credentials."""

    offset_ms: int = 0
    rate_limits_in_a_row: int = 0
    refused_until: datetime | None = None
    refused_why: str = ""
    idle: list[Any] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class BitgetWire:
    """Raw calls of one account, or of nobody (public data). Thread safe."""

    def __init__(
        self,
        base_url: str,
        credentials: Credentials | None,
        *,
        demo: bool,
        gate: RequestGate,
        clock: Clock,
        timeout_ms: int = TIMEOUT_MS,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._credentials = credentials
        self._demo = demo
        self._gate = gate
        self._clock = clock
        self._timeout_ms = timeout_ms
        self._state = WireState()
        self._closed = False

    def __repr__(self) -> str:
        return f"BitgetWire({self._base_url!r})"

    def admit(self, endpoints: list[Endpoint], priority: Priority) -> None:
        """Take the budget of several calls at once; RateLimited when there is no room for all."""
        self._gate.admit([item.kind for item in endpoints], priority)

    def call(self, target: Endpoint, params: Mapping[str, object], priority: Priority) -> object:
        """Admit and send; see `send`."""
        self.admit([target], priority)
        return self.send(target, params)

    def send(self, target: Endpoint, params: Mapping[str, object]) -> object:
        """One request that was admitted; the `data` of a successful answer.

        Of a write: OutcomeUnknown when it may have happened; RateLimited and Unavailable only when
        it certainly has not. Of a read: Retryable kinds. Both: Forbidden for refused credentials,
        Rejected (with Bitget's code) and its kinds for proven refusals.
        """
        self._check_credentials_pause(target)
        answer = self._exchange(target, params)
        return self._interpret(target, answer)

    def close(self) -> None:
        """Close idle connections; borrowed ones are closed when they come back."""
        self._closed = True
        with self._state.lock:
            idle, self._state.idle = self._state.idle, []
        for connector in idle:
            connector.session.close()

    # --- sending -------------------------------------------------------------------------------

    def _exchange(self, target: Endpoint, params: Mapping[str, object]) -> RawAnswer:
        import ccxt
        from requests.exceptions import ConnectionError as RequestsConnectionError
        from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError

        connector = self._borrow()
        connector.last_answer = None
        failure: BaseException | None = None
        try:
            getattr(connector, target.method)(dict(params))
        except (ccxt.BaseError, OSError, ValueError) as error:
            failure = error
        finally:
            self._give_back(connector)
        answer = connector.last_answer
        if isinstance(answer, RawAnswer):
            return answer
        cause = failure.__cause__ if failure is not None else None
        inner = cause.args[0] if isinstance(cause, RequestsConnectionError) and cause.args else None
        reason = inner.reason if isinstance(inner, MaxRetryError) else None
        if isinstance(reason, (NewConnectionError, ConnectTimeoutError)):
            raise Unavailable(
                f"{self._base_url} cannot be reached; nothing was sent", retry_after_s=1.0
            ) from failure
        what = type(failure).__name__ if failure is not None else "no answer"
        if target.is_write:
            raise OutcomeUnknown(
                f"{target.method}: {what}; it may have happened, ask the exchange"
            ) from failure
        raise Unavailable(f"{target.method}: {what}; ask again", retry_after_s=0.5) from failure

    def _borrow(self) -> Any:
        with self._state.lock:
            if self._state.idle:
                return self._state.idle.pop()
        return self._new_connector()

    def _give_back(self, connector: Any) -> None:
        with self._state.lock:
            if not self._closed and len(self._state.idle) < CONNECTIONS_MAX:
                self._state.idle.append(connector)
                return
        connector.session.close()

    def _new_connector(self) -> Any:
        keys: dict[str, object] = {}
        if self._credentials is not None:
            keys = {
                "apiKey": self._credentials.api_key,
                "secret": self._credentials.api_secret,
                "password": self._credentials.passphrase,
            }
        connector = _connector_class()(
            {
                **keys,
                "enableRateLimit": False,
                "timeout": self._timeout_ms,
                "urls": {"api": dict.fromkeys(_API_KEYS, self._base_url)},
                "options": {
                    "uta": False,
                    "maxRetriesOnFailure": 0,
                    "sandboxMode": self._demo,
                },
            }
        )
        connector.logger = _SILENT
        connector.session.max_redirects = 0
        connector.timestamp_ms = self._timestamp_ms
        return connector

    def _timestamp_ms(self) -> int:
        """Real time: what every exchange compares with; corrected by what it told us (A23)."""
        return int(self._clock.wall().timestamp() * 1000) + self._state.offset_ms

    # --- understanding ---------------------------------------------------------------------------

    def _interpret(self, target: Endpoint, answer: RawAnswer) -> object:
        document = _document(answer.body)
        code = document.get("code")
        if not isinstance(code, (str, int)) or code == "":
            raise self._unreadable(target, answer)
        code = str(code)
        if code == SUCCESS:
            if not 200 <= answer.status < 300 or "data" not in document:
                raise self._unreadable(target, answer)
            self._state.rate_limits_in_a_row = 0
            return document["data"]
        message = str(document.get("msg") or "no message")[:300]
        raise self.error_of(target, code, message, answer)

    def error_of(
        self, target: Endpoint, code: str, message: str, answer: RawAnswer | None = None
    ) -> AifapError:
        """The error that `code` means for this call."""
        verdict = verdict_of(code)
        text = f"Bitget {code}: {message}"
        if answer is not None and answer.status == 429:
            verdict = Verdict.RATE_LIMITED
        if verdict is Verdict.RATE_LIMITED:
            return self._rate_limited(target, answer)
        if verdict is Verdict.CREDENTIALS:
            return self._credentials_refused(code, text)
        if verdict is Verdict.CLOCK:
            self._measure_offset()
            return Unavailable(f"{text}; our clock was off, nothing happened", retry_after_s=0.1)
        if verdict is Verdict.MAINTENANCE:
            return Unavailable(f"{text}; nothing happened", code=code, retry_after_s=5.0)
        if verdict is Verdict.UNKNOWN:
            if target.is_write:
                return OutcomeUnknown(f"{text}; it may have happened", code=code)
            return Unavailable(text, code=code, retry_after_s=0.5)
        return _REFUSALS.get(verdict, Rejected)(text, code=code)

    def _unreadable(self, target: Endpoint, answer: RawAnswer) -> AifapError:
        """No code of Bitget's: a proxy, a ban, a cut answer. Never a success (A5)."""
        if answer.status == 429:
            return self._rate_limited(target, answer)
        if answer.status in (403, 418):
            self._gate.penalise(_retry_after_s(answer) or BAN_S, whole_address=True)
            return RateLimited(
                f"the exchange has shut us out (HTTP {answer.status}); nothing happened",
                retry_after_s=_retry_after_s(answer) or BAN_S,
            )
        text = (
            f"{target.method}: HTTP {answer.status} with {len(answer.body)} unreadable characters"
        )
        if target.is_write:
            return OutcomeUnknown(f"{text}; it may have happened, ask the exchange")
        return Unavailable(f"{text}; ask again", retry_after_s=0.5)

    def _rate_limited(self, target: Endpoint, answer: RawAnswer | None) -> RateLimited:
        """Stop this key (or the address, for public data) for as long as we are told (A12, A13)."""
        stated = _retry_after_s(answer) if answer is not None else None
        repeats = min(self._state.rate_limits_in_a_row, 10)
        self._state.rate_limits_in_a_row += 1
        wait_s = stated or min(PENALTY_FIRST_S * 2**repeats, PENALTY_MAX_S)
        self._gate.penalise(wait_s, whole_address=not target.kind.private)
        return RateLimited(
            f"the exchange asks for fewer requests; nothing happened, {wait_s:g} s of silence",
            retry_after_s=wait_s,
        )

    def _credentials_refused(self, code: str, text: str) -> Forbidden:
        self._state.refused_until = self._clock.now() + CREDENTIALS_PAUSE
        self._state.refused_why = f"{text}; save working keys (tried again in five minutes)"
        return Forbidden(self._state.refused_why, code=code)

    def _check_credentials_pause(self, target: Endpoint) -> None:
        """After a refusal of the keys at most one try in five minutes (A16)."""
        until = self._state.refused_until
        if target.kind.private and until is not None:
            if self._clock.now() < until:
                raise Forbidden(self._state.refused_why)
            self._state.refused_until = None

    def _measure_offset(self) -> None:
        """Ask for the exchange's time and sign with it from now on."""
        try:
            data = self._interpret(SERVER_TIME, self._exchange(SERVER_TIME, {}))
        except AifapError as error:
            log.warning("the exchange's time cannot be read: %s", error.message)
            return
        stated = data.get("serverTime") if isinstance(data, dict) else None
        if isinstance(stated, str) and stated.isdigit():
            local_ms = int(self._clock.wall().timestamp() * 1000)
            self._state.offset_ms = int(stated) - local_ms
            log.warning("signing %d ms off our own clock", self._state.offset_ms)


SERVER_TIME = endpoint("publicCommonGetV2PublicTime", 20)

_REFUSALS: dict[Verdict, Callable[..., Rejected]] = {
    Verdict.DUPLICATE: Duplicate,
    Verdict.NOT_FOUND: NotFound,
    Verdict.NO_POSITION: NoPosition,
    Verdict.WRONG_SIDE: WrongSideOfPrice,
    Verdict.NO_CHANGE: NoChange,
}


def _document(body: str) -> Mapping[str, object]:
    """The JSON object in `body`, numbers with a point as text; empty when it is none."""
    try:
        loaded = json.loads(body, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _retry_after_s(answer: RawAnswer) -> float | None:
    for name, value in answer.headers.items():
        if name.lower() == "retry-after" and value.strip().isdigit():
            return float(value)
    return None


@cache
def _connector_class() -> Any:
    import ccxt

    class Connector(ccxt.bitget):  # type: ignore[misc]  # ccxt has no types
        """ccxt's Bitget with its error handling taken out."""

        last_answer: RawAnswer | None = None
        timestamp_ms: Callable[[], int]

        def handle_errors(
            self,
            code: int,
            reason: str,
            url: str,
            method: str,
            headers: Mapping[str, str],
            body: str,
            response: object,
            request_headers: object,
            request_body: object,
        ) -> bool:
            self.last_answer = RawAnswer(code, dict(headers), body)
            return True

        def nonce(self) -> int:
            return self.timestamp_ms()

    return Connector
