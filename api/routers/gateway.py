"""The gateway over HTTP: orders, positions, balances, for processes of this installation.

Translates only. Every route asks for a grant: a session's opens its one account, a service's opens
public data and the making of accounts. Handlers run in threads and never wait for world time: a
budget that is used up answers 429.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sized
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final

from fastapi import APIRouter, Body, Header, Query, Response

from module.gateway.account_opening import NewAccount
from module.gateway.service import Gateway
from module.model.accounts import MarginMode, TradeEnv
from module.model.canonical import parse_instant
from module.model.credentials import Credentials
from module.model.errors import Forbidden, InvalidInput, InvariantViolated
from module.model.market import Frequency, MarketType
from module.model.money import parse_decimal
from module.model.orders import MissingOrder, OrderRequest, StopPrices, WriteStamp
from module.security.tokens import Grant, bearer_token, read_grant
from module.wire.model_codec import from_document, list_from_document, to_document

_JSON: Final = "application/json"
SYMBOL: Final = re.compile(r"[A-Z0-9]{2,32}")
_TROUBLES: Final = ("unprotected", "halted", "circuits", "spooled", "errors", "stuck")
Authorization = Annotated[str | None, Header()]
Document = Annotated[dict[str, object], Body()]


def build_router(gateway: Gateway, token_key: str) -> APIRouter:
    """All routes of the gateway under `/gateway`.

    Errors are those of `module.model.errors`; the application turns them into problem documents.
    """
    router = APIRouter(prefix="/gateway", tags=["gateway"])
    _add_reads(router, gateway, token_key)
    _add_writes(router, gateway, token_key)
    _add_markets(router, gateway, token_key)
    _add_accounts(router, gateway, token_key)
    return router


def _add_reads(router: APIRouter, gateway: Gateway, token_key: str) -> None:
    prefix = "/accounts/{account_id}"

    def opens(account_id: str, authorization: str | None) -> None:
        read_grant(bearer_token(authorization), token_key).opens_account(account_id)

    @router.get(prefix + "/snapshot")
    def snapshot(account_id: str, authorization: Authorization = None) -> Response:
        """Balances, positions with their stops, open orders."""
        opens(account_id, authorization)
        return _answer(gateway.snapshot(account_id))

    @router.get(prefix + "/instruments")
    def instruments(account_id: str, authorization: Authorization = None) -> Response:
        """Trading rules of every symbol."""
        opens(account_id, authorization)
        return _answer(list(gateway.instruments(account_id).values()))

    @router.get(prefix + "/quotes")
    def quotes(
        account_id: str,
        symbols: Annotated[str, Query(max_length=8_000)],
        authorization: Authorization = None,
    ) -> Response:
        """Best prices and marks now."""
        opens(account_id, authorization)
        return _answer(list(gateway.quotes(account_id, _symbols(symbols)).values()))

    @router.get(prefix + "/settings")
    def settings(
        account_id: str,
        symbols: Annotated[str, Query(max_length=8_000)],
        authorization: Authorization = None,
    ) -> Response:
        """Leverage and margin mode as the exchange has them."""
        opens(account_id, authorization)
        return _answer(list(gateway.symbol_settings(account_id, _symbols(symbols)).values()))

    @router.get(prefix + "/orders/{client_id}")
    def order(
        account_id: str, client_id: str, symbol: str, authorization: Authorization = None
    ) -> Response:
        """One order by client id."""
        opens(account_id, authorization)
        return _answer(gateway.order(account_id, symbol, client_id))

    @router.get(prefix + "/fills")
    def fills(account_id: str, since: str, authorization: Authorization = None) -> Response:
        """Executions, oldest first."""
        opens(account_id, authorization)
        return _answer(gateway.fills(account_id, _instant("since", since)))

    @router.get(prefix + "/bills")
    def bills(account_id: str, since: str, authorization: Authorization = None) -> Response:
        """Movements of the wallet, oldest first."""
        opens(account_id, authorization)
        return _answer(gateway.bills(account_id, _instant("since", since)))

    @router.get(prefix + "/closed-positions")
    def closed_positions(
        account_id: str, since: str, authorization: Authorization = None
    ) -> Response:
        """Positions that ended, oldest first."""
        opens(account_id, authorization)
        return _answer(gateway.closed_positions(account_id, _instant("since", since)))


def _add_writes(router: APIRouter, gateway: Gateway, token_key: str) -> None:
    prefix = "/accounts/{account_id}"

    def stamped(account_id: str, authorization: str | None, document: Document) -> WriteStamp:
        grant = read_grant(bearer_token(authorization), token_key)
        grant.opens_account(account_id)
        return _stamp(grant, document)

    @router.post(prefix + "/settings")
    def apply_settings(
        account_id: str, document: Document, authorization: Authorization = None
    ) -> Response:
        """Leverage and margin mode of a flat symbol; the settings read back."""
        stamp = stamped(account_id, authorization, document)
        _only(document, "stamp", "symbol", "leverage", "margin_mode")
        found = gateway.apply_symbol_settings(
            account_id,
            stamp,
            _text(document, "symbol"),
            _decimal(document, "leverage"),
            from_document(MarginMode, document.get("margin_mode"), name="margin_mode"),
        )
        return _answer(found)

    @router.post(prefix + "/orders")
    def submit(
        account_id: str, document: Document, authorization: Authorization = None
    ) -> Response:
        """Up to five orders at once; one result each."""
        stamp = stamped(account_id, authorization, document)
        _only(document, "stamp", "orders")
        orders = list_from_document(OrderRequest, document.get("orders"), name="orders")
        return _answer({"results": gateway.submit(account_id, stamp, orders)})

    @router.post(prefix + "/orders/{client_id}/rule-out")
    def rule_out(
        account_id: str, client_id: str, document: Document, authorization: Authorization = None
    ) -> Response:
        """How far an order came; where it has not left, it never will."""
        stamp = stamped(account_id, authorization, document)
        _only(document, "stamp", "missing")
        missing = from_document(MissingOrder, document.get("missing"), name="missing")
        if missing.client_id != client_id:
            raise InvalidInput("the path names another client id than the body")
        return _answer(gateway.rule_out(account_id, stamp, missing))

    @router.post(prefix + "/orders/{client_id}/cancel")
    def cancel(
        account_id: str, client_id: str, document: Document, authorization: Authorization = None
    ) -> Response:
        """Cancel; already over counts as done."""
        stamp = stamped(account_id, authorization, document)
        _only(document, "stamp", "symbol")
        gateway.cancel(account_id, stamp, _text(document, "symbol"), client_id)
        return _answer({"client_id": client_id})

    @router.put(prefix + "/stops")
    def set_stops(
        account_id: str, document: Document, authorization: Authorization = None
    ) -> Response:
        """Make the position's stops exactly these; the stops read back."""
        stamp = stamped(account_id, authorization, document)
        _only(document, "stamp", "symbol", "stop_loss", "take_profit")
        stops = from_document(StopPrices, document, name="stops")
        return _answer(gateway.set_stops(account_id, stamp, _text(document, "symbol"), stops))


