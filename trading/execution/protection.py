"""Makes the stops of every held position what the letter wants, and reads them back.

The gateway keeps stops for as long as it lives; here a cycle's new prices are said and confirmed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from module.model.accounts import Position
from module.model.errors import Conflict, NotFound, OutcomeUnknown, Rejected, StaleWriter, TooLate
from module.model.orders import NO_STOPS, StopPrices
from module.model.stop_ticks import round_stops
from module.points import reach
from module.wire.model_codec import from_document
from trading.execution.scribe import Scribe
from trading.rebalance.order_info import OrderInfo
from trading.rebalance.stops import entry_price, wanted_stops
from trading.rebalance.weights import Target, recorded_target

STOP_TRIES = 3
STOP_ON_WRONG_SIDE = "stop-on-wrong-side"


def protect(scribe: Scribe, info: OrderInfo, *, only_bare: bool = False) -> OrderInfo:
    """The letter, with the stops that had to go onto another tick in `stops_now`.

    `only_bare`: positions that have a stop loss, or whose stop the plan left out, wait for later.
    Conflict when the exchange does not confirm a position's stops after STOP_TRIES.
    """
    wanted_by_symbol = info.wanted_stops()
    if not wanted_by_symbol and not _may_be_left_out(scribe, info):
        return info
    changed: dict[str, StopPrices] = {}
    for position in scribe.ports.exchange.snapshot().positions:
        if not position.free_size or _target(info, position.symbol).weight * position.size <= 0:
            continue  # not wanted, or its flip did not happen: the stops are the other side's
        wanted = wanted_by_symbol.get(position.symbol)
        if only_bare and (wanted is None or position.stops.stop_loss is not None):
            continue
        if wanted is None:
            wanted = _left_out(scribe, info, position)
            if wanted is None:
                continue
            changed[position.symbol] = wanted
        if wanted == position.stops:
            continue
        placed = _set_stops(scribe, info, position, wanted)
        if placed != wanted:
            changed[position.symbol] = placed
    return info.changed(stops_now={**info.stops_now, **changed}) if changed else info


def protect_found_bare(scribe: Scribe, info: OrderInfo) -> OrderInfo:
    """The letter, once what the plan's own reading showed without a stop loss has the one it wants.

    Before the first order: somebody else's order has opened it, and the gateway, whom nobody has
    told of a stop, looks for none. Nothing is read again for it: whatever else of the exchange is
    silent does not keep it bare. Raises as `protect` does.
    """
    wanted_by_symbol = info.wanted_stops()
    changed: dict[str, StopPrices] = {}
    for position in _found_bare(info):
        wanted = wanted_by_symbol.get(position.symbol)
        is_ours = _target(info, position.symbol).weight * position.size > 0
        if wanted is None or wanted.stop_loss is None or not is_ours or not position.free_size:
            continue
        placed = _set_stops(scribe, info, position, wanted)
        if placed != wanted:
            changed[position.symbol] = placed
    return info.changed(stops_now={**info.stops_now, **changed}) if changed else info


def _found_bare(info: OrderInfo) -> Iterator[Position]:
    """Positions that the letter's inputs show without a stop loss."""
    account = info.inputs.get("account")
    positions = account.get("positions") if isinstance(account, Mapping) else None
    for document in positions if isinstance(positions, (list, tuple)) else ():
        if document["stops"]["stop_loss"] is None:
            yield from_document(Position, document, name="position")


def _target(info: OrderInfo, symbol: str) -> Target:
    return recorded_target(symbol, info.targets.get(symbol, {}))


def _may_be_left_out(scribe: Scribe, info: OrderInfo) -> bool:
    """Whether a target has a stop that the plan may have left out."""
    has_default = scribe.rules.policy.default_stop_loss_pct is not None and bool(info.targets)
    targets = (recorded_target(*each) for each in info.targets.items())
    return has_default or any(target.stops.stop_loss is not None for target in targets)


def _left_out(scribe: Scribe, info: OrderInfo, position: Position) -> StopPrices | None:
    """The target's stops for a position that has no stop loss at all, where the plan left them out
    because the price is beyond them: the gateway closes what their stop would have closed (B6)."""
    if position.stops.stop_loss is not None:
        return None
    instrument = scribe.ports.exchange.instruments().get(position.symbol)
    if instrument is None:
        return None
    target = _target(info, position.symbol)
    entry = entry_price(target, position, position.mark_price)
    wanted = wanted_stops(target, entry, instrument, scribe.rules.policy)
    return None if wanted.stop_loss is None else wanted


def _set_stops(
    scribe: Scribe, info: OrderInfo, position: Position, wanted: StopPrices
) -> StopPrices:
    """Set and read back; what was wanted in the end: on another tick where that has changed."""
    symbol, exchange = position.symbol, scribe.ports.exchange
    seen: StopPrices | str = NO_STOPS
    for _ in range(STOP_TRIES):
        reach("execution: before stops")
        try:
            seen = exchange.set_stops(scribe.stamp(info), symbol, wanted)
        except OutcomeUnknown as error:
            seen = f"unknown ({error.message})"  # an upsert: the same again is harmless
        except NotFound:
            return wanted  # the position ended meanwhile; there is nothing to protect
        except StaleWriter:
            raise
        except TooLate as error:
            seen = error.message  # nothing was sent; the next try has a new deadline
        except Rejected as error:
            if error.code == STOP_ON_WRONG_SIDE:
                return wanted  # the old stop stands, or the gateway closes what has none (B6)
            fresh = exchange.instruments().get(symbol)
            if fresh is None or round_stops(wanted, fresh) == wanted:
                raise
            wanted = round_stops(wanted, fresh)  # the tick is another one now (A19)
            seen = error.message
        reach("execution: after stops")
        if seen == wanted:
            return wanted
    raise Conflict(f"{symbol}: stops are {seen} after they were set to {wanted}")
