"""The real broker as a child process: migrated, given a service key, started, watched, and stopped."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx2

from sandbox.launch.options import DemoError

# The folder above the package: where `app` stands next to `sandbox` in a checkout.
_HOME = Path(__file__).resolve().parents[2]
_SURVIVOR = Path(__file__).with_name("survivor.py")
_COMMAND_SECONDS = 60.0
_POLL_SECONDS = 0.1
_SHOWN_LINES = 20


@dataclass(frozen=True, kw_only=True)
class Broker:
    """How to run the broker's own command line; tests put another program in its place."""

    environment: Mapping[str, str]
    log: Path
    command: tuple[str, ...] = (sys.executable, "-m", "app")
    ready_seconds: float = 60.0
    stop_seconds: float = 20.0

    async def migrate(self) -> None:
        """Bring the database to the current schema. Raises DemoError."""
        await self._run("migrate")

    async def create_service_key(self) -> str:
        """Return a new service key with every scope. Raises DemoError."""
        answer = await self._run("service-keys", "create", "--name", "demo", "--all-scopes", "--json")
        try:
            key = json.loads(answer)["key"]
        except (ValueError, KeyError, TypeError) as error:
            raise DemoError(f"`broker service-keys create --json` printed no key. See {self.log}.") from error
        return str(key)

    @contextlib.asynccontextmanager
    async def serving(self, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run the broker while the block runs; the block begins once it is ready. Raises DemoError."""
        with self.log.open("ab") as log:
            async with _survivor() as survivor:
                child = await asyncio.create_subprocess_exec(
                    *self.command,
                    "serve",
                    env=dict(self.environment),
                    cwd=_HOME,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # A Ctrl-C reaches the whole foreground group; the broker is to hear of it once, from here.
                    start_new_session=True,
                )
                try:
                    survivor.write(f"{child.pid}\n".encode())
                    await self._until_ready(child, url)
                    yield child
                finally:
                    await self._stop(child)

    def died(self, code: int | None) -> DemoError:
        """Return the error for a broker that ended by itself, with its last words."""
        return DemoError(
            f"The broker stopped (exit code {code}).\n{_last_lines(self.log)}\n"
            f"The whole log is {self.log}. If its database is broken or from another version, delete"
            f" {self.log.parent} (or empty the one you gave) and start again."
        )

    async def _run(self, *arguments: str) -> str:
        child = await asyncio.create_subprocess_exec(
            *self.command,
            *arguments,
            env=dict(self.environment),
            cwd=_HOME,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_COMMAND_SECONDS):
                output, errors = await child.communicate()
        except TimeoutError as error:
            raise DemoError(f"`broker {arguments[0]}` took longer than {_COMMAND_SECONDS:.0f} s.") from error
        finally:
            await self._stop(child)
        with self.log.open("ab") as log:
            log.write(errors)
        if child.returncode != 0:
            said = (errors + output).decode("utf-8", "replace").strip()
            raise DemoError(
                f"`broker {' '.join(arguments)}` failed (exit code {child.returncode}).\n{said}\n"
                f"If the database is from another version, delete {self.log.parent} (or empty the one you gave)"
                " and start again."
            )
        return output.decode("utf-8", "replace")

    async def _until_ready(self, child: asyncio.subprocess.Process, url: str) -> None:
        ended = asyncio.create_task(child.wait())
        try:
            async with asyncio.timeout(self.ready_seconds), httpx2.AsyncClient(trust_env=False, timeout=2) as client:
                while not await _is_ready(client, url):
                    if ended in (await asyncio.wait({ended}, timeout=_POLL_SECONDS))[0]:
                        raise self.died(child.returncode)
        except TimeoutError as error:
            raise DemoError(
                f"The broker did not become ready within {self.ready_seconds:.0f} s.\n{_last_lines(self.log)}\n"
                f"Ask {url}/readyz what it is waiting for; its log is {self.log}."
            ) from error
        finally:
            ended.cancel()

    async def _stop(self, child: asyncio.subprocess.Process) -> None:
        if child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self.stop_seconds):
                await child.wait()
        except TimeoutError:
            pass
        finally:
            # Also on the way out of a second Ctrl-C: an orphan would keep the port.
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()


@contextlib.asynccontextmanager
async def _survivor() -> AsyncIterator[asyncio.StreamWriter]:
    """Start what stops a child that this process, killed outright, could not stop; it is told which one."""
    survivor = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        str(_SURVIVOR),
        stdin=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield cast("asyncio.StreamWriter", survivor.stdin)
    finally:
        with contextlib.suppress(ProcessLookupError):
            survivor.kill()
        await survivor.wait()


async def _is_ready(client: httpx2.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/readyz")).is_success
    except httpx2.HTTPError:
        return False


def _last_lines(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
    return "\n".join(f"  | {line}" for line in lines[-_SHOWN_LINES:])
