"""Bodies are read strictly, numbers by their text, and errors never repeat what was sent."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from api.dependencies import parse_json
from api.problems import invalid_fields
from api.schemas import NewAccount, RunSystemRequest
from module.model.errors import InvalidInput

SEED_FIELDS: dict[str, object] = {
    "tradeType": "futures",
    "strategy_name": "momentum",
    "trade_mode": "rebalancing",
    "trade_env": "paper",
}


def test_numbers_keep_their_text() -> None:
    assert parse_json(b'{"a": 0.1, "b": 1.10, "c": 7}') == {
        "a": Decimal("0.1"),
        "b": Decimal("1.10"),
        "c": 7,
    }


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1, "a": 2}', "key twice"),
        (b"[" * 100_000 + b"]" * 100_000, "too deeply"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "too many digits"),
        (b'{"a": 1e999999}', "too large or too small"),
        (b'{"a": 1e-999999}', "too large or too small"),
        (b'{"a": 1.' + b"0" * 500 + b"}", "too many digits"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b'{"\\u0000": 1}', "NUL"),
        (b'{"a": ["\\ud800"]}', "surrogate"),
        (b"\xff{}", "not UTF-8"),
        (b"{} {}", "not JSON"),
    ],
)
def test_S42_tricks_are_refused_with_their_name(body: bytes, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        parse_json(body)


@given(st.decimals(min_value="0.000001", max_value=1_000_000, allow_nan=False, places=6))
@settings(max_examples=200, deadline=None)
def test_money_arrives_exactly_as_number_or_as_text(value: Decimal) -> None:
    text = f"{value:f}"
    for spelled in (text, f'"{text}"'):
        document = parse_json(f'{{"allocated": {spelled}}}'.encode())
        assert isinstance(document, dict)
        request = RunSystemRequest.model_validate({**SEED_FIELDS, **document})
        assert request.allocated == value


def test_a_float_never_becomes_money() -> None:
    with pytest.raises(ValidationError, match="decimal number"):
        RunSystemRequest.model_validate({**SEED_FIELDS, "allocated": 0.1})


@pytest.mark.parametrize("interval", ["1m", "5m", "15m", "1h", "4h", "1d", "90m", "1440m"])
def test_an_interval_divides_a_day(interval: str) -> None:
    request = RunSystemRequest.model_validate({**SEED_FIELDS, "interval": interval})
    assert 86_400 % request.interval.total_seconds() == 0


@pytest.mark.parametrize("interval", ["0m", "7m", "2d", "1w", "5", "5 m", "-5m", "", "5m\n", "٥m"])
def test_any_other_interval_is_refused(interval: str) -> None:
    with pytest.raises(ValidationError, match="must divide a day"):
        RunSystemRequest.model_validate({**SEED_FIELDS, "interval": interval})


def test_fields_that_do_not_fit_together_are_refused() -> None:
    for changes, says in (
        ({"tradeType": "spot", "leverage": 2}, "must be 1 on spot"),
        ({"trade_mode": "volatility_targeting"}, "must be given for trade_mode"),
        ({"leverage": "2.5"}, "whole number"),
    ):
        with pytest.raises(ValidationError, match=says):
            RunSystemRequest.model_validate({**SEED_FIELDS, **changes})


def test_S21_an_error_names_fields_and_repeats_nothing() -> None:
    canary = "CANARY-b7f3"
    document = {
        "label": f"{canary}!!",
        "market": canary,
        "trade_env": "paper",
        "api_key": [canary],
        "api_secret": {"a": canary},
        "passphrase": canary * 100,
        canary: 1,
    }
    with pytest.raises(ValidationError) as caught:
        NewAccount.model_validate(document)
    problem = invalid_fields(caught.value)
    named = {error.field for error in problem.errors}
    assert {"label", "market", "trade_env", "api_key", "api_secret", "passphrase"} <= named
    said = problem.message + "".join(error.message for error in problem.errors)
    assert said.count(canary) == said.count(f"{canary}: there is no such field")


def test_S21_secrets_do_not_show_in_a_request() -> None:
    request = NewAccount.model_validate(
        {
            "label": "main",
            "market": "futures",
            "trade_env": "live",
            "api_key": "CANARY-1",
            "api_secret": "CANARY-2",
            "passphrase": "CANARY-3",
        }
    )
    assert "CANARY" not in repr(request) + str(request.model_dump())
