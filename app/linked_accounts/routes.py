"""Linked accounts over HTTP: an end user's own, and any owner's for services."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from app.errors import Gone, NotFound, UpstreamRejected
from app.http.callers import EndUserDep, RuntimeDep, requires
from app.http.problems import OF_SERVICES, OF_USERS, WITH_PARAMETERS, documented
from app.identity.caller import Scope, Service
from app.inputs import AccountIdText, OwnerId
from app.linked_accounts import feed, store
from app.linked_accounts.confirm import confirm_account
from app.linked_accounts.disconnect import disconnect
from app.linked_accounts.feed_schemas import EventPage
from app.linked_accounts.fresh import get_fresh_account
from app.linked_accounts.of_owners import list_accounts_of_owners
from app.linked_accounts.queries import AccountEventsQuery, AccountsQuery, AllAccountsQuery, EventsQuery, FreshQuery
from app.linked_accounts.schemas import (
    AccountPage,
    FreshAccountOut,
    LeavingAccountOut,
    LinkedAccountOut,
    LinkedAccountPage,
)
from app.runtime import Runtime

browser = APIRouter(prefix="/v1/linked-accounts", tags=["browser"])
service = APIRouter(prefix="/v1", tags=["service"])

Accounts = Annotated[AccountsQuery, Query()]
Events = Annotated[EventsQuery, Query()]
AccountReader = Annotated[Service, Depends(requires(Scope.ACCOUNTS_READ))]
EventReader = Annotated[Service, Depends(requires(Scope.EVENTS_READ))]
AccountWriter = Annotated[Service, Depends(requires(Scope.ACCOUNTS_WRITE))]


@browser.get(
    "",
    operation_id="listLinkedAccounts",
    summary="List your linked accounts",
    responses=documented(*OF_USERS, *WITH_PARAMETERS),
)
async def list_own_accounts(user: EndUserDep, runtime: RuntimeDep, query: Accounts) -> LinkedAccountPage:
    return LinkedAccountPage.of(await store.list_accounts(runtime, user.owner_id, query))


@browser.get(
    "/{account_id}",
    operation_id="getLinkedAccount",
    summary="Get one of your linked accounts",
    responses=documented(*OF_USERS, *WITH_PARAMETERS, NotFound),
)
async def get_own_account(account_id: AccountIdText, user: EndUserDep, runtime: RuntimeDep) -> LinkedAccountOut:
    return LinkedAccountOut.of(await store.get_own_account(runtime, user, account_id))


@browser.post(
    "/{account_id}/confirm",
    operation_id="confirmLinkedAccount",
    summary="Confirm an account that the Hub says was linked: read at StackOne, checked to be yours, stored",
    responses=documented(*OF_USERS, *WITH_PARAMETERS, NotFound, UpstreamRejected),
)
async def confirm_own_account(account_id: AccountIdText, user: EndUserDep, runtime: RuntimeDep) -> LinkedAccountOut:
    return LinkedAccountOut.of(await confirm_account(runtime, user.owner, account_id))


_DISCONNECTED: dict[int | str, dict[str, Any]] = {
    204: {"description": "StackOne says that it is gone; a repeat answers the same."},
    202: {
        "model": LeavingAccountOut,
        "description": "StackOne has yet to confirm that it is gone; until then the account is `leaving`.",
    },
}


@browser.delete(
    "/{account_id}",
    status_code=204,
    response_model=None,
    operation_id="disconnectLinkedAccount",
    summary="Disconnect an account of yours: it is deleted at StackOne, with its credentials",
    responses={**_DISCONNECTED, **documented(*OF_USERS, *WITH_PARAMETERS, NotFound)},
)
async def disconnect_own_account(account_id: AccountIdText, user: EndUserDep, runtime: RuntimeDep) -> Response:
    return await _disconnect(runtime, account_id, frozenset({user.owner_id}), user.actor, waiting=user.owner_id)


@service.delete(
    "/accounts/{account_id}",
    status_code=204,
    response_model=None,
    operation_id="disconnectAccount",
    summary="Disconnect any account: it is deleted at StackOne, with its credentials",
    responses={**_DISCONNECTED, **documented(*OF_SERVICES, *WITH_PARAMETERS, NotFound)},
)
async def disconnect_account(account_id: AccountIdText, caller: AccountWriter, runtime: RuntimeDep) -> Response:
    return await _disconnect(runtime, account_id, caller.owner_ids, caller.actor)


async def _disconnect(
    runtime: Runtime, account_id: str, owner_ids: frozenset[str] | None, actor: str, *, waiting: str | None = None
) -> Response:
    leaving = await disconnect(runtime, account_id, owner_ids=owner_ids, actor=actor, waiting=waiting)
    if leaving is None:
        return Response(status_code=204)
    body = LeavingAccountOut.of(leaving).model_dump_json()
    return Response(body, 202, media_type="application/json")


@service.get(
    "/events",
    operation_id="listEvents",
    summary="Read the change feed: every change once, in order, from where you left off",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS, Gone),
)
async def read_events(caller: EventReader, runtime: RuntimeDep, query: Events) -> EventPage:
    entries, head = await feed.read_events(runtime, caller, query)
    return EventPage.of(entries, head, after=query.after, settings=runtime.settings.invitations)


@service.get(
    "/accounts",
    operation_id="listAccounts",
    summary="List linked accounts of all owners: by owner, provider, status, or all that must be reconnected",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS),
)
async def list_all_accounts(
    caller: AccountReader, runtime: RuntimeDep, query: Annotated[AllAccountsQuery, Query()]
) -> AccountPage:
    return AccountPage.of(await list_accounts_of_owners(runtime, caller, query))


@service.get(
    "/accounts/{account_id}/events",
    operation_id="listAccountEvents",
    summary="Read the changes of one account",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS, NotFound, Gone),
)
async def read_account_events(
    account_id: AccountIdText,
    caller: EventReader,
    runtime: RuntimeDep,
    query: Annotated[AccountEventsQuery, Query()],
) -> EventPage:
    entries, head = await feed.read_account_events(runtime, caller, account_id, query)
    return EventPage.of(entries, head, after=query.after, settings=runtime.settings.invitations)


@service.get(
    "/owners/{owner_id}/linked-accounts",
    operation_id="listOwnerLinkedAccounts",
    summary="List an owner's linked accounts",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS),
)
async def list_owner_accounts(
    owner_id: OwnerId, _service: AccountReader, runtime: RuntimeDep, query: Accounts
) -> LinkedAccountPage:
    return LinkedAccountPage.of(await store.list_accounts(runtime, owner_id, query))


@service.get(
    "/accounts/{account_id}",
    response_model=FreshAccountOut,
    operation_id="getAccount",
    summary="Get any linked account, with its owner",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS, NotFound, UpstreamRejected),
)
async def get_account(
    account_id: AccountIdText,
    caller: AccountReader,
    runtime: RuntimeDep,
    query: Annotated[FreshQuery, Query()],
) -> FreshAccountOut | Response:
    account, is_stale = await get_fresh_account(runtime, caller, account_id, query)
    shown = FreshAccountOut.of_read(account, is_stale=is_stale)
    if not is_stale:
        return shown
    age = (runtime.clock.now() - shown.verified_at).total_seconds()
    return Response(shown.model_dump_json(), headers={"age": str(max(0, int(age)))}, media_type="application/json")
