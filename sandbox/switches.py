"""The /_sandbox switches that every external has: the key in front of them, faults, and what was received."""

import hmac
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import JSONResponse

from sandbox.errors import ApiError
from sandbox.faults import Fault, Faults
from sandbox.recording import KEPT_REQUESTS, RequestLog

After = Annotated[int, Query(ge=0)]
Limit = Annotated[int, Query(ge=1, le=KEPT_REQUESTS)]


def switch_router(sandbox_key: str, faults: Faults, log: RequestLog) -> APIRouter:
    """Return a router under /_sandbox that asks for `x-sandbox-key`, with the switches for faults and requests."""

    async def require_key(x_sandbox_key: Annotated[str | None, Header()] = None) -> None:
        if not hmac.compare_digest((x_sandbox_key or "").encode(), sandbox_key.encode()):
            raise ApiError(401, "The switches need the header x-sandbox-key")

    router = APIRouter(prefix="/_sandbox", dependencies=[Depends(require_key)])

    @router.post("/faults")
    async def add_fault(fault: Fault) -> JSONResponse:
        return JSONResponse(faults.add(fault).to_json(), 201)

    @router.get("/faults")
    async def list_faults(after: After = 0, limit: Limit = KEPT_REQUESTS) -> JSONResponse:
        return JSONResponse([waiting.to_json() for waiting in faults.waiting if waiting.id > after][:limit])

    @router.delete("/faults")
    async def clear_faults() -> JSONResponse:
        faults.clear()
        return JSONResponse({})

    @router.get("/requests")
    async def list_requests(
        after: After = 0, limit: Limit = KEPT_REQUESTS, path: str = "", method: str = ""
    ) -> JSONResponse:
        wanted = [
            entry.to_json()
            for entry in log.entries.after(after, KEPT_REQUESTS)
            if entry.path.startswith(path) and method.upper() in ("", entry.method)
        ]
        return JSONResponse(wanted[:limit])

    @router.delete("/requests")
    async def forget_requests() -> JSONResponse:
        log.entries.clear()
        return JSONResponse({})

    return router
