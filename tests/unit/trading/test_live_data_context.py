"""The context of a live cycle: which bars a strategy is shown, on which index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from module.live_data_context import LiveDataContext
from module.model.errors import InvalidInput
from module.model.market import Frequency

AT = datetime(2026, 11, 21, 11, 7, 13, tzinfo=UTC)  # a Saturday
Rows = Mapping[str, Sequence[Sequence[float]]]


class TwoBars:
    """Fits `DataClient`: the bar that closes at `last` and one that closes far ahead of it."""

    def __init__(self, last: datetime) -> None:
        self.last = last
        self.asked: list[tuple[Sequence[str], int, str]] = []

    def fetch_bars(self, assets: Sequence[str], window: int, frequency: str) -> Rows:
        self.asked.append((assets, window, frequency))
        moment = int(self.last.timestamp() * 1000)
        later = int((self.last + timedelta(days=30)).timestamp() * 1000)
        row = [7.0, 9.0, 5.0, 8.0, 17.0]
        return {asset: [[moment, *row], [later, *row]] for asset in assets}


@pytest.mark.parametrize(
    ("frequency", "last"),
    [
        ("1m", datetime(2026, 11, 21, 11, 7, tzinfo=UTC)),
        ("3m", datetime(2026, 11, 21, 11, 6, tzinfo=UTC)),
        ("5m", datetime(2026, 11, 21, 11, 5, tzinfo=UTC)),
        ("15m", datetime(2026, 11, 21, 11, 0, tzinfo=UTC)),
        ("30m", datetime(2026, 11, 21, 11, 0, tzinfo=UTC)),
        ("1h", datetime(2026, 11, 21, 11, 0, tzinfo=UTC)),
        ("2h", datetime(2026, 11, 21, 10, 0, tzinfo=UTC)),
        ("4h", datetime(2026, 11, 21, 8, 0, tzinfo=UTC)),
        ("6h", datetime(2026, 11, 21, 6, 0, tzinfo=UTC)),
        ("12h", datetime(2026, 11, 21, 0, 0, tzinfo=UTC)),
        ("1d", datetime(2026, 11, 21, 0, 0, tzinfo=UTC)),
        ("1w", datetime(2026, 11, 16, 0, 0, tzinfo=UTC)),
    ],
)
def test_the_last_row_is_the_last_bar_that_has_closed(frequency: str, last: datetime) -> None:
    bars = LiveDataContext(TwoBars(last), AT).get_history(["BTCUSDT"], 3, frequency, "close")
    length = Frequency.parse(frequency).length
    assert list(bars.index) == [last - 2 * length, last - length, last]
    assert bars["BTCUSDT"].tolist()[-1] == 8.0
    assert bars["BTCUSDT"].isna().tolist() == [True, True, False]


def test_one_field_gives_assets_as_columns_and_several_give_pairs() -> None:
    client = TwoBars(datetime(2026, 11, 21, 11, 7, tzinfo=UTC))
    context = LiveDataContext(client, AT)
    one = context.get_history(("ETHUSDT", "BTCUSDT"), 1, "1m", "volume")
    assert list(one.columns) == ["ETHUSDT", "BTCUSDT"]
    several = context.get_history("ETHUSDT", 2, "1m", ["low", "volume"])
    expected = pd.MultiIndex.from_tuples([("ETHUSDT", "low"), ("ETHUSDT", "volume")])
    assert several.columns.equals(expected)
    assert several[("ETHUSDT", "volume")].tolist() == [0.0, 17.0]
    assert several.columns.names == ["asset", "field"]
    assert client.asked == [(["ETHUSDT", "BTCUSDT"], 1, "1m"), (["ETHUSDT"], 2, "1m")]


def test_the_moment_of_the_decision_is_in_the_display_zone() -> None:
    context = LiveDataContext(TwoBars(AT), AT, "America/New_York")
    assert context.current_dt == AT
    assert str(context.current_dt.tzinfo) == "America/New_York"


@pytest.mark.parametrize(
    ("assets", "window", "frequency", "fields"),
    [
        ([], 5, "1m", "close"),
        (["X"] * 201, 5, "1m", "close"),
        (["X"], 0, "1m", "close"),
        (["X"], 10_001, "1m", "close"),
        (["X"], 2.0, "1m", "close"),
        (["X"], "5", "1m", "close"),
        (["X"], True, "1m", "close"),
        (["X"], 5, "90s", "close"),
        (["X"], 5, "1m", "adjusted"),
        (["X"], 5, "1m", []),
    ],
)
def test_a_wrong_question_is_refused_before_anything_is_fetched(
    assets: list[str], window: int, frequency: str, fields: str | list[str]
) -> None:
    client = TwoBars(AT)
    with pytest.raises(InvalidInput):
        LiveDataContext(client, AT).get_history(assets, window, frequency, fields)
    assert client.asked == []
