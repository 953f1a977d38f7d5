"""The venue port: what the gateway asks of an exchange, the same words for every exchange.

Adapters (Bitget first, through ccxt) stand behind it; `tests/contract/exchange` is the suite that
every adapter passes; `agreement.py` compares what it tells with what was asked for. Only the
gateway imports this.

What an adapter promises:

- A write's answer is believed only when it has the venue's own shape; anything else is *unknown*.
- Nothing is repeated inside. Nothing waits. Where the request budget is used up, RateLimited is
  raised before anything of the call has left.
- Numbers arrive as text and become Decimal; no float in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Protocol

from module.model.accounts import (
    AccountSnapshot,
    Bill,
    ClosedPosition,
    MarginMode,
    Position,
    PositionMode,
    SymbolSettings,
    TradeEnv,
)
from module.model.books import Depth, MarginTier
from module.model.credentials import Credentials
from module.model.errors import Forbidden, NotFound, Rejected
from module.model.market import Candle, Frequency, Instrument, MarketType, Quote
from module.model.orders import Fill, OrderReport, OrderRequest, SubmitResult

CLIENT_ID_CLASH = "client-id-clash"
_LEAVE_BY: ContextVar[datetime | None] = ContextVar("leave_by", default=None)
_PATIENCE_S: ContextVar[float | None] = ContextVar("patience_s", default=None)


@contextmanager
def leaving_by(when: datetime) -> Iterator[None]:
    """Writes that are made in here leave by `when` (world time) or not at all: adapters ask once
    more when a request has its signature.

    So a request whose process stands still after that question carries a time before `when`: the
    exchange refuses it half a minute after that, however late it comes.
    """
    token = _LEAVE_BY.set(when)
    try:
        yield
    finally:
        _LEAVE_BY.reset(token)


@contextmanager
def answered_within(seconds: float) -> Iterator[None]:
    """Calls that are made in here wait no longer than this for their answer: whoever looks after
    many positions does not let one silent answer keep it from the others. An endpoint that stays
    silent is given twice as long each time, so that a slow one is heard in the end."""
    token = _PATIENCE_S.set(seconds)
    try:
        yield
    finally:
        _PATIENCE_S.reset(token)


def patience_s() -> float | None:
    """See `answered_within`; None: as long as the adapter waits for anything."""
    return _PATIENCE_S.get()


def leave_by() -> datetime | None:
    """Until when a write that is made now may leave; None: nobody said."""
    return _LEAVE_BY.get()


class Priority(IntEnum):
    """Who goes first when requests are scarce; higher keeps more of the budget for itself."""

    MARKET_DATA = 0
    READ = 1
    ORDER = 2
    CANCEL = 3
    PROTECTION = 4


class Ability(StrEnum):
    """What a venue can do for an account of one market. What it does not declare it refuses by
    name (InvalidInput), and the contract suite then asks only for that refusal."""

    POSITIONS = "positions"
    """Orders build positions, told by `positions` and `closed_positions`; else only balances."""
    SHORT = "short"
    """A sell of what is not held opens a short."""
    LEVERAGE = "leverage"
    """Position mode, margin mode and leverage are read, the last two set."""
    STOPS = "stops"
    """Stop orders of what is held: placed, moved, read back, removed."""
    PRESETS = "presets"
    """The stops of an opening order are there as soon as it has filled; else they are placed
    with `set_stop` afterwards."""
    EXACT_BUYS = "exact-buys"
    """A market buy fills exactly its size; else about it (it is sent in quote coin, or its fee is
    taken from what was bought)."""
    BILLS = "bills"
    """Every movement of the wallet is told."""


class RequestGate(Protocol):
    """The request budget as an adapter sees it."""

    def admit(self, requests: Sequence[RequestKind], priority: Priority) -> None:
        """Take all of `requests` at once or none: RateLimited says when there is room."""
        ...

    def penalise(self, seconds: float, *, whole_address: bool) -> None:
        """The venue said stop: nothing is admitted for so long (world seconds)."""
        ...

    def report(self, request: RequestKind, *, failed: bool) -> None:
        """What became of a request: no answer, a 5xx or maintenance failed; a refusal did not."""
        ...

    def took(self, request: RequestKind, outcome: str, seconds: float) -> None:
        """Real time until a request was answered, limited (429), failed (5xx) or lost."""
        ...


class EndpointClass(StrEnum):
    """Which endpoints fail together."""

    TRADE = "trade"
    ACCOUNT = "account"
    MARKET = "market"


@dataclass(frozen=True, slots=True)
class RequestKind:
    """One kind of request and its limit per second: by key where `private`, else by address."""

    endpoint: str
    per_second: int
    private: bool
    is_write: bool = False

    @property
    def endpoint_class(self) -> EndpointClass:
        """Writes, reads of an account, public data."""
        if not self.private:
            return EndpointClass.MARKET
        return EndpointClass.TRADE if self.is_write else EndpointClass.ACCOUNT


@dataclass(frozen=True, slots=True)
class VenueAccess:
    """How to reach one account: where, as whom. repr shows no secret."""

    account_id: str
    base_url: str
    market: MarketType
    trade_env: TradeEnv
    credentials: Credentials = field(repr=False)


class AccountFamily(StrEnum):
    """Which of the venue's account systems the key belongs to; only classic ones are traded."""

    CLASSIC = "classic"
    UNIFIED = "unified"


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What an exchange says of a key: may it trade here, may it withdraw, what is it of.

    `position_mode` and `shares_collateral` are None and False on spot. `user_id` is the venue's
    own name of the account (empty: it does not say); `address_bound`: whether the key works from
    listed addresses only (None: it does not say).
    """

    may_trade: bool
    may_withdraw: bool
    authorities: tuple[str, ...]
    family: AccountFamily = AccountFamily.CLASSIC
    position_mode: PositionMode | None = None
    shares_collateral: bool = False
    user_id: str = ""
    address_bound: bool | None = None


@dataclass(frozen=True, slots=True)
class PlacedStop:
    """One stop order as the exchange lists it. `size` None: it closes whatever the position is
    then; else it sells so much of the coin."""

    symbol: str
    order_id: str
    is_stop_loss: bool
    protects_long: bool
    trigger_price: Decimal
    size: Decimal | None = None


@dataclass(frozen=True, slots=True)
class TradingMode:
    """How the account trades one symbol: the answer to a settings read."""

    position_mode: PositionMode
    settings: SymbolSettings
    shares_collateral: bool = False
    """Whether other coins count as margin (Bitget: asset mode *union*): not traded here."""


class UnifiedAccount(Forbidden):
    """The key belongs to a unified account, whose interface is another one."""

    code = "unified-account"


class KeysRefused(Forbidden):
    """The exchange refused the keys; it is asked with them again `again_in_s` world seconds later
    (A16): who looks after the account comes back then, not after a pause of its own."""

    def __init__(self, message: str, *, code: str | None = None, again_in_s: float) -> None:
        super().__init__(message, code=code)
        self.again_in_s = again_in_s


class StopsFull(Rejected):
    """The venue takes no further stop order of this account until some are gone."""

    code = "too-many-stops"


class StopExists(Rejected):
    """The venue has such a stop already: read it and compare."""

    code = "stop-exists"


class WrongSideOfPrice(Rejected):
    """A stop that would trigger at once: the market is already beyond it."""

    code = "stop-on-wrong-side"


class NoPosition(NotFound):
    """There is no position (any more) for what was asked."""

    code = "no-position"


OnAnswer = Callable[[SubmitResult], None]


def nobody_listens(_result: SubmitResult) -> None:
    """Of a submit whose results are wanted all together."""


class Venue(Protocol):
    """One account on one exchange."""

    @property
    def market(self) -> MarketType:
        """Futures or spot."""
        ...

    @property
    def abilities(self) -> frozenset[Ability]:
        """What may be asked of it; the same for the adapter's whole life."""
        ...

    @property
    def takes_late_s(self) -> float:
        """For how many seconds after the time it was signed with the exchange takes an order."""
        ...

    def check_key(self) -> KeyReport:
        """Ask the exchange who we are; Forbidden when it refuses the credentials.

        UnifiedAccount for an account of another family than the classic one.
        """
        ...

    def measure_clock(self) -> float:
        """Compare clocks with the exchange and sign by what was learnt; how many seconds it is
        ahead of ours (negative: behind). Asks at most once a minute of world time.
        """
        ...

    def snapshot(self, *, priority: Priority = Priority.READ) -> AccountSnapshot:
        """Balances, positions with their stops, open orders. Without `Ability.POSITIONS` the
        positions are all coins that have a price, whether or not they can be sold."""
        ...

    def positions(self, *, priority: Priority = Priority.READ) -> tuple[Position, ...]:
        """Open positions with their stops; none without `Ability.POSITIONS`."""
        ...

    def holdings(self, *, priority: Priority = Priority.READ) -> tuple[Position, ...]:
        """What stops can protect: the positions; without `Ability.POSITIONS` the coins that are
        free to be sold, as longs on the lot, those under the pair's minimum left out.

        Of a coin entry and mark are the present price, `stops` is empty (`read_stops` finds them
        among `placed_stops`), and `opened_at` is the epoch: an exchange does not know.
        """
        ...

    def instruments(self) -> Mapping[str, Instrument]:
        """Trading rules by symbol, cached for a while, and read anew after the exchange refused
        a size or price (`SubmitResult.rules_changed`)."""
        ...

    def quotes(
        self, symbols: Sequence[str], *, priority: Priority = Priority.READ
    ) -> Mapping[str, Quote]:
        """Prices now, all above zero; NotFound names the symbols that have none."""
        ...

    def trading_mode(
        self, symbol: str, *, max_age_s: float = 0.0, priority: Priority = Priority.READ
    ) -> TradingMode:
        """Position mode, margin mode and leverage; at most `max_age_s` world seconds old."""
        ...

    def trading_modes(
        self, symbols: Sequence[str], *, max_age_s: float, priority: Priority = Priority.READ
    ) -> Mapping[str, TradingMode]:
        """The modes of several symbols, with as few requests as the venue needs."""
        ...

    def set_leverage(self, symbol: str, leverage: Decimal) -> None:
        """Set it; the caller has seen that the symbol is flat and reads back."""
        ...

    def set_margin_mode(self, symbol: str, margin_mode: MarginMode) -> None:
        """Set it; the caller has seen that the symbol is flat and reads back."""
        ...

    def admit_orders(
        self, orders: Sequence[OrderRequest], *, priority: Priority = Priority.ORDER
    ) -> None:
        """Take the request budget that submitting `orders` needs, all or nothing: RateLimited."""
        ...

    def submit(
        self, orders: Sequence[OrderRequest], *, on_answer: OnAnswer = nobody_listens
    ) -> list[SubmitResult]:
        """Send orders that were admitted, concurrently; one result per order, in the order given.

        `on_answer` hears each result as it comes, from any thread, so that what is filled need not
        wait for an order that the exchange is silent about.
        RateLimited or Unavailable only when certainly none of them reached the exchange. A result
        with the code `CLIENT_ID_CLASH` means that another order lives under that client id.
        """
        ...

    def order(
        self, symbol: str, client_id: str, *, priority: Priority = Priority.READ
    ) -> OrderReport:
        """By client id; NotFound when the exchange does not know it (yet)."""
        ...

    def look_up(self, order: OrderRequest, *, priority: Priority = Priority.ORDER) -> SubmitResult:
        """What became of an order that may have been sent: accepted, or unknown.

        Another order under its client id is unknown with the code `CLIENT_ID_CLASH`; not found
        (yet), or no answer, is plainly unknown.
        """
        ...

    def cancel(self, symbol: str, client_id: str) -> None:
        """Cancel it; already over counts as done."""
        ...

    def set_stop(
        self,
        symbol: str,
        *,
        is_stop_loss: bool,
        protects_long: bool,
        trigger_price: Decimal,
        held: Position | None = None,
        priority: Priority = Priority.PROTECTION,
    ) -> None:
        """Place or move the stop of what is held (an upsert: there is exactly one afterwards, of
        the present size); WrongSideOfPrice, NoPosition.

        `held`: what is there, as `holdings` told it just now; None: it is read where it matters."""
        ...

    def placed_stops(self, *, priority: Priority = Priority.PROTECTION) -> tuple[PlacedStop, ...]:
        """All stops that protect what is held, as `set_stop` and presets make them."""
        ...

    def remove_stop(self, stop: PlacedStop, *, priority: Priority = Priority.PROTECTION) -> None:
        """Remove it; already gone counts as done."""
        ...

    def fills(self, since: datetime) -> list[Fill]:
        """Executions from `since` on, oldest first."""
        ...

    def bills(self, since: datetime) -> list[Bill]:
        """Movements of the wallet from `since` on, oldest first."""
        ...

    def closed_positions(self, since: datetime) -> list[ClosedPosition]:
        """Positions that ended from `since` on, oldest first."""
        ...

    def close(self) -> None:
        """End threads and connections."""
        ...


class PublicMarket(Protocol):
    """Public data of one exchange, without keys."""

    def instruments(self, market: MarketType) -> Mapping[str, Instrument]:
        """Trading rules by symbol."""
        ...

    def candles(
        self,
        market: MarketType,
        symbol: str,
        frequency: Frequency,
        end: datetime,
        limit: int,
    ) -> list[Candle]:
        """Up to `limit` closed bars that close at or before `end`, oldest first; gaps stay gaps."""
        ...

    def depth(self, market: MarketType, symbol: str) -> Depth:
        """The order book now, best prices first; NotFound for an unknown symbol."""
        ...

    def margin_tiers(self, symbol: str) -> tuple[MarginTier, ...]:
        """What futures positions must keep, by size, smallest first; NotFound, as above."""
        ...

    def close(self) -> None:
        """End connections."""
        ...


class VenueFactory(Protocol):
    """Makes adapters; the gateway's composition root passes one."""

    def open_venue(self, venue: str, access: VenueAccess, gate: RequestGate) -> Venue:
        """The adapter for one account; InvalidInput for an unknown venue."""
        ...

    def open_public(self, venue: str, base_url: str, gate: RequestGate) -> PublicMarket:
        """The public side of a venue."""
        ...
