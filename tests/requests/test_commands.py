"""The command line: doctor, sync, accounts, push and erase, as a script sees them."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import app as package
from app.db.counters import counter_value
from app.jobs import apply_retention
from tests.support.environment import environment_of
from tests.support.tokens import rsa_key
from tests.support.waiting import eventually
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


POLICY = """
[[rule]]
name = "acme"
owners = ["*"]
providers = ["bamboohr", "sales*", "nowhere"]
connector_profiles = ["no-such-profile", "*"]
"""


async def test_doctor_says_what_the_policy_names_in_vain(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    async with open_world(database_url, policy_file=file) as world:
        await world.switch("POST", "/lies", {"session": {"origin_owner_id": None}})
        assert (await world.mint("alice", {"provider": "bamboohr"})).status_code == 201
        _, out, _ = await broker(world, "doctor", "--json", BROKER_POLICY_FILE=str(file))
    found = json.loads(out)["findings"]
    details = [finding["detail"] for finding in found if finding["subject"] == "policy"]
    assert len(details) == 2, details
    for name in ('provider "nowhere"', 'connector profile "no-such-profile"'):
        assert any(name in detail and "(line 2)" in detail for detail in details), details
    [unechoed] = [finding for finding in found if finding["subject"] == "mint"]
    assert "origin_owner_id" in unechoed["detail"]
    assert unechoed["state"] == "warning"


@pytest.mark.both_databases
async def test_a_table_of_owners_is_taken_over(database_url: str, tmp_path: Path) -> None:
    async with open_world(database_url, webhooks=False) as world:
        mine = [await world.link("alice", provider=provider) for provider in ("bamboohr", "workday")]
        bobs = await world.link("bob", provider="bamboohr")
        await world.mint("bob")
        table = tmp_path / "owners.csv"
        table.write_bytes(
            "\ufeffowner_id, name, account_ids\r\n"
            f'org_acme,"Acme, as it was",{mine[0]};{mine[1]} {bobs}\r\n'
            "org_globex,Globex Old,\r\n-dash,,\r\n".encode()
        )
        status, out, err = await broker(world, "owners", "import", str(table), "--json", "--dry-run")
        assert status == 3, err
        told = json.loads(out)
        assert (told["pinned"], told["marked"], told["owners"]) == (1, 3, 3)
        assert (
            await world.broker.get(f"/v1/linked-accounts/{mine[0]}", headers=world.as_user("alice"))
        ).status_code == 404

        status, out, _ = await broker(world, "owners", "import", str(table), "--json")
        told = json.loads(out)
        assert (told["pinned"], told["marked"]) == (1, 3)
        assert [row[0] for row in told["other_names"]] == ["org_globex"]

        async def read() -> bool:
            listed = await world.broker.get("/v1/linked-accounts", headers=world.as_user("alice"))
            return {row["account_id"] for row in listed.json()["data"]} == set(mine)

        await eventually(read)
        # Whose an account is, StackOne says, not the table.
        shown = await world.broker.get(f"/v1/accounts/{bobs}", headers=world.as_service())
        assert shown.json()["owner_id"] == "org_globex"
        # Once more does nothing more, and tells what differs.
        status, out, _ = await broker(world, "owners", "import", str(table), "--json")
        again = json.loads(out)
        assert (status, again["pinned"], again["marked"], again["known"]) == (3, 0, 0, 3)
        assert again["other_owners"] == [[bobs, "org_acme", "org_globex"]]
        minted = await world.broker.post(
            "/v1/owners/org_acme/connect-sessions", headers=world.as_service(), json={"origin_owner_name": "New"}
        )
        assert (minted.json()["owner_name"], minted.json()["name_pinned"]) == ("Acme, as it was", True)


async def test_a_table_with_mistakes_changes_nothing_and_tells_all_of_them(world: World, tmp_path: Path) -> None:
    lines = tmp_path / "owners.jsonl"
    lines.write_text(
        '{"owner_id": "a", "name": "A", "account_ids": ["1"]}\n'
        '{"owner_id": "", "name": "B"}\n'
        "not json\n"
        '{"owner_id": "c", "nmae": "C"}\n'
        '{"owner_id": "a", "name": "Another"}\n{"owner_id": "d", "account_ids": ["1", "../2"]}\n'
    )
    status, out, err = await broker(world, "owners", "import", str(lines))
    assert (status, out) == (1, "")
    for line, place in ((6, "account_ids.1"), (2, "owner_id"), (3, "not a JSON object"), (4, "nmae"), (5, "name")):
        assert any(f"line {line}:" in row and place in row for row in err.splitlines()), (line, err)
    for wrong in (b"", b"name\nA\n", b"owner_id\n\xff\n", b'owner_id,name\n"a\n', b"owner_id,name\na\n"):
        lines.write_bytes(wrong)
        status, out, err = await broker(world, "owners", "import", str(lines))
        assert (status, out) == (1, ""), (wrong, err)
        assert "Traceback" not in err


async def test_who_must_reconnect_is_one_line(world: World) -> None:
    account_id = await world.link("alice", provider="bamboohr", status="error")
    await world.link("bob", provider="bamboohr", multiple=True)

    async def known() -> bool:
        _, out, _ = await broker(world, "owners", "list", "--json")
        return [row["accounts"] for row in json.loads(out)] == [1, 1]

    await eventually(known)
    status, out, _ = await broker(world, "accounts", "list", "--needs-reauth")
    assert status == 0
    header, line = out.splitlines()
    assert header.split()[0] == "account"
    # Nothing is cut where nobody looks at a terminal.
    assert line.split()[:2] == [account_id, "org_acme"]
    status, out, _ = await broker(world, "owners", "list")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["org_acme", "org_globex"]
    # An id may begin with a hyphen.
    status, _, err = await broker(world, "accounts", "show", "-dash")
    assert (status, "no such account" in err) == (1, True)


async def test_a_user_is_signed_out(world: World) -> None:
    path = "/v1/owners/org_acme/user-tokens"
    made = await world.broker.post(path, headers=world.as_service(), json={"user": "alice"})
    token = {"authorization": f"Bearer {made.json()['token']}"}
    assert (await world.broker.get("/v1/linked-accounts", headers=token)).status_code == 200
    status, out, err = await broker(world, "tokens", "revoke", "--owner", "org_acme", "--user", "alice", "--json")
    assert (status, json.loads(out)["user"]) == (0, "alice"), err

    async def ended() -> bool:
        return (await world.broker.get("/v1/linked-accounts", headers=token)).status_code == 401

    await eventually(ended, within=6)


async def test_sync_says_when_it_waits_for_room_in_the_budget(database_url: str) -> None:
    async with open_world(database_url, webhooks=False, sync={"enabled": False}) as world:
        for number in range(6):
            await world.link(provider=f"tool{number}")
        # Of ten calls a minute a sweep may use four, and asks for one account at a time.
        environment = environment_of(world) | {
            "BROKER_STACKONE__REQUESTS_PER_MINUTE": "10",
            "BROKER_SYNC__SWEEP_PAGE_SIZE": "1",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "sync", env=environment, stderr=asyncio.subprocess.PIPE
        )
        try:
            assert process.stderr is not None
            async with asyncio.timeout(30):
                told = (await process.stderr.readline()).decode()
        finally:
            process.kill()
            await process.wait()
    assert told.startswith("waits for room in the budget of calls to StackOne")


async def explained(world: World, token: str, *options: str) -> tuple[int, str, str]:
    """Give a token to `broker tokens explain` on standard input."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "tokens", "explain", *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment_of(world),
    )
    out, err = await process.communicate(token.encode())
    assert not token or token.encode() not in out + err
    return process.returncode or 0, out.decode(), err.decode()


