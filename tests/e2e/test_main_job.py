"""The whole main job against `broker-demo --json`, and then a search for every secret that was used in it."""

import base64
import hashlib
import hmac
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.e2e.demo_process import Demo, running_demo
from tests.support.databases import PostgresqlDatabases, rows_as_text

# Starting the demo counts too, and each of its programs takes seconds on a busy machine.
pytestmark = pytest.mark.timeout(240)

_PATIENCE_SECONDS = 30
_PAUSE = threading.Event()


@dataclass
class Script:
    """A client of the demo that remembers every secret it saw and every error body it got."""

    demo: Demo
    http: httpx2.Client
    secrets: set[str] = field(default_factory=set)
    error_bodies: list[str] = field(default_factory=list)

    def call(
        self, method: str, path: str, token: str | None = None, body: Any = None, **headers: str
    ) -> httpx2.Response:
        """Call the broker."""
        if token:
            headers["authorization"] = f"Bearer {token}"
        answer = self.http.request(method, f"{self.demo['broker']}{path}", json=body, headers=headers)
        if answer.is_error:
            self.error_bodies.append(answer.text)
        elif "token" in answer.text or "auth_link_url" in answer.text:
            shown = answer.json()
            self.secrets |= {shown[name] for name in ("token", "auth_link_url") if name in shown}
        return answer

    def user(self, name: str) -> str:
        """Return a demo user's token."""
        return str(self.demo["users"][name]["token"])

    def sandbox(self, method: str, path: str, body: Any = None) -> Any:
        """Turn a switch of the emulator."""
        answer = self.http.request(
            method,
            f"{self.demo['stackone']}/_sandbox{path}",
            json=body,
            headers={"x-sandbox-key": self.demo["sandbox_key"]},
        )
        assert answer.is_success, answer.text
        return answer.json()

    def token_with(self, **order: Any) -> str:
        """Order a signed token from the identity provider."""
        answer = self.http.post(
            f"{self.demo['idp']}/_sandbox/tokens", json=order, headers={"x-sandbox-key": self.demo["sandbox_key"]}
        )
        assert answer.is_success, answer.text
        token = str(answer.json()["token"])
        self.secrets.add(token)
        return token

    def deliver(self, body: bytes, signature: str) -> httpx2.Response:
        """Post a webhook delivery."""
        answer = self.http.post(
            f"{self.demo['broker']}/v1/webhooks/stackone",
            content=body,
            headers={"x-stackone-signature": signature, "content-type": "application/json"},
        )
        if answer.is_error:
            self.error_bodies.append(answer.text)
        return answer


@pytest.fixture(params=["sqlite", "postgresql"])
def script(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Script]:
    """Start the demo on each kind of database."""
    arguments: tuple[str, ...] = ()
    databases: PostgresqlDatabases | None = None
    if request.param == "postgresql":
        databases = request.getfixturevalue("postgresql_databases")
        url = databases.create()
        arguments = (f"--database-url={url}",)
    with (
        running_demo(tmp_path_factory.mktemp(f"demo-{request.param}"), *arguments) as demo,
        httpx2.Client(timeout=_PATIENCE_SECONDS) as http,
    ):
        opened = Script(demo, http)
        opened.secrets |= {demo["stackone_api_key"], demo["webhook_secret"], demo["service_key"]}
        opened.secrets |= {user["token"] for user in demo["users"].values()}
        opened.secrets |= set(json.loads((demo.directory / "secrets.json").read_text()).values())
        yield opened


def unlike_request_id(answer: httpx2.Response) -> tuple[int, str]:
    """Return an answer with its request id taken out of the bytes."""
    return answer.status_code, answer.text.replace(answer.json()["request_id"], "")


def linked(script: Script, provider: str = "bamboohr") -> str:
    """Link an account of owner A in the sandbox and wait until it shows."""
    account = script.sandbox(
        "POST",
        "/accounts",
        {"provider": provider, "origin_owner_id": "org_acme", "origin_owner_name": "Acme Inc", "multiple": True},
    )
    assert script.sandbox("POST", "/deliveries/settle")["settled"]
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not script.call("GET", f"/v1/linked-accounts/{account['id']}", script.user("alice")).is_success:
        assert time.monotonic() < deadline, "the account does not show"
        _PAUSE.wait(0.05)
    return str(account["id"])


