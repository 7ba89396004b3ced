"""From a genuine token to an owner: the shapes identity providers use, and the shapes that must not become an owner."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import SettingsError, Unauthenticated
from app.identity.authenticate import Authenticator, Credentials
from app.identity.caller import EndUser
from app.identity.tokens.claims import find_claim, is_decent_text, meets
from tests.support.case_names import spelled
from tests.support.tokens import Issuer, IssuerServer, StoppedClock

pytestmark = pytest.mark.anyio

MakeAuthenticator = Callable[..., AbstractAsyncContextManager[Authenticator]]


async def enter(authenticator: Authenticator, token: str) -> EndUser:
    return await authenticator.end_user(Credentials([f"Bearer {token}"], [], None, None, None))


# Name: (issuer, claim paths, claims beside iss, sub, aud, iat and exp, who it must turn out to be).
PROVIDERS: dict[str, tuple[str, dict[str, Any], dict[str, Any], tuple[str, str, str | None]]] = {
    "auth0-organizations": (
        "https://acme-dev.eu.auth0.com/",
        {"owner_id": "org_id", "owner_name": "org_name", "username": "https://acme.example/email"},
        {
            "sub": "auth0|64f1c0ffee",
            "aud": ["connect-broker", "https://acme-dev.eu.auth0.com/userinfo"],
            "azp": "client",
            "scope": "openid profile",
            "org_id": "org_9ybsU1dN2dKfDkBi",
            "org_name": "acme",
            "https://acme.example/email": "ann@acme.example",
        },
        ("org_9ybsU1dN2dKfDkBi", "acme", "ann@acme.example"),
    ),
    "auth0-namespaced": (
        "https://acme-dev.eu.auth0.com/",
        {"owner_id": "https://acme.example/org.id", "owner_name": "https://acme.example/org_name"},
        {"https://acme.example/org.id": "acme", "https://acme.example/org_name": "Acme"},
        ("acme", "Acme", "user-1"),
    ),
    "clerk-v2": (
        "https://clean-mayfly-62.clerk.accounts.dev",
        {"owner_id": "o.id", "owner_name": "o.slg", "username": "sub"},
        {
            "sub": "user_2aBc",
            "azp": "https://app.acme.example",
            "fva": [8, -1],
            "o": {"id": "org_2xYz", "slg": "acme", "rol": "admin", "per": "read,manage", "fpm": "3"},
            "sid": "sess_1",
            "sts": "active",
            "v": 2,
        },
        ("org_2xYz", "acme", "user_2aBc"),
    ),
    "okta": (
        "https://dev-1.okta.com/oauth2/default",
        {"owner_id": "organization", "username": "sub"},
        {
            "ver": 1,
            "jti": "AT.x",
            "cid": "0oa",
            "uid": "00u",
            "scp": ["openid"],
            "auth_time": 1_772_366_000,
            "sub": "ann@acme.example",
            "organization": "acme",
        },
        ("acme", "acme", "ann@acme.example"),
    ),
    "keycloak-mapper": (
        "https://sso.example/realms/customers",
        {"owner_id": "org_id", "owner_name": "org_name", "username": "preferred_username"},
        {
            "typ": "Bearer",
            "azp": "web",
            "aud": ["connect-broker", "account"],
            "session_state": "s",
            "realm_access": {"roles": ["user"]},
            "resource_access": {"account": {"roles": ["view-profile"]}},
            "preferred_username": "ann",
            "org_id": "acme",
            "org_name": "Acme GmbH & Co. KG",
        },
        ("acme", "Acme GmbH & Co. KG", "ann"),
    ),
    "keycloak-fixed-organization": (
        "https://sso.example/realms/customers",
        {"owner_id": ("organization", "acme.example", "id"), "username": "preferred_username"},
        {"organization": {"acme.example": {"id": "4f9c"}}, "preferred_username": "ann"},
        ("4f9c", "4f9c", "ann"),
    ),
    "supabase": (
        "https://abc.supabase.co/auth/v1",
        {"owner_id": "app_metadata.org_id", "owner_name": "app_metadata.org_name", "username": "email"},
        {
            "aud": "authenticated",
            "role": "authenticated",
            "email": "ann@acme.example",
            "phone": "",
            "app_metadata": {"provider": "email", "providers": ["email"], "org_id": "acme", "org_name": "Acme"},
            "user_metadata": {"org_id": "evil"},
            "amr": [{"method": "password", "timestamp": 1_772_366_000}],
            "is_anonymous": False,
        },
        ("acme", "Acme", "ann@acme.example"),
    ),
    "workos": (
        "https://api.workos.com/user_management/client_01",
        {"owner_id": "org_id", "username": "sub"},
        {"sub": "user_01", "sid": "session_01", "org_id": "org_01H", "role": "member", "permissions": ["a:b"]},
        ("org_01H", "org_01H", "user_01"),
    ),
    "microsoft-entra": (
        "https://login.microsoftonline.com/9122040d-6c67/v2.0",
        {"owner_id": "tid", "username": "preferred_username"},
        {
            "aud": "00000000-aaaa",
            "nbf": 1_772_366_400,
            "aio": "A",
            "azp": "c",
            "azpacr": "0",
            "name": "Ann",
            "oid": "o",
            "preferred_username": "ann@acme.example",
            "scp": "access_as_user",
            "tid": "9122040d-6c67",
            "ver": "2.0",
        },
        ("9122040d-6c67", "9122040d-6c67", "ann@acme.example"),
    ),
    "no-user-name-wanted": (
        "https://login.example.test",
        {"owner_id": "org_id", "username": None},
        {"org_id": "acme"},
        ("acme", "acme", None),
    ),
}


@pytest.mark.parametrize(("url", "paths", "claims", "expected"), PROVIDERS.values(), ids=PROVIDERS.keys())
async def test_each_provider_tells_its_owner(
    url: str,
    paths: dict[str, Any],
    claims: dict[str, Any],
    expected: tuple[str, str, str | None],
    make_authenticator: MakeAuthenticator,
    server: IssuerServer,
    clock: StoppedClock,
) -> None:
    audience = claims.get("aud", "connect-broker")
    issuer = Issuer(clock, url, audience=audience if isinstance(audience, str) else audience[0])
    server.issuers = [issuer]
    token = issuer.token(*({"org_id", "org_name", "email"} - claims.keys()), **claims)
    async with make_authenticator(issuers=[issuer.settings(claims=paths)]) as authenticator:
        user = await enter(authenticator, token)

    assert (user.issuer, user.owner_id, user.username) == (url, expected[0], expected[2])
    assert (
        user.owner_name in {expected[1], "Acme Inc."} if "owner_name" not in paths else user.owner_name == expected[1]
    )
    assert user.claims["sub"] == user.subject


@pytest.mark.parametrize(
    "path", ["user_metadata.org_id", ("user_metadata", "org_id"), "unsafe_metadata.org"], ids=spelled
)
async def test_an_owner_that_users_could_write_themselves_is_a_mistake_at_start(
    path: str | tuple[str, ...], make_authenticator: MakeAuthenticator, issuer: Issuer
) -> None:
    with pytest.raises(SettingsError) as refusal:
        async with make_authenticator(issuers=[issuer.settings(claims={"owner_id": path})]):
            pass

    assert refusal.value.mistakes == ("BROKER_IDENTITY__ISSUERS[0]: claims: users write that owner_id themselves",)


DECENT_BUT_ODD = [
    "A" * 255,
    "Ünï-çødé 漢字 🦜",
    "O'Brien; DROP TABLE owners--",
    "..etc",
    ".a",
    "a b",
    "0",
    "null",
    "%00",
]
NO_OWNER: dict[str, Any] = {
    "null": None,
    "empty": "",
    "number": 7,
    "zero": 0,
    "float": 1.5,
    "true": True,
    "list": ["acme"],
    "empty-list": [],
    "two-owners": ["acme", "evil"],
    "object": {"id": "acme"},
    "256-characters": "A" * 256,
    "nul": "acme\x00",
    "newline": "acme\nevil",
    "carriage-return": "acme\r",
    "escape": "\x1b[2Jacme",
    "delete": "acme\x7f",
    "surrogate": "acme\ud800",
    "leading-blank": " acme",
    "trailing-blank": "acme ",
    "no-break-space": "acme\u00a0",
    "only-blanks": "   ",
}


@pytest.mark.parametrize("value", DECENT_BUT_ODD)
async def test_decent_text_is_kept_as_it_is(value: str, authenticator: Authenticator, issuer: Issuer) -> None:
    user = await enter(authenticator, issuer.token(org_id=value, org_name=value, email=value, sub=value))

    assert {user.owner_id, user.owner_name, user.username, user.subject} == {value}


@pytest.mark.parametrize("value", NO_OWNER.values(), ids=NO_OWNER.keys())
async def test_what_is_no_decent_text_never_becomes_an_owner(
    value: Any, authenticator: Authenticator, issuer: Issuer
) -> None:
    with pytest.raises(Unauthenticated):
        await enter(authenticator, issuer.token(org_id=value))


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("", None),
        ("  ", None),
        (7, None),
        (True, None),
        (["Acme"], None),
        ({"name": "Acme"}, None),
        ("A" * 300, "A" * 255),
        (" Acme\x00 \r\nCorp\ud800 ", "Acme Corp"),
        ("\x1b\u0085", None),
    ],
    ids=spelled,
)
async def test_a_name_that_is_empty_or_ugly_locks_nobody_out(
    value: Any, kept: str | None, authenticator: Authenticator, issuer: Issuer
) -> None:
    user = await enter(authenticator, issuer.token(org_name=value, email=value))

    assert (user.owner_name, user.username) == (kept or "acme", kept)


@pytest.mark.parametrize(
    ("without", "changes"),
    [(("org_name", "email"), {}), ((), {"org_name": None, "email": None})],
    ids=["missing", "null"],
)
async def test_names_may_be_absent(
    without: tuple[str, ...], changes: dict[str, None], authenticator: Authenticator, issuer: Issuer
) -> None:
    user = await enter(authenticator, issuer.token(*without, **changes))

    assert (user.owner_name, user.username) == ("acme", None)


@pytest.mark.parametrize(("claim", "value", "what"), [("org_id", 7, "the owner id"), ("sub", "s" * 256, "the subject")])
async def test_the_reason_says_which_claim_it_was(
    claim: str, value: Any, what: str, authenticator: Authenticator, issuer: Issuer
) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await enter(authenticator, issuer.token(**{claim: value}))
    assert refusal.value.reason == f"the claim {claim} for {what} is not text of 1 to 255 printable characters"


@pytest.mark.parametrize("owner_id", [" acme", "acme ", "\u2003acme"], ids=["before", "after", "em-space"])
async def test_an_owner_in_white_space_would_become_another_one(
    owner_id: str, authenticator: Authenticator, issuer: Issuer
) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await enter(authenticator, issuer.token(org_id=owner_id))
    assert refusal.value.reason == "the owner id in org_id begins or ends with white space"


async def test_no_owner_claim_is_no_owner(authenticator: Authenticator, issuer: Issuer) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await enter(authenticator, issuer.token("org_id"))
    assert refusal.value.reason == "the token names no owner: no claim org_id"


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    )
    | st.text(alphabet=st.characters(codec=None))
)
async def test_an_owner_is_the_very_text_of_the_claim_or_nobody(
    value: Any, authenticator: Authenticator, issuer: Issuer
) -> None:
    try:
        user = await enter(authenticator, issuer.token(org_id=value))
    except Unauthenticated:
        assert not is_decent_text(value) or value != value.strip()
    else:
        assert user.owner_id == value
        assert type(value) is str


async def test_claims_are_read_only_and_stay_out_of_the_representation(
    authenticator: Authenticator, issuer: Issuer
) -> None:
    user = await enter(authenticator, issuer.token(salary=123_456))

    assert user.claims["salary"] == 123_456
    assert "123456" not in repr(user)
    with pytest.raises(TypeError):
        user.claims["org_id"] = "evil"  # type: ignore[index]


def test_paths() -> None:
    payload = {"org.id": "whole", "org": {"id": "nested", "a.b": "dotted"}, "list": [{"id": "x"}], "text": "abc"}

    assert find_claim(payload, "org.id") == "whole"
    assert find_claim(payload, ("org", "id")) == "nested"
    assert find_claim(payload, ("org.id",)) == "whole"
    assert find_claim(payload, ("org", "a.b")) == "dotted"
    assert find_claim({"org": {"id": "nested"}}, "org.id") == "nested"
    for absent in (
        "org.missing",
        "list.0",
        "list.0.id",
        "text.0",
        "missing",
        "org.id.more",
        "",
        ".",
        ("org", "a", "b"),
    ):
        assert find_claim({"org": {"id": "n"}, "list": payload["list"], "text": "abc"}, absent) is None


@pytest.mark.parametrize(
    ("required", "good", "bad"),
    [
        ({"tier": "gold"}, ["gold", ["silver", "gold"]], ["silver", "GOLD", "", None, ["silver"], [], {"gold": 1}]),
        ({"tier": ("gold", "silver")}, ["gold", "silver", ["silver"]], ["bronze", "gold silver", None]),
        ({"verified": "true"}, [True, "true"], [False, "True", 1, None]),
        ({"verified": "false"}, [False, "false"], [True, "False", 0, None]),
        ({"level": "7"}, [7, "7"], [8, 7.0, True, "07"]),
        # What is no text, number or truth has no spelling, least of all the one that Python gives it.
        ({"tier": "None"}, ["None"], [None, [None]]),
        ({"tier": "1.5"}, ["1.5"], [1.5]),
        ({"tier": "{}"}, ["{}"], [{}]),
    ],
    ids=spelled,
)
def test_required_claims(required: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    (name,) = required
    for value in good:
        assert meets({name: value}, required), value
    for value in bad:
        assert not meets({name: value}, required), value
    assert not meets({}, required)


async def test_every_required_claim_counts(make_authenticator: MakeAuthenticator, issuer: Issuer) -> None:
    wanted = {"tier": "gold", "account.verified": "true"}
    async with make_authenticator(issuers=[issuer.settings(required_claims=wanted)]) as authenticator:
        assert (await enter(authenticator, issuer.token(tier="gold", account={"verified": True}))).owner_id == "acme"
        for claims, what in (
            ({"tier": "gold"}, "lacks the required claim account.verified"),
            ({"account": {"verified": True}}, "lacks the required claim tier"),
            ({"account": {"verified": True}, "tier": "tin"}, "has another value in the required claim tier"),
        ):
            with pytest.raises(Unauthenticated) as refusal:
                await enter(authenticator, issuer.token(**claims))
            assert refusal.value.reason == f"the token {what}"


@pytest.mark.parametrize(
    ("token_types", "good", "bad"),
    [
        (["at+jwt"], ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"], ["JWT", "", None, "id+jwt"]),
        (["JWT", "at+jwt"], ["jwt", "at+jwt"], [None, "logout+jwt"]),
        (["application/okta-internal-at+jwt"], ["application/okta-internal-at+jwt"], ["at+jwt"]),
    ],
    ids=spelled,
)
async def test_configured_token_types(
    token_types: list[str],
    good: list[str],
    bad: list[str | None],
    make_authenticator: MakeAuthenticator,
    issuer: Issuer,
) -> None:
    async with make_authenticator(issuers=[issuer.settings(token_types=token_types)]) as authenticator:
        for typ in good:
            assert (await enter(authenticator, issuer.token_with_header(typ=typ))).owner_id == "acme"
        for wrong in bad:
            token = issuer.token_with_header("typ") if wrong is None else issuer.token_with_header(typ=wrong)
            with pytest.raises(Unauthenticated):
                await enter(authenticator, token)


@pytest.mark.parametrize(
    ("changes", "accepted"),
    [
        ({}, False),
        ({"token_types": ["JWT"]}, False),
        ({"required_claims": {"email_verified": "true"}}, False),
        ({"required_claims": {"token_use": "id"}}, True),
        ({"required_claims": {"typ": "Bearer"}}, True),
    ],
    ids=spelled,
)
async def test_what_looks_like_an_id_token_needs_settings_that_name_its_kind(
    changes: dict[str, Any], *, accepted: bool, make_authenticator: MakeAuthenticator, issuer: Issuer
) -> None:
    """Cognito's ID tokens are the only ones with custom claims; Keycloak before 25 put nonces into access tokens."""
    token = issuer.token(nonce="n", at_hash="h", token_use="id", typ="Bearer", email_verified=True)
    async with make_authenticator(issuers=[issuer.settings(**changes)]) as authenticator:
        if accepted:
            assert (await enter(authenticator, token)).owner_id == "acme"
        else:
            with pytest.raises(Unauthenticated) as refusal:
                await enter(authenticator, token)
            assert refusal.value.reason == "the token is an ID token: it has at_hash, nonce"


@pytest.mark.parametrize("leeway", [0, 60])
async def test_the_leeway_is_the_configured_one(
    leeway: int, make_authenticator: MakeAuthenticator, issuer: Issuer, clock: StoppedClock
) -> None:
    async with make_authenticator(issuers=[issuer.settings(leeway_seconds=leeway)]) as authenticator:
        token = issuer.token(exp=issuer.now + 100)
        clock.advance(99 + leeway)
        assert (await enter(authenticator, token)).owner_id == "acme"
        clock.advance(1)
        with pytest.raises(Unauthenticated):
            await enter(authenticator, token)


async def test_the_longest_life_is_the_configured_one(make_authenticator: MakeAuthenticator, issuer: Issuer) -> None:
    async with make_authenticator(issuers=[issuer.settings(max_lifetime_seconds=600)]) as authenticator:
        assert (await enter(authenticator, issuer.token(exp=issuer.now + 600))).owner_id == "acme"
        with pytest.raises(Unauthenticated):
            await enter(authenticator, issuer.token(exp=issuer.now + 601))
        with pytest.raises(Unauthenticated):
            await enter(authenticator, issuer.token("iat", exp=issuer.now + 601))
