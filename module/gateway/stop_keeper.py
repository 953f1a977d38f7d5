"""Reads and writes the stops of what an account holds, the same for positions and for coins.

Used by `protection.py`, which decides what they should be. A futures venue tells the stops with the
positions, and a stop closes whatever the position is then. On spot they are orders of a size:
listed apart, and *untidy* as soon as the balance is another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from module.db.repositories.gateway_writes import WriteEntry, WriteKind
from module.db.repositories.wanted_stops import WantedStops
from module.exchange.agreement import read_stops
from module.exchange.venue import Ability, PlacedStop, Priority, StopExists, StopsFull
from module.gateway.account_desk import AccountDesk
from module.gateway.guard_writes import GUARD_SESSION, AuditedWrite
from module.gateway.owned_account import OwnedAccount
from module.gateway.quiet_log import QuietLog
from module.model.accounts import Position
from module.model.errors import InvalidInput, NotFound, Retryable
from module.model.money import plain
from module.model.orders import StopPrices
from module.model.stop_ticks import round_stops
from module.points import reach


@dataclass(frozen=True, slots=True)
class Held:
    """What is held of one symbol, with the stops that are in order; `untidy` are the kinds (True:
    stop loss) of which there are several, or one of another size, or one that the price passed."""

    position: Position
    untidy: frozenset[bool] = frozenset()

    @property
    def symbol(self) -> str:
        return self.position.symbol

    @property
    def is_long(self) -> bool:
        return self.position.size > 0

    def has_exactly(self, wanted: StopPrices) -> bool:
        """Whether nothing is to be done."""
        return not self.untidy and self.position.stops == wanted

    def with_stop_loss(self, price: Decimal | None) -> Held:
        """The same once its stop loss is this one."""
        stops = replace(self.position.stops, stop_loss=price)
        return Held(replace(self.position, stops=stops), self.untidy - {True})


def is_orphan(stop: PlacedStop, held: Mapping[str, Held]) -> bool:
    """Whether it protects nothing that is held."""
    found = held.get(stop.symbol)
    return found is None or found.is_long != stop.protects_long


class StopKeeper:
    """Makes stops what they are told to be. Thread safe."""

    def __init__(self, desk: AccountDesk, quiet: QuietLog) -> None:
        self._desk = desk
        self._quiet = quiet

    def read(
        self, owned: OwnedAccount, placed: Sequence[PlacedStop] | None = None
    ) -> dict[str, Held]:
        """By symbol, from the exchange. `placed`: the stops as they were listed just before."""
        if Ability.POSITIONS in owned.venue.abilities:
            positions = self._desk.read_positions(owned, Priority.PROTECTION)
            return {symbol: Held(position) for symbol, position in positions.items()}
        listed = owned.venue.placed_stops() if placed is None else placed
        coins = self._desk.read_positions(owned, Priority.PROTECTION)
        return {symbol: self._coin(owned, coin, listed) for symbol, coin in coins.items()}

    def recall(self, owned: OwnedAccount, symbol: str) -> Held | None:
        """What somebody has just read, if it is true for the symbol (`fresh_position`)."""
        if Ability.POSITIONS not in owned.venue.abilities:
            return None
        position = owned.fresh_position(symbol, self._desk.clock.now())
        return None if position is None else Held(position)

    @staticmethod
    def _coin(owned: OwnedAccount, coin: Position, listed: Sequence[PlacedStop]) -> Held:
        """A coin has no opening time of its own: it is that of the wish to protect it."""
        reading = read_stops(coin, listed)
        with owned.lock:
            wanted = owned.wanted.get(coin.symbol)
        opened_at = wanted.updated_at if wanted is not None else coin.opened_at
        return Held(replace(coin, stops=reading.stops, opened_at=opened_at), reading.untidy)

    def apply(
        self, owned: OwnedAccount, held: Held, wanted: StopPrices, *, only_loss: bool = False
    ) -> None:
        """Upsert what differs, remove what is not wanted: the new one first, never a gap.
        `only_loss`: the take profit stays as it is."""
        have = held.position.stops
        for is_stop_loss, price, current in (
            (True, wanted.stop_loss, have.stop_loss),
            (False, wanted.take_profit, have.take_profit),
        ):
            if only_loss and not is_stop_loss:
                continue
            is_untidy = is_stop_loss in held.untidy
            if price is not None and (price != current or is_untidy):
                self._place(owned, held, is_stop_loss=is_stop_loss, price=price)
                reach("gateway: stop placed")
            elif price is None and (current is not None or is_untidy):
                self._remove(owned, held, is_stop_loss=is_stop_loss)
                reach("gateway: stop removed")

    def _place(
        self, owned: OwnedAccount, held: Held, *, is_stop_loss: bool, price: Decimal
    ) -> None:
        """Place or move one stop. Where the exchange is full, or has it already, make room (B7)."""

        def place() -> None:
            owned.venue.set_stop(
                held.symbol,
                is_stop_loss=is_stop_loss,
                protects_long=held.is_long,
                trigger_price=price,
                held=held.position,
            )

        try:
            place()
        except StopsFull:
            placed = owned.venue.placed_stops()
            found = self.read(owned, placed)
            # A reading that does not show even this position shows no other's end.
            if held.symbol not in found or not self.remove_orphans(owned, placed, found):
                raise
            place()
        except StopExists:
            if any(
                stop.trigger_price == price
                for stop in self._of_kind(owned, held, is_stop_loss=is_stop_loss)
            ):
                return
            self._remove(owned, held, is_stop_loss=is_stop_loss)
            place()

    def _remove(self, owned: OwnedAccount, held: Held, *, is_stop_loss: bool) -> None:
        for stop in self._of_kind(owned, held, is_stop_loss=is_stop_loss):
            owned.venue.remove_stop(stop)

    @staticmethod
    def _of_kind(owned: OwnedAccount, held: Held, *, is_stop_loss: bool) -> list[PlacedStop]:
        kind = (held.symbol, is_stop_loss, held.is_long)
        return [
            stop
            for stop in owned.venue.placed_stops()
            if (stop.symbol, stop.is_stop_loss, stop.protects_long) == kind
        ]

    def remove_orphans(
        self, owned: OwnedAccount, placed: Sequence[PlacedStop], held: Mapping[str, Held]
    ) -> int:
        """Stops were listed before positions were read, so one without a position is left over;
        how many were removed."""
        removed = 0
        for stop in placed:
            if not is_orphan(stop, held):
                continue
            author = self._desk.author(owned, GUARD_SESSION, owned.epoch)
            entry = WriteEntry(WriteKind.GUARD, stop.symbol, {"orphan": stop.order_id})
            self._quiet.warning(
                f"{owned.account_id}:{stop.order_id}",
                f"{stop.symbol}: removing stop {stop} of a position that is gone",
            )
            with AuditedWrite(self._desk, owned, author, entry, audited=True):
                owned.venue.remove_stop(stop)
            removed += 1
        return removed


def check_ticks(owned: OwnedAccount, symbol: str, stops: StopPrices) -> None:
    """InvalidInput names a trigger that is not on the tick, NotFound a symbol without rules."""
    instrument = owned.venue.instruments().get(symbol)
    if instrument is None:
        raise NotFound(f"{symbol} is not traded here")
    for name, price in (("stop_loss", stops.stop_loss), ("take_profit", stops.take_profit)):
        if price is not None and (price <= Decimal(0) or price % instrument.price_step):
            raise InvalidInput(
                f"{name} of {symbol} must be a positive multiple of "
                f"{plain(instrument.price_step)}, got {plain(price)}"
            )


def moved_to_tick(owned: OwnedAccount, wanted: WantedStops) -> bool:
    """Whether the tick has changed since that was wanted (A19; a venue reads its rules anew after
    such a refusal): it is wanted on the new tick then, and the next look places it there."""
    try:
        instrument = owned.venue.instruments().get(wanted.symbol)
    except Retryable:
        return False
    stops = wanted.stops if instrument is None else round_stops(wanted.stops, instrument)
    with owned.lock:
        if stops == wanted.stops or owned.wanted.get(wanted.symbol) is not wanted:
            return False
        owned.wanted[wanted.symbol] = replace(wanted, stops=stops)
    return True
