"""What goes wrong with market data, numbers and time: group C of the fault catalogue.

    exchange's tickers ─► DataFaults.edit_answer(path, body) ─► production venue (quotes)
    exchange's bars    ─► DataFaults.market(bars, clock)     ─► strategy process (windows)
    the day's strategy ─► DataFaults.strategy(function)      ─► weights (C9)

Each fault has its id and time, and is counted when an answer was really another one for it. Steps
of the clock and pauses (C7, C8) are strokes on the world: see `fault_strokes`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from module.model.errors import NotYet
from module.model.market import Candle, Frequency
from module.ports import Clock, MarketData

TICKERS: Final = "/api/v2/mix/market/tickers"
SPOT_TICKERS: Final = "/api/v2/spot/market/tickers"
PRICES: Final = ("lastPr", "askPr", "bidPr", "markPrice", "indexPrice")
LATE_PATIENCE_S: Final = 5.0
"""How long the market service's client waits for a bar before it says that it is not there yet."""
DATA_FAULTS: Final[Mapping[str, tuple[str, ...]]] = {
    "C1": ("NaN", "Infinity", "0", "-61000.5", "1e308", "missing", "text"),
    "C2": ("fresh time", "old time"),
    "C3": ("spike",),
    "C4": ("crossed", "empty"),
    "C5": ("gap", "late", "short"),
    "C9": ("a hair above one", "half as much again", "float digits", "minus nothing"),
}
"""Variants by id. C5: a bar is missing in the middle, the last one is late, the window is short."""
STRATEGY = Callable[[datetime, MarketData], Mapping[str, Mapping[str, str]]]
Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class DataFault:
    """One thing that is wrong with data from `at` on, for `seconds`. `symbol` None: all of them."""

    fault_id: str
    variant: str
    at: datetime
    seconds: float
    symbol: str | None = None
    factor: Decimal = Decimal(10)

    def holds(self, now: datetime) -> bool:
        """Whether it is on."""
        return self.at <= now < self.at + timedelta(seconds=self.seconds)


class DataFaults:
    """The data faults of one day. `now` is true time; `hits` counts what changed an answer."""

    def __init__(
        self,
        now: Callable[[], datetime],
        faults: Iterable[DataFault] = (),
        hits: Counter[str] | None = None,
    ) -> None:
        self._now = now
        self._faults = sorted(faults, key=lambda fault: fault.at)
        self._counted: set[DataFault] = set()
        self._frozen: dict[tuple[DataFault, str], Row] = {}
        self.hits: Counter[str] = Counter() if hits is None else hits

    def arm(self, faults: Iterable[DataFault]) -> None:
        """These too."""
        self._faults = sorted([*self._faults, *faults], key=lambda fault: fault.at)

    def on(self, *fault_ids: str) -> list[DataFault]:
        """Faults of these ids that hold now."""
        now = self._now()
        found: list[DataFault] = []
        for fault in self._faults:
            if fault.at > now:
                break
            if fault.fault_id in fault_ids and fault.holds(now):
                found.append(fault)
        return found

    def _count(self, fault: DataFault) -> None:
        """Once per fault, however many answers it changes."""
        if fault not in self._counted:
            self._counted.add(fault)
            self.hits[fault.fault_id] += 1

    # --- quotes ---------------------------------------------------------------------------------

    def edit_answer(self, path: str, body: str) -> str:
        """The exchange's answer as it arrives; only a list of tickers is ever changed."""
        if path not in (TICKERS, SPOT_TICKERS):
            return body
        faults = self.on("C1", "C2", "C3", "C4")
        if not faults:
            return body
        try:
            document = json.loads(body)
        except ValueError:
            return body  # another fault has had it already
        rows = document.get("data") if isinstance(document, dict) else None
        if not isinstance(rows, list):
            return body
        changed = False
        for fault in faults:
            for row in rows:
                if isinstance(row, dict) and fault.symbol in (None, row.get("symbol")):
                    changed |= self._edit_row(fault, row)
        return json.dumps(document) if changed else body

    def _edit_row(self, fault: DataFault, row: Row) -> bool:
        before = dict(row)
        if fault.fault_id == "C1":
            for name in PRICES:
                if fault.variant == "missing":
                    row.pop(name, None)
                else:
                    row[name] = "soon" if fault.variant == "text" else fault.variant
        elif fault.fault_id == "C2":
            frozen = self._frozen.setdefault((fault, str(row.get("symbol"))), before)
            row.update({name: frozen[name] for name in PRICES if name in frozen})
            if fault.variant == "old time" and "ts" in frozen:
                row["ts"] = frozen["ts"]
        elif fault.fault_id == "C3":
            for name in {"lastPr", "askPr", "bidPr", "markPrice"} & row.keys():
                row[name] = str(Decimal(str(row[name])) * fault.factor)
        elif fault.variant == "crossed":
            row["askPr"], row["bidPr"] = (
                row.get("bidPr"),
                str(Decimal(str(row["askPr"])) * Decimal("1.001")),
            )
        else:
            row["askPr"] = row["bidPr"] = ""
        if row == before:
            return False
        self._count(fault)
        return True

    # --- bars -----------------------------------------------------------------------------------

    def market(self, bars: MarketData, clock: Clock) -> MarketData:
        """`bars` as a strategy process meets them."""
        return _FaultyBars(self, bars, clock)

    # --- weights --------------------------------------------------------------------------------

    def strategy(self, function: STRATEGY) -> STRATEGY:
        """`function`, whose numbers are not always what it meant them to be (C9)."""

        def uneven(at: datetime, market: MarketData) -> Mapping[str, Mapping[str, str]]:
            targets = function(at, market)
            for fault in self.on("C9"):
                changed = uneven_weights(targets, fault.variant)
                if changed != targets:
                    self._count(fault)
                    targets = changed
            return targets

        return uneven


