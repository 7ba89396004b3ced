"""Everything that is measured, started on loopback: the broker, its contenders, and what they all stand on."""

import asyncio
import base64
import hashlib
import hmac
import importlib.util
import json
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.counters import raise_counter
from app.identity.caller import Scope
from app.identity.service_keys.keys import create_key
from bench.load import http_request, write_requests
from bench.machine import LOAD_CORES, SERVER_CORE, free_port, running
from bench.stackone import STAMP, owner_of
from tests.support.databases import engine_of
from tests.support.tokens import Issuer, StoppedClock, rsa_key

API_KEY = "demo-key-of-the-benchmarks"
WEBHOOK_SECRET = "demo-secret-of-the-benchmarks"  # noqa: S105
PEPPER = "demo-pepper-of-the-benchmarks"
OWNERS = 200
EXPRESS = Path(__file__).parent / "contenders" / "express"
_NGINX = Path(__file__).parent / "contenders" / "nginx.conf"
_PLENTY = "1000000/minute"
_RATES = ("mint_per_user", "mint_per_owner", "requests_per_user", "requests_per_owner", "requests_per_service")
_CONTENDERS_TABLES = {
    "bench_accounts": "account_id text PRIMARY KEY, owner_id text, provider text, status text, created_at {time}",
    "bench_sessions": "id text PRIMARY KEY, owner_id text, provider text, created_at {time}, expires_at {time}",
    "bench_events": "digest {blob} PRIMARY KEY, account_id text NOT NULL",
}


def account_id_of(number: int) -> str:
    """Return the id of an account of these benchmarks."""
    return f"acc{number:018}"


def _with_driver(url: str) -> str:
    """Name the driver in a URL, as SQLAlchemy wants it."""
    return url.replace("sqlite://", "sqlite+aiosqlite://").replace("postgresql://", "postgresql+asyncpg://")


def _node() -> bool:
    return shutil.which("node") is not None and (EXPRESS / "node_modules").is_dir()


# What each contender needs besides Python, and what to say where it is missing.
NEEDS: Mapping[str, tuple[Callable[[], bool], str]] = {
    "express": (_node, "Node.js and `npm ci` in bench/contenders/express"),
    "nginx": (lambda: shutil.which("nginx") is not None, "nginx (Debian package nginx)"),
    "bare-aiohttp": (lambda: importlib.util.find_spec("aiohttp") is not None, "the Python package aiohttp"),
}


def left_out() -> list[str]:
    """Say which contenders cannot run here, and why."""
    return [f"{name}: needs {what}" for name, (there, what) in NEEDS.items() if not there()]


