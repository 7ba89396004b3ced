"""A process that may open few files: clients cannot use up the last of them, and health is served."""

import asyncio
import json
import signal
from contextlib import ExitStack, closing

import httpx2
import pytest

from tests.support.process import broker_process
from tests.support.world import World

pytestmark = pytest.mark.anyio

LIMITED = "import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96)); runpy.run_module('app')"


async def test_clients_cannot_use_up_the_files(world: World) -> None:
    async with broker_process(world, python=("-c", LIMITED, "serve"), BROKER_SYNC__ENABLED="false") as process:
        with ExitStack() as stack:
            for number in range(150):
                source = (f"127.0.3.{number + 1}", 0)
                _reader, writer = await asyncio.open_connection("127.0.0.1", process.port, local_addr=source)
                stack.enter_context(closing(writer))
            async with httpx2.AsyncClient(base_url=process.url, timeout=60) as broker:
                assert (await broker.get("/readyz")).status_code == 200
        _, out = await process.stop(signal.SIGINT)
    [told] = [json.loads(line) for line in out.splitlines() if '"file_limit_too_low"' in line]
    assert (told["limit"], told["max_connections"]) == (96, 32)
