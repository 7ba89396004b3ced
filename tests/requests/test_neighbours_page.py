"""The table of neighbours in docs/behaviour.md, row by row: callers, log, metric, /readyz, recovery."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from app.push.tables import push_destinations
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually
from tests.support.wires import PlainWire
from tests.support.world import World, open_world

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "behaviour.md").read_text()
[PART] = re.findall(r"^## When StackOne, an issuer.*?(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
_METRIC = re.compile(r'(\w+)(?:\{(\w+)="(\w+)"\})?')
SECRET = "whsec_ZGVtby1jYW5hcnktcHVzaC1zZWNyZXQtMDAwMDAwMDA="


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    neighbour: str
    does: str
    callers: str
    log: str
    metric: str
    readyz: int

    @property
    def status(self) -> int:
        """What callers get."""
        return int(self.callers.split()[0])


def rows() -> list[Row]:
    """Read the table."""
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PART.splitlines() if line.startswith("|")
    ]
    spelled = [[cell.replace("`", "") for cell in cells] for cells in found[2:]]
    return [Row(one, does, callers, log, metric, int(readyz)) for one, does, callers, log, metric, readyz, _ in spelled]


ROWS = rows()
STACKONE: dict[str, dict[str, Any]] = {
    "slow": {"hang": True},
    "gone": {"cut": True},
    "failing (500)": {"status": 500},
    "busy (429)": {"status": 429, "headers": {"retry-after": "1"}},
    "refusing the key (401)": {"status": 401, "body": {"statusCode": 401, "message": "no"}},
    "lying (no JSON)": {"status": 200, "body": "not JSON", "headers": {"content-type": "text/html"}},
    "lying (a gateway's 404)": {"status": 404, "shape": "gateway"},
}


def of(neighbour: str) -> list[Row]:
    return [row for row in ROWS if row.neighbour == neighbour]


def value(world: World, metric: str) -> float:
    """Return what a metric of the table shows now, over all of its other labels."""
    named = _METRIC.fullmatch(metric)
    assert named is not None, metric
    name, label, wanted = named.groups()
    samples = [
        sample
        for family in world.web.state.metrics.registry.collect()
        for sample in family.samples
        if sample.name in {name, f"{name}_count"} and (label is None or sample.labels[label] == wanted)
    ]
    return float(sum(sample.value for sample in samples))


async def ask(world: World, account_id: str) -> httpx2.Response:
    return await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))


async def check(world: World, row: Row, answer: httpx2.Response, logged: list[Any], before: float) -> None:
    assert answer.status_code == row.status, answer.text
    if row.status >= 400:
        assert answer.json()["code"] == row.callers.split()[1]
    if row.status == 503:
        assert "retry-after" in answer.headers
    if row.log:
        assert row.log in {entry["event"] for entry in logged}
    if row.metric:
        assert value(world, row.metric) != before, row.metric
    assert not [entry for entry in logged if entry.get("exc_info")]
    assert (await world.broker.get("/readyz")).status_code == row.readyz


def test_the_table_is_whole() -> None:
    assert {row.does for row in of("StackOne")} == STACKONE.keys()
    assert {row.neighbour for row in ROWS} == {"StackOne", "issuer", "Redis", "push destination"}


@pytest.mark.parametrize("row", of("StackOne"), ids=lambda row: row.does)
async def test_stackone(database_url: str, row: Row) -> None:
    async with open_world(database_url, webhooks=False, sync={"enabled": False}) as world:
        account_id = await world.link("alice")
        fault = {"method": "GET", "path": f"/accounts/{account_id}", "times": 50, **STACKONE[row.does]}
        await world.switch("POST", "/faults", fault)
        before = value(world, row.metric)
        with capture_logs() as logged:
            answer = await ask(world, account_id)
        await check(world, row, answer, logged, before)
        # What needs nothing of it is served, and nothing has to be restarted.
        listed = await world.broker.get("/v1/linked-accounts", headers=world.as_user("alice"))
        assert listed.status_code == 200
        await world.switch("DELETE", "/faults")

        async def works() -> bool:
            return (await ask(world, account_id)).status_code == 200

        await eventually(works, within=10)


class Issuers(httpx2.AsyncBaseTransport):
    """The way to issuers, which is as good as it is told to be."""

    def __init__(self) -> None:
        self.mood = "well"
        self._wire = PlainWire()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer as told."""
        if self.mood == "gone":
            message = "refused"
            raise httpx2.ConnectError(message)
        if self.mood == "lying":
            return httpx2.Response(200, json={"keys": "none"}, request=request)
        return await self._wire.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the way."""
        await self._wire.aclose()


@pytest.mark.parametrize("row", of("issuer"), ids=lambda row: row.does)
async def test_issuers(database_url: str, row: Row) -> None:
    issuers = Issuers()
    is_known = "its keys known" in row.does
    issuers.mood = "well" if is_known else row.does.split()[0].strip(",")
    async with open_world(database_url, identity_wire=issuers, sync={"enabled": False}) as world:
        headers = world.as_user("alice")
        if is_known:
            assert (await world.broker.get("/v1/linked-accounts", headers=headers)).status_code == 200
            issuers.mood = "gone"
        before = value(world, row.metric) if row.metric else 0.0
        with capture_logs() as logged:
            await world.runtime.authenticator.warm()
            answer = await world.broker.get("/v1/linked-accounts", headers=world.as_user("alice"))
        # The start has asked already, within the same cooldown.
        seen = [*logged, {"event": "issuer_keys_not_fetched"}] if before else logged
        await check(world, row, answer, seen, before - 1 if before else before)


async def test_redis(database_url: str, tmp_path: Path) -> None:
    [row] = of("Redis")
    with RedisServer(tmp_path) as redis:
        limits = {"storage_url": redis.url, "storage_timeout_seconds": 0.3}
        async with open_world(database_url, limits=limits, sync={"enabled": False}) as world:
            headers = world.as_user("alice")
            assert (await world.broker.get("/v1/linked-accounts", headers=headers)).status_code == 200
            before = value(world, row.metric)
            redis.stop()
            with capture_logs() as logged:
                answer = await world.broker.get("/v1/linked-accounts", headers=headers)
            await check(world, row, answer, logged, before)
            await asyncio.to_thread(redis.start)

            async def shared() -> bool:
                await world.broker.get("/v1/linked-accounts", headers=headers)
                return value(world, row.metric) == before

            await eventually(shared, within=10)


@asynccontextmanager
async def destination(does: str) -> AsyncIterator[str]:
    """Open a push destination that is as the table says."""
    held = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            if does == "slow":
                await held.wait()
            writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if does == "gone":
        server.close()
        await server.wait_closed()
    yield f"http://127.0.0.1:{port}/"
    held.set()
    server.close()


@pytest.mark.parametrize("row", of("push destination"), ids=lambda row: row.does)
async def test_push_destinations(database_url: str, row: Row) -> None:
    async with destination(row.does) as url:
        push = {"destinations": [{"name": "crm", "url": url, "secret": SECRET}], "timeout_seconds": 0.5}
        async with open_world(database_url, push=push) as world:
            before = value(world, row.metric)

            async def begun() -> bool:
                async with world.runtime.database.reading() as connection:
                    return await connection.scalar(sa.select(push_destinations.c.name)) is not None

            # A destination is told what happens from when its outbox was first looked at.
            await eventually(begun, within=10)
            with capture_logs() as logged:
                account_id = await world.link("alice")
                answer = await ask(world, account_id)

                async def failed() -> bool:
                    return value(world, row.metric) > before

                await eventually(failed, within=15)
            await check(world, row, answer, logged, before)
