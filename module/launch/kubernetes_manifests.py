"""The Job of one rebalance, as a document for the Kubernetes API. PURE: no client, no clock.

    scheduler ── build_rebalance_job(cycle, form) ─► Job ── create ─► API server (409: it is there)

The name is the lock: it is made of what the Job is for (owner, session, scheduled time, attempt),
never of when it was made, so that creating it twice is harmless. What is not in the name is in the
fingerprint: after a 409 the one who created it compares `FINGERPRINT_ANNOTATION`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from module.model.errors import InvalidInput
from module.model.sessions import check_session_id

NAME_CHARACTERS_MAX: Final = 63  # the Job's name becomes a label of its pods
HASH_CHARACTERS: Final = 8
PREFIX: Final = "strategy-trading"
CONTAINER: Final = "rebalance"
FINGERPRINT_ANNOTATION: Final = "aifap.io/spec-sha256"
SCHEDULED_ANNOTATION: Final = "aifap.io/scheduled-for"
HANDED_OVER_EXIT_CODE: Final = 75  # trading.rebalancing_main.Exit.HANDED_OVER
DATA_DIR: Final = "/data"
SESSION_SECRETS: Final = ("database_password", "token_key")
_LABEL_PATTERN: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII)
_NAME_PATTERN: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class RebalanceCycle:
    """What a Job is for. `attempt` counts from 1: a failed Job that still exists must not stand
    in the way of the next try."""

    owner_id: str
    session_id: str
    scheduled_for: datetime
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class JobForm:
    """What all Jobs of an installation share.

    `deadline_s` ends a Job that does not end by itself (it counts from the Job's start, so it
    includes the wait for the boundary), `kept_s` is how long a finished one can be looked at.
    `settings` names the ConfigMap with AIFAP_* values, `secret` the Secret whose keys become files.
    """

    namespace: str
    image: str
    service_account: str
    settings: str
    secret: str
    data_claim: str
    deadline_s: int = 900
    kept_s: int = 3600
    grace_s: int = 60
    user_id: int = 10001
    cpu_request: str = "250m"
    cpu_limit: str = "1"
    memory_request: str = "512Mi"
    memory_limit: str = "2Gi"


def rebalance_job_name(cycle: RebalanceCycle) -> str:
    """`strategy-trading-<user>-<session>-<timestamp>-<hash>`: a DNS label of at most 63 characters.

    The user is shortened to what is left; the hash, over everything, keeps names apart.
    InvalidInput for a session id that is none, a time without zone, or an attempt below 1.
    """
    session_id = check_session_id(cycle.session_id)
    stamp = _scheduled(cycle).strftime("%Y%m%d%H%M%S")
    if cycle.attempt < 1:
        raise InvalidInput(f"attempt must be at least 1, got {cycle.attempt}")
    identity = [cycle.owner_id, session_id, stamp, cycle.attempt]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:HASH_CHARACTERS]
    room = NAME_CHARACTERS_MAX - len("-".join((PREFIX, "", session_id, stamp, digest)))
    user = re.sub(r"[^a-z0-9]+", "-", cycle.owner_id.lower()).strip("-")[:room].strip("-") or "u"
    return "-".join((PREFIX, user, session_id, stamp, digest))


def build_rebalance_job(cycle: RebalanceCycle, form: JobForm) -> dict[str, object]:
    """The batch/v1 Job of one rebalance; the same arguments give the same document.

    A pod that is evicted, or that hands its session over, is replaced without counting, and only
    after it is gone; any other failure fails the Job at once (the next attempt has a new name).
    No secret is in it: secrets are mounted as files.
    """
    _check_form(form)
    labels = {
        "app.kubernetes.io/name": "aifap-rebalance",
        "app.kubernetes.io/part-of": "aifap",
        "aifap.io/session": cycle.session_id,
        "aifap.io/owner": _label(cycle.owner_id),
        "aifap.io/uses-postgres": "true",
    }
    spec: dict[str, object] = {
        "backoffLimit": 0,
        "completions": 1,
        "parallelism": 1,
        "activeDeadlineSeconds": form.deadline_s,
        "ttlSecondsAfterFinished": form.kept_s,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": _failure_rules()},
        "template": {"metadata": {"labels": labels}, "spec": _pod(cycle, form)},
    }
    canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": rebalance_job_name(cycle),
            "namespace": form.namespace,
            "labels": labels,
            "annotations": {
                SCHEDULED_ANNOTATION: _scheduled(cycle).isoformat().replace("+00:00", "Z"),
                FINGERPRINT_ANNOTATION: hashlib.sha256(canonical.encode()).hexdigest(),
            },
        },
        "spec": spec,
    }


def _failure_rules() -> list[Mapping[str, object]]:
    """First match counts. Out of memory is exit code 137: not in the list, so it fails the Job."""
    handed_over = [HANDED_OVER_EXIT_CODE]
    return [
        {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
        {
            "action": "Ignore",
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": handed_over},
        },
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": CONTAINER, "operator": "NotIn", "values": handed_over},
        },
    ]


def _pod(cycle: RebalanceCycle, form: JobForm) -> dict[str, object]:
    return {
        "restartPolicy": "Never",
        "serviceAccountName": form.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": form.grace_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": form.user_id,
            "runAsGroup": form.user_id,
            "fsGroup": form.user_id,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(cycle, form)],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": form.data_claim}},
            {"name": "temporary", "emptyDir": {"sizeLimit": "256Mi"}},
            {
                "name": "secrets",
                "secret": {
                    "secretName": form.secret,
                    "defaultMode": 0o440,
                    "items": [{"key": name, "path": name} for name in SESSION_SECRETS],
                },
            },
        ],
    }


def _container(cycle: RebalanceCycle, form: JobForm) -> dict[str, object]:
    return {
        "name": CONTAINER,
        "image": form.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "trading.rebalancing_main", "--session", cycle.session_id],
        "envFrom": [{"configMapRef": {"name": form.settings}}],
        "env": [{"name": "AIFAP_DATA_DIR", "value": DATA_DIR}],
        "resources": {
            "requests": {"cpu": form.cpu_request, "memory": form.memory_request},
            "limits": {"cpu": form.cpu_limit, "memory": form.memory_limit},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "data", "mountPath": DATA_DIR},
            {"name": "temporary", "mountPath": "/tmp"},  # noqa: S108 - a mount of the pod's own
            {"name": "secrets", "mountPath": f"{DATA_DIR}/secrets", "readOnly": True},
        ],
    }


def _scheduled(cycle: RebalanceCycle) -> datetime:
    if cycle.scheduled_for.utcoffset() is None:
        raise InvalidInput(f"scheduled_for has no zone: {cycle.scheduled_for.isoformat()}")
    return cycle.scheduled_for.astimezone(UTC).replace(microsecond=0)


def _label(text: str) -> str:
    """`text` if it can be a label's value, else a digest of it."""
    if _LABEL_PATTERN.fullmatch(text):
        return text
    return f"sha256-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _check_form(form: JobForm) -> None:
    for field in ("namespace", "service_account", "settings", "secret", "data_claim"):
        value = str(getattr(form, field))
        if not _NAME_PATTERN.fullmatch(value):
            raise InvalidInput(f"{field} is not the name of a Kubernetes object: {value!r:.80}")
    for field in ("deadline_s", "kept_s", "grace_s", "user_id"):
        if int(getattr(form, field)) < 1:
            raise InvalidInput(f"{field} must be at least 1, got {getattr(form, field)}")
    _, _, last = form.image.rpartition("/")
    tag = last.partition("@")[0].partition(":")[2]
    if "@sha256:" not in last and tag in ("", "latest"):
        raise InvalidInput(
            f"image {form.image!r:.120} is not pinned; name a version or a digest: cycles of "
            "one session must run the same code"
        )
