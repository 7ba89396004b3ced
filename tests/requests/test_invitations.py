"""Invitations: whoever has the link proves nothing; the invited user who has signed in gets a session."""

import asyncio
import os
import random
import string
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import generate_latest

from app.db.tables import metadata
from app.identity.caller import Scope
from app.invitations.tables import invitation_openings, invitations
from app.jobs import apply_retention
from sandbox.identity.provider import USERS
from tests.attacks.opened import told
from tests.requests.test_session_ledger import submit
from tests.support.tokens import StoppedClock
from tests.support.waiting import eventually
from tests.support.world import INVITATION_PAGE, INVITATION_SECRET, World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

OWNER = "/v1/owners/org_acme/invitations"
_CODE_ALPHABET = string.ascii_letters + string.digits + "-_"


async def invite(world: World, owner: str = OWNER, **body: Any) -> dict[str, Any]:
    answer = await world.broker.post(owner, headers=world.as_service(), json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def code_of(invitation: dict[str, Any]) -> str:
    page, _, code = invitation["url"].partition("#")
    assert page == INVITATION_PAGE
    return str(code)


async def opening(world: World, code: str, user: str = "alice", claims: Mapping[str, Any] | None = None) -> Any:
    headers = world.as_user(user, **(claims or {}))
    return await world.broker.post("/v1/invitations/open", headers=headers, json={"code": code})


async def shown(world: World, invitation: dict[str, Any]) -> dict[str, Any]:
    answer = await world.broker.get(f"{OWNER}/{invitation['id']}", headers=world.as_service())
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def kept(world: World) -> tuple[set[str], int]:
    """Return the ids of the invitations in the database, and how many openings there are."""
    async with world.runtime.database.reading() as connection:
        ids = (await connection.execute(sa.select(invitations.c.id))).scalars().all()
        openings = await connection.execute(sa.select(sa.func.count()).select_from(invitation_openings))
    return set(ids), int(openings.scalar_one())


async def test_the_invited_user_opens_a_session_until_an_account_is_linked(world: World) -> None:
    invitation = await invite(world, provider="bamboohr", return_url="http://127.0.0.1:8200/done?x=1")
    assert invitation["status"] == "invited"
    first = await opening(world, code_of(invitation))
    assert first.status_code == 201, first.text
    assert first.headers["cache-control"] == "no-store"
    assert (first.json()["provider"], first.json()["mode"]) == ("bamboohr", "create")
    assert first.json()["return_url"] == "http://127.0.0.1:8200/done?x=1"
    again = await opening(world, code_of(invitation), "carol")
    assert again.status_code == 201
    between = await shown(world, invitation)
    assert (between["status"], code_of(between)) == ("opened", code_of(invitation))

    account_id = await submit(world, again.json())
    await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("carol"))

    async def linked() -> bool:
        return bool((await shown(world, invitation))["status"] == "linked")

    await eventually(linked, within=5)
    done = await shown(world, invitation)
    assert (done["linked_account_id"], done["url"]) == (account_id, None)
    assert done["linked_by"].startswith("user:carol@")
    assert done["opened_by"] == done["linked_by"]
    refused = await opening(world, code_of(invitation))
    assert (refused.status_code, refused.json()["code"]) == (409, "already_linked")


@pytest.mark.parametrize("used", [0, 1])
async def test_a_page_that_was_reloaded_links_all_the_same(world: World, used: int) -> None:
    invitation = await invite(world, provider="bamboohr")
    opened = [(await opening(world, code_of(invitation))).json() for _ in range(2)]
    account_id = await submit(world, opened[used])
    await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
    refused = await opening(world, code_of(invitation))
    assert (refused.status_code, refused.json()["code"]) == (409, "already_linked")
    assert (await shown(world, invitation))["linked_account_id"] == account_id


async def test_everybody_else_gets_what_an_unknown_code_gets(world: World) -> None:
    invitation = await invite(world, **{"for": USERS["carol"].email.upper()})
    code = code_of(invitation)
    unknown = await opening(world, "inv_" + "A" * 44, "bob")
    assert unknown.status_code == 404
    for wrong in (code[:-1], code + "A", code[:-1] + ("A" if code[-1] != "A" else "B"), code[22:], "x", "é" * 50):
        assert told(await opening(world, wrong, "carol")) == told(unknown), wrong
    others: list[tuple[str, dict[str, Any]]] = [
        ("bob", {}),
        ("alice", {}),
        ("carol", {"org_id": "org_globex"}),
        ("carol", {"email": None}),
    ]
    for user, claims in others:
        assert told(await opening(world, code, user, claims)) == told(unknown), user
    assert (await shown(world, invitation))["status"] == "invited"
    assert (await opening(world, code, "carol")).status_code == 201
    # Once it is over, only the invited user is told so.
    await world.broker.delete(f"{OWNER}/{invitation['id']}", headers=world.as_service())
    assert told(await opening(world, code, "alice")) == told(unknown)
    over = await opening(world, code, "carol")
    assert (over.status_code, over.json()["code"]) == (410, "invitation_over")


