"""Erasing an owner: its accounts are deleted at StackOne, then everything personal here, and a receipt remains.

The request is a row, so it outlives the process: housekeeping carries it on until StackOne has nothing of the owner any
more. Tombstones and the change feed stay, or late events and late readers would go wrong; in them the
receipt's id takes the owner's place. An account of an erased owner that StackOne shows once more is not taken in: it
opens the erasure again, which deletes it. Whether it still is that owner's, the receipt tells by a keyed digest.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.connect_sessions.tables import connect_sessions, owners
from app.db.leases import Lease, held
from app.db.repeats import await_standby
from app.db.tables import upsert
from app.errors import AppError, NotFound, UpstreamRejected
from app.identity.caller import Service
from app.identity.user_tokens.revocations import revoke
from app.invitations.store import erase_of_owner
from app.linked_accounts import due
from app.linked_accounts.apply import apply_observations
from app.linked_accounts.changes import Source, Witness
from app.linked_accounts.decide import Observation
from app.linked_accounts.disconnect import delete_upstream, disconnect
from app.linked_accounts.store import take_read_ticket
from app.linked_accounts.tables import linked_accounts
from app.owners.tables import ErasureState, erasures
from app.owners.traces import (
    begin_anew,
    done_with,
    erase_traces,
    living_accounts,
    living_elsewhere,
    tombstones,
)
from app.runtime import Runtime
from app.stackone.budget import Priority
from app.stackone.listing import Listing
from app.stackone.models import Account, AccountGone, AccountPage

logger = structlog.get_logger(__name__)

_X = erasures.c
_C = linked_accounts.c
_PAGE_SIZE = 100
_MOST_PAGES = 500
_MOST_FAILURES = 5
_HOLES = "StackOne's listing of an owner's accounts has holes, or does not come to an end"


@dataclass(frozen=True)
class Erasure:
    """The receipt of an erasure; the owner's id is in it only until it is complete."""

    id: str
    owner_id: str | None
    state: ErasureState
    requested_by: str
    requested_at: datetime
    completed_at: datetime | None
    accounts: int
    """How many tombstones were cleared."""
    sessions: int
    events: int
    owner_digest: bytes | None = field(default=None, repr=False, compare=False)


_FIELDS = tuple(_X[name] for name in Erasure.__dataclass_fields__)


async def erase_owner(runtime: Runtime, owner_id: str, *, actor: str) -> Erasure:
    """Erase an owner as far as StackOne can be reached now; what is left is done as soon as it can be."""
    values = {
        "id": runtime.new_id("er"),
        "owner_id": owner_id,
        "state": ErasureState.PENDING,
        "requested_by": actor,
        "requested_at": runtime.clock.now(),
    }
    async with runtime.database.transaction() as connection:
        statement = upsert(connection, erasures, values).on_conflict_do_nothing(index_elements=[_X.owner_id])
        await connection.execute(statement)
        # What follows may fail and be carried on later: the request itself is what is acknowledged.
        await await_standby(connection, erasures, _X.owner_id == owner_id)
        row = (await connection.execute(sa.select(*_FIELDS).where(_X.owner_id == owner_id))).one()
    return await carry_on(runtime, Erasure(*row))


async def carry_on(runtime: Runtime, erasure: Erasure, *, priority: Priority = Priority.INTERACTIVE) -> Erasure:
    """Take an erasure as far as it goes."""
    owner_id = erasure.owner_id
    if owner_id is None:
        return await _delete_again(runtime, erasure, priority)
    try:
        listed = await _take_in(runtime, owner_id, priority)
        await _disconnect_all(runtime, owner_id, listed, erasure.requested_by, priority)
        left = await _list_upstream(runtime, owner_id, priority)
    except AppError as error:
        logger.warning("erasure_rescheduled", erasure_id=erasure.id, code=error.code)
        return erasure
    if not left.is_complete:
        # What it did not show is not known: an erasure must not be called complete because of it.
        logger.warning("erasure_rescheduled", erasure_id=erasure.id, reason=_HOLES)
        return erasure
    async with runtime.database.transaction() as connection:
        if left.accounts or await living_accounts(connection, owner_id):
            return erasure
        digest = _digest(runtime, erasure.id, owner_id)
        await _erase(connection, erasure, owner_id, digest, runtime.clock.now())
    runtime.authenticator.look_for_revocations()
    logger.info("owner_erased", erasure_id=erasure.id)
    return await get_erasure(runtime, erasure.id)


