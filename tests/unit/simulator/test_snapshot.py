"""A world comes back from a snapshot as it would from its whole journal; or from the journal."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest

from module.model.errors import InvalidInput, InvariantViolated
from module.simulator import snapshot
from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import EngineSettings
from module.simulator.faults.fault_words import parse_words
from module.simulator.journal import WorldFolder
from module.simulator.prices.synthetic import SyntheticMarket
from module.simulator.snapshot import (
    SnapshotKeeper,
    bring_back,
    parts_of,
    restore_snapshot,
    take_snapshot,
)
from module.simulator.snapshot_codec import Decoder, Encoder
from module.simulator.venue import JUMP_PRICE, Call, NewAccount, Venue
from module.simulator.wire.bitget_codes import WireError
from module.simulator.wire.bitget_params import Params
from module.simulator.wire.bitget_table import ENDPOINTS
from tests.fakes.scripted_market import START_MS

pytestmark = pytest.mark.timeout(120)
D = Decimal
MARKET = SyntheticMarket(11)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")
MIX = "POST /api/v2/mix"
ACCOUNT = NewAccount("key", "secret", "pass", futures_usdt=D(50_000), spot={"USDT": D(9_000)})


def venue_maker(folder: WorldFolder) -> Callable[[], Venue]:
    return lambda: Venue(Engine(MARKET, EngineSettings(), START_MS), ENDPOINTS, folder)


def new_world(path: Path) -> tuple[WorldFolder, Venue]:
    folder = WorldFolder(path)
    folder.start_world({"market_id": MARKET.market_id, "start_ms": START_MS})
    venue = venue_maker(folder)()
    venue.open_account(ACCOUNT)
    return folder, venue


def come_back(path: Path) -> Venue:
    folder = WorldFolder(path)
    try:
        folder.read_header()
        return bring_back(venue_maker(folder), folder)
    finally:
        folder.close()


def request(venue: Venue, name: str, **words: object) -> None:
    """What a client sends; refusals are part of the game."""
    account_id = venue.keys["key"].account_id
    params = Params({key: str(value) for key, value in words.items()})
    with suppress(WireError):
        venue.execute(ENDPOINTS[name], Call(venue.engine, account_id, params))


def live_an_hour(venue: Venue, random: Random, steps: int = 60) -> None:
    """Orders, plans, stops, cancels, spot, jumps: whatever leaves state behind."""
    common = {"productType": "USDT-FUTURES", "marginCoin": "USDT", "marginMode": "crossed"}
    for step in range(steps):
        venue.advance_to(venue.now_ms + random.choice((0, 7, 60, 4_000, 61_000, 300_000)))
        symbol = random.choice(SYMBOLS)
        rules, last = venue.engine.futures_instruments()[symbol], venue.engine.last_price(symbol)

        def price(factor: str, last: Decimal = last, tick: Decimal = rules.price_step) -> Decimal:
            return (last * D(factor) / tick).to_integral_value() * tick

        usdt = D(random.randrange(50, 900))
        size = (usdt / last / rules.size_step).to_integral_value() * rules.size_step
        order = {**common, "symbol": symbol, "size": size, "side": random.choice(("buy", "sell"))}
        kind = random.randrange(8)
        if kind < 3:
            lower, upper = price("0.995"), price("1.005")
            loss, profit = (lower, upper) if order["side"] == "buy" else (upper, lower)
            presets = {"presetStopLossPrice": loss, "presetStopSurplusPrice": profit}
            words = {**order, "orderType": "market", "clientOid": f"m-{venue.now_ms}-{step}"}
            request(venue, f"{MIX}/order/place-order", **words, **presets)
        elif kind == 3:
            words = {**order, "orderType": "limit", "force": "gtc", "price": price("0.999")}
            request(venue, f"{MIX}/order/place-order", **words)
        elif kind == 4:
            words = {**order, "orderType": "market", "planType": "normal_plan"}
            trigger = {"triggerPrice": price("1.001"), "triggerType": "mark_price"}
            request(venue, f"{MIX}/order/place-plan-order", **words, **trigger)
        elif kind == 5:
            words = {"symbol": symbol, "side": "buy", "orderType": "market", "size": "55"}
            request(venue, "POST /api/v2/spot/trade/place-order", **words)
        elif kind == 6:
            request(venue, f"{MIX}/order/cancel-all-orders", **common, symbol=symbol)
        else:
            factor = str(D(random.randrange(97, 104)) / 100)
            venue.control(JUMP_PRICE, "", {"symbol": symbol, "factor": factor})


def story_of(venue: Venue) -> tuple[object, ...]:
    """Everything that a client could ask about."""
    engine, account = venue.engine, venue.keys["key"].account_id
    return (
        engine.now_ms,
        engine.ledger_dump(),
        engine.next_event_ms(),
        engine.all_orders(account),
        engine.positions(account),
        engine.plans(account),
        engine.plan_history(account),
        engine.bills(account),
        engine.position_history(account),
        engine.spot_balances(account),
        [engine.last_price(symbol) for symbol in SYMBOLS],
        [engine.leverage(account, symbol) for symbol in SYMBOLS],
    )


@pytest.mark.parametrize("seed", range(3))
def test_snapshot_and_journal_bring_back_the_same_world_and_it_goes_on_the_same(
    tmp_path: Path, seed: int
) -> None:
    folder, venue = new_world(tmp_path)
    words = {"operation": "place-order", "answer": "drop", "nth": 99_999}
    venue.faults.add(parse_words(words, venue.now_ms))
    live_an_hour(venue, Random(seed))
    folder.write_snapshot(take_snapshot(venue, folder))
    live_an_hour(venue, Random(seed + 50), steps=20)  # only the journal has these
    folder.close()
    by_snapshot = come_back(tmp_path)
    (tmp_path / "snapshot.json").unlink()
    by_journal = come_back(tmp_path)
    assert venue.engine.position_history(venue.keys["key"].account_id), "nothing ever closed"
    for back in (by_snapshot, by_journal):
        back.advance_to(venue.now_ms)
        assert story_of(back) == story_of(venue)
        assert len(back.faults.rules) == 1
        live_an_hour(back, Random(seed + 99), steps=25)
    live_an_hour(venue, Random(seed + 99), steps=25)
    assert story_of(by_snapshot) == story_of(by_journal) == story_of(venue)


def test_a_snapshot_that_does_not_fit_is_left_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, venue = new_world(tmp_path)
    live_an_hour(venue, Random(5), steps=15)
    good = take_snapshot(venue, folder)
    head, _, body = good.partition(b"\n")
    wrong_tail = head.replace(b'"journal_tail": "', b'"journal_tail": "0')
    for content in (
        b"",
        b"{}",
        b"not json\n",
        good[:-40],
        wrong_tail + b"\n" + body,
        head + b"\n" + body.replace(b"BTCUSDT", b"BTCUSDX", 1),
    ):
        folder.write_snapshot(content)
        assert restore_snapshot(venue_maker(folder)(), folder) == 0
    folder.write_snapshot(good)
    assert restore_snapshot(venue_maker(folder)(), folder) == folder.length
    monkeypatch.setattr(snapshot, "program_digest", lambda: "another program")
    assert restore_snapshot(venue_maker(folder)(), folder) == 0
    folder.close()
    assert story_of(come_back(tmp_path)) == story_of(venue)


def test_what_cannot_be_kept_is_an_error_and_not_left_out(tmp_path: Path) -> None:
    folder, venue = new_world(tmp_path)
    venue.engine.world.something_new = lambda: None  # type: ignore[attr-defined]
    with pytest.raises(InvariantViolated, match="cannot be kept"):
        take_snapshot(venue, folder)
    folder.close()


def test_only_classes_of_ours_are_made_from_a_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no class of ours"):
        Decoder([], [("os:_Environ", [])])
    with pytest.raises(InvalidInput, match="no class of ours"):
        Decoder([], []).decode(["e", "subprocess:Popen", "true"])
    folder, venue = new_world(tmp_path)
    assert len(Encoder(parts_of(venue)).document()) == 3
    folder.close()


def test_the_keeper_writes_when_enough_was_done_and_the_world_goes_on_meanwhile(
    tmp_path: Path,
) -> None:
    folder, venue = new_world(tmp_path)
    keeper = SnapshotKeeper(venue, folder, time.monotonic, after_s=1e-9)
    live_an_hour(venue, Random(8), steps=20)
    at_the_fork = folder.position()
    keeper.look()
    live_an_hour(venue, Random(9), steps=20)
    venue.spent_s = 0.0
    keeper.finish()
    assert restore_snapshot(venue_maker(folder)(), folder) == at_the_fork[0]
    keeper.look()
    assert folder.position() != at_the_fork
    folder.close()
    assert story_of(come_back(tmp_path))[1] == story_of(venue)[1]
