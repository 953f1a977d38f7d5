"""The person of a simulated day: starts and stops sessions, throws the kill switch, trades by hand.

Commands go to Postgres as the API's do and the host is told; a command that Postgres does not take
is given again two seconds later, as a client that got a 503 would.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from module.model.errors import PASSING, Conflict, Rejected
from module.model.sessions import DesiredState, EndState
from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import EngineRejected, PositionMode, PositionSide

if TYPE_CHECKING:
    from tests.simulation.world import World

AGAIN_S = 2.0
LOOK_S = 20.0
NEW_SESSION_AFTER_S = 120.0
SESSIONS_MAX = 20


class Owner:
    """See the module's docstring."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._closing = False
        self._waits_for_new = False
        self.sessions = 0
        self.reasons: list[str] = []
        self._asked: set[str] = set()

    # --- commands --------------------------------------------------------------------------------

    def run_system(self) -> None:
        """Start a session on the account, adopting what it holds; the first one, or the next."""
        world = self._world

        def create() -> None:
            spec = world.new_spec(self.sessions)
            world.postgres.sessions.create(
                spec, sessions_max=5, order_info_store=world.plan.letters
            )
            self.sessions += 1
            world.log(f"run-system {spec.session_id}")
            world.start_session(spec)

        self._insist(create)
        world.at(LOOK_S, self._look)

    def run_again(self) -> bool:
        """A second run-system while a session lives: whether it was refused, as it must be."""
        world, host = self._world, self._world.host
        if host is None or host.is_over:
            return False  # there is none beside which it would be a second one
        try:
            world.postgres.sessions.create(world.new_spec(1000 + self.sessions), sessions_max=5)
        except Conflict:
            return True
        except PASSING:
            return False
        world.judge.violate("I8", "a second session was admitted to the account")
        return False

    def terminate(self, end_state: EndState) -> bool:
        """Ask the session to end; whether there was one that could be asked."""
        world, host = self._world, self._world.host
        if host is None or host.is_over:
            return False

        def ask() -> None:
            world.postgres.sessions.set_desired(
                host.ground.spec.session_id, DesiredState.STOPPED, end_state
            )
            self._asked.add(host.ground.spec.session_id)
            world.log(f"terminate {end_state.value}")
            host.say(signal.SIGUSR1)

        self._insist(ask)
        return True

    def hand_over(self) -> bool:
        """SIGTERM to the leader: the session goes on under another one."""
        host = self._world.host
        if host is None or host.leader is None or not host.leader.alive:
            return False
        self._world.log("hand over")
        host.say(signal.SIGTERM)
        return True

    def kill_switch(self, *, on: bool) -> None:
        """Stop (or allow) opening on the account; acknowledged once Postgres has it."""
        world = self._world

        def change() -> None:
            world.set_limits(kill_switch=on)
            world.log(f"kill switch {on}")
            world.judge.kill_switch(on=on)

        self._insist(change)

    def trade_by_hand(self, deed: Callable[[Engine], object]) -> bool:
        """Something at the exchange itself; whether the exchange took it."""
        try:
            self._world.exchange.act(deed)
        except EngineRejected:
            return False
        return True

    # --- watching --------------------------------------------------------------------------------

    def _look(self) -> None:
        """A session that has ended by itself is followed by another, after its cause is mended."""
        world, host = self._world, self._world.host
        if self._closing:
            return
        if host is not None and host.is_over and not self._waits_for_new:
            self._waits_for_new = True
            record = world.postgres.session_tables.sessions[host.ground.spec.session_id]
            self.reasons.append(record.reason)
            world.log(f"session over: {record.state.value} {record.reason}")
            world.judge.errors.session_over(record)
            left_s = world.plan.hours * 3600 - world.second
            if left_s > 2400 and self.sessions < SESSIONS_MAX:
                world.at(NEW_SESSION_AFTER_S, self._next_session)
        world.at(LOOK_S, self._look)

    def _next_session(self) -> None:
        if self._closing:
            return
        self._waits_for_new = False
        self._tidy()
        self.run_system()

    def _tidy(self) -> None:
        """What a person does at the exchange before starting again: one-way mode, nothing open
        that is not theirs, and nothing held with another leverage, which no session can trade."""
        world = self._world
        account = world.exchange.account_id
        for symbol, side in list(world.exchange.account.positions):
            if world.exchange.account.positions[symbol, side].leverage != world.leverage:
                self._close_by_hand(symbol, side)
        if world.exchange.engine.position_mode(account) is PositionMode.ONE_WAY:
            return
        self.trade_by_hand(lambda engine: engine.cancel_all(account))
        self.trade_by_hand(lambda engine: engine.close_positions(account))

        def one_way() -> None:
            self.trade_by_hand(
                lambda engine: engine.set_position_mode(account, PositionMode.ONE_WAY)
            )

        world.at(5, one_way)

    def _close_by_hand(self, symbol: str, side: PositionSide) -> None:
        account = self._world.exchange.account_id
        self.trade_by_hand(lambda engine: engine.close_positions(account, symbol, side))

    def end_of_day(self) -> None:
        """The last session is asked to end, as the plan says."""
        self._closing = True
        self.terminate(EndState.FLAT if self._world.plan.ends_flat else EndState.PROTECTED)

    def day_is_over(self) -> bool:
        """Whether every session is over."""
        return all(host.is_over for host in self._world.hosts)

    def asked_to_end(self, session_id: str) -> bool:
        """Whether the session was terminated."""
        return session_id in self._asked

    def how_it_ended(self) -> str:
        """State and reason of the last session."""
        host = self._world.host
        if host is None:
            return "never started"
        record = self._world.postgres.session_tables.sessions[host.ground.spec.session_id]
        return f"{record.state.value}: {record.reason}"

    def _insist(self, command: Callable[[], None]) -> None:
        """Give a command, again and again while Postgres is away; a refusal is an answer."""
        try:
            command()
        except PASSING:
            self._world.at(AGAIN_S, lambda: self._insist(command))
        except Rejected as error:
            self._world.log(f"refused: {error.message}")
