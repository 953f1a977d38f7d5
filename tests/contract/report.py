"""The contract report: every endpoint of the paper exchange, the cases tested, pass or fail.

    make contract      (python -m tests.contract.report)

Runs the tests of `tests/contract/simulator` and reads their marks: a test that shows a case of an
endpoint carries `@pytest.mark.endpoint("POST /api/v2/...", "the case in words")`, as often as it
shows one. Endpoints of the table without a case are listed, and so is what is constant, as
`docs/simulator.md` has it. Exit code 0 when every case passed and every endpoint has one.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from module.simulator.wire.bitget_table import ENDPOINTS

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests" / "contract" / "simulator"
CONSTANTS_PAGE = ROOT / "docs" / "simulator.md"
CONSTANTS_TITLE = "What is constant"
PASSED, FAILED, SKIPPED = "pass", "FAIL", "skip"
_WORST = (FAILED, SKIPPED, PASSED)


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """One thing that an endpoint was seen to do."""

    route: str
    words: str


@dataclass(slots=True)
class Outcomes:
    """A pytest plugin: what became of each case. A case of several tests is as bad as the worst."""

    by_case: dict[Case, str] = field(default_factory=dict)
    _cases: dict[str, list[Case]] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Remember which test shows which cases."""
        for item in items:
            self._cases[item.nodeid] = [
                Case(str(mark.args[0]), str(mark.args[1])) for mark in item.iter_markers("endpoint")
            ]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test counts as failed when its setup or its end fails, too."""
        if report.when != "call" and report.passed:
            return
        outcome = PASSED if report.passed else SKIPPED if report.skipped else FAILED
        for case in self._cases.get(report.nodeid, ()):
            before = self.by_case.get(case, PASSED)
            self.by_case[case] = min(before, outcome, key=_WORST.index)


def report_lines(by_case: Mapping[Case, str], routes: Sequence[str]) -> list[str]:
    """The report without its constants: one block per endpoint, in the order of the table."""
    cases: dict[str, list[Case]] = defaultdict(list)
    for case in sorted(by_case):
        cases[case.route].append(case)
    lines: list[str] = []
    for route in [*routes, *sorted(set(cases) - set(routes))]:
        note = "" if route in routes else "   (not in the table)"
        lines.append(f"{route}{note}")
        lines += [f"    {by_case[case]}  {case.words}" for case in cases[route]]
        if not cases[route]:
            lines.append("    ----  no case")
    return lines


def without_case(by_case: Mapping[Case, str], routes: Sequence[str]) -> list[str]:
    """Endpoints that no case shows."""
    shown = {case.route for case in by_case}
    return [route for route in routes if route not in shown]


def constant_lines(page: str) -> list[str]:
    """The rows of the table under the title `What is constant`."""
    rows: list[str] = []
    inside = False
    for line in page.splitlines():
        if line.startswith("#"):
            inside = CONSTANTS_TITLE in line
        elif inside and line.startswith("|"):
            rows.append(line.strip("| \n"))
    return [row.replace(" | ", "  -  ") for row in rows if not set(row) <= set("-:| ")][1:]


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description="the contract report of the paper exchange")
    parser.add_argument("tests", nargs="*", default=[str(TESTS)], help="instead of all of them")
    wanted = parser.parse_args(argv).tests
    outcomes = Outcomes()
    code = pytest.main(["-q", "--no-header", "-p", "no:randomly", *wanted], plugins=[outcomes])
    routes = list(ENDPOINTS)
    print("\n\nThe contract of the paper exchange: endpoint, case\n")
    print(*report_lines(outcomes.by_case, routes), sep="\n")
    page = CONSTANTS_PAGE.read_text() if CONSTANTS_PAGE.exists() else ""
    print(f"\n{CONSTANTS_TITLE} (docs/simulator.md)\n")
    print(*[f"    {row}" for row in constant_lines(page)], sep="\n")
    missing = without_case(outcomes.by_case, routes)
    failed = sorted(case for case, outcome in outcomes.by_case.items() if outcome == FAILED)
    print(f"\n{len(outcomes.by_case)} cases of {len(routes) - len(missing)} endpoints")
    for case in failed:
        print(f"failed: {case.route}: {case.words}")
    for route in missing:
        print(f"without a case: {route}")
    return 1 if failed or missing or code else 0


if __name__ == "__main__":
    sys.exit(main())
