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
from module.exchange.no_connection import why_no_connection
from module.exchange.venue import (
    KeysRefused,
    NoPosition,
    Priority,
    RequestGate,
    RequestKind,
    StopExists,
    StopsFull,
    UnifiedAccount,
    WrongSideOfPrice,
    leave_by,
    patience_s,
)
from module.exchange.venue_clock import VenueClock
from module.model.canonical import instant_text
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
from module.points import reach
from module.ports import Clock

log = logging.getLogger(__name__)

TIMEOUT_MS: Final = 10_000
CONNECTIONS_MAX: Final = 8
CREDENTIALS_PAUSE: Final = timedelta(minutes=5)
BAN_S: Final = 120.0
CLASSIC_HINT: Final = (
    "this is a unified account, and classic accounts are what is traded here: at Bitget make a "
    "sub-account in classic mode (or switch this one back, while it is flat, under Account mode), "
    "then make a key there"
)
PENALTY_FIRST_S: Final = 1.0
PENALTY_MAX_S: Final = 60.0
SIGNATURE_HOLDS_S: Final = 30.0
"""For so long after its time stamp the exchange takes a signed request (then 40008)."""
_API_KEYS: Final = (
    *("spot", "mix", "user", "p2p", "broker", "margin"),
    *("common", "tax", "convert", "copy", "earn", "uta"),
)

_DECODER: Final = json.JSONDecoder(parse_float=str, parse_constant=str)

# ccxt logs request headers, which hold the key and the passphrase, at debug level.
_SILENT = logging.Logger("ccxt-silenced", level=logging.CRITICAL + 1)


class Duplicate(Rejected):
    """The client id is known to the exchange: the first one got there."""

    code = "duplicate-client-id"


class NoChange(Rejected):
    """It is already as asked."""

    code = "no-change"


class AgainstRules(Rejected):
    """Size or price break the trading rules of the symbol: ours may be old."""

    code = "against-trading-rules"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One implicit method of ccxt, its published limit, and whether it changes anything.

    A probe asks for something that most keys are refused: its refusal says nothing of the keys.
    """

    method: str
    kind: RequestKind
    is_write: bool
    is_probe: bool = False


def endpoint(method: str, per_second: int, *, is_write: bool = False) -> Endpoint:
    """`method` is ccxt's implicit name; its prefix says whether it is signed."""
    private = method.startswith("private")
    return Endpoint(method, RequestKind(method, per_second, private, is_write), is_write)


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One HTTP answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: str

    def document(self) -> Mapping[str, object]:
        """The JSON object in the body, numbers with a point as text; empty when it is none."""
        try:
            loaded = _DECODER.decode(self.body)
        except (ValueError, RecursionError):
            return {}
        return loaded if isinstance(loaded, dict) else {}


