"""Resolving sessions: pending becomes linked, expired, failed or unknown by whatever news there is, whoever asks first.

A page that polls resolves its own session; for pages that never come back, housekeeping resolves what the change feed
has news about and what has ended. StackOne's events and accounts do not name the session they come from, so unless
StackOne names the account (`poll`), what is told of the owner's accounts during the session's life is matched with the
sessions that it fits. An account that fits several is credited to none of them: no session is resolved by a guess.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.connect_sessions import ledger
from app.connect_sessions.ledger import OPEN, Session
from app.connect_sessions.tables import Mode, Status, connect_sessions
from app.errors import NotFound
from app.linked_accounts.changes import Kind
from app.linked_accounts.tables import account_events, linked_accounts
from app.runtime import Runtime
from app.stackone.models import USABLE_STATUSES

_S = connect_sessions.c
_A = linked_accounts.c
_E = account_events.c

# An account that was linked in a session's last minute may become known later than that.
GRACE = timedelta(minutes=10)
_EDITED = (Kind.HINT, Kind.UPDATED, Kind.RECOVERED)
_CHANGES_CONSIDERED = 500
# Of an owner with more sessions at once than this, none is credited unless StackOne or its user names the account.
_RIVALS_CONSIDERED = 200


@dataclass(frozen=True)
class Clue:
    """One sign that somebody linked or edited an account of an owner in a session."""

    account_id: str
    provider: str | None
    at: datetime
    is_new: bool
    """Whether the account was new to the owner."""
    is_settled: bool = True
    """Whether the account has been read since."""
    confirmed_by: str | None = None
    confirmed_at: datetime | None = None


async def resolve_session(runtime: Runtime, owner_id: str, session_id: str) -> Session:
    """Return how a session of the owner stands, and write its end down if there is news.

    Raises NotFound alike for an unknown session and for somebody else's.
    """
    async with runtime.database.transaction() as connection:
        session = await ledger.get_session(connection, owner_id, session_id)
        if session is None:
            raise NotFound
        return await resolve(connection, session, runtime.clock.now())


async def resolve(connection: AsyncConnection, session: Session, now: datetime) -> Session:
    """Return the session as it stands now, and write its end down.

    An ended session shows its end at once, but that is written down only after a grace: an account that was linked
    in its last minute may become known later.
    """
    if session.status not in OPEN:
        return session
    clues = await _clues(connection, session)
    rivals = await _rivals(connection, session, clues) if clues else []
    if rivals:
        clues += await _made_before(connection, session, rivals)
    clue = credited(session, clues, rivals)
    if clue is not None:
        await ledger.record_link(connection, session.id, clue.account_id, was_new=clue.is_new, now=now)
        return replace(session, status=Status.LINKED, linked_account_id=clue.account_id, was_new=clue.is_new)
    has_failed = session.oauth_error_code is not None
    if session.expires_at > now:
        # The person may try once more in the same session, so it stays open.
        return replace(session, status=Status.FAILED if has_failed else Status.PENDING)
    end = Status.UNKNOWN if unexplained(session, clues, rivals) else Status.FAILED if has_failed else Status.EXPIRED
    if session.expires_at + GRACE <= now:
        await ledger.record_end(connection, session.id, end, now)
    return replace(session, status=end)


async def is_new_since(connection: AsyncConnection, session: Session, account_id: str) -> bool:
    """Tell whether an account became the owner's after the session began."""
    query = sa.select(sa.literal(1)).where(
        _E.account_id == account_id,
        _E.owner_id == session.owner_id,
        _E.kind == Kind.LINKED.value,
        _E.at >= session.created_at,
    )
    return session.mode is Mode.CREATE and (await connection.execute(query.limit(1))).first() is not None


