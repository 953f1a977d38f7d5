"""Replays a folder of candle files: SYMBOL.parquet or SYMBOL.csv, and SYMBOL.funding.* beside it.

Columns: timestamp (bar open, ms UTC), open, high, low, close, volume; funding: timestamp,
fundingRate. One-minute files are taken as they are; one-hour files are expanded so that the sixty
minutes merge into exactly the hour again. The last bar of a file can be partial and is dropped.
Prices go through repr into Decimal and onto the symbol's tick. `.mark` files are not used: mark is
last in this exchange.
"""

from __future__ import annotations

import bisect
import csv
import hashlib
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise
from pathlib import Path

from module.model.errors import InvalidInput
from module.model.money import decimal_from_float
from module.simulator.instruments import (
    FuturesInstrument,
    SpotInstrument,
    base_coin_of,
    futures_instrument,
    spot_instrument,
)
from module.simulator.market_source import HOUR_MS, MINUTE_MS, Bar, FundingPoint
from module.simulator.tick_bars import MISSING, TickBlock, TickScale

_CANDLE_COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
_FUNDING_COLUMNS = ("timestamp", "fundingRate")
_DEFAULT_FUNDING_MS = 8 * HOUR_MS


@dataclass(frozen=True, slots=True)
class _Series:
    """All minutes of one symbol from its first bar on."""

    first_ms: int
    block: TickBlock
    scale: TickScale

    @property
    def last_ms(self) -> int:
        """Open time of the last minute."""
        return self.first_ms + (len(self.block) - 1) * MINUTE_MS


