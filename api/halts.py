"""The kill switch as a command: stop beats trade, and says when it is true (I22, O8).

    halt ─► limits of the accounts, with its audit row ─► what was under way is waited for ─► answer
                     │
                     └─► one alert per account that was not halted before

The answer comes when every opening order that was on record before has an outcome: from then on no
opening order is accepted by the exchange. What has none within `WAIT_S` is named. Reducing orders
and stops leave as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from api.commands import CommandAnswer
from module.alerts.outbox import AlertOutbox, configured_channels
from module.db.repositories.alerts import AlertRepository
from module.db.repositories.audit import AuditEntry
from module.db.repositories.halts import HaltedAccount, HaltRepository
from module.db.repositories.users import Role, UserRecord
from module.model.errors import Forbidden, NotFound, Unavailable
from module.ports import Alert, AlertSink, Clock
from module.settings import Settings

WAIT_S: Final = 5.0
LOOK_PAUSE_S: Final = 0.01
UNDER_WAY_SINCE: Final = timedelta(minutes=10)
REASON_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class HaltPorts:
    """What a halt touches: the accounts' rows, people, time."""

    halts: HaltRepository
    alerts: AlertSink
    clock: Clock


@dataclass(frozen=True, slots=True)
class HaltWish:
    """Which accounts: one, all of the installation's (a supervisor's word), or all of one's own
    (`own_ids`)."""

    account_id: str | None
    everything: bool
    own_ids: Sequence[str]
    reason: str = ""

    def account_ids(self, user: UserRecord) -> Sequence[str] | None:
        """None: all there are. Forbidden, NotFound: not this user's to stop."""
        is_supervisor = user.role is Role.SUPERVISOR
        if self.everything:
            if not is_supervisor:
                raise Forbidden("only a supervisor may name all accounts; leave it out for yours")
            return None
        if self.account_id is None:
            return self.own_ids
        if self.account_id not in self.own_ids and not is_supervisor:
            raise NotFound(f"there is no account {self.account_id[:64]!r}")
        return [self.account_id]


def halt_ports(
    settings: Settings, halts: HaltRepository, store: AlertRepository, clock: Clock
) -> HaltPorts:
    """The ports of this process; alerts go to the installation's outbox."""
    outbox = AlertOutbox(store, settings.data_dir, configured_channels(settings), clock)
    return HaltPorts(halts, outbox, clock)


def halt(ports: HaltPorts, user: UserRecord, wish: HaltWish) -> CommandAnswer:
    """Open nothing more. Unavailable: nothing was recorded, so ask again.

    Repeating is harmless, also from several places at once.
    """
    began_s = ports.clock.monotonic()
    account_ids = wish.account_ids(user)
    found = ports.halts.halt(
        account_ids,
        reason=wish.reason,
        by=user.user_id,
        at=ports.clock.now(),
        audit=_audit(ports, user, "halt", wish),
    )
    _require_found(wish, found)
    recorded_ms = (ports.clock.monotonic() - began_s) * 1000
    under_way = _wait(ports, [item.account_id for item in found])
    for item in found:
        if not item.was_halted:
            _tell(ports, user, item)
    left = sum(len(ids) for ids in under_way.values())
    message = f"{_accounts(len(found))} nothing more; reductions and stops still leave"
    if not found:
        message = "you have no active account: there was nothing to halt"
    if left:
        message += f"; {left} orders that left before have no outcome yet"
    return CommandAnswer(
        200,
        {
            "message": message,
            "accounts": [_view(item) for item in found],
            "under_way": {account_id: list(ids) for account_id, ids in under_way.items()},
            "settled": left == 0,
            "recorded_ms": round(recorded_ms, 1),
            "took_ms": round((ports.clock.monotonic() - began_s) * 1000, 1),
        },
    )


def resume(ports: HaltPorts, user: UserRecord, wish: HaltWish) -> CommandAnswer:
    """Let them open again; holds from the next order on."""
    account_ids = wish.account_ids(user)
    found = ports.halts.resume(account_ids, audit=_audit(ports, user, "resume", wish))
    _require_found(wish, found)
    lifted = [item for item in found if item.was_halted]
    return CommandAnswer(
        200,
        {
            "message": _lifted(len(lifted), len(found)),
            "accounts": [_view(item) for item in found],
        },
    )


def _accounts(count: int) -> str:
    return "1 account opens" if count == 1 else f"{count} accounts open"


def _lifted(lifted: int, found: int) -> str:
    if not lifted:
        return "nothing was halted: there is nothing to lift" if found else "you have no account"
    return "1 account may open again" if lifted == 1 else f"{lifted} accounts may open again"


def _wait(ports: HaltPorts, account_ids: Sequence[str]) -> dict[str, list[str]]:
    """Until what was on record has an outcome, bounded in real time; what has none."""
    since = ports.clock.now() - UNDER_WAY_SINCE
    until_s = ports.clock.monotonic() + WAIT_S
    while True:
        try:
            left = ports.halts.under_way(account_ids, since)
        except Unavailable:
            return {account_id: ["not known: Postgres went away"] for account_id in account_ids}
        if not left or ports.clock.monotonic() >= until_s:
            return left
        ports.clock.pause(LOOK_PAUSE_S)


def _require_found(wish: HaltWish, found: Sequence[HaltedAccount]) -> None:
    if wish.account_id is not None and not found:
        raise NotFound(f"there is no active account {wish.account_id[:64]!r}")


def _audit(ports: HaltPorts, user: UserRecord, action: str, wish: HaltWish) -> AuditEntry:
    subject = "all accounts" if wish.everything else wish.account_id or "own accounts"
    detail = {"reason": wish.reason} if wish.reason else {}
    return AuditEntry(user.user_id, action, subject, ports.clock.wall(), detail)


def _tell(ports: HaltPorts, user: UserRecord, item: HaltedAccount) -> None:
    ports.alerts.notify(
        Alert(
            kind="halted",
            severity="critical",
            title="The kill switch is on: nothing opens",
            lines=(
                ("account", item.label),
                ("by", user.name),
                ("why", item.reason or "not said"),
                ("what now", "reductions and stops still leave; aifap resume lifts it"),
            ),
            cause=f"kill-switch:{item.account_id}",
            session_id=None,
            owner_id=item.owner_id,
            at=ports.clock.now(),
        )
    )


def _view(item: HaltedAccount) -> dict[str, object]:
    return {
        "account_id": item.account_id,
        "label": item.label,
        "was_halted": item.was_halted,
        "reason": item.reason,
    }
