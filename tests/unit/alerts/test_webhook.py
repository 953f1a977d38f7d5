"""Only allowed hosts, only https, and what an answer means."""

from __future__ import annotations

import pytest

from module.alerts.webhook import (
    RETRY_AFTER_MAX_S,
    Delivery,
    WebhookAnswer,
    check_webhook_url,
    read_answer,
)
from module.model.errors import InvalidInput

HOSTS = ("hooks.slack.com", "discord.com", "discordapp.com")


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.slack.com/services/T0/B0/xyz",
        "https://discord.com/api/webhooks/1/abc",
        "https://discord.com:443/api/webhooks/1/abc",
        "https://HOOKS.slack.com/services/T0/B0/xyz",
    ],
)
def test_the_real_services_are_allowed(url: str) -> None:
    assert check_webhook_url(url, HOSTS) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.slack.com/services/T0",
        "http://hooks.slack.com/services/T0",
        "https://hooks.slack.com:8443/services/T0",
        "https://hooks.slack.com.evil.example/x",
        "https://evil.example/hooks.slack.com",
        "https://hooks.slack.com@evil.example/x",
        "https://user:pass@hooks.slack.com/x",
        "https://evil.example#@hooks.slack.com",
        "https://evil.example\\@hooks.slack.com",
        "https://hooks.slack.com\\.evil.example/x",
        "https://hooks.slack.com /x",
        "https://127.0.0.1/x",
        "http://127.0.0.1/x",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/",
        "https://localhost/",
        "https://[broken/",
        "https://hooks.slack.com:port/x",
        "file:///etc/passwd",
        "gopher://hooks.slack.com/x",
        "ftp://hooks.slack.com/x",
        "javascript:alert(1)",
    ],
)
def test_S18_every_other_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_webhook_url(url, HOSTS)
    assert "/x" not in caught.value.message
    assert "pass@" not in caught.value.message


def test_plain_http_needs_its_host_spelled_with_the_scheme() -> None:
    url = "http://127.0.0.1:41234/hook"
    assert check_webhook_url(url, (*HOSTS, "http://127.0.0.1")) == url
    with pytest.raises(InvalidInput):
        check_webhook_url(url, (*HOSTS, "127.0.0.1"))
    with pytest.raises(InvalidInput):
        check_webhook_url("http://127.0.0.2:41234/hook", (*HOSTS, "http://127.0.0.1"))


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (200, Delivery.SENT),
        (204, Delivery.SENT),
        (301, Delivery.REFUSED),
        (307, Delivery.REFUSED),
        (400, Delivery.REFUSED),
        (403, Delivery.GONE),
        (404, Delivery.GONE),
        (408, Delivery.FAILED),
        (410, Delivery.GONE),
        (429, Delivery.LIMITED),
        (500, Delivery.FAILED),
        (503, Delivery.FAILED),
    ],
)
def test_what_a_status_means(status: int, meaning: Delivery) -> None:
    assert read_answer(WebhookAnswer(status, {})).delivery is meaning


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("soon", 1.0), ("-3", 1.0), ("nan", 1.0), ("86400", 300.0)],
)
def test_F2_retry_after_is_honoured_within_reason(header: str, seconds: float) -> None:
    result = read_answer(WebhookAnswer(429, {"retry-after": header}))
    assert result.retry_after_s == seconds <= RETRY_AFTER_MAX_S
