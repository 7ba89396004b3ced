"""Minting: what a caller may ask for, what StackOne gets, and what the ledger keeps."""

from typing import Any

import pytest

from app.connect_sessions.tables import connect_sessions
from app.identity.caller import Scope
from tests.support.databases import stored_rows
from tests.support.waiting import eventually
from tests.support.world import World, open_world

pytestmark = pytest.mark.anyio

EVERYTHING: dict[str, Any] = {
    "origin_owner_name": "Tailspin Toys",
    "origin_username": "ivy@tailspin.example",
    "provider": "workday",
    "categories": ["hris", "hris-legacy"],
    "expires_in": 900,
    "metadata": {"plan": "gold", "seats": 12},
    "multiple": True,
    "label": "Payroll",
    "type": "test",
    "shared": False,
    "connector_profile_id": "profile-77",
}
DECIDED_BY_THE_BROKER = [
    "origin_owner_id",
    "origin_owner_name",
    "origin_username",
    "owner_id",
    "expires_in",
    "metadata",
    "type",
    "provider_version",
    "integration_id",
    "shared",
    "relink",
    "scopes",
    "anything_else",
]


async def stored_sessions(world: World) -> list[dict[str, Any]]:
    async with world.runtime.database.reading() as connection:
        rows = await stored_rows(connection, connect_sessions)
    return sorted(rows, key=lambda row: row["created_at"])


@pytest.mark.parametrize("field", DECIDED_BY_THE_BROKER)
async def test_a_user_cannot_name_what_the_broker_decides(world: World, field: str) -> None:
    answer = await world.broker.post(
        "/v1/connect-sessions", headers=world.as_user("alice"), json={"provider": "bamboohr", field: "org_globex"}
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_input"
    [mistake] = problem["errors"]
    assert mistake["location"] == f"body.{field}"
    # What StackOne documents is refused with the reason, what nobody knows as unknown.
    is_known = field not in {"anything_else", "owner_id"}
    assert mistake["message"].startswith("not taken: " if is_known else "no field of this request")
    assert "org_globex" not in answer.text
    assert await world.received("POST", "/connect_sessions") == []


async def test_every_documented_field_reaches_stackone_as_documented_and_nothing_else(world: World) -> None:
    answer = await world.broker.post(
        "/v1/owners/org_5521/connect-sessions", headers=world.as_service(), json=EVERYTHING
    )
    assert answer.status_code == 201, answer.text
    [sent] = await world.received("POST", "/connect_sessions")
    assert sent["body"] == {"origin_owner_id": "org_5521", **EVERYTHING}
    assert {"token", "auth_link_url", "owner_id", "owner_name"} <= set(answer.json())


async def test_absent_fields_are_not_sent(world: World) -> None:
    await world.broker.post("/v1/owners/org_5521/connect-sessions", headers=world.as_service())
    [sent] = await world.received("POST", "/connect_sessions")
    assert sent["body"] == {"origin_owner_id": "org_5521", "origin_owner_name": "org_5521", "expires_in": 1800}


async def test_the_api_key_is_sent_as_basic_auth_with_its_colon(world: World) -> None:
    await world.broker.post("/v1/owners/org_5521/connect-sessions", headers=world.as_service())
    [sent] = await world.received("POST", "/connect_sessions")
    # printf 'demo-canary-api-key-7f3a91:' | openssl base64
    assert sent["headers"]["authorization"] == "Basic ZGVtby1jYW5hcnktYXBpLWtleS03ZjNhOTE6"


async def test_integration_id_is_sent_under_its_present_name(world: World) -> None:
    answer = await world.broker.post(
        "/v1/owners/org_5521/connect-sessions", headers=world.as_service(), json={"integration_id": "profile-77"}
    )
    assert answer.status_code == 201
    [sent] = await world.received("POST", "/connect_sessions")
    assert sent["body"]["connector_profile_id"] == "profile-77"
    assert "integration_id" not in sent["body"]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"provider_version": "1.0"}, "body.provider_version"),
        ({"relink": True}, "body.relink"),
        ({"scopes": True}, "body.scopes"),
        ({"integration_id": "a", "connector_profile_id": "b"}, "body"),
        ({"categories": ["hrisLegacy"]}, "body.categories.0"),
        ({"categories": []}, "body.categories"),
        ({"type": "PRODUCTION"}, "body.type"),
        ({"expires_in": 59}, "body.expires_in"),
        ({"expires_in": 2_592_001}, "body.expires_in"),
        ({"metadata": {"x": "y" * 5000}}, "body.metadata"),
        ({"metadata": {"x": "a\x00b"}}, "body.metadata"),
        ({"label": "a\x00b"}, "body.label"),
        ({"label": ""}, "body.label"),
        ({"label": "x" * 256}, "body.label"),
        ({"provider": "bamboo hr"}, "body.provider"),
        ({"multiple": "maybe"}, "body.multiple"),
        ({"origin_owner_id": "org_globex"}, "body.origin_owner_id"),
    ],
)
async def test_what_stackone_would_not_take_is_refused_here(world: World, body: dict[str, Any], place: str) -> None:
    answer = await world.broker.post("/v1/owners/org_5521/connect-sessions", headers=world.as_service(), json=body)
    assert answer.status_code == 422
    assert place in [error["location"] for error in answer.json()["errors"]]
    assert await world.received("POST", "/connect_sessions") == []


