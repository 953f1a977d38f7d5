"""The kill switch of accounts: set, lifted, and what was on its way when it was set.

A halt lives in the account's limits, which the order path reads under a lock of the account's row:
setting it waits for every batch that is being put on record, and each later one sees it (I22). What
was on record before may still be on the wire; `under_way` names it until its outcome is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.platform_tables import Account
from module.db.repositories.audit import AuditEntry, add_audit
from module.model.canonical import instant_text

KILL_SWITCH: Final = "kill_switch"
HALT_REASON: Final = "halt_reason"
HALTED_AT: Final = "halted_at"
HALT_KEYS: Final = (KILL_SWITCH, HALT_REASON, HALTED_AT, "halted_by")

# Of the newest rows alone: what left long ago is not under way.
_UNDER_WAY: Final = """
SELECT account_id, client_id FROM gateway_writes
WHERE write_id > (SELECT coalesce(max(write_id), 0) FROM gateway_writes) - %(rows_max)s
  AND account_id = ANY(%(account_ids)s) AND kind = 'order' AND outcome IS NULL
  AND sent_at >= %(since)s AND NOT (request #>> '{order,reduce_only}')::boolean
ORDER BY write_id
"""
_UNDER_WAY_ROWS_MAX: Final = 5000


@dataclass(frozen=True, slots=True)
class HaltedAccount:
    """One account that a command named. `was_halted`: it had been before the command."""

    account_id: str
    owner_id: str
    label: str
    was_halted: bool
    reason: str


_Change = Callable[[Account], HaltedAccount]


class HaltRepository:
    """Halts in `accounts.limits`; each command leaves its audit row in the same transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def halt(
        self,
        account_ids: Sequence[str] | None,
        *,
        reason: str,
        by: str,
        at: datetime,
        audit: AuditEntry,
    ) -> list[HaltedAccount]:
        """Open nothing more on these active accounts (None: on all); what they are after it.

        When this returns, every opening order is refused that is not on record yet. Repeating is
        harmless: the first reason stays, unless another is given.
        """

        def set_halt(row: Account) -> HaltedAccount:
            known = dict(row.limits or {})
            was_halted = known.get(KILL_SWITCH) is True
            said = reason or (str(known.get(HALT_REASON, "")) if was_halted else "")
            if not was_halted or reason:
                row.limits = {
                    **known,
                    KILL_SWITCH: True,
                    HALT_REASON: said,
                    HALTED_AT: instant_text(at),
                    "halted_by": by,
                }
            return HaltedAccount(row.account_id, row.owner_id, row.label, was_halted, said)

        return self._each(account_ids, set_halt, audit)

    def resume(
        self, account_ids: Sequence[str] | None, *, audit: AuditEntry
    ) -> list[HaltedAccount]:
        """Let these accounts open again; `was_halted` says which of them had been halted."""

        def lift(row: Account) -> HaltedAccount:
            known = dict(row.limits or {})
            was_halted = known.get(KILL_SWITCH) is True
            said = str(known.get(HALT_REASON, ""))
            row.limits = {name: cap for name, cap in known.items() if name not in HALT_KEYS}
            return HaltedAccount(row.account_id, row.owner_id, row.label, was_halted, said)

        return self._each(account_ids, lift, audit)

    def under_way(self, account_ids: Sequence[str], since: datetime) -> dict[str, list[str]]:
        """Client ids, by account, of opening orders that were put on record from `since` (world
        time) on and whose outcome is not known yet."""
        found: dict[str, list[str]] = {}
        values = {
            "account_ids": list(account_ids),
            "since": since,
            "rows_max": _UNDER_WAY_ROWS_MAX,
        }
        for account_id, client_id in self._database.express.run(_UNDER_WAY, values):
            found.setdefault(str(account_id), []).append(str(client_id))
        return found

    def _each(
        self,
        account_ids: Sequence[str] | None,
        change: _Change,
        audit: AuditEntry,
    ) -> list[HaltedAccount]:
        query = select(Account).where(Account.active).order_by(Account.account_id)
        if account_ids is not None:
            query = query.where(Account.account_id.in_(account_ids))

        def work(session: Session) -> list[HaltedAccount]:
            rows = session.scalars(query.with_for_update()).all()
            changed = [change(row) for row in rows]
            add_audit(session, audit)
            return changed

        return self._database.run_idempotent(work)


def limits_with_halt(
    known: Mapping[str, object], wanted: Mapping[str, object]
) -> dict[str, object]:
    """`wanted` as the account's new limits: what `halt` set stays, unless they name the switch."""
    if KILL_SWITCH in wanted or HALTED_AT not in known:
        return dict(wanted)
    return {**wanted, **{name: known[name] for name in HALT_KEYS if name in known}}
