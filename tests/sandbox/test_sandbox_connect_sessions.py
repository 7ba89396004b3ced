"""Minting and reading connect sessions."""

import re

import pytest

from tests.sandbox.look import Look

pytestmark = pytest.mark.anyio

FIELDS = {
    "id", "organization_id", "project_id", "origin_owner_id", "origin_owner_name", "created_at", "token",
    "auth_link_url", "categories", "provider", "origin_username", "account_id", "label", "metadata",
    "external_trigger_token", "type", "integration_id", "connector_profile_id", "latest_connection_attempt",
}  # fmt: skip
MINIMUM = {"origin_owner_id": "org_1", "origin_owner_name": "One Ltd"}


async def test_the_answer_has_every_documented_field_and_no_expiry(look: Look) -> None:
    session = await look.mint()
    assert set(session) == FIELDS
    assert isinstance(session["id"], int)
    assert isinstance(session["organization_id"], int)
    assert session["project_id"] == "connect-sandbox-10427"
    assert session["created_at"] == "2026-11-20T09:00:00.000Z"
    assert session["type"] == "production"
    assert re.fullmatch(r"[A-Za-z0-9_-]{20,}", session["token"])
    assert session["auth_link_url"] == f"http://stackone.test/embedded/integrations?token={session['token']}"


async def test_everything_documented_may_be_sent_and_comes_back(look: Look) -> None:
    sent = {
        "origin_username": "ivy@one.example",
        "provider": "bamboohr",
        "categories": ["hris", "hris-legacy"],
        "multiple": True,
        "expires_in": 60.5,
        "metadata": {"plan": {"tier": 1}},
        "label": "Payroll",
        "type": "test",
        "connector_profile_id": "bamboohr_profile",
        "shared": False,
        "relink": True,
        "scopes": True,
    }
    session = await look.mint(**sent)
    for name in ("origin_username", "provider", "categories", "metadata", "label", "type", "connector_profile_id"):
        assert session[name] == sent[name]
    assert session["integration_id"] == "bamboohr_profile"


async def test_nulls_are_as_good_as_absent(look: Look) -> None:
    nullable = (
        "origin_username", "provider", "categories", "account_id", "multiple", "expires_in", "metadata", "label",
        "type", "connector_profile_id", "integration_id", "shared", "relink", "scopes",
    )  # fmt: skip
    session = await look.mint(**dict.fromkeys(nullable))
    assert session["type"] == "production"


async def test_the_deprecated_alias_is_the_profile(look: Look) -> None:
    assert (await look.mint(integration_id="workday_profile"))["connector_profile_id"] == "workday_profile"


async def test_no_two_sessions_share_id_or_token(look: Look) -> None:
    sessions = [await look.mint() for _ in range(5)]
    assert len({session["id"] for session in sessions}) == len({session["token"] for session in sessions}) == 5


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"origin_owner_id": None}, "origin_owner_id: Field required"),
        ({"origin_owner_id": ""}, "origin_owner_id: String should have at least 1 character"),
        ({"origin_owner_id": 7}, "origin_owner_id: Input should be a valid string"),
        ({"origin_owner_name": ["x"]}, "origin_owner_name: Input should be a valid string"),
        ({"categories": "hris"}, "categories: Input should be a valid list"),
        ({"categories": ["hrisLegacy"]}, "categories.0: Input should be 'ats', 'hris', "),
        ({"type": "PRODUCTION"}, "type: Input should be 'production' or 'test'"),
        ({"multiple": "true"}, "multiple: Input should be a valid boolean"),
        ({"expires_in": "60"}, "expires_in: Input should be a valid number"),
        ({"expires_in": True}, "expires_in: Input should be a valid number"),
        ({"expires_in": 0}, "expires_in: Input should be greater than or equal to 1"),
        ({"expires_in": 1e300}, "expires_in: Input is too large"),
        ({"metadata": []}, "metadata: Input should be a valid dictionary"),
        ({"provider_version": "1"}, "provider_version: Extra inputs are not permitted"),
        ({"provider_version": None}, "provider_version: Extra inputs are not permitted"),
        ({"latest_connection_attempt": {}}, "latest_connection_attempt: Extra inputs are not permitted"),
        ({"ownerId": "x"}, "ownerId: Extra inputs are not permitted"),
    ],
)
async def test_a_bad_body_is_400_and_says_why(look: Look, change: dict[str, object], complaint: str) -> None:
    answer = await look.api.post("/connect_sessions", json={**MINIMUM, **change})
    assert answer.status_code == 400
    assert any(error.startswith(complaint) for error in answer.json()["errors"])


async def test_all_complaints_come_at_once(look: Look) -> None:
    answer = await look.api.post("/connect_sessions", json={"type": 1, "x": 1})
    assert len(answer.json()["errors"]) == 4


async def test_a_refused_body_is_on_record(look: Look) -> None:
    await look.api.post("/connect_sessions", json={**MINIMUM, "surprise": 1})
    (entry,) = (await look.switch.get("/_sandbox/requests")).json()
    assert entry["body"]["surprise"] == 1
    assert entry["status"] == 400


async def test_an_account_must_be_the_owners(look: Look) -> None:
    account = await look.link()
    session = await look.mint(account_id=account["id"])
    assert session["account_id"] == account["id"]
    for foreign in ({"origin_owner_id": "org_2"}, {"account_id": "unknown"}):
        body = {**MINIMUM, "account_id": account["id"], **foreign}
        assert (await look.api.post("/connect_sessions", json=body)).status_code == 404


async def test_a_token_can_be_read_back(look: Look) -> None:
    session = await look.mint(label="x")
    answer = await look.api.post("/connect_sessions/authenticate", json={"token": session["token"]})
    assert answer.status_code == 201
    expected = {name: value for name, value in session.items() if name not in ("token", "auth_link_url")}
    assert answer.json() == expected


async def test_a_dead_or_foreign_token_cannot(look: Look) -> None:
    short = await look.mint(expires_in=60)
    long = await look.mint()
    look.clock.forward(60)
    for token, status in ((short["token"], 401), (long["token"], 201), ("foreign", 401)):
        answer = await look.api.post("/connect_sessions/authenticate", json={"token": token})
        assert answer.status_code == status
    look.clock.forward(1740)
    answer = await look.api.post("/connect_sessions/authenticate", json={"token": long["token"]})
    assert answer.status_code == 401


async def test_a_session_can_be_revoked(look: Look) -> None:
    token = (await look.mint())["token"]
    answer = await look.switch.post("/_sandbox/sessions/revoke", json={"token": token})
    assert answer.json() == {"revoked": True}
    assert (await look.hub(token).get("/hub/settings")).status_code == 401
    answer = await look.switch.post("/_sandbox/sessions/revoke", json={"token": token})
    assert answer.json() == {"revoked": False}
