"""The broker as a process of its own, on a test's world."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2

from sandbox.serving import bind
from tests.support.environment import environment_of
from tests.support.waiting import eventually
from tests.support.world import World

_SERVE = ("-m", "app", "serve")


@dataclass(frozen=True)
class BrokerProcess:
    """One that is ready."""

    process: asyncio.subprocess.Process
    port: int

    @property
    def url(self) -> str:
        """Return where it serves."""
        return f"http://127.0.0.1:{self.port}"

    async def stop(self, told: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Tell it to end; return its exit status and what it has written to standard output."""
        self.process.send_signal(told)
        out, _ = await asyncio.wait_for(self.process.communicate(), timeout=20)
        assert self.process.returncode is not None
        return self.process.returncode, out.decode()


@asynccontextmanager
async def broker_process(world: World, *, python: Sequence[str] = _SERVE, **more: str) -> AsyncIterator[BrokerProcess]:
    """Serve a world by a process of its own until the end of the block, with `more` in its environment."""
    with bind(0) as free:
        port = free.getsockname()[1]
    environment = environment_of(world) | {"BROKER_HTTP__PORT": str(port), "BROKER_METRICS": '{"port": null}', **more}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *python, env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as broker:

            async def is_ready() -> bool:
                if process.returncode is not None:
                    message = f"it ended with status {process.returncode}"
                    raise RuntimeError(message)
                try:
                    return bool((await broker.get("/readyz")).is_success)
                except httpx2.TransportError:
                    return False

            await eventually(is_ready, within=60)
        yield BrokerProcess(process, port)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
