"""Misbehaviour on demand: the words of a scripted fault, and who is hit by it.

    control door, seeded plan -> FaultWords -> FaultPlan.judge  (which rules hit this request)
        fault_answers, fault_edits (what the client gets) · fault_effects (what happens inside)

Pure: no socket, no clock, no engine. A fault is counted (`fired`) when it really changed
something: that number is what tests assert on, so that a fault which never happened fails a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

UNLIMITED = 1_000_000
"""How often a rule acts that is limited by a span of time or by a lag, not by a number."""

SUBMIT = "place-order,batch-place-order,batch-orders"
CANCEL = "cancel-order,batch-cancel-orders,batch-cancel-order,cancel-all-orders"
STOPS = (
    "place-tpsl-order,place-pos-tpsl,modify-tpsl-order,"
    "/api/v2/spot/trade/place-plan-order,/api/v2/spot/trade/modify-plan-order"
)
SETTINGS = "set-leverage,set-margin-mode,set-position-mode"
ORDER_READS = "detail,orders-pending,orders-history,orderInfo,unfilled-orders,history-orders"
FILL_READS = "fills,fill-history"
GROUPS = {
    "@submit": SUBMIT,
    "@cancel": CANCEL,
    "@stops": STOPS,
    "@settings": SETTINGS,
    "@order-reads": ORDER_READS,
    "@fill-reads": FILL_READS,
}


class FaultMoment(StrEnum):
    """Before the engine sees the request, or after it has done it."""

    BEFORE = "before"
    AFTER = "after"


class FaultAnswer(StrEnum):
    """What the client gets."""

    HONEST = "honest"
    """The true answer (late, with `delay_s`; of another `content_type`)."""
    DROP = "drop"
    """The connection is reset without a byte."""
    HANG = "hang"
    """Nothing, until the client gives up."""
    CUT = "cut"
    """Status, headers and half of the body; then the connection is reset."""
    HOLD = "hold"
    """Nothing, and the exchange gets the request `hold_s` world seconds later."""
    HOLD_DROP = "hold_drop"
    """As `hold`, and the connection is reset, so that the client need not wait for its time-out."""
    STATUS = "status"
    """HTTP `status` with a body that is not the exchange's."""
    CODE = "code"
    """The exchange's envelope with business code `code`."""
    NULL = "null"
    """The exchange's envelope of a success, with data null."""
    TRUNCATE = "truncate"
    """HTTP 200 with the first half of the true body."""
    BODY = "body"
    """HTTP 200 with the text `body`."""


class FaultChange(StrEnum):
    """How a request is changed on its way in."""

    NONE = ""
    SIZE = "size"
    """The size is multiplied by `factor`, on the lot."""
    PRICE = "price"
    """The limit price is multiplied by `factor`, on the tick."""
    FIRST_LEGS = "first_legs"
    """Only the first `leg` orders of a batch arrive."""
    SPOIL_LEG = "spoil_leg"
    """Order number `leg` of a batch arrives without a size, so that it is refused."""


class FaultEdit(StrEnum):
    """How the true data of an answer is changed."""

    NONE = ""
    LOSE_LEG = "lose_leg"
    DOUBLE_LEG = "double_leg"
    SHUFFLE = "shuffle"
    OTHER_CASE = "other_case"
    CUT_ID = "cut_id"
    HIDE_ORDERS = "hide_orders"
    """Orders younger than `lag_s` are not found."""
    HIDE_FILLS = "hide_fills"
    """Fills younger than `lag_s` are not listed."""
    REPEAT_FILL = "repeat_fill"
    """The newest fill is listed three times."""
    RENUMBER_FILL = "renumber_fill"
    """The newest fill is listed once more, under another trade id."""
    GO_BACK = "go_back"
    """An order that is over is shown as it was before (or as `shown_status` says)."""
    KEEP_STOPS = "keep_stops"
    """Stops that ended less than `lag_s` ago are still listed."""
    SKEW = "skew"
    """The exchange's clock is `skew_s` ahead, for time answers and signatures."""


