"""Keeps promise 2 for every account this gateway owns, whether or not a session lives.

    positions and their stops, read back ─► compared with what is wanted ─► upsert, remove, or,
    where the market is already beyond the stop, close the position reduce-only at market

`PositionGuard` is one look at one account, and a session's own wish; `stop_keeper.py` reads and
writes the stops; `unresolved_writes.py` asks for what is unknown; `protection_loop.py` is the
thread that looks again and again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from module.db.circuit import hurried
from module.db.repositories.gateway_writes import WriteEntry, WriteKind
from module.db.repositories.wanted_stops import WantedStops
from module.exchange.agreement import passed
from module.exchange.venue import (
    Ability,
    NoPosition,
    PlacedStop,
    Priority,
    WrongSideOfPrice,
    answered_within,
)
from module.gateway.account_desk import AccountDesk, Permission
from module.gateway.alarms import Alarms
from module.gateway.guard_writes import (
    GUARD_SESSION,
    AuditedWrite,
    EmergencyClose,
    position_key,
)
from module.gateway.order_path import OrderPath
from module.gateway.outside_changes import OutsideChanges
from module.gateway.owned_account import OwnedAccount
from module.gateway.quiet_log import QuietLog
from module.gateway.stop_keeper import Held, StopKeeper, check_ticks, is_orphan, moved_to_tick
from module.gateway.unprotected_times import UnprotectedTimes
from module.gateway.unresolved_writes import UnresolvedWrites
from module.model.accounts import Position
from module.model.errors import (
    AifapError,
    InvalidInput,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    Retryable,
    Unavailable,
)
from module.model.money import plain
from module.model.orders import StopPrices, WriteStamp
from module.points import reach
from module.wire.model_codec import to_document

log = logging.getLogger(__name__)

PARTICIPANT: Final = "gateway:protection"
WANTED_GRACE = timedelta(seconds=10)
BARE_MAX = timedelta(seconds=30)
PROFIT_AGAIN = timedelta(seconds=30)
"""A take profit that was refused for BARE_MAX is tried again so much later, not at every look."""
PATIENCE_S = 3.0
"""So long a look waits for one answer: what is unknown then is seen by the next look."""
POSTGRES_PATIENCE_S: Final = 2.5
"""So long a look waits for Postgres altogether: what that does not take in time is spooled."""
_Bare = tuple[str, str, bool]
"""Account, symbol, whether it is long: a coin has no opening time, its wish is said again."""
CLOSES_WAIT_S: Final = 1.0
"""So long closes wait for stops of other positions to be placed; then they have their turn."""


@dataclass(frozen=True, slots=True)
class _Closing:
    """What cannot be protected as it is wanted, and why."""

    position: Position
    wanted: WantedStops
    why: str


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at an account found: is anything open, is every wanted stop in place.

    `room_in_s`: the request budget ended before all stops were; so long until it has room again.
    """

    open: bool
    unprotected: tuple[str, ...]
    room_in_s: float | None = None


