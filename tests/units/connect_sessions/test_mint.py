"""Minting: what StackOne is sent, what the caller gets, what the ledger keeps, and what policy decides."""

from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.connect_sessions.tables import Mode, connect_sessions, owners
from app.errors import FieldError, Forbidden, NotFound, TooManyRequests, Unavailable, Unprocessable
from app.identity.caller import Owner
from app.linked_accounts.tables import linked_accounts
from app.policy.rules import Channel, Policy, Rule
from app.stackone.models import Category, SessionType
from tests.support.broker import ACME, Broker

pytestmark = pytest.mark.anyio

GLOBEX = Owner("globex", "Globex", None, "user:bob", {})
OPEN = Rule("open", owners=("*",), providers=("*",), connector_profiles=("*",), multiple=True, auth_links=True)


def with_rules(*rules: Rule) -> Policy:
    return Policy(rules)


def counted(broker: Broker, name: str, **labels: str) -> float:
    return broker.runtime.metrics.registry.get_sample_value(name, labels) or 0


async def test_a_plain_request_opens_a_session_for_the_verified_owner(broker: Broker) -> None:
    with capture_logs() as logs:
        minted = await broker.mint()

    assert broker.sent() == [
        {
            "origin_owner_id": "acme",
            "origin_owner_name": "Acme Inc.",
            "origin_username": "ann@acme.example",
            "expires_in": 1800,
        }
    ]
    [token] = [session.token for session in broker.project.sessions]
    link = f"http://127.0.0.1:8100/embedded/integrations?token={token}"
    assert (minted.token.get_secret_value(), minted.auth_link_url.get_secret_value()) == (token, link)
    assert {name: value for name, value in asdict(minted).items() if name not in {"token", "auth_link_url"}} == {
        "id": minted.id,
        "expires_at": broker.clock.now() + timedelta(minutes=30),
        "expires_in": 1800,
        "mode": Mode.CREATE,
        "account_id": None,
        "provider": None,
        "owner_id": "acme",
        "owner_name": "Acme Inc.",
        "name_pinned": False,
    }
    [entry] = [entry for entry in logs if entry["event"] == "connect_session_minted"]
    assert (entry["session_id"], entry["actor"], entry["rule"]) == (minted.id, "user:ann", None)
    assert (entry["channel"], entry["mode"]) == ("browser", "create")
    assert counted(broker, "broker_connect_sessions_total", channel="browser", mode="create") == 1


async def test_the_ledger_has_everything_but_the_token(broker: Broker) -> None:
    with capture_logs() as logs:
        minted = await broker.mint(
            policy=with_rules(OPEN),
            channel=Channel.SERVICE,
            expires_in=600,
            provider="workday",
            categories=(Category.HRIS, Category.HRIS_LEGACY),
            multiple=True,
        )
    [entry] = [entry for entry in logs if entry["event"] == "connect_session_minted"]
    assert (entry["channel"], entry["rule"]) == ("service", "open")

    upstream = next(iter(broker.project.sessions))
    assert minted.id.startswith("cs_")
    assert await broker.row(connect_sessions) == {
        "id": minted.id,
        "owner_id": "acme",
        "requested_by": "user:ann",
        "channel": "service",
        "mode": "create",
        "status": "pending",
        "provider": "workday",
        "categories": ["hris", "hris-legacy"],
        "account_id": None,
        "multiple": True,
        "policy_rule": "open",
        "upstream_id": str(upstream.id),
        "linked_account_id": None,
        "ended_as": None,
        "was_new": None,
        "oauth_error_code": None,
        "oauth_error_description": None,
        "created_at": broker.clock.now(),
        "expires_at": broker.clock.now() + timedelta(minutes=10),
        "resolved_at": None,
    }
    assert await broker.row(owners) == {
        "owner_id": "acme",
        "owner_name": "Acme Inc.",
        "pinned_at": broker.clock.now(),
        "pinned_by": "user:ann",
    }


async def test_everything_else_of_a_request_is_passed_on(broker: Broker) -> None:
    request: dict[str, Any] = {
        "provider": "workday",
        "categories": (Category.HRIS,),
        "multiple": True,
        "metadata": {"plan": "gold"},
        "label": "Payroll",
        "type": SessionType.TEST,
        "connector_profile_id": "profile-1",
    }
    minted = await broker.mint(**request)

    assert minted.provider == "workday"
    assert broker.sent() == [
        {
            **request,
            "categories": ["hris"],
            "type": "test",
            "origin_owner_id": "acme",
            "origin_owner_name": "Acme Inc.",
            "origin_username": "ann@acme.example",
            "expires_in": 1800,
        }
    ]


