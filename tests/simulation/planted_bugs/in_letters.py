"""Bugs of letters, sessions, planning and measuring."""

from __future__ import annotations

import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from module.points import reach
from tests.simulation.fault_strokes import (
    Command,
    Kill,
    LoseLetter,
    Pause,
    PowerCut,
    SecondLeader,
)
from tests.simulation.planted_bugs.bug import Hunt, Patch, PlantedBug, database_fault
from tests.simulation.planted_bugs.in_execution import BOUNDARIES, FAULTY, SHORT


def _written_in_place(patch: Patch) -> None:
    """The letter is opened, emptied and written anew, as the first version of everything does."""

    def write(path: Path, content: bytes, **_: Any) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0) as file:
            half = len(content) // 2
            file.write(content[:half])
            reach("order_info: temporary written")
            file.write(content[half:])

    patch.replace("module.files.order_info_file:write_durably", write)


def _not_synced(patch: Patch) -> None:
    """Temporary file and rename, but nothing is ever synced."""

    def write(path: Path, content: bytes, **_: Any) -> None:
        temporary = path.with_name(f".{path.name}.000000.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(content)
        temporary.replace(path)
        reach("order_info: renamed")

    patch.replace("module.files.order_info_file:write_durably", write)


def _letter_never_rebuilt(patch: Patch) -> None:
    """A missing file is an empty one: the mirror is not asked."""

    def read(self: Any) -> Any:
        return self._read_file()

    patch.replace("module.files.order_info_file:FileOrderInfoStore._read_or_rebuild", read)


def _older_epoch_writes_the_letter(patch: Patch) -> None:
    """The letter is replaced whoever wrote it last."""
    patch.replace(
        "module.files.order_info_file:FileOrderInfoStore._current_stamp", lambda *_, **__: None
    )
    patch.replace(
        "tests.simulation.memory_postgres.sessions:MemorySessions.write_order_info",
        lambda *_, **__: None,
    )


def _two_sessions_on_an_account(patch: Patch) -> None:
    patch.replace(
        "tests.simulation.memory_postgres.gateway:GatewayTables.living",
        lambda *_, **__: None,
    )


def _flat_is_not_flat(patch: Patch) -> None:
    """A session that is to end flat ends without closing."""
    patch.replace("trading.leaving:WayOut.flatten", lambda *_, **__: None)


def _interrupted_cycle_forgotten(patch: Patch) -> None:
    """A leader that starts does not look at what its predecessor left."""
    patch.replace("trading.rebalancing_main:_Leader._recover", lambda *_, **__: None)


def _gaps_not_recorded(patch: Patch) -> None:
    patch.replace(
        "tests.simulation.memory_postgres.results:MemoryResults.store_gaps",
        lambda *_, **__: 0,
    )


def _spool_forgets(patch: Patch) -> None:
    """Rows that Postgres does not take are said to be kept, and are not; nobody looks for them."""
    patch.replace("monitoring.spool:Spool.append", lambda *_, **__: True)
    _losses_not_looked_for(patch)


def _losses_not_looked_for(patch: Patch) -> None:
    """What was committed is taken to last."""
    patch.replace("monitoring.minute:Finwatcher._look_for_losses", lambda *_, **__: True)


def _stops_elsewhere(patch: Patch) -> None:
    """Stops go to the exchange two percent away from where the strategy put them."""

    def make(original: Any) -> Any:
        def round_stops(stops: Any, instrument: Any) -> Any:
            moved = stops
            if stops.stop_loss is not None:
                moved = replace(stops, stop_loss=stops.stop_loss * Decimal("0.98"))
            return original(moved, instrument)

        return round_stops

    patch.wrap("trading.rebalance.stops:round_stops", make)


def _residual_never_traded(patch: Patch) -> None:
    """Every leg is planned at half of what is missing: the book never reaches its targets."""

    def make(original: Any) -> Any:
        def plan(targets: Any, book: Any, policy: Any) -> Any:
            halves = {
                symbol: replace(target, weight=target.weight / 3)
                for symbol, target in targets.items()
            }
            return original(halves, book, policy)

        return plan

    patch.wrap("trading.rebalance.decision:plan_rebalance", make)


KILLS_IN_WRITES = tuple(
    Kill("D6", second - 2, "leader", "order_info: temporary written", nth)
    for nth, second in enumerate(BOUNDARIES, 1)
)
CUTS = tuple(PowerCut(second - 2, "order_info: ", 3 + 2 * n) for n, second in enumerate(BOUNDARIES))

BUGS = (
    PlantedBug(
        "non-atomic write of the letter",
        "the letter is written in place",
        ("I13",),
        _written_in_place,
        Hunt(KILLS_IN_WRITES),
    ),
    PlantedBug(
        "letter not synced",
        "the letter is renamed into place before its data is on the disk",
        ("I13",),
        _not_synced,
        Hunt(CUTS),
    ),
    PlantedBug(
        "lost letter not rebuilt",
        "a missing letter counts as one that never was",
        ("I13", "I1", "I3", "I4"),
        _letter_never_rebuilt,
        Hunt(tuple(LoseLetter(second + 0.4) for second in FAULTY)),
    ),
    PlantedBug(
        "older epoch writes the letter",
        "a leader that has been replaced overwrites its successor's letter",
        ("I8", "I13"),
        _older_epoch_writes_the_letter,
        Hunt(
            tuple(
                SecondLeader(second - 5, 9.5, "execution: letter to be saved") for second in FAULTY
            )
        ),
    ),
    PlantedBug(
        "two owners of one account",
        "a second session is admitted to an account that has one",
        ("I8",),
        _two_sessions_on_an_account,
        Hunt((Command("O1", 300.0, "run-system again"),), hours=SHORT),
    ),
    PlantedBug(
        "flat is not flat",
        "a session that is to end flat leaves its positions open",
        ("I21",),
        _flat_is_not_flat,
        Hunt(hours=SHORT),
    ),
    PlantedBug(
        "interrupted cycle forgotten",
        "a leader that starts does not finish what its predecessor began",
        ("I4", "I7", "I16"),
        _interrupted_cycle_forgotten,
        Hunt(
            tuple(
                Kill("D3", second - 2, "leader", "execution: after submit", 1)
                for second in BOUNDARIES
            )
        ),
    ),
    PlantedBug(
        "gaps not recorded",
        "minutes that nobody measured have neither a row nor a gap",
        ("I18",),
        _gaps_not_recorded,
        Hunt(tuple(Pause("E8", second, "finwatcher", 200.0) for second in (290.0, 1190.0))),
    ),
    PlantedBug(
        "spool forgets",
        "minutes measured while Postgres was away are lost",
        ("I18",),
        _spool_forgets,
        Hunt(database=(database_fault("E1", 1000.0, seconds=180.0),)),
    ),
    PlantedBug(
        "losses not looked for",
        "minutes that a fail-over forgot are not stored again",
        ("I18",),
        _losses_not_looked_for,
        Hunt(database=tuple(database_fault("E4", second + 1.2) for second in (1110.0, 1410.0))),
    ),
    PlantedBug(
        "stops elsewhere",
        "stops stand two percent from where the strategy put them",
        ("I2",),
        _stops_elsewhere,
        Hunt(hours=SHORT),
    ),
    PlantedBug(
        "targets missed",
        "a third of what the strategy wants is held",
        ("I16",),
        _residual_never_traded,
        Hunt(hours=SHORT),
    ),
)
