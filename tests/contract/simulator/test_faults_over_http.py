"""Faults of the socket, and the control door that orders them, against a real process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from module.clock import WorldClock
from tests.fakes.paper_exchange import BTC, MIX, USDT, RawBitget, SimulatorProcess, market_order

pytestmark = pytest.mark.timeout(120)
PLACE = f"{MIX}/order/place-order"
DETAIL = f"{MIX}/order/detail"


@pytest.fixture(autouse=True)
def no_faults_are_left(simulator: SimulatorProcess) -> Iterator[None]:
    yield
    simulator.control("DELETE", "faults")


def fault(simulator: SimulatorProcess, **words: object) -> None:
    simulator.control("POST", "faults", words)


def fired(simulator: SimulatorProcess) -> dict[str, int]:
    rules = simulator.control("GET", "faults")["rules"]
    return {rule["fault"]: rule["fired"] for rule in rules}


def detail(raw: RawBitget, client_id: str) -> Any:
    return raw.call("GET", DETAIL, {"symbol": "BTCUSDT", "clientOid": client_id, **USDT})


def test_A4_a_reset_and_a_cut_answer_are_broken_connections_and_the_order_is_there(
    simulator: SimulatorProcess, raw: RawBitget, clock: WorldClock
) -> None:
    fault(simulator, catalogue="A4")
    with pytest.raises(urllib3.exceptions.ProtocolError) as caught:
        raw.post(PLACE, **market_order("buy", "0.01", clientOid="reset"))
    assert "reset" in str(caught.value).lower()
    fault(simulator, catalogue="A4", variant="cut")
    with pytest.raises(urllib3.exceptions.ProtocolError):
        raw.post(PLACE, **market_order("buy", "0.01", clientOid="cut"))
    clock.sleep(1)
    states = [detail(raw, client_id)["data"]["state"] for client_id in ("reset", "cut")]
    assert states == ["filled", "filled"]


def test_A3_a_request_that_is_held_back_arrives_in_world_time(
    simulator: SimulatorProcess, raw: RawBitget, clock: WorldClock
) -> None:
    fault(simulator, catalogue="A3", hold_s=8)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        raw.post(PLACE, **market_order("buy", "0.01", clientOid="late"))
    clock.sleep(7)
    assert detail(raw, "late")["code"] == "40109"
    clock.sleep(2)
    assert detail(raw, "late")["data"]["state"] == "filled"
    assert fired(simulator) == {"A3": 1}


def test_A10_A14_the_control_door_stays_open_while_nothing_else_answers(
    simulator: SimulatorProcess, raw: RawBitget, clock: WorldClock
) -> None:
    fault(simulator, catalogue="A10", variant="all", count=3)
    for _ in range(3):
        with pytest.raises(urllib3.exceptions.ProtocolError):
            detail(raw, "x")
    fault(simulator, catalogue="A14", variant="40200", span_s=60)
    assert detail(raw, "x")["code"] == "40200"
    assert fired(simulator) == {"A10": 3, "A14": 1}
    clock.sleep(60)
    assert detail(raw, "x")["code"] == "40109"


def test_A24_a_slow_answer_outlasts_the_clients_patience(
    simulator: SimulatorProcess, raw: RawBitget, clock: WorldClock
) -> None:
    fault(simulator, catalogue="A24", delay_s=1, span_s=30)
    raw.pool = urllib3.PoolManager(retries=False, timeout=0.2)
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        raw.post(PLACE, **market_order("buy", "0.01", clientOid="slow"))
    clock.sleep(30)
    raw.pool = urllib3.PoolManager(retries=False, timeout=30)
    assert detail(raw, "slow")["data"]["state"] == "filled"


def test_an_effect_at_a_world_time_wakes_a_world_that_waits(
    simulator: SimulatorProcess, raw: RawBitget, clock: WorldClock
) -> None:
    account = simulator.control("GET", f"ledger?account_id={raw.key}")["accounts"][0]
    own = {"account_id": account["account_id"], "symbol": "BTCUSDT"}
    fault(simulator, at_s=90, effect="foreign_order", side="buy", amount="0.05", **own)
    clock.sleep(89)
    words: dict[str, object] = {**BTC}
    assert raw.get(f"{MIX}/position/single-position", **words) == []
    clock.sleep(2)
    (row,) = raw.get(f"{MIX}/position/single-position", **words)
    assert row["total"] == "0.05"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"catalogue": "A99"}, "A99"),
        ({"catalogue": "A25"}, "A25"),
        ({"catalogue": "A9", "lag": 3}, "lag"),
        ({"seed": 7, "ids": ["B99"]}, "B99"),
        ({"operation": "place-order", "answer": "lie"}, "lie"),
    ],
)
def test_wrong_words_are_422_and_add_nothing(
    simulator: SimulatorProcess, words: dict[str, object], named: str
) -> None:
    status, problem = simulator.control_raw("POST", "faults", words)
    assert (status, named in problem["detail"]) == (422, True)
    assert simulator.control("GET", "faults") == {"rules": []}


def test_a_seeded_plan_is_the_same_whenever_it_is_asked_for(simulator: SimulatorProcess) -> None:
    words = {"seed": 7, "density": 2.5, "horizon_s": 7200}
    shown: list[list[tuple[object, ...]]] = []
    for _ in range(2):
        rules = simulator.control("POST", "faults", words)["rules"]
        shown.append([(rule["fault"], rule["operation"], rule["skip"]) for rule in rules])
        simulator.control("DELETE", "faults")
    assert shown[0] == shown[1]
    assert len(shown[0]) >= 5


def test_the_catalogue_can_be_read(simulator: SimulatorProcess) -> None:
    listed = simulator.control("GET", "faults/catalogue")["faults"]
    assert len(listed) == 48
    assert {"excuse", "variants", "counts", "title"} <= set(listed[0])
