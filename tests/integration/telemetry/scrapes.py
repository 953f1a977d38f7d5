"""Applications of all three services, as Prometheus finds them, and what their `/metrics` say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from api.wiring import ApiWiring, Services
from module.db.repositories.alerts import AlertRepository
from module.exchange.venue import Priority, RequestKind
from module.market.service import MarketService
from module.ports import Alert
from module.security.tokens import mint_grant, scrape_grant
from module.settings import Settings
from tests.fakes.asgi_client import AsgiClient
from tests.fakes.gateway_rig import GatewayRig, buy
from tests.fakes.market_data import ArithmeticVenue, HandClock, MemoryCandles, at
from tests.fakes.platform import TOKEN_KEY, FakePlatform, fake_platform

SCRAPER = mint_grant(scrape_grant("tests"), TOKEN_KEY)


@dataclass(frozen=True)
class Scrape:
    """One answer of one application."""

    text: str

    @property
    def families(self) -> dict[str, Metric]:
        """By name."""
        return {family.name: family for family in text_string_to_metric_families(self.text)}

    def value(self, name: str, **labels: str) -> float:
        """Of the one sample of this name with (at least) these labels."""
        (found,) = [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return found

    def names(self) -> Iterator[str]:
        """Of every sample."""
        for family in self.families.values():
            yield from (sample.name for sample in family.samples)


def scrape(app: FastAPI) -> Scrape:
    """What the application tells a scraper that asks by its address."""
    client = AsgiClient(app, SCRAPER, headers={"host": "10.1.2.3:8888"})
    answer = client.get("/metrics")
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Scrape(answer.body.decode())


def service_app(folder: Path, services: Services, name: str, clock: object) -> FastAPI:
    """The application of one service of our own."""
    settings = Settings.model_validate({"data_dir": folder, "services": (name,)})
    return create_app(
        ApiWiring(settings=settings, clock=clock, services=services, token_key=TOKEN_KEY)  # type: ignore[arg-type]
    )


def scrape_platform(platform: FakePlatform) -> Scrape:
    """Once the second in which an answer is repeated is over."""
    board = platform.app.state.board
    board._installation._kept_until_s = float("-inf")
    return scrape(platform.app)


@contextmanager
def lively_services(
    postgres: Settings, folder: Path
) -> Iterator[tuple[FakePlatform, list[FastAPI]]]:
    """The platform, and the applications of gateway and market; something has happened in each."""
    platform = fake_platform(postgres, folder)
    rig = GatewayRig()
    rig.gateway.submit("acc", rig.stamp(), [buy()])
    place = RequestKind("place", 10, private=True)
    gate = rig.gateway._budget.for_account("https://exchange.example", "key")
    gate.admit([place], Priority.ORDER)
    gate.took(place, "answered", 0.07)
    now = at("2025-03-05 09:20")
    clock = HandClock(now)
    market = MarketService("synthetic:7", MemoryCandles(), ArithmeticVenue(clock), clock)
    market.report(running=True, collected_until=at("2025-03-05 09:19"), watched=3, problem="")
    alert = Alert("x", "warning", "t", (), "c", None, None, now)
    AlertRepository(platform.databases[0]).add(alert, ("slack",), now)
    try:
        yield (
            platform,
            [
                service_app(folder, Services(gateway=rig.gateway), "gateway", rig.clock),
                service_app(folder, Services(market=market), "market", clock),
            ],
        )
    finally:
        market.close()
        platform.close()
