"""Finding and reading an issuer's keys, whatever it answers."""

import gzip
import json
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from app.errors import SettingsError, Unavailable
from app.identity.authenticate import Authenticator, Credentials
from app.identity.tokens.oidc import open_client
from tests.support.tokens import Issuer, IssuerServer, StoppedClock, rsa_key

pytestmark = pytest.mark.anyio

MakeAuthenticator = Callable[..., AbstractAsyncContextManager[Authenticator]]
DISCOVERY = "https://login.example.test/.well-known/openid-configuration"
KEYS = "https://login.example.test/keys"
Answer = tuple[int, dict[str, str], Iterable[bytes]]


async def enter(authenticator: Authenticator, token: str) -> str:
    return (await authenticator.end_user(Credentials([f"Bearer {token}"], [], None, None, None))).owner_id


def document(**changes: Any) -> Answer:
    return IssuerServer.json({"issuer": "https://login.example.test", "jwks_uri": KEYS, **changes})


def _endless() -> Iterable[bytes]:
    while True:
        yield b" " * 65_536


GOOD_KEYS = json.dumps({"keys": [rsa_key().jwk()]}).encode()
BAD_ANSWERS: dict[str, tuple[str, Answer, str]] = {
    "discovery-500": (DISCOVERY, (500, {}, [b"oops"]), "the issuer answered 500"),
    "discovery-404": (DISCOVERY, (404, {}, [b""]), "the issuer answered 404"),
    "discovery-204": (DISCOVERY, (204, {}, []), "the issuer answered 204"),
    "discovery-html": (DISCOVERY, (200, {}, [b"<html>"]), "the discovery document is not JSON"),
    "discovery-list": (DISCOVERY, IssuerServer.json([]), "the discovery document is not a JSON object"),
    "discovery-not-utf8": (DISCOVERY, (200, {}, [b'{"issuer": "\xff"}']), "the discovery document is not JSON"),
    "discovery-deep": (DISCOVERY, (200, {}, [b"[" * 100_000]), "the discovery document is not JSON"),
    "other-issuer": (
        DISCOVERY,
        document(issuer="https://evil.example"),
        "the discovery document names another issuer",
    ),
    "issuer-with-slash": (
        DISCOVERY,
        document(issuer="https://login.example.test/"),
        "the discovery document names another issuer",
    ),
    "no-issuer": (DISCOVERY, document(issuer=None), "the discovery document names another issuer"),
    "no-jwks-uri": (DISCOVERY, document(jwks_uri=None), "the discovery document has no acceptable jwks_uri"),
    **{
        f"jwks-uri-{name}": (DISCOVERY, document(jwks_uri=uri), "the discovery document has no acceptable jwks_uri")
        for name, uri in {
            "http": "http://login.example.test/keys",
            "loopback-http": "http://127.0.0.1/keys",
            "file": "file:///etc/passwd",
            "relative": "/keys",
            "user": "https://user:pass@login.example.test/keys",
            "no-host": "https:///keys",
            "port": "https://login.example.test:99999999/keys",
            "bad-bracket": "https://[::1/keys",
            "number": 7,
            "list": [KEYS],
            "data": "data:application/json,{}",
        }.items()
    },
    "jwks-uri-unparsable": (
        DISCOVERY,
        document(jwks_uri="https://login.example.test/\x00keys"),
        "the issuer cannot be reached: InvalidURL",
    ),
    "keys-redirect": (KEYS, (302, {"location": "https://evil.example/keys"}, [b""]), "the issuer answered 302"),
    "keys-307": (KEYS, (307, {"location": "https://evil.example/keys"}, [b""]), "the issuer answered 307"),
    "keys-too-large": (
        KEYS,
        (200, {}, [b" " * 200_000, b" " * 62_145, GOOD_KEYS]),
        "the issuer's answer is too large",
    ),
    "keys-endless": (KEYS, (200, {}, _endless()), "the issuer's answer is too large"),
    "keys-gzip": (
        KEYS,
        (200, {"content-encoding": "gzip"}, [gzip.compress(GOOD_KEYS)]),
        "the issuer's answer is compressed, which was not asked for",
    ),
    "keys-html": (KEYS, (200, {}, [b"<html>login</html>"]), "the key set is not JSON"),
    "keys-empty-body": (KEYS, (200, {}, []), "the key set is not JSON"),
    "keys-null": (KEYS, IssuerServer.json(None), "the key set has no list of keys, or more than 50"),
    "keys-object": (KEYS, IssuerServer.json({"keys": {}}), "the key set has no list of keys, or more than 50"),
    "51-keys": (
        KEYS,
        IssuerServer.json({"keys": [rsa_key().jwk(kid=f"k{number}") for number in range(51)]}),
        "the key set has no list of keys, or more than 50",
    ),
    "no-keys": (KEYS, IssuerServer.json({"keys": []}), "the key set has no usable key"),
    "strange-entries": (
        KEYS,
        IssuerServer.json({"keys": [None, 1]}),
        "the key set has no usable key (key 0: it is not for RS256; key 1: it is not for RS256)",
    ),
}


