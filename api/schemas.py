"""What people may send: one pydantic shape per request, and nothing besides its fields.

Money and fractions are exact: a JSON number by its text, or a string; never a float. Defaults are
written here alone.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StrictBool,
    ValidationInfo,
    field_validator,
    model_validator,
)

from api.dependencies import plain_numbers
from api.field_words import IDENTIFIER, LABEL, SYMBOL, USER_NAME
from module.db.repositories.users import Role
from module.model.accounts import MarginMode, TradeEnv
from module.model.market import MarketType
from module.model.money import ONE, parse_decimal, plain
from module.model.sessions import EndState, TradeMode

LEVERAGE_MAX: Final = 125
THRESHOLD_MAX: Final = Decimal("0.5")
THRESHOLD_RELATIVE_MAX: Final = Decimal(1)
NO_TRADE_BAND_MAX: Final = Decimal(10)
TURNOVER_MAX: Final = Decimal(2)
STOP_LOSS_PCT_MAX: Final = Decimal(99)
TARGET_VOLATILITY_MAX: Final = Decimal(10)
TRADING_HOURS_MAX: Final = 10 * 366 * 24
CYCLES_MAX: Final = 10_000_000
MONEY_MAX: Final = Decimal("1e12")
PAPER_BALANCE: Final = Decimal(10_000)
PAPER_BALANCE_MAX: Final = Decimal(1_000_000_000)
DECIMAL_PLACES_MAX: Final = 18
_DECIMAL: Final = re.compile(r"-?\d{1,20}(\.\d{1,18})?", re.ASCII)
_INTERVAL: Final = re.compile(r"(\d{1,4})([mhd])", re.ASCII)
_UNIT_S: Final = {"m": 60, "h": 3600, "d": 86400}
_DAY_S: Final = 86400


def _exact(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        # pydantic reports ValueError alone
        raise ValueError("must be a decimal number, or a string that spells one")  # noqa: TRY004
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        raise ValueError(
            "must be a plain decimal number such as 0.25, "
            f"with {DECIMAL_PLACES_MAX} decimal places at most"
        )
    number = parse_decimal(value)
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -DECIMAL_PLACES_MAX:
        raise ValueError(f"must not have more than {DECIMAL_PLACES_MAX} decimal places")
    return number


def _interval(value: object) -> timedelta:
    found = _INTERVAL.fullmatch(value) if isinstance(value, str) else None
    seconds = int(found[1]) * _UNIT_S[found[2]] if found else 0
    if seconds < 60 or seconds > _DAY_S or _DAY_S % seconds:
        raise ValueError('must divide a day into equal parts: "1m", "5m", "15m", "4h" … "1d"')
    return timedelta(seconds=seconds)


def _config(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004 (pydantic reports ValueError)
    return plain_numbers(value)


Exact = Annotated[Decimal, BeforeValidator(_exact)]
Interval = Annotated[timedelta, BeforeValidator(_interval)]
Config = Annotated[dict[str, object], BeforeValidator(_config)]
Label = Annotated[str, Field(min_length=1, max_length=64, pattern=LABEL)]
Symbol = Annotated[str, Field(pattern=SYMBOL)]
Identifier = Annotated[str, Field(min_length=1, max_length=64, pattern=IDENTIFIER)]


class Sent(BaseModel):
    """A request: unknown fields are refused, and no error repeats what was sent where
    `holds_secrets`."""

    holds_secrets: ClassVar[bool] = False
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)


class RunSystemRequest(Sent):
    """Start a session. The first four fields suffice; everything else has a default."""

    trade_type: MarketType = Field(alias="tradeType", description="futures or spot")
    strategy_name: str = Field(max_length=64, description="One of yours, or a built-in.")
    trade_mode: TradeMode = Field(description="How the strategy's targets are read.")
    trade_env: TradeEnv = Field(description="Must be the account's: paper, demo or live.")

    account_id: Identifier | None = Field(
        None, description="Default: your only account of that market and environment."
    )
    interval: Interval = Field(timedelta(minutes=5), description="Cycle length; divides a day.")
    leverage: Annotated[Exact, Field(ge=1, le=LEVERAGE_MAX)] = ONE
    margin_mode: MarginMode = MarginMode.CROSSED
    allocated: Annotated[Exact, Field(gt=0, le=MONEY_MAX)] | None = Field(
        None, description="USDT to work with; default: what the account is worth at the start."
    )
    compounding: StrictBool = Field(False, description="Size by what the account is worth now.")
    threshold: Annotated[Exact, Field(ge=0, le=THRESHOLD_MAX)] = Decimal("0.01")
    threshold_relative: Annotated[Exact, Field(gt=0, le=THRESHOLD_RELATIVE_MAX)] | None = Field(
        None, description="Differences under this fraction of the target are not traded either."
    )
    no_trade_band: Annotated[Exact, Field(gt=0, le=NO_TRADE_BAND_MAX)] | None = Field(
        None, description="Widens (over 1) or narrows the band of weights in which nothing trades."
    )
    turnover_max: Annotated[Exact, Field(gt=0, le=TURNOVER_MAX)] | None = Field(
        None, description="Fraction of the base that one cycle may trade; closes always may."
    )
    trading_hours: Annotated[Exact, Field(gt=0, le=TRADING_HOURS_MAX)] = Decimal(720)
    default_stop_loss_pct: Annotated[Exact, Field(gt=0, le=STOP_LOSS_PCT_MAX)] | None = Field(
        None, description="Stop in percent of the entry, where the strategy gives none."
    )
    target_volatility: Annotated[Exact, Field(gt=0, le=TARGET_VOLATILITY_MAX)] | None = Field(
        None,
        validate_default=True,
        description="Yearly, as a fraction; for trade_mode volatility_targeting.",
    )
    on_end: EndState = Field(EndState.PROTECTED, description="How the session leaves its account.")
    apply_account_settings: StrictBool = Field(
        False, description="May set leverage and margin mode of flat symbols."
    )
    adopt_existing: StrictBool = Field(
        False, description="Positions (on spot: coins) that are there become its."
    )
    config: Config = Field(default_factory=dict, description="Overrides the strategy's own.")
    cycles: Annotated[int, Field(strict=True, ge=1, le=CYCLES_MAX)] | None = Field(
        None, description="End after so many cycles."
    )

    @field_validator("leverage")
    @classmethod
    def _leverage(cls, leverage: Decimal, others: ValidationInfo) -> Decimal:
        if others.data.get("trade_type") is MarketType.SPOT and leverage != ONE:
            raise ValueError("must be 1 on spot")
        return whole(leverage)

    @field_validator("target_volatility")
    @classmethod
    def _volatility(cls, volatility: Decimal | None, others: ValidationInfo) -> Decimal | None:
        return volatility_of(others.data.get("trade_mode"), volatility)


def whole(leverage: Decimal) -> Decimal:
    """`leverage`; ValueError when it has decimals."""
    if leverage != leverage.to_integral_value():
        raise ValueError("must be a whole number")
    return leverage


def volatility_of(trade_mode: object, volatility: Decimal | None) -> Decimal | None:
    """`volatility`; ValueError where the mode scales by it and there is none, or does not."""
    scales = trade_mode is TradeMode.VOLATILITY_TARGETING
    if isinstance(trade_mode, TradeMode) and not scales and volatility is not None:
        raise ValueError("is only for trade_mode volatility_targeting; leave it out")
    if scales and volatility is None:
        raise ValueError("must be given for trade_mode volatility_targeting, e.g. 0.4")
    return volatility


class StrategyUpload(Sent):
    """One version of a strategy."""

    name: str = Field(max_length=64)
    source: str = Field(description="The Python text, with strategy(context, config_dict).")
    config: Config = Field(default_factory=dict)


class NewToken(Sent):
    """A token of one's own (or, by a supervisor, of somebody else's)."""

    label: Label
    days: Annotated[int, Field(strict=True, ge=1, le=3660)] | None = Field(
        None, description="How long it opens doors; default: until it is revoked."
    )


class NewUser(Sent):
    """A person."""

    name: Annotated[str, Field(pattern=USER_NAME)]
    role: Role = Role.TRADER


class ChangedUser(Sent):
    """What may change about a person."""

    role: Role | None = None
    active: StrictBool | None = None


class NewPaperAccount(Sent):
    """An account at the paper exchange."""

    market: MarketType = MarketType.FUTURES
    label: Label | None = None
    balance: Annotated[Exact, Field(gt=0, le=PAPER_BALANCE_MAX)] = PAPER_BALANCE


class NewAccount(Sent):
    """An account at a real venue. The secrets go to the gateway and are never shown again."""

    holds_secrets: ClassVar[bool] = True

    label: Label
    venue: Literal["bitget"] = "bitget"
    market: MarketType
    trade_env: Literal[TradeEnv.DEMO, TradeEnv.LIVE]
    api_key: Annotated[SecretStr, Field(min_length=1, max_length=256)]
    api_secret: Annotated[SecretStr, Field(min_length=1, max_length=256)]
    passphrase: Annotated[SecretStr, Field(min_length=1, max_length=256)]
    base_url: Annotated[str, Field(max_length=255)] | None = Field(
        None, description="One of the installation's allowed addresses; default: the first."
    )
    force: StrictBool = Field(False, description="Take a key that may withdraw. Better not.")


class AccountLimits(Sent):
    """Hard caps on what leaves for the exchange; a field that is left out has its default."""

    symbols: Annotated[list[Symbol], Field(max_length=500)] | None = Field(
        None, description="The only symbols that may be opened; default: all."
    )
    order_notional_max: Annotated[Exact, Field(gt=0, le=MONEY_MAX)] | None = None
    position_notional_max: Annotated[Exact, Field(gt=0, le=MONEY_MAX)] | None = None
    leverage_max: Annotated[Exact, Field(ge=1, le=LEVERAGE_MAX)] | None = None
    orders_per_minute: Annotated[int, Field(strict=True, ge=1, le=10_000)] | None = None
    kill_switch: StrictBool | None = Field(None, description="True: nothing is opened.")

    def document(self) -> dict[str, object]:
        """As the last gate reads it."""
        given = self.model_dump(exclude_none=True).items()
        return {name: plain(cap) if isinstance(cap, Decimal) else cap for name, cap in given}


class ChangedAccount(Sent):
    """What may change about an account; what is left out stays."""

    label: Label | None = None
    active: StrictBool | None = Field(None, description="Off: an idle, flat account only.")
    limits: AccountLimits | None = Field(None, description="Replaces all limits.")
    force: StrictBool = Field(False, description="Switch off although the exchange is silent.")


class NewKeys(Sent):
    """Other keys of the same account at the venue."""

    holds_secrets: ClassVar[bool] = True

    api_key: Annotated[SecretStr, Field(min_length=1, max_length=256)]
    api_secret: Annotated[SecretStr, Field(min_length=1, max_length=256)]
    passphrase: Annotated[SecretStr, Field(min_length=1, max_length=256)]
    force: StrictBool = Field(False, description="Take a key that may withdraw. Better not.")


class Deposit(Sent):
    """A transfer into a paper account."""

    amount: Annotated[Exact, Field(gt=0, le=PAPER_BALANCE_MAX)]


class ResumeRequest(Sent):
    """Which accounts may open again; without a field all of one's own."""

    account_id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    everything: StrictBool = Field(
        False, alias="all", description="Every account of the installation; supervisors only."
    )

    @model_validator(mode="after")
    def one_of_both(self) -> Self:
        """One account and all accounts are two wishes."""
        if self.everything and self.account_id is not None:
            raise ValueError("give account_id or all, not both")
        return self


class HaltRequest(ResumeRequest):
    """Which accounts open nothing more; without a field all of one's own."""

    reason: Annotated[str, Field(max_length=200)] = Field(
        "", description="Shown to people, and with every refused order."
    )
