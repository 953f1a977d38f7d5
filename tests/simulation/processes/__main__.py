"""`make simulate KILLS=20`: real sessions whose processes are killed at seeded random moments.

Each seed is one session that turns its book over every minute while up to four victims are killed;
then it is ended flat and held against the exchange's own ledger. The last line is one JSON object;
exit code 1 on any violation. The same seed kills the same victims after the same pauses; the
moments within real processes are theirs, so a seed repeats a scenario, not a byte-exact run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from api.standalone import Standalone, StandaloneOptions
from module.launch.stack import free_port
from tests.e2e.installation import Installation, kill
from tests.e2e.test_kills import TURNING, VICTIMS, check_minutes
from tests.simulation.processes.faults import run_all

KILLS_MAX = 4
SPEED = 240.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.processes")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument(
        "--faults", metavar="WHICH", help="instead: all, first, or ids and id/variant with commas"
    )
    parser.add_argument("--fault-seeds", type=int, default=0, help="so many seeded plans of faults")
    parser.add_argument("--density", type=int, default=40, help="faults an hour of such a plan")
    parser.add_argument("--keep", type=Path, help="leave the folders of these installations here")
    options = parser.parse_args(arguments)
    if options.faults or options.fault_seeds:
        seeds = [options.seed] if options.seed is not None else range(options.fault_seeds)
        bad = run_all(options.faults or "", list(seeds), options.density, options.keep)
        return 1 if bad else 0
    seeds = [options.seed] if options.seed is not None else list(range(options.kills))
    kills: Counter[str] = Counter()
    violations: list[str] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="aifap-sim-") as folder, contextlib.ExitStack() as end:
        stack = Standalone(
            StandaloneOptions(Path(folder), free_port(), workers=2, speed=SPEED), lambda _line: None
        )
        end.callback(stack.stop)
        stack.start()
        token = stack.first_user("simulation")
        assert token is not None
        installation = Installation(stack, token)
        installation.upload("turning", TURNING)
        for seed in seeds:
            try:
                done = one_session(installation, seed, kills)
            except (AssertionError, OSError) as error:
                violations.append(f"seed {seed}: {error}")
                print(f"seed {seed:4d}  VIOLATION  {error}", flush=True)
                print(f"  again: python -m tests.simulation.processes --seed {seed}", flush=True)
            else:
                print(f"seed {seed:4d}  ok  {done}", flush=True)
    summary = {
        "sessions": len(seeds),
        "kills": dict(sorted(kills.items())),
        "violations": len(violations),
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(summary), flush=True)
    return 1 if violations else 0


def one_session(installation: Installation, seed: int, kills: Counter[str]) -> str:
    """One seed: start, kill, end flat, and let the ledger judge."""
    chance = random.Random(seed)
    account = installation.paper_account(f"seed-{seed}-{time.monotonic_ns()}")
    session = installation.start(
        account, "turning", timedelta(minutes=1), threshold="0.005", on_end="protected"
    )
    installation.wait_cycles(session, 1)
    names = chance.sample(sorted(VICTIMS), chance.randint(1, KILLS_MAX))
    for name in names:
        time.sleep(chance.uniform(0.0, 0.8))
        with contextlib.suppress(AssertionError):  # the victim may be gone already
            kill(VICTIMS[name](installation, session))
            kills[name] += 1
    installation.wait_cycles(session, int(installation.calm_view(session)["cycle"]) + 2)
    installation.terminate(session, "flat")
    view = installation.wait_over(session)
    assert view["state"] == "ended", view["reason"]
    ledger = installation.ledger(account)
    orders = {order["clientOid"]: order["orderId"] for order in ledger["orders"]}
    assert len(orders) == len(ledger["orders"]), "a client id stands twice on the exchange"
    assert installation.sent(session) == orders, "letters and ledger differ"
    assert ledger["positions"] == [], "not flat"
    assert ledger["plans"] == [], "stops left behind"
    assert installation.leftovers(session) == [], "processes left behind"
    check_minutes(installation, session)
    return f"{len(orders)} orders, killed {', '.join(names)}"


if __name__ == "__main__":
    sys.exit(main())
