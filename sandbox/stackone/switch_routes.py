"""The switches of the emulator: accounts made elsewhere, webhook modes, listing shapes, and a way back."""

from collections.abc import Mapping
from typing import cast

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from sandbox.bodies import Rule, checked, read_object
from sandbox.recording import KEPT_REQUESTS
from sandbox.stackone.account_json import account_v1
from sandbox.stackone.accounts import LinkOrder
from sandbox.stackone.listing import Listing
from sandbox.stackone.project import Project
from sandbox.switches import After, Limit, add_fault_switches, add_request_switches, switch_router

_SETTLE_SECONDS = 10

_ACCOUNT_RULES: Mapping[str, Rule] = {
    "provider": Rule(not_empty=True),
    "provider_name": Rule(),
    "status": Rule(not_empty=True),
    "status_reasons": Rule(kind="objects"),
    "origin_owner_id": Rule(),
    "origin_owner_name": Rule(),
    "origin_username": Rule(),
    "credentials": Rule(kind="object"),
    "setup_information": Rule(kind="object"),
    "secrets": Rule(kind="object"),
    "metadata": Rule(kind="object"),
    "connector_profile_id": Rule(),
    "label": Rule(kind="anything"),
    "type": Rule(),
    "shared": Rule(kind="boolean"),
    "created_at": Rule(),
    "updated_at": Rule(),
}
_NEW_ACCOUNT_RULES = {**_ACCOUNT_RULES, "id": Rule(not_empty=True), "multiple": Rule(kind="boolean")}
_MAY_BE_NULL = frozenset({"origin_owner_id", "origin_owner_name", "origin_username", "provider_name", "label"})


def switches(project: Project) -> APIRouter:
    """Return every switch, behind the sandbox's key."""
    router = switch_router(project.config.sandbox_key)
    add_fault_switches(router, project.faults)
    add_request_switches(router, project.requests)
    _add_account_switches(router, project)
    _add_webhook_switches(router, project)
    _add_behaviour_switches(router, project)
    return router


def _add_account_switches(router: APIRouter, project: Project) -> None:
    @router.get("/accounts")
    async def list_accounts(after: After = 0, limit: Limit = KEPT_REQUESTS) -> JSONResponse:
        written = [account_v1(account) for account in project.accounts]
        return JSONResponse(written[after : after + limit])

    @router.post("/accounts", status_code=201)
    async def link_account(request: Request) -> JSONResponse:
        body = checked(await read_object(request), _NEW_ACCOUNT_RULES)
        return JSONResponse(account_v1(project.accounts.link(_order(body))), 201)

    @router.patch("/accounts/{account_id}")
    async def change_account(account_id: str, request: Request) -> JSONResponse:
        body = checked(await read_object(request), _ACCOUNT_RULES)
        return JSONResponse(account_v1(project.accounts.change(account_id, _changes(body))))

    @router.delete("/accounts/{account_id}")
    async def delete_account(account_id: str) -> JSONResponse:
        return JSONResponse(account_v1(project.accounts.delete(account_id)))


def _add_webhook_switches(router: APIRouter, project: Project) -> None:
    @router.post("/webhooks")
    async def set_mode(request: Request) -> JSONResponse:
        project.webhooks.change(await read_object(request))
        settings = project.webhooks.settings
        return JSONResponse({"mode": settings.mode, "delay_ms": settings.delay_ms, "url": settings.url})

    @router.get("/deliveries")
    async def list_deliveries(after: After = 0, limit: Limit = KEPT_REQUESTS) -> JSONResponse:
        return JSONResponse([delivery.to_json() for delivery in project.webhooks.log.after(after, limit)])

    @router.post("/deliveries/settle")
    async def wait_for_answers() -> JSONResponse:
        return JSONResponse({"settled": await project.webhooks.settle(_SETTLE_SECONDS)})

    @router.post("/deliveries/{n}/replay")
    async def replay(n: int) -> JSONResponse:
        return JSONResponse((await project.webhooks.replay(n)).to_json())


def _add_behaviour_switches(router: APIRouter, project: Project) -> None:
    @router.post("/listing")
    async def set_listing(request: Request) -> JSONResponse:
        project.listing = Listing.wished(await read_object(request))
        return JSONResponse({})

    @router.post("/limits")
    async def set_limits(request: Request) -> JSONResponse:
        project.limits.change(await read_object(request))
        return JSONResponse({"enabled": project.limits.enabled, "per_minute": project.limits.per_minute})

    @router.post("/api-key")
    async def set_api_key(request: Request) -> JSONResponse:
        project.api_key.change(await read_object(request))
        return JSONResponse({"lacks_scope": project.api_key.lacks_scope})

    @router.post("/sessions/revoke")
    async def revoke_session(request: Request) -> JSONResponse:
        body = checked(await read_object(request), {"token": Rule(required=True)})
        return JSONResponse({"revoked": project.sessions.revoke(str(body["token"]))})

    @router.post("/reset")
    async def reset() -> JSONResponse:
        project.reset()
        return JSONResponse({})


def _order(body: dict[str, object]) -> LinkOrder:
    owner_id = cast("str | None", body.get("origin_owner_id", "org_sandbox"))
    return LinkOrder(
        provider=str(body.get("provider") or "bamboohr"),
        origin_owner_id=owner_id,
        origin_owner_name=cast("str | None", body.get("origin_owner_name", owner_id)),
        # Somebody who links elsewhere gets a new account each time, unless asked to go by the key.
        multiple=body.get("multiple") is not False,
        fixed_id=cast("str | None", body.get("id")),
        changes=_changes(body),
    )


def _changes(body: Mapping[str, object]) -> dict[str, object]:
    wanted = {name: body[name] for name in _ACCOUNT_RULES if name in body}
    return {name: value for name, value in wanted.items() if value is not None or name in _MAY_BE_NULL}
