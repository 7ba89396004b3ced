"""What every answer has, and bodies that are too large: over the server as production runs it."""

import json
from dataclasses import replace

import httpx2
import pytest
from structlog.testing import capture_logs

from app.http.middleware import SECURITY_HEADERS
from tests.edge.conftest import Edge, open_edge, statuses
from tests.support.world import World

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}


async def ask(edge: Edge, method: str, path: str, *, signed: bool = True, **request: object) -> httpx2.Response:
    headers = {**(request.pop("headers", None) or {})}  # type: ignore[dict-item]
    if signed:
        headers["authorization"] = f"Bearer {edge.issuer.token()}"
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}") as client:
        return await client.request(method, path, headers=headers, **request)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "expected"),
    [
        ("GET", "/livez", None, {}, 200),
        ("POST", "/v1/connect-sessions", b"{}", JSON, 201),
        ("POST", "/v1/connect-sessions", b"{", JSON, 400),
        ("GET", "/nothing/here", None, {}, 404),
        ("GET", "/v1/linked-accounts/none", None, {}, 404),
        ("PUT", "/v1/linked-accounts", None, {}, 405),
        ("POST", "/v1/connect-sessions", b"x" * 70_000, JSON, 413),
        ("POST", "/v1/connect-sessions", b'{"x": 1}', JSON, 422),
        ("POST", "/v1/connect-sessions", b"{}", {"content-type": "text/plain"}, 422),
        ("GET", "/v1/accounts/x", None, {}, 401),
        ("OPTIONS", "/v1/connect-sessions", None, {"origin": "https://evil.example"}, 405),
        (
            "OPTIONS",
            "/v1/connect-sessions",
            None,
            {"origin": "https://evil.example", "access-control-request-method": "POST"},
            400,
        ),
    ],
)
async def test_every_answer_has_the_security_headers(
    edge: Edge, method: str, path: str, body: bytes | None, headers: dict[str, str], expected: int
) -> None:
    answer = await ask(edge, method, path, content=body, headers=headers)
    assert answer.status_code == expected, answer.text
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers[name] == value
    assert answer.headers["cache-control"] == "no-store"
    assert {"Authorization", "Cookie", "Origin"} <= {part.strip() for part in answer.headers["vary"].split(",")}
    assert "server" not in answer.headers
    assert "set-cookie" not in answer.headers
    assert "etag" not in answer.headers
    if expected >= 400 and method != "OPTIONS":
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == expected


async def test_an_unexpected_failure_has_them_too_and_says_nothing(edge: Edge) -> None:
    app = edge.server.config.app
    while not hasattr(app, "state"):
        app = app.app  # type: ignore[union-attr]

    class Broken:
        def __getattr__(self, name: str) -> object:
            message = "canary-in-an-exception"
            raise RuntimeError(message)

    kept = app.state.runtime
    app.state.runtime = replace(kept, policy=Broken())
    answer = await ask(edge, "POST", "/v1/connect-sessions", json={})
    app.state.runtime = kept
    assert answer.status_code == 500
    assert "canary" not in answer.text
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers[name] == value


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/redoc", "/docs/oauth2-redirect"])
async def test_documentation_is_off_unless_asked_for(database_url: str, path: str) -> None:
    # Development shows it always; what decides in production is this setting.
    async with open_edge(database_url, environment="production", metrics={"port": None}) as edge:
        assert (await ask(edge, "GET", path)).status_code == 404
    async with open_edge(database_url, environment="production", http={"docs": True}) as edge:
        expected = 200 if path in {"/docs", "/openapi.json"} else 404
        assert (await ask(edge, "GET", path, signed=False)).status_code == expected


