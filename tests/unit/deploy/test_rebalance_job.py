"""The Job of one rebalance: a document that an API server takes, named after what it is for."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from module.launch.kubernetes_manifests import (
    FINGERPRINT_ANNOTATION,
    HANDED_OVER_EXIT_CODE,
    JobForm,
    RebalanceCycle,
    build_rebalance_job,
    rebalance_job_name,
)
from module.model.errors import InvalidInput
from tests.unit.deploy.object_schemas import rule_problems, schema_problems, schemas_are_here
from tests.unit.deploy.rendering import containers_of, render_overlay

BOUNDARY = datetime(2026, 11, 21, 10, 35, tzinfo=UTC)
CYCLE = RebalanceCycle("0c4f2d9e-7a31-4a57-9a55-7be0f2f81d3c", "2611211030-ab3x", BOUNDARY)
FORM = JobForm(
    namespace="finplatform",
    image="registry.example/aifap_bt:0.1.0",
    service_account="sa-fin-aifap-bt-session-host",
    settings="aifap-settings",
    secret="aifap-secrets",
    data_claim="pvc-fin-aifap-bt-data",
)


def spec_of(document: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = document["spec"]
    return spec


def test_the_job_is_one_that_an_api_server_takes() -> None:
    job = build_rebalance_job(CYCLE, FORM)
    kubernetes_validate.validate(job, "1.36.0", strict=True)
    assert rule_problems(job) == []
    if not schemas_are_here():
        pytest.skip("the API server's schemas are not beside the checkout")
    assert schema_problems(job) == []


def test_H6_H12_H14_how_it_fails_is_replaced_and_goes_away() -> None:
    spec = spec_of(build_rebalance_job(CYCLE, replace(FORM, deadline_s=411, kept_s=77)))
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["backoffLimit"] == 0
    assert spec["activeDeadlineSeconds"] == 411
    assert spec["ttlSecondsAfterFinished"] == 77
    evicted, handed_over, failed = spec["podFailurePolicy"]["rules"]
    assert evicted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert (evicted["action"], handed_over["action"], failed["action"]) == (
        "Ignore",
        "Ignore",
        "FailJob",
    )
    assert handed_over["onExitCodes"]["values"] == [HANDED_OVER_EXIT_CODE]
    assert failed["onExitCodes"]["operator"] == "NotIn"
    assert 137 not in failed["onExitCodes"]["values"]  # out of memory fails the Job


def test_the_exit_code_of_a_hand_over_is_the_engines() -> None:
    from trading.rebalancing_main import Exit

    assert int(Exit.HANDED_OVER) == HANDED_OVER_EXIT_CODE


def test_S47_S50_its_pod_is_restricted_and_holds_no_secret_in_its_environment() -> None:
    job = build_rebalance_job(CYCLE, FORM)
    pod = spec_of(job)["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = containers_of(job)
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["env"] == [{"name": "AIFAP_DATA_DIR", "value": "/data"}]
    assert [source.keys() for source in container["envFrom"]] == [{"configMapRef"}]
    assert container["command"][-2:] == ["--session", "2611211030-ab3x"]
    (secret,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert [item["key"] for item in secret["items"]] == ["database_password", "token_key"]


def test_what_it_names_is_in_the_base() -> None:
    there = {(one["kind"], one["metadata"]["name"]) for one in render_overlay("production")}
    assert ("ConfigMap", FORM.settings) in there
    assert ("PersistentVolumeClaim", FORM.data_claim) in there
    assert ("ServiceAccount", FORM.service_account) in there


def test_the_same_cycle_is_the_same_document_whoever_builds_it() -> None:
    korea = timezone(timedelta(hours=9))
    seen_from_seoul = replace(CYCLE, scheduled_for=BOUNDARY.astimezone(korea))
    first, second = build_rebalance_job(CYCLE, FORM), build_rebalance_job(seen_from_seoul, FORM)
    assert json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def test_another_image_has_the_same_name_and_another_fingerprint() -> None:
    first = build_rebalance_job(CYCLE, FORM)["metadata"]
    second = build_rebalance_job(CYCLE, replace(FORM, image="aifap:0.2.0"))["metadata"]
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["name"] == second["name"]
    mark = FINGERPRINT_ANNOTATION
    assert first["annotations"][mark] != second["annotations"][mark]


def test_the_name_reads_user_session_and_time() -> None:
    name = rebalance_job_name(CYCLE)
    assert re.fullmatch(r"strategy-trading-0c4f2d-2611211030-ab3x-20261121103500-[0-9a-f]{8}", name)
    assert len(name) <= 63


@pytest.mark.parametrize(
    "other",
    [
        replace(CYCLE, owner_id=CYCLE.owner_id[:-1] + "d"),
        replace(CYCLE, session_id="2611211030-ab3y"),
        replace(CYCLE, scheduled_for=BOUNDARY + timedelta(minutes=5)),
        replace(CYCLE, attempt=2),
    ],
)
def test_different_work_has_different_names(other: RebalanceCycle) -> None:
    assert rebalance_job_name(other) != rebalance_job_name(CYCLE)


@settings(max_examples=60, deadline=None)
@given(
    owner=some.text(max_size=60),
    when=some.datetimes(
        min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=some.just(UTC)
    ),
    attempt=some.integers(1, 10**6),
)
def test_any_owner_gives_a_document_that_is_accepted(
    owner: str, when: datetime, attempt: int
) -> None:
    job = build_rebalance_job(RebalanceCycle(owner, "2611211030-ab3x", when, attempt), FORM)
    assert rule_problems(job) == []
    metadata = job["metadata"]
    assert isinstance(metadata, dict)
    assert len(metadata["name"]) <= 63


def test_owners_that_look_alike_have_different_names_and_labels() -> None:
    first, second = replace(CYCLE, owner_id="Ann@x"), replace(CYCLE, owner_id="Ann#x")
    assert rebalance_job_name(first) != rebalance_job_name(second)
    labels = [
        spec_of(build_rebalance_job(one, FORM))["template"]["metadata"]["labels"]["aifap.io/owner"]
        for one in (first, second)
    ]
    assert labels[0] != labels[1]


@pytest.mark.parametrize(
    "wrong",
    [
        replace(CYCLE, session_id="../../etc"),
        replace(CYCLE, scheduled_for=datetime(2026, 11, 21, 10, 35)),
        replace(CYCLE, attempt=0),
    ],
)
def test_a_cycle_that_is_none_is_refused(wrong: RebalanceCycle) -> None:
    with pytest.raises(InvalidInput):
        build_rebalance_job(wrong, FORM)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(FORM, image="registry.example:5000/aifap"),
        replace(FORM, image="aifap:latest"),
        replace(FORM, namespace="Fin Platform"),
        replace(FORM, secret=""),
        replace(FORM, deadline_s=0),
        replace(FORM, user_id=0),
    ],
)
def test_a_form_that_would_be_refused_or_unsafe_is_refused_here(wrong: JobForm) -> None:
    with pytest.raises(InvalidInput):
        build_rebalance_job(CYCLE, wrong)


def test_an_image_by_digest_is_pinned() -> None:
    pinned = replace(FORM, image="registry.example:5000/aifap@sha256:" + "a" * 64)
    assert rule_problems(build_rebalance_job(CYCLE, pinned)) == []
