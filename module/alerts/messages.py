"""What people read: the wording of every alert, and its spelling for Slack and Discord. PURE.

Alerts are made here and handed to the `AlertSink`; the channels spell them. Text from outside
(names, errors) is only ever a value: markup in it is escaped, nobody is mentioned, it is cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from module.alerts.redaction import redact
from module.model.market import MarketType
from module.ports import Alert

SLACK_LENGTH_MAX = 2900
DISCORD_LENGTH_MAX = 1900
TITLE_LENGTH_MAX = 200
CAUSE_LENGTH_MAX = 128
LINE_LENGTH_MAX = 2000
LINES_MAX = 30

INFO, WARNING, CRITICAL = "info", "warning", "critical"

_ICONS = {
    "system-started": "🚀",
    "system-stopped": "🏁",
    "position-opened": "🟢",
    "position-updated": "📝",
    "position-closed": "🔴",
}
_SEVERITY_ICONS = {INFO: "🔵", WARNING: "🟡", CRITICAL: "🚨"}
_ZERO_WIDTH_SPACE = "\u200b"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
_DISCORD_MARKUP = re.compile(r"([\\*_~`|>#\[\]()<:-])")


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom an alert is about."""

    session_id: str | None
    owner_id: str | None
    user: str
    market: MarketType = MarketType.FUTURES


@dataclass(frozen=True, slots=True)
class SlackMessage:
    """`text` is the escaped fallback, `plain` goes into a block that Slack does not format."""

    text: str
    plain: str


# --- alerts ---------------------------------------------------------------------------------------


def system_started(
    subject: Subject, strategy_name: str, trade_env: str, trading_hours: float, at: datetime
) -> Alert:
    """A session began to trade."""
    hours, minutes = divmod(round(trading_hours * 60), 60)
    return _alert(
        subject,
        kind="system-started",
        severity=INFO,
        title="System Started",
        lines=(
            ("User", subject.user),
            ("Strategy", strategy_name),
            ("Environment", trade_env),
            ("Trading Duration", f"{hours}h {minutes}m"),
        ),
        cause=f"system-started:{subject.session_id}",
        at=at,
    )


def system_stopped(
    subject: Subject, strategy_name: str, end_state: str, reason: str, at: datetime
) -> Alert:
    """A session ended as it was asked to, flat or protected."""
    return _alert(
        subject,
        kind="system-stopped",
        severity=INFO,
        title="System Stopped",
        lines=(
            ("User", subject.user),
            ("Strategy", strategy_name),
            ("Ended", end_state),
            ("Reason", reason),
        ),
        cause=f"system-stopped:{subject.session_id}",
        at=at,
    )


def critical_error(
    subject: Subject, error_type: str, error_msg: str, module_name: str, at: datetime
) -> Alert:
    """Something failed after its retries; the process that says so stops."""
    return _alert(
        subject,
        kind="error",
        severity=CRITICAL,
        title=f"{error_type} ({module_name})",
        lines=(("User", subject.user), ("Module", module_name), ("", error_msg)),
        cause=f"error:{module_name}:{error_type}:{subject.session_id}",
        at=at,
    )


def session_failed(
    subject: Subject, detail: str, held: str, module_name: str, at: datetime
) -> Alert:
    """Something failed after its retries: the session has stopped. `held`: what it leaves."""
    return _alert(
        subject,
        kind="error",
        severity=CRITICAL,
        title=f"Critical Error ({module_name})",
        lines=(
            ("User", subject.user),
            ("Module", module_name),
            ("What", detail),
            ("Held", held or "not known"),
            (
                "What Now",
                (
                    "The session has stopped and trades nothing more. What is held stays, with "
                    "its stops, which the gateway keeps. Look at the account and the cause; then "
                    "close by hand, or start again with adopt_existing."
                ),
            ),
        ),
        cause=f"error:{module_name}:Critical Error:{subject.session_id}",
        at=at,
    )


