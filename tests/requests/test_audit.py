"""The audit trail: everything that was done and refused, as `broker audit export` tells it."""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.audit.tables import audit_entries
from app.jobs import apply_retention
from tests.support.environment import environment_of
from tests.support.tokens import StoppedClock
from tests.support.world import World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

POLICY = """
[[rule]]
name = "no payroll"
channel = "browser"
providers = ["bamboohr"]

[[rule]]
name = "backends"
channel = ["service", "auth_link"]
providers = ["*"]
auth_links = true
"""
OFF = {"enabled": False}
OWNER = "/v1/owners/org_acme"


async def exported(world: World, *arguments: str) -> list[dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "audit", "export", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment_of(world),
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    records = [json.loads(line) for line in out.decode().splitlines()]
    assert f"{len(records)} records" in err.decode()
    return records


async def refused(world: World, user: str = "alice") -> None:
    answer = await world.mint(user, {"provider": "workday"})
    assert answer.status_code == 403, answer.text


async def refused_service(world: World) -> None:
    """Have a service be refused: a user's token is of the machine's own time."""
    body = {"provider": "bamboohr", "connector_profile_id": "profile-1"}
    answer = await world.broker.post(f"{OWNER}/connect-sessions", headers=world.as_service(), json=body)
    assert answer.status_code == 403, answer.text


async def test_who_did_what_and_what_was_refused(database_url: str, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    async with open_world(database_url, policy_file=policy) as world:
        service = world.as_service()
        account_id = await world.link("alice")
        await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
        await refused(world)
        await refused(world, "bob")
        minted = (await world.broker.post(f"{OWNER}/connect-sessions", headers=service, json={})).json()
        ended = await world.broker.delete(f"{OWNER}/connect-sessions/{minted['id']}", headers=service)
        assert ended.status_code == 200, ended.text
        token = (await world.broker.post(f"{OWNER}/user-tokens", headers=service, json={"user": "alice"})).json()
        await world.broker.delete(f"{OWNER}/user-tokens", headers=service, params={"user": "alice"})
        await world.broker.put(f"{OWNER}/name", headers=service, json={"name": "Acme Limited"})
        await world.broker.put(f"{OWNER}/use/bamboohr", headers=service, json={"account_id": account_id})
        asked = await world.broker.get("/v1/use/workday", headers=world.as_user("alice"))
        assert asked.json()["status"] == "refused", asked.text
        await world.broker.post("/v1/invitations/open", headers=world.as_user("alice"), json={"code": "wrong"})
        await world.broker.post("/v1/sync", headers=service)

        records = await exported(world)
        assert [record["at"] for record in records] == sorted(record["at"] for record in records)
        kinds = {record["kind"] for record in records}
        assert kinds >= {
            *("hint", "account.linked", "policy.refused", "session.opened", "session.ended", "user_token.issued"),
            *("user_tokens.revoked", "owner.name_pinned", "account.pinned", "invitation.refused"),
            *("service_key.created", "sweep.requested"),
        }
        by_alice, by_bob, asked_for_use = (record for record in records if record["kind"] == "policy.refused")
        assert (by_alice["owner_id"], by_bob["owner_id"]) == ("org_acme", "org_globex")
        assert by_alice["actor"].startswith("user:")
        assert by_alice["details"]["rule"] == asked_for_use["details"]["rule"] == "no payroll"
        assert by_alice["details"]["provider"] == "workday"
        [issued] = [record for record in records if record["kind"] == "user_token.issued"]
        assert (issued["subject"], issued["details"]["user"]) == (token["id"], "alice")
        [opened] = [record for record in records if record["kind"] == "session.opened"]
        assert (opened["subject"], opened["channel"], opened["rule"]) == (minted["id"], "service", "backends")
        told = json.dumps(records)
        for secret in (token["token"], minted["token"], world.service_key.rpartition("_")[2]):
            assert secret not in told

        middle = by_bob["at"]
        of_bob = await exported(world, "--owner", "org_globex", "--since", middle, "--format", "jsonl")
        assert by_bob in of_bob
        assert of_bob == [one for one in records if one.get("owner_id") == "org_globex" and one["at"] >= middle]
        assert await exported(world, "--until", middle) == [one for one in records if one["at"] < middle]

        await world.broker.delete(OWNER, headers=service)
        left = await exported(world)
        for personal in ("org_acme", "Acme", "alice"):
            assert personal not in json.dumps(left)
        assert by_bob in left
        [completed] = [record for record in left if record["kind"] == "erasure.completed"]
        erased = {record["kind"] for record in left if record.get("owner_id") == completed["owner_id"]}
        assert {"policy.refused", "user_token.issued", "erasure.requested"} <= erased


async def test_entries_go_after_their_retention(database_url: str, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    clock = StoppedClock(datetime.now(UTC) - timedelta(days=31))
    async with open_world(
        database_url, clock=clock, policy_file=policy, audit={"retention_days": 30}, sync=OFF
    ) as world:
        await refused_service(world)
        clock.advance(timedelta(days=20).total_seconds())
        await refused_service(world)
        clock.advance(timedelta(days=11).total_seconds())
        await apply_retention(world.runtime)
        async with world.runtime.database.reading() as connection:
            [left] = (await connection.execute(sa.select(audit_entries.c.at))).scalars()
        assert clock.now() - left < timedelta(days=30)


async def test_a_moment_that_is_none_is_refused(world: World) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "audit", "export", "--since", "yesterday"),
        stderr=asyncio.subprocess.PIPE,
        env=environment_of(world),
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert "ISO 8601" in " ".join(err.decode().split())
