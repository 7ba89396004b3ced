"""A small world on loopback sockets: the StackOne emulator, an identity provider, and the broker between them.

Everything is the real thing over real HTTP. The broker runs in this process, so that a test may hold its Runtime;
its calls to StackOne go through a transport that fails the test if a transaction is open while one is made.
"""

import copy
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import httpx2
from fastapi import FastAPI

from app.clock import Clock, SystemClock
from app.db.database import transaction_open
from app.identity.caller import Scope
from app.identity.service_keys import keys as api_keys
from app.main import create_app
from app.runtime import Externals, Runtime
from app.settings import Settings
from app.stackone.wire import Wire
from sandbox.identity.application import create_identity_provider
from sandbox.identity.keys import KeyRing
from sandbox.identity.provider import USERS, IdentityConfig, IdentityProvider, TokenOrder
from sandbox.serving import bind, url_of
from sandbox.stackone.application import create_stackone
from sandbox.stackone.decisions import Decisions
from sandbox.stackone.project import Project, StackOneConfig
from tests.support.announced import Announced
from tests.support.serving import serving_all
from tests.support.wires import PlainWire

API_KEY = "demo-canary-api-key-7f3a91"
WEBHOOK_SECRET = "demo-canary-webhook-secret-5b20"
PEPPER = "demo-canary-pepper-c41d77"
USER_TOKEN_SECRET = "demo-canary-user-token-secret-3e77b0"
INVITATION_SECRET = "demo-canary-invitation-secret-08d4e1"
INVITATION_PAGE = "http://127.0.0.1:8200/invited"
SANDBOX_KEY = "demo-canary-sandbox-key-99aa"


class NoTransactionTransport(Wire):
    """The wire, refusing to carry a call that is made inside a transaction. It reads no certificates, like the next."""

    def __init__(self) -> None:
        super().__init__(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), max_connections=1000)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request."""
        assert not transaction_open.get(), f"a transaction is open during {request.method} {request.url.path}"
        return await super().handle_async_request(request)


def settings_for(*, database_url: str, stackone_url: str, issuer: str, **sections: Any) -> Settings:
    """Return settings that fit the world; a section given here is laid over the usual one."""
    values: dict[str, Any] = {
        "environment": "development",
        "http": {"allowed_origins": ["http://127.0.0.1:8200"], "docs": True},
        "metrics": {"port": None},
        "stackone": {
            "api_key": API_KEY,
            "base_url": stackone_url,
            "webhook_secrets": [WEBHOOK_SECRET],
            "timeout_seconds": 2,
            "total_timeout_seconds": 4,
        },
        "database": {"url": database_url, "pool_size": 5},
        "identity": {
            "issuers": [
                {
                    "issuer": issuer,
                    "audiences": ["connect-broker"],
                    "algorithms": ["RS256"],
                    "claims": {"owner_id": "org_id", "owner_name": "org_name", "username": "email"},
                }
            ]
        },
        "service_keys": {"pepper": PEPPER},
        "user_tokens": {"secrets": [USER_TOKEN_SECRET]},
        "invitations": {"page_url": INVITATION_PAGE, "secrets": [INVITATION_SECRET]},
        "sync": {"poll_seconds": 0.2, "backoff_seconds": 0.1, "sweep_interval_seconds": 0},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, Mapping) else section
    return Settings.model_validate(values)


@dataclass
class World:
    """What a test may touch."""

    project: Project
    provider: IdentityProvider
    runtime: Runtime
    web: FastAPI
    broker: httpx2.AsyncClient
    stackone: httpx2.AsyncClient
    settings: Settings
    issuer: str
    service_key: str = ""
    clock: Clock = field(default_factory=SystemClock)

    def token(self, user: str = "alice", *, expires_in: float = 3600, **claims: object) -> str:
        """Return a signed token of a demo user, its claims changed; a claim of None is left out."""
        return self.provider.mint(TokenOrder(user=USERS[user], claims=claims, expires_in=expires_in))

    def as_user(self, user: str = "alice", *, expires_in: float = 3600, **claims: object) -> dict[str, str]:
        """Return the header of a signed-in user."""
        return {"authorization": f"Bearer {self.token(user, expires_in=expires_in, **claims)}"}

    async def mint(
        self, user: str = "alice", body: Mapping[str, object] | None = None, /, **claims: Any
    ) -> httpx2.Response:
        """Have a signed-in user ask for a session; return the answer."""
        return await self.broker.post("/v1/connect-sessions", headers=self.as_user(user, **claims), json=body or {})

    def as_service(self, key: str | None = None) -> dict[str, str]:
        """Return the header of a service; it has every scope unless another key is given."""
        return {"authorization": f"Bearer {key or self.service_key}"}

    async def create_key(self, *scopes: Scope, owners: tuple[str, ...] | None = None, days: int = 1) -> str:
        """Make a service key; without scopes it has all of them."""
        now = datetime.now(UTC)
        async with self.runtime.database.transaction() as connection:
            created = await api_keys.create_key(
                connection,
                name="test",
                scopes=scopes or tuple(Scope),
                owner_ids=owners,
                expires_at=now + timedelta(days=days),
                now=now,
                pepper=PEPPER.encode(),
                token_bytes=self.runtime.token_bytes,
            )
        return created.key

    async def link(self, user: str = "alice", provider: str = "bamboohr", **fields: object) -> str:
        """Link an account at StackOne as if made elsewhere; return its id."""
        owner = USERS[user]
        body = {
            "provider": provider,
            "origin_owner_id": owner.org_id,
            "origin_owner_name": owner.org_name,
            "origin_username": owner.email,
            **fields,
        }
        answer = await self.switch("POST", "/accounts", body)
        return str(answer["id"])

    async def switch(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Turn one of the emulator's switches."""
        answer = await self.stackone.request(
            method, f"/_sandbox{path}", json=body, headers={"x-sandbox-key": SANDBOX_KEY}
        )
        assert answer.is_success, answer.text
        return answer.json()

    async def received(self, method: str, path: str) -> list[dict[str, Any]]:
        """Return what the emulator received on a path."""
        requests = await self.switch("GET", "/requests")
        return [row for row in requests if row["method"] == method and row["path"] == path]


