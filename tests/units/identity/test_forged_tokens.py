"""Tokens that must not open the browser channel, each an attack with a name; and that none of them costs a request."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from app.errors import Unauthenticated
from app.identity.authenticate import Authenticator, Credentials
from tests.support.case_names import spelled
from tests.support.forgeries import FORGERIES, SOMEWHERE, Forge
from tests.support.tokens import Issuer, IssuerServer, StoppedClock, rsa_key

pytestmark = pytest.mark.anyio

MakeAuthenticator = Callable[..., AbstractAsyncContextManager[Authenticator]]


def bearer(token: str) -> Credentials:
    return Credentials([f"Bearer {token}"], [], None, None, None)


def in_cookie(token: str) -> Credentials:
    return Credentials([], [f"__Host-connect-broker={token}"], None, "same-origin", "1")


@pytest.fixture
async def cookie_authenticator(make_authenticator: MakeAuthenticator) -> AsyncIterator[Authenticator]:
    """The cookie brings a token to its check without the Authorization header's own syntax in the way."""
    async with make_authenticator(cookie={}) as authenticator:
        await authenticator.warm()
        yield authenticator


async def test_an_honest_token_opens_the_channel(authenticator: Authenticator, issuer: Issuer) -> None:
    user = await authenticator.end_user(bearer(issuer.token()))

    assert (user.subject, user.owner_id, user.owner_name, user.username) == (
        "user-1",
        "acme",
        "Acme Inc.",
        "ann@acme.example",
    )


@pytest.mark.parametrize(("reason", "forge"), FORGERIES.values(), ids=FORGERIES.keys())
async def test_a_forged_token_is_refused_for_its_own_reason_and_costs_no_request(
    reason: str, forge: Forge, cookie_authenticator: Authenticator, issuer: Issuer, server: IssuerServer
) -> None:
    asked_before = len(server.requests)

    with pytest.raises(Unauthenticated) as refusal:
        await cookie_authenticator.end_user(in_cookie(forge(issuer)))

    assert refusal.value.reason == reason
    assert len(server.requests) == asked_before


@pytest.mark.parametrize(("_reason", "forge"), FORGERIES.values(), ids=FORGERIES.keys())
async def test_every_forged_bearer_gets_the_same_answer(
    _reason: str, forge: Forge, authenticator: Authenticator, issuer: Issuer
) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await authenticator.end_user(bearer(forge(issuer)))

    answer = refusal.value
    assert (answer.status, answer.code, answer.challenge_error) == (401, "unauthenticated", "invalid_token")
    assert (str(answer), answer.detail, answer.errors) == ("A valid credential is required", None, ())


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk-own-key-and-kid", "kid-is-url", "kid-traversal"])
async def test_even_with_the_cooldown_over_only_the_issuer_is_asked(
    name: str, authenticator: Authenticator, issuer: Issuer, server: IssuerServer, clock: StoppedClock
) -> None:
    clock.advance(31)

    with pytest.raises(Unauthenticated):
        await authenticator.end_user(bearer(FORGERIES[name][1](issuer)))

    assert {request.url.host for request in server.requests} == {"login.example.test"}


@pytest.mark.parametrize(
    "name", ["alg-none-with-signature", "hs256-with-public-pem", "es256-under-rsa-kid", "crit-b64"]
)
async def test_what_cannot_be_right_does_not_even_fetch_the_first_keys(
    name: str, make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer
) -> None:
    async with make_authenticator() as authenticator:
        with pytest.raises(Unauthenticated):
            await authenticator.end_user(bearer(FORGERIES[name][1](issuer)))

    assert server.requests == []


async def test_the_reason_in_the_log_never_holds_what_was_sent(authenticator: Authenticator, issuer: Issuer) -> None:
    claims = {"iss": "canary-iss", "aud": "canary-aud", "sub": "canary\x00", "org_id": ["canary"], "exp": "canary"}
    marked = [issuer.token(**{name: value}) for name, value in claims.items()]
    marked += [issuer.token_with_header(alg="canary"), issuer.token_with_header(kid="canary")]
    for token in marked:
        with pytest.raises(Unauthenticated) as refusal:
            await authenticator.end_user(bearer(token))
        assert "canary" not in refusal.value.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["another-api", "connect-broker"]},
        {"aud": ["connect-broker"]},
        {"exp": 1_772_366_400 - 29},
        {"nbf": 1_772_366_400 + 30},
        {"iat": 1_772_366_400 + 30},
        {"iat": 1_772_366_400, "exp": 1_772_366_400 + 86_400},
        {"exp": 1_772_366_400 + 300.5},
        {"sub": "s" * 255},
        {"sub": "ann@acme.example|\N{SNOWMAN}"},
        {"jti": "one-time"},
        {"typ": "Bearer"},
    ],
    ids=spelled,
)
async def test_what_is_only_unusual_is_accepted(
    changes: dict[str, Any], authenticator: Authenticator, issuer: Issuer
) -> None:
    assert (await authenticator.end_user(bearer(issuer.token(**changes)))).owner_id == "acme"


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt", "application/at+jwt", "okta-internal-at+jwt"])
async def test_any_typ_of_an_access_token_will_do(
    typ: str | None, authenticator: Authenticator, issuer: Issuer
) -> None:
    token = issuer.token_with_header(typ=typ) if typ else issuer.token_with_header("typ")

    assert (await authenticator.end_user(bearer(token))).owner_id == "acme"


async def test_headers_that_offer_keys_are_ignored_not_punished(authenticator: Authenticator, issuer: Issuer) -> None:
    """Some issuers do send them; the token is judged by the issuer's own key, and that is all."""
    offered = {"jku": SOMEWHERE, "x5u": SOMEWHERE, "x5c": ["MIIB"], "jwk": rsa_key("attacker").jwk()}

    assert (await authenticator.end_user(bearer(issuer.token_with_header(**offered)))).owner_id == "acme"


@pytest.mark.parametrize("limit", [4096, 65_536])
async def test_a_token_may_be_as_long_as_a_request_head(
    limit: int, make_authenticator: MakeAuthenticator, issuer: Issuer
) -> None:
    token = issuer.token()
    async with make_authenticator(max_header_bytes=limit) as authenticator:
        for length, told in (
            (limit, "the token's signature is by none of the issuer's keys or secrets"),
            (limit + 1, "the token is too long"),
        ):
            with pytest.raises(Unauthenticated) as refusal:
                await authenticator.end_user(bearer(token + "A" * (length - len(token))))
            assert refusal.value.reason == told


async def test_a_token_with_many_groups_is_read(authenticator: Authenticator, issuer: Issuer) -> None:
    token = issuer.token(groups=[f"group-{number:04}" for number in range(700)])
    assert len(token) > 11_000
    assert (await authenticator.end_user(bearer(token))).owner_id == "acme"
