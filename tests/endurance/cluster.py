"""PostgreSQL as a production has it: a primary and a synchronous standby under Patroni and etcd, PgBouncer before them.

    broker -> PgBouncer (transactions) -> HAProxy (asks Patroni who is primary) -> PostgreSQL

The settings are those of docs/operations.md. `fsync` is off: what dies here are processes, of which the kernel keeps
what they wrote, and disks of shared machines hold commits up for seconds.
"""

import asyncio
import json
import secrets
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from tests.support.databases import migrate
from tests.support.programs import (
    Program,
    free_port,
    give,
    kill_with_children,
    postgresql_programs,
    program,
    somebody,
)

NEEDS: Final = ("etcd", "patroni", "postgres", "psql", "pgbouncer", "haproxy")
_START_SECONDS: Final = 180.0
_ASK_EVERY_SECONDS: Final = 0.05
# What Patroni takes for dead, and how often it looks: a node that vanishes is missed after `ttl`.
_DCS: Final = {
    "ttl": 20,
    "loop_wait": 2,
    "retry_timeout": 5,
    "synchronous_mode": True,
    # A primary that crashed is not waited for: its standby has everything that was acknowledged.
    "primary_start_timeout": 0,
}
_PARAMETERS: Final = {
    "max_connections": 60,
    "shared_buffers": "64MB",
    "wal_keep_size": "256MB",
    "synchronous_commit": "on",
    "fsync": "off",
}
_HAPROXY: Final = """
global
  maxconn 4000
defaults
  mode tcp
  timeout connect 2s
  timeout client 30m
  timeout server 30m
  timeout check 2s
  retries 0
listen primary
  bind 127.0.0.1:{port}
  option httpchk OPTIONS /primary
  http-check expect status 200
  default-server check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
{servers}
"""
_PGBOUNCER: Final = """
[databases]
broker = host=127.0.0.1 port={behind}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = 20
max_client_conn = 200
server_login_retry = 1
server_connect_timeout = 3
"""


async def until(ask: Callable[[], Awaitable[Any]], *, what: str, within: float) -> Any:
    """Ask until the answer is truthy, and return it. Raises TimeoutError that says what was waited for."""
    try:
        async with asyncio.timeout(within):
            while not (answer := await ask()):  # noqa: ASYNC110  what is asked is another process
                await asyncio.sleep(_ASK_EVERY_SECONDS)
            return answer
    except TimeoutError:
        message = f"not within {within:g} s: {what}"
        raise TimeoutError(message) from None


@dataclass
class Node:
    """One machine of the cluster, as far as this one can stand for two: a Patroni and its PostgreSQL."""

    name: str
    folder: Path
    sql_port: int
    rest_port: int
    patroni: Program

    @property
    def data(self) -> Path:
        """Where its PostgreSQL keeps its data."""
        return self.folder / "data"

    def kill_postgresql(self) -> None:
        """Kill its PostgreSQL; its Patroni sees it."""
        with suppress(OSError, ValueError):
            kill_with_children(int((self.data / "postmaster.pid").read_text().splitlines()[0]))

    def kill(self) -> None:
        """Kill everything of it, as if its machine had lost its power: nobody is left to say so."""
        self.patroni.kill()
        self.kill_postgresql()

    def start(self) -> None:
        """Start it again, if it does not run."""
        if not self.patroni.is_running:
            self.patroni.start()


