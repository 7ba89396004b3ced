"""The /_sandbox switches that every neighbour has: the key in front of them, faults, and what was received."""

import hmac
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import JSONResponse

from sandbox.bodies import read_object
from sandbox.errors import ApiError
from sandbox.faults import Faults
from sandbox.recording import KEPT_REQUESTS, RequestLog

After = Annotated[int, Query(ge=0)]
Limit = Annotated[int, Query(ge=1, le=KEPT_REQUESTS)]


def switch_router(sandbox_key: str) -> APIRouter:
    """Return a router under /_sandbox that asks for `x-sandbox-key`."""

    async def require_key(x_sandbox_key: Annotated[str | None, Header()] = None) -> None:
        if not hmac.compare_digest((x_sandbox_key or "").encode(), sandbox_key.encode()):
            raise ApiError(401, "The switches need the header x-sandbox-key")

    return APIRouter(prefix="/_sandbox", dependencies=[Depends(require_key)])


def add_fault_switches(router: APIRouter, faults: Faults) -> None:
    """Add POST, GET and DELETE /_sandbox/faults."""

    @router.post("/faults", status_code=201)
    async def add_fault(request: Request) -> JSONResponse:
        return JSONResponse(faults.add(await read_object(request)).to_json(), 201)

    @router.get("/faults")
    async def list_faults(after: After = 0, limit: Limit = KEPT_REQUESTS) -> JSONResponse:
        waiting = [fault.to_json() for fault in faults.waiting if fault.number > after]
        return JSONResponse(waiting[:limit])

    @router.delete("/faults")
    async def clear_faults() -> JSONResponse:
        faults.clear()
        return JSONResponse({})


def add_request_switches(router: APIRouter, log: RequestLog) -> None:
    """Add GET and DELETE /_sandbox/requests; page with the `n` of the last entry."""

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
