"""Scripted faults by themselves: words, counting, seeded plans, memory, and balanced money."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.model.errors import InvalidInput
from module.simulator.faults.fault_catalogue import (
    CATALOGUE,
    INJECTABLE,
    catalogue_words,
    seeded_plan,
    words_of,
)
from module.simulator.faults.fault_entry import Words
from module.simulator.faults.fault_seeds import PlannedFault
from module.simulator.faults.fault_words import parse_words, rule_json, words_json
from module.simulator.faults.faults import (
    GROUPS,
    UNLIMITED,
    FaultAnswer,
    FaultPlan,
    FaultQuestion,
    FaultRule,
    names,
)
from module.simulator.snapshot import restore_snapshot, take_snapshot
from module.simulator.wire.bitget_codes import WireError
from module.simulator.wire.bitget_table import ENDPOINTS
from module.simulator.wire.wire_answer import Ending, Reply
from tests.fakes.paper_exchange import BTC, MIX, SPOT, USDT, market_order
from tests.fakes.paper_venue import PaperVenue

pytestmark = pytest.mark.timeout(120)
PLACE = f"{MIX}/order/place-order"
ROOT = Path(__file__).parents[3]


# -- words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"operation": "place-order", "answer": "lie"}, "lie"),
        ({"operation": "place-order", "answer": "drop", "oops": 1}, "oops"),
        ({"answer": "drop"}, "operation"),
        ({"operation": "place-order"}, "answer"),
        ({"operation": "x", "effect": "explode"}, "explode"),
        ({"operation": "x", "edit": "shuffle", "answer": "drop"}, "edit"),
        ({"operation": "x", "answer": "drop", "at_s": 5}, "at_s"),
        ({"at_s": 5, "answer": "drop"}, "at_s"),
        ({"at_s": 5, "effect": "refuse_trigger"}, "from_s"),
        ({"operation": "x", "effect": "debit", "share": 2}, "share"),
        ({"operation": "x", "effect": "jump", "factor": 0}, "factor"),
        ({"operation": "x", "effect": "jump", "prices": "ask"}, "ask"),
        ({"operation": "x", "answer": "drop", "from_s": -1}, "from_s"),
        ({"operation": "x", "answer": "drop", "delay_s": 601}, "delay_s"),
        ({"operation": "x", "answer": "drop", "needs_success": "maybe"}, "needs_success"),
        ({"operation": "x", "answer": "drop", "count": "many"}, "count"),
        ({"operation": "x", "answer": "drop", "count": -1}, "count"),
        ({"catalogue": "A99"}, "A99"),
        ({"catalogue": "A5", "variant": "pdf"}, "pdf"),
        ({"catalogue": "A25"}, "TLS|certificate"),
        ({"catalogue": "A9", "lagg_s": 5}, "lagg_s"),
        ({"seed": 7, "densitty": 1}, "densitty"),
        ({"seed": 7, "ids": ["A1", "Z9"]}, "Z9"),
        ({"seed": 7, "density": 1_000_000}, "1000000|24000000"),
        ({"seed": "seven"}, "seed"),
    ],
)
def test_wrong_words_are_refused_by_name(words: Words, named: str) -> None:
    with pytest.raises((InvalidInput, WireError), match=named):
        words_of(words, 0)


def test_relative_times_become_world_times_once() -> None:
    words = parse_words(
        {"operation": "*", "answer": "drop", "from_s": 1.5, "until_s": 9, "nth": 3}, 10_000
    )
    assert (words.from_ms, words.until_ms, words.skip) == (11_500, 19_000, 2)
    assert parse_words(words_json(words), 99_999) == words


def test_every_entry_of_the_catalogue_survives_json() -> None:
    for fault in INJECTABLE:
        for variant in CATALOGUE[fault].variants:
            for words in catalogue_words(fault, variant):
                parsed = parse_words(words, 7)
                again = parse_words(json.loads(json.dumps(words_json(parsed))), 8)
                assert (again, again.fault) == (parsed, fault)


def test_the_catalogue_has_every_row_of_both_groups_injectable_or_excused() -> None:
    wanted = [f"A{number}" for number in range(1, 32)] + [f"B{number}" for number in range(1, 18)]
    assert list(CATALOGUE) == wanted
    for entry in CATALOGUE.values():
        assert bool(entry.variants) != bool(entry.excuse), entry.fault
        assert entry.excuse or entry.counts, entry.fault


def test_the_page_about_faults_is_the_catalogue() -> None:
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for line in (ROOT / "docs" / "faults.md").read_text().splitlines()
        if (cells := line.split("|"))[1:] and cells[1].strip() in CATALOGUE
    }
    assert list(rows) == list(CATALOGUE)
    for entry in CATALOGUE.values():
        what, variants, counts = rows[entry.fault]
        assert what == entry.title
        assert variants == (", ".join(f"`{name}`" for name in entry.variants) or "excused")
        assert counts == (entry.excuse or entry.counts)


# -- whom a rule hits -------------------------------------------------------------------------


def question(path: str, symbol: str = "BTCUSDT", now_ms: int = 5) -> FaultQuestion:
    return FaultQuestion(path, "1", symbol, now_ms)


def rule_of(plan: FaultPlan, **words: object) -> FaultRule:
    return plan.add(parse_words(words, 0))


def test_rules_act_on_their_nth_call_and_only_where_they_fit() -> None:
    plan = FaultPlan()
    rule = rule_of(plan, operation="place-order", answer="drop", nth=2, symbol="BTCUSDT")
    assert plan.judge(question(f"{MIX}/order/detail")).spoiler is None
    assert plan.judge(question(PLACE, "ETHUSDT")).spoiler is None
    assert plan.judge(question(PLACE)).spoiler is None
    assert plan.judge(question(PLACE)).spoiler is rule
    rule.fired += 1
    assert plan.judge(question(PLACE)).spoiler is None
    assert rule.seen == 2


def test_groups_lists_whole_paths_and_stars_name_operations() -> None:
    for operation in ("@submit", "detail,place-order", PLACE, "*"):
        plan = FaultPlan()
        rule = rule_of(plan, operation=operation, answer="drop")
        assert plan.judge(question(PLACE)).spoiler is rule
        assert (plan.judge(question("/x/cancel-order")).spoiler is rule) == (operation == "*")


def test_every_operation_of_a_group_is_an_endpoint() -> None:
    paths = [endpoint.path for endpoint in ENDPOINTS.values()]
    for group in GROUPS.values():
        for operation in group.split(","):
            assert any(names(operation, path) for path in paths), operation


def test_a_rule_has_a_beginning_and_an_end_in_world_time() -> None:
    plan = FaultPlan()
    rule_of(plan, operation="*", answer="status", from_ms=10, until_ms=20, count=99)
    hit = [plan.judge(question("/any", now_ms=at)).spoiler is not None for at in (9, 10, 20, 21)]
    assert hit == [False, True, True, False]


def test_a_span_begins_with_the_first_hit_and_knows_no_number() -> None:
    plan = FaultPlan()
    rule = rule_of(plan, operation="*", answer="status", span_s=2, starts_on="place-order", nth=2)
    assert rule.words.count == UNLIMITED
    moments = [("/x", 0), (PLACE, 1), (PLACE, 500), ("/x", 2_499), ("/x", 2_500)]
    hit = [plan.judge(question(path, now_ms=at)).spoiler is not None for path, at in moments]
    assert hit == [False, False, True, True, False]
    assert rule.started_ms == 500


def test_the_first_due_rule_spoils_and_all_edits_apply() -> None:
    plan = FaultPlan()
    first = rule_of(plan, operation="fills", edit="repeat_fill")
    second = rule_of(plan, operation="fills", edit="renumber_fill")
    third = rule_of(plan, operation="*", answer="drop")
    fourth = rule_of(plan, operation="*", answer="hang")
    verdict = plan.judge(question("/x/fills"))
    assert (verdict.spoiler, verdict.editors) == (third, (first, second))
    assert (third.seen, fourth.seen) == (1, 1)


def test_two_lies_about_one_list_are_both_told() -> None:
    paper = PaperVenue()
    rules = paper.fault(catalogue="B3") + paper.fault(catalogue="B3", variant="renumbered")
    paper.post(PLACE, **market_order("buy", "0.01"))
    paper.advance(1)
    assert len(paper.get(f"{MIX}/order/fills", **USDT)["fillList"]) == 4
    assert [rule.fired for rule in rules] == [1, 1]


def test_an_effect_at_a_time_needs_no_request() -> None:
    paper = PaperVenue()
    (rule,) = paper.fault(at_s=30, effect="leftover", symbol="ETHUSDT")
    paper.advance(29.999)
    assert rule.fired == 0
    paper.advance(100)
    (order,) = paper.engine.open_orders(paper.account_id)
    assert (order.symbol, order.created_ms % 60_000, rule.fired) == ("ETHUSDT", 30_000, 1)


# -- seeded plans -----------------------------------------------------------------------------


def test_the_same_seed_is_the_same_plan_and_goes_to_json_and_back() -> None:
    plan = seeded_plan(7, 7200, Decimal(30))
    assert len(plan) == 60
    assert plan == seeded_plan(7, 7200, Decimal(30))
    assert plan != seeded_plan(8, 7200, Decimal(30))
    sent = json.loads(json.dumps([fault.to_json() for fault in plan]))
    assert tuple(PlannedFault.from_json(each) for each in sent) == plan
    assert [fault.from_s for fault in plan] == sorted(fault.from_s for fault in plan)


def test_a_plan_may_be_limited_to_some_faults() -> None:
    plan = seeded_plan(3, 3600, Decimal(50), ("A9", "B13"))
    assert {fault.fault for fault in plan} == {"A9", "B13"}
    rules = words_of({"seed": 3, "horizon_s": 3600, "density": 50, "ids": ["A9", "B13"]}, 1000)
    assert [rule.fault for rule in rules] == [fault.fault for fault in plan]
    assert [rule.from_ms for rule in rules] == [1000 + fault.from_s * 1000 for fault in plan]


def one_request(paper: PaperVenue, dice: Random, number: int) -> Reply:
    """Something that a trading program would send."""
    side = dice.choice(("buy", "sell"))
    symbol = dice.choice(("BTCUSDT", "ETHUSDT"))
    last = paper.engine.last_price(symbol)
    near = str((last * Decimal(dice.choice(("0.99", "1.01")))).quantize(Decimal("0.1")))
    order = {
        **market_order(side, "0.05", clientOid=f"c-{number}"),
        "symbol": symbol,
        "presetStopLossPrice": str(
            (last * Decimal("0.9" if side == "buy" else "1.1")).quantize(Decimal("0.1"))
        ),
    }
    leverage: dict[str, object] = {**BTC, "leverage": str(dice.randint(2, 9))}
    rows = [{**order, "clientOid": f"c-{number}-{leg}"} for leg in range(3)]
    limit = {**order, "orderType": "limit", "price": near, "force": "gtc"}
    stop: dict[str, object] = {
        **BTC,
        "planType": "pos_loss",
        "holdSide": "buy",
        "triggerPrice": near,
    }
    named: dict[str, object] = {**BTC, "symbol": symbol, "clientOid": f"c-{number - 1}"}
    flat: dict[str, object] = {**USDT}
    choices: list[tuple[str, str, dict[str, object]]] = [
        ("POST", PLACE, order),
        ("POST", PLACE, limit),
        ("POST", f"{MIX}/order/batch-place-order", {**order, "orderList": rows}),
        ("POST", f"{MIX}/order/cancel-order", named),
        ("POST", f"{MIX}/order/place-tpsl-order", {**stop, "symbol": symbol}),
        ("POST", f"{MIX}/order/close-positions", {**USDT, "symbol": symbol}),
        ("POST", f"{MIX}/account/set-leverage", leverage),
        ("GET", f"{MIX}/order/detail", {**USDT, **named}),
        ("GET", f"{MIX}/order/fills", flat),
        ("GET", f"{MIX}/order/orders-plan-pending", {**USDT, "planType": "profit_loss"}),
        ("GET", f"{MIX}/position/all-position", flat),
        ("GET", f"{SPOT}/account/assets", {}),
    ]
    method, path, params = choices[dice.randrange(len(choices))]
    return paper.call(method, path, params)


def session(seed: int, requests: int, paper: PaperVenue) -> list[str]:
    """What a client got, request by request, under a dense plan."""
    paper.fault(seed=seed, density=3600, horizon_s=120)
    dice = Random(seed)
    return [one_answer(paper, dice, number) for number in range(requests)]


def one_answer(paper: PaperVenue, dice: Random, number: int) -> str:
    """What a client got; then some time passes."""
    reply = one_request(paper, dice, number)
    paper.advance(dice.choice((0, 1, 4)))
    return f"{reply.ending} {reply.answer.status} {reply.delay_s} {reply.answer.body!r}"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_seeded_plan_leaves_the_ledger_balanced(seed: int) -> None:
    paper = PaperVenue()
    paper.open_account(2)
    session(seed, 50, paper)
    paper.advance(700)
    paper.engine.ledger.audit()
    assert sum(rule.fired for rule in paper.venue.faults.rules) > 0


def test_a_plan_replays_identically() -> None:
    first, second = PaperVenue(), PaperVenue()
    assert session(11, 60, first) == session(11, 60, second)
    assert first.engine.ledger_dump() == second.engine.ledger_dump()
    assert shown(first) == shown(second)


def test_different_seeds_do_different_things() -> None:
    assert session(11, 30, PaperVenue()) != session(12, 30, PaperVenue())


def shown(paper: PaperVenue) -> list[dict[str, object]]:
    return [rule_json(rule) for rule in paper.venue.faults.rules]


# -- memory -----------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[list[PaperVenue]]:
    """Venues of one folder, one after the other; the last one is closed at the end."""
    venues = [PaperVenue(tmp_path)]
    yield venues
    venues[-1].close()


def reborn(venues: list[PaperVenue], tmp_path: Path) -> PaperVenue:
    """As after a kill: the journal is all that is left."""
    venues[-1].close()
    venues.append(PaperVenue(tmp_path))
    return venues[-1]


def test_counters_and_what_still_passes_survive_a_kill(
    folders: list[PaperVenue], tmp_path: Path
) -> None:
    before = folders[0]
    before.fault(operation="detail", answer="code", code="40725", skip=2, count=2)
    words = {"symbol": "BTCUSDT", "clientOid": "x", **USDT}
    detail = f"{MIX}/order/detail"
    assert [before.answer("GET", detail, **words)["code"] for _ in range(3)] == [
        "40109",
        "40109",
        "40725",
    ]
    after = reborn(folders, tmp_path)
    (rule,) = after.venue.faults.rules
    assert (rule.seen, rule.fired) == (3, 1)
    codes = [after.answer("GET", detail, **words)["code"] for _ in range(2)]
    assert codes == ["40725", "40109"]


def test_calls_that_were_let_pass_are_not_let_pass_again_after_a_kill(
    folders: list[PaperVenue], tmp_path: Path
) -> None:
    folders[0].fault(catalogue="A15", variant="40200", nth=3)
    for number in range(2):
        folders[0].post(PLACE, **market_order("buy", "0.01", clientOid=f"x{number}"))
    after = reborn(folders, tmp_path)
    third = market_order("buy", "0.01", clientOid="x3")
    assert after.answer("POST", PLACE, **third)["code"] == "40200"
    again = reborn(folders, tmp_path)
    again.advance(599)
    assert again.answer("POST", PLACE, **third)["code"] == "40200"


def test_a_request_that_is_held_back_survives_a_kill_and_arrives_once(
    folders: list[PaperVenue], tmp_path: Path
) -> None:
    folders[0].fault(catalogue="A3")
    words = market_order("buy", "0.01", clientOid="late")
    assert folders[0].call("POST", PLACE, words).ending is Ending.RESET
    folders[0].advance(5)
    after = reborn(folders, tmp_path)
    after.advance(20)
    arrived = after.engine.order(after.account_id, client_id="late")
    again = reborn(folders, tmp_path)
    again.advance(60)
    (order,) = again.engine.all_orders(again.account_id)
    assert (order.order_id, order.created_ms) == (arrived.order_id, arrived.created_ms)


@pytest.mark.parametrize("seed", [3, 5, 8])
def test_a_plan_in_a_simulator_that_is_killed_again_and_again_goes_on_as_if_nothing_were(
    folders: list[PaperVenue], tmp_path: Path, seed: int
) -> None:
    untouched = PaperVenue()
    told = session(seed, 40, untouched)
    killed = folders[0]
    killed.fault(seed=seed, density=3600, horizon_s=120)
    dice, answers = Random(seed), []
    for number in range(40):
        answers.append(one_answer(killed, dice, number))
        if number % 6 == 5:
            moment_ms, wall_ms = killed.venue.now_ms, killed.wall_ms
            killed = reborn(folders, tmp_path)
            killed.venue.advance_to(moment_ms)
            killed.wall_ms = wall_ms
    assert answers == told
    assert killed.engine.ledger_dump() == untouched.engine.ledger_dump()
    kept = ("fault", "fired", "started_ms")
    assert [[rule[name] for name in kept] for rule in shown(killed)] == [
        [rule[name] for name in kept] for rule in shown(untouched)
    ]


def test_a_snapshot_keeps_counters_held_requests_and_changed_rules(
    folders: list[PaperVenue],
) -> None:
    before, after = folders[0], PaperVenue()
    before.fault(catalogue="A19")
    session(5, 40, before)
    before.fault(catalogue="A3", hold_s=20)
    before.call("POST", PLACE, market_order("buy", "0.01", clientOid="late"))
    assert before.folder is not None
    before.folder.write_snapshot(take_snapshot(before.venue, before.folder))
    assert restore_snapshot(after.venue, before.folder) > 0
    for each in (before, after):
        each.advance(3600)
    assert after.engine.ledger_dump() == before.engine.ledger_dump()
    assert after.engine.futures_instruments() == before.engine.futures_instruments()
    assert shown(after) == shown(before)
    assert after.broken == []


def test_rules_that_are_cleared_are_gone_and_the_held_request_still_comes() -> None:
    paper = PaperVenue()
    paper.fault(catalogue="A3")
    paper.call("POST", PLACE, market_order("buy", "0.01", clientOid="late"))
    paper.venue.faults.clear()
    assert paper.venue.faults.rules == []
    paper.advance(8)
    assert paper.engine.order(paper.account_id, client_id="late").client_id == "late"


def test_an_answer_that_is_the_same_as_the_true_one_is_no_fault() -> None:
    paper = PaperVenue()
    (rule,) = paper.fault(operation="detail", answer=FaultAnswer.CODE.value, code="40109")
    words = {"symbol": "BTCUSDT", "clientOid": "x", **USDT}
    assert paper.answer("GET", f"{MIX}/order/detail", **words)["code"] == "40109"
    assert (rule.seen, rule.fired) == (1, 0)