def session_given_up(subject: Subject, reason: str, at: datetime) -> Alert:
    """A session's leader cannot be kept alive: the session host starts it no more."""
    return _alert(
        subject,
        kind="critical",
        severity=CRITICAL,
        title="Session Given Up",
        lines=(
            ("User", subject.user),
            ("What", reason),
            (
                "What Now",
                (
                    "Nothing is traded any more. What is held stays, with its stops, which the "
                    "gateway keeps. The cause is in the session's log; then start it again with "
                    "adopt_existing, or close by hand."
                ),
            ),
        ),
        cause=f"given-up:{subject.session_id}",
        at=at,
    )


def cycle_skipped(subject: Subject, reason: str, at: datetime) -> Alert:
    """A cycle was not traded; what is held stays as it is, with its stops."""
    return _alert(
        subject,
        kind="cycle-skipped",
        severity=WARNING,
        title="Cycle Skipped",
        lines=(
            ("User", subject.user),
            ("", "Nothing was traded; what is held stays, with its stops."),
            ("Reason", reason),
        ),
        cause=f"cycle-skipped:{reason[:40]}:{subject.session_id}",
        at=at,
    )


def exchange_away(subject: Subject, detail: str, ending: str | None, at: datetime) -> Alert:
    """The exchange or its gateway does not answer; the session waits for it. `ending`: how it is
    to end, when it has been told to."""
    next_steps = "The session waits, and goes on by itself with a plan that is fresh then."
    if ending is not None:
        next_steps = (
            f"The session was told to end {ending}: it does so as soon as there is an answer. "
            "Until then nothing is closed; in a hurry close on the exchange's own page."
        )
    return _alert(
        subject,
        kind="exchange-away",
        severity=CRITICAL,
        title="The Exchange Does Not Answer",
        lines=(
            ("User", subject.user),
            ("What", detail),
            ("Meanwhile", "Nothing is opened or closed by plan; stops at the exchange stay."),
            ("What Now", next_steps),
        ),
        cause=f"exchange-away:{subject.session_id}",
        at=at,
    )


def exchange_back(subject: Subject, at: datetime) -> Alert:
    """The exchange answers again after it was said to be away."""
    return _alert(
        subject,
        kind="exchange-back",
        severity=INFO,
        title="The Exchange Answers Again",
        lines=(("User", subject.user), ("What Now", "The session goes on; nothing is to be done.")),
        cause=f"exchange-back:{subject.session_id}",
        at=at,
    )


def letter_not_kept(subject: Subject, detail: str, patience_s: float, at: datetime) -> Alert:
    """The session's letter cannot be saved or read: disk, lock or database refuse it."""
    return _alert(
        subject,
        kind="letter-not-kept",
        severity=CRITICAL,
        title="The Session Cannot Save What It Trades",
        lines=(
            ("User", subject.user),
            ("What", detail),
            ("Meanwhile", "Nothing is sent; stops at the exchange stay, the gateway keeps them."),
            (
                "What Now",
                (
                    f"It is tried for {patience_s / 60:g} minutes, then the session stops. Look at "
                    "the disk (full, read-only?), at who holds the lock, at the database."
                ),
            ),
        ),
        cause=f"letter-not-kept:{subject.session_id}",
        at=at,
    )


def letter_kept_again(subject: Subject, at: datetime) -> Alert:
    """The letter can be saved again."""
    return _alert(
        subject,
        kind="letter-kept-again",
        severity=INFO,
        title="The Session Can Save Again",
        lines=(("User", subject.user), ("What Now", "The session goes on; nothing is to be done.")),
        cause=f"letter-kept-again:{subject.session_id}",
        at=at,
    )


def opens_nothing(subject: Subject, why: str, at: datetime) -> Alert:
    """The last gate refuses every order that opens; the session goes on with reductions."""
    return _alert(
        subject,
        kind="opens-nothing",
        severity=WARNING,
        title="Nothing Is Opened",
        lines=(
            ("User", subject.user),
            ("Why", why),
            ("Meanwhile", "Reductions and closes go on at each cycle, stops are kept."),
            (
                "What Now",
                (
                    "The session tries again at each cycle and opens as soon as it may: after "
                    "`aifap resume` where the kill switch is on."
                ),
            ),
        ),
        cause=f"opens-nothing:{subject.session_id}",
        at=at,
    )


