"""What minting and listing cost, as a ratio to the least that could be done: a handler of a few lines.

The peer is what people write by hand: it believes whatever owner the body names, keeps no ledger and asks StackOne for
every list. It is there to say how fast this machine is at this moment; both take turns in one process, over the same
emulator and by the same client, so that noise meets both.
"""

import asyncio
import base64
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
from fastapi import FastAPI

from sandbox.serving import bind, url_of
from tests.support.serving import serving_all
from tests.support.world import API_KEY, World, open_world

Ask = Callable[[], Awaitable[httpx2.Response]]
_PLENTY = "1000000/minute"


def naive(stackone_url: str) -> FastAPI:
    """Return the peer."""
    credential = base64.b64encode(f"{API_KEY}:".encode()).decode()
    stackone = httpx2.AsyncClient(base_url=stackone_url, headers={"authorization": f"Basic {credential}"})
    web = FastAPI()

    @web.post("/mint", status_code=201)
    async def mint(body: dict[str, Any]) -> Any:
        return (await stackone.post("/connect_sessions", json=body)).json()

    @web.get("/list")
    async def listing(owner_id: str) -> Any:
        return (await stackone.get("/accounts", params={"origin_owner_id": owner_id})).json()

    return web


async def measure(ask: Ask, *, requests: int, concurrency: int) -> float:
    """Return how many requests a second were answered."""
    left = iter(range(requests))

    async def work() -> None:
        for _ in left:
            answer = await ask()
            assert answer.is_success, answer.text

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    return requests / (time.perf_counter() - started)


async def bench_requests(database_url: str, *, rounds: int, requests: int, concurrency: int) -> None:
    """Measure both in turns and write one line for each kind of request."""
    async with open_world(
        database_url,
        sync={"enabled": False},
        stackone={"requests_per_minute": 100_000, "timeout_seconds": 10, "total_timeout_seconds": 20},
        limits={
            **dict.fromkeys(("mint_per_user", "mint_per_owner", "requests_per_user", "requests_per_owner"), _PLENTY),
            "live_sessions_per_owner": 1_000_000,
        },
    ) as world:
        socket = bind(0)
        async with (
            serving_all((naive(str(world.settings.stackone.base_url)), socket)),
            httpx2.AsyncClient(base_url=url_of(socket), timeout=30) as peer,
        ):
            for _ in range(10):
                account_id = await world.link("alice", multiple=True)
                await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
            for what, ours, theirs in _pairs(world, peer):
                broker_rates, peer_rates = [], []
                for number in range(rounds + 1):
                    sys.stderr.write(f"{world.runtime.database.dialect} {what}: round {number} of {rounds}\n")
                    world.project.requests.entries.clear()
                    broker_rate = await measure(ours, requests=requests, concurrency=concurrency)
                    peer_rate = await measure(theirs, requests=requests, concurrency=concurrency)
                    # The first round fills caches and pools.
                    if number:
                        broker_rates.append(broker_rate)
                        peer_rates.append(peer_rate)
                _tell(world.runtime.database.dialect, what, broker_rates, peer_rates)


def _pairs(world: World, peer: httpx2.AsyncClient) -> list[tuple[str, Ask, Ask]]:
    headers = world.as_user("alice")
    session = {"origin_owner_id": "org_acme", "origin_owner_name": "Acme Inc", "multiple": True}
    wish = {"provider": "bamboohr", "multiple": True}
    return [
        (
            "mint",
            lambda: world.broker.post("/v1/connect-sessions", headers=headers, json=wish),
            lambda: peer.post("/mint", json={**session, "provider": "bamboohr"}),
        ),
        (
            "list",
            lambda: world.broker.get("/v1/linked-accounts", headers=headers),
            lambda: peer.get("/list", params={"owner_id": "org_acme"}),
        ),
    ]


def _tell(database: str, what: str, broker: list[float], peer: list[float]) -> None:
    ratios = [ours / theirs for ours, theirs in zip(broker, peer, strict=True)]
    figures = {
        "database": database,
        "request": what,
        "broker_per_second": _spread(broker, 0),
        "naive_per_second": _spread(peer, 0),
        "ratio": _spread(ratios, 2),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


def _spread(values: list[float], digits: int) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), digits),
        "least": round(min(values), digits),
        "most": round(max(values), digits),
    }
