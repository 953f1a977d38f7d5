"""Candles, gaps and watched symbols in `fin_crypto`: the market room's store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.market_tables import CandleGap, StoredCandle, WatchedSymbol
from module.model.market import Candle, MarketType
from module.model.series import Gap, Series, Stretch, Watched

ROWS_PER_STATEMENT: Final = 2_000
_VALUES: Final = ("open", "high", "low", "close", "volume")


class PostgresCandles:
    """Implements `module.market.store.CandleStore`. Writes are upserts: repeating is harmless."""

    def __init__(self, database: Database) -> None:
        """`database` is fin_crypto."""
        self._database = database

    def candles(self, series: Series, stretch: Stretch) -> list[Candle]:
        """The stored bars that open in `stretch`, oldest first."""
        table = StoredCandle
        query = (
            select(table.opens_at, table.open, table.high, table.low, table.close, table.volume)
            .where(
                _of(table, series),
                table.opens_at >= stretch.first,
                table.opens_at < stretch.until,
            )
            .order_by(table.opens_at)
        )
        with self._database.read() as session:
            return [
                Candle(series.symbol, series.frequency, *row)
                for row in session.execute(query).tuples()
            ]

    def save(self, series: Series, candles: Sequence[Candle]) -> None:
        """Store them all, in one transaction; unchanged bars cost no write."""
        rows = [
            {
                "market_id": series.market_id,
                "market": series.market.value,
                "symbol": series.symbol,
                "frequency": series.frequency.value,
                "opens_at": candle.opens_at,
                "open": candle.open,
                "high": candle.high,
                "low": candle.low,
                "close": candle.close,
                "volume": candle.volume,
            }
            for candle in {candle.opens_at: candle for candle in candles}.values()
        ]
        if not rows:
            return
        adding = insert(StoredCandle)
        statement = adding.on_conflict_do_update(
            index_elements=["market_id", "market", "symbol", "frequency", "opens_at"],
            set_={name: adding.excluded[name] for name in _VALUES},
            where=or_(
                *(
                    getattr(StoredCandle, name).is_distinct_from(adding.excluded[name])
                    for name in _VALUES
                )
            ),
        )

        def work(session: Session) -> None:
            for start in range(0, len(rows), ROWS_PER_STATEMENT):
                session.execute(statement, rows[start : start + ROWS_PER_STATEMENT])

        self._database.run_idempotent(work)

    def last_opening(self, series: Series) -> datetime | None:
        """The opening of the newest stored bar."""
        query = select(func.max(StoredCandle.opens_at)).where(_of(StoredCandle, series))
        with self._database.read() as session:
            return session.execute(query).scalar()

    def gaps(self, series: Series, stretch: Stretch) -> list[Gap]:
        """The recorded gaps that touch `stretch`."""
        table = CandleGap
        query = select(table.opens_at, table.until, table.tries, table.tried_at).where(
            _of(table, series), table.opens_at < stretch.until, table.until > stretch.first
        )
        with self._database.read() as session:
            return [
                Gap(Stretch(first, until), tries, tried_at)
                for first, until, tries, tried_at in session.execute(query).tuples()
            ]

    def record_gap(self, series: Series, gap: Gap) -> None:
        """Remember it under its first bar, instead of an older record there."""
        values = {"until": gap.stretch.until, "tries": gap.tries, "tried_at": gap.tried_at}
        statement = (
            insert(CandleGap)
            .values(
                market_id=series.market_id,
                market=series.market.value,
                symbol=series.symbol,
                frequency=series.frequency.value,
                opens_at=gap.stretch.first,
                **values,
            )
            .on_conflict_do_update(
                index_elements=["market_id", "market", "symbol", "frequency", "opens_at"],
                set_=values,
            )
        )
        self._database.run_idempotent(lambda session: session.execute(statement))

    def watch(
        self, market_id: str, market: MarketType, symbols: Sequence[str], asked_at: datetime
    ) -> None:
        """Remember that `symbols` were asked for; the time only grows."""
        rows = [
            {
                "market_id": market_id,
                "market": market.value,
                "symbol": symbol,
                "first_asked_at": asked_at,
                "last_asked_at": asked_at,
            }
            for symbol in sorted(set(symbols))
        ]
        if not rows:
            return
        adding = insert(WatchedSymbol).values(rows)
        statement = adding.on_conflict_do_update(
            index_elements=["market_id", "market", "symbol"],
            set_={
                "last_asked_at": func.greatest(
                    WatchedSymbol.last_asked_at, adding.excluded.last_asked_at
                )
            },
        )
        self._database.run_idempotent(lambda session: session.execute(statement))

    def watched(self, market_id: str, asked_since: datetime) -> list[Watched]:
        """The symbols asked for at or after `asked_since`, in order of their names."""
        table = WatchedSymbol
        query = (
            select(table.market, table.symbol, table.last_asked_at)
            .where(table.market_id == market_id, table.last_asked_at >= asked_since)
            .order_by(table.market, table.symbol)
        )
        with self._database.read() as session:
            return [
                Watched(MarketType(market), symbol, asked_at)
                for market, symbol, asked_at in session.execute(query).tuples()
            ]


def _of(table: type[StoredCandle | CandleGap], series: Series) -> ColumnElement[bool]:
    return and_(
        table.market_id == series.market_id,
        table.market == series.market.value,
        table.symbol == series.symbol,
        table.frequency == series.frequency.value,
    )
