"""broker audit ...: who did what, and what was refused."""

import asyncio
import sys
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated

import typer

from app.cli.printer import fail, print_json, print_note
from app.db.engine import close_engine, open_engine
from app.db.schema_version import known_revisions, stored_schema
from app.logs import STANDARD_ERROR, configure_logs
from app.settings import DatabaseSettings, load_database_settings
from app.trail import TrailQuery, count_trail, read_trail

# All of it is sorted by the database before the first record comes.
_STATEMENT_SECONDS = 3600.0

cli = typer.Typer(no_args_is_help=True, help="The audit trail: who did what, and what was refused.")


class Form(Enum):
    """How records are written."""

    JSONL = "jsonl"


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = "a date or a time as in ISO 8601: 2026-11-01, or 2026-11-01T08:00:00+01:00"
        raise typer.BadParameter(message) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


@cli.command("export")
def export(
    since: Annotated[
        datetime | None, typer.Option(parser=_moment, metavar="TIME", help="From this moment on (ISO 8601; UTC).")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(parser=_moment, metavar="TIME", help="Before this moment (ISO 8601; UTC).")
    ] = None,
    owner: Annotated[
        str | None, typer.Option(help="Only this owner's; an erased one is named by its receipt's id.")
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="One JSON object a line.")] = Form.JSONL,
) -> None:
    """Write everything that was done or refused to standard output, oldest first.

    Changes of accounts and events received, sessions, invitations, refusals by policy, user tokens, pins, erasures;
    without --owner also sweeps and service keys. BROKER_DATABASE__URL is the only setting that it needs.
    """
    del form  # There is one.
    configure_logs("ERROR", stream=STANDARD_ERROR)
    count = asyncio.run(_export(load_database_settings(), TrailQuery(since, until, owner)))
    print_note(f"{count} records")


async def _export(settings: DatabaseSettings, query: TrailQuery) -> int:
    from app.cli.progress import RowsProgress  # noqa: PLC0415  importing a progress bar takes long

    engine = open_engine(settings, statement_timeout_seconds=_STATEMENT_SECONDS)
    try:
        async with engine.connect() as connection:
            fit = (await connection.run_sync(stored_schema)).fit(known_revisions())
            if not fit.serves:
                fail(f"the database's schema does not fit: {fit.value}")
            total = await count_trail(connection, query)
        done = 0
        with RowsProgress("exporting", total) as progress:
            async for record in read_trail(engine, query):
                print_json(record)
                done += 1
                progress.show(done)
        sys.stdout.flush()
        return done
    finally:
        await close_engine(engine)
