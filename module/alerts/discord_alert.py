"""Discord, through a webhook (discord-webhook spells the request). Nobody is ever mentioned."""

from __future__ import annotations

from module.alerts import messages
from module.alerts.channel import WebhookChannel
from module.alerts.webhook import (
    Delivery,
    DeliveryResult,
    post_json,
    read_answer,
)
from module.model.errors import Unavailable
from module.ports import Alert

SUPPRESS_EMBEDS = 4  # Discord's message flag: no previews of addresses


class DiscordAlert(WebhookChannel):
    """One Discord channel."""

    name = "discord"

    def send_discord_alert(
        self, user_id: str, error_type: str, error_msg: str, module_name: str = "system"
    ) -> DeliveryResult:
        """Send an error to the channel now."""
        return self._send_error(user_id, error_type, error_msg, module_name)

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
