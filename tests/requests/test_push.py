"""Push: signed webhooks to one's own services, in order per account, tried again, set aside, replayed."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from fastapi import FastAPI, Request, Response
from standardwebhooks import Webhook

from app.jobs import Job, repeat
from app.push import outbox
from app.push.deliver import push_once
from app.push.sender import NotDelivered, Sender
from app.push.tables import push_deliveries
from app.runtime import Runtime
from app.settings import PushDestination, PushSettings
from app.settings.reach import Places, is_public
from app.sync.sweep import run_sweep
from sandbox.serving import bind, serving, url_of
from tests.support.certificates import self_signed
from tests.support.waiting import eventually
from tests.support.world import World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

SECRET = "whsec_ZGVtby1jYW5hcnktcHVzaC1zZWNyZXQtMDAwMDAwMDA="

DESTINATION = {"name": "crm", "url": "", "secret": SECRET}


@dataclass
class Receiver:
    """A service that is told of changes; `refuse` maps an account to how often it is refused."""

    url: str
    taken: list[dict[str, Any]] = field(default_factory=list)
    tried: int = 0
    refuse: dict[str, int] = field(default_factory=dict)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    socket = bind(0)
    service = Receiver(f"{url_of(socket)}/changes")
    web = FastAPI()

    @web.post("/changes")
    async def take(request: Request) -> Response:
        body = await request.body()
        Webhook(SECRET).verify(body, dict(request.headers))
        change = json.loads(body)
        service.tried += 1
        left = service.refuse.get(change["account_id"], 0)
        if left:
            service.refuse[change["account_id"]] = left - 1
            return Response(status_code=503)
        service.taken.append({**change, "id": request.headers["webhook-id"]})
        return Response(status_code=204)

    async with serving(web, socket):
        yield service


@dataclass
class Pusher:
    """Pushes by hand what the push job pushes by itself."""

    runtime: Runtime
    sender: Sender

    async def run_once(self) -> int:
        """Deliver one batch to each destination."""
        return sum([await self.push(destination) for destination in self.runtime.settings.push.destinations])

    async def push(self, destination: PushDestination) -> int:
        """Deliver one batch to one destination."""
        return await push_once(self.runtime, sender=self.sender, destination=destination)

    async def run_forever(self) -> None:
        """Push to each destination by itself, as the process does."""
        async with asyncio.TaskGroup() as tasks:
            for destination in self.runtime.settings.push.destinations:
                round_ = partial(push_once, sender=self.sender, destination=destination)
                tasks.create_task(repeat(Job("push", round_, 1.0), self.runtime))


@asynccontextmanager
async def pushing(database_url: str, service: Receiver, **push: Any) -> AsyncIterator[tuple[World, Pusher]]:
    """Open a world in which nothing runs by itself, and a pusher to run by hand."""
    destination = DESTINATION | {"url": service.url}
    async with open_world(
        database_url,
        webhooks=False,
        sync={"enabled": False, "sweep_interval_seconds": 0},
        push={"destinations": [destination], "backoff_seconds": 0.01, "max_backoff_seconds": 1, **push},
    ) as world:
        sender = Sender(timeout_seconds=2, allow_private=True)
        pusher = Pusher(world.runtime, sender)
        await pusher.run_once()
        yield world, pusher
        await sender.close()


async def drained(pusher: Pusher, world: World) -> bool:
    await pusher.run_once()
    async with world.runtime.database.reading() as connection:
        query = sa.select(sa.func.count()).where(push_deliveries.c.state == "pending")
        return int((await connection.execute(query)).scalar_one()) == 0


async def test_changes_arrive_signed_in_order_and_once(database_url: str) -> None:
    async with receiver() as service, pushing(database_url, service) as (world, pusher):
        ids = [await world.link() for _ in range(3)]
        await run_sweep(world.runtime, by="test")
        await world.switch("PATCH", f"/accounts/{ids[0]}", {"status": "error"})
        await run_sweep(world.runtime, by="test")
        service.refuse = {ids[0]: 2}
        await eventually(lambda: drained(pusher, world), within=10)
        kinds = [change["kind"] for change in service.taken if change["account_id"] == ids[0]]
        assert kinds == ["account.linked", "account.updated", "account.needs_reauth"]
        feed = await world.broker.get("/v1/events", headers=world.as_service())
        by_position = {entry["position"]: entry for entry in feed.json()["data"]}
        assert sorted(change["position"] for change in service.taken) == sorted(by_position)
        for change in service.taken:
            assert change.pop("id") == f"evt_{change['position']}"
            assert change == by_position[change["position"]]
        assert service.tried == len(service.taken) + 2


async def test_what_is_never_taken_is_set_aside_and_can_be_replayed(database_url: str) -> None:
    async with receiver() as service, pushing(database_url, service, max_attempts=2) as (world, pusher):
        account_id = await world.link()
        await run_sweep(world.runtime, by="test")
        service.refuse = {account_id: 99}
        await eventually(lambda: drained(pusher, world), within=10)
        database, now = world.runtime.database, world.clock.now()
        async with database.reading() as connection:
            [backlog] = await outbox.backlogs(connection)
        assert (service.tried, service.taken, backlog.pending, backlog.dead) == (2, [], 0, 1)
        service.refuse = {}
        async with database.transaction() as connection:
            assert await outbox.replay_dead(connection, "crm", now=now) == 1
        await eventually(lambda: drained(pusher, world), within=10)
        async with database.transaction() as connection:
            assert await outbox.replay_after(connection, "crm", 0)
        await pusher.run_once()
        await eventually(lambda: drained(pusher, world), within=10)
        assert [change["kind"] for change in service.taken] == ["account.linked"] * 2


async def test_a_destination_that_hangs_keeps_nothing_from_another(database_url: str) -> None:
    held = asyncio.Event()

    class Hanging(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.url.path == "/hanging":
                await held.wait()
            return await super().handle_async_request(request)

    async with receiver() as service, pushing(database_url, service) as (world, _pusher):
        hanging = {"name": "audit", "url": service.url.replace("/changes", "/hanging"), "secret": SECRET}
        both = PushSettings.model_validate({"destinations": [hanging, DESTINATION | {"url": service.url}]})
        sender = Sender(timeout_seconds=30, allow_private=True, transport=Hanging())
        pusher = Pusher(replace(world.runtime, settings=world.settings.model_copy(update={"push": both})), sender)
        await asyncio.gather(*(pusher.push(destination) for destination in both.destinations))
        pushing_on = asyncio.create_task(pusher.run_forever())
        ids = [await world.link() for _ in range(2)]
        for number, account_id in enumerate(ids):
            await run_sweep(world.runtime, by="test")
            await world.switch("PATCH", f"/accounts/{account_id}", {"label": f"n{number}"})

        async def all_told() -> bool:
            return len(service.taken) >= 3

        try:
            await eventually(all_told, within=10)
        finally:
            pushing_on.cancel()
            await asyncio.gather(pushing_on, return_exceptions=True)
            await sender.close()


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),  # noqa: S104  an address that must be refused
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("::127.0.0.1", False),
        ("64:ff9b:1::1", False),
        ("fec0::1", False),
        ("2001:db8::1", False),
        ("::ffff:0:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::5db8:d822", True),
        ("ff02::1", False),
    ],
)
def test_only_public_addresses_are_posted_to(address: str, *, public: bool) -> None:
    assert is_public(address) is public


class Recording(httpx2.AsyncBaseTransport):
    """The network, writing down where connections would go."""

    def __init__(self, status: int = 204, **headers: str) -> None:
        self.requests: list[httpx2.Request] = []
        self._status = status
        self._headers = headers

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer every request alike."""
        self.requests.append(request)
        return httpx2.Response(self._status, headers=self._headers, request=request)


