"""Bitget through ccxt: picks the adapter for an account's market. A further venue is a row here."""

from __future__ import annotations

from module.exchange.bitget_futures import BitgetFutures
from module.exchange.bitget_public import BitgetPublic
from module.exchange.bitget_spot import BitgetSpot
from module.exchange.bitget_wire import BitgetWire
from module.exchange.venue import PublicMarket, RequestGate, Venue, VenueAccess
from module.exchange.venue_clock import VenueClock
from module.model.accounts import TradeEnv
from module.model.errors import InvalidInput
from module.model.market import MarketType
from module.ports import Clock

VENUES = ("bitget",)


class CcxtVenues:
    """Implements `module.exchange.venue.VenueFactory`."""

    def __init__(self, clock: Clock, *, wire: type[BitgetWire] = BitgetWire) -> None:
        """`wire` carries the requests; a simulation has one of its own."""
        self._clock = clock
        self._wire = wire
        self._venue_clocks: dict[str, VenueClock] = {}

    def open_venue(self, venue: str, access: VenueAccess, gate: RequestGate) -> Venue:
        """The adapter for one account; InvalidInput for an unknown venue."""
        _check_venue(venue)
        wire = self._wire(
            access.base_url,
            access.credentials,
            demo=access.trade_env is TradeEnv.DEMO,
            gate=gate,
            clock=self._clock,
            venue_clock=self._venue_clocks.setdefault(
                access.base_url.rstrip("/"), VenueClock(self._clock)
            ),
        )
        if access.market is MarketType.SPOT:
            return BitgetSpot(access, wire, self._clock)
        return BitgetFutures(access, wire, self._clock)

    def open_public(self, venue: str, base_url: str, gate: RequestGate) -> PublicMarket:
        """The public side of a venue."""
        _check_venue(venue)
        wire = self._wire(base_url, None, demo=False, gate=gate, clock=self._clock)
        return BitgetPublic(wire, self._clock)


def _check_venue(venue: str) -> None:
    if venue not in VENUES:
        raise InvalidInput(f"unknown venue {venue[:32]!r}; known are {', '.join(VENUES)}")
