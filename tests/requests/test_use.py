"""One question for agents: with which account to work, or what somebody has to do first."""

from pathlib import Path
from typing import Any

import pytest

from app.identity.caller import Scope
from sandbox.identity.provider import USERS
from tests.requests.test_invitations import opening
from tests.support.waiting import eventually
from tests.support.world import INVITATION_PAGE, World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

OWNER = "/v1/owners/org_acme/use"


async def asked(world: World, provider: str = "bamboohr", query: str = "") -> dict[str, Any]:
    answer = await world.broker.get(f"{OWNER}/{provider}{query}", headers=world.as_service())
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def linked(world: World, user: str = "alice", provider: str = "bamboohr", **fields: object) -> str:
    account_id = await world.link(user, provider, **fields)
    answer = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user(user))
    assert answer.status_code == 200, answer.text
    return account_id


async def test_connect_then_ready_then_repair(world: World) -> None:
    await linked(world, "bob")
    first = await asked(world, query="?user=alice%40acme.example")
    assert (first["status"], first["account_id"]) == ("connect", None)
    assert first["url"].startswith(f"{INVITATION_PAGE}#inv_")
    assert first["elicitation"] == {
        "mode": "url",
        "elicitationId": first["elicitation"]["elicitationId"],
        "url": first["url"],
        "message": first["message"],
    }
    assert first["elicitation"]["elicitationId"] in first["url"]
    # Asked again, the same link is handed out again.
    assert (await asked(world, query="?user=alice%40acme.example"))["url"] == first["url"]
    assert (await asked(world))["url"] != first["url"]
    code = first["url"].partition("#")[2]
    assert (await opening(world, code, "carol")).status_code == 404
    opened = await opening(world, code)
    assert (opened.status_code, opened.json()["mode"], opened.json()["provider"]) == (201, "create", "bamboohr")

    account_id = await linked(world)
    ready = await asked(world, "BambooHR")
    assert (ready["status"], ready["account_id"], ready["url"]) == ("ready", account_id, None)
    assert ready["verified_at"] is not None

    await world.switch("PATCH", f"/accounts/{account_id}", {"status": "error"})

    async def broken() -> bool:
        return bool((await asked(world))["status"] == "repair")

    await eventually(broken, within=5)
    repair = await asked(world)
    assert repair["account_id"] == account_id
    opened = await opening(world, repair["url"].partition("#")[2], "carol")
    assert (opened.json()["mode"], opened.json()["account_id"]) == ("edit", account_id)


async def test_one_of_several_is_pinned_and_not_replaced_by_a_guess(world: World) -> None:
    first, second = await linked(world, label="Berlin"), await linked(world, "carol", label="Paris")
    both = await asked(world)
    assert (both["status"], both["url"]) == ("choose", None)
    assert {(one["account_id"], one["label"], one["usable"]) for one in both["candidates"]} == {
        (first, "Berlin", True),
        (second, "Paris", True),
    }
    own = await world.broker.get("/v1/use/bamboohr", headers=world.as_user("carol"))
    assert (own.json()["status"], own.json()["account_id"]) == ("ready", second)

    pinned = await world.broker.put(f"{OWNER}/bamboohr", headers=world.as_service(), json={"account_id": first})
    assert (pinned.json()["status"], pinned.json()["account_id"]) == ("ready", first)
    carols = {"account_id": second}
    mine = await world.broker.put("/v1/use/BambooHR", headers=world.as_user("carol"), json=carols)
    assert (mine.json()["status"], mine.json()["account_id"]) == ("ready", second)
    assert (await asked(world, query=f"?user={USERS['carol'].email}"))["account_id"] == second
    assert (await asked(world))["account_id"] == first

    assert (await world.broker.delete(f"/v1/accounts/{first}", headers=world.as_service())).status_code == 204
    left = await asked(world)
    assert (left["status"], [one["account_id"] for one in left["candidates"]]) == ("choose", [second])
    none = await world.broker.put(f"{OWNER}/bamboohr", headers=world.as_service(), json={"account_id": None})
    assert (none.json()["status"], none.json()["account_id"]) == ("ready", second)


async def test_only_an_account_of_ones_own_of_this_provider_is_pinned(world: World) -> None:
    bobs, workday = await linked(world, "bob"), await linked(world, provider="workday")
    for account_id in (bobs, workday, "nowhere", "no/such"):
        body = {"account_id": account_id}
        by_service = await world.broker.put(f"{OWNER}/bamboohr", headers=world.as_service(), json=body)
        by_user = await world.broker.put("/v1/use/bamboohr", headers=world.as_user("alice"), json=body)
        assert (by_service.status_code, by_user.status_code) == (404, 404), account_id
    reader = await world.create_key(Scope.ACCOUNTS_READ)
    refused = await world.broker.put(f"{OWNER}/workday", headers=world.as_service(reader), json={"account_id": workday})
    assert refused.status_code == 403
    assert (await world.broker.put(f"{OWNER}/workday", headers=world.as_service(), json={})).status_code == 422
    assert (await world.broker.get(f"{OWNER}/work day", headers=world.as_service())).status_code == 422
    assert (await world.broker.get(f"{OWNER}/workday?usr=x", headers=world.as_service())).status_code == 422


async def test_policy_refuses_what_is_not_there_and_not_what_works(database_url: str, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[[rule]]\nname = "hris only"\nowners = ["*"]\nproviders = ["workday"]\n')
    async with open_world(database_url, policy_file=str(policy)) as world:
        refused = await asked(world)
        assert (refused["status"], refused["rule"], refused["url"]) == ("refused", "hris only", None)
        own = await world.broker.get("/v1/use/bamboohr", headers=world.as_user("alice"))
        assert own.json()["status"] == "refused"
        assert (await asked(world, "workday"))["status"] == "connect"


async def test_an_answer_is_as_fresh_as_asked_for(database_url: str) -> None:
    async with open_world(database_url, webhooks=False, sync={"enabled": False}) as world:
        account_id = await linked(world)
        await world.switch("PATCH", f"/accounts/{account_id}", {"status": "error"})
        assert (await asked(world))["status"] == "ready"
        fresh = await asked(world, query="?max_age=0")
        assert (fresh["status"], fresh["account_id"], fresh["stale"]) == ("repair", account_id, False)
        await world.switch("POST", "/faults", {"method": "GET", "path": "/accounts", "times": 50, "status": 503})
        away = await world.broker.get(f"{OWNER}/bamboohr?max_age=0&must_be_fresh=true", headers=world.as_service())
        assert away.status_code == 503


async def test_without_a_page_there_is_no_link(database_url: str) -> None:
    async with open_world(database_url, invitations={"page_url": None, "secrets": []}) as world:
        answer = await asked(world)
        assert (answer["status"], answer["url"], answer["elicitation"]) == ("connect", None, None)
