"""The application as servers want it.

    gunicorn --worker-class uvicorn.workers.UvicornWorker --workers 4 'api.asgi:application()'
    uvicorn --factory api.asgi:application

Workers keep no state: it is all in Postgres, so any worker, and a restarted one, answers for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI


def application() -> FastAPI:
    """The application of this process's settings."""
    from api.compose import application as composed

    return composed()