async def test_the_pinned_name_is_sent_whatever_the_token_says_now(broker: Broker) -> None:
    await broker.mint()
    renamed = await broker.mint(replace(ACME, owner_name="Acme Worldwide", requested_by="user:eve"))

    assert renamed.owner_name == "Acme Inc."
    assert [body["origin_owner_name"] for body in broker.sent()] == ["Acme Inc.", "Acme Inc."]
    assert (await broker.row(owners))["pinned_by"] == "user:ann"


async def test_an_existing_account_is_edited_instead(broker: Broker) -> None:
    account_id = await broker.linked()
    minted = await broker.mint(policy=with_rules(OPEN), provider="bamboohr")

    assert (minted.mode, minted.account_id, minted.provider) == (Mode.EDIT, account_id, "bamboohr")
    [body] = broker.sent()
    assert (body["account_id"], body["provider"]) == (account_id, "bamboohr")
    # Beside an account it would mean nothing.
    assert "multiple" not in body
    row = await broker.row(connect_sessions)
    assert (row["mode"], row["account_id"], row["provider"], row["multiple"]) == ("edit", account_id, "bamboohr", False)
    assert row["policy_rule"] == "open"
    assert counted(broker, "broker_connect_sessions_total", channel="browser", mode="edit") == 1


async def test_a_further_account_is_made_where_it_is_asked_for(broker: Broker) -> None:
    await broker.linked()
    minted = await broker.mint(policy=with_rules(OPEN), provider="bamboohr", multiple=True)

    assert (minted.mode, minted.account_id) == (Mode.CREATE, None)
    assert broker.sent()[0]["multiple"] is True
    assert (await broker.row(connect_sessions))["multiple"] is True


@pytest.mark.parametrize("values", [{}, {"provider": "workday"}], ids=str)
async def test_another_provider_or_none_is_no_reason_to_edit(broker: Broker, values: dict[str, Any]) -> None:
    await broker.linked()
    await broker.linked(owner="globex", provider="workday")

    assert (await broker.mint(**values)).mode.value == "create"


async def test_of_several_accounts_the_one_that_needs_it_is_edited_and_else_the_newest(broker: Broker) -> None:
    oldest = await broker.linked(created_at="2026-01-01T00:00:00Z", status="expired")
    older = await broker.linked(created_at="2026-01-02T00:00:00Z", status="error")
    newest = await broker.linked(created_at="2026-01-03T00:00:00Z")
    middle = await broker.linked(created_at="2026-01-02T12:00:00Z")

    assert (await broker.mint(provider="bamboohr")).account_id == older
    broker.project.accounts.change(older, {"status": "active"})
    broker.project.accounts.change(oldest, {"status": "active"})
    await broker.read(oldest, older)
    assert (await broker.mint(provider="bamboohr")).account_id == newest
    broker.project.accounts.delete(newest)
    assert (await broker.mint(provider="bamboohr")).account_id == middle


async def test_an_account_of_unknown_age_counts_as_new(broker: Broker) -> None:
    known = await broker.linked(created_at="2026-01-03T00:00:00Z")
    other = await broker.linked(created_at="2026-01-02T00:00:00Z")
    async with broker.runtime.database.transaction() as connection:
        statement = linked_accounts.update().where(linked_accounts.c.account_id == other).values(created_at=None)
        await connection.execute(statement)

    assert (await broker.mint(provider="bamboohr")).account_id == other
    assert known != other


async def test_an_account_is_named_for_reauthentication(broker: Broker) -> None:
    account_id = await broker.linked("workday")
    await broker.linked("workday", status="error")
    minted = await broker.mint(account_id=account_id, multiple=True)

    # The one that is named, not the one that needs it most; and of its own provider.
    assert (minted.mode, minted.account_id, minted.provider) == (Mode.EDIT, account_id, "workday")
    named = await broker.mint(account_id=account_id, provider="workday")
    assert named.account_id == account_id
    assert [body["provider"] for body in broker.sent()] == ["workday", "workday"]


async def test_an_account_and_another_provider_contradict_each_other(broker: Broker) -> None:
    account_id = await broker.linked("workday")
    with pytest.raises(Unprocessable) as refusal:
        await broker.mint(account_id=account_id, provider="bamboohr")

    assert refusal.value.errors == (
        FieldError("body.provider", "the account is of another provider; leave the provider out"),
    )
    # To a stranger it is simply not there.
    with pytest.raises(NotFound):
        await broker.mint(GLOBEX, account_id=account_id, provider="bamboohr")


@pytest.mark.parametrize("account_id", ["never-linked-by-anyone", "../accounts/1", "a" * 256, ""])
async def test_an_account_that_cannot_be_the_callers_asks_nothing_of_stackone(broker: Broker, account_id: str) -> None:
    requests: list[dict[str, Any]] = [{"account_id": account_id}, {"account_id": account_id, "provider": "bamboohr"}]
    for request in requests:
        with pytest.raises(NotFound):
            await broker.mint(**request)

    assert broker.calls() == []
    assert await broker.rows(connect_sessions) == []


