"""Alerts from the outbox to webhooks: delivered once, held back, escalated, never lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from module.alerts import messages
from module.alerts.dispatcher import ATTEMPTS_MAX, AlertDispatcher, build_dispatcher
from module.alerts.messages import Subject
from module.alerts.outbox import AlertOutbox
from module.alerts.slack_alert import SlackAlert
from module.alerts.webhook import Delivery
from module.clock import SystemClock
from module.db.database import Database
from module.db.repositories.alerts import AlertRepository
from module.ports import Alert, AlertBacklog
from module.settings import Settings
from tests.fakes.watched_account import WatchClock
from tests.fakes.webhook_server import WebhookServer

BOTH = ("slack", "discord")
AT = datetime(2026, 3, 3, 9, 17, tzinfo=UTC)


def an_alert(number: int = 1, text: str = "it broke") -> Alert:
    subject = Subject("2603030917-ab3x", "owner-1", "trader_01")
    return messages.critical_error(subject, f"Error{number}", text, "auto_trade", AT)


def settings_for(postgres: Settings, slack: WebhookServer, discord: WebhookServer) -> Settings:
    return postgres.model_copy(
        update={
            "slack_webhook_url": slack.url("/services/T0/B0/tell-nobody"),
            "discord_webhook_url": discord.url("/api/webhooks/1/tell-nobody"),
            "webhook_hosts": ("http://127.0.0.1",),
        }
    )


@pytest.fixture
def dispatcher(
    postgres: Settings,
    slack: WebhookServer,
    discord: WebhookServer,
    alerts: AlertRepository,
    clock: WatchClock,
) -> AlertDispatcher:
    return build_dispatcher(settings_for(postgres, slack, discord), alerts, clock)


def states(platform: Database) -> list[tuple[str, str]]:
    with platform.read() as session:
        rows = session.execute(
            text("SELECT channel, state FROM alert_deliveries ORDER BY alert_id, channel")
        )
        return [(channel, state) for channel, state in rows]


def settle(
    dispatcher: AlertDispatcher, clock: WatchClock, seconds: int, *, every_s: int = 1
) -> int:
    """Let real time pass, a pass of the dispatcher each second (each `every_s` in long waits)."""
    delivered = 0
    for _ in range(0, seconds, every_s):
        delivered += dispatcher.step()
        clock.sleep(every_s)
    return delivered


def test_an_alert_reaches_both_channels_once(
    dispatcher: AlertDispatcher,
    alerts: AlertRepository,
    clock: WatchClock,
    slack: WebhookServer,
    discord: WebhookServer,
    platform: Database,
) -> None:
    alerts.add(an_alert(), BOTH, clock.wall())
    assert settle(dispatcher, clock, 5) == 2
    (to_slack,) = slack.received
    assert to_slack["blocks"][0]["text"]["type"] == "plain_text"
    assert "Error1 (auto_trade)" in to_slack["blocks"][0]["text"]["text"]
    (to_discord,) = discord.received
    assert to_discord["allowed_mentions"] == {"parse": []}
    assert "2026" in to_discord["content"]
    assert set(states(platform)) == {("slack", "sent"), ("discord", "sent")}
    assert dispatcher.probe()
    (stored,) = alerts.latest("owner-1", 10)
    assert stored.alert == an_alert()
    assert stored.deliveries == {"slack": "sent", "discord": "sent"}
    assert alerts.latest("somebody else", 10) == []


@pytest.mark.parametrize("status", [404, 410])
def test_F1_a_webhook_that_is_gone_kills_its_channel_and_the_other_one_is_told(
    dispatcher: AlertDispatcher,
    alerts: AlertRepository,
    clock: WatchClock,
    slack: WebhookServer,
    discord: WebhookServer,
    platform: Database,
    status: int,
) -> None:
    slack.usual = (status, {})
    alerts.add(an_alert(1), ("slack",), clock.wall())
    alerts.add(an_alert(2), ("slack",), clock.wall())
    settle(dispatcher, clock, 5)
    alerts.add(an_alert(3), BOTH, clock.wall())
    settle(dispatcher, clock, 5)
    assert len(slack.received) == 1
    told = " ".join(item["content"] for item in discord.received).replace("\\", "")
    for words in ("Error1", "Error2", "Error3", "Alerts to slack cannot be delivered"):
        assert words in told
    assert len(discord.received) == 4
    assert ("slack", "pending") not in states(platform)
    assert "slack" in dispatcher.dead_channels
    assert not dispatcher.probe()


def test_F2_a_rate_limit_holds_the_channel_back_as_long_as_it_says(
    dispatcher: AlertDispatcher, alerts: AlertRepository, clock: WatchClock, slack: WebhookServer
) -> None:
    slack.answers = [(429, {"Retry-After": "30"})]
    for number in range(3):
        alerts.add(an_alert(number), ("slack",), clock.wall())
    settle(dispatcher, clock, 29)
    assert len(slack.received) == 1
    assert settle(dispatcher, clock, 5) == 3
    assert len(slack.received) == 4


def test_F2_a_limit_is_no_attempt(
    dispatcher: AlertDispatcher, alerts: AlertRepository, clock: WatchClock, slack: WebhookServer
) -> None:
    slack.answers = [(429, {"Retry-After": "1"})] * (2 * ATTEMPTS_MAX)
    alerts.add(an_alert(), ("slack",), clock.wall())
    assert settle(dispatcher, clock, 60) == 1


def test_F3_a_webhook_that_hangs_is_left_after_the_timeout(
    alerts: AlertRepository, clock: WatchClock, slack: WebhookServer, platform: Database
) -> None:
    slack.answers = [(0, {})]
    channel = SlackAlert(slack.url(), ("http://127.0.0.1",), "UTC", clock, timeout_s=0.3)
    dispatcher = AlertDispatcher(alerts, [channel], clock)
    alerts.add(an_alert(), ("slack",), clock.wall())
    assert dispatcher.step() == 0
    assert states(platform) == [("slack", "pending")]
    clock.sleep(3)
    assert dispatcher.step() == 1


def test_F3_raising_an_alert_does_not_touch_the_webhook(
    alerts: AlertRepository, clock: WatchClock, slack: WebhookServer, tmp_path: Path
) -> None:
    AlertOutbox(alerts, tmp_path, ("slack",), clock).notify(an_alert())
    assert slack.received == []
    assert alerts.backlog() == AlertBacklog(1, clock.wall(), 0)


def test_F4_500_alerts_of_one_cause_are_two_messages_with_a_count(
    dispatcher: AlertDispatcher,
    alerts: AlertRepository,
    clock: WatchClock,
    slack: WebhookServer,
    platform: Database,
) -> None:
    for second in range(10):
        for _ in range(50):
            alerts.add(an_alert(7), ("slack",), clock.wall())
        if second == 0:
            alerts.add(an_alert(8), ("slack",), clock.wall())
        settle(dispatcher, clock, 1)
    assert len(slack.received) == 2  # one per cause so far
    first = slack.received[0]["text"]
    assert "(50)" in first
    settle(dispatcher, clock, 285, every_s=5)
    assert len(slack.received) == 2
    settle(dispatcher, clock, 20)
    assert len(slack.received) == 3
    assert "(450)" in slack.received[2]["text"]
    assert {state for _, state in states(platform)} == {"sent", "merged"}


def test_F4_two_dispatchers_at_once_send_one_message(
    postgres: Settings,
    alerts: AlertRepository,
    clock: WatchClock,
    slack: WebhookServer,
    discord: WebhookServer,
) -> None:
    for _ in range(20):
        alerts.add(an_alert(7), ("slack",), clock.wall())
    both = [
        build_dispatcher(settings_for(postgres, slack, discord), alerts, clock) for _ in range(2)
    ]
    threads = [threading.Thread(target=item.step) for item in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(slack.received) == 1


def test_F5_what_a_dead_dispatcher_was_sending_is_sent_again_at_most_once(
    dispatcher: AlertDispatcher,
    alerts: AlertRepository,
    clock: WatchClock,
    slack: WebhookServer,
) -> None:
    alerts.add(an_alert(), ("slack",), clock.wall())
    taken = alerts.claim(
        "slack",
        clock.wall(),
        window=timedelta(minutes=5),
        lease=timedelta(seconds=60),
        count_max=10,
    )
    assert len(taken) == 1  # … and the process dies here
    assert settle(dispatcher, clock, 59) == 0
    assert settle(dispatcher, clock, 120) == 1
    assert len(slack.received) == 1


def test_F5_a_process_killed_right_after_deciding_to_alert_has_alerted(
    postgres: Settings,
    alerts: AlertRepository,
    dispatcher: AlertDispatcher,
    clock: WatchClock,
    slack: WebhookServer,
    tmp_path: Path,
) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from module.alerts import messages\n"
        "from module.alerts.outbox import AlertOutbox\n"
        "from module.clock import SystemClock\n"
        "from module.db.database import Database\n"
        "from module.db.repositories.alerts import AlertRepository\n"
        "from module.settings import Settings\n"
        "clock = SystemClock()\n"
        "settings = Settings(database_host=sys.argv[2]) if sys.argv[2] else Settings()\n"
        "store = AlertRepository(Database(settings, 'finplatform', 1))\n"
        "alert = messages.critical_error(messages.Subject(None, None, 'u'), sys.argv[1], 'x',\n"
        "                                'm', clock.now())\n"
        "AlertOutbox(store, Path(sys.argv[3]), ('slack',), clock).notify(alert)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"AIFAP_DATA_DIR": str(postgres.data_dir)}
    for name, host in (("Stored", ""), ("Spooled", "/nonexistent")):
        ended = subprocess.run(
            [sys.executable, "-c", script, name, host, str(tmp_path)],
            env=environment,
            timeout=60,
            check=False,
        )
        assert ended.returncode == -signal.SIGKILL
    outbox = AlertOutbox(alerts, tmp_path, ("slack",), clock)
    clock.time = SystemClock().wall() + timedelta(seconds=1)
    assert outbox.drain() == 1
    settle(dispatcher, clock, 3)
    sent = " ".join(item["text"] for item in slack.received)
    assert "Stored (m)" in sent
    assert "Spooled (m)" in sent


def test_F6_with_all_channels_down_alerts_are_kept_and_health_says_so(
    dispatcher: AlertDispatcher,
    alerts: AlertRepository,
    clock: WatchClock,
    slack: WebhookServer,
    discord: WebhookServer,
    platform: Database,
) -> None:
    slack.usual = discord.usual = (503, {})
    alerts.add(an_alert(), BOTH, clock.wall())
    settle(dispatcher, clock, 60)
    assert 2 <= len(slack.received) < ATTEMPTS_MAX
    settle(dispatcher, clock, 600, every_s=5)
    assert len(slack.received) == len(discord.received) == ATTEMPTS_MAX
    assert states(platform) == [("discord", "dead"), ("slack", "dead")]
    assert alerts.backlog().undelivered == 1
    alerts.add(an_alert(2), BOTH, clock.wall())
    clock.sleep(301)
    assert not dispatcher.probe()


def test_a_message_that_fails_for_good_is_escalated(
    dispatcher: AlertDispatcher,
    alerts: AlertRepository,
    clock: WatchClock,
    slack: WebhookServer,
    discord: WebhookServer,
) -> None:
    slack.answers = [(400, {})]
    alerts.add(an_alert(), ("slack",), clock.wall())
    settle(dispatcher, clock, 3)
    assert len(slack.received) == len(discord.received) == 1
    assert dispatcher.dead_channels == {}


def test_S18_redirects_are_not_followed(clock: WatchClock, slack: WebhookServer) -> None:
    slack.usual = (302, {"Location": slack.url("/elsewhere")})
    channel = SlackAlert(slack.url(), ("http://127.0.0.1",), "UTC", clock)
    result = channel.send_slack_alert("trader_01", "Critical Error", "it broke", "auto_trade")
    assert result.delivery is Delivery.REFUSED
    assert slack.paths == ["/hook"]


def test_an_address_that_is_not_allowed_kills_its_channel_only(
    postgres: Settings, alerts: AlertRepository, clock: WatchClock, discord: WebhookServer
) -> None:
    settings = postgres.model_copy(
        update={
            "slack_webhook_url": "https://169.254.169.254/latest",
            "discord_webhook_url": discord.url(),
            "webhook_hosts": ("http://127.0.0.1",),
        }
    )
    dispatcher = build_dispatcher(settings, alerts, clock)
    alerts.add(an_alert(), BOTH, clock.wall())
    settle(dispatcher, clock, 3)
    assert set(dispatcher.dead_channels) == {"slack"}
    assert len(discord.received) == 1


def test_the_seeds_functions_send_at_once(
    clock: WatchClock, slack: WebhookServer, discord: WebhookServer
) -> None:
    from module.alerts.discord_alert import DiscordAlert

    hosts: Sequence[str] = ("http://127.0.0.1",)
    to_slack = SlackAlert(slack.url(), hosts, "Asia/Seoul", clock)
    sent = to_slack.send_slack_start_notification("trader_01", "momentum", "paper", 720)
    assert sent.delivery is Delivery.SENT
    assert "> Duration" not in slack.received[0]["blocks"][0]["text"]["text"]
    assert "> Trading Duration: 720h 0m" in slack.received[0]["blocks"][0]["text"]["text"]
    to_discord = DiscordAlert(discord.url(), hosts, "Asia/Seoul", clock)
    assert to_discord.send_discord_alert("trader_01", "E", "it broke").delivery is Delivery.SENT
    assert "tell" not in repr(to_slack) + repr(to_discord)


def test_the_dispatcher_runs_in_a_thread_and_ends(
    postgres: Settings, alerts: AlertRepository, slack: WebhookServer, discord: WebhookServer
) -> None:
    clock = SystemClock()
    dispatcher = build_dispatcher(settings_for(postgres, slack, discord), alerts, clock)
    alerts.add(an_alert(), ("slack",), clock.wall())
    dispatcher.start()
    dispatcher.start()
    for _ in range(200):
        if slack.received:
            break
        clock.sleep(0.05)
    dispatcher.stop()
    dispatcher.stop()
    assert len(slack.received) == 1
    assert "alert-dispatcher" not in {thread.name for thread in threading.enumerate()}


def test_the_dispatcher_runs_as_a_process_and_ends_on_sigterm(
    postgres: Settings, alerts: AlertRepository, slack: WebhookServer
) -> None:
    clock = SystemClock()
    alerts.add(an_alert(), ("slack",), clock.wall())
    environment = os.environ | {
        "AIFAP_DATA_DIR": str(postgres.data_dir),
        "AIFAP_SLACK_WEBHOOK_URL": slack.url(),
        "AIFAP_WEBHOOK_HOSTS": '["http://127.0.0.1"]',
    }
    process = subprocess.Popen([sys.executable, "-m", "module.alerts"], env=environment)
    try:
        for _ in range(400):
            if slack.received:
                break
            clock.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait(timeout=30)
    assert len(slack.received) == 1
