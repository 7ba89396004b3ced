"""The ledger: each session ends as linked or expired, by whichever news comes first, and is forgotten in time."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.connect_sessions.tables import connect_sessions
from app.jobs import apply_retention, keep_house
from app.linked_accounts.tables import account_events
from app.sync.sweep import run_sweep
from tests.support.databases import stored_rows
from tests.support.waiting import eventually
from tests.support.world import World, open_world

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

QUIET = {"enabled": False}


@pytest.fixture
async def quiet(database_url: str) -> Any:
    """Open a world in which nothing runs by itself and no webhook arrives."""
    async with open_world(database_url, webhooks=False, sync=QUIET) as world:
        yield world


async def opened(world: World, user: str = "alice", **body: Any) -> dict[str, Any]:
    answer = await world.mint(user, body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def standing(world: World, session: dict[str, Any], user: str = "alice") -> tuple[str, str | None]:
    answer = await world.broker.get(f"/v1/connect-sessions/{session['id']}", headers=world.as_user(user))
    assert answer.status_code == 200, answer.text
    return answer.json()["status"], answer.json()["account_id"]


async def ledger(world: World) -> dict[str, tuple[str, str | None]]:
    """Return the ledger as it stands on disk, without resolving anything."""
    async with world.runtime.database.reading() as connection:
        rows = await stored_rows(connection, connect_sessions)
    return {row["id"]: (row["status"], row["linked_account_id"]) for row in rows}


async def hub(world: World, session: dict[str, Any], method: str, path: str, body: Any = None) -> Any:
    """Call StackOne as the Hub does."""
    answer = await world.stackone.request(
        method, f"/hub{path}", json=body, headers={"x-hub-session-token": session["token"]}
    )
    assert answer.is_success, answer.text
    return answer.json()


async def submit(world: World, session: dict[str, Any]) -> str:
    """Fill in BambooHR's form."""
    offered = await hub(world, session, "GET", "/connectors?provider=bamboohr")
    integration = offered["integrations"][0]["integration_id"]
    form = await hub(world, session, "GET", f"/connectors/{integration}")
    fields = (
        form["config"].get("configFields")
        or next(iter(next(iter(form["config"]["authentication"].values())).values()))["fields"]
    )
    values = {field["key"]: (field.get("options") or [{"value": "acme"}])[0]["value"] for field in fields}
    body = {"integration_id": integration, "credentials": values}
    return str((await hub(world, session, "POST", "/accounts", body))["id"])


@pytest.mark.parametrize("news", ["webhook", "confirm", "sweep"])
async def test_a_session_is_linked_by_whichever_news_comes(database_url: str, news: str) -> None:
    async with open_world(database_url, webhooks=news == "webhook") as world:
        session = await opened(world, provider="bamboohr")
        other = await opened(world, "bob", provider="bamboohr")
        assert await standing(world, session) == ("pending", None)
        account_id = await submit(world, session)
        if news == "confirm":
            await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
        if news == "sweep":
            await run_sweep(world.runtime, by="test")

        async def linked() -> bool:
            return await standing(world, session) == ("linked", account_id)

        await eventually(linked, within=5)
        assert await standing(world, other, "bob") == ("pending", None)


async def test_a_session_that_nobody_polls_is_resolved_too(quiet: World) -> None:
    session = await opened(quiet, provider="bamboohr")
    account_id = await submit(quiet, session)
    await quiet.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=quiet.as_user("alice"))
    assert (await ledger(quiet))[session["id"]] == ("pending", None)
    assert await keep_house(quiet.runtime) == 0
    assert (await ledger(quiet))[session["id"]] == ("linked", account_id)


async def test_an_edit_session_is_linked_once_its_account_was_updated(quiet: World) -> None:
    first = await opened(quiet, provider="bamboohr")
    account_id = await submit(quiet, first)
    headers = quiet.as_user("alice")
    await quiet.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=headers)
    edit = await opened(quiet, account_id=account_id)
    assert edit["mode"] == "edit"
    assert await standing(quiet, edit) == ("pending", account_id)
    await quiet.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=headers)
    assert await standing(quiet, edit) == ("pending", account_id)
    # The same credentials again: nothing that can be seen changes but the time.
    await submit(quiet, edit)
    await quiet.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=headers)
    assert await standing(quiet, edit) == ("linked", account_id)


