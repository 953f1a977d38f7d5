"""A cell is exact, a line is RFC 4180, and nothing in a file runs as a formula."""

from __future__ import annotations

import csv
import gzip
import io
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from api.csv_answers import csv_cell, csv_lines, csv_parts, gzip_parts

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("10007.123456789012345678"), "10007.123456789012345678"),
        (Decimal("-0.000000000000000001"), "-0.000000000000000001"),
        (Decimal("1E+3"), "1000"),
        (Decimal("12.500"), "12.5"),
        (-0.1, "-0.1"),
        (float("nan"), ""),
        (float("-inf"), ""),
        (None, ""),
        (True, "true"),
        (7, "7"),
        (NOON, "2026-11-21T12:00:00Z"),
        (NOON + timedelta(milliseconds=37), "2026-11-21T12:00:00.037Z"),
        ({"weight": Decimal("0.25")}, '{"weight": "0.25"}'),
        ([{"reason": "dust"}], '[{"reason": "dust"}]'),
    ],
)
def test_a_cell_is_spelled_exactly(value: object, text: str) -> None:
    assert csv_cell(value) == text


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =cmd|' /C calc'!A0", "＝1+1"],
)
def test_S43_text_never_runs_as_a_formula(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


def test_plain_text_and_numbers_are_left_alone() -> None:
    assert csv_cell("BTCUSDT") == "BTCUSDT"
    assert csv_cell("a=b") == "a=b"
    assert csv_cell(Decimal(-1)) == "-1"


def test_lines_end_with_crlf_and_are_quoted_where_they_must_be() -> None:
    rows: list[list[object]] = [
        ["plain", 'says "no"', "a,b", "two\r\nlines", ""],
        [None, 1, Decimal("0.5"), "x", " y"],
    ]
    text = csv_lines(rows)
    assert text.startswith('plain,"says ""no""","a,b","two\r\nlines",\r\n')
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["plain", 'says "no"', "a,b", "two\r\nlines", ""],
        ["", "1", "0.5", "x", " y"],
    ]


def test_an_empty_table_has_its_header() -> None:
    assert b"".join(csv_parts(("minute", "roe"), iter([[]]))) == b"minute,roe\r\n"
    assert b"".join(csv_parts(("minute", "roe"), iter([]))) == b"minute,roe\r\n"


def test_gzip_is_one_file_in_pieces() -> None:
    parts = [b"minute,roe\r\n", b"", b"2026-11-21T12:00:00Z,0.1\r\n" * 1000]
    assert gzip.decompress(b"".join(gzip_parts(parts))) == b"".join(parts)


def test_pages_are_spelled_one_by_one_and_forgotten() -> None:
    """Forty pages cost the memory of one."""

    def pages() -> Iterator[list[tuple[object, ...]]]:
        for number in range(40):
            start = NOON + timedelta(minutes=1_000 * number)
            yield [(start + timedelta(minutes=i), Decimal(i)) for i in range(1_000)]

    def peak_bytes(parts: Iterator[bytes]) -> int:
        tracemalloc.start()
        try:
            assert sum(len(part) for part in parts) > 0
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    one = peak_bytes(csv_parts(("minute", "value"), [next(pages())]))
    assert peak_bytes(csv_parts(("minute", "value"), pages())) < 4 * one
