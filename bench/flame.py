"""Where the time of a request goes: stacks of the running broker, sampled by py-spy, as shares and as flame graphs."""

import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

PY_SPY = Path(sys.executable).with_name("py-spy")
_SAMPLES_PER_SECOND = 99
_FRAME = re.compile(r"(.*) \((.*?)(?::\d+)?\)$")
# By the file of the innermost function of ours or of a package's; what the kernel and C do counts for who called it.
_LAYERS: Sequence[tuple[str, str, str]] = (
    (r"(^|/)app/http/", "app: the edge", "#1d4ed8"),
    (r"(^|/)app/(logs|metrics)", "app: log and metrics", "#60a5fa"),
    (r"(^|/)app/(stackone|outbound)", "app: calls to StackOne", "#3b82f6"),
    (r"(^|/)app/db/", "app: the database", "#0ea5e9"),
    (r"(^|/)app/", "app: the rest", "#93c5fd"),
    (r"asyncpg/", "asyncpg", "#dc2626"),
    (r"sqlalchemy/", "SQLAlchemy", "#f97316"),
    (r"(aiohttp|httpx2|yarl|multidict)/", "aiohttp, httpx2", "#a16207"),
    (r"(fastapi|starlette|asgi_correlation_id|opentelemetry)/", "FastAPI, Starlette", "#16a34a"),
    (r"uvicorn/", "uvicorn", "#84cc16"),
    (r"pydantic", "pydantic", "#a855f7"),
    (r"(structlog|prometheus_client|json/|logging/)", "structlog, prometheus_client, json", "#ec4899"),
    (r"asyncio/runners", "the loop and the kernel", "#64748b"),
    (r"", "Python's library", "#cbd5e1"),
)
_WIDTH, _ROW, _LETTER, _DEEPEST, _NARROWEST = 1100, 17, 6.2, 46, 0.0025


@dataclass
class _Node:
    """A function in its place on the stack, and how many samples were in it or below."""

    samples: int = 0
    below: dict[tuple[str, str], "_Node"] = field(default_factory=lambda: defaultdict(_Node))


def record(pid: int, seconds: float, output: Path) -> subprocess.Popen[bytes]:
    """Begin to sample a process for a while."""
    command = [str(PY_SPY), "record", "-p", str(pid), "-d", str(round(seconds)), "-r", str(_SAMPLES_PER_SECOND)]
    return subprocess.Popen(  # noqa: S603  py-spy
        [*command, "-f", "raw", "-o", str(output)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def shares(stacks: str) -> Mapping[str, float]:
    """Return the share of each layer, the largest first."""
    counts: Counter[str] = Counter()
    for frames, samples in _stacks(stacks):
        counts[_layer(frames[-1][1])[0]] += samples
    whole = max(1, counts.total())
    return {name: count / whole for name, count in counts.most_common()}


def draw(stacks: str, title: str) -> str:
    """Draw a flame graph: who calls above, who is called below; as wide as the share of the samples."""
    root = _Node()
    for frames, samples in _stacks(stacks):
        node = root
        node.samples += samples
        for frame in frames[:_DEEPEST]:
            node = node.below[frame]
            node.samples += samples
    parts: list[str] = []
    deepest = _draw_below(root, 0, 0, max(1, root.samples), parts)
    height = 30 + deepest * _ROW
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
        f' font-family="ui-monospace, monospace" font-size="10" role="img" aria-label="{escape(title)}">'
        f'<rect width="100%" height="100%" fill="#ffffff"/><text x="4" y="14" fill="#475569">{escape(title)}</text>'
    )
    return "\n".join([head, *parts, "</svg>", ""])


def _draw_below(node: _Node, depth: int, first: int, whole: int, parts: list[str]) -> int:
    deepest = depth
    for (function, file), below in sorted(node.below.items(), key=lambda item: -item[1].samples):
        share = below.samples / whole
        if share < _NARROWEST:
            break
        x, width, y = first / whole * _WIDTH, share * _WIDTH, 24 + depth * _ROW
        name = f"{function} ({file})"
        shown = escape(function[: int(width / _LETTER)]) if width > 4 * _LETTER else ""
        parts.append(
            f'<g><title>{escape(name)} {share:.1%}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}"'
            f' height="{_ROW - 1}" fill="{_layer(file)[1]}" fill-opacity="0.55" stroke="#ffffff"/>'
            f'<text x="{x + 2:.1f}" y="{y + 12}">{shown}</text></g>'
        )
        deepest = max(deepest, _draw_below(below, depth + 1, first, whole, parts))
        first += below.samples
    return max(deepest, depth + 1 if node.below else depth)


def _layer(file: str) -> tuple[str, str]:
    return next((name, colour) for pattern, name, colour in _LAYERS if re.search(pattern, file))


def _stacks(text: str) -> list[tuple[list[tuple[str, str]], int]]:
    """Read py-spy's lines, without what is the same in all: the command line around the loop."""
    found = []
    for line in text.splitlines():
        stack, _, samples = line.rpartition(" ")
        frames = [match.groups() for match in map(_FRAME.match, stack.split(";")) if match is not None]
        around = max(
            (number for number, (_, file) in enumerate(frames) if file.endswith("asyncio/runners.py")), default=0
        )
        if frames[around:]:
            found.append(([(function, file) for function, file in frames[around:]], int(samples)))
    return found
