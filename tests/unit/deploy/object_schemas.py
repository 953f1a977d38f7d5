"""What a Kubernetes API server would say to an object: schemas, and what schemas do not know.

`schema_problems` needs the API server's own documents (a folder `shared` beside the checkout);
`rule_problems` are the refusals that no schema holds: cron, names, selectors, restart policies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has no types

from tests.unit.deploy.rendering import ROOT, Document, containers_of, pod_template_of

SCHEMAS = ROOT.parent / "shared" / "reference" / "schemas"
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_SUBDOMAIN = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)
LABEL_VALUE = re.compile(r"(?=.{0,63}$)([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
NAMES_ARE_LABELS = ("Service", "Namespace", "Job", "CronJob", "StatefulSet")
NAME_CHARACTERS_MAX = {"CronJob": 52, "StatefulSet": 52}
CRON_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


# --- schemas --------------------------------------------------------------------------------------


def schema_problems(one: Document) -> list[str]:
    """What the schema of the object's kind says against it; unknown fields are refused."""
    group, _, _ = one["apiVersion"].rpartition("/")
    validator = (
        _istio_validator(group, one["apiVersion"].partition("/")[2], one["kind"])
        if group.endswith("istio.io")
        else _kubernetes_validator(one["apiVersion"], one["kind"])
    )
    return [
        f"{'.'.join(map(str, error.absolute_path)) or '(object)'}: {error.message[:200]}"
        for error in validator.iter_errors(one)
    ]


@cache
def _kubernetes_validator(api_version: str, kind: str) -> Draft202012Validator:
    prefix = "api_" if "/" not in api_version else "apis_"
    path = SCHEMAS / f"k8s_1.36_{prefix}{api_version.replace('/', '_')}.json"
    schemas = json.loads(path.read_text())["components"]["schemas"]
    group, _, version = api_version.rpartition("/")
    wanted = {"group": group, "version": version, "kind": kind}
    (name,) = [
        name
        for name, schema in schemas.items()
        if wanted in schema.get("x-kubernetes-group-version-kind", [])
    ]
    closed = {key: _closed(schema) for key, schema in schemas.items()}
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": {"schemas": closed}}
    )


@cache
def _istio_validator(group: str, version: str, kind: str) -> Draft202012Validator:
    for crd in _istio_crds():
        spec = crd["spec"]
        if spec["group"] == group and spec["names"]["kind"] == kind:
            (schema,) = [
                entry["schema"]["openAPIV3Schema"]
                for entry in spec["versions"]
                if entry["name"] == version
            ]
            envelope = dict.fromkeys(("apiVersion", "kind", "metadata"), True)
            whole = {**schema, "properties": {**envelope, **schema["properties"]}}
            return Draft202012Validator(_closed(whole))
    raise LookupError(f"no CRD for {group} {kind}")


