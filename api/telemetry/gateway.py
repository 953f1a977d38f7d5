"""The gateway's numbers as metrics. Of its own process: it is the only one of the installation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from api.telemetry.samples import counter, gauge, histogram
from module.exchange.venue import EndpointClass, Priority
from module.gateway.numbers import REQUEST_BOUNDS_S, GatewayNumbers
from module.gateway.spool import BYTES_MAX
from module.model.orders import Outcome

OUTCOMES: Final = ("answered", "limited", "failed", "lost")
"""What may become of a request to an exchange. Each is told from the start: the first failure is
then a step from zero, and not a line that begins with one, which no rate sees."""


def gateway_metrics(numbers: GatewayNumbers) -> Iterator[object]:
    """Families for `samples.once`."""
    yield from _protection(numbers)
    yield from _exchange(numbers)
    yield from _accounts(numbers)


def _protection(numbers: GatewayNumbers) -> Iterator[object]:
    loop = numbers.protection
    yield gauge(
        "aifap_protection_alive", "1 while the loop that protects positions runs.", loop.alive
    )
    yield counter(
        "aifap_protection_failures", "How often the protection loop began again.", loop.failures
    )
    yield gauge("aifap_protection_accounts", "Accounts that are looked after.", loop.accounts)
    yield gauge(
        "aifap_protection_open_accounts",
        "Accounts of these with something open.",
        loop.open_accounts,
    )
    yield gauge(
        "aifap_protection_look_age_seconds",
        "Real time since the last good look at the open account that has waited longest.",
        loop.look_age_s,
    )
    yield gauge(
        "aifap_protection_stuck_accounts", "Accounts whose look has not ended in 60 s.", loop.stuck
    )
    yield counter(
        "aifap_protection_looks",
        "Looks at accounts, by whether they ended well.",
        {(name,): numbers.counts.looks.get(name, 0) for name in ("ended", "failed")},
        ("result",),
    )
    yield gauge(
        "aifap_unprotected_positions",
        "Positions without the stop they should have, now.",
        numbers.unprotected,
    )
    yield gauge(
        "aifap_unprotected_oldest_seconds",
        "World time since the oldest of them has had none.",
        numbers.unprotected_oldest_s,
    )
    yield counter(
        "aifap_unprotected_periods",
        "Unprotected periods that are over.",
        numbers.unprotected_periods,
    )
    yield counter(
        "aifap_unprotected_seconds",
        "World seconds that positions stood without their stop.",
        numbers.unprotected_s,
    )


def _exchange(numbers: GatewayNumbers) -> Iterator[object]:
    ended = dict.fromkeys(OUTCOMES, 0)
    for (_, outcome), spread in numbers.counts.requests.items():
        ended[outcome] = ended.get(outcome, 0) + sum(spread.counts)
    yield counter(
        "aifap_exchange_requests",
        "Requests to exchanges by what became of them.",
        {(outcome,): count for outcome, count in ended.items()},
        ("outcome",),
    )
    yield histogram(
        "aifap_exchange_request_seconds",
        "Requests to exchanges, by endpoint and what became of them.",
        REQUEST_BOUNDS_S,
        {
            key: (spread.counts, spread.total)
            for key, spread in sorted(numbers.counts.requests.items())
        },
        ("endpoint", "outcome"),
    )
    yield gauge(
        "aifap_exchange_budget_left_requests",
        "Requests that a priority may still send to an address within the running minute.",
        {(room.address, room.priority): room.left for room in numbers.rooms},
        ("address", "priority"),
    )
    yield gauge(
        "aifap_exchange_budget_capacity_requests",
        "Requests that a priority may send to an address in a minute.",
        {(room.address, room.priority): room.capacity for room in numbers.rooms},
        ("address", "priority"),
    )
    yield counter(
        "aifap_exchange_budget_refused",
        "Requests that were not sent because the budget had no room.",
        {
            (name,): numbers.counts.refused.get(name, 0)
            for name in (priority.name.lower() for priority in Priority)
        },
        ("priority",),
    )
    yield gauge(
        "aifap_exchange_shut_out",
        "Keys and addresses that an exchange has told to be silent now.",
        numbers.shut_out,
    )
    yield gauge(
        "aifap_exchange_circuits_not_closed",
        "Addresses that do not answer and are left alone, by class of endpoint.",
        {(kind.value,): numbers.circuits.get(kind.value, 0) for kind in EndpointClass},
        ("endpoints",),
    )
    yield gauge(
        "aifap_exchange_clock_skew_seconds",
        "An exchange's clock against ours, where it is furthest off.",
        numbers.skew_s,
    )


def _accounts(numbers: GatewayNumbers) -> Iterator[object]:
    yield gauge(
        "aifap_gateway_accounts_open", "Accounts this gateway has opened.", numbers.accounts_open
    )
    yield gauge("aifap_gateway_leases_held", "Accounts it holds the lease of.", numbers.leases_held)
    yield gauge(
        "aifap_gateway_halted_accounts", "Accounts whose orders it has halted.", numbers.halted
    )
    yield counter(
        "aifap_gateway_orders",
        "Orders that sessions submitted, by what is known of them when the call returns.",
        {(kind.value,): numbers.counts.orders.get(kind.value, 0) for kind in Outcome},
        ("outcome",),
    )
    yield gauge(
        "aifap_gateway_unresolved_writes",
        "Writes of which nobody knows yet whether they happened.",
        numbers.unresolved,
    )
    yield gauge("aifap_gateway_spooled_records", "Records that wait for Postgres.", numbers.spooled)
    yield gauge("aifap_gateway_spool_bytes", "Size of the file they wait in.", numbers.spool_bytes)
    yield gauge("aifap_gateway_spool_limit_bytes", "How large it gets.", BYTES_MAX)
