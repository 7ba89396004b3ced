"""Two replicas of the broker behind HAProxy, with StackOne's emulator and an identity provider."""

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx2

from app.identity.caller import Scope
from app.identity.service_keys.keys import create_key
from sandbox.identity.application import create_identity_provider
from sandbox.identity.provider import IdentityConfig, IdentityProvider, TokenOrder, User
from sandbox.serving import bind, serving, url_of
from tests.endurance.cluster import until
from tests.support.databases import engine_of
from tests.support.programs import Program, free_port, give, program, somebody
from tests.support.world import API_KEY, PEPPER, SANDBOX_KEY, WEBHOOK_SECRET

_ROOT: Final = Path(__file__).resolve().parents[2]
_START_SECONDS: Final = 120.0
_PLENTY: Final = "1000000/minute"
_RATES: Final = ("mint_per_user", "mint_per_owner", "requests_per_user", "requests_per_owner", "requests_per_service")
OWNERS: Final = 40
ACCOUNTS: Final = 200
_TOKEN_HOURS: Final = 23
# As docs/operations.md says. While the database is away no replica is ready: the second way in lets the broker itself
# say so, with its cause and Retry-After, instead of the proxy.
_FRONT: Final = """
global
  maxconn 4000
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout check 4s
  option forwardfor
  option redispatch 1
  http-reuse safe
  retries 3
  retry-on conn-failure empty-response
frontend clients
  bind 127.0.0.1:{port}
  use_backend whoever if {{ nbsrv(ready) eq 0 }}
  default_backend ready
backend ready
  option httpchk GET /readyz
  default-server check inter 1s fall 1 rise 1
{servers}
backend whoever
{servers}
"""