async def test_a_token_is_explained_and_never_shown(world: World) -> None:
    status, out, err = await explained(world, world.token("alice"), "--json")
    found = json.loads(out)
    assert (status, found["accepted"], found["owner_id"], found["username"]) == (
        0,
        True,
        "org_acme",
        "alice@acme.example",
    ), err
    status, out, _ = await explained(world, f"Bearer {world.token('alice', org_id=None)}\n")
    assert status == 3
    assert "org_id" in out.splitlines()[0]
    status, out, _ = await explained(world, world.token("alice", aud="another"))
    assert (status, "aud" in out.splitlines()[0]) == (3, True)
    status, out, _ = await explained(world, "no.token")
    assert (status, out.startswith("refused: ")) == (3, True)
    status, _, err = await explained(world, "")
    assert (status, "standard input" in err) == (1, True)


async def test_a_key_that_ends_soon_is_told_of_while_there_is_time(world: World) -> None:
    await world.create_key(days=15)
    await world.create_key(days=13)
    _, out, _ = await broker(world, "doctor", "--json")
    told = [finding for finding in json.loads(out)["findings"] if finding["subject"].startswith("service key")]
    # The world's own key, which lives a day, is the first.
    assert [finding["detail"] for finding in told] == ["ends in 0 days", "ends in 12 days"]
    assert all("service-keys rotate" in finding["remedy"] for finding in told)
    with capture_logs() as lines:
        await apply_retention(world.runtime)
        await apply_retention(world.runtime)
    assert [line["event"] for line in lines].count("service_key_ends_soon") in {0, 2}
    async with world.runtime.database.reading() as connection:
        assert await counter_value(connection, "service_keys_warned_of") == world.clock.now().toordinal()


async def test_health_follows_the_port_and_the_version_is_told(world: World) -> None:
    port = str(world.broker.base_url.port)
    status, out, err = await broker(world, "health", "--ready", BROKER_HTTP__PORT=port)
    assert (status, out.strip()) == (0, "ok"), err
    status, _, err = await broker(world, "health", BROKER_HTTP__PORT="1")
    assert (status, "nobody answers" in err) == (1, True)
    status, out, _ = await broker(world, "--version")
    assert (status, out.strip()) == (0, package.__version__)
