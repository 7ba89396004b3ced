"""The main job: a signed-in user gets a Hub token, links an account, and a backend reads it back."""

import pytest

from tests.support.waiting import eventually
from tests.support.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]


async def test_a_users_token_is_for_the_owner_in_the_claims(world: World) -> None:
    answer = await world.broker.post(
        "/v1/connect-sessions", headers=world.as_user("alice"), json={"provider": "bamboohr"}
    )
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert set(body) == {"id", "token", "expires_at", "expires_in", "mode", "account_id", "provider"}
    assert (body["mode"], body["provider"], body["account_id"]) == ("create", "bamboohr", None)
    [sent] = await world.received("POST", "/connect_sessions")
    assert sent["body"] == {
        "origin_owner_id": "org_acme",
        "origin_owner_name": "Acme Inc",
        "origin_username": "alice@acme.example",
        "provider": "bamboohr",
        "expires_in": 1800,
    }


async def test_an_account_linked_elsewhere_shows_within_two_seconds(world: World) -> None:
    account_id = await world.link("alice")

    async def listed() -> list[str]:
        answer = await world.broker.get("/v1/linked-accounts", headers=world.as_user("alice"))
        return [account["account_id"] for account in answer.json()["data"]]

    assert await eventually(listed) == [account_id]
    theirs = await world.broker.get("/v1/linked-accounts", headers=world.as_user("bob"))
    assert theirs.json() == {"data": [], "next_cursor": None}
    by_owner = await world.broker.get("/v1/owners/org_acme/linked-accounts", headers=world.as_service())
    assert [account["account_id"] for account in by_owner.json()["data"]] == [account_id]
    by_id = await world.broker.get(f"/v1/accounts/{account_id}", headers=world.as_service())
    assert (by_id.json()["owner_id"], by_id.json()["usable"]) == ("org_acme", True)
