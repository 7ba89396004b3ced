"""Routes of the identity provider: discovery, keys, the demo's sign-in, switches, and the page under all of it."""

import math
from typing import cast

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse

from sandbox.bodies import Rule, checked, read_object
from sandbox.errors import ApiError, answer_errors_like_stackone
from sandbox.faults import InjectFaults
from sandbox.identity.keys import Algorithm
from sandbox.identity.page import PageServer
from sandbox.identity.provider import TOKEN_LIFETIME, USERS, IdentityProvider, TokenOrder, User
from sandbox.recording import RecordRequests
from sandbox.switches import add_fault_switches, add_request_switches, switch_router

_ALGORITHMS = frozenset({"RS256", "ES256"})
_TOKEN_RULES = {
    "user": Rule(required=True),
    "claims": Rule(kind="object"),
    "expires_in": Rule(kind="number"),
    "alg": Rule(one_of=_ALGORITHMS),
}
_ROTATE_RULES = {"keep_old": Rule(kind="boolean"), "alg": Rule(one_of=_ALGORITHMS)}
_LONGEST_LIFETIME = 10 * 365 * 86_400


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
                "id_token_signing_alg_values_supported": sorted(_ALGORITHMS),
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
    async def sign_in(request: Request) -> JSONResponse:
        # No CORS headers, and no answer for a foreign page: only the demo's own page signs people in.
        if request.headers.get("origin", provider.config.own_url) != provider.config.own_url:
            raise ApiError(403, "Only the page of this origin may sign in")
        body = checked(await read_object(request), {"user": Rule(required=True)})
        token = provider.mint(TokenOrder(user=_user(body)))
        return JSONResponse({"token": token, "expires_in": TOKEN_LIFETIME}, headers={"cache-control": "no-store"})

    return router


def _switches(provider: IdentityProvider) -> APIRouter:
    router = switch_router(provider.config.sandbox_key)
    add_fault_switches(router, provider.faults)
    add_request_switches(router, provider.requests)

    @router.post("/tokens", status_code=201)
    async def mint(request: Request) -> JSONResponse:
        order = _order(checked(await read_object(request), _TOKEN_RULES))
        return JSONResponse({"token": provider.mint(order), "expires_in": order.expires_in}, 201)

    @router.post("/rotate-key")
    async def rotate(request: Request) -> JSONResponse:
        body = checked(await read_object(request), _ROTATE_RULES)
        algorithm = cast("Algorithm", body.get("alg") or provider.keys.default)
        key = provider.keys.rotate(algorithm, keep_old=bool(body.get("keep_old")))
        return JSONResponse({"kid": key.kid, "alg": key.algorithm})

    @router.post("/reset")
    async def reset() -> JSONResponse:
        provider.reset()
        return JSONResponse({})

    return router


def _user(body: dict[str, object]) -> User:
    user = USERS.get(str(body["user"]))
    if user is None:
        raise ApiError(400, "Bad Request", errors=[f"user must be one of: {', '.join(sorted(USERS))}"])
    return user


def _order(body: dict[str, object]) -> TokenOrder:
    lifetime = cast("float | None", body.get("expires_in"))
    # Tokens from the past are asked for too, so only the size is bounded.
    if lifetime is not None and not math.fabs(lifetime) < _LONGEST_LIFETIME:
        raise ApiError(400, "Bad Request", errors=["expires_in is out of range"])
    return TokenOrder(
        user=_user(body),
        claims=cast("dict[str, object] | None", body.get("claims")) or {},
        expires_in=TOKEN_LIFETIME if lifetime is None else lifetime,
        algorithm=cast("Algorithm | None", body.get("alg")),
    )
