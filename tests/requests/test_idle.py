"""A broker that nobody asks anything: how often it wakes up."""

import asyncio
import sys
from pathlib import Path

import httpx2
import pytest

from sandbox.serving import bind
from tests.support.environment import environment_of
from tests.support.waiting import eventually
from tests.support.world import World

pytestmark = pytest.mark.anyio

SECONDS = 3


def wakes_of(pid: int) -> int:
    """Return how often the process has gone to sleep by itself so far."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


async def test_it_sleeps_but_for_a_few_looks_a_second(world: World) -> None:
    free = bind(0)
    port = free.getsockname()[1]
    free.close()
    environment = environment_of(world) | {
        "BROKER_HTTP__PORT": str(port),
        "BROKER_METRICS": '{"port": null}',
        "BROKER_SYNC__ENABLED": "false",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "serve", stdout=asyncio.subprocess.DEVNULL, env=environment
    )
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as broker:

            async def is_up() -> bool:
                try:
                    return bool((await broker.get("/livez")).is_success)
                except httpx2.TransportError:
                    return False

            await eventually(is_up, within=30)
        # The connection of the client is closed, and what a start leaves behind is done.
        await asyncio.sleep(1)
        before = wakes_of(process.pid)
        await asyncio.sleep(SECONDS)
        # Two looks at the event loop's lag and one at the date; uvicorn alone would make ten.
        assert wakes_of(process.pid) - before <= 6 * SECONDS
        process.terminate()
        assert await asyncio.wait_for(process.wait(), timeout=10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