async def test_what_one_of_two_sessions_made_is_credited_to_neither(quiet: World) -> None:
    sessions = [await opened(quiet, provider="bamboohr", multiple=True) for _ in range(2)]
    account_id = await submit(quiet, sessions[0])
    await quiet.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=quiet.as_user("alice"))
    # Either may have made it, so it is credited to neither until StackOne or a backend says more.
    assert [await standing(quiet, session) for session in sessions] == [("pending", None), ("pending", None)]
    path = f"/v1/owners/org_acme/connect-sessions/{sessions[1]['id']}"
    ended = await quiet.broker.delete(path, headers=quiet.as_service())
    assert (ended.status_code, ended.json()["status"], ended.json()["opens_until"]) == (
        200,
        "ended",
        sessions[1]["expires_at"],
    )
    assert [await standing(quiet, session) for session in sessions] == [("linked", account_id), ("ended", None)]


async def test_a_session_expires_and_is_forgotten(quiet: World) -> None:
    session = await opened(quiet, provider="bamboohr")

    async def age(**span: float) -> None:
        async with quiet.runtime.database.transaction() as connection:
            [row] = await stored_rows(connection, connect_sessions)
            ends = {name: row[name] - timedelta(**span) for name in ("created_at", "expires_at")}
            await connection.execute(sa.update(connect_sessions).values(**ends))

    await age(minutes=31)
    assert await standing(quiet, session) == ("expired", None)
    await keep_house(quiet.runtime)
    # Within the grace it may still turn out to be linked.
    assert (await ledger(quiet))[session["id"]] == ("pending", None)
    await age(minutes=10)
    await keep_house(quiet.runtime)
    assert (await ledger(quiet))[session["id"]] == ("expired", None)
    await age(days=91)
    await apply_retention(quiet.runtime)
    assert await ledger(quiet) == {}


async def test_old_hints_are_forgotten_and_changes_kept(quiet: World) -> None:
    old = quiet.clock.now() - timedelta(days=400)
    row = {"account_id": "a", "source": "webhook", "actor": "stackone", "at": old}
    async with quiet.runtime.database.transaction() as connection:
        await connection.execute(sa.insert(account_events).values(kind="hint", **row))
        await connection.execute(sa.insert(account_events).values(kind="account.linked", position=1, **row))
    await apply_retention(quiet.runtime)
    async with quiet.runtime.database.reading() as connection:
        kinds = (await connection.execute(sa.select(account_events.c.kind))).scalars().all()
    assert kinds == ["account.linked"]


async def poll(world: World, session: dict[str, Any], token: str, user: str = "alice") -> Any:
    return await world.broker.post(
        f"/v1/connect-sessions/{session['id']}/poll", headers=world.as_user(user), json={"token": token}
    )


async def test_the_poll_names_the_account_that_oauth_linked(quiet: World) -> None:
    session = await opened(quiet, provider="salesforce")
    first = await poll(quiet, session, session["token"])
    assert (first.status_code, first.json()["status"], first.json()["attempt"]) == (200, "pending", None)
    await hub(quiet, session, "POST", "/connection_attempts", {"token": session["token"]})
    assert (await poll(quiet, session, session["token"])).json()["attempt"] == "pending"
    account_id = await quiet.link("alice", provider="salesforce")
    [attempt] = quiet.project.attempts._by_id.values()  # noqa: SLF001  as if the popup had come back
    attempt.status, attempt.account_id = "authenticated", account_id
    done = (await poll(quiet, session, session["token"])).json()
    assert (done["status"], done["account_id"], done["attempt"]) == ("linked", account_id, "authenticated")
    shown = await quiet.broker.get(f"/v1/linked-accounts/{account_id}", headers=quiet.as_user("alice"))
    assert shown.status_code == 200


async def test_only_the_sessions_own_token_is_of_use(quiet: World) -> None:
    mine, other, bobs = [await opened(quiet, user, provider="bamboohr") for user in ("alice", "carol", "bob")]
    for token in (other["token"], bobs["token"], "made-up", mine["token"] + "x"):
        answer = await poll(quiet, mine, token)
        assert answer.status_code == 422
        assert token not in answer.text
    assert (await poll(quiet, mine, mine["token"], "bob")).status_code == 404
    assert (await poll(quiet, mine, mine["token"])).status_code == 200