async def test_it_ends_by_itself_and_by_request(database_url: str) -> None:
    clock = StoppedClock(datetime.now(UTC))
    async with open_world(database_url, clock=clock, sync={"enabled": False}) as world:
        late = await invite(world, expires_in=60)
        ended = await invite(world, expires_in=7_776_000)
        clock.advance(61)
        assert (await shown(world, late))["status"] == "expired"
        assert (await shown(world, late))["url"] is None
        for _ in range(2):
            answer = await world.broker.delete(f"{OWNER}/{ended['id']}", headers=world.as_service())
            assert (answer.status_code, answer.json()["status"]) == (200, "ended")
        listed = await world.broker.get(f"{OWNER}?live=true", headers=world.as_service())
        assert listed.json() == {"data": [], "next_cursor": None}
        opened = await invite(world)
        assert (await opening(world, code_of(opened))).status_code == 201
        clock.advance(timedelta(days=90 + 364).total_seconds())
        await apply_retention(world.runtime)
        assert await kept(world) == ({ended["id"]}, 0)
        clock.advance(timedelta(days=2).total_seconds())
        await apply_retention(world.runtime)
        assert await kept(world) == (set(), 0)


async def test_a_repair_is_an_invitation_too(world: World) -> None:
    account_id = await world.link("alice", "bamboohr")
    await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
    invitation = await invite(world, account_id=account_id)
    opened = await opening(world, code_of(invitation))
    assert (opened.json()["mode"], opened.json()["account_id"]) == ("edit", account_id)
    await world.broker.delete(f"/v1/linked-accounts/{account_id}", headers=world.as_user("alice"))
    gone = await opening(world, code_of(invitation))
    assert (gone.status_code, gone.json()["code"]) == (410, "invitation_over")


async def test_what_cannot_be_invited_to_is_refused(world: World) -> None:
    bobs = await world.link("bob", "bamboohr")
    await world.broker.post(f"/v1/linked-accounts/{bobs}/confirm", headers=world.as_user("bob"))
    cases: list[tuple[dict[str, Any], int, str | None]] = [
        ({"account_id": bobs}, 404, None),
        ({"account_id": "no-such"}, 404, None),
        ({"account_id": bobs, "provider": "bamboohr"}, 422, "body"),
        ({"expires_in": 7_776_001}, 422, "body.expires_in"),
        ({"expires_in": 59}, 422, "body.expires_in"),
        ({"owner_id": "org_globex"}, 422, "body.owner_id"),
        ({"username": "carol"}, 422, "body.username"),
        ({"for": ""}, 422, "body.for"),
        *(
            ({"return_url": url}, 422, "body.return_url")
            for url in (
                "https://evil.example/",
                "http://127.0.0.1:8200@evil.example/",
                "http://127.0.0.1:8200.evil.example/",
                "//evil.example",
                "javascript:alert(1)",
                "http://127.0.0.1:8201/",
                "/done",
                "http://127.0.0.1:8200\\@evil.example/",
                "http://127.0.0.1:8200/a\nb",
            )
        ),
    ]
    for body, status, location in cases:
        answer = await world.broker.post(OWNER, headers=world.as_service(), json=body)
        assert answer.status_code == status, (body, answer.text)
        if location is not None:
            assert [error["location"] for error in answer.json()["errors"]] == [location], body


