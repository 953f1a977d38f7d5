"""`aifap replay …`: the plan of an archived cycle once more, from its journal, strategy included.

    <data>/sessions/<id>/archive/<cycle>.json, .bars ─┐
    <data>/strategies/… (the pinned source) ──────────┴─► replay_cycle ─► same | what differs

Nothing has to run for it; a session whose letters live in Postgres needs its Postgres. Exit code 0:
every plan came out the same; 1: one did not; 2: something was altered, is missing, or was asked for
wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console

from module.logs import configure_logs
from module.model.canonical import canonical_json, instant_text, parse_instant
from module.model.errors import AifapError, InvalidInput, InvariantViolated, NotFound, Unavailable

if TYPE_CHECKING:
    from module.security.sandboxed_runner import SandboxedRunner
    from module.settings import Settings
    from trading.rebalance.order_info import OrderInfo
    from trading.replay import ReplayReport

DEFAULT_DATA = (Path(".aifap/up"), Path(".aifap/run"))
EXIT_SAME, EXIT_DIFFERENT, EXIT_ALTERED = 0, 1, 2
DIFFERENCES_SHOWN_MAX = 40

Cycle = Annotated[str, typer.Argument(help="A session's id, or the path of an archived letter.")]
Which = Annotated[
    Optional[str],  # noqa: UP045
    typer.Argument(
        help="Of the session: a cycle's number, or its boundary (2026-01-05T00:05Z); default: all."
    ),
]
Data = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--data",
        envvar="AIFAP_DATA_DIR",
        help="The folder that holds everything (default: .aifap/up, or .aifap/run if that has the "
        "session).",
    ),
]


@dataclass(frozen=True, slots=True)
class FoundLetter:
    """An archived letter (or why it cannot be read), and how to get at the bars that it saw."""

    name: str
    letter: OrderInfo | AifapError
    bars: Callable[[datetime], bytes | None]


def replay(
    cycle: Cycle,
    which: Which = None,
    data: Data = None,
    without_strategy: Annotated[
        bool, typer.Option("--without-strategy", help="Take its recorded answer.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per cycle.")] = False,
) -> None:
    """Rebuild the plan of archived cycles from their journal, strategy included, and compare.

    Exit code 0: every plan came out the same; 1: one differs; 2: something was altered or is
    missing.
    """
    path = Path(cycle)
    if which is None and path.suffix == ".json" and path.is_file():
        data = _data_of(path) or data or DEFAULT_DATA[0]
        found = [_at_path(path)]
    else:
        data = data or _default_data(cycle)
        found = _of_session(data, cycle, which)
    console = Console(highlight=False, soft_wrap=True)
    configure_logs("replay", "WARNING")
    settings = _settings(data)
    code = EXIT_SAME
    with _runners(settings, found, ask=not without_strategy) as runner:
        for each in found:
            try:
                report = _replay_one(settings, each, runner, ask=not without_strategy)
            except AifapError as error:
                code = EXIT_ALTERED
                _show_error(console, each, error, as_json=as_json)
                continue
            if report.differences:
                code = max(code, EXIT_DIFFERENT)
            _show(console, report, as_json=as_json)
    raise typer.Exit(code)


def _replay_one(
    settings: Settings,
    found: FoundLetter,
    runner: Callable[[str], SandboxedRunner],
    *,
    ask: bool,
) -> ReplayReport:
    from module.files.strategy_store import StrategyStore
    from module.launch.host_protocol import build_id
    from trading.rebalance.bars_seen import unpack_bars
    from trading.replay import Journal, read_inputs, replay_cycle

    if isinstance(found.letter, AifapError):
        raise found.letter
    inputs = read_inputs(found.letter)
    if inputs is None:
        return replay_cycle(Journal(found.letter, None, None), runner("UTC"), build_id())
    packed, source = found.bars(found.letter.cycle), None
    name = f"{found.name.removesuffix('.json')}.bars"
    bars = None if packed is None else unpack_bars(packed, name)
    call = inputs.call
    if call.name and ask:
        version = StrategyStore(settings.data_dir).read_version(
            call.owner_id, call.name, call.digest
        )
        source = version.source
    journal = Journal(found.letter, bars, source)
    return replay_cycle(journal, runner(call.timezone), build_id(), ask_strategy=ask)


# --- finding letters ------------------------------------------------------------------------------


def _default_data(session_id: str) -> Path:
    """Of the folders that `aifap up` and `aifap run` make, the first that has the session."""
    from module.files.session_folder import session_folder

    having = (data for data in DEFAULT_DATA if session_folder(data, session_id).is_dir())
    return next(having, DEFAULT_DATA[0])


def _data_of(path: Path) -> Path | None:
    """The data folder that an archived letter lies in; None where it was copied elsewhere."""
    folders = path.resolve().parents
    inside = len(folders) > 3 and folders[2].name == "sessions"
    return folders[3] if inside else None


def _at_path(path: Path) -> FoundLetter:
    from module.files.cycle_archive import read_bars

    return FoundLetter(
        str(path), _read_letter(path), lambda _cycle: read_bars(path.with_suffix(".bars"))
    )


def _read_letter(path: Path) -> OrderInfo | AifapError:
    from module.files.cycle_archive import read_letter
    from trading.rebalance.order_info import from_json

    try:
        return from_json(read_letter(path))
    except InvariantViolated as error:
        message = error.message if str(path) in error.message else f"{path}: {error.message}"
        return InvariantViolated(message)
    except AifapError as error:
        return error


def _of_session(data: Path, session_id: str, which: str | None) -> list[FoundLetter]:
    from module.files.cycle_archive import CycleArchive
    from module.files.session_folder import session_folder

    archive = CycleArchive(session_folder(data, session_id))
    found = [_at_path(path) for path in archive.paths()] or _in_postgres(data, session_id)
    if not found:
        raise NotFound(f"session {session_id} has no archived cycle in {data}")
    if which is None:
        return found
    chosen = [each for each in found if _is(each, which)]
    if not chosen:
        altered = sum(isinstance(each.letter, AifapError) for each in found)
        told = f" ({altered} of its letters cannot be read: replay all to see)" if altered else ""
        raise NotFound(f"session {session_id} has no archived cycle {which!r}{told}")
    return chosen


def _is(found: FoundLetter, which: str) -> bool:
    """Whether it is the cycle of this number or boundary; a damaged one is found by its name."""
    if which.isdecimal():
        return not isinstance(found.letter, AifapError) and found.letter.number == int(which)
    try:
        boundary = parse_instant(which)
    except (ValueError, InvariantViolated) as error:
        raise InvalidInput(
            f"{which!r} is neither the number of a cycle nor its boundary, like 2026-01-05T00:05Z"
        ) from error
    if isinstance(found.letter, AifapError):
        return Path(found.name).stem == instant_text(boundary).replace(":", "").replace("-", "")
    return found.letter.cycle == boundary


def _in_postgres(data: Path, session_id: str) -> list[FoundLetter]:
    """The letters of a session whose truth is Postgres; nothing where that is not reached."""
    from module.db.database import Database
    from module.db.repositories.order_info import ARCHIVE_MAX, PostgresOrderInfoStore
    from trading.rebalance.order_info import from_json

    database = Database(_settings(data), "finplatform", 1)
    store = PostgresOrderInfoStore(database, session_id)
    try:
        documents = store.archived(ARCHIVE_MAX)
        letters = [from_json(document) for document in documents]
        bars = {letter.cycle: store.bars_of(letter.cycle) for letter in letters}
    except Unavailable as error:
        raise NotFound(
            f"session {session_id} has no archived cycle in {data}, and Postgres, where it may be, "
            f"is not running ({error.message})"
        ) from error
    finally:
        database.close()
    return [
        FoundLetter(f"{session_id} {instant_text(letter.cycle)} in Postgres", letter, bars.get)
        for letter in letters
    ]


# --- the world around -----------------------------------------------------------------------------


def _settings(data: Path) -> Settings:
    from module.settings import Settings

    return Settings(data_dir=data.resolve())


@contextmanager
def _runners(
    settings: Settings, found: list[FoundLetter], *, ask: bool
) -> Iterator[Callable[[str], SandboxedRunner]]:
    """Runners by time zone; without a host where no letter needs one."""
    from module.clock import SystemClock
    from module.security.sandboxed_runner import SandboxedRunner

    if ask and any(not isinstance(each.letter, AifapError) for each in found):
        from trading.bootstrap import own_runner_host

        with own_runner_host(settings) as runner:
            yield runner
        return
    yield lambda timezone: SandboxedRunner(
        Path("/nonexistent"), SystemClock(), timeout_s=1.0, display_timezone=timezone
    )


# --- showing --------------------------------------------------------------------------------------


def _show(console: Console, report: ReplayReport, *, as_json: bool) -> None:
    if as_json:
        document = {
            "session_id": report.session_id,
            "cycle": report.cycle,
            "number": report.number,
            "verdict": report.verdict,
            "plan_digest": report.plan_digest,
            "differences": [
                {"where": each.where, "was": each.was, "now": each.now}
                for each in report.differences
            ],
            "notes": report.notes,
        }
        console.print(canonical_json(document), markup=False)
        return
    plan = "" if report.verdict == "no-plan" else f"  plan {report.plan_digest[:12]}"
    head = f"{instant_text(report.cycle)}  #{report.number}  {report.verdict}{plan}"
    console.print(head, markup=False, style="red" if report.differences else "")
    for each in report.differences[:DIFFERENCES_SHOWN_MAX]:
        console.print(f"    {each.where}: was {each.was}, is {each.now}", markup=False)
    more = len(report.differences) - DIFFERENCES_SHOWN_MAX
    if more > 0:
        console.print(f"    … and {more} more", markup=False)
    for note in report.notes:
        console.print(f"    note: {note}", markup=False, style="dim")


def _show_error(console: Console, found: FoundLetter, error: AifapError, *, as_json: bool) -> None:
    if as_json:
        document = {"name": found.name, "verdict": "unreplayable", "problem": error.message}
        console.print(canonical_json(document), markup=False)
        return
    head = f"{found.name}  cannot be replayed"
    console.print(f"{head}\n    {error.message}", markup=False, style="red")
