"""What the sandbox decides by itself: each decision that is written down is also what it does."""

import base64
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest

from tests.contract.facts import decisions
from tests.contract.wire import API_KEY, FORM, OWNER, Wire

pytestmark = pytest.mark.anyio

Probe = Callable[[Wire], Awaitable[None]]


async def minted(wire: Wire, **changes: Any) -> int:
    return (await wire.api("POST /connect_sessions", json={**OWNER, **changes})).status_code


async def unknown_property(wire: Wire) -> None:
    assert await minted(wire, surprise=1) == 400


async def provider_version(wire: Wire) -> None:
    assert [await minted(wire, provider_version=version) for version in ("1.0.0", None)] == [400, 400]


async def foreign_account(wire: Wire) -> None:
    theirs = await wire.link(origin_owner_id="org_other")
    assert [await minted(wire, account_id=account) for account in (theirs, "1")] == [404, 404]


async def auth_link_address(wire: Wire) -> None:
    body = (await wire.api("POST /connect_sessions", json={**OWNER, "expires_in": 60})).json()
    assert body["auth_link_url"] == f"{wire.url}/embedded/integrations?token={body['token']}"
    assert (await wire.http.get(body["auth_link_url"])).status_code == 200
    wire.clock.forward(61)
    assert (await wire.http.get(body["auth_link_url"])).status_code == 401


async def refused_at_mint(wire: Wire, switch: str, *bodies: dict[str, str]) -> None:
    answers = [await wire.api("POST /connect_sessions", json={**OWNER, **body}) for body in bodies]
    assert [(answer.status_code, answer.json()["statusCode"]) for answer in answers] == [(400, 400)] * len(bodies)
    await wire.switch("POST", "/decisions", {"refusal_status": 412})
    assert [await minted(wire, **body) for body in bodies] == [412] * len(bodies)
    await wire.switch("POST", "/decisions", {switch: "accept"})
    assert [await minted(wire, **body) for body in bodies] == [201] * len(bodies)


async def unknown_provider(wire: Wire) -> None:
    await refused_at_mint(wire, "unknown_provider", {"provider": "unheard_of"}, {"provider": "greenhouse"})
    await wire.switch("POST", "/decisions", {})
    await wire.switch("POST", "/auth-configs/greenhouse_profile", {"active": True})
    assert await minted(wire, provider="greenhouse") == 201


async def unknown_profile(wire: Wire) -> None:
    unknown = {"connector_profile_id": "unheard_of"}
    alias = {"integration_id": "unheard_of"}
    disabled = {"connector_profile_id": "workday_retired_profile"}
    of_another = {"provider": "bamboohr", "connector_profile_id": "salesforce_profile"}
    await refused_at_mint(wire, "unknown_profile", unknown, alias, disabled, of_another)
    await wire.switch("POST", "/decisions", {})
    assert await minted(wire, provider="bamboohr", connector_profile_id="bamboohr_second_profile") == 201


async def organization_id(wire: Wire) -> None:
    found = []
    for choice in ("number", "string"):
        await wire.switch("POST", "/decisions", {"organization_id": choice})
        body = (await wire.api("POST /connect_sessions", json=OWNER)).json()
        again = (await wire.api("POST /connect_sessions/authenticate", json={"token": body["token"]})).json()
        found.append((body["organization_id"], again["organization_id"]))
    assert found == [(27270, 27270), ("27270", "27270")]


async def mint_from_localhost(wire: Wire) -> None:
    for origin, allowed in (
        ("http://localhost:3000", True),
        ("http://127.0.0.1:8200", True),
        ("https://localhost.example.com", False),
        ("https://app.example.com", False),
    ):
        preflight = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        }
        asked = await wire.http.options(f"{wire.url}/connect_sessions", headers=preflight)
        answer = await wire.api("POST /connect_sessions", json=OWNER, headers={"origin": origin})
        marks = {response.headers.get("access-control-allow-origin") for response in (asked, answer)}
        assert marks == ({origin} if allowed else {None})
    other = await wire.api("GET /accounts", headers={"origin": "http://localhost:3000"})
    assert "access-control-allow-origin" not in other.headers