@dataclass
class Field:
    """A store full of accounts, a StackOne, and callers' credentials."""

    folder: Path
    database_url: str
    stackone_port: int
    issuer: Issuer
    service_key: str = ""
    _tokens: dict[str, str] = field(default_factory=dict)

    @property
    def stackone_url(self) -> str:
        """Return where the stand-in is."""
        return f"http://127.0.0.1:{self.stackone_port}"

    def bearer(self, number: int) -> dict[str, str]:
        """Return the header of a user of the owner of that number."""
        owner = f"org{number:07}"
        if owner not in self._tokens:
            self._tokens[owner] = self.issuer.token(
                sub=f"user-{owner}",
                org_id=owner,
                org_name=owner.title(),
                email=f"user@{owner}.example",
                exp=self.issuer.now + 20_000,
            )
        return {"authorization": f"Bearer {self._tokens[owner]}"}

    def broker_env(self, port: int, **more: str) -> dict[str, str]:
        """Return the settings of a broker: the defaults, but for limits that only stop a benchmark."""
        issuer = {
            "issuer": self.issuer.url,
            "jwks_uri": f"{self.stackone_url}/keys",
            "audiences": ["connect-broker"],
            "algorithms": ["RS256"],
            "claims": {"owner_id": "org_id", "owner_name": "org_name", "username": "email"},
        }
        return {
            "BROKER_ENVIRONMENT": "development",
            "BROKER_HTTP__PORT": str(port),
            "BROKER_METRICS__PORT": "null",
            "BROKER_STACKONE__API_KEY": API_KEY,
            "BROKER_STACKONE__BASE_URL": self.stackone_url,
            "BROKER_STACKONE__WEBHOOK_SECRETS": json.dumps([WEBHOOK_SECRET]),
            "BROKER_STACKONE__REQUESTS_PER_MINUTE": "100000",
            "BROKER_DATABASE__URL": self.database_url,
            "BROKER_SERVICE_KEYS__PEPPER": PEPPER,
            "BROKER_IDENTITY__ISSUERS": json.dumps([issuer]),
            "BROKER_SYNC__ENABLED": "false",
            "BROKER_LIMITS__LIVE_SESSIONS_PER_OWNER": "10000000",
            **{f"BROKER_LIMITS__{rate.upper()}": _PLENTY for rate in _RATES},
            **more,
        }

    def contender_env(self, port: int) -> dict[str, str]:
        """Return what the contenders are told."""
        url = self.database_url
        return {
            "BENCH_PORT": str(port),
            "BENCH_STACKONE_URL": self.stackone_url,
            "BENCH_ISSUER": self.issuer.url,
            "BENCH_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "BENCH_DATABASE_URL": url,
            "NODE_ENV": "production",
        }

    @contextmanager
    def serving(self, name: str, **more: str) -> Iterator["Served"]:
        """Run one contender, pinned to the server's core."""
        port = free_port()
        command, env = self._command(name, port)
        log = self.folder / f"{name}-{port}.log"
        with running(command, port, cores=[SERVER_CORE], env={**env, **more}, log=log) as (pid, seconds):
            yield Served(name, port, pid, seconds)

    def _command(self, name: str, port: int) -> tuple[list[str], dict[str, str]]:
        if name.startswith("broker"):
            return [sys.executable, "-m", "app", "serve"], self.broker_env(port)
        env = self.contender_env(port)
        if name == "express":
            return ["node", str(EXPRESS / "server.mjs")], env
        if name == "nginx":
            folder = self.folder / f"nginx-{port}"
            folder.mkdir()
            text = _NGINX.read_text(encoding="ascii")
            for key, value in (
                ("FOLDER", str(folder)),
                ("PORT", str(port)),
                ("STACKONE_PORT", str(self.stackone_port)),
            ):
                text = text.replace(f"@{key}@", value)
            (folder / "nginx.conf").write_text(text, encoding="ascii")
            return ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")], env
        module = "textbook" if name == "textbook" else "bare"
        env["BENCH_CLIENT"] = name.rpartition("-")[2]
        env["BENCH_DATABASE_URL"] = _with_driver(self.database_url)
        arguments = ["--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        return [sys.executable, "-m", "uvicorn", f"bench.contenders.{module}:app", *arguments], env

    def requests(self, job: str) -> Path:
        """Write down the requests of a job; each is one owner's after the other."""
        file = self.folder / f"{job.replace(' ', '-')}.requests"
        return file if file.exists() and job != "webhook" else write_requests(file, list(self._requests(job)))

    def _requests(self, job: str) -> Iterator[bytes]:
        if job in {"webhook", "webhook repeated"}:
            yield from (_delivery(number) for number in range(20_000 if job == "webhook" else 20))
            return
        for number in range(OWNERS):
            account = account_id_of(number * 5)
            user = self.bearer(number)
            if job == "mint":
                yield http_request("POST", "/v1/connect-sessions", user, b'{"provider":"hibob"}')
            elif job == "list":
                yield http_request("GET", "/v1/linked-accounts", user)
            elif job == "get":
                yield http_request("GET", f"/v1/linked-accounts/{account}", user)
            elif job == "confirm":
                yield http_request("POST", f"/v1/linked-accounts/{account}/confirm", user)
            else:
                service = {"authorization": f"Bearer {self.service_key}"}
                yield http_request("GET", "/v1/events?limit=100", service)

    def run(self, *statements: str | sa.TextClause) -> Any:
        """Run statements; return the first value of the last."""

        async def act() -> Any:
            engine = engine_of(self.database_url)
            value = None
            async with engine.begin() as connection:
                for statement in statements:
                    result = await connection.execute(sa.text(statement) if isinstance(statement, str) else statement)
                    value = result.scalar() if result.returns_rows else None
            await engine.dispose()
            return value

        return asyncio.run(act())

    def fill(self, accounts: int) -> None:
        """Have that many accounts, five to an owner, in the broker's store and in the contenders' alike."""
        asyncio.run(self._fill(accounts))

    async def _fill(self, accounts: int) -> None:
        engine = engine_of(self.database_url)
        async with engine.begin() as connection:
            blob = "blob" if engine.dialect.name == "sqlite" else "bytea"
            for table, columns in _CONTENDERS_TABLES.items():
                created = f"CREATE TABLE IF NOT EXISTS {table} ({columns.format(blob=blob, time='timestamptz')})"
                await connection.execute(sa.text(created))
            index = "CREATE INDEX IF NOT EXISTS bench_accounts_owner ON bench_accounts (owner_id, account_id)"
            await connection.execute(sa.text(index))
            for table in ("linked_accounts", "bench_accounts"):
                await connection.execute(sa.text(f"DELETE FROM {table}"))  # noqa: S608  our own names
            # generate_series, in a spelling that SQLite has too.
            numbers = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :last)"
            name = _numbered(connection, "acc", "i", 18)
            owner = _numbered(connection, "org", "i / 5", 7)
            columns = "account_id, owner_id, provider, status, created_at"
            values = f"{name}, {owner}, 'bamboohr', 'active', '2026-01-01 00:00:00+00'"
            if engine.dialect.name == "sqlite":
                values = values.replace("+00'", ".000000'")
            for table, extra, value in (
                ("linked_accounts", ", owner_name, updated_at, verified_at, read_ticket", ", 'Org', c, c, 0"),
                ("bench_accounts", "", ""),
            ):
                more = value.replace("c", values.rpartition(", ")[2]) if value else ""
                await connection.execute(
                    sa.text(f"{_insert(table, columns + extra, numbers, values + more)}"),
                    {"last": accounts - 1},
                )
            if not self.service_key:
                await connection.execute(sa.text("DELETE FROM account_events"))
                event = "position, account_id, owner_id, provider, kind, source, actor, at"
                at = values.rpartition(", ")[2]
                row = f"i + 1, {name}, {owner}, 'bamboohr', 'account.linked', 'refresh', 'stackone', {at}"
                await connection.execute(sa.text(_insert("account_events", event, numbers, row)), {"last": 199})
                # What is written from now on comes after them, and after the reads that the rows come from.
                for name in ("account_events", "account_reads"):
                    await raise_counter(connection, name, 1000)
                self.service_key = await _service_key(connection)
        if engine.dialect.name == "postgresql":
            async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                await connection.execute(sa.text("VACUUM ANALYZE"))
        await engine.dispose()


