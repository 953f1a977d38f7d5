"""Candles from the gateway: the market room's `CandleSource` over HTTP."""

from __future__ import annotations

from datetime import datetime

from module.model.canonical import instant_text
from module.model.errors import InvalidInput, Unavailable
from module.model.market import Candle, Instrument, MarketType
from module.model.series import Series
from module.wire.model_codec import list_from_document
from module.wire.problem_codec import error_from_problem
from module.wire.service_http import LostError, NotSentError, ServiceHttp

ANSWER_TIMEOUT_S = 20.0


class GatewayCandles:
    """Asks once; whoever calls decides about asking again (every call is a harmless read)."""

    def __init__(self, base_url: str, market_id: str, token: str) -> None:
        """`token` is a service grant."""
        self._market_id = market_id
        self._http = ServiceHttp(base_url, token, answer_timeout_s=ANSWER_TIMEOUT_S)

    def symbols(self, market: MarketType) -> frozenset[str]:
        """Everything that the market lists."""
        document = self._read("/gateway/markets/instruments", {"market": market.value})
        return frozenset(item.symbol for item in list_from_document(Instrument, document))

    def candles(self, series: Series, end: datetime, limit: int) -> list[Candle]:
        """Up to `limit` closed bars that close at or before `end`, oldest first."""
        document = self._read(
            "/gateway/markets/candles",
            {
                "market": series.market.value,
                "symbol": series.symbol,
                "frequency": series.frequency.value,
                "end": instant_text(end),
                "limit": str(limit),
            },
        )
        return list_from_document(Candle, document)

    def close(self) -> None:
        """Leave no connection open."""
        self._http.close()

    def _read(self, path: str, query: dict[str, str]) -> object:
        try:
            answer = self._http.call("GET", path, query={"market_id": self._market_id, **query})
        except (NotSentError, LostError) as error:
            raise Unavailable(f"the gateway does not answer ({error})") from error
        if answer.status != 200:
            raise error_from_problem(answer.status, answer.body)
        try:
            return answer.json()
        except (ValueError, InvalidInput) as error:
            raise Unavailable(f"the gateway's answer to {path} is not JSON") from error