def sender_to(network: Recording, *addresses: str, inside: tuple[str, ...] = ()) -> Sender:
    async def resolver(_host: str, _port: int) -> list[str]:
        return list(addresses)

    return Sender(
        timeout_seconds=1, allow_private=False, inside=Places.of(inside), resolver=resolver, transport=network
    )


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    network = Recording()
    await sender_to(network, "93.184.216.34").post("https://hooks.example.com/in?x=1", b"{}", {})
    [request] = network.requests
    assert (request.url.host, request.url.port, request.url.scheme) == ("93.184.216.34", None, "https")
    assert (request.headers["host"], request.extensions["sni_hostname"]) == ("hooks.example.com",) * 2


@pytest.mark.parametrize("addresses", [("10.0.0.1",), ("93.184.216.34", "127.0.0.1"), ()])
async def test_a_name_that_leads_inside_is_not_connected_to(addresses: tuple[str, ...]) -> None:
    network = Recording()
    with pytest.raises(NotDelivered, match="address_not_public"):
        await sender_to(network, *addresses).post("https://hooks.example.com/", b"{}", {})
    assert network.requests == []


@pytest.mark.parametrize(
    ("inside", "url", "addresses", "is_reached"),
    [
        (("10.0.0.0/8",), "http://erp.corp.example/in", ("10.1.2.3",), True),
        (("10.0.0.0/8",), "http://erp.corp.example/in", ("::ffff:10.1.2.3",), True),
        (("10.0.0.0/8",), "https://erp.corp.example/in", ("10.1.2.3", "93.184.216.34"), True),
        (("10.0.0.0/8",), "http://erp.corp.example/in", ("10.1.2.3", "93.184.216.34"), False),
        (("10.0.0.0/8",), "https://erp.corp.example/in", ("10.1.2.3", "192.168.0.1"), False),
        (("erp.corp.example",), "http://ERP.corp.example/in", ("192.168.0.1",), True),
        ((".corp.example",), "http://erp.corp.example/in", ("192.168.0.1",), True),
        ((".corp.example",), "http://evilcorp.example/in", ("192.168.0.1",), False),
        ((), "http://hooks.example.com/in", ("93.184.216.34",), False),
    ],
)
async def test_ones_own_network_is_reached_where_it_is_listed(
    inside: tuple[str, ...], url: str, addresses: tuple[str, ...], *, is_reached: bool
) -> None:
    network = Recording()
    with nullcontext() if is_reached else pytest.raises(NotDelivered, match="address_not_public"):
        await sender_to(network, *addresses, inside=inside).post(url, b"{}", {})
    assert bool(network.requests) is is_reached


