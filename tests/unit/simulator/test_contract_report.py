"""The contract report judges by its cases."""

from __future__ import annotations

from tests.contract.report import Case, constant_lines, report_lines, without_case

PAGE = """
## Prices
| a | b |
|---|---|
| no | no |

## What is constant

| field | value | why |
|---|---|---|
| `grant` | empty | no trial funds |

After the table.
"""


def test_endpoints_come_in_the_order_of_the_table_with_their_cases() -> None:
    found = {Case("GET /b", "works"): "pass", Case("GET /a", "fails"): "FAIL"}
    assert report_lines(found, ["GET /b", "GET /a", "GET /c"]) == [
        "GET /b",
        "    pass  works",
        "GET /a",
        "    FAIL  fails",
        "GET /c",
        "    ----  no case",
    ]
    assert without_case(found, ["GET /b", "GET /a", "GET /c"]) == ["GET /c"]


def test_a_case_of_an_endpoint_that_is_not_in_the_table_is_shown_as_such() -> None:
    lines = report_lines({Case("GET /old", "worked once"): "pass"}, [])
    assert lines[0] == "GET /old   (not in the table)"


def test_constants_are_the_rows_of_their_own_table() -> None:
    assert constant_lines(PAGE) == ["`grant`  -  empty  -  no trial funds"]
