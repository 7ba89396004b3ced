"""Answers of StackOne, or of what stands in front of it, that are merely different, or wrong in a way of their own."""

import random
import string
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest

from app.errors import AppError
from app.jobs import keep_house
from app.sync.sweep import run_sweep
from app.sync.tables import SweepState
from tests.requests.test_session_ledger import opened
from tests.requests.test_webhook import event, node_signature, post
from tests.support.wires import Meddled, Send
from tests.support.world import World, open_world

pytestmark = pytest.mark.anyio

CALM: dict[str, Any] = {
    "webhooks": False,
    "sync": {"enabled": False, "backoff_seconds": 0.01},
    "stackone": {"max_attempts": 1, "breaker_failures": 1000, "requests_per_minute": 100_000},
}


async def confirm(world: World, account_id: str, user: str = "alice") -> httpx2.Response:
    return await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user(user))


async def linked(world: World, user: str = "alice", **fields: Any) -> str:
    account_id = await world.link(user, **fields)
    assert (await confirm(world, account_id, user)).status_code == 200
    return account_id


async def shown(world: World, user: str = "alice") -> set[str]:
    answer = await world.broker.get("/v1/linked-accounts?limit=200", headers=world.as_user(user))
    return {row["account_id"] for row in answer.json()["data"]}


async def fault(world: World, method: str, path: str, **values: Any) -> None:
    await world.switch("POST", "/faults", {"method": method, "path": path, "times": None} | values)


async def honest(world: World) -> None:
    await world.switch("DELETE", "/faults")
    await world.switch("POST", "/lies", {})


async def state_of_sweep(world: World) -> SweepState:
    sweep = await run_sweep(world.runtime, by="test", longest_pause=0.01)
    assert sweep is not None
    return sweep.state


async def answer_of_mint(world: World, body: dict[str, Any], **fields: Any) -> httpx2.Response:
    made = {"id": 1, "token": "t-strange", "auth_link_url": "https://app.example/t-strange", **fields}
    await fault(world, "POST", "/connect_sessions", status=201, body=made)
    answer = await world.broker.post(
        "/v1/owners/org_acme/connect-sessions", headers=world.as_service(), json={"origin_owner_name": "A", **body}
    )
    await honest(world)
    return answer


@pytest.mark.both_databases
async def test_what_an_account_can_do_without_may_be_of_any_kind(database_url: str) -> None:
    strange: dict[str, Any] = {
        "label": {"key": "value"},
        "origin_username": 7.5,
        "origin_owner_name": ["Acme"],
        "type": {"unmapped_value": "x"},
        "created_at": "never",
        "status_reasons": ["text", None, {"code": 17, "description": "a" * 9000, "timestamp": 1764e6}, {"code": {}}],
        "shared": "perhaps",
        "project_id": 7,
    }
    async with open_world(database_url, **CALM) as world:
        account_id = await world.link("alice")
        await world.switch("POST", "/lies", {"account": strange, "listed": strange})
        answer = await confirm(world, account_id)
        assert answer.status_code == 200, answer.text
        row = answer.json()
        assert (row["label"], row["username"], row["type"], row["usable"]) == (None, None, None, True)
        told = row["status_reasons"]
        assert [reason.get("code") for reason in told] == ["17", None]
        assert len(told[0]["description"]) == 1000
        assert await state_of_sweep(world) is SweepState.DONE
        others: list[Any] = [{}, "text", 7, [[]]]
        for reasons in others:
            await world.switch("POST", "/lies", {"account": {"status_reasons": reasons}})
            assert (await confirm(world, account_id)).status_code == 200


@pytest.mark.both_databases
async def test_no_text_is_too_long_for_the_database_or_for_a_list(database_url: str) -> None:
    # What packs well would fit an index, however long it is.
    noise = "".join(random.choices(string.ascii_letters, k=9000))  # noqa: S311  no secret
    async with open_world(database_url, **CALM) as world:
        account_id, other = await linked(world), await linked(world)
        for name in ("status", "provider"):
            await world.switch("POST", "/lies", {"account": {name: noise}, "listed": {name: noise}})
            assert (await confirm(world, account_id)).status_code == 502
            assert await state_of_sweep(world) is SweepState.STOPPED
        for name in ("label", "origin_username", "origin_owner_name", "type", "created_at"):
            await world.switch("POST", "/lies", {"account": {name: noise}, "listed": {name: noise}})
            answer = await confirm(world, account_id)
            assert answer.status_code == 200, name
            assert len(answer.content) < 5000
            assert await state_of_sweep(world) is SweepState.DONE
        await honest(world)
        assert await shown(world) == {account_id, other}


