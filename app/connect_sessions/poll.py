"""Poll: the page hands its session token in, and StackOne says how the OAuth attempt went.

It is StackOne's documented way for OAuth, and the only one that names the account a session led to. The token is
checked to be of this very session, used for one call, and kept nowhere.
"""

from app.clock import Clock
from app.connect_sessions import ledger
from app.connect_sessions.ledger import Session
from app.connect_sessions.resolve import settle
from app.db.database import Database
from app.errors import AppError, FieldError, NotFound, Unprocessable, UpstreamRejected
from app.identity.caller import EndUser
from app.linked_accounts.confirm import confirm_account
from app.metrics import Metrics
from app.stackone.client import StackOneClient
from app.stackone.models import AuthenticatedSession

_AUTHENTICATED = "authenticated"


async def poll_session(
    user: EndUser,
    session_id: str,
    token: str,
    *,
    database: Database,
    stackone: StackOneClient,
    clock: Clock,
    metrics: Metrics,
    project_id: str | None,
) -> tuple[Session, str | None]:
    """Return a session of the caller's as it stands now, and how StackOne says its last OAuth attempt went.

    Raises NotFound for anything but a session of the caller's, Unprocessable if the token is not of that session.
    """
    session = await _settled(database, clock, user, session_id)
    if session.status != "pending":
        return session, None
    try:
        upstream = await stackone.authenticate_connect_session(token)
    except UpstreamRejected:
        raise _not_its_token() from None
    if not await _is_of(database, user, session_id, upstream):
        raise _not_its_token()
    attempt = upstream.latest_connection_attempt
    if attempt is None or attempt.status != _AUTHENTICATED or attempt.account_id is None:
        return session, attempt.status if attempt else None
    try:
        account = await confirm_account(
            user,
            attempt.account_id,
            database=database,
            stackone=stackone,
            clock=clock,
            metrics=metrics,
            project_id=project_id,
        )
    except NotFound:
        # Authenticated, and gone or moved since: there is nothing to show.
        return session, attempt.status
    async with database.transaction() as connection:
        await ledger.resolve(connection, session_id, status="linked", account_id=account.account_id, now=clock.now())
    return await _settled(database, clock, user, session_id), attempt.status


async def _settled(database: Database, clock: Clock, user: EndUser, session_id: str) -> Session:
    async with database.transaction() as connection:
        session = await ledger.get_session(connection, user.owner_id, session_id)
        if session is None:
            raise NotFound
        return await settle(connection, session, clock.now())


async def _is_of(database: Database, user: EndUser, session_id: str, upstream: AuthenticatedSession) -> bool:
    async with database.reading() as connection:
        upstream_id = await ledger.get_upstream_id(connection, user.owner_id, session_id)
    return upstream_id is not None and (upstream.id, upstream.origin_owner_id) == (upstream_id, user.owner_id)


def _not_its_token() -> AppError:
    return Unprocessable(errors=[FieldError("body.token", "not the token of this session, or it has expired")])
