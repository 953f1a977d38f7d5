"""Bars under digests, packed small; one flipped bit is noticed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from module.model.errors import InvalidInput, InvariantViolated, NotFound
from module.model.market import Candle, Frequency
from tests.fakes.market import FakeMarket, make_bar
from trading.rebalance.bars_seen import (
    BarsSeen,
    digest_bars,
    pack_bars,
    raise_refusal,
    see_bars,
    see_refusal,
    unpack_bars,
)

CYCLE = datetime(2026, 11, 21, 11, 5, tzinfo=UTC)
MINUTE = Frequency.MINUTE_1


def seen(window: int = 5) -> BarsSeen:
    bars = FakeMarket().closed_bars(["BTCUSDT", "ETHUSDT"], MINUTE, window, CYCLE)
    return see_bars(["BTCUSDT", "ETHUSDT"], MINUTE, window, bars)


def packed(*windows: BarsSeen) -> bytes:
    content = pack_bars("2611211102-ab3x", CYCLE, windows)
    assert content is not None
    return content


def test_what_was_packed_comes_back() -> None:
    empty = see_bars(["SOLUSDT"], Frequency.HOUR_1, 3, {"SOLUSDT": []})
    refused = see_refusal(["NOSUCH"], MINUTE, 5, NotFound("the market has no NOSUCH"))
    windows = (seen(), empty, refused)
    assert unpack_bars(packed(*windows), "bars") == windows


def test_a_digest_is_over_values_not_over_their_spelling() -> None:
    bar = make_bar("BTCUSDT", MINUTE, CYCLE)
    respelled = replace(bar, open=Decimal(f"{bar.open}00"))
    assert str(respelled.open) != str(bar.open)
    assert digest_bars(["BTCUSDT"], {"BTCUSDT": [bar]}) == digest_bars(
        ["BTCUSDT"], {"BTCUSDT": [respelled]}
    )


@pytest.mark.parametrize("field", ["open", "high", "low", "close", "volume"])
def test_another_value_is_another_digest(field: str) -> None:
    bar = make_bar("BTCUSDT", MINUTE, CYCLE)
    changed = replace(bar, **{field: getattr(bar, field) + Decimal("0.01")})
    assert digest_of(bar) != digest_of(changed)


def test_another_time_symbol_or_count_is_another_digest() -> None:
    bar = make_bar("BTCUSDT", MINUTE, CYCLE)
    others = [
        digest_of(replace(bar, opens_at=bar.opens_at + timedelta(milliseconds=1))),
        digest_bars(["ETHUSDT"], {"ETHUSDT": [bar]}),
        digest_bars(["BTCUSDT"], {"BTCUSDT": [bar, bar]}),
        digest_bars(["BTCUSDT"], {"BTCUSDT": []}),
    ]
    assert len({digest_of(bar), *others}) == 5


def test_C1_a_price_that_is_no_number_has_a_digest_too() -> None:
    bar = replace(make_bar("BTCUSDT", MINUTE, CYCLE), close=Decimal("NaN"))
    assert digest_of(bar) == digest_of(replace(bar, close=Decimal("NaN")))
    assert digest_of(bar) != digest_of(replace(bar, close=Decimal("1")))


def digest_of(bar: Candle) -> str:
    return digest_bars(["BTCUSDT"], {"BTCUSDT": [bar]})


def test_every_flipped_byte_is_an_error_that_names_the_bars() -> None:
    content = packed(seen(2))
    for place in range(len(content)):
        for bit in (0x01, 0x80):
            damaged = bytearray(content)
            damaged[place] ^= bit
            with pytest.raises(InvariantViolated, match="the bars of 11:05"):
                unpack_bars(bytes(damaged), "the bars of 11:05")


@pytest.mark.parametrize("content", [b"", b"x", b"0" * 64, b"\xff" * 200])
def test_what_was_never_packed_is_an_error(content: bytes) -> None:
    with pytest.raises(InvariantViolated):
        unpack_bars(content, "bars")


def test_a_refusal_is_raised_again_as_it_was() -> None:
    for error in (NotFound("no NOSUCH"), InvalidInput("a window of 0")):
        with pytest.raises(type(error), match=error.message) as found:
            raise_refusal(see_refusal(["NOSUCH"], MINUTE, 5, error).asked)
        assert found.value.code == error.code
    raise_refusal(seen().asked)


def test_too_many_bars_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trading.rebalance.bars_seen.CANDLES_MAX", 9)
    assert pack_bars("2611211102-ab3x", CYCLE, [seen(5)]) is None
    assert pack_bars("2611211102-ab3x", CYCLE, [seen(4)]) is not None
