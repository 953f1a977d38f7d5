"""The paper exchange's application without a wire: requests and answers go over as words.

    InProcessWire ─► SaidRequest ─► InProcessApp (BitgetApp) ─► SaidAnswer ─► HeardAnswer

Nothing is signed and nothing is spelled that no fault has touched; the contract tests prove both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import orjson

from module.exchange.bitget_codes import SUCCESS
from module.simulator.faults.fault_desk import FaultCase
from module.simulator.venue import Endpoint as VenueEndpoint
from module.simulator.wire.bitget_app import BitgetApp, WireRequest
from module.simulator.wire.bitget_auth import ApiKey, SignedRequest, authenticate
from module.simulator.wire.bitget_params import Params
from module.simulator.wire.wire_answer import WireAnswer, envelope

UNSIGNED = "in one process"
POSITIONS_PATH = "/api/v2/mix/position/all-position"


@dataclass(frozen=True, slots=True)
class SaidRequest(WireRequest):
    """A request whose words are handed over as they are: no query, no body, no signature."""

    words: Mapping[str, object]


class SaidAnswer(WireAnswer):
    """An answer that no fault has touched: its document goes over as it is, and is spelled when
    somebody looks at the bytes."""

    __slots__ = ("document",)

    document: Mapping[str, object]

    def __init__(self, document: Mapping[str, object], headers: Mapping[str, str]) -> None:
        for name, value in (("status", 200), ("headers", headers), ("document", document)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "content_type", "application/json")

    @property
    def body(self) -> bytes:
        """The bytes that would go over a socket."""
        return orjson.dumps(self.document)


class InProcessApp(BitgetApp):
    """The exchange's application for requests that come as words. All that it decides is
    production's; an answer that a fault has hit is spelled, so that the fault spoils real bytes.

    Positions are valued once while neither the account nor a price has changed (`of_moment`).
    """

    of_moment: Callable[[], tuple[int, ...]]
    _valued: tuple[tuple[int, ...], object] | None = None

    def _execute(
        self, endpoint: VenueEndpoint, key: ApiKey | None, params: Params, now_ms: int
    ) -> object:
        if endpoint.path != POSITIONS_PATH:
            return super()._execute(endpoint, key, params, now_ms)
        moment = self.of_moment()
        if self._valued is None or self._valued[0] != moment:
            self._valued = (moment, super()._execute(endpoint, key, params, now_ms))
        return self._valued[1]

    def _signer(self, signed: SignedRequest, now_ms: int) -> ApiKey:
        keys, wall_ms = self._venue.keys, self._wall_ms()
        return authenticate(signed, keys, now_ms, wall_ms, fits=_is_unsigned)

    def _words(self, request: WireRequest) -> Params:
        return Params(cast(SaidRequest, request).words)

    def _envelope(
        self, now_ms: int, shown: object, headers: Mapping[str, str], case: FaultCase | None
    ) -> WireAnswer:
        if case is not None:
            return envelope(now_ms, shown, headers=headers)
        said = {"code": SUCCESS, "msg": "success", "requestTime": now_ms, "data": shown}
        return SaidAnswer(said, headers)


def _is_unsigned(signed: SignedRequest, secret: str) -> bool:
    return signed.headers["access-sign"] == UNSIGNED
