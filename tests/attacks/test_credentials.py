"""Forged and misplaced credentials, each an attack with a name, sent over the wire: one refusal, and no request for it.

The forgeries are those of the unit tests, where each is shown to fail for its own reason; here each meets the whole
broker, with the key of a real issuer behind it.
"""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from app.identity.caller import Scope
from app.identity.service_keys import keys as api_keys
from tests.attacks.opened import asked_of_issuer, asked_upstream, body_told, open_attacked, stored, told
from tests.attacks.wire import RawAnswer, send_raw
from tests.support.forgeries import FORGERIES
from tests.support.tokens import Issuer, SigningKey, StoppedClock, compact, rsa_key
from tests.support.world import PEPPER, WEBHOOK_SECRET, World

pytestmark = pytest.mark.anyio

ROUTE = "/v1/linked-accounts"
SERVICE_ROUTE = "/v1/owners/org_acme/linked-accounts"
# No header value can hold them, so no header can bring such a token.
_NOT_IN_A_HEADER = ("\n", "\r", "\x00")
_ATTACKERS_PATH = "/attackers-keys.json"


@dataclass(frozen=True)
class Channels:
    """The broker, and an issuer that signs whatever it is asked to with the key that the broker believes."""

    world: World
    issuer: Issuer

    async def send(
        self, *headers: tuple[bytes | str, bytes | str], target: str = ROUTE, method: str = "GET", body: bytes = b""
    ) -> RawAnswer:
        """Send a request with exactly these headers."""
        return await send_raw(self.world, target, headers=headers, method=method, body=body)

    def good(self) -> str:
        """Return a token that opens the channel."""
        return self.issuer.token()


@pytest.fixture(scope="module")
async def channels(attacked_url: str) -> AsyncIterator[Channels]:
    """Open a world whose broker has its issuer's keys already, and the issuer's time."""
    clock = StoppedClock(datetime.now(UTC))
    async with open_attacked(attacked_url, clock=clock) as world:
        key = world.provider.keys.signing("RS256")
        issuer = Issuer(clock, world.issuer, key=SigningKey(key.kid, key.algorithm, key.private))
        opened = Channels(world, issuer)
        assert (await opened.send(("Authorization", f"Bearer {opened.good()}"))).status == 200
        yield opened


def refusal(answer: RawAnswer) -> tuple[int, dict[str, str], object]:
    """Return everything that a refusal tells."""
    headers = {name: value for name, value in answer.headers.items() if name not in {"date", "x-request-id"}}
    return answer.status, headers, body_told(answer.body)


async def expected(channels: Channels) -> tuple[int, dict[str, str], object]:
    """Return the one refusal that every bad credential gets."""
    told_of_junk = refusal(await channels.send(("Authorization", "Bearer junk")))
    assert told_of_junk[0] == 401
    assert told_of_junk[1]["www-authenticate"] == 'Bearer realm="connect-broker", error="invalid_token"'
    return told_of_junk


@pytest.mark.parametrize(("_reason", "forge"), FORGERIES.values(), ids=FORGERIES.keys())
async def test_a_forged_token_gets_the_one_refusal_and_costs_no_request(
    channels: Channels, _reason: str, forge: Callable[[Issuer], str]
) -> None:
    token = forge(channels.issuer)
    before = asked_of_issuer(channels.world), asked_upstream(channels.world)

    answer = await channels.send(("Authorization", f"Bearer {token}"))

    if any(character in token for character in _NOT_IN_A_HEADER):
        assert answer.status in {400, 401}
    else:
        assert refusal(answer) == await expected(channels)
    assert (asked_of_issuer(channels.world), asked_upstream(channels.world)) == before


OFFERED: Mapping[str, Callable[[str], dict[str, object]]] = {
    "jku": lambda url: {"jku": url},
    "x5u": lambda url: {"x5u": url},
    "kid": lambda url: {"kid": url},
    "jku-and-jwk": lambda url: {"jku": url, "jwk": rsa_key("attacker").jwk()},
    "issuer": lambda _url: {},
}


