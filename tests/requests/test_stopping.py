"""SIGTERM: what runs is finished, and who only waits for news is let go."""

import asyncio
import signal
import time

import httpx2
import pytest

from tests.support.process import broker_process
from tests.support.world import World

pytestmark = pytest.mark.anyio


async def test_a_reader_that_waits_does_not_hold_the_end_up(world: World) -> None:
    async with (
        broker_process(world) as process,
        httpx2.AsyncClient(base_url=process.url, timeout=40) as broker,
    ):
        waiting = asyncio.create_task(broker.get("/v1/events?wait=30", headers=world.as_service()))
        # Refused where it has not arrived yet; answered before the wait is over where it has.
        await asyncio.sleep(0.3)
        started = time.monotonic()
        process.process.send_signal(signal.SIGTERM)
        answer = await waiting
        await process.process.wait()
        assert (answer.status_code, answer.json()) == (200, {"data": [], "next_cursor": "0", "head": "0"})
        assert time.monotonic() - started < 10
