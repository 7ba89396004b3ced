"""Requests that want to be taken for others: by a header, a path, a verb, a media type or a field too many."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from sandbox.identity.provider import USERS
from tests.attacks.opened import asked_upstream, body_told, minted, open_attacked, stored
from tests.attacks.places import Operation, operations
from tests.attacks.wire import RawAnswer, send_raw
from tests.support.world import World

pytestmark = pytest.mark.anyio

Pairs = list[tuple[str, str]]
EVIL = "org_globex"
MINT = "/v1/connect-sessions"
_TRACE, _SPAN = "a" * 32, "b" * 16
LIST = "/v1/linked-accounts"


@dataclass(frozen=True)
class Scene:
    """A world in which alice and bob have an account each."""

    world: World
    accounts: Mapping[str, str]

    async def send(
        self, target: str, *, who: str = "alice", headers: Pairs | None = None, method: str = "GET", body: bytes = b""
    ) -> RawAnswer:
        """Send a request of a signed-in user, exactly as it is spelled."""
        credential = self.world.as_user(who).items()
        return await send_raw(self.world, target, headers=[*credential, *(headers or [])], method=method, body=body)

    async def unchanged_by(
        self, target: str, *, headers: Pairs | None = None, method: str = "GET", body: bytes = b""
    ) -> RawAnswer:
        """Send a request and check that it writes nothing, here or at StackOne."""
        before, asked = await stored(self.world), len(asked_upstream(self.world))
        answer = await self.send(target, headers=headers, method=method, body=body)
        assert await stored(self.world) == before
        assert asked_upstream(self.world)[asked:] == []
        return answer


@pytest.fixture(scope="module")
async def scene(attacked_url: str) -> AsyncIterator[Scene]:
    """Open a world and link the two accounts."""
    async with open_attacked(attacked_url) as world:
        accounts = {who: await world.link(who, "bamboohr") for who in ("alice", "bob")}
        for who, account_id in accounts.items():
            answer = await world.broker.post(f"{LIST}/{account_id}/confirm", headers=world.as_user(who))
            assert answer.status_code == 200
        yield Scene(world, accounts)


def shown(answer: RawAnswer) -> list[str]:
    """Return the accounts in a list."""
    return [account["account_id"] for account in json.loads(answer.body)["data"]]


SPOOFED: Mapping[str, Pairs] = {
    "owner": [("X-Owner-Id", EVIL), ("Owner-Id", EVIL), ("X-Origin-Owner-Id", EVIL), ("Origin-Owner-Id", EVIL)],
    "underscores": [("origin_owner_id", EVIL), ("origin_owner_name", "Globex"), ("owner_id", EVIL), ("org_id", EVIL)],
    "user": [("X-User", "bob"), ("X-User-Id", "bob"), ("X-Remote-User", "bob"), ("Remote-User", "bob")],
    "proxy-sign-in": [("X-Forwarded-User", "bob"), ("X-Forwarded-Email", "bob@globex.example"), ("X-Auth-User", "bob")],
    "tenant": [("X-Tenant", EVIL), ("X-Tenant-Id", EVIL), ("X-Organization", EVIL), ("X-Org-Id", EVIL)],
    "stackone": [("x-account-id", "1"), ("X-StackOne-Account", "1"), ("x-hub-session-token", "t")],
    "roles": [("X-Role", "admin"), ("X-Scopes", "sessions:write"), ("X-Admin", "true"), ("X-Debug", "1")],
    "for": [("X-Forwarded-For", "127.0.0.1"), ("X-Real-Ip", "127.0.0.1"), ("True-Client-Ip", "127.0.0.1")],
    "forwarded": [("Forwarded", "for=127.0.0.1;host=evil.example;proto=https")],
    "forwarded-host": [("X-Forwarded-Host", "evil.example"), ("X-Host", "evil.example"), ("X-Forwarded-Server", "e")],
    "forwarded-proto": [("X-Forwarded-Proto", "gopher"), ("X-Forwarded-Scheme", "file"), ("X-Forwarded-Port", "1")],
    "forwarded-prefix": [("X-Forwarded-Prefix", "/v1/owners/org_globex"), ("X-Script-Name", "/v1")],
    "original-url": [("X-Original-Url", "/v1/events"), ("X-Rewrite-Url", "/v1/events")],
    "method-override": [
        ("X-Http-Method-Override", "DELETE"),
        ("X-Method-Override", "DELETE"),
        ("X-Http-Method", "PUT"),
    ],
    "internal": [("X-Internal", "1"), ("X-Ssl-Client-Verify", "SUCCESS")],
    "traces": [
        ("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("Baggage", f"org_id={EVIL}"),
    ],
    "cookies": [("Cookie", f"org_id={EVIL}; owner_id={EVIL}; __Host-connect-broker=x.y.z")],
    "conditions": [
        ("If-None-Match", "*"),
        ("If-Modified-Since", "Sat, 01 Jan 2050 00:00:00 GMT"),
        ("Range", "bytes=0-1"),
    ],
    "expectations": [("Accept", "text/html"), ("Accept-Encoding", "gzip, br"), ("Accept-Language", "../../etc/passwd")],
    "hop-by-hop": [("Te", "trailers"), ("Keep-Alive", "timeout=9999"), ("Proxy-Connection", "keep-alive")],
}


@pytest.mark.parametrize("headers", SPOOFED.values(), ids=SPOOFED.keys())
async def test_no_header_makes_a_caller_somebody_else(scene: Scene, headers: Pairs) -> None:
    assert shown(await scene.send(LIST, headers=headers)) == [scene.accounts["alice"]]
    foreign = await scene.send(f"{LIST}/{scene.accounts['bob']}", headers=headers)
    assert foreign.status == 404
    before = len(minted(scene.world))
    answer = await scene.send(MINT, method="POST", headers=headers)
    assert answer.status == 201
    [sent] = minted(scene.world)[before:]
    alice = USERS["alice"]
    assert (sent["origin_owner_id"], sent["origin_owner_name"], sent["origin_username"]) == (
        alice.org_id,
        alice.org_name,
        alice.email,
    )


@pytest.mark.parametrize("headers", SPOOFED.values(), ids=SPOOFED.keys())
async def test_no_header_opens_a_door_without_a_credential(scene: Scene, headers: Pairs) -> None:
    for target in (LIST, "/v1/events", "/v1/sync"):
        answer = await send_raw(scene.world, target, headers=headers)
        assert answer.status == 401, target


@pytest.mark.parametrize(
    "host", ["evil.example", "", "127.0.0.1:1", "a" * 300, "evil.example/x?y#z", "[::1]", "\u00e9"]
)
async def test_the_host_header_is_nowhere_in_an_answer(scene: Scene, host: str) -> None:
    for target in (LIST, f"{LIST}/", "/v1/nowhere", MINT):
        answer = await send_raw(scene.world, target, headers=[("Host", host), *scene.world.as_user().items()])
        assert answer.status < 500
        assert "location" not in answer.headers
        assert b"evil.example" not in answer.body
        assert "evil.example" not in str(answer.headers)


PATHS: Mapping[str, str] = {
    "double-slash": "//v1/linked-accounts",
    "double-slash-inside": "/v1//linked-accounts",
    "trailing-slash": "/v1/linked-accounts/",
    "encoded-trailing-slash": "/v1/linked-accounts%2f",
    "host-like": "//evil.example/v1/linked-accounts",
    "dot": "/v1/./linked-accounts",
    "dot-dot": "/v1/x/../linked-accounts",
    "encoded-dot-dot": "/v1/x/%2e%2e/linked-accounts",
    "back-slash": "/v1\\linked-accounts",
    "encoded-back-slash": "/v1%5clinked-accounts",
    "upper-case": "/V1/LINKED-ACCOUNTS",
    "semicolon": "/v1/linked-accounts;jsessionid=1",
    "semicolon-dot-dot": "/v1/events/..;/linked-accounts",
    "extension": "/v1/linked-accounts.json",
    "blank": "/v1/linked-accounts%20",
    "nul": "/v1/linked-accounts%00",
    "newline": "/v1/linked-accounts%0a",
    "double-encoded": "/v1/%256cinked-accounts",
    "overlong-utf8": "/v1%c0%aflinked-accounts",
    "asterisk": "*",
    "authority": "127.0.0.1:80",
    "version-2": "/v2/linked-accounts",
    "sandbox": "/_sandbox/requests",
    "health-then-up": "/livez/../v1/linked-accounts",
    "metrics": "/metrics",
    "docs-redirect": "/docs/oauth2-redirect",
    "environment": "/.env",
    "git": "/.git/config",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
async def test_a_path_that_is_nearly_one_of_ours_is_none(scene: Scene, path: str) -> None:
    answer = await scene.unchanged_by(path)
    assert answer.status in {400, 404, 422}
    assert scene.accounts["alice"].encode() not in answer.body
    assert "location" not in answer.headers


IDS: Mapping[str, str] = {
    "dot-dot": "..",
    "encoded-dot-dot": "%2e%2e",
    "dot-dot-slash": "..%2fconnect_sessions",
    "slash": "1%2f2",
    "query": "1%3fx=1",
    "fragment": "1%23x",
    "at": "x%40evil.example",
    "colon": "http:%2f%2fevil.example",
    "newline": "1%0d%0aX-Injected:%201",
    "back-slash": "..%5c..",
    "double-encoded": "%252e%252e%252f",
    "semicolon": "1;x=1",
    "blank": "%20",
    "nul": "1%00",
    "not-utf8": "%ff%fe",
    "asterisk": "*",
    "percent": "%25",
    "quote": "'%20OR%20'1'='1",
    "braces": "{account_id}",
    "long": "1" * 256,
    "very-long": "1" * 6000,
    "null": "null",
    "negative": "-1",
    "other-digits": quote("\u0661\u0662\u0663"),
    "full-width-digits": quote("\uff11\uff12\uff13"),
}


@pytest.mark.parametrize("spelled", IDS.values(), ids=IDS.keys())
@pytest.mark.parametrize(("method", "suffix"), [("GET", ""), ("DELETE", ""), ("POST", "/confirm")])
async def test_no_account_id_leads_stackone_elsewhere(scene: Scene, spelled: str, method: str, suffix: str) -> None:
    asked = len(asked_upstream(scene.world))
    answer = await scene.send(f"{LIST}/{spelled}{suffix}", method=method)
    assert answer.status in {400, 404, 422}
    assert "x-injected" not in answer.headers
    # An id that StackOne could have given out is asked for, and stays one segment of the path.
    assert asked_upstream(scene.world)[asked:] in ([], [("GET", f"/accounts/{spelled}")])


# Load balancers ask these by HEAD as well, which the document leaves to HTTP.
HEALTH = {"/livez", "/readyz"}


@pytest.mark.parametrize("path", sorted({operation.path for operation in operations()}))
@pytest.mark.parametrize(
    "method",
    ["HEAD", "OPTIONS", "TRACE", "CONNECT", "PATCH", "PUT", "DELETE", "POST", "GET", "LOCK", "get", "JEFF"],
)
async def test_only_the_documented_verbs_do_anything(scene: Scene, path: str, method: str) -> None:
    if method in {operation.method for operation in operations() if operation.path == path}:
        return
    target = path.replace("{account_id}", scene.accounts["alice"]).replace("{", "").replace("}", "")
    answer = await scene.unchanged_by(target, method=method, headers=[("X-Http-Method-Override", "DELETE")])
    if method == "HEAD" and path in HEALTH:
        assert (answer.status, answer.body) == (200, b"")
        return
    assert answer.status in ({400} if method in {"get", "JEFF"} else {405})
    if answer.status == 405:
        allowed = set(answer.headers["allow"].split(", "))
        assert allowed <= {operation.method for operation in operations() if operation.path == path}


JSON = b'{"provider": "bamboohr"}'
NOT_JSON: Mapping[str, tuple[Pairs, bytes]] = {
    "none": ([], JSON),
    "empty": ([("Content-Type", "")], JSON),
    "text": ([("Content-Type", "text/plain")], JSON),
    "text-with-json-charset": ([("Content-Type", "text/plain; charset=application/json")], JSON),
    "text-then-json": ([("Content-Type", "text/plain, application/json")], JSON),
    "text-and-json-headers": ([("Content-Type", "text/plain"), ("Content-Type", "application/json")], JSON),
    "form": ([("Content-Type", "application/x-www-form-urlencoded")], b"provider=bamboohr"),
    "form-holding-json": ([("Content-Type", "application/x-www-form-urlencoded")], JSON),
    "form-smuggling-json": ([("Content-Type", "text/plain")], b'{"provider": "bamboohr", "x": "=\r\n"}'),
    "multipart": (
        [("Content-Type", "multipart/form-data; boundary=x")],
        b'--x\r\nContent-Disposition: form-data; name="provider"\r\n\r\nbamboohr\r\n--x--\r\n',
    ),
    "xml": ([("Content-Type", "application/xml")], b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>'),
    "octets": ([("Content-Type", "application/octet-stream")], JSON),
    "json-as-parameter": ([("Content-Type", "text/plain; application/json")], JSON),
    "javascript": ([("Content-Type", "application/javascript")], JSON),
    "json-prefix": ([("Content-Type", "application/jsonx")], JSON),
    "wildcard": ([("Content-Type", "*/*")], JSON),
    "messagepack": ([("Content-Type", "application/msgpack")], b"\x81\xa8provider\xa8bamboohr"),
}


@pytest.mark.parametrize(("headers", "body"), NOT_JSON.values(), ids=NOT_JSON.keys())
async def test_a_body_that_a_foreign_form_could_send_is_not_read_as_json(
    scene: Scene, headers: Pairs, body: bytes
) -> None:
    answer = await scene.unchanged_by(MINT, method="POST", headers=headers, body=body)
    assert answer.status in {400, 415, 422}
    assert answer.headers["content-type"] == "application/problem+json"


BROKEN: Mapping[str, bytes] = {
    "list": b"[]",
    "text": b'"bamboohr"',
    "number": b"1",
    "true": b"true",
    "nan": b'{"label": NaN}',
    "trailing": b'{"provider": "bamboohr"} {}',
    "comment": b'{"provider": "bamboohr"} // x',
    "single-quotes": b"{'provider': 'bamboohr'}",
    "unclosed": b'{"provider": "bamboohr"',
    "not-utf8": b'{"label": "\xff\xfe"}',
    "byte-order-mark": b'\xef\xbb\xbf{"label": 1}',
    "deep": b'{"label": ' + b"[" * 15_000 + b"]" * 15_000 + b"}",
    "huge-number": b'{"multiple": 1' + b"0" * 5000 + b"}",
    "many-keys": json.dumps({f"k{number}": number for number in range(3000)}).encode(),
    "nul-bytes": b'\x00{"provider": "bamboohr"}',
    "utf-7": b"+AHsAIgBwAHIAbwB2AGkAZABlAHIAIgA6ACIAeAAiAH0-",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
async def test_a_body_that_is_no_object_of_ours_is_refused(scene: Scene, body: bytes) -> None:
    answer = await scene.unchanged_by(MINT, method="POST", headers=[("Content-Type", "application/json")], body=body)
    assert answer.status in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"


# What frameworks, databases and StackOne itself would understand if it were passed on.
MASS_ASSIGNED = (
    "origin_owner_id",
    "originOwnerId",
    "owner_id",
    "owner",
    "user",
    "user_id",
    "username",
    "org_id",
    "sub",
    "claims",
    "id",
    "status",
    "mode",
    "token",
    "scopes",
    "scope",
    "role",
    "admin",
    "project_id",
    "provider_version",
    "channel",
    "requested_by",
    "created_at",
    "policy_rule",
    "__proto__",
    "constructor",
    "$where",
    "_method",
    "provider[]",
    "Provider",
    " provider",
    "provider\u0000",
)


@pytest.mark.parametrize("operation", [each for each in operations() if each.body is not None], ids=str)
async def test_no_body_takes_a_field_that_is_not_documented(scene: Scene, operation: Operation) -> None:
    assert operation.body is not None
    assert operation.body["additionalProperties"] is False
    credential = scene.world.as_user() if operation.channel == "browser" else scene.world.as_service()
    path = operation.path.replace("{owner_id}", "org_acme").replace("{session_id}", "cs_x")
    before = await stored(scene.world), asked_upstream(scene.world)
    required = dict.fromkeys(operation.required_fields, "x")
    for name in set(MASS_ASSIGNED) - set(operation.body["properties"]):
        body = {**required, name: EVIL}
        answer = await scene.world.broker.request(operation.method, path, headers=credential, json=body)
        assert answer.status_code == 422, name
        assert EVIL not in answer.text
    assert (await stored(scene.world), asked_upstream(scene.world)) == before


POLLUTED: Mapping[str, str] = {
    "owner": f"owner_id={EVIL}&origin_owner_id={EVIL}&org_id={EVIL}",
    "owner-in-brackets": f"owner[id]={EVIL}&owner_id[]={EVIL}",
    "override": "_method=DELETE&method=DELETE",
    "callback": "callback=alert&jsonp=alert",
    "format": "format=xml&pretty=1&debug=1",
    "fields": "fields=*&include=token&expand=owner&select=*",
    "deleted": "deleted=true&include_deleted=1&all=true",
    "limit-twice": "limit=1&limit=200",
    "semicolons": "limit=1;limit=200;owner_id=x",
}


@pytest.mark.parametrize("query", POLLUTED.values(), ids=POLLUTED.keys())
async def test_no_query_shows_more_than_ones_own(scene: Scene, query: str) -> None:
    plain = await scene.send(LIST)
    answer = await scene.unchanged_by(f"{LIST}?{query}")
    assert answer.status == 422 or body_told(answer.body) == body_told(plain.body)


async def test_a_filter_given_twice_stays_inside_ones_own(scene: Scene) -> None:
    answer = await scene.unchanged_by(f"{LIST}?provider=bamboohr&provider=bamboohr&status=active&status=error")
    assert shown(answer) == [scene.accounts["alice"]]


@pytest.mark.parametrize("order", [("alice", "bob"), ("bob", "alice")])
async def test_a_field_given_twice_never_means_somebody_elses_account(scene: Scene, order: tuple[str, str]) -> None:
    first, second = (scene.accounts[who] for who in order)
    before = len(minted(scene.world))
    answer = await scene.send(
        MINT,
        method="POST",
        headers=[("Content-Type", "application/json")],
        body=f'{{"account_id": "{first}", "account_id": "{second}"}}'.encode(),
    )
    assert answer.status in {201, 400, 404, 422}
    assert {sent["account_id"] for sent in minted(scene.world)[before:]} <= {scene.accounts["alice"]}