@pytest.mark.parametrize("offer", OFFERED.values(), ids=OFFERED.keys())
@pytest.mark.parametrize("where", ["the issuer's own machine", "StackOne's"])
async def test_nobody_fetches_keys_from_where_a_token_says(
    channels: Channels, offer: Callable[[str], dict[str, object]], where: str
) -> None:
    """Both machines would answer, and both write down who asks them."""
    home = (
        channels.world.issuer if where.startswith("the issuer") else str(channels.world.stackone.base_url).rstrip("/")
    )
    header, claims = channels.issuer.header(**offer(home + _ATTACKERS_PATH)), channels.issuer.claims()
    if not offer(home):
        claims["iss"] = home + "/tenant"
    before = asked_of_issuer(channels.world), asked_upstream(channels.world)

    answer = await channels.send(("Authorization", f"Bearer {compact(header, claims, rsa_key('attacker').sign)}"))

    assert refusal(answer) == await expected(channels)
    assert (asked_of_issuer(channels.world), asked_upstream(channels.world)) == before


async def test_the_same_forgeries_open_no_service_route(channels: Channels) -> None:
    answers = {
        str(refusal(await channels.send(("Authorization", f"Bearer {forge(channels.issuer)}"), target=SERVICE_ROUTE)))
        for name, (_, forge) in FORGERIES.items()
        if not any(character in forge(channels.issuer) for character in _NOT_IN_A_HEADER)
    }
    assert answers == {str(await expected(channels))}


