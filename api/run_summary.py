"""The end of `aifap run`: numbers from the stored rows, held against the exchange's own ledger."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from rich.console import Console
from rich.table import Table

from api.run_view import clock_text, items, mapping, money, percent
from api.session_views import watched_shape
from module.clock import to_epoch_ms
from module.db.database import Database
from module.db.repositories.accounts import AccountRepository
from module.db.repositories.results import ResultsRepository
from module.db.repositories.session_records import SessionRecord
from module.db.repositories.sessions import SessionRepository
from module.model.canonical import instant_text
from module.model.errors import Unavailable
from module.model.market import MarketType
from module.model.money import plain
from module.model.results import PortfolioRow, SymbolRow
from module.model.sessions import SessionState
from module.ports import CycleRecord
from module.settings import Settings

CYCLES_READ_MAX = 10_000
FILLS_READ_MAX = 2_000
FLAT_DIGEST = "flat"
DIGEST_SHOWN = 16
SPOT_STOP_PREFIX = "af-stop-"


@dataclass(frozen=True, slots=True)
class _ExchangeLedger:
    """The exchange's own books: the session's account, and the digest of the whole ledger as it
    stood when the session ended. The same options give the same digest, at any speed."""

    account: Mapping[str, object]
    digest: str


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run came to; `line` is the JSON of the last line. `checks`: what was held against
    the ledger, and whether it agreed."""

    session_id: str
    state: str
    reason: str
    line: Mapping[str, object]
    checks: tuple[tuple[str, bool, str], ...]

    @property
    def good(self) -> bool:
        """The session ended as asked and every number agrees with the ledger."""
        return self.state == SessionState.ENDED and all(agrees for _, agrees, _ in self.checks)

    def print(self, console: Console) -> None:
        """A table for people, then one JSON object in one line."""
        line = self.line
        console.print(f"[bold]session {self.session_id}[/bold] {self.state}: {self.reason}")
        table = Table(box=None, show_header=False, padding=(0, 2))
        table.add_column(style="dim")
        table.add_column(justify="right")
        for name, value in (
            ("cycles", str(line["cycles"])),
            ("orders / fills", f"{line['orders']} / {line['fills']}"),
            ("PV", money(line["pv"])),
            ("net profit", money(line["netprofit"], signed=True)),
            ("ROE", percent(line["roe"], signed=True)),
            ("max drawdown", percent(line["max_drawdown"])),
            ("seconds", str(line["seconds"])),
            ("ledger", str(line["ledger"])[:DIGEST_SHOWN]),
        ):
            table.add_row(name, value)
        console.print(table)
        for text in self._words():
            console.print(text, highlight=False, soft_wrap=True)
        for name, agrees, detail in self.checks:
            mark = "[green]agrees[/green]" if agrees else "[bold red]DIFFERS[/bold red]"
            told = f"{mark} with the exchange's ledger: {name} ({detail})"
            console.print(told, highlight=False, soft_wrap=True)
        print(json.dumps(line, separators=(", ", ": ")), flush=True)

    def _words(self) -> Sequence[str]:
        """What it held after its last rebalance, and what it holds now: two different moments."""
        weights, held = mapping(self.line["weights"]), mapping(self.line["held"])
        then = ", ".join(f"{symbol} {percent(weight)}" for symbol, weight in weights.items())
        now = ", ".join(f"{symbol} {size}" for symbol, size in held.items())
        words = []
        if self.line["weights_at"] is not None:
            at = clock_text(self.line["weights_at"])
            words.append(f"after cycle {self.line['cycles']} (at {at}): {then}")
        words.append(f"at its end ({self.line['end']}): {now or 'nothing is held'}")
        return words


def summarize(settings: Settings, session_id: str, seconds: float) -> RunSummary:
    """Read everything that was stored of the session, and the exchange's ledger."""
    platform = Database(settings, "finplatform", 1)
    results = Database(settings, "finwatcher", 1)
    try:
        sessions = SessionRepository(platform)
        record = sessions.get(session_id)
        cycles = sessions.cycles(session_id, CYCLES_READ_MAX)
        key = AccountRepository(platform).get(record.account_id).key_hint
        ledger = _read_ledger(settings, key, record.ended_at)
        return _summary(record, cycles, ResultsRepository(results), ledger, seconds)
    finally:
        platform.close()
        results.close()


