"""broker-demo as a user starts it: one command, real processes, real sockets."""

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Only what goes wrong takes that long: three programs start one after the other, on a machine that may be busy.
_START_SECONDS = 120
# The demo itself gives its broker 20 seconds before it kills it.
_STOP_SECONDS = 40


@dataclass
class Demo:
    """A running demo: what it printed once it was ready, and where it keeps its state."""

    ready: dict[str, Any]
    directory: Path
    process: subprocess.Popen[bytes]
    errors: Path

    def __getitem__(self, name: str) -> Any:
        """Return a value of the JSON line."""
        return self.ready[name]


@contextmanager
def running_demo(directory: Path, *arguments: str) -> Iterator[Demo]:
    """Start broker-demo on free ports, and stop it as Ctrl-C does."""
    directory.mkdir(parents=True, exist_ok=True)
    errors = directory / "stderr.txt"
    command = [
        str(Path(sys.executable).with_name("broker-demo")),
        "--json",
        "--free-ports",
        f"--dir={directory / 'state'}",
        *arguments,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    with errors.open("wb") as sink:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink, env=environment)
    try:
        line = _first_line(process)
        assert line, f"broker-demo did not become ready: {errors.read_text()[-2000:]}"
        yield Demo(json.loads(line), directory / "state", process, errors)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=5)
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(timeout=_START_SECONDS):
            return b""
    return process.stdout.readline()
