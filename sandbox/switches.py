"""The /_sandbox switches that every external has: the key in front of them, faults, and what was received."""

import hmac
from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import JSONResponse

from sandbox.errors import ApiError
from sandbox.faults import Fault, Faults
from sandbox.recording import KEPT_REQUESTS, RequestLog

After = Annotated[int, Query(ge=0)]
Limit = Annotated[int, Query(ge=1, le=KEPT_REQUESTS)]


class External(Protocol):
    """A service of others, as the sandbox plays it, that has switches; an app's `state.external`."""

    @property
    def sandbox_key(self) -> str:
        """What the header `x-sandbox-key` must hold."""

    @property
    def faults(self) -> Faults:
        """The faults that wait for a request."""

    @property
    def requests(self) -> RequestLog:
        """What was received."""


async def _external(request: Request) -> External:
    external: External = request.app.state.external
    return external


_TheExternal = Annotated[External, Depends(_external)]


async def _require_key(external: _TheExternal, x_sandbox_key: Annotated[str | None, Header()] = None) -> None:
    if not hmac.compare_digest((x_sandbox_key or "").encode(), external.sandbox_key.encode()):
        raise ApiError(401, "The switches need the header x-sandbox-key")


def switch_router() -> APIRouter:
    """Return a router under /_sandbox that asks for `x-sandbox-key`."""
    return APIRouter(prefix="/_sandbox", dependencies=[Depends(_require_key)])


router = switch_router()


@router.post("/faults")
async def add_fault(external: _TheExternal, fault: Fault) -> JSONResponse:
    """Have coming requests go wrong."""
    return JSONResponse(external.faults.add(fault).to_json(), 201)


@router.get("/faults")
async def list_faults(external: _TheExternal, after: After = 0, limit: Limit = KEPT_REQUESTS) -> JSONResponse:
    """Return the faults that still wait for a request."""
    return JSONResponse([waiting.to_json() for waiting in external.faults.waiting if waiting.id > after][:limit])


@router.delete("/faults")
async def clear_faults(external: _TheExternal) -> JSONResponse:
    """Let everything go right again."""
    external.faults.clear()
    return JSONResponse({})


@router.get("/requests")
async def list_requests(
    external: _TheExternal, after: After = 0, limit: Limit = KEPT_REQUESTS, path: str = "", method: str = ""
) -> JSONResponse:
    """Return what was received, oldest first."""
    wanted = [
        entry.to_json()
        for entry in external.requests.entries.after(after, KEPT_REQUESTS)
        if entry.path.startswith(path) and method.upper() in ("", entry.method)
    ]
    return JSONResponse(wanted[:limit])


@router.delete("/requests")
async def forget_requests(external: _TheExternal) -> JSONResponse:
    """Forget what was received."""
    external.requests.entries.clear()
    return JSONResponse({})
