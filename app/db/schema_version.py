"""Which migration the code expects, which one the database has, and whether the two fit.

Migrations expand first and contract later, so that two versions can serve one database while replicas are replaced.
Each names the oldest revision whose code still works on the schema it leaves behind (`oldest_compatible`). That is kept
in the database, because older code cannot know newer migrations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from app.db.tables import metadata
from app.settings import DatabaseSettings

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"

schema_compatibility = sa.Table(
    "schema_compatibility",
    metadata,
    sa.Column("oldest_compatible_revision", sa.String(32), primary_key=True),
    comment="One row: the oldest revision whose code still works on this schema.",
)


class Fit(Enum):
    """How a database's schema fits this version of the code."""

    CURRENT = "ok"
    COMPATIBLE = "ok (newer than this version, and compatible with it)"
    MISSING = "there is none; run: broker migrate"
    BEHIND = "older than this version needs; run: broker migrate"
    TOO_NEW = "newer than this version can serve; deploy the version that migrated it, or downgrade with that version"

    @property
    def serves(self) -> bool:
        """Whether this version may serve on it."""
        return self in {Fit.CURRENT, Fit.COMPATIBLE}


@dataclass(frozen=True)
class StoredSchema:
    """What the database says of its schema; None where it says nothing."""

    revision: str | None
    oldest_compatible: str | None

    def fit(self, known: Sequence[str]) -> Fit:
        """Judge it against the revisions that the code knows, oldest first."""
        if self.revision is None:
            return Fit.MISSING
        if self.revision == known[-1]:
            return Fit.CURRENT
        if self.revision in known:
            return Fit.BEHIND
        return Fit.COMPATIBLE if self.oldest_compatible in known else Fit.TOO_NEW


def alembic_config(settings: DatabaseSettings) -> "Config":
    """Return Alembic's configuration for a database; the settings are handed to migrations/env.py as an attribute.

    They are no config option: those are interpolated (a % in a password breaks it) and printed in errors.
    """
    # Only commands that migrate need it, and importing it takes a good part of a start.
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["database"] = settings
    return config


@cache
def known_revisions() -> tuple[str, ...]:
    """Return the revisions that the code ships, oldest first; their files' names begin with them."""
    return tuple(sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py")))


def expected_revision() -> str:
    """Return the newest revision that the code ships."""
    return known_revisions()[-1]


def stored_schema(connection: sa.Connection) -> StoredSchema:
    """Read what the database says of its schema, one that was never migrated included."""
    tables = set(sa.inspect(connection).get_table_names())
    revision = oldest = None
    if "alembic_version" in tables:
        revision = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    if schema_compatibility.name in tables:
        oldest = connection.scalar(sa.select(schema_compatibility.c.oldest_compatible_revision))
    return StoredSchema(revision, oldest)
