"""Worlds to attack, what is compared of an answer, and all that a request could have changed."""

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import httpx2
import pytest
import sqlalchemy as sa

from app.audit.entries import Action
from app.audit.tables import audit_entries
from app.db.tables import metadata
from sandbox.identity.provider import IdentityProvider
from sandbox.recording import KEPT_REQUESTS, Received
from sandbox.stackone.project import Project
from tests.support.world import World, open_world

# Thousands of requests of one user, one owner and one address; limits have a module of their own.
NO_LIMITS = {
    "mint_per_user": "1000000/minute",
    "mint_per_owner": "1000000/minute",
    "requests_per_user": "1000000/minute",
    "requests_per_owner": "1000000/minute",
    "requests_per_service": "1000000/minute",
    "unauthenticated_per_address": "1000000/minute",
    "live_sessions_per_owner": 1_000_000,
}
# They differ between any two answers.
_OF_THE_MOMENT = frozenset({"date", "x-request-id"})
_NOTED_FOR_THE_OPERATOR = ("service_keys", "last_used_at")
# A counter that is drawn from before it is known whose account is asked for.
_READ_TICKETS = "account_reads"
# What was refused is written down: nobody asks for that entry to be changed, and only an operator reads it.
_REFUSALS = (Action.INVITATION_REFUSED.value, Action.POLICY_REFUSED.value)


@asynccontextmanager
async def open_attacked(url: str, **sections: Any) -> AsyncIterator[World]:
    """Open a world without background work, webhooks and limits."""
    usual: dict[str, Any] = {
        "sync": {"enabled": False},
        "limits": NO_LIMITS,
        "stackone": {"requests_per_minute": 100_000},
    }
    async with open_world(url, webhooks=False, **(usual | sections)) as world:
        yield world


def told(answer: httpx2.Response) -> tuple[int, dict[str, str], object]:
    """Return everything that an answer tells: status, headers and body, without what is of the moment."""
    headers = {name: value for name, value in answer.headers.items() if name not in _OF_THE_MOMENT}
    return answer.status_code, headers, body_told(answer.content)


def body_told(content: bytes) -> object:
    """Return a body without its request id."""
    try:
        body = json.loads(content)
    except ValueError:
        return content
    return {name: value for name, value in body.items() if name != "request_id"} if isinstance(body, dict) else body


async def stored(world: World) -> dict[str, list[str]]:
    """Return everything in the database that a caller could have wanted to change."""
    tables: dict[str, list[str]] = {}
    async with world.runtime.database.reading() as connection:
        for table in metadata.sorted_tables:
            columns = [column for column in table.c if (table.name, column.name) != _NOTED_FOR_THE_OPERATOR]
            query = sa.select(*columns)
            if table is audit_entries:
                query = query.where(table.c.kind.not_in(_REFUSALS))
            rows = (await connection.execute(query)).all()
            tables[table.name] = sorted(repr(tuple(row)) for row in rows if row[0] != _READ_TICKETS)
    return tables


def requests_of(neighbour: Project | IdentityProvider) -> list[Received]:
    """Return what a neighbour was asked, oldest first."""
    return neighbour.requests.entries.after(0, KEPT_REQUESTS)


def asked_upstream(world: World) -> list[tuple[str, str]]:
    """Return method and path of every request that StackOne got."""
    return [(entry.method, entry.path) for entry in requests_of(world.project)]


def asked_of_issuer(world: World) -> list[str]:
    """Return the path of every request that the identity provider got."""
    return [entry.path for entry in requests_of(world.provider)]


def minted(world: World) -> list[Mapping[str, Any]]:
    """Return the body of every connect session that StackOne was asked for."""
    return [
        json.loads(entry.text)
        for entry in requests_of(world.project)
        if (entry.method, entry.path) == ("POST", "/connect_sessions")
    ]


def not_on_this_machine(reason: str) -> NoReturn:
    """Skip what this machine cannot run, and say why; where everything must run (CI), fail."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
