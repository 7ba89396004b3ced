"""What StackOne refuses, and how it fails: sorted, named, and never one caller's doing for everybody."""

import os
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from app.clock import SystemClock
from app.errors import AppError
from app.metrics import Metrics
from app.settings import StackOneSettings
from app.stackone.breaker import Breaker, BreakerOpen, BreakerState
from app.stackone.client import StackOneClient
from app.stackone.models import (
    AccountGone,
    ConnectSessionRequest,
    OwnedConnectSessionRequest,
)
from tests.support.tokens import StoppedClock
from tests.support.world import World, open_world

pytestmark = pytest.mark.anyio

_MUTATIONS = int(os.environ.get("BROKER_ANSWERS", "2000"))


@pytest.fixture
async def calm(database_url: str) -> AsyncIterator[World]:
    """Open a world whose jobs do not run, with one attempt a call."""
    stackone = {"max_attempts": 1, "timeout_seconds": 1, "breaker_failures": 3}
    async with open_world(database_url, webhooks=False, sync={"enabled": False}, stackone=stackone) as world:
        yield world


async def fault(world: World, **values: Any) -> None:
    await world.switch("POST", "/faults", {"method": "POST", "path": "/connect_sessions", "times": 1, **values})


async def mint(world: World, user: str = "alice", **body: Any) -> httpx2.Response:
    return await world.broker.post("/v1/connect-sessions", headers=world.as_user(user), json=body)


@pytest.mark.parametrize(
    ("upstream", "status", "code"),
    [
        (401, 502, "upstream_rejected"),
        (403, 502, "upstream_rejected"),
        (405, 502, "upstream_rejected"),
        (409, 409, "conflict"),
        (400, 422, "invalid_input"),
        (404, 422, "invalid_input"),
        (412, 422, "invalid_input"),
        (422, 422, "invalid_input"),
    ],
)
async def test_refusals_are_sorted_and_stackones_words_stay_in_the_log(
    calm: World, upstream: int, status: int, code: str
) -> None:
    said = {"statusCode": upstream, "errorCode": "E7", "message": "no such gizmo for Acme Inc"}
    await fault(calm, status=upstream, body=said)
    with capture_logs() as logs:
        answer = await mint(calm)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "E7" not in answer.text
    assert "gizmo" not in answer.text
    [line] = [entry for entry in logs if entry["event"] == "stackone_refused"]
    assert (line["status"], line["error_code"]) == (upstream, "E7")
    # What we sent is left out of what StackOne says of it: the owner's name is personal.
    assert line["message"].startswith("no such gizmo for [sent]")
    assert line["log_level"] == ("error" if status == 502 else "warning")


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({"provider": "made_up"}, "body.provider"),
        ({"provider": "bamboohr", "connector_profile_id": "made_up"}, "body.connector_profile_id"),
        ({"categories": ["scheduling"]}, "body.categories"),
        ({"provider": "bamboohr"}, "body"),
    ],
)
async def test_the_field_that_is_wrong_is_named(calm: World, body: dict[str, Any], location: str) -> None:
    await fault(calm, status=400, body={"statusCode": 400, "message": "no"})
    answer = await mint(calm, **body)
    assert (answer.status_code, [error["location"] for error in answer.json()["errors"]]) == (422, [location])


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"status": 429}, "limiting the rate"),
        ({"status": 500}, "answered 500"),
        ({"hang": True}, "did not answer in time"),
        ({"cut": True}, "cut off"),
        ({"status": 201, "body": "not JSON", "headers": {"content-type": "text/html"}}, ""),
    ],
)
async def test_a_failure_is_named_in_the_answer_and_in_the_log(calm: World, values: dict[str, Any], cause: str) -> None:
    await fault(calm, **values)
    with capture_logs() as logs:
        answer = await mint(calm)
    assert answer.status_code in {502, 503}
    assert cause in answer.json()["detail"]
    if answer.status_code == 503:
        assert answer.headers["retry-after"]
        [line] = [entry for entry in logs if entry["event"] == "stackone_unavailable"]
        assert cause in line["reason"]


