"""`make bench`: every benchmark in turn; `python -m benchmarks NAME …` runs one of them."""

from __future__ import annotations

import sys

from benchmarks import (
    cycle,
    engine,
    fleet,
    gateway,
    indicators,
    live_page,
    planning,
    protection,
    recovery,
    results,
    scrape,
    sessions,
    simulator,
)

BENCHMARKS = {
    "planning": planning.main,
    "engine": engine.main,
    "simulator": simulator.main,
    "gateway": gateway.main,
    "cycle": cycle.main,
    "recovery": recovery.main,
    "protection": protection.main,
    "sessions": sessions.main,
    "results": results.main,
    "fleet": fleet.main,
    "live_page": live_page.main,
    "indicators": indicators.main,
    "scrape": scrape.main,
}


def main(arguments: list[str]) -> int:
    """Run the one that is named, or all."""
    if arguments:
        name, *options = arguments
        if name not in BENCHMARKS:
            print(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
            return 2
        return BENCHMARKS[name](options)
    failed = 0
    for name, run in BENCHMARKS.items():
        print(f"\n# {name}")
        failed |= run([])
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
