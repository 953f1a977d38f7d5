"""The paper exchange's control door: opens accounts and makes deposits there.

Only the gateway uses it, with the installation's control token.
"""

from __future__ import annotations

import json
from decimal import Decimal

from module.model.credentials import Credentials
from module.model.errors import Conflict, OutcomeUnknown, Rejected, Unavailable
from module.model.money import plain
from module.wire.service_http import LostError, NotSentError, ServiceHttp


class PaperControl:
    """Client of `/control` of the simulator at `base_url`."""

    def __init__(self, base_url: str, control_token: str) -> None:
        self._http = ServiceHttp(base_url, control_token, answer_timeout_s=15.0)

    def open_account(
        self, credentials: Credentials, *, futures_usdt: Decimal, spot_usdt: Decimal
    ) -> None:
        """Make an account for these keys; the same keys again change nothing."""
        self._post(
            "/control/accounts",
            {
                "api_key": credentials.api_key,
                "api_secret": credentials.api_secret,
                "passphrase": credentials.passphrase,
                "futures_usdt": plain(futures_usdt),
                "spot": {"USDT": plain(spot_usdt)},
                "position_mode": "one_way",
            },
        )

    def deposit(self, api_key: str, *, is_futures: bool, amount: Decimal) -> None:
        """Transfer `amount` USDT into the wallet; not repeatable, so never repeated here."""
        self._post(
            "/control/deposits",
            {
                "api_key": api_key,
                "wallet": "futures" if is_futures else "spot",
                "coin": "USDT",
                "amount": plain(amount),
            },
        )

    def close(self) -> None:
        """Leave no connection open."""
        self._http.close()

    def _post(self, path: str, document: dict[str, object]) -> None:
        try:
            answer = self._http.call("POST", path, document=document)
        except NotSentError as error:
            raise Unavailable("the paper exchange cannot be reached; is it running?") from error
        except LostError as error:
            raise OutcomeUnknown("the paper exchange's answer was lost") from error
        if answer.status in (200, 201):
            return
        detail = _detail(answer.body)
        if answer.status == 409:
            raise Conflict(f"the paper exchange refused: {detail}")
        if answer.status >= 500:
            raise OutcomeUnknown(f"the paper exchange answered {answer.status}: {detail}")
        raise Rejected(f"the paper exchange answered {answer.status}: {detail}")


def _detail(body: bytes) -> str:
    """What an error answer says, cut short; the request's secrets are never in it."""
    try:
        loaded = json.loads(body)
    except ValueError:
        return "no readable answer"
    if isinstance(loaded, dict):
        for name in ("detail", "error", "message", "msg"):
            if isinstance(loaded.get(name), str):
                return str(loaded[name])[:200]
    return "no detail"
