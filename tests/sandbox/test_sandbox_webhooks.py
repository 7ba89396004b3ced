"""Signed events of every change, and every way in which they may fail to arrive in order."""

import base64
import json
import shutil
from typing import Any

import anyio
import httpx2
import pytest

from sandbox.stackone.accounts import LinkOrder
from sandbox.stackone.signing import sign
from tests.sandbox.look import Look

pytestmark = pytest.mark.anyio

NODE = shutil.which("node")


async def mode(look: Look, **changes: object) -> None:
    answer = await look.switch.post("/_sandbox/webhooks", json=changes)
    assert answer.status_code == 200, answer.text


async def deliveries(look: Look, query: str = "") -> list[dict[str, Any]]:
    return list((await look.switch.get(f"/_sandbox/deliveries{query}")).json())


async def test_each_change_is_one_event(look: Look) -> None:
    account = await look.link(origin_username="ivy@one.example", setup_information={"subdomain": "tailspin"})
    await look.api.patch(f"/accounts/{account['id']}", json={"label": "x"})
    await look.api.delete(f"/accounts/{account['id']}")
    await look.settle()
    assert [event["event"] for event in look.receiver.events] == [
        "account.created",
        "account.updated",
        "account.deleted",
    ]
    dates = [event["event_date"] for event in look.receiver.events]
    assert dates == sorted(set(dates))
    assert look.receiver.events[0] == {
        "project_id": "connect-sandbox-10427",
        "account_id": account["id"],
        "event": "account.created",
        "event_date": account["updated_at"],
        "record_type": "account",
        "record_id": account["id"],
        "sent_at": "2026-11-20T09:00:00.000Z",
        "provider": "bamboohr",
        "origin_owner_id": "org_1",
        "origin_owner_name": "One Ltd",
        "origin_username": "ivy@one.example",
        "setup_information": {"subdomain": "tailspin"},
    }


async def test_a_numeric_id_is_a_number_in_record_id_and_loses_no_digit(look: Look) -> None:
    number = "47187425466113776871"
    await look.link(id=number)
    await look.settle()
    assert f'"record_id":{number},' in look.receiver.bodies[0].decode()
    assert look.receiver.events[0]["account_id"] == number


async def test_secrets_never_travel(look: Look) -> None:
    await look.link(credentials={"k": "canary"}, secrets={"k": "canary"}, metadata={"k": "canary"})
    await look.settle()
    assert b"canary" not in look.receiver.bodies[0]


async def test_the_owner_can_be_left_out(look: Look) -> None:
    await mode(look, with_owner=False)
    await look.link()
    await look.settle()
    assert not [name for name in look.receiver.events[0] if name.startswith("origin_")]


@pytest.mark.skipif(NODE is None, reason="node is the other implementation of the signature")
async def test_node_agrees_about_the_signature(look: Look) -> None:
    await look.link(origin_owner_name="Zoë & Söhne — 株式会社")
    await look.settle()
    script = (
        "const c=require('crypto');const i=JSON.parse(require('fs').readFileSync(0));"
        "process.stdout.write(c.createHmac('sha256',i.secret).update(Buffer.from(i.body,'base64')).digest('base64url'))"
    )
    body = base64.b64encode(look.receiver.bodies[0]).decode()
    told = json.dumps({"secret": look.project.config.webhook_secret, "body": body})
    ran = await anyio.run_process([NODE or "node", "-e", script], input=told.encode())
    assert ran.stdout.decode() == look.receiver.signatures[0]
    assert len(ran.stdout) == 43


async def test_the_signing_secret_can_be_replaced(look: Look) -> None:
    await mode(look, secret="demo-second")
    await look.link()
    await look.settle()
    assert look.receiver.signatures == [sign(look.receiver.bodies[0], "demo-second")]


async def test_dropped_events_never_leave(look: Look) -> None:
    await mode(look, mode="drop")
    await look.link()
    await mode(look, mode="deliver")
    await look.link()
    await look.settle()
    assert len(look.receiver.bodies) == 1
    assert [entry["state"] for entry in await deliveries(look)] == ["dropped", "delivered"]


async def test_duplicates_leave_twice(look: Look) -> None:
    await mode(look, mode="duplicate")
    await look.link()
    await look.settle()
    first, second = look.receiver.events
    assert first == second
    assert [entry["state"] for entry in await deliveries(look)] == ["delivered", "delivered"]


async def test_reordered_events_leave_in_pairs_the_later_first(look: Look) -> None:
    await mode(look, mode="reorder")
    made = [(await look.link())["id"] for _ in range(5)]
    await look.settle()
    order = [event["account_id"] for event in look.receiver.events]
    assert order == [made[1], made[0], made[3], made[2], made[4]]


