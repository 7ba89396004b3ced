"""Poll: the page hands its session token in, and StackOne says how the OAuth attempt went.

It is StackOne's documented way for OAuth, and the only one that names the account a session led to. The token is
checked to be of this very session, used for one call, and kept nowhere.
"""

from app.connect_sessions import ledger
from app.connect_sessions.ledger import Session
from app.connect_sessions.resolve import resolve_session
from app.connect_sessions.tables import Status
from app.errors import AppError, FieldError, NotFound, Unprocessable, UpstreamRejected
from app.identity.caller import EndUser
from app.linked_accounts.confirm import confirm_account
from app.runtime import Runtime
from app.stackone.models import AuthenticatedSession

_AUTHENTICATED = "authenticated"


async def poll_session(runtime: Runtime, user: EndUser, session_id: str, token: str) -> tuple[Session, str | None]:
    """Return a session of the caller's as it stands now, and how StackOne says its last OAuth attempt went.

    Raises NotFound for anything but a session of the caller's, Unprocessable if the token is not of that session.
    """
    session = await resolve_session(runtime, user.owner_id, session_id)
    if session.status is not Status.PENDING:
        return session, None
    try:
        upstream = await runtime.stackone.authenticate_connect_session(token)
    except UpstreamRejected:
        raise _not_its_token() from None
    if not await _is_of(runtime, user, session_id, upstream):
        raise _not_its_token()
    attempt = upstream.latest_connection_attempt
    if attempt is None or attempt.status != _AUTHENTICATED or attempt.account_id is None:
        return session, attempt.status if attempt else None
    try:
        account = await confirm_account(runtime, user, attempt.account_id)
    except NotFound:
        # Authenticated, and gone or moved since: there is nothing to show.
        return session, attempt.status
    async with runtime.database.transaction() as connection:
        await ledger.record_end(
            connection, session_id, status=Status.LINKED, account_id=account.account_id, now=runtime.clock.now()
        )
    return await resolve_session(runtime, user.owner_id, session_id), attempt.status


async def _is_of(runtime: Runtime, user: EndUser, session_id: str, upstream: AuthenticatedSession) -> bool:
    async with runtime.database.reading() as connection:
        upstream_id = await ledger.get_upstream_id(connection, user.owner_id, session_id)
    return upstream_id is not None and (upstream.id, upstream.origin_owner_id) == (upstream_id, user.owner_id)


def _not_its_token() -> AppError:
    return Unprocessable(errors=[FieldError("body.token", "not the token of this session, or it has expired")])
