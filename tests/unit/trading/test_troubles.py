"""What a session does, and tells its owner, when something around it does not work."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import pytest

from module.model.errors import Unavailable
from module.model.orders import OrderRequest
from module.model.sessions import EndState, SessionState
from module.ports import Alert
from tests.fakes.exchange import MARKS, Fails, Refuses
from tests.unit.trading.leading import FIRST_BOUNDARY, FIVE_MINUTES, Session
from trading.leaving import FLAT_TRIES
from trading.rebalancing_main import Exit
from trading.session.vigil import LETTER_PATIENCE_S

DISK = Unavailable("order_info.txt could not be saved: Input/output error")


@pytest.fixture
def session() -> Iterator[Session]:
    found = Session()
    try:
        yield found
    finally:
        found.close()


def between(cycle: int) -> datetime:
    """A minute after the cycle with this number."""
    return FIRST_BOUNDARY + FIVE_MINUTES * (cycle - 1) + timedelta(seconds=61)


def told(session: Session, kind: str) -> Alert:
    """The only alert of this kind."""
    (alert,) = [alert for alert in session.alerts.sent if alert.kind == kind]
    return alert


def words(alert: Alert) -> str:
    return " | ".join(value for _, value in alert.lines)


# --- the letter cannot be saved ---


def break_disk_at_first_submit(session: Session, for_s: float) -> None:
    """From the first batch's way out on, for so long."""

    def fail(_orders: Sequence[OrderRequest]) -> None:
        session.exchange.before_submit = None
        session.store.broken = DISK
        session.clock.after(for_s, mend)

    def mend() -> None:
        session.store.broken = None

    session.exchange.before_submit = fail


def test_D20_a_letter_that_fails_in_mid_cycle_is_not_called_an_exchange_that_is_away(
    session: Session,
) -> None:
    session.weights = dict.fromkeys(MARKS, "0.1")
    break_disk_at_first_submit(session, 45)
    assert session.lead() is Exit.OVER
    assert session.stages() == ["done"] * 3
    assert len(session.exchange.snapshot().positions) == len(MARKS)
    session.exchange.require_exactly_once()
    kinds = session.alerts.kinds()
    assert kinds == ["system-started", "letter-not-kept", "letter-kept-again", "system-stopped"]
    alert = told(session, "letter-not-kept")
    assert alert.severity == "critical"
    assert "Input/output error" in words(alert)
    assert "5 minutes, then the session stops" in words(alert)


def test_D20_a_disk_that_breaks_in_mid_cycle_and_stays_so_ends_the_session(
    session: Session,
) -> None:
    session.weights = dict.fromkeys(MARKS, "0.1")
    break_disk_at_first_submit(session, 86_400)
    assert session.lead() is Exit.OVER
    assert len(session.exchange.ledger) == 5  # what was durable had left, nothing after it
    assert session.registry.row.state is SessionState.FAILED
    assert session.clock.monotonic() < LETTER_PATIENCE_S + 200
    assert session.alerts.kinds()[-2:] == ["letter-not-kept", "error"]
    assert "could not be kept" in words(told(session, "error"))


@pytest.mark.parametrize("call", ["take_epoch", "get", "set_initial_balance", "set_state"])
def test_E1_a_leader_that_starts_while_postgres_is_away_waits_for_it(
    session: Session, call: str
) -> None:
    away = Unavailable("database finplatform does not answer; nothing was written")
    session.registry.fails[call] = deque([away] * 180)
    assert session.lead() is Exit.OVER
    assert session.registry.row.state is SessionState.ENDED
    assert session.stages() == ["done"] * 3
    assert session.alerts.kinds() == ["system-started", "system-stopped"]


def test_E1_a_hand_over_is_heard_while_postgres_is_away(session: Session) -> None:
    session.registry.fails["take_epoch"] = deque([Unavailable("away")] * 10_000)
    session.control.say(signal.SIGTERM)
    assert session.lead() is Exit.HANDED_OVER