async def test_an_event_without_a_successor_is_not_held_for_ever(look: Look) -> None:
    await mode(look, mode="reorder")
    await look.link()
    assert await look.project.webhooks.settle(5, push=False)
    assert len(look.receiver.bodies) == 1


async def test_leaving_reorder_releases_what_it_held(look: Look) -> None:
    await mode(look, mode="reorder")
    first = await look.link()
    await mode(look, mode="deliver")
    second = await look.link()
    await look.settle()
    assert [event["account_id"] for event in look.receiver.events] == [first["id"], second["id"]]


async def test_delayed_events_arrive_later_and_hold_up_nobody(look: Look) -> None:
    await mode(look, mode="delay", delay_ms=150)
    late = await look.link()
    await mode(look, mode="deliver")
    soon = await look.link()
    await look.settle()
    assert [event["account_id"] for event in look.receiver.events] == [soon["id"], late["id"]]


@pytest.mark.parametrize("trouble", [500, 503, 429, 408, httpx2.ReadTimeout("slow"), httpx2.ConnectError("down")])
async def test_trouble_is_repeated_with_a_fresh_sent_at(look: Look, trouble: int | Exception) -> None:
    look.receiver.answers = [trouble]
    await look.link()
    await look.settle()
    (entry,) = await deliveries(look)
    assert entry["state"] == "delivered"
    assert [answer["status"] for answer in entry["answers"]] == [trouble if isinstance(trouble, int) else None, 200]
    assert entry["body"].encode() == look.receiver.bodies[-1]
    assert sign(look.receiver.bodies[-1], look.project.config.webhook_secret) == look.receiver.signatures[-1]


async def test_repetition_ends(look: Look) -> None:
    look.receiver.answers = [500] * 10
    await look.link()
    await look.settle()
    (entry,) = await deliveries(look)
    assert (entry["state"], entry["status"], len(entry["answers"])) == ("failed", 500, 3)


@pytest.mark.parametrize("refusal", [400, 401, 404, 302])
async def test_a_refusal_is_final(look: Look, refusal: int) -> None:
    look.receiver.answers = [refusal]
    await look.link()
    await look.settle()
    (entry,) = await deliveries(look)
    assert (entry["state"], len(entry["answers"])) == ("failed", 1)


async def test_a_replay_is_the_same_bytes_and_signature(look: Look) -> None:
    await look.link()
    await look.settle()
    look.clock.forward(3600)
    await mode(look, secret="demo-second")
    (original,) = await deliveries(look)
    answer = await look.switch.post(f"/_sandbox/deliveries/{original['n']}/replay")
    assert (answer.json()["replay_of"], answer.json()["state"]) == (original["n"], "delivered")
    assert look.receiver.bodies[0] == look.receiver.bodies[1]
    assert look.receiver.signatures[0] == look.receiver.signatures[1]


async def test_a_dropped_event_can_be_replayed_after_all(look: Look) -> None:
    await mode(look, mode="drop")
    await look.link()
    (dropped,) = await deliveries(look)
    assert (await look.switch.post(f"/_sandbox/deliveries/{dropped['n']}/replay")).status_code == 200
    assert look.receiver.events[0]["event"] == "account.created"
    assert (await look.switch.post("/_sandbox/deliveries/999999/replay")).status_code == 404


async def test_deliveries_come_in_pages(look: Look) -> None:
    for _ in range(5):
        await look.link()
    await look.settle()
    n = (await deliveries(look))[0]["n"]
    assert [entry["n"] for entry in await deliveries(look, f"?after={n + 1}&limit=2")] == [n + 2, n + 3]
    assert (await look.switch.get("/_sandbox/deliveries?limit=0")).status_code == 400


async def test_settle_can_be_waited_for_from_outside(look: Look) -> None:
    await look.link()
    assert (await look.switch.post("/_sandbox/deliveries/settle")).json() == {"settled": True}
    assert len(look.receiver.bodies) == 1


@pytest.mark.parametrize(
    "changes", [{"mode": "chaos"}, {"delay_ms": -1}, {"secret": ""}, {"url": "file:///x"}, {"x": 1}]
)
async def test_senseless_changes_are_400(look: Look, changes: dict[str, Any]) -> None:
    assert (await look.switch.post("/_sandbox/webhooks", json=changes)).status_code == 400


async def test_reset_stops_what_was_under_way(look: Look) -> None:
    await mode(look, mode="delay", delay_ms=30)
    # In one step, so that a busy machine has no time to send between the two.
    look.project.accounts.link(LinkOrder(provider="bamboohr", origin_owner_id="org_1", origin_owner_name="One Ltd"))
    look.project.reset()
    await look.settle()
    await mode(look, mode="delay", delay_ms=60)
    later = await look.link()
    await look.settle()
    assert [event["account_id"] for event in look.receiver.events] == [later["id"]]
