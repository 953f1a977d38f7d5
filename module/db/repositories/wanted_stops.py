"""The stop that each position should have, as the gateway last agreed to keep it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import and_, delete, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.platform_tables import WantedStop
from module.model.money import parse_decimal, plain
from module.model.orders import StopPrices


@dataclass(frozen=True, slots=True)
class WantedStops:
    """Stops that the position of `symbol` on this side should have; both None: none at all."""

    account_id: str
    symbol: str
    is_long: bool
    stops: StopPrices
    epoch: int
    updated_at: datetime


class WantedStopRepository:
    """Rows of `wanted_stops`; one per account and symbol."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list_for_account(self, account_id: str) -> list[WantedStops]:
        """All rows of the account."""
        with self._database.read() as session:
            rows = session.execute(
                select(WantedStop).where(WantedStop.account_id == account_id)
            ).scalars()
            return [_record(row) for row in rows]

    def put(self, wanted: WantedStops) -> None:
        """Insert or replace; a row of a higher epoch, or of this epoch and newer, stays."""

        def work(session: Session) -> None:
            values = {
                "is_long": wanted.is_long,
                "stop_loss": wanted.stops.stop_loss,
                "take_profit": wanted.stops.take_profit,
                "epoch": wanted.epoch,
                "updated_at": wanted.updated_at,
            }
            session.execute(
                insert(WantedStop)
                .values(account_id=wanted.account_id, symbol=wanted.symbol, **values)
                .on_conflict_do_update(
                    index_elements=["account_id", "symbol"],
                    set_=values,
                    where=or_(
                        WantedStop.epoch < wanted.epoch,
                        and_(
                            WantedStop.epoch == wanted.epoch,
                            WantedStop.updated_at <= wanted.updated_at,
                        ),
                    ),
                )
            )

        self._database.run_idempotent(work)

    def remove(self, account_id: str, symbol: str, asked_at: datetime) -> None:
        """Nothing was wanted any more at `asked_at`: a newer wish stays; no row is no error."""

        def work(session: Session) -> None:
            session.execute(
                delete(WantedStop).where(
                    WantedStop.account_id == account_id,
                    WantedStop.symbol == symbol,
                    WantedStop.updated_at <= asked_at,
                )
            )

        self._database.run_idempotent(work)


def spell_wanted(wanted: WantedStops) -> dict[str, object]:
    """As plain JSON with the table's column names."""
    loss, profit = wanted.stops.stop_loss, wanted.stops.take_profit
    return {
        "account_id": wanted.account_id,
        "symbol": wanted.symbol,
        "is_long": wanted.is_long,
        "stop_loss": None if loss is None else plain(loss),
        "take_profit": None if profit is None else plain(profit),
        "epoch": wanted.epoch,
        "updated_at": wanted.updated_at.isoformat(),
    }


def _record(row: WantedStop) -> WantedStops:
    return WantedStops(
        account_id=row.account_id,
        symbol=row.symbol,
        is_long=row.is_long,
        stops=StopPrices(_plain(row.stop_loss), _plain(row.take_profit)),
        epoch=row.epoch,
        updated_at=row.updated_at,
    )


def _plain(value: object) -> Decimal | None:
    """`numeric(38,18)` gives eighteen decimals back; the value without its trailing zeros."""
    return None if value is None else parse_decimal(plain(Decimal(str(value))))
