"""The bars that a cycle saw: named by digests in its letter, kept beside it, read back. PURE.

    market ─► strategy (through the runner) ─► digests in the letter's `inputs`
           └► the bars themselves, packed ─► archive ─► replay

A digest is over the values of a bar, not over their spelling: bars of a store that says "1.10"
where another says "1.1" have one digest.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain
from operator import attrgetter

from module.model.canonical import canonical_json, instant_text
from module.model.errors import AifapError, InvalidInput, InvariantViolated, NotFound, require
from module.model.market import Candle, Frequency
from module.model.money import parse_decimal

PACKED_VERSION = 1
PACKED_BYTES_MAX = 64 * 1024 * 1024
UNPACKED_BYTES_MAX = 512 * 1024 * 1024
CANDLES_MAX = 500_000
_COMPRESSION = 6
_SEAL_LENGTH = 64
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_opens_at = attrgetter("opens_at")
_values = attrgetter("open", "high", "low", "close", "volume")
_REFUSALS: dict[str, type[AifapError]] = {"not-found": NotFound, "invalid-input": InvalidInput}


@dataclass(frozen=True, slots=True)
class BarsAsked:
    """One request for bars of a cycle, and what it got: a digest, or the market's refusal.

    `refusal` is the error's code and `problem` its text; both empty where there were bars.
    """

    assets: tuple[str, ...]
    frequency: Frequency
    window: int
    digest: str
    refusal: str = ""
    problem: str = ""

    @property
    def label(self) -> str:
        """For people: `100 × 1m of BTCUSDT, ETHUSDT`."""
        return f"{self.window} × {self.frequency} of {', '.join(self.assets)}"


@dataclass(frozen=True, slots=True)
class BarsSeen:
    """A request and the bars that answered it (none where it was refused)."""

    asked: BarsAsked
    bars: Mapping[str, Sequence[Candle]]


def digest_bars(assets: Sequence[str], bars: Mapping[str, Sequence[Candle]]) -> str:
    """SHA-256 over the bars of `assets` in their order: opening times, and of each value the number
    that Python's documented numeric hash makes of it (61 bits, the same for every spelling).

    It is taken between the bar's arrival and the first order, so it must cost little: a number's
    hash is four times as quick as its float or its text.
    """
    summary = hashlib.sha256()
    for asset in assets:
        candles = bars[asset]
        values = list(chain.from_iterable(map(_values, candles)))
        summary.update(f"{asset} {len(candles)}\n".encode())
        summary.update(_packed(array("d", map(datetime.timestamp, map(_opens_at, candles)))))
        if any(map(Decimal.is_nan, values)):  # a NaN has no hash of its value
            summary.update(" ".join(map(str, values)).encode())
        else:
            summary.update(_packed(array("q", map(hash, values))))
    return summary.hexdigest()


def see_bars(
    assets: Sequence[str], frequency: Frequency, window: int, bars: Mapping[str, Sequence[Candle]]
) -> BarsSeen:
    """What was asked and answered, with its digest."""
    asked = BarsAsked(tuple(assets), frequency, window, digest_bars(assets, bars))
    return BarsSeen(asked, {asset: tuple(bars[asset]) for asset in assets})


def see_refusal(
    assets: Sequence[str], frequency: Frequency, window: int, error: NotFound | InvalidInput
) -> BarsSeen:
    """A request that the market refused: user code may catch that and go on."""
    return BarsSeen(BarsAsked(tuple(assets), frequency, window, "", error.code, error.message), {})


def raise_refusal(asked: BarsAsked) -> None:
    """Raise again what the market said, if it refused."""
    if asked.refusal:
        raise _REFUSALS.get(asked.refusal, InvalidInput)(asked.problem, code=asked.refusal)


def pack_bars(session_id: str, cycle: datetime, seen: Sequence[BarsSeen]) -> bytes | None:
    """The bars of a cycle in a few kilobytes, under a seal of their own; None when there are more
    than CANDLES_MAX (their digests stay in the letter).

    Layout: SHA-256 of the rest as 64 hex characters, then zlib of canonical JSON; each series is
    its opening times (ms) and five columns of decimal text.
    """
    if sum(len(series) for each in seen for series in each.bars.values()) > CANDLES_MAX:
        return None
    document = {
        "version": PACKED_VERSION,
        "session_id": session_id,
        "cycle": instant_text(cycle),
        "windows": [
            {
                "assets": list(each.asked.assets),
                "frequency": each.asked.frequency.value,
                "window": each.asked.window,
                "refusal": each.asked.refusal,
                "problem": each.asked.problem,
                "series": {name: _columns(series) for name, series in each.bars.items()},
            }
            for each in seen
        ],
    }
    body = zlib.compress(canonical_json(document).encode(), _COMPRESSION)
    return hashlib.sha256(body).hexdigest().encode() + body


def unpack_bars(content: bytes, name: str) -> tuple[BarsSeen, ...]:
    """Read what `pack_bars` wrote. InvariantViolated names `name` when one bit of it differs."""
    body = content[_SEAL_LENGTH:]
    seal = hashlib.sha256(body).hexdigest().encode()
    require(content[:_SEAL_LENGTH] == seal, f"{name} does not match its own digest: it was altered")
    try:
        inflate = zlib.decompressobj()
        text = inflate.decompress(body, UNPACKED_BYTES_MAX)
        require(inflate.eof, f"{name} is longer than {UNPACKED_BYTES_MAX} bytes when unpacked")
        document = json.loads(text)
        return tuple(_window(item) for item in document["windows"])
    except (ValueError, KeyError, TypeError, IndexError, zlib.error, InvalidInput) as error:
        raise InvariantViolated(f"{name} cannot be read: {error!r}") from error


def _columns(series: Sequence[Candle]) -> list[object]:
    columns = [" ".join(map(str, column)) for column in zip(*map(_values, series), strict=True)]
    return [[_milliseconds(each.opens_at) for each in series], *columns]


def _window(item: Mapping[str, object]) -> BarsSeen:
    assets, series = item["assets"], item["series"]
    if not isinstance(assets, list) or not isinstance(series, dict):
        raise TypeError("a window without assets or series")
    frequency = Frequency.parse(str(item["frequency"]))
    bars = {str(name): _candles(str(name), frequency, found) for name, found in series.items()}
    window, refusal = int(str(item["window"])), str(item["refusal"])
    if refusal:
        asked = BarsAsked(tuple(assets), frequency, window, "", refusal, str(item["problem"]))
        return BarsSeen(asked, {})
    return see_bars(assets, frequency, window, bars)


def _candles(symbol: str, frequency: Frequency, columns: Sequence[object]) -> tuple[Candle, ...]:
    times = columns[0]
    if not isinstance(times, list):
        raise TypeError(f"the series of {symbol} has no times")
    if not times:
        return ()
    cells = [str(column).split(" ") for column in columns[1:]]
    return tuple(
        Candle(
            symbol,
            frequency,
            _EPOCH + timedelta(milliseconds=int(opens_ms)),
            *(parse_decimal(text, name=symbol) for text in row),
        )
        for opens_ms, row in zip(times, zip(*cells, strict=True), strict=True)
    )


def _milliseconds(when: datetime) -> int:
    return (when - _EPOCH) // _MILLISECOND


def _packed(values: array[float] | array[int]) -> bytes:
    """Little-endian on every machine."""
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()
