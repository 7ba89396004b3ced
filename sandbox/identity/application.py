"""Routes of the identity provider: discovery, keys, the demo's sign-in, switches, and the demo's page."""

from functools import cache
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.routing import BaseRoute

from sandbox import switches
from sandbox.bodies import Body, JsonObject
from sandbox.errors import ApiError, answer_errors_like_stackone, bad_request
from sandbox.faults import InjectFaults
from sandbox.identity.keys import ALGORITHMS, Algorithm
from sandbox.identity.page import PageServer
from sandbox.identity.product import product_routes
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


async def _provider(request: Request) -> IdentityProvider:
    provider: IdentityProvider = request.app.state.external
    return provider


_TheProvider = Annotated[IdentityProvider, Depends(_provider)]
_router = APIRouter()
_switches = switch_router()


def create_identity_provider(provider: IdentityProvider) -> FastAPI:
    """Return the app; page and provider share one origin, as the demo needs no more."""
    app = FastAPI(title="Sandbox identity provider", openapi_url=None)
    app.state.external = provider
    answer_errors_like_stackone(app, provider.clock)
    app.router.routes.extend(_routes())
    app.include_router(product_routes(provider))
    app.mount("/", PageServer(provider.config))
    app.add_middleware(InjectFaults, faults=provider.faults, clock=provider.clock)
    app.add_middleware(RecordRequests, log=provider.requests, clock=provider.clock)
    return app


@cache
def _routes() -> list[BaseRoute]:
    # FastAPI finds out what a route needs when it is first asked for: once for all providers of a process.
    whole = APIRouter()
    for part in (_router, _switches, switches.router):
        whole.include_router(part)
    return whole.routes


@_router.get("/.well-known/openid-configuration")
async def discover(provider: _TheProvider) -> JSONResponse:
    """Return where the provider's keys are (OpenID Connect Discovery 1.0)."""
    issuer = provider.config.own_url
    return JSONResponse(
        {
            "issuer": issuer,
            "jwks_uri": f"{issuer}/jwks.json",
            "response_types_supported": ["token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": list(ALGORITHMS),
        }
    )


@_router.get("/jwks.json")
async def jwks(provider: _TheProvider) -> JSONResponse:
    """Return the public keys (RFC 7517)."""
    return JSONResponse(provider.keys.jwks())


@_router.get("/config.json")
async def page_config(provider: _TheProvider) -> JSONResponse:
    """Return what the demo's page must know."""
    config = provider.config
    known = {"broker": config.broker_url, "stackone": config.stackone_url, "appUrl": config.stackone_url}
    return JSONResponse(known, headers={"cache-control": "no-store"})


@_router.post("/demo/sign-in")
async def sign_in(provider: _TheProvider, request: Request, body: _SignIn) -> JSONResponse:
    """Return a token for one of the demo's users."""
    # No CORS headers, and no answer for a foreign page: only the demo's own page signs people in.
    if request.headers.get("origin", provider.config.own_url) != provider.config.own_url:
        raise ApiError(403, "Only the page of this origin may sign in")
    token = provider.mint(TokenOrder(user=_user(body.user)))
    return JSONResponse({"token": token, "expires_in": TOKEN_LIFETIME}, headers={"cache-control": "no-store"})


@_switches.post("/tokens")
async def mint(provider: _TheProvider, body: _NewToken) -> JSONResponse:
    """Make a token of any kind, wrong ones too."""
    order = TokenOrder(user=_user(body.user), claims=body.claims, expires_in=body.expires_in, algorithm=body.alg)
    return JSONResponse({"token": provider.mint(order), "expires_in": order.expires_in}, 201)


@_switches.post("/rotate-key")
async def rotate(provider: _TheProvider, body: _Rotation) -> JSONResponse:
    """Sign with another key from now on."""
    key = provider.keys.rotate(body.alg or provider.keys.default, keep_old=body.keep_old)
    return JSONResponse({"kid": key.kid, "alg": key.algorithm})


@_switches.post("/reset")
async def reset(provider: _TheProvider) -> JSONResponse:
    """Begin anew."""
    provider.reset()
    return JSONResponse({})


def _user(name: str) -> User:
    if name not in USERS:
        raise bad_request(f"user: must be one of {', '.join(sorted(USERS))}")
    return USERS[name]