class FaultEffect(StrEnum):
    """What happens inside the exchange, as a real and balanced event of its engine."""

    NONE = ""
    DEBIT = "debit"
    JUMP = "jump"
    MARKET_CHANGE = "market_change"
    SUSPEND = "suspend"
    DELIST = "delist"
    POSITION_MODE = "position_mode"
    FOREIGN_ORDER = "foreign_order"
    FOREIGN_CANCEL = "foreign_cancel"
    FOREIGN_CLOSE = "foreign_close"
    LEFTOVER = "leftover"
    FILL_ORDER = "fill_order"
    CANCEL_ORDER = "cancel_order"
    FILL_PART = "fill_part"
    SETTLE = "settle"
    SETTLE_AND_CLOSE = "settle_and_close"
    CANCEL_STOPS = "cancel_stops"
    LEAVE_STOP = "leave_stop"
    LIQUIDATE = "liquidate"
    ADL = "adl"
    TAKE_PROFIT = "take_profit"
    FUNDING = "funding"
    REFUSE_TRIGGER = "refuse_trigger"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultWords:
    """One scripted fault, in words; docs/faults.md explains each.

    When: `skip` matching requests pass first, then `count` are changed. `operation` names the last
    parts of paths (comma between them), `@submit`-like groups, whole paths, or `*`; empty with
    `at_ms` it is an effect at a world time. Empty filters match everything. With `starts_on`, it
    sleeps until that operation has come (`skip` counts those); with `span_s` it ends so many world
    seconds after it began. `needs_success`: only requests that the exchange has accepted.
    `delay_s` is how long the client waits in its own time; all other times are world times.
    """

    fault: str = ""
    operation: str = ""
    starts_on: str = ""
    moment: FaultMoment = FaultMoment.AFTER
    skip: int = 0
    count: int = 1
    account_id: str = ""
    symbol: str = ""
    from_ms: int | None = None
    until_ms: int | None = None
    at_ms: int | None = None
    span_s: Decimal | None = None
    signed_only: bool = False
    needs_success: bool = False
    # what the client gets
    answer: FaultAnswer = FaultAnswer.HONEST
    delay_s: Decimal = Decimal(0)
    status: int = 0
    code: str = "40725"
    message: str = "service return an error"
    body: str = ""
    content_type: str = ""
    retry_after_s: int | None = None
    # what happens
    change: FaultChange = FaultChange.NONE
    edit: FaultEdit = FaultEdit.NONE
    effect: FaultEffect = FaultEffect.NONE
    # with which numbers
    hold_s: Decimal = Decimal(8)
    lag_s: Decimal = Decimal(3)
    skew_s: Decimal = Decimal(40)
    halt_s: Decimal = Decimal(600)
    factor: Decimal = Decimal(2)
    share: Decimal = Decimal(1)
    amount: Decimal = Decimal(0)
    rate: Decimal = Decimal("0.001")
    leg: int = 0
    side: str = ""
    prices: str = "all"
    rule: str = "tick"
    wallet: str = "futures"
    coin: str = "USDT"
    client_id: str = ""
    shown_status: str = "live"


@dataclass(frozen=True, slots=True)
class FaultQuestion:
    """What a rule looks at: the path, who asks, about which symbol, when (world time)."""

    path: str
    account_id: str
    symbol: str
    now_ms: int


@dataclass(slots=True, eq=False)
class FaultRule:
    """Words and what has become of them. `started_ms`: when its span began."""

    words: FaultWords
    seen: int = 0
    fired: int = 0
    started_ms: int | None = None

    @property
    def is_over(self) -> bool:
        """It has changed as much as it may."""
        return self.fired >= self.words.count

    def in_time(self, now_ms: int) -> bool:
        """Its world time has come and not passed."""
        words = self.words
        if words.from_ms is not None and now_ms < words.from_ms:
            return False
        if words.until_ms is not None and now_ms > words.until_ms:
            return False
        if words.span_s is None or self.started_ms is None:
            return True
        return now_ms < self.started_ms + int(words.span_s * 1000)

    def has_ended(self, now_ms: int) -> bool:
        """Its world time has passed for good."""
        until_ms = self.words.until_ms
        return until_ms is not None and now_ms > until_ms

    def is_on(self, now_ms: int) -> bool:
        """It may act now."""
        return not self.is_over and self.in_time(now_ms)

    def fits(self, account_id: str, symbol: str) -> bool:
        """Its filters let this account and symbol through."""
        words = self.words
        return words.account_id in ("", account_id) and words.symbol in ("", symbol)

    def look(self, question: FaultQuestion) -> bool:
        """Count the request as seen where it matches; whether the rule is due for it."""
        words, now_ms = self.words, question.now_ms
        if not self.is_on(now_ms):
            return False
        if not self.fits(question.account_id, question.symbol):
            return False
        if words.signed_only and not question.account_id:
            return False
        if words.starts_on and self.started_ms is None:
            if not names(words.starts_on, question.path):
                return False
            self.seen += 1
            if self.seen <= words.skip:
                return False
            self.started_ms = now_ms
            return names(words.operation, question.path)
        if not names(words.operation, question.path):
            return False
        self.seen += 1
        if not words.starts_on and self.seen <= words.skip:
            return False
        if words.span_s is not None and self.started_ms is None:
            self.started_ms = now_ms
        return True