@dataclass(slots=True)
class WireState:
    """What the last answers taught: penalties, refused credentials, who is silent how often."""

    rate_limits_in_a_row: int = 0
    refused_until: datetime | None = None
    refused_why: str = ""
    idle: list[Any] = field(default_factory=list)
    silences: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class _DidNotLeave(Unavailable):
    """Its time to leave passed: nothing was sent, and the address has nothing to do with it."""


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
        venue_clock: VenueClock | None = None,
        timeout_ms: int = TIMEOUT_MS,
    ) -> None:
        """`venue_clock` is the address's; without one this wire keeps its own."""
        self._base_url = base_url.rstrip("/")
        self._credentials = credentials
        self._demo = demo
        self._gate = gate
        self._clock = clock
        self._venue_clock = venue_clock or VenueClock(clock)
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
        return self._interpret(target, self._ask(target, params))

    def measure_clock(self) -> float:
        """Compare clocks when it is time to; seconds that the exchange is ahead of ours."""
        if self._venue_clock.is_due():
            self.admit([SERVER_TIME], Priority.PROTECTION)
            self._learn_time(was_refused=False)
        return self._venue_clock.skew_s

    @property
    def skew_s(self) -> float:
        """Seconds that the exchange was ahead of ours when clocks were last compared."""
        return self._venue_clock.skew_s

    def close(self) -> None:
        """Close idle connections; borrowed ones are closed when they come back."""
        self._closed = True
        with self._state.lock:
            idle, self._state.idle = self._state.idle, []
        for connector in idle:
            connector.session.close()

    # --- sending -------------------------------------------------------------------------------

    def _ask(self, target: Endpoint, params: Mapping[str, object]) -> RawAnswer:
        """One HTTP answer; a request without one counts against the address's circuit."""
        began_s = self._clock.monotonic()
        silences, endpoint = self._state.silences, target.kind.endpoint
        try:
            answer = self._exchange(target, params, self._timeout_ms_of(endpoint))
        except _DidNotLeave:
            raise
        except AifapError:
            silences[endpoint] = silences.get(endpoint, 0) + 1
            self._gate.took(target.kind, "lost", self._clock.monotonic() - began_s)
            self._gate.report(target.kind, failed=True)
            raise
        silences.pop(endpoint, None)
        outcome = "failed" if answer.status >= 500 else "answered"
        outcome = "limited" if answer.status == 429 else outcome
        self._gate.took(target.kind, outcome, self._clock.monotonic() - began_s)
        return answer

    def _timeout_ms_of(self, endpoint: str) -> int:
        """How long this call waits for its answer; see `answered_within`."""
        patience = patience_s()
        if patience is None:
            return self._timeout_ms
        doubled = patience * 2 ** min(self._state.silences.get(endpoint, 0), 8)
        return min(self._timeout_ms, int(doubled * 1000))

    def _exchange(
        self, target: Endpoint, params: Mapping[str, object], timeout_ms: int
    ) -> RawAnswer:
        import ccxt

        connector = self._borrow()
        connector.last_answer, connector.timeout = None, timeout_ms
        connector.before_it_leaves = self.require_in_time if target.is_write else None
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
        why = why_no_connection(failure)
        if why:
            raise Unavailable(
                f"{self._base_url} {why}; nothing was sent", retry_after_s=1.0
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
        connector.timestamp_ms = self.timestamp_ms
        return connector

    def require_in_time(self) -> None:
        """Unavailable when what is signed now would leave after its time (`leaving_by`)."""
        latest = leave_by()
        if latest is not None and (now := self._clock.now()) > latest:
            raise _DidNotLeave(
                f"its time to leave, {instant_text(latest)}, passed before it was on its way (it "
                f"is {instant_text(now)}); nothing was sent"
            )
        reach("wire: about to leave")

    def timestamp_ms(self) -> int:
        """Our time, corrected by what the exchange told us of its own (A23)."""
        return self._venue_clock.timestamp_ms()

    # --- understanding ---------------------------------------------------------------------------

    def _interpret(self, target: Endpoint, answer: RawAnswer) -> object:
        document = answer.document()
        code = document.get("code")
        if not isinstance(code, (str, int)) or code == "":
            raise self._unreadable(target, answer)
        code = str(code)
        if answer.status != 429:
            down = answer.status >= 500 or verdict_of(code) is Verdict.MAINTENANCE
            self._gate.report(target.kind, failed=down)
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
            return self._credentials_refused(target, code, text)
        if verdict is Verdict.UNIFIED:
            return UnifiedAccount(f"{text}; {CLASSIC_HINT}")
        if verdict is Verdict.CLOCK:
            self._correct_clock()
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
        self._gate.report(target.kind, failed=True)
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

    def _credentials_refused(self, target: Endpoint, code: str, text: str) -> Forbidden:
        if target.is_probe:
            return Forbidden(text, code=code)
        self._state.refused_until = self._clock.now() + CREDENTIALS_PAUSE
        self._state.refused_why = f"{text}; save working keys (tried again in five minutes)"
        return KeysRefused(
            self._state.refused_why, code=code, again_in_s=CREDENTIALS_PAUSE.total_seconds()
        )

    def _check_credentials_pause(self, target: Endpoint) -> None:
        """After a refusal of the keys at most one try in five minutes (A16)."""
        until = self._state.refused_until
        if target.kind.private and until is not None:
            left = until - self._clock.now()
            if timedelta(0) < left <= CREDENTIALS_PAUSE:  # more: the clock was set back (C7)
                raise KeysRefused(self._state.refused_why, again_in_s=left.total_seconds())
            self._state.refused_until = None

    def _correct_clock(self) -> None:
        """A signature was refused for its time: sign by the exchange's from now on."""
        try:
            self._learn_time(was_refused=True)
        except AifapError as error:
            log.warning("the exchange's time cannot be read: %s", error.message)

    def _learn_time(self, *, was_refused: bool) -> None:
        asked = self._clock.wall()
        data = self._interpret(SERVER_TIME, self._ask(SERVER_TIME, {}))
        stated = data.get("serverTime") if isinstance(data, dict) else None
        if not isinstance(stated, str) or not stated.isdigit():
            raise Unavailable("the exchange does not state its time; ask again")
        self._venue_clock.learn(int(stated), asked, was_refused=was_refused)


SERVER_TIME = endpoint("publicCommonGetV2PublicTime", 20)

_REFUSALS: dict[Verdict, Callable[..., Rejected]] = {
    Verdict.DUPLICATE: Duplicate,
    Verdict.NOT_FOUND: NotFound,
    Verdict.NO_POSITION: NoPosition,
    Verdict.WRONG_SIDE: WrongSideOfPrice,
    Verdict.NO_CHANGE: NoChange,
    Verdict.RULES: AgainstRules,
    Verdict.STOP_EXISTS: StopExists,
    Verdict.STOPS_FULL: StopsFull,
}


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
        before_it_leaves: Callable[[], None] | None = None

        def fetch(
            self, url: str, method: str = "GET", headers: object = None, body: object = None
        ) -> object:
            if self.before_it_leaves is not None:
                self.before_it_leaves()  # it is signed, and not on its way yet
            return super().fetch(url, method, headers, body)

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
