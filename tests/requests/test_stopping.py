"""SIGTERM: what runs is finished, and who only waits for news is let go."""

import asyncio
import signal
import sys
import time

import httpx2
import pytest

from sandbox.serving import bind
from tests.support.environment import environment_of
from tests.support.waiting import eventually
from tests.support.world import World

pytestmark = pytest.mark.anyio


async def test_a_reader_that_waits_does_not_hold_the_end_up(world: World) -> None:
    free = bind(0)
    port = free.getsockname()[1]
    free.close()
    environment = environment_of(world) | {"BROKER_HTTP__PORT": str(port), "BROKER_METRICS": '{"port": null}'}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "serve", stdout=asyncio.subprocess.DEVNULL, env=environment
    )
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=40) as broker:

            async def is_up() -> bool:
                try:
                    return bool((await broker.get("/livez")).is_success)
                except httpx2.TransportError:
                    return False

            await eventually(is_up, within=30)
            waiting = asyncio.create_task(broker.get("/v1/events?wait=30", headers=world.as_service()))
            # Refused where it has not arrived yet; answered before the wait is over where it has.
            await asyncio.sleep(0.3)
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            answer = await waiting
        await process.wait()
        assert (answer.status_code, answer.json()) == (200, {"data": [], "next_cursor": "0", "head": "0"})
        assert time.monotonic() - started < 10
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
