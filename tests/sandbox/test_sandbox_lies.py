"""Answers against the emulator's own state, and errors of something in front of it."""

from typing import Any

import pytest

from tests.sandbox.look import Look

pytestmark = pytest.mark.anyio

MINIMUM = {"origin_owner_id": "org_1", "origin_owner_name": "One Ltd"}


async def lie(look: Look, **lies: Any) -> None:
    assert (await look.switch.post("/_sandbox/lies", json=lies)).status_code == 200


async def test_a_session_can_echo_something_else_or_nothing(look: Look) -> None:
    await lie(look, session={"origin_owner_id": "org_2", "account_id": "1", "connector_profile_id": None})
    told = await look.mint(connector_profile_id="bamboohr_profile")
    assert (told["origin_owner_id"], told["account_id"]) == ("org_2", "1")
    assert "connector_profile_id" not in told
    again = (await look.api.post("/connect_sessions/authenticate", json={"token": told["token"]})).json()
    assert again["origin_owner_id"] == "org_2"
    # What the session really is for has not changed.
    assert look.project.sessions.open(told["token"]).origin_owner_id == "org_1"
    await lie(look)
    assert (await look.mint())["origin_owner_id"] == "org_1"


async def test_one_account_and_a_list_can_say_different_things(look: Look) -> None:
    account = await look.link()
    path = f"/accounts/{account['id']}"
    await lie(look, account={"origin_owner_id": "org_2"}, listed={"status": None})
    assert (await look.api.get(path)).json()["origin_owner_id"] == "org_2"
    assert (await look.api.get(f"/v2{path}")).json()["origin_owner_id"] == "org_2"
    (row,) = (await look.api.get("/accounts")).json()
    assert row == {name: value for name, value in account.items() if name != "status"}
    await lie(look)
    assert (await look.api.get(path)).json() == account


async def test_a_delete_can_be_acknowledged_and_not_carried_out(look: Look) -> None:
    account = await look.link()
    path = f"/accounts/{account['id']}"
    await lie(look, keep_deleted=True)
    answer = await look.api.delete(path)
    assert (answer.status_code, answer.json()) == (200, account)
    assert (await look.api.get(path)).json() == account
    assert (await look.api.delete("/accounts/1")).status_code == 404
    await look.settle()
    assert [event["event"] for event in look.receiver.events] == ["account.created"]
    await lie(look)
    assert (await look.api.delete(path)).status_code == 200
    assert (await look.api.get(path)).status_code == 404


async def test_reset_ends_every_lie(look: Look) -> None:
    await lie(look, session={"origin_owner_id": "org_2"}, keep_deleted=True)
    await look.switch.post("/_sandbox/decisions", json={"unknown_provider": "accept"})
    await look.switch.post("/_sandbox/auth-configs/bamboohr_profile", json={"active": False})
    await look.switch.post("/_sandbox/reset")
    assert (await look.mint(provider="bamboohr"))["origin_owner_id"] == "org_1"
    assert (await look.api.post("/connect_sessions", json={**MINIMUM, "provider": "nobodys"})).status_code == 400


@pytest.mark.parametrize("lies", [{"sessions": {}}, {"session": []}, {"keep_deleted": "yes"}])
async def test_senseless_lies_are_400(look: Look, lies: dict[str, Any]) -> None:
    assert (await look.switch.post("/_sandbox/lies", json=lies)).status_code == 400


async def test_auth_configs_can_be_changed(look: Look) -> None:
    changed = await look.switch.post("/_sandbox/auth-configs/bamboohr_second_profile", json={"default": True})
    assert changed.json()["default"] is True
    rows = (await look.api.get("/auth_configs?connector_key=bamboohr")).json()["data"]
    assert {row["id"]: row["default"] for row in rows} == {"bamboohr_profile": False, "bamboohr_second_profile": True}
    assert (await look.switch.post("/_sandbox/auth-configs/nobodys", json={"active": True})).status_code == 404


@pytest.mark.parametrize(
    ("shape", "kind", "text"),
    [
        ("gateway", "application/json", '{"message": "no Route matched with those values"}'),
        ("html", "text/html; charset=utf-8", "<html><body><h1>404</h1></body></html>"),
    ],
)
async def test_an_error_can_come_from_something_in_front(look: Look, shape: str, kind: str, text: str) -> None:
    account = await look.link()
    path = f"/accounts/{account['id']}"
    fault = {"path": path, "status": 404, "shape": shape}
    assert (await look.switch.post("/_sandbox/faults", json=fault)).status_code == 201
    answer = await look.api.get(path)
    assert (answer.status_code, answer.headers["content-type"], answer.text) == (404, kind, text)
    assert (await look.api.get(path)).status_code == 200
