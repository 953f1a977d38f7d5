"""What the venue contract needs of a venue: an account, a clock, and a way to make it fail.

A further venue is one more class here and its names in `HARNESSES`; the suite does not change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import ClassVar, Protocol

import pytest

from module.clock import WorldClock
from module.exchange import bitget_requests
from module.exchange.bitget_venue import CcxtVenues
from module.exchange.venue import Ability, PublicMarket, UnifiedAccount, Venue, VenueAccess
from module.gateway.budget import RequestBudget
from module.model.accounts import PositionMode, TradeEnv
from module.model.errors import (
    AifapError,
    Forbidden,
    RateLimited,
    Rejected,
    Unavailable,
)
from module.model.market import MarketType
from module.model.money import round_down
from module.model.orders import OrderRequest, OrderType, Outcome, Side
from module.ports import Clock
from tests.fakes.hand_clock import HandClock
from tests.fakes.memory_spot import MemoryBare, MemorySpot
from tests.fakes.memory_venue import MemoryVenue
from tests.fakes.simulator_process import RunningSimulator, running_simulator

MONEY = Decimal(10_007)


class Failure(StrEnum):
    """How the next call of an operation goes wrong."""

    LOST_ANSWER = "it happens, and the answer is lost"
    NO_MONEY = "the account has not enough money"
    AGAINST_RULES = "size or price break rules that we do not know yet"
    RATE_LIMITED = "too many requests, come back in seven seconds"
    MAINTENANCE = "the exchange is down for upkeep"
    BAD_KEYS = "the keys are refused"
    NONSENSE = "it happens, and the answer is not the exchange's"
    OTHER_FAMILY = "the key is of an account with another interface"


class Operation(StrEnum):
    """What can be made to fail."""

    SUBMIT = "submit"
    HOLDINGS = "holdings"
    SET_STOP = "set_stop"
    CHECK_KEY = "check_key"


class Trait(StrEnum):
    """What a venue of the suite has beside its abilities."""

    NETWORK = "network"
    """It is reached at a base URL, over sockets."""
    FEES = "fees"
    """It takes fees."""
    PUBLIC_DATA = "public-data"
    """It has candles, without keys."""


class VenueHarness(Protocol):
    """One account of one venue, fresh, with 10,007 USDT, in one-way mode where there are modes."""

    abilities: ClassVar[frozenset[Ability]]
    traits: ClassVar[frozenset[Trait]]
    no_money_code: ClassVar[str]

    @property
    def venue(self) -> Venue: ...

    @property
    def clock(self) -> Clock: ...

    def fail_next(self, operation: Operation, failure: Failure) -> None:
        """The next call of `operation` goes wrong like this; the ones after go well."""
        ...

    def move_price(self, symbol: str, factor: str) -> None:
        """The market jumps: all prices of `symbol` times `factor`."""
        ...

    def fill_part(self, client_id: str) -> None:
        """At the next look at it some of a resting order is filled, and the rest is over."""
        ...

    def deposit(self, amount: str) -> None:
        """More USDT."""
        ...

    def thin_market(self, symbol: str) -> Decimal:
        """A size of which the market takes only a part at its best price."""
        ...

    def bring_market_back(self, order: OrderRequest) -> None:
        """The market comes to a resting order, with enough depth for all of it."""
        ...

    def to_hedge_mode(self) -> None:
        """Somebody switches the account's position mode at the exchange."""
        ...

    def share_collateral(self) -> None:
        """The next read of the account's settings says that other coins count as margin."""
        ...

    def skew_clock(self, seconds: int) -> None:
        """The exchange's clock is so far ahead from now on."""
        ...

    def use_small_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lists come in pages of three rows."""
        ...

    def another_adapter(self, suffix: str = "") -> Venue:
        """A second adapter for the same account, with `suffix` behind the base URL."""
        ...

    def public_market(self) -> PublicMarket:
        """The venue's public side, without keys."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...


