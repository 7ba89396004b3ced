"""The sandbox on real sockets, and a walk through all of it that writes down every answer."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
from fastapi import FastAPI, Request, Response

from sandbox.provider import Provider, create_provider
from sandbox.serving import bind, serving, url_of
from sandbox.stackone import Project, StackOneConfig, create_stackone
from tests.sandbox.look import StandingClock

API_KEY = "demo-api-key-of-the-contract"
SECRET = "demo-webhook-secret"
SWITCH = {"x-sandbox-key": "demo-sandbox-key"}
OWNER = {"origin_owner_id": "org_5521", "origin_owner_name": "Tailspin Toys"}
FORM = {"subdomain": "tailspin", "api_key": "a-long-key-4711", "region": "eu"}


class SteppingClock(StandingClock):
    """A clock that is a millisecond later at each look: fresh times can be told from repeated ones."""

    def __call__(self) -> datetime:
        """Return a new moment."""
        self.forward(0.001)
        return self.now


@dataclass(frozen=True)
class Exchange:
    """One answer; of a webhook, what was sent."""

    call: str
    status: int
    headers: dict[str, str]
    body: Any
    raw: bytes = b""


@dataclass(kw_only=True)
class Wire:
    """The emulator, its clients, and what they exchanged."""

    project: Project
    clock: SteppingClock
    http: httpx2.AsyncClient
    url: str
    exchanges: list[Exchange] = field(default_factory=list)
    deliveries: list[Exchange] = field(default_factory=list)
    answers_to_webhooks: list[int] = field(default_factory=list)

    def start_over(self) -> None:
        """Put everything back to its beginning."""
        self.project.reset()
        self.clock.now = SteppingClock().now
        for kept in (self.exchanges, self.deliveries, self.answers_to_webhooks):
            kept.clear()

    async def api(self, call: str, identifier: str = "", **more: Any) -> httpx2.Response:
        """Call the API with the project's key."""
        return await self._ask(call, identifier, auth=more.pop("auth", (API_KEY, "")), **more)

    async def hub(self, token: str, call: str, identifier: str = "", **more: Any) -> httpx2.Response:
        """Call as the Hub does."""
        headers = {"content-type": "application/json", "x-hub-session-token": token, "x-hub-version": "1.11.4"}
        return await self._ask(call, identifier, headers=headers, **more)

    async def popup(self, token: str, attempt: str, **changes: str) -> httpx2.Response:
        """Open the popup as the Hub does."""
        query = {"redirect_uri": f"{self.url}/embedded/accounts/callback", "token": token, **changes}
        query["connection_attempt_id"] = attempt
        return await self._ask("GET /connect/oauth2/{id}", "salesforce_profile", params=query)

    async def decide(self, popup: httpx2.Response, decision: str, **changes: str) -> httpx2.Response:
        """Approve or deny on the provider's page, and come back."""
        asked = dict(parse_qsl(urlsplit(popup.headers["location"]).query))
        form = {"redirect_uri": asked["redirect_uri"], "state": asked["state"], "decision": decision}
        provider = popup.headers["location"].partition("?")[0]
        back = (await self.http.post(provider, data=form)).headers["location"]
        return await self.http.get(str(httpx2.URL(back).copy_merge_params(changes)))

    async def switch(self, method: str, path: str, body: Any = None) -> Any:
        """Turn a switch of the sandbox."""
        answer = await self.http.request(method, f"{self.url}/_sandbox{path}", json=body, headers=SWITCH)
        assert answer.is_success, answer.text
        return answer.json()

    async def settle(self) -> None:
        """Wait for the last webhook."""
        assert (await self.switch("POST", "/deliveries/settle"))["settled"]

    async def mint(self, **changes: Any) -> str:
        """Mint a session and return its token."""
        answer = await self.api("POST /connect_sessions", json={**OWNER, **changes})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    async def link(self, **changes: Any) -> str:
        """Link an account with a form, in a session of its own, and return its id."""
        token = await self.mint(**{"provider": "bamboohr", "multiple": True, **changes})
        body = {"integration_id": "bamboohr_profile", "credentials": FORM}
        return str((await self.hub(token, "POST /hub/accounts", json=body)).json()["id"])

    async def begin(self, token: str) -> str:
        """Begin an OAuth attempt and return its id."""
        answer = await self.hub(token, "POST /hub/connection_attempts", json={"token": token})
        return str(answer.json()["id"])

    async def poll(self, token: str, attempt: str) -> Any:
        """Ask how an attempt stands."""
        return (await self.hub(token, "GET /hub/connection_attempts/{id}", attempt)).json()

    async def _ask(self, call: str, identifier: str, **more: Any) -> httpx2.Response:
        method, _, path = call.partition(" ")
        answer = await self.http.request(method, self.url + path.replace("{id}", identifier), **more)
        is_json = answer.headers.get("content-type") == "application/json"
        body = answer.json() if is_json else None
        self.exchanges.append(Exchange(call, answer.status_code, dict(answer.headers), body))
        return answer


