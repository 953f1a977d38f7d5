"""A real Prometheus for the length of a block, and what it answers to all that is shipped for it.

services' /metrics ◄── Prometheus (shipped rules, a scraper's token) ◄── every selector, panel, rule
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.integration.dashboards.asked import METRICS_UID, boards

RULES: Final = Path(__file__).resolve().parents[3] / "deploy" / "monitoring" / "aifap.rules.yaml"
PROMETHEUS: Final = shutil.which("prometheus") or ""
SCRAPES_MIN: Final = 4
START_S_MAX: Final = 100.0
POLL_S: Final = 0.1
FILTERED: Final = re.compile(r"> 0$")
"""A panel's query that ends so shows only what is wrong: nothing, while nothing is."""


@dataclass(frozen=True)
class Told:
    """What Prometheus made of one question: its rows (labels, value), and what is wrong with it."""

    kind: str
    name: str
    rows: list[tuple[dict[str, str], str]]
    problem: str = ""


class PrometheusServer:
    """Asks one through its HTTP API."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer. ValueError: what Prometheus says is wrong with the question."""
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from error

    def rows(self, expression: str) -> list[tuple[dict[str, str], str]]:
        """Labels and value of each row of an instant query."""
        found = self.get("query", query=expression)["result"]
        return [(row["metric"], row["value"][1]) for row in found]

    def unscraped(self) -> list[str]:
        """Targets that were not read, with why."""
        found = self.get("targets")["activeTargets"]
        return [f"{one['scrapeUrl']}: {one['lastError']}" for one in found if one["health"] != "up"]

    def wait(self, targets: int) -> None:
        """Until each target was read often enough for rates, and the rules were looked at."""
        ends_s = time.monotonic() + START_S_MAX
        read = f"count(count_over_time(up[10m]) >= {SCRAPES_MIN})"
        while time.monotonic() < ends_s:
            time.sleep(POLL_S)
            try:
                if [value for _, value in self.rows(read)] == [str(targets)]:
                    return
            except (OSError, ValueError):  # it has only just begun
                continue
        raise TimeoutError(f"Prometheus has not read {targets} targets in {START_S_MAX:.0f} s")


@contextmanager
def prometheus(
    folder: Path, addresses: Sequence[str], token: str, interval_s: int = 1
) -> Iterator[PrometheusServer]:
    """One that reads `addresses` (host:port) with the token and keeps the shipped rules."""
    (folder / "token").write_text(token)
    scrape = {
        "job_name": "aifap",
        "authorization": {"credentials_file": str(folder / "token")},
        "static_configs": [{"targets": list(addresses)}],
    }
    times = {f"{name}_interval": f"{interval_s}s" for name in ("scrape", "evaluation")}
    document = {
        "global": {**times, "scrape_timeout": f"{interval_s}s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [scrape],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(document))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                *(PROMETHEUS, f"--config.file={folder / 'prometheus.yml'}"),
                *(f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}"),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield PrometheusServer(f"http://{address}")
    finally:
        process.kill()
        process.wait()


def ask_everything(server: PrometheusServer, rate_interval: str) -> list[Told]:
    """Every panel's query, every selector of panels and rules, every rule."""
    queries = list(_queries())
    texts = [text for _, text, _ in queries]
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        texts += [rule["expr"] for rule in group["rules"]]
    told = [_panel(server, *query, rate_interval) for query in queries]
    told += [_selector(server, one) for one in sorted(set().union(*map(_selectors, texts)))]
    rules = [rule for group in server.get("rules")["groups"] for rule in group["rules"]]
    return told + [_rule(one) for one in rules]


def _queries() -> Iterator[tuple[str, str, str]]:
    """Title, expression and legend of what panels ask Prometheus."""
    for board in boards().values():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                if target["datasource"]["uid"] == METRICS_UID:
                    yield panel["title"], target["expr"], target["legendFormat"]


def _selectors(expression: str) -> set[str]:
    """`name{matchers}` of all series that an expression reads."""
    return set(re.findall(r"aifap_\w+(?:{[^}]*})?", expression))


def _panel(
    server: PrometheusServer, title: str, expression: str, legend: str, rate_interval: str
) -> Told:
    try:
        rows = server.rows(expression.replace("$__rate_interval", rate_interval))
    except ValueError as error:
        return Told("panel", title, [], str(error))
    shown = set(re.findall(r"{{(\w+)}}", legend))
    problem = ""
    if not rows and not FILTERED.search(expression):
        problem = "no rows"
    elif any(set(labels) != shown for labels, _ in rows):
        problem = f"rows are not told apart by {sorted(shown)} alone"
    elif not shown and len(rows) > 1:
        problem = "several rows have one name"
    return Told("panel", title, rows, problem)


def _selector(server: PrometheusServer, selector: str) -> Told:
    """A healthy installation tells zeros too: no rate sees a series that begins with a failure."""
    rows = server.rows(f"count({selector})")
    return Told("series", selector, rows, "" if rows else "no such series")


def _rule(rule: dict[str, Any]) -> Told:
    problem = rule.get("lastError", "") if rule["health"] != "ok" else ""
    if rule["state"] == "firing":
        problem = f"fires: {rule['alerts'][0]['annotations']['summary']}"
    rows = [(alert["labels"], alert["value"]) for alert in rule["alerts"]]
    return Told("rule", rule["name"], rows, problem)
