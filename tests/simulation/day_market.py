"""The few markets that simulated days are lived in, and which of their symbols a day trades.

seed ─► WorldPlan.market_seed ─► market_of ─► the world's exchange
seed ─► symbols_of            ─► the day's strategy
"""

from __future__ import annotations

from functools import lru_cache

from module.simulator.prices.market_source import Bar, PriceKind
from module.simulator.prices.synthetic import MODELS, SyntheticMarket

MARKETS = 4
BARS_KEPT = 60_000


def symbols_of(seed: int, count: int = 9) -> tuple[str, ...]:
    """The symbols that the day's strategy knows: other ones for other seeds."""
    names = [model.symbol for model in MODELS]
    first = seed % len(names)
    return tuple(sorted((names + names)[first : first + count]))


class _SharedMarket(SyntheticMarket):
    """A market that keeps the bars it was asked for: the next day asks for the same ones."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._known = lru_cache(maxsize=BARS_KEPT)(super().merged_bar)

    def merged_bar(
        self, symbol: str, open_ms: int, minutes: int, kind: PriceKind = PriceKind.LAST
    ) -> Bar | None:
        """See `SyntheticMarket.merged_bar`."""
        return self._known(symbol, open_ms, minutes, kind)


@lru_cache(maxsize=MARKETS)
def market_of(seed: int) -> SyntheticMarket:
    """One of the few markets that days are lived in; pure, so worlds may share it."""
    return _SharedMarket(1000 + seed)