@contextlib.asynccontextmanager
async def open_sender() -> AsyncIterator[Wire]:
    """Start the emulator, a provider and a receiver of webhooks."""
    clock = SteppingClock()
    with bind(0) as stackone, bind(0) as consent, bind(0) as hooks:
        provider = Provider(registered_origin=url_of(stackone))
        config = StackOneConfig(
            api_key=API_KEY,
            webhook_secret=SECRET,
            sandbox_key=SWITCH["x-sandbox-key"],
            webhook_url=f"{url_of(hooks)}/hooks",
            own_url=url_of(stackone),
            provider_url=url_of(consent),
            retry_delays=(0, 0, 0, 0, 0),
        )
        project = Project(config, clock=clock, provider=provider)
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
            wire = Wire(project=project, clock=clock, http=http, url=url_of(stackone))
            async with (
                serving(_receiver(wire), hooks),
                serving(create_provider(provider), consent),
                serving(create_stackone(project), stackone),
            ):
                yield wire


def _receiver(wire: Wire) -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.post("/hooks")
    async def receive(request: Request) -> Response:
        raw = await request.body()
        wire.deliveries.append(Exchange("webhook", 200, dict(request.headers), json.loads(raw), raw))
        return Response(status_code=wire.answers_to_webhooks.pop(0) if wire.answers_to_webhooks else 200)

    return app


async def walk(wire: Wire) -> None:
    """Make every call, in every way in which the facts know an answer."""
    await _sessions(wire)
    await _accounts(wire)
    await _forms(wire)
    await _popups(wire)
    await _refusals(wire)
    await wire.settle()
    wire.exchanges += wire.deliveries


async def _sessions(wire: Wire) -> None:
    account = await wire.link()
    everything = {
        "origin_username": "ivy@tailspin.example",
        "provider": "bamboohr",
        "categories": ["hris"],
        "account_id": account,
        "metadata": {"plan": "large"},
        "label": "EMEA",
        "type": "test",
        "connector_profile_id": "bamboohr_profile",
    }
    for token in (await wire.mint(), await wire.mint(**everything)):
        await wire.api("POST /connect_sessions/authenticate", json={"token": token})
    await wire.api("POST /connect_sessions", json={})
    await wire.api("POST /connect_sessions", json={**OWNER, "account_id": "1"})
    await wire.api("POST /connect_sessions", json=OWNER, auth=("another", ""))
    await wire.switch("POST", "/api-key", {"lacks_scope": True})
    await wire.api("POST /connect_sessions", json=OWNER)
    await wire.switch("POST", "/api-key", {"lacks_scope": False})
    await wire.switch("POST", "/limits", {"per_minute": 1})
    for _ in range(2):
        await wire.api("POST /connect_sessions", json=OWNER)
    await wire.switch("POST", "/limits", {"enabled": False})
    await wire.api("POST /connect_sessions/authenticate", json={})
    await wire.api("POST /connect_sessions/authenticate", json={"token": "nobody's"})


