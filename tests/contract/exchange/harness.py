"""What the venue contract needs of a venue: an account, a clock, and a way to make it fail.

A further venue is one more class here and its name in `HARNESSES`; the suite does not change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Protocol

import pytest

from module.clock import WorldClock
from module.exchange import bitget_futures, bitget_requests
from module.exchange.bitget_venue import CcxtVenues
from module.exchange.venue import Venue, VenueAccess
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
from module.model.orders import OrderRequest, Outcome, Side
from module.ports import Clock
from tests.fakes.hand_clock import HandClock
from tests.fakes.memory_venue import MemoryVenue
from tests.fakes.simulator_process import RunningSimulator, running_simulator


class Failure(StrEnum):
    """How the next call of an operation goes wrong."""

    LOST_ANSWER = "it happens, and the answer is lost"
    NO_MONEY = "the account has not enough money"
    AGAINST_RULES = "size or price break rules that we do not know yet"
    RATE_LIMITED = "too many requests, come back in seven seconds"
    MAINTENANCE = "the exchange is down for upkeep"
    BAD_KEYS = "the keys are refused"
    NONSENSE = "it happens, and the answer is not the exchange's"


class Operation(StrEnum):
    """What can be made to fail."""

    SUBMIT = "submit"
    POSITIONS = "positions"
    SET_STOP = "set_stop"


class VenueHarness(Protocol):
    """One account of one venue, fresh, with 10,007 USDT in one-way mode."""

    @property
    def venue(self) -> Venue: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def pays_fees(self) -> bool: ...

    def fail_next(self, operation: Operation, failure: Failure) -> None:
        """The next call of `operation` goes wrong like this; the ones after go well."""
        ...

    def move_price(self, symbol: str, factor: str) -> None:
        """The market jumps: all prices of `symbol` times `factor`."""
        ...

    def fill_part(self, client_id: str) -> None:
        """At the next look at it some of a resting order is filled, and the rest is over."""
        ...

    def to_hedge_mode(self) -> None:
        """Somebody switches the account's position mode at the exchange."""
        ...

    def use_small_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Histories come in pages of three rows."""
        ...


class MemoryHarness:
    """The fake."""

    pays_fees = False

    def __init__(self) -> None:
        self.clock = HandClock()
        self.fake = MemoryVenue(self.clock)
        self.venue: Venue = self.fake

    def fail_next(self, operation: Operation, failure: Failure) -> None:
        events: dict[Failure, AifapError | str] = {
            Failure.LOST_ANSWER: "lost",
            Failure.NONSENSE: "lost",
            Failure.NO_MONEY: Rejected("no money", code="40762"),
            Failure.AGAINST_RULES: Rejected("another lot", code="rules"),
            Failure.RATE_LIMITED: RateLimited("slow down", retry_after_s=7),
            Failure.MAINTENANCE: Unavailable("upkeep"),
            Failure.BAD_KEYS: Forbidden("bad keys"),
        }
        name = operation.value
        if operation is Operation.SUBMIT and failure in (Failure.NO_MONEY, Failure.AGAINST_RULES):
            name = "submit_one"
        self.fake.script[name].append(events[failure])

    def move_price(self, symbol: str, factor: str) -> None:
        self.fake.marks[symbol] *= Decimal(factor)

    def fill_part(self, client_id: str) -> None:
        self.fake.fill_part(client_id)

    def to_hedge_mode(self) -> None:
        self.fake.position_mode = PositionMode.HEDGE

    def use_small_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It has no pages."""


_PATHS = {
    Operation.SUBMIT: "place-order",
    Operation.POSITIONS: "all-position",
    Operation.SET_STOP: "place-tpsl-order",
}


class BitgetHarness:
    """Bitget's adapter against the paper exchange, over real HTTP."""

    pays_fees = True

    def __init__(self, simulator: RunningSimulator, clock: WorldClock) -> None:
        self.simulator = simulator
        self.clock = clock
        self.keys = simulator.open_account()
        budget = RequestBudget(clock)
        gate = budget.for_account(simulator.base_url, self.keys.api_key)
        access = VenueAccess(
            "acc", simulator.base_url, MarketType.FUTURES, TradeEnv.PAPER, self.keys
        )
        self.venue = CcxtVenues(clock).open_venue("bitget", access, gate)
        clock.sleep(1.2)

    def fail_next(self, operation: Operation, failure: Failure) -> None:
        words: dict[Failure, dict[str, object]] = {
            Failure.LOST_ANSWER: {"answer": "drop"},
            Failure.NONSENSE: {"answer": "body", "body": "<html>502</html>"},
            Failure.NO_MONEY: {"answer": "code", "code": "40762", "moment": "before"},
            Failure.AGAINST_RULES: {"answer": "code", "code": "45115", "moment": "before"},
            Failure.RATE_LIMITED: {"catalogue": "A12", "retry_after_s": 7, "count": 1},
            Failure.MAINTENANCE: {"answer": "code", "code": "40200", "moment": "before"},
            Failure.BAD_KEYS: {"answer": "code", "code": "40037", "moment": "before"},
        }
        rule = {"operation": _PATHS[operation], **words[failure]}
        self.simulator.control("POST", "faults", rule)

    def move_price(self, symbol: str, factor: str) -> None:
        self.simulator.control("POST", "prices", {"symbol": symbol, "factor": factor})

    def fill_part(self, client_id: str) -> None:
        self.simulator.control(
            "POST",
            "faults",
            {"operation": "detail", "effect": "fill_part", "moment": "before", "share": "0.4"},
        )

    def to_hedge_mode(self) -> None:
        self.simulator.control(
            "POST", "faults", {"catalogue": "A22", "operation": "all-position", "moment": "before"}
        )
        self.venue.positions()
        self.clock.sleep(1.2)

    def use_small_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bitget_requests, "PAGE_LIMIT", 3)
        monkeypatch.setattr(bitget_futures, "PAGE_LIMIT", 3)


HARNESSES = ("memory", "bitget")


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

    def pass_time(self, seconds: float = 1.2) -> None:
        self.clock.sleep(seconds)

    def mark(self, symbol: str = "BTCUSDT") -> Decimal:
        return self.venue.quotes([symbol])[symbol].mark

    def price(self, factor: str, symbol: str = "BTCUSDT") -> Decimal:
        """A price on the tick, at `factor` of the mark."""
        step = self.venue.instruments()[symbol].price_step
        return round_down(self.mark(symbol) * Decimal(factor), step)

    def order(self, side: Side, size: str, **changes: object) -> OrderRequest:
        values: dict[str, object] = {
            "client_id": f"af-contract-{next(self.numbers)}",
            "symbol": "BTCUSDT",
            "side": side,
            "size": Decimal(size),
            "reduce_only": False,
            **changes,
        }
        return OrderRequest(**values)  # type: ignore[arg-type]

    def send(self, *orders: OrderRequest) -> list[Outcome]:
        self.venue.admit_orders(orders)
        outcomes = [result.outcome for result in self.venue.submit(orders)]
        self.pass_time()
        return outcomes

    def held(self, symbol: str = "BTCUSDT") -> Decimal:
        return next((p.size for p in self.venue.positions() if p.symbol == symbol), Decimal(0))
