"""Makes the stops of every held position what the letter wants, and reads them back.

The gateway keeps stops for as long as it lives; here a cycle's new prices are said and confirmed.
"""

from __future__ import annotations

from decimal import Decimal

from module.model.accounts import Position
from module.model.errors import Conflict, NotFound, OutcomeUnknown, Rejected, StaleWriter, TooLate
from module.model.orders import NO_STOPS, StopPrices
from module.points import reach
from trading.execution.scribe import Scribe
from trading.rebalance.order_info import OrderInfo
from trading.rebalance.rounding import round_stops

STOP_TRIES = 3
STOP_ON_WRONG_SIDE = "stop-on-wrong-side"


def protect(scribe: Scribe, info: OrderInfo) -> OrderInfo:
    """The letter, with the stops that had to go onto another tick in `stops_now`.

    Conflict when the exchange does not confirm a position's stops after STOP_TRIES.
    """
    wanted_by_symbol = info.wanted_stops()
    if not wanted_by_symbol:
        return info
    rounded: dict[str, StopPrices] = {}
    for position in scribe.ports.exchange.snapshot().positions:
        wanted = wanted_by_symbol.get(position.symbol)
        if wanted is None or wanted == position.stops or not position.free_size:
            continue
        weight = Decimal(info.targets.get(position.symbol, {}).get("weight", "0"))
        if weight * position.size <= 0:
            continue  # its flip did not happen: these stops are the other side's
        placed = _set_stops(scribe, info, position, wanted)
        if placed != wanted:
            rounded[position.symbol] = placed
    return info.changed(stops_now={**info.stops_now, **rounded}) if rounded else info


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
