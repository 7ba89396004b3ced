"""One account per owner and provider, however many people click at once and whatever their company is called."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from app.cli.main import cli
from app.connect_sessions.tables import connect_sessions, owners
from app.identity.caller import Scope
from tests.support.waiting import eventually
from tests.support.world import World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

BAMBOOHR = {
    "integration_id": "bamboohr_profile",
    "credentials": {"subdomain": "acme", "api_key": "k-1", "region": "eu"},
}
TWO_AT_MOST = """
[[rule]]
name = "two of each"
owners = ["*"]
providers = ["*"]
multiple = true
max_accounts_per_provider = 2
"""


OF_BAMBOOHR = {"provider": "bamboohr"}


async def link(world: World, minted: httpx2.Response) -> str:
    """Submit the Hub's form with a session's token, as the Hub does."""
    assert minted.status_code == 201, minted.text
    answer = await world.stackone.post(
        "/hub/accounts", headers={"x-hub-session-token": minted.json()["token"]}, json=BAMBOOHR
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def known_to_broker(world: World, user: str = "alice", *, count: int = 1) -> Sequence[str]:
    """Wait until the user's list has so many accounts; return their ids."""

    async def listed() -> list[str] | None:
        answer = await world.broker.get("/v1/linked-accounts", headers=world.as_user(user))
        ids = [account["account_id"] for account in answer.json()["data"]]
        return ids if len(ids) == count else None

    return await eventually(listed, within=5) or []


async def test_fifty_parallel_mints_of_two_users_end_with_one_account(world: World) -> None:
    async def click(number: int) -> str:
        # Each of them has another idea of what the company is called.
        minted = await world.mint(("alice", "carol")[number % 2], OF_BAMBOOHR, org_name=f"Acme {number}")
        return await link(world, minted)

    ids = await asyncio.gather(*(click(number) for number in range(50)))
    assert len(set(ids)) == 1
    assert list(await known_to_broker(world)) == [ids[0]]
    sent = await world.received("POST", "/connect_sessions")
    assert len({row["body"]["origin_owner_name"] for row in sent}) == 1


async def test_a_company_that_renames_itself_gets_no_second_account(world: World) -> None:
    first = await link(world, await world.mint("alice", OF_BAMBOOHR))
    renamed = await world.mint("carol", OF_BAMBOOHR, org_name="Acme Worldwide")
    assert await link(world, renamed) == first
    await known_to_broker(world)
    later = await world.mint("carol", OF_BAMBOOHR, org_name="Acme Worldwide")
    assert (later.json()["mode"], later.json()["account_id"]) == ("edit", first)
    # The picker leaves the choice to StackOne, which goes by the name.
    assert await link(world, await world.mint("alice", {}, org_name="Acme Worldwide")) == first
    sent = await world.received("POST", "/connect_sessions")
    assert {row["body"]["origin_owner_name"] for row in sent} == {"Acme Inc"}


