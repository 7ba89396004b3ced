"""The routes of connect sessions, served in this process: whole answers, and what they turn into at StackOne."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.connect_sessions.tables import connect_sessions, owners
from app.owners.tables import erasures
from app.policy.rules import Policy, Rule
from tests.support.broker import Broker, front_door, open_broker
from tests.support.tokens import Issuer, StoppedClock

pytestmark = pytest.mark.anyio

WRITE = "sessions:write"


@pytest.fixture
async def http(broker: Broker) -> AsyncIterator[httpx2.AsyncClient]:
    async with front_door(broker) as client:
        yield client


def in_half_an_hour(broker: Broker, seconds: int = 1800) -> str:
    broker.clock.advance(seconds)
    moment = broker.clock.now().isoformat().replace("+00:00", "Z")
    broker.clock.advance(-seconds)
    return moment


def token_of(broker: Broker) -> str:
    return next(iter(broker.project.sessions)).token


async def test_a_user_opens_a_session(broker: Broker, http: httpx2.AsyncClient) -> None:
    body = {
        "provider": "workday",
        "categories": ["hris", "ats"],
        "multiple": True,
        "label": "Payroll",
        "connector_profile_id": "profile-1",
    }
    answer = await http.post("/v1/connect-sessions", headers=broker.as_user(sub="ann"), json=body)

    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert answer.json() == {
        "id": (await broker.row(connect_sessions))["id"],
        "token": token_of(broker),
        "expires_at": in_half_an_hour(broker),
        "expires_in": 1800,
        "mode": "create",
        "account_id": None,
        "provider": "workday",
    }
    assert broker.sent() == [
        {
            **body,
            "origin_owner_id": "acme",
            "origin_owner_name": "Acme Inc.",
            "origin_username": "ann@acme.example",
            "expires_in": 1800,
        }
    ]
    row = await broker.row(connect_sessions)
    assert (row["requested_by"], row["channel"], row["owner_id"]) == (
        "user:ann@https://login.example.test",
        "browser",
        "acme",
    )


async def test_a_user_may_send_no_body_at_all(broker: Broker, http: httpx2.AsyncClient) -> None:
    answer = await http.post("/v1/connect-sessions", headers=broker.as_user())

    assert answer.status_code == 201
    assert set(broker.sent()[0]) == {"origin_owner_id", "origin_owner_name", "origin_username", "expires_in"}


async def test_policy_sees_the_claims_of_the_user(broker: Broker) -> None:
    gold = Policy((Rule("gold", claims={"plan": "gold"}, providers=("*",)),))
    async with front_door(broker, gold) as http:
        opened = await http.post("/v1/connect-sessions", headers=broker.as_user(plan="gold"))
        refused = await http.post("/v1/connect-sessions", headers=broker.as_user(plan="tin"))

    assert (opened.status_code, refused.status_code) == (201, 403)


async def test_an_account_of_ones_own_is_edited(broker: Broker, http: httpx2.AsyncClient) -> None:
    account_id = await broker.linked()
    answer = await http.post("/v1/connect-sessions", headers=broker.as_user(), json={"account_id": account_id})

    body = answer.json()
    assert (body["mode"], body["account_id"], body["provider"]) == ("edit", account_id, "bamboohr")


EVERYTHING = {
    "origin_owner_name": "Tailspin Toys",
    "origin_username": "ivy@tailspin.example",
    "provider": "workday",
    "categories": ["hris"],
    "expires_in": 900,
    "metadata": {"plan": "gold"},
    "multiple": True,
    "label": "Payroll",
    "type": "test",
    "connector_profile_id": "profile-77",
}


async def test_a_service_opens_a_session_for_an_owner(broker: Broker, http: httpx2.AsyncClient) -> None:
    answer = await http.post("/v1/owners/acme/connect-sessions", headers=broker.as_machine(WRITE), json=EVERYTHING)

    assert answer.status_code == 201
    assert answer.json() == {
        "id": (await broker.row(connect_sessions))["id"],
        "token": token_of(broker),
        "auth_link_url": f"http://127.0.0.1:8100/embedded/integrations?token={token_of(broker)}",
        "expires_at": in_half_an_hour(broker, 900),
        "expires_in": 900,
        "mode": "create",
        "account_id": None,
        "provider": "workday",
        "owner_id": "acme",
        "owner_name": "Tailspin Toys",
        "name_pinned": False,
    }
    assert broker.sent() == [{"origin_owner_id": "acme", **EVERYTHING}]
    row = await broker.row(connect_sessions)
    assert (row["requested_by"], row["channel"]) == ("service:robot", "service")


async def test_a_service_names_the_owner_and_nothing_else(broker: Broker, http: httpx2.AsyncClient) -> None:
    headers = broker.as_machine(WRITE)
    assert (await http.post("/v1/owners/acme/connect-sessions", headers=headers)).status_code == 201
    link = await http.post("/v1/owners/acme/auth-links", headers=headers)

    session, auth_link = broker.sent()
    named = {"origin_owner_id": "acme", "origin_owner_name": "acme"}
    assert session == {**named, "expires_in": 1800}
    assert auth_link == {**named, "expires_in": 432_000}
    rows = {row["channel"]: row["id"] for row in await broker.rows(connect_sessions)}
    assert set(rows) == {"service", "auth_link"}
    tokens = [session.token for session in broker.project.sessions]
    assert link.json() == {
        "id": rows["auth_link"],
        "auth_link_url": f"http://127.0.0.1:8100/embedded/integrations?token={tokens[1]}",
        "expires_at": in_half_an_hour(broker, 432_000),
        "expires_in": 432_000,
        "mode": "create",
        "account_id": None,
        "provider": None,
        "owner_id": "acme",
        "owner_name": "acme",
        "name_pinned": False,
    }


async def test_an_auth_link_takes_the_same_requests(broker: Broker, http: httpx2.AsyncClient) -> None:
    account_id = await broker.linked("workday", name="Tailspin Toys")
    body = {"account_id": account_id, "expires_in": 61, "integration_id": "profile-9"}
    answer = await http.post("/v1/owners/acme/auth-links", headers=broker.as_machine(WRITE), json=body)

    body = answer.json()
    assert (body["mode"], body["account_id"], body["provider"], body["expires_in"]) == (
        "edit",
        account_id,
        "workday",
        61,
    )
    assert broker.sent()[0]["connector_profile_id"] == "profile-9"


async def test_one_profile_may_go_by_both_its_names(broker: Broker, http: httpx2.AsyncClient) -> None:
    headers = broker.as_machine(WRITE)
    same = {"integration_id": "profile-9", "connector_profile_id": "profile-9"}
    assert (await http.post("/v1/owners/acme/connect-sessions", headers=headers, json=same)).status_code == 201
    assert broker.sent()[0]["connector_profile_id"] == "profile-9"
    for body, location, message in (
        (
            {"integration_id": "a", "connector_profile_id": "b"},
            "body",
            "integration_id is an alias of connector_profile_id; they differ",
        ),
        (
            {"provider_version": "2"},
            # A caller that has it from an old example learns what to write instead.
            "body.provider_version",
            (
                "not taken: it is deprecated at StackOne, selects nothing and can make the session fail; choose a"
                " version with connector_profile_id"
            ),
        ),
    ):
        answer = await http.post("/v1/owners/acme/connect-sessions", headers=headers, json=body)
        assert (answer.status_code, answer.json()["errors"]) == (422, [{"location": location, "message": message}])


async def test_who_opened_a_session_or_owns_it_sees_how_it_stands(broker: Broker, http: httpx2.AsyncClient) -> None:
    opened = (await http.post("/v1/connect-sessions", headers=broker.as_user(), json={"provider": "workday"})).json()
    pending = await http.get(f"/v1/connect-sessions/{opened['id']}", headers=broker.as_user())
    assert (pending.json()["status"], pending.json()["account_id"]) == ("pending", None)
    await broker.linked("workday")
    expected = {
        "id": opened["id"],
        "status": "linked",
        "mode": "create",
        "provider": "workday",
        "account_id": next(iter(broker.project.accounts)).id,
        "was_new": True,
        "created_at": in_half_an_hour(broker, 0),
        "expires_at": opened["expires_at"],
        "oauth_error_code": None,
        "oauth_error_description": None,
        "attempt": None,
    }
    own, path = f"/v1/connect-sessions/{opened['id']}", f"connect-sessions/{opened['id']}"
    assert (await http.get(own, headers=broker.as_user())).json() == expected
    service = broker.as_machine(WRITE)
    assert (await http.get(f"/v1/owners/acme/{path}", headers=service)).json() == {
        **expected,
        "owner_id": "acme",
        "channel": "browser",
        "requested_by": "user:user-1@https://login.example.test",
        "opens_until": opened["expires_at"],
        "external_trigger_token": None,
    }
    for answer in (
        await http.get(own, headers=broker.as_user(org_id="globex")),
        await http.get(f"/v1/owners/globex/{path}", headers=service),
        await http.get("/v1/connect-sessions/cs_unknown", headers=broker.as_user()),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_poll_answers_with_the_attempt(broker: Broker, http: httpx2.AsyncClient) -> None:
    opened = (await http.post("/v1/connect-sessions", headers=broker.as_user())).json()
    broker.project.attempts.begin(broker.project.sessions.open(opened["token"]))
    path = f"/v1/connect-sessions/{opened['id']}/poll"
    answer = await http.post(path, headers=broker.as_user(), json={"token": opened["token"]})

    assert (answer.json()["id"], answer.json()["status"], answer.json()["attempt"]) == (
        opened["id"],
        "pending",
        "pending",
    )


async def test_a_name_is_pinned_by_a_service(broker: Broker, http: httpx2.AsyncClient) -> None:
    account_id = await broker.linked(name="Acme Inc.")
    await broker.has_session()
    headers = broker.as_machine("owners:write")
    tried = await http.put("/v1/owners/acme/name", headers=headers, json={"name": "Acme Worldwide", "dry_run": True})
    assert await broker.rows(owners) == []
    done = await http.put("/v1/owners/acme/name", headers=headers, json={"name": "Acme Worldwide"})
    again = await http.put("/v1/owners/acme/name", headers=headers, json={"name": "Acme Worldwide"})

    body = done.json()
    assert len(body.pop("effects")) == 4
    assert body == {
        "owner_id": "acme",
        "owner_name": "Acme Worldwide",
        "previous_name": None,
        "changed": True,
        "dry_run": False,
        "accounts_with_other_names": [{"account_id": account_id, "provider": "bamboohr", "owner_name": "Acme Inc."}],
    }
    assert tried.json() == {**done.json(), "dry_run": True}
    assert (again.json()["changed"], again.json()["previous_name"]) == (False, "Acme Worldwide")
    assert (await broker.row(owners))["pinned_by"] == "service:robot"


async def test_policy_explains_itself(broker: Broker) -> None:
    ours = Policy((Rule("ours", line=3, owners=("acme",), providers=("workday",), session_lifetime=600),))
    async with front_door(broker, ours) as http:
        headers = broker.as_machine("policy:read")
        question = {"owner_id": "acme", "provider": "workday"}
        answer = await http.post("/v1/policy/explain", headers=headers, json=question)

    assert answer.json() == {
        "allowed": True,
        "rule": "ours",
        "reason": 'rule "ours" allows it',
        "grant": {
            "categories": None,
            "multiple": False,
            "expires_in": 600,
            "max_accounts_per_provider": None,
        },
        "considered": [{"rule": "ours", "line": 3, "matched": True, "why": None}],
    }


SCOPED = [
    ("POST", "/v1/owners/acme/connect-sessions", WRITE, None),
    ("POST", "/v1/owners/acme/auth-links", WRITE, None),
    ("GET", "/v1/owners/acme/connect-sessions/cs_1", WRITE, None),
    ("PUT", "/v1/owners/acme/name", "owners:write", {"name": "Acme"}),
    ("DELETE", "/v1/owners/acme", "owners:write", None),
    ("GET", "/v1/erasures/er_1", "owners:write", None),
    ("POST", "/v1/policy/explain", "policy:read", {"owner_id": "acme"}),
]


@pytest.mark.parametrize(("method", "path", "scope", "body"), SCOPED, ids=str)
async def test_each_service_route_asks_for_its_scope(
    broker: Broker, http: httpx2.AsyncClient, method: str, path: str, scope: str, body: Any
) -> None:
    every = ("sessions:write", "accounts:read", "accounts:write", "events:read", "sync:write", "policy:read")
    others = [name for name in (*every, "owners:write") if name != scope]
    refused = await http.request(method, path, headers=broker.as_machine(*others), json=body)
    assert refused.status_code == 403
    assert f'scope="{scope}"' in refused.headers["www-authenticate"]
    assert refused.json()["detail"] == f"this needs the scope {scope}"
    allowed = await http.request(method, path, headers=broker.as_machine(scope), json=body)
    assert allowed.status_code in {200, 201, 404}


async def test_a_machine_of_some_owners_asks_policy_about_these_only(tmp_path: Path) -> None:
    async with open_broker(tmp_path, machine={"owners_claim": "owners"}) as broker, front_door(broker) as http:
        headers = broker.as_machine("policy:read", owners=["globex"])
        for owner_id, status in (("globex", 200), ("acme", 403)):
            answer = await http.post("/v1/policy/explain", headers=headers, json={"owner_id": owner_id})
            assert answer.status_code == status


async def test_minting_is_limited_for_each_user_and_owner(tmp_path: Path) -> None:
    limits = {"mint_per_user": "2/hour", "mint_per_owner": "3/hour"}
    async with open_broker(tmp_path, limits=limits) as broker, front_door(broker) as http:

        async def mint(**claims: Any) -> int:
            return (await http.post("/v1/connect-sessions", headers=broker.as_user(**claims))).status_code

        assert [await mint(sub="ann") for _ in range(3)] == [201, 201, 429]
        assert [await mint(sub="bea") for _ in range(2)] == [201, 429]
        assert await mint(sub="bob", org_id="globex") == 201
        headers = broker.as_machine(WRITE)
        for_owners = [
            (await http.post(f"/v1/owners/{owner}/{kind}", headers=headers)).status_code
            for owner, kind in (
                ("acme", "connect-sessions"),
                ("acme", "auth-links"),
                ("globex", "connect-sessions"),
                ("globex", "auth-links"),
                ("globex", "auth-links"),
            )
        ]
        assert for_owners == [429, 429, 201, 201, 429]


async def test_people_of_one_name_at_two_issuers_are_two(tmp_path: Path) -> None:
    issuers = [Issuer(StoppedClock(), url, secret="s" * 32) for url in ("https://one.example", "https://two.example")]
    identity = {"issuers": [issuer.settings() for issuer in issuers]}
    limits = {"mint_per_user": "1/hour"}
    async with open_broker(tmp_path, identity=identity, limits=limits) as broker, front_door(broker) as http:

        async def mint(issuer: Issuer) -> int:
            headers = {"authorization": f"Bearer {issuer.token(sub='ann')}"}
            return (await http.post("/v1/connect-sessions", headers=headers)).status_code

        assert [await mint(issuer) for issuer in (issuers[0], issuers[0], issuers[1])] == [201, 429, 201]


async def test_live_sessions_are_limited_by_the_settings(tmp_path: Path) -> None:
    limits = {"live_sessions_per_owner": 1}
    async with open_broker(tmp_path, limits=limits) as broker, front_door(broker) as http:
        assert (await http.post("/v1/connect-sessions", headers=broker.as_user())).status_code == 201
        refused = await http.post("/v1/connect-sessions", headers=broker.as_user())

        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1800")
        assert refused.json()["detail"] == (
            "1 sessions of this owner are open at once, which is the limit; end those that are not needed"
        )


async def test_an_owner_is_erased_and_a_receipt_is_left(broker: Broker, http: httpx2.AsyncClient) -> None:
    await broker.linked()
    headers = broker.as_machine("owners:write")
    answer = await http.delete("/v1/owners/acme", headers=headers)
    assert (answer.status_code, answer.json()["state"], answer.json()["accounts"]) == (200, "complete", 1)
    receipt = await http.get(f"/v1/erasures/{answer.json()['id']}", headers=headers)
    assert receipt.json() == answer.json()
    broker.project.faults.add({"path": "/accounts", "status": 500, "times": None})
    pending = await http.delete("/v1/owners/globex", headers=headers)
    assert (pending.status_code, pending.json()["state"]) == (202, "pending")


async def test_a_receipt_is_shown_to_a_limited_service_only_if_it_asked_for_it(tmp_path: Path) -> None:
    async with open_broker(tmp_path, machine={"owners_claim": "owners"}) as broker, front_door(broker) as http:
        row: dict[str, Any] = {"state": "pending", "requested_at": broker.clock.now()}
        await broker.has(erasures, id="er_own", owner_id="acme", requested_by="service:robot", **row)
        await broker.has(erasures, id="er_other", owner_id="globex", requested_by="service:other", **row)
        headers = broker.as_machine("owners:write", owners=["acme"])
        statuses = [
            (await http.get(f"/v1/erasures/er_{name}", headers=headers)).status_code for name in ("own", "other")
        ]

        assert statuses == [200, 404]
