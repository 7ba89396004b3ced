"""The audit trail: everything that is written down about who did what, as one stream in the order of time.

Each thing has rows of its own, and those are the truth about it; here they are read together, each in the same form.
One statement, so that all of it is of one moment, read as it comes: nothing of it is held in memory.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.audit.tables import audit_entries
from app.connect_sessions.tables import Status, connect_sessions
from app.db.tables import Json, UtcDateTime
from app.identity.service_keys.tables import service_keys
from app.invitations.tables import invitation_openings, invitations
from app.linked_accounts.tables import account_events
from app.owners.tables import erasures
from app.sync.tables import sweeps

_BATCH = 1000
_COLUMNS: dict[str, Any] = {
    "at": UtcDateTime,
    "kind": sa.Text,
    "actor": sa.Text,
    "owner_id": sa.Text,
    "subject": sa.Text,
    "account_id": sa.Text,
    "provider": sa.Text,
    "source": sa.Text,
    "channel": sa.Text,
    "mode": sa.Text,
    "rule": sa.Text,
    "position": sa.BigInteger,
    "number": sa.BigInteger,
    "details": Json,
}
_NO_ACTOR = "broker"


@dataclass(frozen=True)
class TrailQuery:
    """Which part of the trail: from a moment on, before one, of one owner."""

    since: datetime | None = None
    until: datetime | None = None
    owner_id: str | None = None


async def count_trail(connection: AsyncConnection, query: TrailQuery) -> int:
    """Return how many records the trail has."""
    counts = [sa.select(sa.func.count()).select_from(part.subquery()).scalar_subquery() for part in _parts(query)]
    return sum(int(number) for number in (await connection.execute(sa.select(*counts))).one())


async def read_trail(engine: AsyncEngine, query: TrailQuery) -> AsyncIterator[dict[str, Any]]:
    """Yield the records of the trail, oldest first; what a record does not have is left out of it."""
    trail = sa.union_all(*_parts(query)).subquery()
    # Of one moment, changes in the order in which they were written.
    statement = sa.select(trail).order_by(trail.c.at, trail.c.number, trail.c.kind, trail.c.subject)
    async with (
        engine.connect() as connection,
        connection.stream(statement.execution_options(yield_per=_BATCH)) as found,
    ):
        async for row in found.mappings():
            yield {name: value for name, value in row.items() if value is not None and name != "number"}


def _part(query: TrailQuery, at: sa.ColumnElement[Any], kind: str | sa.ColumnElement[Any], **has: Any) -> Any:
    """Select one kind of record; what it has not is null, of the type that the others have there."""
    values = {"at": at, "kind": sa.literal(kind) if isinstance(kind, str) else kind, "actor": sa.literal(_NO_ACTOR)}
    values |= {name: sa.literal(value) if isinstance(value, str) else value for name, value in has.items()}
    columns = []
    for name, type_ in _COLUMNS.items():
        value = values.get(name)
        column = sa.cast(sa.null(), type_) if value is None else sa.type_coerce(value, type_)
        columns.append(column.label(name))
    part = sa.select(*columns).where(at.is_not(None))
    if query.since is not None:
        part = part.where(at >= query.since)
    if query.until is not None:
        part = part.where(at < query.until)
    if query.owner_id is not None:
        part = part.where(values["owner_id"] == query.owner_id)
    return part


def _parts(query: TrailQuery) -> Sequence[Any]:
    parts = [*_changes(query), *_sessions(query), *_invitations(query), *_erasures(query)]
    if query.owner_id is None:
        parts += [*_service_keys(query), *_sweeps(query)]
    return parts


def _changes(query: TrailQuery) -> Sequence[Any]:
    e, a = account_events.c, audit_entries.c
    return [
        _part(
            query,
            e.at,
            e.kind,
            actor=e.actor,
            owner_id=e.owner_id,
            subject=e.account_id,
            account_id=e.account_id,
            provider=e.provider,
            source=e.source,
            position=e.position,
            number=e.id,
            details=e.changes,
        ),
        _part(
            query,
            a.at,
            a.kind,
            actor=a.actor,
            owner_id=a.owner_id,
            subject=a.subject,
            number=a.id,
            details=a.details,
        ),
    ]


def _sessions(query: TrailQuery) -> Sequence[Any]:
    s = connect_sessions.c
    common = {
        "owner_id": s.owner_id,
        "subject": s.id,
        "provider": s.provider,
        "channel": sa.type_coerce(s.channel, sa.Text),
        "mode": sa.type_coerce(s.mode, sa.Text),
        "rule": s.policy_rule,
    }
    resolved = sa.func.coalesce(sa.type_coerce(s.ended_as, sa.Text), sa.type_coerce(s.status, sa.Text))
    # Who ended one stands in an entry of its own.
    is_told = sa.func.coalesce(sa.type_coerce(s.ended_as, sa.Text), "") != Status.ENDED.value
    linked = sa.func.coalesce(s.linked_account_id, s.account_id)
    return [
        _part(query, s.created_at, "session.opened", actor=s.requested_by, account_id=s.account_id, **common),
        _part(query, s.resolved_at, sa.literal("session.") + resolved, account_id=linked, **common).where(is_told),
    ]


def _invitations(query: TrailQuery) -> Sequence[Any]:
    i, o = invitations.c, invitation_openings.c
    common = {"owner_id": i.owner_id, "subject": i.id, "provider": i.provider}
    return [
        _part(query, i.created_at, "invitation.made", actor=i.requested_by, account_id=i.account_id, **common),
        _part(query, i.ended_at, "invitation.ended", actor=i.ended_by, account_id=i.account_id, **common),
        _part(query, i.linked_at, "invitation.linked", actor=i.linked_by, account_id=i.linked_account_id, **common),
        _part(query, o.opened_at, "invitation.opened", actor=o.opened_by, owner_id=o.owner_id, subject=o.invitation_id),
    ]


def _erasures(query: TrailQuery) -> Sequence[Any]:
    x = erasures.c
    # Once it is complete, the receipt stands for the owner, here as in the rest of the trail.
    owner_id = sa.func.coalesce(x.owner_id, x.id)
    return [
        _part(query, x.requested_at, "erasure.requested", actor=x.requested_by, owner_id=owner_id, subject=x.id),
        _part(query, x.completed_at, "erasure.completed", owner_id=owner_id, subject=x.id),
    ]


def _service_keys(query: TrailQuery) -> Sequence[Any]:
    k = service_keys.c
    successor = service_keys.alias()
    rotated = (
        sa.select(successor.c.created_at).where(successor.c.key_id == k.rotated_to).correlate(service_keys)
    ).scalar_subquery()
    return [
        _part(query, k.created_at, "service_key.created", actor="cli", subject=k.key_id, details=k.scopes),
        _part(query, rotated, "service_key.rotated", actor="cli", subject=k.key_id),
        _part(query, k.revoked_at, "service_key.revoked", actor="cli", subject=k.key_id),
    ]


def _sweeps(query: TrailQuery) -> Sequence[Any]:
    w = sweeps.c
    finished = sa.literal("sweep.") + sa.type_coerce(w.state, sa.Text)
    subject = sa.cast(w.id, sa.Text)
    return [
        _part(query, w.requested_at, "sweep.requested", actor=w.requested_by, subject=subject),
        _part(query, w.finished_at, finished, actor=w.requested_by, subject=subject),
    ]
