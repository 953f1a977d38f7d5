"""What a strategy sees of the market: the interface that live trading and backtests share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


class DataContext(ABC):
    """Closed bars up to the moment of the decision, never later."""

    @property
    @abstractmethod
    def current_dt(self) -> datetime:
        """The moment of the decision, aware, in the installation's display zone."""

    @abstractmethod
    def get_history(
        self,
        assets: Sequence[str],
        window: int,
        frequency: str,
        fields: str | Sequence[str],
    ) -> pd.DataFrame:
        """The last `window` closed bars of `assets`, oldest first.

        Index: bar close time (UTC). Columns: assets when `fields` is one of open, high, low,
        close, volume; a MultiIndex (asset, field) when it is a list of them. A missing bar is NaN
        in prices and 0 in volume; an unknown asset is an error that names it. `frequency` is one
        of 1m 3m 5m 15m 30m 1h 2h 4h 6h 12h 1d 1w.
        """
