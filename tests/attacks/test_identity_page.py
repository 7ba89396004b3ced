"""The settings in docs/identity.md start a broker, and a token of the shape beside them is whom the page says."""

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from app.identity.authenticate import Authenticator
from app.identity.caller import Scope
from app.identity.user_tokens.tokens import UserTokenRequest, make_user_token
from app.main import create_app
from app.runtime import Externals
from app.settings import PREFIX, load_settings
from tests.support.tokens import Issuer, IssuerServer, StoppedClock, ec_key, rsa_key

pytestmark = pytest.mark.anyio

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "identity.md"
_BLOCK = re.compile(r"```json\n(.*?)```", re.DOTALL)
_PERSON = re.compile(r"^Owner `(.+)`, name `(.+)`, user `(.+)`\.$", re.MULTILINE)
_MACHINE = re.compile(r"^Machine `(.+)`, scopes `(.+)`, owners `(.+)`\.$", re.MULTILINE)
PROXY = "10.20.30.40"
_ENVIRONMENT = {
    "STACKONE__API_KEY": "an-api-key-of-decent-length",
    "STACKONE__WEBHOOK_SECRETS": '["a webhook secret of decent length"]',
    "SERVICE_KEYS__PEPPER": "a pepper of decent length",
    "SYNC__ENABLED": "false",
    "HTTP__TRUSTED_PROXIES": f'["{PROXY}"]',
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
    server: IssuerServer
    clock: StoppedClock
    authenticator: Authenticator
    sent: list[dict[str, Any]] = field(default_factory=list)
    header: str | None = None

    def credential(self, token: str) -> dict[str, str]:
        """Return the headers that a token comes in: as a Bearer, or as the page's proxy passes it."""
        if self.header is None:
            return {"authorization": f"Bearer {token}"}
        return {self.header: token, "sec-fetch-site": "same-origin", "x-connect-broker": "1"}

    def token(self, claims: Mapping[str, Any]) -> str:
        """Sign claims as they stand on the page, with the times that only a fresh token has."""
        shape = {"iat": self.issuer.now, "exp": self.issuer.now + 300, **claims}
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
        [algorithm] = issuer["algorithms"]
        key = ec_key(f"key-{algorithm}", algorithm) if algorithm.startswith("ES") else rsa_key()
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
            httpx2.AsyncClient(
                transport=httpx2.ASGITransport(web, client=(PROXY, 4711)), base_url="https://broker.acme.example"
            ) as http,
        ):
            yield Broker(
                http, signer, server, clock, web.state.runtime.authenticator, sent, header=issuer.get("header")
            )

    return opened


def test_the_page_has_every_kind_of_login() -> None:
    names = ["Auth0", "Clerk", "Okta", "Keycloak", "Keycloak Organizations", "Supabase", "WorkOS", "Microsoft Entra"]
    names += ["Microsoft Entra (many tenants)", "Azure AD B2C", "Amazon Cognito", "Kinde", "Clerk, without", "Firebase"]
    names += ["Logto", "Zitadel", "FusionAuth", "authentik", "Descope", "PropelAuth", "Stytch", "Google IAP"]
    names += ["Cloudflare Access", "Numbers for ids", "A login of your own"]
    assert [title for title, name in zip(USERS, names, strict=True) if not title.startswith(name)] == []
    assert all(len(SECTIONS[title].blocks) == 2 for title in [*USERS, MACHINES])
    assert len(SECTIONS[COOKIE].blocks) == 1


@pytest.mark.parametrize("title", USERS)
async def test_a_users_token_is_taken_for_whom_the_page_says(title: str, opened: Callable[..., Any]) -> None:
    settings, claims = SECTIONS[title].blocks
    person = _PERSON.search(SECTIONS[title].text)
    assert person is not None
    async with opened(settings[0], IDENTITY__ISSUERS=json.dumps(settings)) as broker:
        headers = broker.credential(broker.token(claims))
        answer = await broker.http.post("/v1/connect-sessions", headers=headers)
        assert answer.status_code == 201, answer.text
        # What the command says of it is what the route does.
        explained = await broker.authenticator.explain(broker.token(claims))
        assert (explained.accepted, explained.owner_id, explained.matched) == (True, person[1], settings[0]["issuer"])
        [sent] = broker.sent
        names = ("origin_owner_id", "origin_owner_name", "origin_username")
        assert tuple(sent[name] for name in names) == person.groups()


@pytest.mark.parametrize("title", USERS)
async def test_a_token_that_lacks_what_the_page_asks_for_is_refused(title: str, opened: Callable[..., Any]) -> None:
    settings, claims = SECTIONS[title].blocks
    async with opened(settings[0], IDENTITY__ISSUERS=json.dumps(settings)) as broker:
        for wrong, named in wrong_ones(settings[0], claims, broker.issuer.now):
            token = broker.token(wrong)
            with capture_logs() as lines:
                answer = await broker.http.get("/v1/linked-accounts", headers=broker.credential(token))
            assert answer.status_code == 401, wrong
            [reason] = [line["reason"] for line in lines if "reason" in line]
            assert named in reason, (wrong, reason)
            assert reason not in answer.text
            explained = await broker.authenticator.explain(token)
            assert not explained.accepted
            assert named in explained.reason


