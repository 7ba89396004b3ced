"""/livez: the process runs. /readyz: it can serve. Only the second looks at anything."""

from typing import Self

import structlog
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from app.http.callers import RuntimeDep
from app.http.problems import documented
from app.http.readiness import Readiness, Standing, check_readiness

logger = structlog.get_logger(__name__)

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """What works; each value is "ok" or says what to do."""

    status: str = Field(json_schema_extra={"enum": [standing.value for standing in Standing]})
    checks: dict[str, str] = {}

    @classmethod
    def of(cls, readiness: Readiness) -> Self:
        """Show what was found."""
        return cls(status=readiness.standing.value, checks=dict(readiness.checks))


# Load balancers ask with HEAD as well. It is no operation of its own in the document.
@router.head("/livez", include_in_schema=False)
@router.get(
    "/livez",
    operation_id="getLiveness",
    summary="Whether the process runs; looks at nothing else",
    responses=documented(),
)
async def livez() -> Health:
    return Health(status=Standing.OK.value)


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Whether the broker can serve",
    responses={503: {"model": Health}, **documented()},
)
async def readyz(runtime: RuntimeDep, response: Response) -> Health:
    readiness = await check_readiness(runtime)
    if not readiness.is_ready:
        logger.warning("not_ready", status=503, route="/readyz", detail=readiness.reason, remedy=readiness.remedy)
    response.status_code = 200 if readiness.is_ready else 503
    return Health.of(readiness)
