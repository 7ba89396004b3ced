"""Connectors: what a page may offer, told by StackOne's auth configs and by policy."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.world import World, open_world

pytestmark = pytest.mark.anyio

POLICY = """
[[rule]]
name = "acme"
owners = ["org_acme"]
providers = ["bamboohr", "sales*", "nowhere"]
connector_profiles = ["no-such-profile"]

[[rule]]
name = "globex by category"
owners = ["org_globex"]
categories = ["hris"]
"""


@pytest.fixture
async def ruled(database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """Open a world with a policy."""
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    async with open_world(database_url, policy_file=file) as world:
        yield world


async def offered(world: World, user: str = "alice", query: str = "") -> dict[str, Any]:
    answer = await world.broker.get(f"/v1/connectors{query}", headers=world.as_user(user))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_without_a_policy_everything_that_is_enabled_may_be_linked(world: World) -> None:
    configs = [config for config in world.project.auth_configs.values() if config.active]
    page = await offered(world)
    assert [row["key"] for row in page["data"]] == sorted({config.provider for config in configs})
    assert page["next_cursor"] is None
    first = page["data"][0]
    assert (first["key"], first["label"], first["linked"], first["picker_only"]) == (
        "bamboohr",
        "BambooHR",
        False,
        False,
    )
    assert first["logo_url"].startswith("data:image/")
    assert "hris" in first["categories"]
    assert "connector_profiles" not in first


async def test_it_comes_in_pages(world: World) -> None:
    everything = [row["key"] for row in (await offered(world))["data"]]
    seen: list[str] = []
    query = "?limit=2"
    for _ in range(9):
        page = await offered(world, query=query)
        seen += [row["key"] for row in page["data"]]
        if page["next_cursor"] is None:
            break
        query = f"?limit=2&cursor={page['next_cursor']}"
    assert seen == everything
    wrong = await world.broker.get("/v1/connectors?provider=x", headers=world.as_user("alice"))
    assert wrong.status_code == 422


@pytest.mark.both_databases
async def test_policy_says_what_is_offered_and_the_store_what_is_linked(ruled: World) -> None:
    account_id = await ruled.link("alice", provider="salesforce")
    await ruled.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=ruled.as_user("alice"))
    acme = {row["key"]: row for row in (await offered(ruled))["data"]}
    assert {key: row["linked"] for key, row in acme.items()} == {"bamboohr": False, "salesforce": True}
    # What is offered can be opened, and what is not cannot.
    for provider, status in (("bamboohr", 201), ("workday", 403)):
        assert (await ruled.mint("alice", {"provider": provider})).status_code == status

    globex = (await offered(ruled, "bob"))["data"]
    assert {row["picker_only"] for row in globex} == {True}
    assert "salesforce" not in {row["key"] for row in globex}
    assert (await ruled.mint("bob", {"categories": ["hris"]})).status_code == 201
    assert (await ruled.mint("bob", {"provider": globex[0]["key"]})).status_code == 403
    none = await ruled.broker.get("/v1/connectors", headers=ruled.as_user("bob", org_id="org_new"))
    assert none.json() == {"data": [], "next_cursor": None}


async def test_services_see_the_profiles_the_default_one_first(world: World) -> None:
    answer = await world.broker.get("/v1/owners/org_acme/connectors", headers=world.as_service())
    rows = {row["key"]: row for row in answer.json()["data"]}
    for provider, row in rows.items():
        ids = [config["id"] for config in row["connector_profiles"]]
        enabled = {
            key for key, config in world.project.auth_configs.items() if config.provider == provider and config.active
        }
        assert set(ids) == enabled
        assert row["connector_profiles"][0]["default"]
    limited = await world.create_key(owners=("org_globex",))
    refused = await world.broker.get("/v1/owners/org_acme/connectors", headers=world.as_service(limited))
    assert refused.status_code == 403


async def test_a_disabled_connector_is_not_offered(world: World) -> None:
    for config in [config for config in world.project.auth_configs.values() if config.provider == "bamboohr"]:
        await world.switch("POST", f"/auth-configs/{config.integration_id}", {"active": False})
    assert "bamboohr" not in {row["key"] for row in (await offered(world))["data"]}


async def test_what_is_known_is_offered_while_stackone_is_away(world: World) -> None:
    await world.switch("POST", "/faults", {"path": "/auth_configs", "status": 503, "times": None})
    unknown = await world.broker.get("/v1/connectors", headers=world.as_user("alice"))
    assert unknown.status_code == 503
    assert "503" in unknown.json()["detail"]
    assert unknown.headers["retry-after"]
    await world.switch("DELETE", "/faults")
    known = await offered(world)
    assert known["data"]
    await world.switch("POST", "/faults", {"path": "/auth_configs", "cut": True, "times": None})
    # Longer than what was read counts as fresh: then StackOne is asked, in vain.
    world.runtime.auth_configs._ask_again_at = float("-inf")  # noqa: SLF001  minutes later
    assert await offered(world) == known


async def test_a_name_that_no_image_should_come_from_is_left_out(world: World) -> None:
    rows = [
        {"id": 7, "connector_key": "odd", "connector_label": "Odd", "logo_url": "javascript:alert(1)", "active": True},
        {"id": "8", "connector_key": "bare", "logo_url": "data:image/png;base64," + "A" * 40_000, "categories": None},
        {"connector_key": "no id"},
        "nonsense",
    ]
    await world.switch(
        "POST", "/faults", {"path": "/auth_configs", "status": 200, "body": {"data": rows}, "times": None}
    )
    page = await offered(world)
    assert [(row["key"], row["label"], row["logo_url"]) for row in page["data"]] == [
        ("bare", "bare", None),
        ("odd", "Odd", None),
    ]