def credited(session: Session, clues: Sequence[Clue], rivals: Sequence[Session]) -> Clue | None:
    """Return the clue to the account that an open session linked, or None where there is none or it may be another's.

    A user who confirms an account during the session's life names it; otherwise the session must be the only one that
    the clue fits. Pure.
    """
    unnamed: list[Clue] = []
    for clue in unexplained(session, clues, rivals):
        if not clue.is_settled and not clue.is_new:
            continue
        fitting = [rival for rival in rivals if rival.linked_account_id is None and clue in of_session(rival, clues)]
        if _names(session, clue) and not any(rival.requested_by == session.requested_by for rival in fitting):
            return clue
        if not fitting:
            unnamed.append(clue)
    return unnamed[0] if unnamed and len(rivals) < _RIVALS_CONSIDERED else None


def unexplained(session: Session, clues: Sequence[Clue], rivals: Sequence[Session]) -> list[Clue]:
    """Return the clues that may be a session's and are not another's: new accounts first, then by time. Pure."""
    linked = [rival for rival in rivals if rival.linked_account_id is not None]
    return sorted(
        (clue for clue in of_session(session, clues) if not any(_explains(rival, clue, clues) for rival in linked)),
        key=lambda clue: (not clue.is_new, clue.at),
    )


def of_session(session: Session, clues: Sequence[Clue]) -> list[Clue]:
    """Return the clues that may be a session's. One that may have made an account did not edit it as well. Pure."""
    fitting = [clue for clue in clues if fits(session, clue)]
    made = {clue.account_id for clue in fitting if clue.is_new}
    return [clue for clue in fitting if clue.is_new or clue.account_id not in made]


def _explains(rival: Session, clue: Clue, clues: Sequence[Clue]) -> bool:
    """Tell whether a clue is of what a linked session did; what happened after that was known is another's work."""
    if rival.linked_account_id != clue.account_id or clue not in of_session(rival, clues):
        return False
    return rival.resolved_at is None or clue.at <= rival.resolved_at


def fits(session: Session, clue: Clue) -> bool:
    """Tell whether a clue can come from a session: by time, account or provider, and what the session may do. Pure."""
    if not session.created_at <= clue.at <= session.expires_at + GRACE:
        return False
    if session.mode is Mode.EDIT:
        return clue.account_id == session.account_id and not clue.is_new
    # A session for a further account (`multiple`) edits none.
    is_provider = session.provider is None or session.provider.lower() == (clue.provider or "").lower()
    return is_provider and (clue.is_new or not session.multiple)


def _names(session: Session, clue: Clue) -> bool:
    if clue.confirmed_at is None or clue.confirmed_by != session.requested_by:
        return False
    return session.created_at <= clue.confirmed_at <= session.expires_at + GRACE


async def _clues(connection: AsyncConnection, session: Session) -> list[Clue]:
    """Return what happened to the owner's accounts during the session's life and may come from a session.

    New credentials change nothing that a read shows except `updated_at`; where StackOne's clock is behind ours, its
    event says it, and is written down at our own time.
    """
    since, until = session.created_at, session.expires_at + GRACE
    is_linked = sa.and_(_E.kind == Kind.LINKED.value, _E.owner_id == session.owner_id, _E.position.is_not(None))
    happened = sa.or_(is_linked, _E.kind.in_([kind.value for kind in _EDITED]))
    account = (_A.account_id, _A.provider, _A.status, _A.refresh_due_at, _A.confirmed_by, _A.confirmed_at)
    of_owner = (_A.owner_id == session.owner_id, _A.deleted_at.is_(None), _A.verified_at.is_not(None))
    named = _A.account_id == session.account_id if session.mode is Mode.EDIT else sa.true()
    told = (
        sa.select(*account, _E.at, is_linked)
        .join(account_events, _E.account_id == _A.account_id)
        .where(*of_owner, named, happened, _E.at.between(since, until))
        .order_by(_E.at, _E.position)
        .limit(_CHANGES_CONSIDERED)
    )
    read = (
        sa.select(*account, _A.updated_at, sa.false())
        .where(*of_owner, named, _A.updated_at.between(since, until))
        .order_by(_A.updated_at)
        .limit(_CHANGES_CONSIDERED)
    )
    rows = [*await connection.execute(told), *await connection.execute(read)]
    clues: list[Clue] = []
    for account_id, provider, status, due_at, confirmed_by, confirmed_at, at, is_new in rows:
        # An account that broke was not edited by anybody. Only a session for this very account says so, well or not.
        if is_new or status in USABLE_STATUSES or session.mode is Mode.EDIT:
            clues.append(Clue(account_id, provider, at, bool(is_new), due_at is None, confirmed_by, confirmed_at))
    return clues


