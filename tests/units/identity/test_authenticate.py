"""The Authorization header: its syntax, which credential is accepted on which routes, and that nothing is a 500."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import InvalidRequest, Unauthenticated
from app.identity.authenticate import Authenticator, Credentials
from app.identity.cookie import CsrfRefused
from tests.support.tokens import Issuer, compact

pytestmark = pytest.mark.anyio

MakeAuthenticator = Callable[..., AbstractAsyncContextManager[Authenticator]]
SERVICE_KEY = f"sk_{'a' * 16}_{'A' * 43}"


def with_headers(*authorization: str) -> Credentials:
    return Credentials(list(authorization), [], None, None, None)


async def test_no_credential_gets_the_bare_challenge(authenticator: Authenticator) -> None:
    """RFC 6750 section 3: no error code where no credential was sent."""
    for channel in (authenticator.end_user, authenticator.service):
        with pytest.raises(Unauthenticated) as refusal:
            await channel(with_headers())
        assert refusal.value.challenge_error is None


async def test_two_authorization_headers_are_a_bad_request(authenticator: Authenticator, issuer: Issuer) -> None:
    """Proxies disagree on which one counts, so one of them could be checked and the other one used."""
    good = f"Bearer {issuer.token()}"
    for channel in (authenticator.end_user, authenticator.service):
        for headers in ((good, good), (good, "Bearer junk"), ("", good), (good, "")):
            with pytest.raises(InvalidRequest):
                await channel(with_headers(*headers))


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "BeArEr ", "Bearer    "])
async def test_the_scheme_in_any_case(scheme: str, authenticator: Authenticator, issuer: Issuer) -> None:
    assert (await authenticator.end_user(with_headers(scheme + issuer.token()))).owner_id == "acme"


MALFORMED: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "blank": lambda _: " ",
    "scheme-only": lambda _: "Bearer",
    "scheme-and-blank": lambda _: "Bearer ",
    "no-scheme": lambda token: token,
    "basic": lambda token: f"Basic {token}",
    "dpop": lambda token: f"DPoP {token}",
    "token-scheme": lambda token: f"Token {token}",
    "no-blank": lambda token: f"Bearer{token}",
    "tab": lambda token: f"Bearer\t{token}",
    "equals": lambda token: f"Bearer={token}",
    "colon": lambda token: f"Bearer: {token}",
    "quoted": lambda token: f'Bearer "{token}"',
    "leading-blank": lambda token: f" Bearer {token}",
    "trailing-blank": lambda token: f"Bearer {token} ",
    "two-tokens": lambda token: f"Bearer {token} {token}",
    "two-in-one-header": lambda token: f"Bearer {token}, Bearer {token}",
    "with-parameter": lambda token: f'Bearer {token}, realm="x"',
    "scheme-twice": lambda token: f"Bearer Bearer {token}",
    "header-injection": lambda token: f"Bearer {token}\r\nX-Owner: evil",
    "null": lambda _: "Bearer null",
    "undefined": lambda _: "Bearer undefined",
    "object": lambda _: "Bearer [object Object]",
    "turkish-i": lambda token: f"BEAR\u0130R {token}",
    "long-s": lambda token: f"Bearer \u017f{token}",
}


@pytest.mark.parametrize("spell", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_header_is_a_bad_credential_at_both_channels(
    spell: Callable[[str], str], authenticator: Authenticator, issuer: Issuer
) -> None:
    for channel, token in ((authenticator.end_user, issuer.token()), (authenticator.service, SERVICE_KEY)):
        with pytest.raises(Unauthenticated) as refusal:
            await channel(with_headers(spell(token)))
        assert refusal.value.challenge_error == "invalid_token"


async def test_browser_routes_accept_no_service_key(authenticator: Authenticator) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await authenticator.end_user(with_headers(f"Bearer {SERVICE_KEY}"))
    assert refusal.value.reason == "a service key on a browser route"


async def test_service_routes_accept_no_users_token(authenticator: Authenticator, issuer: Issuer) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await authenticator.service(with_headers(f"Bearer {issuer.token(scope='accounts:read sync:write')}"))
    assert refusal.value.reason == "the token's issuer (iss) is not trusted on these routes"


@pytest.mark.usefixtures("unused_database")
async def test_what_is_no_credential_never_reaches_the_store(authenticator: Authenticator, issuer: Issuer) -> None:
    for text in (issuer.token(), "junk", "sk_junk", "sk_", "SK_" + SERVICE_KEY[3:]):
        with pytest.raises(Unauthenticated):
            await authenticator.service(with_headers(f"Bearer {text}"))


async def test_credentials_stay_out_of_representations(issuer: Issuer) -> None:
    sent = Credentials([f"Bearer {issuer.token()}"], ["__Host-x=secret-cookie"], None, None, None)

    assert "eyJ" not in repr(sent)
    assert "secret-cookie" not in repr(sent)


any_text = st.text() | st.text(alphabet=st.characters(codec=None), max_size=50)
header_text = any_text | any_text.map("Bearer {}".format) | any_text.map("Bearer sk_{}".format)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
quick = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@quick
@given(headers=st.lists(header_text, max_size=2))
async def test_no_header_text_is_a_500(headers: list[str], authenticator: Authenticator) -> None:
    for channel in (authenticator.end_user, authenticator.service):
        with pytest.raises((Unauthenticated, InvalidRequest)):
            await channel(with_headers(*headers))


@quick
@given(
    cookies=st.lists(any_text | any_text.map("__Host-connect-broker={}".format), max_size=2),
    origin=st.none() | any_text,
    site=st.none() | any_text | st.just("same-origin"),
    header=st.none() | any_text,
)
async def test_no_cookie_text_is_a_500(
    cookies: list[str], origin: str | None, site: str | None, header: str | None, make_authenticator: MakeAuthenticator
) -> None:
    async with make_authenticator(cookie={}, allowed_origins=("https://app.acme.example",)) as authenticator:
        with pytest.raises((Unauthenticated, CsrfRefused)):
            await authenticator.end_user(Credentials([], cookies, origin, site, header))


@quick
@given(header=json_values, payload=json_values)
async def test_no_json_in_a_token_is_a_500(
    header: object, payload: object, authenticator: Authenticator, issuer: Issuer
) -> None:
    with pytest.raises(Unauthenticated):
        await authenticator.end_user(with_headers("Bearer " + compact(header, payload, issuer.sign)))


@quick
@given(
    header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "b64", "x5c", "zip"]), json_values),
    payload=st.dictionaries(
        st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "org_id", "org_name", "email"]),
        json_values,
        min_size=1,
    ),
)
async def test_no_honestly_signed_nonsense_is_a_500(
    header: dict[str, object], payload: dict[str, object], authenticator: Authenticator, issuer: Issuer
) -> None:
    """What a broken or hostile issuer may sign: a user comes of it only if it is a user."""
    token = compact({**issuer.header(), **header}, {**issuer.claims(), **payload}, issuer.sign)
    try:
        user = await authenticator.end_user(with_headers(f"Bearer {token}"))
    except Unauthenticated:
        return
    assert isinstance(user.owner_id, str)
    assert user.owner_id == {**issuer.claims(), **payload}["org_id"]
