"""Discord, through a webhook (discord-webhook spells the request). Nobody is ever mentioned."""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from module.alerts import messages
from module.alerts.webhook import (
    TIMEOUT_S,
    Delivery,
    DeliveryResult,
    check_webhook_url,
    post_json,
    read_answer,
)
from module.model.errors import Unavailable
from module.ports import Alert, Clock

SUPPRESS_EMBEDS = 4  # Discord's message flag: no previews of addresses


class DiscordAlert:
    """One Discord channel; see `SlackAlert`."""

    name = "discord"

    def __init__(
        self,
        webhook_url: str,
        allowed_hosts: Sequence[str],
        display_timezone: str,
        clock: Clock,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url = check_webhook_url(webhook_url, allowed_hosts)
        self._zone = ZoneInfo(display_timezone)
        self._clock = clock
        self._timeout_s = timeout_s

    def send_discord_alert(
        self, user_id: str, error_type: str, error_msg: str, module_name: str = "system"
    ) -> DeliveryResult:
        """Send an error to the channel now."""
        subject = messages.Subject(None, user_id, user_id)
        now = self._clock.now()
        return self.deliver(
            messages.critical_error(subject, error_type, error_msg, module_name, now)
        )

    def deliver(self, alert: Alert, count: int = 1) -> DeliveryResult:
        """Send `alert`, which stands for `count` of its cause. Never raises for the network."""
        from discord_webhook import DiscordWebhook

        webhook = DiscordWebhook(
            url=self._url,
            content=messages.for_discord(messages.cleaned(alert), self._zone, count),
            allowed_mentions={"parse": []},
            flags=SUPPRESS_EMBEDS,
        )
        try:
            return read_answer(post_json(self._url, webhook.json, self._timeout_s))
        except Unavailable as error:
            return DeliveryResult(Delivery.FAILED, error.message)

    def __repr__(self) -> str:
        return "DiscordAlert([redacted])"
