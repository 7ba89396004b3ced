"""The webhook: what is signed is written down once and answered; what is not is refused."""

import base64
import json
import subprocess
from typing import Any

import pytest
import sqlalchemy as sa

from app.linked_accounts.tables import account_events, linked_accounts
from tests.support.waiting import eventually
from tests.support.world import WEBHOOK_SECRET, World, open_world

pytestmark = pytest.mark.anyio

SECOND_SECRET = "demo-canary-second-secret-77"
_NODE = "const [,secret,encoding,body]=process.argv;process.stdout.write(require('crypto').createHmac('sha256',secret).update(Buffer.from(body,'base64')).digest(encoding))"  # noqa: E501


def node_signature(body: bytes, *, secret: str = WEBHOOK_SECRET, encoding: str = "base64url") -> str:
    """Sign as StackOne's documentation does: with Node's crypto, which shares no code with the broker."""
    arguments = ["node", "-e", _NODE, secret, encoding, base64.b64encode(body).decode()]
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


def event(account_id: str = "q7Zt0bLm2VxKc9RfYh4Sa", **changes: Any) -> bytes:
    """Write an event as StackOne documents it."""
    payload = {
        "project_id": "connect-sandbox-10427",
        "account_id": account_id,
        "event": "account.created",
        "event_date": "2026-11-20T09:14:07.112Z",
        "record_type": "account",
        "record_id": account_id,
        "sent_at": "2026-11-20T09:14:07.301Z",
        "provider": "bamboohr",
        "origin_owner_id": "org_acme",
        "origin_owner_name": "Acme Inc",
        **changes,
    }
    return json.dumps({name: value for name, value in payload.items() if value is not None}).encode()


async def post(world: World, body: bytes, *signatures: str) -> Any:
    headers = [("content-type", "application/json"), *(("x-stackone-signature", value) for value in signatures)]
    return await world.broker.post("/v1/webhooks/stackone", content=body, headers=headers)


async def hints(world: World) -> int:
    async with world.runtime.database.reading() as connection:
        query = sa.select(sa.func.count()).select_from(account_events).where(account_events.c.kind == "hint")
        return int((await connection.execute(query)).scalar_one())


async def test_what_node_signed_is_accepted_with_and_without_padding(world: World) -> None:
    first, second = event(), event(sent_at="2026-11-20T09:14:08.000Z")
    signature = node_signature(first)
    assert len(signature) == 43
    assert (await post(world, first, signature)).json() == {"outcome": "accepted"}
    assert (await post(world, second, node_signature(second) + "=")).json() == {"outcome": "accepted"}


async def test_any_other_signature_is_refused_without_a_reason(world: World) -> None:
    body = event()
    good = node_signature(body)
    refused = {
        "none": await post(world, body),
        "empty": await post(world, body, ""),
        "hex": await post(world, body, node_signature(body, encoding="hex")),
        "base64": await post(world, body, node_signature(body, encoding="base64").replace("-", "+") + "=="),
        "another secret": await post(world, body, node_signature(body, secret="another-secret")),
        "empty secret": await post(world, body, node_signature(body, secret="")),
        "one byte more": await post(world, body + b" ", good),
        "one byte changed": await post(world, body.replace(b"org_acme", b"org_acmf"), good),
        "re-serialised": await post(world, json.dumps(json.loads(body), separators=(",", ":")).encode(), good),
        "last character changed": await post(world, body, good[:-1] + ("A" if good[-1] != "A" else "B")),
        "prefix": await post(world, body, f"sha256={good}"),
        "cut": await post(world, body, good[:-1]),
        "twice": await post(world, body, good, good),
        "padded twice": await post(world, body, good + "=="),
        "blank inside": await post(world, body, good[:20] + " " + good[20:]),
        "long": await post(world, body, good + "A" * 8000),
    }
    assert {name: answer.status_code for name, answer in refused.items()} == dict.fromkeys(refused, 401)
    assert {answer.json()["code"] for answer in refused.values()} == {"unauthenticated"}
    assert await hints(world) == 0


