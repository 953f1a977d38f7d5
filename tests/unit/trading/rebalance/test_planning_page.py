"""The page on planning says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from trading.rebalance.plan import DiffCase, Policy, SkipReason

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "planning.md").read_text()


def test_every_reason_is_explained_and_no_other() -> None:
    table = PAGE.split("## Why a difference is not traded")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == [reason.value for reason in SkipReason]


def test_every_case_and_every_option_of_the_policy_is_explained() -> None:
    for case in set(DiffCase) - {DiffCase.SAME}:
        assert f"`{case}`" in PAGE
    for field in fields(Policy)[6:]:
        assert f"`{field.name}`" in PAGE


def test_every_property_that_is_listed_is_tested_and_no_other() -> None:
    table = PAGE.split("## What holds for every book")[1].split("\n## ")[0]
    listed = re.findall(r"^\|.+\| `(test_\w+)` \|$", table, re.M)
    tested = [
        name
        for path in Path(__file__).parent.glob("test_*.py")
        for name in re.findall(r"^@given(?:.*\n)+?def (test_\w+)", path.read_text(), re.M)
        if path.name != "test_weights.py"  # what a strategy may answer, not what is planned
    ]
    assert sorted(listed) == sorted(tested)
