"""Candles over HTTP (CoinAPI): closed bars for sessions and services, health for operators."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Response
from starlette.concurrency import run_in_threadpool

from module.market.market_client import HELD_S
from module.market.service import BarsRequest, MarketService
from module.model.canonical import instant_text, parse_instant
from module.model.errors import InvalidInput, InvariantViolated, NotFound, NotYet, RateLimited
from module.model.market import Candle, Frequency, MarketType
from module.model.money import plain
from module.security.tokens import bearer_token, read_grant

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_JSON: Final = "application/json"


def build_router(service: MarketService, token_key: str) -> APIRouter:
    """The market's routes. Any grant of this installation opens them: prices are no secret.

    Handlers run in threads and raise errors of `module.model.errors`; the application turns them
    into problem documents.
    """
    router = APIRouter(prefix="/market", tags=["market"])

    @router.get("/bars")
    async def bars(
        market_id: str,
        symbols: Annotated[str, Query(max_length=8_000)],
        frequency: str,
        window: int,
        end: str,
        market: str = "futures",
        wait_s: Annotated[float, Query(ge=0, le=HELD_S)] = 0.0,
        authorization: Annotated[str | None, Header()] = None,
    ) -> Response:
        """The last `window` closed bars of each symbol that close at or before `end`.

        While one of them is still to come the request is held, for at most `wait_s` real seconds.
        """
        read_grant(bearer_token(authorization), token_key)
        _require_market(service, market_id)
        request = BarsRequest(
            _market_type(market),
            tuple(dict.fromkeys(name for name in symbols.split(",") if name)),
            Frequency.parse(frequency),
            window,
            _instant(end),
        )
        return await _held(service, request, wait_s)

    @router.get("/symbols")
    def symbols(
        market_id: str,
        market: str = "futures",
        authorization: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Everything that the market lists."""
        read_grant(bearer_token(authorization), token_key)
        _require_market(service, market_id)
        kind = _market_type(market)
        return _answer(
            {"market_id": market_id, "market": kind.value, "symbols": service.symbols(kind)}
        )

    @router.get("/health")
    def health() -> Response:
        """How the collector is; 503 while candles do not arrive."""
        state = service.health()
        until = state.collected_until
        return _answer(
            {
                "ok": state.ok,
                "market_id": state.market_id,
                "collector_running": state.collector_running,
                "collected_until": None if until is None else instant_text(until),
                "watched": state.watched,
                "unsound_bars": state.unsound_bars,
                "problem": state.problem,
            },
            status=200 if state.ok else 503,
        )

    return router


async def _held(service: MarketService, request: BarsRequest, wait_s: float) -> Response:
    """The bars as soon as the last one is there; NotYet (or RateLimited) after `wait_s`.

    A thread is had only while there is something to do, so that any number may wait.
    """
    monotonic = asyncio.get_running_loop().time
    until_s = monotonic() + wait_s
    waited = True
    if wait_s:
        service.check(request)
        newest = service.newest(request)
        if service.waits.are_looked_for(newest):  # a look of its own would find nothing
            await service.waits.until_there(newest, wait_s)
    while True:
        try:
            return await run_in_threadpool(_bars, service, request)
        except (NotYet, RateLimited):
            left_s = until_s - monotonic()
            if left_s <= 0 or not waited:
                raise  # what is missing is older: nobody can tell when it comes
            waited = await service.waits.until_there(service.newest(request), left_s)


def _bars(service: MarketService, request: BarsRequest) -> Response:
    found = service.bars(request)
    return _answer(
        {
            "market_id": service.market_id,
            "market": request.market.value,
            "frequency": request.frequency.value,
            "end": instant_text(request.end),
            "bars": {symbol: _rows(candles) for symbol, candles in found.items()},
        }
    )


def _rows(candles: Sequence[Candle]) -> list[list[int | str]]:
    return [
        [
            (candle.opens_at - _EPOCH) // _MILLISECOND,
            plain(candle.open),
            plain(candle.high),
            plain(candle.low),
            plain(candle.close),
            plain(candle.volume),
        ]
        for candle in candles
    ]


def _answer(document: dict[str, object], status: int = 200) -> Response:
    import orjson

    return Response(orjson.dumps(document), status_code=status, media_type=_JSON)


def _require_market(service: MarketService, market_id: str) -> None:
    if market_id != service.market_id:
        raise NotFound(f"this service has candles of {service.market_id}, not of {market_id[:64]}")


def _market_type(text: str) -> MarketType:
    try:
        return MarketType(text)
    except ValueError as error:
        raise InvalidInput(f"market: futures or spot, got {text[:32]!r}") from error


def _instant(text: str) -> datetime:
    try:
        return parse_instant(text)
    except (ValueError, InvariantViolated) as error:
        raise InvalidInput(f"end: an ISO 8601 time with offset, got {text[:40]!r}") from error
