"""The spot adapter over the real wire: balances, buys in quote coin, sells in base coin."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest

from module.clock import WorldClock
from module.exchange.bitget_venue import CcxtVenues
from module.exchange.venue import Venue, VenueAccess
from module.gateway.budget import RequestBudget
from module.model.accounts import BillKind, TradeEnv
from module.model.errors import InvalidInput, NotFound
from module.model.market import Frequency, MarketType
from module.model.money import round_down
from module.model.orders import OrderRequest, OrderStatus, OrderType, Outcome, Side, StopPrices
from tests.fakes.simulator_process import RunningSimulator, running_simulator

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("simulator")) as running:
        yield running


@pytest.fixture
def clock(simulator: RunningSimulator) -> Iterator[WorldClock]:
    with simulator.clock("spot-suite") as clock:
        yield clock


@pytest.fixture
def venue(simulator: RunningSimulator, clock: WorldClock) -> Iterator[Venue]:
    credentials = simulator.open_account(futures_usdt="0", spot_usdt="5003")
    access = VenueAccess("acc", simulator.base_url, MarketType.SPOT, TradeEnv.PAPER, credentials)
    gate = RequestBudget(clock).for_account(simulator.base_url, credentials.api_key)
    venue = CcxtVenues(clock).open_venue("bitget", access, gate)
    yield venue
    venue.close()
    clock.sleep(1.2)


def order(client_id: str, side: Side, size: str, **changes: object) -> OrderRequest:
    values: dict[str, object] = {
        "client_id": client_id,
        "symbol": "ETHUSDT",
        "side": side,
        "size": Decimal(size),
        "reduce_only": side is Side.SELL,
        **changes,
    }
    return OrderRequest(**values)  # type: ignore[arg-type]


def test_a_buy_and_a_sell_move_the_balances(venue: Venue, clock: WorldClock) -> None:
    assert venue.snapshot().equity == Decimal(5003)
    bought = order("af-spot-1", Side.BUY, "0.5")
    venue.admit_orders([bought])
    assert [r.outcome for r in venue.submit([bought])] == [Outcome.ACCEPTED]
    clock.sleep(1.2)
    report = venue.order("ETHUSDT", "af-spot-1")
    assert report.status is OrderStatus.FILLED
    assert report.filled_size == pytest.approx(Decimal("0.5"), rel=Decimal("0.01"))
    assert venue.look_up(bought).outcome is Outcome.ACCEPTED
    balances = {item.asset: item for item in venue.snapshot().balances}
    step = venue.instruments()["ETHUSDT"].size_step
    held = round_down(balances["ETH"].free, step)
    assert held > 0
    sold = order("af-spot-2", Side.SELL, str(held))
    venue.admit_orders([sold])
    assert [r.outcome for r in venue.submit([sold])] == [Outcome.ACCEPTED]
    clock.sleep(1.2)
    snapshot = venue.snapshot()
    assert {b.asset: round_down(b.free, step) for b in snapshot.balances}.get("ETH", 0) == 0
    assert Decimal(4900) < snapshot.equity < Decimal(5003)
    fills = venue.fills(clock.now().replace(year=2020))
    assert {fill.side for fill in fills} == {Side.BUY, Side.SELL}
    assert all(fill.fee < 0 for fill in fills)
    kinds = {bill.kind for bill in venue.bills(clock.now().replace(year=2020))}
    assert BillKind.TRANSFER in kinds


def test_the_same_buy_again_is_the_same_order(venue: Venue, clock: WorldClock) -> None:
    bought = order("af-spot-9", Side.BUY, "0.1")
    for _ in range(2):
        venue.admit_orders([bought])
        assert [r.outcome for r in venue.submit([bought])] == [Outcome.ACCEPTED]
        clock.sleep(1.2)
    assert len(venue.fills(clock.now().replace(year=2020))) == 1


def test_a_limit_order_rests_and_is_cancelled(venue: Venue, clock: WorldClock) -> None:
    price = round_down(
        venue.quotes(["ETHUSDT"])["ETHUSDT"].last * Decimal("0.97"),
        venue.instruments()["ETHUSDT"].price_step,
    )
    resting = order("af-spot-3", Side.BUY, "0.1", order_type=OrderType.LIMIT, price=price)
    venue.admit_orders([resting])
    assert [r.outcome for r in venue.submit([resting])] == [Outcome.ACCEPTED]
    assert [r.client_id for r in venue.snapshot().open_orders] == ["af-spot-3"]
    venue.cancel("ETHUSDT", "af-spot-3")
    clock.sleep(1.2)
    assert venue.order("ETHUSDT", "af-spot-3").status is OrderStatus.CANCELED
    venue.cancel("ETHUSDT", "af-spot-3")


def test_what_spot_has_not_is_refused_by_name(venue: Venue) -> None:
    with pytest.raises(InvalidInput, match="software_stops"):
        venue.set_stop("ETHUSDT", is_stop_loss=True, protects_long=True, trigger_price=Decimal(1))
    with pytest.raises(InvalidInput):
        venue.trading_mode("ETHUSDT")
    stopped = order("af-spot-4", Side.BUY, "0.1", stops=StopPrices(Decimal(1000)))
    venue.admit_orders([stopped])
    assert [(r.outcome, r.code) for r in venue.submit([stopped])] == [(Outcome.REJECTED, "stops")]
    with pytest.raises(NotFound):
        venue.order("ETHUSDT", "af-spot-4")


def test_spot_candles_are_closed_and_on_the_grid(
    simulator: RunningSimulator, clock: WorldClock
) -> None:
    gate = RequestBudget(clock).for_account(simulator.base_url, "public")
    market = CcxtVenues(clock).open_public("bitget", simulator.base_url, gate)
    candles = market.candles(MarketType.SPOT, "ETHUSDT", Frequency.MINUTE_1, clock.now(), 7)
    assert len(candles) == 7
    assert "ETHUSDT" in market.instruments(MarketType.SPOT)
    market.close()
