"""A SessionSpec as the JSON of its row, and back: the one translation between the two shapes.

Decimals are plain strings, times ISO 8601 with `Z`, lengths of time whole seconds. `config` is the
user's own JSON and is kept as it is (its floats stay floats).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal

from module.model.accounts import MarginMode, TradeEnv
from module.model.canonical import instant_text, parse_instant
from module.model.errors import InvariantViolated
from module.model.market import MarketType
from module.model.money import parse_decimal, plain
from module.model.sessions import EndState, SessionSpec, TradeMode


def spec_to_json(spec: SessionSpec) -> dict[str, object]:
    """The document that `active_sessions.spec` holds."""
    return {
        "session_id": spec.session_id,
        "installation": spec.installation,
        "owner_id": spec.owner_id,
        "account_id": spec.account_id,
        "market": spec.market.value,
        "market_id": spec.market_id,
        "trade_env": spec.trade_env.value,
        "trade_mode": spec.trade_mode.value,
        "strategy_name": spec.strategy_name,
        "strategy_digest": spec.strategy_digest,
        "config": dict(spec.config),
        "interval_s": int(spec.interval.total_seconds()),
        "leverage": plain(spec.leverage),
        "margin_mode": spec.margin_mode.value,
        "allocated": _optional(spec.allocated),
        "compounding": spec.compounding,
        "threshold": plain(spec.threshold),
        "default_stop_loss_pct": _optional(spec.default_stop_loss_pct),
        "target_volatility": _optional(spec.target_volatility),
        "on_end": spec.on_end.value,
        "apply_account_settings": spec.apply_account_settings,
        "adopt_existing": spec.adopt_existing,
        "started_at": instant_text(spec.started_at),
        "ends_at": instant_text(spec.ends_at),
        "cycles_max": spec.cycles_max,
        "threshold_relative": _optional(spec.threshold_relative),
        "no_trade_band": _optional(spec.no_trade_band),
        "turnover_max": _optional(spec.turnover_max),
        "given_plan": spec.given_plan,
    }


def spec_from_json(document: Mapping[str, object]) -> SessionSpec:
    """Read what `spec_to_json` wrote; InvariantViolated when it is not that."""
    try:
        return SessionSpec(
            session_id=_text(document, "session_id"),
            installation=_text(document, "installation"),
            owner_id=_text(document, "owner_id"),
            account_id=_text(document, "account_id"),
            market=MarketType(_text(document, "market")),
            market_id=_text(document, "market_id"),
            trade_env=TradeEnv(_text(document, "trade_env")),
            trade_mode=TradeMode(_text(document, "trade_mode")),
            strategy_name=_text(document, "strategy_name"),
            strategy_digest=_text(document, "strategy_digest"),
            config=_object(document, "config"),
            interval=timedelta(seconds=_integer(document, "interval_s")),
            leverage=parse_decimal(_text(document, "leverage")),
            margin_mode=MarginMode(_text(document, "margin_mode")),
            allocated=_optional_decimal(document, "allocated"),
            compounding=_flag(document, "compounding"),
            threshold=parse_decimal(_text(document, "threshold")),
            default_stop_loss_pct=_optional_decimal(document, "default_stop_loss_pct"),
            target_volatility=_optional_decimal(document, "target_volatility"),
            on_end=EndState(_text(document, "on_end")),
            apply_account_settings=_flag(document, "apply_account_settings"),
            adopt_existing=_flag(document, "adopt_existing"),
            started_at=parse_instant(_text(document, "started_at")),
            ends_at=parse_instant(_text(document, "ends_at")),
            cycles_max=_optional_integer(document, "cycles_max"),
            # Sessions that were stored before these options have none of them.
            threshold_relative=_later_decimal(document, "threshold_relative"),
            no_trade_band=_later_decimal(document, "no_trade_band"),
            turnover_max=_later_decimal(document, "turnover_max"),
            given_plan=_later_text(document, "given_plan"),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise InvariantViolated(f"the spec of a session cannot be read: {error!r}") from error


def _optional(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)


def _text(document: Mapping[str, object], name: str) -> str:
    value = document[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text")
    return value


def _integer(document: Mapping[str, object], name: str) -> int:
    value = document[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer")
    return value


def _flag(document: Mapping[str, object], name: str) -> bool:
    value = document[name]
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be true or false")
    return value


def _object(document: Mapping[str, object], name: str) -> dict[str, object]:
    value = document[name]
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be an object")
    return value


def _optional_integer(document: Mapping[str, object], name: str) -> int | None:
    return None if document[name] is None else _integer(document, name)


def _optional_decimal(document: Mapping[str, object], name: str) -> Decimal | None:
    return None if document[name] is None else parse_decimal(_text(document, name))


def _later_text(document: Mapping[str, object], name: str) -> str | None:
    return None if document.get(name) is None else _text(document, name)


def _later_decimal(document: Mapping[str, object], name: str) -> Decimal | None:
    return _optional_decimal(document, name) if name in document else None
