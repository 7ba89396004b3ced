"""Figures as a page and as a picture."""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from bench.jobs import REQUESTS, Plan, Table

_COLOURS = {
    "broker": "#2563eb",
    "textbook": "#f59e0b",
    "express": "#16a34a",
    "bare-httpx2": "#94a3b8",
    "bare-aiohttp": "#64748b",
    "nginx": "#cbd5e1",
}
_INTRODUCTION = """# Performance

What a request costs, beside what it costs others. Written by `make bench` (`python -m bench`, which says more with
`--help`); nothing here passes or fails. What a request may cost at most in waits for the database, statements and
function calls is held by `tests/budgets`, which needs no quiet machine.

Everything runs on loopback: the server on one core, load (wrk) and a StackOne that answers at once on the others,
PostgreSQL wherever it likes. Contenders take turns, round after round, so that noise meets all of them. A figure is the
median of the rounds, with the least and the most of them; CPU is user and system time of the server's process, which
says more than requests per second on a machine that others use too. The contenders are in `bench/contenders`:

| name | what it is |
|---|---|
| broker | this service, with its defaults; only limits that would stop a benchmark are lifted |
| textbook | FastAPI by its documentation: PyJWT's key client, httpx2, SQLAlchemy's ORM, asyncpg; one INSERT a mint |
| express | Express 5, jose, fetch, pg with named statements (better-sqlite3 on SQLite); one INSERT a mint |
| bare-httpx2, bare-aiohttp | bare ASGI that passes the body on and keeps nothing |
| nginx | a proxy that adds the API key |

The contenders have no policy, quotas, limits, circuit breaker, budget, request ids, metrics, nor a second write that
completes a session's row.
"""


def page(tables: Sequence[Table], plan: Plan, *, facts: Sequence[str], missing: Sequence[str], picture: str) -> str:
    """Write the page."""
    rounds = f"{plan.rounds} rounds of {plan.seconds:g} s each" + (" (quick)" if plan.quick else "")
    lines = [_INTRODUCTION, f"![CPU of the server per request]({picture})", "", "## This run", ""]
    lines += [f"- {fact}" for fact in (f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {rounds}", *facts)]
    if missing:
        lines += ["- Left out here:", *(f"    - {what}" for what in missing)]
    lines.append("")
    for table in tables:
        lines += [
            f"## {table.title[0].upper()}{table.title[1:]}",
            "",
            _row(table.head),
            _row(["---"] * len(table.head)),
        ]
        lines += [_row(row) for row in table.rows]
        lines += ["", *(f"{note}\n" for note in table.notes)]
        lines += [f"![{table.title}: {name}](images/{name})\n" for name in table.images]
    return "\n".join(lines).rstrip() + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def picture(tables: Sequence[Table]) -> str:
    """Draw the CPU of each kind of request, each contender a bar."""
    drawn = [table for table in tables if table.job in REQUESTS and table.bars]
    most = max((value for table in drawn for value in table.bars.values()), default=1)
    left, right, height = 250, 560, 18
    parts, y = [], 34
    for table in drawn:
        parts.append(f'<text x="8" y="{y}" font-weight="600">{escape(table.job)}</text>')
        for name, value in table.bars.items():
            width = max(1, round(value / most * right))
            parts.append(f'<text x="{left - 8}" y="{y}" text-anchor="end">{escape(name)}</text>')
            colour = _COLOURS.get(name, "#999999")
            parts.append(f'<rect x="{left}" y="{y - 12}" width="{width}" height="{height - 4}" fill="{colour}"/>')
            parts.append(f'<text x="{left + width + 6}" y="{y}">{value:,.0f} µs</text>')
            y += height
        y += height // 2
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + right + 100} {y}" width="{left + right + 100}"'
        f' height="{y}" font-family="system-ui, sans-serif" font-size="12" role="img"'
        ' aria-label="CPU of the server per request"><rect width="100%" height="100%" fill="#ffffff"/>'
        '<text x="8" y="14" fill="#475569">CPU of the server per request (user and system); shorter is better</text>'
    )
    return "\n".join([head, *parts, "</svg>", ""])