def test_a_hand_over_is_heard_while_the_letter_cannot_be_saved(session: Session) -> None:
    session.weights = dict.fromkeys(MARKS, "0.1")
    break_disk_at_first_submit(session, 60)
    session.clock.at(
        FIRST_BOUNDARY + timedelta(seconds=20), lambda: session.control.say(signal.SIGTERM)
    )
    assert session.lead() is Exit.HANDED_OVER
    session.store.broken = None
    session.control.hand_over = False
    assert session.lead() is Exit.OVER
    assert len(session.exchange.snapshot().positions) == len(MARKS)
    session.exchange.require_exactly_once()


# --- the account opens nothing ---


def halt_from(session: Session, first: int, resumed: int) -> None:
    """The kill switch is on from cycle `first` on, and off before `resumed`."""

    def on() -> None:
        refused = Refuses(dict.fromkeys(MARKS, "kill-switch"))
        session.exchange.script["submit"].extend([refused] * 50)

    session.clock.at(between(first - 1) if first > 1 else session.clock.now(), on)
    session.clock.at(between(resumed - 1), session.exchange.script["submit"].clear)


def test_I22_a_halted_account_is_told_once_and_its_session_goes_on_after_resume(
    session: Session,
) -> None:
    halt_from(session, 1, 3)
    assert session.lead() is Exit.OVER
    assert session.stages() == ["done"] * 3
    assert session.registry.row.state is SessionState.ENDED
    assert session.alerts.kinds() == [
        "system-started",
        "opens-nothing",
        "opens-again",
        "system-stopped",
    ]
    assert "aifap resume" in words(told(session, "opens-nothing"))
    assert session.letters()[0].leg("BTCUSDT-open").abandoned == "refused"
    assert session.exchange.held("BTCUSDT") > 0


def test_I22_a_new_leader_of_a_halted_session_does_not_tell_it_again(session: Session) -> None:
    halt_from(session, 1, 4)
    session.clock.at(between(2), lambda: session.control.say(signal.SIGTERM))
    assert session.lead() is Exit.HANDED_OVER
    session.control.hand_over = False
    session.lead()
    assert session.alerts.kinds().count("opens-nothing") == 1


# --- the exchange is away while everything is to be closed ---


def test_I21_D16_outages_in_the_middle_of_a_close_all_do_not_use_up_its_tries(
    session: Session,
) -> None:
    def terminate() -> None:
        session.registry.stop(EndState.FLAT)
        session.control.say(signal.SIGUSR1)
        away = Fails(Unavailable("the gateway does not answer"))
        session.exchange.script["submit"].extend([away] * (FLAT_TRIES + 2))

    session.clock.at(between(1), terminate)
    assert session.lead() is Exit.OVER
    assert session.exchange.snapshot().positions == ()
    assert session.registry.row.state is SessionState.ENDED
    session.exchange.require_exactly_once()
    away = [alert for alert in session.alerts.sent if alert.kind == "exchange-away"]
    assert all("told to end flat" in words(alert) for alert in away)


def test_A20_I21_a_close_that_is_refused_for_a_while_is_tried_again_later(
    session: Session,
) -> None:
    def terminate() -> None:
        session.registry.stop(EndState.FLAT)
        session.control.say(signal.SIGUSR1)
        refused = Refuses({"BTCUSDT": "22045"})  # no liquidity in the book (B15)
        session.exchange.script["submit"].extend([refused] * 9)
        session.clock.after(7, session.exchange.script["submit"].clear)

    session.clock.at(between(1), terminate)
    assert session.lead() is Exit.OVER
    assert session.exchange.snapshot().positions == ()
    assert session.registry.row.state is SessionState.ENDED


def test_I21_what_is_left_is_said_with_what_protects_it(session: Session) -> None:
    def terminate() -> None:
        session.registry.stop(EndState.FLAT)
        session.control.say(signal.SIGUSR1)
        refused = Refuses({"BTCUSDT": "40309"})
        session.exchange.script["submit"].extend([refused] * 99)

    session.clock.at(between(1), terminate)
    assert session.lead() is Exit.OVER
    assert session.registry.row.state is SessionState.FAILED
    text = words(told(session, "error"))
    assert "BTCUSDT 0.0499 (no stop loss)" in text
    assert "ETHUSDT" not in text
    assert "start again with adopt_existing" in text
