"""Poll: whoever holds a session's token hands it in, and StackOne says how the last OAuth attempt went.

It is StackOne's documented way for OAuth, and the only one that names the account a session led to. The token is
checked to be of this very session, used for one call, and kept nowhere.
"""

from dataclasses import replace

from app.connect_sessions import ledger
from app.connect_sessions.ledger import Session
from app.connect_sessions.resolve import is_new_since, resolve_session
from app.connect_sessions.tables import Status
from app.errors import AppError, FieldError, NotFound, Unprocessable
from app.identity.caller import Owner
from app.linked_accounts.confirm import confirm_account
from app.runtime import Runtime
from app.stackone.models import AuthenticatedSession, ConnectionAttempt
from app.stackone.refusals import Refused

_AUTHENTICATED = "authenticated"
# How StackOne may refuse a token that is not its own, or no longer: it does not document which it is.
_TOKEN_REFUSALS = frozenset({400, 401, 403, 404, 422})


async def poll_session(
    runtime: Runtime, owner: Owner, session_id: str, token: str
) -> tuple[Session, AuthenticatedSession | None]:
    """Return a session of the owner's as it stands now, and what StackOne says of it.

    StackOne is not asked about a session that has ended without an account.
    Raises NotFound for anything but a session of the owner's, Unprocessable if the token is not of that session, and
    Unavailable or UpstreamRejected for any other answer of StackOne.
    """
    session = await resolve_session(runtime, owner.owner_id, session_id)
    if session.expires_at <= runtime.clock.now() or await _has_ended(runtime, session):
        return session, None
    try:
        upstream = await runtime.stackone.authenticate_connect_session(token, owner_id=owner.owner_id)
    except Refused as refused:
        # What a gateway or a firewall answers says nothing about the token.
        if refused.genuine and refused.upstream_status in _TOKEN_REFUSALS:
            raise _not_its_token() from None
        raise
    if not await _is_of(runtime, owner.owner_id, session_id, upstream):
        raise _not_its_token()
    attempt = upstream.latest_connection_attempt
    if attempt is None:
        return session, upstream
    if attempt.status == _AUTHENTICATED and attempt.account_id is not None:
        return await _linked(runtime, owner, session, attempt.account_id), upstream
    return await _attempted(runtime, session, attempt), upstream


async def _has_ended(runtime: Runtime, session: Session) -> bool:
    """Tell whether no account can be credited to a session any more; one that only failed so far may be tried again."""
    if session.status is Status.ENDED:
        return True
    if session.status is not Status.FAILED:
        return False
    async with runtime.database.reading() as connection:
        return await ledger.get_upstream_id(connection, session.owner_id, session.id) is None


async def _linked(runtime: Runtime, owner: Owner, session: Session, account_id: str) -> Session:
    """Credit the account that StackOne names, after reading it."""
    try:
        account = await confirm_account(runtime, owner, account_id)
    except NotFound:
        # Authenticated, and gone or moved since: there is nothing to show.
        return session
    if session.linked_account_id == account.account_id:
        return session
    async with runtime.database.transaction() as connection:
        was_new = await is_new_since(connection, session, account.account_id)
        await ledger.record_link(
            connection, session.id, account.account_id, was_new=was_new, now=runtime.clock.now(), named=True
        )
    return replace(session, status=Status.LINKED, linked_account_id=account.account_id, was_new=was_new)


async def _attempted(runtime: Runtime, session: Session, attempt: ConnectionAttempt) -> Session:
    """Write down why the attempt failed, or that a further one has begun."""
    why = (attempt.oauth_error_code, attempt.oauth_error_description)
    if session.status is Status.LINKED or why == (session.oauth_error_code, session.oauth_error_description):
        return session
    code, description = why
    async with runtime.database.transaction() as connection:
        await ledger.record_attempt(connection, session.id, error_code=code, error_description=description)
    return await resolve_session(runtime, session.owner_id, session.id)


async def _is_of(runtime: Runtime, owner_id: str, session_id: str, upstream: AuthenticatedSession) -> bool:
    async with runtime.database.reading() as connection:
        upstream_id = await ledger.get_upstream_id(connection, owner_id, session_id)
    return upstream_id is not None and (upstream.id, upstream.origin_owner_id) == (upstream_id, owner_id)


def _not_its_token() -> AppError:
    return Unprocessable(errors=[FieldError("body.token", "not the token of this session, or it has expired")])
