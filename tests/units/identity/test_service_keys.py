"""The life of a service key, on both kinds of database."""

import asyncio
import hmac
import secrets
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NoReturn

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from structlog.testing import capture_logs

from app.db.database import Database
from app.errors import Conflict, NotFound, Unauthenticated, Unavailable, Unprocessable
from app.identity.authenticate import Credentials, open_authenticator
from app.identity.caller import CredentialKind, Scope
from app.identity.service_keys import keys as api_keys
from app.identity.service_keys.authenticate import ServiceKeys
from app.identity.service_keys.keys import CreatedKey
from app.identity.service_keys.tables import service_keys
from app.settings import HttpSettings, IdentitySettings, ServiceKeySettings
from tests.support.tokens import Issuer, StoppedClock

pytestmark = pytest.mark.anyio

PEPPER, OLD_PEPPER = b"the present pepper", b"the previous pepper"


async def make(database: Database, clock: StoppedClock, **changes: Any) -> CreatedKey:
    wanted: dict[str, Any] = {
        "name": "billing",
        "scopes": [Scope.ACCOUNTS_READ],
        "owner_ids": None,
        "expires_at": None,
        "now": clock.now(),
        "pepper": PEPPER,
        "token_bytes": secrets.token_bytes,
        **changes,
    }
    async with database.transaction() as connection:
        return await api_keys.create_key(connection, **wanted)


async def rotate(database: Database, key_id: str, clock: StoppedClock, overlap: timedelta) -> CreatedKey:
    async with database.transaction() as connection:
        return await api_keys.rotate_key(
            connection,
            key_id,
            overlap_until=clock.now() + overlap,
            now=clock.now(),
            pepper=PEPPER,
            token_bytes=secrets.token_bytes,
        )


async def stored(database: Database, key_id: str) -> api_keys.StoredKey:
    async with database.reading() as connection:
        key = await api_keys.find_key(connection, key_id)
    assert key is not None
    return key


class ReadOnlyDatabase(Database):
    """A database that lets itself be read and refuses every write; `tries` counts these."""

    tries = 0

    def transaction(self) -> NoReturn:
        """Refuse."""
        self.tries += 1
        raise Unavailable


class AwayDatabase(Database):
    """A database that cannot be reached."""

    def fetch(self, *_arguments: object) -> NoReturn:
        """Refuse."""
        raise Unavailable


@pytest.fixture
def keys(identity_database: Database, clock: StoppedClock) -> ServiceKeys:
    return ServiceKeys(identity_database, [PEPPER, OLD_PEPPER], clock)


async def test_a_key_is_accepted_as_what_it_was_made_for(
    keys: ServiceKeys, identity_database: Database, clock: StoppedClock
) -> None:
    created = await make(
        identity_database, clock, scopes={Scope.SYNC_WRITE, Scope.ACCOUNTS_READ}, owner_ids=["globex", "acme"]
    )

    service = await keys.authenticate(created.key)

    assert (service.credential_id, service.name, service.kind) == (created.key_id, "billing", CredentialKind.KEY)
    assert service.scopes == {Scope.SYNC_WRITE, Scope.ACCOUNTS_READ}
    assert service.owner_ids == frozenset({"acme", "globex"})
    assert created.key.startswith(f"sk_{created.key_id}_")


async def test_no_owner_list_means_every_owner(
    keys: ServiceKeys, identity_database: Database, clock: StoppedClock
) -> None:
    assert (await keys.authenticate((await make(identity_database, clock)).key)).owner_ids is None


async def test_the_database_never_holds_the_key(identity_database: Database, clock: StoppedClock) -> None:
    created = await make(identity_database, clock)
    secret = created.key.rpartition(created.key_id + "_")[2]
    async with identity_database.reading() as connection:
        (row,) = (await connection.execute(sa.select(service_keys))).all()

    assert secret not in repr(row)
    assert secret.encode() not in bytes(row.secret_hash)
    assert secret not in repr(created)
    assert "secret_hash" not in repr(await stored(identity_database, created.key_id))


async def test_the_hash_depends_on_the_pepper_and_on_all_of_the_key() -> None:
    hashes = {
        api_keys.hash_key("sk_a_b", PEPPER),
        api_keys.hash_key("sk_a_b", OLD_PEPPER),
        api_keys.hash_key("sk_c_b", PEPPER),
        api_keys.hash_key("sk_a_c", PEPPER),
    }
    assert len(hashes) == 4
    assert {len(value) for value in hashes} == {32}


def _swap_last(text: str) -> str:
    return text[:-1] + ("A" if text[-1] != "A" else "B")