@pytest.mark.parametrize("moved", [True, False], ids=["moved", "deleted"])
async def test_a_named_account_that_is_no_longer_the_owners_is_not_found_and_read_again(
    broker: Broker, *, moved: bool
) -> None:
    account_id = await broker.linked()
    if moved:
        broker.project.accounts.change(account_id, {"origin_owner_id": "globex"})
    else:
        broker.project.accounts.delete(account_id)
    broker.clock.advance(60)
    with pytest.raises(NotFound):
        await broker.mint(account_id=account_id)

    row = await broker.row(linked_accounts)
    assert (row["account_id"], row["refresh_due_at"]) == (account_id, broker.clock.now())
    assert await broker.rows(connect_sessions) == []


async def test_at_most_three_accounts_are_tried_before_a_new_one_is_made(broker: Broker) -> None:
    ids = [await broker.linked(created_at=f"2026-01-0{day}T00:00:00Z") for day in (4, 3, 2, 1)]
    for account_id in ids[:2]:
        broker.project.accounts.delete(account_id)
    before = len(broker.calls())
    assert (await broker.mint(provider="bamboohr")).account_id == ids[2]
    assert broker.calls()[before:-1] == [("GET", f"/accounts/{account_id}") for account_id in ids[:3]]

    broker.project.accounts.delete(ids[2])
    before = len(broker.calls())
    minted = await broker.mint(provider="bamboohr")
    assert (minted.mode, minted.provider) == (Mode.CREATE, "bamboohr")
    assert broker.calls()[before:-1] == [("GET", f"/accounts/{account_id}") for account_id in ids[:3]]


async def test_a_hundred_accounts_are_looked_at(broker: Broker) -> None:
    async with broker.runtime.database.transaction() as connection:
        rows = [
            {"account_id": f"a{number:03}", "owner_id": "acme", "provider": "bamboohr", "status": status}
            for number, status in [*((n, "active") for n in range(99)), (99, "error"), (100, "error")]
        ]
        now = broker.clock.now()
        await connection.execute(
            linked_accounts.insert(),
            [
                {**row, "verified_at": now, "created_at": now - timedelta(days=row["account_id"] != "a100")}
                for row in rows
            ],
        )
    await broker.mint(provider="bamboohr")

    assert broker.calls()[0] == ("GET", "/accounts/a099")


async def test_policy_is_asked_about_the_very_request(broker: Broker) -> None:
    very = Rule(
        "the very request",
        owners=("acme",),
        channels=frozenset({Channel.SERVICE}),
        claims={"plan": "gold"},
        providers=("bamboohr",),
        categories=(Category.HRIS,),
        connector_profiles=("profile-1",),
        session_lifetime=300,
    )
    policy = with_rules(very)
    minted = await broker.mint(
        policy=policy,
        channel=Channel.SERVICE,
        provider="bamboohr",
        connector_profile_id="profile-1",
        multiple=True,
    )

    # The lifetime is cut, and a further account is not allowed, so that none is asked for.
    assert minted.expires_in == 300
    [body] = broker.sent()
    assert (body["expires_in"], body["connector_profile_id"]) == (300, "profile-1")
    assert "multiple" not in body
    assert (await broker.row(connect_sessions))["policy_rule"] == "the very request"
    request: dict[str, Any]
    for request in (
        {"owner": GLOBEX},
        {"owner": replace(ACME, claims={})},
        {"channel": Channel.BROWSER},
        {"provider": "workday"},
        {"connector_profile_id": "other"},
        {"provider": None, "categories": (Category.CRM,)},
    ):
        values: dict[str, Any] = {"policy": policy, "channel": Channel.SERVICE, "provider": "bamboohr", **request}
        with pytest.raises(Forbidden):
            await broker.mint(**values)
    shorter = await broker.mint(policy=policy, channel=Channel.SERVICE, provider="bamboohr", expires_in=120)
    assert shorter.expires_in == 120


async def test_the_categories_of_the_rule_are_offered_where_none_are_named(broker: Broker) -> None:
    await broker.mint(policy=with_rules(Rule("r", owners=("*",), categories=(Category.ATS, Category.HRIS))))

    assert broker.sent()[0]["categories"] == ["ats", "hris"]
    assert (await broker.row(connect_sessions))["categories"] == ["ats", "hris"]