def _add_markets(router: APIRouter, gateway: Gateway, token_key: str) -> None:
    @router.get("/markets/instruments")
    def market_instruments(
        market_id: str, market: str = "futures", authorization: Authorization = None
    ) -> Response:
        """Trading rules of a public market."""
        read_grant(bearer_token(authorization), token_key)
        kind = from_document(MarketType, market, name="market")
        return _answer(list(gateway.market_instruments(market_id, kind).values()))

    @router.get("/markets/candles")
    def market_candles(
        market_id: str,
        symbol: str,
        frequency: str,
        end: str,
        limit: int = 200,
        market: str = "futures",
        authorization: Authorization = None,
    ) -> Response:
        """Up to `limit` closed bars that close at or before `end`, oldest first."""
        read_grant(bearer_token(authorization), token_key)
        candles = gateway.market_candles(
            market_id,
            from_document(MarketType, market, name="market"),
            symbol,
            Frequency.parse(frequency),
            _instant("end", end),
            limit,
        )
        return _answer(candles)

    @router.get("/markets/depth")
    def market_depth(
        market_id: str, symbol: str, market: str = "futures", authorization: Authorization = None
    ) -> Response:
        """The order book of one symbol, best prices first."""
        read_grant(bearer_token(authorization), token_key)
        kind = from_document(MarketType, market, name="market")
        return _answer(gateway.market_depth(market_id, kind, _symbol(symbol)))

    @router.get("/markets/tiers")
    def market_tiers(market_id: str, symbol: str, authorization: Authorization = None) -> Response:
        """What futures positions of one symbol must keep, by size."""
        read_grant(bearer_token(authorization), token_key)
        return _answer(list(gateway.market_tiers(market_id, _symbol(symbol))))

    @router.get("/health")
    def health() -> Response:
        """How the gateway is, in numbers; 503 only when its protection loop is dead.

        `degraded`: an exchange does not answer, records wait for Postgres, a position has no stop,
        an account is halted, or a look at one does not end.
        """
        state = gateway.health()
        troubles = {name: _count(state[name]) for name in _TROUBLES}
        is_degraded = any(troubles.values())
        counts = {name: state[name] for name in ("accounts", "open", "owned")}
        word = "ok" if not is_degraded else "degraded"
        return _answer(
            {
                "status": word if state["alive"] else "dead",
                "alive": state["alive"],
                **counts,
                **troubles,
            },
            status=200 if state["alive"] else 503,
        )

    @router.get("/state")
    def state(authorization: Authorization = None) -> Response:
        """The same with names: accounts, symbols, addresses, errors. For services."""
        read_grant(bearer_token(authorization), token_key).opens_services()
        return _answer(gateway.health())


