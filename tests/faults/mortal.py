"""A broker that dies: a real process that kills itself with SIGKILL at the n-th await of some of its work.

Started once, it imports everything and then forks a broker for each order on its standard input, so that hundreds of
deaths do not cost hundreds of interpreter starts. Nothing of the broker is replaced: its coroutines are only counted
while they run.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine, Generator
from typing import Any

import uvicorn

from app.jobs import _repeat_once_it_fits
from app.logs import configure_logs
from app.main import create_app
from app.runtime import Externals
from app.settings import Settings
from tests.support.wires import PlainWire


class Countdown:
    """Kills the process when it reaches zero."""

    def __init__(self, steps: int | None) -> None:
        """Count down from `steps`; None never ends."""
        self._left = steps

    def step(self) -> None:
        """Count one await."""
        if self._left is None:
            return
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Counted(Coroutine[Any, Any, Any]):
    """A coroutine that counts how often it goes on."""

    def __init__(self, inner: Coroutine[Any, Any, Any], countdown: Countdown) -> None:
        """Wrap a coroutine."""
        self._inner = inner
        self._countdown = countdown

    def send(self, value: Any) -> Any:
        """Go on after an await."""
        self._countdown.step()
        return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        """Go on with an exception."""
        return self._inner.throw(*error)

    def close(self) -> None:
        """End."""
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        """Nobody awaits it but its task."""
        raise NotImplementedError


def is_counted(coroutine: Any, scope: str) -> bool:
    """Tell whether a task's work is the one that is to be interrupted."""
    name = getattr(coroutine, "__qualname__", "")
    if scope == "request":
        # What requests have written together is written beside them.
        return name.endswith(("run_asgi", "GroupCommit._write_next"))
    if getattr(coroutine, "cr_code", None) is _repeat_once_it_fits.__code__:
        return bool(coroutine.cr_frame.f_locals["job"].name == scope)
    return scope == "refresh" and name.endswith("refresh_gated")


async def serve(order: dict[str, Any]) -> None:
    """Serve a broker as ordered."""
    countdown = Countdown(order["die_at"])

    def make_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        counted = Counted(work, countdown) if is_counted(work, order["scope"]) else work
        return asyncio.Task(counted, loop=loop, **options)

    asyncio.get_running_loop().set_task_factory(make_task)
    # Wires that read no certificates: that would be most of what a start costs, and all here is plain http.
    externals = Externals(stackone_transport=PlainWire(), identity_transport=PlainWire())
    web = create_app(Settings.model_validate(order["settings"]), externals)
    config = uvicorn.Config(
        web, host="127.0.0.1", port=order["port"], log_config=None, access_log=False, ws="none", lifespan="on"
    )
    await uvicorn.Server(config).serve()


def main() -> None:
    """Fork a broker for each order; say its process id, and later how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            output = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            configure_logs("ERROR")
            asyncio.run(serve(order))
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
