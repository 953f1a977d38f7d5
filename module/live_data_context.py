"""The context of a live cycle: bars come from whoever answers for the market (a data client)."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol, SupportsIndex
from zoneinfo import ZoneInfo

from module.data_context import DataContext
from module.model.errors import InvalidInput
from module.model.market import Frequency

if TYPE_CHECKING:
    import pandas as pd

FIELDS = ("open", "high", "low", "close", "volume")
WINDOW_MAX = 10_000
ASSETS_MAX = 200
_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)


class DataClient(Protocol):
    """Answers for closed bars."""

    def fetch_bars(
        self, assets: Sequence[str], window: int, frequency: str
    ) -> Mapping[str, Sequence[Sequence[float]]]:
        """Per asset rows of (close time in ms, open, high, low, close, volume), oldest first."""
        ...


class LiveDataContext(DataContext):
    """Data is cut at `at`; `tz_str` is the zone of `current_dt` (indexes are UTC)."""

    def __init__(self, data_client: DataClient, at: datetime, tz_str: str = "Asia/Seoul") -> None:
        self._data_client = data_client
        self._at = at.astimezone(UTC)
        self._zone = ZoneInfo(tz_str)

    @property
    def current_dt(self) -> datetime:
        """The moment of the decision in the display zone."""
        return self._at.astimezone(self._zone)

    def get_history(
        self,
        assets: Sequence[str],
        window: int,
        frequency: str,
        fields: str | Sequence[str],
    ) -> pd.DataFrame:
        """See DataContext.get_history; InvalidInput says what is wrong with the arguments."""
        names = [assets] if isinstance(assets, str) else list(assets)
        wanted = [fields] if isinstance(fields, str) else list(fields)
        length = Frequency.parse(frequency).length
        window = _whole(window)
        _check(names, window, wanted)
        import pandas as pd

        rows = self._data_client.fetch_bars(names, window, frequency)
        closes = _close_times(self._at, length, window)
        frame = _frame(rows, names, wanted, closes)
        if isinstance(fields, str):
            frame.columns = pd.Index(names)
        return frame


def _whole(window: object) -> int:
    """An int from anything that is one (numpy's too); a float or a bool is not."""
    if isinstance(window, bool) or not isinstance(window, SupportsIndex):
        raise InvalidInput(f"get_history takes a whole number of bars, got {window!r:.60}")
    return operator.index(window)


def _check(names: Sequence[str], window: int, wanted: Sequence[str]) -> None:
    if not names or len(names) > ASSETS_MAX:
        raise InvalidInput(f"get_history takes 1 to {ASSETS_MAX} assets, got {len(names)}")
    if not 1 <= window <= WINDOW_MAX:
        raise InvalidInput(f"get_history takes a window of 1 to {WINDOW_MAX} bars, got {window!r}")
    unknown = [name for name in wanted if name not in FIELDS]
    if unknown or not wanted:
        raise InvalidInput(f"unknown fields {unknown}; known are {', '.join(FIELDS)}")


def _close_times(at: datetime, length: timedelta, window: int) -> list[datetime]:
    """The closes of the last `window` complete bars; weeks begin on Monday."""
    origin = _FIRST_MONDAY if length == timedelta(days=7) else _EPOCH_START
    last = origin + ((at - origin) // length) * length
    return [last - length * back for back in range(window - 1, -1, -1)]


def _frame(
    rows: Mapping[str, Sequence[Sequence[float]]],
    names: Sequence[str],
    wanted: Sequence[str],
    closes: Sequence[datetime],
) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    place = {int(close.timestamp() * 1000): number for number, close in enumerate(closes)}
    columns = pd.MultiIndex.from_product([names, wanted], names=["asset", "field"])
    values = np.full((len(closes), len(columns)), np.nan)
    for column, (asset, field) in enumerate(columns):
        source = FIELDS.index(field) + 1
        if field == "volume":
            values[:, column] = 0.0
        for row in rows[asset]:
            number = place.get(int(row[0]))
            if number is not None:
                values[number, column] = row[source]
    return pd.DataFrame(
        values, index=pd.DatetimeIndex(list(closes), name="closes_at"), columns=columns
    )
