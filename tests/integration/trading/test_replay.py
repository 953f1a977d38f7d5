"""`aifap replay` on cycles that real user code made in the sandbox, and on what was altered."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from api.cli import app
from api.replay_command import _read_letter
from module.clock import SystemClock
from module.db.database import Database
from module.db.repositories.order_info import PostgresOrderInfoStore
from module.files.cycle_archive import CycleArchive, read_letter
from module.files.order_info_file import FileOrderInfoStore, RenderedLetter
from module.files.session_folder import make_session_folder
from module.files.strategy_store import StrategyStore
from module.launch.host_protocol import build_id
from module.model.errors import InvariantViolated
from module.model.sealed import seal, unseal
from module.model.sessions import SessionSpec, TradeMode
from module.security.sandboxed_runner import SandboxedRunner
from module.settings import Settings
from tests.contract.order_info.conftest import stored_session
from tests.fakes.clock import ManualClock
from tests.fakes.exchange import FakeExchange
from tests.fakes.market import FakeMarket
from tests.fakes.runner_process import RunnerProcess
from tests.unit.trading.leading import FIRST_BOUNDARY, FIVE_MINUTES, SESSION, make_spec
from trading.gathering import House
from trading.rebalance.decision import closing_inputs, decide, plan_letter
from trading.rebalance.order_info import CycleStage, OrderInfo, from_json, requested, to_json
from trading.rebalancing_strategy import (
    StrategyWiring,
    execute_strategy,
    flat_policy,
    keep_bars,
    policy_of,
)
from trading.session.bells import Bells

OWNER = "owner-3"
SOURCE = """
def strategy(context, config_dict):
    symbols = config_dict["symbols"]
    close = context.get_history(symbols, 30, "1m", "close")
    try:
        context.get_history(["NOSUCH"], 3, "1m", "close")
    except Exception:
        pass
    change = close.iloc[-1] / close.iloc[0] - 1
    hour = context.current_dt.hour  # in the zone that the installation shows
    share = 0.001 * hour + config_dict["share"]
    return {
        s: {"weight": share if change[s] > 0 else -share, "presetStopLossPrice": None}
        for s in symbols
    }
"""
MOODY = """
import random

def strategy(context, config_dict):
    return {"BTCUSDT": 0.2 + 0.1 * random.random()}
"""


@dataclass(slots=True)
class Archive:
    """A data folder with the archived cycles of one session."""

    data: Path
    letters: list[Path]

    def replay(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["replay", *arguments, "--data", str(self.data)])


@pytest.fixture(autouse=True)
def logs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command configures the logs of its process; here that would be the tests'."""
    monkeypatch.setattr("api.replay_command.configure_logs", lambda *_: None)


@pytest.fixture(scope="module")
def runner_host() -> Iterator[RunnerProcess]:
    host = RunnerProcess()
    yield host
    host.stop()


def make_archive(
    data: Path,
    host: RunnerProcess,
    source: str,
    letters: FileOrderInfoStore | PostgresOrderInfoStore | None = None,
    session_id: str = SESSION,
    **changes: object,
) -> Archive:
    """Three cycles of a session, decided as the strategy process does, then a closing one."""
    store = StrategyStore(data)
    config = {"symbols": ["BTCUSDT", "ETHUSDT", "SOLUSDT"], "share": 0.11}
    version = store.save(OWNER, "mine", source.encode(), config)
    spec = make_spec(
        session_id=session_id,
        owner_id=OWNER,
        strategy_name="mine",
        strategy_digest=version.digest,
        config=config,
        **changes,
    )
    folder = make_session_folder(data, session_id)
    letters = letters or FileOrderInfoStore(folder)
    clock = ManualClock()
    exchange = FakeExchange(clock)
    exchange.hold("ETHUSDT", "0.31")
    bells = Bells.create(clock, "leader", "strategy")
    wiring = StrategyWiring(
        spec=spec,
        source=source,
        initial_balance=lambda: Decimal(10_007),
        policy=policy_of(spec),
        clock=clock,
        exchange=exchange,
        market=FakeMarket(),
        runner=host.runner(),
        store=letters,
        bells=bells,
        archive=letters,
        house=House(build_id(), "Asia/Seoul"),
    )
    for number in range(3):
        asked = requested(session_id, FIRST_BOUNDARY + FIVE_MINUTES * number, number + 1, 1, number)
        answer = execute_strategy(wiring, asked, ())
        letters.archive(to_json(answer.info.changed(stage=CycleStage.DONE)))
        keep_bars(wiring, answer)
    bells.close()
    letters.archive(to_json(closing_letter(spec, exchange)))
    return Archive(data, CycleArchive(folder).paths())


