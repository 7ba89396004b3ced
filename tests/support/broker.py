"""A broker in this process: a real SQLite file, the StackOne emulator behind the real client, and time on order.

Nothing goes over a socket, so that a test takes milliseconds and many small questions can be asked.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import sqlalchemy as sa

from app.connect_sessions.ledger import Session
from app.connect_sessions.mint import Minted, mint
from app.connect_sessions.tables import Mode, Status, connect_sessions
from app.db.database import transaction_open
from app.identity.caller import EndUser, Owner
from app.linked_accounts.apply import apply_observations
from app.linked_accounts.changes import Source
from app.linked_accounts.decide import Observation
from app.linked_accounts.store import take_read_ticket
from app.linked_accounts.tables import account_events, linked_accounts
from app.main import create_app
from app.policy.rules import Channel, Policy
from app.runtime import Externals, Runtime, open_runtime
from app.settings import Settings
from app.stackone.models import ConnectSessionRequest
from sandbox.stackone.accounts import LinkOrder
from sandbox.stackone.application import create_stackone
from sandbox.stackone.decisions import Decisions
from sandbox.stackone.project import Project, StackOneConfig
from tests.support.databases import migrate, stored_rows
from tests.support.tokens import Issuer, IssuerServer, StoppedClock

STACKONE = "https://api.stackone.example"
SECRET = "a secret that a home-made login shares with the broker"
ACME = Owner("acme", "Acme Inc.", "ann@acme.example", "user:ann", {"plan": "gold"})
ANN = EndUser("https://login.example.test", "ann", "acme", "Acme Inc.", "ann@acme.example", {"plan": "gold"})


class InProcessStackOne(httpx2.AsyncBaseTransport):
    """The emulator without a wire, put together when it is first called; never inside a transaction."""

    def __init__(self, project: Project) -> None:
        """Serve a project; `before` is awaited ahead of each answer."""
        self.before: Callable[[], Awaitable[None]] | None = None
        self._project = project
        self._served: httpx2.ASGITransport | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Serve one request."""
        assert not transaction_open.get(), f"a transaction is open during {request.method} {request.url.path}"
        if self.before is not None:
            await self.before()
        if self._served is None:
            self._served = httpx2.ASGITransport(create_stackone(self._project))
        return await self._served.handle_async_request(request)


@cache
def _migrated() -> bytes:
    with TemporaryDirectory() as directory:
        migrate(f"sqlite:///{directory}/template.db")
        return Path(directory, "template.db").read_bytes()


