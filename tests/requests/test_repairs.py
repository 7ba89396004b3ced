"""The repair loop: a broken account is told of, again after some days, and whoever linked it gets a way to mend it."""

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response

from app.jobs import keep_house
from app.linked_accounts.feed import read_feed
from app.push.deliver import push_once
from app.push.messages import ChangeMessage
from app.push.sender import Sender
from app.runtime import Externals, Runtime, open_runtime
from app.sync.sweep import run_sweep
from sandbox.serving import bind, serving, url_of
from tests.requests.test_invitations import opening
from tests.requests.test_push import DESTINATION
from tests.requests.test_session_ledger import submit
from tests.support.tokens import StoppedClock
from tests.support.wires import PlainWire
from tests.support.world import INVITATION_PAGE, World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

DAY = timedelta(days=1).total_seconds()


@asynccontextmanager
async def stopped_world(database_url: str, **sections: Any) -> AsyncIterator[tuple[World, StoppedClock]]:
    """Open a world in which nothing runs by itself, and no webhook arrives."""
    clock = StoppedClock(datetime.now(UTC))
    async with open_world(database_url, clock=clock, webhooks=False, sync={"enabled": False}, **sections) as world:
        world.service_key = await world.create_key(days=1000)
        yield world, clock


@asynccontextmanager
async def inbox() -> AsyncIterator[tuple[str, list[tuple[str, str]]]]:
    """Take what is pushed, whatever the time on it: this test's clock runs ahead of everybody else's."""
    socket = bind(0)
    taken: list[tuple[str, str]] = []
    web = FastAPI()

    @web.post("/")
    async def take(request: Request) -> Response:
        taken.append((request.headers["webhook-id"], (await request.json())["type"]))
        return Response(status_code=204)

    async with serving(web, socket):
        yield url_of(socket), taken


async def feed(world: World, after: str = "0") -> list[dict[str, Any]]:
    answer = await world.broker.get(f"/v1/events?after={after}", headers=world.as_service())
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


async def set_status(world: World, account_id: str, status: str) -> None:
    await world.switch("PATCH", f"/accounts/{account_id}", {"status": status})
    await run_sweep(world.runtime, by="test")


async def test_a_month_of_an_accounts_life(database_url: str) -> None:  # noqa: C901, PLR0915  one life
    """Replicas come and go, all webhooks are lost; each message is told once, in order, none after recovery."""
    async with inbox() as (url, taken), AsyncExitStack() as stack:
        destination = DESTINATION | {"url": url}
        push = {"destinations": [destination], "backoff_seconds": 0.01, "settle_seconds": 60}
        world, clock = await stack.enter_async_context(stopped_world(database_url, push=push))
        sender = Sender(timeout_seconds=5, allow_private=True)
        stack.push_async_callback(sender.close)
        externals = Externals(clock=clock, stackone_transport=PlainWire(), identity_transport=PlainWire())
        running: deque[tuple[AsyncExitStack, Runtime]] = deque()

        async def start() -> None:
            own = await stack.enter_async_context(AsyncExitStack())
            running.append((own, await own.enter_async_context(open_runtime(world.settings, externals))))

        async def pass_time(days: float, rounds: int) -> None:
            for number in range(rounds):
                clock.advance(days * DAY / rounds)
                if number % 3 == 0:
                    stopped, _ = running.popleft()
                    await stopped.aclose()
                    await start()
                replicas = [world.runtime, *(runtime for _, runtime in running)]
                await asyncio.gather(*(keep_house(runtime) for runtime in replicas))
                await asyncio.gather(*(run_sweep(runtime, by="test") for runtime in replicas[::3]))
                for _ in range(3):
                    await asyncio.gather(*(tell(runtime) for runtime in replicas))

        async def tell(runtime: Runtime) -> None:
            [destination] = runtime.settings.push.destinations
            await push_once(runtime, sender=sender, destination=destination)

        async def set_status(status: str) -> None:
            await world.switch("PATCH", f"/accounts/{account_id}", {"status": status})
            await run_sweep(running[0][1], by="test")

        async def told() -> list[str]:
            kinds = [entry["kind"].removeprefix("account.") for entry in await feed(world)]
            return [kind for kind in kinds if kind != "updated"]

        for _ in range(3):
            await start()
        await tell(world.runtime)
        account_id = await world.link("alice", label="Berlin")
        await run_sweep(world.runtime, by="test")
        # A flap: broken and mended within the hour is told as what it was, and reminds nobody.
        await set_status("error")
        await set_status("active")
        await pass_time(2, 4)
        flapped = ["linked", "needs_reauth", "recovered"]
        assert await told() == flapped

        await set_status("error")
        repair = (await feed(world))[-1]["repair"]
        assert (repair["for"], repair["provider"], repair["label"]) == ("alice@acme.example", "bamboohr", "Berlin")
        assert repair["url"].startswith(f"{INVITATION_PAGE}#inv_repair.")
        await pass_time(12, 24)
        broken = [*flapped, "needs_reauth", *["still_broken"] * 3]
        assert await told() == broken
        reminders = [entry for entry in await feed(world) if entry["kind"] == "account.still_broken"]
        since = datetime.fromisoformat(repair["since"])
        days = [(datetime.fromisoformat(entry["at"]) - since).days for entry in reminders]
        assert days == [1, 3, 7]
        assert [entry["changes"]["days"] for entry in reminders] == days
        assert {entry["repair"]["url"] for entry in reminders} == {repair["url"]}

        code = repair["url"].partition("#")[2]
        now = int(clock.now().timestamp())
        signed_in = {"iat": now, "nbf": now, "exp": now + 600}
        for wrong in ("bob", "carol"):
            assert (await opening(world, code, wrong, signed_in)).status_code == 404, wrong
        assert await told() == broken
        session = (await opening(world, code, claims=signed_in)).json()
        assert await submit(world, session) == account_id
        await run_sweep(running[0][1], by="test")
        mended = [*broken, "recovered"]
        assert await told() == mended
        assert all(entry["repair"] is None for entry in await feed(world))
        await pass_time(14, 9)
        assert await told() == mended
        # Broken anew, it is told of anew.
        await set_status("error")
        await pass_time(1.1, 3)
        assert await told() == [*mended, "needs_reauth", "still_broken"]
        # A push is a message of its own: each once and in order, and nothing of the flap, which was over in time.
        pushed = [kind.removeprefix("account.") for _, kind in taken]
        again = ["needs_reauth", *["still_broken"] * 3, "recovered", "needs_reauth", "still_broken"]
        assert [kind for kind in pushed if kind != "updated"] == ["linked", *again]
        assert len({message_id for message_id, _ in taken}) == len(taken)