def both_owners_mint(script: Script) -> None:
    for name, owner in (("alice", "org_acme"), ("bob", "org_globex")):
        answer = script.call("POST", "/v1/connect-sessions", script.user(name), {"provider": "workday"})
        assert answer.status_code == 201
        sent = [row for row in script.sandbox("GET", "/requests") if row["path"] == "/connect_sessions"][-1]
        assert sent["body"]["origin_owner_id"] == owner


def unknown_fields_are_refused(script: Script) -> None:
    for name in ("origin_owner_id", "owner_id", "provider_version", "x"):
        answer = script.call("POST", "/v1/connect-sessions", script.user("alice"), {name: "org_globex"})
        assert answer.status_code == 422


def forged_and_stale_tokens_are_refused(script: Script) -> None:
    header, payload, _ = script.user("alice").split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    keys = script.http.get(f"{script.demo['idp']}/jwks.json").json()["keys"]
    rsa = next(key for key in keys if key["kty"] == "RSA")
    pem = jwt.PyJWK(rsa).key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    confused = _segment({"alg": "HS256", "typ": "at+jwt", "kid": rsa["kid"]}) + "." + payload
    confused += "." + base64.urlsafe_b64encode(hmac.digest(pem, confused.encode(), hashlib.sha256)).decode().rstrip("=")
    forged = {
        "missing": None,
        "expired": script.token_with(user="alice", expires_in=-3600),
        "foreign issuer": script.token_with(user="alice", claims={"iss": "https://login.evil.example"}),
        "foreign audience": script.token_with(user="alice", claims={"aud": "somebody-else"}),
        "no owner": script.token_with(user="alice", claims={"org_id": None}),
        "alg none": _segment({"alg": "none", "typ": "at+jwt"}) + "." + payload + ".",
        "alg none, signature kept": script.user("alice").replace(header, _segment({"alg": "none"})),
        "public key as HMAC secret": confused,
        "another's payload": header + "." + _segment({**claims, "org_id": "org_globex"}) + "." + _,
        "service key": script.demo["service_key"],
    }
    for name, token in forged.items():
        for method, path in (("POST", "/v1/connect-sessions"), ("GET", "/v1/linked-accounts")):
            answer = script.call(method, path, token)
            assert answer.status_code == 401, name
            assert answer.headers["www-authenticate"].startswith("Bearer")
    assert script.call("GET", "/v1/owners/org_acme/linked-accounts", script.user("alice")).status_code == 401


def _segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def a_linked_account_is_seen_by_its_owner_and_by_services_only(script: Script) -> None:
    account_id = linked(script)
    assert script.call("GET", f"/v1/accounts/{account_id}", script.demo["service_key"]).json()["owner_id"] == "org_acme"
    listed = script.call("GET", "/v1/owners/org_acme/linked-accounts", script.demo["service_key"]).json()["data"]
    assert account_id in [account["account_id"] for account in listed]
    theirs = script.call("GET", "/v1/linked-accounts", script.user("bob")).json()["data"]
    assert account_id not in [account["account_id"] for account in theirs]
    shared = script.call("GET", f"/v1/linked-accounts/{account_id}", script.user("carol"))
    assert shared.status_code == 200


def somebody_elses_account_is_byte_for_byte_like_none(script: Script) -> None:
    account_id = linked(script)
    unknown_id = "1" * len(account_id)
    bob = script.user("bob")
    for method, path, body in (
        ("GET", "/v1/linked-accounts/{}", None),
        ("POST", "/v1/linked-accounts/{}/confirm", None),
        ("POST", "/v1/connect-sessions", "account_id"),
    ):
        foreign = script.call(method, path.format(account_id), bob, {body: account_id} if body else None)
        unknown = script.call(method, path.format(unknown_id), bob, {body: unknown_id} if body else None)
        assert foreign.status_code == 404
        assert unlike_request_id(foreign) == unlike_request_id(unknown)