@dataclass(frozen=True)
class Served:
    """A contender that is up."""

    name: str
    port: int
    pid: int
    start_seconds: float


def _insert(table: str, columns: str, numbers: str, values: str) -> str:
    return f"INSERT INTO {table} ({columns}) {numbers} SELECT {values} FROM n"  # noqa: S608  our own names


def _numbered(connection: AsyncConnection, prefix: str, number: str, width: int) -> str:
    if connection.dialect.name == "sqlite":
        return f"printf('{prefix}%0{width}d', {number})"
    return f"'{prefix}' || lpad(({number})::text, {width}, '0')"


async def _service_key(connection: AsyncConnection) -> str:
    now = datetime.now(UTC)
    created = await create_key(
        connection,
        name="bench",
        scopes=tuple(Scope),
        owner_ids=None,
        expires_at=now + timedelta(days=1),
        now=now,
        pepper=PEPPER.encode(),
        token_bytes=secrets.token_bytes,
    )
    return created.key


def _delivery(number: int) -> bytes:
    account_id = account_id_of(number % (OWNERS * 5))
    payload = {
        "account_id": account_id,
        "event": "account.updated",
        "provider": "bamboohr",
        "origin_owner_id": owner_of(account_id),
        "sent_at": f"{STAMP} {number} {secrets.token_hex(8)}",
    }
    body = json.dumps(payload).encode()
    signature = base64.urlsafe_b64encode(hmac.digest(WEBHOOK_SECRET.encode(), body, hashlib.sha256)).rstrip(b"=")
    return http_request("POST", "/v1/webhooks/stackone", {"x-stackone-signature": signature.decode()}, body)


@contextmanager
def open_field(folder: Path, database_url: str, *, delay_ms: float = 0, accounts: int = OWNERS * 5) -> Iterator[Field]:
    """Fill the store and start the StackOne stand-in, which also hands out the issuer's keys."""
    with ExitStack() as stack:
        port = free_port()
        issuer = Issuer(StoppedClock(datetime.now(UTC)), url=f"http://127.0.0.1:{port}", key=rsa_key())
        keys = folder / f"keys-{port}.json"
        keys.write_text(json.dumps({"keys": issuer.published}), encoding="ascii")
        command = [sys.executable, "-m", "bench.stackone", str(port), str(delay_ms), str(keys)]
        log = folder / f"stackone-{port}.log"
        stack.enter_context(running(command, port, cores=LOAD_CORES, env={}, log=log))
        opened = Field(folder, database_url, port, issuer)
        opened.fill(accounts)
        yield opened
