"""Which time without a stop is the exchange's, which is ours: the judge's clock."""

from __future__ import annotations

from module.simulator.faults.fault_catalogue import catalogue_words
from module.simulator.faults.fault_words import parse_words
from module.simulator.faults.faults import FaultRule
from module.simulator.wire.wire_answer import Ending, Reply, WireAnswer
from tests.simulation.exchange_side import Carried
from tests.simulation.hub import Hub, Process
from tests.simulation.true_answers import TrueAnswers

STOP = "/api/v2/mix/order/place-tpsl-order"
POSITIONS = "/api/v2/mix/position/all-position"
TICKERS = "/api/v2/mix/market/tickers"
SENT_MS, SERVED_MS = 100_000, 100_020


def carried(path: str, symbol: str, reply: Reply, served_ms: int = SERVED_MS) -> Carried:
    params = {"symbol": symbol} if symbol else {}
    process = Process(Hub(0, 1), "gateway", "gateway-1")
    return Carried(served_ms - 20, served_ms, process, "POST", path, params, reply)


def fired(fault: str, variant: str = "", lasts_s: int = 60) -> FaultRule:
    own: dict[str, object] = {"from_s": 0, "until_s": lasts_s}
    rule = FaultRule(parse_words(catalogue_words(fault, variant, own)[0], SENT_MS))
    rule.fired = 1
    return rule


def reply(status: int = 200, ending: Ending = Ending.ANSWERED, **headers: str) -> Reply:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(WireAnswer(status, b"{}", named), ending)


def test_a_lost_stop_stops_the_clock_of_its_own_position_while_it_is_under_way() -> None:
    truth = TrueAnswers()
    truth.spoiled(carried(STOP, "BTCUSDT", reply(ending=Ending.RESET)), [fired("B5", "done")])
    assert truth.withheld_ms("BTCUSDT", 90_000, 130_000) == 84
    assert truth.withheld_ms("ETHUSDT", 90_000, 130_000) == 0


def test_what_a_fault_does_inside_the_exchange_stops_no_clock() -> None:
    truth = TrueAnswers()
    truth.spoiled(carried(POSITIONS, "", reply()), [fired("B10", "cancelled")])
    assert truth.withheld_ms("BTCUSDT", 90_000, 130_000) == 0


def test_a_lie_about_prices_has_nothing_to_do_with_stops() -> None:
    truth = TrueAnswers()
    truth.spoiled(carried(TICKERS, "", reply(ending=Ending.RESET)), [fired("B5", "done")])
    assert truth.withheld_ms("BTCUSDT", 90_000, 130_000) == 0


def test_A14_an_outage_stops_every_clock_until_it_is_over() -> None:
    truth, rule = TrueAnswers(), fired("A14", "503", lasts_s=30)
    rule.started_ms = SENT_MS
    truth.spoiled(carried(TICKERS, "", reply(503)), [rule])
    assert truth.withheld_ms("BTCUSDT", 90_000, 120_000) == 19_980
    assert truth.withheld_ms("BTCUSDT", 90_000, 150_000) == 29_980


def test_A12_after_a_429_the_silence_that_it_asked_for_is_not_ours() -> None:
    truth = TrueAnswers()
    refusal = reply(429, Retry_After="7")
    truth.spoiled(carried("/api/v2/mix/order/place-order", "BTCUSDT", refusal), [fired("A12")])
    assert truth.withheld_ms("ETHUSDT", 90_000, 130_000) == 7_084


def test_A16_refused_keys_stop_every_clock_until_they_are_taken_again() -> None:
    truth, rule = TrueAnswers(), fired("A16", "40037", lasts_s=10)
    truth.spoiled(carried(POSITIONS, "", reply(400)), [rule])
    assert truth.withheld_ms("BTCUSDT", 90_000, 200_000) == 100_000
    truth.answered(carried(POSITIONS, "", reply(), 150_000))
    assert truth.withheld_ms("BTCUSDT", 90_000, 200_000) == 50_000


def test_a_gateway_that_stands_still_stops_the_clock_and_spans_are_counted_once() -> None:
    truth = TrueAnswers()
    truth.spoiled(carried(STOP, "BTCUSDT", reply(ending=Ending.SILENT)), [fired("B5", "done")])
    assert truth.withheld_ms("BTCUSDT", 90_000, 130_000, [(105_000, 112_000)]) == 12_000
    assert truth.withheld_ms("BTCUSDT", 111_000, 130_000, [(105_000, 112_000)]) == 1_000
