"""What a leader tells people, in the words of `module.alerts.messages`, through the alert port."""

from __future__ import annotations

from collections.abc import Sequence

from module.alerts import messages
from module.model.sessions import EndState, SessionSpec
from module.ports import Alert, AlertSink, Clock

MODULE = "run_trading"


class Announcer:
    """Speaks for one session. `user` is the owner's name."""

    def __init__(self, spec: SessionSpec, user: str, alerts: AlertSink, clock: Clock) -> None:
        self._spec = spec
        self._subject = messages.Subject(spec.session_id, spec.owner_id, user, spec.market)
        self._alerts = alerts
        self._clock = clock

    def started(self) -> None:
        """It trades from now on."""
        spec = self._spec
        hours = (spec.ends_at - spec.started_at).total_seconds() / 3600
        self._say(
            messages.system_started(
                self._subject, spec.strategy_name, spec.trade_env.value, hours, self._clock.now()
            )
        )

    def stopped(self, end_state: EndState, reason: str) -> None:
        """It ended as it was asked to."""
        self._say(
            messages.system_stopped(
                self._subject, self._spec.strategy_name, end_state.value, reason, self._clock.now()
            )
        )

    def failed(self, detail: str, held: str = "") -> None:
        """Something outlived its retries; the session ends. `held`: what it leaves, in words."""
        self._say(messages.session_failed(self._subject, detail, held, MODULE, self._clock.now()))

    def cycle_skipped(self, reason: str) -> None:
        """Nothing was traded this time."""
        self._say(messages.cycle_skipped(self._subject, reason, self._clock.now()))

    def not_measured(self, detail: str) -> None:
        """Finwatcher cannot be started; trading goes on."""
        self._say(messages.part_failed(self._subject, "finwatcher", detail, self._clock.now()))

    def exchange_away(self, detail: str, stop_wanted: EndState | None) -> None:
        """The exchange or its gateway does not answer; the session waits and goes on."""
        ending = None if stop_wanted is None else stop_wanted.value
        self._say(messages.exchange_away(self._subject, detail, ending, self._clock.now()))

    def exchange_back(self) -> None:
        """It answers again."""
        self._say(messages.exchange_back(self._subject, self._clock.now()))

    def letter_not_kept(self, detail: str, patience_s: float) -> None:
        """Disk, lock or database refuse the session's letter; it waits, bounded."""
        self._say(messages.letter_not_kept(self._subject, detail, patience_s, self._clock.now()))

    def letter_kept_again(self) -> None:
        """The letter can be saved again."""
        self._say(messages.letter_kept_again(self._subject, self._clock.now()))

    def opens_nothing(self, why: str) -> None:
        """The last gate refuses everything that opens; reductions go on."""
        self._say(messages.opens_nothing(self._subject, why, self._clock.now()))

    def opens_again(self) -> None:
        """An order that opens was accepted again."""
        self._say(messages.opens_again(self._subject, self._clock.now()))

    def order_forgotten(self, detail: str) -> None:
        """An order's end was told by other lists than the exchange's own of it."""
        self._say(messages.order_forgotten(self._subject, detail, self._clock.now()))

    def account_changed(
        self, found: Sequence[tuple[str, str]], next_steps: str, *, severe: bool
    ) -> None:
        """The account is not what the session's letters lead to; (cause, what) of each."""
        self._say(
            messages.account_changed(
                self._subject, found, next_steps, severe=severe, at=self._clock.now()
            )
        )

    def _say(self, alert: Alert) -> None:
        self._alerts.notify(alert)
