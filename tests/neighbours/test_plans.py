"""How many rows PostgreSQL reads for a page of `GET /v1/accounts`: a bounded number, however many accounts there are.

100,000 accounts of 10,000 owners here; BROKER_PLANS_ACCOUNTS=1000000 makes it a million of 100,000.
"""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.linked_accounts.queries import AllAccountsQuery
from app.linked_accounts.store import list_of_owners
from tests.support.databases import engine_of

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

_ACCOUNTS = int(os.environ.get("BROKER_PLANS_ACCOUNTS", "100000"))
_PAGE = 200
_NOW = datetime(2026, 11, 26, tzinfo=UTC)
# One account in a thousand is broken, one in fifty of a provider of which most are not; each owner has ten.
_FILL = """
    INSERT INTO linked_accounts (account_id, owner_id, provider, status, created_at, updated_at, verified_at,
                                 needs_reauth_since, read_ticket)
    SELECT 'a' || lpad(n::text, 12, '0'), 'org_' || n % CAST(:owners AS integer),
           CASE WHEN n % 50 = 0 THEN 'workday' ELSE 'bamboohr' END,
           CASE WHEN n % 1000 = 0 THEN 'error' ELSE 'active' END,
           CAST(:now AS timestamptz), CAST(:now AS timestamptz) - n * interval '1 second', CAST(:now AS timestamptz),
           CASE WHEN n % 1000 = 0 THEN CAST(:now AS timestamptz) - n * interval '1 minute' END, n
    FROM generate_series(1, :accounts) AS n
"""
_MIDDLE = f"a{_ACCOUNTS // 2:012}"
# What is asked, behind which account, and how many rows a page of 200 may cost.
CASES: dict[str, tuple[dict[str, Any], tuple[datetime | None, str] | None, int]] = {
    "the first page": ({}, None, _PAGE + 1),
    "a page in the middle": ({}, (None, _MIDDLE), _PAGE + 1),
    "a snapshot's page": ({"snapshot": True}, (None, _MIDDLE), _PAGE + 1),
    "an owner": ({"owner_id": ["org_7"]}, None, 20),
    "fifty owners": ({"owner_id": [f"org_{n}" for n in range(50)]}, None, 2 * 50 * 10),
    "accounts by id": ({"account_id": [f"a{n:012}" for n in range(1, 201)]}, None, 2 * _PAGE),
    "whom to ask to reconnect": ({"needs_reauth": True}, None, 2 * _PAGE),
    "the next of them": (
        {"needs_reauth": True},
        (_NOW - timedelta(minutes=_ACCOUNTS // 2), _MIDDLE),
        2 * _PAGE + _ACCOUNTS // 1000,
    ),
    "what works": ({"usable": True}, (None, _MIDDLE), 2 * _PAGE),
    "a provider": ({"provider": ["bamboohr"]}, (None, _MIDDLE), 4 * _PAGE),
    "a provider with few": ({"provider": ["workday"]}, (None, _MIDDLE), 60 * _PAGE),
    "a provider's broken ones": ({"provider": ["workday"], "status": ["error"]}, None, 2 * _ACCOUNTS // 1000),
    "what is in error": ({"status": ["error"]}, None, 2 * _PAGE + _ACCOUNTS // 1000),
    "the last hour's": ({"updated_since": _NOW - timedelta(minutes=10)}, None, 1200),
}


def rows_read(plan: dict[str, Any]) -> float:
    """Count the rows that a plan took from tables and indexes, those included that it then threw away."""
    own = 0.0
    if "Scan" in plan["Node Type"]:
        removed = sum(plan.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
        own = (plan["Actual Rows"] + removed) * plan["Actual Loops"]
    return own + sum(rows_read(below) for below in plan.get("Plans", ()))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_page_reads_a_bounded_number_of_rows(database_url: str) -> None:
    engine = engine_of(database_url)
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    costs = {}
    try:
        async with engine.begin() as connection:
            values = {"accounts": _ACCOUNTS, "owners": _ACCOUNTS // 10, "now": _NOW}
            await connection.execute(sa.text(_FILL), values)
            await connection.execute(sa.text("ANALYZE linked_accounts"))
        async with engine.connect() as connection:
            sa.event.listen(engine.sync_engine, "before_cursor_execute", note)
            for name, (query, after, most) in CASES.items():
                asked.clear()
                await list_of_owners(connection, AllAccountsQuery(**query), None, after=after, limit=_PAGE + 1)
                [(statement, parameters)] = asked
                explained = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
                plan = explained.scalar_one()[0]["Plan"]
                costs[name] = (rows_read(plan), most)
    finally:
        await engine.dispose()
    assert {name: cost for name, cost in costs.items() if cost[0] > cost[1]} == {}, costs
