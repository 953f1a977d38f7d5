"""Order books and margin rules over HTTP: the gateway's routes against their client."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import cast

import pytest
from fastapi import FastAPI

from api.problems import install_problems
from api.routers.gateway import build_router
from module.exchange.gateway_books import RATE_LIMIT_WAITS_MAX, GatewayBooks
from module.gateway.service import Gateway
from module.model.books import BookLevel, Depth, MarginTier
from module.model.errors import (
    AifapError,
    InvalidInput,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from module.model.market import MarketType
from module.security.tokens import mint_grant, service_grant
from tests.fakes.clock import ManualClock
from tests.fakes.serving import served

KEY = "a-key-that-only-tests-sign-with-0123456789"
AT = datetime(2026, 3, 2, 5, 7, 0, 250_000, tzinfo=UTC)
TIERS = (MarginTier(Decimal(0), Decimal(150_000), Decimal("0.004")),)


def book(symbol: str) -> Depth:
    bids = (BookLevel(Decimal("77.1"), Decimal("0.30")), BookLevel(Decimal("77.0"), Decimal(2)))
    return Depth(symbol, bids, (BookLevel(Decimal("77.2"), Decimal("0.7")),), AT)


@dataclass(slots=True)
class PlayedGateway:
    """The two reads of a gateway; `raises` come first."""

    asked: list[tuple[str, str, str]] = field(default_factory=list)
    raises: deque[AifapError] = field(default_factory=deque)

    def market_depth(self, market_id: str, market: MarketType, symbol: str) -> Depth:
        self._happens(market_id, market.value, symbol)
        return book(symbol)

    def market_tiers(self, market_id: str, symbol: str) -> tuple[MarginTier, ...]:
        self._happens(market_id, "tiers", symbol)
        return TIERS

    def _happens(self, *call: str) -> None:
        self.asked.append(cast("tuple[str, str, str]", call))
        if self.raises:
            raise self.raises.popleft()
        if call[2] == "NOSUCHUSDT":
            raise NotFound("the exchange does not have NOSUCHUSDT")


@dataclass(frozen=True, slots=True)
class Place:
    gateway: PlayedGateway
    url: str
    clock: ManualClock

    def books(self, market: MarketType = MarketType.FUTURES, key: str = KEY) -> GatewayBooks:
        token = mint_grant(service_grant("preview"), key)
        return GatewayBooks(self.url, "synthetic:7", market, token, self.clock)


@pytest.fixture
def place() -> Iterator[Place]:
    gateway = PlayedGateway()
    app = FastAPI()
    install_problems(app)
    app.include_router(build_router(cast("Gateway", gateway), KEY))
    with served() as serve:
        yield Place(gateway, serve(app), ManualClock())


def test_books_arrive_exactly_and_what_is_not_listed_is_left_out(place: Place) -> None:
    books = place.books()
    assert books.depth(["AUSDT", "NOSUCHUSDT", "BUSDT"]) == {
        "AUSDT": book("AUSDT"),
        "BUSDT": book("BUSDT"),
    }
    assert place.gateway.asked[0] == ("synthetic:7", "futures", "AUSDT")
    place.books(MarketType.SPOT).depth(["AUSDT"])
    assert place.gateway.asked[-1] == ("synthetic:7", "spot", "AUSDT")
    books.close()


def test_margin_rules_are_kept_for_an_hour_and_spot_has_none(place: Place) -> None:
    books = place.books()
    for _ in range(3):
        assert books.margin_tiers(["AUSDT", "NOSUCHUSDT"]) == {"AUSDT": TIERS}
    asked = [call for call in place.gateway.asked if call[2] == "AUSDT"]
    assert len(asked) == 1
    place.clock.advance(3601)
    books.margin_tiers(["AUSDT"])
    assert len([call for call in place.gateway.asked if call[2] == "AUSDT"]) == 2
    assert place.books(MarketType.SPOT).margin_tiers(["AUSDT"]) == {}


def test_a_used_up_budget_is_waited_for_and_asked_again(place: Place) -> None:
    place.gateway.raises.extend([RateLimited("slow down", retry_after_s=0.5)] * 3)
    assert place.books().depth(["AUSDT"]) == {"AUSDT": book("AUSDT")}
    assert place.clock.slept == [0.5, 0.5, 0.5]
    place.gateway.raises.extend([RateLimited("slow down")] * (RATE_LIMIT_WAITS_MAX + 1))
    with pytest.raises(RateLimited):
        place.books().depth(["AUSDT"])


def test_an_exchange_that_is_away_is_asked_three_times(place: Place) -> None:
    place.gateway.raises.extend([Unavailable("upkeep")] * 2)
    assert place.books().depth(["AUSDT"]) == {"AUSDT": book("AUSDT")}
    place.gateway.raises.extend([Unavailable("upkeep")] * 3)
    with pytest.raises(Unavailable, match="upkeep"):
        place.books().depth(["AUSDT"])


def test_S10_only_grants_of_this_installation_and_only_symbols(place: Place) -> None:
    with pytest.raises(Unauthenticated):
        place.books(key="another-installation-0123456789").depth(["AUSDT"])
    for name in ("../A", "a", "A" * 40, "A,B"):
        with pytest.raises(InvalidInput, match="not a symbol"):
            place.books().depth([name])
    assert place.gateway.asked == []