def names(operation: str, path: str) -> bool:
    """Whether the word of a rule means this path."""
    meant = ("*", path, path.rsplit("/", 1)[-1])
    for word in operation.split(","):
        if any(each in meant for each in GROUPS.get(word, word).split(",")):
            return True
    return False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The rule that spoils a request (the first that is due), and all that edit its data.

    `counted`: rules whose counters have moved.
    """

    spoiler: FaultRule | None
    editors: tuple[FaultRule, ...]
    counted: tuple[FaultRule, ...]


class FaultPlan:
    """All rules, in the order in which they were given."""

    def __init__(self) -> None:
        self._rules: list[FaultRule] = []
        self._of_requests: list[FaultRule] = []
        self._of_clock: list[FaultRule] = []
        self._of_triggers: list[FaultRule] = []
        self._timed: list[FaultRule] = []

    @property
    def rules(self) -> Sequence[FaultRule]:
        """Every rule, over or not."""
        return self._rules

    def add(self, words: FaultWords) -> FaultRule:
        """One more rule."""
        rule = FaultRule(words)
        self._rules.append(rule)
        if words.edit is FaultEdit.SKEW:
            self._of_clock.append(rule)
        elif words.effect is FaultEffect.REFUSE_TRIGGER:
            self._of_triggers.append(rule)
        elif words.at_ms is not None:
            self._timed.append(rule)
        else:
            self._of_requests.append(rule)
        return rule

    def clear(self) -> None:
        """No more faults."""
        for rules in (
            self._rules,
            self._of_requests,
            self._of_clock,
            self._of_triggers,
            self._timed,
        ):
            rules.clear()

    def judge(self, question: FaultQuestion) -> Verdict:
        """Who changes this request. Every rule that matches counts it as seen."""
        spoiler: FaultRule | None = None
        editors: list[FaultRule] = []
        counted: list[FaultRule] = []
        ended = False
        for rule in self._of_requests:
            if rule.is_over or rule.has_ended(question.now_ms):
                ended = True
                continue
            before = (rule.seen, rule.started_ms)
            due = rule.look(question)
            if (rule.seen, rule.started_ms) != before:
                counted.append(rule)
            if due and rule.words.edit is not FaultEdit.NONE:
                editors.append(rule)
            elif due and spoiler is None:
                spoiler = rule
        if ended:
            self._forget_ended(question.now_ms)
        return Verdict(spoiler, tuple(editors), tuple(counted))

    def _forget_ended(self, now_ms: int) -> None:
        """A long plan stays quick: what is over is not looked at again."""
        self._of_requests = [
            rule for rule in self._of_requests if not (rule.is_over or rule.has_ended(now_ms))
        ]

    def skewing(self, now_ms: int) -> FaultRule | None:
        """The rule that has moved the exchange's clock now."""
        return next((rule for rule in self._of_clock if rule.is_on(now_ms)), None)

    def refusing_trigger(self, account_id: str, symbol: str, now_ms: int) -> FaultRule | None:
        """The rule that refuses the order of a stop that fires now."""
        for rule in self._of_triggers:
            if rule.is_on(now_ms) and rule.fits(account_id, symbol):
                return rule
        return None

    def next_timed(self) -> FaultRule | None:
        """The effect at a world time that comes next (the first of those of one moment)."""
        waiting = [rule for rule in self._timed if not rule.seen]
        return min(waiting, key=lambda rule: rule.words.at_ms or 0, default=None)
