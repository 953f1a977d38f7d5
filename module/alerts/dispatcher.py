"""Delivers what the outbox holds: one pass a second, in a thread of the API or a process.

    alert_outbox ── claim ─► Slack, Discord ─► sent │ later │ dead → the other channel

At most one message per cause and window (with a count); a rate limit holds its whole channel back;
a webhook that is gone kills its channel until AIFAP is restarted, and the other one is told.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from module.alerts import messages
from module.alerts.discord_alert import DiscordAlert
from module.alerts.outbox import AlertOutbox
from module.alerts.slack_alert import SlackAlert
from module.alerts.webhook import Delivery, DeliveryResult
from module.logs import get_logger
from module.model.errors import AifapError, InvalidInput, Unavailable
from module.ports import Alert, AlertBacklog, ClaimedAlert, Clock
from module.settings import Settings

WINDOW = timedelta(minutes=5)
LEASE = timedelta(seconds=60)
INTERVAL = timedelta(seconds=1)
OVERDUE_AFTER = timedelta(minutes=5)
ATTEMPTS_MAX = 8
BACK_OFF_MAX_S = 60.0
CLAIMED_MAX = 20
STOP_TIMEOUT_S = 15.0
_log = get_logger("alerts.dispatcher")


class Channel(Protocol):
    """One way to reach people (`SlackAlert`, `DiscordAlert`)."""

    @property
    def name(self) -> str:
        """slack or discord."""
        ...

    def deliver(self, alert: Alert, count: int = 1) -> DeliveryResult:
        """Try once, bounded in time; never raises for the network."""
        ...


class DeliveryStore(Protocol):
    """Deliveries that wait (`module.db.repositories.alerts`)."""

    def add(self, alert: Alert, channels: Sequence[str], created_wall: datetime) -> int:
        """Store an alert with one pending delivery per channel."""
        ...

    def claim(
        self,
        channel: str,
        now: datetime,
        *,
        window: timedelta,
        lease: timedelta,
        count_max: int,
    ) -> list[ClaimedAlert]:
        """Lease what may be sent now."""
        ...

    def mark_sent(self, claimed: ClaimedAlert, channel: str) -> None:
        """It was delivered."""
        ...

    def retry(
        self, alert_id: int, channel: str, next_try: datetime, error: str, *, counted: bool
    ) -> None:
        """Try again later."""
        ...

    def mark_dead(
        self,
        claimed: ClaimedAlert,
        channel: str,
        error: str,
        *,
        escalate_to: Sequence[str],
        now: datetime,
    ) -> None:
        """Undeliverable here; hand it to others."""
        ...

    def backlog(self) -> AlertBacklog:
        """What has not reached anybody."""
        ...


@dataclass(slots=True)
class _ChannelState:
    """What the dispatcher knows of a channel; `dead` says why nothing is sent there."""

    channel: Channel | None
    dead: str = ""
    not_before: datetime | None = None
    failures: int = 0


class AlertDispatcher:
    """Delivers pending alerts. `start` and `stop` run it in a thread of its own.

    `clock` must be real time (`SystemClock`): people are not in a stepped world. `broken` are
    channels that cannot be used at all, with the reason; their alerts go to the others.
    """

    def __init__(
        self,
        store: DeliveryStore,
        channels: Sequence[Channel],
        clock: Clock,
        *,
        outbox: AlertOutbox | None = None,
        broken: Mapping[str, str] | None = None,
        window: timedelta = WINDOW,
        attempts_max: int = ATTEMPTS_MAX,
    ) -> None:
        self._store = store
        self._clock = clock
        self._outbox = outbox
        self._window = window
        self._attempts_max = attempts_max
        self._channels = {channel.name: _ChannelState(channel) for channel in channels}
        for name, reason in (broken or {}).items():
            self._channels[name] = _ChannelState(None, dead=reason)
        self._thread: threading.Thread | None = None
        self._stop_writer = -1

    def step(self) -> int:
        """One pass over all channels; how many messages were delivered. Unavailable without
        Postgres."""
        if self._outbox is not None:
            self._outbox.drain()
        return sum(self._serve(name, state) for name, state in self._channels.items())

    def probe(self) -> bool:
        """For the health page: False when a channel is dead, or alerts wait for over five minutes.

        Unavailable without Postgres.
        """
        if any(state.dead for state in self._channels.values()):
            return False
        oldest = self._store.backlog().oldest_wall
        return oldest is None or self._clock.wall() - oldest <= OVERDUE_AFTER

    @property
    def dead_channels(self) -> Mapping[str, str]:
        """Channels nothing is sent to, with the reason."""
        return {name: state.dead for name, state in self._channels.items() if state.dead}

    def run(self, stop_fd: int) -> None:
        """Deliver until `stop_fd` is readable."""
        while True:
            try:
                self.step()
            except Unavailable as error:
                _log.warning("alerts wait", error=error.message)
            except Exception:  # noqa: BLE001 (top of the loop: said, and the next pass tries again)
                _log.exception("a pass of the alert dispatcher failed")
            if self._clock.wait_readable([stop_fd], self._clock.now() + INTERVAL):
                return

    def start(self) -> None:
        """Run in a thread; returns at once."""
        if self._thread is not None:
            return
        reader, self._stop_writer = os.pipe()

        def body() -> None:
            try:
                self.run(reader)
            finally:
                os.close(reader)

        self._thread = threading.Thread(target=body, name="alert-dispatcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; it may finish the message it is sending."""
        if self._thread is None:
            return
        os.close(self._stop_writer)
        self._thread.join(STOP_TIMEOUT_S)
        self._thread = None

    # --- one channel ------------------------------------------------------------------------------

    def _serve(self, name: str, state: _ChannelState) -> int:
        now = self._clock.wall()
        if not state.dead and state.not_before is not None and now < state.not_before:
            return 0
        claimed = self._store.claim(
            name, now, window=self._window, lease=LEASE, count_max=CLAIMED_MAX
        )
        delivered = 0
        for position, item in enumerate(claimed):
            if state.dead or state.channel is None:
                self._give_up(name, item, state.dead)
                continue
            result = state.channel.deliver(item.alert, item.count)
            if result.delivery is Delivery.SENT:
                state.failures = 0
                delivered += 1
                self._store.mark_sent(item, name)
            elif result.delivery is Delivery.REFUSED:
                self._give_up(name, item, result.error)
            elif result.delivery is Delivery.GONE:
                self._kill(name, state, result.error)
                self._give_up(name, item, result.error)
            else:
                self._hold_back(name, state, claimed[position:], result)
                break
        return delivered

    def _hold_back(
        self,
        name: str,
        state: _ChannelState,
        rest: Sequence[ClaimedAlert],
        result: DeliveryResult,
    ) -> None:
        """Pause the channel; the message that failed counts the attempt, the others do not."""
        now = self._clock.wall()
        limited = result.delivery is Delivery.LIMITED
        if limited:
            pause_s = result.retry_after_s
        else:
            state.failures += 1
            pause_s = min(2.0**state.failures, BACK_OFF_MAX_S)
        state.not_before = now + timedelta(seconds=pause_s)
        _log.warning("channel held back", channel=name, error=result.error, pause_s=pause_s)
        for item in rest:
            failed = item is rest[0] and not limited
            if failed and item.attempts >= self._attempts_max:
                self._give_up(name, item, f"{result.error} after {item.attempts} attempts")
            else:
                self._store.retry(
                    item.alert_id, name, state.not_before, result.error, counted=failed
                )

    def _kill(self, name: str, state: _ChannelState, error: str) -> None:
        """The webhook is gone: nothing more is sent there, the living channels are told."""
        state.dead = f"its webhook is gone ({error})"
        _log.error("channel is dead", channel=name, error=state.dead)
        alive = self._alive_besides(name)
        notice = messages.channel_dead(name, state.dead, self._clock.now())
        self._store.add(notice, alive, self._clock.wall())

    def _give_up(self, name: str, item: ClaimedAlert, error: str) -> None:
        self._store.mark_dead(
            item, name, error, escalate_to=self._alive_besides(name), now=self._clock.wall()
        )

    def _alive_besides(self, name: str) -> list[str]:
        return [
            other for other, state in self._channels.items() if other != name and not state.dead
        ]


def build_dispatcher(
    settings: Settings, store: DeliveryStore, clock: Clock, outbox: AlertOutbox | None = None
) -> AlertDispatcher:
    """The dispatcher of this installation: the channels its settings name.

    A webhook address that is not allowed makes its channel dead from the start, with the reason;
    it does not stop the installation.
    """
    channels: list[Channel] = []
    broken: dict[str, str] = {}
    kinds: tuple[tuple[str, str, type[SlackAlert] | type[DiscordAlert]], ...] = (
        ("slack", settings.slack_webhook_url, SlackAlert),
        ("discord", settings.discord_webhook_url, DiscordAlert),
    )
    for name, url, kind in kinds:
        if not url:
            continue
        try:
            channels.append(kind(url, settings.webhook_hosts, settings.display_timezone, clock))
        except (InvalidInput, KeyError, ValueError) as error:
            text = error.message if isinstance(error, AifapError) else str(error)
            broken[name] = text
            _log.error("channel cannot be used", channel=name, error=text)
    return AlertDispatcher(store, channels, clock, outbox=outbox, broken=broken)