def basic(user: str, password: str) -> str:
    """Spell Basic credentials."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


SCHEMES: Mapping[str, Callable[[str], str]] = {
    "no-scheme": lambda token: token,
    "basic-with-token": lambda token: f"Basic {basic(token, '')}",
    "basic-with-token-as-password": lambda token: f"Basic {basic('alice', token)}",
    "dpop": lambda token: f"DPoP {token}",
    "token": lambda token: f"Token {token}",
    "jwt": lambda token: f"JWT {token}",
    "digest": lambda token: f'Digest username="alice", response="{token}"',
    "bearer-only": lambda _token: "Bearer",
    "bearer-blank": lambda _token: "Bearer  ",
    "bearer-colon": lambda token: f"Bearer: {token}",
    "bearer-equals": lambda token: f"Bearer={token}",
    "bearer-tab": lambda token: f"Bearer\t{token}",
    "bearer-quoted": lambda token: f'Bearer "{token}"',
    "bearer-twice": lambda token: f"Bearer Bearer {token}",
    "bearer-list": lambda token: f"Bearer {token}, Bearer {token}",
    "bearer-and-basic": lambda token: f"Bearer {token}, Basic {basic('a', 'b')}",
    "basic-and-bearer": lambda token: f"Basic {basic('a', 'b')}, Bearer {token}",
    "bearer-parameter": lambda token: f"Bearer {token} scope=all",
    "bearer-semicolon": lambda token: f"Bearer {token};",
    "bearer-comma": lambda token: f"Bearer {token},",
    "full-width-bearer": lambda token: f"\uff22earer {token}",
    "no-break-space": lambda token: f"Bearer\u00a0{token}",
    "empty": lambda _token: "",
    "null": lambda _token: "null",
    "undefined": lambda _token: "Bearer undefined",
}


@pytest.mark.parametrize("spell", SCHEMES.values(), ids=SCHEMES.keys())
async def test_a_good_token_under_another_scheme_is_refused(channels: Channels, spell: Callable[[str], str]) -> None:
    answer = await channels.send(("Authorization", spell(channels.good())))
    assert refusal(answer) == await expected(channels)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
async def test_the_scheme_has_no_case(channels: Channels, scheme: str) -> None:
    """RFC 9110 section 11.1; if this failed, the refusals above would prove little."""
    assert (await channels.send(("Authorization", f"{scheme} {channels.good()}"))).status == 200


TWO: Mapping[str, Callable[[str], list[tuple[str, str]]]] = {
    "same-twice": lambda token: [("Authorization", f"Bearer {token}")] * 2,
    "good-then-junk": lambda token: [("Authorization", f"Bearer {token}"), ("Authorization", "Bearer junk")],
    "junk-then-good": lambda token: [("Authorization", "Bearer junk"), ("Authorization", f"Bearer {token}")],
    "basic-then-good": lambda token: [("Authorization", "Basic YTpi"), ("Authorization", f"Bearer {token}")],
    "other-case": lambda token: [("authorization", f"Bearer {token}"), ("AUTHORIZATION", f"Bearer {token}")],
    "empty-then-good": lambda token: [("Authorization", ""), ("Authorization", f"Bearer {token}")],
    "ten": lambda token: [("Authorization", f"Bearer {token}")] * 10,
}


@pytest.mark.parametrize("spell", TWO.values(), ids=TWO.keys())
@pytest.mark.parametrize("target", [ROUTE, SERVICE_ROUTE])
async def test_two_authorization_headers_are_no_credential_but_a_mistake(
    channels: Channels, spell: Callable[[str], list[tuple[str, str]]], target: str
) -> None:
    """RFC 6750 section 3.1: invalid_request. Proxies and we must not differ about which one counts."""
    answer = await channels.send(*spell(channels.good()), target=target)
    told_of_two = refusal(await channels.send(*TWO["same-twice"]("junk"), target=target))
    assert answer.status == 400
    assert refusal(answer) == told_of_two


_CSRF = ("X-Connect-Broker", "1")
_SAME = ("Sec-Fetch-Site", "same-origin")
ELSEWHERE: Mapping[str, Callable[[str], tuple[str, list[tuple[str, str]]]]] = {
    "query-access-token": lambda token: (f"{ROUTE}?access_token={token}", []),
    "query-token": lambda token: (f"{ROUTE}?token={token}", []),
    "query-authorization": lambda token: (f"{ROUTE}?authorization=Bearer%20{token}", []),
    "query-api-key": lambda token: (f"{ROUTE}?api_key={token}", []),
    "user-information": lambda token: (f"http://{token}@127.0.0.1{ROUTE}", []),
    "x-authorization": lambda token: (ROUTE, [("X-Authorization", f"Bearer {token}")]),
    "proxy-authorization": lambda token: (ROUTE, [("Proxy-Authorization", f"Bearer {token}")]),
    "x-access-token": lambda token: (ROUTE, [("X-Access-Token", token)]),
    "x-forwarded-access-token": lambda token: (ROUTE, [("X-Forwarded-Access-Token", token)]),
    "x-id-token": lambda token: (ROUTE, [("X-Id-Token", token)]),
    "x-amzn-oidc-data": lambda token: (ROUTE, [("X-Amzn-Oidc-Data", token)]),
    "cf-access-jwt": lambda token: (ROUTE, [("Cf-Access-Jwt-Assertion", token)]),
    "x-goog-iap-jwt": lambda token: (ROUTE, [("X-Goog-Iap-Jwt-Assertion", token)]),
    "x-api-key": lambda token: (ROUTE, [("X-Api-Key", token)]),
    "underscore": lambda token: (ROUTE, [("HTTP_AUTHORIZATION", f"Bearer {token}")]),
    "websocket-protocol": lambda token: (ROUTE, [("Sec-WebSocket-Protocol", f"bearer, {token}")]),
    "cookie-of-cookie-mode": lambda token: (ROUTE, [("Cookie", f"__Host-connect-broker={token}"), _CSRF, _SAME]),
    "cookie-authorization": lambda token: (ROUTE, [("Cookie", f"Authorization=Bearer {token}"), _CSRF, _SAME]),
    "cookie-access-token": lambda token: (ROUTE, [("Cookie", f"access_token={token}"), _CSRF, _SAME]),
}


@pytest.mark.parametrize("spell", ELSEWHERE.values(), ids=ELSEWHERE.keys())
async def test_a_good_token_in_another_place_is_not_looked_at(
    channels: Channels, spell: Callable[[str], tuple[str, list[tuple[str, str]]]]
) -> None:
    """Queries end up in logs, and every other place is one that a proxy or a foreign page may fill."""
    target, headers = spell(channels.good())
    answer = await channels.send(*headers, target=target)
    assert refusal(answer) == refusal(await channels.send())
    assert answer.headers["www-authenticate"] == 'Bearer realm="connect-broker"'


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/json"])
async def test_a_good_token_in_the_body_is_not_looked_at(channels: Channels, kind: str) -> None:
    token = channels.good()
    body = f'{{"access_token": "{token}"}}' if kind.endswith("json") else f"access_token={token}"
    before = await stored(channels.world), asked_upstream(channels.world)
    answer = await channels.send(
        ("Content-Type", kind), target="/v1/connect-sessions", method="POST", body=body.encode()
    )
    assert answer.status == 401
    assert (await stored(channels.world), asked_upstream(channels.world)) == before


async def _expired(world: World) -> str:
    now = datetime.now(UTC)
    async with world.runtime.database.transaction() as connection:
        created = await api_keys.create_key(
            connection,
            name="expired",
            scopes=tuple(Scope),
            owner_ids=None,
            expires_at=now - timedelta(hours=1),
            now=now - timedelta(days=1),
            pepper=PEPPER.encode(),
            token_bytes=world.runtime.token_bytes,
        )
    return created.key


async def _revoked(world: World) -> str:
    key = await world.create_key()
    async with world.runtime.database.transaction() as connection:
        assert await api_keys.revoke_key(connection, str(api_keys.key_id_of(key)), datetime.now(UTC))
    return key


async def _other_pepper(world: World) -> str:
    now = datetime.now(UTC)
    async with world.runtime.database.transaction() as connection:
        created = await api_keys.create_key(
            connection,
            name="of a copied database",
            scopes=tuple(Scope),
            owner_ids=None,
            expires_at=None,
            now=now,
            pepper=b"another pepper of decent length",
            token_bytes=world.runtime.token_bytes,
        )
    return created.key


def _other_character(key: str, at: int) -> str:
    return key[:at] + ("A" if key[at] != "A" else "B") + key[at + 1 :]


KEYS: Mapping[str, Callable[[str], str]] = {
    "prefix-only": lambda _key: "sk_",
    "id-only": lambda key: key[:20],
    "no-secret": lambda key: key[:20] + "A" * 43,
    "secret-truncated": lambda key: key[:-1],
    "secret-extended": lambda key: key + "A",
    "secret-other-first": lambda key: _other_character(key, 20),
    "secret-other-last": lambda key: _other_character(key, -2)[:-1] + key[-1],
    "id-upper-case": lambda key: key[:3] + key[3:19].upper() + key[19:],
    "prefix-upper-case": lambda key: "SK" + key[2:],
    "unknown-id": lambda key: "sk_" + "a" * 16 + key[19:],
    "id-pattern": lambda key: "sk_" + "%" * 16 + key[19:],
    "sql": lambda _key: "sk_'OR'1'='1",
    "long": lambda key: key + "A" * 7000,
    "dotted-like-a-jwt": lambda key: key + ".e30.AAAA",
    "padded": lambda key: key + "=",
    "stackones-own": lambda _key: "demo-canary-api-key-7f3a91",
    "pepper": lambda _key: PEPPER,
    "webhook-secret": lambda _key: WEBHOOK_SECRET,
}


@pytest.mark.parametrize("forge", KEYS.values(), ids=KEYS.keys())
async def test_a_key_that_is_nearly_one_is_refused(channels: Channels, forge: Callable[[str], str]) -> None:
    forged = forge(channels.world.service_key)
    assert forged != channels.world.service_key
    answer = await channels.send(("Authorization", f"Bearer {forged}"), target=SERVICE_ROUTE)
    assert refusal(answer) == await expected(channels)


@pytest.mark.parametrize("make", [_expired, _revoked, _other_pepper], ids=["expired", "revoked", "other-pepper"])
async def test_a_key_that_was_one_is_refused_alike(channels: Channels, make: Callable[[World], Awaitable[str]]) -> None:
    key = await make(channels.world)
    answer = await channels.send(("Authorization", f"Bearer {key}"), target=SERVICE_ROUTE)
    assert refusal(answer) == await expected(channels)


async def test_each_door_refuses_the_others_credential_like_junk(channels: Channels) -> None:
    key = await channels.send(("Authorization", f"Bearer {channels.world.service_key}"))
    token = await channels.send(("Authorization", f"Bearer {channels.good()}"), target=SERVICE_ROUTE)
    assert refusal(key) == refusal(token) == await expected(channels)


async def test_the_refusal_is_the_same_for_every_route_of_both_channels(channels: Channels) -> None:
    headers = {"authorization": "Bearer junk"}
    answers = [
        await channels.world.broker.request(method, path, headers=headers)
        for method, path in (
            ("POST", "/v1/connect-sessions"),
            ("GET", "/v1/connect-sessions/cs_x"),
            ("GET", ROUTE),
            ("GET", f"{ROUTE}/x"),
            ("POST", f"{ROUTE}/x/confirm"),
            ("DELETE", f"{ROUTE}/x"),
            ("GET", SERVICE_ROUTE),
            ("GET", "/v1/events"),
            ("POST", "/v1/sync"),
        )
    ]
    assert len({str(told(answer)) for answer in answers}) == 1
