"""nginx, HAProxy and Envoy in front of the broker, as in production.

What they add is believed, what a client adds is not, and a rolling restart of two brokers behind them fails no request.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sandbox.serving import bind
from tests.edge.conftest import open_edge
from tests.neighbours.proxies import in_front_of
from tests.support.environment import environment_of
from tests.support.waiting import eventually
from tests.support.world import World, open_world

pytestmark = pytest.mark.anyio

REFUSED = {"authorization": "Bearer sk_AAAAAAAAAAAA_notakey"}
NAMES = ["nginx", "haproxy", "envoy"]
# docs/testing.md: the long run makes 10,000.
REQUESTS = int(os.environ.get("BROKER_ROLLING_REQUESTS", "600"))


@pytest.mark.parametrize("name", NAMES)
async def test_the_broker_serves_through_it(
    database_url: str, name: str, program_of: Callable[[str], str], tmp_path: Path
) -> None:
    async with (
        open_edge(database_url, http={"trusted_proxies": ["127.0.0.1"]}) as edge,
        in_front_of([edge.port], name, program_of(name), tmp_path) as client,
    ):
        user = {"authorization": f"Bearer {edge.issuer.token()}"}
        minted = await client.post("/v1/connect-sessions", json={"provider": "bamboohr"}, headers=user)
        assert minted.status_code == 201
        assert minted.headers["cache-control"] == "no-store"
        listed = await client.get("/v1/linked-accounts", headers=user)
        assert (listed.status_code, listed.json()["data"]) == (200, [])
        refused = await client.get("/v1/linked-accounts")
        assert refused.status_code == 401
        assert refused.headers["content-type"] == "application/problem+json"
        # The kept connection to the broker is still good after an answer that closed it from the broker's side.
        assert (await client.get("/livez")).status_code == 200
        # A body that comes with an offer to upgrade arrives whole, whatever the proxy makes of the offer.
        offer = {
            "connection": "Upgrade, HTTP2-Settings",
            "upgrade": "h2c",
            "http2-settings": "AAMAAABkAAQAoAAAAAIAAAAA",
        }
        offered = await client.post("/v1/connect-sessions", json={"nonsense": 1}, headers={**user, **offer})
        assert offered.status_code in {403, 422}


@pytest.mark.parametrize("name", NAMES)
async def test_a_clients_own_forwarded_address_is_not_believed(
    database_url: str, name: str, program_of: Callable[[str], str], tmp_path: Path
) -> None:
    """Everybody here comes from one address, whatever they say in front of what the proxy appends."""
    limited: dict[str, Any] = {
        "limits": {"unauthenticated_per_address": "3/hour"},
        "http": {"trusted_proxies": ["127.0.0.2"]},
    }
    async with (
        open_edge(database_url, **limited) as edge,
        in_front_of([edge.port], name, program_of(name), tmp_path) as client,
    ):
        answers = [
            await client.get("/v1/accounts/x", headers={**REFUSED, "x-forwarded-for": f"198.51.100.{number}"})
            for number in range(5)
        ]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]


@dataclass
class Replica:
    """A `broker serve` of its own."""

    world: World
    port: int
    process: asyncio.subprocess.Process | None = field(default=None)

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        environment = environment_of(self.world) | {
            "BROKER_HTTP__PORT": str(self.port),
            "BROKER_HTTP__DRAIN_SECONDS": "1.5",
            # A machine that does much else besides is no failed request.
            "BROKER_DATABASE__POOL_TIMEOUT_SECONDS": "60",
            "BROKER_IDENTITY__TIMEOUT_SECONDS": "30",
            "BROKER_STACKONE__TIMEOUT_SECONDS": "60",
            "BROKER_STACKONE__TOTAL_TIMEOUT_SECONDS": "120",
            "BROKER_STACKONE__REQUESTS_PER_MINUTE": "100000",
            "BROKER_LIMITS__REQUESTS_PER_USER": "1000000/minute",
            "BROKER_LIMITS__REQUESTS_PER_OWNER": "1000000/minute",
            "BROKER_LIMITS__MINT_PER_USER": "1000000/minute",
            "BROKER_LIMITS__MINT_PER_OWNER": "1000000/minute",
            "BROKER_LIMITS__LIVE_SESSIONS_PER_OWNER": "1000000",
        }
        free = bind(0)
        environment["BROKER_METRICS__PORT"] = str(free.getsockname()[1])
        free.close()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "serve", stdout=asyncio.subprocess.DEVNULL, env=environment
        )
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=5) as broker:

            async def is_ready() -> bool:
                try:
                    return bool((await broker.get("/readyz")).is_success)
                except httpx2.TransportError:
                    return False

            await eventually(is_ready, within=120)

    async def stop(self) -> int:
        """Tell it to stop; return its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 120)

    async def kill(self) -> None:
        """End it in any case."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


class Load:
    """Eight good clients at once, until enough is done and the brokers have been restarted."""

    def __init__(self, client: httpx2.AsyncClient, user: dict[str, str]) -> None:
        """Begin with nothing done."""
        self.client = client
        self.user = user
        self.left = REQUESTS
        self.rolled = asyncio.Event()
        self.failed: Counter[str] = Counter()

    async def work(self) -> None:
        """Mint and list in turn, and note what failed."""
        while self.left > 0 or not self.rolled.is_set():
            self.left -= 1
            try:
                if self.left % 3 == 0:
                    body = {"provider": "bamboohr"}
                    answer = await self.client.post("/v1/connect-sessions", headers=self.user, json=body)
                else:
                    answer = await self.client.get("/v1/linked-accounts", headers=self.user)
            except httpx2.HTTPError as error:
                self.failed[repr(error)] += 1
                continue
            if not answer.is_success:
                self.failed[f"{answer.status_code} {answer.text[:200]}"] += 1


@pytest.mark.timeout(0 if REQUESTS > 1000 else 600)
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("name", NAMES)
async def test_a_rolling_restart_fails_no_request(
    database_url: str, name: str, program_of: Callable[[str], str], tmp_path: Path
) -> None:
    bound = [bind(0) for _ in range(2)]
    ports = [one.getsockname()[1] for one in bound]
    for one in bound:
        one.close()
    async with open_world(database_url, webhooks=False) as world:
        replicas = [Replica(world, port) for port in ports]
        try:
            for replica in replicas:
                await replica.start()
            async with in_front_of(ports, name, program_of(name), tmp_path) as client:
                load = Load(client, world.as_user("alice"))

                async def roll() -> list[int]:
                    statuses = []
                    for replica in replicas:
                        statuses.append(await replica.stop())
                        await replica.start()
                        # An orchestrator's minReadySeconds: the proxy looks every 0.3 s and cannot be asked.
                        await asyncio.sleep(1)
                    load.rolled.set()
                    return statuses

                rolling = asyncio.create_task(roll())
                await asyncio.gather(*(load.work() for _ in range(8)))
                assert await rolling == [0, 0]
        finally:
            for replica in replicas:
                await replica.kill()
    assert load.failed == {}