async def test_provider_version_is_refused_with_the_reason(world: World) -> None:
    answer = await world.broker.post(
        "/v1/owners/org_5521/connect-sessions", headers=world.as_service(), json={"provider_version": "2"}
    )
    assert "connector_profile_id" in answer.json()["errors"][0]["message"]


async def test_an_auth_link_has_its_own_lifetime_and_no_token(world: World) -> None:
    answer = await world.broker.post(
        "/v1/owners/org_5521/auth-links", headers=world.as_service(), json={"provider": "bamboohr"}
    )
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    assert "token" not in answer.json()
    assert answer.json()["auth_link_url"].startswith("http")
    [sent] = await world.received("POST", "/connect_sessions")
    assert sent["body"]["expires_in"] == 432_000


@pytest.mark.both_databases
async def test_an_existing_account_is_offered_for_editing_instead_of_a_second_one(world: World) -> None:
    account_id = await world.link("alice", "bamboohr")
    await listed(world, account_id)
    answer = await world.broker.post(
        "/v1/connect-sessions", headers=world.as_user("carol"), json={"provider": "bamboohr"}
    )
    assert (answer.json()["mode"], answer.json()["account_id"]) == ("edit", account_id)
    [sent] = await world.received("POST", "/connect_sessions")
    assert sent["body"]["account_id"] == account_id
    further = await world.broker.post(
        "/v1/connect-sessions", headers=world.as_user("carol"), json={"provider": "bamboohr", "multiple": True}
    )
    assert further.json()["mode"] == "create"
    assert (await world.received("POST", "/connect_sessions"))[-1]["body"]["multiple"] is True


async def test_reauthentication_needs_an_account_of_ones_own(world: World) -> None:
    account_id = await world.link("alice", "bamboohr")
    await listed(world, account_id)
    own = await world.broker.post(
        "/v1/connect-sessions", headers=world.as_user("alice"), json={"account_id": account_id}
    )
    assert (own.status_code, own.json()["mode"], own.json()["provider"]) == (201, "edit", "bamboohr")
    sent = len(await world.received("POST", "/connect_sessions"))
    foreign = await world.broker.post(
        "/v1/connect-sessions", headers=world.as_user("bob"), json={"account_id": account_id}
    )
    unknown = await world.broker.post(
        "/v1/connect-sessions", headers=world.as_user("bob"), json={"account_id": "q7Zt0bLm2VxKc9RfYh4Sa"}
    )
    assert foreign.status_code == unknown.status_code == 404
    assert without_request_id(foreign) == without_request_id(unknown)
    assert len(await world.received("POST", "/connect_sessions")) == sent


async def test_an_account_that_moved_to_another_owner_upstream_opens_no_edit_session(world: World) -> None:
    account_id = await world.link("alice", "bamboohr")
    await listed(world, account_id)
    await world.switch("POST", "/webhooks", {"mode": "drop"})
    await world.switch("PATCH", f"/accounts/{account_id}", {"origin_owner_id": "org_globex"})
    answer = await world.broker.post(
        "/v1/connect-sessions", headers=world.as_user("alice"), json={"account_id": account_id}
    )
    assert answer.status_code == 404


@pytest.mark.both_databases
async def test_the_ledger_says_who_and_until_when_but_never_the_token(world: World) -> None:
    answer = await world.broker.post("/v1/connect-sessions", headers=world.as_user("alice"))
    [session] = await stored_sessions(world)
    assert session["id"] == answer.json()["id"]
    assert (session["owner_id"], session["requested_by"], session["channel"], session["status"]) == (
        "org_acme",
        f"user:alice@{world.issuer}",
        "browser",
        "pending",
    )
    assert answer.json()["token"] not in repr(session)


