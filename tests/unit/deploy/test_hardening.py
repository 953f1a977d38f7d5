"""What the manifests promise when things go wrong or somebody means harm (fault rows H and S)."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys

import pytest

from tests.unit.deploy.network_reach import Network, Pod
from tests.unit.deploy.object_schemas import rule_problems
from tests.unit.deploy.rendering import (
    DEPLOY,
    OVERLAYS,
    Document,
    containers_of,
    identity,
    pod_template_of,
    render_overlay,
)

SECRET_WORDS = re.compile(r"password|secret|token|passphrase|credential|api_?key|webhook", re.I)


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> list[Document]:
    return render_overlay(request.param)


def workloads(objects: list[Document]) -> list[tuple[Document, Document]]:
    return [(one, spec) for one in objects if (spec := pod_template_of(one)) is not None]


def job_specs(objects: list[Document]) -> list[Document]:
    return [
        one["spec"] if one["kind"] == "Job" else one["spec"]["jobTemplate"]["spec"]
        for one in objects
        if one["kind"] in ("Job", "CronJob")
    ]


# --- H: Jobs and probes ---------------------------------------------------------------------------


def test_H6_no_replacement_pod_before_the_old_one_is_gone(objects: list[Document]) -> None:
    specs = job_specs(objects)
    assert len(specs) == 3
    assert {spec["podReplacementPolicy"] for spec in specs} == {"Failed"}


def test_H9_a_late_start_is_skipped_rather_than_piled_up(objects: list[Document]) -> None:
    cron_jobs = [one["spec"] for one in objects if one["kind"] == "CronJob"]
    periods_s = {"* * * * *": 60, "20 0 * * *": 86_400}
    assert sorted(spec["schedule"] for spec in cron_jobs) == sorted(periods_s)
    for spec in cron_jobs:
        # below 10 the controller's own look every ten seconds may miss it
        assert 10 < spec["startingDeadlineSeconds"] < periods_s[spec["schedule"]]
        assert spec["concurrencyPolicy"] == "Forbid"
        assert spec["timeZone"] == "Etc/UTC"
        assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] < periods_s[spec["schedule"]]


def test_H11_liveness_asks_the_process_alone_and_readiness_what_it_needs(
    objects: list[Document],
) -> None:
    asked = 0
    for one, _ in workloads(objects):
        for container in containers_of(one):
            live = container.get("livenessProbe", {}).get("httpGet", {}).get("path")
            ready = container.get("readinessProbe", {}).get("httpGet", {}).get("path")
            if ready is not None:
                asked += 1
                assert (live, ready) == ("/health/live", "/health/ready"), identity(one)
                start = container["startupProbe"]
                assert start["httpGet"]["path"] == "/health/live"
                assert start["failureThreshold"] * start["periodSeconds"] >= 120
                live_probe = container["livenessProbe"]
                assert live_probe["failureThreshold"] * live_probe["periodSeconds"] >= 120
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    # our doors answer to their own names only, and a kubelet asks by address
                    headers = container[probe]["httpGet"]["httpHeaders"]
                    assert headers == [{"name": "Host", "value": "localhost"}]
    assert asked == 3


def test_H11_a_slow_session_host_is_never_restarted_for_it(objects: list[Document]) -> None:
    (host,) = [
        one
        for one in objects
        if one["metadata"]["name"] == "sts-fin-aifap-bt-session-host"
        and one["kind"] == "StatefulSet"
    ]
    (container,) = containers_of(host)
    assert "livenessProbe" not in container
    assert "readinessProbe" in container
    assert host["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 120


def test_H14_finished_jobs_go_away(objects: list[Document]) -> None:
    for spec in job_specs(objects):
        assert 0 < spec["ttlSecondsAfterFinished"] <= 3600
        assert "activeDeadlineSeconds" in spec
    for one in objects:
        if one["kind"] == "CronJob":
            assert one["spec"]["successfulJobsHistoryLimit"] <= 3
            assert one["spec"]["failedJobsHistoryLimit"] <= 5


# --- S47: the container ---------------------------------------------------------------------------


def test_S47_pods_are_restricted(objects: list[Document]) -> None:
    for one, template in workloads(objects):
        spec = template["spec"]
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True, identity(one)
        assert context["runAsUser"] > 0
        assert context["runAsGroup"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & spec.keys()
        kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "secret", "configMap", "persistentVolumeClaim", "projected"}
        for volume in spec["volumes"]:
            assert volume.get("emptyDir", {"sizeLimit": "1"}).get("sizeLimit"), identity(one)


def test_S47_containers_have_a_read_only_root_and_no_privilege(objects: list[Document]) -> None:
    for one, _ in workloads(objects):
        for container in containers_of(one):
            context = container["securityContext"]
            assert context == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, identity(one)
            assert not any("hostPort" in port for port in container.get("ports", []))
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}


def test_S47_images_are_pinned_to_a_version_or_a_digest(objects: list[Document]) -> None:
    for one, _ in workloads(objects):
        for container in containers_of(one):
            image = container["image"]
            tag = image.rpartition("/")[2].partition(":")[2]
            assert "@sha256:" in image or re.fullmatch(r"\d+\.\d+[\w.-]*", tag), image


def test_S47_namespaces_enforce_the_restricted_standard(objects: list[Document]) -> None:
    for one in objects:
        if one["kind"] == "Namespace":
            labels = one["metadata"]["labels"]
            assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
            assert labels["pod-security.kubernetes.io/enforce-version"] == "v1.36"


# --- S48: what pods may ask of the cluster --------------------------------------------------------


def test_S48_no_pod_has_a_token_of_the_cluster_and_no_right_in_it(objects: list[Document]) -> None:
    roles = {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}
    assert [identity(one) for one in objects if one["kind"] in roles] == []
    accounts = []
    for one, template in workloads(objects):
        assert template["spec"]["automountServiceAccountToken"] is False, identity(one)
        assert template["spec"]["enableServiceLinks"] is False, identity(one)
        accounts.append(template["spec"]["serviceAccountName"])
    assert len(set(accounts)) == len(accounts)  # nobody shares an identity
    for one in objects:
        if one["kind"] == "ServiceAccount":
            assert one["automountServiceAccountToken"] is False


# --- S49: the network -----------------------------------------------------------------------------


def pod(one: Document, template: Document) -> Pod:
    labels = template["metadata"]["labels"]
    return Pod(
        labels["app.kubernetes.io/name"], one["metadata"]["namespace"], tuple(labels.items())
    )


INGRESS = Pod("ingress", "istio-system", (("istio", "ingressgateway"),))
STRANGER = Pod("stranger", "default", ())
INTRUDER = Pod("intruder", "finplatform", ())
DNS = Pod("dns", "kube-system", (("k8s-app", "kube-dns"),))
PORTS = (22, 80, 443, 5432, 6443, 8000, 8080, 8100, 8101, 8888, 10250)
EXPECTED = {
    ("ingress", "aifap-platform-api", 8888),
    ("ingress", "aifap-platform-api", 8080),
    ("aifap-platform-api", "aifap-gateway", 8888),
    ("aifap-session-host", "aifap-gateway", 8888),
    ("aifap-session-host", "aifap-market", 8888),
    ("aifap-market", "aifap-gateway", 8888),
    ("aifap-finwatcher", "aifap-gateway", 8888),
}
PAPER = {
    ("aifap-gateway", "aifap-simulator", 8100),
    *(
        (f"aifap-{name}", "aifap-simulator", 8101)
        for name in ("platform-api", "session-host", "market", "finwatcher", "gateway")
    ),
    *(
        (f"aifap-{name}", "aifap-postgres", 5432)
        for name in ("platform-api", "session-host", "market", "finwatcher", "gateway", "migrate")
    ),
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_S49_pods_reach_whom_they_must_and_nobody_else(overlay: str) -> None:
    objects = render_overlay(overlay)
    network = Network(objects)
    ours = [pod(one, template) for one, template in workloads(objects)]
    everybody = [*ours, INGRESS, STRANGER, INTRUDER]
    found = {
        (sender.name, receiver.name, port)
        for sender, receiver in itertools.permutations(everybody, 2)
        for port in PORTS
        if (sender in ours or receiver in ours) and network.reaches(sender, receiver, port)
    }
    assert found == EXPECTED | (PAPER if overlay == "local-paper" else set())


def test_S49_every_pod_is_denied_by_default_and_can_resolve_names(objects: list[Document]) -> None:
    network = Network(objects)
    for one, template in workloads(objects):
        assert network.is_denied_by_default(pod(one, template)), identity(one)
        assert network.reaches(pod(one, template), DNS, 53, "UDP")
    assert network.is_denied_by_default(INTRUDER)


def test_S49_only_gateway_and_api_reach_public_addresses_and_only_by_tls(
    objects: list[Document],
) -> None:
    network = Network(objects)
    for one, template in workloads(objects):
        sender = pod(one, template)
        public = sender.name in ("aifap-gateway", "aifap-platform-api")
        assert network.reaches_address(sender, "104.16.0.9", 443) is public, sender.name
        assert not network.reaches_address(sender, "104.16.0.9", 80)
        for hidden in ("169.254.169.254", "169.254.170.2", "10.96.0.1", "192.168.0.1", "127.0.0.1"):
            assert not network.reaches_address(sender, hidden, 443), sender.name
            assert not network.reaches_address(sender, hidden, 80)
        assert not network.reaches_address(sender, "10.96.0.1", 6443)


def test_S49_only_who_needs_postgres_reaches_its_port(objects: list[Document]) -> None:
    network = Network(objects)
    reaching = {
        sender.name
        for one, template in workloads(objects)
        if network.reaches_address(sender := pod(one, template), "10.20.30.40", 5432)
    }
    assert reaching == {
        f"aifap-{name}"
        for name in ("platform-api", "session-host", "market", "finwatcher", "gateway", "migrate")
    }


# --- S50: secrets ---------------------------------------------------------------------------------

LATER_KEY = re.compile(r"credentials_key\.\d+")


def secret_sources(volume: Document) -> list[Document]:
    """What the volume shows of Secrets, mounted plainly or projected."""
    if "secret" in volume:
        return [volume["secret"]]
    sources = volume.get("projected", {}).get("sources", [])
    return [source["secret"] for source in sources if "secret" in source]


def test_S50_no_secret_is_in_an_environment_an_argument_or_a_config_map(
    objects: list[Document],
) -> None:
    for one, _ in workloads(objects):
        for container in containers_of(one):
            for item in container.get("env", []):
                assert item.keys() == {"name", "value"}, identity(one)
                is_path = item["name"].endswith("_FILE") and item["value"].startswith("/")
                assert is_path or not SECRET_WORDS.search(item["name"]), item["name"]
            assert {key for source in container.get("envFrom", []) for key in source} <= {
                "configMapRef"
            }
            words = [*container.get("command", []), *container.get("args", [])]
            for word in words:
                assert not re.search(r"--?(password|secret|token|api-key)\b", word), identity(one)
    for one in objects:
        assert one["kind"] != "Secret", "secrets are never part of an overlay"
        if one["kind"] == "ConfigMap":
            assert [name for name in one["data"] if SECRET_WORDS.search(name)] == []


def test_S50_secrets_are_read_only_files_for_their_group_alone(objects: list[Document]) -> None:
    for one, template in workloads(objects):
        volumes = template["spec"]["volumes"]
        secret = {volume["name"] for volume in volumes if secret_sources(volume)}
        assert secret, identity(one)
        for volume in volumes:
            for source in secret_sources(volume):
                assert (volume.get("projected") or source)["defaultMode"] == 0o440
                assert source["items"], "only the keys that this pod needs"
        for container in containers_of(one):
            for mount in container["volumeMounts"]:
                assert mount["name"] not in secret or mount["readOnly"] is True


def test_S50_only_the_gateway_has_the_key_of_the_exchange_keys(objects: list[Document]) -> None:
    having = {
        template["metadata"]["labels"]["app.kubernetes.io/name"]
        for _, template in workloads(objects)
        for volume in template["spec"]["volumes"]
        for source in secret_sources(volume)
        for item in source["items"]
        if item["key"].startswith("credentials_key")
    }
    assert having == {"aifap-gateway"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_made_secrets_are_what_the_pods_mount(overlay: str) -> None:
    words = [sys.executable, str(DEPLOY / "examples" / "make_secrets.py")]
    words += ["--paper"] if overlay == "local-paper" else []
    made = json.loads(subprocess.run(words, capture_output=True, timeout=60, check=True).stdout)
    keys = {item["metadata"]["namespace"]: item["stringData"] for item in made["items"]}
    assert [rule_problems(item) for item in made["items"]] == [[]] * 4
    mounted: dict[str, set[str]] = {name: set() for name in keys}
    for one, template in workloads(render_overlay(overlay)):
        for volume in template["spec"]["volumes"]:
            for source in secret_sources(volume):
                assert source.get("secretName", source.get("name")) == "aifap-secrets"
                wanted = {item["key"] for item in source["items"]}
                if source.get("optional"):
                    wanted = {name for name in wanted if not LATER_KEY.fullmatch(name)}
                mounted[one["metadata"]["namespace"]] |= wanted
    assert mounted == {name: set(values) for name, values in keys.items()}
    assert len({values["token_key"] for values in keys.values()}) == 1
    assert len({values["database_password"] for values in keys.values()}) == 1
    if overlay == "local-paper":
        simulator = json.loads(keys["fin-finwrapper"]["simulator.json"])
        assert simulator["control_token"] == keys["fin-finwrapper"]["control_token"]
