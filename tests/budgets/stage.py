"""A broker whose every wait, statement and function call can be counted.

The application is called without a socket, PostgreSQL is real and behind a counting proxy, and StackOne's answers lie
ready: what is counted is the broker's own. The proxy has a thread of its own, so that its work is not counted as ours.
"""

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import statistics
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import httpx2
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy import event

from app.clock import SystemClock
from app.identity.caller import Scope
from app.identity.service_keys import keys
from app.linked_accounts.tables import linked_accounts
from app.main import create_app
from app.runtime import Externals, Runtime
from app.settings import Settings
from tests.budgets.proxy import CountingProxy, counting
from tests.support.tokens import Issuer, IssuerServer, StoppedClock, rsa_key

STACKONE = "https://api.stackone.example"
API_KEY = "demo-key-of-the-budgets"
WEBHOOK_SECRET = "demo-secret-of-the-budgets"
PEPPER = "demo-pepper-of-the-budgets"
OWNER = "acme"
PLENTY = "1000000/minute"
# What surrounds the broker, and whose share depends on timing.
_NOT_OURS = (str(Path(asyncio.__file__).parent), str(Path(threading.__file__)), str(Path(__file__).parent))


@dataclass(frozen=True)
class Cost:
    """What something cost."""

    waits: int
    built: int
    compiled: int
    calls: int


class CannedStackOne(httpx2.AsyncBaseTransport):
    """Answers a mint and a read of any account, at once."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        if request.url.path == "/connect_sessions":
            body = {
                **json.loads(request.content),
                "id": "1",
                "organization_id": 1,
                "project_id": "p",
                "created_at": "2026-11-20T09:14:07.112Z",
                "token": "t" * 120,
                "auth_link_url": f"{STACKONE}/embedded/accounts/direct/t",
            }
            return httpx2.Response(201, json=body, request=request)
        account_id = request.url.path.rpartition("/")[2]
        return httpx2.Response(200, json=account(account_id), request=request)


def account(account_id: str) -> dict[str, Any]:
    """Return an account as StackOne shows it."""
    return {
        "id": account_id,
        "provider": "bamboohr",
        "status": "active",
        "origin_owner_id": OWNER,
        "origin_owner_name": "Acme Inc.",
        "created_at": "2026-11-20T09:14:07.112Z",
        "updated_at": "2026-11-20T09:14:07.112Z",
    }


@dataclass
class Stage:
    """A broker and what may be asked of it."""

    web: FastAPI
    runtime: Runtime
    proxy: CountingProxy
    user: str
    service: str
    _number: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _seen: dict[int, object] = field(default_factory=dict)

    async def ask(self, method: str, path: str, *, caller: str = "", body: bytes = b"", **headers: str) -> Any:
        """Ask the application; return the answer's JSON. Anything but a success fails."""
        route, _, query = path.partition("?")
        fields = [(b"host", b"broker.example"), (b"content-type", b"application/json")]
        fields += [(b"content-length", str(len(body)).encode())] if body else []
        fields += [(b"authorization", f"Bearer {caller}".encode())] if caller else []
        fields += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": route,
            "raw_path": route.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": fields,
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        status, pieces = 0, []
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if asked:
                await asyncio.Event().wait()
            asked = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                pieces.append(message.get("body", b""))

        await self.web(scope, receive, send)
        answer = b"".join(pieces)
        assert 200 <= status < 300, (method, path, status, answer)
        return json.loads(answer)

    async def mint(self) -> None:
        """Open a session for a provider of which the owner has no account."""
        await self.ask("POST", "/v1/connect-sessions", caller=self.user, body=b'{"provider":"hibob"}')

    async def reconnect(self) -> None:
        """Open a session for a provider of which the owner has accounts: StackOne is asked about one of them first."""
        await self.ask("POST", "/v1/connect-sessions", caller=self.user, body=b'{"provider":"bamboohr"}')

    async def confirm(self) -> None:
        """Confirm an account that the store does not know yet."""
        account_id = f"confirmed{next(self._number):012}"
        await self.ask("POST", f"/v1/linked-accounts/{account_id}/confirm", caller=self.user)

    async def deliver(self, sent_at: str | None = None) -> str:
        """Deliver an event about an account that the store knows; `sent_at` makes it the same event again."""
        payload = {
            "account_id": "known000000000001",
            "event": "account.updated",
            "provider": "bamboohr",
            "sent_at": sent_at or f"number {next(self._number)}",
        }
        body = json.dumps(payload).encode()
        digest = hmac.digest(WEBHOOK_SECRET.encode(), body, hashlib.sha256)
        signature = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        answer = await self.ask("POST", "/v1/webhooks/stackone", body=body, x_stackone_signature=signature)
        return str(answer["outcome"])

    async def settle(self) -> None:
        """Have nothing due."""
        async with self.runtime.database.transaction() as connection:
            await connection.execute(sa.update(linked_accounts).values(refresh_due_at=None, claimed_until=None))

    async def make_due(self) -> None:
        """Have one account due."""
        await self.settle()
        one = linked_accounts.c.account_id == "known000000000001"
        values = {"refresh_due_at": self.runtime.clock.now() - timedelta(seconds=1)}
        async with self.runtime.database.transaction() as connection:
            await connection.execute(sa.update(linked_accounts).where(one).values(values))

    async def cost(
        self, act: Callable[[], Awaitable[object]], *, before: Callable[[], Awaitable[object]] | None = None
    ) -> Cost:
        """Do something until it is warm, and then five times more; return the median of each count."""
        costs = []
        for number in range(13):
            if before is not None:
                await before()
            with self._counting() as cost:
                await act()
            if number >= 8:
                costs.append(cost())
        return Cost(
            waits=int(statistics.median(cost.waits for cost in costs)),
            built=int(statistics.median(cost.built for cost in costs)),
            compiled=int(statistics.median(cost.compiled for cost in costs)),
            calls=int(statistics.median(cost.calls for cost in costs)),
        )

    @contextmanager
    def _counting(self) -> Iterator[Callable[[], Cost]]:
        engine = self.runtime.database.engine.sync_engine
        built = compiled = calls = 0
        plain = engine.dialect.statement_compiler

        def note(_connection: object, statement: object, *_arguments: object) -> None:
            nonlocal built
            if id(statement) not in self._seen:
                # Kept, so that no other can have its identity later.
                self._seen[id(statement)] = statement
                built += 1

        def compile_(compiler: Any, *arguments: Any, **named: Any) -> None:
            nonlocal compiled
            compiled += 1
            plain.__init__(compiler, *arguments, **named)

        def count(frame: FrameType, what: str, _argument: object) -> None:
            nonlocal calls
            if what == "call" and not frame.f_code.co_filename.startswith(_NOT_OURS):
                calls += 1

        waits = self.proxy.waits
        event.listen(engine, "before_execute", note)
        engine.dialect.statement_compiler = type("Counting", (plain,), {"__init__": compile_})
        sys.setprofile(count)
        try:
            yield lambda: Cost(waits=self.proxy.waits - waits, built=built, compiled=compiled, calls=calls)
        finally:
            sys.setprofile(None)
            engine.dialect.statement_compiler = plain
            event.remove(engine, "before_execute", note)


