"""Servers of others that the tests of this folder may ask for; the tests install none."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.neighbours.postgresql import OwnPostgresql

# What Debian and Ubuntu call the packages.
_PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy", "pgbouncer": "pgbouncer", "redis-server": "redis-server"}


def program(name: str) -> str:
    """Return the path of a program; skip the test if it is missing, and fail it in CI, where all must be there."""
    # Servers stand where an ordinary user's path may not lead.
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        missing = f"{name} is missing; on Debian and Ubuntu: apt-get install {_PACKAGES[name]}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Make a folder that servers may enter, which for root's sake run as somebody else.

    Not pytest's: each session of pytest that starts closes the folder above it to others again.
    """
    path = Path(tempfile.mkdtemp(prefix="neighbours-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[OwnPostgresql]:
    """Start a PostgreSQL for a module's tests; each leaves it as it found it."""
    directory = Path(tempfile.mkdtemp(prefix="neighbours-"))
    directory.chmod(0o755)
    server = OwnPostgresql(directory)
    yield server
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def nginx() -> str:
    """Return the path of nginx."""
    return program("nginx")
