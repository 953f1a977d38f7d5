"""The gateway as a session sees it: `ports.Exchange` over HTTP, for one account.

Sits between `trading.execution` / `monitoring` and the gateway process. What it promises:

- Reads are repeated, bounded. A 429 sleeps world time and asks again; an exchange that is away is
  waited for a few seconds, then told: who asks has other things to listen to meanwhile.
- A write is sent once. Where the connection was refused nothing has happened: it tries again for
  a bounded real time (the gateway may be restarting; a stepped world stands still meanwhile).
  A 429 means that nothing of the batch was sent: it sleeps world time and repeats until
  `not_after`. Anything lost after sending is OutcomeUnknown and is never repeated here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar
from urllib.parse import quote

from module.model.accounts import (
    AccountSnapshot,
    Bill,
    ClosedPosition,
    MarginMode,
    SymbolSettings,
)
from module.model.canonical import instant_text
from module.model.errors import (
    InvalidInput,
    InvariantViolated,
    OutcomeUnknown,
    RateLimited,
    TooLate,
    Unavailable,
)
from module.model.market import Instrument, Quote
from module.model.orders import (
    Fill,
    MissingOrder,
    OrderReport,
    OrderRequest,
    OrderTrace,
    StopPrices,
    SubmitResult,
    WriteStamp,
)
from module.ports import Clock
from module.wire.model_codec import from_document, list_from_document, to_document
from module.wire.problem_codec import error_from_problem, names_an_error
from module.wire.service_http import Answer, Connections, LostError, NotSentError, ServiceHttp

T = TypeVar("T")

READ_TRIES_MIN = 3
READ_TRIES_MAX = 8
RATE_LIMIT_SLEEPS_MAX = 60
UNAVAILABLE_WAIT_MAX_S = 15.0
BATCH_MAX = 5
_BACK_OFF_FIRST_S = 0.1
_BACK_OFF_MAX_S = 2.0
_CONNECT_AGAIN_MAX_S = 0.5
"""A gateway that starts is asked so often: to knock costs nothing, and recovery waits for it."""
_WAIT_MIN_S = 0.02
_WAIT_MAX_S = 30.0


class GatewayExchange:
    """Implements `module.ports.Exchange` for `account_id`; one per process and thread."""

    def __init__(
        self,
        base_url: str,
        account_id: str,
        token: str,
        clock: Clock,
        *,
        connect_patience_s: float = 20.0,
        answer_timeout_s: float = 45.0,
        connections: Connections | None = None,
    ) -> None:
        """`connect_patience_s` is real time: how long a restarting gateway is waited for.
        `connections` are shared by the accounts of one process."""
        self.account_id = account_id
        self._http = ServiceHttp(
            base_url, token, answer_timeout_s=answer_timeout_s, connections=connections
        )
        self._clock = clock
        self._patience_s = connect_patience_s
        self._prefix = f"/gateway/accounts/{quote(account_id, safe='')}"

    def __repr__(self) -> str:
        return f"GatewayExchange({self.account_id!r})"

    def close(self) -> None:
        """Leave no connection open."""
        self._http.close()

    # --- reads -----------------------------------------------------------------------------

    def snapshot(self) -> AccountSnapshot:
        """Balances, positions with their stops, open orders: one consistent look."""
        return from_document(AccountSnapshot, self._read("/snapshot"))

    def instruments(self) -> Mapping[str, Instrument]:
        """Trading rules by symbol."""
        return _by_symbol(list_from_document(Instrument, self._read("/instruments")))

    def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Best prices and marks now; NotFound names the symbols that have none."""
        if not symbols:
            return {}
        document = self._read("/quotes", {"symbols": ",".join(symbols)})
        return _by_symbol(list_from_document(Quote, document))

    def symbol_settings(self, symbols: Sequence[str]) -> Mapping[str, SymbolSettings]:
        """Leverage and margin mode as the exchange has them."""
        if not symbols:
            return {}
        document = self._read("/settings", {"symbols": ",".join(symbols)})
        return _by_symbol(list_from_document(SymbolSettings, document))

    def order(self, symbol: str, client_id: str) -> OrderReport:
        """The order with this client id; NotFound when the exchange does not know it (yet)."""
        path = f"/orders/{quote(client_id, safe='')}"
        return from_document(OrderReport, self._read(path, {"symbol": symbol}))

    def fills(self, since: datetime) -> Sequence[Fill]:
        """Executions from `since` on, oldest first."""
        return list_from_document(Fill, self._read("/fills", {"since": instant_text(since)}))

    def bills(self, since: datetime) -> Sequence[Bill]:
        """Movements of the wallet from `since` on, oldest first."""
        return list_from_document(Bill, self._read("/bills", {"since": instant_text(since)}))

    def closed_positions(self, since: datetime) -> Sequence[ClosedPosition]:
        """Positions that ended from `since` on, oldest first."""
        document = self._read("/closed-positions", {"since": instant_text(since)})
        return list_from_document(ClosedPosition, document)

    # --- writes ----------------------------------------------------------------------------

    def apply_symbol_settings(
        self, stamp: WriteStamp, symbol: str, leverage: Decimal, margin_mode: MarginMode
    ) -> SymbolSettings:
        """Set leverage and margin mode of a flat symbol; the settings read back."""
        document = {
            "stamp": to_document(stamp),
            "symbol": symbol,
            "leverage": to_document(leverage),
            "margin_mode": margin_mode.value,
        }
        answer = self._write("POST", "/settings", document, stamp)
        return self._understood(SymbolSettings, answer)

    def submit(self, stamp: WriteStamp, orders: Sequence[OrderRequest]) -> list[SubmitResult]:
        """Send up to five orders at once; one result per order, in the order they were given.

        OutcomeUnknown when the answer for the whole batch was lost: ask by client id.
        """
        if not 1 <= len(orders) <= BATCH_MAX:
            raise InvalidInput(f"a batch has 1 to {BATCH_MAX} orders, got {len(orders)}")
        document = {"stamp": to_document(stamp), "orders": to_document(list(orders))}
        answer = self._write("POST", "/orders", document, stamp)
        if not isinstance(answer, dict):
            raise OutcomeUnknown("the gateway's answer to the orders is not an object; ask by id")
        try:
            results = list_from_document(SubmitResult, answer.get("results"), name="results")
        except InvalidInput as error:
            raise OutcomeUnknown(
                f"the gateway's answer to the orders cannot be read ({error}); ask by client id"
            ) from error
        by_id = {result.client_id: result for result in results}
        if len(results) != len(orders) or set(by_id) != {order.client_id for order in orders}:
            raise OutcomeUnknown(
                f"the gateway answered for {sorted(by_id)}, not for every order sent; ask by id"
            )
        return [by_id[order.client_id] for order in orders]

    def rule_out(self, stamp: WriteStamp, missing: MissingOrder) -> OrderTrace:
        """See `ports.Exchange.rule_out`; OutcomeUnknown: ask again."""
        path = f"/orders/{quote(missing.client_id, safe='')}/rule-out"
        document = {"stamp": to_document(stamp), "missing": to_document(missing)}
        return self._understood(OrderTrace, self._write("POST", path, document, stamp))

    def cancel(self, stamp: WriteStamp, symbol: str, client_id: str) -> None:
        """Cancel it; already over counts as done."""
        path = f"/orders/{quote(client_id, safe='')}/cancel"
        self._write("POST", path, {"stamp": to_document(stamp), "symbol": symbol}, stamp)

    def set_stops(self, stamp: WriteStamp, symbol: str, stops: StopPrices) -> StopPrices:
        """Make the position's stops exactly these; the stops read back."""
        document = {
            "stamp": to_document(stamp),
            "symbol": symbol,
            "stop_loss": to_document(stops.stop_loss),
            "take_profit": to_document(stops.take_profit),
        }
        return self._understood(StopPrices, self._write("PUT", "/stops", document, stamp))

    # --- the two disciplines ---------------------------------------------------------------

    def _read(self, path: str, query: Mapping[str, str] | None = None) -> object:
        """GET, repeated while it may help; what remains is raised."""
        failures = sleeps = 0
        waited_s = 0.0
        back_off_s = _BACK_OFF_FIRST_S
        give_up_at = self._clock.monotonic() + self._patience_s
        while True:
            try:
                answer = self._http.call("GET", self._prefix + path, query=query)
            except (NotSentError, LostError) as error:
                failures += 1
                if failures >= READ_TRIES_MIN and self._clock.monotonic() >= give_up_at:
                    raise Unavailable(f"the gateway does not answer ({error})") from error
                self._clock.pause(back_off_s)
                longest_s = _CONNECT_AGAIN_MAX_S if isinstance(error, NotSentError) else None
                back_off_s = min(back_off_s * 2, longest_s or _BACK_OFF_MAX_S)
                continue
            if answer.status == 200:
                try:
                    return answer.json()
                except ValueError as error:
                    raise Unavailable("the gateway's answer is not JSON; ask again") from error
            problem = error_from_problem(answer.status, answer.body)
            sleeps += 1
            if isinstance(problem, RateLimited) and sleeps < RATE_LIMIT_SLEEPS_MAX:
                self._clock.sleep(_bounded_wait_s(problem.retry_after_s))
                continue
            if isinstance(problem, Unavailable) and sleeps < READ_TRIES_MAX:
                wait_s = _bounded_wait_s(problem.retry_after_s, back_off_s)
                waited_s += wait_s
                if waited_s > UNAVAILABLE_WAIT_MAX_S:
                    raise problem
                self._clock.sleep(wait_s)
                back_off_s = min(back_off_s * 2, _BACK_OFF_MAX_S)
                continue
            raise problem

    def _write(self, method: str, path: str, document: object, stamp: WriteStamp) -> object:
        """Send once; repeated only where nothing can have happened."""
        back_off_s = _BACK_OFF_FIRST_S
        give_up_at = self._clock.monotonic() + self._patience_s
        while True:
            if self._clock.now() > stamp.not_after:
                raise TooLate(
                    f"not sent: not_after {instant_text(stamp.not_after)} has passed while waiting"
                )
            try:
                answer = self._http.call(method, self._prefix + path, document=document)
            except NotSentError as error:
                if self._clock.monotonic() >= give_up_at:
                    raise Unavailable(f"nothing was sent: {error}") from error
                self._clock.pause(back_off_s)
                back_off_s = min(back_off_s * 2, _CONNECT_AGAIN_MAX_S)
                continue
            except LostError as error:
                raise OutcomeUnknown(
                    f"sent, and the answer was lost ({error}); ask first"
                ) from error
            if answer.status == 200:
                try:
                    return answer.json()
                except ValueError as error:
                    raise OutcomeUnknown("the gateway's answer is not JSON; ask first") from error
            problem = _write_problem(answer)
            if not isinstance(problem, RateLimited):
                raise problem
            wait_s = _bounded_wait_s(problem.retry_after_s)
            if self._clock.now() + timedelta(seconds=wait_s) > stamp.not_after:
                raise problem
            self._clock.sleep(wait_s)

    def _understood(self, kind: type[T], answer: object) -> T:
        try:
            return from_document(kind, answer)
        except InvalidInput as error:
            raise OutcomeUnknown(f"the gateway's answer cannot be read ({error})") from error


def _write_problem(answer: Answer) -> Exception:
    """The error of a write's answer; what is not a problem of ours may have been carried out."""
    if not names_an_error(answer.body) and (answer.status >= 500 or answer.status < 400):
        return OutcomeUnknown(f"sent, and the answer was HTTP {answer.status}; ask first")
    return error_from_problem(answer.status, answer.body)


def _bounded_wait_s(wanted_s: float | None, default_s: float = 0.1) -> float:
    return min(max(default_s if wanted_s is None else wanted_s, _WAIT_MIN_S), _WAIT_MAX_S)


Named = TypeVar("Named", Instrument, Quote, SymbolSettings)


def _by_symbol(rows: Sequence[Named]) -> dict[str, Named]:
    result = {row.symbol: row for row in rows}
    if len(result) != len(rows):
        raise InvariantViolated("the gateway listed a symbol twice")
    return result
