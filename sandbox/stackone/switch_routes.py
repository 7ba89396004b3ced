"""The switches of the emulator: accounts made elsewhere, webhook modes, listing shapes, and a way back."""

from typing import Any, ClassVar

from fastapi.responses import JSONResponse
from pydantic import Field

from sandbox.bodies import Body, JsonObject, Text
from sandbox.recording import KEPT_REQUESTS
from sandbox.stackone.account_json import account_v1
from sandbox.stackone.accounts import LinkOrder
from sandbox.stackone.decisions import Decisions, Lies
from sandbox.stackone.gate import KeyChange, LimitChange
from sandbox.stackone.listing import Listing
from sandbox.stackone.parts import TheProject
from sandbox.stackone.webhooks import WebhookChange
from sandbox.switches import After, Limit, switch_router

_SETTLE_SECONDS = 10


class _AccountChange(Body):
    null_is_a_value: ClassVar[frozenset[str]] = frozenset(
        {"origin_owner_id", "origin_owner_name", "origin_username", "provider_name", "label"}
    )

    provider: Text = "bamboohr"
    provider_name: str | None = None
    status: Text | None = None
    status_reasons: list[JsonObject] = Field(default_factory=list)
    origin_owner_id: str | None = "org_sandbox"
    origin_owner_name: str | None = None
    origin_username: str | None = None
    credentials: JsonObject = Field(default_factory=dict)
    setup_information: JsonObject = Field(default_factory=dict)
    secrets: JsonObject = Field(default_factory=dict)
    metadata: JsonObject = Field(default_factory=dict)
    connector_profile_id: str | None = None
    label: Any = None
    type: str | None = None
    shared: bool | None = None
    created_at: str | None = None
    updated_at: str | None = None


class _NewAccount(_AccountChange):
    id: Text | None = None
    # Somebody who links elsewhere gets a new account each time, unless the key is to decide.
    multiple: bool = True

    def order(self) -> LinkOrder:
        """Return what is to be linked; an owner without a name is named by its id."""
        changes = self.given()
        return LinkOrder(
            provider=self.provider,
            origin_owner_id=self.origin_owner_id,
            origin_owner_name=changes.get("origin_owner_name", self.origin_owner_id),
            multiple=self.multiple,
            fixed_id=self.id,
            changes={name: value for name, value in changes.items() if name not in ("id", "multiple")},
        )


class _AuthConfigChange(Body):
    active: bool | None = None
    default: bool | None = None


class _Token(Body):
    token: str


router = switch_router()


@router.get("/accounts")
async def list_accounts(project: TheProject, after: After = 0, limit: Limit = KEPT_REQUESTS) -> JSONResponse:
    """Return the accounts of all owners."""
    written = [account_v1(account) for account in project.accounts]
    return JSONResponse(written[after : after + limit])


@router.post("/accounts")
async def link_account(project: TheProject, body: _NewAccount) -> JSONResponse:
    """Link an account, as somebody does elsewhere."""
    return JSONResponse(account_v1(project.accounts.link(body.order())), 201)


@router.patch("/accounts/{account_id}")
async def change_account(project: TheProject, account_id: str, body: _AccountChange) -> JSONResponse:
    """Change an account, as somebody does in StackOne's dashboard."""
    return JSONResponse(account_v1(project.accounts.change(account_id, body.given())))


@router.delete("/accounts/{account_id}")
async def delete_account(project: TheProject, account_id: str) -> JSONResponse:
    """Delete an account, as somebody does in StackOne's dashboard."""
    return JSONResponse(account_v1(project.accounts.delete(account_id)))


@router.post("/webhooks")
async def set_mode(project: TheProject, body: WebhookChange) -> JSONResponse:
    """Say how events are delivered."""
    settings = project.webhooks.change(body)
    return JSONResponse({"mode": settings.mode, "delay_ms": settings.delay_ms, "url": settings.url})


@router.get("/deliveries")
async def list_deliveries(project: TheProject, after: After = 0, limit: Limit = KEPT_REQUESTS) -> JSONResponse:
    """Return how deliveries went."""
    return JSONResponse([delivery.to_json() for delivery in project.webhooks.log.after(after, limit)])


@router.post("/deliveries/settle")
async def wait_for_answers(project: TheProject) -> JSONResponse:
    """Wait until all events are delivered or given up."""
    return JSONResponse({"settled": await project.webhooks.settle(_SETTLE_SECONDS)})


@router.post("/deliveries/{n}/replay")
async def replay(project: TheProject, n: int) -> JSONResponse:
    """Deliver an event once more."""
    return JSONResponse((await project.webhooks.replay(n)).to_json())


@router.post("/listing")
async def set_listing(project: TheProject, body: Listing) -> JSONResponse:
    """Say what shape listings have."""
    project.listing = body
    return JSONResponse({})


@router.post("/decisions")
async def set_decisions(project: TheProject, body: Decisions) -> JSONResponse:
    """Say how undocumented cases are decided."""
    project.decisions = body
    return JSONResponse(body.model_dump())


@router.post("/lies")
async def set_lies(project: TheProject, body: Lies) -> JSONResponse:
    """Say which answers are untrue."""
    project.lies = body
    return JSONResponse(body.model_dump())


@router.post("/auth-configs/{config_id}")
async def change_auth_config(project: TheProject, config_id: str, body: _AuthConfigChange) -> JSONResponse:
    """Enable or disable an auth config, or make it the default."""
    return JSONResponse(project.change_auth_config(config_id, body.given()).for_the_backend())


@router.post("/limits")
async def set_limits(project: TheProject, body: LimitChange) -> JSONResponse:
    """Say how many requests a minute are allowed."""
    project.limits.change(body)
    return JSONResponse(body.model_dump())


@router.post("/api-key")
async def set_api_key(project: TheProject, body: KeyChange) -> JSONResponse:
    """Change the API key, or what it may do."""
    project.api_key.change(body)
    return JSONResponse({"lacks_scope": project.api_key.lacks_scope})


@router.post("/sessions/revoke")
async def revoke_session(project: TheProject, body: _Token) -> JSONResponse:
    """End a connect session."""
    return JSONResponse({"revoked": project.sessions.revoke(body.token)})


@router.post("/reset")
async def reset(project: TheProject) -> JSONResponse:
    """Begin anew."""
    project.reset()
    return JSONResponse({})