class MemoryHarness:
    """The fake of a futures venue."""

    abilities: ClassVar[frozenset[Ability]] = frozenset(Ability) - {Ability.BILLS}
    traits: ClassVar[frozenset[Trait]] = frozenset()
    no_money_code: ClassVar[str] = "40762"
    fake_type: ClassVar[type[MemoryVenue]] = MemoryVenue

    def __init__(self) -> None:
        self.clock = HandClock()
        self.fake = self.fake_type(self.clock)
        self.venue: Venue = self.fake

    def fail_next(self, operation: Operation, failure: Failure) -> None:
        events: dict[Failure, AifapError | str] = {
            Failure.LOST_ANSWER: "lost",
            Failure.NONSENSE: "lost",
            Failure.NO_MONEY: Rejected("no money", code=self.no_money_code),
            Failure.AGAINST_RULES: Rejected("another lot", code="rules"),
            Failure.RATE_LIMITED: RateLimited("slow down", retry_after_s=7),
            Failure.MAINTENANCE: Unavailable("upkeep"),
            Failure.BAD_KEYS: Forbidden("bad keys"),
            Failure.OTHER_FAMILY: UnifiedAccount("another family"),
        }
        name = "positions" if operation is Operation.HOLDINGS else operation.value
        if operation is Operation.SUBMIT and failure in (Failure.NO_MONEY, Failure.AGAINST_RULES):
            name = "submit_one"
        self.fake.script[name].append(events[failure])

    def move_price(self, symbol: str, factor: str) -> None:
        self.fake.marks[symbol] *= Decimal(factor)

    def fill_part(self, client_id: str) -> None:
        self.fake.fill_part(client_id)

    def deposit(self, amount: str) -> None:
        self.fake.cash += Decimal(amount)

    def thin_market(self, symbol: str) -> Decimal:
        self.fake.at_hand[symbol] = Decimal(70_000)
        return Decimal(100_000)

    def bring_market_back(self, order: OrderRequest) -> None:
        self.fake.meet_again(order)

    def to_hedge_mode(self) -> None:
        self.fake.position_mode = PositionMode.HEDGE

    def share_collateral(self) -> None:
        self.fake.shares_collateral = True

    def skew_clock(self, seconds: int) -> None:
        self.fake.skew_s = float(seconds)

    def use_small_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It has no pages."""

    def another_adapter(self, suffix: str = "") -> Venue:
        raise NotImplementedError

    def public_market(self) -> PublicMarket:
        raise NotImplementedError

    def close(self) -> None:
        self.venue.close()


class MemorySpotHarness(MemoryHarness):
    """The fake of a spot venue."""

    abilities = frozenset((Ability.STOPS, Ability.EXACT_BUYS))
    no_money_code = "43012"
    fake_type = MemorySpot


class MemoryBareHarness(MemorySpotHarness):
    """The fake of a venue that can hardly do anything."""

    abilities = frozenset((Ability.EXACT_BUYS,))
    fake_type = MemoryBare


_UNION = {
    "code": "00000",
    "msg": "success",
    "requestTime": 1,
    "data": {
        "marginMode": "crossed",
        "posMode": "one_way_mode",
        "assetMode": "union",
        "crossedMarginLeverage": 3,
        "isolatedLongLever": 3,
        "isolatedShortLever": 3,
    },
}


class BitgetHarness:
    """Bitget's futures adapter against the paper exchange, over real HTTP."""

    abilities: ClassVar[frozenset[Ability]] = frozenset(Ability)
    traits: ClassVar[frozenset[Trait]] = frozenset(Trait)
    no_money_code: ClassVar[str] = "40762"
    market: ClassVar[MarketType] = MarketType.FUTURES
    paths: ClassVar[dict[Operation, str]] = {
        Operation.SUBMIT: "place-order",
        Operation.HOLDINGS: "all-position",
        Operation.SET_STOP: "place-tpsl-order",
        Operation.CHECK_KEY: "info",
    }
    order_read: ClassVar[str] = "detail"

    def __init__(self, simulator: RunningSimulator, clock: WorldClock) -> None:
        self.simulator = simulator
        self.clock = clock
        money = {f"{self.market.value}_usdt": str(MONEY)}
        self.keys = simulator.open_account(**{"futures_usdt": "0", "spot_usdt": "0", **money})
        self._opened: list[Venue] = []
        self.venue = self.another_adapter()
        clock.sleep(1.2)

    def another_adapter(self, suffix: str = "") -> Venue:
        base_url = self.simulator.base_url + suffix
        gate = RequestBudget(self.clock, is_stepped=True).for_account(base_url, self.keys.api_key)
        access = VenueAccess("acc", base_url, self.market, TradeEnv.PAPER, self.keys)
        venue = CcxtVenues(self.clock).open_venue("bitget", access, gate)
        self._opened.append(venue)
        return venue

    def public_market(self) -> PublicMarket:
        gate = RequestBudget(self.clock, is_stepped=True).for_account(
            self.simulator.base_url, "public"
        )
        return CcxtVenues(self.clock).open_public("bitget", self.simulator.base_url, gate)

    def close(self) -> None:
        for venue in self._opened:
            venue.close()
        self.simulator.control("DELETE", "faults")

    def _fault(self, **words: object) -> None:
        self.simulator.control("POST", "faults", words)

    def fail_next(self, operation: Operation, failure: Failure) -> None:
        words: dict[Failure, dict[str, object]] = {
            Failure.LOST_ANSWER: {"answer": "drop"},
            Failure.NONSENSE: {"answer": "body", "body": "<html>502</html>"},
            Failure.RATE_LIMITED: {"catalogue": "A12", "retry_after_s": 7, "count": 1},
        }
        codes = {
            Failure.NO_MONEY: self.no_money_code,
            Failure.AGAINST_RULES: "45115",
            Failure.MAINTENANCE: "40200",
            Failure.BAD_KEYS: "40037",
            Failure.OTHER_FAMILY: "40085",
        }
        if failure in codes:
            words[failure] = {"answer": "code", "code": codes[failure], "moment": "before"}
        self._fault(operation=self.paths[operation], **words[failure])

    def move_price(self, symbol: str, factor: str) -> None:
        self.simulator.control("POST", "prices", {"symbol": symbol, "factor": factor})

    def fill_part(self, client_id: str) -> None:
        self._fault(operation=self.order_read, effect="fill_part", moment="before", share="0.4")

    def deposit(self, amount: str) -> None:
        words = {"api_key": self.keys.api_key, "wallet": self.market.value, "amount": amount}
        self.simulator.control("POST", "deposits", words)

    def thin_market(self, symbol: str) -> Decimal:
        """More than the first level of any book of the synthetic market."""
        return Decimal(300_000)

    def bring_market_back(self, order: OrderRequest) -> None:
        self.move_price(order.symbol, "0.98" if order.side is Side.BUY else "1.02")

    def to_hedge_mode(self) -> None:
        self._fault(catalogue="A22", operation="all-position", moment="before")
        self.venue.positions()
        self.clock.sleep(1.2)

    def share_collateral(self) -> None:
        body = json.dumps(_UNION)
        self._fault(operation="/api/v2/mix/account/account", answer="body", body=body)

    def skew_clock(self, seconds: int) -> None:
        self._fault(catalogue="A23", skew_s=seconds)

    def use_small_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bitget_requests, "PAGE_LIMIT", 3)