async def dead_token(wire: Wire) -> None:
    token = await wire.mint(expires_in=60)
    wire.clock.forward(61)
    for dead in (token, "nobody's"):
        assert (await wire.api("POST /connect_sessions/authenticate", json={"token": dead})).status_code == 401


async def basic_password(wire: Wire) -> None:
    assert (await wire.api("GET /accounts", auth=(API_KEY, "password"))).status_code == 401


async def basic_without_colon(wire: Wire) -> None:
    alone = {"authorization": "Basic " + base64.b64encode(API_KEY.encode()).decode()}
    wrong = {"authorization": "Basic " + base64.b64encode(b"another").decode()}
    assert (await wire.http.get(f"{wire.url}/accounts", headers=alone)).status_code == 401
    await wire.switch("POST", "/decisions", {"basic_without_colon": "accept"})
    assert (await wire.http.get(f"{wire.url}/accounts", headers=alone)).status_code == 200
    assert (await wire.http.get(f"{wire.url}/accounts", headers=wrong)).status_code == 401
    assert (await wire.api("GET /accounts")).status_code == 200


async def nameless_client(wire: Wire) -> None:
    assert (await wire.api("GET /accounts", headers={"user-agent": ""})).status_code == 403


async def listed(wire: Wire, query: str) -> list[str]:
    answer = await wire.http.get(f"{wire.url}/accounts?{query}", auth=(API_KEY, ""))
    return [row["id"] for row in answer.json()]


async def first_page(wire: Wire) -> None:
    accounts = [await wire.link() for _ in range(3)]
    pages = [await listed(wire, f"page_size=2&page={number}") for number in (0, 1, 2, 3)]
    assert pages == [accounts[:2], accounts[:2], accounts[2:], []]


async def page_size(wire: Wire) -> None:
    for _ in range(26):
        await wire.switch("POST", "/accounts", {})
    assert [len(await listed(wire, query)) for query in ("", "page_size=5000")] == [25, 26]


async def filters(wire: Wire) -> None:
    one = await wire.link()
    two = await wire.link(origin_owner_id="org_other")
    third = (await wire.switch("POST", "/accounts", {**OWNER, "provider": "workday"}))["id"]
    assert await listed(wire, "origin_owner_ids=org_5521&origin_owner_ids=org_other") == [one, two, third]
    assert await listed(wire, "origin_owner_id=org_5521&provider=bamboohr") == [one]


async def order(wire: Wire) -> None:
    accounts = [await wire.link() for _ in range(4)]
    await wire.api("PATCH /accounts/{id}", accounts[0], json={"label": "changed"})
    assert await listed(wire, "") == accounts


async def v2_list(wire: Wire) -> None:
    accounts = [await wire.link() for _ in range(3)]
    answer = await wire.http.get(f"{wire.url}/v2/accounts?page_size=2&page=2", auth=(API_KEY, ""))
    assert [row["id"] for row in answer.json()] == accounts[2:]


async def create_or_update(wire: Wire) -> None:
    first = await wire.link(multiple=False)
    assert await wire.link(multiple=False) == first
    assert await wire.link(multiple=False, origin_owner_name="Renamed") != first


async def edited(wire: Wire, token: str) -> str | None:
    answer = (await wire.hub(token, "GET /hub/settings")).json()
    return None if "existing_account_id" not in answer else str(answer["existing_account_id"])


async def edit_needs_provider(wire: Wire) -> None:
    account = await wire.link()
    assert await edited(wire, await wire.mint(provider="bamboohr")) == account
    assert await edited(wire, await wire.mint()) is None