@dataclass
class Cluster:
    """Both nodes, and the way to whichever is primary."""

    folder: Path
    nodes: tuple[Node, Node]
    port: int
    """PgBouncer's."""
    behind: int
    """HAProxy's, that leads to the primary."""
    passwords: dict[str, str]
    _http: httpx2.AsyncClient

    @property
    def url(self) -> str:
        """The broker's URL."""
        return f"postgresql://broker:{self.passwords['broker']}@127.0.0.1:{self.port}/broker?pgbouncer=true"

    @property
    def direct_url(self) -> str:
        """The same past PgBouncer."""
        return f"postgresql://broker:{self.passwords['broker']}@127.0.0.1:{self.behind}/broker"

    async def primary(self) -> Node | None:
        """Return the node that takes writes now, by its own word."""
        for node in self.nodes:
            with suppress(httpx2.TransportError):
                answer = await self._http.get(f"http://127.0.0.1:{node.rest_port}/primary")
                if answer.status_code == httpx2.codes.OK:
                    return node
        return None

    async def is_whole(self) -> bool:
        """Tell whether there is a primary, with a standby that has everything which it acknowledges."""
        node = await self.primary()
        if node is None:
            return False
        try:
            answer = await self._http.get(f"http://127.0.0.1:{node.rest_port}/cluster")
        except httpx2.TransportError:
            return False
        roles = {member["role"]: member["state"] for member in answer.json()["members"]}
        return roles.get("leader") == "running" and roles.get("sync_standby") in {"running", "streaming"}

    async def await_whole(self) -> Node:
        """Wait until it is whole, and return the primary."""
        await until(self.is_whole, what="a primary and a synchronous standby", within=_START_SECONDS)
        node: Node = await until(self.primary, what="a primary", within=_START_SECONDS)
        return node

    def sql(self, node: Node, *statements: str) -> str:
        """Do something as the superuser; return what came out."""
        command = [program("psql"), "-h", "127.0.0.1", "-p", str(node.sql_port), "-U", "postgres", "-d", "postgres"]
        out = ""
        for statement in statements:
            out += subprocess.run(
                [*command, "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement],
                check=True,
                capture_output=True,
                text=True,
                env={"PGPASSWORD": self.passwords["postgres"]},
            ).stdout
        return out.strip()


def _patroni(node: str, folder: Path, *, etcd: int, rest: int, sql: int, passwords: dict[str, str]) -> Path:
    file = folder / "patroni.yml"
    accounts = {"superuser": "postgres", "replication": "replicator", "rewind": "rewinder"}
    bins = postgresql_programs()
    configuration = {
        "scope": "broker",
        "name": node,
        "restapi": {"listen": f"127.0.0.1:{rest}", "connect_address": f"127.0.0.1:{rest}"},
        "etcd3": {"hosts": f"127.0.0.1:{etcd}"},
        "bootstrap": {
            "dcs": {**_DCS, "postgresql": {"use_pg_rewind": True, "parameters": _PARAMETERS}},
            "initdb": ["data-checksums", {"encoding": "UTF8"}, {"locale": "C"}],
        },
        "postgresql": {
            "listen": f"127.0.0.1:{sql}",
            "connect_address": f"127.0.0.1:{sql}",
            "data_dir": str(folder / "data"),
            "bin_dir": str(bins),
            "pgpass": str(folder / "pgpass"),
            "authentication": {who: {"username": name, "password": passwords[name]} for who, name in accounts.items()},
            "parameters": {"unix_socket_directories": str(folder)},
            "pg_hba": [
                "local all all scram-sha-256",
                "host replication replicator 127.0.0.1/32 scram-sha-256",
                "host all all 127.0.0.1/32 scram-sha-256",
            ],
            "remove_data_directory_on_rewind_failure": True,
        },
    }
    # Patroni reads YAML, of which JSON is a part.
    file.write_text(json.dumps(configuration, indent=1), encoding="utf-8")
    file.chmod(0o600)
    return file


def _etcd(folder: Path, port: int) -> Program:
    here, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{free_port()}"
    words = {
        "name": "only",
        "data-dir": folder / "etcd",
        "listen-client-urls": here,
        "advertise-client-urls": here,
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": f"only={peers}",
        # A busy disk is no reason for an election among one.
        "heartbeat-interval": 500,
        "election-timeout": 5000,
    }
    command: list[str | Path] = [program("etcd"), *(f"--{name}={value}" for name, value in words.items())]
    return Program("etcd", command, folder, user=somebody())


def _node(name: str, folder: Path, etcd: int, passwords: dict[str, str]) -> Node:
    home = folder / name
    home.mkdir()
    sql, rest = free_port(), free_port()
    file = _patroni(name, home, etcd=etcd, rest=rest, sql=sql, passwords=passwords)
    patroni = Program("patroni", [program("patroni"), file], home, user=somebody())
    return Node(name, home, sql, rest, patroni)


@asynccontextmanager
async def open_cluster(folder: Path) -> AsyncIterator[Cluster]:
    """Run a cluster with the broker's newest schema while the block runs."""
    names = ("postgres", "replicator", "rewinder", "broker")
    passwords = {name: secrets.token_hex(16) for name in names}
    etcd, port, behind = free_port(), free_port(), free_port()
    nodes = (_node("one", folder, etcd, passwords), _node("two", folder, etcd, passwords))
    servers = "\n".join(f"  server {node.name} 127.0.0.1:{node.sql_port} check port {node.rest_port}" for node in nodes)
    (folder / "primary.cfg").write_text(_HAPROXY.format(port=behind, servers=servers))
    users = folder / "users.txt"
    users.write_text(f'"broker" "{passwords["broker"]}"\n')
    users.chmod(0o600)
    (folder / "pgbouncer.ini").write_text(_PGBOUNCER.format(port=port, behind=behind, users=users))
    give(folder)
    with ExitStack() as stack:
        stack.enter_context(_etcd(folder, etcd))
        for node in nodes:
            stack.callback(node.kill)
            node.start()
        haproxy: list[str | Path] = [program("haproxy"), "-db", "-f", folder / "primary.cfg"]
        stack.enter_context(Program("primary", haproxy, folder, user=somebody()))
        pgbouncer: list[str | Path] = [program("pgbouncer"), folder / "pgbouncer.ini"]
        stack.enter_context(Program("pgbouncer", pgbouncer, folder, user=somebody()))
        async with httpx2.AsyncClient(timeout=2, verify=False) as http:
            cluster = Cluster(folder, nodes, port, behind, passwords, http)
            primary = await cluster.await_whole()
            cluster.sql(primary, f"CREATE ROLE broker LOGIN PASSWORD '{passwords['broker']}'")
            cluster.sql(primary, "CREATE DATABASE broker OWNER broker")
            await asyncio.to_thread(migrate, cluster.direct_url)
            yield cluster
