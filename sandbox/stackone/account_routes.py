"""The accounts API: /accounts (v1) and the two documented calls of /v2/accounts."""

from collections.abc import Callable
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from sandbox.bodies import Body, JsonObject
from sandbox.stackone.account_json import account_meta, account_v1, account_v2
from sandbox.stackone.accounts import Account
from sandbox.stackone.decisions import altered
from sandbox.stackone.listing import matching
from sandbox.stackone.parts import Page, PageSize, TheProject, require_api_key
from sandbox.stackone.project import Project

router = APIRouter(dependencies=[Depends(require_api_key)])

# Of each filter's names: the field of the account that it is about.
_FILTERS_V1 = {
    "provider": "provider",
    "providers": "provider",
    "origin_owner_id": "origin_owner_id",
    "origin_owner_ids": "origin_owner_id",
    "account_ids": "id",
    "status": "status",
}
_FILTERS_V2 = {
    "connector": "provider",
    "owner_id": "origin_owner_id",
    "account_ids": "id",
    "status": "status",
    "connector_profile_id": "connector_profile_id",
}


class _AccountPatch(Body):
    provider: str | None = None
    origin_owner_id: str | None = None
    origin_owner_name: str | None = None
    origin_username: str | None = None
    credentials: JsonObject = Field(default_factory=dict)
    setup_information: JsonObject | None = None
    secrets: JsonObject = Field(default_factory=dict)
    authentication_config_key: str | None = None
    environment: str | None = None
    integration_id: str | None = None
    label: Any = None
    metadata: JsonObject | None = None
    type: Literal["production", "test"] | None = None
    shared: bool | None = None

    def changes(self, account: Account) -> JsonObject:
        """Return what becomes of the account. Credentials go in and never come out again."""
        changes = self.given()
        for without_consequence in ("authentication_config_key", "environment", "credentials"):
            changes.pop(without_consequence, None)
        # The vendor's npm client can write nothing but an object here, and reads nothing but text.
        if not isinstance(changes.get("label", ""), str):
            del changes["label"]
        if "integration_id" in changes:
            changes["connector_profile_id"] = changes.pop("integration_id")
        return changes | {"secrets": {**account.secrets, **self.credentials, **self.secrets}}


@router.get("/accounts")
async def list_accounts(
    request: Request, project: TheProject, page: Page = 1, page_size: PageSize = 25
) -> JSONResponse:
    """List accounts, oldest first."""
    write = account_v2 if project.listing.names == "v2" else account_v1
    return _listed(request, project, (page, page_size), _FILTERS_V1, write)


@router.get("/v2/accounts")
async def list_accounts_v2(
    request: Request, project: TheProject, page: Page = 1, page_size: PageSize = 25
) -> JSONResponse:
    """List accounts under the names of v2; paging and envelope are taken over from v1 (inferred)."""
    return _listed(request, project, (page, page_size), _FILTERS_V2, account_v2)


@router.get("/accounts/{account_id}")
async def get_account(account_id: str, project: TheProject) -> JSONResponse:
    """Read one account."""
    return JSONResponse(altered(account_v1(project.accounts.get(account_id)), project.lies.account))


@router.get("/v2/accounts/{account_id}")
async def get_account_v2(account_id: str, project: TheProject) -> JSONResponse:
    """Read one account under the names of v2."""
    return JSONResponse(altered(account_v2(project.accounts.get(account_id)), project.lies.account))


@router.patch("/accounts/{account_id}")
async def patch_account(account_id: str, body: _AccountPatch, project: TheProject) -> JSONResponse:
    """Change an account; even its owner, which is why nobody exposes this."""
    changes = body.changes(project.accounts.get(account_id))
    return JSONResponse(account_v1(project.accounts.change(account_id, changes)))


@router.delete("/accounts/{account_id}")
async def delete_account(account_id: str, project: TheProject) -> JSONResponse:
    """Unlink an account, and answer with what it was."""
    if project.lies.keep_deleted:
        return JSONResponse(account_v1(project.accounts.get(account_id)))
    return JSONResponse(account_v1(project.accounts.delete(account_id)))


@router.get("/accounts/{account_id}/meta")
async def get_account_meta(account_id: str, project: TheProject) -> JSONResponse:
    """Say what the account's connector offers."""
    return JSONResponse(account_meta(project.accounts.get(account_id)))


def _listed(
    request: Request,
    project: Project,
    page: tuple[int, int],
    filters: dict[str, str],
    write: Callable[[Account], JsonObject],
) -> JSONResponse:
    rows = matching(project.accounts, filters, request.query_params.multi_items())
    written = [altered(write(account), project.lies.listed) for account in project.listing.page(rows, *page)]
    return JSONResponse({"data": written} if project.listing.envelope else written)