async def _rivals(connection: AsyncConnection, session: Session, clues: Sequence[Clue]) -> list[Session]:
    """Return the owner's other sessions, linked or not, that were live when something happened to its accounts."""
    first, last = min(clue.at for clue in clues), max(clue.at for clue in clues)
    query = ledger.select_sessions().where(
        _S.owner_id == session.owner_id,
        _S.id != session.id,
        _S.status != Status.FAILED,
        sa.or_(_S.ended_as.is_(None), _S.ended_as != Status.ENDED),
        _S.created_at <= last,
        _S.expires_at >= first - GRACE,
    )
    rows = await connection.execute(query.order_by(_S.created_at.desc()).limit(_RIVALS_CONSIDERED))
    return [Session(*row) for row in rows]


async def _made_before(connection: AsyncConnection, session: Session, rivals: Sequence[Session]) -> list[Clue]:
    """Return which accounts became the owner's before the session began and may be a rival's work."""
    query = (
        sa.select(_E.account_id, _E.provider, _E.at)
        .where(
            _E.owner_id == session.owner_id,
            _E.position.is_not(None),
            _E.kind == Kind.LINKED.value,
            _E.at < session.created_at,
            _E.at >= min(rival.created_at for rival in rivals),
        )
        .order_by(_E.position.desc())
        .limit(_CHANGES_CONSIDERED)
    )
    rows = await connection.execute(query)
    return [Clue(account_id, provider, at, is_new=True) for account_id, provider, at in rows]


async def resolve_open_sessions(
    connection: AsyncConnection, owner_ids: Sequence[str], *, after: Session | None, now: datetime, limit: int
) -> Session | None:
    """Resolve open sessions of these owners that were made `after` another, oldest first.

    Returns the last one, after which there may be more; None if there are none.
    """
    query = ledger.select_sessions().where(_S.status.in_(OPEN), _S.owner_id.in_(owner_ids))
    if after is not None:
        query = query.where(sa.tuple_(_S.created_at, _S.id) > (after.created_at, after.id))
    rows = (await connection.execute(query.order_by(_S.created_at, _S.id).limit(limit))).all()
    sessions = [Session(*row) for row in rows]
    for session in sessions:
        await resolve(connection, session, now)
    return sessions[-1] if len(sessions) == limit else None


async def resolve_ended_sessions(connection: AsyncConnection, *, now: datetime, limit: int) -> int:
    """Resolve sessions that ended more than a grace ago; return how many there were."""
    query = ledger.select_sessions().where(_S.status.in_(OPEN), _S.expires_at <= now - GRACE)
    rows = (await connection.execute(query.order_by(_S.expires_at).limit(limit))).all()
    for row in rows:
        await resolve(connection, Session(*row), now)
    return len(rows)


async def forget_sessions(connection: AsyncConnection, *, now: datetime, retention: timedelta, limit: int) -> int:
    """Remove sessions that ended longer ago than the retention; return how many."""
    old = (
        sa.select(_S.id)
        .where(_S.expires_at <= now - retention, _S.status.not_in(OPEN))
        .order_by(_S.expires_at)
        .limit(limit)
    )
    result = await connection.execute(sa.delete(connect_sessions).where(_S.id.in_(old)))
    return result.rowcount