class BitgetSpotHarness(BitgetHarness):
    """Bitget's spot adapter, likewise."""

    abilities = frozenset((Ability.STOPS, Ability.BILLS))
    no_money_code = "43012"
    market = MarketType.SPOT
    paths: ClassVar[dict[Operation, str]] = {
        Operation.SUBMIT: "place-order",
        Operation.HOLDINGS: "assets",
        Operation.SET_STOP: "place-plan-order",
        Operation.CHECK_KEY: "info",
    }
    order_read = "orderInfo"


HARNESSES: dict[str, type[MemoryHarness] | type[BitgetHarness]] = {
    "memory-futures": MemoryHarness,
    "memory-spot": MemorySpotHarness,
    "memory-bare": MemoryBareHarness,
    "bitget-futures": BitgetHarness,
    "bitget-spot": BitgetSpotHarness,
}
Simulated = Callable[[], tuple[RunningSimulator, WorldClock]]


def open_harness(name: str, simulated: Simulated) -> VenueHarness:
    """The harness of this name; `simulated` starts the paper exchange where it is needed."""
    kind = HARNESSES[name]
    if issubclass(kind, BitgetHarness):
        return kind(*simulated())
    return kind()


@contextmanager
def opened_simulator(folder: Path) -> Iterator[tuple[RunningSimulator, WorldClock]]:
    """The paper exchange and this suite's place in its world."""
    with running_simulator(folder) as simulator:
        clock = simulator.clock("contract-suite")
        yield simulator, clock
        clock.close()