async def test_a_listed_id_that_no_account_can_have_is_a_hole_and_never_a_row(database_url: str) -> None:
    async with open_world(database_url, **CALM) as world:
        account_id = await linked(world)
        for row_id in ("1e3", "NaN", "-Infinity", "1.5", '"../../x"', '".."', '"a b"', '"\\u0000"', "true", "{}", '""'):
            row = (
                f'{{"id": {row_id}, "provider": "p", "status": "active", "origin_owner_id": "org_acme",'
                ' "updated_at": "2026-11-01T00:00:00Z"}'
            )
            await fault(world, "GET", "/accounts", status=200, body=f"[{row}]")
            assert await state_of_sweep(world) is SweepState.STOPPED, row_id
            assert await shown(world) == {account_id}, row_id
            await honest(world)


async def test_an_answer_to_a_mint_is_whose_it_is(database_url: str) -> None:
    async with open_world(database_url, **CALM) as world:
        # What servers and gateways say of themselves passes, and the rest is the operator's.
        passing, lasting = (425, 500, 507, 520, 521, 525, 530, 598), (402, 405, 410, 451, 501, 505)
        for status in (*passing, *lasting):
            await fault(world, "POST", "/connect_sessions", status=status, shape="html")
            answer = await world.mint()
            assert answer.status_code == (503 if status in passing else 502), status
            assert f"answered {status}" in answer.json()["detail"]
            await honest(world)
        # The page of a firewall says nothing about the request.
        for status in (400, 404, 409, 412, 422):
            await fault(world, "POST", "/connect_sessions", status=status, shape="html")
            assert (await world.mint("bob")).status_code == 502, status
            await honest(world)


ERRORS: list[Any] = [
    {"statusCode": 404, "message": "Account not found"},
    {"statusCode": 500, "message": "Internal server error", "data": []},
    {"error": "upstream timed out", "data": []},
    {"errors": [{"message": "backend"}], "data": []},
]


async def test_an_error_that_calls_itself_200_is_an_error(database_url: str) -> None:
    async with open_world(database_url, **CALM) as world:
        account_id = await linked(world)
        for body in ERRORS:
            for method, path in (("GET", "/accounts"), ("POST", "/connect_sessions")):
                await fault(world, method, path, status=200, body=body)
            assert (await confirm(world, account_id)).status_code == 503
            assert (await world.mint()).status_code == 503
            with pytest.raises(AppError):
                await run_sweep(world.runtime, by="test", longest_pause=0.01)
            await honest(world)
            await fault(world, "DELETE", "/accounts", status=200, body=body)
            answer = await world.broker.delete(f"/v1/linked-accounts/{account_id}", headers=world.as_user())
            assert answer.status_code == 202
            # What was not acknowledged is no witness: one "no such account" does not bury it.
            await honest(world)
            await fault(world, "GET", f"/accounts/{account_id}", status=404)
            await confirm(world, account_id)
            assert await shown(world) == {account_id}
            await honest(world)


async def test_an_answer_without_a_body_is_none_to_a_read(database_url: str) -> None:
    async with open_world(database_url, **CALM) as world:
        account_id = await linked(world)
        for status in (200, 201, 202, 204):
            await fault(world, "*", "/", status=status, body="")
            assert (await confirm(world, account_id)).status_code == 502
            assert (await world.mint()).status_code == 502
            with pytest.raises(AppError):
                await run_sweep(world.runtime, by="test", longest_pause=0.01)
            assert await shown(world) == {account_id}
            await honest(world)


