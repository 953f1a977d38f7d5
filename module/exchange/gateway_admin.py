"""What services ask of the gateway with a service grant: paper accounts, deposits, credentials.

The platform API stands before it. Secrets go through and are not kept, printed or answered.
"""

from __future__ import annotations

from decimal import Decimal
from urllib.parse import quote

from module.model.accounts import TradeEnv
from module.model.credentials import Credentials
from module.model.errors import OutcomeUnknown, Unavailable
from module.model.market import MarketType
from module.model.money import plain
from module.wire.problem_codec import error_from_problem, names_an_error
from module.wire.service_http import LostError, NotSentError, ServiceHttp


class GatewayAdmin:
    """Client of the gateway's account doors; safe to share between threads."""

    def __init__(self, base_url: str, token: str, *, answer_timeout_s: float = 30.0) -> None:
        """`token` spells a service grant (`module.security.tokens.service_grant`)."""
        self._http = ServiceHttp(base_url, token, answer_timeout_s=answer_timeout_s)

    def open_paper_account(
        self, owner_id: str, label: str, market: MarketType, balance: Decimal
    ) -> str:
        """Open an account at the paper exchange with `balance` USDT; its account id.

        Conflict when the owner has an account of that label; Unavailable when nothing happened.
        """
        return self._account_id(
            "/gateway/paper-accounts",
            {
                "owner_id": owner_id,
                "label": label,
                "market": market.value,
                "balance": plain(balance),
            },
        )

    def deposit(self, account_id: str, amount: Decimal) -> None:
        """Transfer `amount` USDT into a paper account."""
        path = f"/gateway/paper-accounts/{quote(account_id, safe='')}/deposits"
        self._post(path, {"amount": plain(amount)})

    def add_account(
        self,
        *,
        owner_id: str,
        label: str,
        venue: str,
        market: MarketType,
        trade_env: TradeEnv,
        base_url: str,
        credentials: Credentials,
        force: bool = False,
    ) -> str:
        """Check keys against the exchange, then save them; the account id.

        Forbidden when the exchange refuses the keys, or when they may withdraw and `force` is not
        given.
        """
        return self._account_id(
            "/gateway/accounts",
            {
                "owner_id": owner_id,
                "label": label,
                "venue": venue,
                "market": market.value,
                "trade_env": trade_env.value,
                "base_url": base_url,
                "api_key": credentials.api_key,
                "api_secret": credentials.api_secret,
                "passphrase": credentials.passphrase,
                "force": force,
            },
        )

    def ready(self) -> bool:
        """Whether the gateway answers at all."""
        try:
            return self._http.call("GET", "/health/live").status == 200
        except (NotSentError, LostError):
            return False

    def close(self) -> None:
        """Leave no connection open."""
        self._http.close()

    def _account_id(self, path: str, document: dict[str, object]) -> str:
        answer = self._post(path, document)
        account_id = answer.get("account_id") if isinstance(answer, dict) else None
        if not isinstance(account_id, str):
            raise OutcomeUnknown("the gateway's answer names no account_id")
        return account_id

    def _post(self, path: str, document: dict[str, object]) -> object:
        try:
            answer = self._http.call("POST", path, document=document)
        except NotSentError as error:
            raise Unavailable("the gateway cannot be reached; nothing was sent") from error
        except LostError as error:
            raise OutcomeUnknown("the gateway's answer was lost; look before repeating") from error
        if answer.status not in (200, 201):
            if answer.status >= 500 and not names_an_error(answer.body):
                raise OutcomeUnknown(f"the gateway answered HTTP {answer.status}")
            raise error_from_problem(answer.status, answer.body)
        try:
            return answer.json()
        except ValueError as error:
            raise OutcomeUnknown("the gateway's answer is not JSON") from error
