"""What a channel to people is made of: a checked address, the zone that people read, a clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from zoneinfo import ZoneInfo

from module.alerts import messages
from module.alerts.webhook import TIMEOUT_S, DeliveryResult, check_webhook_url
from module.ports import Alert, Clock


class WebhookChannel(ABC):
    """One webhook. `send_…` of the channels go out at once and say what became of them; processes
    that trade use the outbox instead, which does not wait."""

    name = ""

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

    @abstractmethod
    def deliver(self, alert: Alert, count: int = 1) -> DeliveryResult:
        """Send `alert`, which stands for `count` of its cause. Never raises for the network."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}([redacted])"

    def _send_error(
        self, user_id: str, error_type: str, error_msg: str, module_name: str
    ) -> DeliveryResult:
        subject = messages.Subject(None, user_id, user_id)
        now = self._clock.now()
        return self.deliver(
            messages.critical_error(subject, error_type, error_msg, module_name, now)
        )
