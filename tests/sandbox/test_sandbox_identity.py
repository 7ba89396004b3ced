"""Tokens that verify, keys that rotate, and the page on the same origin."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from sandbox.clock import system_clock
from tests.sandbox.look import Idp

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def shared(make_idp: Callable[..., Idp]) -> Idp:
    # Making RSA keys takes longer than any test here.
    return make_idp(system_clock)


@pytest.fixture
def idp(shared: Idp) -> Idp:
    return shared


@pytest.fixture
def rotating(make_idp: Callable[..., Idp]) -> Idp:
    return make_idp(system_clock)


async def token(idp: Idp, user: str = "alice", **order: object) -> str:
    answer = await idp.switch.post("/_sandbox/tokens", json={"user": user, **order})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


async def verified(idp: Idp, text: str, **options: Any) -> dict[str, Any]:
    """Verify as a careful stranger would: discovery, key by kid, algorithm of the key."""
    discovery = (await idp.browser.get("/.well-known/openid-configuration")).json()
    keys = (await idp.browser.get(discovery["jwks_uri"])).json()["keys"]
    kid = jwt.get_unverified_header(text)["kid"]
    (jwk,) = [key for key in keys if key["kid"] == kid]
    assert not {"d", "p", "q", "dp", "dq", "qi"} & set(jwk)
    return jwt.decode(
        text,
        jwt.PyJWK(jwk),
        algorithms=[jwk["alg"]],
        audience="connect-broker",
        issuer=discovery["issuer"],
        **options,
    )


@pytest.mark.parametrize(
    ("user", "org", "name"),
    [("alice", "org_acme", "Acme Inc"), ("carol", "org_acme", "Acme Inc"), ("bob", "org_globex", "Globex Corp")],
)
async def test_users_and_their_organisations(idp: Idp, user: str, org: str, name: str) -> None:
    text = await token(idp, user)
    claims = await verified(idp, text)
    assert jwt.get_unverified_header(text)["typ"] == "at+jwt"
    assert (claims["sub"], claims["org_id"], claims["org_name"]) == (user, org, name)
    assert claims["email"].startswith(user)
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["nbf"] <= claims["iat"]
    assert claims["jti"]


async def test_discovery_names_its_own_origin(idp: Idp) -> None:
    discovery = (await idp.browser.get("/.well-known/openid-configuration")).json()
    assert discovery["issuer"] == "http://idp.test"
    assert discovery["jwks_uri"] == "http://idp.test/jwks.json"


async def test_claims_can_be_overridden_and_left_out(idp: Idp) -> None:
    text = await token(idp, claims={"org_id": "org_x", "email": None, "nested": {"a": 1}})
    claims = await verified(idp, text)
    assert (claims["org_id"], claims["nested"]) == ("org_x", {"a": 1})
    assert "email" not in claims


async def test_expired_tokens_can_be_had(idp: Idp) -> None:
    with pytest.raises(jwt.ExpiredSignatureError):
        await verified(idp, await token(idp, expires_in=-5))


async def test_es256(rotating: Idp) -> None:
    text = await token(rotating, alg="ES256")
    assert jwt.get_unverified_header(text)["alg"] == "ES256"
    assert (await verified(rotating, text))["sub"] == "alice"
    await rotating.switch.post("/_sandbox/rotate-key", json={"alg": "ES256", "keep_old": True})
    assert jwt.get_unverified_header(await token(rotating))["alg"] == "ES256"


async def test_rotation_with_overlap(rotating: Idp) -> None:
    old = await token(rotating)
    await rotating.switch.post("/_sandbox/rotate-key", json={"keep_old": True})
    new = await token(rotating)
    assert jwt.get_unverified_header(old)["kid"] != jwt.get_unverified_header(new)["kid"]
    assert (await verified(rotating, old))["sub"] == (await verified(rotating, new))["sub"]


async def test_rotation_without_overlap(rotating: Idp) -> None:
    old = await token(rotating)
    await rotating.switch.post("/_sandbox/rotate-key", json={})
    with pytest.raises(ValueError, match="not enough values"):
        await verified(rotating, old)
    await verified(rotating, await token(rotating))


async def test_published_keys_are_bounded(rotating: Idp) -> None:
    for _ in range(12):
        await rotating.switch.post("/_sandbox/rotate-key", json={"alg": "ES256", "keep_old": True})
    assert len((await rotating.browser.get("/jwks.json")).json()["keys"]) == 10


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"user": "mallory"},
        {"user": "alice", "alg": "none"},
        {"user": "alice", "expires_in": 1e300},
        {"user": "alice", "x": 1},
    ],
)
async def test_senseless_tokens_are_400(idp: Idp, order: dict[str, Any]) -> None:
    assert (await idp.switch.post("/_sandbox/tokens", json=order)).status_code == 400


async def test_switches_need_the_key(idp: Idp) -> None:
    for path in ("tokens", "rotate-key", "faults", "reset"):
        assert (await idp.browser.post(f"/_sandbox/{path}", json={"user": "alice"})).status_code == 401


async def test_the_page_signs_people_in(idp: Idp) -> None:
    answer = await idp.browser.post("/demo/sign-in", json={"user": "bob"})
    assert answer.json()["expires_in"] == 3600
    assert answer.headers["cache-control"] == "no-store"
    assert (await verified(idp, answer.json()["token"]))["sub"] == "bob"
    assert (await idp.browser.post("/demo/sign-in", json={"user": "mallory"})).status_code == 400


async def test_no_other_page_does(idp: Idp) -> None:
    for origin, status in (("http://idp.test", 200), ("http://evil.example", 403), ("null", 403)):
        answer = await idp.browser.post("/demo/sign-in", json={"user": "bob"}, headers={"origin": origin})
        assert answer.status_code == status
        assert "access-control-allow-origin" not in answer.headers
    preflight = await idp.browser.options("/demo/sign-in", headers={"origin": "http://evil.example"})
    assert "access-control-allow-origin" not in preflight.headers


async def test_it_can_be_down(rotating: Idp) -> None:
    await rotating.switch.post("/_sandbox/faults", json={"times": None, "status": 503})
    for path in ("/jwks.json", "/.well-known/openid-configuration", "/", "/config.json"):
        assert (await rotating.browser.get(path)).status_code == 503
    await rotating.switch.delete("/_sandbox/faults")
    assert (await rotating.browser.get("/jwks.json")).status_code == 200
    received = (await rotating.switch.get("/_sandbox/requests?path=/jwks.json")).json()
    assert [entry["status"] for entry in received] == [503, 200]


async def test_reset_makes_new_keys(rotating: Idp) -> None:
    before = (await rotating.browser.get("/jwks.json")).json()
    await rotating.switch.post("/_sandbox/reset")
    assert (await rotating.browser.get("/jwks.json")).json() != before


async def test_page_configuration(idp: Idp) -> None:
    assert (await idp.browser.get("/config.json")).json() == {
        "broker": "http://127.0.0.1:8000",
        "stackone": "http://127.0.0.1:8100",
        "appUrl": "http://127.0.0.1:8100",
    }


async def test_without_a_page_there_is_help(make_idp: Callable[..., Idp], tmp_path: Path) -> None:
    idp = make_idp(system_clock, page_dir=tmp_path / "missing")
    front = await idp.browser.get("/")
    assert (front.status_code, "make demo" in front.text) == (200, True)
    assert (await idp.browser.get("/app.js")).status_code == 404


async def test_the_page_is_served_under_a_strict_policy(make_idp: Callable[..., Idp], tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    dist = tmp_path / "dist"
    (dist / "assets").mkdir(parents=True)
    idp = make_idp(system_clock, page_dir=dist)
    assert "make demo" in (await idp.browser.get("/")).text
    (dist / "index.html").write_text("<p>page</p>")
    (dist / "assets" / "app.js").write_text("1")
    for path, kind in (("/", "text/html"), ("/assets/app.js", "text/javascript")):
        answer = await idp.browser.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert policy["connect-src"] == "'self' http://127.0.0.1:8000 http://127.0.0.1:8100"
        assert policy["frame-ancestors"] == "'none'"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin-allow-popups"
        caching = "no-cache" if path == "/" else "public, max-age=31536000, immutable"
        assert answer.headers["cache-control"] == caching
        assert answer.headers["content-encoding"] == "gzip"
        again = await idp.browser.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.headers["cache-control"]) == (304, caching)
        plain = await idp.browser.get(path, headers={"accept-encoding": "identity"})
        assert (plain.text, "content-encoding" in plain.headers) == (answer.text, False)
    for path in ("/missing.js", "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt"):
        answer = await idp.browser.get(path)
        assert (answer.status_code, answer.headers["cache-control"]) == (404, "no-cache")
        assert "secret" not in answer.text
