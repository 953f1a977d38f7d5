"""The kill switch as a command: whose it is, what it leaves behind, how it is lifted."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from api.cli import app
from module.db.repositories.gateway_writes import Author, WriteEntry, WriteKind, WriteRepository
from module.db.repositories.users import Role, UserRecord
from module.gateway.limits import read_limits
from module.model.accounts import TradeEnv
from module.model.market import MarketType
from module.settings import Settings
from tests.fakes.asgi_client import AsgiClient
from tests.fakes.platform import FakePlatform
from tests.fakes.serving import served

pytestmark = pytest.mark.timeout(60)
RUN = {
    "tradeType": "futures",
    "strategy_name": "momentum",
    "trade_mode": "rebalancing",
    "trade_env": "paper",
}


def somebody(platform: FakePlatform, role: Role = Role.TRADER) -> tuple[UserRecord, AsgiClient]:
    return platform.person(f"person-{datetime.now(UTC).timestamp()}".replace(".", "-"), role)


def account_of(platform: FakePlatform, user: UserRecord, label: str = "main") -> str:
    return platform.gateway.put(user.user_id, label, MarketType.FUTURES, TradeEnv.LIVE, None)


def is_halted(platform: FakePlatform, account_id: str) -> bool:
    return read_limits(platform.doors.accounts.get(account_id).limits).kill_switch


def told(platform: FakePlatform, user: UserRecord) -> list[str]:
    return [item.alert.title for item in platform.doors.alerts.latest(user.user_id, 20)]


def test_without_a_name_all_of_ones_own_accounts_are_halted_and_nobody_elses(
    platform: FakePlatform,
) -> None:
    user, client = somebody(platform)
    other, _ = somebody(platform)
    mine = [account_of(platform, user, label) for label in ("a", "b")]
    theirs = account_of(platform, other)
    answer = client.post("/command/halt", {"reason": "prices look wrong"})
    assert answer.status == 200
    shown = answer.json()
    assert (shown["settled"], shown["under_way"]) == (True, {})
    assert shown["took_ms"] >= shown["recorded_ms"] > 0
    assert {row["account_id"] for row in shown["accounts"]} == set(mine)
    assert [is_halted(platform, one) for one in mine] == [True, True]
    assert not is_halted(platform, theirs)
    assert told(platform, user) == ["The kill switch is on: nothing opens"] * 2
    newest = platform.doors.audit.latest(1, user.user_id)[0]
    assert (newest.action, newest.detail) == ("halt", {"reason": "prices look wrong"})


def test_a_halt_that_is_repeated_tells_people_once_and_keeps_its_reason(
    platform: FakePlatform,
) -> None:
    user, client = somebody(platform)
    account_id = account_of(platform, user)
    wish = {"account_id": account_id, "reason": "first"}
    assert client.post("/command/halt", wish).json()["accounts"][0]["was_halted"] is False
    again = client.post("/command/halt", {"account_id": account_id}).json()["accounts"][0]
    assert (again["was_halted"], again["reason"]) == (True, "first")
    assert len(told(platform, user)) == 1


def test_another_persons_account_is_not_found_and_a_supervisor_may_halt_it(
    platform: FakePlatform,
) -> None:
    owner, owners = somebody(platform)
    account_id = account_of(platform, owner)
    _, stranger = somebody(platform)
    _, supervisor = somebody(platform, Role.SUPERVISOR)
    assert stranger.post("/command/halt", {"account_id": account_id}).status == 404
    assert stranger.post("/command/halt", {"all": True}).status == 403
    assert not is_halted(platform, account_id)
    assert supervisor.post("/command/halt", {"account_id": account_id}).status == 200
    assert is_halted(platform, account_id)
    assert stranger.post("/command/resume", {"account_id": account_id}).status == 404
    assert owners.post("/command/resume", {"account_id": account_id}).status == 200
    assert not is_halted(platform, account_id)


def test_all_accounts_of_the_installation_are_a_supervisors_to_halt(platform: FakePlatform) -> None:
    (one, _), (two, _) = somebody(platform), somebody(platform)
    accounts = [account_of(platform, one), account_of(platform, two)]
    _, supervisor = somebody(platform, Role.SUPERVISOR)
    assert supervisor.post("/command/halt", {"all": True}).status == 200
    assert all(is_halted(platform, account_id) for account_id in accounts)
    assert supervisor.post("/command/resume", {"all": True}).status == 200
    assert not any(is_halted(platform, account_id) for account_id in accounts)
    wrong = supervisor.post("/command/halt", {"all": True, "account_id": accounts[0]})
    assert wrong.status == 422


def test_other_limits_lift_no_halt_and_naming_the_switch_does(platform: FakePlatform) -> None:
    user, client = somebody(platform)
    account_id = account_of(platform, user)
    client.post("/command/halt", {"account_id": account_id, "reason": "r"})
    path = f"/accounts/{account_id}"
    assert client.patch(path, {"limits": {"orders_per_minute": 7}}).status == 200
    limits = read_limits(platform.doors.accounts.get(account_id).limits)
    assert (limits.kill_switch, limits.halt_reason, limits.orders_per_minute) == (True, "r", 7)
    assert client.patch(path, {"limits": {"kill_switch": False}}).status == 200
    assert not is_halted(platform, account_id)


def test_a_session_on_a_halted_account_says_so(platform: FakePlatform) -> None:
    _, client = somebody(platform)
    session_id = client.post("/command/run-system", RUN).json()["session_id"]
    path = f"/command/sessions/{session_id}"
    assert client.get(path).json()["halted"] is None
    client.post("/command/halt", {"reason": "exchange news"})
    shown = client.get(path).json()["halted"]
    assert shown["reason"] == "exchange news"
    assert shown["since"]


def test_I22_what_left_before_the_halt_and_has_no_outcome_is_named(
    platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, client = somebody(platform)
    account_id = account_of(platform, user)
    database = platform.doors.halts._database
    writes = WriteRepository(database)
    lease_to(platform, account_id)
    author = Author(account_id, "2611211130-ab3x", 0, "gw")
    orders = {
        name: WriteEntry(
            WriteKind.ORDER, "BTCUSDT", {"order": {"reduce_only": name == "af-close"}}, name
        )
        for name in ("af-open", "af-close")
    }
    writes.reserve_orders(author, list(orders.values()), platform.doors.clock.now())
    monkeypatch.setattr("api.halts.WAIT_S", 0.05)
    shown = client.post("/command/halt", {"account_id": account_id}).json()
    assert (shown["settled"], shown["under_way"]) == (False, {account_id: ["af-open"]})


def test_O8_halts_from_many_places_at_once_all_succeed(platform: FakePlatform) -> None:
    owner, _ = somebody(platform)
    accounts = [account_of(platform, owner, f"a{n}") for n in range(3)]
    people = [somebody(platform, Role.SUPERVISOR)[1] for _ in range(4)]
    start = threading.Barrier(len(people))
    statuses: list[int] = []

    def stop(client: AsgiClient) -> None:
        start.wait(20)
        statuses.append(client.post("/command/halt", {"all": True}).status)

    threads = [threading.Thread(target=stop, args=(client,)) for client in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == [200] * len(people)
    assert all(is_halted(platform, account_id) for account_id in accounts)
    people[0].post("/command/resume", {"all": True})
    assert len(told(platform, owner)) == len(accounts)


def typed(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_the_command_line_halts_by_label_and_resumes(
    platform: FakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIFAP_DATA_DIR", "/nonexistent/aifap-tests")
    user, client = somebody(platform)
    account_id = account_of(platform, user, "main")
    assert client.token is not None
    (tmp_path / "token").write_text(client.token)
    with served() as serve:
        where = ["--url", serve(platform.app), "--token-file", str(tmp_path / "token")]
        halted = typed("halt", "--account", "main", "--reason", "news", *where)
        assert (halted.exit_code, halted.exception) == (0, None)
        assert "news" in halted.stdout
        assert is_halted(platform, account_id)
        resumed = typed("resume", *where)
        assert (resumed.exit_code, resumed.exception) == (0, None)
    assert not is_halted(platform, account_id)


def test_without_an_api_the_command_line_halts_in_postgres_itself(
    platform: FakePlatform, postgres: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, _ = somebody(platform)
    account_id = account_of(platform, user)
    monkeypatch.setenv("AIFAP_API_PORT", "9")
    words = ["--user", user.name, "--data", str(postgres.data_dir), "--account", "main"]
    halted = typed("halt", *words)
    assert (halted.exit_code, halted.exception) == (0, None), halted.stdout
    assert is_halted(platform, account_id)
    assert typed("resume", *words).exit_code == 0
    assert not is_halted(platform, account_id)


def lease_to(platform: FakePlatform, account_id: str) -> None:
    from sqlalchemy import update

    from module.db.platform_tables import Account

    with platform.doors.halts._database.transaction() as session:
        session.execute(
            update(Account).where(Account.account_id == account_id).values(gateway_lease="gw")
        )
