"""When an issuer is asked for its keys, how often, and what counts while it is away."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from app.errors import Unauthenticated, Unavailable
from app.identity.authenticate import Authenticator, Credentials
from tests.support.tokens import Issuer, IssuerServer, StoppedClock, ec_key, rsa_key

pytestmark = pytest.mark.anyio

MakeAuthenticator = Callable[..., AbstractAsyncContextManager[Authenticator]]
COOLDOWN, FRESH, STALE = 30, 600, 86_400
ONE_FETCH = ["https://login.example.test/.well-known/openid-configuration", "https://login.example.test/keys"]


async def enter(authenticator: Authenticator, token: str) -> str:
    return (await authenticator.end_user(Credentials([f"Bearer {token}"], [], None, None, None))).owner_id


async def is_refused(authenticator: Authenticator, token: str) -> bool:
    try:
        await enter(authenticator, token)
    except Unauthenticated:
        return True
    return False


async def test_200_cold_callers_cause_one_fetch(
    make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer
) -> None:
    server.hold = asyncio.Event()
    async with make_authenticator() as authenticator:
        callers = [
            asyncio.create_task(enter(authenticator, issuer.token(sub=f"user-{number}"))) for number in range(200)
        ]
        await server.arrived.wait()
        server.hold.set()

        assert await asyncio.gather(*callers) == ["acme"] * 200

    assert server.urls == ONE_FETCH


async def test_500_unknown_kids_cause_no_fetch_in_the_cooldown_and_one_after_it(
    authenticator: Authenticator, issuer: Issuer, server: IssuerServer, clock: StoppedClock
) -> None:
    clock.advance(COOLDOWN - 1)
    assert all(
        [await is_refused(authenticator, issuer.token_with_header(kid=f"guess-{number}")) for number in range(500)]
    )
    assert server.urls == ONE_FETCH

    clock.advance(1)
    assert all(
        [await is_refused(authenticator, issuer.token_with_header(kid=f"guess-{number}")) for number in range(500)]
    )
    assert server.urls == ONE_FETCH * 2


async def test_a_new_key_is_found_as_soon_as_a_token_names_it(
    authenticator: Authenticator, issuer: Issuer, server: IssuerServer, clock: StoppedClock
) -> None:
    before = issuer.token()
    issuer.rotate(rsa_key("rsa-2"), keep_old=True)
    assert await is_refused(authenticator, issuer.token())  # still in the cooldown of the first fetch

    clock.advance(COOLDOWN)

    assert await enter(authenticator, issuer.token()) == "acme"
    assert await enter(authenticator, before) == "acme"
    assert server.urls == ONE_FETCH * 2


async def test_many_callers_with_a_new_key_cause_one_fetch(
    authenticator: Authenticator, issuer: Issuer, server: IssuerServer, clock: StoppedClock
) -> None:
    issuer.rotate(rsa_key("rsa-2"))
    clock.advance(COOLDOWN)
    server.hold, server.arrived = asyncio.Event(), asyncio.Event()

    callers = [asyncio.create_task(enter(authenticator, issuer.token())) for _ in range(50)]
    await server.arrived.wait()
    server.hold.set()

    assert await asyncio.gather(*callers) == ["acme"] * 50
    assert server.urls == ONE_FETCH * 2


async def test_a_withdrawn_key_stops_counting_once_keys_are_no_longer_fresh(
    authenticator: Authenticator, issuer: Issuer, server: IssuerServer, clock: StoppedClock
) -> None:
    clock.advance(FRESH)
    stolen = issuer.token()
    assert await enter(authenticator, stolen) == "acme"
    assert server.urls == ONE_FETCH
    issuer.rotate(rsa_key("rsa-2"))

    clock.advance(1)

    assert await is_refused(authenticator, stolen)


async def test_a_process_that_slept_does_not_believe_yesterdays_keys(
    authenticator: Authenticator, issuer: Issuer, clock: StoppedClock
) -> None:
    stolen_key = issuer.key
    issuer.rotate(rsa_key("rsa-2"))
    clock.advance(STALE - 1)
    issuer.key, present_key = stolen_key, issuer.key
    assert await is_refused(authenticator, issuer.token())
    issuer.key = present_key
    assert await enter(authenticator, issuer.token()) == "acme"


async def test_the_last_good_keys_count_while_the_issuer_is_away_until_they_are_stale(
    authenticator: Authenticator, issuer: Issuer, server: IssuerServer, clock: StoppedClock
) -> None:
    server.away = True
    for _ in range(10):
        clock.advance(STALE / 10)
        assert await enter(authenticator, issuer.token()) == "acme"
    assert [status.has_keys for status in authenticator.issuers_status()] == [True]

    clock.advance(1)

    with pytest.raises(Unavailable, match="the identity provider cannot be reached") as away:
        await enter(authenticator, issuer.token())
    assert 0 < (away.value.retry_after or 0) <= COOLDOWN
    assert [status.has_keys for status in authenticator.issuers_status()] == [False]


async def test_a_hanging_issuer_stalls_nobody_once_it_is_known(
    authenticator: Authenticator, issuer: Issuer, server: IssuerServer, clock: StoppedClock
) -> None:
    clock.advance(FRESH + 1)
    server.away = True
    assert await enter(authenticator, issuer.token()) == "acme"
    server.away, server.hold, server.arrived = False, asyncio.Event(), asyncio.Event()
    clock.advance(COOLDOWN)

    assert await enter(authenticator, issuer.token()) == "acme"

    await server.arrived.wait()
    # Had it been waited for, it would have run into its deadline by now.
    assert [status.problem for status in authenticator.issuers_status()] == [
        "the issuer cannot be reached: ConnectError"
    ]
    server.hold.set()


async def test_a_failed_fetch_starts_the_cooldown_too(
    authenticator: Authenticator, issuer: Issuer, server: IssuerServer, clock: StoppedClock
) -> None:
    assert await enter(authenticator, issuer.token()) == "acme"
    server.away = True
    issuer.rotate(rsa_key("rsa-2"))
    clock.advance(COOLDOWN)
    asked = len(server.requests)
    for _ in range(50):
        with pytest.raises(Unavailable) as away:
            await enter(authenticator, issuer.token())
        assert away.value.retry_after == COOLDOWN
    assert len(server.requests) == asked + 1

    server.away = False
    clock.advance(COOLDOWN)
    assert await enter(authenticator, issuer.token()) == "acme"


async def test_before_there_were_any_keys_the_issuer_is_asked_again_soon_and_less_and_less_often(
    make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer, clock: StoppedClock
) -> None:
    # A replica that starts while the issuer does: nobody can sign in there until it has keys.
    server.away = True
    async with make_authenticator() as authenticator:
        waits: list[float] = []
        for number in range(1, 8):
            for _ in range(5):
                with pytest.raises(Unavailable) as away:
                    await enter(authenticator, issuer.token())
            assert len(server.requests) == number
            waits.append(away.value.retry_after or 0)
            clock.advance(waits[-1])
        assert waits == [1, 2, 4, 8, 16, COOLDOWN, COOLDOWN]

        server.away = False
        assert await enter(authenticator, issuer.token()) == "acme"


async def test_an_unknown_kid_is_no_401_while_the_issuer_is_away(
    authenticator: Authenticator, issuer: Issuer, server: IssuerServer, clock: StoppedClock
) -> None:
    """It may be the newest key: a 401 would log every user out for the length of the outage."""
    issuer.rotate(rsa_key("rsa-2"))
    server.away = True
    clock.advance(COOLDOWN)

    for _ in range(3):
        with pytest.raises(Unavailable):
            await enter(authenticator, issuer.token())

    server.away = False
    clock.advance(COOLDOWN)
    assert await enter(authenticator, issuer.token()) == "acme"


@pytest.mark.parametrize("age", [None, FRESH + 1], ids=["no-keys-yet", "old-keys"])
async def test_a_caller_who_hangs_up_does_not_cancel_the_fetch_for_the_others(
    age: float | None, make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer, clock: StoppedClock
) -> None:
    async with make_authenticator() as authenticator:
        if age is not None:
            await authenticator.warm()
            clock.advance(age)
        before = len(server.requests)
        server.hold, server.arrived = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(enter(authenticator, issuer.token()))
        await server.arrived.wait()
        second = asyncio.create_task(enter(authenticator, issuer.token()))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        server.hold.set()

        assert await second == "acme"

    assert first.cancelled()
    assert server.urls[before:] == ONE_FETCH


async def test_a_slow_issuer_costs_the_deadline_and_no_more(
    make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer
) -> None:
    server.hold = asyncio.Event()
    async with make_authenticator(timeout_seconds=0.05) as authenticator:
        with pytest.raises(Unavailable):
            await enter(authenticator, issuer.token())

        assert [status.problem for status in authenticator.issuers_status()] == ["the issuer did not answer in time"]


async def test_closing_gives_up_a_running_fetch(
    make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer
) -> None:
    server.hold = asyncio.Event()
    async with make_authenticator() as authenticator:
        caller = asyncio.create_task(enter(authenticator, issuer.token()))
        await server.arrived.wait()

    with pytest.raises(asyncio.CancelledError):
        await caller


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ([], ""),
        ([{"kty": "oct", "kid": "rsa-1", "k": "AAAA"}], " (key rsa-1: it is not for RS256)"),
        ([rsa_key("x").jwk(use="enc")], " (key x: it is not for signatures)"),
    ],
    ids=["none", "symmetric", "encryption"],
)
async def test_a_set_without_usable_keys_never_replaces_good_ones(
    keys: list[dict[str, str]], why: str, authenticator: Authenticator, issuer: Issuer, clock: StoppedClock
) -> None:
    issuer.published = keys
    clock.advance(FRESH + 1)

    assert await enter(authenticator, issuer.token()) == "acme"
    assert [status.problem for status in authenticator.issuers_status()] == [f"the key set has no usable key{why}"]


async def test_a_token_without_kid_is_good_only_where_one_key_can_be_meant(
    authenticator: Authenticator, issuer: Issuer, clock: StoppedClock
) -> None:
    token = issuer.token_with_header("kid")
    assert await enter(authenticator, token) == "acme"

    issuer.published.append(rsa_key("rsa-2").jwk())
    clock.advance(FRESH + 1)

    assert await is_refused(authenticator, issuer.token_with_header("kid"))
    assert await enter(authenticator, issuer.token()) == "acme"


async def test_each_issuer_vouches_with_its_own_keys_only(
    make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer, clock: StoppedClock
) -> None:
    """Same kid, other issuer: the key is looked up under the issuer that the token names."""
    other = Issuer(clock, "https://other.example.test", key=ec_key("rsa-1"))
    server.issuers.append(other)
    async with make_authenticator(issuers=[issuer.settings(), other.settings()]) as authenticator:
        assert await enter(authenticator, issuer.token()) == "acme"
        assert await enter(authenticator, other.token(org_id="other")) == "other"
        assert await is_refused(authenticator, issuer.token(iss=other.url))
        assert await is_refused(authenticator, other.token(iss=issuer.url))


async def test_warming_fetches_once_never_raises_and_mends_itself(
    make_authenticator: MakeAuthenticator, server: IssuerServer, clock: StoppedClock
) -> None:
    server.away = True
    async with make_authenticator() as authenticator:
        assert [(status.has_keys, status.problem) for status in authenticator.issuers_status()] == [(False, None)]

        await authenticator.warm()
        await authenticator.warm()
        (status,) = authenticator.issuers_status()
        assert (status.issuer, status.has_keys) == ("https://login.example.test", False)
        assert status.problem == "the issuer cannot be reached: ConnectError"
        assert len(server.requests) == 1

        server.away = False
        clock.advance(COOLDOWN)
        await authenticator.warm()
        clock.advance(COOLDOWN)
        await authenticator.warm()
        assert [(status.has_keys, status.problem) for status in authenticator.issuers_status()] == [(True, None)]
        assert server.key_fetches == 1


async def test_keys_that_are_missing_at_the_start_are_asked_for_again_though_nobody_comes(
    make_authenticator: MakeAuthenticator, server: IssuerServer, clock: StoppedClock
) -> None:
    server.away = True
    async with make_authenticator() as authenticator:
        warming = asyncio.create_task(authenticator.warm_until_known())
        await asyncio.sleep(0.1)
        assert [status.has_keys for status in authenticator.issuers_status()] == [False]
        server.away = False
        clock.advance(1)
        await asyncio.wait_for(warming, 10)
        assert [status.has_keys for status in authenticator.issuers_status()] == [True]
        assert server.key_fetches == 1


async def test_of_two_keys_without_a_name_each_is_tried(
    make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer
) -> None:
    issuer.published = [rsa_key("x").jwk(kid=None), issuer.key.jwk(kid=None), issuer.key.jwk(kid=None, use=None)]
    async with make_authenticator() as authenticator:
        assert await enter(authenticator, issuer.token_with_header("kid")) == "acme"
        with pytest.raises(Unauthenticated) as refusal:
            await enter(authenticator, issuer.token_with_header("kid")[:-8] + "AAAAAAAA")
    assert refusal.value.reason == "the token's signature is by none of the issuer's keys or secrets"
    assert server.key_fetches == 1