@pytest.mark.parametrize(("url", "answer", "problem"), BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
async def test_a_bad_answer_is_a_clear_503_and_never_costs_good_keys(
    url: str,
    answer: Answer,
    problem: str,
    make_authenticator: MakeAuthenticator,
    issuer: Issuer,
    server: IssuerServer,
    clock: StoppedClock,
) -> None:
    server.answers[url] = answer
    async with make_authenticator() as authenticator:
        with pytest.raises(Unavailable):
            await enter(authenticator, issuer.token())
        assert [status.problem for status in authenticator.issuers_status()] == [problem]

        del server.answers[url]
        clock.advance(30)
        assert await enter(authenticator, issuer.token()) == "acme"

        server.answers[url] = answer
        clock.advance(601)
        assert await enter(authenticator, issuer.token()) == "acme"
        assert [status.problem for status in authenticator.issuers_status()] == [problem]

    assert {request.url.host for request in server.requests} == {"login.example.test"}


async def test_an_answer_of_exactly_the_limit_is_read(
    make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer
) -> None:
    server.answers[KEYS] = (200, {}, [b" " * (256 * 1024 - len(GOOD_KEYS)), GOOD_KEYS])
    async with make_authenticator() as authenticator:
        assert await enter(authenticator, issuer.token()) == "acme"


async def test_50_keys_are_read(make_authenticator: MakeAuthenticator, issuer: Issuer) -> None:
    issuer.published += [rsa_key().jwk(kid=f"k{number}") for number in range(49)]
    async with make_authenticator() as authenticator:
        assert await enter(authenticator, issuer.token()) == "acme"


async def test_whatever_else_goes_wrong_is_no_500(
    make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explode(_request: object) -> None:
        message = "a bug in the transport, with a secret in its text"
        raise KeyError(message)

    monkeypatch.setattr(server, "handle_async_request", explode)
    async with make_authenticator() as authenticator:
        with pytest.raises(Unavailable):
            await enter(authenticator, issuer.token())
        assert [status.problem for status in authenticator.issuers_status()] == ["unexpected KeyError"]


async def test_an_issuer_may_keep_its_keys_on_another_host(
    make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer
) -> None:
    server.answers[DISCOVERY] = document(jwks_uri="https://www.keys.example/certs")
    server.answers["https://www.keys.example/certs"] = (200, {}, [GOOD_KEYS])
    async with make_authenticator() as authenticator:
        assert await enter(authenticator, issuer.token()) == "acme"


@pytest.mark.parametrize("url", ["https://tenant.auth.example/", "https://keycloak.example/realms/acme"])
async def test_discovery_keeps_the_path_and_drops_a_final_slash(
    url: str, make_authenticator: MakeAuthenticator, server: IssuerServer, clock: StoppedClock
) -> None:
    """Auth0's issuer ends in a slash, Keycloak's has a path (OIDC Discovery 1.0 section 4.1)."""
    issuer = Issuer(clock, url)
    server.issuers = [issuer]
    async with make_authenticator(issuers=[issuer.settings()]) as authenticator:
        assert await enter(authenticator, issuer.token()) == "acme"
    assert server.urls[0] == url.rstrip("/") + "/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("home", "keys", "good"),
    [
        ("http://127.0.0.1:8200", "http://127.0.0.1:8200/keys", True),
        ("http://127.0.0.1:8200", "http://localhost:8201/keys", True),
        ("http://[::1]:8200", "https://keys.example/keys", True),
        ("http://127.0.0.1:8200", "http://10.0.0.1/keys", False),
        ("http://127.0.0.1:8200", "http://127.0.0.1.evil.example/keys", False),
        ("http://127.0.0.1:8200", "ftp://127.0.0.1/keys", False),
        ("https://127.0.0.1:8200", "http://127.0.0.1:8200/keys", False),
    ],
)
async def test_plain_http_keys_only_between_loopback_addresses(
    home: str,
    keys: str,
    *,
    good: bool,
    make_authenticator: MakeAuthenticator,
    server: IssuerServer,
    clock: StoppedClock,
) -> None:
    issuer = Issuer(clock, home)
    server.answers[f"{home}/.well-known/openid-configuration"] = IssuerServer.json({"issuer": home, "jwks_uri": keys})
    server.answers[keys] = (200, {}, [GOOD_KEYS])
    async with make_authenticator(issuers=[issuer.settings()]) as authenticator:
        await authenticator.warm()
        assert [status.has_keys for status in authenticator.issuers_status()] == [good]


async def test_a_configured_address_needs_no_discovery(
    make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer
) -> None:
    server.answers["https://cdn.example/jwks.json"] = (200, {}, [GOOD_KEYS])
    async with make_authenticator(issuers=[issuer.settings(jwks_uri="https://cdn.example/jwks.json")]) as authenticator:
        assert await enter(authenticator, issuer.token()) == "acme"
    assert server.urls == ["https://cdn.example/jwks.json"]


async def test_requests_carry_nothing_but_what_is_needed(
    make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer, clock: StoppedClock
) -> None:
    server.answers[KEYS] = (200, {"set-cookie": "tracking=1; Path=/"}, [GOOD_KEYS])
    async with make_authenticator() as authenticator:
        await enter(authenticator, issuer.token())
        clock.advance(601)
        await enter(authenticator, issuer.token())

    assert len(server.requests) == 4
    for request in server.requests:
        assert request.method == "GET"
        assert {"cookie", "authorization"}.isdisjoint(request.headers)
        assert request.headers["accept-encoding"] == "identity"


async def test_nothing_of_the_environment_is_used(
    make_authenticator: MakeAuthenticator,
    issuer: Issuer,
    server: IssuerServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Neither a proxy, which could read along, nor a netrc file, whose password would go to the issuer."""
    (tmp_path / "netrc").write_text("machine login.example.test login broker password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with make_authenticator() as authenticator:
        assert await enter(authenticator, issuer.token()) == "acme"
    assert all("authorization" not in request.headers for request in server.requests)
    async with open_client(1) as client:
        assert client.trust_env is False


async def test_keys_from_a_file(
    make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer, clock: StoppedClock, tmp_path: Path
) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": issuer.published}))
    async with make_authenticator(issuers=[issuer.settings(jwks_file=file)]) as authenticator:
        assert await enter(authenticator, issuer.token()) == "acme"

        issuer.rotate(rsa_key("rsa-2"))
        file.write_text(json.dumps({"keys": issuer.published}))
        clock.advance(30)
        assert await enter(authenticator, issuer.token()) == "acme"
    assert server.requests == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "the key file cannot be read (FileNotFoundError)"),
        ("", "the key set is not JSON"),
        ("{}", "the key set has no list of keys, or more than 50"),
        ('{"keys": []}', "the key set has no usable key"),
        ('{"keys": [{"kty": "oct", "k": "AAAA"}]}', "the key set has no usable key (key 0: it is not for RS256)"),
    ],
)
async def test_an_unusable_key_file_is_a_mistake_at_start(
    content: str | None, problem: str, make_authenticator: MakeAuthenticator, issuer: Issuer, tmp_path: Path
) -> None:
    file = tmp_path / "jwks.json"
    if content is not None:
        file.write_text(content)

    with pytest.raises(SettingsError) as refusal:
        async with make_authenticator(issuers=[issuer.settings(jwks_file=file)]):
            pass

    assert refusal.value.mistakes == (f"BROKER_IDENTITY__ISSUERS[0]: jwks_file: {problem}",)


async def test_a_byte_order_mark_before_discovery_and_keys_is_no_part_of_them(
    make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer
) -> None:
    for url, answer in ((DISCOVERY, document()), (KEYS, (200, {}, [GOOD_KEYS]))):
        server.answers[url] = (200, {}, [b"\xef\xbb\xbf", *answer[2]])
    async with make_authenticator() as authenticator:
        assert await enter(authenticator, issuer.token()) == "acme"


@pytest.mark.parametrize("uri", ["https://login.example.test/keys/", "https://login.example.test/keys/?p=b2c_1_in"])
async def test_keys_are_fetched_from_the_very_address_that_was_written(
    uri: str, make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer
) -> None:
    server.answers[uri] = (200, {}, [GOOD_KEYS])
    async with make_authenticator(issuers=[issuer.settings(jwks_uri=uri)]) as authenticator:
        assert await enter(authenticator, issuer.token()) == "acme"
    assert [str(request.url) for request in server.requests] == [uri]
