"""Owners as a list: who has accounts or a pinned name, how the accounts stand, and when something last changed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.connect_sessions.tables import owners
from app.errors import NotFound
from app.identity.caller import Service
from app.linked_accounts.tables import account_events, linked_accounts
from app.owners.queries import OwnersQuery
from app.runtime import Runtime

_A = linked_accounts.c
_E = account_events.c
_O = owners.c
_VISIBLE = sa.and_(_A.verified_at.is_not(None), _A.deleted_at.is_(None))


@dataclass(frozen=True)
class OwnerSummary:
    """One owner."""

    owner_id: str
    owner_name: str | None
    accounts: int = 0
    needs_reauth: int = 0
    by_status: Mapping[str, int] = field(default_factory=dict)
    last_change_at: datetime | None = None


async def list_owners(runtime: Runtime, caller: Service, query: OwnersQuery) -> tuple[Sequence[OwnerSummary], bool]:
    """Return a page of the owners that a service may see, in the order of their ids, and whether there are more."""
    async with runtime.database.reading() as connection:
        found = await owners_after(connection, query.cursor, caller.owner_ids, limit=query.limit + 1)
    return found[: query.limit], len(found) > query.limit


async def get_owner(runtime: Runtime, owner_id: str) -> OwnerSummary:
    """Return one owner. Raises NotFound for an id that has no account and no pinned name."""
    async with runtime.database.reading() as connection:
        found = await owners_after(connection, None, {owner_id}, limit=1)
    if not found:
        raise NotFound
    return found[0]


async def owners_after(
    connection: AsyncConnection, after: str | None, owner_ids: Collection[str] | None, *, limit: int
) -> list[OwnerSummary]:
    """Return owners behind an id, of these or of all."""
    ids = await _ids(connection, after, owner_ids, limit)
    if not ids:
        return []
    names = {
        row.owner_id: row.owner_name
        for row in await connection.execute(sa.select(_O.owner_id, _O.owner_name).where(_O.owner_id.in_(ids)))
    }
    counted = sa.select(
        _A.owner_id, _A.status, sa.func.count(), sa.func.count(_A.needs_reauth_since), sa.func.max(_A.owner_name)
    ).where(_A.owner_id.in_(ids), _VISIBLE)
    by_status: dict[str, dict[str, int]] = {}
    broken: dict[str, int] = {}
    linked_names: dict[str, str] = {}
    for owner_id, status, count, needs_reauth, name in await connection.execute(
        counted.group_by(_A.owner_id, _A.status)
    ):
        by_status.setdefault(owner_id, {})[status] = count
        broken[owner_id] = broken.get(owner_id, 0) + needs_reauth
        linked_names[owner_id] = name
    newest = (
        sa.select(_E.owner_id, sa.func.max(_E.position).label("position"))
        .where(_E.owner_id.in_(ids), _E.position.is_not(None))
        .group_by(_E.owner_id)
        .subquery()
    )
    changes = sa.select(newest.c.owner_id, _E.at).join(newest, newest.c.position == _E.position)
    changed = {row.owner_id: row.at for row in await connection.execute(changes)}
    return [
        OwnerSummary(
            owner_id=owner_id,
            owner_name=names.get(owner_id) or linked_names.get(owner_id),
            accounts=sum(by_status.get(owner_id, {}).values()),
            needs_reauth=broken.get(owner_id, 0),
            by_status=by_status.get(owner_id, {}),
            last_change_at=changed.get(owner_id),
        )
        for owner_id in ids
    ]


async def _ids(
    connection: AsyncConnection, after: str | None, owner_ids: Collection[str] | None, limit: int
) -> list[str]:
    """Return owner ids of either table, each read no further than the page needs."""
    found: set[str] = set()
    for column, condition in ((_O.owner_id, sa.true()), (_A.owner_id, sa.and_(_VISIBLE, _A.owner_id.is_not(None)))):
        query = sa.select(column).where(condition).distinct().order_by(column).limit(limit)
        if after is not None:
            query = query.where(column > after)
        if owner_ids is not None:
            query = query.where(column.in_(owner_ids))
        found.update((await connection.execute(query)).scalars())
    return sorted(found)[:limit]
