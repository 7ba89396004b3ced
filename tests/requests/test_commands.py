"""The command line: doctor, sync, accounts, push and erase, as a script sees them."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.environment import environment_of
from tests.support.tokens import rsa_key
from tests.support.world import API_KEY, PEPPER, WEBHOOK_SECRET, World, open_world

pytestmark = pytest.mark.anyio


async def broker(world: World, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run a command; return its exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment_of(world) | environment,
    )
    out, err = await process.communicate()
    for secret in (API_KEY, WEBHOOK_SECRET, PEPPER):
        assert secret.encode() not in out + err
    return process.returncode or 0, out.decode(), err.decode()


def by_subject(report: str) -> dict[str, Any]:
    return {finding["subject"]: finding for finding in json.loads(report)["findings"]}


async def test_doctor_finds_a_healthy_broker_healthy_and_a_sick_one_sick(world: World) -> None:
    url = f"{world.broker.base_url}/v1/webhooks/stackone".replace("//v1", "/v1")
    status, out, err = await broker(world, "doctor", "--json", "--webhook-url", url)
    found = by_subject(out)
    assert status == 0, out + err
    for subject in ("database", "schema", "database clock", "StackOne key", "StackOne scope", "webhook"):
        assert found[subject]["state"] == "ok", found[subject]
    assert found[f"issuer {world.issuer}"]["state"] == "ok"

    await world.switch("POST", "/api-key", {"lacks_scope": True})
    status, out, _ = await broker(
        world, "doctor", "--json", "--webhook-url", url, BROKER_STACKONE__WEBHOOK_SECRETS='["another-secret-000000"]'
    )
    found = by_subject(out)
    assert status == 1
    assert [found[subject]["state"] for subject in ("StackOne key", "webhook")] == ["broken", "broken"]
    assert all(finding["remedy"] for finding in found.values() if finding["state"] != "ok")


async def test_keys_that_an_issuer_publishes_for_something_else_are_told(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [rsa_key().jwk(), rsa_key("x").jwk(kid="oaep", alg="RSA-OAEP")]}))
    url = "https://login.example"
    issuer = {"issuer": url, "audiences": ["a"], "jwks_file": str(file), "claims": {"owner_id": "org"}}
    async with open_world(database_url, identity={"issuers": [issuer]}) as world:
        told = "key oaep: it is not for RS256"
        ready = (await world.broker.get("/readyz")).json()
        assert (ready["status"], ready["checks"][f"keys left out of {url}"]) == ("ok", told)
        _, out, _ = await broker(world, "doctor", "--json", BROKER_IDENTITY__ISSUERS=json.dumps([issuer]))
        assert by_subject(out)[f"issuer {url}"]["detail"] == f"its keys are known; left out: {told}"


async def test_sync_list_show_and_erase(world: World) -> None:
    await world.switch("POST", "/webhooks", {"mode": "drop"})
    account_id = await world.link("alice")
    status, out, _ = await broker(world, "sync", "--dry-run", "--json")
    assert (status, json.loads(out)["added"]) == (0, 1)
    status, out, err = await broker(world, "sync", "--json")
    assert (status, json.loads(out)["state"]) == (0, "done"), err
    status, out, _ = await broker(world, "accounts", "list", "--owner", "org_acme", "--json")
    assert [account["account_id"] for account in json.loads(out)] == [account_id]
    status, out, _ = await broker(world, "accounts", "show", account_id, "--json")
    assert [event["kind"] for event in json.loads(out)["history"]] == ["account.linked"]
    assert (await broker(world, "accounts", "show", "unknown"))[0] == 1
    status, out, _ = await broker(world, "owners", "erase", "org_acme", "--yes", "--json")
    assert (status, json.loads(out)["state"]) == (0, "complete")
    assert list(world.project.accounts) == []


async def test_doctor_warns_when_events_get_lost(world: World) -> None:
    await world.switch("POST", "/webhooks", {"mode": "drop"})
    await world.link("alice")
    assert (await broker(world, "sync"))[0] == 0
    arguments = ("doctor", "--json", "--webhook-url", f"{str(world.broker.base_url).rstrip('/')}/v1/webhooks/stackone")
    _, first, _ = await broker(world, *arguments)
    assert by_subject(first)["drift"]["state"] == "ok", "the first sweep finds everything new"
    await world.link("alice")
    assert (await broker(world, "sync"))[0] == 0
    status, second, _ = await broker(world, *arguments)
    drift = by_subject(second)["drift"]
    assert (status, drift["state"]) == (0, "warning")
    assert "+1" in drift["detail"]


async def test_sync_says_when_the_removal_limit_stopped_it(world: World) -> None:
    await world.switch("POST", "/webhooks", {"mode": "drop"})
    for _ in range(12):
        await world.link("alice")
    assert (await broker(world, "sync"))[0] == 0
    await world.switch("POST", "/listing", {"end_early": 0})
    status, _, err = await broker(world, "sync")
    assert status == 3
    assert "--max-removal-percent 100" in err
