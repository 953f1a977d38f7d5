"""`make mutation`: make the mutants of a room, run the tests on each, say what was noticed.

    python -m tests.mutation --room rebalance [--sample 300 --seed 1]

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


def main() -> int:
    """Run what was asked for; 0 when every survivor is explained."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--room", choices=[*ROOMS, "all"], default="all")
    parser.add_argument("--sample", type=int, help="so many mutants per room, drawn by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only what is known already")
    wanted = parser.parse_args()
    os.nice(NICENESS)
    rooms = [ROOMS[wanted.room]] if wanted.room in ROOMS else list(ROOMS.values())
    open_questions = 0
    for room in rooms:
        began = time.monotonic()
        names: list[str] = []
        if not wanted.report:
            lay_out(room)
            _mutmut(room, f"trading.{room.name}.{room.smallest}.*")  # makes all, runs these
            refuse_by_type(room)
            known = read_outcomes(room)
            if wanted.sample is not None:
                names = _sample(known, wanted.sample, wanted.seed)
            todo = _to_run(known, names)
            if todo or not names:
                _mutmut(room, *todo)
        print(f"\ntrading/{room.name}: {time.monotonic() - began:.0f} s")
        open_questions += _report(room, set(names))
    return 1 if open_questions else 0


def _sample(mutants: list[Mutant], count: int, seed: int) -> list[str]:
    """Names of `count` mutants that the type checker has nothing against; the same for the same
    code and seed."""
    names = sorted(each.name for each in mutants if each.outcome is not Outcome.REFUSED)
    return sorted(random.Random(seed).sample(names, min(count, len(names))))


def _to_run(mutants: list[Mutant], names: list[str]) -> list[str]:
    """Of `names` those that no test has noticed yet (one that was killed stays killed)."""
    noticed = {each.name for each in mutants if each.outcome in {Outcome.KILLED, Outcome.TIMEOUT}}
    return [name for name in names if name not in noticed]


def _mutmut(room: Room, *names: str) -> None:
    """The tool, with one worker: it makes the mutants that are new, and runs these or all."""
    command = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", "1", *names]
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
    mutants = [each for each in read_outcomes(room) if not names or each.name in names]
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
