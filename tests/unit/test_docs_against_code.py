"""Every file, command, option and fault that the documents name is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup

from api.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
ROOMS = "api|trading|monitoring|module|deploy|dashboards|tests|docs|benchmarks"
PATH = re.compile(rf"`((?:{ROOMS})/[\w./*-]+)`")
"""A file or folder of the project; elsewhere than in back quotes it may be an example."""
COMMAND = re.compile(r"(?:^ *|`|-- )(aifap|python -m|make) ([a-z][^`#\n]*)", re.M)
OPTION = re.compile(r"(?<!\w)--[a-z][a-z-]*")


def commands(program: str) -> Iterator[tuple[str, str]]:
    """The document and the words after the program's name, of every line that calls it."""
    for document in DOCUMENTS:
        text = (ROOT / document).read_text().replace("\\\n", " ")
        for name, words in COMMAND.findall(text):
            if name == program:
                yield document, re.split(r"  +", words)[0].rstrip(" …")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_in_back_quotes_exist(document: str) -> None:
    named = PATH.findall((ROOT / document).read_text())
    missing = [path for path in named if not list(ROOT.glob(path.rstrip("/.")))]
    assert missing == []


def test_commands_of_aifap_and_their_options_exist() -> None:
    found = list(commands("aifap"))
    assert len(found) > 20
    for document, words in found:
        command = typer.main.get_command(app)
        for word in words.split():
            if not isinstance(command, TyperGroup) or word.startswith("-"):
                break
            assert word in command.commands, f"{document}: aifap {words}"
            command = command.commands[word]
        known = {name for parameter in command.params for name in parameter.opts}
        wanted = set(OPTION.findall(words))
        assert wanted <= known, f"{document}: aifap {words}: {wanted - known}"


def test_programs_and_their_options_exist() -> None:
    found = list(commands("python -m"))
    assert found
    for document, words in found:
        name = words.split()[0]
        spec = find_spec(name)
        assert spec is not None, f"{document}: python -m {words}"
        assert spec.origin is not None
        origin = Path(spec.origin)
        program = origin.with_name("__main__.py") if origin.name == "__init__.py" else origin
        source = program.read_text()
        unknown = [option for option in OPTION.findall(words) if f'"{option}"' not in source]
        assert unknown == [], f"{document}: python -m {words}"


def test_targets_of_make_and_their_words_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.M))
    for document, words in commands("make"):
        target, *rest = words.split()
        assert target.rstrip(".,;)") in targets, f"{document}: make {words}"
        for variable in re.findall(r"\b([A-Z][A-Z_]*)=", " ".join(rest)):
            assert f"$({variable})" in makefile, f"{document}: make {words}"


def test_every_fault_of_the_catalogue_has_a_test_that_names_it() -> None:
    faults = re.findall(r"^\| ([A-Z]\d+) \|", (ROOT / "docs/faults.md").read_text(), re.M)
    assert len(faults) > 40
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"_([A-Z]\d+)(?=_)", "\n".join(re.findall(r"def (test_\w+)", tests))))
    given = set(re.findall(r'"([A-Z]\d+)[/"]', tests))
    assert sorted(set(faults) - named - given) == []
