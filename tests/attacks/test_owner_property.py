"""Whatever a browser sends, owner, owner's name and user are what the verified token says, and nothing else."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sandbox.identity.provider import USERS
from tests.attacks.opened import minted, open_attacked
from tests.support.world import World

pytestmark = pytest.mark.anyio

_EXAMPLES = 150
_DECIDED = ("origin_owner_id", "origin_owner_name", "origin_username")
# What a page, a proxy or a curious user would try first.
_NAMES = [
    *_DECIDED,
    "owner_id",
    "owner-id",
    "x-owner-id",
    "x-origin-owner-id",
    "x-forwarded-user",
    "x-user",
    "x-tenant",
    "org_id",
    "org_name",
    "email",
    "username",
    "claims",
    "x-request-id",
    "cookie",
    "x-connect-broker",
    "origin",
    "referer",
    "accept",
    "user-agent",
    "content-language",
]
# The wire's own business.
_NOT_TRIED = {"authorization", "host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"}

names = st.sampled_from(_NAMES) | st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True)
header_names = names.filter(lambda name: name.lower() not in _NOT_TRIED)
header_values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)
texts = st.text(max_size=300) | st.sampled_from([user.org_id for user in USERS.values()])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | texts, inner, max_size=4),
    max_leaves=8,
)
printable = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=255)
wishes: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "provider": st.sampled_from(["bamboohr", "workday", "salesforce"]),
        "label": printable,
        "connector_profile_id": printable,
        "multiple": st.booleans(),
        "categories": st.lists(st.sampled_from(["hris", "crm", "ats"]), min_size=1, max_size=3),
    },
)
bodies = st.one_of(
    st.none(),
    wishes.map(json.dumps),
    wishes.map(json.dumps),
    st.tuples(wishes, st.dictionaries(names | texts, anything, max_size=3)).map(
        lambda both: json.dumps(both[0] | both[1])
    ),
    anything.map(json.dumps),
    st.binary(max_size=200),
)


@dataclass
class Mints:
    """A world, and how many of the requests opened a session in it."""

    world: World
    opened: int = 0
    refused: set[int] = field(default_factory=set)


@pytest.fixture
async def mints(attacked_url: str) -> AsyncIterator[Mints]:
    """Open a world in which every owner's name is pinned."""
    async with open_attacked(attacked_url) as world:
        for user in USERS:
            await world.broker.post("/v1/connect-sessions", headers=world.as_user(user))
        tried = Mints(world)
        yield tried
        # If nearly everything were refused, nothing would have been shown. The examples below have both.
        assert tried.opened >= _EXAMPLES // 5
        assert {400, 422} <= tried.refused <= {400, 401, 422}


_PLAIN: dict[str, Any] = {"who": "alice", "renamed": None, "headers": [], "query": [], "kind": "application/json"}


@settings(max_examples=_EXAMPLES)
@example(**_PLAIN, body=json.dumps({"provider": "bamboohr"}))
@example(**_PLAIN, body=json.dumps({"origin_owner_id": "org_globex"}))
@example(**_PLAIN, body="{")
@given(
    who=st.sampled_from(sorted(USERS)),
    renamed=st.none() | printable,
    headers=st.lists(st.tuples(header_names, header_values), max_size=6),
    query=st.lists(st.tuples(names, texts), max_size=4),
    body=bodies,
    kind=st.sampled_from(["application/json"] * 4 + ["text/plain", "application/x-www-form-urlencoded"]),
)
async def test_no_byte_of_a_request_becomes_owner_name_or_user(
    mints: Mints,
    who: str,
    renamed: str | None,
    headers: list[tuple[str, str]],
    query: list[tuple[str, str]],
    body: str | bytes | None,
    kind: str,
) -> None:
    """The owner's name is the pinned one even where the token itself calls the owner something else by now."""
    before = len(minted(mints.world))
    claims: dict[str, Any] = {"org_name": renamed} if renamed else {}
    answer = await mints.world.broker.post(
        f"/v1/connect-sessions?{urlencode(query)}",
        content=body,
        headers=[
            *((name, value) for name, value in headers if name != "content-type"),
            *mints.world.as_user(who, **claims).items(),
            ("content-type", kind),
        ],
    )
    sent = minted(mints.world)[before:]
    user = USERS[who]
    assert [[asked.get(name) for name in _DECIDED] for asked in sent] == [
        [user.org_id, user.org_name, user.email] for _ in sent
    ]
    assert len(sent) == (answer.status_code == 201)
    if answer.status_code == 201:
        mints.opened += 1
    else:
        mints.refused.add(answer.status_code)