class PositionGuard:
    """Makes the stops of positions what they should be. Thread safe, one look per account."""

    def __init__(
        self, desk: AccountDesk, orders: OrderPath, installation: str, alarms: Alarms
    ) -> None:
        self._desk = desk
        self._alarms = alarms
        self._emergency = EmergencyClose(desk, installation, alarms)
        self._outside = OutsideChanges(alarms)
        self._quiet = QuietLog(log, desk.clock)
        self._keeper = StopKeeper(desk, self._quiet)
        self._unresolved = UnresolvedWrites(desk, orders)
        self._bare_since: dict[_Bare, datetime] = {}
        self._profit_refused_at: dict[_Bare, datetime] = {}
        self.unprotected_times = UnprotectedTimes()

    # --- a session's own wish --------------------------------------------------------------

    def set_stops(
        self, owned: OwnedAccount, stamp: WriteStamp, symbol: str, stops: StopPrices
    ) -> StopPrices:
        """See `ports.Exchange.set_stops`. NoPosition, WrongSideOfPrice, OutcomeUnknown."""
        if Ability.STOPS not in owned.venue.abilities:
            raise InvalidInput("this exchange has no stop orders here; start with software_stops")
        permission = self._desk.permit(owned, stamp)
        check_ticks(owned, symbol, stops)
        with owned.stops_gate(symbol):
            held = self._keeper.recall(owned, symbol) or self._keeper.read(owned).get(symbol)
            if held is None:
                raise NoPosition(f"{symbol}: there is no position to protect")
            wanted = WantedStops(
                owned.account_id, symbol, held.is_long, stops, stamp.epoch, self._desk.clock.now()
            )
            if held.has_exactly(stops):
                # Said again: its read-back had no room in the budget, or its answer was lost.
                self._desk.want_stops(owned, wanted)
                return held.position.stops
            self._set(owned, permission, held, wanted)
        found = self._keeper.read(owned).get(symbol)
        if found is None:
            raise NoPosition(f"{symbol}: the position ended meanwhile")
        return found.position.stops

    def _set(
        self, owned: OwnedAccount, permission: Permission, held: Held, wanted: WantedStops
    ) -> None:
        """Place, then want: until it is wanted the gate keeps looks from putting the old ones
        back."""
        symbol, stops = held.symbol, wanted.stops
        entry = WriteEntry(
            WriteKind.STOPS, symbol, {"stops": to_document(stops), "is_long": held.is_long}
        )
        try:
            with AuditedWrite(self._desk, owned, permission.author, entry, permission.audited):
                self._keeper.apply(owned, held, stops)
        except OutcomeUnknown:
            self._desk.want_stops(owned, wanted)
            raise
        except WrongSideOfPrice as error:
            if held.position.stops.stop_loss is None and True not in held.untidy:
                self._desk.want_stops(owned, wanted)  # the next look closes the position (B6)
            raise WrongSideOfPrice(error.message) from error  # under one code for all venues
        reach("gateway: stops set")
        self._desk.want_stops(owned, wanted)
        reach("gateway: stops wanted")

    # --- one look ----------------------------------------------------------------------------

    def look(self, owned: OwnedAccount, *, thorough: bool) -> Look:
        """Compare and mend once. `thorough` also looks for stops of positions that are gone (on
        spot, where stops are listed at every look, each look does)."""
        with hurried(POSTGRES_PATIENCE_S), answered_within(PATIENCE_S):
            try:
                found = self._look(owned, thorough=thorough)
            except AifapError:
                self._keep_periods(owned)
                raise
            if self._keep_periods(owned) and owned.relist_periods:
                self._reconcile_periods(owned)
            return found

    def _look(self, owned: OwnedAccount, *, thorough: bool) -> Look:
        abilities = owned.venue.abilities
        pending = self._unresolved.resolve(owned)
        self._desk.audit.try_flush()
        if Ability.STOPS not in abilities:
            return Look(open=pending, unprotected=())
        placed: tuple[PlacedStop, ...] = ()
        if thorough or Ability.POSITIONS not in abilities:
            placed = owned.venue.placed_stops(priority=Priority.PROTECTION)
        holdings = self._keeper.read(owned, placed)
        sizes = {symbol: held.position.size for symbol, held in holdings.items()}
        self._unresolved.compare(owned, sizes)
        if Ability.POSITIONS in abilities:
            positions = {symbol: held.position for symbol, held in holdings.items()}
            self._outside.compare(owned, positions, self._desk.clock.now())
        reach("gateway: looked")
        held_now = {position_key(owned, held.position) for held in holdings.values()}
        self.unprotected_times.gone(owned.account_id, held_now, self._desk.clock.now())
        self._forget_bare(owned, holdings)
        unprotected, room_in_s = self._mend_all(owned, holdings)
        reach("gateway: mended")
        self._remove_leftovers(owned, placed, holdings)
        if thorough:
            self._forget_gone(owned, holdings)
        is_open = bool(holdings) and Ability.POSITIONS in abilities  # coins may just lie there
        is_open = is_open or pending or bool(owned.wanted)
        return Look(is_open, tuple(unprotected), room_in_s)

    def _mend_all(
        self, owned: OwnedAccount, holdings: Mapping[str, Held]
    ) -> tuple[list[str], float | None]:
        """Symbols whose stops are not as they should be, though it was tried; see `Look`.

        Stop losses that are missing come first, of all positions; then everything else; closes of
        what cannot be protected last, so that others do not wait bare for their answers (but not
        for long where these do not come). Once the request budget has no room nothing more is
        tried.
        """
        closing: list[_Closing] = []
        try:
            return self._place_all(owned, holdings, closing)
        finally:
            self._close_all(owned, closing)

    def _place_all(
        self, owned: OwnedAccount, holdings: Mapping[str, Held], closing: list[_Closing]
    ) -> tuple[list[str], float | None]:
        """`_mend_all` but for the closes, which it leaves in `closing`."""
        first = [held for held in holdings.values() if self._lacks_loss(owned, held)]
        first.sort(key=lambda held: not self._is_beyond(owned, held))  # these are refused at once
        began_s = self._desk.clock.monotonic()
        bare = {held.symbol: held for held in first}
        left = dict(holdings)
        try:
            for held in first:
                self._close_in_time(owned, closing, began_s)
                wanted = self._wanted(owned, left.pop(held.symbol))
                if self._mend(owned, held, closing, only_loss=True):
                    del bare[held.symbol]
                    if wanted is not None:
                        left[held.symbol] = held.with_stop_loss(wanted.stops.stop_loss)
            for held in left.values():
                self._close_in_time(owned, closing, began_s)
                if not self._mend(owned, held, closing):
                    bare[held.symbol] = held
        except RateLimited as error:
            for held in bare.values():
                has_loss = held.position.stops.stop_loss is not None
                self._bare(owned, held.position, error, has_loss=has_loss)
            return list(bare), error.retry_after_s
        return list(bare), None

    def _lacks_loss(self, owned: OwnedAccount, held: Held) -> bool:
        """Whether there is no stop loss though one is wanted; its clock runs from here on."""
        wanted = self._wanted(owned, held)
        key, now = position_key(owned, held.position), self._desk.clock.now()
        is_wanted = wanted is not None and wanted.stops.stop_loss is not None
        if not is_wanted or held.position.stops.stop_loss is not None:
            self.unprotected_times.over(key, now, has_stop=is_wanted)
            return False
        self.unprotected_times.missing(key, now)
        return True

    @staticmethod
    def _wanted(owned: OwnedAccount, held: Held) -> WantedStops | None:
        with owned.lock:
            wanted = owned.wanted.get(held.symbol)
        return wanted if wanted is not None and wanted.is_long == held.is_long else None

    def _mend(
        self,
        owned: OwnedAccount,
        held: Held,
        closing: list[_Closing],
        *,
        only_loss: bool = False,
    ) -> bool:
        """Whether the position has exactly the stops it should have, mending them if not.

        `only_loss`: of what is wrong just the stop loss is mended. RateLimited is raised on.
        """
        wanted = self._wanted(owned, held)
        if wanted is None:
            return True
        if held.has_exactly(wanted.stops):
            self._protected(owned, held.position)
            return True
        gate = owned.stops_gate(held.symbol)
        if not gate.acquire(blocking=False):  # its session is setting other ones at this moment
            return held.position.stops.stop_loss is not None
        try:
            wanted = self._wanted(owned, held)  # as it is by now: an older wish is never written
            if wanted is None:
                return True
            if self._awaits_profit(owned, held, wanted):
                return False
            return self._write(owned, held, wanted, closing, only_loss=only_loss)
        finally:
            gate.release()

    def _write(
        self,
        owned: OwnedAccount,
        held: Held,
        wanted: WantedStops,
        closing: list[_Closing],
        *,
        only_loss: bool,
    ) -> bool:
        """Make the stops what is wanted; see `_mend`."""
        position = held.position
        author = self._desk.author(owned, GUARD_SESSION, owned.epoch)
        entry = WriteEntry(
            WriteKind.GUARD,
            position.symbol,
            {"wanted": to_document(wanted.stops), "found": to_document(position.stops)},
        )
        cause = f"{owned.account_id}:{position.symbol}"
        self._quiet.warning(
            f"{cause}:differs",
            f"{position.symbol}: stops are {position.stops}, wanted {wanted.stops}",
        )
        has_loss = False
        try:
            with AuditedWrite(self._desk, owned, author, entry, audited=True):
                self._keeper.apply(owned, held, wanted.stops, only_loss=True)
                has_loss = True
                if not only_loss:
                    mended = held.with_stop_loss(wanted.stops.stop_loss)
                    self._keeper.apply(owned, mended, wanted.stops)
        except WrongSideOfPrice as error:
            closing.append(_Closing(position, wanted, error.message))
            return False
        except NoPosition:
            return True
        except (Retryable, Rejected, OutcomeUnknown) as error:
            self._quiet.warning(
                f"{cause}:{error.code}",
                f"{position.symbol}: stops are not in place yet: {error.message}",
            )
            if isinstance(error, RateLimited):
                raise
            if isinstance(error, Rejected) and moved_to_tick(owned, wanted):
                return False
            if self._bare(owned, position, error, has_loss=has_loss):
                why = f"no stop for {BARE_MAX}: {error.message}"
                closing.append(_Closing(position, wanted, why))
            return False
        self._protected(owned, position)
        return True

    def _awaits_profit(self, owned: OwnedAccount, held: Held, wanted: WantedStops) -> bool:
        """Whether only its take profit is missing, which has just been refused once more."""
        refused_at = self._profit_refused_at.get((owned.account_id, held.symbol, held.is_long))
        if refused_at is None or abs(self._desk.clock.now() - refused_at) > PROFIT_AGAIN:
            return False
        return held.with_stop_loss(wanted.stops.stop_loss) == held

    def _protected(self, owned: OwnedAccount, position: Position) -> None:
        self.unprotected_times.over(position_key(owned, position), self._desk.clock.now())
        self._not_bare(owned, position.symbol, is_long=position.size > 0)

    def _not_bare(self, owned: OwnedAccount, symbol: str, *, is_long: bool) -> None:
        """It has its stop, or is gone: what was told of it is over, and the symbol may open."""
        key = (owned.account_id, symbol, is_long)
        self._profit_refused_at.pop(key, None)
        if self._bare_since.pop(key, None) is not None:
            self._alarms.over(owned, f"bare:{symbol}")
            with owned.lock:
                owned.bare.pop(symbol, None)

    def _forget_bare(self, owned: OwnedAccount, holdings: Mapping[str, Held]) -> None:
        """What is gone, or on the other side now, needs no stop any more."""
        held = {(owned.account_id, symbol, each.is_long) for symbol, each in holdings.items()}
        # A copy: the looks at other accounts, by workers of their own, write here meanwhile.
        for account_id, symbol, is_long in tuple(self._bare_since):
            if account_id == owned.account_id and (account_id, symbol, is_long) not in held:
                self._not_bare(owned, symbol, is_long=is_long)

    def _bare(
        self,
        owned: OwnedAccount,
        position: Position,
        error: Retryable | Rejected | OutcomeUnknown,
        *,
        has_loss: bool = False,
    ) -> bool:
        """Unprotected: after half a minute the position is to be closed (True); where the exchange
        takes nothing at all, or where only its take profit is missing, the symbol opens nothing and
        people are told (I2)."""
        key = (owned.account_id, position.symbol, position.size > 0)
        since = self._bare_since.setdefault(key, self._desk.clock.now())
        if self._desk.clock.now() - since <= BARE_MAX:
            return False
        if not isinstance(error, Retryable):
            if not has_loss:
                return True
            self._profit_refused_at[key] = self._desk.clock.now()
        what = "take profit" if has_loss else "stop"
        with owned.lock:
            owned.bare[position.symbol] = f"{position.symbol} has no {what}: {error.message}"
        self._alarms.tell_once(
            owned,
            "protection",
            f"{position.symbol} has no {what}, and the exchange takes none now",
            (
                ("position", plain(position.size)),
                ("why", error.message),
                ("what now", "it is tried again and again; nothing opens meanwhile"),
            ),
            cause=f"bare:{position.symbol}",
        )
        return False

    def _close_in_time(self, owned: OwnedAccount, closing: list[_Closing], began_s: float) -> None:
        if self._desk.clock.monotonic() - began_s > CLOSES_WAIT_S:
            self._close_all(owned, closing)

    def _close_all(self, owned: OwnedAccount, closing: list[_Closing]) -> None:
        """Close what is in there, and empty it. A position whose stops its session sets now, or
        has set since, is left to the next look."""
        while closing:
            item = closing.pop(0)
            gate = owned.stops_gate(item.position.symbol)
            if not gate.acquire(blocking=False):
                continue
            try:
                with owned.lock:
                    is_still_wanted = owned.wanted.get(item.position.symbol) is item.wanted
                if is_still_wanted:
                    self._close(owned, item.position, item.why)
            finally:
                gate.release()

    def _is_beyond(self, owned: OwnedAccount, held: Held) -> bool:
        """Whether the price has passed where its stop loss should be."""
        wanted = self._wanted(owned, held)
        loss = None if wanted is None else wanted.stops.stop_loss
        return loss is not None and passed(loss, held.position, is_stop_loss=True)

    def _close(self, owned: OwnedAccount, position: Position, why: str) -> None:
        """Close it; a close that cannot be sent now is tried again at the next look."""
        try:
            self._emergency.close(owned, position, why)
        except (Retryable, OutcomeUnknown) as error:
            self._quiet.warning(
                f"{owned.account_id}:{position.symbol}:close",
                f"{position.symbol}: not closed yet: {error.message}",
            )

    # --- what is written of it ----------------------------------------------------------------

    def _keep_periods(self, owned: OwnedAccount) -> bool:
        """Once a look has mended what it could; False: some of it is still to be written."""
        changed = self.unprotected_times.changed(owned.account_id)
        if changed and self._desk.audit.keep_periods(changed):
            self.unprotected_times.written(owned.account_id, changed)
            return True
        return not changed

    def _reconcile_periods(self, owned: OwnedAccount) -> None:
        """Once per ownership, and when spools came home: see `UnprotectedTimes.reconcile`."""
        audit = self._desk.audit
        if audit.waiting:
            return  # not all of it is in Postgres yet
        try:
            listed = audit.periods.open_of(owned.account_id)
        except Unavailable as error:
            self._quiet.warning("periods", f"unprotected periods are not listed: {error.message}")
            return
        now = self._desk.clock.now()
        self.unprotected_times.reconcile(owned.account_id, listed, now)
        owned.relist_periods = False
        self._keep_periods(owned)

    # --- leftovers ---------------------------------------------------------------------------

    def _remove_leftovers(
        self, owned: OwnedAccount, placed: Sequence[PlacedStop], holdings: Mapping[str, Held]
    ) -> None:
        """Stops without a position, once a second reading shows none either."""
        gone = [stop for stop in placed if is_orphan(stop, holdings)]
        if gone:
            self._keeper.remove_orphans(owned, gone, self._keeper.read(owned, placed))

    def _forget_gone(self, owned: OwnedAccount, holdings: Mapping[str, Held]) -> None:
        """A wanted stop whose position is gone, and that no order can bring back, is over."""
        now = self._desk.clock.now()
        with owned.lock:
            gone = [
                wanted
                for wanted in owned.wanted.values()
                if wanted.symbol not in holdings and now - wanted.updated_at > WANTED_GRACE
            ]
        if not gone:
            return
        snapshot = owned.venue.snapshot(priority=Priority.PROTECTION)
        busy = {report.symbol for report in snapshot.open_orders}
        busy |= {position.symbol for position in snapshot.positions if position.free_size}
        busy |= set(owned.exposure_in_flight(now))
        busy |= {write.symbol for write in owned.unresolved.values()}
        for wanted in gone:
            if wanted.symbol not in busy and owned.wanted.get(wanted.symbol) is wanted:
                self._desk.unwant_stops(owned, wanted.symbol)
