"""broker move: everything from SQLite into an empty PostgreSQL, once."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from app.cli.printer import fail, print_note
from app.db.engine import close_engine, open_engine
from app.db.failures import failure_of
from app.db.move import MoveRefused, count_rows, move, require_unused
from app.db.schema_version import alembic_config, expected_revision, stored_schema
from app.logs import STANDARD_ERROR, configure_logs
from app.settings import DatabaseSettings, load_database_settings
from app.settings.database_url import SqliteUrl

_STATEMENT_SECONDS = 3600.0


def move_database(
    to: Annotated[str, typer.Option(help="URL of the empty PostgreSQL; - reads it from standard input.")],
) -> None:
    """Move everything from SQLite (BROKER_DATABASE__URL) into an empty PostgreSQL: all of it, or nothing.

    The broker must not be serving. The target's schema is made first, and both are compared afterwards.
    """
    configure_logs("ERROR", stream=STANDARD_ERROR)
    here = load_database_settings()
    there = _target(sys.stdin.read().strip() if to == "-" else to)
    if not isinstance(here.target, SqliteUrl):
        fail("BROKER_DATABASE__URL is no SQLite file; PostgreSQL is moved with pg_dump and pg_restore")
    if isinstance(there.target, SqliteUrl):
        fail("--to is no PostgreSQL; a SQLite file is moved by copying it while nothing serves")
    try:
        require_unused(Path(here.target.path))
        _migrate(there)
        count = asyncio.run(_move(here, there))
    except MoveRefused as refused:
        fail(str(refused))
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        fail(f"nothing was moved: {failure.detail}: {failure.remedy}")
    print_note(f"{count} rows were moved and compared; now set BROKER_DATABASE__URL to the new database and start")


def _target(url: str) -> DatabaseSettings:
    try:
        return DatabaseSettings.model_validate({"url": url})
    except ValidationError as error:
        reasons = "; ".join(
            problem["msg"].removeprefix("Value error, ") for problem in error.errors(include_input=False)
        )
        fail(f"--to: {reasons}")


def _migrate(settings: DatabaseSettings) -> None:
    from alembic import command as alembic  # noqa: PLC0415  nothing else needs it, and importing it takes long

    alembic.upgrade(alembic_config(settings), "head")


async def _move(here: DatabaseSettings, there: DatabaseSettings) -> int:
    from app.cli.progress import RowsProgress  # noqa: PLC0415  importing a progress bar takes long

    source = open_engine(here, statement_timeout_seconds=_STATEMENT_SECONDS)
    target = open_engine(there, statement_timeout_seconds=_STATEMENT_SECONDS)
    try:
        async with source.connect() as connection:
            stored = await connection.run_sync(stored_schema)
        if stored.revision != expected_revision():
            message = f"the schema is at {stored.revision}; run `broker migrate` first"
            raise MoveRefused(message)
        total = await count_rows(source)
        with RowsProgress("moving", total) as progress:
            counts = await move(source, target, told=progress.show)
        return sum(counts.values())
    finally:
        await close_engine(source)
        await close_engine(target)
