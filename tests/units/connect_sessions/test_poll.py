"""Polling: StackOne's word on a session's OAuth attempt, for the one who holds the session's own token."""

from dataclasses import replace
from typing import Any

import pytest

from app.connect_sessions.ledger import Session
from app.connect_sessions.mint import Minted
from app.connect_sessions.poll import poll_session
from app.connect_sessions.tables import Status, connect_sessions
from app.errors import FieldError, NotFound, Unavailable, Unprocessable
from app.linked_accounts.tables import account_events
from app.metrics import Metrics
from app.stackone.client import StackOneClient
from sandbox.stackone.account_json import account_v1
from sandbox.stackone.attempts import Attempt
from tests.support.broker import ACME, ANN, Broker

pytestmark = pytest.mark.anyio


async def poll(
    broker: Broker, minted: Minted, *, token: str | None = None, user: Any = ANN, project_id: str | None = None
) -> tuple[Session, str | None]:
    settings = broker.runtime.settings
    stackone = settings.stackone.model_copy(update={"project_id": project_id})
    runtime = broker.runtime
    if project_id is not None:
        client = StackOneClient(stackone, clock=broker.clock, metrics=Metrics(), transport=broker.wire)
        runtime = replace(runtime, settings=settings.model_copy(update={"stackone": stackone}), stackone=client)
    owner = user.owner
    session, upstream = await poll_session(runtime, owner, minted.id, token or minted.token.get_secret_value())
    attempt = upstream.latest_connection_attempt if upstream else None
    return session, attempt.status if attempt else None


def begin(broker: Broker, minted: Minted) -> Attempt:
    """Have the user sign in at the provider, as the Hub does."""
    return broker.project.attempts.begin(broker.project.sessions.open(minted.token.get_secret_value()))


async def test_without_an_attempt_the_session_is_pending(broker: Broker) -> None:
    minted = await broker.mint()
    session, attempt = await poll(broker, minted)

    assert (session.id, session.status, attempt) == (minted.id, Status.PENDING, None)
    assert broker.sent("/connect_sessions/authenticate") == [{"token": minted.token.get_secret_value()}]


@pytest.mark.parametrize("how", ["pending", "cancelled", "error"])
async def test_an_attempt_that_led_to_nothing_is_told_as_it_stands(broker: Broker, how: Any) -> None:
    minted = await broker.mint()
    begin(broker, minted).status = how
    session, attempt = await poll(broker, minted)

    assert (session.status, attempt) == (Status.PENDING, how)


async def test_success_without_an_account_links_nothing(broker: Broker) -> None:
    minted = await broker.mint()
    begin(broker, minted).status = "authenticated"
    session, attempt = await poll(broker, minted)

    assert (session.status, attempt) == (Status.PENDING, "authenticated")


async def test_an_account_of_a_failed_attempt_is_not_believed(broker: Broker) -> None:
    minted = await broker.mint()
    attempt = begin(broker, minted)
    attempt.status, attempt.account_id = "error", broker.link()
    session, told = await poll(broker, minted)

    assert (session.status, told) == (Status.PENDING, "error")
    assert await broker.rows(account_events) == []


async def test_the_account_that_oauth_linked_is_confirmed_and_named(broker: Broker) -> None:
    minted = await broker.mint()
    account_id = broker.link("salesforce")
    broker.project.attempts.finish(begin(broker, minted), account_id)
    broker.clock.advance(60)
    session, attempt = await poll(broker, minted, project_id="connect-sandbox-10427")

    assert (session.status, session.linked_account_id, attempt) == (Status.LINKED, account_id, "authenticated")
    row = await broker.row(connect_sessions)
    assert (row["status"], row["linked_account_id"], row["resolved_at"]) == (
        "linked",
        account_id,
        broker.clock.now(),
    )
    event = await broker.row(account_events)
    assert (event["account_id"], event["source"], event["actor"]) == (
        account_id,
        "confirm",
        "user:ann@https://login.example.test",
    )

    # Whoever asks again is told again: what was linked by a webhook first was authenticated all the same.
    again, attempt = await poll(broker, minted)
    assert (again.status, again.was_new, attempt) == (Status.LINKED, True, "authenticated")


async def test_stackones_word_counts_where_the_feed_has_no_news(broker: Broker) -> None:
    """The account was known long before, so that nothing but the attempt says that this session is about it."""
    account_id = await broker.linked("salesforce")
    broker.clock.advance(60)
    minted = await broker.mint()
    broker.project.attempts.finish(begin(broker, minted), account_id)
    session, _ = await poll(broker, minted)

    assert (session.status, session.linked_account_id, session.was_new) == (Status.LINKED, account_id, False)


async def test_stackones_word_corrects_what_was_matched(broker: Broker) -> None:
    minted = await broker.mint()
    account_id = broker.link("salesforce")
    broker.project.attempts.finish(begin(broker, minted), account_id)
    await broker.change(connect_sessions, {"id": minted.id}, status=Status.LINKED, linked_account_id="another")
    session, _ = await poll(broker, minted)

    assert (session.status, session.linked_account_id) == (Status.LINKED, account_id)