@dataclass
class Stage:
    """A harness with the words in which the suite speaks."""

    harness: VenueHarness
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def venue(self) -> Venue:
        return self.harness.venue

    @property
    def clock(self) -> Clock:
        return self.harness.clock

    def can(self, what: Ability | Trait) -> bool:
        return what in self.harness.abilities or what in self.harness.traits

    def pass_time(self, seconds: float = 1.2) -> None:
        self.clock.sleep(seconds)

    def mark(self, symbol: str = "BTCUSDT") -> Decimal:
        return self.venue.quotes([symbol])[symbol].mark

    def price(self, factor: str, symbol: str = "BTCUSDT") -> Decimal:
        """A price on the tick, at `factor` of the mark."""
        step = self.venue.instruments()[symbol].price_step
        return round_down(self.mark(symbol) * Decimal(factor), step)

    def order(self, side: Side, size: str | Decimal, **changes: object) -> OrderRequest:
        values: dict[str, object] = {
            "client_id": f"af-contract-{next(self.numbers)}",
            "symbol": "BTCUSDT",
            "side": side,
            "size": Decimal(size),
            "reduce_only": False,
            **changes,
        }
        return OrderRequest(**values)  # type: ignore[arg-type]

    def resting(self, size: str | Decimal = "0.01", **changes: object) -> OrderRequest:
        """A limit buy under the market."""
        words = {"order_type": OrderType.LIMIT, "price": self.price("0.97"), **changes}
        return self.order(Side.BUY, size, **words)

    def closing(self, size: str | Decimal, symbol: str = "BTCUSDT") -> OrderRequest:
        return self.order(Side.SELL, size, reduce_only=True, symbol=symbol)

    def send(self, *orders: OrderRequest) -> list[Outcome]:
        self.venue.admit_orders(orders)
        outcomes = [result.outcome for result in self.venue.submit(orders)]
        self.pass_time()
        return outcomes

    def held(self, symbol: str = "BTCUSDT") -> Decimal:
        """Signed size of the position; on spot all of the coin."""
        if self.can(Ability.POSITIONS):
            return next((p.size for p in self.venue.positions() if p.symbol == symbol), Decimal(0))
        asset = self.venue.instruments()[symbol].base_asset
        coins = [b for b in self.venue.snapshot().balances if b.asset == asset]
        return sum((coin.free + coin.locked for coin in coins), Decimal(0))

    def about(self, size: str | Decimal) -> object:
        """`size`, or a little less where a buy does not fill its size exactly."""
        exact = self.can(Ability.EXACT_BUYS)
        return pytest.approx(Decimal(size), rel=Decimal(0) if exact else Decimal("0.01"))

    def sellable(self, symbol: str = "BTCUSDT") -> Decimal:
        """What a sale of everything may sell."""
        return round_down(self.held(symbol), self.venue.instruments()[symbol].size_step)
