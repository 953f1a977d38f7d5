"""Why a difference is not traded, as people read it: in previews and of ended cycles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SKIP_WORDS: Final[Mapping[str, str]] = {
    "below_threshold": "the difference is smaller than the threshold",
    "below_min_size": "smaller than the smallest order that the exchange takes",
    "below_min_notional": "worth less than the smallest order that the exchange takes",
    "not_tradable": "the exchange does not trade it now",
    "no_price": "it has no price, or the exchange does not list it",
    "stop_on_wrong_side": "its stop is already passed: the position would close at once",
    "no_margin_left": "no free margin is left for it",
    "within_band": "inside the no-trade band: trading would cost more than the drift",
    "turnover_cap": "the cycle's turnover is used up",
    "open_order": "an order for it is still waiting at the exchange",
    "dust": "too little of the coin to be sold",
    "lot_rounding": "less than one lot is missing",
    "book_limit": "what stays untraded already fills base × leverage",
    "doubtful_price": "its price, or that of a position, does not agree with its last closed bar",
}


def words_for(reason: str) -> str:
    """A reason code as a sentence."""
    return SKIP_WORDS.get(reason, reason.replace("_", " "))
