"""A preview as its owner reads it: the one shape that the API answers and the command line shows.

Money, sizes, weights and prices are decimal text; fractions (`…_fraction`, distances) too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from api.skip_words import words_for
from module.db.repositories.accounts import AccountRecord
from module.db.repositories.session_records import SessionRecord
from module.model.market import MarketType
from module.model.money import ZERO
from module.model.orders import Side
from module.model.sessions import SessionSpec
from trading.rebalance.decision import spell_targets
from trading.rebalance.estimate import (
    AccountEstimate,
    LegEstimate,
    PlanEstimate,
    PositionEstimate,
)
from trading.rebalance.given_plan import GivenPlan
from trading.rebalance.legs import DiffCase, SkippedLeg
from trading.rebalance.order_info import CycleStage, LegRecord, from_json

CENTS: Final = Decimal("0.0001")
FINE: Final = Decimal("0.00000001")
_ACTIONS: Final[Mapping[DiffCase, str]] = {
    DiffCase.NEW: "open",
    DiffCase.INCREASE: "increase",
    DiffCase.DECREASE: "reduce",
    DiffCase.OPPOSITE: "flip",
    DiffCase.GONE: "close",
    DiffCase.SAME: "keep",
}


def preview_view(
    given: GivenPlan,
    estimate: PlanEstimate,
    account: AccountRecord,
    spec: SessionSpec,
    *,
    of: str | None,
    living: str | None,
    priced: frozenset[str],
    unfit: Sequence[str],
) -> dict[str, object]:
    """Everything a preview tells. `of`: the session that was previewed; `living`: the one that
    trades the account now; `priced`: symbols whose order book was read; `unfit`: settings at the
    exchange that stand in the way, in words."""
    plan, inputs = given.decision.plan, given.inputs
    return {
        "plan_hash": given.plan_hash,
        "made_at": inputs.account.at,
        "decided_at": inputs.cycle,
        "fresh_until": given.fresh_until,
        "fresh_s": given.freshness.seconds,
        "price_tolerance": given.freshness.price_tolerance,
        "session_id": of,
        "living_session_id": living,
        "account_id": account.account_id,
        "account": account.label,
        "trade_env": account.trade_env,
        "market": account.market,
        "strategy_name": spec.strategy_name or None,
        "strategy_digest": spec.strategy_digest or None,
        "trade_mode": spec.trade_mode,
        "leverage": spec.leverage,
        "margin_mode": spec.margin_mode,
        "threshold": spec.threshold,
        "base": given.decision.book.base,
        "plan_digest": given.letter.plan_digest,
        "targets": spell_targets(given.decision.targets),
        "legs": [_leg(item) for item in estimate.legs],
        "skipped": [_skipped(item) for item in plan.skipped],
        "residuals": dict(plan.residuals),
        "positions": [_position(item) for item in estimate.positions],
        "totals": _totals(estimate),
        "before": _account(estimate.before),
        "after": _account(estimate.after),
        "notes": [*unfit, *_notes(estimate, living, priced, given.moved_stops)],
        "executable": given.does_anything and living is None and not unfit,
    }


def execution_view(record: SessionRecord, letter: Mapping[str, object] | None) -> dict[str, object]:
    """What has become of a plan: its session, and each leg as the letter has it now."""
    info = None if letter is None else from_json(letter)
    legs = () if info is None else info.legs
    return {
        "session_id": record.session_id,
        "state": record.state,
        "reason": record.reason,
        "stage": None if info is None else info.stage,
        "whole": info is not None
        and info.stage is CycleStage.DONE
        and all(each.filled_size >= each.leg.size for each in legs),
        "legs": [_executed(each, record.spec.market) for each in legs],
    }


def _executed(record: LegRecord, market: MarketType) -> dict[str, object]:
    """One leg; its fee in quote asset (None on spot: there it is in whatever coin was received)."""
    leg, filled, current = record.leg, record.filled_size, record.current
    paid = sum((part.filled_size * (part.average_price or ZERO) for part in record.slices), ZERO)
    paid_fee = -sum((part.fee for part in record.slices), ZERO)
    message = record.abandoned or (None if current is None else current.message)
    return {
        "leg_id": leg.leg_id,
        "symbol": leg.symbol,
        "action": action_of(leg.case, reduce_only=leg.reduce_only),
        "side": leg.side,
        "size": leg.size,
        "state": record.state,
        "filled": filled,
        "average_price": _fine(paid / filled) if filled else None,
        "fee": None if market is MarketType.SPOT else _money(paid_fee),
        "message": message,
    }


def _leg(item: LegEstimate) -> dict[str, object]:
    leg = item.leg
    return {
        "leg_id": leg.leg_id,
        "symbol": leg.symbol,
        "action": action_of(leg.case, reduce_only=leg.reduce_only),
        "side": leg.side,
        "size": leg.size,
        "reduce_only": leg.reduce_only,
        "after": leg.after,
        "reference_price": leg.reference_price,
        "notional": _money(leg.notional),
        "current_weight": _fine(leg.current_weight),
        "target_weight": _fine(leg.target_weight),
        "stop_loss": leg.stops.stop_loss,
        "take_profit": leg.stops.take_profit,
        "estimate": {
            "average_price": _fine(item.average_price),
            "best_price": item.best_price,
            "worst_price": item.worst_price,
            "levels": item.levels,
            "fillable_size": item.filled_size,
            "unfilled_size": item.unfilled_size,
            "fee": _money(item.fee),
            "slippage": _money(item.slippage),
            "slippage_fraction": _fine(item.slippage_fraction),
        },
    }


def action_of(case: DiffCase, *, reduce_only: bool) -> str:
    """What a leg does, in one word or two: the two legs of a flip are told apart."""
    if case is DiffCase.OPPOSITE:
        return "flip: close" if reduce_only else "flip: open"
    return _ACTIONS[case]


def _skipped(item: SkippedLeg) -> dict[str, object]:
    return {
        "symbol": item.symbol,
        "reason": item.reason,
        "words": words_for(item.reason.value),
        "current_weight": _fine(item.current_weight),
        "target_weight": _fine(item.target_weight),
        "residual": _fine(item.target_weight - item.current_weight),
    }


def _position(item: PositionEstimate) -> dict[str, object]:
    return {
        "symbol": item.symbol,
        "mark": item.mark,
        "target_weight": None if item.target_weight is None else _fine(item.target_weight),
        "before": {
            "size": item.size_before,
            "value": _money(item.size_before * item.mark),
            "weight": _fine(item.weight_before),
            "margin": _money(item.margin_before),
            "liquidation_price": item.liquidation_before,
            "liquidation_distance": _optional_fine(item.distance_before),
            "stop_loss": item.stops_before.stop_loss,
            "take_profit": item.stops_before.take_profit,
        },
        "after": {
            "size": item.size_after,
            "value": _money(item.size_after * item.mark),
            "weight": _fine(item.weight_after),
            "margin": _money(item.margin_after),
            "liquidation_price": _optional_fine(item.liquidation_after),
            "liquidation_distance": _optional_fine(item.distance_after),
            "stop_loss": item.stops_after.stop_loss,
            "take_profit": item.stops_after.take_profit,
        },
    }


def _totals(estimate: PlanEstimate) -> dict[str, object]:
    cost = estimate.fees + estimate.slippage
    notional = estimate.turnover_notional
    return {
        "legs": len(estimate.legs),
        "fees": _money(estimate.fees),
        "slippage": _money(estimate.slippage),
        "cost": _money(cost),
        "cost_fraction": _fine(cost / notional) if notional else ZERO,
        "turnover": _fine(estimate.turnover),
        "turnover_notional": _money(notional),
    }


def _account(item: AccountEstimate) -> dict[str, object]:
    return {
        "equity": _money(item.equity),
        "available": _money(item.available),
        "margin_used": _money(item.margin_used),
        "gross": _money(item.gross),
        "leverage": _fine(item.leverage),
    }


def _notes(
    estimate: PlanEstimate, living: str | None, priced: frozenset[str], moved: Sequence[str]
) -> list[str]:
    notes = []
    for item in estimate.legs:
        leg = item.leg
        if leg.symbol not in priced:
            notes.append(
                f"{leg.symbol}: the exchange shows no order book; priced at {leg.reference_price}"
            )
        elif not item.is_whole:
            side = "asks" if leg.side is Side.BUY else "bids"
            notes.append(
                f"{leg.symbol}: the {side} that the exchange shows take {item.filled_size} of "
                f"{leg.size}; the rest is priced at the worst of them, and may cost more"
            )
    money = estimate.openings
    if money.reached < money.wanted:
        left_out = f", and {', '.join(money.left_out)} left out" if money.left_out else ""
        notes.append(
            f"what opens is worth {_money(money.wanted)}; the money that should be free then "
            f"({_money(money.free)}), with fees and a buffer for slippage, reaches for "
            f"{_money(money.reached)}: opening orders would be cut to that{left_out}"
        )
    bare = [
        item.symbol
        for item in estimate.positions
        if item.size_after and item.stops_after.stop_loss is None
    ]
    if bare:
        notes.append(f"without a stop loss afterwards: {', '.join(bare)}")
    if living is not None:
        notes.append(
            f"session {living} trades this account: only its own cycles write to it while it lives"
        )
    if not estimate.legs:
        stops = f"; stops would change: {', '.join(moved)}" if moved else ""
        notes.append(f"nothing would be traded{stops}")
    return notes


def _money(value: Decimal) -> Decimal:
    return value.quantize(CENTS, rounding=ROUND_HALF_EVEN)


def _fine(value: Decimal) -> Decimal:
    return value.quantize(FINE, rounding=ROUND_HALF_EVEN)


def _optional_fine(value: Decimal | None) -> Decimal | None:
    return None if value is None else _fine(value)
