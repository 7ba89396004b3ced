"""Routes of the identity provider: discovery, keys, the demo's sign-in, switches, and the demo's page."""

from typing import Annotated

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from sandbox.bodies import Body, JsonObject
from sandbox.errors import ApiError, answer_errors_like_stackone, bad_request
from sandbox.faults import InjectFaults
from sandbox.identity.keys import ALGORITHMS, Algorithm
from sandbox.identity.page import PageServer
from sandbox.identity.provider import TOKEN_LIFETIME, USERS, IdentityProvider, TokenOrder, User
from sandbox.recording import RecordRequests
from sandbox.switches import switch_router

_LONGEST_LIFETIME = 10 * 365 * 86_400


class _SignIn(Body):
    user: str


class _NewToken(_SignIn):
    claims: JsonObject = Field(default_factory=dict)
    # Tokens from the past are made too, so only the size is bounded.
    expires_in: Annotated[float, Field(gt=-_LONGEST_LIFETIME, lt=_LONGEST_LIFETIME)] = TOKEN_LIFETIME
    alg: Algorithm | None = None


class _Rotation(Body):
    keep_old: bool = False
    alg: Algorithm | None = None


def create_identity_provider(provider: IdentityProvider) -> FastAPI:
    """Return the app; page and provider share one origin, as the demo needs no more."""
    app = FastAPI(title="Sandbox identity provider", openapi_url=None)
    answer_errors_like_stackone(app, provider.clock)
    app.include_router(_discovery(provider))
    app.include_router(_sign_in(provider))
    app.include_router(_switches(provider))
    app.mount("/", PageServer(provider.config))
    app.add_middleware(InjectFaults, faults=provider.faults, clock=provider.clock)
    app.add_middleware(RecordRequests, log=provider.requests, clock=provider.clock)
    return app


def _discovery(provider: IdentityProvider) -> APIRouter:
    router = APIRouter()
    issuer = provider.config.own_url

    @router.get("/.well-known/openid-configuration")
    async def discover() -> JSONResponse:
        return JSONResponse(
            {
                "issuer": issuer,
                "jwks_uri": f"{issuer}/jwks.json",
                "response_types_supported": ["token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": list(ALGORITHMS),
            }
        )

    @router.get("/jwks.json")
    async def jwks() -> JSONResponse:
        return JSONResponse(provider.keys.jwks())

    @router.get("/config.json")
    async def page_config() -> JSONResponse:
        config = provider.config
        known = {"broker": config.broker_url, "stackone": config.stackone_url, "appUrl": config.stackone_url}
        return JSONResponse(known, headers={"cache-control": "no-store"})

    return router


def _sign_in(provider: IdentityProvider) -> APIRouter:
    router = APIRouter()

    @router.post("/demo/sign-in")
    async def sign_in(request: Request, body: _SignIn) -> JSONResponse:
        # No CORS headers, and no answer for a foreign page: only the demo's own page signs people in.
        if request.headers.get("origin", provider.config.own_url) != provider.config.own_url:
            raise ApiError(403, "Only the page of this origin may sign in")
        token = provider.mint(TokenOrder(user=_user(body.user)))
        return JSONResponse({"token": token, "expires_in": TOKEN_LIFETIME}, headers={"cache-control": "no-store"})

    return router


def _switches(provider: IdentityProvider) -> APIRouter:
    router = switch_router(provider.config.sandbox_key, provider.faults, provider.requests)

    @router.post("/tokens")
    async def mint(body: _NewToken) -> JSONResponse:
        order = TokenOrder(user=_user(body.user), claims=body.claims, expires_in=body.expires_in, algorithm=body.alg)
        return JSONResponse({"token": provider.mint(order), "expires_in": order.expires_in}, 201)

    @router.post("/rotate-key")
    async def rotate(body: _Rotation) -> JSONResponse:
        key = provider.keys.rotate(body.alg or provider.keys.default, keep_old=body.keep_old)
        return JSONResponse({"kid": key.kid, "alg": key.algorithm})

    @router.post("/reset")
    async def reset() -> JSONResponse:
        provider.reset()
        return JSONResponse({})

    return router


def _user(name: str) -> User:
    if name not in USERS:
        raise bad_request(f"user: must be one of {', '.join(sorted(USERS))}")
    return USERS[name]
