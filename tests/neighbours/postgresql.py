"""A PostgreSQL of the test's own, with passwords and TLS, and a PgBouncer before it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from tests.neighbours.authority import Authority
from tests.support.databases import migrate
from tests.support.programs import free_port, give, postgresql_programs, somebody

PASSWORD = "canary-S3cret"  # in no output, ever
ROLE = "broker"
DATABASE = "broker"
_PGBOUNCER = Path("/usr/sbin/pgbouncer")
_START_SECONDS = 30.0


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "it ended at once"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    pytest.fail("the server does not start")


class OwnPostgresql:
    """One server: role `broker` owns database `broker`; TLS by an authority of its own."""

    def __init__(self, directory: Path) -> None:
        """Set it up, start it, and bring its database to the newest schema."""
        programs = postgresql_programs()
        if programs is None or not (shutil.which("psql")):
            pytest.skip("needs PostgreSQL's programs: apt-get install postgresql")
        self._programs = programs
        self.directory = directory
        self._data = directory / "data"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.authority = Authority(directory)
        certificate, key = self.authority.issue("server", "localhost")
        self.client_certificate = self.authority.issue(ROLE)
        give(directory)
        initdb: list[str | Path] = [
            programs / "initdb",
            "-D",
            self._data,
            "-U",
            "admin",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        ]
        subprocess.run(initdb, check=True, user=somebody(), capture_output=True, cwd="/")
        (self._data / "pg_hba.conf").write_text(
            "local all admin trust\n"
            "hostssl all certified 127.0.0.1/32 cert\n"
            "hostssl onlytls all 127.0.0.1/32 scram-sha-256\n"
            "hostnossl onlytls all 127.0.0.1/32 reject\n"
            "host all all 127.0.0.1/32 scram-sha-256\n"
        )
        (self._data / "postgresql.auto.conf").write_text(
            f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{directory}'\n"
            f"ssl = on\nssl_cert_file = '{certificate}'\nssl_key_file = '{key}'\n"
            f"ssl_ca_file = '{self.authority.file}'\nfsync = off\nmax_connections = 40\n"
        )
        self.start()
        self.sql(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'", f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
        self.sql("CREATE ROLE certified LOGIN", "CREATE DATABASE onlytls")
        migrate(self.url())

    def url(
        self,
        *,
        user: str = ROLE,
        password: str = PASSWORD,
        database: str = DATABASE,
        host: str = "127.0.0.1",
        port: int | None = None,
        words: Mapping[str, str] | None = None,
    ) -> str:
        """Spell a URL."""
        query = f"?{urlencode(words)}" if words else ""
        return f"postgresql://{user}:{quote(password, safe='')}@{host}:{port or self.port}/{database}{query}"

    def _psql(self, database: str) -> list[str | Path]:
        where = ["-h", str(self.directory), "-p", str(self.port), "-U", "admin", "-d", database]
        return ["psql", *where, "-qAtX", "-v", "ON_ERROR_STOP=1"]

    def sql(self, *statements: str, database: str = "postgres") -> str:
        """Do something as the superuser, who comes in by the socket; return what came out."""
        out = ""
        for statement in statements:
            out += subprocess.run(
                [*self._psql(database), "-c", statement], check=True, capture_output=True, text=True
            ).stdout
        return out.strip()

    @contextmanager
    def session(self, database: str, statement: str) -> Iterator[None]:
        """Keep a session of the superuser's that has done something."""
        with subprocess.Popen(self._psql(database), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdin is not None
            assert holder.stdout is not None
            holder.stdin.write(f"{statement}; SELECT 'done';\n".encode())
            holder.stdin.flush()
            while holder.stdout.readline() != b"done\n":
                assert holder.poll() is None, "it ended at once"
            try:
                yield
            finally:
                holder.stdin.close()
                holder.wait(10)

    def cut(self) -> None:
        """End every connection but the superuser's."""
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> 'admin'")

    def start(self) -> None:
        """Start it, again."""
        log = (self.directory / "log").open("ab")
        command: list[str | Path] = [self._programs / "postgres", "-D", self._data]
        self._process = subprocess.Popen(command, user=somebody(), stdout=log, stderr=log, cwd="/")
        log.close()
        _wait_for(self.port, self._process)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(subprocess.CalledProcessError):
                self.sql("SELECT 1")
                return
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT, *, wait: bool = True) -> None:
        """Stop it: SIGINT whoever is connected, SIGTERM when the last one has gone."""
        assert self._process is not None
        self._process.send_signal(how)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until it has ended."""
        assert self._process is not None
        self._process.wait(_START_SECONDS)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let nothing of it run: connections stay open, and nothing is answered."""
        assert self._process is not None
        backends = [int(pid) for pid in self.sql("SELECT pid FROM pg_stat_activity").split()]
        everyone = [self._process.pid, *backends]
        for pid in everyone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in everyone:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


@contextmanager
def pgbouncer(
    server: OwnPostgresql, directory: Path, mode: str, *, database: str = DATABASE, ignored: str = ""
) -> Iterator[int]:
    """Run PgBouncer before a server; yield its port. It has fewer connections than it has clients, so they change.

    `ignored` names the startup parameters that it passes over instead of refusing them.
    """
    if not _PGBOUNCER.exists():
        pytest.skip("needs PgBouncer: apt-get install pgbouncer")
    port = free_port()
    # A session pooler needs a connection for each of its clients.
    size = 3 if mode == "transaction" else 20
    (directory / "users.txt").write_text(f'"{ROLE}" "{PASSWORD}"\n')
    (directory / "pgbouncer.ini").write_text(
        "[databases]\n"
        f"{database} = host=127.0.0.1 port={server.port}\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {directory}/users.txt\n"
        f"pool_mode = {mode}\ndefault_pool_size = {size}\nmax_client_conn = 100\n"
        f"ignore_startup_parameters = {ignored}\n"
    )
    give(directory)
    log = (directory / "log").open("ab")
    process = subprocess.Popen(
        [_PGBOUNCER, directory / "pgbouncer.ini"], user=somebody(), stdout=log, stderr=log, cwd="/"
    )
    log.close()
    try:
        _wait_for(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(_START_SECONDS)
