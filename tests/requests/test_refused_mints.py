"""What StackOne refuses or answers wrongly at a mint: whose mistake it is, and that no token of another's leaves."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.world import World, open_world

pytestmark = pytest.mark.anyio

SECRET = "token-of-another-session"


async def answer_mints(world: World, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
    fault = {"method": "POST", "path": "/connect_sessions", "times": 9, "status": status, "body": body}
    await world.switch("POST", "/faults", fault | {"headers": headers or {}})


@pytest.mark.parametrize(
    ("upstream", "ours"), [(401, 502), (403, 502), (409, 409), (400, 422), (404, 422), (412, 422), (422, 422)]
)
async def test_a_refusal_is_whose_mistake_it_is(world: World, upstream: int, ours: int) -> None:
    message = "provider workday of org_acme is off\x00\n" + "x" * 9000
    await answer_mints(world, upstream, {"statusCode": upstream, "message": message, "errorCode": "ValidationError"})
    with capture_logs() as logs:
        answer = await world.broker.post(
            "/v1/connect-sessions", headers=world.as_user("alice"), json={"provider": "workday"}
        )
    assert answer.status_code == ours
    assert "ValidationError" not in answer.text
    assert "xxx" not in answer.text
    if ours == 422:
        assert [error["location"] for error in answer.json()["errors"]] == ["body"]
    [refused] = [entry for entry in logs if entry["event"] == "stackone_refused"]
    assert (refused["status"], refused["error_code"]) == (upstream, "ValidationError")
    assert refused["message"].startswith("provider [sent] of [sent] is off  xxx")
    assert len(refused["message"]) == 200


@pytest.mark.parametrize(
    "body",
    [
        {"message": "no Route matched"},
        {"statusCode": 404, "message": "Resource not found"},
        {"statusCode": 404, "message": "Cannot POST /connect_sessions", "error": "Not Found"},
        {"statusCode": 404, "message": "Route POST:/connect_sessions not found", "error": "Not Found"},
    ],
)
async def test_a_gateways_404_is_not_the_callers_mistake(world: World, body: dict[str, Any]) -> None:
    await answer_mints(world, 404, body)
    answer = await world.broker.post("/v1/connect-sessions", headers=world.as_user("alice"))
    assert answer.status_code == 502


@pytest.mark.parametrize(
    "echo", [{"origin_owner_id": "org_globex"}, {"connector_profile_id": "p-2"}, {"integration_id": 7}]
)
async def test_a_session_for_something_else_never_leaves(world: World, echo: dict[str, Any]) -> None:
    body = {"id": 1, "token": SECRET, "auth_link_url": f"https://links.example/{SECRET}"} | echo
    await answer_mints(world, 201, body)
    answer = await world.broker.post(
        "/v1/owners/org_acme/connect-sessions",
        headers=world.as_service(),
        json={"origin_owner_name": "Acme", "provider": "workday", "connector_profile_id": "p-1"},
    )
    assert answer.status_code == 502
    assert "another" in answer.json()["detail"]
    assert SECRET not in answer.text


ODD: list[Any] = [
    None,
    "",
    "x",
    0,
    -1,
    True,
    1e300,
    10**40,
    [],
    ["workday"],
    [None],
    {},
    {"id": {}},
    "\x00",
    "x" * 9000,
]


@pytest.mark.parametrize(
    "field",
    [
        *("id", "token", "auth_link_url", "origin_owner_id", "origin_owner_name", "provider", "account_id"),
        *("project_id", "connector_profile_id", "integration_id", "categories", "expires_in", "metadata"),
    ],
)
async def test_no_field_of_another_kind_is_an_error_of_ours(database_url: str, field: str) -> None:
    plenty = {"mint_per_user": "1000/minute", "mint_per_owner": "1000/minute"}
    async with open_world(database_url, limits=plenty) as world:
        account_id = await world.link("alice")
        confirmed = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user())
        asked: list[dict[str, Any]] = [
            {},
            {"provider": "workday", "multiple": True, "connector_profile_id": "p-1"},
            {"account_id": account_id},
        ]
        assert confirmed.status_code == 200
        for odd in ODD:
            body = {"id": 1, "token": SECRET, "auth_link_url": "https://links.example/1", field: odd}
            await answer_mints(world, 201, body)
            for request in asked:
                answer = await world.broker.post("/v1/connect-sessions", headers=world.as_user(), json=request)
                assert answer.status_code in {201, 502}, (odd, request, answer.text)
            await world.switch("DELETE", "/faults")


async def test_an_answer_that_repeats_nothing_is_taken_and_counted(world: World) -> None:
    await answer_mints(world, 201, {"id": 1, "token": SECRET, "auth_link_url": "https://links.example/1"})
    answer = await world.broker.post("/v1/connect-sessions", headers=world.as_user("alice"))
    assert answer.status_code == 201
    registry = world.runtime.metrics.registry
    name = "broker_stackone_mint_echoes_missing_total"
    assert registry.get_sample_value(name, {"field": "origin_owner_id"}) == 1


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ({"status": 429, "body": {}}, "limiting the rate"),
        ({"status": 503, "body": {}}, "answered 503"),
        ({"cut": True}, "cut off"),
    ],
)
async def test_a_503_names_its_cause(world: World, fault: dict[str, Any], cause: str) -> None:
    await world.switch("POST", "/faults", {"method": "POST", "path": "/connect_sessions", "times": 9} | fault)
    answer = await world.broker.post("/v1/connect-sessions", headers=world.as_user("alice"))
    assert answer.status_code == 503
    assert cause in answer.json()["detail"]


async def test_ten_days_of_patience_are_capped(world: World) -> None:
    await answer_mints(world, 429, {}, {"retry-after": "864000"})
    answer = await world.broker.post("/v1/connect-sessions", headers=world.as_user("alice"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "300")
