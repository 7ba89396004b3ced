"""User tokens of the broker's own: a backend vouches for a user, and a browser is that user, nowhere else."""

import base64
import json
import secrets
from typing import Any

import jwt
import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from app.db.tables import metadata
from app.identity.caller import Scope
from app.jobs import apply_retention
from tests.support.tokens import StoppedClock
from tests.support.world import USER_TOKEN_SECRET, World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

OWNER = "/v1/owners/org_acme/user-tokens"
LIST = "/v1/linked-accounts"


async def issued(world: World, owner: str = OWNER, **body: Any) -> dict[str, Any]:
    answer = await world.broker.post(owner, headers=world.as_service(), json={"user": "alice", **body})
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return dict(answer.json())


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def status(world: World, token: str) -> int:
    return int((await world.broker.get(LIST, headers=bearer(token))).status_code)


async def test_the_browser_is_this_user_of_this_owner(world: World) -> None:
    account_id = await world.link("alice")
    token = await issued(world, user="alice@acme.example", owner_name="Acme Inc", expires_in=60)
    assert token["expires_in"] == 60
    confirmed = await world.broker.post(f"{LIST}/{account_id}/confirm", headers=bearer(token["token"]))
    assert confirmed.status_code == 200
    listed = await world.broker.get(LIST, headers=bearer(token["token"]))
    assert [account["account_id"] for account in listed.json()["data"]] == [account_id]
    minted = await world.broker.post("/v1/connect-sessions", headers=bearer(token["token"]), json={})
    assert minted.status_code == 201
    [sent] = await world.received("POST", "/connect_sessions")
    body = json.loads(sent["body"]) if isinstance(sent["body"], str) else sent["body"]
    assert (body["origin_owner_id"], body["origin_owner_name"], body["origin_username"]) == (
        "org_acme",
        "Acme Inc",
        "alice@acme.example",
    )
    bobs = await issued(world, "/v1/owners/org_globex/user-tokens")
    assert (await world.broker.get(LIST, headers=bearer(bobs["token"]))).json()["data"] == []


async def test_it_opens_browser_routes_and_no_other(world: World) -> None:
    token = (await issued(world))["token"]
    for method, path in (("GET", "/v1/accounts"), ("GET", "/v1/events"), ("POST", OWNER)):
        assert (await world.broker.request(method, path, headers=bearer(token))).status_code == 401, path


async def test_who_may_have_them_made(world: World) -> None:
    limited = await world.create_key(Scope.USERS_WRITE, owners=("org_acme",))
    others = await world.create_key(*(scope for scope in Scope if scope is not Scope.USERS_WRITE))
    body = {"user": "alice"}
    assert (await world.broker.post(OWNER, headers=world.as_service(limited), json=body)).status_code == 201
    foreign = await world.broker.post("/v1/owners/org_globex/user-tokens", headers=world.as_service(limited), json=body)
    assert (foreign.status_code, foreign.json()["code"]) == (403, "insufficient_scope")
    assert (await world.broker.post(OWNER, headers=world.as_service(others), json=body)).status_code == 403
    assert (await world.broker.delete(OWNER, headers=world.as_service(others))).status_code == 403


async def test_what_cannot_be_asked_for(world: World) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"user": ""}, "body.user"),
        ({"user": "a\nb"}, "body.user"),
        ({"user": "x" * 256}, "body.user"),
        ({"user": "alice", "expires_in": 3601}, "body.expires_in"),
        ({"user": "alice", "expires_in": 59}, "body.expires_in"),
        ({"user": "alice", "owner_id": "org_globex"}, "body.owner_id"),
        ({"user": "alice", "claims": {"sub": "bob"}}, "body.claims"),
        ({"user": "alice", "claims": {"exp": 1}}, "body.claims"),
        ({"user": "alice", "claims": {"big": "x" * 5000}}, "body.claims"),
        ({}, "body.user"),
    ]
    for body, location in cases:
        answer = await world.broker.post(OWNER, headers=world.as_service(), json=body)
        assert answer.status_code == 422, body
        assert [error["location"] for error in answer.json()["errors"]] == [location], body


def forged(secret: str = USER_TOKEN_SECRET, kind: str | None = None, **changes: Any) -> str:
    """Sign a token as the broker would, with something about it changed."""
    now = int(StoppedClock().now().timestamp())
    payload: dict[str, Any] = {
        "iss": "urn:connect-broker:user-tokens",
        "aud": "connect-broker",
        "sub": "alice",
        "iat": now,
        "exp": now + 600,
        "jti": "ut_x",
        "owner_id": "org_acme",
        "owner_name": "org_acme",
        "as_of": 0,
        "claims": {},
    }
    payload = {name: value for name, value in {**payload, **changes}.items() if value is not None}
    return jwt.encode(payload, secret, algorithm="HS256", headers={"typ": kind or "connect-broker-user+jwt"})


