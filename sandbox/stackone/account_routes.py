"""The accounts API: /accounts (v1) and the two documented calls of /v2/accounts."""

from collections.abc import Callable
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from sandbox.bodies import Rule, checked, read_object
from sandbox.stackone.account_json import account_meta, account_v1, account_v2
from sandbox.stackone.accounts import Account
from sandbox.stackone.listing import AccountFilter
from sandbox.stackone.parts import TheProject, require_api_key
from sandbox.stackone.project import Project

router = APIRouter(dependencies=[Depends(require_api_key)])

Page = Annotated[int, Query(ge=0)]
PageSize = Annotated[int, Query(ge=1)]

_PATCH_RULES = {
    "provider": Rule(),
    "origin_owner_id": Rule(),
    "origin_owner_name": Rule(),
    "origin_username": Rule(),
    "credentials": Rule(kind="object"),
    "setup_information": Rule(kind="object"),
    "secrets": Rule(kind="object"),
    "authentication_config_key": Rule(),
    "environment": Rule(),
    "integration_id": Rule(),
    "label": Rule(kind="anything"),
    "metadata": Rule(kind="object"),
    "type": Rule(one_of=frozenset({"production", "test"})),
    "shared": Rule(kind="boolean"),
}
# Accepted, and of no consequence here.
_PATCHED_IN_VAIN = frozenset({"authentication_config_key", "environment"})


async def _filter_v1(request: Request) -> AccountFilter:
    query = request.query_params
    return AccountFilter(
        providers=frozenset([*query.getlist("provider"), *query.getlist("providers")]),
        owner_ids=frozenset([*query.getlist("origin_owner_id"), *query.getlist("origin_owner_ids")]),
        account_ids=frozenset(query.getlist("account_ids")),
        statuses=frozenset(query.getlist("status")),
    )


async def _filter_v2(request: Request) -> AccountFilter:
    query = request.query_params
    return AccountFilter(
        providers=frozenset(query.getlist("connector")),
        owner_ids=frozenset(query.getlist("owner_id")),
        account_ids=frozenset(query.getlist("account_ids")),
        statuses=frozenset(query.getlist("status")),
        connector_profile_ids=frozenset(query.getlist("connector_profile_id")),
    )


@router.get("/accounts")
async def list_accounts(
    project: TheProject,
    wanted: Annotated[AccountFilter, Depends(_filter_v1)],
    page: Page = 1,
    page_size: PageSize = 25,
) -> JSONResponse:
    """List accounts, oldest first."""
    write = account_v2 if project.listing.names == "v2" else account_v1
    return _listed(project, wanted, (page, page_size), write)


@router.get("/v2/accounts")
async def list_accounts_v2(
    project: TheProject,
    wanted: Annotated[AccountFilter, Depends(_filter_v2)],
    page: Page = 1,
    page_size: PageSize = 25,
) -> JSONResponse:
    """List accounts under the names of v2; paging and envelope are taken over from v1 (inferred)."""
    return _listed(project, wanted, (page, page_size), account_v2)


@router.get("/accounts/{account_id}")
async def get_account(account_id: str, project: TheProject) -> JSONResponse:
    """Read one account."""
    return JSONResponse(account_v1(project.accounts.get(account_id)))


@router.get("/v2/accounts/{account_id}")
async def get_account_v2(account_id: str, project: TheProject) -> JSONResponse:
    """Read one account under the names of v2."""
    return JSONResponse(account_v2(project.accounts.get(account_id)))


@router.patch("/accounts/{account_id}")
async def patch_account(account_id: str, request: Request, project: TheProject) -> JSONResponse:
    """Change an account; even its owner, which is why nobody exposes this."""
    body = checked(await read_object(request), _PATCH_RULES)
    account = project.accounts.get(account_id)
    return JSONResponse(account_v1(project.accounts.change(account_id, _changes(account, body))))


@router.delete("/accounts/{account_id}")
async def delete_account(account_id: str, project: TheProject) -> JSONResponse:
    """Unlink an account, and answer with what it was."""
    return JSONResponse(account_v1(project.accounts.delete(account_id)))


@router.get("/accounts/{account_id}/meta")
async def get_account_meta(account_id: str, project: TheProject) -> JSONResponse:
    """Say what the account's connector offers."""
    return JSONResponse(account_meta(project.accounts.get(account_id)))


def _listed(
    project: Project, wanted: AccountFilter, page: tuple[int, int], write: Callable[[Account], dict[str, object]]
) -> JSONResponse:
    rows = wanted.matching(project.accounts)
    written = [write(account) for account in project.listing.page(rows, *page)]
    return JSONResponse({"data": written} if project.listing.envelope else written)


def _changes(account: Account, body: dict[str, object]) -> dict[str, object]:
    changes = {name: value for name, value in body.items() if value is not None and name not in _PATCHED_IN_VAIN}
    # Credentials go in and never come out again.
    given = [changes.pop(name) for name in ("credentials", "secrets") if name in changes]
    if given:
        merged = dict(account.secrets)
        for more in given:
            merged |= cast("dict[str, object]", more)
        changes["secrets"] = merged
    if "integration_id" in changes:
        changes["connector_profile_id"] = changes.pop("integration_id")
    return changes
