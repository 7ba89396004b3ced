"""The client on asyncio. `make docs` writes blocking.py from it: the same without await."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from connect_broker_client import errors, models
from connect_broker_client.calls import Call, Retries, RetryBudget, error_of, path, retry_pause, texts, unreachable
from connect_broker_client.choose import the_one

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import AsyncEngine

    from connect_broker_client.aio_mirror import AsyncMirror

_Model = TypeVar("_Model", bound=BaseModel)
_MOST_IDS = 200
_PAGE = 200
_EVENTS = 500
_WAIT = 25.0
_MOST_PAGES = 100_000


class AsyncBroker:
    """The broker's service API. Use it as a context manager, or close it; one for the whole process is enough."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout_seconds: float = 15.0,
        retries: Retries | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """`url` is where the broker is, `key` a service key with the scopes that are used. The key is never shown."""
        if not url.startswith(("https://", "http://")):
            raise ValueError("url begins with https:// (or http:// inside of a network that you trust)")
        self._http = httpx2.AsyncClient(
            base_url=url.rstrip("/"),
            headers={"authorization": f"Bearer {key}", "user-agent": "connect-broker-client"},
            timeout=timeout_seconds,
            transport=transport,
            # A redirect would carry the key to wherever it leads.
            follow_redirects=False,
        )
        self._url = url
        self._timeout = timeout_seconds
        self._retries = retries or Retries()
        self._budget = RetryBudget()
        self.owners = AsyncOwners(self)
        self.accounts = AsyncAccounts(self)
        self.events = AsyncEvents(self)

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    def __repr__(self) -> str:
        """Show no key."""
        return f"AsyncBroker({self._url!r})"

    def mirror(self, engine: "AsyncEngine", table: "str | sa.Table" = "broker_accounts") -> "AsyncMirror":
        """Return what keeps a copy of all accounts of this key in a table of your own; needs the extra `mirror`."""
        from connect_broker_client.aio_mirror import AsyncMirror  # noqa: PLC0415  SQLAlchemy is an extra

        return AsyncMirror(self, engine, table)

    async def ask(self, call: Call, answer: type[_Model]) -> _Model:
        """Make a call, again where that makes sense. Raises a BrokerError that says what to do next."""
        response = await self._try(call)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError:
            # What it says is not told: a token may stand in it.
            raise errors.TellOperator(
                "the answer is none of a broker that this client fits", status=response.status_code
            ) from None

    async def _try(self, call: Call) -> httpx2.Response:
        deadline = time.monotonic() + self._retries.budget_seconds + call.wait
        tries = 0
        while True:
            tries += 1
            failure: errors.BrokerError | httpx2.TransportError
            try:
                response = await self._http.request(
                    call.method,
                    call.path,
                    params=call.parameters(),
                    json=call.content(),
                    timeout=self._timeout + call.wait,
                )
            except httpx2.TransportError as error:
                failure = error
            else:
                if response.is_success:
                    self._budget.earn()
                    return response
                failure = error_of(response)
            pause = retry_pause(call, failure, tries, self._retries)
            if pause is None or time.monotonic() + pause > deadline or not self._budget.take():
                raise failure if isinstance(failure, errors.BrokerError) else unreachable(failure) from None
            await asyncio.sleep(pause)


class AsyncOwners:
    """`broker.owners["org_acme"]` is one owner."""

    def __init__(self, broker: AsyncBroker) -> None:
        self._broker = broker

    def __getitem__(self, owner_id: str) -> "AsyncOwnerOf":
        """Return what can be done for an owner; asks nothing yet."""
        return AsyncOwnerOf(self._broker, owner_id)

    async def list(self) -> AsyncIterator[models.Owner]:
        """Go through all owners."""
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            call = Call("GET", path("owners"), {"limit": _PAGE, "cursor": cursor})
            page = await self._broker.ask(call, models.OwnerPage)
            for owner in page.data:
                yield owner
            cursor = page.next_cursor
            if cursor is None:
                return


class AsyncOwnerOf:
    """What can be done for one owner."""

    def __init__(self, broker: AsyncBroker, owner_id: str) -> None:
        path(owner_id)  # an id that makes no path is refused here, not at the first call
        self._broker = broker
        self.owner_id = owner_id
        self.accounts = AsyncOwnerAccounts(broker, self)
        self.sessions = AsyncSessions(broker, owner_id)
        self.auth_links = AsyncAuthLinks(broker, owner_id)

    async def get(self) -> models.Owner:
        """Return how its accounts stand."""
        return await self._broker.ask(Call("GET", path("owners", self.owner_id)), models.Owner)

    async def user_token(
        self,
        user: str,
        *,
        owner_name: str | None = None,
        expires_in: int | None = None,
        claims: Mapping[str, Any] | None = None,
    ) -> models.UserToken:
        """Make a token with which a browser is this user. Owner and user come from your session, never from a page."""
        body = {"user": user, "owner_name": owner_name, "expires_in": expires_in, "claims": claims}
        call = Call("POST", path("owners", self.owner_id, "user-tokens"), body=body)
        return await self._broker.ask(call, models.UserToken)

    async def revoke_user_tokens(self, user: str | None = None) -> models.Revocation:
        """End the user tokens of one user, or of all, that were made before now."""
        call = Call("DELETE", path("owners", self.owner_id, "user-tokens"), {"user": user})
        return await self._broker.ask(call, models.Revocation)


