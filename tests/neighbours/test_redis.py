"""Redis with TLS, an authority of its own and a password: limits are shared, or the log says why they are not."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from app.clock import SystemClock
from app.errors import TooManyRequests
from app.limits import Rate, open_limiter
from app.metrics import Metrics
from app.settings import LimitSettings, TlsSettings
from tests.neighbours.authority import Authority
from tests.neighbours.conftest import program

pytestmark = pytest.mark.anyio

PASSWORD = "canary-redis-0123"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[int, Authority]]:
    """Start a server that speaks TLS only, and knows one user."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("redis", "127.0.0.1")
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    lines = [
        "port 0",
        f"tls-port {port}",
        "bind 127.0.0.1",
        f"tls-cert-file {certificate}",
        f"tls-key-file {key}",
        f"tls-ca-cert-file {authority.file}",
        "tls-auth-clients no",
        "user default off",
        f"user broker on >{PASSWORD} ~* +@all",
        'save ""',
    ]
    configuration = tmp_path / "redis.conf"
    configuration.write_text("\n".join(lines) + "\n")
    process = subprocess.Popen([program("redis-server"), str(configuration)], cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert any(b"ready to accept connections" in line.lower() for line in process.stdout)
    yield port, authority
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("user", "is_authority_known", "reason"),
    [
        (f"broker:{PASSWORD}", True, None),
        (f"broker:{PASSWORD}", False, "certificate not trusted: self-signed certificate in certificate chain"),
        ("broker:another-canary", True, "AuthenticationError"),
    ],
    ids=["as it should be", "strange authority", "wrong password"],
)
async def test_limits_are_shared_or_the_log_says_why_not(
    redis: tuple[int, Authority], user: str, reason: str | None, *, is_authority_known: bool
) -> None:
    port, authority = redis
    settings = LimitSettings(
        storage_url=SecretStr(f"rediss://{user}@127.0.0.1:{port}/0"), storage_timeout_seconds=5, mint_per_user="3/hour"
    )
    tls = TlsSettings(ca_file=authority.file if is_authority_known else None)

    async def take_all() -> int:
        taken = 0
        async with open_limiter(settings, tls, clock=SystemClock(), metrics=Metrics()) as limiter:
            try:
                while True:
                    await limiter.take(Rate.MINT_PER_USER, "alice")
                    taken += 1
            except TooManyRequests:
                return taken

    with capture_logs() as logs:
        # Counted by two processes: together three where they share, three each where they cannot.
        assert [await take_all(), await take_all()] == [3, 3 if reason else 0]
    told = [line["reason"] for line in logs if line["event"] == "limits_counted_per_process"]
    assert told == ([reason] * 2 if reason else [])
    assert "canary" not in str(logs)
