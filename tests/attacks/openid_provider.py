"""Starting, turning and stopping a certified OpenID provider, and signing in at it as a page does."""

import asyncio
import base64
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import httpx2
import jwt

from sandbox.serving import bind, url_of
from tests.attacks.opened import not_on_this_machine
from tests.support.tokens import SigningKey

_SCRIPT = Path(__file__).with_name("openid_provider.mjs")
_PACKAGE = Path(__file__).resolve().parents[2] / "node_modules" / "oidc-provider"
_SIGNED_IN = "http://127.0.0.1/signed-in"
_SECONDS = 30
PEOPLE: Mapping[str, Mapping[str, str]] = {
    "ann": {"org_id": "org_tailspin", "org_name": "Tailspin Toys", "email": "ann@tailspin.example"},
    "ben": {"org_id": "org_fabrikam", "org_name": "Fabrikam", "email": "ben@fabrikam.example"},
}


def private_jwk(key: SigningKey) -> dict[str, Any]:
    """Return a key as its owner keeps it."""
    members = json.loads(jwt.get_algorithm_by_name(key.algorithm).to_jwk(key.private))
    members.pop("key_ops", None)
    return {**members, "kid": key.kid, "alg": key.algorithm, "use": "sig"}


class OpenIdProvider:
    """The provider's process, and what it answers."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *keys: SigningKey) -> Self:
        """Start it with these keys, the first of which signs."""
        node = shutil.which("node")
        if node is None or not _PACKAGE.is_dir():
            not_on_this_machine("no Node.js, or the npm packages are not installed: run npm ci")
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self._process = await asyncio.create_subprocess_exec(
            node,
            str(_SCRIPT),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await self._tell({"port": urlsplit(self.issuer).port, "people": PEOPLE, **_keys(keys)})
        return self

    async def rotate(self, *keys: SigningKey) -> None:
        """Publish these keys from now on, and sign with the first."""
        await self._tell(_keys(keys))

    async def stop(self) -> None:
        """Go away, in the middle of whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            await self._process.communicate()
            self._process = None

    async def sign_in(self, login: str, *, resource: str | None = "urn:connect-broker") -> dict[str, str]:
        """Sign a person in by authorization code and PKCE; return all the tokens that the page gets."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        api = {"resource": resource} if resource else {}
        asked = {
            "client_id": "page",
            "response_type": "code",
            "redirect_uri": _SIGNED_IN,
            "scope": "openid",
            "state": "s",
            "nonce": "n",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **api,
        }
        async with httpx2.AsyncClient(timeout=_SECONDS, trust_env=False) as browser:
            answer = await _away_from_provider(browser, await browser.get(f"{self.issuer}/auth", params=asked), login)
            returned = parse_qs(urlsplit(answer.headers["location"]).query)
            assert returned["state"] == ["s"]
            form = {
                "grant_type": "authorization_code",
                "client_id": "page",
                "redirect_uri": _SIGNED_IN,
                "code": returned["code"][0],
                "code_verifier": verifier,
                **api,
            }
            tokens = await browser.post(f"{self.issuer}/token", data=form)
        assert tokens.status_code == 200, tokens.text
        return dict(tokens.json())

    async def machine_token(self, scope: str) -> str:
        """Return a machine's access token (client credentials)."""
        form = {"grant_type": "client_credentials", "scope": scope, "resource": "urn:connect-broker:machines"}
        async with httpx2.AsyncClient(timeout=_SECONDS, trust_env=False) as client:
            answer = await client.post(f"{self.issuer}/token", data=form, auth=("machine", "demo-machine-secret"))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def _tell(self, line: Mapping[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        answer = await asyncio.wait_for(self._process.stdout.readline(), _SECONDS)
        assert json.loads(answer or b"{}") == {"issuer": self.issuer}


def _keys(keys: tuple[SigningKey, ...]) -> dict[str, Any]:
    return {"keys": [private_jwk(key) for key in keys]}


async def _away_from_provider(browser: httpx2.AsyncClient, answer: httpx2.Response, login: str) -> httpx2.Response:
    """Go through sign-in and consent, until the provider sends the browser back to the page."""
    for _ in range(12):
        if answer.status_code in {302, 303}:
            target = str(answer.url.join(answer.headers["location"]))
            if target.startswith(_SIGNED_IN):
                return answer
            answer = await browser.get(target)
            continue
        assert answer.status_code == 200, answer.text
        [prompt] = re.findall(r'name="prompt" value="(\w+)"', answer.text)
        answer = await browser.post(answer.url, data={"prompt": prompt, "login": login, "password": "any"})
    message = "the provider never sent the browser back"
    raise AssertionError(message)


@asynccontextmanager
async def openid_provider() -> AsyncIterator[OpenIdProvider]:
    """Find an address for a provider; it is started by the test, and is stopped at the end of the block."""
    reserved = bind(0)
    issuer = url_of(reserved)
    reserved.close()
    provider = OpenIdProvider(issuer)
    try:
        yield provider
    finally:
        await provider.stop()
