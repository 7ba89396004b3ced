"""Which migration the code expects, and which one the database has."""

from functools import cache
from pathlib import Path

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


def alembic_config(database_url: str) -> Config:
    """Return Alembic's configuration for a database; the URL is handed to migrations/env.py as an attribute.

    It is not a config option: those are interpolated (a % in a password breaks it) and printed in errors.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["database_url"] = database_url
    return config


@cache
def expected_revision() -> str | None:
    """Return the newest revision that the code ships."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def stored_revision(connection: sa.Connection) -> str | None:
    """Return the revision of the database, or None for one that was never migrated."""
    return MigrationContext.configure(connection).get_current_revision()
