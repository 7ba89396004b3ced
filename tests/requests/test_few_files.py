"""A process that may open few files: clients cannot use up the last of them, and health is served."""

import asyncio
import json
import signal
import sys
from contextlib import ExitStack, closing

import httpx2
import pytest

from sandbox.serving import bind
from tests.support.environment import environment_of
from tests.support.waiting import eventually
from tests.support.world import World

pytestmark = pytest.mark.anyio

LIMITED = "import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96)); runpy.run_module('app')"


async def test_clients_cannot_use_up_the_files(world: World) -> None:
    with bind(0) as free:
        port = free.getsockname()[1]
    environment = environment_of(world) | {
        "BROKER_SYNC__ENABLED": "false",
        "BROKER_HTTP__PORT": str(port),
        "BROKER_METRICS": '{"port": null}',
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LIMITED, "serve", env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        with ExitStack() as stack:
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as broker:

                async def is_ready() -> bool:
                    try:
                        return bool((await broker.get("/readyz")).is_success)
                    except httpx2.TransportError:
                        return False

                await eventually(is_ready, within=60)
                for number in range(150):
                    source = (f"127.0.3.{number + 1}", 0)
                    _reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=source)
                    stack.enter_context(closing(writer))
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as broker:
                assert (await broker.get("/readyz")).status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    [told] = [json.loads(line) for line in out.decode().splitlines() if '"file_limit_too_low"' in line]
    assert (told["limit"], told["max_connections"]) == (96, 32)
