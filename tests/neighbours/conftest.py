"""Servers that the tests of this folder may ask for."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.neighbours.postgresql import OwnPostgresql


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
