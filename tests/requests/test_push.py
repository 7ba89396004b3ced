"""Push: signed webhooks to one's own services, in order per account, tried again, set aside, replayed."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from fastapi import FastAPI, Request, Response
from standardwebhooks import Webhook

from app.identity.caller import Scope
from app.jobs import Job, repeat
from app.push import outbox
from app.push.deliver import push_once, send_test
from app.push.sender import NotDelivered, Sender
from app.push.tables import push_deliveries
from app.runtime import Runtime
from app.settings import PushDestination, PushSettings
from app.settings.reach import Places, is_public
from app.sync.sweep import run_sweep
from sandbox.serving import bind, serving, url_of
from tests.requests.test_commands import broker, by_subject
from tests.support.certificates import self_signed
from tests.support.tokens import StoppedClock
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
    tests: list[dict[str, Any]] = field(default_factory=list)
    tried: int = 0
    refuse: dict[str, int] = field(default_factory=dict)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    bound = bind(0)
    service = Receiver(f"{url_of(bound)}/changes")
    web = FastAPI()

    @web.post("/changes")
    async def take(request: Request) -> Response:
        body = await request.body()
        Webhook(SECRET).verify(body, dict(request.headers))
        message = json.loads(body)
        if message["type"] == "test":
            service.tests.append(message["data"])
            return Response(status_code=204)
        change = message["data"]
        assert (message["type"], message["timestamp"]) == (change["kind"], change["at"])
        service.tried += 1
        left = service.refuse.get(change["account_id"], 0)
        if left:
            service.refuse[change["account_id"]] = left - 1
            return Response(status_code=503)
        service.taken.append({**change, "id": request.headers["webhook-id"]})
        return Response(status_code=204)

    async with serving(web, bound):
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
        push={
            "destinations": [destination],
            "backoff_seconds": 0.01,
            "max_backoff_seconds": 1,
            "settle_seconds": 0,
            **push,
        },
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
        # The change of its status is told with what it means: one message for one change.
        assert kinds == ["account.linked", "account.needs_reauth"]
        feed = await world.broker.get("/v1/events", headers=world.as_service())
        by_position = {entry["position"]: entry for entry in feed.json()["data"]}
        updated = next(entry for entry in by_position.values() if entry["kind"] == "account.updated")
        assert sorted(change["position"] for change in service.taken) == sorted(
            by_position.keys() - {updated["position"]}
        )
        for change in service.taken:
            assert change.pop("id") == f"evt_{change['position']}"
            in_feed = by_position[change["position"]]
            if change["kind"] == "account.needs_reauth":
                in_feed = {**in_feed, "changes": updated["changes"]}
            assert change == in_feed
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


async def undelivered(world: World, query: str = "") -> list[tuple[str, str, str | None]]:
    answer = await world.broker.get(f"{CRM}/deliveries{query}", headers=world.as_service())
    assert answer.status_code == 200, answer.text
    return [(row["kind"], row["state"], row["failure"]) for row in answer.json()["data"]]


CRM = "/v1/push/destinations/crm"


async def test_dead_deliveries_are_told_with_their_reason_and_replayed_one_by_one(database_url: str) -> None:
    async with receiver() as service, pushing(database_url, service, max_attempts=1) as (world, pusher):
        ids = [await world.link() for _ in range(2)]
        await run_sweep(world.runtime, by="test")
        service.refuse = dict.fromkeys(ids, 1)
        await eventually(lambda: drained(pusher, world), within=10)
        dead = ("account.linked", "dead", "status_503")
        assert await undelivered(world) == await undelivered(world, "?state=dead") == [dead, dead]
        assert await undelivered(world, "?state=pending") == []
        first = await world.broker.get(f"{CRM}/deliveries?limit=1", headers=world.as_service())
        cursor, position = first.json()["next_cursor"], first.json()["data"][0]["position"]
        assert await undelivered(world, f"?limit=1&cursor={cursor}") == [dead]
        destinations = await world.broker.get("/v1/push/destinations", headers=world.as_service())
        assert destinations.json()["data"] == [{"name": "crm", "pending": 0, "dead": 2}]

        again = await world.broker.post(f"{CRM}/deliveries/{position}/replay", headers=world.as_service())
        assert again.json() == {"replayed": 1}
        await eventually(lambda: drained(pusher, world), within=10)
        assert [change["position"] for change in service.taken] == [position]
        # One that was accepted can be asked for once more.
        await world.broker.post(f"{CRM}/deliveries/{position}/replay", headers=world.as_service())
        await eventually(lambda: drained(pusher, world), within=10)
        assert [change["position"] for change in service.taken] == [position] * 2
        rest = await world.broker.post(f"{CRM}/replay", headers=world.as_service())
        assert rest.json() == {"replayed": 1}

        for path in ("nowhere/deliveries", "nowhere/replay", "nowhere/test", "crm/deliveries/999/replay"):
            method = "GET" if path.endswith("deliveries") else "POST"
            answer = await world.broker.request(method, f"/v1/push/destinations/{path}", headers=world.as_service())
            assert answer.status_code == 404, path
        limited = await world.create_key(Scope.PUSH_WRITE, owners=("org_acme",))
        answer = await world.broker.get("/v1/push/destinations", headers=world.as_service(limited))
        assert answer.status_code == 403


async def test_a_test_message_says_whether_it_arrives(database_url: str) -> None:
    async with receiver() as service, pushing(database_url, service) as (world, _):
        answer = await world.broker.post(f"{CRM}/test", headers=world.as_service())
        assert answer.json() == {"delivered": True, "failure": None}
        assert service.tests == [{"destination": "crm"}]
    with socket.socket() as silent:
        # Nobody listens there, and nobody else can.
        silent.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{silent.getsockname()[1]}/changes"
        async with pushing(database_url, replace(service, url=nowhere)) as (world, _):
            answer = await world.broker.post(f"{CRM}/test", headers=world.as_service())
            assert (answer.json()["delivered"], answer.json()["failure"]) == (False, "ConnectError")


async def test_doctor_tries_each_destination_and_none_that_is_unknown_is_replayed(database_url: str) -> None:
    async with receiver() as service, open_world(database_url) as world:
        named = [
            DESTINATION | {"url": service.url},
            DESTINATION | {"name": "elsewhere", "url": service.url.replace("changes", "nowhere")},
        ]
        push = {"BROKER_PUSH__DESTINATIONS": json.dumps(named)}
        (_, report, _), *replays = await asyncio.gather(
            broker(world, "doctor", "--json", **push),
            broker(world, "push", "replay", "unknown", **push),
            broker(world, "push", "replay", "unknown", "--after", "0", **push),
        )
        found = by_subject(report)
        assert found["push to crm"]["state"] == "ok"
        assert (found["push to elsewhere"]["state"], "status_404" in found["push to elsewhere"]["detail"]) == (
            "broken",
            True,
        )
        assert service.tests == [{"destination": "crm"}]
        assert [(status, "no such destination" in err) for status, _, err in replays] == [(1, True)] * 2


async def test_every_secret_signs_so_that_one_can_be_rotated(database_url: str) -> None:
    newer = "whsec_bmV3LWNhbmFyeS1wdXNoLXNlY3JldC0wMDAwMDAwMDA="
    async with receiver() as service, pushing(database_url, service) as (world, _):
        for destination in ({"secret": newer, "secrets": [SECRET]}, {"secrets": [SECRET, newer]}):
            both = PushSettings.model_validate({"destinations": [{"name": "crm", "url": service.url, **destination}]})
            runtime = replace(world.runtime, settings=world.settings.model_copy(update={"push": both}))
            # The receiver, written by others, knows the old one only.
            assert await send_test(runtime, "crm") is None
        with pytest.raises(ValueError, match="needs a secret"):
            PushSettings.model_validate({"destinations": [{"name": "crm", "url": service.url}]})


async def test_a_destination_is_told_what_it_asked_for(database_url: str) -> None:
    async with receiver() as service, pushing(database_url, service) as (world, pusher):
        wanted = DESTINATION | {
            "url": service.url,
            "events": ["account.needs_reauth", "account.unl*"],
            "owners": ["org_a*"],
        }
        push = PushSettings.model_validate({"destinations": [wanted], "settle_seconds": 0})
        runtime = replace(world.runtime, settings=world.settings.model_copy(update={"push": push}))
        choosy = Pusher(runtime, pusher.sender)
        alices, bobs = await world.link("alice"), await world.link("bob")
        await run_sweep(world.runtime, by="test")
        for account_id in (alices, bobs):
            await world.switch("PATCH", f"/accounts/{account_id}", {"status": "error"})
        await run_sweep(world.runtime, by="test")
        await eventually(lambda: drained(choosy, world), within=10)
        assert [(one["kind"], one["account_id"]) for one in service.taken] == [("account.needs_reauth", alices)]


@pytest.mark.parametrize("in_one_batch", [True, False])
async def test_a_flap_is_told_to_nobody(database_url: str, *, in_one_batch: bool) -> None:
    async with receiver() as service, pushing(database_url, service, settle_seconds=200) as (world, pusher):
        account_id, other = await world.link(), await world.link("bob")
        await run_sweep(world.runtime, by="test")
        await eventually(lambda: drained(pusher, world), within=10)
        for status in ("error", "active", "error", "active"):
            await world.switch("PATCH", f"/accounts/{account_id}", {"status": status})
            await run_sweep(world.runtime, by="test")
            if not in_one_batch:
                await pusher.run_once()
        await world.switch("PATCH", f"/accounts/{other}", {"label": "another"})
        await run_sweep(world.runtime, by="test")
        await eventually(lambda: drained(pusher, world), within=10)
        told = [(one["kind"], one["account_id"]) for one in service.taken if one["kind"] != "account.linked"]
        assert told == [("account.updated", other)]
        # One that stays broken is told, once it has been so for long enough.
        await world.switch("PATCH", f"/accounts/{account_id}", {"status": "error"})
        await run_sweep(world.runtime, by="test")
        await pusher.run_once()
        assert len(service.taken) == 3
        later = StoppedClock(datetime.now(UTC) + timedelta(seconds=201))
        patient = Pusher(replace(pusher.runtime, clock=later), pusher.sender)
        await eventually(lambda: drained(patient, world), within=10)
        assert service.taken[-1]["kind"] == "account.needs_reauth"


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
