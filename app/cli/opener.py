"""How a command opens the broker: settings, quiet logs that show no secret, and a Runtime or a Database."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.database import Database
from app.db.engine import open_engine
from app.logs import STANDARD_ERROR, configure_logs
from app.settings import Settings, load_database_settings, load_settings

if TYPE_CHECKING:
    from app.runtime import Runtime

Result = TypeVar("Result")


def with_runtime(verb: "Callable[[Runtime], Awaitable[Result]]") -> Result:
    """Run a verb on a Runtime of its own."""
    from app.runtime import open_runtime  # noqa: PLC0415  it imports all of the broker, and most commands need the store alone

    settings = load_settings()
    configure_logs("ERROR", configured_secrets(settings), stream=STANDARD_ERROR)

    async def run() -> Result:
        async with open_runtime(settings) as runtime:
            return await verb(runtime)

    return asyncio.run(run())


def with_database(verb: Callable[[Database], Awaitable[Result]]) -> Result:
    """Run a verb on the database alone; BROKER_DATABASE__URL is the only setting that it needs."""
    settings = load_database_settings()
    configure_logs("ERROR", stream=STANDARD_ERROR)

    async def run() -> Result:
        database = Database(open_engine(settings))
        try:
            return await verb(database)
        finally:
            await database.close()

    return asyncio.run(run())


def with_store(read: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
    """Put a question to the store, in a transaction of its own."""

    async def verb(database: Database) -> Result:
        async with database.reading() as connection:
            return await read(connection)

    return with_database(verb)


def configured_secrets(settings: Settings) -> list[str]:
    """List every secret of the settings, so that logs can leave them out wherever they turn up."""
    found = [
        settings.stackone.api_key,
        *settings.stackone.webhook_secrets,
        settings.service_keys.pepper,
        *settings.service_keys.previous_peppers,
        *(
            secret
            for issuer in (*settings.identity.issuers, *settings.identity.machine_issuers)
            for secret in issuer.shared_secrets
        ),
        *(secret for destination in settings.push.destinations for secret in destination.signing_secrets),
        *settings.invitations.secrets,
        *settings.user_tokens.secrets,
    ]
    found.extend(settings.traces.headers.values())
    found.extend([settings.tls.proxy] if settings.tls.proxy else [])
    storage_password = urlsplit(settings.limits.storage_url.get_secret_value()).password
    return [*(secret.get_secret_value() for secret in found), *([storage_password] if storage_password else [])]
