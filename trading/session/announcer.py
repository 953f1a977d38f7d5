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

    def failed(self, detail: str) -> None:
        """Something outlived its retries; the session ends."""
        self._say(
            messages.critical_error(
                self._subject, "Critical Error", detail, MODULE, self._clock.now()
            )
        )

    def cycle_skipped(self, reason: str) -> None:
        """Nothing was traded this time."""
        self._say(messages.cycle_skipped(self._subject, reason, self._clock.now()))

    def not_measured(self, detail: str) -> None:
        """Finwatcher cannot be started; trading goes on."""
        self._say(messages.part_failed(self._subject, "finwatcher", detail, self._clock.now()))

    def exchange_away(self, detail: str) -> None:
        """The exchange or its gateway does not answer; the session waits and goes on."""
        self._say(messages.exchange_away(self._subject, detail, self._clock.now()))

    def account_changed(self, found: Sequence[tuple[str, str]], *, severe: bool) -> None:
        """The account is not what the session's letters lead to; (cause, what) of each."""
        self._say(
            messages.account_changed(self._subject, found, severe=severe, at=self._clock.now())
        )

    def _say(self, alert: Alert) -> None:
        self._alerts.notify(alert)
