"""nginx in front of the broker, as it stands in production: what it adds is believed, what a client adds is not."""

import asyncio
import os
import pwd
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from tests.edge.conftest import Edge, open_edge
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

REFUSED = {"authorization": "Bearer sk_AAAAAAAAAAAA_notakey"}
_CONFIGURATION = """
daemon off;
user {user};
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  upstream broker {{ server 127.0.0.1:{broker}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://broker;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
"""


@asynccontextmanager
async def in_front_of(edge: Edge, nginx: str, directory: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """Run nginx before a broker, and open a client of it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file = directory / "nginx.conf"
    user = pwd.getpwuid(os.getuid()).pw_name
    file.write_text(_CONFIGURATION.format(directory=directory, user=user, broker=edge.port, port=port))
    process = await asyncio.create_subprocess_exec(nginx, "-p", str(directory), "-c", str(file))
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:

            async def up() -> bool:
                assert process.returncode is None, "nginx did not start"
                try:
                    return (await client.get("/livez")).status_code == 200
                except httpx2.TransportError:
                    return False

            await eventually(up)
            yield client
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def test_the_broker_serves_through_nginx(database_url: str, nginx: str, tmp_path: Path) -> None:
    async with (
        open_edge(database_url, http={"trusted_proxies": ["127.0.0.1"]}) as edge,
        in_front_of(edge, nginx, tmp_path) as client,
    ):
        user = {"authorization": f"Bearer {edge.issuer.token()}"}
        minted = await client.post("/v1/connect-sessions", json={"provider": "bamboohr"}, headers=user)
        assert minted.status_code == 201
        assert minted.headers["cache-control"] == "no-store"
        listed = await client.get("/v1/linked-accounts", headers=user)
        assert (listed.status_code, listed.json()["data"]) == (200, [])
        refused = await client.get("/v1/linked-accounts")
        assert refused.status_code == 401
        assert refused.headers["content-type"] == "application/problem+json"
        # The kept connection to the broker is still good after an answer that closed it from the broker's side.
        assert (await client.get("/livez")).status_code == 200


async def test_a_clients_own_forwarded_address_is_not_believed(database_url: str, nginx: str, tmp_path: Path) -> None:
    """Everybody here comes from one address, whatever they say in front of what nginx appends."""
    limited = {"limits": {"unauthenticated_per_address": "3/hour"}, "http": {"trusted_proxies": ["127.0.0.2"]}}
    async with open_edge(database_url, **limited) as edge, in_front_of(edge, nginx, tmp_path) as client:
        answers = [
            await client.get("/v1/accounts/x", headers={**REFUSED, "x-forwarded-for": f"198.51.100.{number}"})
            for number in range(5)
        ]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
