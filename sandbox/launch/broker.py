"""The real broker as a child process: migrated, given a service key, started, watched, and stopped."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2

from sandbox.launch.options import DemoError

# The folder above the package: where `app` stands next to `sandbox` in a checkout.
_HOME = Path(__file__).resolve().parents[2]
_COMMAND_SECONDS = 60.0
_POLL_SECONDS = 0.1
_SHOWN_LINES = 20

# Runs `python -m app`, and stops it once its standard input ends: the demo holds the other end, and lets go of it
# however it ends, also when it is killed and can stop nobody.
_GUARDED_APP = """
import os, runpy, signal, threading
def stop_with_the_demo():
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=stop_with_the_demo, daemon=True).start()
runpy.run_module("app", run_name="__main__", alter_sys=True)
"""


async def _whole(stream: asyncio.StreamReader | None) -> bytes:
    return await stream.read() if stream is not None else b""


@dataclass(frozen=True, kw_only=True)
class Broker:
    """How to run the broker's own command line; tests put another program in its place."""

    environment: Mapping[str, str]
    log: Path
    command: tuple[str, ...] = (sys.executable, "-c", _GUARDED_APP)
    ready_seconds: float = 60.0
    stop_seconds: float = 20.0

    async def migrate(self) -> None:
        """Bring the database to the current schema. Raises DemoError."""
        await self._run("migrate")

    async def create_service_key(self) -> str:
        """Return a new service key with every scope. Raises DemoError."""
        answer = await self._run("service-keys", "create", "--name", "demo", "--all-scopes", "--json")
        try:
            return str(json.loads(answer)["key"])
        except (ValueError, KeyError, TypeError) as error:
            raise DemoError(f"`broker service-keys create --json` printed no key. See {self.log}.") from error

    @contextlib.asynccontextmanager
    async def serving(self, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run the broker while the block runs; the block begins once it is ready. Raises DemoError."""
        with self.log.open("ab") as log:
            async with self._child("serve", stdout=log, stderr=log) as child:
                await self._until_ready(child, url)
                yield child

    def died(self, code: int | None) -> DemoError:
        """Return the error for a broker that ended by itself, with the end of its log."""
        return DemoError(
            f"The broker stopped (exit code {code}).\n{self._last_lines()}\nThe whole log is {self.log}. {self._remedy}"
        )

    @property
    def _remedy(self) -> str:
        return (
            f"If its database is broken or from another version, delete {self.log.parent}"
            " (or empty the one you gave) and start again."
        )

    async def _run(self, *arguments: str) -> str:
        async with self._child(*arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE) as child:
            try:
                # Not `communicate`, which closes the standard input since Python 3.13: the command would be stopped.
                async with asyncio.timeout(_COMMAND_SECONDS):
                    output, errors = await asyncio.gather(_whole(child.stdout), _whole(child.stderr))
                    await child.wait()
            except TimeoutError as error:
                raise DemoError(f"`broker {arguments[0]}` took longer than {_COMMAND_SECONDS:.0f} s.") from error
        with self.log.open("ab") as log:
            log.write(errors)
        if child.returncode != 0:
            said = (errors + output).decode("utf-8", "replace").strip()
            raise DemoError(
                f"`broker {' '.join(arguments)}` failed (exit code {child.returncode}).\n{said}\n{self._remedy}"
            )
        return output.decode("utf-8", "replace")

    @contextlib.asynccontextmanager
    async def _child(
        self, *arguments: str, stdout: object, stderr: object
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        # A Ctrl-C reaches the whole foreground group; the broker is to hear of it once, from here.
        child = await asyncio.create_subprocess_exec(
            *self.command,
            *arguments,
            env=dict(self.environment),
            cwd=_HOME,
            stdin=asyncio.subprocess.PIPE,
            stdout=stdout,  # type: ignore[arg-type]
            stderr=stderr,  # type: ignore[arg-type]
            start_new_session=True,
        )
        try:
            yield child
        finally:
            await self._stop(child)

    async def _until_ready(self, child: asyncio.subprocess.Process, url: str) -> None:
        try:
            async with asyncio.timeout(self.ready_seconds), httpx2.AsyncClient(trust_env=False, timeout=2) as client:
                while not await _is_ready(client, url):
                    if child.returncode is not None:
                        raise self.died(child.returncode)
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise DemoError(
                f"The broker did not become ready within {self.ready_seconds:.0f} s.\n{self._last_lines()}\n"
                f"Ask {url}/readyz what it is waiting for; its log is {self.log}."
            ) from error

    async def _stop(self, child: asyncio.subprocess.Process) -> None:
        try:
            if child.returncode is None:
                child.terminate()
                await asyncio.wait_for(child.wait(), self.stop_seconds)
        except TimeoutError:
            pass
        finally:
            # Also after a second Ctrl-C: a broker that went on would keep its port.
            if child.returncode is None:
                child.kill()
                await child.wait()

    def _last_lines(self) -> str:
        lines = self.log.read_text("utf-8", "replace").splitlines() if self.log.exists() else []
        return "\n".join(f"  | {line}" for line in lines[-_SHOWN_LINES:])


async def _is_ready(client: httpx2.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/readyz")).is_success
    except httpx2.HTTPError:
        return False
