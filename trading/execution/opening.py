"""What must be true before something opens: verified settings, a confirmed close, free money.

leverage, margin mode, position mode ─► read back before the first order of a cycle
flips, money that is really free, positions as expected ─► sizes of the opening legs
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from module.model.accounts import AccountSnapshot, PositionMode, SymbolSettings
from module.model.errors import Conflict, OutcomeUnknown, TooLate
from module.model.market import Instrument, MarketType
from module.model.money import ZERO
from module.points import reach
from trading.execution.evidence import POLL_FIRST_S
from trading.execution.freshness import changed_symbols
from trading.execution.scribe import Known, Scribe
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import LegRecord, OrderInfo, Sized, given_up
from trading.rebalance.plan import SkippedLeg, SkipReason, fit_opening_legs

SETTING_TRIES = 3
SETTINGS_AT_ONCE = 5
"""Settings of so many symbols are read, and set, before those of the next ones are."""
POSITION_LOOKS = 3
POSITION_WAIT_S = 0.5
NO_MARGIN = "no margin left"


def verify_settings(scribe: Scribe, symbols: Sequence[str], known: Known | None = None) -> None:
    """Leverage and margin mode of every symbol that opens are the session's (A21).

    Conflict says what differs. With `apply_account_settings` they are set while the symbol is flat,
    and read back: some are set while the limit for reading the next ones recovers. What is `known`
    of just before need not be read again where it is as wanted.
    """
    if scribe.rules.policy.market is not MarketType.FUTURES or not symbols:
        return
    before = None if known is None else known.settings_of(symbols, scribe.now())
    if before is not None and all(_is_wanted(scribe, before[symbol]) for symbol in symbols):
        return
    exchange = scribe.ports.exchange
    first, rest = symbols[:SETTINGS_AT_ONCE], symbols[SETTINGS_AT_ONCE:]
    held: set[str] | None = None
    while first:
        settings = exchange.symbol_settings(first)
        other = [settings[symbol] for symbol in first if not _is_wanted(scribe, settings[symbol])]
        if other and held is None:
            held = {position.symbol for position in exchange.snapshot().positions}
        for found in other:
            _set_or_refuse(scribe, found, is_held=found.symbol in (held or ()))
        # Where nothing has to be set all the others are asked for at once.
        count = SETTINGS_AT_ONCE if other else len(rest)
        first, rest = rest[:count], rest[count:]


def _set_or_refuse(scribe: Scribe, found: SymbolSettings, *, is_held: bool) -> None:
    symbol = found.symbol
    described = f"{symbol} has leverage {found.leverage} {found.margin_mode} on the exchange"
    wanted = f"{scribe.rules.policy.leverage} {scribe.rules.margin_mode}"
    if not scribe.rules.apply_account_settings:
        raise Conflict(
            f"{described}, the session wants {wanted}: set it there, or start the session with "
            "apply_account_settings"
        )
    if is_held:
        raise Conflict(f"{described} and is held; {wanted} can be set only while it is flat")
    if not _apply_settings(scribe, symbol):
        raise Conflict(f"{described} after it was told to be {wanted}")


def require_one_way(scribe: Scribe, snapshot: AccountSnapshot) -> None:
    """Conflict in hedge mode, where an order that closes could open (A22)."""
    futures = scribe.rules.policy.market is MarketType.FUTURES
    if futures and snapshot.position_mode is not PositionMode.ONE_WAY:
        raise Conflict(
            "the account is in hedge mode; set position mode to one-way on the exchange (while "
            "nothing is open), then start again"
        )


@dataclass(frozen=True, slots=True)
class ClosedByAccount:
    """Reducing legs that one look at the account shows as executed, before their orders were asked
    for one by one (which an exchange's budget makes slow)."""

    leg_ids: frozenset[str]
    snapshot: AccountSnapshot


def see_closed(scribe: Scribe, info: OrderInfo) -> ClosedByAccount | None:
    """Every reducing leg that was accepted, where the account shows all of them as executed whole;
    None: at least one is not, or nothing waits for it, and their orders are to be asked for.

    What was executed is booked from the orders themselves in any case, a little later.
    """
    pending = [r for r in info.legs if r.leg.reduce_only and not r.is_over]
    expected = info.expected()
    waits = any(not r.leg.reduce_only and not r.is_over for r in info.legs)
    if not pending or not waits or expected is None:
        return None
    after: dict[str, Decimal] = {}
    for record in pending:
        current = record.current
        if current is None or current.state is not LegState.ACKNOWLEDGED:
            return None
        if record.done_size - current.filled_size + current.size < record.size:
            return None  # a further slice of it has to leave
        rest = current.size - current.filled_size
        should = expected.sizes.get(record.leg.symbol, ZERO)
        after[record.leg.symbol] = should + record.leg.side.sign * rest
    scribe.ports.clock.sleep(POLL_FIRST_S)
    snapshot = scribe.ports.exchange.snapshot()
    held = {position.symbol: position.size for position in snapshot.positions}
    if any(held.get(symbol, ZERO) != size for symbol, size in after.items()):
        return None
    return ClosedByAccount(frozenset(record.leg.leg_id for record in pending), snapshot)


def size_openings(
    scribe: Scribe,
    info: OrderInfo,
    instruments: Mapping[str, Instrument],
    closed: ClosedByAccount | None = None,
) -> OrderInfo:
    """Give up what may not open, and size the rest from what is really free now.

    Only legs of which nothing has left are touched; what was planned stays in the letter, the size
    stands beside it. Not saved yet: that is whoever sends them, before they leave.
    """
    waiting = [record for record in info.legs if _has_not_left(record)]
    if not waiting:
        return info
    snapshot, changed = _look(scribe, info, instruments, closed)
    seen = frozenset() if closed is None else closed.leg_ids
    require_one_way(scribe, snapshot)
    updates: dict[str, LegRecord] = {}
    for record in waiting:
        why = _why_not(scribe, info, record, changed, seen)
        if why:
            updates[record.leg.leg_id] = given_up(record, why)
    going = [record for record in waiting if record.leg.leg_id not in updates]
    fitted, skipped = fit_opening_legs(
        [record.leg for record in going], snapshot.available, instruments, scribe.rules.policy
    )
    sizes: dict[str, Decimal] = {leg.leg_id: leg.size for leg in fitted}
    reasons = {item.symbol: item.reason for item in skipped}
    for record in going:
        size = sizes.get(record.leg.leg_id)
        if size is None:
            reason = reasons.get(record.leg.symbol, SkipReason.NO_MARGIN_LEFT)
            why = NO_MARGIN if reason is SkipReason.NO_MARGIN_LEFT else reason.value
            updates[record.leg.leg_id] = given_up(record, why)
        elif size != record.size:
            sized = Sized(size, record.stops, "sized by what was free")
            updates[record.leg.leg_id] = replace(record, sized=sized)
    if not updates:
        return info
    later = _without_repeats((*info.skipped_later, *skipped))
    return info.with_legs(updates, skipped_later=later)


def _why_not(
    scribe: Scribe,
    info: OrderInfo,
    record: LegRecord,
    changed: Mapping[str, str],
    closed: frozenset[str],
) -> str:
    symbol, after = record.leg.symbol, record.leg.after
    if symbol in scribe.rules.frozen:
        return scribe.rules.frozen[symbol]
    if after is not None:
        close = info.leg(after)
        if close.is_unproven:
            return ""  # it waits: nobody knows yet what became of its close (I5)
        if close.filled_size < close.size and after not in closed:
            return f"{after} was not confirmed, so nothing opens the other way"
    if symbol in changed:
        return f"{changed[symbol]}; nothing is added to it in this cycle"
    return ""


def _look(
    scribe: Scribe,
    info: OrderInfo,
    instruments: Mapping[str, Instrument],
    closed: ClosedByAccount | None,
) -> tuple[AccountSnapshot, dict[str, str]]:
    """The account, and which positions are not as the letter leads to expect; an exchange that
    shows fills a little late gets a further look."""
    lots = {symbol: instrument.size_step for symbol, instrument in instruments.items()}
    snapshot = scribe.ports.exchange.snapshot() if closed is None else closed.snapshot
    changed = changed_symbols(info, snapshot, lots)
    for _ in range(POSITION_LOOKS - 1):
        if not changed:
            break
        scribe.ports.clock.sleep(POSITION_WAIT_S)
        snapshot = scribe.ports.exchange.snapshot()
        changed = changed_symbols(info, snapshot, lots)
    return snapshot, changed


def _has_not_left(record: LegRecord) -> bool:
    """An opening leg of which no order has been on its way."""
    return not record.leg.reduce_only and not record.is_over and not record.slices


def _without_repeats(skipped: Sequence[SkippedLeg]) -> tuple[SkippedLeg, ...]:
    return tuple(dict.fromkeys(skipped))


def _is_wanted(scribe: Scribe, found: SymbolSettings) -> bool:
    rules = scribe.rules
    return (found.leverage, found.margin_mode) == (rules.policy.leverage, rules.margin_mode)


def _apply_settings(scribe: Scribe, symbol: str) -> bool:
    """Whether the exchange has them as wanted; a set whose answer was lost is said again (A21)."""
    rules = scribe.rules
    for _ in range(SETTING_TRIES):
        reach("execution: before settings")
        try:
            now = scribe.ports.exchange.apply_symbol_settings(
                scribe.stamp_without_cycle(), symbol, rules.policy.leverage, rules.margin_mode
            )
        except (OutcomeUnknown, TooLate):
            continue
        reach("execution: after settings")
        return _is_wanted(scribe, now)
    return False
