"""How far did an order come? The record that is made before anything leaves answers.

    session: not at the exchange ─► row of the client id ─► refused, or never on record ─► never
                                                        ├─► accepted                    ─► taken
                                                        └─► on record, no end known     ─► left
    no row, or one of what was not sent: it is ruled out from now on, nothing can leave under it

The last gate looks at the clock after a request has its signature, and the exchange takes a request
only for a while after the time that it was signed with. So nothing arrives later than `not_after`
and that while (`Venue.takes_late_s`), even from a process that stood still in between.

A database that takes over can have forgotten the last seconds of the record. Where there is no row,
"never" is said at once only by the process that has owned the account since before the order could
leave and knows nothing of it; another one says how long to look for it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from module.db.repositories.gateway_writes import (
    KnownWrite,
    WriteEntry,
    WriteKind,
    WriteOutcome,
)
from module.gateway.account_desk import AccountDesk
from module.gateway.owned_account import OwnedAccount
from module.gateway.settings_path import CLIENT_ID, WITHOUT_POSTGRES, stamp_document
from module.model.canonical import parse_instant
from module.model.errors import InvalidInput, StaleWriter, Unavailable
from module.model.orders import RULED_OUT, MissingOrder, OrderTrace, Passage, WriteStamp

CLOCKS_DIFFER: Final = timedelta(seconds=5)
"""What clocks may differ by, and what the exchange's index of orders may lag."""
ORDER_LIFE_MAX: Final = timedelta(seconds=60)
"""No order is on its way to this gateway for longer before its `not_after`."""


class Tracer:
    """Answers for all accounts of a desk. Thread safe."""

    def __init__(self, desk: AccountDesk) -> None:
        self._desk = desk

    def rule_out(self, owned: OwnedAccount, stamp: WriteStamp, missing: MissingOrder) -> OrderTrace:
        """See `ports.Exchange.rule_out`; Unavailable while Postgres does not have the record."""
        if not CLIENT_ID.match(missing.client_id):
            raise InvalidInput(f"not a client id: {missing.client_id[:40]!r}")
        desk = self._desk
        permission = desk.permit(owned, stamp)
        desk.audit.flush()
        if not permission.audited or desk.audit.waiting:
            raise Unavailable(WITHOUT_POSTGRES)
        entry = WriteEntry(
            WriteKind.ORDER, missing.symbol, stamp_document(stamp), missing.client_id
        )
        try:
            row = desk.audit.writes.rule_out(permission.author, entry, desk.clock.now())
        except (Unavailable, StaleWriter) as error:
            desk.fenced(owned, error)
            raise
        return self._told(owned, missing, row)

    def _told(self, owned: OwnedAccount, missing: MissingOrder, row: KnownWrite) -> OrderTrace:
        client_id = missing.client_id
        if row.outcome is WriteOutcome.ACCEPTED:
            number = row.answer.get("order_id")
            return OrderTrace(
                client_id,
                Passage.TAKEN,
                detail="the exchange has accepted it",
                order_id=None if number is None else str(number),
            )
        if row.outcome is WriteOutcome.REJECTED:
            code, message = row.answer.get("code"), row.answer.get("message")
            told = None if code is None else str(code)
            return OrderTrace(client_id, Passage.NEVER, None, told, f"refused: {message}")
        late = timedelta(seconds=owned.venue.takes_late_s) + CLOCKS_DIFFER
        if row.outcome is not WriteOutcome.RULED_OUT:
            detail = "it was handed over, and its end is not known"
            return OrderTrace(client_id, Passage.LEFT, _left_by(missing, row) + late, None, detail)
        if client_id in owned.sent:
            detail = "it was handed over, and the record of it is lost"
            return OrderTrace(client_id, Passage.LEFT, missing.not_after + late, None, detail)
        since = owned.owned_since
        if since is not None and since <= missing.not_after - ORDER_LIFE_MAX:
            return OrderTrace(client_id, Passage.NEVER, None, RULED_OUT, "it never left")
        detail = "it is not on record, but another process owned the account then"
        # What reduces may have left without a row, by a process that stands still since.
        arrives_by = missing.not_after + (late if missing.reduce_only else CLOCKS_DIFFER)
        return OrderTrace(client_id, Passage.LEFT, arrives_by, None, detail)


def _left_by(missing: MissingOrder, row: KnownWrite) -> datetime:
    """When it was signed at the latest: before its deadline, and before its end was looked for."""
    recorded = row.request.get("not_after")
    latest = missing.not_after
    if isinstance(recorded, str):
        latest = max(latest, parse_instant(recorded))
    if row.outcome is None or row.answered_at is None or "late_id" in row.request:
        return latest
    return min(latest, row.answered_at)
