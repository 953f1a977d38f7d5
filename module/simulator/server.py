"""The simulator's process: one event loop with the Bitget wire, the control door and the clock.

    python -m module.simulator.server --port 8100 --secrets-file keys.json --data folder

Ports are bound first, so that a busy port is one readable line and exit code 2; they are opened
when the journal has been replayed. SIGTERM and SIGINT end it cleanly with 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Generator, Mapping
from dataclasses import asdict, dataclass

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from module.clock import SystemClock, to_epoch_ms
from module.life_line import end_with_parent
from module.model.canonical import to_plain_json
from module.model.errors import AifapError, Conflict, InvalidInput
from module.simulator.control import PREFIX, ControlApp
from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import EngineSettings
from module.simulator.group_sync import GroupSync
from module.simulator.journal import WorldFolder
from module.simulator.options import SimulatorSettings, build_parser, settings_from
from module.simulator.prices.market_source import DAY_MS, MINUTE_MS, MarketSource
from module.simulator.snapshot import bring_back, keep_snapshots
from module.simulator.venue import Venue
from module.simulator.wire.bitget_app import (
    TRANSPORT_EXTENSION,
    BitgetApp,
    Message,
    NoLimits,
    Receive,
    Scope,
    Send,
)
from module.simulator.wire.bitget_codes import WireError
from module.simulator.wire.bitget_table import ENDPOINTS
from module.simulator.world_clock import ClockHooks, WorldClockServer, check_speed

EXIT_OK = 0
EXIT_BROKEN = 1
EXIT_REFUSED = 2
_SHUTDOWN_S = 2
_REPLAY_WARM_UP_MS = 7 * DAY_MS
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _World:
    """A venue as it stands after recovery."""

    venue: Venue
    folder: WorldFolder | None
    expected: tuple[str, ...]


def serve(settings: SimulatorSettings, *, say: Callable[[str], None] | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit code. `say` gets the one line when it is ready.

    Call from the main thread. A busy port, a folder in use, a world that does not fit are one line
    on stderr and exit code 2; a broken invariant is 1.
    """
    announce = say or _say
    try:
        check_speed(settings.speed)
        wire = bind(settings.host, settings.port)
        with wire, bind(settings.host, settings.clock_port) as clock:
            world = open_world(settings)
            try:
                return _run_loop(_serve(settings, world, wire, clock, announce))
            finally:
                if world.folder is not None:
                    world.folder.close()
    except (AifapError, WireError, OSError) as error:
        sys.stderr.write(f"simulator: {error}\n")
        return EXIT_REFUSED


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not yet listening; Conflict says that the port is taken."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise Conflict(
            f"cannot use {host}:{port} ({getattr(error, 'strerror', error)}); choose another port"
        ) from error
    return bound


def open_market(settings: SimulatorSettings) -> MarketSource:
    """Where the prices come from."""
    if settings.candles is not None:
        from module.simulator.prices.replay import ReplayMarket

        return ReplayMarket(settings.candles)
    from module.simulator.prices.synthetic import SyntheticMarket

    return SyntheticMarket(settings.seed)


def open_world(settings: SimulatorSettings) -> _World:
    """A new world, or the one of the data folder brought back to where it was."""
    market = open_market(settings)
    folder = None if settings.data_dir is None else WorldFolder(settings.data_dir)
    try:
        return _recover(settings, market, folder)
    except BaseException:
        if folder is not None:
            folder.close()
        raise


def _recover(
    settings: SimulatorSettings, market: MarketSource, folder: WorldFolder | None
) -> _World:
    engine_settings = EngineSettings(latency_ms=settings.latency_ms)
    start_ms = _start_ms(settings, market)
    returning = folder is not None and folder.holds_world
    header = {
        "market_id": market.market_id,
        "start_ms": start_ms,
        "engine": to_plain_json(asdict(engine_settings)),
    }
    if folder is not None and returning:
        start_ms = _check_header(folder, header, start_is_given=settings.start is not None)
    elif folder is not None:
        folder.start_world(header)

    def make_venue() -> Venue:
        return Venue(Engine(market, engine_settings, start_ms), ENDPOINTS, folder)

    expected = settings.expect
    if folder is not None and returning:
        venue = bring_back(make_venue, folder)
        last = folder.last_time()
        expected = () if last is None else last.participants
        venue.advance_to(venue.now_ms if last is None else max(venue.now_ms, last.now_ms))
    else:
        venue = make_venue()
    for account in settings.accounts:
        venue.open_account(account)
    return _World(venue, folder, expected)


