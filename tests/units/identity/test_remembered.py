"""A token that was verified is not verified again, and counts not a moment longer than if it were."""

import gc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from app.errors import Unauthenticated, Unavailable
from app.identity.authenticate import Authenticator, Credentials
from app.identity.caller import EndUser, Service
from app.identity.remembered import Remembered, Verified
from tests.support.tokens import Issuer, IssuerServer, StoppedClock, rsa_key

pytestmark = pytest.mark.anyio

MakeAuthenticator = Callable[..., AbstractAsyncContextManager[Authenticator]]
LEEWAY, COOLDOWN, FRESH = 30, 30, 600


async def enter(authenticator: Authenticator, token: str) -> EndUser:
    return await authenticator.end_user(Credentials([f"Bearer {token}"], [], None, None, None))


async def serve(authenticator: Authenticator, token: str) -> Service:
    return await authenticator.service(Credentials([f"Bearer {token}"], [], None, None, None))


def user(owner_id: str) -> EndUser:
    return EndUser("https://login.example", "user-1", owner_id, owner_id, None, {})


async def test_a_token_is_verified_once_and_expires_to_the_second(
    authenticator: Authenticator, issuer: Issuer, clock: StoppedClock
) -> None:
    token = issuer.token(exp=issuer.now + 60)
    first = await enter(authenticator, token)
    assert await enter(authenticator, token) is first
    clock.advance(60 + LEEWAY - 1)
    assert await enter(authenticator, token) is first
    clock.advance(1)
    for _ in range(2):
        with pytest.raises(Unauthenticated) as refusal:
            await enter(authenticator, token)
        assert refusal.value.reason == "the token has expired by its exp"


async def test_a_key_that_is_withdrawn_takes_what_it_signed_with_it(
    authenticator: Authenticator, issuer: Issuer, clock: StoppedClock
) -> None:
    old = issuer.token(exp=issuer.now + 7200)
    first = await enter(authenticator, old)
    issuer.rotate(rsa_key("rsa-2"), keep_old=True)
    clock.advance(COOLDOWN)
    # A token of the new key has the keys fetched, among which the old one still is.
    await enter(authenticator, issuer.token())
    assert await enter(authenticator, old) == first
    issuer.rotate(rsa_key("rsa-3"))
    clock.advance(COOLDOWN)
    await enter(authenticator, issuer.token())
    with pytest.raises(Unauthenticated):
        await enter(authenticator, old)


async def test_keys_that_are_no_longer_fresh_are_asked_for_whatever_is_remembered(
    authenticator: Authenticator, issuer: Issuer, server: IssuerServer, clock: StoppedClock
) -> None:
    token = issuer.token(exp=issuer.now + 7200)
    first = await enter(authenticator, token)
    fetches = server.key_fetches
    clock.advance(FRESH + 1)
    assert await enter(authenticator, token) == first
    assert server.key_fetches == fetches + 1
    # The same keys again: nobody has to be verified for the hour's fetch.
    again = await enter(authenticator, token)
    clock.advance(FRESH - 1)
    assert await enter(authenticator, token) is again
    issuer.rotate(rsa_key("rsa-2"))
    clock.advance(2)
    with pytest.raises(Unauthenticated):
        await enter(authenticator, token)


async def test_an_issuer_that_is_away_for_too_long_is_no_reason_to_believe_its_tokens(
    authenticator: Authenticator, issuer: Issuer, server: IssuerServer, clock: StoppedClock
) -> None:
    token = issuer.token(exp=issuer.now + 86_400, iat=issuer.now)
    await enter(authenticator, token)
    server.away = True
    clock.advance(86_400 + 1)
    with pytest.raises(Unavailable):
        await enter(authenticator, token)


async def test_a_refusal_is_not_remembered_and_nothing_like_a_good_token_passes(
    authenticator: Authenticator, issuer: Issuer, clock: StoppedClock
) -> None:
    early = issuer.token(nbf=issuer.now + 100)
    with pytest.raises(Unauthenticated):
        await enter(authenticator, early)
    clock.advance(100)
    good = await enter(authenticator, early)
    head, payload, signature = early.split(".")
    for forged in (
        f"{head}.{payload}.{signature[:-2]}",
        f"{head}.{payload}.{signature}A",
        f"{head}.{issuer.token(org_id='evil').split('.')[1]}.{signature}",
    ):
        with pytest.raises(Unauthenticated):
            await enter(authenticator, forged)
    assert await enter(authenticator, early) is good


async def test_what_is_remembered_of_one_kind_of_caller_is_none_of_another(
    make_authenticator: MakeAuthenticator, clock: StoppedClock, server: IssuerServer, issuer: Issuer
) -> None:
    machines = Issuer(clock, "https://machines.example.test", audience="connect-broker-api", key=rsa_key("m-1"))
    server.issuers.append(machines)
    async with make_authenticator(machine_issuers=[machines.machine_settings()]) as authenticator:
        users_token, machines_token = issuer.token(), machines.token(scope="accounts:read")
        assert await enter(authenticator, users_token) is await enter(authenticator, users_token)
        assert await serve(authenticator, machines_token) is await serve(authenticator, machines_token)
        with pytest.raises(Unauthenticated):
            await serve(authenticator, users_token)
        with pytest.raises(Unauthenticated):
            await enter(authenticator, machines_token)


def test_what_is_remembered_is_bounded_by_number_and_size_and_can_be_forgotten() -> None:
    remembered = Remembered(most=3, most_characters=100)
    for name in "abcd":
        remembered.remember(name, Verified(user(name), until=10))
    kept = [name for name in "abcd" if remembered.recall(EndUser, name, now=9)]
    assert kept == ["b", "c", "d"]
    remembered.remember("x" * 99, Verified(user("x"), until=10))
    assert [bool(remembered.recall(EndUser, text, now=9)) for text in ("c", "d", "x" * 99)] == [False, True, True]
    # Larger than everything that may be remembered.
    remembered.remember("y" * 101, Verified(user("y"), until=10))
    assert remembered.recall(EndUser, "y" * 101, now=9) is None
    for text in ("one", "two"):
        remembered.remember(text, Verified(user(text), until=10), name="tok_1")
    remembered.remember("one", Verified(user("one"), until=10), name="tok_1")
    remembered.remember("other", Verified(user("other"), until=10), name="tok_2")
    remembered.forget("tok_1")
    remembered.forget("tok_1")
    assert [bool(remembered.recall(EndUser, text, now=9)) for text in ("one", "two", "other")] == [False, False, True]
    assert remembered.recall(Service, "other", now=9) is None
    assert remembered.recall(EndUser, "other", now=10) is None


async def test_no_token_is_kept(authenticator: Authenticator, issuer: Issuer) -> None:
    token = issuer.token()
    await enter(authenticator, token)
    seen: set[int] = set()
    reachable: list[object] = [authenticator.remembered]
    while reachable:
        each = reachable.pop()
        if id(each) in seen or isinstance(each, type):
            continue
        seen.add(id(each))
        assert not (isinstance(each, str) and token in each)
        if len(seen) < 20_000 and not callable(each):
            reachable += gc.get_referents(each)
