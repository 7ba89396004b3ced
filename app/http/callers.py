"""What a route may ask for: a verified user or a verified service, and the Runtime."""

import ipaddress
from typing import Annotated, Final

from fastapi import Depends, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from app.errors import Unauthenticated
from app.http.peer import CALLER, PEER, VERIFIED
from app.identity.authenticate import Credentials
from app.identity.caller import EndUser, Scope, Service
from app.limits import Rate
from app.runtime import Runtime


# A plain function would be run in a thread: a hundred times what it costs.
async def _runtime(request: Request) -> Runtime:
    runtime = request.app.state.runtime
    assert isinstance(runtime, Runtime)  # noqa: S101  set by the lifespan, before any request
    return runtime


RuntimeDep = Annotated[Runtime, Depends(_runtime)]


def _credentials(request: Request, runtime: Runtime) -> Credentials:
    """Take what may prove who sent a request, in one pass over its headers."""
    authenticator = runtime.authenticator
    csrf_header = (authenticator.csrf_header or "").lower().encode()
    authorization: list[str] = []
    cookies: list[str] = []
    proxied: list[tuple[str, str]] = []
    single: dict[bytes, str] = {}
    for name, value in request.scope["headers"]:
        if name == b"authorization":
            authorization.append(value.decode("latin-1"))
        elif name == b"cookie":
            cookies.append(value.decode("latin-1"))
        elif name in {b"origin", b"sec-fetch-site", csrf_header}:
            single.setdefault(name, value.decode("latin-1"))
        elif name in authenticator.proxy_headers:
            proxied.append((name.decode(), value.decode("latin-1")))
    return Credentials(
        authorization=authorization,
        cookies=cookies,
        origin=single.get(b"origin"),
        sec_fetch_site=single.get(b"sec-fetch-site"),
        csrf_header=single.get(csrf_header),
        proxied=proxied,
        peer=request.scope.get(PEER) or (request.client.host if request.client else None),
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


async def _count_refusal(channel: str, request: Request, runtime: Runtime, error: Unauthenticated) -> None:
    """Count a refused credential by address: one that has sent too many gets 429 for further bad ones.

    A good credential is accepted from any address: behind one address there may be a whole office, a load balancer or a
    frontend's own backend, and one person's mistakes must not lock out the others. Requests without a credential do not
    count: they cost nothing, and a foreign page can make anybody's browser send them by the thousand.
    """
    runtime.metrics.authentication.labels(channel).inc()
    if error.challenge_error is not None:
        await runtime.limiter.take(Rate.UNAUTHENTICATED_PER_ADDRESS, _address(request))


# Of the user and of the owner that a request comes from; whose hit it is, the rate's name says.
_OF_USERS: Final = frozenset({Rate.REQUESTS_PER_USER, Rate.MINT_PER_USER})


class _Users(SecurityBase):
    """A dependency: the end user that a browser route is called by, and the scheme of the OpenAPI document in one."""

    def __init__(self, *rates: Rate) -> None:
        """Count each request against these rates, besides those of all requests."""
        self.scheme_name = "EndUser"
        self.model = HTTPBearer(bearerFormat="JWT", description="JWT of the customer's identity provider.")
        self._rates = (Rate.REQUESTS_PER_USER, Rate.REQUESTS_PER_OWNER, *rates)

    async def __call__(self, request: Request) -> EndUser:
        """Verify the credential of a request, and count the request, once."""
        known = request.scope.get(CALLER)
        if isinstance(known, EndUser):
            return known
        runtime = await _runtime(request)
        try:
            user = await runtime.authenticator.end_user(_credentials(request, runtime))
        except Unauthenticated as error:
            await _count_refusal("browser", request, runtime, error)
            raise
        request.scope[VERIFIED] = True
        person, owner = (user.issuer, user.subject), (user.owner_id,)
        await runtime.limiter.take_all(*((rate, person if rate in _OF_USERS else owner) for rate in self._rates))
        request.scope[CALLER] = user
        return user


class _Services(SecurityBase):
    """A dependency: a service that has a scope and, where the path names an owner, may act for it."""

    def __init__(self, scope: Scope) -> None:
        self.scheme_name = "Service"
        self.model = HTTPBearer(description="Service key (sk_...) or a machine's JWT with scopes.")
        self.scope = scope

    async def __call__(self, request: Request) -> Service:
        """Verify the credential of a request, count the request, once, and see what the credential allows."""
        known = request.scope.get(CALLER)
        if isinstance(known, Service):
            return known
        runtime = await _runtime(request)
        try:
            service = await runtime.authenticator.service(_credentials(request, runtime))
        except Unauthenticated as error:
            await _count_refusal("service", request, runtime, error)
            raise
        request.scope[VERIFIED] = True
        await runtime.limiter.take(Rate.REQUESTS_PER_SERVICE, service.kind.value, service.credential_id)
        # From the path only: declared as a parameter it would turn into a query parameter on routes without an owner.
        service.require(self.scope, request.path_params.get("owner_id"))
        request.scope[CALLER] = service
        return service


EndUserDep = Annotated[EndUser, Security(_Users())]
MintingUserDep = Annotated[EndUser, Security(_Users(Rate.MINT_PER_USER, Rate.MINT_PER_OWNER))]


def required_scope(dependant: Dependant) -> Scope | None:
    """Return the scope that a route asks for, by its dependencies; None if it is not for services."""
    if isinstance(dependant.call, _Services):
        return dependant.call.scope
    found = (required_scope(each) for each in dependant.dependencies)
    return next((scope for scope in found if scope is not None), None)


def requires(scope: Scope) -> _Services:
    """Return a dependency: a service that has the scope and, where the path names an owner, may act for it."""
    return _Services(scope)