async def get_erasure(runtime: Runtime, erasure_id: str) -> Erasure:
    """Return a receipt. Raises NotFound."""
    async with runtime.database.reading() as connection:
        row = (await connection.execute(sa.select(*_FIELDS).where(_X.id == erasure_id))).one_or_none()
    if row is None:
        raise NotFound
    return Erasure(*row)


async def get_receipt(runtime: Runtime, caller: Service, erasure_id: str) -> Erasure:
    """Return a receipt that a service may see: a limited one sees those that it requested. Raises NotFound."""
    erasure = await get_erasure(runtime, erasure_id)
    if caller.owner_ids is not None and erasure.requested_by != caller.actor:
        raise NotFound
    return erasure


async def pending_erasures(connection: AsyncConnection) -> list[Erasure]:
    """Return the erasures that are not complete, oldest first."""
    query = sa.select(*_FIELDS).where(_X.state == ErasureState.PENDING).order_by(_X.requested_at)
    return [Erasure(*row) for row in await connection.execute(query)]


async def carry_on_erasures(runtime: Runtime, lease: Lease) -> None:
    """Take every pending erasure as far as it goes. Raises LeaseLost before one that another replica has taken up."""
    async with runtime.database.transaction() as connection:
        await held(connection, lease)
        await _reopen(connection)
        pending = await pending_erasures(connection)
    for erasure in pending:
        async with runtime.database.transaction() as connection:
            await held(connection, lease)
        await carry_on(runtime, erasure, priority=Priority.REFRESH)


async def _reopen(connection: AsyncConnection) -> None:
    """Open the erasures again whose accounts StackOne shows once more."""
    shown_again = sa.select(_C.erasure_id).where(_C.erasure_id.is_not(None), _C.refresh_due_at.is_not(None))
    await connection.execute(
        sa.update(erasures)
        .where(_X.id.in_(shown_again), _X.state == ErasureState.COMPLETE)
        .values(state=ErasureState.PENDING, completed_at=None)
    )


async def _delete_again(runtime: Runtime, erasure: Erasure, priority: Priority) -> Erasure:
    """Delete what StackOne shows again of an owner who was erased."""
    async with runtime.database.reading() as connection:
        query = sa.select(_C.account_id).where(_C.erasure_id == erasure.id, _C.refresh_due_at.is_not(None))
        account_ids = [row.account_id for row in await connection.execute(query.order_by(_C.account_id))]

    def belongs(account: Account) -> bool:
        digest = _digest(runtime, erasure.id, account.owner_id or "")
        return erasure.owner_digest is not None and hmac.compare_digest(digest, erasure.owner_digest)

    failures = 0
    for account_id in account_ids:
        if failures == _MOST_FAILURES:
            break
        try:
            seen = await delete_upstream(runtime, account_id, belongs, priority=priority)
        except AppError as error:
            logger.warning("erasure_rescheduled", erasure_id=erasure.id, code=error.code)
            failures += 1
            continue
        if seen.account is not None and (belongs(seen.account) or erasure.owner_digest is None):
            # It is still there. Of an erasure older than the digest nobody can tell whose it is: an operator has to.
            logger.error("erased_account_remains", erasure_id=erasure.id, account_id=account_id)
            failures += 1
            continue
        async with runtime.database.transaction() as connection:
            await (done_with if seen.account is None else begin_anew)(connection, account_id, runtime.clock.now())
    if failures:
        return erasure
    async with runtime.database.transaction() as connection:
        await connection.execute(
            sa.update(erasures)
            .where(_X.id == erasure.id)
            .values(state=ErasureState.COMPLETE, completed_at=runtime.clock.now())
        )
    return await get_erasure(runtime, erasure.id)


def _digest(runtime: Runtime, erasure_id: str, owner_id: str) -> bytes:
    pepper = runtime.settings.service_keys.pepper.get_secret_value().encode()
    return hmac.digest(pepper, f"erasure:{erasure_id}:{owner_id}".encode(), "sha256")


@dataclass(frozen=True)
class _Listed:
    """What StackOne's listing showed of an owner, and whether it showed everything."""

    accounts: Sequence[Account]
    is_complete: bool


