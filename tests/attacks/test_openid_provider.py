"""A certified OpenID provider that nobody here wrote: its tokens, its other tokens, its rotation and its outage."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx2
import jwt
import pytest

from tests.attacks.opened import minted, open_attacked
from tests.attacks.openid_provider import PEOPLE, OpenIdProvider, openid_provider
from tests.support.tokens import Issuer, SigningKey, StoppedClock, rsa_key
from tests.support.world import World

pytestmark = pytest.mark.anyio

ROUTE = "/v1/linked-accounts"
COOLDOWN, FRESH = 30, 600
OLD, NEW, NEWEST = rsa_key("old"), rsa_key("new"), rsa_key("newest")


class HurriedClock:
    """The machine's clock, whose monotonic side can be put forward so that nobody waits for a cooldown."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> datetime:
        """Return the moment."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic() + self._ahead

    def put_forward(self, seconds: float) -> None:
        """Let cooldowns and ages pass."""
        self._ahead += seconds


@dataclass(frozen=True)
class Scene:
    """A broker that trusts a provider, for its users and for its machines."""

    world: World
    provider: OpenIdProvider
    clock: HurriedClock

    async def get(self, token: str, path: str = ROUTE) -> httpx2.Response:
        """Ask the broker for something with a token."""
        return await self.world.broker.get(path, headers={"authorization": f"Bearer {token}"})

    async def status(self, token: str) -> int:
        """Return how the broker answers a token."""
        return (await self.get(token)).status_code

    async def access_token(self, login: str = "ann") -> str:
        """Sign a person in, and return the access token for the broker."""
        return (await self.provider.sign_in(login))["access_token"]


@asynccontextmanager
async def open_scene(url: str, *keys: SigningKey) -> AsyncIterator[Scene]:
    """Open a world whose broker knows nothing of the provider but its name; without keys it is not started."""
    clock = HurriedClock()
    async with openid_provider() as provider:
        if keys:
            await provider.start(*keys)
        trusted = {"issuer": provider.issuer, "algorithms": ["RS256"], "token_types": ["at+jwt"]}
        paths = {"owner_id": "org_id", "owner_name": "org_name", "username": "email"}
        identity = {
            "issuers": [{**trusted, "audiences": ["connect-broker"], "claims": paths}],
            "machine_issuers": [{**trusted, "audiences": ["connect-broker-machines"]}],
            "jwks_cooldown_seconds": COOLDOWN,
            "jwks_fresh_seconds": FRESH,
        }
        async with open_attacked(url, identity=identity, clock=clock) as world:
            yield Scene(world, provider, clock)


@pytest.fixture
async def scene(attacked_url: str) -> AsyncIterator[Scene]:
    """Open a world with a provider that has one key."""
    async with open_scene(attacked_url, OLD) as opened:
        yield opened


async def test_its_users_sign_in_by_code_and_pkce_and_are_who_they_are(scene: Scene) -> None:
    for login, claims in PEOPLE.items():
        token = await scene.access_token(login)
        assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
        answer = await scene.world.broker.post("/v1/connect-sessions", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 201, answer.text
        sent = minted(scene.world)[-1]
        assert [sent[name] for name in ("origin_owner_id", "origin_owner_name", "origin_username")] == [
            claims["org_id"],
            claims["org_name"],
            claims["email"],
        ]


async def test_no_other_token_of_its_opens_the_channel(scene: Scene) -> None:
    tokens = await scene.provider.sign_in("ann")
    opaque = await scene.provider.sign_in("ann", resource=None)
    elsewhere = await scene.provider.sign_in("ann", resource="urn:another-api")
    machine = await scene.provider.machine_token("accounts:read")
    assert await scene.status(tokens["access_token"]) == 200
    others = {
        "ID token": tokens["id_token"],
        "refresh token": tokens["refresh_token"],
        "opaque access token": opaque["access_token"],
        "access token for another API": elsewhere["access_token"],
        "machine's access token": machine,
    }
    assert {name: await scene.status(token) for name, token in others.items()} == dict.fromkeys(others, 401)


async def test_its_machines_have_the_scopes_that_they_were_given(scene: Scene) -> None:
    path = "/v1/owners/org_tailspin/linked-accounts"
    reader = await scene.provider.machine_token("accounts:read")
    writer = await scene.provider.machine_token("sessions:write")
    user = await scene.access_token()
    assert [(await scene.get(token, path)).status_code for token in (reader, writer, user)] == [200, 403, 401]


async def test_its_rotation_is_noticed_without_a_restart(scene: Scene) -> None:
    before = await scene.access_token()
    assert await scene.status(before) == 200

    await scene.provider.rotate(NEW, OLD)
    after = await scene.access_token()
    assert jwt.get_unverified_header(after)["kid"] == NEW.kid
    scene.clock.put_forward(COOLDOWN)
    assert [await scene.status(token) for token in (after, before)] == [200, 200]

    await scene.provider.rotate(NEW)
    scene.clock.put_forward(FRESH + 1)
    assert [await scene.status(token) for token in (after, before)] == [200, 401]


async def test_its_outage_costs_only_those_who_have_a_new_key(scene: Scene) -> None:
    known = await scene.access_token()
    assert await scene.status(known) == 200
    await scene.provider.stop()

    scene.clock.put_forward(FRESH + 1)
    assert [await scene.status(known) for _ in range(3)] == [200] * 3
    # Signed by a key that the provider published just before it went away.
    answer = await scene.get(_as_the_provider_would_sign(scene, NEWEST.kid))
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert 1 <= int(answer.headers["retry-after"]) <= COOLDOWN
    assert await scene.status(known + "x") == 401

    await scene.provider.start(NEWEST)
    scene.clock.put_forward(COOLDOWN)
    signed_in = await scene.access_token()
    assert [await scene.status(token) for token in (signed_in, known)] == [200, 401]


async def test_a_broker_that_starts_before_its_provider_waits_for_it(attacked_url: str) -> None:
    async with open_scene(attacked_url) as scene:
        token = _as_the_provider_would_sign(scene, OLD.kid)
        answer = await scene.get(token)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        await scene.provider.start(OLD)
        scene.clock.put_forward(COOLDOWN)
        assert await scene.status(token) == 200
        assert await scene.status(await scene.access_token()) == 200


def _as_the_provider_would_sign(scene: Scene, kid: str) -> str:
    clock = StoppedClock(datetime.now(UTC))
    issuer = Issuer(clock, scene.provider.issuer, key=rsa_key(kid))
    return issuer.token_with_header(typ="at+jwt")
