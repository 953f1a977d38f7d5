"""`make mutation`: make the mutants of a room, run the tests on each, say what was noticed.

    python -m tests.mutation --room rebalance [--module plan --module lots] [--sample 300 --seed 1]

Runs in the environment that has mutmut (see the Makefile). What ran before is not run again unless
its function, or a test, changed; so an interrupted run is gone on with. Exit code 1 when a mutant
survives that docs/mutation.md does not explain.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.mutation.outcomes import (
    ESCAPED,
    Mutant,
    Outcome,
    read_changes,
    read_outcomes,
    table,
    unexplained,
)
from tests.mutation.refusals import refuse_by_type
from tests.mutation.workspace import ROOMS, Room, lay_out

NICENESS = 15
TO_RUN = frozenset({Outcome.OPEN, Outcome.BROKEN})
"""What was killed stays so; `lay_out` opens what survived again when a test has changed."""
MAKE_ALL = """\
from mutmut import __main__ as tool
tool.set_mutant_under_test("mutant_generation")
tool.copy_src_dir()
tool.copy_also_copy_files()
tool.setup_source_paths()
tool.store_lines_covered_by_tests()
tool.create_mutants(1)
"""
"""How `mutmut run` begins (of the version in requirements.txt): the mutants are made, none is run;
those that the type checker refuses never are."""


def main() -> int:
    """Run what was asked for; 0 when every survivor is explained."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--room", choices=[*ROOMS, "all"], default="all")
    parser.add_argument("--module", action="append", default=[], help="only this one (repeatable)")
    parser.add_argument("--sample", type=int, help="so many mutants per room, drawn by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only what is known already")
    wanted = parser.parse_args()
    os.nice(NICENESS)
    rooms = [ROOMS[wanted.room]] if wanted.room in ROOMS else list(ROOMS.values())
    open_questions = 0
    for room in rooms:
        began = time.monotonic()
        if not wanted.report:
            lay_out(room)
            _tool(room, sys.executable, "-c", MAKE_ALL)
            refuse_by_type(room)
        known = read_outcomes(room)
        if wanted.module:
            known = [each for each in known if each.module in wanted.module]
        if wanted.sample is not None:
            known = _sample(known, wanted.sample, wanted.seed)
        if not wanted.report:
            todo = [each.name for each in known if each.outcome in TO_RUN]
            if todo:
                mutmut = str(Path(sys.executable).with_name("mutmut"))
                _tool(room, mutmut, "run", "--max-children", "1", *todo)
        print(f"\ntrading/{room.name}: {time.monotonic() - began:.0f} s")
        open_questions += _report(room, {each.name for each in known})
    return 1 if open_questions else 0


def _sample(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """`count` mutants that the type checker has nothing against; the same for the same code and
    seed."""
    allowed = [each for each in mutants if each.outcome is not Outcome.REFUSED]
    allowed.sort(key=lambda each: each.name)
    return random.Random(seed).sample(allowed, min(count, len(allowed)))


def _tool(room: Room, *command: str) -> None:
    """The tool, in the copy of the tree."""
    log = room.folder / "mutmut.log"
    with log.open("w") as output:
        done = subprocess.run(
            command,
            cwd=room.folder,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise SystemExit(f"mutmut ended with {done.returncode}; what it said is in {log}")


def _report(room: Room, names: set[str]) -> int:
    """Print the table and the survivors; how many of them nothing explains."""
    mutants = [each for each in read_outcomes(room) if each.name in names]
    print(table(mutants))
    for outcome in (Outcome.OPEN, Outcome.BROKEN):
        count = sum(each.outcome is outcome for each in mutants)
        if count:
            print(f"{count} {outcome}")
    changes = read_changes(room, [each for each in mutants if each.outcome in ESCAPED])
    new = {change.key for change in unexplained(changes.values())}
    for name, change in changes.items():
        print(f"{'new   ' if change.key in new else 'known '} {change.key}   [{name}]")
    return len(new)


if __name__ == "__main__":
    sys.exit(main())
