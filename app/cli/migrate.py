"""broker migrate: the schema, up or down."""

from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli.opener import with_store
from app.cli.printer import fail, print_note
from app.db.failures import DatabaseUnavailable, Failure, failure_of
from app.db.schema_version import (
    Fit,
    StoredSchema,
    alembic_config,
    expected_revision,
    known_revisions,
    stored_schema,
)
from app.settings import load_database_settings


def migrate(
    revision: Annotated[str, typer.Argument(help="Revision to go to; an older one downgrades.")] = "head",
    *,
    downgrade: Annotated[
        bool, typer.Option("--downgrade", help="Go back to an older revision; may drop data.")
    ] = False,
) -> None:
    """Bring the database's schema to a revision. Needs only BROKER_DATABASE__URL; safe to run twice or at once."""
    from alembic import command as alembic  # noqa: PLC0415  nothing else needs it, and importing it takes long
    from alembic.util import CommandError  # noqa: PLC0415

    settings = load_database_settings()
    config = alembic_config(settings)
    try:
        stored = with_store(_stored_schema)
        fit = stored.fit(known_revisions())
        if fit is Fit.COMPATIBLE and revision == "head":
            print_note(f"schema is at {stored.revision}, newer than this version and compatible with it: nothing to do")
            return
        if fit is Fit.TOO_NEW:
            fail(f"schema is at {stored.revision}: {fit.value}")
        (alembic.downgrade if downgrade else alembic.upgrade)(config, revision)
    except CommandError:
        known = ", ".join(known_revisions())
        fail(f"there is no revision {revision!r} to go to from here; this version knows {known}")
    except DatabaseUnavailable as error:
        fail(_cannot_migrate(error.failure))
    except Exception as error:
        failure = failure_of(error)
        if failure is None and not isinstance(error, SQLAlchemyError):
            raise
        fail(_cannot_migrate(failure) if failure else f"the migration failed ({type(error).__name__}); {_KEPT}")
    print_note(f"schema is at {expected_revision() if revision == 'head' else revision}")


_KEPT = "nothing of an unfinished step was kept"


def _cannot_migrate(failure: Failure) -> str:
    return f"the migration failed: {failure.detail}; {_KEPT}. {failure.remedy[0].upper()}{failure.remedy[1:]}."


async def _stored_schema(connection: AsyncConnection) -> StoredSchema:
    return await connection.run_sync(stored_schema)