async def test_a_name_is_pinned_again_on_purpose(world: World) -> None:
    first = await link(world, await world.mint("alice", OF_BAMBOOHR))
    await known_to_broker(world)

    async def put(**body: Any) -> Any:
        answer = await world.broker.put("/v1/owners/org_acme/name", headers=world.as_service(), json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    tried = await put(name="Acme Worldwide", dry_run=True)
    assert (tried["previous_name"], tried["changed"], tried["dry_run"]) == ("Acme Inc", True, True)
    assert tried["accounts_with_other_names"] == [
        {"account_id": first, "provider": "bamboohr", "owner_name": "Acme Inc"}
    ]
    assert any("keep the name they were linked under" in effect for effect in tried["effects"])
    assert any("picking a provider that is linked already makes a second account" in e for e in tried["effects"])
    await world.mint("alice", {"provider": "workday"})
    assert (await world.received("POST", "/connect_sessions"))[-1]["body"]["origin_owner_name"] == "Acme Inc"

    pinned = await put(name="Acme Worldwide")
    assert (pinned["owner_name"], pinned["changed"]) == ("Acme Worldwide", True)
    assert any("still carry the old name" in effect for effect in pinned["effects"])
    await world.mint("alice", {"provider": "workday"})
    assert (await world.received("POST", "/connect_sessions"))[-1]["body"]["origin_owner_name"] == "Acme Worldwide"
    # The guard still offers the account that exists, although its name is another one now.
    guarded = await world.mint("alice", OF_BAMBOOHR)
    assert (guarded.json()["mode"], guarded.json()["account_id"]) == ("edit", first)
    again = await put(name="Acme Worldwide")
    assert (again["changed"], again["effects"]) == (False, ["The owner has this name already; nothing changes."])
    async with world.runtime.database.reading() as connection:
        by = (await connection.execute(sa.select(owners.c.pinned_by))).scalar_one()
    assert by.startswith("service:")


async def test_pinning_needs_its_scope_and_the_owner(world: World) -> None:
    for key in (
        await world.create_key(Scope.SESSIONS_WRITE, Scope.ACCOUNTS_WRITE),
        await world.create_key(Scope.OWNERS_WRITE, owners=("org_globex",)),
    ):
        answer = await world.broker.put(
            "/v1/owners/org_acme/name", headers=world.as_service(key), json={"name": "Mine"}
        )
        assert answer.status_code == 403
    answer = await world.broker.put("/v1/owners/org_acme/name", headers=world.as_user(), json={"name": "Mine"})
    assert answer.status_code == 401


def test_a_name_is_pinned_from_the_command_line(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_DATABASE__URL", database_url)
    run = CliRunner()
    tried = run.invoke(cli, ["owners", "pin", "org_acme", "--name", "Acme", "--dry-run"])
    assert tried.exit_code == 0, tried.output
    assert "org_acme would be pinned to 'Acme' (before: None)" in tried.output
    done = run.invoke(cli, ["owners", "pin", "org_acme", "--name", "Acme", "--json"])
    assert '"previous_name":null,"changed":true' in done.output
    again = run.invoke(cli, ["owners", "pin", "org_acme", "--name", "Acme"])
    assert "nothing changes" in again.output
    assert run.invoke(cli, ["owners", "pin", "org_acme", "--name", ""]).exit_code == 2


async def test_an_account_and_another_provider_in_one_request_contradict_each_other(world: World) -> None:
    account_id = await link(world, await world.mint("alice", OF_BAMBOOHR))
    await known_to_broker(world)
    sent = len(await world.received("POST", "/connect_sessions"))
    answer = await world.mint("alice", {"account_id": account_id, "provider": "workday"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["location"] == "body.provider"
    assert len(await world.received("POST", "/connect_sessions")) == sent
    same = await world.mint("alice", {"account_id": account_id, "provider": "bamboohr"})
    assert (same.status_code, same.json()["mode"]) == (201, "edit")
    # A stranger does not learn from the contradiction that the account exists.
    foreign = await world.mint("bob", {"account_id": account_id, "provider": "workday"})
    assert foreign.status_code == 404


async def test_an_account_gone_upstream_makes_way_for_another_of_the_same_provider(world: World) -> None:
    ids = [await world.link("alice", "bamboohr", created_at=f"2026-01-0{day}T00:00:00Z") for day in (1, 2)]
    await known_to_broker(world, count=2)
    await world.switch("POST", "/webhooks", {"mode": "drop"})
    await world.switch("DELETE", f"/accounts/{ids[1]}")
    answer = await world.mint("alice", OF_BAMBOOHR)
    assert (answer.json()["mode"], answer.json()["account_id"]) == ("edit", ids[0])


async def test_the_number_of_accounts_is_exact_however_many_ask_at_once(database_url: str, tmp_path: Path) -> None:
    async with limited_world(database_url, tmp_path) as world:
        further = {"provider": "bamboohr", "multiple": True}
        answers = await asyncio.gather(*(world.mint(("alice", "carol")[number % 2], further) for number in range(20)))
        opened = [answer for answer in answers if answer.status_code == 201]
        refused = [answer for answer in answers if answer.status_code == 403]
        assert (len(opened), len(refused)) == (2, 18)
        assert 'rule "two of each" allows 2 account(s) of a provider' in refused[0].json()["detail"]
        # Another provider, and another owner, have their own count.
        assert (await world.mint("alice", {"provider": "workday", "multiple": True})).status_code == 201
        assert (await world.mint("bob", further)).status_code == 201
        # What was linked takes the place of the session that linked it: still two, and not three or four.
        for minted in opened:
            await link(world, minted)
        await known_to_broker(world, count=2)
        assert (await world.mint("alice", further)).status_code == 403
        # Without `multiple` one that exists is offered, which makes none.
        assert (await world.mint("alice", OF_BAMBOOHR)).json()["mode"] == "edit"


async def test_a_session_that_linked_its_account_is_not_counted_twice(database_url: str, tmp_path: Path) -> None:
    async with limited_world(database_url, tmp_path) as world:
        further = {"provider": "bamboohr", "multiple": True}
        await link(world, await world.mint("alice", further))
        await known_to_broker(world, count=1)
        assert (await world.mint("alice", further)).status_code == 201
        assert (await world.mint("alice", further)).status_code == 403


async def test_sessions_that_failed_or_ended_free_their_place(database_url: str, tmp_path: Path) -> None:
    async with limited_world(database_url, tmp_path) as world:
        further = {"provider": "bamboohr", "multiple": True}
        await world.switch(
            "POST", "/faults", {"method": "POST", "path": "/connect_sessions", "times": 2, "status": 400, "body": {}}
        )
        assert [(await world.mint("alice", further)).status_code for _ in range(2)] == [422, 422]
        assert [(await world.mint("alice", further)).status_code for _ in range(3)] == [201, 201, 403]
        async with world.runtime.database.transaction() as connection:
            await connection.execute(sa.update(connect_sessions).values(expires_at=world.clock.now()))
        assert (await world.mint("alice", further)).status_code == 201


async def test_parallel_mints_that_want_no_further_account_share_one_place(database_url: str, tmp_path: Path) -> None:
    async with limited_world(database_url, tmp_path) as world:
        assert (await world.mint("alice", {"provider": "bamboohr", "multiple": True})).status_code == 201
        answers = await asyncio.gather(*(world.mint("alice", OF_BAMBOOHR) for _ in range(5)))
        assert {answer.status_code for answer in answers} == {201}
        assert (await world.mint("alice", {"provider": "bamboohr", "multiple": True})).status_code == 403


def limited_world(database_url: str, directory: Path) -> Any:
    file = directory / "policy.toml"
    file.write_text(TWO_AT_MOST)
    return open_world(database_url, policy_file=file)


async def test_a_provider_in_other_letters_is_the_same_provider(world: World) -> None:
    """Whether StackOne tells them apart is not said; a second account would be a duplicate in any case."""
    account_id = await world.link("alice", provider="bamboohr")
    await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
    again = await world.mint("alice", {"provider": "BambooHR"})
    assert (again.json()["mode"], again.json()["account_id"]) == ("edit", account_id)
    listed = await world.broker.get("/v1/linked-accounts?provider=BAMBOOHR", headers=world.as_user("alice"))
    assert [row["account_id"] for row in listed.json()["data"]] == [account_id]
