"""A broker that nobody asks anything: how often it wakes up."""

import asyncio
from pathlib import Path

import pytest

from tests.support.process import broker_process
from tests.support.world import World

pytestmark = pytest.mark.anyio

SECONDS = 3


def wakes_of(pid: int) -> int:
    """Return how often the process has gone to sleep by itself so far."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


async def test_it_sleeps_but_for_a_few_looks_a_second(world: World) -> None:
    async with broker_process(world, BROKER_SYNC__ENABLED="false") as broker:
        # What a start leaves behind is done by then.
        await asyncio.sleep(1)
        before = wakes_of(broker.process.pid)
        await asyncio.sleep(SECONDS)
        # Two looks at the event loop's lag and one at the date; uvicorn alone would make ten.
        assert wakes_of(broker.process.pid) - before <= 6 * SECONDS
        assert (await broker.stop())[0] == 0
