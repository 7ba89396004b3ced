"""What the identity tests share: a stopped clock, one issuer and its web server, databases, and the authenticator."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.db.database import Database
from app.db.engine import open_engine
from app.identity.authenticate import Authenticator, open_authenticator
from app.identity.service_keys.tables import service_keys
from app.settings import DatabaseSettings, HttpSettings, IdentitySettings, ServiceKeySettings
from tests.support.databases import PostgresqlDatabases, SqliteDatabases
from tests.support.tokens import Issuer, IssuerServer, StoppedClock

MakeAuthenticator = Callable[..., AbstractAsyncContextManager[Authenticator]]


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def issuer(clock: StoppedClock) -> Issuer:
    return Issuer(clock)


@pytest.fixture
def server(issuer: Issuer) -> IssuerServer:
    return IssuerServer(issuer)


@pytest.fixture
def unused_database(tmp_path: Path) -> Iterator[Database]:
    """A database that no connection is ever made to: the first one would make the file."""
    file = tmp_path / "never.db"
    yield Database(open_engine(DatabaseSettings(url=SecretStr(f"sqlite:///{file}"))))
    assert not file.exists()


@pytest.fixture
def make_authenticator(
    clock: StoppedClock, issuer: Issuer, server: IssuerServer, unused_database: Database, service_key_settings: Any
) -> MakeAuthenticator:
    """Open an Authenticator that trusts `issuer`, or whom the call names instead."""

    def make_authenticator(
        *, allowed_origins: tuple[str, ...] = (), max_header_bytes: int = 16_384, **identity: Any
    ) -> Any:
        settings = IdentitySettings.model_validate({"issuers": [issuer.settings()], **identity})
        return open_authenticator(
            settings,
            service_key_settings,
            HttpSettings(allowed_origins=allowed_origins, max_header_bytes=max_header_bytes),
            database=unused_database,
            clock=clock,
            transport=server,
        )

    return make_authenticator


@pytest.fixture
async def authenticator(make_authenticator: MakeAuthenticator) -> AsyncIterator[Authenticator]:
    """An Authenticator that trusts `issuer` and has its keys already."""
    async with make_authenticator() as authenticator:
        await authenticator.warm()
        yield authenticator


@pytest.fixture
def service_key_settings() -> ServiceKeySettings:
    return ServiceKeySettings(pepper=SecretStr("a pepper of decent length"))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def identity_database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    databases: SqliteDatabases | PostgresqlDatabases = request.getfixturevalue(f"{request.param}_databases")
    url = databases.create()
    yield url
    databases.give_back(url)


@pytest.fixture
async def identity_database(identity_database_url: str) -> AsyncIterator[Database]:
    """A database with the newest schema and no keys, of each kind in turn."""
    database = Database(open_engine(DatabaseSettings(url=SecretStr(identity_database_url))))
    async with database.transaction() as connection:
        await connection.execute(service_keys.delete())
    yield database
    await database.close()
