"""Order books and margin rules through the gateway: `ports.OrderBooks` over HTTP, one market.

Harmless reads, repeated within bounds. One symbol is asked for at a time, so that a request budget
that ends in the middle costs a wait and not the whole answer. Margin rules change rarely and are
kept for an hour of real time; books never are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from module.model.books import Depth, MarginTier
from module.model.errors import NotFound, RateLimited, Unavailable
from module.model.market import MarketType
from module.ports import Clock
from module.wire.model_codec import from_document, list_from_document
from module.wire.problem_codec import error_from_problem
from module.wire.service_http import LostError, NotSentError, ServiceHttp

ANSWER_TIMEOUT_S: Final = 20.0
TRIES_MAX: Final = 3
RATE_LIMIT_WAITS_MAX: Final = 60
WAIT_MAX_S: Final = 2.0
WAIT_S: Final = 0.1
TIERS_KEPT_S: Final = 3600.0
T = TypeVar("T")


class GatewayBooks:
    """Implements `module.ports.OrderBooks`. Thread safe."""

    def __init__(
        self, base_url: str, market_id: str, market: MarketType, token: str, clock: Clock
    ) -> None:
        """`token` is any grant of this installation: the data is public."""
        self._market_id = market_id
        self._market = market
        self._clock = clock
        self._http = ServiceHttp(base_url, token, answer_timeout_s=ANSWER_TIMEOUT_S)
        self._tiers: dict[str, tuple[float, tuple[MarginTier, ...]]] = {}

    def depth(self, symbols: Sequence[str]) -> Mapping[str, Depth]:
        """The order books now; a symbol that the venue does not have is left out."""
        return _found(symbols, self._depth)

    def margin_tiers(self, symbols: Sequence[str]) -> Mapping[str, tuple[MarginTier, ...]]:
        """What positions must keep, by size; empty on spot."""
        if self._market is not MarketType.FUTURES:
            return {}
        return _found(symbols, self._tiers_of)

    def close(self) -> None:
        """Leave no connection open."""
        self._http.close()

    def _depth(self, symbol: str) -> Depth:
        query = {"symbol": symbol, "market": self._market.value}
        return from_document(Depth, self._read("/gateway/markets/depth", query))

    def _tiers_of(self, symbol: str) -> tuple[MarginTier, ...]:
        known = self._tiers.get(symbol)
        now_s = self._clock.monotonic()
        if known is not None and now_s - known[0] < TIERS_KEPT_S:
            return known[1]
        document = self._read("/gateway/markets/tiers", {"symbol": symbol})
        tiers = tuple(list_from_document(MarginTier, document, name="tiers"))
        self._tiers[symbol] = (now_s, tiers)
        return tiers

    def _read(self, path: str, query: Mapping[str, str]) -> object:
        failures = waits = 0
        while True:
            try:
                return self._answer(path, query)
            except RateLimited as error:
                waits += 1
                if waits > RATE_LIMIT_WAITS_MAX:
                    raise
                self._clock.sleep(min(WAIT_MAX_S, max(WAIT_S, error.retry_after_s or WAIT_S)))
            except Unavailable:
                failures += 1
                if failures >= TRIES_MAX:
                    raise
                self._clock.pause(WAIT_S)

    def _answer(self, path: str, query: Mapping[str, str]) -> object:
        try:
            answer = self._http.call("GET", path, query={"market_id": self._market_id, **query})
        except (NotSentError, LostError) as error:
            raise Unavailable(f"the gateway does not answer ({error})") from error
        if answer.status != 200:
            raise error_from_problem(answer.status, answer.body)
        try:
            return answer.json()
        except ValueError as error:
            raise Unavailable(f"the gateway's answer to {path} is not JSON") from error


def _found(symbols: Sequence[str], read: Callable[[str], T]) -> dict[str, T]:
    found: dict[str, T] = {}
    for symbol in symbols:
        try:
            found[symbol] = read(symbol)
        except NotFound:
            continue
    return found