WRONG: dict[str, Any] = {
    "secret-off-by-one": lambda key, _id: _swap_last(key),
    "other-id": lambda key, key_id: key.replace(key_id, "a" * 16),
    "other-id-one-letter": lambda key, key_id: key.replace(key_id, key_id[:-1] + ("a" if key_id[-1] != "a" else "b")),
    "zero-secret": lambda _key, key_id: f"sk_{key_id}_{'A' * 43}",
    "upper-case": lambda key, _id: key.upper(),
    "upper-case-id": lambda key, key_id: key.replace(key_id, key_id.upper()),
    "lower-case-secret": lambda key, _id: key.lower() + "",
    "no-secret": lambda _key, key_id: f"sk_{key_id}_",
    "no-prefix": lambda key, _id: key[3:],
    "other-prefix": lambda key, _id: "pk" + key[2:],
    "short": lambda key, _id: key[:-1],
    "long": lambda key, _id: key + "A",
    "padded": lambda key, _id: key + "=",
    "trailing-newline": lambda key, _id: key + "\n",
    "leading-blank": lambda key, _id: " " + key,
    "nul": lambda key, _id: key[:-1] + "\x00",
    "like-pattern": lambda key, key_id: key.replace(key_id, "%" * 16),
    "sql": lambda key, key_id: key.replace(key_id, "' OR 1=1 --aaaaa"),
    "full-width-digits": lambda key, key_id: key.replace(key_id, "\uff12" * 16),
    "surrogate": lambda key, _id: key[:-1] + "\ud800",
    "empty": lambda _key, _id: "",
    "only-prefix": lambda _key, _id: "sk_",
    "megabyte": lambda key, _id: key + "A" * 1_000_000,
}
_WELL_FORMED = {"secret-off-by-one", "zero-secret", "other-id", "other-id-one-letter", "lower-case-secret"}
MALFORMED = WRONG.keys() - _WELL_FORMED


def _reason(name: str) -> str:
    return "an unknown service key" if name not in MALFORMED else "a malformed service key"


async def test_a_wrong_key_is_refused(keys: ServiceKeys, identity_database: Database, clock: StoppedClock) -> None:
    created = await make(identity_database, clock)
    for name, change in WRONG.items():
        presented = change(created.key, created.key_id)
        assert presented != created.key, name

        with pytest.raises(Unauthenticated) as refusal:
            await keys.authenticate(presented)

        assert refusal.value.challenge_error == "invalid_token", name
        # For the log alone, and without anything of what was sent.
        assert refusal.value.reason == _reason(name), name
    assert (await stored(identity_database, created.key_id)).last_used_at is None


@pytest.mark.parametrize("name", sorted(MALFORMED))
async def test_a_malformed_key_is_refused_before_any_query(
    name: str, unused_database: Database, clock: StoppedClock
) -> None:
    key_id = "abcdefgh234567ij"

    with pytest.raises(Unauthenticated):
        await ServiceKeys(unused_database, [PEPPER], clock).authenticate(
            WRONG[name](f"sk_{key_id}_{'x' * 42}E", key_id)
        )


@settings(max_examples=60, deadline=None)
@given(text=st.text() | st.text(alphabet=st.characters(codec=None)) | st.from_regex(r"sk_[a-z2-7]{15,17}_[\w-]{42,44}"))
def test_only_text_of_the_right_form_has_a_key_id(text: str) -> None:
    found = api_keys.key_id_of(text)
    assert found is None or (len(found) == 16 and text.isascii() and len(text) == 3 + 16 + 1 + 43)


