"""What a route may ask for: a verified user or a verified service, and the Runtime."""

import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from app.errors import Unauthenticated
from app.identity.authenticate import Credentials
from app.identity.caller import EndUser, Scope, Service
from app.limits import Rate
from app.runtime import Runtime

# For the OpenAPI document only: the verification itself is below and does not use what these extract.
_browser_scheme = HTTPBearer(
    scheme_name="EndUser", bearerFormat="JWT", auto_error=False, description="JWT of the customer's identity provider."
)
_service_scheme = HTTPBearer(
    scheme_name="Service", auto_error=False, description="Service key (sk_...) or a machine's JWT with scopes."
)


def _runtime(request: Request) -> Runtime:
    runtime = request.app.state.runtime
    assert isinstance(runtime, Runtime)  # noqa: S101  set by the lifespan, before any request
    return runtime


RuntimeDep = Annotated[Runtime, Depends(_runtime)]


def _credentials(request: Request, runtime: Runtime) -> Credentials:
    cookie = runtime.settings.identity.cookie
    return Credentials(
        authorization=request.headers.getlist("authorization"),
        cookies=request.headers.getlist("cookie"),
        origin=request.headers.get("origin"),
        sec_fetch_site=request.headers.get("sec-fetch-site"),
        csrf_header=request.headers.get(cookie.csrf_header) if cookie else None,
    )


def _address(request: Request) -> str:
    """Return the address that refused credentials are counted for; behind trusted proxies it is the client's."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        # One customer of an internet provider has a whole /64 to choose addresses from.
        return str(ipaddress.ip_network((address.packed, 64), strict=False))
    return str(address)


@asynccontextmanager
async def _refusals_counted(channel: str, request: Request, runtime: Runtime) -> AsyncIterator[None]:
    """Count refused credentials by address: one that has sent too many gets 429 for further bad ones.

    A good credential is accepted from any address: behind one address there may be a whole office, a load balancer or a
    frontend's own backend, and one person's mistakes must not lock out the others. Requests without a credential do not
    count: they cost nothing, and a foreign page can make anybody's browser send them by the thousand.
    """
    try:
        yield
    except Unauthenticated as error:
        runtime.metrics.authentication.labels(channel).inc()
        if error.challenge_error is not None:
            await runtime.limiter.take(Rate.UNAUTHENTICATED_PER_ADDRESS, _address(request))
        raise


async def _end_user(
    request: Request, runtime: RuntimeDep, _scheme: Annotated[object, Security(_browser_scheme)]
) -> EndUser:
    async with _refusals_counted("browser", request, runtime):
        user = await runtime.authenticator.end_user(_credentials(request, runtime))
    await runtime.limiter.take(Rate.REQUESTS_PER_USER, user.issuer, user.subject)
    await runtime.limiter.take(Rate.REQUESTS_PER_OWNER, user.owner_id)
    return user


async def _service(
    request: Request, runtime: RuntimeDep, _scheme: Annotated[object, Security(_service_scheme)]
) -> Service:
    async with _refusals_counted("service", request, runtime):
        service = await runtime.authenticator.service(_credentials(request, runtime))
    await runtime.limiter.take(Rate.REQUESTS_PER_SERVICE, service.kind.value, service.credential_id)
    return service


EndUserDep = Annotated[EndUser, Depends(_end_user)]
ServiceDep = Annotated[Service, Depends(_service)]


def requires(scope: Scope) -> Callable[..., Awaitable[Service]]:
    """Return a dependency: a service that has the scope and, where the path names an owner, may act for it."""

    async def service_with_scope(request: Request, service: ServiceDep) -> Service:
        # From the path only: declared as a parameter it would turn into a query parameter on routes without an owner.
        service.require(scope, request.path_params.get("owner_id"))
        return service

    return service_with_scope
