"""What people may send to `/temp`: what to preview, and which preview to carry out."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Final, Self

from pydantic import (
    BeforeValidator,
    Field,
    StrictBool,
    ValidationInfo,
    field_validator,
    model_validator,
)

from api.schemas import (
    LEVERAGE_MAX,
    MONEY_MAX,
    NO_TRADE_BAND_MAX,
    STOP_LOSS_PCT_MAX,
    TARGET_VOLATILITY_MAX,
    THRESHOLD_MAX,
    THRESHOLD_RELATIVE_MAX,
    TURNOVER_MAX,
    Config,
    Exact,
    Identifier,
    Sent,
    Symbol,
    volatility_of,
    whole,
)
from module.model.accounts import MarginMode
from module.model.money import ONE, plain
from module.model.sessions import TradeMode
from trading.rebalance.given_plan import FRESH_S, PRICE_TOLERANCE

WEIGHTS_MAX: Final = 500
FRESH_S_MAX: Final = 3600
PRICE_TOLERANCE_MAX: Final = Decimal("0.2")
OF_A_SESSION: Final = frozenset({"session_id", "fresh_s", "price_tolerance"})


class GivenTarget(Sent):
    """One symbol's target by hand, in the words that strategies use."""

    weight: Exact
    presetStopSurplusPrice: Annotated[Exact, Field(gt=0)] | None = None  # noqa: N815
    presetStopLossPrice: Annotated[Exact, Field(gt=0)] | None = None  # noqa: N815

    def spelled(self) -> dict[str, str]:
        """As a strategy would answer it, in decimal text."""
        given = self.model_dump(exclude_none=True)
        return {name: plain(value) for name, value in given.items()}


def _by_hand(value: object) -> object:
    return value if isinstance(value, dict) else {"weight": value}


ByHand = Annotated[GivenTarget, BeforeValidator(_by_hand)]
"""A bare number is a weight."""


class PreviewRequest(Sent):
    """What would be traded now: for a session, or for an account with a strategy or weights."""

    session_id: Annotated[str, Field(max_length=32)] | None = Field(
        None, description="One of yours, running or over; everything else is then the session's."
    )
    account_id: Identifier | None = Field(None, description="Default: your only account.")
    strategy_name: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="One of yours, or a built-in; or give weights."
    )
    weights: Annotated[dict[Symbol, ByHand], Field(max_length=WEIGHTS_MAX)] | None = Field(
        None, description="Weights by symbol, instead of a strategy; {} means flat."
    )

    trade_mode: TradeMode = TradeMode.REBALANCING
    leverage: Annotated[Exact, Field(ge=1, le=LEVERAGE_MAX)] = ONE
    margin_mode: MarginMode = MarginMode.CROSSED
    allocated: Annotated[Exact, Field(gt=0, le=MONEY_MAX)] | None = Field(
        None, description="USDT that the weights are fractions of; default: the equity."
    )
    threshold: Annotated[Exact, Field(ge=0, le=THRESHOLD_MAX)] = Decimal("0.01")
    threshold_relative: Annotated[Exact, Field(gt=0, le=THRESHOLD_RELATIVE_MAX)] | None = None
    no_trade_band: Annotated[Exact, Field(gt=0, le=NO_TRADE_BAND_MAX)] | None = None
    turnover_max: Annotated[Exact, Field(gt=0, le=TURNOVER_MAX)] | None = None
    default_stop_loss_pct: Annotated[Exact, Field(gt=0, le=STOP_LOSS_PCT_MAX)] | None = None
    target_volatility: Annotated[Exact, Field(gt=0, le=TARGET_VOLATILITY_MAX)] | None = Field(
        None, validate_default=True, description="For trade_mode volatility_targeting."
    )
    apply_account_settings: StrictBool = Field(
        False, description="Carrying it out may set leverage and margin mode of flat symbols."
    )
    adopt_existing: StrictBool = Field(
        False, description="Spot: coins that are not named may be sold as well."
    )
    config: Config = Field(default_factory=dict, description="Overrides the strategy's own.")

    fresh_s: Annotated[int, Field(strict=True, ge=1, le=FRESH_S_MAX)] = Field(
        FRESH_S, description="For how many seconds (of the world) it may be carried out."
    )
    price_tolerance: Annotated[Exact, Field(ge=0, le=PRICE_TOLERANCE_MAX)] = Field(
        PRICE_TOLERANCE, description="By how much (a fraction) a price may move until then."
    )

    @field_validator("leverage")
    @classmethod
    def _leverage(cls, leverage: Decimal) -> Decimal:
        return whole(leverage)

    @field_validator("target_volatility")
    @classmethod
    def _volatility(cls, volatility: Decimal | None, others: ValidationInfo) -> Decimal | None:
        return volatility_of(others.data.get("trade_mode"), volatility)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.session_id is not None:
            extra = sorted(self.model_fields_set - OF_A_SESSION)
            if extra:
                raise ValueError(
                    f"with session_id everything else is the session's own; leave out {extra[0]}"
                )
            return self
        if (self.strategy_name is None) == (self.weights is None):
            raise ValueError("give one of session_id, strategy_name and weights")
        return self

    def answer(self) -> Mapping[str, Mapping[str, str]] | None:
        """The weights as a strategy would answer them; None where a strategy is asked."""
        if self.weights is None:
            return None
        return {symbol: each.spelled() for symbol, each in sorted(self.weights.items())}


class ExecuteRequest(Sent):
    """Carry out exactly the plan of this preview."""

    plan_hash: Annotated[str, Field(max_length=128)] = Field(
        description="As the preview told it: 64 hex digits."
    )
