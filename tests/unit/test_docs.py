"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.schemas import RunSystemRequest
from module.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FIELD = re.compile(r"^\| `(\w+)` \|", re.M)


def test_every_field_of_run_system_is_documented_and_no_other() -> None:
    documented = FIELD.findall((ROOT / "docs" / "run-system.md").read_text())
    fields = [field.alias or name for name, field in RunSystemRequest.model_fields.items()]
    assert documented == fields


@pytest.mark.parametrize(
    "document",
    ["README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))],
)
def test_files_that_a_document_names_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    folder = (ROOT / document).parent
    assert [link for link in links if not (folder / link).exists()] == []


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"make ([a-z][a-z-]*)", (ROOT / "README.md").read_text()))
    assert named <= targets


def test_every_setting_has_a_safe_default() -> None:
    assert Settings.model_validate({}).api_host == "127.0.0.1", "nothing listens outside unasked"
    assert all(not field.is_required() for field in Settings.model_fields.values())
