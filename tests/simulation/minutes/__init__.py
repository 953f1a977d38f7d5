"""Ten thousand minutes of a finwatcher in which everything goes wrong: none may be lost silently.

    world: a jumping clock, accounts, Postgres in memory ─► production Fleet and Finwatcher
        ─► judge: every minute of every session has its row, or a gap whose cause is true

`python -m tests.simulation.minutes` (make minutes) runs them.
"""
