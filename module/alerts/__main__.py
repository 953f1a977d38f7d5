"""`python -m module.alerts`: the alert dispatcher as a process of its own, until SIGTERM or ^C."""

from __future__ import annotations

import os
import signal
import sys

from module.alerts.dispatcher import build_dispatcher
from module.alerts.outbox import AlertOutbox, configured_channels
from module.clock import SystemClock
from module.settings import Settings


def main() -> int:
    """Deliver alerts of this installation; 0 when told to stop."""
    # The composition root of this process: the only place of this package that knows a database.
    from module.db.database import Database
    from module.db.repositories.alerts import AlertRepository

    settings = Settings()
    clock = SystemClock()
    database = Database(settings, "finplatform", 1)
    store = AlertRepository(database)
    outbox = AlertOutbox(store, settings.data_dir, configured_channels(settings), clock)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: os.write(writer, b"T"))
    try:
        build_dispatcher(settings, store, clock, outbox).run(reader)
    finally:
        database.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