async def edit_after_pick(wire: Wire) -> None:
    form = {"integration_id": "bamboohr_profile", "credentials": FORM}
    linked = []
    for _ in range(2):
        linked.append((await wire.hub(await wire.mint(), "POST /hub/accounts", json=form)).json()["id"])  # noqa: PERF401
    for _ in range(2):
        token = await wire.mint()
        attempt = await wire.begin(token)
        await wire.decide(await wire.popup(token, attempt), "approve")
        linked.append((await wire.poll(token, attempt))["account"]["id"])
    assert (linked[0], linked[2]) == (linked[1], linked[3])
    await wire.settle()
    told = [(event.body["event"], event.body["account_id"]) for event in wire.deliveries]
    assert told == [(f"account.{what}", account) for account in linked[::2] for what in ("created", "updated")]


async def default_profile(wire: Wire) -> None:
    async def listed_in_hub(**changes: Any) -> list[str]:
        answer = (await wire.hub(await wire.mint(**changes), "GET /hub/connectors")).json()
        return [row["integration_id"] for row in answer["integrations"]]

    assert await listed_in_hub(provider="bamboohr") == ["bamboohr_profile"]
    assert await listed_in_hub(connector_profile_id="bamboohr_second_profile") == ["bamboohr_second_profile"]
    await wire.switch("POST", "/auth-configs/bamboohr_second_profile", {"default": True})
    assert await listed_in_hub(provider="bamboohr") == ["bamboohr_second_profile"]


async def edit_session_posts(wire: Wire) -> None:
    account = await wire.link()
    assert await wire.link(account_id=account) == account
    assert len(await listed(wire, "")) == 1


async def tick(wire: Wire) -> None:
    account = await wire.link()
    moments = []
    for label in ("a", "b"):
        answer = await wire.api("PATCH /accounts/{id}", account, json={"label": label})
        moments.append(answer.json()["updated_at"])
    await wire.settle()
    assert moments[0] < moments[1]
    assert [event.body["event_date"] for event in wire.deliveries][1:] == moments


async def deleted_event(wire: Wire) -> None:
    account = await wire.link()
    await wire.api("DELETE /accounts/{id}", account)
    await wire.settle()
    assert [event.body["event"] for event in wire.deliveries] == ["account.created", "account.deleted"]


async def resent(wire: Wire) -> None:
    for refusals, tries in (([500] * 9, 6), ([408, 429, 503], 4), ([400], 1), ([404], 1)):
        wire.deliveries.clear()
        wire.answers_to_webhooks[:] = refusals
        await wire.link()
        await wire.settle()
        assert len(wire.deliveries) == tries


async def sent_at(wire: Wire) -> None:
    wire.answers_to_webhooks[:] = [503]
    await wire.link()
    await wire.settle()
    first, again = wire.deliveries
    assert datetime.fromisoformat(first.body["sent_at"]) < datetime.fromisoformat(again.body["sent_at"])
    assert first.headers["x-stackone-signature"] != again.headers["x-stackone-signature"]
    assert {**first.body, "sent_at": ""} == {**again.body, "sent_at": ""}


async def webhook_headers(wire: Wire) -> None:
    await wire.link()
    await wire.settle()
    (delivery,) = wire.deliveries
    assert delivery.headers["content-type"] == "application/json"
    assert "python" in delivery.headers["user-agent"]


async def label_of_patch(wire: Wire) -> None:
    account = await wire.link(label="EMEA")
    for label, kept in (({}, "EMEA"), ("APAC", "APAC"), ({"a": 1}, "APAC")):
        assert (await wire.api("PATCH /accounts/{id}", account, json={"label": label})).json()["label"] == kept


async def numeric_record_id(wire: Wire) -> None:
    accounts = [await wire.link() for _ in range(2)]
    await wire.settle()
    records = [event.body["record_id"] for event in wire.deliveries]
    assert records == [int(account) if account.isdigit() else account for account in accounts]
    assert {type(record) for record in records} == {str, int}


