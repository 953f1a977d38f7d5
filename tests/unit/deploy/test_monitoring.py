"""What is added for Prometheus: it reaches the three services, by the port they have, alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.deploy.network_reach import Network, Pod
from tests.unit.deploy.rendering import DEPLOY, load_documents, pod_template_of, render_overlay

MONITORING = DEPLOY / "monitoring"
PROMETHEUS = Pod("prometheus", "monitoring", (("app.kubernetes.io/name", "prometheus"),))
SOMEBODY = Pod("somebody", "monitoring", (("app.kubernetes.io/name", "grafana"),))
STRANGER = Pod("stranger", "default", (("app.kubernetes.io/name", "prometheus"),))
SERVICES = {
    "aifap-platform-api": "finplatform",
    "aifap-gateway": "fin-finwrapper",
    "aifap-market": "fin-crypto",
}


def objects() -> list[dict[str, Any]]:
    namespace = {
        "kind": "Namespace",
        "metadata": {"name": "monitoring"},
    }
    added = [
        document
        for name in ("network.yaml", "scrape.yaml")
        for document in load_documents(MONITORING / name)
    ]
    return [*render_overlay("production"), namespace, *added]


@pytest.mark.parametrize("service", SERVICES)
def test_prometheus_and_nobody_else_reaches_a_services_port(service: str) -> None:
    network = Network(objects())
    pod = Pod(
        service,
        SERVICES[service],
        (("app.kubernetes.io/name", service), ("aifap.io/uses-postgres", "true")),
    )
    assert network.reaches(PROMETHEUS, pod, 8888)
    assert not network.reaches(PROMETHEUS, pod, 5432)
    assert not network.reaches(SOMEBODY, pod, 8888)
    assert not network.reaches(STRANGER, pod, 8888)


def test_the_monitor_selects_exactly_these_pods_and_a_port_they_have() -> None:
    (monitor,) = load_documents(MONITORING / "scrape.yaml")
    spec = monitor["spec"]
    (rule,) = spec["selector"]["matchExpressions"]
    assert (rule["key"], rule["operator"]) == ("app.kubernetes.io/name", "In")
    assert set(rule["values"]) == set(SERVICES)
    assert set(spec["namespaceSelector"]["matchNames"]) == set(SERVICES.values())
    (endpoint,) = spec["podMetricsEndpoints"]
    assert endpoint["path"] == "/metrics"
    assert endpoint["authorization"]["credentials"] == {"name": "aifap-metrics", "key": "token"}
    found = set()
    for one in objects():
        template = pod_template_of(one)
        name = (template or {}).get("metadata", {}).get("labels", {}).get("app.kubernetes.io/name")
        if template is None or name not in SERVICES:
            continue
        ports = [port for each in template["spec"]["containers"] for port in each.get("ports", [])]
        assert [p["containerPort"] for p in ports if p["name"] == endpoint["port"]] == [8888]
        assert one["metadata"]["namespace"] == SERVICES[name]
        found.add(name)
    assert found == set(SERVICES)


def test_the_kustomization_names_the_files_that_are_there() -> None:
    (kustomization,) = load_documents(MONITORING / "kustomization.yaml")
    named = set(kustomization["resources"])
    for generator in kustomization["configMapGenerator"]:
        named |= set(generator["files"])
    there = {path.name for path in MONITORING.iterdir()}
    assert named == there - {"kustomization.yaml"}