def closing_letter(spec: SessionSpec, exchange: FakeExchange) -> OrderInfo:
    blank = requested(spec.session_id, FIRST_BOUNDARY + timedelta(seconds=907), 4, 1, 9)
    inputs = closing_inputs(
        spec.session_id,
        blank.cycle,
        flat_policy(spec),
        exchange.snapshot(),
        exchange.instruments(),
        build_id(),
    )
    return plan_letter(blank, inputs, decide(inputs))


@pytest.fixture(scope="module")
def made(runner_host: RunnerProcess, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return make_archive(tmp_path_factory.mktemp("made"), runner_host, SOURCE)


@pytest.fixture
def shared_host(runner_host: RunnerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replays use the runner host that is there: starting one costs a second."""

    @contextlib.contextmanager
    def at_hand(_settings: Settings) -> Iterator[Callable[[str], SandboxedRunner]]:
        yield lambda timezone: SandboxedRunner(
            runner_host.socket_path, SystemClock(), timeout_s=8.0, display_timezone=timezone
        )

    monkeypatch.setattr("trading.bootstrap.own_runner_host", at_hand)


@pytest.fixture
def archive(made: Archive, tmp_path: Path, shared_host: None) -> Archive:
    """A copy that a test may spoil."""
    data = tmp_path / "data"
    shutil.copytree(made.data, data)
    return Archive(data, [data / path.relative_to(made.data) for path in made.letters])


def rewrite(path: Path, change: Callable[[OrderInfo], OrderInfo]) -> None:
    """Another letter under a seal that is right."""
    path.write_bytes(seal(to_json(change(from_json(read_letter(path))))))


def test_every_archived_cycle_replays_to_the_same_plan(archive: Archive) -> None:
    result = archive.replay(SESSION)
    assert result.exit_code == 0, result.output
    assert result.output.count("  same  plan ") == 4
    assert "note" not in result.output


def test_a_replay_brings_its_own_runner_host(made: Archive) -> None:
    result = made.replay(SESSION, "3")
    assert result.exit_code == 0, result.output
    assert "same" in result.output


def test_one_cycle_is_found_by_number_boundary_or_path(archive: Archive) -> None:
    by_number = archive.replay(SESSION, "2", "--json")
    by_boundary = archive.replay(SESSION, "2026-11-21T11:10Z", "--json")
    by_path = archive.replay(str(archive.letters[1]), "--json")
    assert by_number.output == by_boundary.output == by_path.output
    document = json.loads(by_number.output)
    assert (document["number"], document["verdict"]) == (2, "same")
    assert document["plan_digest"] == read_letter(archive.letters[1])["plan_digest"]


def test_what_came_out_otherwise_is_shown_part_by_part(archive: Archive) -> None:
    def other(letter: OrderInfo) -> OrderInfo:
        record, *rest = letter.legs
        leg = record.leg._replace(size=record.leg.size * 2)
        return replace(letter, legs=(replace(record, leg=leg), *rest))

    rewrite(archive.letters[0], other)
    result = archive.replay(SESSION, "1")
    leg = from_json(read_letter(archive.letters[0])).legs[0].leg
    assert result.exit_code == 1
    assert f"legs/{leg.leg_id}/size: was {leg.size.normalize():f}" in result.output
    assert result.output.count(": was ") == 1


def test_another_input_is_another_plan_and_both_are_told(archive: Archive) -> None:
    def richer(letter: OrderInfo) -> OrderInfo:
        account = {**_object(letter.inputs["account"]), "equity": "5000"}
        return replace(letter, inputs={**letter.inputs, "account": account})

    rewrite(archive.letters[0], richer)
    result = archive.replay(SESSION, "1")
    assert result.exit_code == 1
    assert "/size: was" in result.output


def test_another_build_is_said(archive: Archive) -> None:
    rewrite(
        archive.letters[0],
        lambda letter: replace(letter, inputs={**letter.inputs, "build": "0ldbu1ld"}),
    )
    result = archive.replay(SESSION, "1")
    assert result.exit_code == 0
    assert f"planned by build 0ldbu1ld, replayed by build {build_id()}" in result.output


def test_a_strategy_that_answers_otherwise_is_shown(
    runner_host: RunnerProcess, tmp_path: Path, shared_host: None
) -> None:
    archive = make_archive(tmp_path, runner_host, MOODY)
    result = archive.replay(SESSION, "1")
    assert result.exit_code == 1
    assert "strategy/answer/BTCUSDT/weight: was 0.2" in result.output
    kept = archive.replay(SESSION, "1", "--without-strategy")
    assert kept.exit_code == 0
    assert "the recorded one" in kept.output


def test_volatility_is_measured_again_from_the_archived_bars(
    runner_host: RunnerProcess, tmp_path: Path, shared_host: None
) -> None:
    archive = make_archive(
        tmp_path,
        runner_host,
        SOURCE,
        trade_mode=TradeMode.VOLATILITY_TARGETING,
        target_volatility=Decimal("0.004"),
        no_trade_band=Decimal("0.5"),
    )
    inputs = read_letter(archive.letters[0])["inputs"]
    assert _object(inputs)["realized_volatility"] is not None
    assert archive.replay(SESSION).exit_code == 0

    def calmer(letter: OrderInfo) -> OrderInfo:
        return replace(letter, inputs={**letter.inputs, "realized_volatility": "0.001"})

    rewrite(archive.letters[0], calmer)
    result = archive.replay(SESSION, "1")
    assert result.exit_code == 1
    assert "realized_volatility: was 0.001, is 0." in result.output


def test_a_cycle_without_a_plan_says_why(archive: Archive) -> None:
    asked = requested(SESSION, FIRST_BOUNDARY + FIVE_MINUTES * 9, 10, 1, 20)
    skipped = asked.changed(stage=CycleStage.SKIPPED, reason="strategy-failed: line 7")
    FileOrderInfoStore(archive.letters[0].parents[1]).archive(to_json(skipped))
    result = archive.replay(SESSION, "10")
    assert result.exit_code == 0
    assert "no-plan" in result.output
    assert "strategy-failed: line 7" in result.output


def test_bars_that_were_not_kept_are_missed_and_the_plan_can_still_be_checked(
    archive: Archive,
) -> None:
    archive.letters[0].with_suffix(".bars").unlink()
    result = archive.replay(SESSION, "1")
    assert result.exit_code == 2
    assert "were not kept" in result.output
    assert archive.replay(SESSION, "1", "--without-strategy").exit_code == 0


@pytest.mark.parametrize("shown", [False, True])
def test_a_session_whose_letters_live_in_postgres_replays_too(
    runner_host: RunnerProcess, postgres: Settings, shared_host: None, shown: bool
) -> None:
    database = Database(postgres, "finplatform", 2)
    session_id = stored_session(database)
    folder = make_session_folder(postgres.data_dir, session_id)
    store = PostgresOrderInfoStore(database, session_id, RenderedLetter(folder) if shown else None)
    archive = make_archive(postgres.data_dir, runner_host, SOURCE, store, session_id)
    database.close()
    assert len(archive.letters) == (4 if shown else 0)
    result = archive.replay(session_id)
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.output.count("  same  plan ") == 4
    shutil.rmtree(folder)


# --- what somebody altered ------------------------------------------------------------------------


def test_every_flipped_byte_of_a_letter_is_named(archive: Archive) -> None:
    path = archive.letters[0]
    good = path.read_bytes()
    for place in range(len(good)):
        damaged = bytearray(good)
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(InvariantViolated, match="the letter"):
            unseal(bytes(damaged), "the letter")
        if place % 97:
            continue
        path.write_bytes(bytes(damaged))
        found = _read_letter(path)
        assert isinstance(found, InvariantViolated), place
        assert str(path) in found.message


def test_a_flipped_byte_anywhere_in_the_journal_ends_with_2_and_is_named(archive: Archive) -> None:
    source = next((archive.data / "strategies").rglob("strategy.py"))
    config = next((archive.data / "strategies").rglob("config.json"))
    letter, bars = archive.letters[0], archive.letters[0].with_suffix(".bars")
    for path, named in ((letter, letter.name), (bars, "bars"), (source, "mine"), (config, "mine")):
        good = path.read_bytes()
        for place in (0, len(good) // 2, len(good) - 1):
            damaged = bytearray(good)
            damaged[place] ^= 0x04
            path.write_bytes(bytes(damaged))
            result = archive.replay(str(letter))
            assert result.exit_code == 2, (path, place, result.output)
            assert named in result.output
        path.write_bytes(good)
    assert archive.replay(str(letter)).exit_code == 0


def test_the_bars_of_another_cycle_are_noticed(archive: Archive) -> None:
    mine, others = (path.with_suffix(".bars") for path in archive.letters[:2])
    shutil.copy(others, mine)
    result = archive.replay(SESSION, "1")
    assert result.exit_code == 2
    assert "30 × 1m of BTCUSDT" in result.output


def test_a_renamed_letter_is_noticed(archive: Archive) -> None:
    path = archive.letters[0]
    path.rename(path.with_name("20261121T130000Z.json"))
    result = archive.replay(SESSION)
    assert result.exit_code == 2
    assert "renamed" in result.output
    assert result.output.count("  same  plan ") == 3  # the others are replayed all the same


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nonsense",), "not a session id"),
        ((SESSION, "17"), "no archived cycle '17'"),
        ((SESSION, "yesterday"), "neither the number"),
        ((SESSION, "2026-11-21T23:00Z"), "no archived cycle"),
    ],
)
def test_what_is_asked_for_wrongly_is_one_readable_line(
    archive: Archive, arguments: tuple[str, ...], told: str
) -> None:
    result = archive.replay(*arguments)
    assert result.exit_code != 0
    assert told in str(result.exception)


def _object(value: object) -> Mapping[str, object]:
    assert isinstance(value, Mapping)
    return value