def confirm_works_with_webhooks_off(script: Script) -> None:
    script.sandbox("POST", "/webhooks", {"mode": "drop"})
    try:
        account = script.sandbox(
            "POST",
            "/accounts",
            {"provider": "salesforce", "origin_owner_id": "org_globex", "origin_owner_name": "Globex Corp"},
        )
        path = f"/v1/linked-accounts/{account['id']}"
        assert script.call("GET", path, script.user("bob")).status_code == 404
        assert script.call("POST", f"{path}/confirm", script.user("bob")).status_code == 200
        assert script.call("GET", path, script.user("bob")).status_code == 200
    finally:
        script.sandbox("POST", "/webhooks", {"mode": "deliver"})


def signatures_made_by_node(script: Script) -> None:
    body = json.dumps(
        {
            "project_id": "connect-sandbox-10427",
            "event": "account.updated",
            "account_id": "47187425466113776871",
            "event_date": "2026-11-20T11:02:55.000Z",
            "sent_at": f"2026-11-20T11:02:55.{time.time_ns() % 1000:03}Z",
        }
    ).encode()
    signature, as_hex = _node_signatures(body, script.demo["webhook_secret"])
    assert script.deliver(body, signature).status_code == 200
    assert script.deliver(body, signature + "=").status_code == 200
    assert script.deliver(body, as_hex).status_code == 401
    assert script.deliver(body + b"\n", signature).status_code == 401


def _node_signatures(body: bytes, secret: str) -> list[str]:
    if shutil.which("node") is None:
        pytest.skip("no Node.js, whose signatures these are to be")
    program = (
        "const c=require('crypto'),[,s,b]=process.argv;"
        "for(const e of ['base64url','hex'])console.log(c.createHmac('sha256',s).update(b).digest(e))"
    )
    command = ["node", "-e", program, secret, body.decode()]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def a_service_mints_and_sends_links(script: Script) -> None:
    key = script.demo["service_key"]
    minted = script.call("POST", "/v1/owners/org_5521/connect-sessions", key, {"provider": "bamboohr"})
    link = script.call("POST", "/v1/owners/org_5521/auth-links", key, {"provider": "bamboohr"})
    assert (minted.status_code, link.status_code) == (201, 201)
    for row in script.sandbox("GET", "/requests"):
        assert "provider_version" not in json.dumps(row)


def none_of_the_secrets_is_found_anywhere(script: Script) -> None:
    """Runs last: whatever the steps before it used must have left no trace."""
    assert len(script.secrets) >= 8
    places: dict[str, bytes] = {
        "log": (script.demo.directory / "broker.log").read_bytes(),
        "output": script.demo.errors.read_bytes(),
        "metrics": script.http.get(script.demo["metrics"]).content,
        "errors": "\n".join(script.error_bodies).encode(),
        **{path.name: path.read_bytes() for path in script.demo.directory.glob("broker.db*")},
    }
    if script.demo["database_url"].startswith("postgresql"):
        places["dump"] = rows_as_text(script.demo["database_url"]).encode()
    assert len(places["log"]) > 1000
    assert script.error_bodies
    found = [
        (place, secret[:12])
        for place, content in places.items()
        for secret in script.secrets
        if secret.encode() in content or _payload_of(secret) in content
    ]
    assert found == []


def _payload_of(secret: str) -> bytes:
    """Return the part of a JWT that would betray it even without its signature, or the secret itself."""
    parts = secret.split(".")
    return ".".join(parts[:2]).encode() if len(parts) == 3 else secret.encode()


def test_the_main_job(script: Script, subtests: pytest.Subtests) -> None:
    for step in (
        both_owners_mint,
        unknown_fields_are_refused,
        forged_and_stale_tokens_are_refused,
        a_linked_account_is_seen_by_its_owner_and_by_services_only,
        somebody_elses_account_is_byte_for_byte_like_none,
        confirm_works_with_webhooks_off,
        signatures_made_by_node,
        a_service_mints_and_sends_links,
        none_of_the_secrets_is_found_anywhere,
    ):
        with subtests.test(step.__name__.replace("_", " ")):
            step(script)
