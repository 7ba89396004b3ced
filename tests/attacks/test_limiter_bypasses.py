"""Ways around a limit: every one is the same caller in other clothes, and stays over it."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.attacks.opened import NO_LIMITS, minted, open_attacked
from tests.support.world import World

pytestmark = pytest.mark.anyio

MINT = "/v1/connect-sessions"
MOST = 3
Changes = dict[str, Any]
CLOTHES: Mapping[str, Callable[[World], Changes]] = {
    "a-new-token": lambda world: {"headers": world.as_user("alice")},
    "another-name-claim": lambda world: {"headers": world.as_user("alice", org_name="Acme 2", email="a@b.example")},
    "another-session-claim": lambda world: {"headers": world.as_user("alice", sid="other", azp="other", jti="other")},
    "another-scheme-case": lambda world: {"headers": {"authorization": f"bEaReR   {world.token('alice')}"}},
    "another-client": lambda _world: {"extra": {"user-agent": "other", "origin": "http://127.0.0.1:8200"}},
    "another-address": lambda _world: {"extra": {"x-forwarded-for": "198.51.100.7", "forwarded": "for=198.51.100.7"}},
    "another-request-id": lambda _world: {"extra": {"x-request-id": "6f1b3c52-94bd-4a49-a3b3-4b37b12f9f3c"}},
    "a-query": lambda _world: {"params": {"x": "1"}},
    "an-encoded-path": lambda _world: {"path": "/v1/connect%2dsessions"},
    "a-body": lambda _world: {"json": {"provider": "workday", "multiple": True}},
    "a-cookie": lambda _world: {"extra": {"cookie": "session=other"}},
}


async def mint(world: World, changes: Changes) -> int:
    answer = await world.broker.post(
        changes.get("path", MINT),
        params=changes.get("params"),
        json=changes.get("json"),
        headers={**changes.get("headers", world.as_user("alice")), **changes.get("extra", {})},
    )
    assert answer.status_code != 429 or int(answer.headers["retry-after"]) >= 1
    return answer.status_code


async def test_a_user_over_the_limit_stays_over_it_in_any_clothes(attacked_url: str) -> None:
    async with open_attacked(attacked_url, limits=NO_LIMITS | {"mint_per_user": f"{MOST}/hour"}) as world:
        assert [await mint(world, {}) for _ in range(MOST)] == [201] * MOST
        for name, clothe in CLOTHES.items():
            assert await mint(world, clothe(world)) == 429, name
        assert len(minted(world)) == MOST
        # Carol is somebody else of the same owner.
        assert await mint(world, {"headers": world.as_user("carol")}) == 201


async def test_requests_that_fail_count_too(attacked_url: str) -> None:
    """Otherwise guessing ids would be free."""
    async with open_attacked(attacked_url, limits=NO_LIMITS | {"requests_per_user": f"{MOST}/hour"}) as world:
        guesses = [
            (await world.broker.get(f"/v1/linked-accounts/{number}", headers=world.as_user("alice"))).status_code
            for number in range(MOST + 2)
        ]
        assert guesses == [404] * MOST + [429] * 2
        other_routes = [
            (await world.broker.request(method, path, headers=world.as_user("alice"))).status_code
            for method, path in (
                ("GET", "/v1/linked-accounts"),
                ("POST", MINT),
                ("DELETE", "/v1/linked-accounts/1"),
                ("POST", "/v1/linked-accounts/1/confirm"),
            )
        ]
        assert other_routes == [429] * 4


async def test_another_user_id_in_the_token_does_not_lift_the_owners_limit(attacked_url: str) -> None:
    """Where users can be made at will (guests, invitations), the owner's limit is what holds."""
    async with open_attacked(attacked_url, limits=NO_LIMITS | {"mint_per_owner": f"{MOST}/hour"}) as world:
        statuses = [await mint(world, {"headers": world.as_user("alice", sub=f"guest-{n}")}) for n in range(MOST + 2)]
        assert statuses == [201] * MOST + [429] * 2
        by_service = await world.broker.post("/v1/owners/org_acme/connect-sessions", headers=world.as_service())
        as_link = await world.broker.post("/v1/owners/org_acme/auth-links", headers=world.as_service())
        assert (by_service.status_code, as_link.status_code) == (429, 429)


async def test_a_separator_in_an_id_does_not_make_two_callers_one_or_one_two(attacked_url: str) -> None:
    async with open_attacked(attacked_url, limits=NO_LIMITS | {"mint_per_user": "1/hour"}) as world:
        subjects = ["a", "a/b", "a:b", "a|b", '["a"', "a b", "A", "a%2Fb"]
        first = [await mint(world, {"headers": world.as_user("alice", sub=subject)}) for subject in subjects]
        second = [await mint(world, {"headers": world.as_user("alice", sub=subject)}) for subject in subjects]
        assert (set(first), set(second)) == ({201}, {429})


async def test_a_guesser_is_slowed_down_and_nobody_else_at_its_address(attacked_url: str) -> None:
    limits = NO_LIMITS | {"unauthenticated_per_address": f"{MOST}/hour"}
    async with open_attacked(attacked_url, limits=limits) as world:
        path = "/v1/owners/org_acme/linked-accounts"
        for _ in range(MOST):
            answer = await world.broker.get(path, headers=world.as_service("sk_" + "a" * 16 + "_" + "A" * 43))
            assert answer.status_code == 401
        for credential in ("junk", world.token("alice"), world.service_key[:-1] + "!"):
            assert (await world.broker.get(path, headers=world.as_service(credential))).status_code == 429
        assert (await world.broker.get(path, headers=world.as_service())).status_code == 200
        assert (await world.broker.get("/v1/linked-accounts", headers=world.as_user("alice"))).status_code == 200
        # Without a credential nothing is guessed, and nothing but the usual challenge is learned.
        assert (await world.broker.get(path)).status_code == 401
