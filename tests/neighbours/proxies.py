"""Reverse proxies of others, set up as docs/operations.md says, in front of brokers on this machine."""

import asyncio
import json
import os
import pwd
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from tests.support.waiting import eventually

_NGINX = """
daemon off;
user {user};
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  upstream broker {{
    {servers}
    keepalive 8;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://broker;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_next_upstream error timeout;
    }}
  }}
}}
"""
_HAPROXY = """
global
  maxconn 1000
defaults
  mode http
  option forwardfor
  option redispatch 1
  retries 3
  retry-on conn-failure empty-response
  timeout connect 2s
  timeout client 120s
  timeout server 120s
  timeout check 4s
frontend clients
  bind 127.0.0.1:{port}
  default_backend broker
backend broker
  http-response set-header x-served-by %s
  option httpchk GET /readyz
  http-reuse safe
  default-server check inter 300ms fall 1 rise 1
{servers}
"""


_ENVOY = "type.googleapis.com/envoy.extensions.filters"


def _nginx(directory: Path, port: int, brokers: Sequence[int]) -> str:
    servers = "\n    ".join(f"server 127.0.0.1:{broker} max_fails=1 fail_timeout=1s;" for broker in brokers)
    user = pwd.getpwuid(os.getuid()).pw_name
    return _NGINX.format(directory=directory, user=user, servers=servers, port=port)


def _haproxy(_directory: Path, port: int, brokers: Sequence[int]) -> str:
    servers = "\n".join(f"  server b{number} 127.0.0.1:{broker}" for number, broker in enumerate(brokers))
    return _HAPROXY.format(port=port, servers=servers)


def _envoy(_directory: Path, port: int, brokers: Sequence[int]) -> str:
    def address(at: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": at}}

    manager = {
        "@type": f"{_ENVOY}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "clients",
        "use_remote_address": True,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "route": {
                                "cluster": "broker",
                                "timeout": "120s",
                                # Nothing that a broker may have begun with is sent a second time.
                                "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 3},
                            },
                        }
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_ENVOY}.http.router.v3.Router"},
            }
        ],
    }
    cluster = {
        "name": "broker",
        "type": "STATIC",
        "connect_timeout": "2s",
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "0.3s",
                # Without it, a cluster that has had no traffic yet is looked at once a minute.
                "no_traffic_interval": "0.3s",
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/readyz"},
            }
        ],
        "load_assignment": {
            "cluster_name": "broker",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(broker)}} for broker in brokers]}],
        },
    }
    listener = {
        "name": "clients",
        "address": address(port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})


_CONFIGURATIONS: dict[str, Callable[[Path, int, Sequence[int]], str]] = {
    "nginx": _nginx,
    "haproxy": _haproxy,
    "envoy": _envoy,
}


def _command(name: str, program: str, directory: Path, file: Path) -> list[str]:
    if name == "nginx":
        return [program, "-p", str(directory), "-c", str(file)]
    if name == "haproxy":
        return [program, "-f", str(file)]
    return [program, "-c", str(file), "--disable-hot-restart", "--log-level", "error", "--concurrency", "1"]


@asynccontextmanager
async def in_front_of(
    brokers: Sequence[int], name: str, program: str, directory: Path
) -> AsyncIterator[httpx2.AsyncClient]:
    """Run a proxy before brokers on these ports, and open a client of it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file = directory / f"{name}.{'json' if name == 'envoy' else 'conf'}"
    file.write_text(_CONFIGURATIONS[name](directory, port, brokers))
    process = await asyncio.create_subprocess_exec(*_command(name, program, directory, file))
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:

            async def up() -> bool:
                assert process.returncode is None, f"{name} did not start"
                try:
                    return (await client.get("/livez")).status_code == 200
                except httpx2.TransportError:
                    return False

            await eventually(up, within=120)
            yield client
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