def opens_again(subject: Subject, at: datetime) -> Alert:
    """An order that opens was accepted again."""
    return _alert(
        subject,
        kind="opens-again",
        severity=INFO,
        title="The Session Opens Again",
        lines=(("User", subject.user), ("What Now", "The session goes on; nothing is to be done.")),
        cause=f"opens-again:{subject.session_id}",
        at=at,
    )


def order_forgotten(subject: Subject, detail: str, at: datetime) -> Alert:
    """The exchange does not show an order any more that it had taken; other lists say its end."""
    return _alert(
        subject,
        kind="order-forgotten",
        severity=WARNING,
        title="The Exchange No Longer Shows An Order",
        lines=(
            ("User", subject.user),
            ("Order", detail),
            ("What Now", "The session goes on with what the fills say. Compare it by hand."),
        ),
        cause=f"order-forgotten:{subject.session_id}:{detail.split(' ')[1]}",
        at=at,
    )


def account_changed(
    subject: Subject,
    found: Sequence[tuple[str, str]],
    next_steps: str,
    *,
    severe: bool,
    at: datetime,
) -> Alert:
    """Something other is held than the session's orders lead to; `found`: (cause, what) of each."""
    told = [(cause.replace("_", " "), what) for cause, what in found]
    causes = ",".join(f"{cause}:{what.split(' ')[0]}" for cause, what in found)
    only_stops = {cause for cause, _ in found} <= {"stop_loss", "take_profit"}
    return _alert(
        subject,
        kind="account-changed",
        severity=CRITICAL if severe else WARNING,
        title="A Stop Fired" if only_stops else "The Account Was Changed From Outside",
        lines=(("User", subject.user), *told, ("What Now", next_steps)),
        cause=f"account-changed:{subject.session_id}:{causes}",
        at=at,
    )


def part_failed(subject: Subject, part: str, error_msg: str, at: datetime) -> Alert:
    """One part of the finwatcher failed; the others went on."""
    return _alert(
        subject,
        kind="part-failed",
        severity=WARNING,
        title=f"{part} Partial Failure",
        lines=(
            ("User", subject.user),
            ("Module", part),
            ("", "The other parts went on; the next minute tries again."),
            ("", error_msg),
        ),
        cause=f"part-failed:{part}:{subject.session_id}",
        at=at,
    )


def minutes_missing(subject: Subject, cause: str, minutes: int, detail: str, at: datetime) -> Alert:
    """Minutes of a session have no metric rows; the gap is recorded with its cause."""
    return _alert(
        subject,
        kind="metrics-gap",
        severity=WARNING,
        title="Metrics Gap",
        lines=(
            ("User", subject.user),
            ("Minutes", str(minutes)),
            ("Cause", cause),
            ("", detail),
        ),
        cause=f"metrics-gap:{cause}:{subject.session_id}",
        at=at,
    )


def metrics_kept_locally(subject: Subject, detail: str, at: datetime) -> Alert:
    """The database is away; rows are kept in the session's folder until it is back."""
    return _alert(
        subject,
        kind="metrics-spooled",
        severity=WARNING,
        title="Metrics Kept Locally",
        lines=(
            ("User", subject.user),
            ("", "The results database does not answer; rows will be filled in later."),
            ("", detail),
        ),
        cause=f"metrics-spooled:{subject.session_id}",
        at=at,
    )


def channel_dead(channel: str, error: str, at: datetime) -> Alert:
    """A channel's webhook no longer exists; said on the other channel."""
    return Alert(
        kind="channel-dead",
        severity=CRITICAL,
        title=f"Alerts to {channel} cannot be delivered",
        lines=(
            ("Channel", channel),
            ("Error", error),
            ("", "Nothing more is sent there until its webhook is replaced and AIFAP restarted."),
        ),
        cause=f"channel-dead:{channel}",
        session_id=None,
        owner_id=None,
        at=at,
    )


