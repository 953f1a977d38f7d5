"""The alert rules: promtool understands them, each fires when it must and stays quiet otherwise,
their metrics are really told, and somebody who is woken finds what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from module.settings import Settings
from tests.integration.telemetry.scrapes import (
    Scrape,
    lively_services,
    scrape,
    scrape_platform,
)

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "deploy" / "monitoring" / "aifap.rules.yaml"
CASES = Path(__file__).parent / "aifap.rules.test.yaml"
PROMTOOL = shutil.which("promtool") or ""
needs_promtool = pytest.mark.skipif(
    not PROMTOOL, reason="promtool is not installed (Debian: prometheus); .ci/tools installs it"
)
pytestmark = pytest.mark.timeout(120)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def scrapes(postgres: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Scrape]]:
    """Of all three services, after something has happened in each."""
    with lively_services(postgres, tmp_path_factory.mktemp("services")) as (platform, others):
        scrape(platform.app)  # a request is counted once it is answered
        yield [scrape_platform(platform), *map(scrape, others)]


def promtool(*arguments: str, given: str | None = None) -> str:
    ran = subprocess.run(
        [PROMTOOL, *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    return said


@needs_promtool
def test_promtool_understands_the_rules() -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", str(RULES))


@needs_promtool
def test_each_alert_fires_when_it_must_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(CASES))


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    tried = {
        (case["alertname"], bool(case["exp_alerts"]))
        for test in yaml.safe_load(CASES.read_text())["tests"]
        for case in test["alert_rule_test"]
    }
    assert tried == {(rule["alert"], fires) for rule in rules() for fires in (True, False)}


@needs_promtool
def test_promtool_understands_every_scrape(scrapes: list[Scrape]) -> None:
    for found in scrapes:
        assert promtool("check", "metrics", given=found.text) == ""


def test_every_metric_that_a_rule_reads_is_told_by_a_service(scrapes: list[Scrape]) -> None:
    told = {name for found in scrapes for name in found.names()}
    read = {name for rule in rules() for name in re.findall(r"aifap_\w+", rule["expr"])}
    assert read - told == set()
    assert len(read) >= 20


def test_labels_that_a_rule_groups_by_are_those_of_its_metrics(scrapes: list[Scrape]) -> None:
    labels: dict[str, set[str]] = {}
    for found in scrapes:
        for family in found.families.values():
            for sample in family.samples:
                labels.setdefault(sample.name, {"instance", "job"}).update(sample.labels)
    for rule in rules():
        names = re.findall(r"aifap_\w+", rule["expr"])
        grouped = {
            label.strip()
            for group in re.findall(r"by \(([^)]*)\)", rule["expr"])
            for label in group.split(",")
        }
        matched = {
            label
            for selector in re.findall(r"{([^}]*)}", rule["expr"])
            for label in re.findall(r"(\w+)\s*[!=]~?", selector)
        }
        known = set.union(*(labels[name] for name in names))
        assert (grouped | matched) <= known, rule["alert"]


def test_every_alert_says_what_it_is_how_bad_and_what_to_do() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    anchors = {title.lower() for title in re.findall(r"^### (\w+)$", page, re.M)}
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"].endswith((".", ".'"))
        document, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (ROOT / document).exists()
        assert anchor == rule["alert"].lower()
        assert anchor in anchors
    assert anchors == {name.lower() for name in names}, "no page for an alert that is gone"


def test_no_label_can_grow_without_bound(scrapes: list[Scrape]) -> None:
    known = {
        *("route", "method", "status", "le", "state", "market", "trade_env", "outcome", "channel"),
        *("cause", "database", "endpoint", "endpoints", "address", "priority", "result"),
        *("version", "services", "part"),
    }
    for found in scrapes:
        for family in found.families.values():
            for sample in family.samples:
                assert sample.labels.keys() <= known, family.name
                assert family.documentation