async def test_an_attempt_that_failed_says_why_until_another_one_succeeds(broker: Broker) -> None:
    minted = await broker.mint()
    broker.project.attempts.fail(begin(broker, minted), "access_denied\x1b[31m", "The user\r\nsaid no" + "!" * 900)
    session, attempt = await poll(broker, minted)

    assert (session.status, attempt, session.oauth_error_code) == (Status.FAILED, "error", "access_denied [31m")
    assert session.oauth_error_description == ("The user said no" + "!" * 900)[:500]
    row = await broker.row(connect_sessions)
    # It may be tried again, so it stays open and counts.
    assert (row["status"], row["oauth_error_code"]) == ("pending", "access_denied [31m")

    account_id = broker.link("salesforce")
    broker.project.attempts.finish(begin(broker, minted), account_id)
    session, attempt = await poll(broker, minted)
    assert (session.status, attempt, session.linked_account_id) == (Status.LINKED, "authenticated", account_id)


async def test_an_attempt_that_begins_anew_is_no_failure(broker: Broker) -> None:
    minted = await broker.mint()
    broker.project.attempts.fail(begin(broker, minted), "access_denied", "no")
    await poll(broker, minted)
    begin(broker, minted)
    session, attempt = await poll(broker, minted)

    assert (session.status, attempt, session.oauth_error_code) == (Status.PENDING, "pending", None)


async def test_an_account_that_came_from_another_owner_is_reported(broker: Broker) -> None:
    account_id = await broker.linked(owner="globex")
    broker.project.accounts.change(account_id, {"origin_owner_id": "acme"})
    minted = await broker.mint()
    broker.project.attempts.finish(begin(broker, minted), account_id)
    session, _ = await poll(broker, minted)

    assert (session.status, session.linked_account_id) == (Status.LINKED, account_id)
    assert broker.runtime.metrics.registry.get_sample_value("broker_account_owner_changes_total") == 1


@pytest.mark.parametrize("owner", ["globex", None], ids=["moved", "deleted"])
async def test_an_account_that_is_not_the_callers_any_more_is_not_shown(broker: Broker, owner: str | None) -> None:
    minted = await broker.mint()
    account_id = broker.link(owner=owner or "acme")
    broker.project.attempts.finish(begin(broker, minted), account_id)
    if owner is None:
        broker.project.accounts.delete(account_id)
    session, attempt = await poll(broker, minted)

    assert (session.status, session.linked_account_id, attempt) == (Status.PENDING, None, "authenticated")


@pytest.mark.parametrize(("project_id", "status"), [("ours", "pending"), ("theirs", "linked"), (None, "linked")])
async def test_an_account_of_another_project_is_not_confirmed(
    broker: Broker, project_id: str | None, status: str
) -> None:
    minted = await broker.mint()
    account_id = broker.link()
    broker.project.attempts.finish(begin(broker, minted), account_id)
    answer = {**account_v1(broker.project.accounts.get(account_id)), "project_id": "theirs"}
    broker.project.faults.add({"method": "GET", "path": f"/accounts/{account_id}", "body": answer})
    session, _ = await poll(broker, minted, project_id=project_id)

    assert session.status.value == status


async def test_a_session_that_ended_asks_nothing(broker: Broker) -> None:
    minted = await broker.mint()
    broker.clock.advance(1800)
    before = len(broker.calls())
    session, attempt = await poll(broker, minted, token="anything")

    assert (session.status, attempt) == (Status.EXPIRED, None)
    assert len(broker.calls()) == before


async def test_only_the_sessions_own_token_is_of_use(broker: Broker) -> None:
    minted = await broker.mint()
    of_a_colleague = await broker.mint()
    of_another_owner = await broker.mint(replace(ACME, owner_id="globex"))
    for token in (
        of_a_colleague.token.get_secret_value(),
        of_another_owner.token.get_secret_value(),
        "made-up",
    ):
        with pytest.raises(Unprocessable) as refusal:
            await poll(broker, minted, token=token)
        assert refusal.value.errors == (FieldError("body.token", "not the token of this session, or it has expired"),)


async def test_the_owner_must_be_the_same_at_stackone(broker: Broker) -> None:
    """An id alone is not enough: whoever minted the session upstream under the same id, it is not this owner's."""
    minted = await broker.mint()
    foreign = await broker.mint(replace(ACME, owner_id="globex"))
    upstream = broker.project.sessions.open(foreign.token.get_secret_value())
    async with broker.runtime.database.transaction() as connection:
        statement = connect_sessions.update().where(connect_sessions.c.id == minted.id)
        await connection.execute(statement.values(upstream_id=str(upstream.id)))
    with pytest.raises(Unprocessable):
        await poll(broker, minted, token=foreign.token.get_secret_value())


async def test_a_session_whose_minting_was_cut_short_has_no_token(broker: Broker) -> None:
    minted = await broker.mint()
    async with broker.runtime.database.transaction() as connection:
        await connection.execute(connect_sessions.update().values(upstream_id=None))
    with pytest.raises(Unprocessable):
        await poll(broker, minted)


async def test_a_strangers_session_is_not_there(broker: Broker) -> None:
    minted = await broker.mint()
    before = len(broker.calls())
    for user in (replace(ANN, owner_id="globex"), replace(ANN, owner_id="")):
        with pytest.raises(NotFound):
            await poll(broker, minted, user=user)
    with pytest.raises(NotFound):
        await poll(broker, replace(minted, id="cs_unknown"))

    assert len(broker.calls()) == before


async def test_stackone_away_is_no_verdict_on_the_token(broker: Broker) -> None:
    minted = await broker.mint()
    broker.project.faults.add({"path": "/connect_sessions/authenticate", "status": 503})
    with pytest.raises(Unavailable):
        await poll(broker, minted)
