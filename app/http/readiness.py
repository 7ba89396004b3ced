"""Whether the broker can serve: the database answers, and its schema fits this version."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from app.db.schema_version import known_revisions, stored_schema
from app.errors import AppError
from app.runtime import Runtime

_DEADLINE_SECONDS = 3.0
_OK = "ok"


@dataclass(frozen=True)
class Readiness:
    """What was found; each check is "ok" or says what to do."""

    is_ready: bool
    checks: Mapping[str, str]


async def check_readiness(runtime: Runtime) -> Readiness:
    """Look at everything that serving needs."""
    checks = {"identity": _identity(runtime)}
    try:
        async with asyncio.timeout(_DEADLINE_SECONDS), runtime.database.reading() as connection:
            fit = (await connection.run_sync(stored_schema)).fit(known_revisions())
    except (AppError, TimeoutError):
        return Readiness(is_ready=False, checks={"database": "cannot be reached", "schema": "unknown", **checks})
    return Readiness(fit.serves, {"database": _OK, "schema": fit.value, **checks})


def _identity(runtime: Runtime) -> str:
    issuers = runtime.authenticator.issuers_status()
    if issuers and not any(issuer.has_keys for issuer in issuers):
        # No reason to be taken out of rotation: the webhook and the service routes work without any issuer.
        return "no issuer has given its keys yet; they are fetched at the next sign-in"
    return _OK
