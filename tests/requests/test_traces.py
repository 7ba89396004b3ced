"""Traces, as a collector receives them: decoded with OpenTelemetry's own messages, from a broker that was used."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request, Response
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sandbox.serving import bind, serving
from tests.support.process import broker_process
from tests.support.waiting import eventually
from tests.support.world import API_KEY, World, open_world

pytestmark = pytest.mark.anyio

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=eve-was-here"}
COLLECTORS_KEY = "demo-key-of-the-collector"
SECRET = f"whsec_{base64.b64encode(b'of a destination in a test').decode()}"


@dataclass
class Collector:
    """What was received: spans, the headers of those who sent them, and what was pushed beside that."""

    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    pushed: list[dict[str, str]] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        """Return every span."""
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> list[Span]:
        """Return the spans of a name."""
        return [span for span in self.spans if span.name == name]

    def text(self) -> str:
        """Return everything that was sent, as text."""
        return "\n".join(str(ExportTraceServiceRequest.FromString(body)) for body in self.bodies)


@asynccontextmanager
async def collected(database_url: str, **sections: Any) -> AsyncIterator[tuple[World, Collector]]:
    """A world whose traces are collected; they are all there once the block is left."""
    collector = Collector()
    app = FastAPI()

    @app.post("/v1/traces")
    async def receive(request: Request) -> Response:
        collector.bodies.append(await request.body())
        collector.headers.append(dict(request.headers))
        return Response(media_type="application/x-protobuf")

    @app.post("/in")
    async def take(request: Request) -> Response:
        collector.pushed.append(dict(request.headers))
        return Response()

    async with serving(app, bind(0)) as url:
        traces = {"endpoint": f"{url}/v1/traces", "headers": {"api-key": COLLECTORS_KEY}, **sections.pop("traces", {})}
        destination = {"name": "erp", "url": f"{url}/in", "secret": SECRET}
        async with open_world(database_url, traces=traces, push={"destinations": [destination]}, **sections) as world:
            yield world, collector


def attributes(span: Span) -> dict[str, Any]:
    values = {each.key: each.value for each in span.attributes}
    return {key: value.string_value or value.int_value for key, value in values.items()}


def children(spans: Sequence[Span], parent: Span) -> list[str]:
    return sorted({span.name for span in spans if span.parent_span_id == parent.span_id})


@pytest.mark.both_databases
async def test_a_mint_is_part_of_its_callers_trace_and_so_is_what_it_calls(database_url: str) -> None:
    async with collected(database_url, webhooks=False) as (world, collector):
        answer = await world.broker.post(
            "/v1/connect-sessions?utm=eve", headers=world.as_user() | CALLER, json={"provider": "bamboohr"}
        )
        assert answer.status_code == 201
        [call] = await world.received("POST", "/connect_sessions")
    served = collector.named("POST /v1/connect-sessions")[-1]
    assert (served.trace_id.hex(), served.parent_span_id.hex()) == (TRACE, PARENT)
    assert served.kind == Span.SPAN_KIND_SERVER
    assert attributes(served) == {
        "http.request.method": "POST",
        "http.route": "/v1/connect-sessions",
        "http.response.status_code": 201,
    }
    below = children(collector.spans, served)
    assert "StackOne POST /connect_sessions" in below
    assert any(name.startswith("database ") for name in below)
    [carried] = collector.named("StackOne POST /connect_sessions")
    assert call["headers"]["traceparent"] == f"00-{TRACE}-{carried.span_id.hex()}-01"
    assert "tracestate" not in call["headers"]
    assert collector.headers[0]["api-key"] == COLLECTORS_KEY
    assert 'string_value: "connect-broker"' in collector.text()
    assert "eve" not in collector.text()


@pytest.mark.both_databases
async def test_what_is_recorded_names_nobody_and_quotes_nothing(database_url: str) -> None:
    async with collected(database_url) as (world, collector):
        account = await world.link(label="eve-label", origin_username="eve-user")
        baggage = {"baggage": "user=eve-baggage", "x-request-id": "eve-request"}

        async def listed() -> bool:
            answer = await world.broker.get("/v1/linked-accounts?cursor=eve-cursor", headers=world.as_user() | CALLER)
            del answer
            answer = await world.broker.get("/v1/linked-accounts", headers=world.as_user() | CALLER | baggage)
            return account in answer.text

        await eventually(listed, within=10)
        await world.broker.get(f"/v1/linked-accounts/{account}", headers=world.as_user() | CALLER)
        await world.broker.get("/v1/owners/org_acme/linked-accounts", headers=world.as_service())
        await world.broker.get("/eve-path/where?eve-query=1", headers=CALLER)
        minted = await world.mint()

        async def pushed() -> bool:
            return bool(collector.pushed)

        await eventually(pushed, within=10)
    token = world.token()
    told = collector.text()
    assert collector.named("refresh")
    [received, *_] = collector.named("POST /v1/webhooks/stackone")
    assert children(collector.spans, received) == ["database group"]
    assert collector.named("StackOne GET /accounts/*")
    [_, *_] = collector.named("push")
    for secret in (
        *(
            "eve",
            "org_acme",
            "alice",
            account,
            API_KEY,
            world.service_key,
            token,
            minted.json()["token"],
            minted.json()["id"],
        ),
        *("FROM", "linked_accounts", COLLECTORS_KEY, SECRET),
    ):
        assert secret not in told, secret
    assert all(not span.events and not span.status.message for span in collector.spans)


async def test_a_destination_learns_of_which_trace_its_delivery_is_part(database_url: str) -> None:
    async with collected(database_url) as (world, collector):
        await world.link()

        async def pushed() -> bool:
            path = "/v1/push/destinations/erp/deliveries?state=pending"
            waiting = await world.broker.get(path, headers=world.as_service())
            return bool(collector.pushed) and waiting.json()["data"] == []

        await eventually(pushed, within=10)
    _, trace, span, _ = collector.pushed[0]["traceparent"].split("-")
    [delivery] = [each for each in collector.named("push") if each.span_id.hex() == span]
    assert delivery.trace_id.hex() == trace
    assert attributes(delivery) == {"broker.destination": "erp"}


async def test_what_fails_is_marked_and_its_log_line_names_the_trace(
    database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with collected(database_url, webhooks=False, stackone={"max_attempts": 1}) as (world, collector):
        fault = {"method": "POST", "path": "/connect_sessions", "times": 9, "status": 503, "body": {}}
        await world.switch("POST", "/faults", fault)
        capfd.readouterr()
        answer = await world.broker.post("/v1/connect-sessions", headers=world.as_user() | CALLER, json={})
        assert answer.status_code == 503
        lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    assert {line["trace_id"] for line in lines if line["event"] in {"unavailable", "request"}} == {TRACE}
    [served] = collector.named("POST /v1/connect-sessions")
    [carried] = collector.named("StackOne POST /connect_sessions")
    for span in (served, carried):
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert attributes(span)["error.type"] == "503"


async def test_what_breaks_off_is_marked_without_a_word_of_it(database_url: str) -> None:
    with bind(0) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    stackone = {"max_attempts": 1, "base_url": nobody}
    async with collected(database_url, webhooks=False, stackone=stackone) as (world, collector):
        answer = await world.broker.post("/v1/connect-sessions", headers=world.as_user() | CALLER, json={})
        assert answer.status_code == 503
    [carried] = collector.named("StackOne POST /connect_sessions")
    assert carried.status.code == Status.STATUS_CODE_ERROR
    assert not carried.events
    assert not carried.status.message


async def test_a_caller_cannot_have_more_recorded_than_the_operator_wants(database_url: str) -> None:
    async with collected(database_url, webhooks=False, traces={"sample_ratio": 0}) as (world, collector):
        for _ in range(3):
            await world.broker.post("/v1/connect-sessions", headers=world.as_user() | CALLER, json={})
    assert collector.spans == []


@pytest.mark.parametrize(
    "carried",
    [
        [("traceparent", "eve")],
        [("traceparent", f"00-{'0' * 32}-{PARENT}-01")],
        [("traceparent", CALLER["traceparent"]), ("traceparent", f"00-{TRACE[::-1]}-{PARENT}-01")],
        [("traceparent", "00-\xff\xfe-01")],
    ],
    ids=["nonsense", "zeros", "two", "bytes"],
)
async def test_a_context_that_is_none_begins_a_new_trace(database_url: str, carried: list[tuple[str, str]]) -> None:
    headers = [(name, value.encode("latin-1")) for name, value in carried]
    async with collected(database_url, webhooks=False) as (world, collector):
        answer = await world.broker.get(
            "/v1/linked-accounts",
            headers=[
                (b"authorization", world.as_user()["authorization"].encode()),
                *((n.encode(), v) for n, v in headers),
            ],
        )
        assert answer.status_code == 200
    [served] = collector.named("GET /v1/linked-accounts")
    assert served.parent_span_id == b""
    assert "eve" not in collector.text()


async def test_where_traces_are_off_nothing_is_said_of_them(database_url: str) -> None:
    async with open_world(database_url, webhooks=False) as world:
        await world.broker.post("/v1/connect-sessions", headers=world.as_user() | CALLER, json={})
        [call] = await world.received("POST", "/connect_sessions")
    assert "traceparent" not in call["headers"]


async def test_the_frameworks_own_traces_stay_off_whatever_the_platform_sets(world: World) -> None:
    """They tell paths with ids of accounts and messages of exceptions, and platforms set these variables for all."""
    told: list[str] = []
    app = FastAPI()

    @app.post("/{path:path}")
    async def receive(path: str) -> Response:
        told.append(path)
        return Response(media_type="application/x-protobuf")

    async with (
        serving(app, bind(0)) as url,
        broker_process(
            world,
            FASTAPI_OTEL_AUTO_CONFIGURE="true",
            OTEL_EXPORTER_OTLP_ENDPOINT=url,
            OTEL_BSP_SCHEDULE_DELAY="50",
        ) as process,
        httpx2.AsyncClient(base_url=process.url, timeout=10) as broker,
    ):
        assert (await broker.get("/v1/linked-accounts", headers=world.as_user())).is_success
        # What has been recorded is sent at the end.
        assert (await process.stop())[0] == 0
    assert told == []


@pytest.mark.parametrize("hangs", [True, False])
async def test_a_collector_that_is_away_costs_callers_nothing_and_holds_no_end_up(
    database_url: str, *, hangs: bool
) -> None:
    with bind(0) as bound:
        port = bound.getsockname()[1]
        if not hangs:
            bound.close()
        traces = {"endpoint": f"http://127.0.0.1:{port}/v1/traces", "timeout_seconds": 2}
        async with open_world(database_url, webhooks=False, traces=traces) as world:
            for _ in range(1200):  # more than two batches
                assert (await world.broker.get("/v1/linked-accounts")).status_code == 401
            assert (await world.mint()).status_code == 201
            left = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - left < 4