async def test_a_second_secret_counts_while_it_is_configured(database_url: str) -> None:
    body = event()
    async with open_world(database_url, stackone={"webhook_secrets": [WEBHOOK_SECRET, SECOND_SECRET]}) as world:
        assert (await post(world, body, node_signature(body, secret=SECOND_SECRET))).status_code == 200
    async with open_world(database_url) as world:
        assert (await post(world, body, node_signature(body, secret=SECOND_SECRET))).status_code == 401


@pytest.mark.both_databases
@pytest.mark.parametrize("name", ["account.created", "account.updated", "account.deleted", "account.from_the_future"])
async def test_every_account_event_is_written_down_once(world: World, name: str) -> None:
    body = event(event=name)
    signature = node_signature(body)
    outcomes = [(await post(world, body, signature)).json()["outcome"] for _ in range(3)]
    assert outcomes == ["accepted", "duplicate", "duplicate"]
    assert await hints(world) == 1


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"event": "request.failed"}, "ignored"),
        ({"project_id": "somebody-elses-project"}, "foreign_project"),
        ({"account_id": "../../etc"}, "ignored"),
    ],
)
async def test_what_is_not_for_us_is_answered_and_left(
    database_url: str, changes: dict[str, Any], outcome: str
) -> None:
    async with open_world(database_url, stackone={"project_id": "connect-sandbox-10427"}) as world:
        body = event(**changes)
        answer = await post(world, body, node_signature(body))
        assert (answer.status_code, answer.json()["outcome"]) == (200, outcome)
        assert await hints(world) == 0


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"event": 5}', b'{"event": "account.created"}', b"null"])
async def test_a_genuine_delivery_that_is_no_event_is_not_acknowledged(world: World, body: bytes) -> None:
    answer = await post(world, body, node_signature(body))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.both_databases
async def test_an_event_carries_no_state_into_the_store(world: World) -> None:
    """The signed payload says Bob's owner; StackOne, asked, says Alice's."""
    await world.switch("POST", "/webhooks", {"mode": "drop"})
    account_id = await world.link("alice")
    body = event(account_id, origin_owner_id="org_globex", provider="salesforce")
    await post(world, body, node_signature(body))

    async def shown() -> Any:
        answer = await world.broker.get(f"/v1/accounts/{account_id}", headers=world.as_service())
        return answer.status_code == 200 and answer.json()

    account = await eventually(shown)
    assert (account["owner_id"], account["provider"]) == ("org_acme", "bamboohr")


@pytest.mark.both_databases
async def test_an_account_that_only_an_event_spoke_of_is_shown_to_nobody(world: World) -> None:
    body = event("q7Zt0bLm2VxKc9RfYh4Sa")
    await post(world, body, node_signature(body))
    answer = await world.broker.get("/v1/linked-accounts", headers=world.as_user("alice"))
    assert answer.json()["data"] == []

    async def buried() -> bool:
        async with world.runtime.database.reading() as connection:
            row = (await connection.execute(sa.select(linked_accounts))).mappings().one()
        return row["deleted_at"] is not None

    await eventually(buried)


@pytest.mark.both_databases
async def test_numeric_and_owner_less_events_find_their_account(world: World) -> None:
    await world.switch("POST", "/webhooks", {"mode": "drop"})
    await world.link("alice", id="47187425466113776871")
    body = event("47187425466113776871", record_id=47187425466113776871, origin_owner_id=None, origin_owner_name=None)
    await post(world, body, node_signature(body))

    async def shown() -> bool:
        answer = await world.broker.get("/v1/linked-accounts", headers=world.as_user("alice"))
        return [account["account_id"] for account in answer.json()["data"]] == ["47187425466113776871"]

    await eventually(shown)


@pytest.mark.both_databases
async def test_ten_events_of_one_account_cost_few_reads(world: World) -> None:
    await world.switch("POST", "/webhooks", {"mode": "drop"})
    account_id = await world.link("alice")
    for number in range(10):
        body = event(account_id, sent_at=f"2026-11-20T09:14:{number:02}.000Z")
        await post(world, body, node_signature(body))

    async def settled() -> bool:
        async with world.runtime.database.reading() as connection:
            row = (await connection.execute(sa.select(linked_accounts))).mappings().one()
        return row["refresh_due_at"] is None and row["verified_at"] is not None

    await eventually(settled)
    assert len(await world.received("GET", f"/accounts/{account_id}")) <= 10
