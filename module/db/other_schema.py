"""A database whose schema is not the one that this program was written for: told as such.

The migration runs by itself (a Job, `aifap migrate`), and others may be up before it: what they
meet until then is no mistake of theirs, and over soon.
"""

from __future__ import annotations

from typing import Final

from module.model.errors import Unavailable

# invalid_schema_name, undefined_table, undefined_column, insufficient_privilege
SCHEMA_SQLSTATES: Final = frozenset({"3F000", "42P01", "42703", "42501"})
AGAIN_S: Final = 5.0


def is_about_schema(sqlstate: str | None) -> bool:
    """Whether the database lacks what this program expects to find and use in it."""
    return sqlstate in SCHEMA_SQLSTATES


def other_schema(name: str, said: str) -> Unavailable:
    """`said`: by Postgres, of what is missing."""
    return Unavailable(
        f"the schema of database {name} is older than this program, or its user may not use it "
        f"({said}); run the migration (aifap migrate); nothing was written, and it is tried again",
        retry_after_s=AGAIN_S,
    )