@cache
def _istio_crds() -> tuple[Document, ...]:
    text = (SCHEMAS / "istio-crds.yaml").read_text()
    return tuple(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def _closed(schema: Any) -> Any:
    """The schema with every object closed that names its properties and does not leave them open.

    Parts of `oneOf` and the like only restrict an object that is closed elsewhere: they stay.
    """
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return {"type": ["integer", "string"]}
    restricting = ("oneOf", "anyOf", "not", "enum", "default", "x-kubernetes-validations")
    closed = {
        key: value if key in restricting else _closed_value(key, value)
        for key, value in schema.items()
    }
    if "properties" in schema and "additionalProperties" not in schema:
        closed["additionalProperties"] = False
    if schema.get("nullable") and isinstance(schema.get("type"), str):
        closed["type"] = [schema["type"], "null"]
    return closed


def _closed_value(key: str, value: Any) -> Any:
    if key == "properties":
        return {name: _closed(item) for name, item in value.items()}
    return _closed(value)


# --- rules that schemas do not know ---------------------------------------------------------------


def rule_problems(one: Document) -> list[str]:
    """What an API server refuses although the schema allows it."""
    return [
        *_name_problems(one),
        *_label_problems(one),
        *_selector_problems(one),
        *_job_problems(one),
        *_pod_problems(one),
    ]


def _name_problems(one: Document) -> Iterator[str]:
    name, kind = one["metadata"]["name"], one["kind"]
    pattern = DNS_LABEL if kind in NAMES_ARE_LABELS else DNS_SUBDOMAIN
    if not pattern.fullmatch(name) or len(name) > NAME_CHARACTERS_MAX.get(kind, 253):
        yield f"{kind} cannot be called {name!r}"
    for container in containers_of(one):
        if not DNS_LABEL.fullmatch(container["name"]):
            yield f"a container cannot be called {container['name']!r}"
        for port in container.get("ports", []):
            if not re.fullmatch(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?", port["name"]):
                yield f"a port cannot be called {port['name']!r}"


def _label_problems(one: Document) -> Iterator[str]:
    template = pod_template_of(one)
    maps = [one["metadata"].get("labels", {})]
    maps += [template["metadata"].get("labels", {})] if template else []
    for labels in maps:
        for key, value in labels.items():
            if not isinstance(value, str) or not LABEL_VALUE.fullmatch(value):
                yield f"label {key} cannot have the value {value!r}"


def _selector_problems(one: Document) -> Iterator[str]:
    template = pod_template_of(one)
    if one["kind"] not in ("Deployment", "StatefulSet") or template is None:
        return
    wanted = one["spec"]["selector"].get("matchLabels", {})
    if not wanted or wanted.items() - template["metadata"]["labels"].items():
        yield f"the selector {wanted} does not match the pod template's labels"


def _job_problems(one: Document) -> Iterator[str]:
    template = pod_template_of(one)
    if template is None:
        return
    restart = template["spec"].get("restartPolicy", "Always")
    if one["kind"] == "CronJob":
        yield from cron_problems(one["spec"]["schedule"])
    if one["kind"] in ("Job", "CronJob"):
        if restart not in ("Never", "OnFailure"):
            yield f"a Job's pods cannot have restartPolicy {restart}"
        spec = one["spec"] if one["kind"] == "Job" else one["spec"]["jobTemplate"]["spec"]
        if "podFailurePolicy" in spec:
            yield from _failure_policy_problems(spec)
    elif restart != "Always":
        yield f"a {one['kind']}'s pods cannot have restartPolicy {restart}"


def _failure_policy_problems(spec: Document) -> Iterator[str]:
    if spec["template"]["spec"].get("restartPolicy") != "Never":
        yield "podFailurePolicy needs restartPolicy Never"
    if spec.get("podReplacementPolicy", "Failed") != "Failed":
        yield "podFailurePolicy needs podReplacementPolicy Failed"
    names = {container["name"] for container in spec["template"]["spec"]["containers"]}
    for rule in spec["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes")
        if (codes is None) == ("onPodConditions" not in rule):
            yield f"a failure rule needs exit codes or conditions, one of them: {rule}"
        if codes is not None:
            values = codes["values"]
            if values != sorted(set(values)) or not values:
                yield f"exit codes must be ordered and different: {values}"
            if codes["operator"] == "In" and 0 in values:
                yield "exit code 0 is no failure"
            if codes.get("containerName") not in {None, *names}:
                yield f"no container {codes['containerName']}"


def cron_problems(schedule: str) -> Iterator[str]:
    """What is wrong with a five-field cron line (numbers only, as this project writes them)."""
    fields = schedule.split()
    if len(fields) != len(CRON_RANGES):
        yield f"cron line {schedule!r} has {len(fields)} fields"
        return
    for field, (low, high) in zip(fields, CRON_RANGES, strict=True):
        for part in field.split(","):
            match = re.fullmatch(r"(\*|\d+(?:-\d+)?)(?:/(\d+))?", part)
            numbers = [] if match is None else [int(text) for text in re.findall(r"\d+", match[1])]
            fits = all(low <= number <= high for number in numbers) and numbers == sorted(numbers)
            if match is None or not fits or match[2] == "0":
                yield f"cron field {part!r} of {schedule!r} is not within {low}-{high}"


def _pod_problems(one: Document) -> Iterator[str]:
    template = pod_template_of(one)
    if template is None:
        return
    claims = one["spec"].get("volumeClaimTemplates", []) if one["kind"] == "StatefulSet" else []
    volumes = {volume["name"] for volume in template["spec"].get("volumes", [])}
    volumes |= {claim["metadata"]["name"] for claim in claims}
    for container in containers_of(one):
        mounts = container.get("volumeMounts", [])
        for mount in mounts:
            if mount["name"] not in volumes:
                yield f"container {container['name']} mounts {mount['name']!r}, which is no volume"
        paths = [mount["mountPath"] for mount in mounts]
        if len(set(paths)) < len(paths):
            yield f"container {container['name']} mounts two volumes at one path"
        yield from _probe_problems(container)
        yield from _resource_problems(container)


def _probe_problems(container: Document) -> Iterator[str]:
    ports = {port["name"] for port in container.get("ports", [])}
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = container.get(name, {})
        for action in ("httpGet", "tcpSocket"):
            port = probe.get(action, {}).get("port")
            if isinstance(port, str) and port not in ports:
                yield f"{name} asks port {port!r}, which {container['name']} does not have"
        success = probe.get("successThreshold", 1)
        if name != "readinessProbe" and success != 1:
            yield f"{name} must have successThreshold 1"


def _resource_problems(container: Document) -> Iterator[str]:
    resources = container.get("resources", {})
    for kind in ("requests", "limits"):
        for name, amount in resources.get(kind, {}).items():
            if not QUANTITY.fullmatch(str(amount)):
                yield f"{container['name']}: {kind} of {name} is {amount!r}"
    for name, wanted in resources.get("requests", {}).items():
        limit = resources.get("limits", {}).get(name)
        if limit is not None and quantity(wanted) > quantity(limit):
            yield f"{container['name']} requests more {name} than its limit"


def quantity(amount: object) -> float:
    """A Kubernetes quantity as a number."""
    units = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    units |= {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(amount)).groups()  # type: ignore[union-attr]  # QUANTITY
    return float(number) * units.get(unit, 1.0)


def schemas_are_here() -> bool:
    """Whether the API server's documents lie beside the checkout."""
    return Path(SCHEMAS).is_dir()