def _add_accounts(router: APIRouter, gateway: Gateway, token_key: str) -> None:
    def opens(authorization: str | None) -> None:
        read_grant(bearer_token(authorization), token_key).opens_services()

    @router.post("/paper-accounts")
    def open_paper_account(document: Document, authorization: Authorization = None) -> Response:
        """Open an account at the paper exchange."""
        opens(authorization)
        _only(document, "owner_id", "label", "market", "balance")
        account_id = gateway.open_paper_account(
            _text(document, "owner_id"),
            _text(document, "label"),
            from_document(MarketType, document.get("market"), name="market"),
            _decimal(document, "balance"),
        )
        return _answer({"account_id": account_id})

    @router.post("/paper-accounts/{account_id}/deposits")
    def deposit(
        account_id: str, document: Document, authorization: Authorization = None
    ) -> Response:
        """Transfer USDT into a paper account."""
        opens(authorization)
        _only(document, "amount")
        gateway.deposit(account_id, _decimal(document, "amount"))
        return _answer({"account_id": account_id})

    @router.post("/accounts")
    def add_account(document: Document, authorization: Authorization = None) -> Response:
        """Check keys against the exchange and save them; nothing of them is ever answered."""
        opens(authorization)
        account_id = gateway.add_account(_new_account(document))
        return _answer({"account_id": account_id})

    @router.post("/accounts/{account_id}/check")
    def check_account(account_id: str, authorization: Authorization = None) -> Response:
        """What the exchange says of the account now."""
        opens(authorization)
        return _answer(gateway.check_account(account_id))

    @router.put("/accounts/{account_id}/credentials")
    def replace_keys(
        account_id: str, document: Document, authorization: Authorization = None
    ) -> Response:
        """Check other keys of the same account and use them from now on."""
        opens(authorization)
        _only(document, "api_key", "api_secret", "passphrase", "force")
        force = _flag(document, "force")
        gateway.replace_keys(account_id, _credentials(document), force=force)
        return _answer({"account_id": account_id})

    @router.post("/accounts/{account_id}/switch-off")
    def switch_off(
        account_id: str, document: Document, authorization: Authorization = None
    ) -> Response:
        """Trade and protect a flat account no more."""
        opens(authorization)
        _only(document, "erase_keys", "force")
        gateway.switch_off_account(
            account_id,
            erase_keys=_flag(document, "erase_keys"),
            force=_flag(document, "force"),
        )
        return _answer({"account_id": account_id})

    @router.post("/accounts/{account_id}/switch-on")
    def switch_on(account_id: str, authorization: Authorization = None) -> Response:
        """Let sessions trade the account again."""
        opens(authorization)
        gateway.switch_on_account(account_id)
        return _answer({"account_id": account_id})


