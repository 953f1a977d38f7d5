"""Tells a session its own coins on a spot account; a futures account is its own as it is.

    snapshot ─► OwnCoins.of ─► the snapshot with the session's own coins alone, at what they cost
                   └─ fills since the last look; at the start, the newest archived cycle

The strategy process plans by it and the leader leaves flat by it, so that both touch the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta

from module.model.accounts import AccountSnapshot
from module.model.errors import InvariantViolated
from module.model.market import MarketType
from module.model.orders import Fill
from module.model.sealed import stamp_of
from module.model.sessions import SessionSpec
from module.ports import Exchange, OrderInfoStore
from trading.ledger.ledger import Ledger, book_fills
from trading.rebalance.coins import own_coins, taken_over, unpriced_coins
from trading.rebalance.decision import CycleInputs

ARCHIVE_LOOK = 20
OVERLAP = timedelta(minutes=2)


class OwnCoins:
    """The coins of one session, from look to look. Not thread safe: one process's own."""

    def __init__(self, spec: SessionSpec, exchange: Exchange, store: OrderInfoStore | None) -> None:
        """Without a `store` nothing is remembered of an earlier process but what fills tell."""
        self._spec = spec
        self._exchange = exchange
        self._store = store
        self._ledger: Ledger | None = None
        self._from = spec.started_at
        self._newest = spec.started_at

    def of(self, snapshot: AccountSnapshot, named: Collection[str] = ()) -> AccountSnapshot:
        """`snapshot` with only the coins that the session may touch; `named` ones become its.

        A coin of the session's that has no price now is still there, at a mark of zero and wholly
        locked. Its equity is still the whole account's. Raises what reading fills raises.
        """
        if self._spec.market is not MarketType.SPOT:
            return snapshot
        if self._ledger is None:
            self._ledger = self._recall()
        ledger = book_fills(self._ledger, self._fresh_fills())
        adopted = named
        if self._spec.adopt_existing:
            adopted = {position.symbol for position in snapshot.positions}
        priced = own_coins(snapshot.positions, ledger, adopted)
        unpriced = unpriced_coins(snapshot.balances, snapshot.positions, ledger)
        positions = priced + unpriced
        self._ledger = taken_over(ledger, positions)
        return replace(snapshot, positions=positions)

    def _recall(self) -> Ledger:
        """As the newest cycle with a plan knew it; what was filled since is read afterwards."""
        archived = self._store.archived(ARCHIVE_LOOK) if self._store else ()
        for document in sorted(archived, key=stamp_of, reverse=True):
            inputs = document.get("inputs")
            if not isinstance(inputs, Mapping) or not inputs:
                continue
            try:
                account = CycleInputs.from_json(inputs).account
            except InvariantViolated:
                continue  # of another build: an older one may do, else fills tell
            self._from = self._newest = account.at
            return taken_over(Ledger(), account.positions)
        return Ledger()

    def _fresh_fills(self) -> list[Fill]:
        """Executions since a little before the newest known one: exchanges publish late (B3), and
        the ledger counts each once."""
        since = max(self._from, self._newest - OVERLAP)
        fills = [fill for fill in self._exchange.fills(since) if fill.at > self._from]
        self._newest = max([self._newest, *(fill.at for fill in fills)])
        return fills
