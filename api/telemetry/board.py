"""All metrics of one process: what `/metrics` spells.

requests (counted here) · gateway, market (their own numbers) · installation (Postgres)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from api.telemetry.requests import RequestMetrics, shared_folder, spell
from api.telemetry.samples import gauge, once

if TYPE_CHECKING:
    from api.telemetry.installation import InstallationMetrics
    from api.wiring import ApiWiring


class Board:
    """The metrics of an application."""

    def __init__(self, wiring: ApiWiring) -> None:
        self.requests = RequestMetrics(wiring.clock)
        self._wiring = wiring
        self._installation: InstallationMetrics | None = None
        platform = wiring.platform
        if platform is not None:
            from api.telemetry.finwatchers import WatchNotes
            from api.telemetry.installation import InstallationMetrics
            from api.telemetry.running_totals import RunningTotals
            from module.db.repositories.installation_counts import InstallationCounts
            from module.db.repositories.installation_numbers import InstallationNumbers
            from module.files.watch_note import passes_folder

            settings = wiring.settings
            databases = (platform.finplatform, platform.finwatcher)
            self._installation = InstallationMetrics(
                InstallationNumbers(*databases),
                InstallationCounts(*databases),
                RunningTotals(shared_folder()),
                wiring.clock,
                WatchNotes(
                    settings.data_dir, passes_folder(settings.data_dir, settings.finwatcher_dir)
                ),
            )

    def spell(self) -> bytes:
        """In Prometheus' text format. Asks Postgres where the platform is served."""
        from prometheus_client import CollectorRegistry, ProcessCollector

        told = CollectorRegistry()
        told.register(once(self._families()))
        if not self.requests.is_shared:  # else it would be of whichever worker was asked
            ProcessCollector(registry=told)
        return spell((self.requests.registry(), told))

    def _families(self) -> Iterator[object]:
        from importlib.metadata import version

        wiring = self._wiring
        doors = "+".join(wiring.settings.services)
        yield gauge(
            "aifap_build_info",
            "Which program this is.",
            {(version("aifap"), doors): 1},
            ("version", "services"),
        )
        disk = shutil.disk_usage(wiring.settings.data_dir)
        yield gauge("aifap_data_free_bytes", "Free space of the data folder's disk.", disk.free)
        yield gauge("aifap_data_size_bytes", "Size of the data folder's disk.", disk.total)
        if wiring.services.gateway is not None:
            from api.telemetry.gateway import gateway_metrics

            yield from gateway_metrics(wiring.services.gateway.numbers())
        if wiring.services.market is not None:
            from api.telemetry.market import market_metrics

            yield from market_metrics(wiring.services.market.health(), wiring.clock.now())
        if self._installation is not None:
            yield from self._installation.families()
