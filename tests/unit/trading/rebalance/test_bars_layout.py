"""The archive of a cycle's bars as a later build must find it: digest, layout, and its limits."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from module.model.canonical import canonical_json
from module.model.errors import InvariantViolated
from module.model.market import Candle, Frequency
from trading.rebalance.bars_seen import digest_bars, pack_bars, see_bars, unpack_bars

AT = datetime(2026, 11, 21, 11, 4, tzinfo=UTC)
BAR = Candle(
    "BTCUSDT", Frequency.MINUTE_1, AT, Decimal("60123.4"), Decimal("60200"), Decimal("60100.5"),
    Decimal("60111.1"), Decimal("17.25"),
)  # fmt: skip
NEXT = replace(BAR, opens_at=AT + timedelta(minutes=1), volume=Decimal("3.5"))
SEEN = see_bars(["BTCUSDT"], Frequency.MINUTE_1, 2, {"BTCUSDT": [BAR, NEXT]})

Document = dict[str, object]


def sealed(document: Document) -> bytes:
    body = zlib.compress(canonical_json(document).encode())
    return hashlib.sha256(body).hexdigest().encode() + body


def opened(content: bytes) -> Document:
    document = json.loads(zlib.decompress(content[64:]))
    assert isinstance(document, dict)
    return document


def packed() -> Document:
    content = pack_bars("2611211102-ab3x", AT + timedelta(minutes=2), [SEEN])
    assert content is not None
    return opened(content)


def test_the_digest_of_a_bar_is_the_same_on_every_machine_and_in_every_build() -> None:
    assert digest_bars(["BTCUSDT"], {"BTCUSDT": [BAR]}) == (
        "c776116d203d6d0a31a594fdadbbea9f27d32f84b60c7ac4aa8b141042394194"
    )


def test_the_layout_is_what_archived_cycles_have() -> None:
    assert packed() == {
        "version": 1,
        "session_id": "2611211102-ab3x",
        "cycle": "2026-11-21T11:06:00Z",
        "windows": [
            {
                "assets": ["BTCUSDT"],
                "frequency": "1m",
                "window": 2,
                "refusal": "",
                "problem": "",
                "series": {
                    "BTCUSDT": [
                        [1795259040000, 1795259100000],
                        "60123.4 60123.4",
                        "60200 60200",
                        "60100.5 60100.5",
                        "60111.1 60111.1",
                        "17.25 3.5",
                    ]
                },
            }
        ],
    }


def window(document: Document) -> dict[str, Any]:
    windows = document["windows"]
    assert isinstance(windows, list)
    (only,) = windows
    assert isinstance(only, dict)
    return only


def series(document: Document) -> list[object]:
    found = window(document)["series"]["BTCUSDT"]
    assert isinstance(found, list)
    return found


def lose_a_time(document: Document) -> None:
    series(document)[0] = [1795259040000]


def lose_a_price(document: Document) -> None:
    series(document)[2] = "60200"


def gain_a_price(document: Document) -> None:
    series(document)[2] = "60200 60200 60200"


def lose_a_volume(document: Document) -> None:
    series(document)[5] = "17.25"


def gain_a_column(document: Document) -> None:
    series(document).append("1 2")


def lose_a_column(document: Document) -> None:
    series(document).pop()


def say_no_number(document: Document) -> None:
    series(document)[1] = "60123.4 dear"


def say_no_times(document: Document) -> None:
    series(document)[0] = "1795259040000 1795259100000"


def say_no_series(document: Document) -> None:
    window(document)["series"] = []


@pytest.mark.parametrize(
    "spoil",
    [
        lose_a_time, gain_a_price, lose_a_price, lose_a_volume, gain_a_column, lose_a_column,
        say_no_number,
        say_no_times, say_no_series,
    ],
)  # fmt: skip
def test_a_well_sealed_archive_of_something_else_is_an_error(
    spoil: Callable[[Document], None],
) -> None:
    """The seal says that nothing was altered since; not that it was bars that were sealed."""
    document = packed()
    assert unpack_bars(sealed(document), "bars") == (SEEN,)
    spoil(document)
    with pytest.raises(InvariantViolated, match="the bars of 11:06"):
        unpack_bars(sealed(document), "the bars of 11:06")


def test_an_archive_is_not_unpacked_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    content = sealed(packed())
    size = len(canonical_json(packed()))
    monkeypatch.setattr("trading.rebalance.bars_seen.UNPACKED_BYTES_MAX", size - 1)
    with pytest.raises(InvariantViolated, match="longer"):
        unpack_bars(content, "bars")


def test_as_many_bars_as_the_limit_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trading.rebalance.bars_seen.CANDLES_MAX", 4)
    two_series = [SEEN, SEEN]
    assert pack_bars("2611211102-ab3x", AT, two_series) is not None
    assert pack_bars("2611211102-ab3x", AT, [*two_series, SEEN]) is None


def test_a_value_under_zero_has_a_digest_too() -> None:
    under = replace(BAR, low=Decimal("-37.63"))
    above = replace(BAR, low=Decimal("37.63"))
    digests = {digest_bars(["BTCUSDT"], {"BTCUSDT": [bar]}) for bar in (BAR, under, above)}
    assert len(digests) == 3
