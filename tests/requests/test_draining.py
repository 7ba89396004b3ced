"""SIGTERM: readyz says so while everybody is still served, then the process ends with status 0."""

import asyncio
import json
import signal

import httpx2
import pytest

from sandbox.serving import bind
from tests.support.process import broker_process
from tests.support.waiting import eventually
from tests.support.world import World

pytestmark = pytest.mark.anyio


async def test_it_drains_and_ends_well(world: World) -> None:
    with bind(0) as free:
        scraped = free.getsockname()[1]
    async with (
        broker_process(world, BROKER_METRICS=json.dumps({"port": scraped}), BROKER_HTTP__DRAIN_SECONDS="4") as process,
        httpx2.AsyncClient(base_url=process.url, timeout=10) as broker,
        httpx2.AsyncClient(base_url=process.url) as another,
    ):
        assert (await broker.get("/readyz")).is_success
        metrics = await broker.get(f"http://127.0.0.1:{scraped}/metrics")
        assert "broker_http_request_duration_seconds" in metrics.text
        process.process.send_signal(signal.SIGTERM)

        async def is_stopping() -> bool:
            answer = await broker.get("/readyz")
            return answer.status_code == 503 and answer.json()["status"] == "stopping"

        await eventually(is_stopping, within=4)
        # On a new connection too: load balancers open them until they have noticed.
        listed = await another.get("/v1/linked-accounts", headers=world.as_user())
        assert listed.status_code == 200
        assert await asyncio.wait_for(process.process.wait(), 10) == 0