class AsyncOwnerAccounts:
    """The accounts of one owner."""

    def __init__(self, broker: AsyncBroker, owner: AsyncOwnerOf) -> None:
        self._broker = broker
        self._owner = owner

    async def list(
        self, *, provider: str | Sequence[str] | None = None, status: str | Sequence[str] | None = None
    ) -> AsyncIterator[models.Account]:
        """Go through the owner's accounts."""
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            query = {"provider": texts(provider), "status": texts(status), "limit": _PAGE, "cursor": cursor}
            call = Call("GET", path("owners", self._owner.owner_id, "linked-accounts"), query)
            page = await self._broker.ask(call, models.AccountPage)
            for account in page.data:
                yield account
            cursor = page.next_cursor
            if cursor is None:
                return

    async def first(self, provider: str) -> models.Account | None:
        """Return the account to work with: one that works, or else one that does not; None where nothing is linked."""
        return the_one([account async for account in self.list(provider=provider)])

    async def require(self, provider: str) -> models.Account:
        """Return an account that works. Raises NotLinked, NeedsReauth or NotUsable, which say what to do next."""
        account = await self.first(provider)
        if account is None:
            raise AsyncNotLinked(self._owner, provider)
        if account.usable:
            return account
        if account.needs_reauth and not account.leaving:
            raise AsyncNeedsReauth(self._owner, account)
        standing = "is being disconnected" if account.leaving else f"is {account.status}"
        raise errors.NotUsable(f"the account {account.account_id} of {provider} {standing}", account=account)


class AsyncNotLinked(errors.NotLinked):
    """The owner has no account of the provider."""

    def __init__(self, owner: AsyncOwnerOf, provider: str) -> None:
        super().__init__(f"nothing of {provider} is linked")
        self._owner = owner
        self.provider = provider

    async def connect_link(self, *, expires_in: int | None = None) -> str:
        """Make a link to link one with; each call makes another one."""
        return (await self._owner.auth_links.create(provider=self.provider, expires_in=expires_in)).url


class AsyncNeedsReauth(errors.NeedsReauth):
    """Somebody has to sign in to the provider anew."""

    def __init__(self, owner: AsyncOwnerOf, account: models.Account) -> None:
        super().__init__(f"the account {account.account_id} of {account.provider} needs a new sign-in", account=account)
        self._owner = owner

    async def reconnect_link(self, *, expires_in: int | None = None) -> str:
        """Make a link to sign in with; each call makes another one."""
        link = await self._owner.auth_links.create(account_id=self.account.account_id, expires_in=expires_in)
        return link.url