async def _take_in(runtime: Runtime, owner_id: str, priority: Priority) -> _Listed:
    """Store what StackOne has of the owner and the store has not: it must be deleted as well. Return what it has.

    Tombstones stay as they are: what is about to be deleted need not come to life first. What the store has as another
    owner's is read by its id: a list alone is no reason to show it to this one.
    """
    async with runtime.database.transaction() as connection:
        ticket = await take_read_ticket(connection)
    listed = await _list_upstream(runtime, owner_id, priority)
    by_id = {account.id: account for account in listed.accounts}
    async with runtime.database.transaction() as connection:
        elsewhere = await living_elsewhere(connection, owner_id, by_id)
        left_alone = {*elsewhere, *await tombstones(connection, by_id)}
        later = await take_read_ticket(connection)
    observations = [Observation(name, account, ticket) for name, account in by_id.items() if name not in left_alone]
    for account_id in elsewhere:
        try:
            found = await runtime.stackone.get_account(account_id, priority=priority)
        except (AccountGone, UpstreamRejected):
            # It stays as it is, and the erasure pending as long as the list shows it.
            continue
        observations.append(Observation(account_id, found, later))
    for first in range(0, len(observations), _PAGE_SIZE):
        async with runtime.database.transaction() as connection:
            await apply_observations(
                connection,
                observations[first : first + _PAGE_SIZE],
                source=Source.DISCONNECT,
                actor="stackone",
                now=runtime.clock.now(),
                metrics=runtime.metrics,
                settings=runtime.settings.sync,
            )
    return listed


async def _list_upstream(runtime: Runtime, owner_id: str, priority: Priority) -> _Listed:
    """Return what StackOne's listing shows of the owner."""

    async def read_page(number: int) -> AccountPage:
        return await runtime.stackone.list_page(page=number, page_size=_PAGE_SIZE, owner_id=owner_id, priority=priority)

    found: dict[str, Account] = {}
    listed: set[str] = set()
    listing = Listing(read_page, page_size=_PAGE_SIZE, most_pages=_MOST_PAGES)
    while not listing.is_over:
        page = await listing.read()
        new = {account.id for account in page.accounts} - listed
        listed |= new
        # A StackOne that ignored the filter would list other owners' accounts too.
        found |= {account.id: account for account in page.accounts if account.owner_id == owner_id}
        listing.passed(new=len(new))
    return _Listed(list(found.values()), bool(listing.complete))


async def _disconnect_all(runtime: Runtime, owner_id: str, listed: _Listed, actor: str, priority: Priority) -> None:
    """Have StackOne delete all that it or the store has of the owner. Raises what kept some of it from being deleted.

    One account that cannot be deleted keeps no other from being deleted.
    """
    ids = [account.id for account in listed.accounts]
    async with runtime.database.transaction() as connection:
        account_ids = await living_accounts(connection, owner_id)
        if listed.is_complete:
            # A read that says so too is enough for what it lacks.
            await due.note_witness(connection, set(account_ids) - set(ids), Witness.LISTING)
        buried = await tombstones(connection, ids)
    failures: list[AppError] = []
    for account_id in buried:
        try:
            await delete_upstream(runtime, account_id, lambda found: found.owner_id == owner_id, priority=priority)
        except AppError as error:
            failures.append(error)
        if len(failures) == _MOST_FAILURES:
            break
    for account_id in account_ids:
        try:
            await disconnect(runtime, account_id, owner_ids=frozenset({owner_id}), actor=actor, priority=priority)
        except NotFound:
            continue
    if failures:
        raise failures[0]


async def _erase(connection: AsyncConnection, erasure: Erasure, owner_id: str, digest: bytes, now: datetime) -> None:
    traces = await erase_traces(connection, owner_id, stand_in=erasure.id)
    sessions = await connection.execute(sa.delete(connect_sessions).where(connect_sessions.c.owner_id == owner_id))
    await erase_of_owner(connection, owner_id)
    # What its users still hold would make it an owner again.
    await revoke(connection, owner_id, None, actor=erasure.requested_by, now=now)
    await connection.execute(sa.delete(owners).where(owners.c.owner_id == owner_id))
    await connection.execute(
        sa.update(erasures)
        .where(_X.id == erasure.id)
        .values(
            state=ErasureState.COMPLETE,
            owner_id=None,
            owner_digest=digest,
            completed_at=now,
            accounts=traces.accounts,
            events=traces.events,
            sessions=sessions.rowcount,
        )
    )
