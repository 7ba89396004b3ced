"""The state folder: readable by this user only, used by one demo at a time."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from sandbox.launch.options import DemoError


@contextlib.contextmanager
def claimed_folder(directory: Path) -> Iterator[None]:
    """Hold the folder while the block runs. Raises DemoError where it cannot be used or is in use."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (directory / "lock").open("w")
    except OSError as error:
        raise DemoError(f"{directory} cannot be used ({error.strerror}). Choose another folder with --dir.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # A broker on SQLite takes its file for its own.
            raise DemoError(f"Another broker-demo uses {directory}. Stop it, or choose another with --dir.") from error
        yield
