"""Linked accounts over HTTP: an end user's own, and any owner's for services."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from app.http.callers import EndUserDep, RuntimeDep, requires
from app.http.problems import documented
from app.identity.caller import Scope, Service
from app.inputs import AccountIdText, OwnerId
from app.linked_accounts import feed, store
from app.linked_accounts.confirm import confirm_account
from app.linked_accounts.disconnect import disconnect
from app.linked_accounts.feed_schemas import EventPage
from app.linked_accounts.queries import AccountsQuery, EventsQuery
from app.linked_accounts.schemas import LeavingAccountOut, LinkedAccountOut, LinkedAccountPage
from app.runtime import Runtime

browser = APIRouter(prefix="/v1/linked-accounts", tags=["browser"])
service = APIRouter(prefix="/v1", tags=["service"])

Accounts = Annotated[AccountsQuery, Query()]
Events = Annotated[EventsQuery, Query()]
AccountReader = Annotated[Service, Depends(requires(Scope.ACCOUNTS_READ))]
EventReader = Annotated[Service, Depends(requires(Scope.EVENTS_READ))]
AccountWriter = Annotated[Service, Depends(requires(Scope.ACCOUNTS_WRITE))]


@browser.get("", summary="List your linked accounts", responses=documented(401, 422, 429, 503))
async def list_own_accounts(  # noqa: D103
    user: EndUserDep, runtime: RuntimeDep, query: Accounts
) -> LinkedAccountPage:
    return LinkedAccountPage.of(await store.list_accounts(runtime, user.owner_id, query))


@browser.get("/{account_id}", summary="Get one of your linked accounts", responses=documented(401, 404, 422, 429, 503))
async def get_own_account(  # noqa: D103
    account_id: AccountIdText, user: EndUserDep, runtime: RuntimeDep
) -> LinkedAccountOut:
    return LinkedAccountOut.of(await store.get_own_account(runtime, user, account_id))


@browser.post(
    "/{account_id}/confirm",
    summary="Confirm an account that the Hub says was linked: read at StackOne, checked to be yours, stored",
    responses=documented(401, 404, 422, 429, 502, 503),
)
async def confirm_own_account(  # noqa: D103
    account_id: AccountIdText, user: EndUserDep, runtime: RuntimeDep
) -> LinkedAccountOut:
    return LinkedAccountOut.of(await confirm_account(runtime, user, account_id))


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
async def read_events(caller: EventReader, runtime: RuntimeDep, query: Events) -> EventPage:  # noqa: D103
    return EventPage.of(await feed.read_events(runtime, caller, query), after=query.after)


@service.get(
    "/owners/{owner_id}/linked-accounts",
    summary="List an owner's linked accounts",
    responses=documented(401, 403, 422, 429, 503),
)
async def list_owner_accounts(  # noqa: D103
    owner_id: OwnerId, _service: AccountReader, runtime: RuntimeDep, query: Accounts
) -> LinkedAccountPage:
    return LinkedAccountPage.of(await store.list_accounts(runtime, owner_id, query))


@service.get(
    "/accounts/{account_id}",
    summary="Get any linked account, with its owner",
    responses=documented(401, 403, 404, 422, 429, 503),
)
async def get_account(  # noqa: D103
    account_id: AccountIdText, caller: AccountReader, runtime: RuntimeDep
) -> LinkedAccountOut:
    return LinkedAccountOut.of(await store.get_account(runtime, caller, account_id))
