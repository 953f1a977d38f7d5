"""Alembic's door: runs the chosen version tree on the connection that `module.db.migrate` opened.

Not a command line of its own: `migrate_all` is the entry.
"""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
