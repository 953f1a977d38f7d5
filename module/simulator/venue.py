"""One simulated exchange behind its doors: engine, keys, journal, faults.

    bitget_app, control  ->  Venue.execute  ->  journal (first)  ->  endpoint  ->  engine
    world_clock          ->  Venue.advance_to

The only owner of the engine; called from one event loop. What changes something goes through
`execute`, so that the journal can do it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from module.clock import SystemClock
from module.model.errors import Conflict, InvariantViolated
from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import EngineRejected, MarketType, PositionMode
from module.simulator.engine.price_feed import price_kinds
from module.simulator.faults.fault_desk import FaultDesk, HeldRequest
from module.simulator.journal import JournalEntry, WorldFolder
from module.simulator.wire.bitget_auth import DEFAULT_AUTHORITIES, ApiKey
from module.simulator.wire.bitget_codes import WireError, wire_error
from module.simulator.wire.bitget_params import Params

FIRST_ACCOUNT_NUMBER = 10_000_001
OPEN_ACCOUNT = "CONTROL open-account"
DEPOSIT = "CONTROL deposit"
JUMP_PRICE = "CONTROL jump-price"


@dataclass(frozen=True, slots=True)
class Call:
    """What an endpoint gets: the engine, who calls, and with which words."""

    engine: Engine
    account_id: str
    params: Params
    key: ApiKey | None = None

    @property
    def now_ms(self) -> int:
        """World time."""
        return self.engine.now_ms


Handler = Callable[[Call], object]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row of the router: how a request is found, who may send it, how often, what it does.

    `authority` None is a public endpoint (limited per address), else the permission that the key
    needs (limited per account). `family` picks the table of error codes. `writes`: it changes
    something and is journaled.
    """

    method: str
    path: str
    handler: Handler
    limit_per_s: int = 10
    authority: str | None = None
    family: str = "mix"
    writes: bool = False
    receive_window: bool = False

    @property
    def name(self) -> str:
        """`POST /api/…`: the key of the router and of the journal."""
        return f"{self.method} {self.path}"

    @property
    def operation(self) -> str:
        """The last part of the path, as faults name it."""
        return self.path.rsplit("/", 1)[1]


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What is needed to open an account at the paper exchange."""

    api_key: str
    api_secret: str = field(repr=False)
    passphrase: str = field(repr=False)
    futures_usdt: Decimal = Decimal(0)
    spot: Mapping[str, Decimal] = field(default_factory=dict)
    position_mode: PositionMode = PositionMode.ONE_WAY
    environment: str = "paper"
    authorities: tuple[str, ...] = ()


class Venue:
    """The exchange; see the module's docstring."""

    def __init__(
        self,
        engine: Engine,
        endpoints: Mapping[str, Endpoint],
        folder: WorldFolder | None = None,
    ) -> None:
        self.engine = engine
        self.endpoints = endpoints
        self.faults = FaultDesk(engine, self._record, self._deliver, self._say_changed)
        self.keys: dict[str, ApiKey] = {} if folder is None else folder.load_keys()
        self.changed: Callable[[], None] = lambda: None
        self.spent_s = 0.0
        """Real seconds of the engine's work: what doing it all again would take."""
        self._seconds = SystemClock().monotonic
        self._folder = folder

    # -- what the clock moves -----------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        """World time."""
        return self.engine.now_ms

    def next_event_ms(self) -> int:
        """When something happens by itself next."""
        return min(self.engine.next_event_ms(), self.faults.next_ms())

    def advance_to(self, when_ms: int) -> None:
        """Let time pass; scripted faults that are due on the way happen at their moments."""
        began_s = self._seconds()
        while (due_ms := self.faults.next_ms()) <= when_ms:
            self.engine.advance_to(max(due_ms, self.engine.now_ms))
            self.faults.act()
        self.engine.advance_to(when_ms)
        self.spent_s += self._seconds() - began_s

    # -- commands -----------------------------------------------------------------------------

    def execute(self, endpoint: Endpoint, call: Call) -> object:
        """Journal it if it writes, do it, return its data; WireError for every refusal."""
        if not endpoint.writes:
            return _run(endpoint, call)
        self._record(endpoint.name, call.account_id, call.params.values)
        began_s = self._seconds()
        try:
            return _run(endpoint, call)
        finally:
            self.spent_s += self._seconds() - began_s
            self.changed()

    def open_account(self, account: NewAccount) -> str:
        """Open an account for a key (again: the same account, nothing changes); its number.

        Conflict when the key is known with other secrets.
        """
        key = self.keys.get(account.api_key)
        if key is None:
            key = self._new_key(account)
        elif (key.api_secret, key.passphrase) != (account.api_secret, account.passphrase):
            raise Conflict(f"api key of account {key.account_id} is known with another secret")
        if not self.engine.has_account(key.account_id):
            params: dict[str, object] = {
                "futures_usdt": account.futures_usdt,
                "spot": {coin: str(amount) for coin, amount in account.spot.items()},
                "position_mode": account.position_mode.value,
            }
            self.control(OPEN_ACCOUNT, key.account_id, params)
        return key.account_id

    def control(self, call: str, account_id: str, params: Mapping[str, object]) -> None:
        """Journal and do one of the control commands; EngineRejected when the engine refuses."""
        self._record(call, account_id, params)
        try:
            self._apply_control(call, account_id, Params(params))
        finally:
            self.changed()

    def replay(self, entry: JournalEntry) -> None:
        """Do again what the journal says; what was refused then is refused again."""
        self.engine.advance_to(entry.at_ms)
        params = Params(entry.params)
        endpoint = self.endpoints.get(entry.call)
        try:
            if endpoint is None:
                self._apply_control(entry.call, entry.account_id, params)
            else:
                _run(endpoint, Call(self.engine, entry.account_id, params))
        except (WireError, EngineRejected):
            return

    def save_time(self, now_ms: int, participants: tuple[str, ...]) -> None:
        """Remember the time across restarts."""
        if self._folder is not None:
            self._folder.save_time(now_ms, participants)

    def _apply_control(self, call: str, account_id: str, params: Params) -> None:
        match call:
            case "CONTROL open-account":
                spot = params.values.get("spot")
                coins = spot if isinstance(spot, dict) else {}
                self.engine.open_account(
                    account_id,
                    futures_usdt=params.decimal("futures_usdt") or Decimal(0),
                    spot={str(coin): Decimal(str(amount)) for coin, amount in coins.items()},
                    position_mode=params.needed_choice("position_mode", PositionMode),
                )
            case "CONTROL deposit":
                self.engine.deposit(
                    account_id,
                    params.needed_choice("wallet", MarketType),
                    params.needed("coin"),
                    params.decimal("amount") or Decimal(0),
                )
            case "CONTROL jump-price":
                self.engine.jump_price(
                    params.symbol(),
                    params.needed_positive("factor"),
                    price_kinds(params.values.get("prices")),
                )
            case _:
                if not self.faults.replay(call, account_id, params):
                    raise InvariantViolated(f"the journal holds an unknown command {call!r}")

    def _say_changed(self) -> None:
        self.changed()

    def _deliver(self, held: HeldRequest) -> None:
        """A request that was held back arrives; whatever it is answered, nobody hears it."""
        call = Call(self.engine, held.account_id, Params(held.params))
        try:
            _run(self.endpoints[held.call], call)
        except WireError:
            return

    def _new_key(self, account: NewAccount) -> ApiKey:
        numbers = [int(key.account_id) for key in self.keys.values()]
        number = max(numbers, default=FIRST_ACCOUNT_NUMBER - 1) + 1
        key = ApiKey(
            api_key=account.api_key,
            api_secret=account.api_secret,
            passphrase=account.passphrase,
            account_id=str(number),
            environment=account.environment,
            authorities=account.authorities or DEFAULT_AUTHORITIES,
        )
        self.keys[account.api_key] = key
        if self._folder is not None:
            self._folder.save_keys(self.keys)
        return key

    def _record(self, call: str, account_id: str, params: Mapping[str, object]) -> None:
        if self._folder is not None:
            self._folder.append(JournalEntry(self.now_ms, call, account_id, params))


def _run(endpoint: Endpoint, call: Call) -> object:
    try:
        return endpoint.handler(call)
    except EngineRejected as error:
        raise wire_error(error, endpoint.family) from error
