"""The invariants of a simulated day, judged by the exchange's own state, never by our records.

    every request, before its answer leaves ─► on_request   I3 I6 I8 I9 I14 I22, I1 and I5 of orders
    every whole answer that a client reads  ─► on_answer    which orders we have been told of
    every change at the exchange            ─► on_change    I1 (executed per leg), I2
    every durable letter, every archive     ─► wrote, archived   I4, I7, stops, I16
    errors that a process raises or catches ─► errors        mistakes in the code
    the end of the day                      ─► at_rest, at_end   I16 I17 I18 I21

Our records are read for one thing only: to compare them with what really is.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

from module.clock import to_epoch_ms
from module.model.canonical import parse_instant
from module.model.sessions import TradeMode, installation_prefix
from module.simulator.engine.engine_records import FillRecord, OrderRecord
from module.simulator.engine.engine_types import MarketType, PlanType, PositionSide
from tests.simulation.day_end import judge_end, judge_minutes
from tests.simulation.errors_watch import ErrorsWatch
from tests.simulation.exchange_side import Carried
from tests.simulation.hub import Process
from tests.simulation.letters_seen import Document, LettersSeen, PlannedSlice
from tests.simulation.protection_watch import ProtectionWatch
from tests.simulation.writers_watch import WritersWatch

if TYPE_CHECKING:
    from module.ports import OrderInfoStore
    from tests.simulation.world import World

VIOLATIONS_MAX = 50
TWO_BUDGETS_MS = 2_000
ORDER_PATHS = ("/place-order", "/batch-place-order")
EPOCH_GRACE_MS = 1_200
OVERFILL = Decimal("1.0001")
CAP_TOLERANCE = Decimal("1.05")
STOP_TOLERANCE = Decimal("0.005")
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken: which, when (seconds from the start of the day), and what."""

    invariant: str
    second: float
    what: str


