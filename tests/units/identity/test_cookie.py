"""The token in a cookie, and the requests another site can make a browser send."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest

from app.errors import Unauthenticated
from app.identity.authenticate import Authenticator, Credentials
from app.identity.cookie import CsrfRefused, find_cookie
from tests.support.tokens import Issuer

pytestmark = pytest.mark.anyio

MakeAuthenticator = Callable[..., AbstractAsyncContextManager[Authenticator]]
NAME = "__Host-connect-broker"
LISTED = "https://app.acme.example"


@pytest.fixture
async def cookie_authenticator(make_authenticator: MakeAuthenticator) -> AsyncIterator[Authenticator]:
    async with make_authenticator(cookie={}, allowed_origins=(LISTED,)) as authenticator:
        await authenticator.warm()
        yield authenticator


def with_cookie(token: str, **changes: Any) -> Credentials:
    good = Credentials(
        authorization=[], cookies=[f"{NAME}={token}"], origin=None, sec_fetch_site="same-origin", csrf_header="1"
    )
    return replace(good, **changes)


FROM_OUR_PAGE: dict[str, dict[str, Any]] = {
    "same-origin": {},
    "same-origin-post": {"origin": "https://broker.acme.example"},
    "any-header-value": {"csrf_header": "anything"},
    "listed-sibling": {"sec_fetch_site": "same-site", "origin": LISTED},
    "old-browser-listed-origin": {"sec_fetch_site": None, "origin": LISTED},
}
NOT_FROM_OUR_PAGE: dict[str, dict[str, Any]] = {
    "no-custom-header": {"csrf_header": None},
    "empty-custom-header": {"csrf_header": ""},
    "form-from-elsewhere": {"csrf_header": None, "sec_fetch_site": "cross-site", "origin": "https://evil.example"},
    "cross-site": {"sec_fetch_site": "cross-site", "origin": "https://evil.example"},
    "cross-site-listed": {"sec_fetch_site": "cross-site", "origin": LISTED},
    "cross-site-without-origin": {"sec_fetch_site": "cross-site"},
    "unlisted-sibling": {"sec_fetch_site": "same-site", "origin": "https://blog.acme.example"},
    "sibling-without-origin": {"sec_fetch_site": "same-site"},
    "typed-address": {"sec_fetch_site": "none"},
    "typed-address-listed-origin": {"sec_fetch_site": "none", "origin": LISTED},
    "null-origin": {"sec_fetch_site": None, "origin": "null"},
    "null-origin-claiming-same": {"origin": "null"},
    "null-origin-same-site": {"sec_fetch_site": "same-site", "origin": "null"},
    "nothing-said": {"sec_fetch_site": None},
    "old-browser-other-origin": {"sec_fetch_site": None, "origin": "https://evil.example"},
    "origin-suffix": {"sec_fetch_site": None, "origin": LISTED + ".evil.example"},
    "origin-prefix": {"sec_fetch_site": None, "origin": "https://evil-app.acme.example"},
    "origin-http": {"sec_fetch_site": None, "origin": "http://app.acme.example"},
    "origin-port": {"sec_fetch_site": None, "origin": LISTED + ":8443"},
    "origin-trailing-slash": {"sec_fetch_site": None, "origin": LISTED + "/"},
    "origin-trailing-dot": {"sec_fetch_site": None, "origin": "https://app.acme.example."},
    "origin-upper-case": {"sec_fetch_site": None, "origin": "https://APP.acme.example"},
    "origin-user": {"sec_fetch_site": None, "origin": "https://app.acme.example@evil.example"},
    "origin-twice": {"sec_fetch_site": None, "origin": f"{LISTED}, https://evil.example"},
    "empty-origin": {"sec_fetch_site": None, "origin": ""},
    "fetch-site-twice": {"sec_fetch_site": "same-origin, cross-site"},
    "fetch-site-upper-case": {"sec_fetch_site": "Same-Origin"},
    "fetch-site-empty": {"sec_fetch_site": "", "origin": LISTED},
    "fetch-site-unknown": {"sec_fetch_site": "same-planet", "origin": LISTED},
}


@pytest.mark.parametrize("changes", FROM_OUR_PAGE.values(), ids=FROM_OUR_PAGE.keys())
async def test_our_page_may_use_the_cookie(
    changes: dict[str, Any], cookie_authenticator: Authenticator, issuer: Issuer
) -> None:
    assert (await cookie_authenticator.end_user(with_cookie(issuer.token(), **changes))).owner_id == "acme"


@pytest.mark.parametrize("changes", NOT_FROM_OUR_PAGE.values(), ids=NOT_FROM_OUR_PAGE.keys())
async def test_another_page_may_not(
    changes: dict[str, Any], cookie_authenticator: Authenticator, issuer: Issuer
) -> None:
    with pytest.raises(CsrfRefused) as refusal:
        await cookie_authenticator.end_user(with_cookie(issuer.token(), **changes))

    assert (refusal.value.status, refusal.value.code) == (403, "csrf")
    no_header = not changes.get("csrf_header", "1")
    expected = "the custom header is missing" if no_header else "the request comes from another site"
    assert refusal.value.detail == expected


async def test_another_page_does_not_learn_whether_somebody_is_logged_in(
    cookie_authenticator: Authenticator, issuer: Issuer
) -> None:
    answers = set()
    for token in (issuer.token(), issuer.token(exp=0), "junk", ""):
        with pytest.raises(CsrfRefused) as refusal:
            await cookie_authenticator.end_user(
                with_cookie(token, sec_fetch_site="cross-site", origin="https://evil.example")
            )
        answers.add((refusal.value.code, str(refusal.value)))
    assert len(answers) == 1


TWO_COOKIES: dict[str, Callable[[str], list[str]]] = {
    "in-one-header": lambda token: [f"{NAME}={token}; {NAME}=planted"],
    "planted-first": lambda token: [f"{NAME}=planted; {NAME}={token}"],
    "in-two-headers": lambda token: [f"{NAME}={token}", f"{NAME}=planted"],
    "same-value": lambda token: [f"{NAME}={token}; {NAME}={token}"],
    "one-empty": lambda token: [f"{NAME}={token}; {NAME}="],
    "one-without-value": lambda token: [f"{NAME}={token}; {NAME}"],
}


@pytest.mark.parametrize("cookies", TWO_COOKIES.values(), ids=TWO_COOKIES.keys())
async def test_two_cookies_of_our_name_are_refused(
    cookies: Callable[[str], list[str]], cookie_authenticator: Authenticator, issuer: Issuer
) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await cookie_authenticator.end_user(with_cookie("", cookies=cookies(issuer.token())))

    assert refusal.value.reason == "several cookies of our name"


FOUND: dict[str, Callable[[str], list[str]]] = {
    "alone": lambda token: [f"{NAME}={token}"],
    "among-others": lambda token: [f"theme=dark; {NAME}={token}; lang=en"],
    "in-a-second-header": lambda token: ["theme=dark", f"{NAME}={token}"],
    "without-blanks": lambda token: [f"a=b;{NAME}={token};c"],
    "with-tabs": lambda token: [f"a=b;\t{NAME}\t=\t{token}\t"],
    "beside-other-prefixes": lambda token: [f"{NAME}-2=planted; x{NAME}=planted; X{NAME}=planted; {NAME}={token}"],
}
NOT_FOUND: dict[str, Callable[[str], list[str]]] = {
    "other-case": lambda token: [f"__host-connect-broker={token}"],
    "without-prefix": lambda token: [f"connect-broker={token}"],
    "secure-prefix": lambda token: [f"__Secure-connect-broker={token}"],
    "unicode-blank-before": lambda token: [f"\u2000{NAME}={token}"],
    "no-break-space-before": lambda token: [f"\u00a0{NAME}={token}"],
    "next-line-before": lambda token: [f"\x85{NAME}={token}"],
    "vertical-tab-before": lambda token: [f"\x0b{NAME}={token}"],
    "newline-before": lambda token: [f"\n{NAME}={token}"],
    "percent-encoded": lambda token: [f"%5F_Host-connect-broker={token}"],
    "quoted-name": lambda token: [f'"{NAME}"={token}'],
    "inside-a-value": lambda token: [f"a={NAME}={token}"],
    "legacy-version": lambda token: [f"$Version=1, {NAME}={token}"],
    "comma-separated": lambda token: [f"a=b, {NAME}={token}"],
}


@pytest.mark.parametrize("cookies", FOUND.values(), ids=FOUND.keys())
async def test_the_cookie_is_found(
    cookies: Callable[[str], list[str]], cookie_authenticator: Authenticator, issuer: Issuer
) -> None:
    user = await cookie_authenticator.end_user(with_cookie("", cookies=cookies(issuer.token())))

    assert user.owner_id == "acme"


@pytest.mark.parametrize("cookies", NOT_FOUND.values(), ids=NOT_FOUND.keys())
async def test_a_cookie_that_any_subdomain_could_plant_is_not_ours(
    cookies: Callable[[str], list[str]], cookie_authenticator: Authenticator, issuer: Issuer
) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await cookie_authenticator.end_user(with_cookie("", cookies=cookies(issuer.token())))

    assert refusal.value.challenge_error is None  # nothing was sent, as far as we are concerned


@pytest.mark.parametrize("value", ["XaX", "a=b", "\u00a0a", '"a"', ""])
def test_nothing_but_blanks_around_a_value_is_taken_away(value: str) -> None:
    assert find_cookie([f"{NAME} = \t{value} "], NAME) == value


async def test_an_empty_cookie_is_a_bad_credential(cookie_authenticator: Authenticator) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await cookie_authenticator.end_user(with_cookie(""))
    assert refusal.value.challenge_error == "invalid_token"


async def test_a_service_key_in_the_cookie_is_refused(cookie_authenticator: Authenticator) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await cookie_authenticator.end_user(with_cookie(f"sk_{'a' * 16}_{'A' * 43}"))
    assert refusal.value.reason == "a service key on a browser route"


async def test_service_routes_accept_no_cookies(cookie_authenticator: Authenticator, issuer: Issuer) -> None:
    for token in (issuer.token(), f"sk_{'a' * 16}_{'A' * 43}"):
        with pytest.raises(Unauthenticated) as refusal:
            await cookie_authenticator.service(with_cookie(token))
        assert refusal.value.reason == "no credential"


async def test_a_bearer_decides_alone(cookie_authenticator: Authenticator, issuer: Issuer) -> None:
    """A page of another origin cannot make a browser send it, so it needs none of the proof a cookie needs."""
    hostile = with_cookie(issuer.token(org_id="cookie"), sec_fetch_site="cross-site", csrf_header=None)

    user = await cookie_authenticator.end_user(
        replace(hostile, authorization=[f"Bearer {issuer.token(org_id='bearer')}"])
    )
    assert user.owner_id == "bearer"

    for authorization in ("Bearer junk", "Basic dXNlcjpwYXNz", "", f"Bearer {issuer.token(exp=0)}"):
        with pytest.raises(Unauthenticated):
            await cookie_authenticator.end_user(with_cookie(issuer.token(), authorization=[authorization]))


async def test_without_cookie_settings_cookies_do_not_exist(authenticator: Authenticator, issuer: Issuer) -> None:
    assert authenticator.csrf_header is None
    for cookies in ([f"{NAME}={issuer.token()}"], [f"{NAME}=a; {NAME}=b"]):
        with pytest.raises(Unauthenticated) as refusal:
            await authenticator.end_user(with_cookie("", cookies=cookies, sec_fetch_site="cross-site"))
        assert refusal.value.challenge_error is None


async def test_names_are_the_configured_ones(make_authenticator: MakeAuthenticator, issuer: Issuer) -> None:
    async with make_authenticator(cookie={"name": "__Host-acme", "csrf_header": "x-acme"}) as authenticator:
        assert authenticator.csrf_header == "x-acme"
        user = await authenticator.end_user(with_cookie("", cookies=[f"__Host-acme={issuer.token()}"]))
        assert user.owner_id == "acme"
        with pytest.raises(Unauthenticated):
            await authenticator.end_user(with_cookie(issuer.token()))