def _alert(
    subject: Subject,
    *,
    kind: str,
    severity: str,
    title: str,
    lines: tuple[tuple[str, str], ...],
    cause: str,
    at: datetime,
) -> Alert:
    if subject.session_id is not None:
        lines = (*lines[:1], ("Session", subject.session_id), *lines[1:])
    return Alert(
        kind=kind,
        severity=severity,
        title=f"[{subject.market.capitalize()}] {title}",
        lines=lines,
        cause=cause[:CAUSE_LENGTH_MAX],
        session_id=subject.session_id,
        owner_id=subject.owner_id,
        at=at,
    )


# --- spelling -------------------------------------------------------------------------------------


def cleaned(alert: Alert, known_secrets: tuple[str, ...] = ()) -> Alert:
    """The alert as it may be stored: no secrets, no control characters, bounded lengths."""

    def clean(text: str, length_max: int) -> str:
        # Cut first: redaction need not walk through megabytes. A cut may split a secret, so
        # the part that is kept for redaction is longer than what is kept in the end.
        kept = _CONTROL.sub(" ", text[: length_max * 4])
        return cut(redact(kept, known_secrets), length_max)

    return replace(
        alert,
        title=clean(alert.title.replace("\n", " "), TITLE_LENGTH_MAX),
        cause=clean(alert.cause, CAUSE_LENGTH_MAX),
        lines=tuple(
            (clean(label, 64), clean(value, LINE_LENGTH_MAX))
            for label, value in alert.lines[:LINES_MAX]
        ),
    )


def cut(text: str, length_max: int) -> str:
    """`text` if it is short enough, else its beginning and a mark that something is missing."""
    return text if len(text) <= length_max else text[: length_max - 1] + "…"


def for_slack(alert: Alert, zone: ZoneInfo, count: int = 1) -> SlackMessage:
    """Spell the alert for a Slack webhook. The seeds' form: title, then `> Label: value`."""
    plain = cut("\n".join([_title(alert, count), *_lines(alert, zone, "> ")]), SLACK_LENGTH_MAX)
    return SlackMessage(text=cut(escape_slack(plain), SLACK_LENGTH_MAX), plain=plain)


def for_discord(alert: Alert, zone: ZoneInfo, count: int = 1) -> str:
    """Spell the alert for a Discord webhook: icon and title in bold, then `Label: value`."""
    icon = _ICONS.get(alert.kind) or _SEVERITY_ICONS.get(alert.severity, "🔵")
    title = f"{icon} **{escape_discord(cut(_title(alert, count), TITLE_LENGTH_MAX))}**"
    lines = [escape_discord(line) for line in _lines(alert, zone, "")]
    return _cut_escaped("\n".join([title, *lines]), DISCORD_LENGTH_MAX)


def escape_slack(text: str) -> str:
    """Slack's three control characters as entities: no links, no mentions, no channels."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def escape_discord(text: str) -> str:
    """Markdown as plain characters; `@` cannot start a mention, addresses become no links."""
    escaped = _DISCORD_MARKUP.sub(r"\\\1", text)
    return escaped.replace("@", "@" + _ZERO_WIDTH_SPACE).replace(
        "//", "/" + _ZERO_WIDTH_SPACE + "/"
    )


def _title(alert: Alert, count: int) -> str:
    return f"{alert.title} ({count})" if count > 1 else alert.title


def _lines(alert: Alert, zone: ZoneInfo, prefix: str) -> list[str]:
    labelled = [("Time", f"{alert.at.astimezone(zone):%Y-%m-%d %H:%M %z}")]
    labelled += [pair for pair in alert.lines if pair[0]]
    lines = [f"{prefix}{label}: {value}" for label, value in labelled]
    return lines + [value for label, value in alert.lines if not label and value]


def _cut_escaped(text: str, length_max: int) -> str:
    if len(text) <= length_max:
        return text
    kept = text[: length_max - 1]
    while kept.endswith("\\"):
        kept = kept[:-1]
    return kept + "…"
