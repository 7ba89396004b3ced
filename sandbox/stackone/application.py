"""Puts the emulator together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import cache

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute

from sandbox import switches
from sandbox.errors import answer_errors_like_stackone
from sandbox.faults import InjectFaults
from sandbox.recording import RecordRequests
from sandbox.stackone import (
    account_routes,
    action_routes,
    auth_config_routes,
    hub_routes,
    link_routes,
    popup_routes,
    session_routes,
    switch_routes,
)
from sandbox.stackone.cors import Cors
from sandbox.stackone.project import Project


def create_stackone(project: Project) -> FastAPI:
    """Return the app that serves a project; the deliverer of webhooks lives as long as the app does."""

    @contextlib.asynccontextmanager
    async def deliver_webhooks(_app: FastAPI) -> AsyncIterator[None]:
        deliverer = asyncio.create_task(project.webhooks.run())
        try:
            yield
        finally:
            deliverer.cancel()
            await asyncio.gather(deliverer, return_exceptions=True)

    app = FastAPI(title="StackOne emulator", openapi_url=None, lifespan=deliver_webhooks)
    app.state.external = project
    answer_errors_like_stackone(app, project.clock)
    app.router.routes.extend(_routes())
    # The last one added is the outermost: a fault's answer has CORS headers and is recorded like any other.
    app.add_middleware(InjectFaults, faults=project.faults, clock=project.clock)
    app.add_middleware(RecordRequests, log=project.requests, clock=project.clock)
    app.add_middleware(Cors)
    return app


@cache
def _routes() -> list[BaseRoute]:
    # FastAPI finds out what a route needs when it is first asked for: once for all projects of a process.
    whole = APIRouter()
    for part in (
        session_routes,
        account_routes,
        action_routes,
        auth_config_routes,
        hub_routes,
        popup_routes,
        link_routes,
    ):
        whole.include_router(part.router)
    whole.include_router(switches.router)
    whole.include_router(switch_routes.router)
    return whole.routes
