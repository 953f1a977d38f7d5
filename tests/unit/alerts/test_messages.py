"""What people read: the seeds' formats, and nothing that a name or an error can smuggle in."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.alerts import messages
from module.alerts.messages import (
    DISCORD_LENGTH_MAX,
    LINE_LENGTH_MAX,
    SLACK_LENGTH_MAX,
    Subject,
    cleaned,
    for_discord,
    for_slack,
)
from module.alerts.redaction import MASK, redact
from module.model.market import MarketType

SEOUL = ZoneInfo("Asia/Seoul")
AT = datetime(2025, 12, 30, 0, 7, tzinfo=UTC)
SUBJECT = Subject("2512300007-ab3x", "owner-1", "trader_01")


def test_start_in_the_seeds_format() -> None:
    alert = messages.system_started(SUBJECT, "momentum_v2", "live", 720, AT)
    assert for_slack(alert, SEOUL).plain == (
        "[Futures] System Started\n"
        "> Time: 2025-12-30 09:07 +0900\n"
        "> User: trader_01\n"
        "> Session: 2512300007-ab3x\n"
        "> Strategy: momentum_v2\n"
        "> Environment: live\n"
        "> Trading Duration: 720h 0m"
    )
    shown = for_discord(alert, SEOUL).replace("\\", "")
    assert shown.splitlines()[:3] == [
        "🚀 **[Futures] System Started**",
        "Time: 2025-12-30 09:07 +0900",
        "User: trader_01",
    ]


def test_an_error_names_type_and_module_and_ends_with_its_text() -> None:
    alert = messages.critical_error(SUBJECT, "Critical Error", "it broke\nhere", "auto_trade", AT)
    assert for_slack(alert, SEOUL).plain == (
        "[Futures] Critical Error (auto_trade)\n"
        "> Time: 2025-12-30 09:07 +0900\n"
        "> User: trader_01\n"
        "> Session: 2512300007-ab3x\n"
        "> Module: auto_trade\n"
        "it broke\nhere"
    )
    assert for_discord(alert, SEOUL).startswith("🚨 ")


def test_repeats_are_counted_in_the_title() -> None:
    alert = messages.part_failed(SUBJECT, "StackFuturesIndicatorResult", "x", AT)
    title = for_slack(alert, SEOUL, 7).plain.splitlines()[0]
    assert title == "[Futures] StackFuturesIndicatorResult Partial Failure (7)"


def test_the_market_is_in_the_title() -> None:
    subject = Subject("s", "o", "u", MarketType.SPOT)
    alert = messages.system_stopped(subject, "m", "flat", "trading hours are over", AT)
    assert alert.title == "[Spot] System Stopped"


def test_half_hours_are_minutes() -> None:
    alert = messages.system_started(SUBJECT, "m", "paper", 1.5, AT)
    assert ("Trading Duration", "1h 30m") in alert.lines


HOSTILE = st.one_of(
    st.text(max_size=300),
    st.sampled_from(
        [
            "@everyone",
            "<!channel> <@U024BE7LH> <https://evil.example|click>",
            "<@&1234> <#99> @here",
            "[click](https://evil.example)",
            "**bold** ~~x~~ ||spoiler|| `code` > quote\n# title\n- item",
            "a\u202eb\x1b[31m\x00",
        ]
    ),
)


@settings(max_examples=150, deadline=None)
@given(HOSTILE, HOSTILE, st.integers(min_value=1, max_value=10**6))
def test_F7_markup_and_mentions_arrive_as_plain_characters(
    name: str, text: str, count: int
) -> None:
    alert = messages.critical_error(Subject("s", "o", name), text, name, text, AT)
    alert = cleaned(alert)
    slack = for_slack(alert, SEOUL, count)
    assert "<" not in slack.text
    assert len(slack.text) <= SLACK_LENGTH_MAX
    assert len(slack.plain) <= SLACK_LENGTH_MAX
    shown = for_discord(alert, SEOUL, count)
    assert len(shown) <= DISCORD_LENGTH_MAX
    assert not re.search(r"@(everyone|here)", shown)
    assert "://" not in shown
    body = shown.split("**", 2)[2]
    assert not re.search(r"(?<!\\)(?:\\\\)*[*_~`|<]", body)
    assert not re.search(r"[\x00-\x08\x1b\u202a-\u202e]", shown + slack.plain)


def test_F7_40_kb_are_cut() -> None:
    alert = cleaned(messages.critical_error(SUBJECT, "E", "x" * 40_000, "m", AT))
    assert all(len(value) <= LINE_LENGTH_MAX for _, value in alert.lines)
    assert for_slack(alert, SEOUL).plain.endswith("…")
    assert len(for_discord(alert, SEOUL)) <= DISCORD_LENGTH_MAX


SECRETS = [
    "aifap_Zq3vN8uT0xR5yK2mB7wP4cJ9",
    "bg_5f0a3c1e9d7b2846aa10ffee99887766",
    "xoxb-123456789012-abcdefABCDEF",
    "https://hooks.slack.com/services/T000/B000/abcdefgh",
    "https://discord.com/api/webhooks/123456/abc-DEF_ghi",
    "5f0a3c1e9d7b2846aa10ffee998877665f0a3c1e9d7b2846",
    "dGhpc0lzQVNlY3JldFRva2VuMTIzNDU2Nzg5MEFCQ0RFRg",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_F7_what_looks_like_a_secret_is_taken_out(secret: str) -> None:
    text = redact(f"the call with {secret} failed")
    assert secret not in text
    assert MASK in text
    assert text.startswith("the call with ")


@pytest.mark.parametrize(
    "text",
    [
        "api_key=hunter2pass&symbol=BTCUSDT",
        '{"secretKey": "hunter2pass", "symbol": "BTCUSDT"}',
        "ACCESS-PASSPHRASE: hunter2pass symbol BTCUSDT",
        "Authorization: Bearer hunter2pass symbol BTCUSDT",
        "postgresql://aifap:hunter2pass@db/finwatcher BTCUSDT",
        "password='hunter2pass' BTCUSDT",
    ],
)
def test_F7_the_value_after_a_telling_label_is_taken_out(text: str) -> None:
    shown = redact(text)
    assert "hunter2" not in shown
    assert "BTCUSDT" in shown
    assert redact(shown) == shown


def test_F7_known_secrets_are_taken_out_whatever_they_look_like() -> None:
    alert = messages.critical_error(SUBJECT, "E", "it said: plainword", "plainword", AT)
    shown = str(cleaned(alert, ("plainword",)))
    assert "plainword" not in shown


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SECRETS), st.text(max_size=60), st.text(max_size=60))
def test_F7_no_text_around_a_known_secret_hides_it(secret: str, before: str, after: str) -> None:
    assert secret not in redact(before + secret + after, (secret,))


@pytest.mark.parametrize("unit", ["a-", "token", "=", "A1a-", "api_key ", "://a@", "-----BEGIN A"])
def test_F7_hostile_repetition_is_no_work(unit: str) -> None:
    assert len(redact(unit * 20_000)) <= 20_000 * len(unit) + 20_000 * len(MASK)


def test_ordinary_text_stays_as_it_is() -> None:
    text = "session 2512300007-ab3x: order af3k2-x7q2pa-b2c rejected (43012), size 0.05 BTCUSDT"
    assert redact(text) == text