@pytest.mark.parametrize("rules", [(), (Rule("no", owners=("*",), deny=True),)], ids=["no-rule", "a-rule"])
async def test_a_refusal_is_counted_logged_and_leaves_nothing_behind(broker: Broker, rules: tuple[Rule, ...]) -> None:
    with capture_logs() as logs, pytest.raises(Forbidden) as refusal:
        await broker.mint(policy=with_rules(*rules))

    reason = 'rule "no" denies it' if rules else "no rule of the policy matches this owner, channel and claims"
    name = "no" if rules else None
    assert refusal.value.detail == reason
    [entry] = logs
    assert (entry["event"], entry["rule"], entry["channel"]) == ("policy_refused", name, "browser")
    assert entry["owner_id"] == "acme"
    assert counted(broker, "broker_policy_refusals_total", rule=name or "") == 1
    assert broker.calls() == []
    assert await broker.rows(connect_sessions) == []
    assert await broker.rows(owners) == []


REPAIRS = Rule("repairs", owners=("*",), categories=(Category.HRIS,))


async def test_a_repair_is_allowed_where_its_provider_could_have_been_picked(broker: Broker) -> None:
    account_id = await broker.linked()
    request: dict[str, Any]
    for request in ({"provider": "bamboohr"}, {"account_id": account_id}, {"account_id": account_id, "multiple": True}):
        minted = await broker.mint(policy=with_rules(REPAIRS), **request)
        assert (minted.mode, minted.account_id) == (Mode.EDIT, account_id)
    with pytest.raises(Forbidden):
        await broker.mint(policy=with_rules(REPAIRS), provider="workday")


async def test_what_looked_like_a_repair_is_no_way_around_the_policy(broker: Broker) -> None:
    """The store knows an account that StackOne has no more: the session would link something new."""
    account_id = await broker.linked()
    broker.project.accounts.delete(account_id)
    with pytest.raises(Forbidden) as refusal:
        await broker.mint(policy=with_rules(REPAIRS), provider="bamboohr")

    assert "does not allow this provider" in str(refusal.value)
    await broker.mint(policy=with_rules(OPEN), provider="bamboohr")
    assert (await broker.rows(connect_sessions))[0]["policy_rule"] == "open"


async def test_accounts_are_limited_by_the_rule(broker: Broker) -> None:
    one = with_rules(
        Rule("one each", owners=("*",), providers=("*",), multiple=True, max_accounts_per_provider=1),
    )
    await broker.linked("workday")
    with pytest.raises(Forbidden) as refusal:
        await broker.mint(policy=one, provider="workday", multiple=True)
    assert str(refusal.value).startswith('rule "one each" allows 1 account(s) of a provider: there are 1, ')
    assert await broker.rows(owners) == []
    # To repair the one that exists makes none, another provider and another owner have their own count,
    assert (await broker.mint(policy=one, provider="workday")).mode.value == "edit"
    assert (await broker.mint(policy=one, provider="bamboohr")).mode.value == "create"
    assert (await broker.mint(GLOBEX, policy=one, provider="workday", multiple=True)).mode.value == "create"
    # and of sessions that each may make one, only as many are opened as there may be accounts.
    with pytest.raises(Forbidden):
        await broker.mint(policy=one, provider="bamboohr", multiple=True)


async def test_live_sessions_are_limited_for_each_owner(broker: Broker) -> None:
    await broker.mint(live_sessions=2, expires_in=600)
    broker.clock.advance(60)
    await broker.mint(live_sessions=2)
    with pytest.raises(TooManyRequests) as refusal:
        await broker.mint(live_sessions=2)
    assert refusal.value.retry_after == 540
    await broker.mint(GLOBEX, live_sessions=2)
    broker.clock.advance(540)
    await broker.mint(live_sessions=2)

    assert len(broker.sent()) == 4


async def test_what_stackone_refuses_stays_in_the_ledger_as_failed(broker: Broker) -> None:
    broker.project.faults.add({"method": "POST", "path": "/connect_sessions", "status": 400, "times": 1})
    with pytest.raises(Unprocessable):
        await broker.mint()
    broker.project.faults.add({"method": "POST", "path": "/connect_sessions", "status": 500, "times": 1})
    with pytest.raises(Unavailable):
        await broker.mint()
    await broker.mint()

    rows = await broker.rows(connect_sessions)
    assert sorted((row["status"], row["upstream_id"] is not None) for row in rows) == [
        ("failed", False),
        ("failed", False),
        ("pending", True),
    ]


async def test_the_session_is_in_the_ledger_while_stackone_is_asked(broker: Broker) -> None:
    """A crash in the middle must leave a row that counts, not a session that nobody knows of."""
    seen: list[str] = []

    async def look() -> None:
        seen.extend(row["status"] for row in await broker.rows(connect_sessions))

    broker.wire.before = look
    await broker.mint()

    assert seen == ["minting"]


async def test_a_sessions_secrets_are_in_no_repr(broker: Broker) -> None:
    minted = await broker.mint()

    assert minted.token.get_secret_value() not in repr(minted)
    assert "gold" not in repr(ACME)
