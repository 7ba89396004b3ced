"""broker service-keys ...: a service key's life from the command line, and when it counts."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from app.cli.main import cli
from app.db.database import Database
from app.db.engine import open_engine
from app.errors import Conflict, NotFound, Unauthenticated, Unprocessable
from app.identity.caller import Scope, Service
from app.identity.service_keys.authenticate import ServiceKeys
from app.settings import PREFIX, DatabaseSettings
from tests.support.databases import SqliteDatabases
from tests.support.tokens import Issuer, StoppedClock

PEPPER = "a pepper of decent length"
Present = Callable[[str, StoppedClock], Service]


@pytest.fixture
def present(sqlite_databases: SqliteDatabases, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Present]:
    """Have the command line use a database of this test; return a way to present a key, as the broker would see it."""
    url = sqlite_databases.create()
    variables = {
        "STACKONE__API_KEY": "an-api-key-of-decent-length",
        "STACKONE__WEBHOOK_SECRETS": '["a webhook secret of decent length"]',
        "IDENTITY__ISSUERS": json.dumps([issuer.settings().model_dump(mode="json", exclude_none=True)]),
        "SERVICE_KEYS__PEPPER": PEPPER,
        "DATABASE__URL": url,
    }
    for name, value in variables.items():
        monkeypatch.setenv(PREFIX + name, value)

    async def present(key: str, clock: StoppedClock) -> Service:
        database = Database(open_engine(DatabaseSettings(url=SecretStr(url))))
        try:
            return await ServiceKeys(database, [PEPPER.encode()], clock).authenticate(key)
        finally:
            await database.close()

    yield lambda key, clock: asyncio.run(present(key, clock))
    sqlite_databases.give_back(url)


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["service-keys", *words])


def made(*words: str) -> dict[str, Any]:
    answer = run(*words, "--json")
    assert answer.exit_code == 0, answer.output
    return dict(json.loads(answer.stdout))


def listed() -> dict[str, dict[str, Any]]:
    return {key["key_id"]: key for key in json.loads(run("list", "--json").stdout)}


def after(**span: float) -> StoppedClock:
    return StoppedClock(datetime.now(UTC) + timedelta(**span))


def test_a_key_is_made_used_rotated_with_an_overlap_and_revoked(present: Present) -> None:
    old = made("create", "--name", "billing", "--scope", "accounts:read", "--owner", "acme", "--expires", "30d")
    service = present(old["key"], after(seconds=1))
    assert (service.name, service.scopes, service.owner_ids) == (
        "billing",
        frozenset({Scope.ACCOUNTS_READ}),
        frozenset({"acme"}),
    )
    shown = listed()[old["key_id"]]
    assert (shown["scopes"], shown["owner_ids"], shown["active"]) == (["accounts:read"], ["acme"], True)
    assert shown["last_used_at"] is not None
    assert old["key"] not in run("list").output + run("list", "--json").output

    new = made("rotate", old["key_id"], "--overlap", "2h")
    assert listed()[old["key_id"]]["rotated_to"] == new["key_id"]
    for key in (old["key"], new["key"]):
        within = present(key, after(minutes=119))
        assert (within.scopes, within.owner_ids) == (service.scopes, service.owner_ids)
    with pytest.raises(Unauthenticated):
        present(old["key"], after(minutes=121))
    present(new["key"], after(minutes=121))

    assert run("revoke", new["key_id"]).exit_code == 0
    with pytest.raises(Unauthenticated):
        present(new["key"], after(seconds=1))
    assert [key["active"] for key in listed().values()] == [True, False]
    again = run("revoke", new["key_id"])
    assert (again.exit_code, "no active key has this id" in again.output) == (1, True)


def test_a_key_ends_after_its_life_or_never(present: Present) -> None:
    default = made("create", "--name", "a", "--all-scopes")
    short = made("create", "--name", "b", "--scope", "sync:write", "--scope", "events:read", "--expires", "30m")
    endless = made("create", "--name", "c", "--all-scopes", "--expires", "never")

    assert present(default["key"], after(days=89)).scopes == frozenset(Scope)
    assert present(short["key"], after(minutes=29)).scopes == {Scope.SYNC_WRITE, Scope.EVENTS_READ}
    assert present(endless["key"], after(days=4000)).owner_ids is None
    assert endless["expires_at"] is None
    for key, moment in ((default, after(days=91)), (short, after(minutes=31))):
        with pytest.raises(Unauthenticated):
            present(key["key"], moment)


def test_several_keys_of_one_name_are_active_at_once(present: Present) -> None:
    keys = [made("create", "--name", "billing", "--all-scopes") for _ in range(3)]

    assert {present(key["key"], after(seconds=1)).credential_id for key in keys} == {key["key_id"] for key in keys}


@pytest.mark.usefixtures("present")
@pytest.mark.parametrize(
    "words",
    [
        ("create", "--name", "a"),
        ("create", "--name", "a", "--scope", "moon:write"),
        ("create", "--name", "a", "--all-scopes", "--expires", "soon"),
        ("create", "--name", "a", "--all-scopes", "--expires", "-1d"),
        ("rotate", "a" * 16, "--overlap", "1w"),
        ("rotate", "a" * 16, "--overlap", "never"),
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_a_usage_mistake_and_makes_nothing(words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2
    assert listed() == {}


@pytest.mark.usefixtures("present")
def test_a_life_of_no_length_is_refused_and_not_taken_for_endless() -> None:
    assert isinstance(run("create", "--name", "a", "--all-scopes", "--expires", "0d").exception, Unprocessable)
    assert listed() == {}


def test_an_overlap_of_no_length_ends_the_old_key_at_once(present: Present) -> None:
    old = made("create", "--name", "a", "--all-scopes")
    new = made("rotate", old["key_id"], "--overlap", "0m")
    assert present(new["key"], after(seconds=1)).credential_id == new["key_id"]
    with pytest.raises(Unauthenticated):
        present(old["key"], after(seconds=1))


@pytest.mark.usefixtures("present")
def test_only_a_key_that_lives_is_rotated() -> None:
    key_id = made("create", "--name", "a", "--all-scopes")["key_id"]
    made("rotate", key_id)
    assert isinstance(run("rotate", key_id).exception, Conflict)
    assert isinstance(run("rotate", "a" * 16).exception, NotFound)
