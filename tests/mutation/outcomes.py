"""What became of the mutants of a room: counted, scored, and the survivors spelled out."""

from __future__ import annotations

import ast
import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from tests.mutation.workspace import TREE, Room

EXPLAINED = TREE / "docs" / "mutation.md"


class Outcome(StrEnum):
    """`refused`: the type checker says no. `words`: only a sentence for people is another; it
    is not run. `killed`: a test failed. `timeout`: the tests did not end. `survived`: nothing
    noticed. `untested`: no test runs that function. `open`: not yet run; `broken`: the run itself
    failed."""

    REFUSED = "refused"
    WORDS = "words"
    KILLED = "killed"
    TIMEOUT = "timeout"
    SURVIVED = "survived"
    UNTESTED = "untested"
    OPEN = "open"
    BROKEN = "broken"


ESCAPED = frozenset({Outcome.SURVIVED, Outcome.UNTESTED})


_TEXT = re.compile(r'f?"[^"]*"')
_SENTENCE = re.compile(r'f?"[^" ]* [^"]*"')  # codes, states and keys have no blank in them
_TEXT_LINE = re.compile(r'f?"[^"]*",?')
_NAMED = re.compile(r",\s*(name=f?(\"[^\"]*\"|\w+))?\)")
_BY_EXIT_CODE: Mapping[int | None, Outcome] = {
    None: Outcome.OPEN,
    0: Outcome.SURVIVED,
    1: Outcome.KILLED,
    3: Outcome.KILLED,
    5: Outcome.UNTESTED,
    33: Outcome.UNTESTED,
    36: Outcome.TIMEOUT,
    37: Outcome.REFUSED,
    24: Outcome.TIMEOUT,
    -24: Outcome.TIMEOUT,
    152: Outcome.TIMEOUT,
    255: Outcome.TIMEOUT,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one function, and what became of it."""

    name: str
    module: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Change:
    """The lines that a mutant takes out of a function and puts in."""

    function: str
    taken_out: tuple[str, ...]
    put_in: tuple[str, ...]

    @property
    def key(self) -> str:
        """One line by which docs/mutation.md may name it."""
        return f"{self.function}: {' '.join(self.taken_out)} → {' '.join(self.put_in)}"

    @property
    def is_words(self) -> bool:
        """Whether something is only said in other words (that it is said is decided elsewhere): a
        sentence for people, the call after a `raise`, the text of a `require`, a line of a long
        text, the name of what cannot be read. Or a named point, which only simulations look at, has
        another name."""
        out, put = self.taken_out, self.put_in
        if len(out) != 1 or len(put) != 1:
            return False
        if out[0].startswith("raise ") and put[0].startswith("raise "):
            return True
        if out[0].startswith(("require(", "reach(")) and _TEXT.sub("", out[0]) == _TEXT.sub(
            "", put[0]
        ):
            return True
        if _SENTENCE.sub("", out[0]) == _SENTENCE.sub("", put[0]):
            return True
        if _TEXT_LINE.fullmatch(out[0]) and _TEXT_LINE.fullmatch(put[0]):
            return True
        return _NAMED.sub(")", out[0]) == _NAMED.sub(")", put[0])


def read_outcomes(room: Room) -> list[Mutant]:
    """Every mutant that the tool has made of the room."""
    mutants = []
    for meta in room.metas:
        module = meta.name.removesuffix(".py.meta")
        for name, code in json.loads(meta.read_text())["exit_code_by_key"].items():
            mutants.append(Mutant(name, module, _BY_EXIT_CODE.get(code, Outcome.BROKEN)))
    unnoticed = {Outcome.OPEN, Outcome.SURVIVED}
    changes = read_changes(room, [each for each in mutants if each.outcome in unnoticed])
    return [
        replace(each, outcome=Outcome.WORDS)
        if each.name in changes and changes[each.name].is_words
        else each
        for each in mutants
    ]


def read_changes(room: Room, mutants: Iterable[Mutant]) -> dict[str, Change]:
    """What each of `mutants` changes, by its name."""
    bodies: dict[str, dict[str, list[str]]] = {}
    changes = {}
    for mutant in mutants:
        if mutant.module not in bodies:
            source = room.folder / "mutants" / "trading" / room.name / f"{mutant.module}.py"
            bodies[mutant.module] = _functions(source)
        changes[mutant.name] = _change(mutant, bodies[mutant.module])
    return changes


def _functions(source: Path) -> dict[str, list[str]]:
    text = source.read_text()
    lines = text.splitlines()
    return {
        node.name: [line.rstrip() for line in lines[node.lineno - 1 : node.end_lineno]]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    }


def _change(mutant: Mutant, bodies: Mapping[str, list[str]]) -> Change:
    mangled = mutant.name.rpartition(".")[2]
    plain = re.sub(r"__mutmut_\d+$", "", mangled)
    function = f"{mutant.module}.{plain.removeprefix('x').replace('ǁ', '.').lstrip('.')}"
    if plain.startswith("x_"):
        function = f"{mutant.module}.{plain.removeprefix('x_')}"
    before, after = (
        [re.sub(r"__mutmut_(orig|\d+)", "", line) for line in bodies[name]]
        for name in (f"{plain}__mutmut_orig", mangled)
    )
    lines = list(difflib.ndiff(before, after))
    out = tuple(line[2:].strip() for line in lines if line.startswith("- "))
    put = tuple(line[2:].strip() for line in lines if line.startswith("+ "))
    return Change(function, out, put)


def table(mutants: Sequence[Mutant]) -> str:
    """Per module: how many, what became of them, and the score in per cent.

    Score = (killed + timed out) ÷ (these + survived + untested): what the type checker refuses did
    not run, and no test reads the words of an error.
    """
    columns = [each for each in Outcome if each not in {Outcome.OPEN, Outcome.BROKEN}]
    lines = [
        f"| module | mutants | {' | '.join(columns)} | score |",
        "|---" * (len(columns) + 3) + "|",
    ]
    modules = sorted({mutant.module for mutant in mutants})
    for module in [*modules, "all"]:
        chosen = [each.outcome for each in mutants if module in {each.module, "all"}]
        count = Counter(chosen)
        cells = " | ".join(str(count[column]) for column in columns)
        done = len(chosen) - count[Outcome.OPEN] - count[Outcome.BROKEN]
        lines.append(f"| {module} | {done} | {cells} | {_score(count)} |")
    return "\n".join(lines)


def _score(count: Counter[Outcome]) -> str:
    noticed = count[Outcome.KILLED] + count[Outcome.TIMEOUT]
    ran = noticed + count[Outcome.SURVIVED] + count[Outcome.UNTESTED]
    return f"{100 * noticed / ran:.1f} %" if ran else "-"


def unexplained(changes: Iterable[Change]) -> list[Change]:
    """Those that docs/mutation.md does not name."""
    known = EXPLAINED.read_text() if EXPLAINED.exists() else ""
    return [change for change in changes if change.key not in known]