async def test_days_of_patience_are_capped(calm: World) -> None:
    await fault(calm, status=429, headers={"retry-after": "864000"})
    answer = await mint(calm)
    assert (answer.status_code, int(answer.headers["retry-after"]) <= 300) == (503, True)


async def test_one_id_that_always_fails_pauses_nobody(calm: World) -> None:
    path = "/accounts/broken"
    await calm.switch("POST", "/faults", {"method": "GET", "path": path, "times": 99, "status": 500})
    for _ in range(6):
        answer = await calm.broker.post("/v1/linked-accounts/broken/confirm", headers=calm.as_user("alice"))
        assert answer.status_code == 503
    assert (await mint(calm, "bob")).status_code == 201


async def test_an_unknown_id_costs_an_owner_one_call_in_a_while(database_url: str) -> None:
    clock = StoppedClock(datetime.now(UTC))
    async with open_world(database_url, clock=clock, webhooks=False, sync={"enabled": False}) as world:
        foreign = await world.link("bob")
        for account_id in ("unknown1", foreign):
            path = f"/v1/linked-accounts/{account_id}/confirm"
            for _ in range(5):
                assert (await world.broker.post(path, headers=world.as_user("alice"))).status_code == 404
            assert len(await world.received("GET", f"/accounts/{account_id}")) == 1
            clock.advance(3)
            assert (await world.broker.post(path, headers=world.as_user("alice"))).status_code == 404
            assert len(await world.received("GET", f"/accounts/{account_id}")) == 2
        mine = f"/v1/linked-accounts/{foreign}/confirm"
        assert (await world.broker.post(mine, headers=world.as_user("bob"))).status_code == 200


async def test_one_owner_uses_a_quarter_of_the_budget_at_most(database_url: str) -> None:
    stackone = {"requests_per_minute": 40}
    async with open_world(database_url, webhooks=False, sync={"enabled": False}, stackone=stackone) as world:
        made_up = [f"/v1/linked-accounts/made_up_{number}/confirm" for number in range(30)]
        statuses = [(await world.broker.post(path, headers=world.as_user("alice"))).status_code for path in made_up]
        assert (statuses.count(404), statuses.count(503)) == (10, 20)
        assert (await mint(world, "bob")).status_code == 201


@pytest.mark.parametrize(
    ("field", "request_body"),
    [
        ("origin_owner_id", {}),
        ("connector_profile_id", {"provider": "bamboohr", "connector_profile_id": "bamboohr_profile"}),
    ],
)
async def test_a_session_for_something_else_is_given_to_nobody(
    calm: World, field: str, request_body: dict[str, Any]
) -> None:
    made = {"id": 1, "token": "t-other", "auth_link_url": "https://app.example", field: "another"}
    await fault(calm, status=201, body=made)
    answer = await mint(calm, **request_body)
    assert (answer.status_code, "t-other" in answer.text) == (502, False)
    await fault(calm, status=201, body={**made, field: None})
    assert (await mint(calm, **request_body)).status_code == 201


async def test_the_breaker_counts_one_thing_once_and_lets_one_call_try() -> None:
    clock, states = StoppedClock(), list[BreakerState]()
    breaker = Breaker(3, 10, clock=clock, on_change=states.append)
    for _ in range(9):
        breaker.admit()
        breaker.failed("get_account", "1")
    assert states == []
    breaker.failed("get_account", "2")
    breaker.failed("create_connect_session", "acme")
    with pytest.raises(BreakerOpen):
        breaker.admit()
    clock.advance(11)
    breaker.admit()
    with pytest.raises(BreakerOpen):
        breaker.admit()
    breaker.abandoned()
    breaker.admit()
    breaker.failed("list_accounts", None)
    assert states[-1] is BreakerState.OPEN
    clock.advance(11)
    breaker.admit()
    breaker.succeeded()
    breaker.admit()
    for _ in range(3):
        breaker.failed("get_account", None)
    assert states == [
        BreakerState.OPEN,
        BreakerState.HALF_OPEN,
        BreakerState.OPEN,
        BreakerState.HALF_OPEN,
        BreakerState.CLOSED,
        BreakerState.OPEN,
    ]