class ReplayMarket:
    """The bars of a folder. InvalidInput says what is wrong with a file."""

    def __init__(self, folder: Path) -> None:
        files = _candle_files(folder)
        self._market_id = f"replay:{_digest(folder)}"
        self._series: dict[str, _Series] = {}
        self._futures: dict[str, FuturesInstrument] = {}
        self._spot: dict[str, SpotInstrument] = {}
        self._funding: dict[str, list[FundingPoint]] = {}
        for symbol, path in files.items():
            rows = _read_rows(path, _CANDLE_COLUMNS)
            if len(rows) < 3:
                raise InvalidInput(f"{path} has {len(rows)} bars; at least 3 are needed")
            reference = decimal_from_float(rows[0][4], name=f"{path} close")
            self._funding[symbol] = _read_funding(folder, symbol)
            rules = replace(
                futures_instrument(symbol, reference),
                funding_interval_h=_usual_interval_h(self._funding[symbol]),
            )
            self._futures[symbol] = rules
            self._spot[symbol] = spot_instrument(symbol, reference)
            scale = TickScale(rules.price_step, rules.size_step)
            self._series[symbol] = _make_series(path, rows, scale)

    # -- MarketSource -------------------------------------------------------------------------

    @property
    def market_id(self) -> str:
        """`replay:` and 16 hex digits of the SHA-256 over names and contents of all files."""
        return self._market_id

    def futures(self) -> Sequence[FuturesInstrument]:
        """One contract per file."""
        return tuple(self._futures[symbol] for symbol in sorted(self._futures))

    def spot(self) -> Sequence[SpotInstrument]:
        """One pair per file."""
        return tuple(self._spot[symbol] for symbol in sorted(self._spot))

    def span(self, symbol: str | None = None) -> tuple[int | None, int | None]:
        """Open times of the first and the last minute."""
        if symbol is not None:
            series = self._series.get(symbol)
            return (series.first_ms, series.last_ms) if series is not None else (None, None)
        return (
            min(series.first_ms for series in self._series.values()),
            max(series.last_ms for series in self._series.values()),
        )

    def bar(self, symbol: str, open_ms: int) -> Bar | None:
        """The minute that opens at `open_ms`."""
        return self.merged_bar(symbol, open_ms, 1)

    def merged_bar(self, symbol: str, open_ms: int, minutes: int) -> Bar | None:
        """Minutes as one bar; what lies outside the file or in a gap is skipped."""
        series = self._series.get(symbol)
        if series is None or open_ms % MINUTE_MS:
            return None
        first = (open_ms - series.first_ms) // MINUTE_MS
        end = min(first + minutes, len(series.block))
        first = max(first, 0)
        merged = series.block.merged(first, end) if first < end else None
        return series.scale.bar(open_ms, *merged) if merged is not None else None

    def latest_bar(self, symbol: str, open_ms: int) -> Bar | None:
        """The last existing minute at or before `open_ms`."""
        series = self._series.get(symbol)
        if series is None or open_ms < series.first_ms:
            return None
        index = min((open_ms - series.first_ms) // MINUTE_MS, len(series.block) - 1)
        while series.block.lots[index] == MISSING:  # ends: the first minute always exists
            index -= 1
        return self.bar(symbol, series.first_ms + index * MINUTE_MS)

    def next_funding(self, symbol: str, after_ms: int) -> FundingPoint | None:
        """The file's next settlement; without a file, every 8 hours at 0.01 %."""
        if symbol not in self._series:
            return None
        points = self._funding[symbol]
        if not points:
            settlement_ms = (after_ms // _DEFAULT_FUNDING_MS + 1) * _DEFAULT_FUNDING_MS
            return FundingPoint(settlement_ms, Decimal("0.0001"))
        index = bisect.bisect_right(points, after_ms, key=lambda point: point.settlement_ms)
        return points[index] if index < len(points) else None

    def funding_between(self, symbol: str, first_ms: int, last_ms: int) -> Sequence[FundingPoint]:
        """The settlements of [first_ms, last_ms]."""
        found: list[FundingPoint] = []
        point = self.next_funding(symbol, first_ms - 1)
        while point is not None and point.settlement_ms <= last_ms:
            found.append(point)
            point = self.next_funding(symbol, point.settlement_ms)
        return tuple(found)


# -- files ----------------------------------------------------------------------------------------


def _candle_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder of candle files")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        symbol, _, rest = path.name.partition(".")
        if rest not in ("parquet", "csv"):
            continue
        if symbol in files:
            raise InvalidInput(f"{folder} has two candle files of {symbol}; remove one")
        try:
            base_coin_of(symbol)
        except ValueError as error:
            raise InvalidInput(f"{path} is not named after a symbol: {error}") from error
        files[symbol] = path
    if not files:
        raise InvalidInput(f"{folder} holds no SYMBOL.parquet or SYMBOL.csv")
    return files


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in (".parquet", ".csv"):
            total.update(path.name.encode() + b"\0")
            with path.open("rb") as source:
                total.update(hashlib.file_digest(source, "sha256").digest())
    return total.hexdigest()[:16]


def _read_rows(path: Path, columns: Sequence[str]) -> list[tuple[float, ...]]:
    """Rows in the order of `columns`, sorted and unique by timestamp, numbers finite."""
    try:
        if path.suffix == ".csv":
            with path.open(newline="") as source:
                reader = csv.DictReader(source)
                rows = [tuple(float(row[name]) for name in columns) for row in reader]
        else:
            import pyarrow.parquet

            table = pyarrow.parquet.read_table(path, columns=list(columns))
            rows = list(zip(*(table[name].to_pylist() for name in columns), strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"{path} does not have the columns {list(columns)}: {error}") from error
    for before, row in pairwise(rows):
        if not before[0] < row[0]:
            raise InvalidInput(f"{path} is not sorted and unique at timestamp {row[0]:.0f}")
    return rows


def _make_series(path: Path, rows: list[tuple[float, ...]], scale: TickScale) -> _Series:
    times = [int(row[0]) for row in rows]
    step_ms = min(after - before for before, after in pairwise(times))
    if step_ms not in (MINUTE_MS, HOUR_MS) or any(when % step_ms for when in times):
        raise InvalidInput(
            f"{path} has bars every {step_ms} ms; only whole minutes (60000) and hours (3600000) "
            "can be replayed"
        )
    block = TickBlock()
    expected_ms = times[0]
    minutes = step_ms // MINUTE_MS
    for row in rows[:-1]:  # the last bar can be partial
        opened_ms = int(row[0])
        for _ in range((opened_ms - expected_ms) // MINUTE_MS):
            block.append_missing()
        ticks, lots = _to_ticks(path, row, scale)
        if minutes == 1:
            block.append(ticks, lots)
        else:
            for part, part_lots in expand_hour(ticks, lots):
                block.append(part, part_lots)
        expected_ms = opened_ms + step_ms
    return _Series(times[0], block, scale)


def _to_ticks(
    path: Path, row: tuple[float, ...], scale: TickScale
) -> tuple[tuple[int, int, int, int], int]:
    values = [decimal_from_float(value, name=f"{path} at {row[0]:.0f}") for value in row[1:]]
    opened, high, low, closed = (
        max(1, int((value / scale.price_step).to_integral_value(ROUND_HALF_EVEN)))
        for value in values[:4]
    )
    if not low <= min(opened, closed) <= max(opened, closed) <= high:
        raise InvalidInput(f"{path} at {row[0]:.0f}: high and low do not contain open and close")
    lots = int((values[4] / scale.size_step).to_integral_value(ROUND_HALF_EVEN))
    if lots < 0:
        raise InvalidInput(f"{path} at {row[0]:.0f}: negative volume {row[5]}")
    return (opened, high, low, closed), lots


def expand_hour(
    ticks: tuple[int, int, int, int], lots: int
) -> Iterable[tuple[tuple[int, int, int, int], int]]:
    """Sixty minutes that merge into the hour: open, nearer extreme, other extreme, close."""
    opened, high, low, closed = ticks
    near, far = (low, high) if opened - low <= high - opened else (high, low)
    corners = ((0, opened), (20, near), (40, far), (60, closed))
    marks = [opened]
    for (start, price), (end, target) in pairwise(corners):
        marks += [
            price + round((target - price) * (index - start) / (end - start))
            for index in range(start + 1, end + 1)
        ]
    for minute in range(60):
        first, last = marks[minute], marks[minute + 1]
        share = lots * (minute + 1) // 60 - lots * minute // 60
        yield (first, max(first, last), min(first, last), last), share


def _read_funding(folder: Path, symbol: str) -> list[FundingPoint]:
    """Settlements of a symbol; a few are some milliseconds late and are put on the second."""
    for suffix in ("parquet", "csv"):
        path = folder / f"{symbol}.funding.{suffix}"
        if path.exists():
            return [
                FundingPoint(
                    round(row[0] / 1000) * 1000, decimal_from_float(row[1], name=str(path))
                )
                for row in _read_rows(path, _FUNDING_COLUMNS)
            ]
    return []


def _usual_interval_h(points: Sequence[FundingPoint]) -> int:
    """The most frequent distance between settlements, in whole hours; 8 where it is unknown."""
    distances = [
        round((after.settlement_ms - before.settlement_ms) / HOUR_MS)
        for before, after in pairwise(points)
    ]
    return max(1, statistics.mode(distances)) if distances else 8