async def webhook_events_of_hub(wire: Wire) -> None:
    answer = await wire.hub(await wire.mint(), "GET /hub/connectors/{id}", "bamboohr_profile")
    assert answer.json()["hub_settings"]["configured_webhook_events"] == {}


async def foreign_callback(wire: Wire) -> None:
    token = await wire.mint(provider="salesforce")
    attempt = await wire.begin(token)
    popup = await wire.popup(token, attempt, redirect_uri="https://app.stackone.com/embedded/accounts/callback")
    back = await wire.decide(popup, "approve")
    assert back.headers["location"].startswith(f"{wire.url}/embedded/accounts/callback?")
    assert (await wire.poll(token, attempt))["status"] == "authenticated"
    elsewhere = await wire.popup(token, await wire.begin(token), redirect_uri="https://evil.example/callback")
    assert elsewhere.status_code == 400


async def auth_config_pages(wire: Wire) -> None:
    async def found(query: str) -> tuple[int, list[str]]:
        answer = (await wire.http.get(f"{wire.url}/auth_configs?{query}", auth=(API_KEY, ""))).json()
        assert answer["total"] >= len(answer["data"])
        return answer["total"], [row["id"] for row in answer["data"]]

    total, everything = await found("")
    assert total == len(everything) == 8
    assert await found("page=2&page_size=3") == (8, everything[3:6])
    assert await found("connector_key=bamboohr") == (2, ["bamboohr_profile", "bamboohr_second_profile"])
    assert await found("enabled=false") == (2, ["greenhouse_profile", "workday_retired_profile"])
    assert await found("connector_key=workday&enabled=true") == (1, ["workday_profile"])


async def attempt_life(wire: Wire) -> None:
    token, short = await wire.mint(provider="salesforce"), await wire.mint(provider="salesforce", expires_in=100)
    attempt, ended = await wire.begin(token), await wire.begin(short)
    popup = await wire.popup(short, ended)
    wire.clock.forward(101)
    await wire.decide(popup, "approve")
    assert (await wire.poll(token, attempt))["status"] == "pending"
    assert await listed(wire, "") == []
    wire.clock.forward(200)
    assert (await wire.poll(token, attempt))["status"] == "expired"


async def unknown_code(wire: Wire) -> None:
    token = await wire.mint(provider="salesforce")
    attempt = await wire.begin(token)
    await wire.decide(await wire.popup(token, attempt), "approve", code="made-up")
    assert (await wire.poll(token, attempt))["error"]["code"] == "invalid_grant"


async def disabled_connector(wire: Wire) -> None:
    form = {"integration_id": "greenhouse_profile", "credentials": FORM}
    answer = await wire.hub(await wire.mint(), "POST /hub/accounts", json=form)
    assert (answer.status_code, answer.json()["errorCode"]) == (412, "AccountIntegrationInactiveError")


_PROBES: tuple[Probe, ...] = (
    unknown_property,
    provider_version,
    foreign_account,
    auth_link_address,
    unknown_provider,
    unknown_profile,
    organization_id,
    mint_from_localhost,
    dead_token,
    basic_password,
    basic_without_colon,
    nameless_client,
    first_page,
    page_size,
    filters,
    order,
    v2_list,
    create_or_update,
    edit_needs_provider,
    edit_after_pick,
    default_profile,
    edit_session_posts,
    tick,
    deleted_event,
    resent,
    sent_at,
    webhook_headers,
    label_of_patch,
    numeric_record_id,
    webhook_events_of_hub,
    foreign_callback,
    auth_config_pages,
    attempt_life,
    unknown_code,
    disabled_connector,
)


@pytest.mark.parametrize("probe", _PROBES, ids=lambda probe: probe.__name__)
async def test_the_sandbox_does_what_it_says_it_decided(probe: Probe, wire: Wire) -> None:
    await probe(wire)


def test_every_decision_has_a_probe() -> None:
    assert list(decisions()) == [probe.__name__ for probe in _PROBES]
