"""Reads candle and funding files: columns of numbers, floats exactly onto the tick.

    SYMBOL.parquet | SYMBOL.csv, SYMBOL.mark.*, SYMBOL.funding.*  ->  replay

InvalidInput names the file and what is wrong with it.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt

from module.model.errors import InvalidInput
from module.model.money import decimal_from_float
from module.simulator.prices.instruments import base_coin_of
from module.simulator.prices.market_source import HOUR_MS, MINUTE_MS
from module.simulator.prices.tick_series import Whole

Floats = npt.NDArray[np.float64]

CANDLE_COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
FUNDING_COLUMNS = ("timestamp", "fundingRate")
_BARS_MIN = 3
_EXACT_QUOTIENT_MAX = float(1 << 43)
"""Below it a float quotient is right to 0.002, so only what is nearly a half needs a Decimal."""
_HALF_DOUBT = 0.01


@dataclass(frozen=True, slots=True)
class CandleColumns:
    """A file's bars as it has them, without its last one, which can be partial."""

    path: Path
    minutes: int
    """Length of a bar: 1 or 60."""
    times: Whole
    prices: tuple[Floats, Floats, Floats, Floats]
    """Open, high, low, close."""
    volumes: Floats


def candle_files(folder: Path) -> dict[str, Path]:
    """SYMBOL.parquet and SYMBOL.csv by symbol, in order."""
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


def companion_file(folder: Path, symbol: str, what: str) -> Path | None:
    """SYMBOL.mark.parquet, SYMBOL.funding.csv and the like, if it is there."""
    for suffix in ("parquet", "csv"):
        path = folder / f"{symbol}.{what}.{suffix}"
        if path.exists():
            return path
    return None


def digest_of(folder: Path) -> str:
    """16 hex digits of the SHA-256 over names and contents of all its candle files."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in (".parquet", ".csv"):
            total.update(path.name.encode() + b"\0")
            with path.open("rb") as source:
                total.update(hashlib.file_digest(source, "sha256").digest())
    return total.hexdigest()[:16]


# -- columns --------------------------------------------------------------------------------------


def read_candles(path: Path) -> CandleColumns:
    """Bars of a file, checked: whole minutes or hours, ascending, finite, high and low outside."""
    times, columns = _read_columns(path, CANDLE_COLUMNS)
    if len(times) < _BARS_MIN:
        raise InvalidInput(f"{path} has {len(times)} bars; at least {_BARS_MIN} are needed")
    step_ms = int(np.diff(times).min())
    if step_ms not in (MINUTE_MS, HOUR_MS) or (times % step_ms).any():
        raise InvalidInput(
            f"{path} has bars every {step_ms} ms; only whole minutes (60000) and hours (3600000) "
            "can be replayed"
        )
    opened, high, low, closed, volume = (column[:-1] for column in columns)
    times = times[:-1]
    body_low, body_high = np.minimum(opened, closed), np.maximum(opened, closed)
    outside = (low > body_low) | (high < body_high)
    _refuse(path, times, outside, "high and low do not contain open and close")
    _refuse(path, times, low < 0, "negative price")
    _refuse(path, times, volume < 0, "negative volume")
    return CandleColumns(path, step_ms // MINUTE_MS, times, (opened, high, low, closed), volume)


def read_funding(path: Path) -> tuple[Whole, list[Decimal]]:
    """Settlement times, put on the second (some are milliseconds late), and their rates."""
    times, (rates,) = _read_columns(path, FUNDING_COLUMNS)
    seconds = (times + 500) // 1000 * 1000
    return seconds, [decimal_from_float(rate, name=str(path)) for rate in rates.tolist()]


def _refuse(path: Path, times: Whole, wrong: npt.NDArray[np.bool_], what: str) -> None:
    if wrong.any():
        raise InvalidInput(f"{path} at {int(times[wrong][0])}: {what}")


def _read_columns(path: Path, names: Sequence[str]) -> tuple[Whole, list[Floats]]:
    """The timestamps and the other columns; ascending, unique, finite."""
    try:
        read = _read_csv if path.suffix == ".csv" else _read_parquet
        columns = read(path, names)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"{path} does not have the columns {list(names)}: {error}") from error
    for name, column in zip(names, columns, strict=True):
        if not np.isfinite(column).all():
            raise InvalidInput(f"{path}: column {name} holds a number that is not finite")
    times = columns[0].astype(np.int64)
    later = np.diff(times) > 0
    if not later.all():
        at = int(times[1:][~later][0])
        raise InvalidInput(f"{path} is not sorted and unique at timestamp {at}")
    return times, columns[1:]


def _read_csv(path: Path, names: Sequence[str]) -> list[Floats]:
    with path.open(newline="") as source:
        reader = csv.DictReader(source)
        rows = [[float(row[name]) for name in names] for row in reader]
    return list(np.array(rows, dtype=np.float64).reshape(-1, len(names)).T)


def _read_parquet(path: Path, names: Sequence[str]) -> list[Floats]:
    # to_numpy() would import pandas, which costs more than all the files
    import pyarrow
    from pyarrow import parquet

    with parquet.ParquetFile(path, pre_buffer=False) as source:
        table = source.read(columns=list(names), use_threads=False)
        columns: list[Floats] = []
        for name in names:
            column = table[name].cast(pyarrow.float64()).combine_chunks()
            if column.null_count:
                raise ValueError(f"{column.null_count} empty values in {name}")
            chunk = column.chunk(0) if isinstance(column, pyarrow.ChunkedArray) else column
            values = np.frombuffer(chunk.buffers()[1], dtype=np.float64, count=len(chunk))
            columns.append(values.copy())
    return columns


def release_reading_memory() -> None:
    """Give back what pyarrow keeps after the last file."""
    if "pyarrow" in sys.modules:
        import pyarrow

        pyarrow.default_memory_pool().release_unused()


# -- onto the tick --------------------------------------------------------------------------------


def whole_steps(values: Floats, step: Decimal) -> Whole:
    """Decimal(repr(x)) / step, rounded half to even, of every x: exactly, without the Decimals.

    A float quotient decides all but those that are nearly a half; these few go through Decimal.
    """
    quotients = values / float(step)
    rounded = np.rint(quotients)
    near_half = np.abs(quotients - np.floor(quotients) - 0.5) < _HALF_DOUBT
    doubtful = near_half | (np.abs(quotients) > _EXACT_QUOTIENT_MAX)
    steps = np.where(doubtful, 0.0, rounded).astype(np.int64)
    for index in np.flatnonzero(doubtful).tolist():
        exact = decimal_from_float(float(values[index])) / step
        steps[index] = int(exact.to_integral_value(ROUND_HALF_EVEN))
    return steps


def decimals_needed(columns: Sequence[Floats], most: int) -> int | None:
    """The fewest decimal places that spell every value exactly; None if `most` are not enough.

    n / 10^d, correctly rounded, is the float that the decimal reads as, so equality is exact.
    """
    for places in range(most + 1):
        scale = 10.0**places
        if all((np.rint(column * scale) / scale == column).all() for column in columns):
            return places
    return None