async def _accounts(wire: Wire) -> None:
    first = await wire.link(origin_username="ivy@tailspin.example", label="EMEA", metadata={"a": 1}, type="test")
    token = await wire.mint(provider="bamboohr", multiple=True)
    broken = {"integration_id": "bamboohr_profile", "credentials": {**FORM, "api_key": "broken"}}
    second = (await wire.hub(token, "POST /hub/accounts", json=broken)).json()["id"]
    for call in ("GET /accounts", "GET /v2/accounts"):
        await wire.api(call)
    await wire.api("GET /accounts", auth=("another", ""))
    for key in (API_KEY, "another"):
        await wire.api("GET /auth_configs", auth=(key, ""))
    for account in (first, second, "1"):
        for call in ("GET /accounts/{id}", "GET /v2/accounts/{id}", "GET /accounts/{id}/meta"):
            await wire.api(call, account)
        await wire.api("PATCH /accounts/{id}", account, json={"label": "APAC"})
        await wire.api("PATCH /accounts/{id}", account, json={"label": "APAC", "type": "neither"})
    for account in (first, "1"):
        await wire.api("DELETE /accounts/{id}", account)


async def _forms(wire: Wire) -> None:
    token = await wire.mint()
    for call in ("GET /hub/settings", "GET /hub/connectors"):
        await wire.hub(token, call)
    for connector in ("bamboohr", "workday", "salesforce", "sap_successfactors", "greenhouse", "nobodys"):
        await wire.hub(token, "GET /hub/connectors/{id}", f"{connector}_profile")
    form = {"integration_id": "bamboohr_profile", "credentials": FORM}
    account = (await wire.hub(token, "POST /hub/accounts", json=form)).json()["id"]
    wrong = {**form, "credentials": {**FORM, "api_key": "wrong"}}
    await wire.hub(token, "POST /hub/accounts", json=wrong)
    await wire.hub(token, "POST /hub/accounts", json={"integration_id": "bamboohr_profile"})
    editing = await wire.mint(account_id=account)
    await wire.hub(editing, "GET /hub/settings")
    await wire.hub(editing, "GET /hub/accounts/{id}", account)
    await wire.hub(editing, "GET /hub/accounts/{id}", "1")
    await wire.hub(editing, "PATCH /hub/accounts/{id}", account, json=form)
    await wire.hub(editing, "PATCH /hub/accounts/{id}", account, json=wrong)


async def _popups(wire: Wire) -> None:
    for decision in ("approve", "deny"):
        token = await wire.mint(provider="salesforce")
        attempt = await wire.begin(token)
        await wire.poll(token, attempt)
        popup = await wire.popup(token, attempt)
        await wire.decide(popup, decision)
        await wire.poll(token, attempt)
        await wire.api("POST /connect_sessions/authenticate", json={"token": token})
        await wire.popup(token, attempt)
    given_up = await wire.begin(token)
    await wire.hub(token, "DELETE /hub/connection_attempts/{id}", given_up)
    await wire.poll(token, given_up)
    await wire.poll(token, "nobody's")
    await wire.hub(token, "POST /hub/connection_attempts", json={})


async def _refusals(wire: Wire) -> None:
    await wire.popup("nobody's", "1")
    for call in ("GET /hub/settings", "GET /hub/connectors"):
        await wire.hub("nobody's", call)
    for call in ("GET /hub/connectors/{id}", "GET /hub/accounts/{id}", "GET /hub/connection_attempts/{id}"):
        await wire.hub("nobody's", call, "1")
    await wire.hub("nobody's", "DELETE /hub/connection_attempts/{id}", "1")
    await wire.hub("nobody's", "PATCH /hub/accounts/{id}", "1", json={})
    for call in ("POST /hub/accounts", "POST /hub/connection_attempts"):
        await wire.hub("nobody's", call, json={})
