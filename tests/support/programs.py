"""Programs in the background: what they need, a log for each, and none left behind."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

# What Debian and Ubuntu call the packages.
PACKAGES: Mapping[str, str] = {
    "etcd": "etcd-server",
    "faketime": "faketime",
    "haproxy": "haproxy",
    "patroni": "patroni",
    "pgbouncer": "pgbouncer",
    "postgres": "postgresql",
    "psql": "postgresql-client",
    "redis-server": "redis-server",
}
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
_END_SECONDS = 30.0


def postgresql_programs() -> Path | None:
    """Return the folder of the newest PostgreSQL server that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[4]))
    return found[-1].parent if found else None


def found(name: str) -> str | None:
    """Return the path of a program, None where it is missing; servers stand where a user's path may not lead."""
    if name == "postgres":
        folder = postgresql_programs()
        return str(folder / name) if folder else None
    return shutil.which(name, path=_PATH)


def program(name: str) -> str:
    """Return the path of a program that `missing` has looked for."""
    path = found(name)
    if path is None:
        raise LookupError(name)
    return path


def missing(names: Sequence[str]) -> list[str]:
    """Name the Debian packages of the programs that are not here."""
    return sorted({PACKAGES[name] for name in names if found(name) is None})


def somebody() -> str | None:
    """Name the user to run servers as, which refuse to be root's; None: as whoever asks."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


def give(path: Path) -> None:
    """Give a folder, and all that is in it, to the user that servers run as."""
    name = somebody()
    if name is not None:
        for each in (path, *path.rglob("*")):
            shutil.chown(each, name)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass
class Program:
    """One program, which can be started again after it has ended; it is killed with the block."""

    name: str
    command: Sequence[str | Path]
    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """The process that runs now."""
        if self.process is None:
            raise LookupError(self.name)
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it, again; Ctrl-C on the terminal is not for it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env={"PATH": _PATH, "LANG": "C.UTF-8", **self.env},
                user=self.user,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait(_END_SECONDS)

    def stop(self) -> None:
        """Let it end; one that does not is killed."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.stop()


def kill_with_children(pid: int) -> None:
    """End a process and its children at once, the children last: none is left to tell a client how it ended."""
    children: list[int] = []
    with suppress(OSError):
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for each in (pid, *children):
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
