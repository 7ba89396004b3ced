"""Servers of others that the tests of this folder may ask for; the tests install none."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.neighbours.postgresql import OwnPostgresql

# What Debian and Ubuntu call the packages.
_PACKAGES = {
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "pgbouncer": "pgbouncer",
    "redis-server": "redis-server",
    "npm": "npm",
    "php": "php-cli",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "ruby": "ruby",
    "systemd-analyze": "systemd",
}


def program(name: str) -> str:
    """Return the path of a program; skip the test if it is missing, and fail it in CI, where all must be there."""
    # Servers stand where an ordinary user's path may not lead.
    # Envoy comes through pip, beside this Python; so does a Redis that knows no TLS, hence the system's first.
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:{Path(sys.executable).parent}"
    found = shutil.which(name, path=path)
    if found is None:
        how = f"on Debian and Ubuntu: apt-get install {_PACKAGES[name]}" if name in _PACKAGES else "see pyproject.toml"
        missing = f"{name} is missing; {how}"
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
def program_of() -> Callable[[str], str]:
    """Return what finds a program by its name."""
    return program
