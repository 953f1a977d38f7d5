"""The simulator's own door under /control: accounts, deposits, clock, faults, and the judge.

Only for those who hold the control token. `GET /control/ledger` shows what really happened, in
full; tests compare everything else with it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Callable, Mapping
from decimal import Decimal
from urllib.parse import parse_qsl

import orjson

from module.model.errors import AifapError, Conflict, InvalidInput, NotFound
from module.simulator.clock_status import status_json
from module.simulator.engine.engine_types import EngineRejected, MarketType, PositionMode
from module.simulator.engine.price_feed import price_kinds
from module.simulator.faults.fault_catalogue import catalogue_json, words_of
from module.simulator.faults.fault_words import rule_json
from module.simulator.prices.market_source import PriceKind
from module.simulator.venue import (
    DEPOSIT,
    JUMP_PRICE,
    NewAccount,
    Venue,
)
from module.simulator.wire.bitget_app import Receive, Scope, Send, read_request, send_answer
from module.simulator.wire.bitget_auth import ENVIRONMENTS, ApiKey, SignedRequest, check_authorities
from module.simulator.wire.bitget_codes import WireError
from module.simulator.wire.bitget_params import Params, read_body
from module.simulator.wire.bitget_rows import (
    account_list_row,
    bill_row,
    closed_position_row,
    fill_row,
    order_detail_row,
    plan_row,
    position_row,
)
from module.simulator.wire.bitget_spot_rows import spot_asset_row, spot_fill_row, spot_order_row
from module.simulator.wire.wire_answer import WireAnswer
from module.simulator.world_clock import WorldClockServer

PREFIX = "/control/"
_STATUS_OF = ((InvalidInput, 422), (Conflict, 409), (NotFound, 404))
_log = logging.getLogger(__name__)


class ControlApp:
    """The ASGI application of /control."""

    def __init__(
        self,
        venue: Venue,
        clock: WorldClockServer,
        token: str,
        *,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._venue = venue
        self._clock = clock
        self._token = token
        self._failed = failed
        self._routes: dict[str, Callable[[Params], object]] = {
            "POST /control/accounts": self._open_account,
            "POST /control/deposits": self._deposit,
            "GET /control/ledger": self._ledger,
            "GET /control/clock": self._clock_status,
            "POST /control/clock": self._set_clock,
            "POST /control/prices": self._jump_price,
            "GET /control/faults": self._faults,
            "POST /control/faults": self._add_faults,
            "GET /control/faults/catalogue": self._fault_catalogue,
            "DELETE /control/faults": self._clear_faults,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await read_request(scope, receive)
        if request is None:
            await send_answer(send, _problem(413, "the body is too large"))
            return
        await send_answer(send, self._serve(request.signed))

    def _serve(self, request: SignedRequest) -> WireAnswer:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        route = self._routes.get(f"{request.method} {request.path}")
        if route is None:
            return _problem(404, f"no {request.method} {request.path} here")
        try:
            self._clock.sync()
            data = route(_read_words(request))
            return WireAnswer(200, orjson.dumps(data))
        except (WireError, EngineRejected) as error:
            return _problem(422, str(error))
        except AifapError as error:
            for kind, status in _STATUS_OF:
                if isinstance(error, kind):
                    return _problem(status, error.message)
            return self._broken(request, error)
        except Exception as error:  # noqa: BLE001  (a bug: the world stops, the caller is told)
            return self._broken(request, error)

    def _broken(self, request: SignedRequest, error: Exception) -> WireAnswer:
        _log.critical("%s broke the simulator", request.path, exc_info=error)
        self._failed(error)
        return _problem(500, f"the simulator stops: {type(error).__name__}")

    def _refusal(self, request: SignedRequest) -> WireAnswer | None:
        if not self._token:
            return _problem(403, "this simulator was started without a control token")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return _problem(401, "send the control token as a bearer token")
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return _problem(401, "the control token is wrong")
        return None

    # -- accounts -----------------------------------------------------------------------------

    def _open_account(self, words: Params) -> object:
        account_id = self._venue.open_account(parse_new_account(words.values))
        return {"account_id": account_id}

    def _deposit(self, words: Params) -> object:
        key = self._key_of(words)
        amount = words.decimal("amount")
        if amount is None or amount == 0:
            raise InvalidInput("a deposit needs an amount other than 0")
        deposit: dict[str, object] = {
            "wallet": (words.text("wallet") or MarketType.FUTURES.value),
            "coin": (words.text("coin") or "USDT").upper(),
            "amount": str(amount),
        }
        self._venue.control(DEPOSIT, key.account_id, deposit)
        return {"account_id": key.account_id}

    def _key_of(self, words: Params) -> ApiKey:
        api_key, account_id = words.text("api_key"), words.text("account_id")
        for key in self._venue.keys.values():
            if key.api_key == api_key or key.account_id == account_id:
                return key
        raise NotFound(f"no account {account_id or 'for this api key'}")

    # -- the judge ----------------------------------------------------------------------------

    def _ledger(self, words: Params) -> object:
        engine = self._venue.engine
        engine.ledger.audit()
        wanted = words.text("account_id")
        dump = engine.ledger_dump(words.optional_ms("until_ms"))
        answer: dict[str, object] = {
            "now_ms": engine.now_ms,
            "market_id": engine.market.market_id,
            "balanced": True,
            "entries": engine.ledger.count,
            "digest": hashlib.sha256(dump.encode()).hexdigest(),
            "accounts": [
                self._account_json(key)
                for key in self._venue.keys.values()
                if wanted in (None, key.account_id, key.api_key)
            ],
        }
        if words.text("dump"):
            answer["dump"] = dump
        return answer

    def _account_json(self, key: ApiKey) -> dict[str, object]:
        engine, account_id = self._venue.engine, key.account_id
        mode = engine.position_mode(account_id)
        spot = MarketType.SPOT
        return {
            "account_id": account_id,
            "api_key": key.api_key,
            "environment": key.environment,
            "position_mode": mode.value,
            "wallet": str(engine.futures_balance(account_id).wallet),
            "futures": account_list_row(engine.futures_balance(account_id), None),
            "spot": [spot_asset_row(balance) for balance in engine.spot_balances(account_id)],
            "positions": [position_row(view, mode) for view in engine.positions(account_id)],
            "closed_positions": [
                closed_position_row(closed) for closed in engine.position_history(account_id)
            ],
            "plans": [plan_row(plan) for plan in engine.plans(account_id)],
            "plan_history": [plan_row(plan) for plan in engine.plan_history(account_id)],
            "orders": [order_detail_row(order) for order in engine.all_orders(account_id)],
            "fills": [fill_row(fill) for fill in engine.fills(account_id)],
            "bills": [bill_row(bill) for bill in engine.bills(account_id)],
            "spot_orders": [
                spot_order_row(order) for order in engine.all_orders(account_id, market=spot)
            ],
            "spot_fills": [spot_fill_row(fill) for fill in engine.fills(account_id, market=spot)],
            "spot_bills": [bill_row(bill) for bill in engine.bills(account_id, spot)],
        }

    # -- clock, prices, faults ----------------------------------------------------------------

    def _clock_status(self, words: Params) -> object:
        return {
            **status_json(self._clock.status()),
            "market_id": self._venue.engine.market.market_id,
        }

    def _set_clock(self, words: Params) -> object:
        speed, paused = words.decimal("speed"), words.values.get("paused")
        if speed is None and not isinstance(paused, bool):
            raise InvalidInput(
                "give the speed (world seconds per real second, 0 is unbounded) or paused, true or "
                "false"
            )
        if speed is not None:
            self._clock.set_speed(float(speed))
        if isinstance(paused, bool):
            self._clock.set_paused(paused)
        return self._clock_status(words)

    def _jump_price(self, words: Params) -> object:
        symbol, factor = words.symbol(), words.needed_positive("factor")
        prices = sorted(price_kinds(words.values.get("prices")))
        params = {"symbol": symbol, "factor": str(factor), "prices": prices}
        self._venue.control(JUMP_PRICE, "", params)
        now = {kind.value: str(self._venue.engine.price(symbol, kind)) for kind in PriceKind}
        return {"symbol": symbol, **now}

    def _faults(self, words: Params) -> object:
        return {"rules": [rule_json(rule) for rule in self._venue.faults.rules]}

    def _add_faults(self, words: Params) -> object:
        """One rule, an entry of the catalogue, or a seeded plan: all of it or, if wrong, none."""
        for rule in words_of(words.values, self._venue.now_ms):
            self._venue.faults.add(rule)
        return self._faults(words)

    def _clear_faults(self, words: Params) -> object:
        self._venue.faults.clear()
        return self._faults(words)

    def _fault_catalogue(self, words: Params) -> object:
        return {"faults": catalogue_json()}


def parse_new_account(values: Mapping[str, object]) -> NewAccount:
    """An account from its JSON words; InvalidInput or WireError names what is wrong."""
    words = Params(values)
    spot = values.get("spot") or {}
    if not isinstance(spot, dict):
        raise InvalidInput("spot maps coins to amounts")
    environment = (words.text("environment") or ENVIRONMENTS[0]).lower()
    if environment not in ENVIRONMENTS:
        raise InvalidInput(f"environment is one of {ENVIRONMENTS}, not {environment!r}")
    authorities = values.get("authorities") or ()
    if not isinstance(authorities, (list, tuple)):
        raise InvalidInput("authorities is a list of Bitget's permission words")
    amounts = {str(coin).upper(): Params(spot).decimal(coin) or Decimal(0) for coin in spot}
    futures_usdt = words.decimal("futures_usdt") or Decimal(0)
    if futures_usdt < 0 or any(amount < 0 for amount in amounts.values()):
        raise InvalidInput("an account opens with amounts of 0 or more")
    return NewAccount(
        api_key=words.needed("api_key"),
        api_secret=words.needed("api_secret"),
        passphrase=words.needed("passphrase"),
        futures_usdt=futures_usdt,
        spot=amounts,
        position_mode=words.choice("position_mode", PositionMode) or PositionMode.ONE_WAY,
        environment=environment,
        authorities=check_authorities(tuple(str(name) for name in authorities)),
    )


def _read_words(request: SignedRequest) -> Params:
    if not request.body:
        return Params(dict(parse_qsl(request.query)))
    try:
        return read_body(request.body)
    except WireError as error:
        raise InvalidInput("the body is not a JSON object, or not valid JSON") from error


def _problem(status: int, detail: str) -> WireAnswer:
    titles = {401: "Unauthorized", 403: "Forbidden", 404: "Not found", 409: "Conflict"}
    body = {
        "type": "about:blank",
        "title": titles.get(status, "Refused"),
        "status": status,
        "detail": detail,
    }
    return WireAnswer(status, orjson.dumps(body), content_type="application/problem+json")
