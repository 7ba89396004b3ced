"""Linked accounts: confirm, list and get, each for its owner alone."""

from typing import Any

import pytest

from app.identity.caller import Scope
from tests.requests.test_minting import listed, without_request_id
from tests.support.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]


@pytest.mark.parametrize("account_id", ["47187425466113776871", "q7Zt0bLm2VxKc9RfYh4Sa"])
async def test_confirm_reads_at_stackone_and_stores_without_any_webhook(world: World, account_id: str) -> None:
    await world.switch("POST", "/webhooks", {"mode": "drop"})
    await world.link("alice", id=account_id, label="Payroll")
    answer = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("carol"))
    assert answer.status_code == 200
    account = answer.json()
    assert (account["account_id"], account["owner_id"], account["provider"], account["label"]) == (
        account_id,
        "org_acme",
        "bamboohr",
        "Payroll",
    )
    own = await world.broker.get(f"/v1/linked-accounts/{account_id}", headers=world.as_user("alice"))
    assert own.json() == account
    assert set(account) == {
        "account_id", "owner_id", "owner_name", "username", "provider", "status", "usable", "leaving", "needs_reauth",
        "needs_reauth_since", "recovered_at", "status_reasons", "label", "type", "created_at", "updated_at",
        "verified_at",
    }  # fmt: skip


@pytest.mark.parametrize("known", ["stored", "never-seen"])
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/confirm")], ids=["get", "confirm"])
async def test_somebody_elses_account_looks_like_none(world: World, known: str, method: str, path: str) -> None:
    if known == "never-seen":
        await world.switch("POST", "/webhooks", {"mode": "drop"})
    account_id = await world.link("alice")
    if known == "stored":
        await listed(world, account_id)
    foreign = await world.broker.request(
        method, f"/v1/linked-accounts/{account_id}{path}", headers=world.as_user("bob")
    )
    unknown = await world.broker.request(
        method, f"/v1/linked-accounts/47187425466113776879{path}", headers=world.as_user("bob")
    )
    assert foreign.status_code == 404
    assert without_request_id(foreign) == without_request_id(unknown)


@pytest.mark.parametrize(
    "account_id", ["..", "%2e%2e", "a%2Fb", "a%00b", "%F0%9F%98%80", "a b", "x" * 256, "@evil", "a%0ab"]
)
async def test_an_impossible_id_never_reaches_stackone(world: World, account_id: str) -> None:
    answer = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
    assert answer.status_code in {404, 405, 422}
    assert answer.headers["content-type"] == "application/problem+json"
    assert [row for row in await world.switch("GET", "/requests") if row["path"].startswith("/accounts/")] == []


async def test_a_list_is_paged_and_filtered(world: World) -> None:
    providers = ["bamboohr", "workday", "salesforce"]
    ids = [await world.link("alice", providers[number % 3], multiple=True) for number in range(7)]
    await world.link("bob")
    for account_id in ids:
        await listed(world, account_id)
    await world.switch("PATCH", f"/accounts/{ids[0]}", {"status": "error"})
    user = world.as_user("alice")
    seen: list[str] = []
    cursor: str | None = None
    pages = 0
    while pages == 0 or cursor:
        query = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = (await world.broker.get("/v1/linked-accounts", headers=user, params=query)).json()
        seen += [account["account_id"] for account in page["data"]]
        cursor = page["next_cursor"]
        pages += 1
    assert (sorted(seen), pages) == (sorted(ids), 3)
    one = await world.broker.get("/v1/linked-accounts", headers=user, params={"provider": "workday"})
    assert {account["provider"] for account in one.json()["data"]} == {"workday"}
    two = await world.broker.get("/v1/linked-accounts?provider=workday&provider=salesforce", headers=user)
    assert len(two.json()["data"]) == 4
    confirmed = await world.broker.post(f"/v1/linked-accounts/{ids[0]}/confirm", headers=user)
    assert (confirmed.json()["usable"], confirmed.json()["needs_reauth"]) == (False, True)
    failing = await world.broker.get("/v1/linked-accounts", headers=user, params={"status": "error"})
    assert [account["account_id"] for account in failing.json()["data"]] == [ids[0]]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "cursor=!", "cursor=AA", "cursor=%00", "provider=a%20b", "status=%00"]
)
async def test_a_query_that_makes_no_sense_is_a_422(world: World, query: str) -> None:
    answer = await world.broker.get(f"/v1/linked-accounts?{query}", headers=world.as_user("alice"))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["location"].startswith("query.")


@pytest.mark.parametrize("query", ["providers=workday", "owner_id=org_acme", "Limit=3"])
async def test_a_filter_that_does_not_exist_is_a_422(world: World, query: str) -> None:
    name = query.partition("=")[0]
    own = await world.broker.get(f"/v1/linked-accounts?{query}", headers=world.as_user("alice"))
    service = await world.broker.get(f"/v1/owners/org_acme/linked-accounts?{query}", headers=world.as_service())
    for answer in (own, service):
        assert (answer.status_code, answer.json()["errors"][0]["location"]) == (422, f"query.{name}")


async def test_a_limited_key_learns_nothing_of_other_owners(world: World) -> None:
    account_id = await world.link("alice")
    await listed(world, account_id)
    limited = world.as_service(await world.create_key(Scope.ACCOUNTS_READ, owners=("org_globex",)))
    foreign = await world.broker.get(f"/v1/accounts/{account_id}", headers=limited)
    unknown = await world.broker.get("/v1/accounts/47187425466113776879", headers=limited)
    assert foreign.status_code == 404
    assert without_request_id(foreign) == without_request_id(unknown)
    assert (await world.broker.get("/v1/owners/org_acme/linked-accounts", headers=limited)).status_code == 403


async def test_credentials_and_setup_information_are_never_kept(world: World) -> None:
    canary = {"api_key": "canary-credential-2f71"}
    account_id = await world.link("alice", credentials=canary, setup_information={"subdomain": "canary-setup-8c1"})
    await listed(world, account_id)
    answer = await world.broker.get(f"/v1/accounts/{account_id}", headers=world.as_service())
    assert "canary" not in answer.text


async def test_a_proxys_404_is_not_a_deletion(world: World) -> None:
    account_id = await world.link("alice")
    await listed(world, account_id)
    fault: dict[str, Any] = {"method": "GET", "path": "/accounts/", "times": 20, "status": 404, "body": "<html>"}
    await world.switch("POST", "/faults", fault)
    answer = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
    assert answer.status_code == 503
    still = await world.broker.get(f"/v1/linked-accounts/{account_id}", headers=world.as_user("alice"))
    assert still.status_code == 200
