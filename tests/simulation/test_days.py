"""Simulated days: the same bytes from the same seed, and no promise broken whatever goes wrong."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from module.gateway.owned_account import OwnedAccount
from module.gateway.protection import Look
from tests.simulation.day import live
from tests.simulation.day_plan import day_plan
from tests.simulation.gateway_side import CalmGuard
from tests.simulation.hub import NEVER_MS, Died, Hub, HubLock, Process, SimClock
from tests.simulation.report import DayResult, Totals, day_lines, progress_line, summary_lines
from tests.simulation.sweep import Death, run_once
from tests.simulation.world import World
from tests.simulation.world_plan import WorldPlan


def test_a_seed_gives_the_same_day_byte_for_byte(tmp_path: Path) -> None:
    days = [live(3, 1.5, tmp_path / name) for name in ("once", "again")]
    assert (tmp_path / "once").read_bytes() == (tmp_path / "again").read_bytes()
    assert days[0].digest == days[1].digest
    assert days[0].orders == days[1].orders > 0
    assert live(4, 1.5).digest != days[0].digest


@pytest.mark.parametrize("seed", [0, 6, 11])
def test_hours_in_which_everything_goes_wrong_break_no_promise(seed: int) -> None:
    day = live(seed, 3.0)
    assert day_lines(day, verbose=False) == []
    assert day.faults >= 3
    assert day.cycles >= 8


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(2, id="a list of stops that shows what is gone"),
        pytest.param(59, id="a clock that is off"),
        pytest.param(15, id="orders that are unknown"),
    ],
)
def test_looks_that_are_skipped_would_have_found_nothing(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    def look(guard: CalmGuard, owned: OwnedAccount, *, thorough: bool) -> Look:
        return guard._guard.look(owned, thorough=thorough)

    skipping = live(seed, 1.5)
    monkeypatch.setattr(CalmGuard, "look", look)
    looking = live(seed, 1.5)
    assert skipping.violations == looking.violations == []
    assert (skipping.orders, skipping.hits) == (looking.orders, looking.hits)
    pairs = zip(sorted(skipping.bare_s), sorted(looking.bare_s), strict=True)
    assert all(abs(one - other) < 0.5 for one, other in pairs)  # ways of a request take chance time


def test_a_quiet_day_ends_flat_and_is_watched_every_minute(tmp_path: Path) -> None:
    world = World(WorldPlan(7, hours=0.6), tmp_path)
    report = world.run()
    assert report.violations == []
    assert report.cycles >= 2
    assert report.ended.startswith("ended")
    assert not world.exchange.account.positions
    assert len(world.postgres.result_tables.minutes) >= 36


@pytest.mark.parametrize(
    "deaths",
    [
        (Death("leader", "execution: after submit", 1),),
        (Death("gateway", "gateway: sending", 1), Death("leader-1", "execution: letter saved", 2)),
        (Death("strategy", "strategy: letter written", 1),),
        (Death("leader", "order_info: renamed", 3), Death("leader-2", "order_info: renamed", 1)),
    ],
    ids=lambda deaths: ", ".join(f"{death.role} at {death.point}" for death in deaths),
)
def test_D2_a_kill_within_a_cycle_of_twelve_legs_breaks_no_promise(
    deaths: tuple[Death, ...],
) -> None:
    result = run_once(deaths)
    assert result.crash == ""
    assert result.violations == ()
    assert result.killed == len(deaths)


def test_a_broken_promise_is_a_line_with_the_command_that_repeats_it() -> None:
    day = DayResult(17, 1.0, crash="WorldStuck: everybody waits")
    assert day_lines(day, verbose=True)[0].endswith("python -m tests.simulation --seed 17")
    lines = summary_lines(Totals([day], 2.0))
    assert '"violations": 1' in lines[-1]


def test_a_whole_day_in_which_too_little_goes_wrong_is_told_and_counts() -> None:
    calm, busy = (
        DayResult(seed, 1.0, done=90, orders=400, hits=Counter({"A1": seed})) for seed in (29, 30)
    )
    short = DayResult(7, 0.25, done=23, orders=100, hits=Counter({"A1": 3}))
    totals = Totals([calm, busy, short], 2.0)
    assert [day.seed for day in totals.too_calm] == [29]
    assert "TOO CALM: 29 faults" in day_lines(calm, verbose=True)[0]
    assert "ok" in day_lines(short, verbose=True)[0]
    last = json.loads(summary_lines(totals)[-1])
    assert list(last)[:5] == [
        *("sessions", "simulated_days", "faults", "violations"),
        "days_per_second",
    ]
    assert (last["faults"], last["faults_per_day_min"]) == (62, 3)


def test_a_day_in_which_too_little_is_traded_is_told_and_counts() -> None:
    busy = DayResult(1, 0.25, done=12, orders=38)
    few_orders, few_cycles = replace(busy, orders=37), replace(busy, done=11)
    others = [replace(few_orders, is_ordinary=False), replace(few_orders, days=0.2)]
    totals = Totals([busy, few_orders, few_cycles, *others], 2.0)
    assert totals.idle == [few_orders, few_cycles]
    assert "TOO IDLE: 37 orders, 37.5 are wanted" in day_lines(few_orders, verbose=True)[0]
    assert json.loads(summary_lines(totals)[-1])["idle_days"] == 2


def test_a_long_run_says_how_far_it_is() -> None:
    days = [DayResult(seed, 1.0) for seed in range(20)]
    told = progress_line(Totals(days, 40.0), 1000)
    assert told == "20 of 1000 days, 0.50 a second, about 33 min left, 0 violations"


def test_more_seeds_meet_other_faults() -> None:
    plans = [day_plan(seed) for seed in range(6)]
    assert plans[2] == day_plan(2)
    assert len({tuple(stroke.fault_id for stroke in plan.strokes) for plan in plans}) == 6
    assert {plan.letters for plan in plans} == {"file", "postgres"}


class Diary:
    """What happened in a small world, and when."""

    def __init__(self) -> None:
        self.hub = Hub(0, 1)
        self.lines: list[tuple[int, str]] = []

    def note(self, what: str) -> None:
        self.lines.append((self.hub.now_ms, what))


def test_processes_take_turns_in_virtual_time_and_nothing_waits() -> None:
    diary = Diary()

    def sleeper(process: Process, name: str, seconds: float) -> None:
        clock = SimClock(process)
        for _ in range(2):
            clock.sleep(seconds)
            diary.note(name)

    for name, seconds in (("slow", 7.0), ("quick", 3.0)):
        process = Process(diary.hub, "test", name)
        process.spawn(lambda p=process, n=name, s=seconds: sleeper(p, n, s))  # type: ignore[misc]
    diary.hub.run(20_000)
    assert diary.lines == [(3000, "quick"), (6000, "quick"), (7000, "slow"), (14_000, "slow")]
    assert diary.hub.now_ms == 20_000


def test_what_a_dead_process_would_have_done_is_not_done() -> None:
    diary = Diary()
    process = Process(diary.hub, "test", "victim")

    def body() -> None:
        try:
            SimClock(process).sleep(100)
        finally:
            with pytest.raises(Died):
                process.require_alive()
            diary.note("unwound")

    process.spawn(body)
    diary.hub.at(5000, lambda: diary.hub.kill(process))
    diary.hub.run(10_000)
    assert diary.lines == [(5000, "unwound")]


def test_a_lock_that_is_held_across_a_wait_lets_others_wait() -> None:
    diary = Diary()
    process = Process(diary.hub, "test", "server")
    lock, clock = HubLock(diary.hub), SimClock(process)

    def request(name: str) -> None:
        with lock:
            diary.note(f"{name} in")
            clock.sleep(2)
            diary.note(f"{name} out")

    for name in ("a", "b"):
        process.spawn(lambda n=name: request(n))  # type: ignore[misc]
    diary.hub.run(NEVER_MS - 1, lambda: len(diary.lines) == 4)
    assert [what[2:] for _, what in diary.lines] == ["in", "out", "in", "out"]
    assert [at for at, _ in diary.lines] == [0, 2000, 2000, 4000]