def wrong_ones(
    issuer: Mapping[str, Any], claims: Mapping[str, Any], now: int
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield claims with something wrong, and what the log's reason must name."""

    def without(name: str) -> dict[str, Any]:
        return {known: value for known, value in claims.items() if known != name}

    path = issuer["claims"]["owner_id"]
    first = path[0] if isinstance(path, list) else path if path in claims else path.partition(".")[0]
    yield without(first), first
    yield {**claims, "iss": claims["iss"] + "/x"}, "iss"
    audience = issuer.get("audience_claim", "aud")
    if audience != "iss":
        yield {**claims, audience: "another"}, audience
        yield without(audience), audience
    yield without("sub"), "sub"
    for name in issuer.get("required_claims", {}):
        yield {**claims, name: "other"}, name
        yield without(name), name
    if (name := issuer.get("access_token_claim")) is not None:
        yield without(name), name
    if issuer.get("tenants"):
        yield {**claims, "tid": "11111111-2222-3333-4444-555555555555"}, "tid"
        other = "11111111-2222-3333-4444-555555555555"
        yield {**claims, "tid": other, "iss": claims["iss"].replace(claims["tid"], other)}, "tid"
    form = issuer["claims"].get("owner_id_form")
    if form == "integer":
        yield {**claims, path: "4711"}, path
        yield {**claims, path: True}, path
    if form == "map":
        yield {**claims, path: {**claims[path], "other": {}, "another": {}}, "dct": "nowhere"}, path
        yield {**claims, path: list(claims[path])}, path
    if form is None:
        yield {**claims, first: ["tailspin"]}, first
    yield {**claims, "exp": now + issuer.get("max_lifetime_seconds", 86_400) + 1, "iat": now}, "exp"
    yield {**claims, "nbf": now + 600}, "nbf"
    yield {**claims, "iat": now + 600, "exp": now + 900}, "iat"
    yield {**claims, "jti": 5}, "jti"


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


IAP = "Google IAP"


async def test_a_proxys_header_counts_from_a_trusted_proxy_only_and_nowhere_else(opened: Callable[..., Any]) -> None:
    settings, claims = SECTIONS[IAP].blocks
    variables = {"IDENTITY__ISSUERS": json.dumps(settings)}
    async with opened(settings[0], **variables) as broker:
        good = broker.credential(broker.token(claims))
        token = good["x-goog-iap-jwt-assertion"]
        assert (await broker.http.get("/v1/linked-accounts", headers=good)).status_code == 200
        # Not as a Bearer, even though it is remembered; not twice; not by another site.
        for headers, status in (
            ({"authorization": f"Bearer {token}"}, 401),
            ({**good, "authorization": "Bearer x.y.z"}, 401),
            ({"cf-access-jwt-assertion": token, "sec-fetch-site": "same-origin", "x-connect-broker": "1"}, 401),
            ({name: value for name, value in good.items() if name != "x-connect-broker"}, 403),
            ({**good, "sec-fetch-site": "cross-site"}, 403),
        ):
            answer = await broker.http.get("/v1/linked-accounts", headers=headers)
            assert answer.status_code == status, headers
        twice = [*good.items(), ("x-goog-iap-jwt-assertion", token)]
        assert (await broker.http.get("/v1/linked-accounts", headers=twice)).status_code == 401
        assert (await broker.http.get("/v1/events", headers=good)).status_code == 401
    async with opened(settings[0], **variables, HTTP__TRUSTED_PROXIES='["10.20.30.41"]') as broker:
        headers = broker.credential(broker.token(claims))
        assert (await broker.http.get("/v1/linked-accounts", headers=headers)).status_code == 401


async def test_one_issuer_with_two_families_of_algorithms(opened: Callable[..., Any]) -> None:
    """Supabase moves projects from a shared secret to ES256, and issues both for a while."""
    settings, claims = SECTIONS["Supabase"].blocks
    secret = "a shared secret of at least 32 bytes, as Supabase has it"
    shared = {**settings[0], "algorithms": ["HS256"], "secret": secret}
    del shared["jwks_uri"]
    async with opened(settings[0], IDENTITY__ISSUERS=json.dumps([*settings, shared])) as broker:
        old = Issuer(StoppedClock(), claims["iss"], secret=secret)
        times = {"iat": old.now, "exp": old.now + 300}
        for token in (broker.token(claims), old.token("org_id", "org_name", **claims, **times)):
            answer = await broker.http.get("/v1/linked-accounts", headers=broker.credential(token))
            assert answer.status_code == 200, answer.text
        # The public key is no secret: what is signed with it as if it were one stays out.
        forged = Issuer(StoppedClock(), claims["iss"], secret=broker.issuer.key.public_pem().decode())
        answer = await broker.http.get(
            "/v1/linked-accounts", headers=broker.credential(forged.token(**claims, **times))
        )
        assert answer.status_code == 401


async def test_a_key_for_one_tenant_signs_for_no_other(opened: Callable[..., Any]) -> None:
    """Microsoft's key set of all tenants has keys with an `issuer` of their own, such as that of personal accounts."""
    settings, claims = SECTIONS["Microsoft Entra (many tenants)"].blocks
    everybody = [{**settings[0], "tenants": "any"}]
    for of_key, status in (
        (None, 200),
        ("https://login.microsoftonline.com/{tenantid}/v2.0", 200),
        ("https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0", 401),
    ):
        async with opened(settings[0], IDENTITY__ISSUERS=json.dumps(everybody)) as broker:
            key = {**broker.issuer.key.jwk(), **({"issuer": of_key} if of_key else {})}
            common = rsa_key("common").jwk(issuer="https://login.microsoftonline.com/{tenantid}/v2.0")
            broker.server.answers[settings[0]["jwks_uri"]] = broker.server.json({"keys": [key, common]})
            answer = await broker.http.get("/v1/linked-accounts", headers=broker.credential(broker.token(claims)))
            assert answer.status_code == status, (of_key, answer.text)
            wrong = {**claims, "iss": "https://login.microsoftonline.com/../evil/v2.0"}
            answer = await broker.http.get("/v1/linked-accounts", headers=broker.credential(broker.token(wrong)))
            assert answer.status_code == 401


async def test_a_list_of_one_as_keycloak_has_it_without_ids(opened: Callable[..., Any]) -> None:
    settings, claims = SECTIONS["Keycloak Organizations"].blocks
    listed = {**settings[0], "claims": {"owner_id": "organization", "owner_id_form": "list"}}
    async with opened(settings[0], IDENTITY__ISSUERS=json.dumps([listed])) as broker:
        for aliases, owner_id in ((["tailspin"], "tailspin"), (["tailspin", "wingtip"], None), ([], None)):
            explained = await broker.authenticator.explain(broker.token({**claims, "organization": aliases}))
            assert explained.owner_id == owner_id
            assert explained.accepted or "organization" in explained.reason


async def test_a_provider_of_users_and_machines_is_explained_by_the_route_that_accepts(
    opened: Callable[..., Any],
) -> None:
    settings, claims = SECTIONS[MACHINES].blocks
    users = [{**settings[0], "audiences": ["connect-broker"], "claims": {"owner_id": "org_id"}}]
    for name in ("scope_claim", "owners_claim"):
        del users[0][name]
    variables = {"IDENTITY__ISSUERS": json.dumps(users), "IDENTITY__MACHINE_ISSUERS": json.dumps(settings)}
    async with opened(settings[0], **variables) as broker:
        explained = await broker.authenticator.explain(broker.token(claims))
        assert (explained.accepted, explained.routes, explained.username) == (True, "service", claims["sub"])
        explained = await broker.authenticator.explain(broker.token({**claims, "aud": "connect-broker"}))
        assert not explained.accepted
        assert "org_id" in explained.reason
        assert "on service routes, the token's aud" in explained.reason


async def test_a_proxys_token_is_explained_with_its_header_and_a_long_one_as_routes_see_it(
    opened: Callable[..., Any],
) -> None:
    settings, claims = SECTIONS[IAP].blocks
    async with opened(settings[0], IDENTITY__ISSUERS=json.dumps(settings)) as broker:
        explained = await broker.authenticator.explain(broker.token(claims))
        assert (explained.accepted, explained.header) == (True, "x-goog-iap-jwt-assertion")
        explained = await broker.authenticator.explain(broker.token({**claims, "filler": "x" * 40_000}))
        assert (explained.accepted, explained.reason) == (False, "the token is too long")


async def test_a_user_token_of_the_brokers_own_is_explained(opened: Callable[..., Any]) -> None:
    settings, _ = SECTIONS[USERS[0]].blocks
    secrets = json.dumps(["a secret for user tokens, of at least 32 bytes"])
    async with opened(settings[0], IDENTITY__ISSUERS=json.dumps(settings), USER_TOKENS__SECRETS=secrets) as broker:
        request, now = UserTokenRequest("ann"), datetime.fromtimestamp(broker.issuer.now, UTC)
        user_tokens = load_settings().user_tokens
        made = make_user_token(user_tokens, "tailspin", request, token_id="1", as_of=0, now=now)
        text = made.token.get_secret_value()
        answer = await broker.http.get("/v1/linked-accounts", headers=broker.credential(text))
        explained = await broker.authenticator.explain(text)
        assert (answer.status_code, explained.accepted, explained.owner_id) == (200, True, "tailspin")
        assert not (await broker.authenticator.explain(text[:-4] + "AAAA")).accepted
