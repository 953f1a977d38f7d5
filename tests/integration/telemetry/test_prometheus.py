"""A real Prometheus reads all three services: each panel's query, each series that a query or rule
reads, and each rule works there. `make prometheus` asks the same of a whole installation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from module.settings import Settings
from tests.fakes.serving import served
from tests.integration.telemetry.prometheus_server import (
    PROMETHEUS,
    Told,
    ask_everything,
    prometheus,
)
from tests.integration.telemetry.scrapes import SCRAPER, lively_services
from tests.integration.telemetry.test_rules import rules

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not PROMETHEUS, reason="Prometheus is not installed; .ci/tools installs it"),
]


@pytest.fixture(scope="module")
def told(postgres: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Told]]:
    folder = tmp_path_factory.mktemp("prometheus")
    with lively_services(postgres, folder) as (platform, others), served() as serve:
        addresses = [serve(app).removeprefix("http://") for app in (platform.app, *others)]
        with prometheus(folder, addresses, SCRAPER) as server:
            server.wait(len(addresses))
            assert server.unscraped() == []
            yield ask_everything(server, "1m")


def problems(told: list[Told], kind: str) -> list[tuple[str, str]]:
    found = [one for one in told if one.kind == kind]
    assert len(found) >= 15
    return [(one.name, one.problem) for one in found if one.problem]


def test_every_panel_gets_rows_that_its_legend_tells_apart(told: list[Told]) -> None:
    assert problems(told, "panel") == []


def test_every_series_that_is_read_is_there_before_anything_is_wrong(told: list[Told]) -> None:
    assert problems(told, "series") == []


def test_rules_are_loaded_and_evaluated(told: list[Told]) -> None:
    assert {one.name for one in told if one.kind == "rule"} == {one["alert"] for one in rules()}
    quiet = [one for one in problems(told, "rule") if one[0] != "AifapAlertsStuck"]
    assert quiet == []  # these services have a message of long ago and no dispatcher
