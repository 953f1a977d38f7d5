"""Postgres in memory: the repositories' promises without the server, for whole simulated days.

server (transactions, undo, what a fail-over forgets) ◄─ sessions, gateway, results, alerts

`tests/contract/postgres_model` runs the same cases against this model and against the real
repositories, so that the model cannot drift from the truth.
"""