async def test_they_are_listed_in_pages_the_newest_first(world: World) -> None:
    ids = [(await invite(world))["id"] for _ in range(5)]
    await invite(world, "/v1/owners/org_globex/invitations")
    seen: list[str] = []
    cursor = ""
    for _ in range(10):
        page = (await world.broker.get(f"{OWNER}?limit=2{cursor}", headers=world.as_service())).json()
        seen += [row["id"] for row in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ids[::-1]
    for wrong in ("?cursor=eA", "?limit=0", "?limit=201", "?lives=true"):
        answer = await world.broker.get(f"{OWNER}{wrong}", headers=world.as_service())
        assert answer.status_code == 422, wrong


async def test_one_owner_has_a_bounded_number(database_url: str) -> None:
    async with open_world(database_url, limits={"live_invitations_per_owner": 2}) as world:
        first = await invite(world)
        await invite(world)
        refused = await world.broker.post(OWNER, headers=world.as_service(), json={})
        assert (refused.status_code, "invitations" in refused.json()["detail"]) == (429, True)
        assert int(refused.headers["retry-after"]) > 0
        await invite(world, "/v1/owners/org_globex/invitations")
        await world.broker.delete(f"{OWNER}/{first['id']}", headers=world.as_service())
        await invite(world)


async def test_without_a_page_there_are_none(database_url: str) -> None:
    async with open_world(database_url, invitations={"page_url": None, "secrets": []}) as world:
        answer = await world.broker.post(OWNER, headers=world.as_service(), json={})
        assert (answer.status_code, answer.json()["code"]) == (409, "not_configured")
        assert (await opening(world, "inv_" + "A" * 44)).status_code == 404


async def test_a_secret_is_rotated_without_a_link_that_fails(database_url: str) -> None:
    newer = "demo-canary-invitation-secret-newer-1"
    async with open_world(database_url) as world:
        invitation = await invite(world)
    async with open_world(database_url, invitations={"secrets": [newer, INVITATION_SECRET]}) as world:
        assert code_of(await shown(world, invitation)) != code_of(invitation)
        for code in (code_of(invitation), code_of(await shown(world, invitation))):
            assert (await opening(world, code)).status_code == 201
    async with open_world(database_url, invitations={"secrets": [newer]}) as world:
        assert (await opening(world, code_of(invitation))).status_code == 404


async def test_policy_is_asked_of_whoever_opens_it(database_url: str, tmp_path: Any) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(
        '[[rule]]\nname = "admins"\nclaims = { "https://acme.example/roles" = "admin" }\nproviders = ["*"]\n'
        '[[rule]]\nname = "nobody else"\nowners = ["*"]\ndeny = true\n'
    )
    async with open_world(database_url, policy_file=str(policy)) as world:
        invitation = await invite(world, provider="bamboohr")
        refused = await opening(world, code_of(invitation))
        assert refused.status_code == 403
        assert (await shown(world, invitation))["status"] == "invited"
        allowed = await opening(world, code_of(invitation), claims={"https://acme.example/roles": ["admin"]})
        assert allowed.status_code == 201


async def test_the_code_is_in_no_log_line_and_no_column(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    invitation = await invite(world, provider="bamboohr")
    code = code_of(invitation)
    opened = await opening(world, code)
    await opening(world, code, "bob")
    assert opened.status_code == 201
    async with world.runtime.database.reading() as connection:
        rows = [(await connection.execute(sa.select(table))).all() for table in metadata.sorted_tables]
    secret_part = code.removeprefix(invitation["id"])
    logged = "".join(capfd.readouterr())
    assert "invitation_refused" in logged
    refused = (await opening(world, code, "bob")).text
    exposed = generate_latest(world.runtime.metrics.registry).decode()
    assert "broker_" in exposed
    for place in (repr(rows), logged, refused, exposed):
        assert secret_part not in place
        assert opened.json()["token"] not in place


async def test_whoever_may_not_mint_may_not_invite(world: World) -> None:
    key = await world.create_key(Scope.ACCOUNTS_READ)
    answer = await world.broker.post(OWNER, headers=world.as_service(key), json={})
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
    limited = await world.create_key(Scope.SESSIONS_WRITE, owners=("org_globex",))
    assert (await world.broker.post(OWNER, headers=world.as_service(limited), json={})).status_code == 403


@pytest.mark.timeout(3600)
async def test_no_guess_opens_anything(world: World) -> None:
    """BROKER_GUESSES=100000 for the long run. The invitation's id is known to whoever guesses, its code is not."""
    invitation = await invite(world, provider="bamboohr")
    code = code_of(invitation)
    guessed = len(code) - len(invitation["id"])
    chance = random.Random(7)  # noqa: S311  no secret
    statuses: Counter[int] = Counter()
    tries = int(os.environ.get("BROKER_GUESSES", "200"))

    async def guess(number: int) -> None:
        for _ in range(number):
            tried = invitation["id"] + "".join(chance.choices(_CODE_ALPHABET, k=guessed))
            assert tried != code
            statuses[(await opening(world, tried)).status_code] += 1

    await asyncio.gather(*(guess(tries // 8) for _ in range(8)))
    assert statuses.keys() == {404, 429}
    assert statuses[404] < tries // 2
    assert (await shown(world, invitation))["status"] == "invited"
    assert (await kept(world))[1] == 0