def _summary(
    record: SessionRecord,
    cycles: Sequence[CycleRecord],
    reader: ResultsRepository,
    ledger: _ExchangeLedger,
    seconds: float,
) -> RunSummary:
    watched = watched_shape(record)
    latest = reader.latest(watched)
    fills = reader.transactions(watched, "fill", FILLS_READ_MAX)
    slices = [part for cycle in cycles for part in _slices(cycle)]
    sent = {str(part["client_id"]) for part in slices if part.get("order_id")}
    rebalances = [c for c in cycles if (c.order_info or {}).get("strategy_digest") != FLAT_DIGEST]
    newest = max(rebalances, key=lambda cycle: cycle.boundary, default=None)
    portfolio = None if latest is None else latest[0].row
    indicators = None if latest is None else latest[2]
    measured, weights = (None, {}) if newest is None else _weights(reader, record, newest)
    line: dict[str, object] = {
        "cycles": 0 if newest is None else newest.number,
        "orders": len(sent),
        "fills": len(fills),
        "weights": weights,
        "weights_at": None if measured is None else instant_text(measured),
        "targets": {} if newest is None else _targets(newest),
        "end": record.end_state,
        "held": _held(() if latest is None else latest[1]),
        "pv": None if portfolio is None else plain(portfolio.current_pv),
        "netprofit": _plain(None if portfolio is None else portfolio.netprofit),
        "roe": None if portfolio is None else portfolio.roe,
        "max_drawdown": None if indicators is None else indicators.max_drawdown,
        "seconds": round(seconds, 1),
        "ledger": ledger.digest,
    }
    check = _check_coins if record.spec.market is MarketType.SPOT else _check_futures
    return RunSummary(
        session_id=record.session_id,
        state=record.state,
        reason=record.reason,
        line=line,
        checks=tuple(check(ledger.account, sent, len(fills), portfolio)),
    )


Check = tuple[str, bool, str]


def _check_futures(
    ledger: Mapping[str, object], sent: set[str], fills: int, stored: PortfolioRow | None
) -> list[Check]:
    checks = _check_orders(ledger, ("orders", "fills"), sent, fills)
    if not items(ledger.get("positions")) and stored is not None:
        equity = Decimal(str(mapping(ledger.get("futures")).get("accountEquity")))
        agrees = equity == stored.current_pv
        checks.append(("PV to the last decimal", agrees, f"{equity} USDT"))
    return checks


def _check_coins(
    ledger: Mapping[str, object], sent: set[str], fills: int, stored: PortfolioRow | None
) -> list[Check]:
    checks = _check_orders(ledger, ("spot_orders", "spot_fills"), sent, fills)
    rows = [mapping(item) for item in items(ledger.get("spot"))]
    money = sum((Decimal(str(r["available"])) for r in rows if r["coin"] == "USDT"), Decimal(0))
    if stored is not None:
        checks.append(("money to the last decimal", money == stored.cash, f"{money} USDT"))
    return checks


def _check_orders(
    ledger: Mapping[str, object], names: tuple[str, str], sent: set[str], fills: int
) -> list[Check]:
    """A spot stop that fired is an order too; the gateway's id says which it is."""
    ids = {str(mapping(item).get("clientOid")) for item in items(ledger.get(names[0]))}
    orders = {client_id for client_id in ids if not client_id.startswith(SPOT_STOP_PREFIX)}
    known = len(items(ledger.get(names[1])))
    return [
        ("every order is ours, none twice", orders == sent, f"{len(orders)} orders"),
        ("fills", known == fills, f"{known} fills"),
    ]


def _slices(cycle: CycleRecord) -> Sequence[Mapping[str, object]]:
    legs = items((cycle.order_info or {}).get("legs"))
    return [mapping(part) for leg in legs for part in items(mapping(leg).get("slices"))]


def _targets(cycle: CycleRecord) -> dict[str, object]:
    return {
        symbol: mapping(fields).get("weight")
        for symbol, fields in sorted((cycle.targets or {}).items())
    }


def _weights(
    reader: ResultsRepository, record: SessionRecord, cycle: CycleRecord
) -> tuple[datetime | None, dict[str, object]]:
    """The weights that were measured first after the last rebalance, and when that was."""
    watched = watched_shape(record)
    since = cycle.boundary
    for minutes in (2, 5):
        rows = reader.symbol_series(
            watched, since + timedelta(seconds=1), since + timedelta(minutes=minutes), 500
        )
        if rows:
            first = min(item.minute for item in rows)
            return first, {
                item.row.symbol: None if item.row.weight is None else round(item.row.weight, 6)
                for item in rows
                if item.minute == first
            }
    return None, {}


def _held(rows: Sequence[SymbolRow]) -> dict[str, object]:
    """What the last measured minute has of each symbol; empty when flat."""
    return {row.symbol: plain(row.size) for row in rows if row.size}


def _plain(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)


def _read_ledger(settings: Settings, key_hint: str, ended_at: datetime | None) -> _ExchangeLedger:
    """The paper exchange's own books."""
    import urllib3

    answer = urllib3.request(
        "GET",
        f"{settings.simulator_url}/control/ledger",
        fields={} if ended_at is None else {"until_ms": str(to_epoch_ms(ended_at))},
        headers={"Authorization": f"Bearer {settings.secret('control_token')}"},
        timeout=30.0,
    )
    if answer.status != 200:
        raise Unavailable(f"the paper exchange's ledger answered {answer.status}")
    document = answer.json()
    for account in items(document.get("accounts")):
        if str(mapping(account).get("api_key", "")).endswith(key_hint[-4:]):
            return _ExchangeLedger(mapping(account), str(document.get("digest")))
    raise Unavailable("the paper exchange's ledger does not have the session's account")