@cache
def _keys() -> KeyRing:
    return KeyRing()


@asynccontextmanager
async def open_world(
    database_url: str,
    *,
    webhooks: bool = True,
    clock: Clock | None = None,
    stackone_wire: Callable[[httpx2.AsyncBaseTransport], httpx2.AsyncBaseTransport] | None = None,
    identity_wire: httpx2.AsyncBaseTransport | None = None,
    **sections: Any,
) -> AsyncIterator[World]:
    """Start the three services, and stop them at the end of the block; `stackone_wire` is laid around the real one."""
    stackone_socket, identity_socket, broker_socket = bind(0), bind(0), bind(0)
    for bound in (stackone_socket, identity_socket, broker_socket):
        # What is accepted inherits it. Without, an answer in two pieces waits 40 ms for a delayed acknowledgement.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stackone_url, issuer, broker_url = url_of(stackone_socket), url_of(identity_socket), url_of(broker_socket)
    project = Project(
        StackOneConfig(
            api_key=API_KEY,
            webhook_secret=WEBHOOK_SECRET,
            sandbox_key=SANDBOX_KEY,
            webhook_url=f"{broker_url}/v1/webhooks/stackone" if webhooks else None,
            own_url=stackone_url,
            retry_delays=(0.05, 0.1, 0.2),
            # Tests name providers and profiles that no project has.
            decisions=Decisions(unknown_provider="accept", unknown_profile="accept"),
        ),
        webhook_transport=PlainWire(),
    )
    # Making RSA keys is most of what a world's start costs; a copy can be rotated without touching other tests.
    provider = IdentityProvider(
        IdentityConfig(own_url=issuer, broker_url=broker_url, sandbox_key=SANDBOX_KEY), keys=copy.deepcopy(_keys())
    )
    settings = settings_for(database_url=database_url, stackone_url=stackone_url, issuer=issuer, **sections)
    real_wire = NoTransactionTransport()
    externals = Externals(
        clock=clock or SystemClock(),
        jitter=random.Random(8),  # noqa: S311  no secret
        stackone_transport=stackone_wire(real_wire) if stackone_wire else real_wire,
        identity_transport=identity_wire or PlainWire(),
    )
    web = create_app(settings, externals)
    async with (
        serving_all(
            (create_stackone(project), stackone_socket),
            (create_identity_provider(provider), identity_socket),
            (web, broker_socket),
        ),
        httpx2.AsyncClient(
            base_url=broker_url, timeout=10, verify=False, event_hooks={"response": [Announced(web).check]}
        ) as broker,
        httpx2.AsyncClient(base_url=stackone_url, timeout=10, verify=False) as stackone,
    ):
        world = World(
            project=project,
            provider=provider,
            runtime=web.state.runtime,
            web=web,
            broker=broker,
            stackone=stackone,
            settings=settings,
            issuer=issuer,
            clock=externals.clock,
        )
        world.service_key = await world.create_key()
        yield world
