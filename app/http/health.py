"""/livez: the process runs. /readyz: it can serve. Only the second looks at anything."""

from typing import Self

from fastapi import APIRouter, Response
from pydantic import BaseModel

from app.http.callers import RuntimeDep
from app.http.readiness import Readiness, check_readiness

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """What works; each value is "ok" or says what to do."""

    status: str
    checks: dict[str, str] = {}

    @classmethod
    def of(cls, readiness: Readiness) -> Self:
        """Show what was found."""
        return cls(status=readiness.status, checks=dict(readiness.checks))


@router.get("/livez", summary="Whether the process runs; looks at nothing else")
async def livez() -> Health:  # noqa: D103
    return Health(status="ok")


@router.get("/readyz", summary="Whether the broker can serve", responses={503: {"model": Health}})
async def readyz(runtime: RuntimeDep, response: Response) -> Health:  # noqa: D103
    readiness = await check_readiness(runtime)
    response.status_code = 200 if readiness.is_ready else 503
    return Health.of(readiness)
