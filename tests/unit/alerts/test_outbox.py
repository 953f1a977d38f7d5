"""An alert is never lost and never stops the process that raises it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from module.alerts import messages
from module.alerts.messages import Subject
from module.alerts.outbox import AlertOutbox, configured_channels
from module.model.errors import OutcomeUnknown, Unavailable
from module.ports import Alert
from module.settings import Settings
from tests.fakes.watched_account import WatchClock

AT = datetime(2026, 3, 3, 9, 17, 41, tzinfo=UTC)


class Store:
    """An alert store that a test makes fail."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []
        self.failing: Exception | None = None
        self.takes = 10**6

    def add(self, alert: Alert, channels: Sequence[str], created_wall: datetime) -> int:
        if self.failing is not None:
            raise self.failing
        if len(self.alerts) >= self.takes:
            raise Unavailable("away again")
        assert channels == ("slack", "discord")
        self.alerts.append(alert)
        return len(self.alerts)


def an_alert(number: int, text: str = "it broke") -> Alert:
    return messages.critical_error(
        Subject("2603030917-ab3x", "owner", "u"), f"E{number}", text, "m", AT
    )


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def outbox(store: Store, tmp_path: Path) -> AlertOutbox:
    return AlertOutbox(store, tmp_path, ("slack", "discord"), WatchClock(AT), ("plainword",))


def test_an_alert_is_stored_clean(store: Store, outbox: AlertOutbox) -> None:
    outbox.notify(an_alert(1, "plainword api_key=abc123def"))
    (kept,) = store.alerts
    assert "plainword" not in str(kept)
    assert "abc123def" not in str(kept)


def test_F5_without_postgres_alerts_wait_in_a_file_that_any_process_drains(
    store: Store, outbox: AlertOutbox, tmp_path: Path
) -> None:
    store.failing = Unavailable("database finplatform does not answer")
    for number in range(3):
        outbox.notify(an_alert(number))
    store.failing = None
    other = AlertOutbox(store, tmp_path, ("slack", "discord"), WatchClock(AT))
    assert other.drain() == 3
    assert store.alerts == [an_alert(number) for number in range(3)]
    assert other.drain() == 0


def test_what_the_spool_could_not_hand_over_stays(store: Store, outbox: AlertOutbox) -> None:
    store.failing = Unavailable("away")
    for number in range(4):
        outbox.notify(an_alert(number))
    store.failing = None
    store.takes = 2
    with pytest.raises(Unavailable):
        outbox.drain()
    store.takes = 100
    outbox.notify(an_alert(9))
    assert [alert.title for alert in store.alerts] == [
        f"[Futures] E{number} (m)" for number in (0, 1, 9, 2, 3)
    ]


@pytest.mark.parametrize("error", [OutcomeUnknown("lost"), RuntimeError("bug"), OSError("disk")])
def test_notify_never_raises(store: Store, outbox: AlertOutbox, error: Exception) -> None:
    store.failing = error
    outbox.notify(an_alert(1))


def test_notify_does_not_raise_when_nothing_can_be_written(store: Store, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    store.failing = Unavailable("away")
    AlertOutbox(store, blocked, ("slack", "discord"), WatchClock(AT)).notify(an_alert(1))


def test_a_torn_line_of_the_spool_does_not_hide_the_others(
    store: Store, outbox: AlertOutbox, tmp_path: Path
) -> None:
    store.failing = Unavailable("away")
    outbox.notify(an_alert(1))
    spool = tmp_path / "alerts" / "outbox.spool"
    spool.write_bytes(spool.read_bytes() + b'{"kind": "err')
    store.failing = None
    outbox.drain()
    assert store.alerts == [an_alert(1)]


def test_channels_are_those_with_an_address(tmp_path: Path) -> None:
    assert configured_channels(Settings(data_dir=tmp_path)) == ()
    both = Settings(
        data_dir=tmp_path,
        slack_webhook_url="https://hooks.slack.com/services/a",
        discord_webhook_url="https://discord.com/api/webhooks/b",
    )
    assert configured_channels(both) == ("slack", "discord")
