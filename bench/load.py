"""Load by wrk: whole requests from a file, and what came of them beside what they cost the server."""

import json
import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.machine import LOAD_CORES, cpu_seconds, memory_mib, pinned

_SCRIPT = Path(__file__).parent / "lua" / "requests.lua"


@dataclass(frozen=True)
class Turn:
    """One contender's turn."""

    rate: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    memory_mib: float
    failed: int
    requests: int


@dataclass(frozen=True)
class Spread:
    """A median, and the least and the most of what it is the median of."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Take the figures of all turns."""
        return cls(statistics.median(values), min(values), max(values))


def http_request(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Spell one request out."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body or method == "POST":
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def write_requests(file: Path, requests: Sequence[bytes]) -> Path:
    """Write requests down as the script reads them."""
    file.write_bytes(b"".join(b"%d\n%s" % (len(request), request) for request in requests))
    return file


def load(port: int, pid: int, requests: Path, *, connections: int, seconds: float) -> Turn:
    """Keep a server busy for a while."""
    before = cpu_seconds(pid)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "-s", str(_SCRIPT)]
    done = subprocess.run(  # noqa: S603  wrk
        pinned([*command, f"http://127.0.0.1:{port}"], LOAD_CORES),
        env={**os.environ, "BENCH_REQUESTS": str(requests)},
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    spent = cpu_seconds(pid) - before
    line = next(line for line in done.stdout.splitlines() if line.startswith("BENCH "))
    told = json.loads(line.removeprefix("BENCH "))
    count = max(1, told["requests"])
    return Turn(
        rate=told["requests"] / told["seconds"],
        cpu_us=spent / count * 1e6,
        p50_ms=told["p50_ms"],
        p99_ms=told["p99_ms"],
        memory_mib=memory_mib(pid),
        failed=told["bad_status"] + told["socket_errors"] + told["timeouts"],
        requests=told["requests"],
    )
