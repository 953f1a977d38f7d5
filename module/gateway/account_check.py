"""Is an account fit to be traded? Asks the exchange; says what keeps it from it, in people's words.

account_opening, account_care ─► examine ─► venue.check_key, measure_clock, snapshot
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from module.db.repositories.accounts import AccountRecord
from module.exchange.venue import KeyReport, Venue, VenueAccess, VenueFactory
from module.gateway.account_desk import ONE_WAY_HINT
from module.gateway.account_view import SINGLE_ASSET_HINT, SKEW_MAX_S
from module.gateway.budget import RequestBudget
from module.model.accounts import AccountCheck, AccountSnapshot, PositionMode, TradeEnv
from module.model.errors import AifapError, Conflict, Forbidden
from module.model.market import MarketType

SKEW_WARNED_S: Final = 2.0
LIVE_WARNING: Final = "live: orders of this account trade real money"
WITHDRAW_FAULT: Final = "this key may withdraw; make one that may only trade, or insist with force"


@dataclass(frozen=True, slots=True)
class Findings:
    """What the exchange said of one set of keys, and the errors that it amounts to."""

    report: KeyReport
    snapshot: AccountSnapshot
    clock_ahead_s: float
    faults: tuple[AifapError, ...]

    def require_fit(self, *, may_withdraw: bool) -> None:
        """Raise the first fault; a right to withdraw is one unless `may_withdraw`."""
        for fault in self.faults:
            raise fault
        if self.report.may_withdraw and not may_withdraw:
            raise Forbidden(WITHDRAW_FAULT)


def examine(
    venues: VenueFactory, budget: RequestBudget, venue_name: str, access: VenueAccess
) -> Findings:
    """Ask the exchange with these keys, over connections of its own.

    Forbidden when it refuses them, UnifiedAccount for the wrong family; Retryable when it does
    not answer.
    """
    gate = budget.for_account(access.base_url, access.credentials.api_key)
    venue: Venue = venues.open_venue(venue_name, access, gate)
    try:
        ahead_s = venue.measure_clock()
        report = venue.check_key()
        snapshot = venue.snapshot()
    finally:
        venue.close()
    faults = tuple(find(access.market, report, ahead_s) for find in _FAULTS)
    found = tuple(fault for fault in faults if fault is not None)
    return Findings(report, snapshot, ahead_s, found)


def describe(record: AccountRecord, base_url: str, found: Findings, at: datetime) -> AccountCheck:
    """The findings as they are shown; nothing of a secret."""
    report, snapshot = found.report, found.snapshot
    faults = [fault.message for fault in found.faults]
    known = record.venue_user_id
    if known and report.user_id and report.user_id != known:
        faults.append("the keys belong to another account at the exchange than when it was added")
    return AccountCheck(
        account_id=record.account_id,
        at=at,
        trade_env=record.trade_env,
        base_url=base_url,
        family=report.family.value,
        may_trade=report.may_trade,
        may_withdraw=report.may_withdraw,
        address_bound=report.address_bound,
        authorities=report.authorities,
        position_mode=report.position_mode,
        equity=snapshot.equity,
        available=snapshot.available,
        positions=len(snapshot.positions),
        open_orders=len(snapshot.open_orders),
        clock_ahead_ms=round(found.clock_ahead_s * 1000),
        faults=tuple(faults),
        warnings=_warnings(record.trade_env, found),
    )


def _warnings(trade_env: TradeEnv, found: Findings) -> tuple[str, ...]:
    said = []
    if trade_env is TradeEnv.LIVE:
        said.append(LIVE_WARNING)
    if found.report.may_withdraw:
        said.append("the key may withdraw: whoever steals it can take the money")
    if found.report.address_bound is False and trade_env is not TradeEnv.PAPER:
        said.append("the key works from any address; bind it to this machine's at the exchange")
    if SKEW_WARNED_S < abs(found.clock_ahead_s) <= SKEW_MAX_S:
        said.append(f"the exchange's clock is {found.clock_ahead_s:+.1f} s from this machine's")
    return tuple(said)


def _no_trading(market: MarketType, report: KeyReport, _ahead_s: float) -> AifapError | None:
    if report.may_trade:
        return None
    return Forbidden(f"this key may not trade {market}; allow it there first")


def _hedged(market: MarketType, report: KeyReport, _ahead_s: float) -> AifapError | None:
    if market is not MarketType.FUTURES or report.position_mode is not PositionMode.HEDGE:
        return None
    return Conflict(f"the account is in hedge mode; {ONE_WAY_HINT}")


def _shared(market: MarketType, report: KeyReport, _ahead_s: float) -> AifapError | None:
    return Conflict(SINGLE_ASSET_HINT) if report.shares_collateral else None


def _skewed(_market: MarketType, _report: KeyReport, ahead_s: float) -> AifapError | None:
    if abs(ahead_s) <= SKEW_MAX_S:
        return None
    return Conflict(
        f"the exchange's clock is {ahead_s:+.0f} s from this machine's; set this machine's first"
    )


_FAULTS: Final[tuple[Callable[[MarketType, KeyReport, float], AifapError | None], ...]] = (
    *(_no_trading, _hedged, _shared, _skewed),
)
