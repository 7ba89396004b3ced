"""What the sandbox's tests use: a standing clock, a receiver of webhooks, and clients."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
from starlette.types import Receive, Scope, Send

from sandbox.identity import IdentityProvider
from sandbox.stackone import Project

API_KEY = "demo-api-key-of-the-tests"
SANDBOX_KEY = "demo-sandbox-key"
WEBHOOK_SECRET = "demo-webhook-secret-é"
OWN_URL = "http://stackone.test"
PROVIDER_URL = "http://provider.test"


class StandingClock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 9, 0, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Return the same moment again."""
        return self.now

    def forward(self, seconds: float) -> None:
        """Move on."""
        self.now += timedelta(seconds=seconds)


@dataclass
class Receiver:
    """An endpoint for webhooks that answers what it was told, and 200 from then on."""

    bodies: list[bytes] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    answers: list[int | Exception] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one delivery."""
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        self.signatures.append(dict(scope["headers"])[b"x-stackone-signature"].decode())
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        await send({"type": "http.response.start", "status": answer, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    @property
    def events(self) -> list[dict[str, Any]]:
        """Return what arrived, parsed."""
        return [json.loads(body) for body in self.bodies]


@dataclass(kw_only=True)
class Look:
    """The emulator and shared_look who talks to it."""

    project: Project
    clock: StandingClock
    receiver: Receiver
    api: httpx2.AsyncClient
    switch: httpx2.AsyncClient
    browser: httpx2.AsyncClient
    over: httpx2.AsyncBaseTransport
    provider: httpx2.AsyncClient

    async def mint(self, **changes: object) -> dict[str, Any]:
        """Mint a session."""
        body = {"origin_owner_id": "org_1", "origin_owner_name": "One Ltd", **changes}
        answer = await self.api.post("/connect_sessions", json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def link(self, **changes: object) -> dict[str, Any]:
        """Link an account as if made elsewhere."""
        body = {"origin_owner_id": "org_1", "origin_owner_name": "One Ltd", "provider": "bamboohr", **changes}
        answer = await self.switch.post("/_sandbox/accounts", json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def settle(self) -> None:
        """Wait for the last webhook."""
        assert await self.project.webhooks.settle(5)

    def hub(self, token: str) -> httpx2.AsyncClient:
        """Return a browser whose Hub holds this session token."""
        headers = {"x-hub-session-token": token, "x-hub-version": "1.11.4"}
        return httpx2.AsyncClient(transport=self.over, base_url=OWN_URL, headers=headers)


@dataclass(kw_only=True)
class Idp:
    """The identity provider and its clients."""

    provider: IdentityProvider
    switch: httpx2.AsyncClient
    browser: httpx2.AsyncClient
