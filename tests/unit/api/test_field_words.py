"""What people are told of a wrong field: plain words, its bounds, and what was sent."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from api.preview_schemas import PreviewRequest
from api.problems import invalid_fields
from api.schemas import (
    ChangedAccount,
    ChangedUser,
    HaltRequest,
    NewAccount,
    NewKeys,
    NewPaperAccount,
    NewToken,
    NewUser,
    RunSystemRequest,
)

SEED: dict[str, object] = {
    "tradeType": "futures",
    "strategy_name": "momentum",
    "trade_mode": "rebalancing",
    "trade_env": "paper",
}


def said(model: type[BaseModel], document: Any) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(document)
    found = invalid_fields(caught.value, shown=True)
    return [(error.field, error.message) for error in found.errors]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tradeType": "margin"}, 'must be one of futures, spot, got "margin"'),
        ({"leverage": 126}, "must be at most 125, got 126"),
        ({"leverage": 0}, "must be at least 1, got 0"),
        ({"leverage": "2.5"}, 'must be a whole number, got "2.5"'),
        ({"leverage": None}, "must be a decimal number, or a string that spells one, got null"),
        ({"allocated": 10**13}, "must be at most 1000000000000, got 10000000000000"),
        ({"allocated": -5}, "must be over 0, got -5"),
        ({"threshold": "0.6"}, 'must be at most 0.5, got "0.6"'),
        ({"compounding": "yes"}, 'must be true or false, got "yes"'),
        ({"cycles": 1.5}, "must be a whole number, got 1.5"),
        ({"account_id": "a b"}, 'must be an id of letters, digits and -, got "a b"'),
        ({"strategy_name": 5}, "must be a text, got 5"),
        (
            {"strategy_name": "x" * 70},
            "may have 64 characters at most, got a text of 70 characters",
        ),
        ({"config": [1]}, "must be a JSON object, got a list of 1"),
        ({"leverage": {}}, "must be a decimal number, or a string that spells one"),
        ({"nonsense": 1}, "there is no such field"),
    ],
)
def test_a_wrong_field_is_told_in_plain_words_with_its_value(
    change: dict[str, object], message: str
) -> None:
    assert said(RunSystemRequest, {**SEED, **change}) == [(next(iter(change)), message)]


def test_what_does_not_fit_together_is_told_beside_the_field_that_is_wrong() -> None:
    assert said(RunSystemRequest, {**SEED, "tradeType": "spot", "leverage": 2}) == [
        ("leverage", "must be 1 on spot, got 2")
    ]
    for model in (RunSystemRequest, PreviewRequest):
        base = SEED if model is RunSystemRequest else {"weights": {}}
        wrong = said(model, {**base, "trade_mode": "volatility_targeting"})
        assert [field for field, _ in wrong] == ["target_volatility"]
        ignored = said(model, {**base, "trade_mode": "general", "target_volatility": "0.4"})
        assert [field for field, _ in ignored] == ["target_volatility"]
        assert "is only for trade_mode volatility_targeting" in ignored[0][1]


def test_a_request_that_is_no_object_or_empty_says_what_is_missing() -> None:
    assert said(RunSystemRequest, []) == [("request", "must be a JSON object")]
    assert said(RunSystemRequest, {}) == [(name, "must be given") for name in SEED]
    with pytest.raises(ValidationError) as caught:
        HaltRequest.model_validate({"all": True, "account_id": "a"})
    detail = invalid_fields(caught.value, shown=True).message
    assert detail == "the request is not valid: give account_id or all, not both"


@pytest.mark.parametrize(
    ("model", "document"),
    [
        (PreviewRequest, {"weights": {"btcusdt": 1}}),
        (PreviewRequest, {"weights": [1], "fresh_s": 0, "price_tolerance": 2}),
        (ChangedAccount, {"limits": {"symbols": "BTC", "leverage_max": 0}, "label": ""}),
        (ChangedUser, {"role": "king"}),
        (NewUser, {"name": "a b"}),
        (NewToken, {"label": "<b>", "days": 0}),
        (NewPaperAccount, {"balance": 10**10}),
        (NewAccount, {"trade_env": "paper", "venue": "kraken", "api_key": ""}),
    ],
)
def test_no_message_speaks_of_the_program(model: type[BaseModel], document: object) -> None:
    for field, message in said(model, document):
        for word in (
            "Input",
            "Decimal(",
            "Enum",
            "<",
            "pattern",
            "dictionary",
            "instance",
            "[key]",
        ):
            assert word not in message.replace('"<b>"', "") + field


def test_S21_requests_with_keys_say_that_they_hold_secrets() -> None:
    assert NewAccount.holds_secrets
    assert NewKeys.holds_secrets
    assert not RunSystemRequest.holds_secrets
