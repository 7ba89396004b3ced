"""Every answer of 5xx has a line in the log that says to an operator what happened and what to do about it."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import jwt
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import rsa
from structlog.testing import capture_logs

import app
from sandbox.serving import bind
from tests.support.environment import environment_of
from tests.support.world import World, open_world

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url, webhooks=False, stackone={"max_attempts": 1}) as world:
        yield world


def understood(lines: list[Any], status: int, route: str) -> dict[str, Any]:
    """Return the one line that says why a request failed."""
    [line] = [line for line in lines if line.get("status") == status and line["event"] != "request"]
    assert line["log_level"] in {"warning", "error"}
    assert line["route"] == route
    assert len(line["detail"]) > 10
    assert line["remedy"]
    return dict(line)


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [
        ({"status": 503, "body": {}}, 503, "StackOne answered 503"),
        ({"status": 429, "body": {}, "headers": {"retry-after": "60"}}, 503, "same key"),
        ({"cut": True}, 503, "cut off"),
        ({"hang": True}, 503, "in time"),
        ({"status": 401, "body": {"statusCode": 401, "message": "no"}}, 502, "API key"),
    ],
    ids=["away", "limited", "cut", "hanging", "refused"],
)
async def test_stackones_failures_are_told_in_one_line(
    world: World, fault: dict[str, Any], status: int, says: str
) -> None:
    await world.switch("POST", "/faults", {"method": "POST", "path": "/connect_sessions", "times": 9, **fault})
    with capture_logs() as lines:
        assert (await world.mint()).status_code == status
    line = understood(lines, status, "/v1/connect-sessions")
    assert says in f"{line['detail']} {line['remedy']}"


async def test_a_database_that_is_not_migrated_is_told_in_one_line(world: World) -> None:
    async with world.runtime.database.transaction() as connection:
        await connection.execute(sa.text("ALTER TABLE linked_accounts RENAME TO gone"))
    with capture_logs() as lines:
        answer = await world.broker.get("/v1/linked-accounts", headers=world.as_user())
    assert answer.status_code == 503
    assert understood(lines, 503, "/v1/linked-accounts")["remedy"] == "run: broker migrate"
    async with world.runtime.database.transaction() as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    with capture_logs() as lines:
        assert (await world.broker.get("/readyz")).status_code == 503
    assert understood(lines, 503, "/readyz")["remedy"] == "run: broker migrate"


async def test_an_issuer_that_is_away_is_told_in_one_line(database_url: str) -> None:
    issuer = {
        "issuer": "https://login.example",
        "jwks_uri": "http://127.0.0.1:9/keys",
        "audiences": ["connect-broker"],
        "algorithms": ["RS256"],
        "claims": {"owner_id": "org_id"},
    }
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    token = jwt.encode({"iss": issuer["issuer"]}, key, algorithm="RS256", headers={"kid": "1"})
    async with open_world(database_url, webhooks=False, identity={"issuers": [issuer]}) as world:
        with capture_logs() as lines:
            answer = await world.broker.get("/v1/linked-accounts", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 503
    assert "login.example" in understood(lines, 503, "/v1/linked-accounts")["remedy"]


async def test_readiness_that_is_asked_often_writes_nothing_while_all_is_well(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    for _ in range(10):
        assert (await world.broker.get("/readyz")).status_code == 200
        assert (await world.broker.get("/livez")).status_code == 200
    out, err = capfd.readouterr()
    assert [line for line in (out + err).splitlines() if "alembic" in line or "readyz" in line or "livez" in line] == []


@pytest.mark.parametrize(("number", "says"), [(8, "a request came"), (60, "a connection came")])
async def test_a_broker_with_too_many_connections_says_so_once(world: World, number: int, says: str) -> None:
    with bind(0) as free:
        port = free.getsockname()[1]
    environment = environment_of(world) | {
        "BROKER_SYNC__ENABLED": "false",
        "BROKER_HTTP__PORT": str(port),
        "BROKER_METRICS": '{"port": null}',
        "BROKER_HTTP__MAX_CONNECTIONS": "2",
        "BROKER_LOGS__FORMAT": "json",
    }
    command = [sys.executable, "-m", "app", "serve"]
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(30), httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=False) as broker:
            while True:
                try:
                    await broker.get("/livez")
                    break
                except httpx2.ConnectError:
                    await asyncio.sleep(0.05)
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(number)]
        answers = []
        for reader, writer in opened[-number // 2 :]:
            writer.write(b"GET /v1/connectors HTTP/1.1\r\nhost: b\r\n\r\n")
            answers.append(await reader.readline())
        assert any(b" 503 " in answer for answer in answers)
        for _, writer in opened:
            writer.close()
    finally:
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    first, *rest = out.decode().splitlines()
    assert json.loads(first)["event"] == "broker_starts"
    assert json.loads(first)["version"] == app.__version__
    told = [json.loads(line) for line in rest if '"overloaded"' in line]
    assert 1 <= len(told) <= 5
    assert told[0]["detail"].startswith(says)
    assert "BROKER_HTTP__MAX_CONNECTIONS" in told[0]["remedy"]