WAITS: list[tuple[str | float, int, int]] = [
    (60.0, 40, 60),
    (864_000.0, 300, 300),
    (-60.0, 5, 5),
    ("-7", 5, 5),
    ("0", 5, 5),
    ("1e400", 300, 300),
    ("nan", 5, 5),
    ("Thu, 99 Nov 99999 99:99:99 GMT", 5, 5),
    ("7, 9", 5, 5),
    ("12.5", 13, 13),
]


async def test_how_long_to_wait_may_be_said_in_any_way(database_url: str) -> None:
    async with open_world(database_url, **CALM) as world:
        for header, least, most in WAITS:
            later = timedelta(seconds=header if isinstance(header, float) else 0)
            at = header if isinstance(header, str) else format_datetime(datetime.now(UTC) + later, usegmt=True)
            await fault(world, "POST", "/connect_sessions", status=503, headers={"retry-after": at})
            answer = await world.mint()
            assert answer.status_code == 503
            assert least <= int(answer.headers["retry-after"]) <= most, header
            await honest(world)


OTHERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"provider": "workday"}, {"provider": "bamboohr"}),
    ({}, {"project_id": "another-project"}),
    ({}, {"token": ""}),
    ({}, {"token": ["t-strange"]}),
    ({}, {"auth_link_url": "javascript:alert(1)"}),
    ({}, {"auth_link_url": ""}),
    ({"connector_profile_id": "p-1"}, {"connector_profile_id": None, "integration_id": "p-2"}),
]


async def test_a_session_for_something_else_or_for_nothing_never_leaves(database_url: str) -> None:
    async with open_world(database_url, **{**CALM, "stackone": {"project_id": "ours"}}) as world:
        for body, fields in OTHERS:
            answer = await answer_of_mint(world, body, **fields)
            assert (answer.status_code, "t-strange" in answer.text) == (502, False), fields
        for fields in ({"provider": None, "project_id": "ours"}, {"provider": "WorkDay"}):
            assert (await answer_of_mint(world, {"provider": "workday"}, **fields)).status_code == 201, fields
        # Whoever names no provider picks one, and StackOne may say which.
        assert (await answer_of_mint(world, {}, provider="bamboohr")).status_code == 201


async def test_an_account_of_another_project_is_not_taken_in(database_url: str) -> None:
    async with open_world(database_url, **{**CALM, "stackone": {"project_id": "ours", "max_attempts": 1}}) as world:
        account_id, unknown = await linked(world), await world.link("alice")
        lie = {"project_id": "theirs", "label": "theirs"}
        await world.switch("POST", "/lies", {"account": lie, "listed": lie})
        assert (await confirm(world, account_id)).status_code == 502
        assert (await confirm(world, unknown)).status_code == 404
        assert await state_of_sweep(world) is SweepState.STOPPED
        assert await shown(world) == {account_id}


POLLS: list[tuple[dict[str, Any], int]] = [
    ({"status": 401}, 422),
    ({"status": 404}, 422),
    ({"status": 401, "shape": "html"}, 502),
    ({"status": 403, "shape": "html"}, 502),
    ({"status": 404, "shape": "gateway"}, 502),
    ({"status": 410}, 502),
    ({"status": 302, "body": "", "headers": {"location": "http://127.0.0.1:1/"}}, 502),
    ({"status": 200, "body": {}}, 502),
    ({"status": 200, "body": "<html>"}, 503),
    ({"status": 521, "shape": "html"}, 503),
]


async def test_a_poll_tells_a_wrong_token_from_a_wrong_answer(database_url: str) -> None:
    async with open_world(database_url, **CALM) as world:
        session = await opened(world)
        path = f"/v1/connect-sessions/{session['id']}/poll"
        for values, status in POLLS:
            await fault(world, "POST", "/connect_sessions/authenticate", **values)
            answer = await world.broker.post(path, headers=world.as_user(), json={"token": session["token"]})
            assert answer.status_code == status, values
            await honest(world)


