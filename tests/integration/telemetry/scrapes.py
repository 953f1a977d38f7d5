"""Applications of all three services, as Prometheus finds them, and what their `/metrics` say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from api.wiring import ApiWiring, Services
from module.security.tokens import mint_grant, scrape_grant
from module.settings import Settings
from tests.fakes.asgi_client import AsgiClient
from tests.fakes.platform import TOKEN_KEY, FakePlatform

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
