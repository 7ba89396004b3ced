"""The settings in docs/identity.md start a broker, and a token of the shape beside them is whom the page says."""

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.identity.caller import Scope
from app.main import create_app
from app.runtime import Externals
from app.settings import PREFIX, load_settings
from tests.support.tokens import Issuer, IssuerServer, StoppedClock, ec_key, rsa_key

pytestmark = pytest.mark.anyio

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "identity.md"
_BLOCK = re.compile(r"```json\n(.*?)```", re.DOTALL)
_PERSON = re.compile(r"^Owner `(.+)`, name `(.+)`, user `(.+)`\.$", re.MULTILINE)
_MACHINE = re.compile(r"^Machine `(.+)`, scopes `(.+)`, owners `(.+)`\.$", re.MULTILINE)
_ENVIRONMENT = {
    "STACKONE__API_KEY": "an api key of decent length",
    "STACKONE__WEBHOOK_SECRETS": '["a webhook secret of decent length"]',
    "SERVICE_KEYS__PEPPER": "a pepper of decent length",
    "SYNC__ENABLED": "false",
}


@dataclass(frozen=True)
class Section:
    """A part of the page, under its heading."""

    title: str
    text: str

    @property
    def blocks(self) -> list[Any]:
        """Return its JSON, in order."""
        return [json.loads(block) for block in _BLOCK.findall(self.text)]