async def test_only_what_the_broker_made_for_itself_is_accepted(database_url: str) -> None:
    async with open_world(database_url, clock=StoppedClock(), sync={"enabled": False}) as world:
        assert await status(world, forged()) == 200
        now = int(StoppedClock().now().timestamp())
        head, body, signature = forged().split(".")
        unsigned = base64.urlsafe_b64encode(b'{"alg":"none","typ":"connect-broker-user+jwt"}').rstrip(b"=").decode()
        for name, token in {
            "another secret": forged(secrets.token_urlsafe(32)),
            "another kind": forged(kind="JWT"),
            "another audience": forged(aud="another-broker"),
            "no audience": forged(aud=None),
            "another issuer": forged(iss="urn:connect-broker"),
            "expired": forged(exp=now),
            "valid for a day": forged(exp=now + 86_400),
            "from the future": forged(iat=now + 120, exp=now + 600),
            "no owner": forged(owner_id=None),
            "a list of owners": forged(owner_id=["org_acme"]),
            "no count of revocations": forged(as_of=None),
            "no user": forged(sub=None),
            "unsigned": f"{unsigned}.{body}.",
            "cut": f"{head}.{body}.{signature[:-2]}",
        }.items():
            assert await status(world, token) == 401, name


async def test_without_a_secret_there_are_none(database_url: str) -> None:
    async with open_world(database_url, clock=StoppedClock(), user_tokens={"secrets": []}) as world:
        assert await status(world, forged()) == 401
        world.service_key = await world.create_key()
        answer = await world.broker.post(OWNER, headers=world.as_service(), json={"user": "alice"})
        assert (answer.status_code, answer.json()["code"]) == (409, "not_configured")


async def test_a_secret_is_rotated_without_a_refused_token(database_url: str) -> None:
    newer = "demo-canary-user-token-secret-newer-1"
    async with open_world(database_url) as world:
        old = (await issued(world))["token"]
    async with open_world(database_url, user_tokens={"secrets": [newer, USER_TOKEN_SECRET]}) as world:
        new = (await issued(world))["token"]
        assert [await status(world, token) for token in (old, new)] == [200, 200]
    async with open_world(database_url, user_tokens={"secrets": [newer]}) as world:
        assert [await status(world, token) for token in (old, new)] == [401, 200]


@pytest.mark.parametrize("user", ["alice", None])
async def test_revoked_tokens_end_everywhere_and_new_ones_work(database_url: str, user: str | None) -> None:
    clock = StoppedClock()
    async with (
        open_world(database_url, clock=clock, sync={"enabled": False}) as one,
        open_world(database_url, clock=clock, sync={"enabled": False}) as other,
    ):
        tokens = {name: (await issued(one, user=name))["token"] for name in ("alice", "carol")}
        bobs = (await issued(one, "/v1/owners/org_globex/user-tokens"))["token"]
        for world in (one, other):
            assert [await status(world, token) for token in (*tokens.values(), bobs)] == [200, 200, 200]
        answer = await one.broker.delete(OWNER, headers=one.as_service(), params={"user": user} if user else {})
        assert (answer.status_code, answer.json()["user"]) == (200, user)
        carols = 200 if user else 401
        # In the same second, before and after.
        again = (await issued(one))["token"]
        expected = [401, carols, 200, 200]
        assert [await status(one, token) for token in (*tokens.values(), bobs, again)] == expected
        clock.advance(5)
        assert [await status(other, token) for token in (*tokens.values(), bobs, again)] == expected
        clock.advance(3 * 3600)
        await apply_retention(one.runtime)
        async with one.runtime.database.reading() as connection:
            left = await connection.execute(sa.text("SELECT count(*) FROM user_token_revocations"))
        assert left.scalar_one() == 0


async def test_an_erased_owners_tokens_end(world: World) -> None:
    token = (await issued(world, user="alice@acme.example"))["token"]
    assert await status(world, token) == 200
    erased = await world.broker.delete("/v1/owners/org_acme", headers=world.as_service())
    assert erased.json()["state"] == "complete"
    assert await status(world, token) == 401
    async with world.runtime.database.reading() as connection:
        rows = [(await connection.execute(sa.select(table))).all() for table in metadata.sorted_tables]
    assert "org_acme" not in repr(rows)


async def test_each_is_told_in_the_log_and_none_is_shown_there(world: World) -> None:
    with capture_logs() as lines:
        token = await issued(world)
    [line] = [line for line in lines if line["event"] == "user_token_issued"]
    assert (line["owner_id"], line["user"], line["token_id"]) == ("org_acme", "alice", token["id"])
    assert line["actor"].startswith("service:")
    assert token["token"] not in repr(lines)


async def test_one_credential_has_a_bounded_number_made(database_url: str) -> None:
    async with open_world(database_url, limits={"user_tokens_per_service": "2/minute"}) as world:
        await issued(world)
        await issued(world)
        answer = await world.broker.post(OWNER, headers=world.as_service(), json={"user": "alice"})
        assert answer.status_code == 429
        world.service_key = await world.create_key()
        await issued(world)


async def test_policy_sees_the_claims_that_the_backend_gave(database_url: str, tmp_path: Any) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[[rule]]\nname = "admins"\nclaims = { role = "admin" }\nproviders = ["*"]\n')
    async with open_world(database_url, policy_file=str(policy)) as world:
        for claims, expected in (({}, 403), ({"role": "admin"}, 201), ({"role": ["reader", "admin"]}, 201)):
            token = (await issued(world, claims=claims))["token"]
            answer = await world.broker.post("/v1/connect-sessions", headers=bearer(token), json={})
            assert answer.status_code == expected, claims