def _check_header(
    folder: WorldFolder, wanted: Mapping[str, object], *, start_is_given: bool
) -> int:
    """The start of the folder's world; Conflict when it is another world than the wanted one."""
    found = folder.read_header()
    compared = ["market_id", "engine", *(["start_ms"] if start_is_given else [])]
    for name in compared:
        if found.get(name) != wanted[name]:
            raise Conflict(
                f"the folder holds a world with {name} {found.get(name)!r}, asked for is "
                f"{wanted[name]!r}; start it as before, or choose another folder"
            )
    start_ms = found.get("start_ms")
    if not isinstance(start_ms, int):
        raise InvalidInput(f"the folder's journal has no start time: {found!r}")
    return start_ms


def _start_ms(settings: SimulatorSettings, market: MarketSource) -> int:
    first_ms, last_ms = market.span()
    if settings.start is not None:
        start_ms = to_epoch_ms(settings.start)
        if first_ms is not None and start_ms < first_ms:
            raise InvalidInput(f"the candles begin at {first_ms} ms, --start is before that")
        return start_ms
    if first_ms is None:
        return to_epoch_ms(SystemClock().now())  # clients compare our clock with theirs
    length_ms = (last_ms or first_ms) - first_ms
    begin_ms = first_ms + min(_REPLAY_WARM_UP_MS, length_ms // 4)
    return begin_ms - begin_ms % MINUTE_MS


# -- the loop ---------------------------------------------------------------------------------


def _run_loop(main: Coroutine[None, None, int]) -> int:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def _serve(
    settings: SimulatorSettings,
    world: _World,
    wire: socket.socket,
    clock_socket: socket.socket,
    announce: Callable[[str], None],
) -> int:
    venue = world.venue
    broken: list[BaseException] = []
    loop = asyncio.get_running_loop()

    def fail(error: BaseException) -> None:
        broken.append(error)
        server.should_exit = True

    clock = WorldClockServer(
        venue,
        speed=settings.speed,
        expected=world.expected,
        hold_s=settings.hold_s,
        hooks=ClockHooks(mark=venue.save_time, failed=fail),
    )
    venue.changed = clock.poke
    bitget = BitgetApp(
        venue,
        clock,
        SystemClock().wall,
        failed=fail,
        limits=NoLimits() if settings.unlimited else None,
    )
    control = ControlApp(venue, clock, settings.control_token, failed=fail)
    durable = world.folder if settings.durable else None
    group = None if durable is None else GroupSync(durable, fail)
    server = _make_server(_Doors(bitget, control, group))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _ask_to_exit, server)
    await clock.start(clock_socket)
    host, port = wire.getsockname()
    clock_port = clock_socket.getsockname()[1]
    wire.listen(1024)
    market_id = venue.engine.market.market_id
    announce(
        f"simulator ready: http://{host}:{port}  clock {host}:{clock_port}  market {market_id}"
    )
    keeping: asyncio.Task[None] | None = None
    if world.folder is not None and settings.keeps_snapshots:
        keeping = loop.create_task(keep_snapshots(venue, world.folder))
    try:
        await server.serve(sockets=[wire])
    finally:
        if keeping is not None:
            keeping.cancel()
        await clock.close()
    if broken:
        _log.critical("the simulator stops: %r", broken[0], exc_info=broken[0])
        return EXIT_BROKEN
    return EXIT_OK


def _ask_to_exit(server: uvicorn.Server) -> None:
    server.should_exit = True


class _Doors:
    """Sends a request to the exchange or to the control door."""

    def __init__(
        self, bitget: BitgetApp, control: ControlApp, group: GroupSync | None = None
    ) -> None:
        self._bitget = bitget
        self._control = control
        self._group = group

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        door = self._control if str(scope["path"]).startswith(PREFIX) else self._bitget
        group = self._group
        if group is None:
            await door(scope, receive, send)
            return

        async def send_kept(message: Message) -> None:
            await group.settle()
            await send(message)

        await door(scope, receive, send_kept)


class _Protocol(HttpToolsProtocol):
    """Lets the application see the transport, so that a scripted fault can reset a connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT_EXTENSION: self.transport}  # type: ignore[dict-item]


class _Server(uvicorn.Server):
    """Leaves signals to the owner of the loop, so that ending by SIGTERM is exit code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _make_server(app: _Doors) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    return _Server(config)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit code."""
    end_with_parent()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    arguments = build_parser().parse_args(argv)
    try:
        settings = settings_from(arguments)
    except (AifapError, WireError, OSError) as error:
        sys.stderr.write(f"simulator: {error}\n")
        return EXIT_REFUSED
    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())
