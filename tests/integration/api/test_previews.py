"""`/temp`: what would be traded now is what would be traded, and only that is carried out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from module.clock import SystemClock
from module.db.repositories.users import Role, UserRecord
from module.files.preview_store import PreviewStore
from module.model.accounts import TradeEnv
from module.model.canonical import canonical_json, parse_instant
from module.model.errors import NotYet, StrategyFailed, Unavailable
from module.model.market import MarketType
from module.model.orders import StopPrices
from module.model.sessions import SessionState
from module.settings import Settings
from tests.fakes.asgi_client import AsgiClient
from tests.fakes.order_info import MemoryOrderInfoStore
from tests.fakes.platform import FakePlatform, fake_platform
from tests.fakes.previews import FakePreviews
from trading.rebalance.decision import CycleInputs
from trading.rebalance.given_plan import given_plan_from_json
from trading.rebalance.order_info import requested, to_json
from trading.rebalancing_strategy import StrategyWiring, execute_strategy, policy_of
from trading.session.bells import Bells

PREVIEW, EXECUTE = "/temp/preview", "/temp/execute"
BY_HAND: dict[str, object] = {"BTCUSDT": {"weight": 0.3, "presetStopLossPrice": 55000}}


@dataclass(frozen=True, slots=True)
class Desk:
    """One person with one account, and what previews see."""

    platform: FakePlatform
    ports: FakePreviews
    user: UserRecord
    client: AsgiClient
    account_id: str

    def preview(self, **body: object) -> Any:
        answer = self.client.post(PREVIEW, body)
        assert answer.status == 200, answer.body
        return answer.json()

    def execute(self, plan_hash: str, key: str | None = None) -> Any:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.client.call("POST", EXECUTE, document={"plan_hash": plan_hash}, headers=headers)

    def start_session(self) -> str:
        body = {
            "tradeType": "futures",
            "strategy_name": "momentum",
            "trade_mode": "rebalancing",
            "trade_env": "paper",
            "account_id": self.account_id,
        }
        answer = self.client.post("/command/run-system", body)
        assert answer.status == 200, answer.body
        return str(answer.json()["session_id"])


@pytest.fixture
def desk(postgres: Settings, tmp_path: Path) -> Iterator[Desk]:
    ports = FakePreviews()
    platform = fake_platform(postgres, tmp_path, ports)
    user, client = person(platform)
    account_id = platform.gateway.put(
        user.user_id, "desk", MarketType.FUTURES, TradeEnv.PAPER, Decimal(10_007)
    )
    yield Desk(platform, ports, user, client, account_id)
    platform.close()


def person(platform: FakePlatform, role: Role = Role.TRADER) -> tuple[UserRecord, AsgiClient]:
    return platform.person(f"person-{datetime.now(UTC).timestamp()}".replace(".", "-"), role)


def test_a_preview_of_weights_tells_orders_costs_margin_and_liquidation(desk: Desk) -> None:
    desk.ports.exchange.hold("SOLUSDT", "20")
    desk.ports.exchange.leverage = Decimal(3)

    found = desk.preview(weights={**BY_HAND, "ETHUSDT": -0.2, "XRPUSDT": "0.001"}, leverage=3)

    assert [(leg["symbol"], leg["action"], leg["side"]) for leg in found["legs"]] == [
        ("SOLUSDT", "close", "sell"),
        ("BTCUSDT", "open", "buy"),
        ("ETHUSDT", "open", "sell"),
    ]
    leg = found["legs"][1]
    assert leg["stop_loss"] == "55000"
    mark = Decimal(leg["reference_price"])
    assert Decimal(leg["estimate"]["average_price"]) == (mark * Decimal("1.0002")).quantize(
        Decimal("1e-8")
    )
    assert Decimal(leg["estimate"]["slippage_fraction"]) == Decimal("0.0002")
    totals = found["totals"]
    paid = sum(Decimal(item["estimate"]["fee"]) for item in found["legs"])
    assert abs(Decimal(totals["fees"]) - paid) < Decimal("0.001")
    lost = Decimal(found["before"]["equity"]) - Decimal(found["after"]["equity"])
    assert abs(lost - Decimal(totals["cost"])) < Decimal("0.001")
    lines = {line["symbol"]: line for line in found["positions"]}
    assert lines["SOLUSDT"]["after"]["size"] == "0"
    assert Decimal(lines["ETHUSDT"]["after"]["liquidation_price"]) > mark / 20
    assert lines["ETHUSDT"]["before"]["liquidation_price"] is None
    (skipped,) = found["skipped"]
    assert (skipped["symbol"], skipped["reason"]) == ("XRPUSDT", "below_threshold")
    assert skipped["words"] == "the difference is smaller than the threshold"
    assert Decimal(skipped["residual"]) == Decimal("0.001")
    assert found["targets"]["ETHUSDT"] == {"weight": "-0.2"}
    assert "without a stop loss afterwards: ETHUSDT" in found["notes"]
    assert found["executable"] is True
    made, until = parse_instant(found["made_at"]), parse_instant(found["fresh_until"])
    assert until - made == timedelta(seconds=60)
    assert desk.ports.exchange.ledger == []
    assert desk.platform.launcher.started == []


def test_the_book_that_is_too_thin_or_missing_is_said(desk: Desk) -> None:
    desk.ports.books.size_usdt = Decimal(1000)
    desk.ports.books.unlisted.add("ETHUSDT")
    found = desk.preview(weights={"BTCUSDT": 0.3, "ETHUSDT": 0.2}, leverage=2)
    notes = " ".join(found["notes"])
    assert "BTCUSDT: the asks that the exchange shows take" in notes
    assert "ETHUSDT: the exchange shows no order book" in notes
    assert found["positions"][1]["after"]["liquidation_price"] is None


def test_settings_at_the_exchange_that_stand_in_the_way_are_said_before(desk: Desk) -> None:
    desk.ports.exchange.leverage = Decimal(20)
    found = desk.preview(weights=BY_HAND, leverage=3)
    assert found["executable"] is False
    assert found["notes"][0].startswith("BTCUSDT has leverage 20 crossed at the exchange")
    allowed = desk.preview(weights=BY_HAND, leverage=3, apply_account_settings=True)
    assert allowed["executable"] is True
    desk.ports.exchange.hold("BTCUSDT", "0.001")
    held = desk.preview(weights=BY_HAND, leverage=3, apply_account_settings=True)
    assert "only while it is flat" in held["notes"][0]


def test_a_leverage_that_a_symbol_does_not_take_stands_in_the_way(desk: Desk) -> None:
    rules = desk.ports.exchange.rules["BTCUSDT"]
    desk.ports.exchange.rules["BTCUSDT"] = replace(rules, leverage_max=Decimal(20))
    found = desk.preview(weights=BY_HAND, leverage=25, apply_account_settings=True)
    assert found["executable"] is False
    assert found["notes"][0] == "BTCUSDT takes a leverage of at most 20, the plan wants 25"


def test_openings_that_the_money_does_not_reach_for_are_told(desk: Desk) -> None:
    found = desk.preview(weights={"BTCUSDT": 1})
    (note,) = (each for each in found["notes"] if "would be cut" in each)
    assert "left out" not in note
    assert desk.preview(weights={"BTCUSDT": 0.99})["notes"] == [
        "without a stop loss afterwards: BTCUSDT"
    ]


def test_a_strategy_is_asked_in_the_sandbox_as_of_this_minute(desk: Desk) -> None:
    found = desk.preview(strategy_name="momentum", config={"gross": 0.5})
    ((source, at),) = desk.ports.runner.calls
    assert "def strategy(" in source
    assert at.second == at.microsecond == 0
    assert found["strategy_name"] == "momentum"
    assert parse_instant(found["decided_at"]) == at
    assert found["targets"]["BTCUSDT"]["presetStopLossPrice"] == "55000.04"


def test_a_bar_that_is_still_missing_makes_it_a_plan_of_the_minute_before(desk: Desk) -> None:
    desk.ports.market.fails.append(NotYet("the bar has not closed"))
    desk.preview(strategy_name="momentum")
    first, second = (at for _, at in desk.ports.runner.calls)
    assert first - second == timedelta(minutes=1)


def test_a_preview_and_the_next_cycle_of_the_same_inputs_plan_the_same_byte_for_byte(
    desk: Desk,
) -> None:
    desk.ports.exchange.hold("SOLUSDT", "20")
    desk.ports.exchange.hold("ETHUSDT", "0.5")
    session_id = desk.start_session()
    found = desk.preview(session_id=session_id)
    kept = PreviewStore(desk.platform.folder).get(desk.user.user_id, found["plan_hash"])
    given = given_plan_from_json(kept)

    spec = desk.platform.doors.sessions.get(session_id).spec
    clock = SystemClock()
    bells = Bells.create(clock, "leader", "strategy")
    try:
        answer = execute_strategy(
            StrategyWiring(
                spec=spec,
                source=desk.ports.runner.calls[0][0],
                initial_balance=lambda: given.inputs.initial_balance,
                policy=policy_of(spec),
                clock=clock,
                exchange=desk.ports.exchange,
                market=desk.ports.market,
                runner=desk.ports.runner,
                store=MemoryOrderInfoStore(),
                bells=bells,
                house=desk.ports.house,
            ),
            requested(session_id, given.inputs.cycle, 1, 0, 0),
            (),
        )
    finally:
        bells.close()

    cycle, preview = to_json(answer.info), to_json(given.letter)
    assert len(given.letter.legs) == 4  # a flip, an open, a close
    for part in ("legs", "skipped", "stops", "targets", "plan_digest", "strategy_digest"):
        assert canonical_json(cycle[part]) == canonical_json(preview[part])
    assert found["plan_digest"] == cycle["plan_digest"]
    # and so are the inputs, but for who asks and when the account was looked at
    inputs = CycleInputs.from_json(answer.info.inputs)
    account = replace(
        inputs.account, at=given.inputs.account.at, positions=given.inputs.account.positions
    )
    inputs = replace(inputs, session_id=given.inputs.session_id, account=account)
    assert canonical_json(inputs.to_json()) == canonical_json(given.inputs.to_json())


WRONG: list[tuple[dict[str, object], int, str]] = [
    ({}, 422, "give one of session_id, strategy_name and weights"),
    ({"weights": {}, "strategy_name": "momentum"}, 422, "give one of session_id"),
    ({"session_id": "2601010000-aaaa", "leverage": 2}, 422, "leave out leverage"),
    ({"session_id": "2601010000-aaaa"}, 404, "no session"),
    ({"session_id": "nope"}, 422, "not a session id"),
    ({"weights": {"BTCUSDT": "1e-3"}}, 422, "weights.BTCUSDT.weight"),
    ({"weights": {"BTCUSDT": {"weight": 1, "stop": 2}}}, 422, "there is no such field"),
    ({"weights": {"btc": 1}}, 422, "weights"),
    ({"weights": {"BTCUSDT": 0.7, "ETHUSDT": -0.5}}, 422, "weights: "),
    ({"weights": {"NOSUCHUSDT": 0.1}}, 422, "unknown symbol 'NOSUCHUSDT'"),
    ({"strategy_name": "no_such"}, 404, "no strategy"),
    ({"weights": {}, "account_id": "not-mine"}, 404, "no account"),
    ({"weights": {}, "leverage": "2.5"}, 422, "whole number"),
    ({"weights": {}, "fresh_s": 0}, 422, "fresh_s"),
    ({"weights": {}, "fresh_s": "60"}, 422, "fresh_s"),
    ({"weights": {}, "price_tolerance": 0.21}, 422, "price_tolerance"),
    ({"weights": {}, "trade_mode": "volatility_targeting"}, 422, "target_volatility"),
    ({"weights": {}, "owner_id": "x"}, 422, "there is no such field"),
]


def test_what_is_wrong_is_named(desk: Desk) -> None:
    for body, status, word in WRONG:
        answer = desk.client.post(PREVIEW, body)
        assert answer.status == status, (body, answer.body)
        assert answer.headers["content-type"] == "application/problem+json"
        assert word in answer.json()["detail"]
    assert desk.ports.exchange.ledger == []


def test_a_strategy_that_fails_and_an_exchange_that_is_away_are_told(desk: Desk) -> None:
    desk.ports.runner.raises.append(StrategyFailed("line 3: ZeroDivisionError"))
    failed = desk.client.post(PREVIEW, {"strategy_name": "momentum"})
    assert (failed.status, failed.json()["code"]) == (422, "strategy-failed")
    assert "ZeroDivisionError" in failed.json()["detail"]
    desk.ports.runner.raises.append(Unavailable("no runner host answers"))
    away = desk.client.post(PREVIEW, {"strategy_name": "momentum"})
    assert (away.status, away.json()["code"]) == (503, "unavailable")


def test_executing_starts_one_session_with_exactly_this_plan(desk: Desk) -> None:
    found = desk.preview(weights=BY_HAND, leverage=2, apply_account_settings=True)

    answer = desk.execute(found["plan_hash"])

    assert answer.status == 200, answer.body
    session_id = answer.json()["session_id"]
    record = desk.platform.doors.sessions.get(session_id)
    spec = record.spec
    assert spec.given_plan == found["plan_hash"]
    assert (spec.account_id, spec.owner_id) == (desk.account_id, desk.user.user_id)
    assert (spec.leverage, spec.cycles_max) == (Decimal(2), 1)
    assert spec.apply_account_settings
    assert record.state is SessionState.STARTING
    assert desk.platform.launcher.started == [session_id]
    kept = PreviewStore(desk.platform.folder).get(desk.user.user_id, found["plan_hash"])
    given = given_plan_from_json(kept)
    assert given.letter.session_id == session_id
    assert given.letter.plan_digest == found["plan_digest"]
    assert policy_of(spec) == given.inputs.policy
    assert PreviewStore(desk.platform.folder).bars(desk.user.user_id, found["plan_hash"])
    latest = desk.platform.doors.audit.latest(1, desk.user.user_id)[0]
    assert (latest.action, latest.subject) == ("execute-preview", session_id)
    assert latest.detail["plan_hash"] == found["plan_hash"]
    told = desk.client.get(f"/temp/previews/{found['plan_hash']}").json()
    assert told["execution"]["state"] == "starting"
    assert told["legs"] == found["legs"]


def test_asked_again_and_from_many_sides_it_is_one_session(desk: Desk) -> None:
    plan_hash = desk.preview(weights=BY_HAND)["plan_hash"]
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: desk.execute(plan_hash), range(6)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.json()["session_id"] for answer in answers}) == 1
    rows = desk.platform.doors.audit.latest(50, desk.user.user_id)
    assert [row.action for row in rows].count("execute-preview") == 1


def test_an_idempotency_key_gets_the_same_answer_and_no_other_body(desk: Desk) -> None:
    first, second = (desk.preview(weights={"BTCUSDT": w})["plan_hash"] for w in (0.3, 0.4))
    answer = desk.execute(first, "key-7")
    again = desk.execute(first, "key-7")
    assert (answer.status, again.status) == (200, 200)
    assert answer.json() == again.json()
    other = desk.execute(second, "key-7")
    assert other.status == 409
    assert "another request" in other.json()["detail"]


def refused(desk: Desk, plan_hash: str, *words: str) -> None:
    answer = desk.execute(plan_hash)
    problem = answer.json()
    assert (answer.status, problem["code"]) == (409, "conflict"), answer.body
    for word in words:
        assert word in problem["detail"]
    assert desk.platform.launcher.started == []
    assert desk.platform.doors.sessions.living_on_account(desk.account_id) is None


def test_an_old_plan_is_refused(desk: Desk) -> None:
    found = desk.preview(weights=BY_HAND, fresh_s=1)
    clock = SystemClock()
    clock.sleep_until(parse_instant(found["fresh_until"]) + timedelta(milliseconds=5))
    refused(desk, found["plan_hash"], "s old, and was good for 1 s", "make another preview")


def test_changed_positions_prices_and_epochs_are_refused_and_told(desk: Desk) -> None:
    plan_hash = desk.preview(weights={"BTCUSDT": 0.3, "ETHUSDT": 0.2})["plan_hash"]
    desk.ports.exchange.hold("ADAUSDT", "70")
    desk.ports.exchange.marks["ETHUSDT"] *= Decimal("0.99")
    answer = desk.execute(plan_hash)
    assert answer.json()["reason"] == "plan-outdated"
    refused(desk, plan_hash, "ADAUSDT was 0, is 70", "ETHUSDT moved -1.00 %", "Nothing was traded")


def test_an_account_that_somebody_wrote_to_since_is_refused(desk: Desk) -> None:
    plan_hash = desk.preview(weights=BY_HAND)["plan_hash"]
    session_id = desk.start_session()
    sessions = desk.platform.doors.sessions
    epoch = sessions.take_epoch(session_id)
    sessions.set_state(session_id, SessionState.ENDED, datetime.now(UTC), epoch=epoch)
    desk.platform.launcher.started.clear()
    refused(desk, plan_hash, "its epoch is 1, it was 0")


def test_a_living_session_is_the_accounts_one_writer(desk: Desk) -> None:
    session_id = desk.start_session()
    found = desk.preview(session_id=session_id)
    assert found["living_session_id"] == session_id
    assert found["executable"] is False
    answer = desk.execute(found["plan_hash"])
    assert answer.status == 409
    assert session_id in answer.json()["detail"]
    assert "/command/terminate" in answer.json()["detail"]


def test_nothing_to_trade_is_nothing_to_execute(desk: Desk) -> None:
    found = desk.preview(weights={})
    assert found["notes"] == ["nothing would be traded"]
    assert found["executable"] is False
    refused(desk, found["plan_hash"], "no legs")


def test_a_plan_that_only_moves_stops_may_be_carried_out(desk: Desk) -> None:
    desk.ports.exchange.hold("BTCUSDT", "0.05", StopPrices(stop_loss=Decimal(50_000)))
    share = Decimal("0.05") * desk.ports.exchange.marks["BTCUSDT"] / 10_007
    weight = str(share.quantize(Decimal("1e-6")))
    found = desk.preview(weights={"BTCUSDT": {"weight": weight, "presetStopLossPrice": 52000}})
    assert found["legs"] == []
    assert found["notes"][-1] == "nothing would be traded; stops would change: BTCUSDT"
    assert found["executable"] is True
    assert desk.execute(found["plan_hash"]).status == 200


def test_S11_previews_are_their_owners_alone(desk: Desk) -> None:
    plan_hash = desk.preview(weights=BY_HAND)["plan_hash"]
    session_id = desk.start_session()
    for role in (Role.TRADER, Role.SUPERVISOR):
        _, other = person(desk.platform, role)
        assert other.get(f"/temp/previews/{plan_hash}").status == 404
        assert other.post(EXECUTE, {"plan_hash": plan_hash}).status == 404
        theirs = {"weights": {}, "account_id": desk.account_id}
        assert other.post(PREVIEW, theirs).status == 404
        assert other.post(PREVIEW, {"session_id": session_id}).status == 404
    assert desk.platform.anonymous.post(PREVIEW, {"weights": {}}).status == 401


def test_a_launch_that_fails_is_said_and_trades_nothing(desk: Desk) -> None:
    plan_hash = desk.preview(weights=BY_HAND)["plan_hash"]
    desk.platform.launcher.failure = Unavailable("the session host does not answer")
    answer = desk.execute(plan_hash)
    assert answer.status == 503
    assert "trades nothing" in answer.json()["detail"]
    again = desk.execute(plan_hash)
    assert (again.status, again.json()["state"]) == (200, "failed")


def test_without_an_account_or_with_several_it_must_be_named(desk: Desk) -> None:
    _, nobody = person(desk.platform)
    none = nobody.post(PREVIEW, {"weights": {}})
    assert (none.status, "no account" in none.json()["detail"]) == (422, True)
    desk.platform.gateway.put(
        desk.user.user_id, "second", MarketType.FUTURES, TradeEnv.PAPER, Decimal(1)
    )
    several = desk.client.post(PREVIEW, {"weights": {}})
    assert several.status == 422
    assert desk.account_id in several.json()["detail"]


def test_a_process_without_previews_says_so(postgres: Settings, tmp_path: Path) -> None:
    platform = fake_platform(postgres, tmp_path)
    _, client = person(platform)
    assert client.post(PREVIEW, {"weights": {}}).status == 503
    platform.close()


def test_no_secret_is_in_an_answer(desk: Desk) -> None:
    text = json.dumps(desk.preview(weights=BY_HAND))
    for word in ("afg1.", "sealed", "secret", "token", "passphrase"):
        assert word not in text
