"""What services ask of the gateway with a service grant: paper accounts, deposits, credentials.

The platform API stands before it. Secrets go through and are not kept, printed or answered.
"""

from __future__ import annotations

from decimal import Decimal
from urllib.parse import quote

from module.model.accounts import AccountCheck, TradeEnv
from module.model.credentials import Credentials
from module.model.errors import OutcomeUnknown, Unavailable
from module.model.market import MarketType
from module.model.money import plain
from module.wire.model_codec import from_document
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

    def check_account(self, account_id: str) -> AccountCheck:
        """What the exchange says of the account now.

        Forbidden when it refuses the keys, or they do not open; Retryable when nobody answers.
        """
        return from_document(AccountCheck, self._ask("POST", account_id, "check", {}), name="check")

    def replace_keys(
        self, account_id: str, credentials: Credentials, *, force: bool = False
    ) -> None:
        """Check other keys of the same account of the exchange, save them, use them from now on."""
        document = {
            "api_key": credentials.api_key,
            "api_secret": credentials.api_secret,
            "passphrase": credentials.passphrase,
            "force": force,
        }
        self._ask("PUT", account_id, "credentials", document)

    def switch_off_account(self, account_id: str, *, erase_keys: bool, force: bool) -> None:
        """Trade and protect the account no more; Conflict unless it is idle and flat."""
        self._ask("POST", account_id, "switch-off", {"erase_keys": erase_keys, "force": force})

    def switch_on_account(self, account_id: str) -> None:
        """Let sessions trade the account again, after the exchange has been asked."""
        self._ask("POST", account_id, "switch-on", {})

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

    def _ask(self, method: str, account_id: str, what: str, document: dict[str, object]) -> object:
        path = f"/gateway/accounts/{quote(account_id, safe='')}/{what}"
        return self._call(method, path, document)

    def _post(self, path: str, document: dict[str, object]) -> object:
        return self._call("POST", path, document)

    def _call(self, method: str, path: str, document: dict[str, object]) -> object:
        try:
            answer = self._http.call(method, path, document=document)
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