@pytest.mark.parametrize(
    ("path", "limit"), [("/v1/connect-sessions", 64 * 1024), ("/v1/webhooks/stackone", 256 * 1024)]
)
async def test_a_body_over_the_limit_is_a_413_however_it_is_sent(edge: Edge, path: str, limit: int) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: b\r\nConnection: close\r\nContent-Type: application/json\r\n".encode()
    # Without a possible signature the webhook reads no body at all.
    head += edge.as_user() + b"x-stackone-signature: " + b"A" * 43 + b"\r\n"
    for size, is_too_large in ((limit, False), (limit + 1, True)):
        body = b" " * size
        by_length = await edge.send(head + b"Content-Length: %d\r\n\r\n" % size + body)
        pieces = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:30_000], body[30_000:]))
        by_chunks = await edge.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n")
        for received in (by_length, by_chunks):
            [status] = statuses(received)
            assert (status == 413) == is_too_large, received[:300]
            assert b"content-type: application/problem+json" in received.lower()
            assert json.loads(received.partition(b"\r\n\r\n")[2])["status"] == status


async def test_a_body_that_says_it_is_huge_is_refused_before_it_is_sent(edge: Edge) -> None:
    head = b"POST /v1/connect-sessions HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nConnection: close\r\n"
    assert statuses(await edge.send(head + edge.as_user() + b"Content-Length: 9999999999\r\n\r\n")) == [413]


TRACING = (
    "traceparent, tracestate, baggage, sentry-trace, x-datadog-trace-id, x-datadog-parent-id, x-datadog-origin,"
    " x-datadog-sampling-priority, idempotency-key, x-requested-with, b3, x-b3-traceid, x-b3-spanid, x-b3-sampled,"
    " uber-trace-id, newrelic, elastic-apm-traceparent, x-amzn-trace-id, x-correlation-id, cache-control, pragma"
)
PREFLIGHT = {"access-control-request-method": "POST"}


async def test_a_page_with_tracing_may_call_and_a_refused_one_is_explained_in_the_log(database_url: str) -> None:
    http = {"allowed_origins": ["https://app.example.com"], "allowed_headers": ["X-Tenant"]}
    async with open_edge(database_url, http=http) as edge:

        async def preflight(headers: str, origin: str = "https://app.example.com") -> int:
            asked = {**PREFLIGHT, "origin": origin, "access-control-request-headers": headers}
            return (await ask(edge, "OPTIONS", "/v1/connect-sessions", signed=False, headers=asked)).status_code

        assert await preflight(f"authorization, content-type, {TRACING}, x-tenant") == 200
        with capture_logs() as logs:
            assert await preflight("authorization, x-shop, x-" + "y" * 300) == 400
            assert await preflight("authorization", "https://app.example.com.evil") == 400
    lines = [line for line in logs if line["event"] == "preflight_refused"]
    assert [(line["origin"], line["is_origin_allowed"]) for line in lines] == [
        ("https://app.example.com", True),
        ("https://app.example.com.evil", False),
    ]
    assert lines[0]["refused_headers"].startswith("x-shop, x-yyy")
    assert len(lines[0]["refused_headers"]) == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_load_balancers_may_ask_with_head(edge: Edge, path: str) -> None:
    shown = await ask(edge, "GET", path, signed=False)
    head = await ask(edge, "HEAD", path, signed=False)
    assert (head.status_code, head.content) == (shown.status_code, b"")
    assert head.headers["content-length"] == shown.headers["content-length"]


@pytest.mark.parametrize(
    "owner_id", ["acme/eu", "/", "acme/../globex", "acme\\eu", ".", "..", "acme\x85eu", "a\u2028b"]
)
async def test_an_owner_that_no_path_can_name_gets_nothing(edge: Edge, owner_id: str) -> None:
    token = edge.issuer.token(org_id=owner_id)
    with capture_logs() as logs:
        answer = await ask(
            edge, "POST", "/v1/connect-sessions", signed=False, headers={"authorization": f"Bearer {token}"}
        )
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert "owner" not in answer.text
    [reason] = [entry["reason"] for entry in logs if entry["event"] == "unauthenticated"]
    assert "owner id" in reason


async def test_methods_that_nobody_knows_are_one_series(world: World) -> None:
    for method in ("PROPFIND", "MKCOL", "PURGE", "SEARCH", "GET"):
        await world.broker.request(method, "/livez")
    metrics = world.runtime.metrics.registry.collect()
    labels = {sample.labels["method"] for metric in metrics for sample in metric.samples if "method" in sample.labels}
    assert labels == {"GET", "other"}
