"""Sessions and auth links for the backends that hand them out: listed by owner, polled, and ended."""

import asyncio
from typing import Any

import httpx2
import pytest

from app.sync.sweep import run_sweep
from tests.requests.test_session_ledger import hub, opened, standing, submit
from tests.support.waiting import eventually
from tests.support.wires import Gate
from tests.support.world import World, open_world

pytestmark = pytest.mark.anyio

OWNER = "/v1/owners/org_acme"


async def auth_link(world: World, **body: Any) -> Any:
    return await world.broker.post(f"{OWNER}/auth-links", headers=world.as_service(), json=body)


async def listed(world: World, query: str = "", owner: str = OWNER) -> dict[str, Any]:
    answer = await world.broker.get(f"{owner}/connect-sessions{query}", headers=world.as_service())
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.both_databases
async def test_sessions_are_listed_in_pages_the_newest_first(world: World) -> None:
    links = [(await auth_link(world)).json()["id"] for _ in range(2)]
    sessions = [(await opened(world))["id"] for _ in range(3)]
    await opened(world, "bob")
    everything = [*reversed(sessions), *reversed(links)]

    seen: list[str] = []
    cursor = ""
    for _ in range(10):
        page = await listed(world, f"?limit=2{cursor}")
        seen += [row["id"] for row in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == everything
    only_links = (await listed(world, "?channel=auth_link"))["data"]
    assert [row["id"] for row in only_links] == list(reversed(links))
    assert {(row["status"], row["channel"], row["owner_id"]) for row in only_links} == {
        ("pending", "auth_link", "org_acme")
    }
    for wrong in ("?cursor=eA", "?cursor=x%7Cy", "?chanel=browser", "?limit=0", "?limit=201", "?channel=door"):
        answer = await world.broker.get(f"{OWNER}/connect-sessions{wrong}", headers=world.as_service())
        assert answer.status_code == 422, wrong


@pytest.mark.both_databases
async def test_an_ended_link_is_not_counted_and_says_how_long_it_opens(database_url: str) -> None:
    limits = {"live_auth_links_per_owner": 1}
    async with open_world(database_url, limits=limits) as world:
        link = (await auth_link(world, provider="bamboohr")).json()
        refused = await auth_link(world)
        assert (refused.status_code, "auth links" in refused.json()["detail"]) == (429, True)
        # The owner's users are not kept out by it.
        assert (await world.mint()).status_code == 201

        path = f"{OWNER}/connect-sessions/{link['id']}"
        for _ in range(2):
            ended = await world.broker.delete(path, headers=world.as_service())
            assert (ended.status_code, ended.json()["status"]) == (200, "ended")
            assert ended.json()["opens_until"] == link["expires_at"]
        assert (await auth_link(world)).status_code == 201
        assert link["id"] not in {row["id"] for row in (await listed(world, "?live=true"))["data"]}
        # StackOne opens it all the same; what is linked with it is credited to nobody's session.
        token = link["auth_link_url"].partition("token=")[2]
        account_id = await submit(world, {"token": token})
        await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
        shown = await world.broker.get(path, headers=world.as_service())
        assert (shown.json()["status"], shown.json()["account_id"]) == ("ended", None)
        stranger = await world.broker.delete(
            f"/v1/owners/org_globex/connect-sessions/{link['id']}", headers=world.as_service()
        )
        assert stranger.status_code == 404


async def test_a_session_that_linked_stays_linked_when_it_is_ended(world: World) -> None:
    session = await opened(world, provider="bamboohr")
    account_id = await submit(world, session)
    await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
    path = f"{OWNER}/connect-sessions/{session['id']}"
    ended = await world.broker.delete(path, headers=world.as_service())
    assert (ended.json()["status"], ended.json()["account_id"], ended.json()["was_new"]) == ("linked", account_id, True)


@pytest.mark.both_databases
async def test_a_picked_tool_that_the_owner_has_links_the_session(world: World) -> None:
    """StackOne edits the account, and sends account.updated only."""
    first = await opened(world, provider="bamboohr")
    account_id = await submit(world, first)
    await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
    assert await standing(world, first) == ("linked", account_id)
    picker, abandoned = await opened(world), await opened(world, "carol")
    assert await submit(world, picker) == account_id
    # Before somebody names it, either may have done it.
    await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))

    async def linked() -> bool:
        return await standing(world, picker) == ("linked", account_id)

    await eventually(linked)
    shown = await world.broker.get(f"/v1/connect-sessions/{picker['id']}", headers=world.as_user("alice"))
    assert shown.json()["was_new"] is False
    assert await standing(world, abandoned, "carol") == ("pending", None)


@pytest.mark.both_databases
async def test_a_confirm_names_the_session_also_where_a_later_read_overtakes_its_own(database_url: str) -> None:
    gates: list[Gate] = []

    def gated(wire: httpx2.AsyncBaseTransport) -> Gate:
        gates.append(Gate(wire))
        return gates[0]

    async with open_world(database_url, webhooks=False, sync={"enabled": False}, stackone_wire=gated) as world:
        account_id = await submit(world, await opened(world, provider="bamboohr"))
        path, alice = f"/v1/linked-accounts/{account_id}/confirm", world.as_user("alice")
        await world.broker.post(path, headers=alice)
        picker, abandoned = await opened(world), await opened(world, "carol")
        await submit(world, picker)
        gates[0].hold = "after"
        confirming = asyncio.create_task(world.broker.post(path, headers=alice))
        await gates[0].holding.wait()
        await run_sweep(world.runtime, by="test")
        gates[0].release()
        assert (await confirming).status_code == 200
        assert await standing(world, picker) == ("linked", account_id)
        assert await standing(world, abandoned, "carol") == ("pending", None)


async def test_a_service_polls_and_is_told_why_oauth_failed(world: World) -> None:
    minted = await world.broker.post(
        f"{OWNER}/connect-sessions", headers=world.as_service(), json={"provider": "salesforce"}
    )
    session = minted.json()
    path = f"{OWNER}/connect-sessions/{session['id']}"

    async def poll() -> dict[str, Any]:
        answer = await world.broker.post(f"{path}/poll", headers=world.as_service(), json={"token": session["token"]})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    first = await poll()
    assert (first["status"], first["attempt"]) == ("pending", None)
    upstream = world.project.sessions.open(session["token"])
    assert first["external_trigger_token"] == upstream.external_trigger_token
    await hub(world, session, "POST", "/connection_attempts", {"token": session["token"]})
    attempt = world.project.attempts.latest(upstream)
    assert attempt is not None
    world.project.attempts.fail(attempt, "access_denied", "The user said no")
    failed = await poll()
    assert (failed["status"], failed["attempt"], failed["oauth_error_code"]) == ("failed", "error", "access_denied")
    shown = (await world.broker.get(path, headers=world.as_service())).json()
    assert (shown["status"], shown["oauth_error_description"]) == ("failed", "The user said no")
    assert shown["external_trigger_token"] is None
    [row] = (await listed(world))["data"]
    assert row["status"] == "failed"

    again = world.project.attempts.begin(upstream)
    account_id = await world.link("alice", provider="salesforce")
    world.project.attempts.finish(again, account_id)
    done = await poll()
    assert (done["status"], done["account_id"], done["attempt"]) == ("linked", account_id, "authenticated")
    # Asked once more, it is no less authenticated.
    assert (await poll())["attempt"] == "authenticated"