class _FaultyBars:
    """`MarketData` with gaps, late bars and short windows: what the port's contract allows."""

    def __init__(self, faults: DataFaults, bars: MarketData, clock: Clock) -> None:
        self._faults = faults
        self._bars = bars
        self._clock = clock

    def closed_bars(
        self, symbols: Sequence[str], frequency: Frequency, window: int, end: datetime
    ) -> Mapping[str, Sequence[Candle]]:
        """As the port says; NotYet while the bar that closes at `end` is late."""
        late = [fault for fault in self._faults.on("C5") if fault.variant == "late"]
        if late:
            self._faults._count(late[0])
            self._clock.sleep(LATE_PATIENCE_S)
            if late[0].holds(self._faults._now()):
                raise NotYet(f"the bar that closes at {end:%H:%M} is not there yet; ask again")
        found = dict(self._bars.closed_bars(symbols, frequency, window, end))
        for fault in self._faults.on("C5"):
            for symbol, series in found.items():
                if fault.symbol in (None, symbol):
                    found[symbol] = self._with_gap(fault, series)
        return found

    def _with_gap(self, fault: DataFault, series: Sequence[Candle]) -> Sequence[Candle]:
        kept = list(series)
        if fault.variant == "gap" and len(kept) > 1:
            del kept[len(kept) // 2 - 1]
        elif fault.variant == "short" and kept:
            kept = kept[-1:]
        if len(kept) != len(series):
            self._faults._count(fault)
        return kept


def uneven_weights(
    targets: Mapping[str, Mapping[str, str]], variant: str
) -> dict[str, dict[str, str]]:
    """The same targets with weights whose sum, digits or sign are not what they should be."""
    changed = {symbol: dict(fields) for symbol, fields in targets.items()}
    weights = {symbol: Decimal(fields["weight"]) for symbol, fields in changed.items()}
    gross = sum((abs(weight) for weight in weights.values()), Decimal(0))
    if not gross:
        return changed
    factors = {
        "a hair above one": (1 + Decimal("5e-10")) / gross,
        "half as much again": Decimal("1.5") / gross,
        "float digits": Decimal(1),
        "minus nothing": Decimal(1),
    }
    for symbol, weight in weights.items():
        scaled = weight * factors[variant]
        if variant == "float digits":
            scaled = Decimal(repr(float(weight) / 3 * 3 + 1e-17))
        changed[symbol]["weight"] = str(scaled)
    if variant == "minus nothing":
        changed[min(changed)]["weight"] = "-0.0"
    return changed
