"""Schemathesis over the broker's own OpenAPI document: data that fits it, data that does not, and any credential.

Nothing may be a server error, and every answer must be one that the document announces, of the shape that it announces.
BROKER_FUZZ_CASES is the number of requests for the whole document; a short run by default, thousands before a release,
which are other ones each time with BROKER_TEST_CHANCE=free.
BROKER_FUZZ_REPORT names a file to which the statuses of all answers are written, one JSON line for each test.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from sandbox.stackone.signing import sign
from tests.attacks.opened import open_attacked
from tests.attacks.places import Operation, document, operations
from tests.support.world import WEBHOOK_SECRET, World

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases, pytest.mark.timeout(3600)]

CASES = int(os.environ.get("BROKER_FUZZ_CASES", "500"))
_DATABASES = 2
_LEAST = 5
# Each request is sent with one of these; the channel's own comes first and most often.
_CREDENTIALS = ("own", "own", "own", "own", "other channel's", "junk", "none")


@dataclass
class Target:
    """A world, ids that exist in it, and what opens its channels."""

    world: World
    ids: dict[str, str]
    credentials: dict[str, dict[str, str]]

    def headers(self, channel: str, credential: str) -> dict[str, str]:
        """Return the credential to send at a channel."""
        channels = ["browser", "service"] if channel != "service" else ["service", "browser"]
        named = {"own": self.credentials[channels[0]], "other channel's": self.credentials[channels[1]]}
        return {**named, "junk": {"authorization": "Bearer junk"}, "none": {}}[credential]


@pytest.fixture(scope="module")
async def target(attacked_url: str) -> AsyncIterator[Target]:
    """Open a world with an account and a session to find."""
    async with open_attacked(attacked_url, stackone={"requests_per_minute": 100_000}) as world:
        account_id = await world.link("alice", "bamboohr")
        await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
        session = await world.broker.post("/v1/connect-sessions", headers=world.as_user("alice"))
        ids = {
            "account_id": account_id,
            "session_id": session.json()["id"],
            "owner_id": "org_acme",
            "erasure_id": "er_x",
        }
        yield Target(world, ids, {"browser": world.as_user("alice"), "service": world.as_service()})


# What takes nothing cannot be sent anything that does not fit.
RUNS = [
    pytest.param(operation, mode, id=f"{operation} {'fitting' if mode is GenerationMode.POSITIVE else 'unfitting'}")
    for operation in operations()
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if mode is GenerationMode.POSITIVE or operation.channel != "health"
]


@pytest.mark.parametrize(("operation", "mode"), RUNS)
async def test_every_answer_is_one_that_the_document_announces(
    target: Target, operation: Operation, mode: GenerationMode
) -> None:
    cases = max(_LEAST, CASES // (len(RUNS) * _DATABASES))
    # In a thread: the broker runs in this one.
    answers = await asyncio.to_thread(_ask_all, target, operation, mode, cases)
    if report := os.environ.get("BROKER_FUZZ_REPORT"):
        figures = {"operation": str(operation), "mode": mode.name.lower(), "answers": answers}
        await asyncio.to_thread(_append, Path(report), json.dumps(figures))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)
# Nearly an event: every member may be missing, or anything at all.
events = st.fixed_dictionaries(
    {},
    optional={
        "event": st.sampled_from(["account.created", "account.updated", "account.deleted"]) | json_values,
        "event_id": json_values,
        "project_id": json_values,
        "account_id": st.from_regex(r"[A-Za-z0-9_-]{1,30}", fullmatch=True) | json_values,
        "id": json_values,
        "origin_owner_id": st.text(max_size=300) | json_values,
        "origin_owner_name": st.text(max_size=300) | json_values,
        "provider": st.text(max_size=300) | json_values,
        "event_date": json_values,
        "record_type": st.just("account") | json_values,
        "record_id": json_values,
        "account": json_values,
        "data": json_values,
    },
)


@settings(max_examples=max(50, CASES // 10))
@given(
    body=events.map(json.dumps).map(str.encode) | json_values.map(json.dumps).map(str.encode) | st.binary(max_size=200)
)
async def test_nothing_that_is_rightly_signed_is_a_server_error(target: Target, body: bytes) -> None:
    """A signature says who sent it, not that it makes sense."""
    headers = {"content-type": "application/json", "x-stackone-signature": sign(body, WEBHOOK_SECRET)}
    answer = await target.world.broker.post("/v1/webhooks/stackone", content=body, headers=headers)
    assert answer.status_code in {200, 422}


def _ask_all(target: Target, operation: Operation, mode: GenerationMode, cases: int) -> Counter[int]:
    """Send that many requests, and return how many answers there were of each status."""
    answers: Counter[int] = Counter()
    described = schemathesis.openapi.from_dict(document())[operation.path][operation.method]
    own_ids = {name: target.ids.get(name, "x") for where, name in operation.parameters if where == "path"}
    asked = described.as_strategy(generation_mode=mode)
    if own_ids and mode is GenerationMode.POSITIVE:
        asked |= described.as_strategy(generation_mode=mode, path_parameters=own_ids)

    with requests.Session() as session:

        @settings(max_examples=cases, phases=[Phase.generate])
        @given(case=asked, credential=st.sampled_from(_CREDENTIALS))
        def ask(case: schemathesis.Case[Any], credential: str) -> None:
            _do_not_wait(case.query)
            answer = case.call(
                base_url=str(target.world.broker.base_url).rstrip("/"),
                session=session,
                headers=target.headers(operation.channel, credential),
                timeout=20,
            )
            answers[answer.status_code] += 1
            assert answer.status_code < 500, answer.text
            case.validate_response(
                answer,
                checks=[status_code_conformance, content_type_conformance, response_schema_conformance],
            )

        ask()
    return answers


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as report:
        report.write(line + "\n")


def _do_not_wait(query: dict[str, Any]) -> None:
    """Ask the change feed for what is there; a request may make it wait for half a minute."""
    try:
        if float(query["wait"]) > 0:
            query["wait"] = 0
    except (KeyError, TypeError, ValueError):
        return