async def test_the_link_is_for_whoever_linked_it_and_ends_when_the_account_works(database_url: str) -> None:
    async with stopped_world(database_url) as (world, _):
        account_id = await world.link("alice")
        await run_sweep(world.runtime, by="test")
        await set_status(world, account_id, "error")
        code = (await feed(world))[-1]["repair"]["url"].partition("#")[2]
        for user, claims in (("carol", {}), ("bob", {}), ("alice", {"org_id": "org_globex"})):
            assert (await opening(world, code, user, claims)).status_code == 404, user
        assert (await opening(world, code[:-1] + ("A" if code[-1] != "A" else "B"))).status_code == 404
        opened = await opening(world, code)
        assert (opened.status_code, opened.json()["mode"], opened.json()["account_id"]) == (201, "edit", account_id)
        await set_status(world, account_id, "active")
        over = await opening(world, code)
        assert (over.status_code, over.json()["code"]) == (410, "invitation_over")
        # A link of an earlier time opens nothing when it is broken anew.
        await set_status(world, account_id, "error")
        newer = (await feed(world))[-1]["repair"]["url"].partition("#")[2]
        if newer != code:
            assert (await opening(world, code)).status_code == 410
        assert (await opening(world, newer)).status_code == 201


async def test_what_was_missed_while_nothing_ran_is_one_reminder(database_url: str) -> None:
    async with stopped_world(database_url, repair={"remind": ["1h", "2h", "30d"]}) as (world, clock):
        account_id = await world.link("alice")
        await run_sweep(world.runtime, by="test")
        await set_status(world, account_id, "error")
        clock.advance(5 * 3600)
        for _ in range(3):
            await keep_house(world.runtime)
        assert [entry["kind"] for entry in await feed(world)].count("account.still_broken") == 1


async def test_there_may_be_none_and_no_page(database_url: str) -> None:
    sections: dict[str, Any] = {"repair": {"remind": []}, "invitations": {"page_url": None, "secrets": []}}
    async with stopped_world(database_url, **sections) as (world, clock):
        account_id = await world.link("alice")
        await run_sweep(world.runtime, by="test")
        await set_status(world, account_id, "error")
        assert (await feed(world))[-1]["repair"]["url"] is None
        clock.advance(40 * DAY)
        await keep_house(world.runtime)
        assert (await feed(world))[-1]["kind"] == "account.needs_reauth"


def recipes() -> dict[str, str]:
    """Read the receivers of docs/behaviour.md."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "behaviour.md").read_text()
    found = dict(re.findall(r"```python recipe=(\w+)\n(.*?)```", page, re.DOTALL))
    assert all(len(code.splitlines()) <= 15 for code in found.values())
    return found


async def test_the_receivers_of_the_page_do_what_they_say(database_url: str) -> None:
    posted: list[Any] = []
    mails: list[EmailMessage] = []
    names: dict[str, Any] = {
        "EmailMessage": EmailMessage,
        "SLACK_WEBHOOK": "https://slack.example",
        "SENDER": "a@b.example",
    }
    for code in recipes().values():
        exec(compile(code, "recipe", "exec"), names)  # noqa: S102  the page's own code
    async with stopped_world(database_url) as (world, _):
        account_id = await world.link("alice")
        await run_sweep(world.runtime, by="test")
        await set_status(world, account_id, "error")
        banners: dict[str, Any] = {}

        async def tell() -> None:
            async with world.runtime.database.reading() as connection:
                entries = await read_feed(connection, after=0, limit=100)
            message = ChangeMessage.of(entries, entries[-1].position, world.settings.invitations)
            told = json.loads(message.model_dump_json(by_alias=True))
            names["tell_slack"](told, lambda url, **sent: posted.append((url, sent)))
            names["send_mail"](told, SimpleNamespace(send_message=mails.append))
            names["update_banner"](told, banners)

        await tell()
        url = (await feed(world))[-1]["repair"]["url"]
        assert url in posted[0][1]["json"]["text"]
        assert (mails[0]["To"], url in mails[0].get_content()) == ("alice@acme.example", True)
        assert banners[account_id]["url"] == url
        await set_status(world, account_id, "active")
        await tell()
        assert (banners, len(posted), len(mails)) == ({}, 1, 1)