@dataclass(frozen=True)
class Broker:
    """What a test may touch: the broker, StackOne behind it, the clock, and the rows."""

    runtime: Runtime
    project: Project
    wire: InProcessStackOne
    clock: StoppedClock
    issuer: Issuer

    async def mint(
        self,
        owner: Owner = ACME,
        *,
        policy: Policy | None = None,
        live_sessions: int = 100,
        channel: Channel = Channel.BROWSER,
        **request: Any,
    ) -> Minted:
        """Mint for an owner; without a policy everything is allowed."""
        settings = self.runtime.settings
        limits = settings.limits.model_copy(update={"live_sessions_per_owner": live_sessions})
        runtime = replace(
            self.runtime, policy=policy or Policy(), settings=settings.model_copy(update={"limits": limits})
        )
        return await mint(runtime, owner, ConnectSessionRequest(**request), channel)

    def link(self, provider: str = "bamboohr", *, owner: str = "acme", name: str = "Acme Inc.", **fields: Any) -> str:
        """Link an account at StackOne, of which nobody tells the broker."""
        order = LinkOrder(
            provider=provider, origin_owner_id=owner, origin_owner_name=name, multiple=True, changes=fields
        )
        return self.project.accounts.link(order).id

    async def read(self, *account_ids: str) -> None:
        """Read accounts at StackOne and store what it says, as a refresh does."""
        async with self.runtime.database.transaction() as connection:
            ticket = await take_read_ticket(connection)
        observations = [
            Observation(name, await self.runtime.stackone.get_account(name), ticket) for name in account_ids
        ]
        async with self.runtime.database.transaction() as connection:
            await apply_observations(
                connection,
                observations,
                source=Source.REFRESH,
                actor="stackone",
                now=self.clock.now(),
                metrics=self.runtime.metrics,
                settings=self.runtime.settings.sync,
            )

    async def linked(self, provider: str = "bamboohr", **fields: Any) -> str:
        """Link an account at StackOne and have the broker know it."""
        account_id = self.link(provider, **fields)
        await self.read(account_id)
        return account_id

    def sent(self, path: str = "/connect_sessions") -> list[Any]:
        """Return the bodies that StackOne received on a path by POST."""
        entries = [entry.to_json() for entry in self.project.requests.entries.after(0, 1000)]
        return [entry["body"] for entry in entries if (entry["method"], entry["path"]) == ("POST", path)]

    def calls(self) -> list[tuple[str, str]]:
        """Return method and path of every call that StackOne received."""
        return [(entry.method, entry.path) for entry in self.project.requests.entries.after(0, 1000)]

    def as_user(self, **claims: Any) -> dict[str, str]:
        """Return the header of a signed-in user."""
        return {"authorization": f"Bearer {self.issuer.token(**claims)}"}

    def as_machine(self, *scopes: str, **claims: Any) -> dict[str, str]:
        """Return the header of a machine with these scopes."""
        token = self.issuer.token(aud="broker-machines", sub="robot", scope=" ".join(scopes), **claims)
        return {"authorization": f"Bearer {token}"}

    async def rows(self, table: sa.Table) -> list[dict[str, Any]]:
        """Return every row of a table as it is stored: an Enum is text there."""
        async with self.runtime.database.reading() as connection:
            return await stored_rows(connection, table)

    async def row(self, table: sa.Table) -> dict[str, Any]:
        """Return the only row of a table."""
        [row] = await self.rows(table)
        return row

    async def has(self, table: sa.Table, **values: Any) -> None:
        """Put a row where the broker would have put it."""
        async with self.runtime.database.transaction() as connection:
            await connection.execute(sa.insert(table).values(values))

    async def change(self, table: sa.Table, where: Mapping[str, Any], **values: Any) -> None:
        """Change rows as the broker would have changed them."""
        async with self.runtime.database.transaction() as connection:
            conditions = [table.c[name] == value for name, value in where.items()]
            await connection.execute(sa.update(table).where(*conditions).values(**values))

    async def has_session(self, session_id: str = "cs_1", **changes: Any) -> Session:
        """Have a session in the ledger: acme's for BambooHR, opened now for half an hour, unless changed."""
        now = self.clock.now()
        values = {
            "id": session_id,
            "owner_id": "acme",
            "requested_by": "user:ann",
            "channel": "browser",
            "mode": "create",
            "status": "pending",
            "provider": "bamboohr",
            "account_id": None,
            "linked_account_id": None,
            "created_at": now,
            "expires_at": now + timedelta(minutes=30),
            "multiple": False,
            "upstream_id": None,
            **changes,
        }
        await self.has(connect_sessions, **values)
        values.pop("upstream_id")
        enums = {
            "channel": Channel(values["channel"]),
            "mode": Mode(values["mode"]),
            "status": Status(values["status"]),
        }
        return Session(**{**values, **enums})

    async def has_account(self, account_id: str = "a1", **changes: Any) -> None:
        """Have an account in the store: acme's of BambooHR, verified, unless changed."""
        now = self.clock.now()
        values = {
            "account_id": account_id,
            "owner_id": "acme",
            "owner_name": "Acme Inc.",
            "provider": "bamboohr",
            "status": "active",
            "created_at": now,
            "updated_at": now - timedelta(days=1),
            "verified_at": now,
            **changes,
        }
        await self.has(linked_accounts, **values)

    async def has_event(self, account_id: str = "a1", *, position: int | None = 1, **changes: Any) -> None:
        """Have an entry in the feed: acme's account was linked now, unless changed."""
        values = {
            "position": position,
            "account_id": account_id,
            "owner_id": "acme",
            "kind": "account.linked",
            "source": "refresh",
            "actor": "stackone",
            "at": self.clock.now(),
            **changes,
        }
        await self.has(account_events, **values)


@asynccontextmanager
async def open_broker(
    directory: Path, *, machine: Mapping[str, Any] | None = None, **sections: Any
) -> AsyncIterator[Broker]:
    """Open a broker over its own database and its own StackOne.

    `machine` changes the settings of machine tokens; another section given here replaces the usual one.
    """
    clock = StoppedClock()
    file = directory / "broker.db"
    # In a thread, since it starts an event loop of its own.
    file.write_bytes(await asyncio.to_thread(_migrated))
    issuer = Issuer(clock, secret=SECRET)
    project = Project(
        StackOneConfig(
            api_key="demo-key",
            webhook_secret="demo-secret",
            sandbox_key="demo-sandbox",
            # Tests name providers and profiles that no project has.
            decisions=Decisions(unknown_provider="accept", unknown_profile="accept"),
        ),
        clock=clock.now,
    )
    machines = issuer.machine_settings(**{"audiences": ["broker-machines"], **(machine or {})})
    settings = Settings.model_validate(
        {
            "http": {"docs": True},
            "metrics": {"port": None},
            "stackone": {
                "api_key": "demo-key",
                "base_url": STACKONE,
                "webhook_secrets": ["demo-secret-of-a-webhook"],
                "max_attempts": 1,
            },
            "database": {"url": f"sqlite:///{file}"},
            "identity": {"issuers": [issuer.settings()], "machine_issuers": [machines]},
            "service_keys": {"pepper": "a pepper of decent length"},
            "sync": {"enabled": False},
            **sections,
        }
    )
    wire = InProcessStackOne(project)
    externals = Externals(clock=clock, stackone_transport=wire, identity_transport=IssuerServer())
    async with open_runtime(settings, externals) as runtime:
        yield Broker(runtime, project, wire, clock, issuer)


@asynccontextmanager
async def front_door(broker: Broker, policy: Policy | None = None) -> AsyncIterator[httpx2.AsyncClient]:
    """Open the web application over a broker; its background loops are not running."""
    web = create_app(broker.runtime.settings)
    web.state.runtime = replace(broker.runtime, policy=policy or Policy())
    transport = httpx2.ASGITransport(web)
    async with httpx2.AsyncClient(transport=transport, base_url="https://broker.example") as http:
        yield http