class AsyncSessions:
    """The connect sessions of one owner."""

    def __init__(self, broker: AsyncBroker, owner_id: str) -> None:
        self._broker = broker
        self._owner_id = owner_id

    async def create(
        self,
        *,
        provider: str | None = None,
        account_id: str | None = None,
        categories: Sequence[str] | None = None,
        multiple: bool | None = None,
        owner_name: str | None = None,
        username: str | None = None,
        expires_in: int | None = None,
        label: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> models.Session:
        """Open a connect session: a token for the Hub."""
        body = {
            "provider": provider,
            "account_id": account_id,
            "categories": categories,
            "multiple": multiple,
            "origin_owner_name": owner_name,
            "origin_username": username,
            "expires_in": expires_in,
            "label": label,
            "metadata": metadata,
        }
        call = Call("POST", path("owners", self._owner_id, "connect-sessions"), body=body)
        return await self._broker.ask(call, models.Session)

    async def get(self, session_id: str) -> models.SessionStatus:
        """Return what became of a session or an auth link."""
        call = Call("GET", path("owners", self._owner_id, "connect-sessions", session_id))
        return await self._broker.ask(call, models.SessionStatus)

    async def end(self, session_id: str) -> models.SessionStatus:
        """End a session: it counts no more, and no account is credited to it. `opens_until`: StackOne revokes none."""
        call = Call("DELETE", path("owners", self._owner_id, "connect-sessions", session_id))
        return await self._broker.ask(call, models.SessionStatus)


class AsyncAuthLinks:
    """Links with which a person links or re-authenticates an account of one owner."""

    def __init__(self, broker: AsyncBroker, owner_id: str) -> None:
        self._broker = broker
        self._owner_id = owner_id

    async def create(
        self,
        *,
        provider: str | None = None,
        account_id: str | None = None,
        owner_name: str | None = None,
        username: str | None = None,
        expires_in: int | None = None,
        label: str | None = None,
    ) -> models.AuthLink:
        """Make a link to send to one person."""
        body = {
            "provider": provider,
            "account_id": account_id,
            "origin_owner_name": owner_name,
            "origin_username": username,
            "expires_in": expires_in,
            "label": label,
        }
        call = Call("POST", path("owners", self._owner_id, "auth-links"), body=body)
        return await self._broker.ask(call, models.AuthLink)

    async def revoke(self, link_id: str) -> models.SessionStatus:
        """End a link at the broker. StackOne has no way to revoke it: `opens_until` says until when it still opens."""
        call = Call("DELETE", path("owners", self._owner_id, "connect-sessions", link_id))
        return await self._broker.ask(call, models.SessionStatus)


class AsyncAccounts:
    """The accounts of all owners that the key is for."""

    def __init__(self, broker: AsyncBroker) -> None:
        self._broker = broker

    async def list(
        self,
        *,
        owner_id: str | Sequence[str] | None = None,
        provider: str | Sequence[str] | None = None,
        status: str | Sequence[str] | None = None,
        needs_reauth: bool | None = None,
        usable: bool | None = None,
        updated_since: datetime | None = None,
    ) -> AsyncIterator[models.Account]:
        """Go through accounts; with `needs_reauth=True` the longest broken first."""
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            query = {
                "owner_id": texts(owner_id),
                "provider": texts(provider),
                "status": texts(status),
                "needs_reauth": needs_reauth,
                "usable": usable,
                "updated_since": updated_since,
                "limit": _PAGE,
                "cursor": cursor,
            }
            page = await self._broker.ask(Call("GET", path("accounts"), query), models.AccountPage)
            for account in page.data:
                yield account
            cursor = page.next_cursor
            if cursor is None:
                return

    async def get(self, account_id: str, *, max_age: int | None = None, must_be_fresh: bool = False) -> models.Account:
        """Return one account; with `max_age` StackOne is asked where the answer would be older than those seconds."""
        query = {"max_age": max_age, "must_be_fresh": must_be_fresh or None}
        return await self._broker.ask(Call("GET", path("accounts", account_id), query), models.Account)

    async def get_many(self, account_ids: Sequence[str]) -> dict[str, models.Account]:
        """Return accounts by their ids, in as few calls as there can be; what does not exist is left out."""
        found: dict[str, models.Account] = {}
        wanted = list(dict.fromkeys(account_ids))
        for start in range(0, len(wanted), _MOST_IDS):
            query = {"account_id": wanted[start : start + _MOST_IDS], "limit": _MOST_IDS}
            page = await self._broker.ask(Call("GET", path("accounts"), query), models.AccountPage)
            found |= {account.account_id: account for account in page.data}
        return found

    async def snapshot(self, cursor: str | None = None, *, limit: int = _PAGE) -> models.AccountPage:
        """Return a page of a snapshot: once all are read, the feed goes on from its `feed_position`."""
        query = {"snapshot": True, "limit": limit, "cursor": cursor}
        return await self._broker.ask(Call("GET", path("accounts"), query), models.AccountPage)


class AsyncEvents:
    """The change feed."""

    def __init__(self, broker: AsyncBroker) -> None:
        self._broker = broker

    async def read(
        self,
        after: str = "0",
        *,
        kinds: str | Sequence[str] | None = None,
        owner_ids: str | Sequence[str] | None = None,
        limit: int = _EVENTS,
        wait: float = 0.0,
    ) -> models.EventPage:
        """Return the next changes; wait up to `wait` (30) seconds for a first one. Raises PositionGone."""
        query = {"after": after, "kind": texts(kinds), "owner_id": texts(owner_ids), "limit": limit, "wait": wait}
        page = await self._broker.ask(Call("GET", path("events"), query, wait=wait), models.EventPage)
        models.cursors_set(page, after)
        return page

    async def follow(
        self,
        after: str = "0",
        *,
        kinds: str | Sequence[str] | None = None,
        owner_ids: str | Sequence[str] | None = None,
        patience_seconds: float = 3600.0,
        for_seconds: float | None = None,
    ) -> AsyncIterator[models.Event]:
        """Go through changes as they come. Keep `event.cursor` once one is dealt with, and give it as `after` again.

        An outage of the broker is waited out for `patience_seconds`, then TryLater is raised. Ends after `for_seconds`,
        or never. Raises PositionGone where the feed cannot be gone on from: what was built from it starts anew.
        """
        ends_at = None if for_seconds is None else time.monotonic() + for_seconds
        answered_at = time.monotonic()
        while ends_at is None or time.monotonic() < ends_at:
            wait = _WAIT if ends_at is None else max(0.0, min(_WAIT, ends_at - time.monotonic()))
            try:
                page = await self.read(after, kinds=kinds, owner_ids=owner_ids, wait=wait)
            except errors.TryLater as error:
                pause = max(1.0, error.retry_after or 0.0)
                if time.monotonic() + pause - answered_at > patience_seconds:
                    raise
                await asyncio.sleep(pause)
                continue
            answered_at = time.monotonic()
            for event in page.data:
                yield event
            after = page.next_cursor
