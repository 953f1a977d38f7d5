"""Every object of every overlay is one that a Kubernetes 1.36 API server would take as it is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.unit.deploy.object_schemas import (
    SCHEMAS,
    cron_problems,
    rule_problems,
    schema_problems,
    schemas_are_here,
)
from tests.unit.deploy.rendering import (
    DEPLOY,
    OVERLAYS,
    ROOT,
    Document,
    containers_of,
    identity,
    pod_template_of,
    render_overlay,
)

VERSION = "1.36.0"
needs_schemas = pytest.mark.skipif(
    not schemas_are_here(), reason=f"the API server's schemas are not at {SCHEMAS}"
)


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> list[Document]:
    return render_overlay(request.param)


def is_istio(one: Document) -> bool:
    return "istio.io" in str(one["apiVersion"])


def workload(objects: list[Document], name: str) -> Document:
    (found,) = [one for one in objects if one["metadata"]["name"] == name and pod_template_of(one)]
    return found


# --- is it well formed ----------------------------------------------------------------------------


@needs_schemas
def test_every_object_fits_the_api_servers_schema(objects: list[Document]) -> None:
    found = {identity(one): schema_problems(one) for one in objects}
    assert {name: problems for name, problems in found.items() if problems} == {}


def test_every_object_passes_kubernetes_validate_strictly(objects: list[Document]) -> None:
    for one in objects:
        if not is_istio(one):
            kubernetes_validate.validate(one, VERSION, strict=True)


def test_every_object_keeps_the_rules_that_schemas_do_not_know(objects: list[Document]) -> None:
    found = {identity(one): rule_problems(one) for one in objects}
    assert {name: problems for name, problems in found.items() if problems} == {}


def test_no_object_is_there_twice(objects: list[Document]) -> None:
    counted = Counter(identity(one) for one in objects)
    assert [name for name, count in counted.items() if count > 1] == []


def test_every_object_names_its_namespace_and_the_namespace_is_there(
    objects: list[Document],
) -> None:
    there = {one["metadata"]["name"] for one in objects if one["kind"] == "Namespace"}
    assert there == {"finplatform", "fin-crypto", "fin-finwatcher", "fin-finwrapper"}
    for one in objects:
        if one["kind"] != "Namespace":
            assert one["metadata"].get("namespace") in there, identity(one)


def kustomize() -> str | None:
    """A real kubectl, if there is one: of the virtual environment, or of the machine."""
    own = Path(sys.executable).with_name("kubectl")
    return str(own) if own.exists() else shutil.which("kubectl")


@pytest.mark.parametrize("name", OVERLAYS)
def test_kustomize_renders_the_same_objects(name: str) -> None:
    kubectl = kustomize()
    if kubectl is None:
        pytest.skip("there is no kubectl here")
    ran = subprocess.run(
        [kubectl, "kustomize", str(DEPLOY / "overlays" / name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unknown command" in ran.stderr:
        pytest.skip("this kubectl is too old to know kustomize")
    assert ran.returncode == 0, ran.stderr
    theirs = {identity(one): one for one in yaml.safe_load_all(ran.stdout)}
    ours = {identity(one): one for one in render_overlay(name)}
    assert theirs.keys() == ours.keys()
    for key, one in ours.items():
        assert json.loads(json.dumps(one)) == theirs[key], key


# --- does it hang together ------------------------------------------------------------------------


def pods_of(objects: list[Document], namespace: str) -> list[tuple[Document, Document]]:
    return [
        (one, template)
        for one in objects
        if one["metadata"].get("namespace") == namespace
        and (template := pod_template_of(one)) is not None
    ]


def test_services_lead_to_ports_of_pods(objects: list[Document]) -> None:
    for service in (one for one in objects if one["kind"] == "Service"):
        wanted = service["spec"]["selector"].items()
        pods = pods_of(objects, service["metadata"]["namespace"])
        matching = [
            (one, template)
            for one, template in pods
            if wanted <= template["metadata"]["labels"].items()
        ]
        assert len(matching) == 1, identity(service)
        names = {port["name"] for c in containers_of(matching[0][0]) for port in c.get("ports", [])}
        for port in service["spec"].get("ports", []):
            assert port["targetPort"] in names, identity(service)


def test_the_ports_of_the_platform_are_the_published_ones(objects: list[Document]) -> None:
    (service,) = [one for one in objects if one["metadata"]["name"] == "srv-fin-aifap-bt-api"]
    leads_to = {port["port"]: port["targetPort"] for port in service["spec"]["ports"]}
    assert leads_to == {8000: "api", 8080: "dashboard"}
    (container,) = containers_of(workload(objects, "dep-fin-aifap-bt-api"))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"api": 8888, "dashboard": 8080}
    image = (ROOT / "Dockerfile").read_text()  # where the processes in it listen
    assert f"AIFAP_API_PORT={ports['api']}" in image
    assert f"AIFAP_DASHBOARD_PORT={ports['dashboard']}" in image


def test_settings_name_services_that_are_there(objects: list[Document]) -> None:
    services = {
        f"{one['metadata']['name']}.{one['metadata']['namespace']}.svc.cluster.local": {
            str(port["port"]) for port in one["spec"].get("ports", [])
        }
        for one in objects
        if one["kind"] == "Service"
    }
    settings = [one for one in objects if one["metadata"]["name"] == "aifap-settings"]
    assert len(settings) == 4
    for one in settings:
        assert one["data"] == settings[0]["data"]
    for name in ("AIFAP_GATEWAY_URL", "AIFAP_MARKET_URL", "AIFAP_SIMULATOR_URL"):
        url = settings[0]["data"].get(name, "")
        if url:
            host, _, port = url.removeprefix("http://").partition(":")
            assert port in services[host]
    clock = settings[0]["data"].get("AIFAP_WORLD_CLOCK", "")
    if clock:
        host, _, port = clock.partition(":")
        assert port in services[host]


def test_settings_are_ones_that_the_product_reads(
    objects: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    from module.settings import Settings

    (shared,) = [
        one["data"]
        for one in objects
        if one["metadata"]["name"] == "aifap-settings"
        and one["metadata"]["namespace"] == "finplatform"
    ]
    for one in objects:
        for container in containers_of(one):
            values = dict(shared) if container.get("envFrom") else {}
            values |= {item["name"]: item["value"] for item in container.get("env", [])}
            for name in [name for name in values if name.startswith("AIFAP_")]:
                assert name.removeprefix("AIFAP_").lower() in Settings.model_fields, name
            with monkeypatch.context() as patched:
                for name, value in values.items():
                    patched.setenv(name, value)
                settings = Settings()
                assert settings.installation == values.get("AIFAP_INSTALLATION", "local")


def test_claims_settings_and_service_accounts_are_there(objects: list[Document]) -> None:
    there = {identity(one) for one in objects}
    for one in objects:
        template = pod_template_of(one)
        if template is None:
            continue
        namespace = one["metadata"]["namespace"]
        spec = template["spec"]
        assert f"ServiceAccount {namespace}/{spec['serviceAccountName']}" in there
        for volume in spec.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert f"PersistentVolumeClaim {namespace}/{claim}" in there
            if "configMap" in volume:
                assert f"ConfigMap {namespace}/{volume['configMap']['name']}" in there
        for container in containers_of(one):
            for source in container.get("envFrom", []):
                assert f"ConfigMap {namespace}/{source['configMapRef']['name']}" in there


def test_disruption_budgets_are_of_pods_that_are_there(objects: list[Document]) -> None:
    budgets = [one for one in objects if one["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == 4
    for budget in budgets:
        wanted = budget["spec"]["selector"]["matchLabels"].items()
        pods = pods_of(objects, budget["metadata"]["namespace"])
        assert any(wanted <= template["metadata"]["labels"].items() for _, template in pods)


def test_commands_are_ones_that_this_build_has(objects: list[Document]) -> None:
    for one in objects:
        for container in containers_of(one):
            if "aifap" not in container["image"]:
                continue
            command = container["command"]
            if command[:2] == ["python", "-m"]:
                assert find_spec(command[2]) is not None, command
            else:
                assert command[0] in ("gunicorn", "aifap"), command


def test_the_migration_command_is_known_to_the_command_line() -> None:
    from typer.testing import CliRunner

    from api.cli import app

    command = next(
        containers_of(workload(render_overlay("production"), "job-fin-aifap-bt-migrate"))
    )
    words = command["command"]
    assert words[0] == "aifap"
    shown = CliRunner().invoke(app, [*words[1:], "--help"])
    assert shown.exit_code == 0, shown.output


def test_the_gateway_is_one_process_and_never_two(objects: list[Document]) -> None:
    gateway = workload(objects, "dep-fin-bitgettrader")
    assert gateway["spec"]["replicas"] == 1
    assert gateway["spec"]["strategy"] == {"type": "Recreate"}
    (service,) = [one for one in objects if one["metadata"]["name"] == "srv-fin-bitgettrader"]
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_api_pods_never_start_a_session_host_and_live_beside_it(objects: list[Document]) -> None:
    api = workload(objects, "dep-fin-aifap-bt-api")
    (container,) = containers_of(api)
    assert {"name": "AIFAP_SESSION_HOST_ELSEWHERE", "value": "true"} in container["env"]
    host = workload(objects, "sts-fin-aifap-bt-session-host")
    (term,) = api["spec"]["template"]["spec"]["affinity"]["podAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    labels = host["spec"]["template"]["metadata"]["labels"]
    assert term["labelSelector"]["matchLabels"].items() <= labels.items()
    volumes = [
        next(v for v in one["spec"]["template"]["spec"]["volumes"] if v["name"] == "data")
        for one in (api, host)
    ]
    assert volumes[0] == volumes[1]
    assert host["spec"]["replicas"] == 1


def test_the_way_in_leads_to_the_platform_and_repeats_no_command() -> None:
    objects = render_overlay("production")
    (route,) = [one for one in objects if one["kind"] == "VirtualService"]
    (gateway,) = [one for one in objects if one["kind"] == "Gateway"]
    (rule,) = [one for one in objects if one["kind"] == "DestinationRule"]
    (service,) = [one for one in objects if one["metadata"]["name"] == "srv-fin-aifap-bt-api"]
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
    ports = {port["port"] for port in service["spec"]["ports"]}
    for http in route["spec"]["http"]:
        assert http["retries"] == {"attempts": 0}
        (destination,) = [entry["destination"] for entry in http["route"]]
        assert destination["host"] == host == rule["spec"]["host"]
        assert destination["port"]["number"] in ports
    assert route["spec"]["gateways"] == [gateway["metadata"]["name"]]
    public = gateway["spec"]["servers"][0]["hosts"]
    assert route["spec"]["hosts"] == public
    (settings,) = {
        one["data"]["AIFAP_DASHBOARD_URL"]
        for one in objects
        if one["metadata"]["name"] == "aifap-settings"
    }
    assert settings == f"https://{public[0]}/dashboard/"  # the API answers to this Host


def test_the_images_tag_is_this_version() -> None:
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in OVERLAYS:
        images = {c["image"] for one in render_overlay(name) for c in containers_of(one)}
        assert {image.rpartition(":")[2] for image in images if "aifap" in image} == {version}


# --- would it be found --------------------------------------------------------------------------


def job(changes: Document) -> Document:
    pod = {"restartPolicy": "Never", "containers": [{"name": "one", "image": "aifap:0.1.0"}]}
    spec = {"template": {"metadata": {"labels": {}}, "spec": pod}} | changes
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "one"}, "spec": spec}


@needs_schemas
@pytest.mark.parametrize(
    "changes",
    [
        {"backofLimit": 0},
        {"backoffLimit": "none"},
        {"podReplacementPolicy": "failed"},
        {"podFailurePolicy": {"rules": [{"action": "Stop"}]}},
        {"template": {"spec": {"containers": [{"image": "x", "name": "x", "envv": []}]}}},
        {"template": {"spec": {"containers": [{"image": "x"}]}}},
    ],
)
def test_a_planted_mistake_is_found_by_the_schemas(changes: Document) -> None:
    assert schema_problems(job({})) == []
    assert schema_problems(job(changes)) != []


@needs_schemas
@pytest.mark.parametrize(
    "http",
    [
        {"rout": []},
        {"retries": {"attempts": "none"}},
        {"match": [{"uri": {"prefixx": "/"}}]},
        {"match": [{"uri": {"prefix": "/", "exact": "/"}}]},
    ],
)
def test_a_planted_mistake_is_found_in_istio_objects(http: Document) -> None:
    route: Document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "one"},
        "spec": {"hosts": ["a.example"], "http": [http]},
    }
    assert schema_problems(route) != []


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"metadata": {"name": "Upper"}}, "cannot be called"),
        ({"metadata": {"name": "x" * 64}}, "cannot be called"),
        ({"metadata": {"name": "one", "labels": {"a": 1}}}, "cannot have the value"),
    ],
)
def test_a_planted_mistake_is_found_by_the_rules(changes: Document, part: str) -> None:
    (problem,) = rule_problems(job({}) | changes)
    assert part in problem


def test_pods_that_always_restart_are_no_jobs() -> None:
    wrong = job({})
    wrong["spec"]["template"]["spec"]["restartPolicy"] = "Always"
    assert len(rule_problems(wrong)) == 1


@pytest.mark.parametrize(
    "schedule",
    ["61 * * * *", "* * * *", "* 24 * * *", "*/0 * * * *", "5-2 * * * *", "* * 0 * *", "@minutely"],
)
def test_a_wrong_cron_line_is_found(schedule: str) -> None:
    assert list(cron_problems(schedule)) != []


@pytest.mark.parametrize("schedule", ["* * * * *", "*/5 0-6 * 1,12 *", "59 23 31 12 6"])
def test_a_right_cron_line_passes(schedule: str) -> None:
    assert list(cron_problems(schedule)) == []


# --- is it described ------------------------------------------------------------------------------


def test_the_page_about_deploying_names_what_is_there() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    names = {one["metadata"]["name"] for name in OVERLAYS for one in render_overlay(name)}
    for word in re.findall(r"`((?:dep|sts|job|cj|srv|pvc)-[a-z0-9-]+)`", page):
        assert word in names, word
    for one in (one for one in render_overlay("production") if pod_template_of(one)):
        assert one["metadata"]["name"] in page
    for path in re.findall(r"`((?:deploy|dashboards|tests|overlays)/[\w./-]+)`", page):
        place = DEPLOY / path if path.startswith("overlays/") else ROOT / path
        assert place.exists(), path
