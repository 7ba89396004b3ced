"""SIGTERM: readyz says so while everybody is still served, then the process ends with status 0."""

import asyncio
import signal
import sys

import httpx2
import pytest

from sandbox.serving import bind
from tests.support.environment import environment_of
from tests.support.waiting import eventually
from tests.support.world import World

pytestmark = pytest.mark.anyio


async def test_it_drains_and_ends_well(world: World) -> None:
    free, scraped = bind(0), bind(0)
    port, metrics_port = free.getsockname()[1], scraped.getsockname()[1]
    free.close()
    scraped.close()
    environment = environment_of(world) | {
        "BROKER_HTTP__PORT": str(port),
        "BROKER_METRICS__PORT": str(metrics_port),
        "BROKER_HTTP__DRAIN_SECONDS": "4",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "serve", stdout=asyncio.subprocess.DEVNULL, env=environment
    )
    try:
        url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=url, timeout=10) as broker, httpx2.AsyncClient(base_url=url) as another:

            async def is_ready() -> bool:
                try:
                    return bool((await broker.get("/readyz")).is_success)
                except httpx2.TransportError:
                    return False

            await eventually(is_ready, within=30)
            metrics = await broker.get(f"http://127.0.0.1:{metrics_port}/metrics")
            assert "broker_http_request_duration_seconds" in metrics.text
            process.send_signal(signal.SIGTERM)

            async def is_stopping() -> bool:
                answer = await broker.get("/readyz")
                return answer.status_code == 503 and answer.json()["status"] == "stopping"

            await eventually(is_stopping, within=4)
            # On a new connection too: load balancers open them until they have noticed.
            listed = await another.get("/v1/linked-accounts", headers=world.as_user())
            assert listed.status_code == 200
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
