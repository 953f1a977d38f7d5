"""Compares the account with what the letters lead to, and asks for evidence where they differ.

    letter.expected() ─┐
    one look           ┴─► equal: nothing is asked ─► done
                           different ─► fills, bills, closed positions ─► reconcile ─► Review
                           unexplained ─► look again, bounded: exchanges publish late

Called at a leader's start and with each cycle's snapshot, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from module.model.accounts import AccountSnapshot
from module.model.errors import NotFound, OutcomeUnknown, Retryable, TooLate
from module.model.market import MarketType
from module.model.money import ZERO, plain
from module.model.orders import OrderReport
from module.model.sessions import installation_prefix
from module.points import reach
from trading.execution.reconcile import (
    EVIDENCE_MARGIN,
    Difference,
    Evidence,
    Finding,
    Verdict,
    classify,
    differences,
    holding_of,
    judge,
    leftovers,
    transfers,
)
from trading.execution.scribe import ExecutionPorts, ExecutionRules, Scribe
from trading.rebalance.order_info import Holding, OrderInfo

LOOKS_MAX = 4
"""So often what nothing explains is looked at: exchanges publish late."""
LOOK_AGAIN_S = 1.0
CANCEL_TRIES = 3
CANCEL_AGAIN_S = 1.0
COIN_FEE_MAX = Decimal("0.002")
"""Share of a spot purchase that its fee may take out of the coin."""
GUARD_MARK = "guard-"
STOP_PREFIX = "af-stop-"
"""In client ids: what the gateway closes by itself, and its stops on spot. It sees to both."""

Look = Callable[[], AccountSnapshot]


@dataclass(frozen=True, slots=True)
class Review:
    """What was found, what follows, and what was held at the last look."""

    findings: tuple[Finding, ...]
    verdict: Verdict
    held: Holding


@dataclass(frozen=True, slots=True)
class AccountReview:
    """Reviews one session's account. `look` reads what of the account is the session's; `recent`
    the newest letters, oldest first: their orders are known, their stops were wanted."""

    ports: ExecutionPorts
    rules: ExecutionRules
    look: Look
    recent: Callable[[], Sequence[OrderInfo]]

    def at_start(self, letter: OrderInfo | None, snapshot: AccountSnapshot) -> Review:
        """Positions, transfers, and orders that no letter waits for: ours are canceled (A29)."""
        expected = None if letter is None else letter.leads_to()
        review = self.compare(letter, expected, holding_of(snapshot), led_by=letter)
        found = [*review.findings]
        if expected is not None:
            found += transfers(self.ports.exchange.bills(expected.at))
        found += self.clear_leftovers(letter, snapshot.open_orders)
        return Review(tuple(found), review.verdict, review.held)

    def compare(
        self,
        letter: OrderInfo | None,
        expected: Holding | None,
        held: Holding,
        *,
        led_by: OrderInfo | None,
    ) -> Review:
        """Positions `held` against `expected`; what differs is explained. `letter` is the newest,
        `led_by` the one whose plan led to `expected` (its stops were at the exchange).

        Raises what reading the exchange raises.
        """
        corrections = {} if letter is None else letter.corrections
        if letter is None or expected is None:
            return Review((), judge((), corrections), held)
        uncertain = {record.leg.symbol for record in letter.legs if record.is_open}
        findings: tuple[Finding, ...] = ()
        for looks in range(LOOKS_MAX):
            if looks:
                self.ports.clock.sleep(LOOK_AGAIN_S)
                held = holding_of(self.look())
            found = self._without_fees(differences(expected, held, uncertain))
            findings = self._explain(letter, led_by, expected, found)
            if not any(finding.kind is Difference.UNEXPLAINED for finding in findings):
                break
        return Review(findings, judge(findings, corrections), held)

    def _without_fees(
        self, found: Mapping[str, tuple[Decimal, Decimal]]
    ) -> Mapping[str, tuple[Decimal, Decimal]]:
        """On spot a purchase's fee is taken out of the coin: a little less is no difference."""
        if self.rules.policy.market is not MarketType.SPOT:
            return found
        return {
            symbol: (should, held)
            for symbol, (should, held) in found.items()
            if not 0 < should - held <= should * COIN_FEE_MAX
        }

    def _explain(
        self,
        letter: OrderInfo,
        led_by: OrderInfo | None,
        expected: Holding,
        found: Mapping[str, tuple[Decimal, Decimal]],
    ) -> tuple[Finding, ...]:
        if not found:
            return ()
        reach("execution: differences found")
        exchange, since = self.ports.exchange, expected.at - EVIDENCE_MARGIN
        older = [info for info in self.recent() if info.cycle != letter.cycle]
        letters = [*older, letter, *([] if led_by is None else [led_by])]
        parts = [part for info in letters for record in info.legs for part in record.slices]
        evidence = Evidence(
            fills=exchange.fills(since),
            bills=exchange.bills(since),
            closed=exchange.closed_positions(since),
            own_orders=frozenset(part.order_id for part in parts if part.order_id is not None),
            since=expected.at,
        )
        lots = {name: rules.size_step for name, rules in exchange.instruments().items()}
        leading = older if led_by is None else [*older, led_by]  # a plan made since has other stops
        stops = {name: wanted for info in leading for name, wanted in info.wanted_stops().items()}
        findings = classify(found, evidence, lots, stops)
        if self.rules.policy.market is not MarketType.SPOT:
            return findings
        return tuple(_as_transfer(finding) for finding in findings)

    def clear_leftovers(
        self, letter: OrderInfo | None, orders: Sequence[OrderReport]
    ) -> list[Finding]:
        """Cancel open orders of this installation that no letter knows; name the others'.

        Raises what canceling raises after CANCEL_TRIES: an order of ours that may still fill is
        never left behind silently.
        """
        prefix = installation_prefix(self.rules.installation)
        mine, others = leftovers(orders, letter, prefix)
        found: list[Finding] = []
        for order in mine:
            if order.client_id.startswith(prefix + GUARD_MARK):
                continue  # the gateway's own: it sees to it
            found.append(_order_finding(Difference.LEFTOVER_ORDER, order, self._cancel(order)))
        found += [
            _order_finding(Difference.FOREIGN_ORDER, order, "left alone")
            for order in others
            if not order.client_id.startswith(STOP_PREFIX)
        ]
        return found

    def _cancel(self, order: OrderReport) -> str:
        """What became of it, in words."""
        scribe = Scribe(self.ports, self.rules)
        tries = 0
        while True:
            reach("execution: before leftover is canceled")
            try:
                self.ports.exchange.cancel(
                    scribe.stamp_without_cycle(), order.symbol, order.client_id
                )
            except NotFound:
                return "gone by itself"
            except (Retryable, OutcomeUnknown, TooLate):
                tries += 1
                if tries == CANCEL_TRIES:
                    raise
                self.ports.clock.sleep(CANCEL_AGAIN_S)
            else:
                return "canceled"


def _as_transfer(finding: Finding) -> Finding:
    """On spot, coins that are more without any order came from outside: they were sent here, or
    lay here before and are named only now."""
    if finding.kind is not Difference.UNEXPLAINED or finding.actual < finding.expected:
        return finding
    detail = f"{finding.detail}: coins that no order of this session bought"
    return replace(finding, kind=Difference.TRANSFER, detail=detail)


def _order_finding(kind: Difference, order: OrderReport, what: str) -> Finding:
    rest = order.side.sign * (order.size - order.filled_size)
    detail = f"{order.side} {plain(order.size)} {order.symbol}, id {order.client_id}: {what}"
    return Finding(kind, order.symbol, ZERO, rest, detail)
