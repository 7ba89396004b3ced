"""The inbox of StackOne's events: each is written down once, and its account marked due, before it is acknowledged."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from app.db.database import Database
from app.db.statements import Statement
from app.db.tables import UtcDateTime, upsert
from app.errors import Unauthenticated
from app.linked_accounts import due
from app.linked_accounts.changes import Kind, Source, Witness
from app.linked_accounts.tables import account_events
from app.runtime import Runtime
from app.stackone.models import possible_account_id
from app.stackone.webhook import AccountEvent, Delivery, require_signature, unwrap

_E = account_events.c
_DELETED = "account.deleted"

logger = structlog.get_logger(__name__)


class Outcome(Enum):
    """What became of a delivery whose signature holds."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    IGNORED = "ignored"
    FOREIGN_PROJECT = "foreign_project"


async def receive(runtime: Runtime, read_body: Callable[[], Awaitable[bytes]], signatures: Sequence[str]) -> Outcome:
    """Verify a delivery and write it down. Raises Unauthenticated or Unprocessable as `unwrap` does.

    The signature's header comes first: whoever sends none, or no possible one, makes nobody keep a body in memory.
    Whatever fails on the way raises, so that StackOne gets no 200 for an event that is not on disk.
    """
    secrets = [secret.get_secret_value().encode() for secret in runtime.settings.stackone.webhook_secrets]
    try:
        require_signature(signatures)
        delivery = unwrap(await read_body(), signatures, secrets)
    except Unauthenticated:
        runtime.metrics.webhooks.labels("refused").inc()
        raise
    runtime.metrics.webhook_secret.labels(str(delivery.secret_position)).inc()
    received = await record_hint(runtime, delivery)
    runtime.metrics.webhooks.labels(received.value).inc()
    return received


async def record_hint(runtime: Runtime, delivery: Delivery) -> Outcome:
    """Write a delivery down once and mark its account due, in one transaction."""
    event = delivery.event
    if event is None or not possible_account_id(event.account_id):
        logger.info("webhook_ignored", reason="not an account event")
        return Outcome.IGNORED
    if not _of_our_project(event, runtime.settings.stackone.project_id):
        logger.error("webhook_ignored", reason="signed with our secret but of another project")
        return Outcome.FOREIGN_PROJECT
    hint = _Hint(delivery.digest, event.account_id, event.provider, event.event, runtime.clock.now())
    if not await runtime.groups.commit(_write_down, hint):
        return Outcome.DUPLICATE
    runtime.unknown_ids.forget(event.account_id)
    runtime.account_due.set()
    logger.info("webhook_accepted", event_name=event.event, account_id=event.account_id)
    return Outcome.ACCEPTED


def _of_our_project(event: AccountEvent, project_id: str | None) -> bool:
    return project_id is None or event.project_id == project_id


@dataclass(frozen=True)
class _Hint:
    """What is kept of a delivery.

    The digest covers the whole body. Two deliveries that differ only in `sent_at` are two hints: they cost one more
    read at most, while a digest without it would drop a second change that carries the same event date.

    Whose account the event says it is is left out: StackOne is asked anyway, and an event that comes late (of the very
    deletions that erased an owner) must not bring the owner back.
    """

    digest: bytes
    account_id: str
    provider: str | None
    event: str
    at: datetime

    @property
    def witness(self) -> Witness | None:
        """What it says of whether the account is gone."""
        return Witness.EVENT if self.event == _DELETED else None


async def _write_down(database: Database, hints: Sequence[_Hint]) -> Sequence[bool]:
    """Write hints down once and mark their accounts due, all or nothing; return of each whether it is new."""
    if database.dialect == "postgresql":
        fields = {name: [getattr(hint, name) for hint in hints] for name in _Hint.__dataclass_fields__}
        fresh = {digest for (digest,) in await database.fetch(_WRITE_DOWN, fields)}
        # Of one that came twice at once only the first is new.
        first = {hint.digest: position for position, hint in reversed(list(enumerate(hints)))}
        return [hint.digest in fresh and first[hint.digest] == position for position, hint in enumerate(hints)]
    async with database.transaction() as connection:
        return [await _write_one(connection, hint) for hint in hints]


def _writing_down() -> Statement:
    # No lengths: a cast would cut what is too long, instead of refusing it.
    types: dict[str, TypeEngine[Any]] = {
        "digest": sa.LargeBinary(),
        "account_id": sa.Text(),
        "provider": sa.Text(),
        "event": sa.Text(),
        "at": UtcDateTime(),
    }
    arrays = (sa.bindparam(name, type_=ARRAY(type_)) for name, type_ in types.items())
    columns = (sa.column(name, type_) for name, type_ in types.items())
    hint = sa.func.unnest(*arrays).table_valued(*columns, name="hint").render_derived()
    values = {
        "digest": hint.c.digest,
        "account_id": hint.c.account_id,
        "provider": hint.c.provider,
        "kind": sa.literal(Kind.HINT.value),
        "source": sa.literal(Source.WEBHOOK.value),
        "actor": sa.literal("stackone"),
        "at": hint.c.at,
        "changes": sa.func.jsonb_build_object("event", hint.c.event),
    }
    # In one order, digests first: two groups never wait for each other.
    rows = sa.select(*values.values()).ext(postgresql.distinct_on(hint.c.digest)).order_by(hint.c.digest)
    inserting = postgresql.insert(account_events).from_select(list(values), rows)
    # A repeat locks the row that is there and changes nothing of it, so that its commit waits for the standby as the
    # first one did. That may have given up waiting: it was not acknowledged, and is there for all to see. What writes
    # nothing would be acknowledged although no standby has the event.
    fresh = (
        inserting.on_conflict_do_update(index_elements=[_E.digest], set_={"kind": _E.kind}, where=sa.false())
        .returning(_E.digest, _E.account_id, _E.at, _E.changes)
        .cte("fresh")
    )
    is_deletion = sa.func.jsonb_extract_path_text(fresh.c.changes, "event") == _DELETED
    marked = due.marking_due(fresh.c.account_id, fresh.c.at, is_deletion).cte("marked")
    return Statement(sa.select(fresh.c.digest).add_cte(marked))


_WRITE_DOWN: Final = _writing_down()


async def _write_one(connection: AsyncConnection, hint: _Hint) -> bool:
    statement = upsert(
        connection,
        account_events,
        {
            "digest": hint.digest,
            "account_id": hint.account_id,
            "provider": hint.provider,
            "kind": Kind.HINT.value,
            "source": Source.WEBHOOK.value,
            "actor": "stackone",
            "at": hint.at,
            "changes": {"event": hint.event},
        },
    ).on_conflict_do_nothing(index_elements=[account_events.c.digest])
    result = await connection.execute(statement.returning(account_events.c.id))
    is_new = result.scalar_one_or_none() is not None
    if is_new:
        await due.mark_due(connection, hint.account_id, now=hint.at, witness=hint.witness)
    return is_new