def _new_account(document: Mapping[str, object]) -> NewAccount:
    _only(
        document,
        *("owner_id", "label", "venue", "market", "trade_env", "base_url"),
        *("api_key", "api_secret", "passphrase", "force"),
    )
    return NewAccount(
        owner_id=_text(document, "owner_id"),
        label=_text(document, "label"),
        venue=_text(document, "venue"),
        market=from_document(MarketType, document.get("market"), name="market"),
        trade_env=from_document(TradeEnv, document.get("trade_env"), name="trade_env"),
        base_url=_text(document, "base_url"),
        credentials=_credentials(document),
        force=_flag(document, "force"),
    )


def _credentials(document: Mapping[str, object]) -> Credentials:
    return Credentials(
        _text(document, "api_key"),
        _text(document, "api_secret"),
        _text(document, "passphrase"),
    )


def _stamp(grant: Grant, document: Mapping[str, object]) -> WriteStamp:
    stamp = from_document(WriteStamp, document.get("stamp"), name="stamp")
    if stamp.session_id != grant.session_id:
        raise Forbidden("the stamp names another session than the token")
    return stamp


def _count(value: object) -> int:
    if isinstance(value, int):
        return value
    return len(value) if isinstance(value, Sized) else 0


def _only(document: Mapping[str, object], *names: str) -> None:
    extra = sorted(set(document) - set(names))
    if extra:
        raise InvalidInput(f"unknown fields {extra[:5]}; known are {list(names)}"[:300])


def _text(document: Mapping[str, object], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= 512:
        raise InvalidInput(f"{name} must be a text of 1 to 512 characters")
    return value


def _flag(document: Mapping[str, object], name: str) -> bool:
    value = document.get(name, False)
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} must be true or false")
    return value


def _decimal(document: Mapping[str, object], name: str) -> Decimal:
    value = document.get(name)
    if not isinstance(value, (str, int)):
        raise InvalidInput(f"{name} must be a decimal string")
    return parse_decimal(value, name=name)


def _instant(name: str, text: str) -> datetime:
    try:
        return parse_instant(text)
    except (ValueError, InvariantViolated) as error:
        raise InvalidInput(
            f"{name} must be an ISO 8601 time with an offset, got {text[:40]!r}"
        ) from error


def _symbol(text: str) -> str:
    if not SYMBOL.fullmatch(text):
        raise InvalidInput(f"not a symbol: {text[:40]!r}")
    return text


def _symbols(text: str) -> list[str]:
    return list(dict.fromkeys(symbol for symbol in text.split(",") if symbol))


def _answer(value: object, status: int = 200) -> Response:
    import orjson

    plain: object
    if isinstance(value, Mapping):
        plain = {str(name): to_document(item) for name, item in value.items()}
    elif isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        plain = [to_document(item) for item in value]
    else:
        plain = to_document(value)
    return Response(orjson.dumps(plain), status_code=status, media_type=_JSON)