class Judge:
    """See the module's docstring."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.violations: list[Violation] = []
        self.cycles = 0
        self.done = 0
        self.converged_at_s: float | None = None
        self.own_429 = 0
        self.letters = LettersSeen(self._wrote, self._archived)
        self.protection = self._protection_watch(world)
        self.writers = WritersWatch(world)
        self.errors = ErrorsWatch(world)
        self.letters.on_read = self.writers.saw_read
        self._sides: dict[str, bool] = {}
        self._prefix = installation_prefix("simulated")
        self._orders_seen = 0
        self._fills_seen = 0
        self._executed: defaultdict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
        self._altered: set[str] = set()
        self._untold: dict[str, str] = {}
        self._silent: dict[Process, tuple[int, int]] = {}
        self._senders: dict[Process, int] = {}
        self._kill_switch_ms: int | None = None
        self._epoch = (0, 0)
        self._opened_ms: deque[int] = deque()

    # --- what differs between markets ------------------------------------------------------------

    market = MarketType.FUTURES

    @staticmethod
    def _protection_watch(world: World) -> ProtectionWatch:
        return ProtectionWatch(world)

    @staticmethod
    def _opens(words: Mapping[str, Any]) -> bool:
        """Whether an order, as it leaves, may open something."""
        return words.get("reduceOnly") != "YES"

    def equity(self) -> Decimal:
        """What the account is worth, in USDT."""
        world = self._world
        return world.exchange.engine.futures_balance(world.exchange.account_id).equity

    def price(self, symbol: str) -> Decimal:
        """What a held symbol is valued at."""
        return self._world.exchange.engine.world.mark(symbol)

    def sizes(self) -> dict[str, Decimal]:
        """Signed sizes of what the account holds, by symbol."""
        positions = self._world.exchange.account.positions
        return {symbol: position.signed_size for (symbol, _), position in positions.items()}

    def left_over(self) -> list[str]:
        """What is still there of a session that should have left nothing."""
        account = self._world.exchange.account
        return [
            *(
                f"position {symbol} {position.signed_size}"
                for (symbol, _), position in account.positions.items()
            ),
            *(
                f"order {order.client_id}"
                for order in account.open_orders.values()
                if order.client_id.startswith(self._prefix)
            ),
            *(f"stop of {plan.symbol}" for plan in account.plans.values()),
        ]

    def _is_altered(self, order: OrderRecord, planned: PlannedSlice) -> bool:
        """Whether the exchange took another size than was sent."""
        return order.size != planned.size

    def _executed_of(self, fill: FillRecord, planned: PlannedSlice) -> Decimal:
        """How much of a planned leg this fill is."""
        return fill.size

    # --- what was found --------------------------------------------------------------------------

    @property
    def unprotected_s(self) -> list[float]:
        """Seconds without a stop, of every position that had none for a while."""
        return self.protection.unprotected_s

    @property
    def unprotected_answering_s(self) -> list[float]:
        """The same while the exchange answered truly."""
        return self.protection.answering_s

    def violate(self, invariant: str, what: str) -> None:
        """Write a broken promise down."""
        self._world.log(f"VIOLATION {invariant} {what}")
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(Violation(invariant, self._world.second, what))

    # --- requests --------------------------------------------------------------------------------

    def on_request(self, carried: Carried) -> None:
        """The exchange has served a request; its answer is on its way."""
        reply = carried.reply
        told = carried.params.get("clientOid") or carried.params.get("symbol") or ""
        self._world.log(
            f"{carried.process.name} {carried.method} {carried.path} {told} "
            f"{reply.answer.status} {reply.ending.value}"
        )
        self._check_pace(carried)
        self.writers.on_request(carried)
        if carried.method == "POST" and carried.path.endswith(ORDER_PATHS):
            rows = carried.params.get("orderList")
            listed = rows if isinstance(rows, list) else [carried.params]
            for row in listed:
                self._check_order(carried, {**carried.params, **row})

    def on_answer(self, carried: Carried) -> None:
        """A client has read a whole answer: orders that it names are known."""
        answer = carried.reply.answer
        if answer.status == 429:
            wait = {name.lower(): text for name, text in answer.headers.items()}.get("retry-after")
            if wait is not None and wait.isdigit():
                now_ms = self._world.hub.now_ms
                self._silent[carried.process] = (now_ms, now_ms + int(wait) * 1000)
        for client_id in list(self._untold):
            if client_id.encode() in answer.body:
                del self._untold[client_id]

    def _check_pace(self, carried: Carried) -> None:
        """I14: a 429 that no fault made is ours; after one there is silence."""
        answer, now_ms = carried.reply.answer, self._world.hub.now_ms
        self._senders[carried.process] = now_ms
        # Two gateways that overlap have two budgets: the older one was taken for dead.
        alone = all(
            process is carried.process or now_ms - at_ms > TWO_BUDGETS_MS
            for process, at_ms in self._senders.items()
        )
        if answer.status == 429 and alone and not self._world.exchange.was_spoiled:
            self.own_429 += 1
            if self.own_429 > 1:
                self.violate("I14", f"{self.own_429} requests above the published limits")
        silence = self._silent.get(carried.process)
        if (
            silence is not None
            and silence[0] < carried.sent_ms < silence[1] - 1000
            and "/public/" not in carried.path
        ):
            self.violate("I14", f"{carried.path} within the silence that a 429 asked for")
            del self._silent[carried.process]

    def _check_order(self, carried: Carried, words: Mapping[str, Any]) -> None:
        client_id = str(words.get("clientOid"))
        world, opens = self._world, self._opens(words)
        planned = self.letters.lookup(client_id)
        if client_id.startswith(f"{self._prefix}guard-"):
            if opens:
                self.violate("I6", f"the guard's order {client_id} is not reduce-only")
        elif planned is None:
            self.violate("I3", f"order {client_id} left and is in no durable letter")
        else:
            self._compare(planned, words, client_id)
            self.writers.on_order(carried, client_id, opens=opens)
            self._check_epoch(carried, planned, client_id)
        if opens and self._kill_switch_ms is not None and carried.sent_ms > self._kill_switch_ms:
            self.violate("I22", f"opening order {client_id} left after the kill switch")
        order_id = world.exchange.account.client_ids.get((self.market, client_id))
        if order_id is not None and planned is not None:
            self._accepted(world.exchange.account.orders[order_id], planned, opens=opens)

    def _compare(self, planned: PlannedSlice, words: Mapping[str, Any], client_id: str) -> None:
        """I3, I6: what leaves is what the letter says."""
        sent = (words["symbol"], words["side"] == "buy", Decimal(words["size"]))
        if sent != (planned.symbol, planned.buys, planned.size):
            self.violate("I3", f"order {client_id} left as {sent}, planned was {planned}")
        if planned.reduce_only and words.get("reduceOnly") != "YES":
            self.violate("I6", f"reducing order {client_id} left without reduce-only")

    def _check_epoch(self, carried: Carried, planned: PlannedSlice, client_id: str) -> None:
        """I8: of an older epoch nothing leaves, but for what was on its way already."""
        world = self._world
        now = world.postgres.gateway_tables.accounts[world.account_key].epoch
        if now != self._epoch[0]:
            self._epoch = (now, world.hub.now_ms)
        last_check_ms = self.writers.last_check_ms(carried)
        if planned.epoch < now and last_check_ms - self._epoch[1] > EPOCH_GRACE_MS:
            self.violate("I8", f"order {client_id} of epoch {planned.epoch} left in epoch {now}")

    def _accepted(self, order: OrderRecord, planned: PlannedSlice, *, opens: bool) -> None:
        """The exchange has this order now (perhaps for a while already)."""
        if self._is_altered(order, planned):
            self._altered.add(order.order_id)
        if order.created_ms != self._world.exchange.engine.now_ms:
            return
        if opens:
            untold = [cid for cid, symbol in self._untold.items() if symbol == order.symbol]
            if untold:
                self.violate(
                    "I5", f"{order.client_id} opens {order.symbol} while {untold} is unknown to us"
                )
            self._check_caps(order)
            self._check_flip(order, planned)
        self._untold[order.client_id] = order.symbol

    def _check_flip(self, order: OrderRecord, planned: PlannedSlice) -> None:
        """A flip opens only after its close is done: as positions were before this request."""
        if planned.after is None or order.symbol not in self._sides:
            return
        if self._sides[order.symbol] != (order.direction > 0):
            self.violate("I6", f"{order.client_id} opens before {planned.after} has closed")

    def _check_caps(self, order: OrderRecord) -> None:
        """I9: limits of the account, from the exchange's positions and marks."""
        world, limits = self._world, self._world.limits
        engine = world.exchange.engine
        mark = engine.world.mark(order.symbol)
        size = order.size
        if size * mark > Decimal(str(limits["order_notional_max"])) * CAP_TOLERANCE:
            self.violate("I9", f"{order.client_id} is larger than one order may be")
        side = PositionSide.LONG if order.direction > 0 else PositionSide.SHORT
        held = world.exchange.account.positions.get((order.symbol, side))
        after = (size + (ZERO if held is None else held.size)) * mark
        if after > Decimal(str(limits["position_notional_max"])) * CAP_TOLERANCE:
            self.violate("I9", f"{order.client_id} makes a position larger than allowed")
        if order.leverage > Decimal(str(limits["leverage_max"])):
            self.violate("I9", f"{order.client_id} has leverage {order.leverage}")
        self._check_rate()

    def _check_rate(self) -> None:
        world, limits = self._world, self._world.limits
        self._opened_ms.append(world.hub.now_ms)
        while self._opened_ms[0] < world.hub.now_ms - 60_000:
            self._opened_ms.popleft()
        if len(self._opened_ms) > int(str(limits["orders_per_minute"])):
            self.violate("I9", f"{len(self._opened_ms)} opening orders within a minute")

    # --- the exchange ----------------------------------------------------------------------------

    def on_change(self) -> None:
        """Something has changed at the exchange."""
        account = self._world.exchange.account
        if len(account.orders) != self._orders_seen:
            fresh = len(account.orders) - self._orders_seen
            self._orders_seen = len(account.orders)
            for order in islice(reversed(account.orders.values()), max(0, fresh)):
                self._world.log(f"order {order.order_id} {order.client_id} {order.size}")
        for fill in account.fills[self._fills_seen :]:
            self._book(fill)
        self._fills_seen = len(account.fills)
        self._sides = {symbol: side is PositionSide.LONG for symbol, side in account.positions}
        self.protection.look(self.letters.decided)

    def _book(self, fill: FillRecord) -> None:
        """I1: of one planned leg no more is executed than was planned."""
        self._world.log(f"fill {fill.symbol} {fill.direction} {fill.size} {fill.price}")
        planned = self.letters.lookup(fill.client_id)
        if planned is None or fill.order_id in self._altered:
            return
        self._executed[planned.leg] += self._executed_of(fill, planned)
        if self._executed[planned.leg] > planned.leg_size * OVERFILL:
            self.violate(
                "I1",
                f"leg {planned.leg} was planned as {planned.leg_size}, executed were "
                f"{self._executed[planned.leg]}",
            )

    # --- letters ---------------------------------------------------------------------------------

    def watched_store(self, process: Process, store: OrderInfoStore) -> OrderInfoStore:
        """The store of a process, with the judge looking on."""
        return self.letters.watch(process, store)

    def _wrote(self, process: Process, document: Document) -> None:
        self.writers.saw_letter(document)
        self._check_named(document)
        self._world.log(
            f"letter {document['cycle']} {document['stage']} {document['epoch']}"
            f".{document['revision']} by {process.name}"
        )
        for record in document["legs"]:
            for part in record["slices"]:
                if part["state"] in ("rejected", "abandoned"):
                    self._check_given_up(part)

    def _check_named(self, document: Document) -> None:
        """I3: in the mode general only named symbols are touched, until everything is closed."""
        if self._world.plan.kind.mode is not TradeMode.GENERAL:
            return
        others = {record["leg"]["symbol"] for record in document["legs"]} - {*document["targets"]}
        if others and document["strategy_digest"] != "flat":
            self.violate("I3", f"the plan trades {sorted(others)}, which the strategy did not name")

    def _check_given_up(self, part: Mapping[str, Any]) -> None:
        """I4: what a letter calls rejected or absent is not on the exchange."""
        order = self._order_of(part["client_id"])
        if order is None:
            return
        if part["state"] == "rejected":
            self.violate("I4", f"{part['client_id']} is called rejected, and is {order.status}")
        elif order.order_id in self._world.exchange.account.open_orders:
            self.violate("I4", f"{part['client_id']} is called absent, and is live")

    def _order_of(self, client_id: str) -> OrderRecord | None:
        account = self._world.exchange.account
        order_id = account.client_ids.get((self.market, client_id))
        return None if order_id is None else account.orders.get(order_id)

    def _archived(self, process: Process, document: Document) -> None:
        self.cycles += 1
        self.done += document["stage"] == "done"
        self._world.log(f"archived {document['cycle']} {document['stage']} {document['reason']}")
        self.errors.skipped(document)
        if document["stage"] not in ("done", "dropped"):
            return
        for record in document["legs"]:
            for part in record["slices"]:
                self._check_booked(part)
        if document["stage"] == "done" and not self._world.goes_wrong:
            self._check_converged(document)

    def _check_booked(self, part: Mapping[str, Any]) -> None:
        """I7: what is booked is what was executed."""
        order = self._order_of(part["client_id"])
        executed = ZERO if order is None else order.filled_size
        if Decimal(part["filled_size"]) != executed:
            self.violate(
                "I7",
                f"{part['client_id']} is booked with {part['filled_size']}, executed were "
                f"{executed}",
            )

    def _check_converged(self, document: Document) -> None:
        """I16, in calm times: the account is at its targets, or the letter says why not."""
        world = self._world
        if document["strategy_digest"] == "flat":
            return
        base = world.plan.kind.base(self.equity())
        excused = {item["symbol"] for item in (*document["skipped"], *document["skipped_later"])}
        excused |= {
            r["leg"]["symbol"] for r in document["legs"] if r["abandoned"] or r.get("sized")
        }
        excused |= self._moved_by_others(document)
        residuals = {name: Decimal(str(text)) for name, text in document["residuals"].items()}
        sizes = self.sizes()
        judged = {*document["targets"], *sizes}
        if world.plan.kind.mode is TradeMode.GENERAL:
            judged = set(document["targets"])  # the others are not touched
        for symbol in sorted(judged - excused):
            weight = Decimal(str(document["targets"].get(symbol, {}).get("weight", "0")))
            mark = self.price(symbol)
            actual = sizes.get(symbol, ZERO) * mark / world.leverage / base
            weight -= residuals.get(symbol, ZERO)
            if abs(actual - weight) > world.threshold + Decimal("0.004"):
                self.violate("I16", f"{symbol} has weight {actual:.4f}, its target is {weight}")
        self._check_stops(document)
        self.converged_at_s = world.second

    def _moved_by_others(self, document: Document) -> set[str]:
        """Symbols in which a stop fired, or somebody traded, since the plan's look at the
        account."""
        basis = document["basis"]
        if basis is None:
            return set()
        since_ms = to_epoch_ms(parse_instant(basis["at"]))
        moved = set()
        for fill in reversed(self._world.exchange.account.fills):
            if fill.at_ms < since_ms:
                break
            if self.letters.lookup(fill.client_id) is None:
                moved.add(fill.symbol)
        return moved

    def _check_stops(self, document: Document) -> None:
        """Promise 2, in calm times: exactly the wanted stop is at the exchange."""
        wanted = {**document["stops"], **document["stops_now"]}
        account = self._world.exchange.account
        for (symbol, side), position in account.positions.items():
            stop = wanted.get(symbol, {}).get("stop_loss")
            weight = str(document["targets"].get(symbol, {}).get("weight", "0"))
            if stop is None or weight.startswith("-") == (position.signed_size > 0):
                continue
            found = [
                plan.trigger_price
                for plan in account.plans.values()
                if plan.symbol == symbol
                and plan.protects is side
                and plan.plan_type is PlanType.POS_LOSS
            ]
            if found != [Decimal(stop)]:
                self.violate("I2", f"{symbol} has stops {found}, wanted is {stop}")
            asked = document["targets"][symbol].get("presetStopLossPrice")
            if asked is not None and abs(Decimal(stop) / Decimal(asked) - 1) > STOP_TOLERANCE:
                self.violate("I2", f"{symbol} has its stop at {stop}, asked for was {asked}")

    # --- commands and ends -----------------------------------------------------------------------

    def kill_switch(self, *, on: bool) -> None:
        """The kill switch was acknowledged (or taken back) at this moment."""
        self._kill_switch_ms = self._world.hub.now_ms if on else None

    def at_rest(self) -> None:
        """The day is over, its session not yet: nothing has gone wrong for a while."""
        host = self._world.host
        if host is not None and not host.is_over and self.converged_at_s is None:
            self.violate("I16", "no cycle was done since the last fault, and the session goes on")

    def at_end(self) -> None:
        """Every session is over: what is left, and which minutes are missing."""
        self.protection.end()
        judge_end(self._world)
        if self._world.plan.watched:
            judge_minutes(self._world)

    def count_faults(self) -> None:
        """What the exchange's fault desk changed, by id."""
        for rule in self._world.exchange.given:
            if rule.fired:
                self._world.hits[rule.words.fault] += 1
