"""Policy through the front door: what a request becomes, and who says so."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from app.cli.main import cli
from app.connect_sessions.tables import connect_sessions, owners
from app.errors import SettingsError
from app.identity.caller import Scope
from app.main import create_app
from tests.support.waiting import eventually
from tests.support.world import World, open_world, settings_for

pytestmark = pytest.mark.anyio

POLICY = """
[groups]
paying = ["org_acme"]

[[rule]]
name = "interns look on"
claims = { role = "intern" }
deny = true

[[rule]]
name = "admins of paying customers"
groups = ["paying"]
claims = { role = "admin" }
channel = "browser"
providers = ["*"]
multiple = true
session_lifetime = 600

[[rule]]
name = "paying customers"
groups = ["paying"]
channel = "browser"
providers = ["bamboohr"]

[[rule]]
name = "our backend"
channel = ["service", "auth_link"]
owners = ["org_acme", "org_5*"]
providers = ["bamboohr", "workday"]
connector_profiles = ["profile-1"]
auth_links = true
session_lifetime = 3600

[[rule]]
name = "on trial"
owners = ["org_globex"]
categories = ["hris"]
"""


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    return file


@pytest.fixture
async def world(database_url: str, policy_file: Path) -> AsyncIterator[World]:
    async with open_world(database_url, policy_file=policy_file) as opened:
        yield opened


async def test_a_request_inside_the_policy_is_minted_and_the_ledger_names_the_rule(world: World) -> None:
    answer = await world.mint("alice", {"provider": "bamboohr"})
    assert answer.status_code == 201, answer.text
    async with world.runtime.database.reading() as connection:
        rule = (await connection.execute(sa.select(connect_sessions.c.policy_rule))).scalar_one()
    assert rule == "paying customers"


@pytest.mark.parametrize(
    ("user", "claims", "body", "because"),
    [
        ("alice", {}, {"provider": "workday"}, 'rule "paying customers" does not allow this provider'),
        ("alice", {}, {}, 'rule "paying customers" allows certain providers only: name a provider'),
        ("alice", {"role": "intern"}, {"provider": "bamboohr"}, 'rule "interns look on" denies it'),
        (
            "alice",
            {},
            {"provider": "bamboohr", "connector_profile_id": "profile-1"},
            'rule "paying customers" does not allow this connector profile; leave it out to use the default one',
        ),
        ("bob", {}, {"categories": ["crm"]}, 'rule "on trial" does not allow all of these categories'),
        ("bob", {"org_id": "org_new"}, {}, "no rule of the policy matches this owner, channel and claims"),
    ],
)
async def test_a_request_outside_the_policy_is_forbidden_and_leaves_nothing_behind(
    world: World, user: str, claims: dict[str, Any], body: dict[str, Any], because: str
) -> None:
    answer = await world.mint(user, body, **claims)
    assert answer.status_code == 403
    assert (answer.json()["code"], answer.json()["detail"]) == ("forbidden", because)
    assert answer.headers["content-type"] == "application/problem+json"
    assert await world.received("POST", "/connect_sessions") == []
    async with world.runtime.database.reading() as connection:
        for table in (connect_sessions, owners):
            assert (await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one() == 0


async def test_a_claim_opens_more_and_shortens_the_session(world: World) -> None:
    answer = await world.mint("alice", {"provider": "workday", "multiple": True}, role="admin")
    assert answer.status_code == 201
    [sent] = await world.received("POST", "/connect_sessions")
    assert (sent["body"]["expires_in"], sent["body"]["multiple"]) == (600, True)


async def test_a_request_without_a_provider_is_narrowed_to_the_categories(world: World) -> None:
    assert (await world.mint("bob", {})).status_code == 201
    [sent] = await world.received("POST", "/connect_sessions")
    assert sent["body"]["categories"] == ["hris"]


async def test_services_are_held_to_the_policy_too(world: World) -> None:
    async def ask(path: str, body: dict[str, Any]) -> httpx2.Response:
        return await world.broker.post(f"/v1/owners/{path}", headers=world.as_service(), json=body)

    sent = {"provider": "workday", "integration_id": "profile-1", "expires_in": 86_400}
    assert (await ask("org_5521/connect-sessions", sent)).status_code == 201
    assert (await ask("org_5521/auth-links", {"provider": "workday"})).status_code == 201
    assert [row["body"]["expires_in"] for row in await world.received("POST", "/connect_sessions")] == [3600, 3600]
    refused = await ask("org_5521/connect-sessions", {"provider": "salesforce"})
    assert (refused.status_code, refused.json()["detail"]) == (403, 'rule "our backend" does not allow this provider')
    assert (await ask("org_5521/auth-links", {"provider": "workday", "integration_id": "x"})).status_code == 403
    assert (await ask("org_other/connect-sessions", {"provider": "workday"})).status_code == 403


async def test_multiple_that_is_not_allowed_becomes_an_edit_session(world: World) -> None:
    account_id = await linked(world, "bamboohr")
    answer = await world.mint("alice", {"provider": "bamboohr", "multiple": True})
    assert (answer.json()["mode"], answer.json()["account_id"]) == ("edit", account_id)
    assert (await world.mint("alice", {"provider": "bamboohr", "multiple": True}, role="admin")).json()[
        "mode"
    ] == "create"


async def test_an_account_of_a_forbidden_provider_shows_but_cannot_be_opened(world: World) -> None:
    account_id = await linked(world, "workday")
    shown = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
    assert (shown.status_code, shown.json()["account_id"]) == (200, account_id)
    assert (await world.mint("alice", {"account_id": account_id})).status_code == 403
    # Somebody else's account is not there, whatever policy says about its provider.
    assert (await world.mint("bob", {"account_id": account_id})).status_code == 404


async def test_explaining_says_which_rule_and_why(world: World) -> None:
    async def explain(**body: Any) -> Any:
        answer = await world.broker.post("/v1/policy/explain", headers=world.as_service(), json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    refused = await explain(owner_id="org_acme", provider="workday")
    assert (refused["allowed"], refused["rule"], refused["grant"]) == (False, "paying customers", None)
    assert refused["reason"] == 'rule "paying customers" does not allow this provider'
    assert [(row["rule"], row["line"], row["why"]) for row in refused["considered"]] == [
        ("interns look on", 5, "it asks for claims, and there are none"),
        ("admins of paying customers", 10, "it asks for claims, and there are none"),
        ("paying customers", 19, None),
    ]
    allowed = await explain(owner_id="org_acme", provider="workday", claims={"role": "admin"})
    assert (allowed["rule"], allowed["grant"]["expires_in"]) == ("admins of paying customers", 600)
    link = await explain(owner_id="org_5", provider="workday", channel="auth_link")
    assert (link["allowed"], link["grant"]["expires_in"]) == (True, 3600)
    assert (await explain(owner_id="org_nobody"))["rule"] is None
    assert await world.received("POST", "/connect_sessions") == []


async def test_explaining_needs_its_scope_and_the_owner(world: World) -> None:
    for key in (
        await world.create_key(Scope.SESSIONS_WRITE),
        await world.create_key(Scope.POLICY_READ, owners=("org_globex",)),
    ):
        answer = await world.broker.post(
            "/v1/policy/explain", headers=world.as_service(key), json={"owner_id": "org_acme"}
        )
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


async def test_a_limited_key_is_not_told_of_rules_for_other_owners(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    rules = (("secret project of Globex", "org_globex", ""), ("everybody", "*", 'providers = ["*"]'))
    file.write_text(
        "".join(
            f'[[rule]]\nname = "{name}"\nowners = ["{owner}"]\nchannel = "auth_link"\nproviders = ["workday"]\n'
            if not more
            else f'[[rule]]\nname = "{name}"\nowners = ["{owner}"]\n{more}\n'
            for name, owner, more in rules
        )
    )
    async with open_world(database_url, policy_file=file) as world:
        body = {"owner_id": "org_acme", "provider": "workday"}
        shown = {}
        for owners in (None, ("org_acme",)):
            key = await world.create_key(Scope.POLICY_READ, owners=owners)
            answer = await world.broker.post("/v1/policy/explain", headers=world.as_service(key), json=body)
            shown[owners] = [row["rule"] for row in answer.json()["considered"]]
    assert shown == {None: ["secret project of Globex", "everybody"], ("org_acme",): ["everybody"]}


def test_a_broken_policy_file_stops_the_start(policy_file: Path) -> None:
    policy_file.write_text(POLICY.replace("session_lifetime = 600", "session_lifetime = '10m'"))
    settings = settings_for(
        database_url="sqlite:///x.db",
        stackone_url="http://127.0.0.1:1",
        issuer="http://127.0.0.1:2",
        policy_file=policy_file,
    )
    with pytest.raises(SettingsError, match='line 17, rule "admins of paying customers": session_lifetime: '):
        create_app(settings)


def test_the_command_line_explains_and_checks(policy_file: Path) -> None:
    run = CliRunner()
    question = ["policy", "explain", "--file", str(policy_file), "--owner", "org_acme", "--provider", "workday"]
    refused = run.invoke(cli, question)
    assert refused.exit_code == 3
    assert 'refused: rule "paying customers" does not allow this provider' in refused.output
    allowed = run.invoke(cli, [*question, "--claim", "role=admin"])
    assert allowed.exit_code == 0
    assert 'allowed: rule "admins of paying customers" allows it' in allowed.output
    assert "line 10: admins of paying customers: matches" in allowed.output
    assert run.invoke(cli, [*question, "--claim", "role"]).exit_code == 2
    assert "5 rule(s)" in run.invoke(cli, ["policy", "check", str(policy_file)]).output
    policy_file.write_text(POLICY + "nonsense = 1\n")
    broken = run.invoke(cli, ["policy", "check", str(policy_file)])
    assert isinstance(broken.exception, SettingsError)
    assert 'rule "on trial": nonsense: unknown key' in str(broken.exception)


async def linked(world: World, provider: str) -> str:
    """Link an account of alice's owner and wait until the broker knows it."""
    account_id = await world.link("alice", provider)

    async def known() -> bool:
        return (await world.broker.get(f"/v1/accounts/{account_id}", headers=world.as_service())).status_code == 200

    await eventually(known)
    return account_id
