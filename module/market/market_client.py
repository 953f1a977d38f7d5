"""Market data as the engine sees it: `ports.MarketData` over the market service's HTTP.

Reads only, so everything is repeated, bounded: a bar that is not there yet is waited for in world
time, a busy service too; a service that is restarting is waited for in real time. Where world time
is real time the service holds the request until the bar is there; in a stepped world, which stands
still for as long as anybody is busy, the waiting is done here, on the clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from module.model.canonical import instant_text
from module.model.errors import InvalidInput, NotYet, RateLimited, Unavailable
from module.model.market import Candle, Frequency, MarketType
from module.model.money import parse_decimal
from module.ports import Clock
from module.wire.problem_codec import error_from_problem
from module.wire.service_http import Answer, LostError, NotSentError, ServiceHttp

NOT_YET_PATIENCE: Final = timedelta(seconds=5)
NOT_YET_POLL_S: Final = 0.05
RATE_LIMIT_PATIENCE: Final = timedelta(seconds=60)
TRIES_MAX: Final = 8
BACK_OFF_FIRST_S: Final = 0.1
BACK_OFF_MAX_S: Final = 2.0
ANSWER_TIMEOUT_S: Final = 60.0
HELD_S: Final = 2.0
"""What the service takes at most: short enough for one that is told to end."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class MarketServiceClient:
    """Implements `module.ports.MarketData` for one market of one `market_id`."""

    def __init__(
        self,
        base_url: str,
        market_id: str,
        market: MarketType,
        token: str,
        clock: Clock,
        *,
        not_yet_patience: timedelta = NOT_YET_PATIENCE,
        held_s: float = 0.0,
    ) -> None:
        """`token` is a session's or a service's grant; `not_yet_patience` is world time.
        `held_s`: real seconds (HELD_S) for which the service may hold a request whose bars are
        still to come; 0 in a stepped world."""
        self._market_id = market_id
        self._market = market
        self._clock = clock
        self._not_yet_patience = not_yet_patience
        self._held_s = held_s
        self._http = ServiceHttp(base_url, token, answer_timeout_s=ANSWER_TIMEOUT_S)

    def __repr__(self) -> str:
        return f"MarketServiceClient({self._market_id!r}, {self._market.value!r})"

    def closed_bars(
        self, symbols: Sequence[str], frequency: Frequency, window: int, end: datetime
    ) -> Mapping[str, Sequence[Candle]]:
        """The last `window` bars of each symbol that close at or before `end`, oldest first.

        A bar that the venue does not have is absent. NotYet after five world seconds of waiting
        for the last one; NotFound names an unknown symbol; Unavailable when nobody answers.
        """
        if not symbols:
            return {}
        document = self._read(
            "/market/bars",
            {
                "market": self._market.value,
                "symbols": ",".join(symbols),
                "frequency": frequency.value,
                "window": str(window),
                "end": instant_text(end),
            },
            self._held_s,
        )
        bars = document.get("bars")
        if not isinstance(bars, dict) or set(bars) != set(symbols):
            raise Unavailable("the market service's answer lacks bars of what was asked for")
        return {symbol: _candles(symbol, frequency, bars[symbol]) for symbol in symbols}

    def symbols(self) -> list[str]:
        """Everything that the market lists."""
        document = self._read("/market/symbols", {"market": self._market.value})
        listed = document.get("symbols")
        if not isinstance(listed, list):
            raise Unavailable("the market service's answer lists no symbols")
        return [str(symbol) for symbol in listed]

    def close(self) -> None:
        """Leave no connection open."""
        self._http.close()

    def _read(
        self, path: str, query: dict[str, str], held_max_s: float = 0.0
    ) -> Mapping[str, object]:
        """One read, repeated as its errors say; each kind of repeating has its own bound. It may be
        held by the service for `held_max_s`, within the patience for what is not there yet."""
        began = self._clock.now()
        failed = 0
        while True:
            asked_s = self._clock.monotonic()
            held_s = min(held_max_s, self._patience_left_s(began)) if held_max_s else 0.0
            held = {"wait_s": f"{held_s:.3f}"} if held_s else {}
            try:
                return _document(self._answer(path, {**query, **held}))
            except NotYet as error:
                if self._clock.now() - began >= self._not_yet_patience:
                    raise
                if not held_s or self._clock.monotonic() - asked_s < held_s:
                    self._clock.sleep(max(NOT_YET_POLL_S, min(error.retry_after_s or 0.0, 1.0)))
            except RateLimited as error:
                wait_s = max(NOT_YET_POLL_S, error.retry_after_s or 1.0)
                if self._clock.now() + timedelta(seconds=wait_s) - began > RATE_LIMIT_PATIENCE:
                    raise
                self._clock.sleep(wait_s)
            except Unavailable:
                failed += 1
                if failed >= TRIES_MAX:
                    raise
                self._clock.pause(min(BACK_OFF_MAX_S, BACK_OFF_FIRST_S * 2 ** (failed - 1)))

    def _patience_left_s(self, began: datetime) -> float:
        left = self._not_yet_patience - (self._clock.now() - began)
        return max(0.0, left.total_seconds())

    def _answer(self, path: str, query: dict[str, str]) -> Answer:
        try:
            answer = self._http.call("GET", path, query={"market_id": self._market_id, **query})
        except (NotSentError, LostError) as error:
            raise Unavailable(f"the market service does not answer ({error})") from error
        if answer.status != 200:
            raise error_from_problem(answer.status, answer.body)
        return answer


def _document(answer: Answer) -> Mapping[str, object]:
    try:
        loaded = answer.json()
    except ValueError as error:
        raise Unavailable("the market service's answer is not JSON") from error
    if not isinstance(loaded, dict):
        raise Unavailable("the market service's answer is not an object")
    return loaded


def _candles(symbol: str, frequency: Frequency, rows: object) -> list[Candle]:
    """Rows of [opens_at_ms, open, high, low, close, volume] as candles."""
    if not isinstance(rows, list):
        raise Unavailable(f"the market service's bars of {symbol} are not a list")
    try:
        return [
            Candle(
                symbol,
                frequency,
                _EPOCH + timedelta(milliseconds=row[0]),
                *(parse_decimal(cell, name=symbol) for cell in row[1:6]),
            )
            for row in rows
        ]
    except (InvalidInput, TypeError, IndexError, KeyError) as error:
        raise Unavailable(f"the market service's bars of {symbol} cannot be read") from error
