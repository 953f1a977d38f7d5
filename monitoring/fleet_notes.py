"""What one pass leaves to the next one, so that it need not ask for it again.

    pass ── Notes, in the stored state of each session ─► finwatcher_state ─► next pass

A session's history as it was counted (instead of sums over all its rows), what its account looked
like when history was last asked for, and up to which minute nothing is missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Final, cast

from module.model.accounts import AccountSnapshot
from module.model.canonical import parse_instant
from module.model.errors import InvariantViolated
from module.model.results import (
    OpenLot,
    StoredHistory,
    SymbolTotals,
    TradeSums,
    TransactionRow,
)
from monitoring.spool import read_plain, spell_plain

MEMBER: Final = "fleet"
ASK_AGAIN_AFTER = timedelta(minutes=5)
"""History of an account that looks the same is asked for this often nevertheless."""
SETTLES_IN = timedelta(minutes=1)
"""So long after a change it is asked for every minute: exchanges publish late."""


@dataclass(frozen=True, slots=True)
class Notes:
    """Of one session. `history` None: its stored rows are summed up. `mark` is the account's look
    at `changed_at`, the first minute it was seen so; `asked_at` is when history was last asked for
    and answered."""

    history: StoredHistory | None
    mark: str
    changed_at: datetime
    asked_at: datetime

    def is_quiet(self, mark: str, minute: datetime) -> bool:
        """Whether history need not be asked for now.

        A fill changes a position's size or entry price or a coin's balance, and any movement of
        money changes the wallet. What cancels out within a minute, or is published late, is seen
        when it is asked for again: from OVERLAP before the newest item that is known, so that
        asking less often loses nothing.
        """
        return (
            mark == self.mark
            and minute - self.changed_at > SETTLES_IN
            and timedelta(0) <= minute - self.asked_at < ASK_AGAIN_AFTER
        )


def mark_of(snapshot: AccountSnapshot) -> str:
    """A digest of what no fill, fee, funding or transfer leaves as it was."""
    parts = [str(snapshot.wallet_balance) if not snapshot.balances else ""]
    parts += sorted(
        f"{item.symbol} {item.size} {item.entry_price if not snapshot.balances else ''}"
        for item in snapshot.positions
    )
    parts += sorted(f"{item.asset} {item.free + item.locked}" for item in snapshot.balances)
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=12).hexdigest()


def to_document(notes: Notes) -> dict[str, object]:
    """Plain JSON."""
    return {
        "shape": _shape(),
        "mark": notes.mark,
        "changed_at": notes.changed_at.isoformat(),
        "asked_at": notes.asked_at.isoformat(),
        "history": None if notes.history is None else _history_document(notes.history),
    }


def from_document(document: object) -> Notes | None:
    """What `to_document` wrote; None when it is another shape or not that at all."""
    if not isinstance(document, Mapping) or document.get("shape") != _shape():
        return None
    try:
        history = document["history"]
        return Notes(
            history=None if history is None else _history(history),
            mark=str(document["mark"]),
            changed_at=parse_instant(str(document["changed_at"])),
            asked_at=parse_instant(str(document["asked_at"])),
        )
    except (KeyError, ValueError, TypeError, ArithmeticError, InvariantViolated):
        return None


@cache
def _shape() -> str:
    """Changes when the history's rows do: sums of another meaning are not gone on from."""
    kinds = (StoredHistory, SymbolTotals, TradeSums, TransactionRow, OpenLot)
    names = ";".join(
        f"{kind.__name__}:{','.join(field.name for field in dataclasses.fields(kind))}"
        for kind in kinds
    )
    return hashlib.blake2b(names.encode(), digest_size=6).hexdigest()


def _history_document(stored: StoredHistory) -> dict[str, object]:
    return {
        "by_symbol": {name: spell_plain(totals) for name, totals in stored.by_symbol.items()},
        "net_transfers": str(stored.net_transfers),
        "sums": spell_plain(stored.sums),
        "fill_at": spell_plain(stored.fill_at),
        "bill_at": spell_plain(stored.bill_at),
        "position_closed_at": spell_plain(stored.position_closed_at),
        "recent": sorted(stored.recent),
        "open_fills": [spell_plain(row) for row in stored.open_fills],
        "lots": spell_plain(stored.lots),
        "ended": {symbol: spell_plain(at) for symbol, at in stored.ended.items()},
    }


def _history(document: Mapping[str, object]) -> StoredHistory:
    by_symbol, recent, fills = (
        document["by_symbol"],
        document["recent"],
        document["open_fills"],
    )
    if not isinstance(by_symbol, Mapping) or not isinstance(recent, list):
        raise TypeError("not a history")
    lots, ended = document["lots"], document["ended"]
    if not isinstance(fills, list) or not isinstance(ended, Mapping):
        raise TypeError("not a history")
    if lots is not None and not isinstance(lots, list):
        raise TypeError("not a history")
    return StoredHistory(
        by_symbol={
            str(name): cast(SymbolTotals, read_plain(SymbolTotals, totals))
            for name, totals in by_symbol.items()
        },
        net_transfers=Decimal(str(document["net_transfers"])),
        sums=cast(TradeSums, read_plain(TradeSums, document["sums"])),
        fill_at=_instant(document["fill_at"]),
        bill_at=_instant(document["bill_at"]),
        position_closed_at=_instant(document["position_closed_at"]),
        recent=frozenset(str(key) for key in recent),
        open_fills=tuple(cast(TransactionRow, read_plain(TransactionRow, row)) for row in fills),
        lots=None
        if lots is None
        else tuple(cast(OpenLot, read_plain(OpenLot, lot)) for lot in lots),
        ended={str(symbol): parse_instant(str(at)) for symbol, at in ended.items()},
    )


def _instant(value: object) -> datetime | None:
    return None if value is None else parse_instant(str(value))