async def test_an_unknown_id_costs_the_same_comparisons(
    keys: ServiceKeys, identity_database: Database, clock: StoppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await make(identity_database, clock)
    hashed: list[bytes] = []
    compared: list[bool] = []

    hash_of = hmac.digest

    def counting_hash(pepper: bytes, message: bytes, digest: str) -> bytes:
        hashed.append(pepper)
        return hash_of(pepper, message, digest)

    def counting_compare(left: bytes, right: bytes) -> bool:
        compared.append(len(left) == len(right))
        return secrets.compare_digest(left, right)

    monkeypatch.setattr("hmac.digest", counting_hash)
    monkeypatch.setattr("hmac.compare_digest", counting_compare)
    counts = []
    for presented in (created.key, _swap_last(created.key), created.key.replace(created.key_id, "a" * 16)):
        hashed.clear()
        compared.clear()
        with suppress(Unauthenticated):
            await keys.authenticate(presented)
        counts.append((hashed.copy(), compared.copy()))

    assert counts == [([PEPPER, OLD_PEPPER], [True, True])] * 3


async def test_an_expired_key_is_refused_from_that_moment_on(
    keys: ServiceKeys, identity_database: Database, clock: StoppedClock
) -> None:
    created = await make(identity_database, clock, expires_at=clock.now() + timedelta(days=1))
    clock.advance(86_399)
    await keys.authenticate(created.key)
    clock.advance(1)

    with pytest.raises(Unauthenticated) as refusal:
        await keys.authenticate(created.key)
    assert refusal.value.reason == "a revoked or expired service key"


async def test_a_revoked_key_is_refused_at_once(
    keys: ServiceKeys, identity_database: Database, clock: StoppedClock
) -> None:
    created, other = await make(identity_database, clock), await make(identity_database, clock)
    await keys.authenticate(created.key)
    async with identity_database.transaction() as connection:
        assert await api_keys.revoke_key(connection, created.key_id, clock.now())
    clock.advance(5)
    async with identity_database.transaction() as connection:
        assert not await api_keys.revoke_key(connection, created.key_id, clock.now())
        assert not await api_keys.revoke_key(connection, "a" * 16, clock.now())

    with pytest.raises(Unauthenticated):
        await keys.authenticate(created.key)
    await keys.authenticate(other.key)
    assert (await stored(identity_database, created.key_id)).revoked_at == clock.now() - timedelta(seconds=5)


async def test_rotation_with_an_overlap(keys: ServiceKeys, identity_database: Database, clock: StoppedClock) -> None:
    lives = timedelta(days=90)
    old = await make(
        identity_database, clock, scopes=[Scope.SYNC_WRITE], owner_ids=["acme"], expires_at=clock.now() + lives
    )
    clock.advance(3600)

    new = await rotate(identity_database, old.key_id, clock, timedelta(hours=1))

    assert new.expires_at == clock.now() + lives
    before, after = await keys.authenticate(old.key), await keys.authenticate(new.key)
    assert (after.name, after.scopes, after.owner_ids) == (before.name, before.scopes, before.owner_ids)
    assert (await stored(identity_database, old.key_id)).rotated_to == new.key_id
    clock.advance(3600)
    with pytest.raises(Unauthenticated):
        await keys.authenticate(old.key)
    await keys.authenticate(new.key)


async def test_rotation_never_lengthens_the_old_keys_life(identity_database: Database, clock: StoppedClock) -> None:
    ends = clock.now() + timedelta(hours=1)
    old = await make(identity_database, clock, expires_at=ends)

    await rotate(identity_database, old.key_id, clock, timedelta(days=365))

    assert (await stored(identity_database, old.key_id)).expires_at == ends


async def test_a_key_without_end_has_a_successor_without_end(identity_database: Database, clock: StoppedClock) -> None:
    old = await make(identity_database, clock)

    new = await rotate(identity_database, old.key_id, clock, timedelta())

    assert new.expires_at is None
    assert (await stored(identity_database, old.key_id)).expires_at == clock.now()


async def test_only_a_living_key_is_rotated_and_only_once(identity_database: Database, clock: StoppedClock) -> None:
    revoked, rotated = await make(identity_database, clock), await make(identity_database, clock)
    expired = await make(identity_database, clock, expires_at=clock.now() + timedelta(seconds=1))
    async with identity_database.transaction() as connection:
        await api_keys.revoke_key(connection, revoked.key_id, clock.now())
    await rotate(identity_database, rotated.key_id, clock, timedelta(days=1))
    clock.advance(1)

    for key in (revoked, rotated, expired):
        with pytest.raises(Conflict, match=r"^the key is revoked, expired or already rotated$"):
            await rotate(identity_database, key.key_id, clock, timedelta(days=1))
    with pytest.raises(NotFound, match=r"^no such key$"):
        await rotate(identity_database, "a" * 16, clock, timedelta(days=1))
    async with identity_database.reading() as connection:
        assert len(await api_keys.list_keys(connection)) == 4


async def test_two_rotations_at_once_make_one_successor(identity_database: Database, clock: StoppedClock) -> None:
    old = await make(identity_database, clock)

    outcomes = await asyncio.gather(
        *(rotate(identity_database, old.key_id, clock, timedelta(days=1)) for _ in range(5)), return_exceptions=True
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict"] * 4 + ["CreatedKey"]
    async with identity_database.reading() as connection:
        assert len(await api_keys.list_keys(connection)) == 2


async def test_a_key_made_under_the_previous_pepper_still_counts(
    keys: ServiceKeys, identity_database: Database, clock: StoppedClock
) -> None:
    created = await make(identity_database, clock, pepper=OLD_PEPPER)
    await keys.authenticate(created.key)

    with pytest.raises(Unauthenticated):
        await ServiceKeys(identity_database, [PEPPER], clock).authenticate(created.key)


async def test_every_configured_pepper_is_known(
    identity_database: Database, clock: StoppedClock, issuer: Issuer
) -> None:
    peppers = ServiceKeySettings(pepper=SecretStr(PEPPER.decode()), previous_peppers=(SecretStr(OLD_PEPPER.decode()),))
    made = [await make(identity_database, clock, pepper=pepper) for pepper in (PEPPER, OLD_PEPPER, b"never configured")]
    identity = IdentitySettings(issuers=(issuer.settings(),))
    async with open_authenticator(
        identity, peppers, HttpSettings(), database=identity_database, clock=clock
    ) as authenticator:
        for created in made[:2]:
            service = await authenticator.service(Credentials([f"Bearer {created.key}"], [], None, None, None))
            assert service.credential_id == created.key_id
        with pytest.raises(Unauthenticated):
            await authenticator.service(Credentials([f"Bearer {made[2].key}"], [], None, None, None))


async def test_use_is_noted_at_most_once_a_minute(
    keys: ServiceKeys, identity_database: Database, clock: StoppedClock
) -> None:
    created = await make(identity_database, clock)
    seen: list[datetime | None] = []
    for _ in range(5):
        await keys.authenticate(created.key)
        seen.append((await stored(identity_database, created.key_id)).last_used_at)
        clock.advance(20)

    start = clock.now() - timedelta(seconds=100)
    assert seen == [start, start, start, *[start + timedelta(seconds=60)] * 2]


async def test_a_failure_to_note_the_use_turns_nobody_away(identity_database: Database, clock: StoppedClock) -> None:
    created = await make(identity_database, clock)
    database = ReadOnlyDatabase(identity_database.engine)
    keys = ServiceKeys(database, [PEPPER], clock)
    with capture_logs() as logs:
        for _ in range(3):
            assert (await keys.authenticate(created.key)).credential_id == created.key_id

    assert database.tries == 1
    assert logs == [
        {
            "event": "service_key_use_not_noted",
            "log_level": "warning",
            "key_id": created.key_id,
            "error_type": "Unavailable",
        }
    ]


async def test_a_store_that_is_away_is_a_503_not_a_401(unused_database: Database, clock: StoppedClock) -> None:
    database = AwayDatabase(unused_database.engine)

    with pytest.raises(Unavailable):
        await ServiceKeys(database, [PEPPER], clock).authenticate(f"sk_{'a' * 16}_{'A' * 43}")


async def test_a_key_that_makes_no_sense_is_not_made(identity_database: Database, clock: StoppedClock) -> None:
    described = "a key needs a name, at least one scope, and owner ids of printable text"
    nobody = "an empty list of owners allows nothing; leave it out to allow every owner"
    over = "the expiry is not in the future"
    senseless: list[tuple[dict[str, Any], str]] = [
        ({"name": ""}, described),
        ({"name": "n" * 256}, described),
        ({"name": "a\x00b"}, described),
        ({"scopes": []}, described),
        ({"owner_ids": []}, nobody),
        ({"owner_ids": ["acme", ""]}, described),
        ({"owner_ids": ["acme\x00"]}, described),
        ({"owner_ids": ["a" * 256]}, described),
        ({"expires_at": clock.now()}, over),
        ({"expires_at": clock.now() - timedelta(days=1)}, over),
    ]
    for changes, what_is_wrong in senseless:
        with pytest.raises(Unprocessable) as refusal:
            await make(identity_database, clock, **changes)
        assert refusal.value.detail == what_is_wrong
    async with identity_database.reading() as connection:
        assert await api_keys.list_keys(connection) == []


def _beginning_with(first: int, count: int) -> bytes:
    return bytes([first, *range(count - 1)])


async def test_keys_are_listed_oldest_first(identity_database: Database, clock: StoppedClock) -> None:
    made = []
    # The later the key the smaller its id, but for the last, which is made in the same moment as the one before it.
    for name, first_byte, seconds in (("first", 200, 1), ("second", 100, 1), ("fourth", 90, 0), ("third", 50, 0)):
        key = await make(identity_database, clock, name=name, token_bytes=partial(_beginning_with, first_byte))
        made.append((key.key_id, name))
        clock.advance(seconds)
    async with identity_database.reading() as connection:
        listed = await api_keys.list_keys(connection)
        assert await api_keys.find_key(connection, "a" * 16) is None

    assert [key.name for key in listed] == ["first", "second", "third", "fourth"]
    assert {(key.key_id, key.name) for key in listed} == set(made)
    assert all(key.is_active(clock.now()) for key in listed)


async def test_a_scope_of_a_newer_version_is_left_out(
    keys: ServiceKeys, identity_database: Database, clock: StoppedClock
) -> None:
    created = await make(identity_database, clock)
    async with identity_database.transaction() as connection:
        await connection.execute(service_keys.update().values(scopes=["accounts:read", "moon:write"]))

    assert (await keys.authenticate(created.key)).scopes == {Scope.ACCOUNTS_READ}


async def test_ids_and_secrets_come_from_the_given_randomness(identity_database: Database, clock: StoppedClock) -> None:
    asked: list[int] = []

    def token_bytes(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    created = await make(identity_database, clock, token_bytes=token_bytes)

    assert asked == [10, 32]
    assert created.key == f"sk_{'a' * 16}_{'A' * 43}"
