"""The backend of the product whose page this is: invites colleagues, and tells a user what they can repair."""

from typing import Annotated

import httpx2
from fastapi import APIRouter, Header
from fastapi.responses import JSONResponse

from sandbox.bodies import Body
from sandbox.errors import ApiError, bad_request
from sandbox.identity.provider import USERS, IdentityProvider, User

_SECONDS = 20.0
_UNCACHED = {"cache-control": "no-store"}

Authorization = Annotated[str, Header()]


class _Invitation(Body):
    colleague: str | None = None
    provider: str | None = None


def product_routes(provider: IdentityProvider) -> APIRouter:
    """Return the routes; each answers for whoever the token of the request names."""
    router = APIRouter(prefix="/demo")

    @router.post("/invitations")
    async def invite(body: _Invitation, authorization: Authorization = "") -> JSONResponse:
        user = _signed_in(provider, authorization)
        request: dict[str, str] = {"provider": body.provider} if body.provider else {}
        if body.colleague is not None:
            colleague = USERS.get(body.colleague)
            if colleague is None or colleague.org_id != user.org_id:
                raise bad_request("colleague: must be somebody of the same organisation")
            request["for"] = colleague.email
        async with _broker(provider) as broker:
            answer = await broker.post(f"/v1/owners/{user.org_id}/invitations", json=request)
        if not answer.is_success:
            raise ApiError(502, f"The broker answered {answer.status_code}")
        return JSONResponse({"url": answer.json()["url"]}, 201, headers=_UNCACHED)

    @router.get("/banners")
    async def banners(authorization: Authorization = "") -> JSONResponse:
        user = _signed_in(provider, authorization)
        async with _broker(provider) as broker:
            accounts = (await broker.get(f"/v1/owners/{user.org_id}/linked-accounts?limit=200")).json()["data"]
            broken = [account["account_id"] for account in accounts if account["needs_reauth"]]
            changes = [(await broker.get(f"/v1/accounts/{account_id}/events")).json()["data"] for account_id in broken]
        repairs = {
            change["account_id"]: change["repair"] for history in changes for change in history if change.get("repair")
        }
        shown = [
            {"account_id": account_id, "provider": repair["provider"], "url": repair["url"]}
            for account_id, repair in repairs.items()
            if repair["for"] in {None, user.email} and repair["url"] is not None
        ]
        return JSONResponse(shown, headers=_UNCACHED)

    return router


def _signed_in(provider: IdentityProvider, authorization: str) -> User:
    user = provider.user_of(authorization.removeprefix("Bearer "))
    if user is None:
        raise ApiError(401, "Sign in first")
    return user


def _broker(provider: IdentityProvider) -> httpx2.AsyncClient:
    if provider.service_key is None:
        raise ApiError(503, "There is no broker beside this page")
    return httpx2.AsyncClient(
        base_url=provider.config.broker_url,
        headers={"authorization": f"Bearer {provider.service_key}"},
        timeout=_SECONDS,
        trust_env=False,
    )