async def test_a_poll_reads_an_attempt_as_far_as_it_can_be_read(database_url: str) -> None:
    async with open_world(database_url, **CALM) as world:
        account_id = await world.link("alice", id="20000000000000000007")
        session = await opened(world)
        path = f"/v1/connect-sessions/{session['id']}/poll"
        attempts: list[tuple[Any, str]] = [
            ("pending", "pending"),
            ([], "pending"),
            ({"status": {"code": 1}, "account_secure_id": ["x"]}, "pending"),
            ({"status": "authenticated", "account_secure_id": 1.5}, "pending"),
            ({"status": "authenticated", "account_secure_id": int(account_id)}, "linked"),
        ]
        for attempt, status in attempts:
            told = {"latest_connection_attempt": attempt, "external_trigger_token": 7}
            await world.switch("POST", "/lies", {"session": told})
            answer = await world.broker.post(path, headers=world.as_user(), json={"token": session["token"]})
            assert (answer.status_code, answer.json()["status"]) == (200, status), attempt


async def test_one_owner_pauses_nobody_however_many_ids_fail(database_url: str) -> None:
    stackone = {"max_attempts": 1, "breaker_failures": 3}
    async with open_world(database_url, **{**CALM, "stackone": stackone}) as world:
        await fault(world, "GET", "/accounts/", status=500)
        for number in range(8):
            answer = await confirm(world, f"made_up_{number}")
            assert "answered 500" in answer.json()["detail"]
        assert (await world.mint("bob")).status_code == 201


async def test_polls_and_disconnects_take_their_owners_share_of_the_budget(database_url: str) -> None:
    stackone = {"requests_per_minute": 80, "max_attempts": 1}
    async with open_world(database_url, **{**CALM, "stackone": stackone}) as world:
        account_id = await linked(world)
        session = await opened(world)
        path = f"/v1/connect-sessions/{session['id']}/poll"
        polls = [
            await world.broker.post(path, headers=world.as_user(), json={"token": session["token"]}) for _ in range(20)
        ]
        # A read and a mint came before.
        assert [answer.status_code for answer in polls] == [200] * 18 + [503] * 2
        left = await world.broker.delete(f"/v1/linked-accounts/{account_id}", headers=world.as_user())
        assert left.status_code == 202
        assert (await world.mint("bob")).status_code == 201


@pytest.mark.both_databases
async def test_a_list_alone_gives_no_account_to_another_owner(database_url: str) -> None:
    async with open_world(database_url, **CALM) as world:
        account_id = await linked(world)
        lie = {"origin_owner_id": "org_globex", "origin_owner_name": "Globex"}
        await world.switch("POST", "/lies", {"listed": lie})
        assert await state_of_sweep(world) is SweepState.DONE
        assert (await shown(world), await shown(world, "bob")) == ({account_id}, set())
        await fault(world, "GET", f"/accounts/{account_id}", status=403)
        assert await state_of_sweep(world) is SweepState.STOPPED
        assert (await shown(world), await shown(world, "bob")) == ({account_id}, set())
        # What the account's own read says as well is so.
        await honest(world)
        await world.switch("PATCH", f"/accounts/{account_id}", lie)
        assert await state_of_sweep(world) is SweepState.DONE
        assert (await shown(world), await shown(world, "bob")) == (set(), {account_id})


async def test_a_page_that_contradicts_itself_is_not_believed(database_url: str) -> None:
    async with open_world(database_url, **CALM) as world:
        account_id = await world.link("alice")
        row = {"id": account_id, "provider": "p", "status": "active", "updated_at": "2026-11-01T00:00:00Z"}
        rows = [{**row, "origin_owner_id": owner} for owner in ("org_acme", "org_globex")]
        await fault(world, "GET", "/accounts", times=1, status=200, body=rows)
        await state_of_sweep(world)
        assert (await shown(world), await shown(world, "bob")) == ({account_id}, set())


async def test_a_stackone_without_pages_is_taken_in_whole(database_url: str) -> None:
    async with open_world(database_url, **{**CALM, "sync": {**CALM["sync"], "sweep_page_size": 10}}) as world:
        rows = [
            {
                "id": str(number),
                "provider": "p",
                "status": "active",
                "updated_at": "2026-11-01T00:00:00Z",
                "origin_owner_id": "org_acme",
            }
            for number in range(601)
        ]
        await fault(world, "GET", "/accounts", status=200, body={"data": rows})
        sweep = await run_sweep(world.runtime, by="test", longest_pause=0.01)
        assert sweep is not None
        assert (sweep.listed, sweep.added, sweep.state) == (601, 601, SweepState.DONE)


