"""What only the running services know, from Prometheus: budget, answer times, protection, errors.

Names and meanings of the metrics: docs/operations.md. Every worker and pod of the platform tells
the same of what it reads from Postgres, so those are `max` over instances; what a service counts
of itself is a sum.
"""

from __future__ import annotations

from typing import Final

from dashboards.grafana.panels import (
    BAD_ABOVE_ZERO,
    GREEN,
    METRICS,
    ORANGE,
    RED,
    Panel,
    Query,
    Row,
    fixed,
    lines,
    number,
)

RATE: Final = "$__rate_interval"


def rows() -> tuple[Row, ...]:
    """The part of the operations board that needs a Prometheus."""
    return (
        Row(4, _numbers(), "The running services (Prometheus)"),
        Row(8, (_budget(), _refused_by_budget())),
        Row(8, (_exchange_times(), _exchange_errors())),
        Row(8, (_protection(), _minutes())),
        Row(8, (_answers(), _server_errors())),
        Row(8, (_measured(),)),
    )


def _asked(text: str, legend: str = "") -> Query:
    return Query(text, METRICS, legend=legend)


def _quantiles(histogram: str) -> tuple[Query, ...]:
    return tuple(
        _asked(
            f"histogram_quantile({share}, sum by (le) (rate({histogram}_bucket[{RATE}])))", legend
        )
        for share, legend in ((0.5, "median"), (0.99, "99 of 100"))
    )


def _numbers() -> tuple[Panel, ...]:
    return (
        number(
            "Postgres",
            "1 while each database answers.",
            _asked("min by (database) (aifap_postgres_up)", "{{database}}"),
            7,
            decimals=0,
            steps=((RED, None), (GREEN, 1.0)),
        ),
        number(
            "Exchange circuits not closed",
            "Addresses that do not answer and are left alone, and keys told to be silent.",
            _asked("sum(aifap_exchange_circuits_not_closed) + sum(aifap_exchange_shut_out)", "now"),
            5,
            decimals=0,
            steps=BAD_ABOVE_ZERO,
        ),
        number(
            "Oldest message to people",
            "How long the oldest alert that has not arrived has waited.",
            _asked("max(aifap_alert_oldest_seconds)", "waits"),
            4,
            unit="s",
            decimals=0,
            steps=((GREEN, None), (ORANGE, 120.0), (RED, 600.0)),
        ),
        number(
            "Heartbeat",
            "How long the running session that has been silent longest was not heard.",
            _asked("max(aifap_sessions_heartbeat_age_seconds)", "oldest"),
            4,
            unit="s",
            decimals=0,
            steps=((GREEN, None), (ORANGE, 30.0), (RED, 60.0)),
        ),
        number(
            "Data disk free",
            "Of the disk that letters, journals and spools are written to.",
            _asked("min(aifap_data_free_bytes / aifap_data_size_bytes)", "free"),
            4,
            unit="percentunit",
            steps=((RED, None), (ORANGE, 0.1), (GREEN, 0.25)),
        ),
    )


def _budget() -> Panel:
    return lines(
        "Request budget left",
        "The part of a minute's requests to the exchange that each priority may still send, at the "
        "address where it is least.",
        _asked(
            "min by (priority) (aifap_exchange_budget_left_requests"
            " / aifap_exchange_budget_capacity_requests)",
            "{{priority}}",
        ),
        12,
        unit="percentunit",
    )


def _refused_by_budget() -> Panel:
    return lines(
        "Requests that the budget refused",
        "Per second, by priority: they waited or were not sent.",
        _asked(
            f"sum by (priority) (rate(aifap_exchange_budget_refused_total[{RATE}]))",
            "{{priority}}",
        ),
        12,
        unit="reqps",
    )


def _exchange_times() -> Panel:
    return lines(
        "Exchange answers within",
        "Real time of requests to exchanges: median and 99 of 100.",
        _quantiles("aifap_exchange_request_seconds"),
        12,
        unit="s",
        decimals=3,
    )


def _exchange_errors() -> Panel:
    return lines(
        "Exchange requests that failed",
        "Per second: limited (429), failed (5xx), lost (no answer).",
        _asked(
            "sum by (outcome)"
            f' (rate(aifap_exchange_requests_total{{outcome!="answered"}}[{RATE}]))',
            "{{outcome}}",
        ),
        12,
        unit="reqps",
        decimals=3,
    )


def _protection() -> Panel:
    return lines(
        "Protection",
        "Age of the oldest good look at an account with something open, and how many positions "
        "have no stop.",
        (
            _asked("max(aifap_protection_look_age_seconds)", "look age (s)"),
            _asked("max(aifap_unprotected_positions)", "unprotected positions"),
        ),
        12,
    )


def _minutes() -> Panel:
    return lines(
        "Age of measured minutes",
        "World time since the last measured minute of the session that has waited longest.",
        _asked("max(aifap_finwatcher_minute_age_seconds)", "oldest"),
        12,
        unit="s",
        decimals=0,
        colour=fixed(ORANGE),
    )


def _measured() -> Panel:
    return lines(
        "Minutes measured and missed",
        "Minutes of all sessions, a minute of real time: stored, and recorded as gaps by cause.",
        (
            _asked(
                f"60 * sum(max by (market) (rate(aifap_finwatcher_measured_total[{RATE}])))",
                "measured",
            ),
            _asked(
                f"60 * max by (cause) (rate(aifap_finwatcher_gaps_total[{RATE}])) > 0", "{{cause}}"
            ),
        ),
        24,
    )


def _answers() -> Panel:
    return lines(
        "Our services answer within",
        "Real time until an answer began: median and 99 of 100.",
        _quantiles("aifap_http_request_seconds"),
        12,
        unit="s",
        decimals=3,
    )


def _server_errors() -> Panel:
    failed = f'rate(aifap_http_requests_total{{status="5xx"}}[{RATE}])'
    return lines(
        "Our server errors",
        "Answers with 5xx, per second: all, and by route where there are any.",
        (
            _asked(f"sum({failed})", "all"),
            _asked(f"sum by (route) ({failed}) > 0", "{{route}}"),
        ),
        12,
        unit="reqps",
        decimals=3,
    )
