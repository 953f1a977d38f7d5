"""One POST to a webhook: only to allowed hosts, only over https, no redirects, bounded in time.

Slack's and Discord's libraries spell the request; what goes over the wire goes through here,
because both would follow a redirect to anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from module.model.errors import InvalidInput, Unavailable

TIMEOUT_S = 5.0
RETRY_AFTER_DEFAULT_S = 1.0
RETRY_AFTER_MAX_S = 300.0


class Delivery(StrEnum):
    """What became of one attempt."""

    SENT = "sent"
    LIMITED = "limited"
    GONE = "gone"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """`GONE`: the channel is no more; `REFUSED`: this message will never be taken; `FAILED`: try
    again; `LIMITED`: try again after `retry_after_s`."""

    delivery: Delivery
    error: str = ""
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """Status and headers (lower case); a body is not read."""

    status: int
    headers: Mapping[str, str]


def check_webhook_url(url: str, allowed_hosts: Sequence[str]) -> str:
    """Return `url` if it may be called; InvalidInput otherwise (without the URL's secret part).

    `allowed_hosts` are host names for https on its own port. An entry `http://127.0.0.1` (with its
    scheme) also allows plain http, on any port, for that very host: for tests.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidInput("the webhook address is not an address") from error
    shown = f"{parts.scheme}://{host}"
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(f"the webhook address {shown} must not hold credentials")
    if any(character.isspace() or character == "\\" for character in url):
        raise InvalidInput(f"the webhook address {shown} holds characters it must not")
    if f"{parts.scheme}://{host}" in allowed_hosts and parts.scheme == "http":
        return url
    if parts.scheme != "https" or port not in (None, 443) or host not in allowed_hosts:
        raise InvalidInput(
            f"the webhook address {shown} is not allowed; https and one of "
            f"{', '.join(allowed_hosts)} is asked for"
        )
    return url


def post_json(url: str, document: object, timeout_s: float = TIMEOUT_S) -> WebhookAnswer:
    """POST `document` once; Unavailable when there was no answer within `timeout_s`."""
    import urllib3

    body = json.dumps(document).encode()
    try:
        with urllib3.PoolManager(num_pools=1, maxsize=1) as pool:
            response = pool.request(
                "POST",
                url,
                body=body,
                headers={"Content-Type": "application/json"},
                timeout=urllib3.Timeout(total=timeout_s),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            headers = {name.lower(): value for name, value in response.headers.items()}
            response.close()
            return WebhookAnswer(response.status, headers)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        # The library's own text repeats the address, which is a secret: only the kind is told.
        raise Unavailable(f"the webhook did not answer ({type(error).__name__})") from error


def read_answer(answer: WebhookAnswer) -> DeliveryResult:
    """What an answer means for the delivery."""
    status = answer.status
    error = f"HTTP {status}"
    if 200 <= status < 300:
        return DeliveryResult(Delivery.SENT)
    if status == 429:
        return DeliveryResult(Delivery.LIMITED, error, _retry_after_s(answer.headers))
    if status in (401, 403, 404, 410):
        return DeliveryResult(Delivery.GONE, error)
    if 300 <= status < 400:
        return DeliveryResult(Delivery.REFUSED, f"{error}: redirects are not followed")
    if 400 <= status < 500 and status != 408:
        return DeliveryResult(Delivery.REFUSED, error)
    return DeliveryResult(Delivery.FAILED, error)


def _retry_after_s(headers: Mapping[str, str]) -> float:
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return RETRY_AFTER_DEFAULT_S
    if not 0 <= seconds < float("inf"):
        return RETRY_AFTER_DEFAULT_S
    return min(seconds, RETRY_AFTER_MAX_S)
