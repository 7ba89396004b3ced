"""Push(secrets).verify(): what the broker posts, what the standard's own library signs, and what is neither."""

import asyncio
import base64
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI, Request
from standardwebhooks.webhooks import Webhook

from connect_broker_client import Push, PushRefused
from sandbox.serving import bind, serving
from tests.support.world import open_world

pytestmark = pytest.mark.anyio

OLD, NEW = (f"whsec_{base64.b64encode(bytes([one]) * 24).decode()}" for one in (1, 2))
BODY = json.dumps({"type": "account.invented", "timestamp": "2026-11-26T12:00:00Z", "data": {}}).encode()


def signed(body: bytes = BODY, secret: str = OLD, at: float | None = None) -> dict[str, str]:
    moment = datetime.fromtimestamp(at or time.time(), UTC)
    signature = Webhook(secret).sign("evt_1", moment, body.decode())
    return {
        "Webhook-Id": "evt_1",
        "Webhook-Timestamp": str(int(moment.timestamp())),
        "Webhook-Signature": f"v2,nonsense {signature}",
    }


async def test_what_the_broker_posts_is_verified(database_url: str) -> None:
    received: asyncio.Queue[tuple[bytes, dict[str, str]]] = asyncio.Queue()
    receiver = FastAPI()

    @receiver.post("/hook")
    async def take(request: Request) -> None:
        received.put_nowait((await request.body(), dict(request.headers)))

    async with serving(receiver, bind(0)) as url:
        push: dict[str, Any] = {"destinations": [{"name": "crm", "url": f"{url}/hook", "secrets": [NEW, OLD]}]}
        async with open_world(database_url, push=push) as world:
            account_id = await world.link("alice")
            async with asyncio.timeout(20):
                body, headers = await received.get()
            # A receiver that knows the old secret only, one that knows both, and one that knows another.
            for secrets in (OLD, [NEW, OLD]):
                message = Push(secrets).verify(body, headers)
                assert (message.type, message.id) == ("account.linked", headers["webhook-id"])
                assert message.event is not None
                assert message.event.account is not None
                assert message.event.account.account_id == account_id
            with pytest.raises(PushRefused, match="no signature matches"):
                Push(f"whsec_{base64.b64encode(bytes(24)).decode()}").verify(body, headers)
            answer = await world.broker.post("/v1/push/destinations/crm/test", headers=world.as_service())
            assert answer.status_code == 200, answer.text
            async with asyncio.timeout(20):
                test = Push(NEW).verify(*(await received.get()))
            assert (test.type, test.event, test.data) == ("test", None, {"destination": "crm"})


def test_what_is_not_the_brokers_is_refused() -> None:
    push = Push([NEW, OLD])
    body = json.dumps({"type": "test", "timestamp": "2026-11-26T12:00:00Z", "data": {"destination": "x"}}).encode()
    assert push.verify(body, signed(body)).type == "test"
    assert push.verify(body, signed(body, NEW)).type == "test"
    for wrong, headers in (
        (body + b" ", signed(body)),
        (body, {**signed(body), "Webhook-Id": "evt_2"}),
        (body, {**signed(body), "Webhook-Timestamp": str(int(time.time()) + 1)}),
        (body, signed(body, at=time.time() - 301)),
        (body, signed(body, at=time.time() + 302)),
        (body, {**signed(body), "Webhook-Timestamp": "-1"}),
        (body, {**signed(body), "Webhook-Timestamp": "9" * 400}),
        (body, {**signed(body), "Webhook-Signature": ""}),
        (body, {**signed(body), "Webhook-Signature": "v1,"}),
        (body, {**signed(body), "Webhook-Signature": signed(body)["Webhook-Signature"].replace("v1,", "v2,")}),
        (body, {**signed(body), "Webhook-Signature": "v1,\u00e4"}),
        (body, {}),
        (b"no json", signed(b"no json")),
        (b"[]", signed(b"[]")),
        (BODY, signed(BODY)),
    ):
        with pytest.raises(PushRefused):
            push.verify(wrong, headers)


def test_a_secret_that_is_none_is_refused_at_once() -> None:
    given: list[str | list[str]] = ["", "whsec_", "whsec_?", []]
    for nothing in given:
        with pytest.raises(ValueError, match="secret"):
            Push(nothing)
    assert OLD not in repr(Push(OLD))