def sections() -> Iterator[Section]:
    """Read the page."""
    for part in re.split(r"^## ", _PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        yield Section(title, text)


SECTIONS = {section.title: section for section in sections()}
USERS = [title for title, section in SECTIONS.items() if _PERSON.search(section.text)]
[MACHINES] = [title for title, section in SECTIONS.items() if _MACHINE.search(section.text)]
COOKIE = "Cookie mode"


@dataclass
class Broker:
    """A broker with the page's settings; StackOne is an echo, and the issuer signs with the page's algorithm."""

    http: httpx2.AsyncClient
    issuer: Issuer
    sent: list[dict[str, Any]] = field(default_factory=list)

    def token(self, claims: Mapping[str, Any], **changes: Any) -> str:
        """Sign claims as they stand on the page, with the times that only a fresh token has."""
        times = {"iat": self.issuer.now, "exp": self.issuer.now + 300}
        shape = {**claims, **times, **changes}
        strange = self.issuer.claims().keys() - shape.keys()
        return self.issuer.token(*strange, **shape)


@pytest.fixture
def opened(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Open a broker with settings as an operator would write them: in the environment, for production."""

    @asynccontextmanager
    async def opened(issuer: Mapping[str, Any], **variables: str) -> AsyncIterator[Broker]:
        for name, value in (_ENVIRONMENT | {"DATABASE__URL": database_url} | variables).items():
            monkeypatch.setenv(PREFIX + name, value)
        clock = StoppedClock()
        secret = issuer.get("secret")
        key = ec_key() if issuer["algorithms"] == ["ES256"] else rsa_key()
        signer = Issuer(clock, issuer["issuer"], audience=issuer["audiences"][0], key=key, secret=secret)
        server = IssuerServer(signer)
        if "jwks_uri" in issuer:
            server.answers[issuer["jwks_uri"]] = server.json({"keys": signer.published})
        sent: list[dict[str, Any]] = []

        def stackone(request: httpx2.Request) -> httpx2.Response:
            sent.append(json.loads(request.content))
            return httpx2.Response(201, json={"id": 1, "token": "t", "auth_link_url": "https://app.example.test"})

        web = create_app(
            load_settings(),
            Externals(clock=clock, identity_transport=server, stackone_transport=httpx2.MockTransport(stackone)),
        )
        async with (
            web.router.lifespan_context(web),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(web), base_url="https://broker.acme.example") as http,
        ):
            yield Broker(http, signer, sent)

    return opened


def test_the_page_has_every_kind_of_login() -> None:
    names = ["Auth0", "Clerk", "Okta", "Keycloak", "Supabase", "WorkOS", "Microsoft Entra", "A login of your own"]
    assert [title for title, name in zip(USERS, names, strict=True) if not title.startswith(name)] == []
    assert all(len(SECTIONS[title].blocks) == 2 for title in [*USERS, MACHINES])
    assert len(SECTIONS[COOKIE].blocks) == 1


@pytest.mark.parametrize("title", USERS)
async def test_a_users_token_is_taken_for_whom_the_page_says(title: str, opened: Callable[..., Any]) -> None:
    settings, claims = SECTIONS[title].blocks
    person = _PERSON.search(SECTIONS[title].text)
    assert person is not None
    async with opened(settings[0], IDENTITY__ISSUERS=json.dumps(settings)) as broker:
        answer = await broker.http.post(
            "/v1/connect-sessions", headers={"authorization": f"Bearer {broker.token(claims)}"}
        )
        assert answer.status_code == 201, answer.text
        [sent] = broker.sent
        names = ("origin_owner_id", "origin_owner_name", "origin_username")
        assert tuple(sent[name] for name in names) == person.groups()


@pytest.mark.parametrize("title", USERS)
async def test_a_token_that_lacks_what_the_page_asks_for_is_refused(title: str, opened: Callable[..., Any]) -> None:
    settings, claims = SECTIONS[title].blocks
    path = str(settings[0]["claims"]["owner_id"])
    without_owner = {name: value for name, value in claims.items() if name != path.partition(".")[0]}
    wrong: list[dict[str, Any]] = [without_owner, {**claims, "aud": "another"}, {**claims, "iss": claims["iss"] + "x"}]
    wrong += [{**claims, name: "other"} for name in settings[0].get("required_claims", {})]
    async with opened(settings[0], IDENTITY__ISSUERS=json.dumps(settings)) as broker:
        for claimed in wrong:
            token = broker.token(claimed)
            answer = await broker.http.get("/v1/linked-accounts", headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == 401
        too_long = settings[0].get("max_lifetime_seconds", 86_400) + 1
        token = broker.token(claims, exp=broker.issuer.now + too_long)
        answer = await broker.http.get("/v1/linked-accounts", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 401


async def test_a_machines_token_has_the_scopes_and_owners_that_the_page_says(opened: Callable[..., Any]) -> None:
    settings, claims = SECTIONS[MACHINES].blocks
    machine = _MACHINE.search(SECTIONS[MACHINES].text)
    assert machine is not None
    assert machine[1] == claims["sub"]
    users = json.dumps(SECTIONS[USERS[0]].blocks[0])
    variables = {"IDENTITY__ISSUERS": users, "IDENTITY__MACHINE_ISSUERS": json.dumps(settings)}
    asked = {
        Scope.ACCOUNTS_READ: ("GET", "/v1/owners/{}/linked-accounts", 200),
        Scope.SESSIONS_WRITE: ("POST", "/v1/owners/{}/connect-sessions", 201),
        Scope.OWNERS_WRITE: ("DELETE", "/v1/owners/{}", 200),
    }
    async with opened(settings[0], **variables) as broker:
        headers = {"authorization": f"Bearer {broker.token(claims)}"}
        for scope, (method, path, success) in asked.items():
            for owner in (*machine[3].split(), "another"):
                answer = await broker.http.request(method, path.format(owner), headers=headers)
                allowed = scope.value in machine[2].split() and owner != "another"
                assert answer.status_code == (success if allowed else 403), (scope, owner)
        assert (await broker.http.get("/v1/linked-accounts", headers=headers)).status_code == 401


async def test_the_cookie_of_the_page_opens_the_door_with_its_header_only(opened: Callable[..., Any]) -> None:
    settings, claims = SECTIONS[USERS[0]].blocks
    [cookie] = SECTIONS[COOKIE].blocks
    variables = {"IDENTITY__ISSUERS": json.dumps(settings), "IDENTITY__COOKIE": json.dumps(cookie)}
    async with opened(settings[0], **variables) as broker:
        ours = {"cookie": f"{cookie['name']}={broker.token(claims)}", "sec-fetch-site": "same-origin"}
        with_header = await broker.http.get("/v1/linked-accounts", headers={**ours, cookie["csrf_header"]: "1"})
        without = await broker.http.get("/v1/linked-accounts", headers=ours)
    assert (with_header.status_code, without.status_code) == (200, 403)
    assert f"{cookie['name']}=<token>; Path=/; Secure; HttpOnly; SameSite=Strict" in SECTIONS[COOKIE].text
