"""How a leader waits: with an ear on its processes, its owner, its host, and the exchange.

leader ─► Vigil.wait_until / let_pass ─► heartbeat, wishes, processes that died are revived
       ─► Vigil.outlast    work at the exchange, for as long as that is away (world time)
       ─► Vigil.until_kept work at the letter's store, bounded (real time)
       ─► Vigil.patiently  work of the host, or a last word to Postgres, bounded (real time)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from module.logs import get_logger
from module.model.errors import PASSING, AifapError, Conflict, StaleWriter, Unavailable
from module.model.sessions import DesiredState, EndState
from module.ports import Clock, SessionChild, SessionRegistry, Wish
from trading.session.announcer import Announcer
from trading.session.control import Control
from trading.session.time_steps import was_set_back

HEARTBEAT_WORLD_S = 10.0
HEARTBEAT_REAL_S = 2.0
PATIENCE_S = 30.0
PATIENCE_PAUSE_S = 1.0
LETTER_PATIENCE_S = 300.0
"""Real seconds for which a letter that cannot be kept is tried again: a Postgres that restarts is
back by then, and a disk that is not will not be."""
LETTER_TOLD_AFTER_S = 10.0
WATCH_RETRY_S = 30.0
AWAY_PAUSE_FIRST_S = 1.0
AWAY_PAUSE_MAX_S = 30.0

log = get_logger("trading.leader")
T = TypeVar("T")


class HandOver(Exception):
    """Another leader shall go on, and this one was waiting for the exchange, or about to open."""


class Vigil:
    """What a leader hears while it waits. `epoch` is set once the leader has taken its own."""

    def __init__(
        self,
        session_id: str,
        clock: Clock,
        registry: SessionRegistry,
        control: Control,
        children: tuple[SessionChild, SessionChild],
        announcer: Announcer,
    ) -> None:
        self._session_id = session_id
        self._clock = clock
        self._registry = registry
        self._control = control
        self._strategy, self._finwatcher = children
        self._announcer = announcer
        self.epoch = 0
        self.stop_wanted: EndState | None = None
        self._beaten_at = float("-inf")
        self._watch_again_at: float | None = None  # while finwatcher could not be started
        self._is_away = False  # the exchange did not answer when it was last asked

    @property
    def ear(self) -> int:
        """Readable when somebody has spoken: then look (`stop_requested`)."""
        return self._control.fileno()

    # --- time passes -----------------------------------------------------------------------------

    def wait_until(self, when: datetime) -> bool:
        """Let time pass until `when`; False when something else wants to be looked at first:
        somebody spoke, or the clock was set back (C7): what is waited for may be another by now."""
        latest = self._clock.now()
        while (now := self._clock.now()) < when:
            if was_set_back(latest, now):
                log.warning("the clock was set back", was=latest, now=now)
                return False
            latest = now
            until = min(when, now + timedelta(seconds=HEARTBEAT_WORLD_S))
            fds = [self._control.fileno(), self._strategy.fileno()]
            if self._watch_again_at is None:
                fds.append(self._finwatcher.fileno())
            ready = self._clock.wait_readable(fds, until)
            self._revive(ready)
            if fds[0] in ready:
                self._look()
                return False
            self.beat()
        return True

    def let_pass(self, seconds: float) -> None:
        """Let world time pass, listening meanwhile; HandOver when another leader shall go on."""
        left = timedelta(seconds=seconds)
        while left > timedelta(0):
            began = self._clock.now()
            if not self.wait_until(began + left) and self._control.hand_over:
                raise HandOver
            left -= max(self._clock.now() - began, timedelta(0))

    def _look(self) -> None:
        """Somebody spoke: read what, and what the owner wants."""
        self._control.look()
        try:
            self._note(self._registry.wishes(self._session_id))
        except PASSING as error:
            log.warning("desired state not read", detail=error.message)

    def _note(self, wish: Wish) -> None:
        if wish.state.is_over:
            raise StaleWriter(f"session {self._session_id} was ended elsewhere")
        if wish.desired is DesiredState.STOPPED:
            self.stop_wanted = wish.end_state

    def beat(self) -> None:
        """Heartbeat and a look at the desired state, at most every HEARTBEAT_REAL_S."""
        now = self._clock.monotonic()
        if now - self._beaten_at < HEARTBEAT_REAL_S:
            return
        self._beaten_at = now
        try:
            wall = self._clock.wall()
            self._note(self._registry.heartbeat(self._session_id, self.epoch, wall))
        except PASSING as error:
            log.warning("heartbeat not stored", detail=error.message)

    def stop_requested(self) -> bool:
        """Whether what still opens is to be given up. HandOver when another leader shall go on: it
        takes the letter up where it stands."""
        self.beat()
        if self._control.look():
            self._look()
        if self._control.hand_over and self.stop_wanted is None:
            raise HandOver
        return self.stop_wanted is not None

    # --- processes -------------------------------------------------------------------------------

    def _revive(self, ready: Sequence[int]) -> None:
        if self._strategy.fileno() in ready:
            log.warning("the strategy process ended; starting another")
            self.patiently(self._strategy.start)
        if self._watch_again_at is None:
            again = self._finwatcher.fileno() in ready
        else:
            again = self._clock.monotonic() >= self._watch_again_at
        if again:
            log.warning("finwatcher is away; starting another")
            if self.begin_watching():
                self.await_watching()

    def begin_watching(self) -> bool:
        """Whether finwatcher was forked; a session trades on without it, and tries again."""
        try:
            self._finwatcher.begin()
        except Unavailable as error:
            self._unwatched(error)
            return False
        return True

    def await_watching(self) -> None:
        """Until finwatcher is ready; without it a session trades on, and tries again."""
        try:
            self._finwatcher.await_ready()
        except Unavailable as error:
            self._unwatched(error)
        else:
            self._watch_again_at = None

    def _unwatched(self, error: Unavailable) -> None:
        log.warning("finwatcher did not start; trying again later", detail=error.message)
        if self._watch_again_at is None:
            self._announcer.not_measured(error.message)
        self._watch_again_at = self._clock.monotonic() + WATCH_RETRY_S

    # --- others that are away --------------------------------------------------------------------

    def outlast(self, work: Callable[[], T]) -> T:
        """Repeat `work` for as long as the exchange or its gateway is away. The account stays
        protected by what is at the exchange; the session beats, and hands over when it is told."""
        pause_s = AWAY_PAUSE_FIRST_S
        while True:
            try:
                result = work()
            except PASSING as error:
                self.note_away(error.message)
            else:
                self.note_back()
                return result
            self.let_pass(pause_s)
            pause_s = min(pause_s * 2, AWAY_PAUSE_MAX_S)

    def until_kept(self, work: Callable[[], T], at_once: tuple[type[AifapError], ...] = ()) -> T:
        """Repeat `work` while the letter's disk, lock, or Postgres refuses it; its owner is told
        once. Nothing that depends on it is sent meanwhile. Errors of `at_once` are not waited for.

        Conflict after LETTER_PATIENCE_S: the session stops. HandOver when another shall go on.
        """
        started_s = self._clock.monotonic()
        told = False
        while True:
            try:
                result = work()
            except at_once:
                raise
            except PASSING as error:
                waited_s = self._clock.monotonic() - started_s
                if waited_s >= LETTER_PATIENCE_S:
                    raise Conflict(
                        f"the session's letter could not be kept for {waited_s:.0f} s "
                        f"({error.message}); nothing was sent that it does not have"
                    ) from error
                log.warning("the letter is not kept; trying again", detail=error.message)
                if waited_s >= LETTER_TOLD_AFTER_S and not told:
                    told = True
                    self._announcer.letter_not_kept(error.message, LETTER_PATIENCE_S)
            else:
                if told:
                    self._announcer.letter_kept_again()
                return result
            self._clock.pause(PATIENCE_PAUSE_S)
            self.beat()
            self._control.look()
            if self._control.hand_over:
                raise HandOver

    def note_away(self, detail: str) -> None:
        """The exchange does not answer: its owner is told once."""
        log.warning("the exchange is away", detail=detail)
        if not self._is_away:
            self._announcer.exchange_away(detail, self.stop_wanted)
        self._is_away = True

    def note_back(self) -> None:
        """The exchange answers."""
        if self._is_away:
            log.info("the exchange answers again", session=self._session_id)
            self._announcer.exchange_back()
        self._is_away = False

    def once_postgres_answers(self, work: Callable[[], T]) -> T:
        """Repeat `work` for as long as Postgres is away: without it nothing of a session goes on or
        is over, and the gateway keeps what is held. HandOver when another leader shall go on."""
        while True:
            try:
                return work()
            except PASSING as error:
                log.warning("waiting for Postgres", detail=error.message)
            self._clock.pause(PATIENCE_PAUSE_S)
            self._control.look()
            if self._control.hand_over:
                raise HandOver

    def patiently(self, work: Callable[[], T]) -> T:
        """Repeat `work` while the session's host, or Postgres, is away, in real time, bounded."""
        give_up_at = self._clock.monotonic() + PATIENCE_S
        while True:
            try:
                return work()
            except PASSING as error:
                if self._clock.monotonic() >= give_up_at:
                    raise
                log.warning("waiting", detail=error.message)
                self._clock.pause(PATIENCE_PAUSE_S)
