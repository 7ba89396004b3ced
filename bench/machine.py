"""The machine: its cores, what a process costs, and which tools are missing."""

import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
SERVER_CORE = CORES[0]
# Load and the StackOne stand-in; PostgreSQL is not ours to pin.
LOAD_CORES = CORES[1:] or CORES


def pinned(command: Sequence[str], cores: Sequence[int]) -> list[str]:
    """Return a command that runs on these cores only, where that can be had."""
    if shutil.which("taskset") is None:
        return list(command)
    return ["taskset", "-c", ",".join(map(str, cores)), *command]


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = (int(fields[11]) + int(fields[12])) / _TICKS
    # The scheduler counts nanoseconds where ticks are too coarse, but forgets threads that have ended.
    exact = 0
    with suppress(OSError):
        exact = sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return max(ticks, exact / 1e9)


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 2**20


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], port: int, *, cores: Sequence[int], env: Mapping[str, str], log: Path, within: float = 30
) -> Iterator[tuple[int, float]]:
    """Run a server while the block runs; yield its process and how long it took until it accepted connections."""
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  our own commands
            pinned(command, cores), env={**os.environ, **env}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() - started > within:
                message = f"{command[0]} did not start: {log.read_text()[-2000:]}"
                raise RuntimeError(message)
            time.sleep(0.005)
        yield process.pid, time.monotonic() - started
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        if process.poll() is None:
            process.kill()
            process.wait()


def description() -> str:
    """Say what this machine is."""
    model = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return (
        f"{len(CORES)} cores{f' ({model})' if model else ''}, {platform.system()}, Python {platform.python_version()}"
    )


def commit() -> str:
    """Return the commit that is measured."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    here = Path(__file__).parent.parent

    def ask(*arguments: str) -> str:
        done = subprocess.run([git, *arguments], cwd=here, capture_output=True, text=True, check=False)  # noqa: S603
        return done.stdout.strip()

    return (ask("rev-parse", "--short", "HEAD") or "unknown") + (
        " with changes" if ask("status", "--porcelain", "--", "app", "bench") else ""
    )
