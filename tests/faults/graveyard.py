"""Brokers that die and are raised again, the database they share, and the StackOne that outlives them."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import httpx2
import sqlalchemy as sa

from app.db.database import Database
from app.db.engine import open_engine
from app.db.leases import leases
from app.linked_accounts.tables import account_events, linked_accounts
from app.settings import DatabaseSettings
from sandbox.serving import bind, serving, url_of
from sandbox.stackone.accounts import Account, LinkOrder
from sandbox.stackone.application import create_stackone
from sandbox.stackone.project import Project, StackOneConfig
from tests.support.tokens import compact, hmac_signer
from tests.support.waiting import eventually
from tests.support.world import API_KEY, SANDBOX_KEY, WEBHOOK_SECRET, settings_for

ISSUER = "http://127.0.0.1:1"
SHARED_SECRET = "demo-canary-hs256-secret-0123456789abcdef"


def token() -> dict[str, str]:
    """Sign in as somebody of the owner."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "connect-broker", "sub": "ann", "iat": now, "exp": now + 600, "org_id": "org_acme"}
    signed = compact({"alg": "HS256", "typ": "JWT"}, claims, hmac_signer(SHARED_SECRET.encode()))
    return {"authorization": f"Bearer {signed}"}


@dataclass
class Graveyard:
    """What a test of dying brokers may touch."""

    zygote: asyncio.subprocess.Process
    database: Database
    database_url: str
    project: Project
    stackone_url: str
    port: int
    log: Path
    http: httpx2.AsyncClient
    pid: int | None = None
    deaths: int = 0
    made: int = field(default=0)

    async def raise_broker(self, *, scope: str = "none", die_at: int | None = None, **sections: Any) -> None:
        """Start a broker; it dies at the n-th await of its scope."""
        settings = settings_for(
            database_url=self.database_url,
            stackone_url=self.stackone_url,
            issuer=ISSUER,
            identity={
                "issuers": [
                    {
                        "issuer": ISSUER,
                        "audiences": ["connect-broker"],
                        "algorithms": ["HS256"],
                        "secret": SHARED_SECRET,
                        "claims": {"owner_id": "org_id", "username": "sub"},
                    }
                ]
            },
            **{
                "sync": {
                    "poll_seconds": 0.05,
                    "backoff_seconds": 0.1,
                    "claim_seconds": 5,
                    "sweep_interval_seconds": 0,
                    "deletion_confirm_seconds": 0.5,
                },
                **sections,
            },
        )
        order = {
            "settings": _plain(settings),
            "port": self.port,
            "scope": scope,
            "die_at": die_at,
            "log": str(self.log),
        }
        assert self.zygote.stdin is not None
        assert self.zygote.stdout is not None
        self.zygote.stdin.write(json.dumps(order).encode() + b"\n")
        self.pid = int(await self.zygote.stdout.readline())
        await eventually(self.answers, within=15)

    async def answers(self) -> bool:
        """Tell whether the broker serves, or is dead already."""
        if not self.is_alive():
            return True
        try:
            return bool((await self.http.get("/livez")).status_code == 200)
        except httpx2.TransportError:
            return False

    def is_alive(self) -> bool:
        """Tell whether the last broker still runs."""
        try:
            os.kill(self.pid or 0, 0)
        except ProcessLookupError:
            return False
        return True

    def limit_files(self, size: int) -> None:
        """Let the broker that runs write no file beyond so many bytes: to it, the disk is full."""
        resource.prlimit(self.pid or 0, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    async def bury(self) -> None:
        """Kill the broker if it still lives, and wait until it is gone."""
        if self.is_alive():
            os.kill(self.pid or 0, signal.SIGKILL)
        self.deaths += 1

        async def is_gone() -> bool:
            return not self.is_alive()

        await eventually(is_gone)

    async def reconnect(self) -> None:
        """Forget the test's own connections, which a database that was restarted has cut."""
        await self.database.engine.dispose()

    async def time_passes(self) -> None:
        """Let leases and claims of the dead run out."""
        async with self.database.transaction() as connection:
            await connection.execute(sa.update(leases).values(expires_at_ms=0))
            await connection.execute(sa.update(linked_accounts).values(claimed_until=None))

    def link(self) -> Account:
        """Link a fresh account at StackOne; no event is sent."""
        self.made += 1
        return self.project.accounts.link(
            LinkOrder(
                provider="bamboohr",
                origin_owner_id="org_acme",
                origin_owner_name="Acme Inc",
                multiple=True,
                fixed_id=f"acc{self.made:06}",
            )
        )

    async def deliver(self, account: Account, event: str = "account.created") -> int | None:
        """Post one signed event; return the status, or None if the broker died over it."""
        payload = {
            "project_id": "p",
            "event": event,
            "event_date": account.updated_at,
            "record_type": "account",
            "record_id": account.id,
            "account_id": account.id,
            "sent_at": account.updated_at,
            "provider": account.provider,
        }
        body = json.dumps(payload).encode()
        digest = hmac.new(WEBHOOK_SECRET.encode(), body, hashlib.sha256).digest()
        headers = {"x-stackone-signature": base64.urlsafe_b64encode(digest).rstrip(b"=").decode()}
        return await self.call("POST", "/v1/webhooks/stackone", content=body, headers=headers)

    async def call(self, method: str, path: str, **options: Any) -> int | None:
        """Call the broker; None if it died over it."""
        try:
            return (await self.http.request(method, path, **options)).status_code
        except httpx2.TransportError:
            return None

    async def history(self, account_id: str) -> list[str]:
        """Return what is written down about an account."""
        c = account_events.c
        query = sa.select(c.kind).where(c.account_id == account_id).order_by(c.id)
        async with self.database.reading() as connection:
            return list((await connection.execute(query)).scalars())

    async def living(self) -> set[str]:
        """Return the accounts that the store holds for alive."""
        c = linked_accounts.c
        query = sa.select(c.account_id).where(c.deleted_at.is_(None), c.verified_at.is_not(None))
        async with self.database.reading() as connection:
            return set((await connection.execute(query)).scalars())

    async def assert_feed_is_whole(self) -> None:
        """No position is missing and none is there twice."""
        c = account_events.c
        query = sa.select(c.position).where(c.position.is_not(None)).order_by(c.position)
        async with self.database.reading() as connection:
            positions = list((await connection.execute(query)).scalars())
        assert positions == list(range(1, len(positions) + 1))


def _plain(settings: Any) -> dict[str, Any]:
    """Spell settings out, secrets included, for a process that is to use them."""
    plain: dict[str, Any] = json.loads(json.dumps(settings.model_dump(), default=_reveal))
    return plain


def _reveal(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)


@asynccontextmanager
async def open_graveyard(database_url: str, log: Path) -> AsyncIterator[Graveyard]:
    """Start StackOne and the zygote; end both, and every broker, at the end of the block."""
    stackone_socket, free = bind(0), bind(0)
    port = free.getsockname()[1]
    free.close()
    project = Project(
        StackOneConfig(
            api_key=API_KEY,
            webhook_secret=WEBHOOK_SECRET,
            sandbox_key=SANDBOX_KEY,
            webhook_url=None,
            own_url=url_of(stackone_socket),
        )
    )
    database = Database(open_engine(DatabaseSettings(url=database_url)))
    zygote = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.mortal", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    async with (
        serving(create_stackone(project), stackone_socket),
        httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=10, limits=httpx2.Limits(max_keepalive_connections=0)
        ) as http,
    ):
        graveyard = Graveyard(zygote, database, database_url, project, url_of(stackone_socket), port, log, http)
        try:
            yield graveyard
        finally:
            if graveyard.pid is not None:
                await graveyard.bury()
            assert zygote.stdin is not None
            zygote.stdin.close()
            await zygote.wait()
            await database.close()
