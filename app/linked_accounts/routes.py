"""Linked accounts over HTTP: an end user's own, and any owner's for services."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from app.errors import NotFound
from app.http.callers import EndUserDep, RuntimeDep, requires
from app.http.problems import documented
from app.identity.caller import Scope, Service
from app.inputs import AccountIdText, OwnerId, ProviderKey, ShortText
from app.linked_accounts import store
from app.linked_accounts.confirm import confirm_account
from app.linked_accounts.disconnect import disconnect
from app.linked_accounts.feed import await_feed
from app.linked_accounts.feed_schemas import EventOut, EventPage
from app.linked_accounts.schemas import (
    LeavingAccountOut,
    LinkedAccountOut,
    LinkedAccountPage,
    decode_cursor,
    page_of,
)
from app.runtime import Runtime

browser = APIRouter(prefix="/v1/linked-accounts", tags=["browser"])
service = APIRouter(prefix="/v1", tags=["service"])

Limit = Annotated[int, Query(ge=1, le=200, description="Accounts per page.")]
Cursor = Annotated[str | None, Query(max_length=1024, description="next_cursor of the page before.")]
Providers = Annotated[
    list[ProviderKey] | None, Query(alias="provider", max_length=50, description="Only these providers.")
]
Statuses = Annotated[list[ShortText] | None, Query(alias="status", max_length=20, description="Only these statuses.")]
AccountReader = Annotated[Service, Depends(requires(Scope.ACCOUNTS_READ))]
EventReader = Annotated[Service, Depends(requires(Scope.EVENTS_READ))]
_LAST_POSITION = 2**63 - 1
AccountWriter = Annotated[Service, Depends(requires(Scope.ACCOUNTS_WRITE))]


async def _page(
    runtime: Runtime,
    owner_id: str,
    providers: list[str] | None,
    statuses: list[str] | None,
    cursor: str | None,
    limit: int,
) -> LinkedAccountPage:
    after = decode_cursor(cursor) if cursor else None
    async with runtime.database.reading() as connection:
        accounts = await store.list_for_owner(
            connection, owner_id, providers=providers or (), statuses=statuses or (), after=after, limit=limit + 1
        )
    return page_of(accounts, limit)


@browser.get("", summary="List your linked accounts", responses=documented(401, 422, 429, 503))
async def list_own_accounts(  # noqa: D103
    user: EndUserDep,
    runtime: RuntimeDep,
    providers: Providers = None,
    statuses: Statuses = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> LinkedAccountPage:
    return await _page(runtime, user.owner_id, providers, statuses, cursor, limit)


@browser.get("/{account_id}", summary="Get one of your linked accounts", responses=documented(401, 404, 422, 429, 503))
async def get_own_account(  # noqa: D103
    account_id: AccountIdText, user: EndUserDep, runtime: RuntimeDep
) -> LinkedAccountOut:
    async with runtime.database.reading() as connection:
        account = await store.get_for_owner(connection, user.owner_id, account_id)
    if account is None:
        raise NotFound
    return LinkedAccountOut.of(account)


@browser.post(
    "/{account_id}/confirm",
    summary="Confirm an account that the Hub says was linked: read at StackOne, checked to be yours, stored",
    responses=documented(401, 404, 422, 429, 502, 503),
)
async def confirm_own_account(  # noqa: D103
    account_id: AccountIdText, user: EndUserDep, runtime: RuntimeDep
) -> LinkedAccountOut:
    account = await confirm_account(runtime, user, account_id)
    return LinkedAccountOut.of(account)


_DISCONNECTED: dict[int | str, dict[str, Any]] = {
    204: {"description": "StackOne has deleted it, now or earlier; a repeat answers the same."},
    202: {"model": LeavingAccountOut, "description": "StackOne is away; it is deleted there as soon as it is back."},
}


@browser.delete(
    "/{account_id}",
    status_code=204,
    response_model=None,
    summary="Disconnect an account of yours: it is deleted at StackOne, with its credentials",
    responses={**_DISCONNECTED, **documented(401, 404, 422, 429, 503)},
)
async def disconnect_own_account(  # noqa: D103
    account_id: AccountIdText, user: EndUserDep, runtime: RuntimeDep
) -> Response:
    return await _disconnect(runtime, account_id, frozenset({user.owner_id}), user.actor)


@service.delete(
    "/accounts/{account_id}",
    status_code=204,
    response_model=None,
    summary="Disconnect any account: it is deleted at StackOne, with its credentials",
    responses={**_DISCONNECTED, **documented(401, 403, 404, 422, 429, 503)},
)
async def disconnect_account(  # noqa: D103
    account_id: AccountIdText, caller: AccountWriter, runtime: RuntimeDep
) -> Response:
    return await _disconnect(runtime, account_id, caller.owner_ids, caller.actor)


async def _disconnect(runtime: Runtime, account_id: str, owner_ids: frozenset[str] | None, actor: str) -> Response:
    leaving = await disconnect(runtime, account_id, owner_ids=owner_ids, actor=actor)
    if leaving is None:
        return Response(status_code=204)
    body = LeavingAccountOut.of(leaving).model_dump_json()
    return Response(body, 202, media_type="application/json")


@service.get(
    "/events",
    summary="Read the change feed: every change once, in order, from where you left off",
    responses=documented(401, 403, 422, 429, 503),
)
async def read_events(  # noqa: D103
    caller: EventReader,
    runtime: RuntimeDep,
    after: Annotated[int, Query(ge=0, le=_LAST_POSITION, description="next_cursor of the answer before; 0: all.")] = 0,
    limit: Annotated[int, Query(ge=1, le=500, description="Changes per answer.")] = 100,
    wait: Annotated[float, Query(ge=0, le=30, description="Seconds to wait for a first change.")] = 0,
) -> EventPage:
    entries = await await_feed(
        runtime.database,
        runtime.clock,
        after=after,
        limit=limit,
        wait=wait,
        stopping=runtime.stopping,
        owner_ids=caller.owner_ids,
    )
    last = entries[-1].position if entries else after
    return EventPage(data=[EventOut.of(entry) for entry in entries], next_cursor=str(last))


@service.get(
    "/owners/{owner_id}/linked-accounts",
    summary="List an owner's linked accounts",
    responses=documented(401, 403, 422, 429, 503),
)
async def list_owner_accounts(  # noqa: D103
    owner_id: OwnerId,
    _service: AccountReader,
    runtime: RuntimeDep,
    providers: Providers = None,
    statuses: Statuses = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> LinkedAccountPage:
    return await _page(runtime, owner_id, providers, statuses, cursor, limit)


@service.get(
    "/accounts/{account_id}",
    summary="Get any linked account: whose is it",
    responses=documented(401, 403, 404, 422, 429, 503),
)
async def get_account(  # noqa: D103
    account_id: AccountIdText, caller: AccountReader, runtime: RuntimeDep
) -> LinkedAccountOut:
    async with runtime.database.reading() as connection:
        account = await store.get_for_any_owner(connection, account_id)
    # A key that is limited to some owners learns nothing about others' accounts, not even that they exist.
    if account is None or (caller.owner_ids is not None and account.owner_id not in caller.owner_ids):
        raise NotFound
    return LinkedAccountOut.of(account)