@pytest.mark.both_databases
async def test_one_account_that_cannot_be_deleted_keeps_no_other_from_being_erased(database_url: str) -> None:
    async with open_world(database_url, **CALM) as world:
        ids = [await linked(world, id=f"acc{number}") for number in range(3)]
        for account_id in ids[:2]:
            await world.broker.delete(f"/v1/linked-accounts/{account_id}", headers=world.as_user())
            await world.link("alice", id=account_id)
        await fault(world, "DELETE", f"/accounts/{ids[0]}", status=500)
        answer = await world.broker.delete("/v1/owners/org_acme", headers=world.as_service())
        assert (answer.status_code, answer.json()["state"]) == (202, "pending")
        assert [account.id for account in world.project.accounts] == ids[:1]
        await honest(world)
        await keep_house(world.runtime)
        assert [account.id for account in world.project.accounts] == []
        receipt = await world.broker.get(f"/v1/erasures/{answer.json()['id']}", headers=world.as_service())
        assert receipt.json()["state"] == "complete"


async def test_a_listing_with_a_hole_keeps_nothing_from_being_deleted_and_no_erasure_is_complete(
    database_url: str,
) -> None:
    wires: list[Meddled] = []

    def meddled(real: httpx2.AsyncBaseTransport) -> Meddled:
        wires.append(Meddled(real))
        return wires[0]

    async def hole(request: httpx2.Request, send: Send) -> httpx2.Response:
        if request.url.path == "/accounts":
            return httpx2.Response(200, json=["no account"])
        return await send(request)

    async with open_world(database_url, stackone_wire=meddled, **CALM) as world:
        await linked(world)
        bobs = await linked(world, "bob")
        wires[0].meddle = hole
        answer = await world.broker.delete("/v1/owners/org_acme", headers=world.as_service())
        assert (answer.status_code, answer.json()["state"]) == (202, "pending")
        assert [account.id for account in world.project.accounts] == [bobs]
        wires[0].meddle = None
        await keep_house(world.runtime)
        receipt = await world.broker.get(f"/v1/erasures/{answer.json()['id']}", headers=world.as_service())
        assert receipt.json()["state"] == "complete"


async def test_an_erasure_takes_nobody_elses_account_on_the_word_of_a_list(database_url: str) -> None:
    async with open_world(database_url, **CALM) as world:
        mine, bobs = await linked(world), await linked(world, "bob")
        rows = [
            {"id": name, "provider": "p", "status": "active", "updated_at": "2026-11-01T00:00:00Z"}
            | {"origin_owner_id": "org_acme"}
            for name in (mine, bobs)
        ]
        await fault(world, "GET", "/accounts", times=1, status=200, body=rows)
        await world.broker.delete("/v1/owners/org_acme", headers=world.as_service())
        assert [account.id for account in world.project.accounts] == [bobs]
        assert await shown(world, "bob") == {bobs}


async def test_one_empty_list_of_connectors_empties_no_page(database_url: str) -> None:
    async with open_world(database_url, **CALM) as world:

        async def keys() -> list[str]:
            answer = await world.broker.get("/v1/connectors", headers=world.as_user())
            return [row["key"] for row in answer.json()["data"]]

        before = await keys()
        await fault(world, "GET", "/auth_configs", status=200, body={"data": []})
        for expected in (before, []):
            world.runtime.auth_configs._ask_again_at = float("-inf")  # noqa: SLF001  minutes later
            assert await keys() == expected


async def test_what_an_event_can_do_without_may_be_of_any_kind(world: World) -> None:
    for strange in ({"provider": {"key": "x"}}, {"provider": "p" * 900}, {"project_id": 7}, {"project_id": ["x"]}):
        body = event(**strange)
        answer = await post(world, body, node_signature(body))
        assert (answer.status_code, answer.json()["outcome"]) == (200, "accepted"), strange
