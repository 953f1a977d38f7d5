"""`make bench`: every benchmark in turn."""

from __future__ import annotations

import sys

from benchmarks import sessions

if __name__ == "__main__":
    sys.exit(sessions.main())