@contextmanager
def counting_in_a_thread(url: str) -> Iterator[CountingProxy]:
    """Run the proxy beside everything else."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    context = counting(url)
    try:
        yield asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@asynccontextmanager
async def open_stage(database_url: str) -> AsyncIterator[Stage]:
    """Open a broker over a PostgreSQL database with five accounts of one owner, a page of events and nothing due."""
    with counting_in_a_thread(database_url) as proxy:
        issuer = Issuer(StoppedClock(datetime.now(UTC)), key=rsa_key())
        settings = _settings(proxy.url, issuer)
        externals = Externals(
            clock=SystemClock(), stackone_transport=CannedStackOne(), identity_transport=IssuerServer(issuer)
        )
        web = create_app(settings, externals)
        async with web.router.lifespan_context(web):
            runtime: Runtime = web.state.runtime
            stage = Stage(web, runtime, proxy, issuer.token(exp=issuer.now + 3000), await _service_key(runtime))
            for number in range(1, 6):
                path = f"/v1/linked-accounts/known{number:012}/confirm"
                await stage.ask("POST", path, caller=stage.user)
            yield stage


def _settings(database_url: str, issuer: Issuer) -> Settings:
    rates = ("mint_per_user", "mint_per_owner", "requests_per_user", "requests_per_owner", "requests_per_service")
    return Settings.model_validate(
        {
            "metrics": {"port": None},
            "stackone": {
                "api_key": API_KEY,
                "base_url": STACKONE,
                "webhook_secrets": [WEBHOOK_SECRET],
                "requests_per_minute": 100_000,
            },
            "database": {"url": database_url},
            "identity": {"issuers": [issuer.settings()]},
            "service_keys": {"pepper": PEPPER},
            "sync": {"enabled": False},
            "limits": {**dict.fromkeys(rates, PLENTY), "live_sessions_per_owner": 100_000},
        }
    )


async def _service_key(runtime: Runtime) -> str:
    now = runtime.clock.now()
    async with runtime.database.transaction() as connection:
        created = await keys.create_key(
            connection,
            name="budgets",
            scopes=tuple(Scope),
            owner_ids=None,
            expires_at=now + timedelta(days=1),
            now=now,
            pepper=PEPPER.encode(),
            token_bytes=runtime.token_bytes,
        )
    return created.key
