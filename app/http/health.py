"""/livez: the process runs. /readyz: it can serve. Only the second looks at anything."""

import asyncio

from fastapi import APIRouter, Response
from pydantic import BaseModel

from app.db.schema_version import known_revisions, stored_schema
from app.errors import AppError
from app.http.callers import RuntimeDep

router = APIRouter(tags=["health"])
_DEADLINE_SECONDS = 3.0


class Health(BaseModel):
    """What works; each value is "ok" or says what to do."""

    status: str
    checks: dict[str, str] = {}


@router.get("/livez", summary="Whether the process runs; looks at nothing else")
async def livez() -> Health:  # noqa: D103
    return Health(status="ok")


@router.get("/readyz", summary="Whether the broker can serve", responses={503: {"model": Health}})
async def readyz(runtime: RuntimeDep, response: Response) -> Health:  # noqa: D103
    checks = {"database": "ok", "schema": "ok", "identity": "ok"}
    fit = None
    try:
        async with asyncio.timeout(_DEADLINE_SECONDS), runtime.database.reading() as connection:
            fit = (await connection.run_sync(stored_schema)).fit(known_revisions())
        checks["schema"] = fit.value
    except (AppError, TimeoutError):
        checks["database"] = "cannot be reached"
        checks["schema"] = "unknown"
    issuers = runtime.authenticator.issuers_status()
    # Not a reason to be taken out of rotation: the webhook and the service routes work without any issuer, and keys are
    # fetched when the first token comes.
    if issuers and not any(issuer.has_keys for issuer in issuers):
        checks["identity"] = "no issuer has given its keys yet; they are fetched at the next sign-in"
    ready = fit is not None and fit.serves
    response.status_code = 200 if ready else 503
    return Health(status="ok" if ready else "unavailable", checks=checks)
