"""The alert sink of every process: a message becomes a row, delivery is somebody else's work.

trading, finwatcher … ── notify ──► alert_outbox + alert_deliveries ──► dispatcher ──► webhooks
                            └─ Postgres away ─► <data>/alerts/outbox.spool ─┘
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from module.alerts.messages import cleaned
from module.logs import get_logger
from module.model.canonical import instant_text, parse_instant
from module.model.errors import AifapError
from module.ports import Alert, Clock
from module.settings import Settings

SPOOL_BYTES_MAX = 4_000_000
_log = get_logger("alerts.outbox")


class AlertStore(Protocol):
    """Where alerts wait for delivery (`module.db.repositories.alerts`)."""

    def add(self, alert: Alert, channels: Sequence[str], created_wall: datetime) -> int:
        """Store the alert with one pending delivery per channel; its id."""
        ...


def configured_channels(settings: Settings) -> tuple[str, ...]:
    """The channels this installation has a webhook for."""
    urls = {"slack": settings.slack_webhook_url, "discord": settings.discord_webhook_url}
    return tuple(name for name, url in urls.items() if url)


class AlertOutbox:
    """`AlertSink`: stores an alert for delivery. Never raises, never waits on a webhook.

    Without Postgres the alert goes to a spool file, which any outbox or dispatcher of the same
    data folder stores later. `known_secrets` are taken out of every text.
    """

    def __init__(
        self,
        store: AlertStore,
        data_dir: Path,
        channels: Sequence[str],
        clock: Clock,
        known_secrets: tuple[str, ...] = (),
    ) -> None:
        self._store = store
        self._channels = tuple(channels)
        self._clock = clock
        self._known_secrets = known_secrets
        self._spool = data_dir / "alerts" / "outbox.spool"

    def notify(self, alert: Alert) -> None:
        """Store it for delivery; into the spool file while Postgres is away."""
        try:
            alert = cleaned(alert, self._known_secrets)
            _log.warning("alert", kind=alert.kind, title=alert.title)
            if self._store_now(alert):
                self.drain()
            else:
                self._append(alert)
        except AifapError as error:
            _log.warning("alert spool not drained", error=error.message)
        except Exception:  # noqa: BLE001 (an alert must never stop the process that raises it)
            _log.exception("alert could not be stored anywhere", kind=alert.kind)

    def _store_now(self, alert: Alert) -> bool:
        try:
            self._store.add(alert, self._channels, self._clock.wall())
        except AifapError as error:
            _log.warning("alert kept locally", path=str(self._spool), error=error.message)
            return False
        return True

    def drain(self) -> int:
        """Store what the spool file holds; how many. Unavailable leaves the rest where it is."""
        if not self._spool.exists():
            return 0
        stored = 0
        with self._locked():
            lines = self._spool.read_bytes().splitlines()
            try:
                for line in lines:
                    alert = _read(line)
                    if alert is not None:
                        self._store.add(alert, self._channels, self._clock.wall())
                    stored += 1
            finally:
                self._keep(lines[stored:])
        return stored

    def _append(self, alert: Alert) -> None:
        with self._locked():
            if self._spool.exists() and self._spool.stat().st_size > SPOOL_BYTES_MAX:
                _log.error("alert dropped, spool full", path=str(self._spool), title=alert.title)
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            with os.fdopen(os.open(self._spool, flags, 0o600), "ab") as file:
                file.write(_spell(alert) + b"\n")
                file.flush()
                os.fsync(file.fileno())

    def _keep(self, lines: Sequence[bytes]) -> None:
        if not lines:
            self._spool.unlink(missing_ok=True)
            return
        temporary = self._spool.with_suffix(".tmp")
        temporary.write_bytes(b"".join(line + b"\n" for line in lines))
        temporary.replace(self._spool)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        folder = self._spool.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / "outbox.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel frees it when the holder dies
            yield


def _spell(alert: Alert) -> bytes:
    return json.dumps(
        {
            "kind": alert.kind,
            "severity": alert.severity,
            "title": alert.title,
            "lines": [list(pair) for pair in alert.lines],
            "cause": alert.cause,
            "session_id": alert.session_id,
            "owner_id": alert.owner_id,
            "at": instant_text(alert.at),
        }
    ).encode()


def _read(line: bytes) -> Alert | None:
    try:
        item = json.loads(line)
        return Alert(
            kind=item["kind"],
            severity=item["severity"],
            title=item["title"],
            lines=tuple((str(label), str(value)) for label, value in item["lines"]),
            cause=item["cause"],
            session_id=item["session_id"],
            owner_id=item["owner_id"],
            at=parse_instant(item["at"]),
        )
    except (ValueError, KeyError, TypeError):
        _log.exception("alert spool line cannot be read and is dropped")
        return None
