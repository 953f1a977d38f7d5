"""`deploy/grafana`: objects that an API server takes, as closed as the others, with every board."""

from __future__ import annotations

import json

import kubernetes_validate
import pytest
import yaml

from tests.integration.dashboards.asked import DATABASES, METRICS_UID, boards
from tests.unit.deploy.network_reach import Network, Pod
from tests.unit.deploy.object_schemas import rule_problems
from tests.unit.deploy.rendering import (
    DEPLOY,
    Document,
    containers_of,
    identity,
    pod_template_of,
    render,
    render_overlay,
)

KUBECTL_KEEPS = 262_144


@pytest.fixture(scope="module")
def objects() -> list[Document]:
    return render(DEPLOY / "grafana")


def the(objects: list[Document], kind: str, name: str) -> Document:
    (found,) = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def pod_of(one: Document) -> Document:
    template = pod_template_of(one)
    assert template is not None
    return template


def test_every_object_is_one_that_an_api_server_takes(objects: list[Document]) -> None:
    for one in objects:
        kubernetes_validate.validate(one, "1.36.0", strict=True)
        assert rule_problems(one) == [], identity(one)
        assert one["metadata"]["namespace"] == "fin-finwatcher"
        assert len(json.dumps(one)) < KUBECTL_KEEPS, identity(one)


def test_the_config_maps_hold_the_boards_and_datasources(objects: list[Document]) -> None:
    pod = pod_of(the(objects, "Deployment", "dep-fin-grafana"))
    volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
    found: dict[str, str] = {}
    for source in volumes["boards"]["projected"]["sources"]:
        found |= the(objects, "ConfigMap", source["configMap"]["name"])["data"]
    assert {name: json.loads(text) for name, text in found.items()} == {
        f"{name}.json": board for name, board in boards().items()
    }
    (text,) = the(objects, "ConfigMap", volumes["datasources"]["configMap"]["name"])[
        "data"
    ].values()
    uids = {one["uid"] for one in yaml.safe_load(text)["datasources"]}
    assert uids == {*DATABASES, METRICS_UID}


def test_everything_is_mounted_where_it_is_looked_for(objects: list[Document]) -> None:
    deployment = the(objects, "Deployment", "dep-fin-grafana")
    (container,) = containers_of(deployment)
    mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    pod = pod_of(deployment)
    volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
    (text,) = the(objects, "ConfigMap", "grafana-dashboards")["data"].values()
    (provider,) = yaml.safe_load(text)["providers"]
    assert mounts[provider["options"]["path"]] == "boards"
    (text,) = the(objects, "ConfigMap", "grafana-datasources")["data"].values()
    given = {one["name"] for one in container["env"]}
    for one in yaml.safe_load(text)["datasources"]:
        words = [one["url"], one["jsonData"].get("sslmode", "")]
        assert {word[1:] for word in words if word.startswith("$")} <= given
        password = one.get("secureJsonData", {}).get("password", "$__file{/etc/grafana/secrets/")
        assert password.startswith("$__file{/etc/grafana/secrets/")
    items = {one["path"] for one in volumes[mounts["/etc/grafana/secrets"]]["secret"]["items"]}
    assert items == {"reader_password", "admin_password"}


def test_S47_its_pod_is_restricted(objects: list[Document]) -> None:
    deployment = the(objects, "Deployment", "dep-fin-grafana")
    pod = pod_of(deployment)["spec"]
    (container,) = containers_of(deployment)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["image"].rpartition(":")[2] not in ("", "latest")
    values = {one["name"]: one.get("value", "") for one in container["env"]}
    assert values["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    for name, value in values.items():
        if "PASSWORD" in name:
            assert name.endswith("__FILE")
            assert value.startswith("/etc/grafana/secrets/")


def test_S49_it_reaches_postgres_and_prometheus_and_nobody_reaches_it(
    objects: list[Document],
) -> None:
    everything = render_overlay("local-paper") + objects
    network = Network(everything)
    labels = pod_of(the(objects, "Deployment", "dep-fin-grafana"))["metadata"]["labels"]
    grafana = Pod("aifap-grafana", "fin-finwatcher", tuple(labels.items()))
    prometheus = Pod("prometheus", "monitoring", (("app.kubernetes.io/name", "prometheus"),))
    others = [
        Pod(
            template["metadata"]["labels"]["app.kubernetes.io/name"],
            one["metadata"]["namespace"],
            tuple(template["metadata"]["labels"].items()),
        )
        for one in render_overlay("local-paper")
        if (template := pod_template_of(one)) is not None
    ]
    reached = {
        (other.name, port)
        for other in [*others, prometheus]
        for port in (22, 443, 3000, 5432, 8000, 8100, 8101, 8888, 9090)
        if network.reaches(grafana, other, port)
    }
    assert reached == {("aifap-postgres", 5432), ("prometheus", 9090)}
    assert not network.reaches_address(grafana, "93.184.216.34", 443)
    assert not any(network.reaches(other, grafana, 3000) for other in [*others, prometheus])