@pytest.mark.both_databases
async def test_a_session_is_in_the_ledger_before_stackone_is_called(world: World) -> None:
    await world.switch(
        "POST", "/faults", {"method": "POST", "path": "/connect_sessions", "times": 9, "status": 400, "body": {}}
    )
    answer = await world.broker.post("/v1/connect-sessions", headers=world.as_user("alice"))
    assert answer.status_code == 422
    [session] = await stored_sessions(world)
    assert session["status"] == "failed"


async def test_a_sessions_status_is_told_to_its_owner_only(world: World) -> None:
    opened = await world.broker.post(
        "/v1/connect-sessions", headers=world.as_user("alice"), json={"provider": "bamboohr"}
    )
    path = f"/v1/connect-sessions/{opened.json()['id']}"
    assert (await world.broker.get(path, headers=world.as_user("alice"))).json()["status"] == "pending"
    foreign = await world.broker.get(path, headers=world.as_user("bob"))
    unknown = await world.broker.get("/v1/connect-sessions/cs_unknown", headers=world.as_user("bob"))
    assert foreign.status_code == 404
    assert without_request_id(foreign) == without_request_id(unknown)
    account_id = await world.link("alice", "bamboohr")

    async def linked() -> bool:
        return bool((await world.broker.get(path, headers=world.as_user("carol"))).json()["status"] == "linked")

    await eventually(linked)
    status = (await world.broker.get(path, headers=world.as_user("alice"))).json()
    assert (status["status"], status["account_id"]) == ("linked", account_id)


async def test_stackone_away_is_a_503_with_a_time_to_come_back(world: World) -> None:
    await world.switch(
        "POST",
        "/faults",
        {
            "method": "POST",
            "path": "/connect_sessions",
            "times": 9,
            "status": 429,
            "headers": {"retry-after": "7"},
            "body": {"statusCode": 429, "message": "slow down"},
        },
    )
    answer = await world.broker.post("/v1/connect-sessions", headers=world.as_user("alice"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert "slow down" not in answer.text


async def test_a_key_without_the_scope_or_the_owner_is_refused(world: World) -> None:
    reader = await world.create_key(Scope.ACCOUNTS_READ)
    answer = await world.broker.post("/v1/owners/org_acme/connect-sessions", headers=world.as_service(reader))
    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    limited = await world.create_key(Scope.SESSIONS_WRITE, owners=("org_globex",))
    answer = await world.broker.post("/v1/owners/org_acme/connect-sessions", headers=world.as_service(limited))
    assert answer.status_code == 403
    assert await world.received("POST", "/connect_sessions") == []


async def listed(world: World, account_id: str) -> None:
    """Wait until the broker knows the account."""

    async def known() -> bool:
        answer = await world.broker.get(f"/v1/accounts/{account_id}", headers=world.as_service())
        return answer.status_code == 200

    await eventually(known)


def without_request_id(answer: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return everything of an answer that another answer could differ in."""
    body = {name: value for name, value in answer.json().items() if name != "request_id"}
    headers = {name: value for name, value in answer.headers.items() if name not in {"x-request-id", "date"}}
    return answer.status_code, body, headers


@pytest.mark.both_databases
async def test_the_first_pin_takes_the_name_of_the_account_that_is_there(database_url: str) -> None:
    """Else the next session with a picker makes second accounts beside those of the old name."""
    async with open_world(database_url) as world:
        for name, label in (("Legacy Ltd", "old"), ("Legacy Limited", "new")):
            account_id = await world.link(
                "alice",
                provider="bamboohr",
                origin_owner_id="org_legacy",
                origin_owner_name=name,
                label=label,
                multiple=True,
            )
            user = world.as_user("alice", org_id="org_legacy")
            confirmed = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=user)
            assert confirmed.status_code == 200
        path = "/v1/owners/org_legacy/connect-sessions"
        first = (await world.broker.post(path, headers=world.as_service())).json()
        assert (first["owner_name"], first["name_pinned"]) == ("Legacy Limited", False)
        other = await world.broker.post(path, headers=world.as_service(), json={"origin_owner_name": "Legacy Ltd"})
        assert (other.json()["owner_name"], other.json()["name_pinned"]) == ("Legacy Limited", True)
        same = await world.broker.post(path, headers=world.as_service(), json={"origin_owner_name": "Legacy Limited"})
        assert same.json()["name_pinned"] is False