@dataclass
class Stand:
    """Everything that a load needs to know."""

    folder: Path
    url: str
    """Where clients go."""
    stackone_url: str
    provider: IdentityProvider
    replicas: tuple[Program, Program]
    ports: tuple[int, int]
    metrics_ports: tuple[int, int]
    service_key: str
    http: httpx2.AsyncClient
    accounts: list[str] = field(default_factory=list)

    @staticmethod
    def owner(number: int) -> str:
        """Return the id of an owner."""
        return f"org_{number % OWNERS:03}"

    def token(self, number: int) -> str:
        """Return a token of an owner's user, good for the whole run, on clocks too that are wrong by hours."""
        owner = self.owner(number)
        user = User(f"user-{owner}", owner, owner.title(), f"user@{owner}.example")
        began = int((datetime.now(UTC) - timedelta(hours=_TOKEN_HOURS / 2)).timestamp())
        claims = {"iat": began, "nbf": began}
        return self.provider.mint(TokenOrder(user=user, claims=claims, expires_in=_TOKEN_HOURS * 1800))

    async def switch(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Turn one of the emulator's switches."""
        address = f"{self.stackone_url}/_sandbox{path}"
        answer = await self.http.request(method, address, json=body, headers={"x-sandbox-key": SANDBOX_KEY})
        answer.raise_for_status()
        return answer.json()

    async def is_ready(self, port: int) -> bool:
        """Tell whether a replica can serve."""
        try:
            return (await self.http.get(f"http://127.0.0.1:{port}/readyz")).is_success
        except httpx2.TransportError:
            return False

    async def linked(self) -> dict[str, Mapping[str, Any]]:
        """Return every account that the broker lists, by its id."""
        found: dict[str, Mapping[str, Any]] = {}
        service = {"authorization": f"Bearer {self.service_key}"}
        for number in range(OWNERS):
            path = f"/v1/owners/{self.owner(number)}/linked-accounts?limit=200"
            answer = await self.http.get(f"{self.url}{path}", headers=service)
            answer.raise_for_status()
            found |= {account["account_id"]: account for account in answer.json()["data"]}
        return found

    async def differences(self) -> list[str]:
        """Name the accounts that the broker lists otherwise than StackOne has them."""
        theirs = {account["id"]: account["label"] for account in await self.switch("GET", "/accounts?limit=10000")}
        ours = {account_id: account["label"] for account_id, account in (await self.linked()).items()}
        return sorted(one for one in theirs.keys() | ours.keys() if theirs.get(one, "") != ours.get(one, ""))


def _environment(database_url: str, stackone_url: str, issuer: str) -> dict[str, str]:
    """Return the settings of the broker: its defaults, but for limits that would only stop a load."""
    trusted = {
        "issuer": issuer,
        "audiences": ["connect-broker"],
        "algorithms": ["RS256"],
        "claims": {"owner_id": "org_id", "owner_name": "org_name", "username": "email"},
    }
    return {
        "BROKER_ENVIRONMENT": "development",
        "BROKER_HTTP__TRUSTED_PROXIES": '["127.0.0.1"]',
        "BROKER_STACKONE__API_KEY": API_KEY,
        "BROKER_STACKONE__BASE_URL": stackone_url,
        "BROKER_STACKONE__WEBHOOK_SECRETS": json.dumps([WEBHOOK_SECRET]),
        "BROKER_STACKONE__REQUESTS_PER_MINUTE": "100000",
        "BROKER_DATABASE__URL": database_url,
        "BROKER_SERVICE_KEYS__PEPPER": PEPPER,
        "BROKER_IDENTITY__ISSUERS": json.dumps([trusted]),
        "BROKER_SYNC__SWEEP_INTERVAL_SECONDS": "0",
        "BROKER_LIMITS__LIVE_SESSIONS_PER_OWNER": "10000000",
        **{f"BROKER_LIMITS__{rate.upper()}": _PLENTY for rate in _RATES},
    }


async def _service_key(direct_url: str) -> str:
    engine = engine_of(direct_url)
    now = datetime.now(UTC)
    async with engine.begin() as connection:
        created = await create_key(
            connection,
            name="endurance",
            scopes=tuple(Scope),
            owner_ids=None,
            expires_at=now + timedelta(days=10),
            now=now,
            pepper=PEPPER.encode(),
            token_bytes=secrets.token_bytes,
        )
    await engine.dispose()
    return created.key


@asynccontextmanager
async def open_stand(
    folder: Path,
    database_url: str,
    direct_url: str,
    *,
    settings: Mapping[str, str] | None = None,
    own: Sequence[Mapping[str, str]] = ({}, {}),
) -> AsyncIterator[Stand]:
    """Run everything that stands before a migrated database while the block runs.

    `settings` are for both replicas, `own` has those of each.
    """
    stackone_port, front_port = free_port(), free_port()
    stackone_url = f"http://127.0.0.1:{stackone_port}"
    identity_socket = bind(0)
    issuer = url_of(identity_socket)
    provider = IdentityProvider(IdentityConfig(own_url=issuer, sandbox_key=SANDBOX_KEY))
    common = {**_environment(database_url, stackone_url, issuer), **(settings or {})}
    ports, metrics_ports = (free_port(), free_port()), (free_port(), free_port())
    brokers = [
        Program(
            f"broker-{number}",
            [sys.executable, "-m", "app", "serve"],
            folder,
            env={**common, **own[number], "BROKER_HTTP__PORT": str(port), "BROKER_METRICS__PORT": str(metrics_port)},
        )
        for number, (port, metrics_port) in enumerate(zip(ports, metrics_ports, strict=True))
    ]
    emulator = [sys.executable, "-m", "tests.endurance.stackone", str(stackone_port)]
    servers = "\n".join(f"  server b{number} 127.0.0.1:{port}" for number, port in enumerate(ports))
    (folder / "front.cfg").write_text(_FRONT.format(port=front_port, servers=servers))
    give(folder / "front.cfg")
    with ExitStack() as stack:
        started = Program("stackone", emulator, folder, env={"PYTHONPATH": str(_ROOT)})
        stack.enter_context(started)
        for broker in brokers:
            stack.enter_context(broker)
        haproxy: list[str | Path] = [program("haproxy"), "-db", "-f", folder / "front.cfg"]
        stack.enter_context(Program("front", haproxy, folder, user=somebody()))
        async with (
            serving(create_identity_provider(provider), identity_socket),
            # No connection is used again: the emulator closes an idle one whenever it likes.
            httpx2.AsyncClient(timeout=30, verify=False, limits=httpx2.Limits(max_keepalive_connections=0)) as http,
        ):
            stand = Stand(
                folder=folder,
                url=f"http://127.0.0.1:{front_port}",
                stackone_url=stackone_url,
                provider=provider,
                replicas=(brokers[0], brokers[1]),
                ports=ports,
                metrics_ports=metrics_ports,
                service_key=await _service_key(direct_url),
                http=http,
            )
            await _until_ready(stand)
            await _link(stand)
            yield stand


async def _until_ready(stand: Stand) -> None:
    async def is_up() -> bool:
        try:
            await stand.switch("GET", "/accounts")
            front = await stand.http.get(f"{stand.url}/readyz")
        except httpx2.HTTPError:
            return False
        replicas = await asyncio.gather(*(stand.is_ready(port) for port in stand.ports))
        return front.is_success and all(replicas)

    await until(is_up, what="two brokers, StackOne's emulator and HAProxy", within=_START_SECONDS)


async def _link(stand: Stand) -> None:
    """Have accounts at StackOne, and wait until the broker has found them by a sweep."""
    for number in range(ACCOUNTS):
        owner = stand.owner(number)
        body = {"provider": "bamboohr", "origin_owner_id": owner, "origin_owner_name": owner.title(), "label": "new"}
        stand.accounts.append((await stand.switch("POST", "/accounts", body))["id"])
    service = {"authorization": f"Bearer {stand.service_key}"}
    (await stand.http.post(f"{stand.url}/v1/sync", json={}, headers=service)).raise_for_status()

    async def is_equal() -> bool:
        return not await stand.differences()

    await until(is_equal, what="the first sweep", within=_START_SECONDS)
