"""Slack, through an incoming webhook (slack-sdk spells the request)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from module.alerts import messages
from module.alerts.channel import WebhookChannel
from module.alerts.webhook import (
    Delivery,
    DeliveryResult,
    WebhookAnswer,
    post_json,
    read_answer,
)
from module.model.errors import Unavailable
from module.ports import Alert

if TYPE_CHECKING:
    from slack_sdk.webhook import WebhookClient


class SlackAlert(WebhookChannel):
    """One Slack channel."""

    name = "slack"

    def send_slack_alert(
        self, user_id: str, error_type: str, error_msg: str, module_name: str = "system"
    ) -> DeliveryResult:
        """Send an error to the channel now."""
        return self._send_error(user_id, error_type, error_msg, module_name)

    def send_slack_start_notification(
        self, user_id: str, strategy_name: str, trade_env: str, trading_hours: float
    ) -> DeliveryResult:
        """Say in the channel now that a session has started."""
        subject = messages.Subject(None, user_id, user_id)
        now = self._clock.now()
        return self.deliver(
            messages.system_started(subject, strategy_name, trade_env, trading_hours, now)
        )

    def deliver(self, alert: Alert, count: int = 1) -> DeliveryResult:
        """Send `alert`, which stands for `count` of its cause. Never raises for the network."""
        message = messages.for_slack(messages.cleaned(alert), self._zone, count)
        block = {"type": "section", "text": {"type": "plain_text", "text": message.plain}}
        client, answers = _client(self._url, self._timeout_s)
        try:
            client.send(text=message.text, blocks=[block], unfurl_links=False, unfurl_media=False)
        except Unavailable as error:
            return DeliveryResult(Delivery.FAILED, error.message)
        return read_answer(answers[0])


def _client(url: str, timeout_s: float) -> tuple[WebhookClient, list[WebhookAnswer]]:
    """slack-sdk's client with our own way onto the wire, and where its answer is noted."""
    from slack_sdk.webhook import WebhookClient, WebhookResponse

    answers: list[WebhookAnswer] = []

    class _OneTry(WebhookClient):
        def _perform_http_request(
            self, *, body: dict[str, Any], headers: dict[str, str]
        ) -> WebhookResponse:
            answer = post_json(self.url, body, timeout_s)
            answers.append(answer)
            return WebhookResponse(
                url="", status_code=answer.status, body="", headers=dict(answer.headers)
            )

    return _OneTry(url, retry_handlers=[]), answers