def _mutated(chance: random.Random, good: bytes) -> bytes:
    """Spoil an answer in one of many ways."""
    place = chance.randrange(len(good))
    wrong = chance.choice([b"null", b"[]", b"{}", b"1e400", b"NaN", b'"\\u0000"', b"true", b"9" * 400])
    year = str(chance.choice([0, 99999, "+275760", "-1"])).encode()
    return chance.choice(
        [
            chance.randbytes(chance.randrange(200)),
            b"[" * 100_000,
            good[:place],
            good[:place] + chance.randbytes(chance.randrange(1, 5)) + good[place + 1 :],
            good.replace(b'"2026', b'"' + year),
            chance.choice([b"null", b"NaN", b"1e999", b"9" * 5000, b'"\\ud800"', b"[]", b"{}", b"\xff\xfe{", b""]),
            good.replace(b'"acme"', wrong).replace(b'"active"', wrong),
            b'{"data": ' + good + b', "statusCode": 404, "message": ' + chance.choice([b"1", b"[1]", b'"x"']) + b"}",
            b'{"data": [' + good.replace(b'"123"', wrong) + b"]}",
        ]
    )


async def test_no_answer_whatever_its_bytes_is_an_unexpected_failure() -> None:
    chance = random.Random(20261126)  # noqa: S311  a test's randomness
    account = (
        b'{"id": "123", "provider": "bamboohr", "status": "active", "origin_owner_id": "acme",'
        b' "updated_at": "2026-11-26T00:00:00Z", "created_at": "2026-11-26T00:00:00Z", "token": "t",'
        b' "auth_link_url": "https://a.example", "label": "x"}'
    )
    answer = httpx2.Response(200)

    def respond(_request: httpx2.Request) -> httpx2.Response:
        return answer

    settings = StackOneSettings.model_validate(
        {
            "api_key": "demo-key-of-the-fuzzer",
            "webhook_secrets": ["demo-secret-of-the-fuzzer"],
            "max_attempts": 1,
            "breaker_failures": 1000,
            "requests_per_minute": 100_000,
        }
    )
    client = StackOneClient(settings, clock=SystemClock(), metrics=Metrics(), transport=httpx2.MockTransport(respond))
    minting = OwnedConnectSessionRequest("acme", "Acme", None, ConnectSessionRequest())
    operations = (
        lambda: client.get_account("123"),
        lambda: client.list_page(page=1, page_size=10),
        lambda: client.create_connect_session(minting),
        lambda: client.authenticate_connect_session("t", owner_id="acme"),
        client.list_auth_configs,
    )
    for number in range(_MUTATIONS):
        headers = {
            "date": chance.choice(["", "Thu, 99 Nov 99999 99:99:99 GMT", "x" * 300, "Thu, 26 Nov 2026 00:00:00"])
        }
        headers["retry-after"] = chance.choice(["", "-1", "1e999", "nan", "864000", "soon"])
        status = chance.choice([200, 200, 200, 201, 204, 400, 302, 404, 404, 409, 418, 429, 500, 503, 521, 999])
        answer = httpx2.Response(status, content=_mutated(chance, account), headers=headers)
        try:
            await operations[number % len(operations)]()
        except (AppError, AccountGone):
            continue
    await client.close()


async def test_an_answer_larger_than_allowed_is_not_read_to_its_end(database_url: str) -> None:
    stackone = {"max_answer_bytes": 65_536, "max_attempts": 1}
    async with open_world(database_url, webhooks=False, stackone=stackone) as world:
        account_id = await world.link("alice", label="x" * 70_000)
        confirmed = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
        assert confirmed.status_code == 502
        assert "larger than the broker reads" in confirmed.json()["detail"]
