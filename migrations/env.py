"""Alembic's environment: one migration at a time, and none that waits for ever."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo

import app.audit.tables
import app.connect_sessions.tables
import app.db.counters
import app.db.leases
import app.identity.service_keys.tables
import app.identity.user_tokens.tables
import app.invitations.tables
import app.linked_accounts.tables
import app.owners.tables
import app.push.tables
import app.sync.tables  # noqa: F401  imported for the tables they put into the metadata
from app.db.engine import close_engine, open_engine
from app.db.schema_version import schema_compatibility
from app.db.tables import metadata
from app.settings import DatabaseSettings, load_database_settings
from app.settings.database_url import Pooler

# Any number; all brokers of one database must use the same one.
_LOCK_ID = 7_316_204_418
_LOCK_TIMEOUT = "5s"
_STATEMENT_TIMEOUT_SECONDS = 600


def _note_compatibility(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]
) -> None:
    """Write down, with each migration, whose code may still serve on the schema it leaves behind."""
    del heads, run_args
    connection = ctx.connection
    left = step.up_revision_id if step.is_upgrade else next(iter(step.down_revision_ids), None)
    if connection is None or left is None or not sa.inspect(connection).has_table(schema_compatibility.name):
        return
    script = context.script.get_revision(left)
    oldest = getattr(script.module, "oldest_compatible", left)
    connection.execute(sa.delete(schema_compatibility))
    connection.execute(sa.insert(schema_compatibility).values(oldest_compatible_revision=oldest))


def _migrate(connection: sa.Connection, pooler: Pooler) -> None:
    is_postgresql = connection.dialect.name == "postgresql"
    is_one_transaction = pooler is Pooler.TRANSACTION
    if is_postgresql:
        # Two deployments that migrate at once take turns; the second finds nothing to do. Behind a transaction pooler a
        # session's lock would stay with a server connection that others use next, so all is one transaction there.
        lock = "pg_advisory_xact_lock" if is_one_transaction else "pg_advisory_lock"
        connection.execute(sa.text(f"SELECT {lock}(:id)"), {"id": _LOCK_ID})
        # A migration that cannot get its lock must fail instead of queueing every query behind it.
        set_ = "SET LOCAL" if is_one_transaction else "SET"
        connection.execute(sa.text(f"{set_} lock_timeout = '{_LOCK_TIMEOUT}'"))
        connection.execute(sa.text(f"{set_} statement_timeout = '{_STATEMENT_TIMEOUT_SECONDS}s'"))
        if not is_one_transaction:
            connection.commit()
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=not is_postgresql,
        transaction_per_migration=not is_one_transaction,
        compare_server_default=False,
        on_version_apply=_note_compatibility,
    )
    with context.begin_transaction():
        context.run_migrations()
    if is_postgresql and not is_one_transaction:
        connection.execute(sa.text("SELECT pg_advisory_unlock(:id)"), {"id": _LOCK_ID})
        connection.commit()


async def _run(settings: DatabaseSettings) -> None:
    engine = open_engine(settings, statement_timeout_seconds=_STATEMENT_TIMEOUT_SECONDS)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_migrate, settings.pooled_by)
            await connection.commit()
    finally:
        await close_engine(engine)


asyncio.run(_run(context.config.attributes.get("database") or load_database_settings()))