async def test_a_redirect_is_not_followed() -> None:
    network = Recording(307, location="http://169.254.169.254/latest/meta-data")
    with pytest.raises(NotDelivered, match="status_307"):
        await sender_to(network, "93.184.216.34").post("https://hooks.example.com/", b"{}", {})
    assert len(network.requests) == 1


async def test_a_connection_is_for_the_name_in_its_certificate_only(tmp_path: Path) -> None:
    """Two names at one address: what was opened for one is not used for the other."""
    certificate = self_signed(tmp_path, "hooks.example.com")
    listening = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    listening.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=certificate)
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                await reader.readexactly(2)
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    async def resolver(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=listening)
    port = server.sockets[0].getsockname()[1]
    sender = Sender(
        timeout_seconds=5,
        allow_private=True,
        resolver=resolver,
        transport=httpx2.AsyncHTTPTransport(verify=trusting),
    )
    try:
        for _ in range(2):
            await sender.post(f"https://hooks.example.com:{port}/in", b"{}", {})
        with pytest.raises(NotDelivered, match="certificate not trusted: Hostname mismatch"):
            await sender.post(f"https://other.example.com:{port}/in", b"{}", {})
        assert [f"host: hooks.example.com:{port}".encode() in head.lower() for head in asked] == [True, True]
    finally:
        await sender.close()
        server.close()
